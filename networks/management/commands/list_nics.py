"""All NICs, as the API shows them to a root admin."""

from django.db.models import QuerySet

from networks.api.vm_answers import NicAnswer
from networks.listing import ListObjects
from networks.models import Nic


class Command(ListObjects):
    help = "List all NICs with their MAC and address."
    answer = NicAnswer
    columns = ("virtualmachineid", "networkname", "macaddress", "ipaddress", "addressstate", "addresssource")

    def rows(self) -> QuerySet[Nic]:
        return Nic.objects.for_listing().select_related("vm", "network__zone", "network__offering")
