"""`make bench`: what the product costs, as figures in tests/bench/results.json and a table.

`make bench ONLY=configdrive` measures one part and keeps what was measured of the others.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import api, configdrive, console, discovery, latency, open_page, pools

RESULTS = Path(__file__).with_name("results.json")

# A part's key in the results, and what measures it: its figures by name.
PARTS: dict[str, Callable[[], Mapping[str, float]]] = {
    "configdrive": configdrive.measure,
    "discovery": lambda: {**discovery.measure(), **latency.measure()},
    "api": api.measure,
    "console": lambda: {**console.measure(), **open_page.measure()},
    "vcenter": lambda: pools.measure("vcenter"),
    "xenserver": lambda: pools.measure("xenserver"),
}

progress = Console(stderr=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("only", nargs="?", choices=PARTS, help="the part to measure; all of them without it")
    only = parser.parse_args(arguments).only
    for part in [only] if only else PARTS:
        with progress.status(f"Measuring {part} ..."):
            figures = PARTS[part]()
        results = record(RESULTS, part, figures)
    Console().print(table(results))


def record(path: Path, part: str, figures: Mapping[str, float]) -> dict[str, Any]:
    """Write one part's figures into the results, beside those of the others, and return all of them.

    `commit` and `date` are those of the last measurement; `measured` has each part's own.
    """
    now = {"commit": _commit(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    results = json.loads(path.read_text()) if path.exists() else {}
    measured = results.get("measured", {}) | {part: now}
    # Four significant digits: what is behind them changes from run to run.
    rounded = {name: float(f"{figure:.4g}") for name, figure in figures.items()}
    results = results | now | {"measured": measured, part: rounded}
    path.write_text(json.dumps(results, indent=2) + "\n")
    return results


def table(results: Mapping[str, Any]) -> Table:
    result = Table("Part", "Figure", "", "Measured", title="Benchmarks")
    result.columns[2].justify = "right"
    for part, when in results["measured"].items():
        for number, (name, figure) in enumerate(results[part].items()):
            first = (part, f"{when['date'][:10]} {when['commit'][:7]}") if number == 0 else ("", "")
            result.add_row(first[0], name, f"{figure:g}", first[1])
        result.add_section()
    return result


def _commit() -> str:
    """The commit that is checked out; there is none in an unpacked archive."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True)
    return git.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
