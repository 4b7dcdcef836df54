"""Zones, pods, clusters, hosts, primary storage, and what else a client asks for before it deploys."""

from typing import Any

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import ListParams, domains_of
from extdhcp_site.api.parameters import Bool, Choice, Int, ObjectField, ObjectListField, Params, Text, Values, visible
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, Command, ListCommand, Success, command
from extdhcp_site.errors import NotInThisProduct
from networks.api.answers import (
    ClusterAnswer,
    HostAnswer,
    HypervisorAnswer,
    PodAnswer,
    StoragePoolAnswer,
    ZoneAnswer,
)
from networks.models import Cluster, Endpoint, Host, HypervisorType, Pod, PrimaryStorage, VirtualMachine, Zone
from networks.models.infrastructure import AllocationState
from networks.services import infrastructure as services

HOST = ("host", HostAnswer)


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


def given(params: Values, **columns: str) -> Values:
    """The given parameters' values by their columns; absent ones are left out."""
    return {column: params[name] for name, column in columns.items() if params[name] is not None}


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


class CreateZoneParams(Params):
    name = Text("The zone's name.", required=True, max_length=100)
    networktype = Choice("Advanced; there is no other.", ("Advanced",))
    dns1 = Text("First DNS server, external.")
    dns2 = Text("Second DNS server, external.")
    internaldns1 = Text("First DNS server for hosts.")
    domainid = ObjectField("The domain that a private zone is for; absent: for everybody.", domains_of)
    allocationstate = Choice("Enabled or Disabled.", AllocationState.values)
    bridgepattern = Text("KVM: the bridge that carries a VLAN on each host, as cloudbr{vlan} (not in CloudStack).")
    configdrivelabel = Text("The config drives' label, where a template does not say (not in CloudStack).")


@command(since="1.2", roles=ROOT_ADMIN)
class CreateZone(Command):
    """Create a zone."""

    params = CreateZoneParams
    answer = ("zone", ZoneAnswer)

    def run(self, caller: Caller, params: Values) -> Zone:
        columns = given(
            params,
            name="name",
            dns1="dns1",
            dns2="dns2",
            internaldns1="internal_dns1",
            domainid="domain",
            allocationstate="allocation_state",
            bridgepattern="bridge_pattern",
            configdrivelabel="config_drive_label",
        )
        return services.create_zone(Zone(**columns), caller)


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


class CreatePodParams(Params):
    name = Text("The pod's name.", required=True, max_length=100)
    zoneid = ObjectField("The zone.", visible(Zone), required=True)
    gateway = Text("Accepted and ignored: no address is given to hosts.")
    netmask = Text("Accepted and ignored: no address is given to hosts.")
    startip = Text("Accepted and ignored: no address is given to hosts.")
    endip = Text("Accepted and ignored: no address is given to hosts.")


@command(since="1.2", roles=ROOT_ADMIN)
class CreatePod(Command):
    """Create a pod: a group of clusters in a zone."""

    params = CreatePodParams
    answer = ("pod", PodAnswer)

    def run(self, caller: Caller, params: Values) -> Pod:
        return services.create_pod(params["zoneid"], params["name"], caller)


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


class AddClusterParams(Params):
    clustername = Text("The cluster's name.", required=True, max_length=100)
    podid = ObjectField("The pod.", visible(Pod), required=True)
    zoneid = ObjectField("Accepted: the pod says the zone.", visible(Zone))
    hypervisor = Choice("KVM, XenServer or VMware: of all its hosts.", HypervisorType.values, required=True)
    clustertype = Choice("CloudManaged; there is no other.", ("CloudManaged",))


@command(since="1.2", roles=ROOT_ADMIN)
class AddCluster(Command):
    """Add a cluster: hosts of one hypervisor among which VMs migrate."""

    params = AddClusterParams
    answer = ("cluster", ClusterAnswer)

    def run(self, caller: Caller, params: Values) -> Cluster:
        return services.add_cluster(params["podid"], params["clustername"], params["hypervisor"], caller)


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
    answer = HOST

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


def size_of(params: Values) -> services.Size:
    memory = params["memory"] and params["memory"] * services.MIB
    return services.Size(params["cpunumber"], params["cpuspeed"], memory)


