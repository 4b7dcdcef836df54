"""What the overview says of addresses: how many are known, who waits and why, how long it takes, what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max, Sum
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.kept import kept
from extdhcp_site.console.panels import Panel
from ipfetch import counts
from ipfetch.counts import Bin
from ipfetch.models import IpFetch, Outcome, Sweep

LABELS = {
    IpFetch.State.EXHAUSTED: "Given up",
    IpFetch.State.WAITING: "Waiting",
    IpFetch.State.PAUSED: "Paused",
    IpFetch.State.FOUND: "Found",
    counts.OFF: "Not asked",
}
SWEEPS_SHOWN = timedelta(hours=3)
MINUTES_IN_TABLE = 30


@dataclass(frozen=True)
class Bar:
    """A number as a bar: `percent` of the longest. `query` is that of the list of NICs behind it."""

    label: str
    count: int
    percent: float
    query: str


def _bars(bins: Sequence[tuple[Bin, int]], query: str) -> list[Bar]:
    longest = max((count for _, count in bins), default=0) or 1
    return [Bar(each.label, count, round(100 * count / longest, 1), f"{query}={each.key}") for each, count in bins]


def addresses(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    by_state = counts.by_state(caller)
    reasons = counts.reasons(caller)
    longest = max((count for _, count in reasons), default=0) or 1
    return {
        "numbers": [(state, label, by_state.get(state, 0)) for state, label in LABELS.items()],
        "total": sum(by_state.values()),
        "reasons": [
            Bar(
                Outcome(outcome).label if outcome else "Not tried yet",
                count,
                round(100 * count / longest, 1),
                f"outcome={outcome or 'none'}",
            )
            for outcome, count in reasons
        ],
    }


def waiting(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    waited, left = counts.waiting(caller)
    return {
        "total": sum(count for _, count in waited),
        "waited": _bars(waited, "state=waiting&waited"),
        "left": _bars(left, "state=waiting&left"),
    }


def took(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    bins = counts.took(caller)
    return {
        "bars": _bars(bins, "state=found&took"),
        "total": sum(count for _, count in bins),
        "sample": counts.SAMPLE,
    }


# Sweeps -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Minute:
    """What all processes have read in a minute; `slowest` in seconds."""

    at: datetime
    batches: int
    nics: int
    found: int
    failed: int
    slowest: float


def sweeps(caller: Caller, query: Mapping[str, str]) -> dict[str, object] | None:
    """Root admins see what reading costs."""
    return _sweeps(caller) if caller.is_root else None


@kept
def _sweeps(caller: Caller) -> dict[str, object]:
    recent = Sweep.objects.filter(at__gt=timezone.now() - SWEEPS_SHOWN).order_by("at")
    columns = {name: Sum(name) for name in ("batches", "nics", "found", "failed")}
    rows = recent.values_list("at").annotate(*columns.values(), Max("slowest"))
    minutes = [Minute(*row) for row in rows]
    hour = [minute for minute in minutes if minute.at > timezone.now() - timedelta(hours=1)]
    return {
        "minutes": minutes[::-1][:MINUTES_IN_TABLE],
        "nics": sum(minute.nics for minute in hour),
        "found": sum(minute.found for minute in hour),
        "failed": sum(minute.failed for minute in hour),
        "slowest": max((minute.slowest for minute in hour), default=0.0),
        "chart": {
            "x": [int(minute.at.timestamp()) for minute in minutes],
            "lines": [
                {"label": "NICs asked", "values": [minute.nics for minute in minutes], "scale": "y"},
                {"label": "of them known", "values": [minute.found for minute in minutes], "scale": "y"},
                {"label": "slowest (s)", "values": [round(minute.slowest, 2) for minute in minutes], "scale": "s"},
            ],
        },
    }


PANELS = [
    Panel("Addresses", "ipfetch/addresses_panel.html", addresses, order=10),
    Panel("Waiting for an address", "ipfetch/waiting_panel.html", waiting, order=20, is_half=True),
    Panel("From start to address", "ipfetch/took_panel.html", took, order=21, is_half=True),
    Panel("Sweeps", "ipfetch/sweeps_panel.html", sweeps, order=50),
]
