"""Ask now, in this process, for the addresses of the NICs that somebody chose."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime

from django.db import IntegrityError, connections, transaction
from django.db.models import QuerySet

from ipfetch import batches
from ipfetch.configuration import MAX_THREADS
from ipfetch.models import IpFetch
from ipfetch.planner import ENDPOINT, Batch, claim, enter_missing
from ipfetch.schedule import Pace


def queue(now: datetime) -> QuerySet[IpFetch]:
    """All NICs of running VMs that are to have an address, those that were never in the queue included."""
    with contextlib.suppress(IntegrityError), transaction.atomic():
        enter_missing(Pace.now(), now)  # another process may be entering them at this moment
    return IpFetch.objects.all()


def run_now(rows: QuerySet[IpFetch], now: datetime, done: Callable[[int], None]) -> list[int]:
    """Read the rows that no batch holds, all endpoints at a time, and give their keys.

    `done` hears how many more are read, as they are.
    """
    claimed = list(_claim_all(rows, Pace.now(), now))
    readers = max(1, MAX_THREADS.get() // batches.MOST_AT_ONE_HOST)
    with ThreadPoolExecutor(max_workers=readers) as pool:
        for finished in as_completed([pool.submit(_read, batch, done) for batch in claimed]):
            finished.result()
    return [row_id for batch in claimed for row_id, _ in batch.claims]


def _claim_all(rows: QuerySet[IpFetch], pace: Pace, now: datetime) -> Iterator[Batch]:
    by_endpoint: dict[int, list[int]] = defaultdict(list)
    on_hosts = rows.exclude(nic__vm__host=None).order_by()
    for endpoint_id, row_id in on_hosts.values_list(f"{ENDPOINT}_id", "pk"):
        by_endpoint[endpoint_id].append(row_id)
    for endpoint_id, row_ids in by_endpoint.items():
        with transaction.atomic():
            yield claim(row_ids, endpoint_id, pace, now, asked=True)


def _read(batch: Batch, done: Callable[[int], None]) -> None:
    try:
        batches.read(batch.endpoint_id, batch.claims, done=done)
    finally:
        connections.close_all()