class AddHostParams(Params):
    name = Text("The host's name; of a pool or a vCenter as it stands there.", required=True, max_length=100)
    clusterid = ObjectField("The cluster.", visible(Cluster), required=True)
    endpointid = ObjectField("The endpoint by which it is reached.", visible(Endpoint), required=True)
    cpunumber = Int("CPUs that may be promised to VMs; absent: those that it says it has.", least=1, most=65535)
    cpuspeed = Int("MHz of each CPU; absent: as it says.", least=1, most=1_000_000)
    memory = Int("MiB of memory that may be promised to VMs; absent: all that it says it has.", least=1, most=2**30)
    zoneid = ObjectField("Accepted: the cluster says the zone.", visible(Zone))
    podid = ObjectField("Accepted: the cluster says the pod.", visible(Pod))
    url = Text("Not in this product: the endpoint says where it is.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if values.get("url"):
            raise NotInThisProduct("Hosts by a URL are")
        return values


@command(since="1.2", roles=ROOT_ADMIN)
class AddHost(Command):
    """Add a host to a cluster, so that VMs may run on it. It is asked how large it is, unless that is given."""

    params = AddHostParams
    answer = HOST

    def run(self, caller: Caller, params: Values) -> Host:
        return services.add_host(params["clusterid"], params["endpointid"], params["name"], size_of(params), caller)


class UpdateHostParams(Params):
    id = ObjectField("The host's id.", visible(Host), required=True)
    allocationstate = Choice("Disable: no VM comes to it any more; those on it stay. Enable.", ("Enable", "Disable"))
    cpunumber = Int("CPUs that may be promised to VMs (not in CloudStack).", least=1, most=65535)
    cpuspeed = Int("MHz of each CPU (not in CloudStack).", least=1, most=1_000_000)
    memory = Int("MiB of memory that may be promised to VMs (not in CloudStack).", least=1, most=2**30)


@command(since="1.2", roles=ROOT_ADMIN)
class UpdateHost(Command):
    """Enable or disable a host for new VMs, and change what of it may be promised to VMs."""

    params = UpdateHostParams
    answer = HOST

    def run(self, caller: Caller, params: Values) -> Host:
        states = {"Enable": AllocationState.ENABLED, "Disable": AllocationState.DISABLED}
        state = states.get(params["allocationstate"], "")
        return services.update_host(params["id"], size_of(params), state, caller)


class DeleteHostParams(Params):
    id = ObjectField("The host's id.", visible(Host), required=True)
    forced = Bool("Accepted: a host with VMs is never deleted.")


@command(since="1.2", roles=ROOT_ADMIN)
class DeleteHost(Command):
    """Delete a host that no VM is on. Nothing changes on the host itself."""

    params = DeleteHostParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        services.delete_host(params["id"], caller)


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


class CreateStoragePoolParams(Params):
    name = Text(
        "Its name there: of a libvirt storage pool, a XenServer storage repository, a vSphere datastore.",
        required=True,
        max_length=100,
    )
    clusterid = ObjectField("The cluster whose hosts have it.", visible(Cluster), required=True)
    scope = Choice("CLUSTER: its hosts see the same files (the default); HOST: each has its own.", ("CLUSTER", "HOST"))
    zoneid = ObjectField("Accepted: the cluster says the zone.", visible(Zone))
    podid = ObjectField("Accepted: the cluster says the pod.", visible(Pod))
    url = Text("Not in this product: it lies on the hosts already.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if values.get("url"):
            raise NotInThisProduct("Storage pools by a URL are")
        return values


@command(since="1.2", roles=ROOT_ADMIN)
class CreateStoragePool(Command):
    """Tell of primary storage that a cluster's hosts have already: where the ROOT volumes of its VMs will lie."""

    params = CreateStoragePoolParams
    answer = ("storagepool", StoragePoolAnswer)

    def run(self, caller: Caller, params: Values) -> PrimaryStorage:
        shared = params["scope"] != "HOST"
        return services.create_storage_pool(params["clusterid"], params["name"], caller, shared=shared)


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
