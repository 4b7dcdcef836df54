"""The console at scale: pages out of 100,000 VMs, against the same page with nothing on it.

Each is asked for in one process by the same client, in turns, so that a busy machine slows all alike.
"""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from tests.bench import mariadb
from tests.bench.discovery import DATABASES
from tests.server import Server

VMS = 100_000
ROUNDS = 15
RATIOS = ("dashboard_over_shell", "nics_over_shell", "vms_over_shell")

stderr = Console(stderr=True)


def measure(vms: int = VMS, rounds: int = ROUNDS) -> dict[str, float]:
    """Ratios, a count of queries, and KiB; of two databases the worse, where a figure has no name."""
    by_database: dict[str, dict[str, float]] = {}
    for name, database in DATABASES.items():
        try:
            with TemporaryDirectory(prefix="bench-") as directory, database(Path(directory)) as url:
                server = Server(
                    Path(directory) / "state", Path(directory) / "var", DATABASE_URL=url, BENCH_VMS=str(vms)
                )
                stderr.print(f"{name}: making {vms} VMs", highlight=False)
                server.prepare()
                _step(server, "api_world", "make")
                _step(server, "console_world", "make")
                by_database[name] = _step(server, "console_world", "pages", str(rounds))
        except mariadb.MariadbMissing as error:
            stderr.print(f"{error} Its figures are left out.", highlight=False)
            continue
        stderr.print(f"{name}: {by_database[name]}; load {os.getloadavg()[0]:.1f}", highlight=False)
    return _figures(by_database)


def _figures(by_database: dict[str, dict[str, float]]) -> dict[str, float]:
    figures = {name: max(of[name] for of in by_database.values()) for name in (*RATIOS, "dashboard_queries")}
    for name, of in by_database.items():
        figures |= {f"{ratio}_{name}": of[ratio] for ratio in RATIOS} | {f"dashboard_ms_{name}": of["dashboard_ms"]}
    return figures | {"first_load_kb": max(of["first_load_kb"] for of in by_database.values())}


def _step(server: Server, module: str, *arguments: str) -> Any:
    printed = server.run("-m", f"tests.bench.{module}", *arguments).splitlines()
    return json.loads(printed[-1]) if arguments[0] != "make" else None
