"""Where NICs enter and leave the queue as their VM passes through its life."""

from datetime import datetime

from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from ipfetch import recording
from ipfetch.models import IpFetch, Observation
from ipfetch.models.observations import ObservationQuerySet
from ipfetch.models.queue import IpFetchQuerySet
from ipfetch.schedule import Pace
from networks.elements import NetworkElement
from networks.models import AddressState, Host, Nic, VirtualMachine, VmState
from networks.models.vms import NicQuerySet


class IpFetchElement(NetworkElement):
    """On start in, on stop out (external DHCP/DNS spec, "Fetching VM ip address and Updating CS DB").

    A NIC that is removed takes its row along: the database deletes it.
    """

    def started(self, vm: VirtualMachine, now: datetime) -> None:
        pace, rows = Pace.now(), IpFetch.objects.filter(nic__vm=vm)
        former = Observation.objects.filter(nic__vm=vm)
        # A guest may have its lease before it is written here that it runs.
        self._end(former.filter(last_seen_at__lt=vm.state_since) if vm.state == VmState.STARTING else former, now)
        rows.begin_anew(pace, now)
        self._enter(Nic.objects.filter(vm=vm), pace, now)
        self._settle(rows.filter(nic__address_state=AddressState.PINNED), now)
        recording.take_up(vm, now)

    def nic_added(self, nic: Nic, now: datetime) -> None:
        if nic.vm.state == VmState.RUNNING:
            self._enter(Nic.objects.filter(pk=nic.pk), Pace.now(), now)

    def migrated(self, vm: VirtualMachine, source: Host, target: Host) -> None:
        """What the former host still answers is not of this VM any more, and has cost no try."""
        rows = IpFetch.objects.filter(pk__in=IpFetch.objects.filter(nic__vm=vm).pks())
        counted = rows.filter(claimed_until__isnull=False, claim=IpFetch.Claim.COUNTED)
        counted.update(retries_left=F("retries_left") + 1)
        rows.update(attempt=F("attempt") + 1, claimed_until=None, next_attempt_at=timezone.now())

    def stopped(self, vm: VirtualMachine, now: datetime) -> None:
        self._end(Observation.objects.filter(nic__vm=vm), now)
        IpFetch.objects.filter(pk__in=IpFetch.objects.filter(nic__vm=vm).pks()).delete()

    def pin_changed(self, nic: Nic, now: datetime) -> None:
        rows = IpFetch.objects.filter(nic=nic)
        if nic.address_state == AddressState.PINNED:
            self._settle(rows, now)
        else:
            rows.begin_anew(Pace.now(), now)
            rows.update(next_attempt_at=now, scheduled_at=now)

    def _enter(self, nics: NicQuerySet, pace: Pace, now: datetime) -> None:
        first = now + pace.delay(0)
        rows = [
            IpFetch(nic=nic, retries_left=pace.max_retry, next_attempt_at=first, scheduled_at=first, entered_at=now)
            for nic in nics.external_dhcp().filter(ip_fetch=None)
        ]
        # A planner may be entering them at this moment.
        IpFetch.objects.bulk_create(rows, ignore_conflicts=True)

    def _settle(self, rows: IpFetchQuerySet, now: datetime) -> None:
        """A NIC whose address is set by hand waits for none. It is looked at like one that is found: what its guest
        tells is shown beside.
        """
        rows.update_by_key(state=IpFetch.State.FOUND, eager_until=None, found_at=Coalesce("found_at", Value(now)))

    def _end(self, former: ObservationQuerySet, now: datetime) -> None:
        """What was seen of a guest is not what it will have after its next boot."""
        former.current().end(now)
