"""What the overview says of addresses, and of the hosts they are read from."""

from collections.abc import Mapping

from django.db.models import Case, Count, Q, Value, When

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.panels import Panel
from ipfetch.console.rows import LABELS, OFF, rows_of
from ipfetch.models import IpFetch
from networks.models import Endpoint, Host, Nic
from networks.models.vms import NicQuerySet, VmState

MOST_ROWS = 100


def addresses(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    """One row a NIC, those without an address first and of these the oldest; and how many there are of each state."""
    nics = Nic.objects.visible_to(caller).exclude(vm__state__in=[VmState.DESTROYED, VmState.EXPUNGING])
    counted = nics.order_by().values_list("ip_fetch__state").annotate(Count("pk"))
    counts = {state or OFF: count for state, count in counted}
    chosen = query.get("state", "")
    return {
        "numbers": [(state, label, counts.get(state, 0)) for state, label in LABELS.items()],
        "total": sum(counts.values()),
        "chosen": chosen if chosen in LABELS else "",
        "rows": rows_of(_not_found_first(_of_state(nics, chosen))[:MOST_ROWS], caller),
        "most": MOST_ROWS,
    }


def _of_state(nics: NicQuerySet, state: str) -> NicQuerySet:
    if state not in LABELS:
        return nics
    return nics.filter(ip_fetch=None) if state == OFF else nics.filter(ip_fetch__state=state)


def _not_found_first(nics: NicQuerySet) -> NicQuerySet:
    place = Case(
        When(ip_fetch=None, then=Value(2)), When(ip_fetch__state=IpFetch.State.FOUND, then=Value(1)), default=0
    )
    return nics.order_by(place, "ip_fetch__entered_at", "pk")


def hosts(caller: Caller, query: Mapping[str, str]) -> dict[str, object] | None:
    """Root admins see which hosts answer, those in trouble first."""
    if not caller.is_root:
        return None
    trouble = Case(When(Q(endpoint__last_error=""), then=Value(1)), default=0)
    rows = Host.objects.select_related("endpoint", "cluster__pod__zone").order_by(trouble, "name")
    return {
        "hosts": rows[:MOST_ROWS],
        "silent": Endpoint.objects.exclude(last_error="").count(),
        "total": rows.count(),
    }


PANELS = [
    Panel("Addresses", "ipfetch/addresses_panel.html", addresses, order=10),
    Panel("Hosts", "ipfetch/hosts_panel.html", hosts, order=60),
]
