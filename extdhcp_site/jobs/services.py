"""Submit a job, run it, and find those whose worker died.

A handler is called with its job and may be called again from the top at any time: each step it takes
must find out whether it is done already. It raises ApiError to fail the job with that code and text.
"""

import contextlib
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from extdhcp_site import turns
from extdhcp_site.accounts.models import Account, Caller
from extdhcp_site.configuration.models import JOB_EXPIRE_MINUTES
from extdhcp_site.encryption import seal
from extdhcp_site.errors import ApiError, InternalError, ResourceInUse
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level, State, Subject
from extdhcp_site.jobs import tasks
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.models import UuidModel

log = structlog.get_logger(__name__)

LOST_AFTER = timedelta(seconds=45)
# A job that never started although a worker has taken its task: it died, or is slow.
NEVER_STARTED_AFTER = timedelta(seconds=50)
MOST_LOST_WORKERS = 4
SECRET_LIFE = timedelta(hours=1)
SECRET_LIFE_ONCE_READ = timedelta(minutes=10)
UPKEEP_WAITED_FOR = 5.0
UPKEEP_LOOKED_AT_EVERY = 0.2

T = TypeVar("T")
Handler = Callable[[AsyncJob], None]
_handlers: dict[str, tuple[Handler, EventType]] = {}
Renderer = Callable[[str, Caller], dict | None]
_renderers: dict[str, Renderer] = {}
JobRenderer = Callable[[AsyncJob, Caller], dict | None]
_job_renderers: dict[str, JobRenderer] = {}


class TakenOver(Exception):
    """This worker was given up for dead and another one runs the job: stop at once, write nothing."""


class BusyWithUpkeep(ResourceInUse):
    """What works on the object is the server's own upkeep, which is soon done."""


def handler(command: str, event_type: EventType) -> Callable[[Handler], Handler]:
    """Declare what runs a command's jobs, and the type of the events that they leave."""

    def register(function: Handler) -> Handler:
        _handlers[command] = (function, event_type)
        return function

    return register


def commands() -> list[str]:
    """Those whose jobs there can be."""
    return sorted(_handlers)


def renders(instance_type: str) -> Callable[[Renderer], Renderer]:
    """Declare how a finished job's object is shown to a caller: {"virtualmachine": {...}}, None if it is gone."""

    def register(function: Renderer) -> Renderer:
        _renderers[instance_type] = function
        return function

    return register


def renders_job(command: str) -> Callable[[JobRenderer], JobRenderer]:
    """Declare how a command's finished job is shown, where that is not its object as it is."""

    def register(function: JobRenderer) -> JobRenderer:
        _job_renderers[command] = function
        return function

    return register


def submit(command: str, on: UuidModel, *, account: Account, by: Caller | None, **arguments: object) -> AsyncJob:
    """Write a job and queue it, inside the caller's transaction.

    `account` owns the object; `by` is None for what the system does by itself: unless it fails, that leaves
    no events, for it may come again every few minutes. `arguments` are stored as JSON and must hold no secret.
    Raises ResourceInUse while another job works on the object: BusyWithUpkeep if that is the system's own.
    """
    _, event_type = _handlers[command]
    subject = Subject.of(on)
    scheduled = events.unsaved(
        event_type, f"{command}: {subject.name}", account_id=account.pk, on=subject, by=by, state=State.SCHEDULED
    )
    job = AsyncJob(
        command=command,
        account=account,
        user=by.user if by else None,
        instance_type=subject.kind,
        instance_uuid=subject.uuid,
        instance_name=subject.name,
        busy_with=subject.uuid,
        arguments=arguments,
        scheduled_event=scheduled.uuid if by else None,
    )
    if not _written(job) and not (by and _upkeep_made_way(on) and _written(job)):
        raise _busy(on)
    if by:
        scheduled.save(force_insert=True)
    tasks.enqueue(run, job.pk, job.attempt)
    return job


def _written(job: AsyncJob) -> bool:
    with contextlib.suppress(IntegrityError), transaction.atomic():
        job.save(force_insert=True)
        return True
    return False


def _upkeep_made_way(on: UuidModel) -> bool:
    """Whether it was a job of the system's own, not begun yet, that kept the object busy; it is gone then.

    What it was for is in the rows, and the next pass finds it.
    """
    upkeep = AsyncJob.objects.pending().filter(busy_with=on.uuid, user=None, heartbeat_at=None)
    return bool(upkeep.delete()[0])


