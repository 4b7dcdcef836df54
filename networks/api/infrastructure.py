"""Zones, pods, clusters, hosts, primary storage, and what else a client asks for before it deploys."""

from typing import Any

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import ListParams, domains_of
from extdhcp_site.api.parameters import Bool, Choice, ObjectField, ObjectListField, Text, Values, visible
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, ListCommand, command
from networks.api.answers import (
    ClusterAnswer,
    HostAnswer,
    HypervisorAnswer,
    PodAnswer,
    StoragePoolAnswer,
    ZoneAnswer,
)
from networks.models import Cluster, Host, HypervisorType, Pod, PrimaryStorage, VirtualMachine, Zone
from networks.models.infrastructure import AllocationState


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


def containing(params: Values, *columns: str) -> Q:
    """`keyword`: those with it in one of these columns, in whatever case."""
    wanted = Q()
    if params["keyword"]:
        for column in columns:
            wanted |= Q(**{f"{column}__icontains": params["keyword"]})
    return wanted


def is_constant(params: Values, **constants: Any) -> bool:
    """Whether each given parameter asks for the one value that all rows have, texts in whatever case."""
    return all(
        params[name] is None or str(params[name]).lower() == str(constant).lower()
        for name, constant in constants.items()
    )


class ListZonesParams(ListParams):
    id = ObjectField("The zone's id.", visible(Zone))
    ids = ObjectListField("Several zones' ids.", visible(Zone))
    name = Text("The zone's name.")
    domainid = ObjectField("Only zones that are private to this domain.", domains_of)
    networktype = Text("Advanced; there is no other.")
    available = Bool("Accepted and ignored: whoever sees a zone may deploy into it.")


@command(since="1.0", roles=EVERYBODY)
class ListZones(ListCommand):
    """List the zones that the caller may deploy into."""

    params = ListZonesParams
    answer = ("zone", ZoneAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Zone]:
        zones = Zone.objects.visible_to(caller).select_related("domain")
        if not is_constant(params, networktype="Advanced"):
            return zones.none()
        asked = matching(params, name="name", domainid="domain")
        return zones.filter(by_id(params) & containing(params, "name") & asked)


class ListPodsParams(ListParams):
    id = ObjectField("The pod's id.", visible(Pod))
    name = Text("The pod's name.")
    zoneid = ObjectField("Only pods of this zone.", visible(Zone))
    allocationstate = Text("Enabled; a pod is in no other state.")


@command(since="1.1", roles=ROOT_ADMIN)
class ListPods(ListCommand):
    """List the pods: groups of clusters in a zone."""

    params = ListPodsParams
    answer = ("pod", PodAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Pod]:
        pods = Pod.objects.select_related("zone")
        if not is_constant(params, allocationstate="Enabled"):
            return pods.none()
        return pods.filter(by_id(params) & containing(params, "name") & matching(params, name="name", zoneid="zone"))


class ListClustersParams(ListParams):
    id = ObjectField("The cluster's id.", visible(Cluster))
    name = Text("The cluster's name.")
    zoneid = ObjectField("Only clusters of this zone.", visible(Zone))
    podid = ObjectField("Only clusters of this pod.", visible(Pod))
    hypervisor = Choice("Only clusters of this hypervisor.", HypervisorType.values)
    allocationstate = Text("Enabled; a cluster is in no other state.")
    managedstate = Text("Managed; a cluster is in no other state.")


@command(since="1.1", roles=ROOT_ADMIN)
class ListClusters(ListCommand):
    """List the clusters: hosts of one hypervisor among which VMs migrate."""

    params = ListClustersParams
    answer = ("cluster", ClusterAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Cluster]:
        clusters = Cluster.objects.select_related("pod__zone")
        if not is_constant(params, allocationstate="Enabled", managedstate="Managed"):
            return clusters.none()
        asked = matching(params, name="name", zoneid="pod__zone", podid="pod", hypervisor="hypervisor")
        return clusters.filter(by_id(params) & containing(params, "name") & asked)


class ListHostsParams(ListParams):
    id = ObjectField("The host's id.", visible(Host))
    name = Text("The host's name.")
    zoneid = ObjectField("Only hosts of this zone.", visible(Zone))
    podid = ObjectField("Only hosts of this pod.", visible(Pod))
    clusterid = ObjectField("Only hosts of this cluster.", visible(Cluster))
    virtualmachineid = ObjectField("Only hosts that this VM could migrate to.", visible(VirtualMachine))
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
        hosts = Host.objects.select_related("cluster__pod__zone", "endpoint")
        if not is_constant(params, type="Routing"):
            return hosts.none()
        if vm := params["virtualmachineid"]:
            hosts = hosts.filter(cluster__hosts=vm.host_id, state="Up", resource_state=AllocationState.ENABLED)
            hosts = hosts.exclude(pk=vm.host_id)
        asked = matching(
            params,
            name="name",
            zoneid="cluster__pod__zone",
            podid="cluster__pod",
            clusterid="cluster",
            hypervisor="cluster__hypervisor",
            state="state",
            resourcestate="resource_state",
        )
        return hosts.filter(by_id(params) & containing(params, "name") & asked)


class ListStoragePoolsParams(ListParams):
    id = ObjectField("The storage pool's id.", visible(PrimaryStorage))
    name = Text("The storage pool's name.")
    zoneid = ObjectField("Only storage pools of this zone.", visible(Zone))
    podid = ObjectField("Only storage pools of this pod.", visible(Pod))
    clusterid = ObjectField("Only storage pools of this cluster.", visible(Cluster))
    scope = Choice("CLUSTER: its hosts see the same files; HOST: each has its own.", ("CLUSTER", "HOST", "ZONE"))


@command(since="1.1", roles=ROOT_ADMIN)
class ListStoragePools(ListCommand):
    """List the primary storage: where the ROOT volumes of a cluster's VMs lie."""

    params = ListStoragePoolsParams
    answer = ("storagepool", StoragePoolAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[PrimaryStorage]:
        pools = PrimaryStorage.objects.select_related("cluster__pod__zone")
        if params["scope"] == "ZONE":
            return pools.none()
        if params["scope"]:
            pools = pools.filter(shared=params["scope"] == "CLUSTER")
        asked = matching(params, name="name", zoneid="cluster__pod__zone", podid="cluster__pod", clusterid="cluster")
        return pools.filter(by_id(params) & containing(params, "name") & asked)


class ListHypervisorsParams(ListParams):
    zoneid = ObjectField("Only hypervisors of this zone.", visible(Zone))


@command(since="1.1", roles=EVERYBODY)
class ListHypervisors(ListCommand):
    """List the hypervisors that there are clusters of."""

    params = ListHypervisorsParams
    answer = ("hypervisor", HypervisorAnswer)

    def rows(self, caller: Caller, params: Values) -> list[str]:
        clusters = Cluster.objects.filter(pod__zone__in=Zone.objects.visible_to(caller))
        asked = containing(params, "hypervisor") & matching(params, zoneid="pod__zone")
        return sorted(set(clusters.filter(asked).values_list("hypervisor", flat=True)))
