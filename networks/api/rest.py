"""`/api/v1/`: the cloud, with the same fields as in CloudStack's answers, and what may be done to it."""

from django.db.models import QuerySet
from django_filters import rest_framework as filters

from extdhcp_site.api import resources, routes
from extdhcp_site.api.registry import ROOT_ADMIN
from networks.api import guest_data, keys, networks, nics, offerings, tags, templates, vms
from networks.api.answers import (
    ClusterAnswer,
    HostAnswer,
    NetworkAnswer,
    NetworkOfferingAnswer,
    PodAnswer,
    ServiceOfferingAnswer,
    StoragePoolAnswer,
    TemplateAnswer,
    ZoneAnswer,
)
from networks.api.keys import KeyPairAnswer
from networks.api.tag_answers import TagAnswer
from networks.api.vm_answers import NicAnswer, VmAnswer, VolumeAnswer
from networks.models import (
    Cluster,
    Host,
    Network,
    NetworkOffering,
    Nic,
    Pod,
    PrimaryStorage,
    ResourceTag,
    ServiceOffering,
    SshKeyPair,
    Template,
    VirtualMachine,
    Volume,
    Zone,
)


class VmFilter(filters.FilterSet):
    network = resources.of(Network, "nics__network", "a network that it has a NIC on")
    zone = resources.of(Zone, "zone", "its zone")
    host = resources.of(Host, "host", "the host that it runs on; for root admins")
    template = resources.of(Template, "template", "its template")
    service_offering = resources.of(ServiceOffering, "service_offering", "its service offering")

    class Meta:
        model = VirtualMachine
        fields = ("name", "state", "hypervisor")


class VmViewSet(resources.VisibleViewSet):
    """Virtual machines with their NICs and the addresses that have been learned.

    As in listVirtualMachines, a list shows users none that is Destroyed or Expunging unless they ask for that state.
    """

    queryset = VirtualMachine.objects.for_listing()
    serializer_class = VmAnswer
    filterset_class = VmFilter

    def filter_queryset(self, queryset: QuerySet[VirtualMachine]) -> QuerySet[VirtualMachine]:
        found = super().filter_queryset(queryset)
        if self.detail or "state" in self.request.query_params:
            return found
        return found.filter(vms.in_state(self.caller, None))


class NicFilter(filters.FilterSet):
    vm = resources.of(VirtualMachine, "vm", "its VM")
    network = resources.of(Network, "network", "its network")

    class Meta:
        model = Nic
        fields = ("mac_address", "ip4_address", "address_state")


class NicViewSet(resources.VisibleViewSet):
    """NICs with the addresses that have been learned."""

    queryset = Nic.objects.for_listing().select_related("vm")
    serializer_class = NicAnswer
    filterset_class = NicFilter


class NetworkFilter(filters.FilterSet):
    zone = resources.of(Zone, "zone", "its zone")
    network_offering = resources.of(NetworkOffering, "offering", "its network offering")

    class Meta:
        model = Network
        fields = ("name", "acl_type")


class NetworkViewSet(resources.VisibleViewSet):
    """Networks: those of one's own account, and those of one's domain."""

    queryset = Network.objects.for_listing()
    serializer_class = NetworkAnswer
    filterset_class = NetworkFilter


class TemplateFilter(filters.FilterSet):
    zone = resources.of(Zone, "zone", "the one zone that it is in")

    class Meta:
        model = Template
        fields = ("name", "hypervisor", "public")


class TemplateViewSet(resources.VisibleViewSet):
    """Templates that the caller may use."""

    queryset = Template.objects.for_listing()
    serializer_class = TemplateAnswer
    filterset_class = TemplateFilter


class ServiceOfferingViewSet(resources.VisibleViewSet):
    """Service offerings that a new VM may have."""

    queryset = ServiceOffering.objects.all()
    serializer_class = ServiceOfferingAnswer
    filterset_fields = ["name"]