def _busy(on: UuidModel) -> ResourceInUse:
    other = AsyncJob.objects.filter(busy_with=on.uuid).first()
    doing = f"{other.command}, job {other.uuid}" if other else "another job"
    kind = BusyWithUpkeep if other and other.user_id is None else ResourceInUse
    return kind(f"{on} is busy with {doing}. Wait for it to end, then try again.")


def patiently(act: Callable[[], T]) -> T:
    """`act`, once more and once more for a few seconds while the system's own upkeep is in its way.

    Not inside a transaction, where the end of that could not be seen. Raises BusyWithUpkeep in the end.
    """
    give_up = time.monotonic() + UPKEEP_WAITED_FOR
    while True:
        try:
            return act()
        except BusyWithUpkeep:
            if time.monotonic() > give_up or transaction.get_connection().in_atomic_block:
                raise
            with turns.given_up():
                time.sleep(UPKEEP_LOOKED_AT_EVERY)


@tasks.task
def run(job_id: int, attempt: int) -> None:
    """Task: do a job's work. A delivery of an attempt that started already, or is no longer due, does nothing."""
    mine = AsyncJob.objects.pending().filter(pk=job_id, attempt=attempt)
    if not mine.filter(heartbeat_at=None).update(heartbeat_at=timezone.now()):
        return
    job = AsyncJob.objects.select_related("user__account__domain", "account").get(pk=job_id)
    function, _ = _handlers[job.command]
    with structlog.contextvars.bound_contextvars(job=str(job.uuid), command=job.command):
        if job.user:
            _record(job, State.STARTED, f"{job.command} started")
        try:
            function(job)
        except TakenOver:
            log.warning("Another worker took this job over.")
        except ApiError as error:
            finish(job, error)
        except Exception:
            log.exception("A job failed for a reason that is not expected.")
            finish(
                job, InternalError(f"Something unexpected went wrong. The server's log has it under job {job.uuid}.")
            )
        else:
            finish(job)


def beat(job: AsyncJob, progress: str = "", *, for_operator: str = "") -> None:
    """Say that the job goes on. Raises TakenOver if it is somebody else's by now.

    `for_operator` goes on where `progress` ends, and may name hosts and storage.
    """
    changes: dict[str, object] = {"heartbeat_at": timezone.now()}
    if progress:
        changes |= {"progress": progress[:200], "progress_for_operator": for_operator[:200]}
    if not AsyncJob.objects.pending().filter(pk=job.pk, attempt=job.attempt).update(**changes):
        raise TakenOver


def keep_secret(job: AsyncJob, **secrets: str) -> None:
    """Store what only the job's caller may read: sealed, and forgotten soon."""
    AsyncJob.objects.filter(pk=job.pk).update(secret=seal(job, "secret", json.dumps(secrets)))


def remark(job: AsyncJob, **remarks: object) -> None:
    """Say in the job's result what the object itself does not show: what JSON can spell."""
    job.remarks = {**job.remarks, **remarks}
    AsyncJob.objects.filter(pk=job.pk, attempt=job.attempt).update(remarks=job.remarks)


def finish(job: AsyncJob, error: ApiError | None = None) -> None:
    """End the job, once: freed object, COMPLETED event, result."""
    with transaction.atomic():
        ended = (
            AsyncJob.objects.pending()
            .filter(pk=job.pk, attempt=job.attempt)
            .update(
                status=Status.FAILED if error else Status.SUCCEEDED,
                error_code=error.status if error else None,
                error_text=error.text[:1024] if error else "",
                error_for_operator=error.for_operator[:1024] if error else "",
                busy_with=None,
                completed_at=timezone.now(),
            )
        )
        if not ended or not (job.user or error):
            return
        if error:
            _record(job, State.COMPLETED, f"{job.command} failed: {error.text}", Level.ERROR, error.for_operator)
        else:
            _record(job, State.COMPLETED, f"{job.command} completed")


def result(job: AsyncJob, caller: Caller) -> dict | None:
    """What `jobresult` shows `caller`: None while pending, the object as it is now, or why it failed.

    Whoever submitted the job reads its secrets in it, also when it failed: it may have changed the password
    before it did.
    """
    found = outcome(job, caller)
    if found is None or job.user_id != caller.user.pk:
        return found
    own = _read_secrets(job)
    if job.status == Status.FAILED:
        return {**found, **own}
    for fields in found.values():
        if isinstance(fields, dict):
            fields.update(own)
    return found


