"""One pass of the loop: bring the queue up to date, claim what is due, queue one batch an endpoint.

The scheduler runs a pass every minute and the watcher every second; a lock lets one server at a time
do it (external DHCP/DNS spec, "polling in cluster of management servers").
"""

import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import DateTimeField, Exists, F, OuterRef, Q, QuerySet, Value
from django.utils import timezone

from extdhcp_site.jobs import tasks
from extdhcp_site.locks import models as locks
from ipfetch import batches, recording
from ipfetch.models import IpFetch, Outcome
from ipfetch.schedule import EAGER_DELAY, EAGER_FOR, Pace
from networks.models import Endpoint, Nic
from networks.models.vms import VmState

LOCK = "ipfetch-planner"
LARGEST_BATCH = 5_000
ROWS_AT_FIRST = 1_000
MOST_WAITING_BATCHES = 40
RECONCILE_SECONDS = 30.0
RENEW_SECONDS = 1.0

State = IpFetch.State
SETTLED = (State.FOUND, State.EXHAUSTED)
ENDPOINT = "nic__vm__host__endpoint"


@dataclass(frozen=True)
class Batch:
    """Rows of one endpoint, claimed together: `claims` are (row, attempt)."""

    endpoint_id: int
    claims: list[tuple[int, int]]


class Turn:
    """The planner's lock, kept from tick to tick by the process that plans each second."""

    def __init__(self) -> None:
        self._held: locks.Held | None = None
        self._reconciled = 0.0
        self._renewed = 0.0

    def tick(self) -> bool:
        """A pass, if it is this process's turn; the queue is brought up to date with the VMs every half a minute.

        True when there may be more to queue at once: so much was due.
        """
        if not self._renew():
            self._held = locks.acquire(LOCK, _me())
            self._renewed = time.monotonic()
        if self._held is None:
            return False
        now = timezone.now()
        if time.monotonic() - self._reconciled > RECONCILE_SECONDS:
            reconcile(Pace.now(), now)
            self._reconciled = time.monotonic()
        return plan(now, go_on=self._still_ours) >= MOST_WAITING_BATCHES // 2

    def end(self) -> None:
        if self._held:
            self._held.release()
            self._held = None

    def _renew(self) -> bool:
        self._renewed = time.monotonic()
        return self._held is not None and self._held.renew()

    def _still_ours(self) -> bool:
        """Renewed between batches too, so that a long pass does not lose it."""
        return time.monotonic() - self._renewed < RENEW_SECONDS or self._renew()


@tasks.task
def run_pass() -> None:
    """Task: one whole pass, unless another server is at it."""
    turn = Turn()
    try:
        turn.tick()
    finally:
        turn.end()


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def plan(now: datetime, go_on: Callable[[], bool] = lambda: True) -> int:
    """Queue batches of who is due, and give up who is done for; how many batches.

    `go_on` is asked before each batch: whether it is still this server that plans.
    """
    pace = Pace.now()
    _keep_within(pace, now)
    # No more than the readers will soon take: a claim that waits long runs out.
    room = MOST_WAITING_BATCHES - tasks.waiting(tasks.ADDRESSES, timezone.now())
    queued = 0
    doubtful = dict(Endpoint.objects.filter(failures__gt=0).values_list("pk", "retry_at"))
    left_alone = set() if pace.exact else {pk for pk, retry_at in doubtful.items() if retry_at and retry_at > now}
    for (endpoint_id, silent), row_ids in _due_batches(pace, now, left_alone, room).items() if room > 0 else ():
        if not go_on():
            break
        # An endpoint that did not answer is asked by one thread first, not by all that it may have.
        width = batches.SILENT_AT_ONE_HOST if silent or endpoint_id in doubtful else batches.AT_ONE_HOST
        with transaction.atomic():
            batch = claim(row_ids, endpoint_id, pace, now)
            if batch.claims:
                tasks.enqueue(batches.read_batch, endpoint_id, batch.claims, width, queue=tasks.ADDRESSES)
                queued += 1
    return queued


# The queue and the VMs --------------------------------------------------------------------------


def reconcile(pace: Pace, now: datetime) -> None:
    """Bring the queue up to date with what has happened to VMs and endpoints, whoever was there to see it."""
    enter_missing(pace, now)
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
    with connection.cursor() as cursor:
        # Only our own column names and a compiled queryset are put together here.
        cursor.execute(f"INSERT INTO {quote(IpFetch._meta.db_table)} ({names}) {select}", parameters)


