"""One pass of the loop: bring the queue up to date, claim what is due, queue one batch an endpoint.

The scheduler runs a pass every minute and the watcher every second; a lock lets one server at a time
do it (external DHCP/DNS spec, "polling in cluster of management servers").
"""

import contextlib
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from django.db import IntegrityError, connection, transaction
from django.db.models import DateTimeField, Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Concat
from django.utils import timezone

from extdhcp_site.bulk import Keys
from extdhcp_site.deadlocks import repeated
from extdhcp_site.jobs import tasks
from extdhcp_site.locks import models as locks
from ipfetch import batches, recording
from ipfetch.models import IpFetch, Outcome
from ipfetch.schedule import EAGER_DELAY, EAGER_FOR, EAGER_REST, Pace
from ipfetch.writing.bulk import batched
from ipfetch.writing.queue import exhaust
from networks.models import Endpoint, Nic
from networks.models.vms import VmState

LOCK = "ipfetch-planner"
# A pool or a vCenter tells of all its VMs at once: one call for all of them, and not one for each batch.
LARGEST_BATCH = 10_000
USUAL_BATCH = 100
BATCHES_A_TASK = 8
MOST_WAITING_BATCHES = 40
MOST_DOUBTFUL = 4
RECONCILE_SECONDS = 30.0
RENEW_SECONDS = 3.0
PASS_SECONDS = 50.0
# When so much was due that the readers' queue is full, and the pass goes on.
MORE_AFTER_SECONDS = 0.2

State = IpFetch.State
SETTLED = (State.FOUND, State.EXHAUSTED)
ENDPOINT = "nic__vm__host__endpoint"


Lane = tuple[int, bool]  # an endpoint, and whether its silent guests or the others


class Turn:
    """The planner's lock, kept from tick to tick by the process that plans each second."""

    def __init__(self) -> None:
        self._held: locks.Held | None = None
        self._pace: Pace | None = None
        self._reconciled = 0.0
        self._renewed = 0.0

    def tick(self) -> bool:
        """A pass, if it is this process's turn; the queue is brought up to date with the VMs every half a minute,
        and when a setting has changed.

        True when there may be more to queue as soon as the readers have taken some.
        """
        if not self._still_ours():
            self._held = locks.acquire(LOCK, _me())
            self._renewed = time.monotonic()
        if self._held is None:
            return False
        pace, now = Pace.now(), timezone.now()
        if pace != self._pace or time.monotonic() - self._reconciled > RECONCILE_SECONDS:
            reconcile(pace, now)
            self._pace, self._reconciled = pace, time.monotonic()
        return plan(now, go_on=self._still_ours)

    def end(self) -> None:
        if self._held:
            self._held.release()
            self._held = None

    def _still_ours(self) -> bool:
        """Renewed every few seconds, between batches too, so that a long pass does not lose it."""
        if self._held is None or time.monotonic() - self._renewed < RENEW_SECONDS:
            return self._held is not None
        self._renewed = time.monotonic()
        return self._held.renew()


