"""When a NIC is asked, and what a try costs: pure functions over the settings."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self

from extdhcp_site.configuration.models import values_of
from ipfetch.configuration import EARLY_RETRY, INTERVAL, MAX_RETRY, REFRESH_INTERVAL

FIRST_DELAY = timedelta(seconds=5)
# A guest whose agent has just connected is about to have its address.
EAGER_FOR = timedelta(seconds=30)
EAGER_DELAY = timedelta(seconds=1)
EAGER_REST = timedelta(minutes=5)

TURNS = 30  # of the endpoints, in one refresh interval
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Pace:
    """The loop's settings as one pass sees them: read anew for each. `refresh` is None when nothing is re-read."""

    interval: timedelta
    max_retry: int
    exact: bool
    refresh: timedelta | None = None

    @classmethod
    def now(cls) -> Self:
        interval, max_retry, early, refresh = values_of(INTERVAL, MAX_RETRY, EARLY_RETRY, REFRESH_INTERVAL)
        refreshes = early and refresh > 0
        return cls(timedelta(seconds=interval), max_retry, not early, timedelta(seconds=refresh) if refreshes else None)

    @cached_property
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

    def refresh_at(self, endpoint_id: int, now: datetime) -> datetime | None:
        """When the NICs of an endpoint are next read again.

        All of one endpoint at the same moment, so that they make one batch; the endpoints in turns, spread evenly
        over the interval (multiples of the golden ratio never crowd). A turn takes many endpoints: each by itself
        would find caches and connections cold, and cost more than twice as much.
        """
        if self.refresh is None:
            return None
        seconds = self.refresh.total_seconds()
        phase = int(endpoint_id * _GOLDEN % 1 * TURNS) / TURNS * seconds
        rounds = (now.timestamp() - phase) // seconds + 1
        return datetime.fromtimestamp(rounds * seconds + phase, UTC)

    @property
    def stale_after(self) -> timedelta:
        """How long what one source said outweighs what a lesser one has said since."""
        return max(timedelta(minutes=10), 2 * (self.refresh or timedelta()))
