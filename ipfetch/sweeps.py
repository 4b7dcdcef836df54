"""How long reading addresses takes, and what comes of it: added up in memory, written once a minute by each process."""

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ipfetch.models import Sweep

KEPT = timedelta(days=1)


@dataclass(frozen=True)
class _Minute:
    at: datetime
    batches: int = 0
    nics: int = 0
    found: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


_lock = threading.Lock()
_open: _Minute | None = None


def note(nics: int, found: int, seconds: float, now: datetime, *, answered: bool) -> None:
    """One batch has come to its end. What a process that dies has not written yet is lost."""
    global _open
    at = now.replace(second=0, microsecond=0)
    with _lock:
        ended = _open if _open and _open.at != at else None
        minute = _open if _open and _open.at == at else _Minute(at)
        _open = replace(
            minute,
            batches=minute.batches + 1,
            nics=minute.nics + nics,
            found=minute.found + found,
            failed=minute.failed + (not answered),
            seconds=minute.seconds + seconds,
            slowest=max(minute.slowest, seconds),
        )
    if ended:
        _write(ended)


def _write(minute: _Minute) -> None:
    Sweep.objects.create(**vars(minute))
    Sweep.objects.filter(at__lt=minute.at - KEPT).delete()
