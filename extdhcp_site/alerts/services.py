"""Raise an alert, end it, acknowledge it: each once, however many see the same trouble at the same moment."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, Q

from extdhcp_site.accounts.models import Account, Caller, Role
from extdhcp_site.alerts.models import LONGEST_TEXT, Alert, Kind
from extdhcp_site.deadlocks import repeated
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType, Level, Subject

# What comes back sooner is the same alert, and makes no new mail.
COMES_BACK_WITHIN = timedelta(minutes=10)
AT_ONCE = 200

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """What is wrong now with `subject`, and what a person is to do about it.

    `lasting`: how long it must last before anybody is told. `account` is whom it concerns beside the operators: that
    account reads `text` in its events, so it then names no host.
    """

    kind: Kind
    subject: Subject
    text: str
    advice: str = ""
    link: str = ""
    lasting: timedelta = timedelta()
    account_id: int | None = None

    @property
    def key(self) -> str:
        return key_of(self.kind, self.subject.uuid)

    @property
    def told(self) -> dict[str, str]:
        """The columns that may change while it lasts."""
        return {
            "subject_name": self.subject.name,
            "text": self.text[:LONGEST_TEXT],
            "advice": self.advice[:LONGEST_TEXT],
            "link": self.link,
        }


def key_of(kind: str, subject_uuid: UUID) -> str:
    return f"{kind}:{subject_uuid}"


@dataclass(frozen=True)
class Domain:
    """What a watch answers for: alerts of these kinds about things of this kind, or about the one thing."""

    kinds: frozenset[Kind]
    subject_kind: str
    subject_uuid: UUID | None = None

    @property
    def condition(self) -> Q:
        condition = Q(kind__in=self.kinds, subject_kind=self.subject_kind)
        return condition & Q(subject_uuid=self.subject_uuid) if self.subject_uuid else condition


def raise_(problem: Problem, now: datetime) -> None:
    """There is such trouble now. It makes an alert, or goes on with the one that there is."""
    known = Alert.objects.unresolved().filter(open_key=problem.key)
    _see([problem], {row.open_key: row for row in known}, now)


def resolve(kind: Kind, subject_uuid: UUID, now: datetime) -> None:
    """There is no such trouble now."""
    _end(list(Alert.objects.unresolved().filter(open_key=key_of(kind, subject_uuid))), now)


def settle(domain: Domain, problems: Iterable[Problem], now: datetime) -> None:
    """These are all the problems there are in `domain`: what is new is raised, what is gone ends.

    May be stopped anywhere and run again. No two at a time, or one would end what the other has just seen.
    """
    present = {problem.key: problem for problem in problems}
    known = {row.open_key: row for row in Alert.objects.unresolved().filter(domain.condition)}
    for some in _batched(present.values(), AT_ONCE):
        repeated(partial(_see, some, known, now))
    for gone in _batched((row for key, row in known.items() if key not in present), AT_ONCE):
        repeated(partial(_end, gone, now))


def acknowledge(alert: Alert, by: Caller, now: datetime) -> None:
    """Somebody sees to it. Raises InvalidParameter when it is over, or another was first."""
    mine = {"acknowledged_at": now, "acknowledged_by": by.user.username}
    with transaction.atomic():
        if Alert.objects.open().filter(pk=alert.pk).update(**mine):
            text = f"{alert}: acknowledged by {by.user.username}"
            events.record(EventType(alert.kind), text, account=by.account, on=_subject(alert), by=by)
            return
    alert.refresh_from_db()
    if alert.acknowledged_by and not alert.resolved_at:
        at = f"{alert.acknowledged_at:%Y-%m-%d %H:%M} UTC"
        raise InvalidParameter(f"{alert.acknowledged_by} has acknowledged this alert, at {at}.")
    raise InvalidParameter("This alert is over. There is nothing left to acknowledge.")


def purge(before: datetime) -> None:
    """Forget alerts that ended before this."""
    Alert.objects.filter(resolved_at__lt=before).delete()


# Steps ------------------------------------------------------------------------------------------------


@transaction.atomic
def _see(problems: Collection[Problem], known: dict[str | None, Alert], now: datetime) -> None:
    rows = {**known, **_begin([problem for problem in problems if problem.key not in known], now)}
    seen = [(problem, rows[problem.key]) for problem in problems if problem.key in rows]
    Alert.objects.unresolved().filter(pk__in=[row.pk for _, row in seen]).update(last_at=now)
    told = []
    for problem, row in seen:
        if any(getattr(row, column) != value for column, value in problem.told.items()):
            Alert.objects.unresolved().filter(pk=row.pk).update(**problem.told)
        if row.raised_at is None and row.first_at + problem.lasting <= now:
            # One statement alone raises it, and tells.
            told += [problem] if Alert.objects.filter(pk=row.pk, raised_at=None).update(raised_at=now) else []
    events.record_all(_told(told))


def _begin(problems: Collection[Problem], now: datetime) -> dict[str | None, Alert]:
    """Rows of what was not there: alerts that ended a moment ago go on, others are made."""
    ended = Alert.objects.filter(
        subject_uuid__in=[problem.subject.uuid for problem in problems], resolved_at__gt=now - COMES_BACK_WITHIN
    ).order_by("resolved_at", "pk")
    just_ended = {key_of(row.kind, row.subject_uuid): row for row in ended if row.end_mailed_at is None}
    made = []
    for problem in problems:
        if row := just_ended.get(problem.key):
            _go_on(row, problem.key)
        else:
            made.append(_new(problem, now))
    # Another may have made one meanwhile: then that is it.
    Alert.objects.bulk_create(made, ignore_conflicts=True)
    rows = Alert.objects.unresolved().filter(open_key__in=[problem.key for problem in problems])
    return {row.open_key: row for row in rows}


def _go_on(row: Alert, key: str) -> None:
    try:
        with transaction.atomic():
            ended = Alert.objects.filter(pk=row.pk, open_key=None)
            # Put away or not: what comes back must be seen.
            ended.update(open_key=key, resolved_at=None, archived=False, count=F("count") + 1)
    except IntegrityError:
        pass  # another was first, with one of its own


def _new(problem: Problem, now: datetime) -> Alert:
    about = problem.subject
    return Alert(
        kind=problem.kind,
        subject_kind=about.kind,
        subject_uuid=about.uuid,
        open_key=problem.key,
        account_id=problem.account_id,
        first_at=now,
        last_at=now,
        **problem.told,
    )


@transaction.atomic
def _end(rows: Collection[Alert], now: datetime) -> None:
    # What passed before anybody was told is nothing to tell.
    Alert.objects.unresolved().filter(pk__in=[row.pk for row in rows], raised_at=None).delete()
    ended = []
    for row in rows:
        if Alert.objects.unresolved().filter(pk=row.pk).update(open_key=None, resolved_at=now):
            ended.append(row)
    events.record_all(_over(ended))


def _told(problems: Collection[Problem]) -> list[Event]:
    return _events(
        (Kind(each.kind), f"{each.kind.label}: {each.text}", each.account_id, each.subject, Level.ERROR)
        for each in problems
    )


def _over(rows: Collection[Alert]) -> list[Event]:
    return _events((Kind(row.kind), f"{row}: over", row.account_id, _subject(row), Level.INFO) for row in rows)


def _events(told: Iterable[tuple[Kind, str, int | None, Subject, Level]]) -> list[Event]:
    """For whom it concerns, or else for the operators."""
    told = list(told)
    operators = _operators() if told else None
    return [
        events.unsaved(EventType(kind), text, account_id=account_id or operators, on=about, level=level)
        for kind, text, account_id, about, level in told
        if account_id or operators
    ]


def _operators() -> int | None:
    return Account.objects.filter(role=Role.ROOT_ADMIN).order_by("pk").values_list("pk", flat=True).first()


def _subject(alert: Alert) -> Subject:
    return Subject(alert.subject_kind, alert.subject_uuid, alert.subject_name)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some
