"""`/api/v1/`: the cloud, with the same fields as in CloudStack's answers, and what may be done to it."""

from django_filters import rest_framework as filters

from extdhcp_site.api import resources, routes
from extdhcp_site.api.registry import ROOT_ADMIN
from networks.api import guest_data, keys, networks, nics, offerings, templates, vms
from networks.api.answers import (
    HostAnswer,
    NetworkAnswer,
    NetworkOfferingAnswer,
    ServiceOfferingAnswer,
    TemplateAnswer,
    ZoneAnswer,
)
from networks.api.keys import KeyPairAnswer
from networks.api.vm_answers import NicAnswer, VmAnswer
from networks.models import (
    Host,
    Network,
    NetworkOffering,
    Nic,
    ServiceOffering,
    SshKeyPair,
    Template,
    VirtualMachine,
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
    """Virtual machines with their NICs and the addresses that have been learned."""

    queryset = VirtualMachine.objects.for_listing()
    serializer_class = VmAnswer
    filterset_class = VmFilter


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


class HostFilter(filters.FilterSet):
    zone = resources.of(Zone, "cluster__pod__zone", "its zone")

    class Meta:
        model = Host
        fields = ("name", "state", "resource_state")


class HostViewSet(resources.VisibleViewSet):
    """Hosts. End users do not see them."""

    roles = ROOT_ADMIN
    queryset = Host.objects.select_related("cluster__pod__zone", "endpoint")
    serializer_class = HostAnswer
    filterset_class = HostFilter


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

resources.register("zones", ZoneViewSet)
resources.register("hosts", HostViewSet)
