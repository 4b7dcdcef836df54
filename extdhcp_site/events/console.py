"""What happened: the list, and a job's chain of events as one story."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from rest_framework.serializers import ValidationError

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.parameters import Date
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console.lists import Column, Filter, ListOf
from extdhcp_site.console.objects import page_of
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.events.models import Event, EventQuerySet, EventType, Level, State

# A chain has three events; what an address goes through may go on for longer.
MOST_IN_A_CHAIN = 200


@dataclass(frozen=True)
class Told:
    """An event as a caller reads it; `about_url` is the page of what it is about, empty if there is none."""

    event: Event
    text: str
    about_url: str

    @classmethod
    def each(cls, events: Iterable[Event], caller: Caller) -> Iterator["Told"]:
        for event in events:
            yield cls(event, event.text_for(caller), page_of(event.resource_type, event.resource_uuid, caller))

    @property
    def chain(self) -> UUID | None:
        """The first event of the story that this one is of."""
        return self.event.parent_uuid or (self.event.uuid if self.event.state == State.SCHEDULED else None)


def events_of(caller: Caller) -> EventQuerySet:
    return Event.objects.visible_to(caller).filter(archived=False)


def chain_of(first: UUID, caller: Caller) -> list[Told]:
    """A story from its beginning."""
    story = Event.objects.visible_to(caller).filter(Q(uuid=first) | Q(parent_uuid=first))
    rows = story.select_related("account__domain").order_by("created_at", "pk")[:MOST_IN_A_CHAIN]
    return list(Told.each(rows, caller))


def uuid_of(text: str) -> UUID:
    """Raises ValueError in a list's words."""
    try:
        return UUID(text)
    except ValueError:
        raise ValueError("is not an id.") from None


def _moment(text: str, *, end_of_day: bool = False) -> datetime:
    try:
        return Date("", end_of_day=end_of_day).to_internal_value(text)
    except ValidationError:
        raise ValueError("must be yyyy-MM-dd, or yyyy-MM-dd HH:mm:ss, in UTC.") from None


def _with_word(events: QuerySet[Event], word: str, caller: Caller) -> QuerySet[Event]:
    found = Q(description__icontains=word) | Q(resource_name__icontains=word) | Q(username__icontains=word)
    return events.filter(found | Q(for_operator__icontains=word) if caller.is_root else found)


def _completed(events: QuerySet[Event], caller: Caller) -> Iterator[Told]:
    return Told.each(events.select_related("account__domain"), caller)


EVENTS: ListOf[Told] = ListOf(
    "events",
    "Events",
    rows=events_of,
    columns=[
        Column(
            "When", lambda told: told.event.created_at.isoformat(timespec="seconds"), "events/when.html", short=True
        ),
        Column("Level", lambda told: told.event.level, "events/level.html", short=True),
        Column("What happened", lambda told: told.text, "events/what.html"),
        Column("Type", lambda told: told.event.type, code=True),
        Column("About", lambda told: told.event.resource_name or "no object", "events/about.html"),
        Column("Account", lambda told: told.event.account.name),
        Column("By", lambda told: told.event.username),
    ],
    filters=[
        Filter("q", "Text", _with_word, placeholder="words, a name, a user"),
        Filter("level", "Level", lambda rows, level, _: rows.filter(level=level), Level.choices),
        Filter(
            "type",
            "Type",
            lambda rows, type, _: rows.filter(type=type),
            [(name, name) for name in sorted(EventType.values)],
        ),
        Filter("state", "State", lambda rows, state, _: rows.filter(state=state), State.choices, hidden=True),
        Filter("account", "Account", lambda rows, name, _: rows.filter(account__name=name), placeholder="its name"),
        Filter(
            "from",
            "From",
            lambda rows, text, _: rows.filter(created_at__gte=_moment(text)),
            placeholder="2026-01-31 10:00:00",
        ),
        Filter(
            "to",
            "To",
            lambda rows, text, _: rows.filter(created_at__lte=_moment(text, end_of_day=True)),
            placeholder="2026-01-31",
        ),
        Filter("resource", "About", lambda rows, text, _: rows.filter(resource_uuid=uuid_of(text)), hidden=True),
        Filter(
            "resourcetype", "Kind of object", lambda rows, kind, _: rows.filter(resource_type__iexact=kind), hidden=True
        ),
        Filter(
            "chain",
            "Chain",
            lambda rows, text, _: rows.filter(Q(uuid=uuid_of(text)) | Q(parent_uuid=uuid_of(text))),
            hidden=True,
        ),
    ],
    complete=_completed,
    model_of=lambda told: told.event,
    nothing="Nothing has happened yet.",
)


@page("events/", name="events", roles=EVERYBODY, menu=Menu("Events", order=62))
def events(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return EVENTS.respond(request, caller)


@page("events/chain/<uuid:uuid>/", name="event-chain", roles=EVERYBODY, section="events")
def chain(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    """From click to end: what was asked for, when it began, what came of it."""
    story = chain_of(uuid, caller)
    if not story:
        raise Http404
    return render(request, "events/chain_page.html", {"story": story, "first": story[0]})
