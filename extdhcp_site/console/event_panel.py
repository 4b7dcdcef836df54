"""The last events that concern the caller."""

from collections.abc import Mapping

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.panels import Panel
from extdhcp_site.events.models import Event

MOST_EVENTS = 10


def _last(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    events = Event.objects.visible_to(caller).filter(archived=False)[:MOST_EVENTS]
    return {"events": [(event, event.text_for(caller)) for event in events]}


PANEL = Panel("Last events", "console/event_panel.html", _last, order=80)