def _revive_on_recovered_endpoints(pace: Pace, now: datetime) -> None:
    """An endpoint answers again: who was given up gets all tries anew, who could not be asked is asked now."""
    recovered = Endpoint.objects.filter(pk=OuterRef(f"{ENDPOINT}_id"), up_since__gt=OuterRef("last_attempt_at"))
    since = IpFetch.objects.filter(Exists(recovered))
    begin_anew(since.filter(state=State.EXHAUSTED), pace, now)
    since.waiting().filter(last_outcome=Outcome.HOST_UNREACHABLE, next_attempt_at__gt=now).update(next_attempt_at=now)


def _keep_within(pace: Pace, now: datetime) -> None:
    """Nobody waits longer than the settings say now, however long they said before."""
    waiting = IpFetch.objects.waiting().filter(next_attempt_at__gt=now + pace.interval)
    waiting.update(next_attempt_at=now + pace.interval)
    if pace.refresh:
        IpFetch.objects.settled().filter(next_attempt_at__gt=now + pace.refresh).update(
            next_attempt_at=now + pace.refresh
        )


def begin_anew(rows: QuerySet[IpFetch], pace: Pace, now: datetime) -> int:
    """Give NICs all their tries. The new attempt number shuts out a batch that is still under way."""
    return rows.update(
        state=State.WAITING,
        retries_left=pace.max_retry,
        tries=0,
        next_attempt_at=now + pace.delay(0),
        eager_until=None,
        claimed_until=None,
        last_outcome="",
        last_detail="",
        entered_at=now,
        found_at=None,
        attempt=F("attempt") + 1,
    )


def nudge(vm_uuids: Collection[str], now: datetime, *, eager: bool) -> int:
    """The hypervisor told something of these VMs: their NICs are asked at the next pass, how many; none in exact mode.

    `eager`: their agent has connected, and they are asked each second for a while. Those given up get all tries anew.
    """
    return _nudge(IpFetch.objects.filter(nic__vm__uuid__in=list(vm_uuids)), now, eager=eager)


def nudge_endpoint(endpoint_id: int, now: datetime) -> int:
    """Whatever this endpoint told while nobody listened: all that wait on it are asked at the next pass."""
    return _nudge(IpFetch.objects.waiting().on_endpoint(endpoint_id), now, eager=False)


def _nudge(rows: QuerySet[IpFetch], now: datetime, *, eager: bool) -> int:
    pace = Pace.now()
    if pace.exact:
        return 0
    begin_anew(rows.filter(state=State.EXHAUSTED), pace, now)
    soon: dict[str, object] = {"next_attempt_at": now}
    if eager:
        return rows.exclude(state=State.PAUSED).update(**soon, eager_until=now + EAGER_FOR)
    return rows.waiting().update(**soon)


# Claims -----------------------------------------------------------------------------------------


def claim(row_ids: Collection[int], endpoint_id: int, pace: Pace, now: datetime, *, asked: bool = False) -> Batch:
    """Take those of the rows that are free for one batch, in a transaction.

    A try is spent here, when it is claimed, unless it is an early one. One that a person `asked` for
    neither counts nor puts off the next; neither does one that the hypervisor has pushed.
    """
    # By key alone, and all else is looked at here: whoever has no statistics of the table would walk all that wait.
    locked = IpFetch.objects.select_for_update().filter(pk__in=list(row_ids)).order_by("pk")
    taken: list[tuple[int, int]] = []
    spent: list[int] = []
    groups: dict[_Taking, list[int]] = defaultdict(list)
    for row in locked.only(*_CLAIMED):
        if row.claimed_until and row.claimed_until > now:
            continue
        taking = _Taking.of(row, endpoint_id, pace, now, asked=asked)
        if taking:
            taken.append((row.pk, row.attempt + 1))
            groups[taking].append(row.pk)
        else:
            spent.append(row.pk)
    for taking, ids in groups.items():
        IpFetch.objects.filter(pk__in=ids).update(
            **taking.changes,
            attempt=F("attempt") + 1,
            claimed_until=now + batches.CLAIM_LIFE,
            last_attempt_at=now,
            begun=False,
        )
    if spent:
        recording.exhaust(IpFetch.objects.filter(pk__in=spent), now)
    return Batch(endpoint_id, taken)


_CLAIMED = ["attempt", "state", "tries", "retries_left", "eager_until", "claimed_until", "claim", "begun"]


