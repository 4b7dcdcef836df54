"""Listen to the hypervisors and plan every second, so that addresses are learned seconds after the lease."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

from extdhcp_site.connections import keep_connections
from ipfetch.watcher import Watcher


class Command(BaseCommand):
    help = (
        "Listen to what the hypervisors tell of their VMs, plan every second instead of every minute, and take up "
        "the jobs of dead workers sooner. Run one or more: all listen, and a lock lets one plan at a time."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        keep_connections()
        watcher = Watcher()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: watcher.stop())
        watcher.run()
