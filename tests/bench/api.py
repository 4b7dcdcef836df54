"""The API at scale: pages out of 100,000 VMs with 1.2 NICs each, and deploys, on SQLite and on a private MariaDB.

A page is asked of the view, in one process, beside bare SQL that fetches the same rows and columns by the same
joins and writes them down as JSON (`api_floor`): a ratio, so that a busy machine slows both alike. Deploys go by
HTTP to the web server as `manage.py serve` starts it, while nothing works on them; what they left is counted.
"""

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from extdhcp_site.processes import die_with_parent
from tests.bench import mariadb
from tests.bench.discovery import DATABASES
from tests.server import ROOT, Server

VMS = 100_000
ROUNDS = 21
DEPLOYS = 2000
CLIENTS = 8
STOP_SECONDS = 30.0
READY_SECONDS = 30.0

stderr = Console(stderr=True)


def measure(vms: int = VMS, rounds: int = ROUNDS, deploys: int = DEPLOYS) -> dict[str, float]:
    """Ratios, counts of queries, and deploys a second: of two databases the worse figure, where one has no name."""
    by_database: dict[str, dict[str, float]] = {}
    for name, database in DATABASES.items():
        try:
            with TemporaryDirectory(prefix="bench-") as directory, database(Path(directory)) as url:
                server = Server(
                    Path(directory) / "state", Path(directory) / "var", DATABASE_URL=url, BENCH_VMS=str(vms)
                )
                _say(f"{name}: making {vms} VMs")
                server.prepare()
                _step(server, "make")
                by_database[name] = _step(server, "pages", str(rounds))
                by_database[name]["deploys_per_s"] = _deploys_per_s(server, deploys)
        except mariadb.MariadbMissing as error:
            _say(f"{error} Its figures are left out.")
            continue
        _say(f"{name}: {by_database[name]}; load {os.getloadavg()[0]:.1f}")
    return _figures(by_database)


def _figures(by_database: dict[str, dict[str, float]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for figure in ("page_over_sql", "page_ms", "deploys_per_s"):
        figures |= {f"{figure}_{name}": of[figure] for name, of in by_database.items()}
    for figure in ("last_over_first", "page_queries", "list_one_queries", "listnics_queries"):
        figures[figure] = max(of[figure] for of in by_database.values())
    return figures | {"deploys_per_s": min(of["deploys_per_s"] for of in by_database.values())}


def _deploys_per_s(server: Server, count: int) -> float:
    """From the first request to the last answer. Raises CalledProcessError when a VM is missing, or is there twice."""
    requests = _step(server, "deploys", str(count))
    port = _free_port()
    log = (server.state / "web.log").open("ab")
    web = subprocess.Popen(
        _step(server, "web", str(port)),
        cwd=ROOT,
        env={**os.environ, **server.environment},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        _wait_until_ready(port)
        shares = [requests[client::CLIENTS] for client in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            began = time.monotonic()
            answers = [answer for share in clients.map(lambda share: _send(port, share), shares) for answer in share]
            took = time.monotonic() - began
    finally:
        web.terminate()
        web.wait(STOP_SECONDS)
    written = _step(server, "deployed")
    assert written == dict(answers), "What was answered is not what was written."
    assert len(written) == count, f"Of {count} deploys {len(written)} were written."
    return count / took


def _send(port: int, requests: Sequence[str]) -> list[tuple[str, str]]:
    """One client on one connection: the VM and the job of each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    answers = []
    for request in requests:
        connection.request("GET", f"/client/api?{request}")
        answer = json.load(connection.getresponse())["deployvirtualmachineresponse"]
        answers.append((answer["id"], answer["jobid"]))
    connection.close()
    return answers


def _wait_until_ready(port: int) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while True:
        try:
            # Each web process loads what it needs at its first requests.
            for _ in range(CLIENTS * 2):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/client/api?command=listZones&response=json")
                connection.getresponse().read()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def _step(server: Server, name: str, *arguments: str) -> Any:
    return json.loads(server.run("-m", "tests.bench.api_world", name, *arguments).splitlines()[-1])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(text: str) -> None:
    stderr.print(text, highlight=False)