@dataclass(frozen=True)
class _Taking:
    """What a claim takes from a row, and when the row's turn comes again (None: that stays as it is)."""

    claim: IpFetch.Claim
    tries: int
    retries: int
    next_attempt_at: datetime | None
    puts_off: bool = True

    @classmethod
    def of(cls, row: IpFetch, endpoint_id: int, pace: Pace, now: datetime, *, asked: bool) -> "_Taking | None":
        """None for a row whose last try was lost with its worker: "the count is zero"."""
        Claim = IpFetch.Claim
        if asked:
            return cls(Claim.ASKED, 0, 0, None, puts_off=False)
        eager = not pace.exact and row.eager_until is not None and row.eager_until > now
        if row.state != State.WAITING:
            return cls(Claim.REFRESH, 0, 0, now + EAGER_DELAY if eager else pace.refresh_at(endpoint_id, now))
        if eager:
            return cls(Claim.PUSHED, 0, 0, now + EAGER_DELAY)
        if row.claimed_until and not row.begun and row.claim in (Claim.EARLY, Claim.COUNTED):
            # Nobody came to read it: it is the same try still.
            return cls(Claim(row.claim), 0, 0, now + pace.delay(row.tries))
        if row.tries < pace.first_that_counts:
            return cls(Claim.EARLY, 1, 0, now + pace.delay(row.tries + 1))
        return cls(Claim.COUNTED, 1, 1, now + pace.interval) if row.retries_left else None

    @property
    def changes(self) -> dict[str, object]:
        changes: dict[str, object] = {"claim": self.claim}
        if self.puts_off:
            changes["next_attempt_at"] = self.next_attempt_at
        if self.tries:
            changes["tries"] = F("tries") + self.tries
        if self.retries:
            changes["retries_left"] = F("retries_left") - self.retries
        return changes


# Who is due -------------------------------------------------------------------------------------

Lane = tuple[int, bool]  # an endpoint, and whether its silent guests or the others


def _due_batches(pace: Pace, now: datetime, left_alone: Collection[int], most: int) -> dict[Lane, list[int]]:
    """Endpoints with the due rows of their running VMs, those that wait longest first, at most so many batches.

    Those that wait come before those that are looked at again. One batch an endpoint at a time, and beside it
    one of the guests whose agent hangs: each of these takes seconds, which the others need not wait for. An
    endpoint that does not answer is left alone for a while.
    """
    reachable = _reachable(now, left_alone)
    lanes = _by_lane(reachable, [State.WAITING], now, most)
    if len(lanes) < most and not pace.exact:
        for lane, row_ids in _by_lane(reachable, SETTLED, now, most).items():
            if lane in lanes:
                lanes[lane] += row_ids
            elif len(lanes) < most:
                lanes[lane] = row_ids
    return {lane: row_ids[:LARGEST_BATCH] for lane, row_ids in lanes.items()}


def _by_lane(due: QuerySet[IpFetch], states: Collection[str], now: datetime, most: int) -> dict[Lane, list[int]]:
    columns = (f"{ENDPOINT}_id", "last_outcome", "pk", "nic__vm__state")
    looked_at = list(due.filter(state__in=states).values_list(*columns)[:ROWS_AT_FIRST])
    first = [of_row for *of_row, vm_state in looked_at if vm_state == VmState.RUNNING]
    lanes: dict[Lane, list[int]] = {}
    for endpoint_id, outcome, _ in first:
        if len(lanes) < most:
            lanes.setdefault((endpoint_id, outcome == Outcome.AGENT_SILENT), [])
    # Perhaps there are more: all that the chosen endpoints have, so that it makes few large batches.
    rows = first if len(looked_at) < ROWS_AT_FIRST else _all_due({endpoint_id for endpoint_id, _ in lanes}, states, now)
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


def _reachable(now: datetime, left_alone: Collection[int]) -> QuerySet[IpFetch]:
    """What is due where no batch is under way and nobody has just been found silent."""
    silent = Q(last_outcome=Outcome.AGENT_SILENT)
    busy, busy_with_silent = set(), set()
    claimed = IpFetch.objects.claimed(now).order_by().values_list(f"{ENDPOINT}_id", "last_outcome").distinct()
    for endpoint_id, outcome in claimed:
        (busy_with_silent if outcome == Outcome.AGENT_SILENT else busy).add(endpoint_id)
    due = IpFetch.objects.due(now)
    if busy:
        due = due.exclude(~silent, **{f"{ENDPOINT}__in": busy})
    if busy_with_silent:
        due = due.exclude(silent, **{f"{ENDPOINT}__in": busy_with_silent})
    if left_alone:
        due = due.exclude(**{f"{ENDPOINT}__in": left_alone})
    return due
