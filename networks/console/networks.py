"""Networks: the list, one network's page, and the wizard that makes an offering and its network."""

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Count, F, IntegerField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import ADMINS, EVERYBODY
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.console.lists import Choices, Column, Filter, ListOf
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.events.models import Event
from networks import external_server
from networks.api.networks import administered
from networks.console.contributions import shown_on
from networks.models import GuestType, Network, NetworkOffering, Nic, Zone
from networks.models.infrastructure import AllocationState
from networks.models.networks import AclType

LAST_EVENTS = 10
MOST_ZONES = 100
DESTROYED = ("Destroyed", "Expunging")


def zones(caller: Caller) -> Choices:
    return [
        (str(uuid), name) for uuid, name in Zone.objects.visible_to(caller).values_list("uuid", "name")[:MOST_ZONES]
    ]


def with_counts(rows: QuerySet[Network], caller: Caller) -> QuerySet[Network]:
    """With `nic_count`: the NICs on it of VMs that the caller may see, destroyed ones aside."""
    nics = Nic.objects.visible_to(caller).exclude(vm__state__in=DESTROYED)
    counted = nics.filter(network=OuterRef("pk")).order_by().values("network").annotate(number=Count("pk"))
    number = Coalesce(Subquery(counted.values("number")), 0, output_field=IntegerField())
    return rows.select_related("zone", "offering", "account", "domain").annotate(nic_count=number)


def _rows(caller: Caller) -> QuerySet[Network]:
    """With `seen_vlan`, by which a root admin may order them; for others the order would tell what they may not see."""
    seen = F("vlan") if caller.is_root else Value("")
    return Network.objects.visible_to(caller).annotate(seen_vlan=seen).order_by("name", "pk")


def _complete(rows: QuerySet[Network], caller: Caller) -> Iterable[Network]:
    # The VLAN is a root admin's.
    for network in with_counts(rows, caller):
        network.shown_vlan = (network.vlan or "none") if caller.is_root else "not shown"
        yield network


def _range(network: Network) -> str:
    return f"{network.start_ip} to {network.end_ip}" if network.start_ip else "not told"


def _who(network: Network) -> str:
    if network.acl_type == AclType.ACCOUNT:
        return f"account {network.account.name}"
    return f"domain {network.domain.name}"


NETWORKS: ListOf[Network] = ListOf(
    "networks",
    "Networks",
    rows=_rows,
    columns=[
        Column("Name", lambda network: network.name, "networks/network_name.html", sort="name"),
        Column("Zone", lambda network: network.zone.name),
        Column("VLAN", lambda network: network.shown_vlan, sort="seen_vlan", short=True),
        Column("Subnet", lambda network: network.cidr or "any", "networks/network_subnet.html", short=True),
        Column("DHCP server's range", _range, short=True),
        Column("Offering", lambda network: network.offering.name),
        Column("For", _who),
        Column("NICs", lambda network: network.nic_count, "networks/network_nics.html", short=True),
    ],
    filters=[
        Filter(
            "search",
            "Name or subnet",
            lambda rows, text, caller: rows.filter(name__icontains=text) | rows.filter(cidr__startswith=text),
            placeholder="name, 192.0.2.",
        ),
        Filter("zone", "Zone", lambda rows, uuid, caller: rows.filter(zone__uuid=uuid), zones),
        Filter(
            "type",
            "Kind",
            lambda rows, kind, caller: rows.filter(offering__guest_type=kind),
            [(GuestType.SHARED, "Shared"), (GuestType.L2, "L2")],
        ),
        Filter(
            "offering",
            "Offering",
            lambda rows, uuid, caller: rows.filter(offering__uuid=uuid),
            lambda caller: [
                (str(uuid), name)
                for uuid, name in NetworkOffering.objects.visible_to(caller).values_list("uuid", "name")
            ],
        ),
    ],
    complete=_complete,
    template="networks/networks.html",
    nothing="There is no network yet.",
)


