"""Ask now, in this process, for the addresses of the NICs that somebody chose."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime

from django.db import connections, transaction
from django.db.models import Q, QuerySet

from ipfetch import batches
from ipfetch.configuration import MAX_THREADS
from ipfetch.models import IpFetch
from ipfetch.planner import Batch, claim, enter_missing
from ipfetch.schedule import Pace


def waiting(now: datetime) -> QuerySet[IpFetch]:
    """All NICs that wait for an address, those that were never in the queue included."""
    enter_missing(Pace.now(), now)
    return IpFetch.objects.waiting()


def run_now(rows: QuerySet[IpFetch], now: datetime, done: Callable[[IpFetch], None]) -> list[int]:
    """Read the rows that no batch holds, all endpoints at a time; `done` hears of each result. Gives their keys.

    A try that a person asks for is not counted.
    """
    pace = Pace.now()
    batches_ = list(_claim_all(rows, pace, now))
    with ThreadPoolExecutor(max_workers=MAX_THREADS.get()) as pool:
        for finished in as_completed([pool.submit(_read, batch, done) for batch in batches_]):
            finished.result()
    return [row_id for batch in batches_ for row_id, _ in batch.claims]


def _claim_all(rows: QuerySet[IpFetch], pace: Pace, now: datetime) -> Iterator[Batch]:
    free = rows.filter(Q(claimed_until=None) | Q(claimed_until__lte=now)).exclude(nic__vm__host=None)
    for endpoint_id in free.order_by().values_list("nic__vm__host__endpoint_id", flat=True).distinct():
        with transaction.atomic():
            yield claim(free.on_endpoint(endpoint_id), endpoint_id, pace, now, counted=False)


def _read(batch: Batch, done: Callable[[IpFetch], None]) -> None:
    try:
        batches.read(batch.endpoint_id, batch.claims, done=done)
    finally:
        connections.close_all()
