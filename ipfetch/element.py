"""Where NICs enter and leave the queue as their VM passes through its life."""

from datetime import datetime

from django.db.models import QuerySet, Value
from django.db.models.functions import Coalesce

from ipfetch import planner
from ipfetch.models import IpFetch, Observation
from ipfetch.schedule import Pace
from networks.elements import NetworkElement
from networks.models import AddressState, Nic, VirtualMachine


class IpFetchElement(NetworkElement):
    """On start in, on stop out (external DHCP/DNS spec, "Fetching VM ip address and Updating CS DB").

    A NIC that is removed takes its row along: the database deletes it.
    """

    def started(self, vm: VirtualMachine, now: datetime) -> None:
        pace = Pace.now()
        self._end_observations(vm, now)
        planner.begin_anew(IpFetch.objects.filter(nic__vm=vm), pace, now)
        self._settle(IpFetch.objects.filter(nic__vm=vm, nic__address_state=AddressState.PINNED), now)
        entered = set(IpFetch.objects.filter(nic__vm=vm).values_list("nic_id", flat=True))
        missing = Nic.objects.external_dhcp().filter(vm=vm).exclude(pk__in=entered)
        IpFetch.objects.bulk_create(
            IpFetch(
                nic=nic,
                state=IpFetch.State.FOUND if nic.address_state == AddressState.PINNED else IpFetch.State.WAITING,
                retries_left=pace.max_retry,
                next_attempt_at=now + pace.delay(0),
                entered_at=now,
            )
            for nic in missing
        )

    def stopped(self, vm: VirtualMachine, now: datetime) -> None:
        self._end_observations(vm, now)
        IpFetch.objects.filter(nic__vm=vm).delete()

    def pin_changed(self, nic: Nic, now: datetime) -> None:
        rows = IpFetch.objects.filter(nic=nic)
        if nic.address_state == AddressState.PINNED:
            self._settle(rows, now)
        else:
            planner.begin_anew(rows, Pace.now(), now)
            rows.update(next_attempt_at=now)

    def _settle(self, rows: QuerySet[IpFetch], now: datetime) -> None:
        """A NIC whose address is set by hand waits for none. It is looked at like one that is found: what its guest
        tells is shown beside.
        """
        rows.update(state=IpFetch.State.FOUND, eager_until=None, found_at=Coalesce("found_at", Value(now)))

    def _end_observations(self, vm: VirtualMachine, now: datetime) -> None:
        """What was seen of a guest is not what it will have after its next boot."""
        Observation.objects.current().filter(nic__vm=vm).update(ended_at=now, flag="")
