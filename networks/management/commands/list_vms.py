"""All VMs, as the API shows them to a root admin."""

from django.db.models import QuerySet

from networks.api.vm_answers import VmAnswer
from networks.listing import ListObjects
from networks.models import VirtualMachine


class Command(ListObjects):
    help = "List all VMs with their state, host and addresses."
    answer = VmAnswer
    columns = ("name", "state", "hostname", "ipaddress", "account", "id")

    def rows(self) -> QuerySet[VirtualMachine]:
        return VirtualMachine.objects.for_listing().order_by("name")
