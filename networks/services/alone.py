"""Periodic tasks that one server of the farm does at a time."""

import functools
import os
import socket
from collections.abc import Callable

from extdhcp_site.locks import models as locks
from extdhcp_site.locks.models import Held
from networks.hypervisors.base import heartbeat


def alone(task: Callable[[Held], None]) -> Callable[[], None]:
    """Give `task` a lock that it renews between its steps, or do nothing while another server has it.

    The lock lasts as long as hypervisors' calls come back: a dead host costs its time-out, not the lock.
    """

    @functools.wraps(task)
    def run() -> None:
        lock = locks.acquire(f"{task.__module__}.{task.__qualname__}", f"{socket.gethostname()}:{os.getpid()}")
        if lock is None:
            return
        try:
            with heartbeat(lock.renew):
                task(lock)
        finally:
            lock.release()

    return run