@page("networks/", name="networks", roles=EVERYBODY, menu=Menu("Networks", order=30))
def networks(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return NETWORKS.respond(request, caller, may_create=commands.may(caller, "createNetwork"))


@page("networks/<uuid:uuid>/", name="network", roles=EVERYBODY, section="networks")
def network(request: HttpRequest, caller: Caller, uuid: str) -> HttpResponse:
    it = get_object_or_404(with_counts(Network.objects.visible_to(caller), caller), uuid=uuid)
    services = [str(service) for service in it.offering.services.all()]
    may_change = caller.role in ADMINS and administered(caller).filter(pk=it.pk).exists()
    return render(
        request,
        "networks/network.html",
        {
            "network": it,
            "who": _who(it),
            "services": services,
            "vlan": it.vlan if caller.is_root else None,
            "is_new": "new" in request.GET,
            "recipes": external_server.recipes(it) if caller.role in ADMINS else [],
            "dns_servers": external_server.dns_servers(it),
            "may_change": may_change,
            "actions": commands.permitted(caller, _actions(it)) if may_change else [],
            "parts": shown_on("network", caller, it),
            "events": [
                (event, event.text_for(caller)) for event in Event.objects.visible_to(caller).about(it)[:LAST_EVENTS]
            ],
        },
    )


def _actions(network: Network) -> list[Action]:
    values = {"id": str(network.uuid)}
    return [
        Action("restartNetwork", "Restart", values),
        Action(
            "deleteNetwork",
            "Delete",
            values,
            sure=f"Delete network {network}? Nothing changes on the DHCP server or on hosts. A network that NICs are "
            "on is not deleted.",
            is_destructive=True,
            then=reverse("networks"),
        ),
    ]


@page("networks/<uuid:uuid>/edit/", name="edit_network", roles=ADMINS, section="networks", posts=True)
def edit_network(request: HttpRequest, caller: Caller, uuid: str) -> HttpResponse:
    it = get_object_or_404(administered(caller).select_related("offering"), uuid=uuid)
    now = it.offering
    compatible = NetworkOffering.objects.filter(
        guest_type=now.guest_type, specify_vlan=now.specify_vlan, state=AllocationState.ENABLED
    )
    asks = [
        Ask("name", "Name", value=it.name),
        Ask("displaytext", "In words", value=it.display_text),
        Ask("startip", "First address", value=it.start_ip or "", help="Of the range that the DHCP server hands out."),
        Ask("endip", "Last address", value=it.end_ip or ""),
        Ask("networkdomain", "DNS domain of its guests", value=it.network_domain, empties=True),
        Ask(
            "networkofferingid",
            "Offering",
            value=str(now.uuid),
            choices=[(str(offering.uuid), offering.name) for offering in compatible],
        ),
        Ask("isdefault", "May be a VM's default network", value=str(it.is_default).lower()),
    ]
    form = CommandForm("updateNetwork", request, caller, asks, {"id": str(it.uuid)})
    if answer := form.submit():
        return redirect("job", answer["jobid"])
    return render(request, "networks/edit_network.html", {"network": it, "form": form})


# The wizard -----------------------------------------------------------------------------------------


@page("networks/new/", name="new_network", roles=ADMINS, section="networks", posts=True)
def new_network(request: HttpRequest, caller: Caller) -> HttpResponse:
    """First an offering, chosen or made; with `offering` in the URL the network of it."""
    if chosen := request.GET.get("offering"):
        return _second_step(request, caller, chosen)
    return _first_step(request, caller)


def _first_step(request: HttpRequest, caller: Caller) -> HttpResponse:
    offerings = NetworkOffering.objects.visible_to(caller).external_dhcp().prefetch_related("services")
    with_drive = request.GET.get("services") != "none"
    context: dict[str, object] = {
        "offerings": offerings.filter(state=AllocationState.ENABLED)[:MOST_ZONES],
        "with_drive": with_drive,
        "form": None,
    }
    if commands.may(caller, "createNetworkOffering"):
        form = CommandForm("createNetworkOffering", request, caller, _offering_asks(with_drive), _promised(with_drive))
        if answer := form.submit():
            return redirect(f"{reverse('new_network')}?offering={answer['networkoffering']['id']}")
        context["form"] = form
    return render(request, "networks/new_network_offering.html", context)


def _offering_asks(with_drive: bool) -> list[Ask]:
    usual = "External DHCP with config drive" if with_drive else "External DHCP"
    return [
        Ask(
            "name",
            "Name",
            value="" if NetworkOffering.objects.filter(name=usual).exists() else usual,
            help="What who makes a network chooses by.",
        ),
        Ask(
            "displaytext",
            "In words",
            value="DHCP and DNS are external; user data comes on a config drive."
            if with_drive
            else "DHCP and DNS are external; no service is ours.",
        ),
        Ask(
            "guestiptype",
            "Kind",
            kind="select",
            choices=[("Shared", "Shared: a subnet that the DHCP server serves"), ("L2", "L2: a VLAN, and no more")],
            value="Shared",
            help="Shared networks name the server's subnet and range, so that a wrong address is noticed.",
        ),
    ]


def _promised(with_drive: bool) -> dict[str, str]:
    by_drive = {
        "supportedservices": "UserData",
        "serviceproviderlist[0].service": "UserData",
        "serviceproviderlist[0].provider": "ConfigDrive",
    }
    return {"traffictype": "Guest", "enable": "true", **(by_drive if with_drive else {})}


def _second_step(request: HttpRequest, caller: Caller, chosen: str) -> HttpResponse:
    offering = next(iter(_offerings(caller, chosen)), None)
    if offering is None:
        return redirect("new_network")
    form = CommandForm(
        "createNetwork", request, caller, _network_asks(offering, caller), {"networkofferingid": str(offering.uuid)}
    )
    if answer := form.submit():
        return redirect(f"{reverse('network', args=[answer['network']['id']])}?new=1")
    context = {"form": form, "offering": offering, "is_l2": offering.guest_type == GuestType.L2}
    return render(request, "networks/new_network.html", context)


def _offerings(caller: Caller, uuid: str) -> QuerySet[NetworkOffering]:
    try:
        return NetworkOffering.objects.visible_to(caller).filter(uuid=UUID(uuid), state=AllocationState.ENABLED)
    except ValueError:
        return NetworkOffering.objects.none()


def _network_asks(offering: NetworkOffering, caller: Caller) -> list[Ask]:
    is_l2, only = offering.guest_type == GuestType.L2, zones(caller)
    named = [
        Ask("name", "Name", placeholder="corporate-100"),
        Ask("displaytext", "In words", more=True),
        Ask("zoneid", "Zone", value=only[0][0] if len(only) == 1 else "", help="Whose hosts carry the VLAN."),
    ]
    if offering.specify_vlan and caller.is_root:
        named.append(
            Ask(
                "vlan",
                "VLAN",
                kind="number",
                required=True,
                placeholder="100",
                help="From 1 to 4094. The hosts' bridge or port group of it, and the DHCP server, must be on it.",
            )
        )
    return [
        *named,
        Ask("gateway", "Gateway", required=not is_l2, more=is_l2, placeholder="192.0.2.1",
            help="The router's address on this network, which the DHCP server tells its clients."),
        Ask("netmask", "Netmask", required=not is_l2, more=is_l2, placeholder="255.255.255.0",
            help="With the gateway it gives the subnet: an address outside of it is shown as a mistake."),
        Ask("startip", "First address", required=offering.specify_ip_ranges and not is_l2, more=is_l2,
            placeholder="192.0.2.100", help="Of the range that the DHCP server hands out; a mirror."),
        Ask("endip", "Last address", required=False, more=is_l2, placeholder="192.0.2.199"),
        Ask("networkdomain", "DNS domain of its guests", placeholder="lab.example.org",
            help="As the DHCP server tells it; guests find their own name in it."),
        Ask("acltype", "For", more=True, choices=[("Domain", "all of a domain"), ("Account", "one account")]),
        Ask("domainid", "Domain", more=True),
        Ask("account", "Account", more=True),
        Ask("isdefault", "May be a VM's default network", more=True, value="true"),
    ]  # fmt: skip
