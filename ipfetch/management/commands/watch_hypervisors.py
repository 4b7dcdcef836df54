"""Tick the planner every second, so that addresses are learned seconds after the lease."""

import signal
import threading
import time
from typing import Any

import structlog
from django.core.management.base import BaseCommand
from django.db import DatabaseError, close_old_connections
from django.utils import timezone

from extdhcp_site.jobs import services as jobs
from ipfetch import planner

log = structlog.get_logger(__name__)

LOST_JOBS_EVERY = 10.0


class Command(BaseCommand):
    help = (
        "Run a planner pass every second instead of every minute, and take up the jobs of dead workers sooner. "
        "Run one or more; a lock lets one work at a time."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        look_for_lost_jobs_at = 0.0
        while not stop.wait(1.0):
            close_old_connections()
            try:
                planner.run_pass()
                if time.monotonic() >= look_for_lost_jobs_at:
                    look_for_lost_jobs_at = time.monotonic() + LOST_JOBS_EVERY
                    jobs.requeue_lost(timezone.now())
            except DatabaseError:
                # It may be away for a while; the next tick finds all that is due.
                log.exception("The database did not take a pass.")
