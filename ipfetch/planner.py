"""One pass of the loop: bring the queue up to date, claim what is due, queue one batch an endpoint.

The scheduler runs a pass every minute and the watcher every second; a lock lets one server at a time
do it (external DHCP/DNS spec, "polling in cluster of management servers").
"""

import os
import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Case, DateTimeField, Expression, F, IntegerField, Q, QuerySet, Value, When
from django.utils import timezone

from extdhcp_site.jobs import tasks
from extdhcp_site.locks import models as locks
from ipfetch import batches
from ipfetch.models import IpFetch
from ipfetch.schedule import Pace
from networks.models import Nic
from networks.models.vms import VmState

LOCK = "ipfetch-planner"
LARGEST_BATCH = 500
MOST_ROWS_A_PASS = 10_000
MOST_WAITING_BATCHES = 20


@dataclass(frozen=True)
class Batch:
    """Rows of one endpoint, claimed together: `claims` are (row, attempt)."""

    endpoint_id: int
    claims: list[tuple[int, int]]


@tasks.task
def run_pass() -> None:
    """Task: one pass, unless another server is at it."""
    lock = locks.acquire(LOCK, f"{socket.gethostname()}:{os.getpid()}")
    if lock is None:
        return
    try:
        plan(timezone.now(), go_on=lock.renew)
    finally:
        lock.release()


def plan(now: datetime, go_on: Callable[[], bool] = lambda: True) -> int:
    """Bring in who is missing, give up who is done for, queue batches of who is due; how many NICs were claimed.

    `go_on` is asked before each batch: whether it is still this server that plans.
    """
    pace = Pace.now()
    enter_missing(pace, now)
    exhaust_spent(now)
    claimed = 0
    for endpoint_id, row_ids in _due_by_endpoint(now).items():
        if tasks.waiting(tasks.ADDRESSES, now) >= MOST_WAITING_BATCHES or not go_on():
            # A claim that waits long for its reader would run out, and its try be lost.
            break
        with transaction.atomic():
            batch = claim(IpFetch.objects.due(now).filter(pk__in=row_ids), endpoint_id, pace, now)
            if batch.claims:
                tasks.enqueue(batches.read_batch, endpoint_id, batch.claims, queue=tasks.ADDRESSES)
        claimed += len(batch.claims)
    return claimed


def enter_missing(pace: Pace, now: datetime) -> None:
    """INSERT ... SELECT the running eligible NICs that have no row: all that a restart or take-over needs."""
    columns = {
        "nic_id": F("pk"),
        "state": Value(IpFetch.State.WAITING),
        "retries_left": Value(pace.max_retry),
        "tries": Value(0),
        "next_attempt_at": Value(now + pace.delay(0), DateTimeField()),
        "attempt": Value(0),
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


def exhaust_spent(now: datetime) -> None:
    """Give up NICs whose last try died with its worker ("the count is zero")."""
    for row in IpFetch.objects.due(now).filter(retries_left=0).select_related("nic__vm__account"):
        batches.exhaust(row)


def claim(rows: QuerySet[IpFetch], endpoint_id: int, pace: Pace, now: datetime, *, asked: bool = False) -> Batch:
    """Take those of `rows` that are free for one batch, in a transaction.

    A try is spent here, when it is claimed, unless it is an early one. One that a person `asked` for
    neither counts nor puts off the next.
    """
    ids = list(rows.values_list("pk", flat=True))
    # Under the rows' locks, and asked again: another planner may have taken some since.
    locked = IpFetch.objects.select_for_update().free(now).filter(pk__in=ids).order_by("pk")
    mine = IpFetch.objects.filter(pk__in=list(locked.values_list("pk", flat=True)))
    held = {"attempt": F("attempt") + 1, "claimed_until": now + batches.CLAIM_LIFE, "last_attempt_at": now}
    if asked:
        mine.update(claim=IpFetch.Claim.ASKED, **held)
    else:
        mine.update(**_spending(pace, now), **held)
    return Batch(endpoint_id, list(mine.values_list("pk", "attempt")))


def _spending(pace: Pace, now: datetime) -> dict[str, Expression]:
    """What a claim takes. `tries` stands last: MariaDB sets columns one after the other, from those already set."""
    counts = Q(tries__gte=pace.first_that_counts)
    waits = [
        When(tries=tries, then=Value(now + pace.delay(tries + 1), DateTimeField()))
        for tries in range(pace.first_that_counts)
    ]
    left = F("retries_left")
    return {
        "claim": Case(When(counts, then=Value(IpFetch.Claim.COUNTED)), default=Value(IpFetch.Claim.EARLY)),
        "retries_left": Case(
            When(counts & Q(retries_left__gt=0), then=left - 1), default=left, output_field=IntegerField()
        ),
        "next_attempt_at": Case(
            *waits, default=Value(now + pace.interval, DateTimeField()), output_field=DateTimeField()
        ),
        "tries": F("tries") + 1,
    }


def _due_by_endpoint(now: datetime) -> dict[int, list[int]]:
    """Due rows of running VMs, by the endpoints that have no batch under way."""
    endpoint = "nic__vm__host__endpoint_id"
    busy = IpFetch.objects.claimed(now).exclude(nic__vm__host=None).order_by().values_list(endpoint, flat=True)
    due = IpFetch.objects.due(now).filter(nic__vm__state=VmState.RUNNING)
    rows = due.exclude(nic__vm__host__endpoint__in=set(busy)).values_list(endpoint, "pk")[:MOST_ROWS_A_PASS]
    grouped: dict[int, list[int]] = defaultdict(list)
    for endpoint_id, row_id in rows:
        if len(grouped[endpoint_id]) < LARGEST_BATCH:
            grouped[endpoint_id].append(row_id)
    return grouped
