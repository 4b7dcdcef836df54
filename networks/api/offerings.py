"""Service offerings and network offerings."""

from collections.abc import Sequence

from django.db import models
from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import ListParams, domains_of
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    CommaList,
    Int,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    Values,
    visible,
)
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, Command, ListCommand, Success, command
from extdhcp_site.errors import InvalidParameter, NotInThisProduct
from networks.api.answers import NetworkOfferingAnswer, ServiceOfferingAnswer
from networks.api.infrastructure import by_id, containing, given, is_constant, matching
from networks.models import (
    GuestType,
    Network,
    NetworkOffering,
    Provider,
    Service,
    ServiceOffering,
    VirtualMachine,
    Zone,
)
from networks.services import offerings as services

SERVICE_OFFERING = ("serviceoffering", ServiceOfferingAnswer)
NETWORK_OFFERING = ("networkoffering", NetworkOfferingAnswer)


class ForEverybodyParams(Params):
    """Mixed into what makes or changes an offering: what would keep it from some is refused, not overlooked."""

    domainid = ObjectListField("Not in this product; public is accepted.", domains_of, nothing=("", "public"))
    zoneid = ObjectListField("Not in this product; all is accepted.", visible(Zone), nothing=("", "all"))
    tags = CommaList("Not in this product.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if values.pop("domainid", None) or values.pop("zoneid", None):
            raise NotInThisProduct("Offerings for some domains or zones only are")
        if values.pop("tags", None):
            raise NotInThisProduct("Tags that choose hosts, storage or physical networks are")
        return values


# Service offerings ------------------------------------------------------------------------------


class ListServiceOfferingsParams(ListParams):
    id = ObjectField("The service offering's id.", visible(ServiceOffering))
    name = Text("The service offering's name.")
    zoneid = ObjectField("Accepted: every service offering is for every zone.", visible(Zone))
    virtualmachineid = ObjectField("Only those that this VM could change to.", visible(VirtualMachine))
    issystem = Bool("True finds nothing: there are no system VMs.")
    iscustomized = Bool("True finds nothing: each says its CPUs and memory.")


@command(since="1.0", roles=EVERYBODY)
class ListServiceOfferings(ListCommand):
    """List the service offerings that a new VM may have."""

    params = ListServiceOfferingsParams
    answer = SERVICE_OFFERING

    def rows(self, caller: Caller, params: Values) -> QuerySet[ServiceOffering]:
        offerings = ServiceOffering.objects.visible_to(caller)
        if not is_constant(params, issystem=False, iscustomized=False):
            return offerings.none()
        if vm := params["virtualmachineid"]:
            offerings = offerings.exclude(pk=vm.service_offering_id)
        return offerings.filter(
            by_id(params) & containing(params, "name", "display_text") & matching(params, name="name")
        )


class CreateServiceOfferingParams(ForEverybodyParams):
    name = Text("The service offering's name.", required=True, max_length=100)
    displaytext = Text("What it offers, in words.")
    cpunumber = Int("CPUs. Needed, as cpuspeed and memory: there are no customised offerings.", least=1, most=1024)
    cpuspeed = Int("MHz of each CPU.", least=1, most=100_000)
    memory = Int("MiB of memory.", least=1, most=2**26)
    hosttags = Text("Not in this product.")
    issystem = Bool("False; there are no system VMs.")
    storagetype = Text("shared; there is no other.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if not {"cpunumber", "cpuspeed", "memory"} <= values.keys():
            raise NotInThisProduct("Customised service offerings are")
        if values.get("hosttags"):
            raise NotInThisProduct("Tags that choose hosts, storage or physical networks are")
        if values.get("issystem"):
            raise NotInThisProduct("System VMs are")
        if values.get("storagetype", "shared").lower() != "shared":
            raise InvalidParameter("storagetype must be shared.")
        return values


@command(since="1.1", roles=ROOT_ADMIN)
class CreateServiceOffering(Command):
    """Create a service offering: virtual hardware to choose."""

    params = CreateServiceOfferingParams
    answer = SERVICE_OFFERING

    def run(self, caller: Caller, params: Values) -> ServiceOffering:
        return services.create_service_offering(
            name=params["name"],
            display_text=params["displaytext"] or "",
            cpus=params["cpunumber"],
            mhz=params["cpuspeed"],
            memory_mib=params["memory"],
            by=caller,
        )


class UpdateServiceOfferingParams(ForEverybodyParams):
    id = ObjectField("The service offering's id.", visible(ServiceOffering), required=True)
    name = Text("A new name.", max_length=100)
    displaytext = Text("New words.")


@command(since="1.1", roles=ROOT_ADMIN)
class UpdateServiceOffering(Command):
    """Rename a service offering; what it offers never changes."""

    params = UpdateServiceOfferingParams
    answer = SERVICE_OFFERING

    def run(self, caller: Caller, params: Values) -> ServiceOffering:
        names = given(params, name="name", displaytext="display_text")
        return services.rename_service_offering(params["id"], caller, **names)


class DeleteServiceOfferingParams(Params):
    id = ObjectField("The service offering's id.", visible(ServiceOffering), required=True)


@command(since="1.1", roles=ROOT_ADMIN)
class DeleteServiceOffering(Command):
    """Delete a service offering. VMs that have it keep it."""

    params = DeleteServiceOfferingParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        services.delete_service_offering(params["id"], caller)


# Network offerings ------------------------------------------------------------------------------


def services_of(pairs: list[Values], names: list[str]) -> dict[str, str]:
    """Services with their providers; one that is named without a provider is refused by the service layer."""
    providers = {spelt(pair["service"], Service): spelt(pair["provider"], Provider) for pair in pairs}
    return {**dict.fromkeys((spelt(name, Service) for name in names), ""), **providers}


def spelt(word: str, words: type[models.TextChoices]) -> str:
    """The word as we spell it, in whatever case it is given; another one as it is."""
    return next((known for known in words.values if known.lower() == word.lower()), word)


def with_services(rows: QuerySet, services: str, words: Sequence[str] | None) -> QuerySet:
    """Those that have all the services that `words` name; `services` leads from a row to them."""
    wanted = {spelt(word, Service) for word in words or ()}
    if not wanted.issubset(Service.values):
        return rows.none()
    for service in wanted:
        rows = rows.filter(**{f"{services}__service": service})
    return rows


class ServiceProvider(Params):
    service = Text("The service.", required=True)
    provider = Text("Who provides it.", required=True)


class CreateNetworkOfferingParams(ForEverybodyParams):
    name = Text("The network offering's name.", required=True, max_length=100)
    displaytext = Text("The network offering in words.", required=True)
    guestiptype = Text("Shared or L2.", required=True)
    traffictype = Text("Guest; there is no other.", required=True)
    supportedservices = CommaList("UserData, or nothing: DHCP and DNS are external.")
    serviceproviderlist = MapList("Who provides each service: ConfigDrive for UserData.", ServiceProvider)
    specifyvlan = Bool("True if a network of it names its VLAN; the default for Shared.")
    specifyipranges = Bool("True if a network of it names the external server's range; the default for Shared.")
    enable = Bool("True to enable it at once; else it begins Disabled.")
    availability = Text("Optional; no network is required or unavailable.")
    forvpc = Bool("False; there are no VPCs.")
    serviceofferingid = ObjectField("Accepted and ignored: there is no router.", visible(ServiceOffering))
    conservemode = Bool("Accepted and ignored: there are no public addresses to share.")
    egressdefaultpolicy = Bool("Accepted and ignored: there is no firewall.")
    ispersistent = Bool("Accepted and ignored: nothing of a network is made or shut down by us.")
    keepaliveenabled = Bool("Accepted and ignored: there is no load balancer.")
    maxconnections = Int("Kept and shown; there is no load balancer to limit.")
    networkrate = Int("Accepted and ignored: nobody here limits it.", least=-1)

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        refuse_availability(values)
        if values.get("forvpc"):
            raise NotInThisProduct("VPCs are")
        return values


def refuse_availability(values: Values) -> None:
    if (values.get("availability") or "Optional").lower() != "optional":
        raise InvalidParameter("availability must be Optional: no network is required or unavailable.")


@command(since="1.0", roles=ROOT_ADMIN)
class CreateNetworkOffering(Command):
    """Create a network offering. Without services it is for networks whose DHCP and DNS are external."""

    params = CreateNetworkOfferingParams
    answer = NETWORK_OFFERING

    def run(self, caller: Caller, params: Values) -> NetworkOffering:
        if params["traffictype"].lower() != "guest":
            raise InvalidParameter("traffictype must be Guest.")
        # What a network of this kind needs anyway is not asked for twice.
        guest_type = spelt(params["guestiptype"], GuestType)
        is_shared = guest_type == GuestType.SHARED
        return services.create_offering(
            name=params["name"],
            display_text=params["displaytext"],
            guest_type=guest_type,
            services=services_of(params["serviceproviderlist"] or [], params["supportedservices"] or []),
            specify_vlan=is_shared if params["specifyvlan"] is None else params["specifyvlan"],
            specify_ip_ranges=is_shared if params["specifyipranges"] is None else params["specifyipranges"],
            enable=bool(params["enable"]),
            max_connections=params["maxconnections"],
            by=caller,
        )


class UpdateNetworkOfferingParams(ForEverybodyParams):
    id = ObjectField("The network offering's id.", visible(NetworkOffering), required=True)
    name = Text("A new name.", max_length=100)
    displaytext = Text("New words.")
    state = Choice("Enabled or Disabled.", ("Enabled", "Disabled"))
    availability = Text("Optional; no network is required or unavailable.")
    maxconnections = Int("Kept and shown; there is no load balancer to limit.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        refuse_availability(values)
        return values


@command(since="1.0", roles=ROOT_ADMIN)
class UpdateNetworkOffering(Command):
    """Rename, enable or disable a network offering."""

    params = UpdateNetworkOfferingParams
    answer = NETWORK_OFFERING

    def run(self, caller: Caller, params: Values) -> NetworkOffering:
        return services.update_offering(
            params["id"],
            by=caller,
            name=params["name"] or "",
            display_text=params["displaytext"] or "",
            state=params["state"] or "",
            max_connections=params["maxconnections"],
        )


class DeleteNetworkOfferingParams(Params):
    id = ObjectField("The network offering's id.", visible(NetworkOffering), required=True)


@command(since="1.0", roles=ROOT_ADMIN)
class DeleteNetworkOffering(Command):
    """Delete a network offering that no network uses."""

    params = DeleteNetworkOfferingParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        services.delete_offering(params["id"], caller)


class ListNetworkOfferingsParams(ListParams):
    id = ObjectField("The network offering's id.", visible(NetworkOffering))
    name = Text("The network offering's name.")
    displaytext = Text("The network offering's words.")
    guestiptype = Choice("Shared or L2.", ("Shared", "L2", "Isolated"))
    state = Choice("Enabled or Disabled.", ("Enabled", "Disabled"))
    specifyvlan = Bool("Only offerings whose networks name their VLAN, or only the others.")
    specifyipranges = Bool("Only offerings whose networks name a range, or only the others.")
    zoneid = ObjectField("Accepted: every network offering is for every zone.", visible(Zone))
    networkid = ObjectField("Only offerings that this network could change to.", visible(Network))
    supportedservices = CommaList("Only offerings with all these services.")
    traffictype = Text("Guest; there is no other.")
    availability = Text("Optional; there is no other.")
    forvpc = Bool("True finds nothing: there are no VPCs.")
    isdefault = Bool("True finds nothing: none was there before somebody made it.")
    istagged = Bool("True finds nothing: there are no tags that choose physical networks.")


@command(since="1.0", roles=EVERYBODY)
class ListNetworkOfferings(ListCommand):
    """List the network offerings."""

    params = ListNetworkOfferingsParams
    answer = NETWORK_OFFERING

    def rows(self, caller: Caller, params: Values) -> QuerySet[NetworkOffering]:
        offerings = NetworkOffering.objects.visible_to(caller).prefetch_related("services")
        if not is_constant(
            params, traffictype="Guest", availability="Optional", forvpc=False, isdefault=False, istagged=False
        ):
            return offerings.none()
        offerings = with_services(offerings, "services", params["supportedservices"])
        asked = matching(
            params,
            name="name",
            displaytext="display_text",
            guestiptype="guest_type",
            state="state",
            specifyvlan="specify_vlan",
            specifyipranges="specify_ip_ranges",
        )
        found = by_id(params) & containing(params, "name", "display_text") & asked
        return offerings.filter(found & _compatible(params["networkid"]))


def _compatible(network: Network | None) -> Q:
    if network is None:
        return Q()
    now = network.offering
    return Q(guest_type=now.guest_type, specify_vlan=now.specify_vlan, state="Enabled") & ~Q(pk=now.pk)
