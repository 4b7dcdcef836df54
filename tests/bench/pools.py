"""Addresses of 10,000 VMs of one vCenter or one XenServer pool, simulated, each of whose calls takes 20 ms longer.

The product's planner and batches, in a process of its own on SQLite, beside the hypervisor's own library: what it
needs to receive and parse the same answers, and to make a call for each VM. Rounds are interleaved, and the figures
are medians of what each round gives, so that a busy machine slows both alike.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from extdhcp_site.processes import die_with_parent
from tests.bench.pools_library import World
from tests.bench.pools_simulators import SIMULATORS, Simulator
from tests.server import ROOT, Server
from tests.simulators.vcenter import VcenterMissing

VMS = 10_000
ROUNDS = 3

stderr = Console(stderr=True)


def measure(name: str, vms: int = VMS, rounds: int = ROUNDS) -> dict[str, float]:
    """Figures of "vcenter" or "xenserver": calls, seconds, and ratios to the library. Nothing without a simulator."""
    try:
        with TemporaryDirectory(prefix="bench-") as directory, SIMULATORS[name](vms) as simulator:
            return _measure(Path(directory), simulator, vms, rounds)
    except VcenterMissing as error:
        _say(f"{error} Its figures are left out.")
        return {}


def _measure(directory: Path, simulator: Simulator, vms: int, rounds: int) -> dict[str, float]:
    server = Server(directory / "state", directory / "var", ALLOW_TEST_HYPERVISOR="true")
    server.prepare()
    file = directory / "world.json"
    World(simulator.kind, simulator.address).write(file)
    # The simulator writes its answers for the first time, and it is told which VMs there are.
    _library("whole", file)
    assert len(World.read(file).guests) == vms
    server.run("-m", "tests.bench.pools_world", "make", str(file))
    measured = [_round(server, simulator, file) for _ in range(rounds)]
    one_by_one = _library("each", file)["seconds"]
    figures = {figure: median(of_round[figure] for of_round in measured) for figure in measured[0]}
    return figures | {"speedup_10k": one_by_one / figures["wall_10k_s"], "one_by_one_10k_s": one_by_one}


def _round(server: Server, simulator: Simulator, file: Path) -> dict[str, float]:
    simulator.count_calls()
    with _passing(server, file) as process:
        first, calls = _next_pass(process, simulator)
        second, calls_of_second = _next_pass(process, simulator)
    library = _library("whole", file)
    _say(
        f"{simulator.kind}: {calls} calls, {_told(first)}; then {calls_of_second}, {_told(second)}; "
        f"library {_told(library)}; load {os.getloadavg()[0]:.1f}"
    )
    return {
        "calls_10k": calls,
        "wall_over_library_10k": first["seconds"] / library["seconds"],
        "second_pass_s": second["seconds"],
        "second_pass_calls": calls_of_second,
        "wall_10k_s": first["seconds"],
        "library_10k_s": library["seconds"],
    }


@contextmanager
def _passing(server: Server, file: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.pools_world", "passes", str(file)],
        cwd=ROOT,
        env={**os.environ, **server.environment, "DJANGO_SETTINGS_MODULE": "extdhcp_site.settings"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(server.state / "passes.log").open("w"),
        text=True,
        preexec_fn=die_with_parent,
    )
    with process:
        yield process
    assert process.returncode == 0, f"The passes failed: {(server.state / 'passes.log').read_text()[-2000:]}"


def _next_pass(process: subprocess.Popen[str], simulator: Simulator) -> tuple[dict[str, float], int]:
    """What it took, and how many calls it made."""
    assert process.stdin is not None
    assert process.stdout is not None
    took = json.loads(process.stdout.readline() or "null")
    calls = simulator.count_calls()
    if took is not None:
        process.stdin.write("\n")
        process.stdin.flush()
    return took, calls


def _library(step: str, file: Path) -> dict[str, float]:
    """In a process of its own: what it has parsed goes with it."""
    command = [sys.executable, "-m", "tests.bench.pools_library", step, str(file)]
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    seconds: dict[str, float] = json.loads(done.stdout)
    return seconds


def _told(took: dict[str, Any]) -> str:
    return f"{took['seconds']:.2f} s with {took['cpu_seconds']:.2f} s of CPU"


def _say(text: str) -> None:
    stderr.print(f"  {text}", highlight=False)
