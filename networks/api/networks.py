"""Networks."""

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Account, Caller, Domain
from extdhcp_site.api.owners import OwnedListParams, OwnerParams, accounts_of, ownership
from extdhcp_site.api.parameters import Bool, Choice, CommaList, ObjectField, Params, Text, Values, visible
from extdhcp_site.api.registry import ADMINS, EVERYBODY, AsyncCommand, Command, ListCommand, Success, command
from extdhcp_site.errors import InvalidParameter, NotInThisProduct, PermissionDenied
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.api.answers import NetworkAnswer
from networks.api.infrastructure import by_id, containing, is_constant, matching
from networks.api.offerings import with_services
from networks.api.tag_answers import tagged, tags_filter
from networks.models import Network, NetworkOffering, Zone
from networks.models.networks import AclType
from networks.services import networks as services

NETWORK = ("network", NetworkAnswer)


def administered(caller: Caller) -> QuerySet[Network]:
    """Networks that the caller may change: those of accounts that the caller answers for."""
    return Network.objects.filter(account__in=accounts_of(caller))


class ListNetworksParams(OwnedListParams):
    id = ObjectField("The network's id.", visible(Network))
    name = Text("The network's name.")
    zoneid = ObjectField("Only networks of this zone.", visible(Zone))
    networkofferingid = ObjectField("Only networks of this offering.", visible(NetworkOffering))
    type = Choice("Shared or L2.", ("Shared", "L2", "Isolated"))
    acltype = Choice("Account or Domain.", AclType.values)
    traffictype = Text("Guest; there is no other.")
    vlan = Text("The network on this VLAN. Root admins only.")
    supportedservices = CommaList("Only networks whose offering has all these services.")
    specifyipranges = Bool("Only networks that name the external server's range, or only the others.")
    specifyvlan = Bool("Only networks that name their VLAN, or only the others.")
    isdefault = Bool("Only networks that may be a VM's default network, or only the others (not in CloudStack).")
    canusefordeploy = Bool("False finds nothing: whoever sees a network may deploy into it.")
    issystem = Bool("True finds nothing: there are no system networks.")
    restartrequired = Bool("True finds nothing.")
    forvpc = Bool("True finds nothing: there are no VPCs.")
    vpcid = Text("Finds nothing: there are no VPCs.")
    tags = tags_filter()


@command(since="1.0", roles=EVERYBODY)
class ListNetworks(ListCommand):
    """List the networks that the caller may use: one's own, and those of one's domain."""

    params = ListNetworksParams
    answer = NETWORK

    def rows(self, caller: Caller, params: Values) -> QuerySet[Network]:
        networks = _of_owner(Network.objects.visible_to(caller), caller, params)
        if params["vpcid"] or not is_constant(
            params, traffictype="Guest", canusefordeploy=True, issystem=False, restartrequired=False, forvpc=False
        ):
            return networks.none()
        networks = with_services(networks, "offering__services", params["supportedservices"])
        if vlan := _vlan(caller, params):
            networks = networks.filter(vlan=int(vlan) if vlan.isascii() and vlan.isdecimal() and len(vlan) < 5 else -1)
        asked = matching(
            params,
            name="name",
            zoneid="zone",
            networkofferingid="offering",
            type="offering__guest_type",
            acltype="acl_type",
            specifyipranges="offering__specify_ip_ranges",
            specifyvlan="offering__specify_vlan",
            isdefault="is_default",
        )
        found = networks.filter(by_id(params) & containing(params, "name", "display_text") & asked)
        return tagged(found, params).for_listing()


def _of_owner(networks: QuerySet[Network], caller: Caller, params: Values) -> QuerySet[Network]:
    """Those of the owner that is named, and those that are shared with it."""
    if not (params["account"] or params["domainid"]):
        return networks
    domain: Domain = params["account"].domain if params["account"] else params["domainid"]
    own = Q(acl_type=AclType.ACCOUNT) & ownership(caller, params)
    if params["domainid"] and params["isrecursive"]:
        own |= Q(acl_type=AclType.DOMAIN, domain__path__startswith=domain.path)
    return networks.filter(own | Network.objects.shared_with(domain.path))


def _vlan(caller: Caller, params: Values) -> str:
    if params["vlan"] and not caller.is_root:
        raise PermissionDenied("Only a root admin may name a VLAN. Ask for a network on it.")
    return (params["vlan"] or "").removeprefix("vlan://")


