"""The last events that concern the caller."""

from collections.abc import Mapping

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.panels import Panel
from extdhcp_site.events.console import Told, events_of

MOST_EVENTS = 10


def _last(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    return {"told": list(Told.each(events_of(caller)[:MOST_EVENTS], caller))}


PANEL = Panel("Last events", "events/panel.html", _last, order=80)
