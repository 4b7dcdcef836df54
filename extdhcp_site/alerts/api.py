"""Alerts, for root admins: CloudStack's commands, and our own by which somebody says that they see to one."""

from django.db.models import Q, QuerySet
from django.utils import timezone
from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.alerts import services
from extdhcp_site.alerts.models import Alert, AlertQuerySet, Kind
from extdhcp_site.api import resources, routes
from extdhcp_site.api.answers import Answer, IdField, Moment, Success
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    Date,
    Int,
    ObjectField,
    ObjectListField,
    Params,
    Values,
    visible,
)
from extdhcp_site.api.putting_away import PutAwayParams, conditions
from extdhcp_site.api.registry import ROOT_ADMIN, Command, ListCommand, command

STATES = ("Open", "Acknowledged", "Resolved")


class AlertAnswer(Answer):
    id = IdField("The alert.")
    type = serializers.SerializerMethodField(help_text="CloudStack's number of the kind of trouble.")
    name = serializers.CharField(source="kind", help_text="The kind of trouble.")
    description = serializers.CharField(source="text", help_text="What is wrong.")
    sent = Moment(source="first_at", help_text="Since when.")
    advice = serializers.CharField(help_text="What to do about it. This and what follows is our own.")
    state = serializers.CharField(help_text="Open, Acknowledged or Resolved.")
    lastseen = Moment(source="last_at", help_text="When it was seen last.")
    count = serializers.IntegerField(help_text="How often it has begun: what comes back at once is the same alert.")
    resourcetype = serializers.CharField(source="subject_kind", help_text="What kind of object it is about.")
    resourceid = IdField("The object it is about.", source="subject_uuid")
    resourcename = serializers.CharField(source="subject_name", help_text="That object's name.")
    acknowledged = Moment(source="acknowledged_at", help_text="When somebody said that they see to it.")
    acknowledgedby = serializers.SerializerMethodField(help_text="Who said so.")
    resolved = Moment(source="resolved_at", help_text="When it was over.")
    mailed = Moment(source="mailed_at", help_text="When it was sent by e-mail.")

    def get_type(self, alert: Alert) -> int:
        return Kind(alert.kind).number

    def get_acknowledgedby(self, alert: Alert) -> str | None:
        return alert.acknowledged_by or None


def in_state(alerts: AlertQuerySet, state: str) -> AlertQuerySet:
    match state:
        case "Open":
            return alerts.open()
        case "Acknowledged":
            return alerts.acknowledged()
        case _:
            return alerts.resolved()


class ListAlertsParams(ListParams):
    id = ObjectField("Shows this alert only.", visible(Alert))
    name = Choice("Shows only this kind of trouble.", Kind.values)
    type = Int("Shows only kinds with this number of CloudStack's.")
    state = Choice("Shows only those in this state. Our own.", STATES)
    archived = Bool("Shows those that were put away, instead of the others. Our own.")


@command(since="1.2", roles=ROOT_ADMIN)
class ListAlerts(ListCommand):
    """List what operators have to know of, the latest first."""

    params = ListAlertsParams
    answer = ("alert", AlertAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Alert]:
        alerts = Alert.objects.visible_to(caller)
        if params["id"]:
            return alerts.filter(pk=params["id"].pk)
        asked = Q(archived=bool(params["archived"]))
        if params["name"]:
            asked &= Q(kind=params["name"])
        if params["type"] is not None:
            asked &= Q(kind__in=_of_number(params["type"]))
        if word := params["keyword"]:
            asked &= Q(text__icontains=word) | Q(subject_name__icontains=word) | Q(kind__icontains=word)
        found = alerts.filter(asked)
        return in_state(found, params["state"]) if params["state"] else found


def _of_number(number: int) -> list[Kind]:
    return [kind for kind in Kind if kind.number == number]


class AlertTypeAnswer(Answer):
    id = serializers.IntegerField(source="number", help_text="CloudStack's number of the kind.")
    name = serializers.CharField(source="value", help_text="The kind's name.")
    description = serializers.CharField(source="label", help_text="What it means.")


@command(since="1.2", roles=ROOT_ADMIN, name="listAlertTypes")
class ListAlertTypes(ListCommand):
    """List the kinds of alerts that there are."""

    answer = ("alerttype", AlertTypeAnswer)

    def rows(self, caller: Caller, params: Values) -> list[Kind]:
        word = (params["keyword"] or "").upper()
        return sorted(kind for kind in Kind if word in kind)


class AcknowledgeAlertParams(Params):
    id = ObjectField("The alert.", visible(Alert), required=True)


@command(since="1.2", roles=ROOT_ADMIN)
class AcknowledgeAlert(Command):
    """Say that you see to an alert: it leaves the list of those that wait for somebody. It ends by itself."""

    params = AcknowledgeAlertParams
    answer = ("alert", AlertAnswer)

    def run(self, caller: Caller, params: Values) -> Alert:
        alert: Alert = params["id"]
        services.acknowledge(alert, caller, timezone.now())
        alert.refresh_from_db()
        return alert


class PutAwayAlertsParams(PutAwayParams):
    ids = ObjectListField("These alerts.", visible(Alert))
    type = Int("All of the kinds with this number of CloudStack's that are not archived.")
    startdate = Date("With enddate: none that began before this day, or moment as yyyy-MM-dd HH:mm:ss (UTC).")
    enddate = Date("All that began up to this day, or moment (UTC), and are not archived.", end_of_day=True)


def _to_put_away(caller: Caller, params: Values) -> AlertQuerySet:
    kinds = None if params["type"] is None else _of_number(params["type"])
    return Alert.objects.visible_to(caller).filter(**conditions(params, "first_at", kind__in=kinds))


@command(since="1.2", roles=ROOT_ADMIN)
class ArchiveAlerts(Command):
    """Put alerts away: lists show them with archived=true only. Trouble that lasts makes no new one."""

    params = PutAwayAlertsParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        _to_put_away(caller, params).update(archived=True)


@command(since="1.2", roles=ROOT_ADMIN)
class DeleteAlerts(Command):
    """Delete alerts for good. Trouble that lasts is told anew within a minute."""

    params = PutAwayAlertsParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        _to_put_away(caller, params).delete()


class AlertViewSet(resources.VisibleViewSet):
    """What operators have to know of, the latest first; what was put away is shown with archived=true only."""

    roles = ROOT_ADMIN
    queryset = Alert.objects.all()
    serializer_class = AlertAnswer
    filterset_fields = ["kind", "subject_uuid", "archived"]

    def filter_queryset(self, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        found = super().filter_queryset(queryset)
        is_said = self.detail or "archived" in self.request.query_params
        return found if is_said else found.filter(archived=False)


class AlertTypeViewSet(resources.ConstantViewSet):
    """The kinds of alerts that there are."""

    roles = ROOT_ADMIN
    serializer_class = AlertTypeAnswer

    def rows(self) -> list[Kind]:
        return sorted(Kind)


resources.register("alerts", AlertViewSet)
resources.register_constants("alert-types", AlertTypeViewSet)
routes.post("alerts/{id}/actions/acknowledge", AcknowledgeAlert)
routes.post("alerts/actions/archive", ArchiveAlerts)
routes.post("alerts/actions/delete", DeleteAlerts)
