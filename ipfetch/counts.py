"""How many NICs are in which state, wait how long, took how long: each number with the filter of the list behind it.

A number and its list come from the same bins, so that they agree.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.kept import kept
from ipfetch.models import IpFetch
from networks.models import Nic
from networks.models.vms import NicQuerySet, VmState

State = IpFetch.State
# Not a state of the queue: the NIC has no row in it.
OFF = "off"
GONE = (VmState.DESTROYED, VmState.EXPUNGING)
NOT_FOUND = (State.WAITING, State.EXHAUSTED, State.PAUSED)
# How many NICs the time to an address is taken from: the newest whose address is known.
SAMPLE = 1000


@dataclass(frozen=True)
class Bin:
    """From `least` up to, but not including, `below`; None: without a limit."""

    key: str
    label: str
    least: timedelta | int | None
    below: timedelta | int | None

    def has(self, value: timedelta | int) -> bool:
        return (self.least is None or value >= self.least) and (self.below is None or value < self.below)


def _ages(*limits: tuple[str, timedelta]) -> tuple[Bin, ...]:
    """Bins between these limits, with one below and one above them."""
    first, last = limits[0], limits[-1]
    between = (
        _named(f"{words} to {next_words}", least, below)
        for (words, least), (next_words, below) in itertools.pairwise(limits)
    )
    return _named(f"under {first[0]}", None, first[1]), *between, _named(f"over {last[0]}", last[1], None)


def _named(label: str, least: timedelta | None, below: timedelta | None) -> Bin:
    return Bin(label.replace(" ", "-"), label, least, below)


WAITED = _ages(
    ("1 min", timedelta(minutes=1)),
    ("10 min", timedelta(minutes=10)),
    ("1 h", timedelta(hours=1)),
    ("1 d", timedelta(days=1)),
)
TOOK = _ages(
    ("10 s", timedelta(seconds=10)),
    ("30 s", timedelta(seconds=30)),
    ("1 min", timedelta(minutes=1)),
    ("5 min", timedelta(minutes=5)),
    ("30 min", timedelta(minutes=30)),
)
LEFT = (
    Bin("0", "none left", None, 1),
    Bin("1-2", "1 or 2", 1, 3),
    Bin("3-5", "3 to 5", 3, 6),
    Bin("6-9", "6 to 9", 6, 10),
    Bin("10-", "10 and more", 10, None),
)


def choices(bins: Sequence[Bin]) -> list[tuple[str, str]]:
    return [(each.key, each.label) for each in bins]


def _bin(bins: Sequence[Bin], key: str) -> Bin:
    return next(each for each in bins if each.key == key)


# Lists ----------------------------------------------------------------------------------------------


def by_waited(nics: NicQuerySet, key: str, now: datetime) -> NicQuerySet:
    """NICs that wait, for as long as the bin says."""
    return nics.filter(_entered(_bin(WAITED, key), now, "ip_fetch__"), ip_fetch__state=State.WAITING)


def by_left(nics: NicQuerySet, key: str) -> NicQuerySet:
    """NICs that wait, with as many counted tries left as the bin says."""
    return nics.filter(_left(_bin(LEFT, key), "ip_fetch__"), ip_fetch__state=State.WAITING)


def by_took(nics: NicQuerySet, key: str, caller: Caller) -> NicQuerySet:
    """Of the newest NICs whose address is known, those that took as long as the bin says."""
    wanted = _bin(TOOK, key)
    return nics.filter(pk__in=[nic_id for nic_id, took in _sample(caller) if wanted.has(took)])


def _entered(wanted: Bin, now: datetime, prefix: str = "") -> Q:
    # Who waits longer has entered earlier.
    limits = Q()
    if isinstance(wanted.least, timedelta):
        limits &= Q(**{f"{prefix}entered_at__lte": now - wanted.least})
    if isinstance(wanted.below, timedelta):
        limits &= Q(**{f"{prefix}entered_at__gt": now - wanted.below})
    return limits


def _left(wanted: Bin, prefix: str = "") -> Q:
    limits = Q()
    if wanted.least is not None:
        limits &= Q(**{f"{prefix}retries_left__gte": wanted.least})
    if wanted.below is not None:
        limits &= Q(**{f"{prefix}retries_left__lt": wanted.below})
    return limits


def _sample(caller: Caller) -> list[tuple[int, timedelta]]:
    # Not by the state, whose index would have all that are found put in order first.
    found = IpFetch.objects.visible_to(caller).filter(found_at__isnull=False).order_by("-pk")
    rows = found.values_list("nic_id", "entered_at", "found_at", "state")[:SAMPLE]
    return [(nic_id, found_at - entered_at) for nic_id, entered_at, found_at, state in rows if state == State.FOUND]


# Numbers --------------------------------------------------------------------------------------------


@kept
def by_state(caller: Caller) -> Mapping[str, int]:
    """NICs of each state, `OFF` for those that are not asked. Those of destroyed VMs have left the queue."""
    nics = Nic.objects.visible_to(caller)
    counts = dict(IpFetch.objects.visible_to(caller).order_by().values_list("state").annotate(Count("pk")))
    there = nics.count() - nics.filter(vm__state__in=GONE).count()
    return {**counts, OFF: max(there - sum(counts.values()), 0)}


@kept
def waiting(caller: Caller) -> tuple[list[tuple[Bin, int]], list[tuple[Bin, int]]]:
    """The NICs that wait, by how long they have and by how many tries they have left."""
    now = timezone.now()
    bins = {
        **{f"waited_{number}": _entered(each, now) for number, each in enumerate(WAITED)},
        **{f"left_{number}": _left(each) for number, each in enumerate(LEFT)},
    }
    rows = IpFetch.objects.visible_to(caller).waiting().order_by()
    counts = rows.aggregate(**{name: Count("pk", filter=condition) for name, condition in bins.items()})
    waited = [(each, counts[f"waited_{number}"]) for number, each in enumerate(WAITED)]
    return waited, [(each, counts[f"left_{number}"]) for number, each in enumerate(LEFT)]


@kept
def took(caller: Caller) -> list[tuple[Bin, int]]:
    """How long the newest NICs took from their VM's start to a known address."""
    counts = Counter(next(each.key for each in TOOK if each.has(took)) for _, took in _sample(caller))
    return [(each, counts[each.key]) for each in TOOK]


@kept
def reasons(caller: Caller) -> list[tuple[str, int]]:
    """The outcomes of NICs that have no address, with how many of them there are, the most frequent first."""
    missing = IpFetch.objects.visible_to(caller).filter(state__in=NOT_FOUND).order_by()
    counted = missing.values_list("last_outcome").annotate(Count("pk"))
    return sorted(counted, key=lambda pair: -pair[1])
