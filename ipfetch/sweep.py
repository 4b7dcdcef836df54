"""Ask now, in this process, for the addresses of the NICs that somebody chose."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime

from django.db import connections, transaction
from django.db.models import QuerySet
from django.utils import timezone

from extdhcp_site.deadlocks import repeated
from ipfetch import batches, planner
from ipfetch.configuration import MAX_THREADS
from ipfetch.models import IpFetch
from ipfetch.schedule import Pace

POLL_SECONDS = 0.2

Done = Callable[[int], None]


def queue(now: datetime) -> QuerySet[IpFetch]:
    """All NICs of running VMs that are to have an address, those that were never in the queue included."""
    planner.enter_missing(Pace.now(), now)
    return IpFetch.objects.all()


def run_now(rows: QuerySet[IpFetch], now: datetime, done: Done) -> list[int]:
    """Ask for `rows`, all endpoints at a time, and give the keys of those whose VM is on a host.

    Those that were given up get all their tries anew: a person wants their address. Where a batch is asking already,
    its answer is waited for. `done` hears how many more have been answered, as they are.
    """
    pace = Pace.now()
    by_endpoint: dict[int, list[int]] = defaultdict(list)
    on_hosts = rows.exclude(nic__vm__host=None).order_by()
    for endpoint_id, row_id in on_hosts.values_list(f"{planner.ENDPOINT}_id", "pk"):
        by_endpoint[endpoint_id].append(row_id)
    chosen = [row_id for row_ids in by_endpoint.values() for row_id in row_ids]
    on_hosts.filter(state=IpFetch.State.EXHAUSTED).begin_anew(pace, now)
    readers = max(1, MAX_THREADS.get() // batches.AT_ONE_HOST)
    with ThreadPoolExecutor(max_workers=readers) as pool:
        asking = [pool.submit(_ask, *of_one, pace, done) for of_one in by_endpoint.items()]
        for finished in as_completed(asking):
            finished.result()
    return chosen


def _ask(endpoint_id: int, row_ids: Collection[int], pace: Pace, done: Done) -> None:
    try:
        answered = _wait_until_free(endpoint_id) & set(row_ids)
        done(len(answered))
        # Only now that they can be read: a claim does not last long.
        attempts = repeated(lambda: _claim(set(row_ids) - answered, endpoint_id, pace))
        batches.read(endpoint_id, list(attempts.items()), done=done)
    finally:
        connections.close_all()


def _claim(row_ids: Collection[int], endpoint_id: int, pace: Pace) -> dict[int, int]:
    with transaction.atomic():
        return planner.claim(dict.fromkeys(row_ids, endpoint_id), pace, timezone.now(), asked=True)


def _wait_until_free(endpoint_id: int) -> set[int]:
    """Until no batch asks guests there, so that no host is asked more at a time than it may be; whom these had."""
    asked: set[int] = set()
    give_up = time.monotonic() + batches.BATCH_LIFE.total_seconds()
    while time.monotonic() < give_up:
        held = IpFetch.objects.on_endpoint(endpoint_id).claimed(timezone.now())
        if not (now_held := set(held.values_list("pk", flat=True))):
            break
        asked |= now_held
        time.sleep(POLL_SECONDS)
    return asked
