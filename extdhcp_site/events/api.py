"""The log of events, as its readers ask for it and put it away."""

from datetime import timedelta

import structlog
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import resources, routes
from extdhcp_site.api.answers import Answer, Success
from extdhcp_site.api.owners import OwnedListParams, ownership
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    Date,
    Int,
    ObjectField,
    ObjectListField,
    Text,
    Uuid,
    Values,
    visible,
)
from extdhcp_site.api.putting_away import PutAwayParams, conditions
from extdhcp_site.api.registry import EVERYBODY, Command, ListCommand, command
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import stream
from extdhcp_site.events.answers import EventAnswer
from extdhcp_site.events.models import Event, EventQuerySet, EventType, Level, State

log = structlog.get_logger(__name__)


class ListEventsParams(OwnedListParams):
    id = ObjectField("Shows this event only.", visible(Event))
    type = Text("Shows only this type.")
    level = Choice("Shows only this level.", Level.values)
    state = Choice("Shows only this state.", State.values)
    startdate = Date("Shows none before this day, or moment as yyyy-MM-dd HH:mm:ss (UTC).")
    enddate = Date("Shows none after this day, or moment (UTC).", end_of_day=True)
    startid = Uuid("Shows an event and those that go on with it.")
    resourceid = Uuid("Shows only what is about this object, which may be gone.")
    resourcetype = Text("With resourceid: the object's kind.")
    archived = Bool("Shows those that were put away, instead of the others.")
    entrytime = Int("With duration: shows work that was submitted at most so many seconds ago, and has not ended.")
    duration = Int("With entrytime: shows none of it that was submitted less than so many seconds ago.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        entry_time, duration = values.get("entrytime"), values.get("duration")
        if (entry_time is None) != (duration is None):
            raise InvalidParameter("entrytime and duration must be given together.")
        if entry_time is not None and entry_time <= duration:
            raise InvalidParameter("Entry time must be greater than duration.")
        return values


@command(since="1.0", roles=EVERYBODY)
class ListEvents(ListCommand):
    """List what happened, the latest first."""

    params = ListEventsParams
    answer = ("event", EventAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Event]:
        rows = Event.objects.visible_to(caller).filter(ownership(caller, params), _asked_for(params))
        if params["entrytime"] is not None:
            rows = _under_way(rows, params["entrytime"], params["duration"])
        return rows.select_related("account__domain")


def _asked_for(params: Values) -> Q:
    exact = {
        "pk": params["id"] and params["id"].pk,
        "type": params["type"],
        "level": params["level"],
        "state": params["state"],
        "created_at__gte": params["startdate"],
        "created_at__lte": params["enddate"],
        "resource_uuid": params["resourceid"],
        "resource_type__iexact": params["resourcetype"],
    }
    asked = Q(**{column: value for column, value in exact.items() if value is not None})
    if not params["id"]:
        asked &= Q(archived=bool(params["archived"]))
    if params["startid"]:
        asked &= Q(uuid=params["startid"]) | Q(parent_uuid=params["startid"])
    if params["keyword"]:
        word = params["keyword"]
        asked &= Q(description__icontains=word) | Q(type__icontains=word) | Q(level__icontains=word)
    return asked


def _under_way(rows: QuerySet[Event], entry_time: int, duration: int) -> QuerySet[Event]:
    """The jobs' first events in a span of seconds ago, of which there is no last one."""
    now = timezone.now()
    span = (now - timedelta(seconds=entry_time), now - timedelta(seconds=duration))
    ended = Event.objects.filter(parent_uuid=OuterRef("uuid"), state=State.COMPLETED)
    return rows.filter(~Exists(ended), state=State.SCHEDULED, created_at__range=span)


class EventTypeAnswer(Answer):
    name = serializers.CharField(source="value", help_text="The type's name.")


@command(since="1.1", roles=EVERYBODY)
class ListEventTypes(ListCommand):
    """List the types of events that there are."""

    answer = ("eventtype", EventTypeAnswer)

    def rows(self, caller: Caller, params: Values) -> list[EventType]:
        word = (params["keyword"] or "").upper()
        return sorted(each for each in EventType if word in each)


class PutAwayEventsParams(PutAwayParams):
    ids = ObjectListField("These events.", visible(Event))
    type = Text("All of this type that are not archived.")
    startdate = Date("With enddate: none before this day, or moment as yyyy-MM-dd HH:mm:ss (UTC).")
    enddate = Date("All up to this day, or moment (UTC), that are not archived.", end_of_day=True)


def _to_put_away(caller: Caller, params: Values) -> EventQuerySet:
    """Those of the caller's own account; for an administrator, of all that they may see."""
    return Event.objects.visible_to(caller).filter(**conditions(params, "created_at", type=params["type"]))


@command(since="1.1", roles=EVERYBODY)
class ArchiveEvents(Command):
    """Put events away: lists show them with archived=true only."""

    params = PutAwayEventsParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        _to_put_away(caller, params).update(archived=True)


@command(since="1.1", roles=EVERYBODY)
class DeleteEvents(Command):
    """Delete events for good."""

    params = PutAwayEventsParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        count, _ = _to_put_away(caller, params).delete()
        # The log of events does not tell of this: the next call would delete that too.
        log.info("Events were deleted.", count=count, by=caller.user.username)


class EventViewSet(resources.VisibleViewSet):
    """What happened, the latest first. As in listEvents, what was put away is shown with archived=true only."""

    queryset = Event.objects.select_related("account__domain")
    serializer_class = EventAnswer
    filterset_fields = ["type", "level", "state", "resource_uuid", "archived"]

    def filter_queryset(self, queryset: QuerySet[Event]) -> QuerySet[Event]:
        found = super().filter_queryset(queryset)
        is_said = self.detail or "archived" in self.request.query_params
        return found if is_said else found.filter(archived=False)


class EventTypeViewSet(resources.ConstantViewSet):
    """The types of events that there are."""

    roles = EVERYBODY
    serializer_class = EventTypeAnswer

    def rows(self) -> list[EventType]:
        return sorted(EventType)


resources.register("events", EventViewSet)
resources.path("events/stream", stream.EventStream)
routes.post("events/actions/archive", ArchiveEvents)
routes.post("events/actions/delete", DeleteEvents)
resources.register_constants("event-types", EventTypeViewSet)
