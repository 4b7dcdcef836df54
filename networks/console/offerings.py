"""Network offerings: what networks promise their guests."""

from collections.abc import Iterable

from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action
from extdhcp_site.console.lists import Column, Filter, ListOf
from extdhcp_site.console.pages import page
from networks.models import GuestType, Network, NetworkOffering
from networks.models.infrastructure import AllocationState


def _complete(rows: QuerySet[NetworkOffering], caller: Caller) -> Iterable[NetworkOffering]:
    found = rows.prefetch_related("services")
    networks = Network.objects.visible_to(caller).filter(offering__in=found).order_by()
    counts = dict(networks.values_list("offering").annotate(Count("pk")))
    for offering in found:
        offering.network_count = counts.get(offering.pk, 0)
        offering.actions = commands.permitted(caller, _actions(offering))
        yield offering


def _actions(offering: NetworkOffering) -> list[Action]:
    is_enabled = offering.state == AllocationState.ENABLED
    uuid, then = str(offering.uuid), reverse("offerings")
    change = {"id": uuid, "state": AllocationState.DISABLED if is_enabled else AllocationState.ENABLED}
    return [
        Action("updateNetworkOffering", "Disable" if is_enabled else "Enable", change, then=then),
        Action(
            "deleteNetworkOffering",
            "Delete",
            {"id": uuid},
            sure=f"Delete network offering {offering}? One that a network uses is not deleted.",
            is_destructive=True,
            then=then,
        ),
    ]


def _promises(offering: NetworkOffering) -> str:
    return ", ".join(str(service) for service in offering.services.all()) or "no service of ours"


OFFERINGS: ListOf[NetworkOffering] = ListOf(
    "offerings",
    "Network offerings",
    rows=lambda caller: NetworkOffering.objects.visible_to(caller).order_by("name", "pk"),
    columns=[
        Column("Name", lambda offering: offering.name, "networks/network_offering_name.html", sort="name"),
        Column("Kind", lambda offering: offering.guest_type, sort="guest_type"),
        Column("Services", _promises),
        Column("VLAN is named", lambda offering: "yes" if offering.specify_vlan else "no"),
        Column("Range is named", lambda offering: "yes" if offering.specify_ip_ranges else "no"),
        Column("State", lambda offering: offering.state, "networks/network_offering_state.html", sort="state"),
        Column("Networks", lambda offering: offering.network_count, "networks/network_offering_networks.html"),
        Column("Change", lambda offering: "", "networks/network_offering_actions.html"),
    ],
    filters=[
        Filter("search", "Name", lambda rows, text, caller: rows.filter(name__icontains=text)),
        Filter("state", "State", lambda rows, state, caller: rows.filter(state=state), AllocationState.choices),
        Filter(
            "type",
            "Kind",
            lambda rows, kind, caller: rows.filter(guest_type=kind),
            [(GuestType.SHARED, "Shared"), (GuestType.L2, "L2")],
        ),
    ],
    complete=_complete,
    template="networks/network_offerings.html",
    nothing="There is no network offering yet.",
)


@page("offerings/", name="offerings", roles=EVERYBODY, section="networks")
def offerings(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return OFFERINGS.respond(request, caller, may_create=commands.may(caller, "createNetworkOffering"))
