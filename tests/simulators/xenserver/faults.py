"""What goes wrong on purpose: delays, failures, hostile answers, and something that happens in between."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable

from .errors import XenError
from .hostile import Hostile, silence

ALL = ""


class Faults:
    """By message name, as the client sends it (`Async.VM.start`); ALL stands for every message.

    A raw import is the message `PUT /import_raw_vdi`, an export `GET /export_raw_vdi`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self._delays: dict[str, float] = {}
        self._failures: defaultdict[str, list[XenError]] = defaultdict(list)
        self._answers: dict[str, Hostile] = {}
        self._happenings: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)
        self.tls_is_silent = False

    def delay(self, seconds: float, name: str = ALL) -> None:
        """Have each call wait before it is looked at."""
        self._delays[name] = seconds

    def fail_next(self, name: str, code: str, *parameters: str) -> None:
        """Have the next call of `name` fail; of several that are said, one after the other."""
        self._failures[name].append(XenError(code, *parameters))

    def answer(self, name: str, hostile: Hostile) -> None:
        """Have each call of `name` answered like that."""
        self._answers[name] = hostile

    def hang(self, name: str) -> None:
        self.answer(name, silence)

    def before(self, name: str, happening: Callable[[], object]) -> None:
        """Have something happen before the next call of `name` is looked at: a VM deleted during a read."""
        self._happenings[name].append(happening)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            for kept in (self._delays, self._failures, self._answers, self._happenings):
                kept.clear()
            self.tls_is_silent = False

    # What the server asks

    def seconds(self, name: str) -> float:
        return self._delays.get(name, self._delays.get(ALL, 0.0))

    def hostile(self, name: str) -> Hostile | None:
        return self._answers.get(name, self._answers.get(ALL))

    def count(self, name: str) -> None:
        with self._lock:
            self.calls[name] += 1

    def happen(self, name: str) -> None:
        """Raises the XenError that was asked for."""
        with self._lock:
            happenings = self._happenings.pop(name, [])
            failures = self._failures[name]
            failure = failures.pop(0) if failures else None
        for happening in happenings:
            happening()
        if failure is not None:
            raise failure
