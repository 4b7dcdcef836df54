"""What a process and all that it started have used, from /proc."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """`root` and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid, fields in _stats():
        children.setdefault(int(fields[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of a tree, with that of its members which have ended and were waited for."""
    used = 0
    for pid in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used += sum(int(ticks) for ticks in _fields(pid)[11:15])
    return used / TICKS


def peak_mb(root: int) -> float:
    """The most memory that any one process of a tree has held (resident), of those that run now."""
    most = 0
    for pid in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{pid}/status").read_text()
            # A zombie has none.
            most = max([most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))])
    return most / 1024


def _stats() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(path.name), _fields(int(path.name))


def _fields(pid: int) -> list[str]:
    """Of /proc/<pid>/stat, those after the name: state, parent, ... (proc(5), counted from 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
