"""Address discovery at scale: 100,000 NICs over 1,000 endpoints, with hypervisors that answer at once.

The real planner (`watch_hypervisors`) and a real task cluster, in processes of their own, on SQLite and on a
private MariaDB. A pass is timed from its first claim to its last result; what it wrote is counted after it.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from extdhcp_site.processes import die_with_parent
from tests.bench import mariadb, processes
from tests.server import ROOT, Server

HOSTS = 1000
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.bench.settings"}
PERCENTS = {"10pct": 10, "all": 100}
# The product has one worker process for addresses; the target is set for two.
WORKERS = {"": 2, "_one_worker": 1}
IDLE_ON = "sqlite"
STOP_SECONDS = 30.0
IDLE_SECONDS = 600.0
# Until the processes have loaded what they need, and the first round of each periodic task is over.
SETTLING_SECONDS = 75.0
# A refresh may come later than its second by a tick, its batch and the other endpoints' before it.
MOST_LATE_SECONDS = 30.0

stderr = Console(stderr=True)


def measure(hosts: int = HOSTS, idle_seconds: float = IDLE_SECONDS) -> dict[str, float]:
    """Seconds a pass by database and share of NICs found, megabytes, and percent of a core when nothing changes."""
    figures: dict[str, float] = {}
    peaks = []
    for name in DATABASES:
        try:
            with _world(name, hosts) as server:
                for (key, percent), (suffix, workers) in product(PERCENTS.items(), WORKERS.items()):
                    seconds, peak = _pass(server, f"{name}, {workers} workers, {percent} % found", percent, workers)
                    figures[f"pass_100k_{key}_{name}{suffix}_s"] = seconds
                    peaks.append(peak)
                if name == IDLE_ON:
                    # After a pass in which all were found.
                    figures["idle_core_percent"] = _idle(server, idle_seconds)
        except mariadb.MariadbMissing as error:
            _say(f"{error} Its figures are left out.")
    return figures | {"pass_100k_peak_mb": max(peaks)}


@contextlib.contextmanager
def _world(name: str, hosts: int) -> Iterator[Server]:
    """A server that does not run yet, on a database of its own, with all its VMs. Raises MariadbMissing."""
    with TemporaryDirectory(prefix="bench-") as directory, DATABASES[name](Path(directory)) as url:
        environment = {**SETTINGS, "DATABASE_URL": url, "BENCH_HOSTS": str(hosts)}
        server = Server(Path(directory) / "state", Path(directory) / "var", **environment)
        _say(f"{name}: making the VMs of {hosts} hosts")
        server.prepare()
        _step(server, "make")
        yield server


@contextlib.contextmanager
def _sqlite(directory: Path) -> Iterator[str]:
    yield f"sqlite:///{directory / 'extdhcp.sqlite3'}"


@contextlib.contextmanager
def _mariadb(directory: Path) -> Iterator[str]:
    directory.chmod(0o711)  # the server runs as another user, who has to pass
    with mariadb.private_server(directory / "mariadb") as url:
        yield url


DATABASES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"sqlite": _sqlite, "mariadb": _mariadb}


def _pass(server: Server, what: str, percent: int, workers: int) -> tuple[float, float]:
    """Seconds that one pass took, and the megabytes of its largest process. Raises CalledProcessError."""
    _step(server, "wait")
    answers = {"BENCH_FOUND_PERCENT": str(percent), "BENCH_ADDRESS_WORKERS": str(workers)}
    with (
        _running(server, "qcluster", Q_CLUSTER_NAME="addresses", **answers) as cluster,
        _running(server, "watch_hypervisors", **answers) as watcher,
    ):
        ended = _step(server, "follow")
        peak = max(processes.peak_mb(process.pid) for process in (cluster, watcher))
        cpu = [processes.cpu_seconds(process.pid) for process in (cluster, watcher)]
    _say(
        f"{what}: {ended['seconds']:.1f} s in {ended['batches']:.0f} batches, {peak:.0f} MB, "
        f"cluster {cpu[0]:.1f} s and watcher {cpu[1]:.1f} s of CPU; load {os.getloadavg()[0]:.1f}"
    )
    _step(server, "check", str(percent))
    return ended["seconds"], peak


def _idle(server: Server, seconds: float) -> float:
    """Percent of one core that the whole server uses while every NIC is found, and refreshed when it is due."""
    server.start()
    try:
        time.sleep(SETTLING_SECONDS)
        before, began = processes.cpu_seconds(server.pid), time.monotonic()
        time.sleep(seconds)
        used, took = processes.cpu_seconds(server.pid) - before, time.monotonic() - began
    finally:
        server.stop()
    refreshed = _step(server, "refreshed", str(seconds))
    assert refreshed["late_seconds"] < MOST_LATE_SECONDS, f"The refreshes are late: {refreshed}"
    _say(f"idle: {used:.1f} s of CPU in {took:.0f} s; {refreshed}; load {os.getloadavg()[0]:.1f}")
    return 100 * used / took


@contextlib.contextmanager
def _running(server: Server, command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    log = (server.state / f"{command}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "manage.py", command],
        cwd=ROOT,
        env={**os.environ, **server.environment, **environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield process
        assert process.poll() is None, f"{command} ended: {Path(log.name).read_text()[-2000:]}"
    finally:
        # A task cluster whose members are all signalled at once never ends: its main process alone.
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _step(server: Server, *step: str) -> Any:
    return json.loads(server.run("-m", "tests.bench.worlds", *step, **SETTINGS))


def _say(text: str) -> None:
    stderr.print(f"  {text}")
