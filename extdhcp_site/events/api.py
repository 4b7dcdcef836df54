"""The log of events, as its readers ask for it."""

from django.db.models import Q, QuerySet
from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import resources
from extdhcp_site.api.answers import Answer, IdField, Moment
from extdhcp_site.api.owners import OwnedListParams, ownership
from extdhcp_site.api.parameters import Bool, Choice, Date, ObjectField, Text, Uuid, Values, visible
from extdhcp_site.api.registry import EVERYBODY, ListCommand, command
from extdhcp_site.events.models import Event, Level, State


class EventAnswer(Answer):
    id = IdField("The event.")
    type = serializers.CharField(help_text="What kind of thing happened.")
    level = serializers.CharField(help_text="INFO, WARN or ERROR.")
    state = serializers.CharField(help_text="Created, or Scheduled, Started, Completed for a job's.")
    description = serializers.SerializerMethodField(help_text="What happened.")
    created = Moment(source="created_at", help_text="When.")
    username = serializers.CharField(help_text="Who did it; system for the server itself.")
    account = serializers.CharField(source="account.name", help_text="Whom it concerns.")
    domainid = IdField("That account's domain.", source="account.domain.uuid")
    domain = serializers.CharField(source="account.domain.name", help_text="That domain's name.")
    domainpath = serializers.CharField(source="account.domain.__str__", help_text="The way to the domain from ROOT.")
    parentid = IdField("The event that began what this one goes on with.", source="parent_uuid")
    resourcetype = serializers.CharField(source="resource_type", help_text="What kind of object it is about.")
    resourceid = IdField("The object it is about.", source="resource_uuid")
    resourcename = serializers.CharField(source="resource_name", help_text="That object's name at the time.")
    archived = serializers.BooleanField(help_text="Whether somebody put it away.")

    def get_description(self, event: Event) -> str:
        return event.text_for(self.caller)


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


@command(since="1.0", roles=EVERYBODY)
class ListEvents(ListCommand):
    """List what happened, the latest first."""

    params = ListEventsParams
    answer = ("event", EventAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Event]:
        rows = Event.objects.visible_to(caller).filter(ownership(caller, params), _asked_for(params))
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


class EventViewSet(resources.VisibleViewSet):
    """What happened, the latest first."""

    queryset = Event.objects.select_related("account__domain")
    serializer_class = EventAnswer
    filterset_fields = ["type", "level", "state", "resource_uuid", "archived"]


resources.register("events", EventViewSet)
