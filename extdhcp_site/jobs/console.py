"""Jobs: what is under way, what failed and why, and one with its parameters, its result and its events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console.commands import Action, permitted
from extdhcp_site.console.lists import Column, Filter, ListOf
from extdhcp_site.console.objects import page_of
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.console.templatetags.console import in_words
from extdhcp_site.events.console import Told, chain_of, uuid_of
from extdhcp_site.jobs import services
from extdhcp_site.jobs.models import AsyncJob, AsyncJobQuerySet, Status

STATUSES = (
    ("pending", "Under way"),
    ("waiting", "Waiting for a worker"),
    ("running", "Running"),
    ("failed", "Failed"),
    ("done", "Done"),
)


@dataclass(frozen=True)
class Seen:
    """A job as a caller reads it. `outcome`: how far it is, or what came of it, in words."""

    job: AsyncJob
    outcome: str
    about_url: str

    @classmethod
    def of(cls, job: AsyncJob, caller: Caller) -> "Seen":
        return cls(job, _outcome(job, caller), page_of(job.instance_type, job.instance_uuid, caller))

    @property
    def status(self) -> str:
        """One of the words in `STATUSES`."""
        match self.job.status:
            case Status.PENDING:
                return "running" if self.job.heartbeat_at else "waiting"
            case Status.FAILED:
                return "failed"
            case _:
                return "done"

    @property
    def word(self) -> str:
        return dict(STATUSES)[self.status]

    @property
    def took(self) -> timedelta:
        return (self.job.completed_at or timezone.now()) - self.job.created_at

    @property
    def by(self) -> str:
        return self.job.user.username if self.job.user else "system"


def _outcome(job: AsyncJob, caller: Caller) -> str:
    if job.status == Status.PENDING:
        return services.progress(job, caller) or ("At work." if job.heartbeat_at else "No worker has begun it yet.")
    if job.status == Status.FAILED:
        return str((services.outcome(job, caller) or {}).get("errortext", ""))
    return "Done." if not job.remarks else " ".join(f"{name}: {value}." for name, value in job.remarks.items())


def jobs_of(caller: Caller) -> AsyncJobQuerySet:
    return AsyncJob.objects.visible_to(caller)


def in_status(jobs: QuerySet[AsyncJob], status: str, caller: Caller) -> QuerySet[AsyncJob]:
    match status:
        case "pending":
            return jobs.filter(status=Status.PENDING)
        case "waiting":
            return jobs.filter(status=Status.PENDING, heartbeat_at=None)
        case "running":
            return jobs.filter(status=Status.PENDING, heartbeat_at__isnull=False)
        case "failed":
            return jobs.filter(status=Status.FAILED)
        case _:
            return jobs.filter(status=Status.SUCCEEDED)


def _with_word(jobs: QuerySet[AsyncJob], word: str, caller: Caller) -> QuerySet[AsyncJob]:
    found = Q(instance_name__icontains=word) | Q(error_text__icontains=word) | Q(user__username__icontains=word)
    return jobs.filter(found | Q(error_for_operator__icontains=word) if caller.is_root else found)


def _completed(jobs: QuerySet[AsyncJob], caller: Caller) -> Iterator[Seen]:
    # Its secret is sealed, and nobody reads it in a list.
    for job in jobs.select_related("account__domain", "user").defer("secret", "arguments"):
        yield Seen.of(job, caller)


JOBS: ListOf[Seen] = ListOf(
    "jobs",
    "Jobs",
    rows=jobs_of,
    columns=[
        Column(
            "Submitted", lambda seen: seen.job.created_at.isoformat(timespec="seconds"), "jobs/when.html", short=True
        ),
        Column("State", lambda seen: seen.word, "jobs/state.html", short=True),
        Column("Command", lambda seen: seen.job.command, "jobs/command.html", short=True),
        Column("About", lambda seen: seen.job.instance_name or seen.job.instance_type, "jobs/about.html"),
        Column("What came of it", lambda seen: seen.outcome),
        Column("Took", lambda seen: in_words(seen.took), short=True),
        Column("Account", lambda seen: seen.job.account.name),
        Column("By", lambda seen: seen.by),
    ],
    filters=[
        Filter("q", "Text", _with_word, placeholder="an object, an error, a user"),
        Filter("status", "State", in_status, STATUSES),
        Filter(
            "command",
            "Command",
            lambda rows, word, _: rows.filter(command__icontains=word),
            placeholder="deployVirtualMachine",
        ),
        Filter("account", "Account", lambda rows, name, _: rows.filter(account__name=name), placeholder="its name"),
        Filter("instance", "About", lambda rows, text, _: rows.filter(instance_uuid=uuid_of(text)), hidden=True),
    ],
    complete=_completed,
    model_of=lambda seen: seen.job,
    nothing="There was no job lately: those that ended are forgotten after a while (job.expire.minutes).",
)


@page("jobs/", name="jobs", roles=EVERYBODY, menu=Menu("Jobs", order=60))
def jobs(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return JOBS.respond(request, caller)


@page("jobs/<uuid:uuid>/", name="job", roles=EVERYBODY, section="jobs")
def job(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    found = jobs_of(caller).select_related("account__domain", "user").filter(uuid=uuid).first()
    if found is None:
        raise Http404
    context = {
        "seen": Seen.of(found, caller),
        "arguments": _arguments(found, caller),
        "result": _result(found, caller),
        "story": _story(found, caller),
        "actions": permitted(caller, _actions(found, caller)),
        "here": request.path,
    }
    return render(request, "jobs/job_parts.html" if "fragment" in request.GET else "jobs/job.html", context)


def _arguments(job: AsyncJob, caller: Caller) -> list[tuple[str, str]]:
    """None of them is secret; what the system gave a job of its own may be a host."""
    if not caller.is_root and job.user_id != caller.user.pk:
        return []
    return [(name, _spelt(value)) for name, value in sorted(job.arguments.items())]


def _spelt(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _result(job: AsyncJob, caller: Caller) -> str:
    if job.status != Status.SUCCEEDED:
        return ""
    return json.dumps(services.outcome(job, caller), indent=2, ensure_ascii=False)


def _story(job: AsyncJob, caller: Caller) -> list[Told]:
    return chain_of(job.scheduled_event, caller) if job.scheduled_event else []


def _actions(job: AsyncJob, caller: Caller) -> list[Action]:
    if job.status == Status.PENDING or job.user_id != caller.user.pk or job.secret is None:
        return []
    about = "The password in it is shown now, and for ten minutes more."
    return [
        Action("queryAsyncJobResult", "Show the result with its password", {"jobid": str(job.uuid)}, about, show=True)
    ]