class NetworkOfferingViewSet(resources.VisibleViewSet):
    """Network offerings."""

    queryset = NetworkOffering.objects.prefetch_related("services")
    serializer_class = NetworkOfferingAnswer
    filterset_fields = ["name", "state", "guest_type"]


class KeyPairViewSet(resources.VisibleViewSet):
    """SSH key pairs, without their keys."""

    queryset = SshKeyPair.objects.select_related("account__domain")
    serializer_class = KeyPairAnswer
    filterset_fields = ["name", "fingerprint"]


class ZoneViewSet(resources.VisibleViewSet):
    """Zones that the caller may deploy into."""

    queryset = Zone.objects.select_related("domain")
    serializer_class = ZoneAnswer
    filterset_fields = ["name"]


class PodFilter(filters.FilterSet):
    zone = resources.of(Zone, "zone", "its zone")

    class Meta:
        model = Pod
        fields = ("name",)


class PodViewSet(resources.VisibleViewSet):
    """Pods: groups of clusters in a zone. For root admins."""

    roles = ROOT_ADMIN
    queryset = Pod.objects.select_related("zone")
    serializer_class = PodAnswer
    filterset_class = PodFilter


class ClusterFilter(filters.FilterSet):
    zone = resources.of(Zone, "pod__zone", "its zone")
    pod = resources.of(Pod, "pod", "its pod")

    class Meta:
        model = Cluster
        fields = ("name", "hypervisor")


class ClusterViewSet(resources.VisibleViewSet):
    """Clusters: hosts of one hypervisor among which VMs migrate. For root admins."""

    roles = ROOT_ADMIN
    queryset = Cluster.objects.select_related("pod__zone")
    serializer_class = ClusterAnswer
    filterset_class = ClusterFilter


class HostFilter(filters.FilterSet):
    zone = resources.of(Zone, "cluster__pod__zone", "its zone")
    cluster = resources.of(Cluster, "cluster", "its cluster")

    class Meta:
        model = Host
        fields = ("name", "state", "resource_state")


class HostViewSet(resources.VisibleViewSet):
    """Hosts. End users do not see them."""

    roles = ROOT_ADMIN
    queryset = Host.objects.select_related("cluster__pod__zone", "endpoint")
    serializer_class = HostAnswer
    filterset_class = HostFilter


class StoragePoolFilter(filters.FilterSet):
    zone = resources.of(Zone, "cluster__pod__zone", "its zone")
    cluster = resources.of(Cluster, "cluster", "its cluster")

    class Meta:
        model = PrimaryStorage
        fields = ("name", "shared")


class StoragePoolViewSet(resources.VisibleViewSet):
    """Primary storage: where the ROOT volumes of a cluster's VMs lie. For root admins."""

    roles = ROOT_ADMIN
    queryset = PrimaryStorage.objects.select_related("cluster__pod__zone")
    serializer_class = StoragePoolAnswer
    filterset_class = StoragePoolFilter


class VolumeFilter(filters.FilterSet):
    vm = resources.of(VirtualMachine, "vm", "its VM")
    zone = resources.of(Zone, "vm__zone", "its zone")

    class Meta:
        model = Volume
        fields = ("state",)


class VolumeViewSet(resources.VisibleViewSet):
    """ROOT volumes."""

    queryset = Volume.objects.select_related("vm__account__domain", "vm__zone", "storage").defer(
        "vm__user_data", "vm__password"
    )
    serializer_class = VolumeAnswer
    filterset_class = VolumeFilter


class TagFilter(filters.FilterSet):
    vm = resources.of(VirtualMachine, "vm", "the VM that it is on")
    network = resources.of(Network, "network", "the network that it is on")
    template = resources.of(Template, "template", "the template that it is on")

    class Meta:
        model = ResourceTag
        fields = ("key", "value")


class TagViewSet(resources.VisibleViewSet):
    """Tags of VMs, networks and templates that the caller may see."""

    queryset = ResourceTag.objects.for_listing()
    serializer_class = TagAnswer
    filterset_class = TagFilter


