"""Networks."""

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Account, Caller, Role
from extdhcp_site.api.owners import OwnedListParams, OwnerParams, accounts_of, ownership
from extdhcp_site.api.parameters import Bool, Choice, CommaList, ObjectField, Params, Text, Values, visible
from extdhcp_site.api.registry import ADMINS, EVERYBODY, AsyncCommand, Command, ListCommand, Success, command
from extdhcp_site.errors import PermissionDenied
from extdhcp_site.jobs.models import AsyncJob
from networks.api.answers import NetworkAnswer
from networks.api.infrastructure import by_id, matching
from networks.models import Network, NetworkOffering, Zone
from networks.services import networks as services


def administered(caller: Caller) -> QuerySet[Network]:
    """Networks that the caller may change: those of accounts that the caller answers for."""
    return Network.objects.visible_to(caller).filter(account__in=accounts_of(caller))


class ListNetworksParams(OwnedListParams):
    id = ObjectField("The network's id.", visible(Network))
    name = Text("The network's name.")
    zoneid = ObjectField("Only networks of this zone.", visible(Zone))
    networkofferingid = ObjectField("Only networks of this offering.", visible(NetworkOffering))
    type = Choice("Shared or L2.", ("Shared", "L2", "Isolated"))
    acltype = Choice("Account or Domain.", ("Account", "Domain"))
    traffictype = Text("Guest; there is no other.")
    supportedservices = CommaList("Only networks whose offering has all these services.")
    canusefordeploy = Bool("Accepted: whoever sees a network may deploy into it.")


@command(since="1.0", roles=EVERYBODY)
class ListNetworks(ListCommand):
    """List the networks that the caller may use: one's own, and those of one's domain."""

    params = ListNetworksParams
    answer = ("network", NetworkAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Network]:
        networks = Network.objects.visible_to(caller)
        if params["account"] or params["domainid"]:
            networks = networks.filter(ownership(caller, params))
        if (params["traffictype"] or "guest").lower() != "guest":
            return networks.none()
        if params["keyword"]:
            networks = networks.filter(
                Q(name__icontains=params["keyword"]) | Q(display_text__icontains=params["keyword"])
            )
        for service in params["supportedservices"] or []:
            networks = networks.filter(offering__services__service=service)
        asked = matching(
            params,
            name="name",
            zoneid="zone",
            networkofferingid="offering",
            type="offering__guest_type",
            acltype="acl_type",
        )
        return (
            networks.filter(by_id(params) & asked)
            .select_related("zone", "offering", "account", "domain")
            .prefetch_related("offering__services")
        )


class CreateNetworkParams(OwnerParams):
    name = Text("The network's name.", required=True, max_length=100)
    displaytext = Text("The network in words.")
    zoneid = ObjectField("The zone.", visible(Zone), required=True)
    networkofferingid = ObjectField("The offering.", visible(NetworkOffering), required=True)
    vlan = Text("The VLAN, from 1 to 4094. Root admins only.")
    gateway = Text("The gateway that the external DHCP server tells.")
    netmask = Text("The subnet's netmask.")
    startip = Text("First address of the external DHCP server's range; never used to assign.")
    endip = Text("Last address of that range.")
    networkdomain = Text("DNS domain of its guests.")
    acltype = Choice("Account or Domain: who may deploy into it.", ("Account", "Domain"))


@command(since="1.0", roles=ADMINS)
class CreateNetwork(Command):
    """Create a network. Its range mirrors the external DHCP server's and assigns nothing."""

    params = CreateNetworkParams
    answer = ("network", NetworkAnswer)

    def run(self, caller: Caller, params: Values) -> Network:
        if params["vlan"] and caller.role != Role.ROOT_ADMIN:
            raise PermissionDenied("Only a root admin may name a VLAN. Ask for a network on it.")
        owner: Account = params["account"] or caller.account
        wanted = services.WantedNetwork(
            name=params["name"],
            zone=params["zoneid"],
            offering=params["networkofferingid"],
            account=owner,
            display_text=params["displaytext"] or "",
            acl_type=params["acltype"] or ("Account" if params["account"] else ""),
            domain=params["domainid"],
            vlan=params["vlan"] or "",
            gateway=params["gateway"] or "",
            netmask=params["netmask"] or "",
            start_ip=params["startip"] or "",
            end_ip=params["endip"] or "",
            network_domain=params["networkdomain"] or "",
        )
        return services.create_network(wanted, caller)


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
