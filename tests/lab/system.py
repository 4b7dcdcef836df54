"""Programs, processes and patience: what every part of the lab needs of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_BEGAN = time.monotonic()


class LabError(Exception):
    """The lab could not be brought up, or something in it did not happen; the text says what."""


def say(text: str) -> None:
    print(f"lab [{time.monotonic() - _BEGAN:5.1f} s] {text}", file=sys.stderr, flush=True)


def run(*argv: str | Path, **options) -> str:
    """Run a program to its end and return what it printed. Raises LabError with what it complained of."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, **options)
    if done.returncode:
        raise LabError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait_for(what: str, condition: Callable[[], T], seconds: float) -> T:
    """The first true value of `condition`, or LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"Waited {seconds:.0f} s in vain for {what}.")
        time.sleep(0.1)
    return value


@dataclass(frozen=True)
class Process:
    """A process of ours. The start time tells it from a later one that was given the same number."""

    name: str
    pid: int
    started: int  # clock ticks since the machine's boot

    @classmethod
    def spawn(cls, name: str, argv: Iterable[str | Path], log: Path) -> "Process":
        """Start a program in a session of its own; it outlives us. Programs that replace themselves keep the id."""
        words = [str(word) for word in argv]
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        pid = os.posix_spawnp(words[0], words, os.environ, file_actions=files, setsid=True)
        return cls(name, pid, _stat(pid)[1])

    @classmethod
    def found(cls, name: str, pid: int) -> "Process | None":
        """The process that now has this id, if there is one."""
        state, started = _stat(pid)
        return None if state == "Z" else cls(name, pid, started)

    def is_alive(self) -> bool:
        state, started = _stat(self.pid)
        return started == self.started and state != "Z"

    def signal(self, number: int) -> None:
        if self.is_alive():
            os.kill(self.pid, number)


def end(processes: Iterable[Process], patience: float = 5) -> None:
    """End processes and wait until they are gone: asked first, killed when they do not obey."""
    remaining = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in remaining:
            process.signal(number)
        deadline = time.monotonic() + patience
        while (remaining := [p for p in remaining if p.is_alive()]) and time.monotonic() < deadline:
            time.sleep(0.05)
    if remaining:
        raise LabError(f"Will not end: {', '.join(f'{p.name} ({p.pid})' for p in remaining)}")


def _stat(pid: int) -> tuple[str, int]:
    """State and start time of a process (proc(5), /proc/PID/stat, fields 3 and 22); ("Z", 0) when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "Z", 0
    return fields[0], int(fields[19])