resources.register("vms", VmViewSet)
routes.post("vms", vms.DeployVirtualMachine)
routes.patch("vms/{id}", vms.UpdateVirtualMachine)
routes.delete("vms/{id}", vms.DestroyVirtualMachine)
routes.post("vms/{id}/actions/start", vms.StartVirtualMachine)
routes.post("vms/{id}/actions/stop", vms.StopVirtualMachine)
routes.post("vms/{id}/actions/reboot", vms.RebootVirtualMachine)
routes.post("vms/{id}/actions/recover", vms.RecoverVirtualMachine)
routes.post("vms/{id}/actions/expunge", vms.ExpungeVirtualMachine)
routes.post("vms/{id}/actions/scale", vms.ScaleVirtualMachine)
routes.post("vms/{id}/actions/change-service-offering", vms.ChangeServiceForVirtualMachine)
routes.post("vms/{virtualmachineid}/actions/restore", vms.RestoreVirtualMachine)
routes.post("vms/{virtualmachineid}/actions/migrate", vms.MigrateVirtualMachine)
routes.post("vms/{id}/actions/reset-password", guest_data.ResetPasswordForVirtualMachine)
routes.post("vms/{id}/actions/reset-ssh-keys", guest_data.ResetSshKeyForVirtualMachine)
routes.post("vms/{id}/actions/reset-user-data", guest_data.ResetUserDataForVirtualMachine)
routes.get("vms/{virtualmachineid}/user-data", guest_data.GetVirtualMachineUserData)
routes.post("vms/{virtualmachineid}/nics", nics.AddNicToVirtualMachine)
routes.delete("vms/{virtualmachineid}/nics/{nicid}", nics.RemoveNicFromVirtualMachine)
routes.post("vms/{virtualmachineid}/nics/{nicid}/actions/make-default", nics.UpdateDefaultNicForVirtualMachine)

resources.register("nics", NicViewSet)
routes.post("nics/{nicid}/actions/set-address", nics.UpdateVmNicIp)
routes.post("nics/{nicid}/secondary-addresses", nics.AddIpToNic)
routes.delete("secondary-addresses/{id}", nics.RemoveIpFromNic)

resources.register("networks", NetworkViewSet)
routes.post("networks", networks.CreateNetwork)
routes.patch("networks/{id}", networks.UpdateNetwork)
routes.delete("networks/{id}", networks.DeleteNetwork)
routes.post("networks/{id}/actions/restart", networks.RestartNetwork)

resources.register("templates", TemplateViewSet)
routes.post("templates", templates.RegisterTemplate)
routes.patch("templates/{id}", templates.UpdateTemplate)
routes.delete("templates/{id}", templates.DeleteTemplate)

resources.register("service-offerings", ServiceOfferingViewSet)
routes.post("service-offerings", offerings.CreateServiceOffering)
routes.patch("service-offerings/{id}", offerings.UpdateServiceOffering)
routes.delete("service-offerings/{id}", offerings.DeleteServiceOffering)

resources.register("network-offerings", NetworkOfferingViewSet)
routes.post("network-offerings", offerings.CreateNetworkOffering)
routes.patch("network-offerings/{id}", offerings.UpdateNetworkOffering)
routes.delete("network-offerings/{id}", offerings.DeleteNetworkOffering)

resources.register("ssh-key-pairs", KeyPairViewSet)
routes.post("ssh-key-pairs", keys.RegisterSshKeyPair)
# Two accounts may have a pair of the same name; the command goes by it.
routes.delete("ssh-key-pairs", keys.DeleteSshKeyPair)
routes.post("ssh-key-pairs/actions/create", keys.CreateSshKeyPair)

resources.register("volumes", VolumeViewSet)

resources.register("tags", TagViewSet)
routes.post("tags", tags.CreateTags)
# One call takes tags from many objects, by key.
routes.post("tags/actions/delete", tags.DeleteTags)

resources.register("zones", ZoneViewSet)
resources.register("pods", PodViewSet)
resources.register("clusters", ClusterViewSet)
resources.register("hosts", HostViewSet)
resources.register("storage-pools", StoragePoolViewSet)