def outcome(job: AsyncJob, caller: Caller) -> dict | None:
    """The result without its secrets: it may be looked at as often as one likes."""
    if job.status == Status.PENDING:
        return None
    if job.status == Status.FAILED:
        text = f"{job.error_text} {job.error_for_operator}" if caller.is_root else job.error_text
        return {"errorcode": job.error_code, "errortext": text.strip()}
    shown = _shown(job, caller)
    if shown is None:
        return {"success": True}
    for fields in shown.values():
        fields.update(job.remarks)
    return shown


def _shown(job: AsyncJob, caller: Caller) -> dict | None:
    if by_command := _job_renderers.get(job.command):
        return by_command(job, caller)
    by_type = _renderers.get(job.instance_type)
    return by_type(str(job.instance_uuid), caller) if by_type else None


def progress(job: AsyncJob, caller: Caller) -> str:
    """What the job's worker said last of how far it is."""
    return f"{job.progress} {job.progress_for_operator}".strip() if caller.is_root else job.progress


def _read_secrets(job: AsyncJob) -> dict[str, str]:
    AsyncJob.objects.filter(pk=job.pk, secret__isnull=False, secret_read_at=None).update(secret_read_at=timezone.now())
    forget_secrets(timezone.now())
    job.refresh_from_db()
    return job.secrets


def forget_secrets(now: datetime) -> None:
    old = Q(completed_at__lt=now - SECRET_LIFE) | Q(secret_read_at__lt=now - SECRET_LIFE_ONCE_READ)
    AsyncJob.objects.filter(old, secret__isnull=False).update(secret=None)


@tasks.task
def take_up_lost() -> None:
    """Task, every minute, half-way between two rounds of housekeeping: a lost job waits for a minute and a half."""
    requeue_lost(timezone.now())


@tasks.task
def housekeeping() -> None:
    """Task, every minute: take up jobs whose worker died, forget old secrets and old jobs."""
    now = timezone.now()
    requeue_lost(now)
    forget_secrets(now)
    expired = now - timedelta(minutes=JOB_EXPIRE_MINUTES.get())
    AsyncJob.objects.filter(completed_at__lt=expired).delete()


def requeue_lost(now: datetime) -> int:
    """Queue again each pending job whose worker fell silent; how many."""
    silent = Q(heartbeat_at__lt=now - LOST_AFTER)
    taken = min(tasks.all_taken_before(now), now - NEVER_STARTED_AFTER)
    never_started = Q(heartbeat_at=None, queued_at__lt=taken)
    requeued = 0
    for job in AsyncJob.objects.pending().filter(silent | never_started):
        if job.lost_workers >= MOST_LOST_WORKERS:
            finish(job, InternalError(f"The server's workers died {MOST_LOST_WORKERS} times over this job."))
            continue
        with contextlib.suppress(TakenOver), transaction.atomic():
            _requeue(job, now)
            requeued += 1
    return requeued


def _requeue(job: AsyncJob, now: datetime) -> None:
    unchanged = AsyncJob.objects.pending().filter(
        pk=job.pk, attempt=job.attempt, heartbeat_at=job.heartbeat_at, queued_at=job.queued_at
    )
    # What has not started stays the same attempt: a worker that is only slow may still begin it.
    begun = 1 if job.heartbeat_at else 0
    if not unchanged.update(
        attempt=F("attempt") + begun, heartbeat_at=None, queued_at=now, lost_workers=F("lost_workers") + begun
    ):
        raise TakenOver
    log.warning("A job's worker fell silent; queued again.", job=str(job.uuid), attempt=job.attempt + begun)
    tasks.enqueue(run, job.pk, job.attempt + begun)


def _record(job: AsyncJob, state: State, text: str, level: Level = Level.INFO, for_operator: str = "") -> None:
    _, event_type = _handlers[job.command]
    events.record(
        event_type,
        text,
        account=job.account,
        on=job.subject,
        by=Caller.of(job.user) if job.user else None,
        level=level,
        state=state,
        parent=job.scheduled_event,
        for_operator=for_operator,
    )
