"""Where NICs enter and leave the queue as their VM passes through its life."""

from datetime import datetime

from django.db.models import F

from ipfetch.models import IpFetch
from ipfetch.schedule import Pace
from networks.elements import NetworkElement
from networks.models import Nic, VirtualMachine


class IpFetchElement(NetworkElement):
    """On start in, on stop out (external DHCP/DNS spec, "Fetching VM ip address and Updating CS DB").

    A NIC that is removed takes its row along: the database deletes it.
    """

    def started(self, vm: VirtualMachine, now: datetime) -> None:
        pace = Pace.now()
        for nic in Nic.objects.external_dhcp().filter(vm=vm):
            begin_anew(nic, pace, now)

    def stopped(self, vm: VirtualMachine, now: datetime) -> None:
        IpFetch.objects.filter(nic__vm=vm).delete()


def begin_anew(nic: Nic, pace: Pace, now: datetime) -> None:
    """Give a NIC all its tries. The new attempt number shuts out a batch that is still under way."""
    beginning = {
        "state": IpFetch.State.WAITING,
        "retries_left": pace.max_retry,
        "tries": 0,
        "next_attempt_at": now + pace.delay(0),
        "claimed_until": None,
        "last_outcome": "",
        "last_detail": "",
        "entered_at": now,
        "found_at": None,
    }
    if not IpFetch.objects.filter(nic=nic).update(**beginning, attempt=F("attempt") + 1):
        IpFetch.objects.create(nic=nic, **beginning)
