"""What may stand in the task queue: functions marked with @task, called with numbers only.

django-q resolves any importable name that a row holds, so the broker checks every row against this
list before a worker sees it.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db.models import Min
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule
from django_q.tasks import async_task

type_of_argument = int | Sequence

ADDRESSES = "addresses"
# Between a job's moment of queueing and its task's row, in one transaction.
MADE_WITHIN = timedelta(seconds=5)

log = structlog.get_logger(__name__)

_tasks: dict[str, Callable] = {}
_schedules: dict[str, "_Scheduled"] = {}


@dataclass(frozen=True)
class _Scheduled:
    minutes: int
    first_after: timedelta


def name_of(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def task(function: Callable) -> Callable:
    """Allow `function` to be queued. It must be safe to run twice, late, and beside itself.

    Its errors end here, in the log: django-q would store each with its traceback, for ever.
    """

    @functools.wraps(function)
    def run(*ids: type_of_argument) -> None:
        try:
            function(*ids)
        except Exception:
            log.exception("A task failed. What it left undone, the next one finds.", task=name_of(function))

    _tasks[name_of(function)] = run
    return run


def is_allowed(function_name: object) -> bool:
    return isinstance(function_name, str) and function_name in _tasks


def queue_only(task: dict, **kwargs: object) -> None:
    """Whatever is to be queued goes through the queue, where the broker looks at it: nothing runs on the way."""
    task.pop("sync", None)


def enqueue(function: Callable, *ids: type_of_argument, queue: str | None = None) -> None:
    """Queue a task in the caller's transaction: it exists if, and only if, what it works on does."""
    assert name_of(function) in _tasks, f"{name_of(function)} is not marked with @task"
    async_task(name_of(function), *ids, **({"cluster": queue} if queue else {}))


def waiting(queue: str, now: datetime) -> int:
    """How many tasks no worker has taken yet."""
    return OrmQ.objects.filter(key=queue, lock__lte=now).count()


def all_taken_before(now: datetime) -> datetime:
    """Of what was queued before this, workers have taken all: what has not started is with them, or was lost with them.

    They take the oldest first; a task that waits is locked until the moment when its row was made.
    """
    oldest = OrmQ.objects.filter(key=Conf.PREFIX, lock__lte=now).aggregate(oldest=Min("lock"))["oldest"]
    return oldest - MADE_WITHIN if oldest else now


def every(minutes: int, function: Callable, *, first_after: timedelta = timedelta(seconds=5)) -> None:
    """Declare that a task runs by itself, from an AppConfig.ready()."""
    _schedules[name_of(function)] = _Scheduled(minutes, first_after)


def sync_schedules() -> None:
    """Make the schedule table say what the code declares, and nothing else."""
    Schedule.objects.exclude(name__in=_schedules).delete()
    for name, declared in _schedules.items():
        schedule, created = Schedule.objects.get_or_create(
            name=name,
            defaults={
                "func": name,
                "schedule_type": Schedule.MINUTES,
                "minutes": declared.minutes,
                "repeats": -1,
                "next_run": timezone.now() + declared.first_after,
            },
        )
        if not created and (schedule.func, schedule.minutes) != (name, declared.minutes):
            Schedule.objects.filter(pk=schedule.pk).update(func=name, minutes=declared.minutes)
