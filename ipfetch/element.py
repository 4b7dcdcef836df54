"""Where NICs enter and leave the queue as their VM passes through its life."""

from datetime import datetime

from ipfetch import planner
from ipfetch.models import IpFetch, Observation
from ipfetch.schedule import Pace
from networks.elements import NetworkElement
from networks.models import Nic, VirtualMachine


class IpFetchElement(NetworkElement):
    """On start in, on stop out (external DHCP/DNS spec, "Fetching VM ip address and Updating CS DB").

    A NIC that is removed takes its row along: the database deletes it.
    """

    def started(self, vm: VirtualMachine, now: datetime) -> None:
        pace = Pace.now()
        self._end_observations(vm, now)
        planner.begin_anew(IpFetch.objects.filter(nic__vm=vm), pace, now)
        entered = set(IpFetch.objects.filter(nic__vm=vm).values_list("nic_id", flat=True))
        missing = Nic.objects.external_dhcp().filter(vm=vm).exclude(pk__in=entered)
        IpFetch.objects.bulk_create(
            IpFetch(nic=nic, retries_left=pace.max_retry, next_attempt_at=now + pace.delay(0), entered_at=now)
            for nic in missing
        )

    def stopped(self, vm: VirtualMachine, now: datetime) -> None:
        self._end_observations(vm, now)
        IpFetch.objects.filter(nic__vm=vm).delete()

    def _end_observations(self, vm: VirtualMachine, now: datetime) -> None:
        """What was seen of a guest is not what it will have after its next boot."""
        Observation.objects.current().filter(nic__vm=vm).update(ended_at=now, flag="")
