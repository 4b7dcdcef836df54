"""When a NIC is asked, and what a try costs: pure functions over the settings."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from ipfetch.configuration import EARLY_RETRY, INTERVAL, MAX_RETRY

FIRST_DELAY = timedelta(seconds=5)


@dataclass(frozen=True)
class Pace:
    """The loop's settings as one pass sees them: read anew for each."""

    interval: timedelta
    max_retry: int
    exact: bool

    @classmethod
    def now(cls) -> Self:
        return cls(timedelta(seconds=INTERVAL.get()), MAX_RETRY.get(), exact=not EARLY_RETRY.get())

    @property
    def early_delays(self) -> list[timedelta]:
        """The waits before the first tries: 5, 10, 20, 40 s ... below the interval; none in exact mode."""
        delays = []
        delay = FIRST_DELAY
        while delay < self.interval and not self.exact:
            delays.append(delay)
            delay *= 2
        return delays

    def delay(self, tries: int) -> timedelta:
        """How long to wait before the next try of a NIC that had `tries`."""
        early = self.early_delays
        return early[tries] if tries < len(early) else self.interval

    @property
    def first_that_counts(self) -> int:
        """The number of tries after which each one spends a retry."""
        return len(self.early_delays)