class CreateNetworkParams(OwnerParams):
    name = Text("The network's name.", required=True, max_length=100)
    displaytext = Text("The network in words.")
    zoneid = ObjectField("The zone.", visible(Zone), required=True)
    networkofferingid = ObjectField("The offering.", visible(NetworkOffering), required=True)
    vlan = Text("The VLAN, from 1 to 4094. Root admins only.")
    gateway = Text("The gateway that the external DHCP server tells.")
    netmask = Text("The subnet's netmask.")
    startip = Text("First address of the external DHCP server's range; never used to assign.")
    endip = Text("Last address of that range; absent: its first.")
    networkdomain = Text("DNS domain of its guests.")
    acltype = Choice("Account: for one account. Domain: for all of a domain and of those below it.", AclType.values)
    subdomainaccess = Bool("True; a domain's network is always for the domains below it, too.")
    isdefault = Bool("False if it may not be a VM's default network (as in CloudStack 2.2).")
    startipv6 = Text("Not in this product.")
    endipv6 = Text("Not in this product.")
    ip6gateway = Text("Not in this product.")
    ip6cidr = Text("Not in this product.")
    isolatedpvlan = Text("Not in this product.")
    vpcid = Text("Not in this product.")
    aclid = Text("Not in this product.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if any(values.get(name) for name in ("startipv6", "endipv6", "ip6gateway", "ip6cidr")):
            raise NotInThisProduct("IPv6 ranges of networks are")
        if values.get("isolatedpvlan"):
            raise NotInThisProduct("Private VLANs are")
        if values.get("vpcid") or values.get("aclid"):
            raise NotInThisProduct("VPCs are")
        return values


@command(since="1.0", roles=ADMINS)
class CreateNetwork(Command):
    """Create a network. Its range mirrors the external DHCP server's and assigns nothing."""

    params = CreateNetworkParams
    answer = NETWORK

    def run(self, caller: Caller, params: Values) -> Network:
        vlan = _vlan(caller, params)
        _check_owner(params)
        owner: Account = params["account"] or caller.account
        wanted = services.WantedNetwork(
            name=params["name"],
            zone=params["zoneid"],
            offering=params["networkofferingid"],
            account=owner,
            display_text=params["displaytext"] or "",
            acl_type=params["acltype"] or _usual_access(params),
            domain=params["domainid"] or (Domain.root() if caller.is_root else None),
            vlan=vlan,
            gateway=params["gateway"] or "",
            netmask=params["netmask"] or "",
            start_ip=params["startip"] or "",
            end_ip=params["endip"] or "",
            network_domain=params["networkdomain"] or "",
            is_default=params["isdefault"] is not False,
        )
        return services.create_network(wanted, caller)


def _check_owner(params: Values) -> None:
    if params["acltype"] == AclType.DOMAIN and params["account"]:
        raise InvalidParameter("acltype=Domain is for all accounts of a domain: leave account out.")
    if params["acltype"] == AclType.ACCOUNT and params["domainid"] and not params["account"]:
        raise InvalidParameter("acltype=Account is for one account: name it in account.")
    if params["subdomainaccess"] is False:
        raise NotInThisProduct("Networks of a domain without the domains below it are")


def _usual_access(params: Values) -> str:
    """What naming an owner means; the service knows what is usual without one."""
    if params["account"]:
        return AclType.ACCOUNT
    return AclType.DOMAIN if params["domainid"] else ""


class UpdateNetworkParams(Params):
    id = ObjectField("The network's id.", administered, required=True)
    name = Text("A new name.", max_length=100)
    displaytext = Text("New words.")
    networkdomain = Text("A new DNS domain of its guests; empty: none.", allow_blank=True)
    networkofferingid = ObjectField("Another offering of the same kind.", visible(NetworkOffering))
    startip = Text("A new first address of the external DHCP server's range (not in CloudStack).")
    endip = Text("A new last address of that range (not in CloudStack).")
    isdefault = Bool("Whether it may be a new VM's default network (not in CloudStack).")
    guestvmcidr = Text("Not in this product.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if values.get("guestvmcidr"):
            raise NotInThisProduct("Reserved ranges of networks are")
        return values


@command(since="1.1", roles=ADMINS)
class UpdateNetwork(AsyncCommand):
    """Change a network's names, its offering, and what it mirrors of the external DHCP server."""

    params = UpdateNetworkParams
    answer = NETWORK

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        changes = services.Changes(
            name=params["name"],
            display_text=params["displaytext"],
            network_domain=params["networkdomain"],
            offering=params["networkofferingid"] and params["networkofferingid"].pk,
            start_ip=params["startip"],
            end_ip=params["endip"],
            is_default=params["isdefault"],
        )
        return services.update_network(params["id"], changes, caller)


@jobs.renders_job("updateNetwork")
def shown_as_result(job: AsyncJob, caller: Caller) -> dict[str, object] | None:
    network = Network.objects.for_listing().filter(uuid=job.instance_uuid).first()
    return {"network": NetworkAnswer(network, context={"caller": caller}).data} if network else None


class RestartNetworkParams(Params):
    id = ObjectField("The network's id.", administered, required=True)
    cleanup = Bool("Accepted: there is nothing to clean up.")


class DeleteNetworkParams(Params):
    id = ObjectField("The network's id.", administered, required=True)
    forced = Bool("Accepted: a network with NICs is never deleted.")


@command(since="1.0", roles=EVERYBODY)
class RestartNetwork(AsyncCommand):
    """Restart a network: a dummy, since there is no router and no rule to set up again."""

    params = RestartNetworkParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.restart_network(params["id"], caller)


@command(since="1.0", roles=ADMINS)
class DeleteNetwork(AsyncCommand):
    """Delete a network that no NIC is on."""

    params = DeleteNetworkParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.delete_network(params["id"], caller)
