"""What is wrong now: each watch tells all of its problems, every minute, so that nothing is lost with a process."""

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.utils import timezone

from extdhcp_site.alerts import mail, services
from extdhcp_site.alerts.configuration import PURGE_DELAY
from extdhcp_site.alerts.services import Domain, Problem
from extdhcp_site.jobs import tasks
from extdhcp_site.locks import models as locks

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Watch:
    """`problems` gives, from the database or this machine and soon, all the problems there are in `domain`."""

    domain: Domain
    problems: Callable[[], Iterable[Problem]]


_watches: list[Watch] = []


def register(watch: Watch) -> None:
    """From an AppConfig.ready()."""
    _watches.append(watch)


@tasks.task
def look() -> None:
    """Task, every minute: what is wrong and what is so no more; then those mails that are due.

    One server of the farm at a time looks.
    """
    lock = locks.acquire("alerts", f"{socket.gethostname()}:{os.getpid()}")
    if lock is not None:
        try:
            for watch in _watches:
                if not lock.renew():
                    break
                look_at(watch, timezone.now())
        finally:
            lock.release()
        if kept_for := PURGE_DELAY.get():
            services.purge(timezone.now() - timedelta(seconds=kept_for))
    mail.send_due(timezone.now())


def look_at(watch: Watch, now: datetime) -> None:
    """A watch that fails leaves its alerts as they are, and the others to be looked at."""
    try:
        problems = list(watch.problems())
    except Exception:
        log.exception("A watch failed.", about=watch.domain.subject_kind)
        return
    services.settle(watch.domain, problems, now)
