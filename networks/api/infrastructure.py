"""Zones and hosts."""

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Bool, Choice, ObjectField, ObjectListField, Text, Values, visible
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, ListCommand, command
from networks.api.answers import HostAnswer, ZoneAnswer
from networks.models import Cluster, Host, HypervisorType, Pod, Zone


def matching(params: Values, **columns: str) -> Q:
    """Each given parameter asks for equality with its column; an absent one asks for nothing."""
    return Q(**{column: params[name] for name, column in columns.items() if params[name] is not None})


def by_id(params: Values) -> Q:
    wanted = Q()
    if params["id"]:
        wanted &= Q(pk=params["id"].pk)
    if params.get("ids"):
        wanted &= Q(pk__in=[row.pk for row in params["ids"]])
    return wanted


class ListZonesParams(ListParams):
    id = ObjectField("The zone's id.", visible(Zone))
    ids = ObjectListField("Several zones' ids.", visible(Zone))
    name = Text("The zone's name.")
    networktype = Text("Advanced; there is no other.")
    available = Bool("Accepted and ignored: whoever sees a zone may deploy into it.")


@command(since="1.0", roles=EVERYBODY)
class ListZones(ListCommand):
    """List the zones that the caller may deploy into."""

    params = ListZonesParams
    answer = ("zone", ZoneAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Zone]:
        zones = Zone.objects.visible_to(caller).select_related("domain")
        if params["networktype"] and params["networktype"].lower() != "advanced":
            return zones.none()
        if params["keyword"]:
            zones = zones.filter(name__icontains=params["keyword"])
        return zones.filter(by_id(params) & matching(params, name="name"))


class ListHostsParams(ListParams):
    id = ObjectField("The host's id.", visible(Host))
    name = Text("The host's name.")
    zoneid = ObjectField("Only hosts of this zone.", visible(Zone))
    podid = ObjectField("Only hosts of this pod.", visible(Pod))
    clusterid = ObjectField("Only hosts of this cluster.", visible(Cluster))
    hypervisor = Choice("Only hosts of this hypervisor.", HypervisorType.values)
    state = Text("Up or Down.")
    resourcestate = Text("Enabled or Disabled.")
    type = Text("Routing; there is no other.")


@command(since="1.0", roles=ROOT_ADMIN)
class ListHosts(ListCommand):
    """List the hosts. End users do not see them."""

    params = ListHostsParams
    answer = ("host", HostAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Host]:
        hosts = Host.objects.visible_to(caller).select_related("cluster__pod__zone", "endpoint")
        if params["type"] and params["type"].lower() != "routing":
            return hosts.none()
        if params["keyword"]:
            hosts = hosts.filter(name__icontains=params["keyword"])
        return hosts.filter(
            by_id(params)
            & matching(
                params,
                name="name",
                zoneid="cluster__pod__zone",
                podid="cluster__pod",
                clusterid="cluster",
                hypervisor="cluster__hypervisor",
                state="state",
                resourcestate="resource_state",
            )
        )
