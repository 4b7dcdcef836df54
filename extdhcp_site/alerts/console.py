"""Alerts: those that wait for somebody first; what each means, what to do, and the list behind it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from extdhcp_site.accounts.models import Caller
from extdhcp_site.alerts.api import in_state
from extdhcp_site.alerts.configuration import ADDRESSES, HOST
from extdhcp_site.alerts.models import Alert, AlertQuerySet, Kind
from extdhcp_site.api.registry import ROOT_ADMIN
from extdhcp_site.configuration.models import values_of
from extdhcp_site.console.commands import Action, permitted
from extdhcp_site.console.lists import Column, Filter, ListOf
from extdhcp_site.console.objects import page_of
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.console.panels import Panel
from extdhcp_site.console.templatetags.console import in_words
from extdhcp_site.events.console import uuid_of

STATES = (("open", "Open"), ("acknowledged", "Acknowledged"), ("resolved", "Resolved"), ("all", "All"))
MOST_COUNTED = 1000
MOST_IN_PANEL = 5


@dataclass(frozen=True)
class Shown:
    alert: Alert
    about_url: str
    actions: list[Action]

    @classmethod
    def each(cls, alerts: Iterable[Alert], caller: Caller) -> Iterator["Shown"]:
        for alert in alerts:
            url = page_of(alert.subject_kind, alert.subject_uuid, caller)
            yield cls(alert, url, permitted(caller, _actions(alert)))

    @property
    def lasted(self) -> timedelta:
        return (self.alert.resolved_at or self.alert.last_at) - self.alert.first_at


def _actions(alert: Alert) -> list[Action]:
    if alert.state != "Open":
        return []
    return [Action("acknowledgeAlert", "I see to it", {"id": str(alert.uuid)})]


def alerts_of(caller: Caller) -> AlertQuerySet:
    return Alert.objects.visible_to(caller).filter(archived=False)


def _in_state(alerts: AlertQuerySet, state: str, caller: Caller) -> AlertQuerySet:
    return alerts if state == "all" else in_state(alerts, state.capitalize())


def _with_word(alerts: QuerySet[Alert], word: str, caller: Caller) -> QuerySet[Alert]:
    return alerts.filter(Q(text__icontains=word) | Q(subject_name__icontains=word))


ALERTS: ListOf[Shown] = ListOf(
    "alerts",
    "Alerts",
    rows=alerts_of,
    columns=[
        Column("State", lambda shown: shown.alert.state, "alerts/state.html", short=True),
        Column(
            "Since", lambda shown: shown.alert.first_at.isoformat(timespec="seconds"), "alerts/since.html", short=True
        ),
        Column("About", lambda shown: shown.alert.subject_name, "alerts/about.html"),
        Column("What is wrong", lambda shown: shown.alert.text, "alerts/what.html"),
        Column("Lasted", lambda shown: in_words(shown.lasted), "alerts/lasted.html", short=True),
        Column("Who sees to it", lambda shown: shown.alert.acknowledged_by or "nobody yet", "alerts/who.html"),
    ],
    filters=[
        Filter("q", "Text", _with_word, placeholder="words, a name"),
        Filter("state", "State", _in_state, STATES, default="open"),
        Filter("kind", "Kind", lambda rows, kind, _: rows.filter(kind=kind), Kind.choices),
        Filter("subject", "About", lambda rows, text, _: rows.filter(subject_uuid=uuid_of(text)), hidden=True),
    ],
    complete=lambda alerts, caller: Shown.each(alerts, caller),
    model_of=lambda shown: shown.alert,
    template="alerts/alerts.html",
    nothing="Nothing is wrong that anybody has to see to.",
)


def waiting(caller: Caller) -> int:
    return alerts_of(caller).open().order_by()[:MOST_COUNTED].count()


@page("alerts/", name="alerts", roles=ROOT_ADMIN, menu=Menu("Alerts", order=5, count=waiting))
def alerts(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    addresses, host = values_of(ADDRESSES, HOST)
    return ALERTS.respond(request, caller, mailed_to=addresses if host else [])


def _panel(caller: Caller, query: Mapping[str, str]) -> dict[str, object] | None:
    """Those that wait for somebody, the latest first."""
    if not caller.is_root:
        return None
    found = list(Shown.each(alerts_of(caller).open()[:MOST_IN_PANEL], caller))
    more = waiting(caller) - len(found) if len(found) == MOST_IN_PANEL else 0
    return {"alerts": found, "more": more}


PANEL = Panel("Open alerts", "alerts/panel.html", _panel, order=5)