@tasks.task
def run_pass() -> None:
    """Task: one whole pass, unless another server is at it: until nobody is due, or the next pass comes."""
    turn, until = Turn(), time.monotonic() + PASS_SECONDS
    try:
        while turn.tick() and time.monotonic() < until:
            time.sleep(MORE_AFTER_SECONDS)
    finally:
        turn.end()


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def plan(now: datetime, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Queue batches of who is due, and give up who is done for; whether there was no room for more.

    `go_on` is asked before each batch: whether it is still this server that plans.
    """
    pace = Pace.now()
    if not pace.exact:
        _ask_lost_again(now)
    if not IpFetch.objects.due(now).filter(state__in=[State.WAITING, *SETTLED]).exists():
        return False
    # No more than the readers will soon take: a claim that waits long runs out.
    room = MOST_WAITING_BATCHES - BATCHES_A_TASK * tasks.waiting(tasks.ADDRESSES, timezone.now())
    queued = 0
    doubtful = dict(Endpoint.objects.filter(failures__gt=0).values_list("pk", "retry_at"))
    resting = set() if pace.exact else {pk for pk, retry_at in doubtful.items() if retry_at and retry_at > now}
    lanes = _due_batches(pace, now, doubtful, resting, room) if room > 0 else {}
    # Small batches cost less than the tasks that bring them: some make one.
    for some in batched(lanes.items(), BATCHES_A_TASK):
        if not go_on():
            break
        queued += repeated(partial(_queue, dict(some), doubtful, pace, now))
    return queued >= room


def _queue(lanes: Mapping[Lane, list[int]], doubtful: Collection[int], pace: Pace, now: datetime) -> int:
    """Claim rows and queue the task that reads them, both or neither; how many batches they make."""
    endpoints = {row_id: endpoint_id for (endpoint_id, _), row_ids in lanes.items() for row_id in row_ids}
    queued: list[batches.Batch] = []
    with transaction.atomic():
        attempts = claim(endpoints, pace, now)
        for (endpoint_id, silent), row_ids in lanes.items():
            claims = [(row_id, attempts[row_id]) for row_id in row_ids if row_id in attempts]
            # An endpoint that did not answer is asked by one thread first, not by all that it may have.
            width = batches.SILENT_AT_ONE_HOST if silent or endpoint_id in doubtful else batches.AT_ONE_HOST
            if claims:
                queued.append((endpoint_id, claims, width))
        if queued:
            tasks.enqueue(batches.read_batches, *queued, queue=tasks.ADDRESSES)
    return len(queued)


# The queue and the VMs --------------------------------------------------------------------------


def reconcile(pace: Pace, now: datetime) -> None:
    """Bring the queue up to date with what has happened to VMs and endpoints, whoever was there to see it."""
    enter_missing(pace, now)
    recording.withdraw_ended(now)
    _bring_forward(pace, now)
    if not pace.exact:
        _revive_on_recovered_endpoints(pace, now)
    if pace.refresh:
        # They were settled while nothing was re-read.
        IpFetch.objects.settled().filter(next_attempt_at=None).update(next_attempt_at=now)


def enter_missing(pace: Pace, now: datetime) -> None:
    """INSERT ... SELECT the running eligible NICs that have no row: all that a restart or take-over needs."""
    columns = {
        "nic_id": F("pk"),
        "state": Value(IpFetch.State.WAITING),
        "retries_left": Value(pace.max_retry),
        "tries": Value(0),
        "next_attempt_at": Value(now + pace.delay(0), DateTimeField()),
        "scheduled_at": Value(now + pace.delay(0), DateTimeField()),
        "attempt": Value(0),
        "begun": Value(False),
        "claim": Value(""),
        "last_outcome": Value(""),
        "last_source": Value(""),
        "last_detail": Value(""),
        "entered_at": Value(now, DateTimeField()),
    }
    missing = Nic.objects.external_dhcp().filter(vm__state=VmState.RUNNING, ip_fetch=None).order_by()
    # Named apart from the NIC's own columns, which an annotation may not be called like.
    chosen = missing.values_list(*columns.values())
    select, parameters = chosen.query.sql_with_params()
    quote = connection.ops.quote_name
    names = ", ".join(quote(name) for name in columns)
    # Another process may be entering some of them at this moment: then the next pass enters the others.
    with contextlib.suppress(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        # Only our own column names and a compiled queryset are put together here.
        cursor.execute(f"INSERT INTO {quote(IpFetch._meta.db_table)} ({names}) {select}", parameters)


def _revive_on_recovered_endpoints(pace: Pace, now: datetime) -> None:
    """An endpoint answers again: who was given up gets all tries anew, who could not be asked is asked now."""
    recovered = Endpoint.objects.filter(pk=OuterRef(f"{ENDPOINT}_id"), up_since__gt=OuterRef("last_attempt_at"))
    IpFetch.objects.filter(Exists(recovered), state=State.EXHAUSTED).begin_anew(pace, now)
    unasked = IpFetch.objects.waiting().filter(last_outcome=Outcome.HOST_UNREACHABLE, next_attempt_at__gt=now)
    unasked.filter(**{f"{ENDPOINT}__failures": 0}).update_by_key(next_attempt_at=now)


def _bring_forward(pace: Pace, now: datetime) -> None:
    """Nobody waits longer than the settings say now, however long they said before."""
    latest = now + pace.interval
    IpFetch.objects.waiting().filter(next_attempt_at__gt=latest).update(next_attempt_at=latest, scheduled_at=latest)
    if pace.refresh:
        latest = now + pace.refresh
        IpFetch.objects.settled().filter(next_attempt_at__gt=latest).update(next_attempt_at=latest)


def _ask_lost_again(now: datetime) -> None:
    """Who was lost with the server that asked is asked at once, but once only: it may be what the server died of."""
    lost = IpFetch.objects.filter(claimed_until__lte=now, next_attempt_at__gt=now)
    lost.exclude(claim=IpFetch.Claim.PUSHED).update(next_attempt_at=now)


def nudge(vm_uuids: Collection[str], now: datetime, *, eager: bool) -> None:
    """The hypervisor told something of these VMs: their NICs are asked at the next pass. Nothing in exact mode.

    `eager`: their agent has connected, and they are asked each second for a while; those given up get all tries
    anew. Not again within minutes: a guest may connect and disconnect without end.
    """
    pace, rows = Pace.now(), IpFetch.objects.filter(nic__vm__uuid__in=list(vm_uuids))
    if pace.exact:
        return
    if not eager:
        rows.waiting().filter(next_attempt_at__gt=now).update_by_key(next_attempt_at=now)
        return
    rested = rows.filter(Q(eager_until=None) | Q(eager_until__lt=now - EAGER_REST)).exclude(state=State.PAUSED)
    row_ids = list(rested.values_list("pk", flat=True))
    IpFetch.objects.filter(pk__in=row_ids, state=State.EXHAUSTED).begin_anew(pace, now)
    IpFetch.objects.filter(pk__in=row_ids).update(next_attempt_at=now, eager_until=now + EAGER_FOR)


def nudge_endpoints(endpoint_ids: Collection[int], now: datetime) -> None:
    """Whatever these endpoints told while nobody listened: all that wait on them are asked at the next pass."""
    if not Pace.now().exact:
        waiting = IpFetch.objects.waiting().filter(**{f"{ENDPOINT}__in": list(endpoint_ids)}, next_attempt_at__gt=now)
        waiting.update_by_key(next_attempt_at=now)


# Claims -----------------------------------------------------------------------------------------


def claim(endpoints: Mapping[int, int], pace: Pace, now: datetime, *, asked: bool = False) -> dict[int, int]:
    """Take those of the rows that are free, in a transaction; `endpoints` has each row's, the result its attempt.

    A try is spent here, when it is claimed, unless it is an early one. One that a person `asked` for
    neither counts nor puts off the next; neither does one that the hypervisor has pushed.
    """
    # By key alone, and all else is looked at here: whoever has no statistics of the table would walk all that wait.
    locked = IpFetch.objects.select_for_update().filter(pk__among=Keys(endpoints)).order_by("pk")
    taken: dict[int, int] = {}
    spent: list[int] = []
    groups: dict[_Taking, list[int]] = defaultdict(list)
    for row in map(_Row._make, locked.values_list(*_Row._fields)):
        if row.claimed_until and row.claimed_until > now:
            continue
        taking = _Taking.of(row, endpoints[row.pk], pace, now, asked=asked)
        if taking:
            taken[row.pk] = row.attempt + 1
            groups[taking].append(row.pk)
        else:
            spent.append(row.pk)
    for taking, ids in groups.items():
        IpFetch.objects.filter(pk__among=Keys(ids)).update(
            **taking.changes,
            attempt=F("attempt") + 1,
            claimed_until=now + batches.CLAIM_LIFE,
            last_attempt_at=now,
            begun=False,
        )
    if spent:
        exhaust(IpFetch.objects.filter(pk__in=spent), now)
    return taken


class _Row(NamedTuple):
    """What a claim looks at."""

    pk: int
    attempt: int
    state: str
    tries: int
    retries_left: int
    next_attempt_at: datetime | None
    scheduled_at: datetime | None
    eager_until: datetime | None
    claimed_until: datetime | None
    claim: str
    begun: bool


@dataclass(frozen=True)
class _Taking:
    """What a claim takes from a row, and when its turn comes again. None: that stays as it is."""

    claim: IpFetch.Claim
    next_attempt_at: datetime | None
    scheduled_at: datetime | None = None
    tries: int = 0
    retries: int = 0

    @classmethod
    def of(cls, row: _Row, endpoint_id: int, pace: Pace, now: datetime, *, asked: bool) -> "_Taking | None":
        """None for a row whose last try was lost with its worker: "the count is zero"."""
        Claim = IpFetch.Claim
        if asked:
            return cls(Claim.ASKED, row.next_attempt_at)
        soon = now + EAGER_DELAY if not pace.exact and row.eager_until and row.eager_until > now else None
        was_lost = row.claimed_until is not None
        if row.state != State.WAITING:
            return cls(Claim.PUSHED if was_lost else Claim.REFRESH, soon or pace.refresh_at(endpoint_id, now))
        if was_lost and not row.begun and row.claim in (Claim.EARLY, Claim.COUNTED):
            # Nobody came to read it: it is the same try still.
            return cls(Claim(row.claim), soon or row.scheduled_at or now + pace.interval)
        if row.scheduled_at and row.scheduled_at > now:
            return cls(Claim.PUSHED, soon or row.scheduled_at)
        if row.tries < pace.first_that_counts:
            following = now + pace.delay(row.tries + 1)
            return cls(Claim.EARLY, soon or following, following, tries=1)
        following = now + pace.interval
        return cls(Claim.COUNTED, soon or following, following, tries=1, retries=1) if row.retries_left else None

    @property
    def changes(self) -> dict[str, object]:
        changes: dict[str, object] = {"claim": self.claim, "next_attempt_at": self.next_attempt_at}
        if self.scheduled_at:
            changes["scheduled_at"] = self.scheduled_at
        if self.tries:
            changes["tries"] = F("tries") + self.tries
        if self.retries:
            changes["retries_left"] = F("retries_left") - self.retries
        return changes


# Who is due -------------------------------------------------------------------------------------


def _due_batches(
    pace: Pace, now: datetime, doubtful: Collection[int], resting: Collection[int], most: int
) -> dict[Lane, list[int]]:
    """Endpoints with the due rows of their running VMs, those that wait longest first, at most so many batches.

    Those that wait come before those that are looked at again. One batch an endpoint at a time, and beside it one
    of the guests whose agent hangs: each of these takes seconds, which the others need not wait for. Of the
    `doubtful` endpoints, which did not answer the last time, a few at a time and after all others; of those that
    are `resting`, none.
    """
    busy = _busy(now)
    due = _free(now, busy)
    sound = due.exclude(**{f"{ENDPOINT}__in": doubtful}) if doubtful else due
    lanes = _by_lane(sound, [State.WAITING], now, most)
    if len(lanes) < most and not pace.exact:
        for lane, row_ids in _by_lane(sound, SETTLED, now, most).items():
            if lane in lanes:
                lanes[lane] += row_ids
            elif len(lanes) < most:
                lanes[lane] = row_ids
    asked_again = [endpoint_id for endpoint_id in doubtful if endpoint_id not in resting]
    at_work = len({endpoint_id for endpoint_id, _ in busy if endpoint_id in doubtful})
    room = min(most - len(lanes), MOST_DOUBTFUL - at_work)
    if asked_again and room > 0:
        states = [State.WAITING] if pace.exact else [State.WAITING, *SETTLED]
        lanes |= _by_lane(due.filter(**{f"{ENDPOINT}__in": asked_again}), states, now, room)
    return {lane: row_ids[:LARGEST_BATCH] for lane, row_ids in lanes.items()}


def _by_lane(due: QuerySet[IpFetch], states: Collection[str], now: datetime, most: int) -> dict[Lane, list[int]]:
    # Not the column itself: by its index SQLite would begin with all VMs that run.
    running = due.alias(vm_state=Concat("nic__vm__state", Value(""))).filter(vm_state=VmState.RUNNING, state__in=states)
    at_first = most * USUAL_BATCH
    first = list(running.values_list(f"{ENDPOINT}_id", "last_outcome", "pk")[:at_first])
    lanes: dict[Lane, list[int]] = {}
    for endpoint_id, outcome, _ in first:
        if len(lanes) < most:
            lanes.setdefault((endpoint_id, outcome == Outcome.AGENT_SILENT), [])
    # Perhaps there are more: all that the chosen endpoints have, so that it makes few large batches.
    rows = first if len(first) < at_first else _all_due({endpoint_id for endpoint_id, _ in lanes}, states, now)
    for endpoint_id, outcome, row_id in rows:
        lane = endpoint_id, outcome == Outcome.AGENT_SILENT
        if lane in lanes:
            lanes[lane].append(row_id)
    return lanes


def _all_due(endpoint_ids: Collection[int], states: Collection[str], now: datetime) -> list[tuple[int, str, int]]:
    """By endpoint alone, and the rest is looked at here: a database without statistics of its tables would begin
    with all that wait anywhere."""
    rows = IpFetch.objects.filter(**{f"{ENDPOINT}__in": endpoint_ids}).order_by()
    columns = (f"{ENDPOINT}_id", "last_outcome", "pk", "nic__vm__state", "state", "next_attempt_at", "claimed_until")
    return [
        (endpoint_id, outcome, pk)
        for endpoint_id, outcome, pk, vm_state, state, next_attempt_at, claimed_until in rows.values_list(*columns)
        if vm_state == VmState.RUNNING
        and state in states
        and next_attempt_at is not None
        and next_attempt_at <= now
        and (claimed_until is None or claimed_until <= now)
    ]


def _busy(now: datetime) -> set[Lane]:
    """Where a batch is under way."""
    claimed = IpFetch.objects.claimed(now).order_by().values_list(f"{ENDPOINT}_id", "last_outcome").distinct()
    return {(endpoint_id, outcome == Outcome.AGENT_SILENT) for endpoint_id, outcome in claimed}


def _free(now: datetime, busy: Collection[Lane]) -> QuerySet[IpFetch]:
    """What is due where no batch is under way."""
    due, is_silent = IpFetch.objects.due(now), Q(last_outcome=Outcome.AGENT_SILENT)
    for silent in (True, False):
        if endpoint_ids := [endpoint_id for endpoint_id, of_silent in busy if of_silent == silent]:
            due = due.exclude(is_silent if silent else ~is_silent, **{f"{ENDPOINT}__in": endpoint_ids})
    return due
