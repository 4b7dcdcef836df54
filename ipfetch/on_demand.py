"""What somebody asks for a NIC's place in the queue: a try now, all tries anew, a pause."""

from collections.abc import Callable
from datetime import datetime

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.deadlocks import repeated
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from ipfetch.configuration import EARLY_RETRY
from ipfetch.models import IpFetch
from ipfetch.schedule import Pace
from networks.models import AddressState, Nic

State = IpFetch.State


def try_now(nic: Nic, by: Caller) -> IpFetch:
    """Ask for it at the next pass, within a second where hypervisors are watched. It costs none of its tries; one that
    was given up gets all of them anew.

    Raises InvalidParameter for a NIC that is not in the queue, is paused, or would not be asked anyway.
    """

    def change(row: IpFetch, now: datetime) -> str:
        if row.state == State.PAUSED:
            raise InvalidParameter(f"The search for the address of {nic} is paused. Resume it.")
        if row.state == State.FOUND and not EARLY_RETRY.get():
            raise InvalidParameter(
                f"Addresses that are known are not read again while {EARLY_RETRY.name} is false. "
                "Reset the NIC's tries to have its address looked for anew."
            )
        rows = IpFetch.objects.filter(pk=row.pk)
        if row.state == State.EXHAUSTED:
            rows.begin_anew(Pace.now(), now)
        rows.update(next_attempt_at=now)
        return "ip addr is asked for now"

    return _changed(nic, by, change)


def reset_tries(nic: Nic, by: Caller) -> IpFetch:
    """Give it all its tries, as a start of its VM does. The address that is known stays until another one is told.

    Raises InvalidParameter for a NIC that is not in the queue, is paused, or has its address set by hand.
    """

    def change(row: IpFetch, now: datetime) -> str:
        if row.state == State.PAUSED:
            raise InvalidParameter(f"The search for the address of {nic} is paused. Resume it.")
        if Nic.objects.filter(pk=nic.pk, address_state=AddressState.PINNED).exists():
            raise InvalidParameter(f"The address of {nic} is set by hand: none is looked for.")
        IpFetch.objects.filter(pk=row.pk).begin_anew(Pace.now(), now)
        return "ip addr is looked for anew, with all tries"

    return _changed(nic, by, change)


def pause(nic: Nic, by: Caller) -> IpFetch:
    """Ask nobody for it, until `resume`, or until its VM starts anew. What is reported unasked is taken still.

    Raises InvalidParameter for a NIC that is not in the queue, or has its address.
    """

    def change(row: IpFetch, now: datetime) -> str:
        if row.state == State.FOUND:
            raise InvalidParameter(f"{nic} has its address: none is looked for.")
        # The new attempt number shuts out a batch that is still under way.
        IpFetch.objects.filter(pk=row.pk).update(
            state=State.PAUSED, next_attempt_at=None, eager_until=None, claimed_until=None, attempt=F("attempt") + 1
        )
        return "ip addr fetch was paused" if row.state != State.PAUSED else ""

    return _changed(nic, by, change)


def resume(nic: Nic, by: Caller) -> IpFetch:
    """Ask for it again, at once and with all tries.

    Raises InvalidParameter for a NIC that is not paused.
    """

    def change(row: IpFetch, now: datetime) -> str:
        if row.state != State.PAUSED:
            raise InvalidParameter(f"The search for the address of {nic} is not paused.")
        rows = IpFetch.objects.filter(pk=row.pk)
        rows.begin_anew(Pace.now(), now)
        rows.update(next_attempt_at=now)
        return "ip addr fetch was resumed"

    return _changed(nic, by, change)


def _changed(nic: Nic, by: Caller, change: Callable[[IpFetch, datetime], str]) -> IpFetch:
    """The row as `change` has left it; what that says becomes an event."""

    def write() -> IpFetch:
        with transaction.atomic():
            row = IpFetch.objects.select_for_update().filter(nic=nic).first()
            if row is None:
                raise InvalidParameter(
                    f"No address is asked for of {nic}, whose VM is {nic.vm.state}. "
                    "That is done for running VMs, on networks whose DHCP is external."
                )
            if text := change(row, timezone.now()):
                events.record(EventType.IP_FETCH, f"{nic}: {text}", account=nic.vm.account, on=nic.vm, by=by)
        row.refresh_from_db()
        return row

    return repeated(write)
