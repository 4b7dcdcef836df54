"""`/api/v1/`: VMs, NICs and networks, read-only, with the same fields as in CloudStack's answers."""

from extdhcp_site.api import resources
from networks.api.answers import NetworkAnswer
from networks.api.vm_answers import NicAnswer, VmAnswer
from networks.models import Network, Nic, VirtualMachine


class VmViewSet(resources.VisibleViewSet):
    """Virtual machines with their NICs and the addresses that have been learned."""

    queryset = VirtualMachine.objects.for_listing()
    serializer_class = VmAnswer
    filterset_fields = ["name", "state"]


class NicViewSet(resources.VisibleViewSet):
    """NICs with the addresses that have been learned."""

    queryset = Nic.objects.for_listing().select_related("vm")
    serializer_class = NicAnswer
    filterset_fields = ["mac_address", "ip4_address", "address_state"]


class NetworkViewSet(resources.VisibleViewSet):
    """Networks: those of one's own account, and those of one's domain."""

    queryset = Network.objects.select_related("zone", "offering", "account", "domain").prefetch_related(
        "offering__services"
    )
    serializer_class = NetworkAnswer
    filterset_fields = ["name"]


resources.register("vms", VmViewSet)
resources.register("nics", NicViewSet)
resources.register("networks", NetworkViewSet)
