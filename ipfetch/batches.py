"""One batch: ask one endpoint for the addresses of its claimed NICs, and write what comes back."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address

import structlog
from django.db import connections, transaction
from django.db.models import Case, F, IntegerField, Q, When
from django.utils import timezone

from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from extdhcp_site.jobs import tasks
from ipfetch.addresses import NicFacts, OwnAddresses, own_addresses
from ipfetch.configuration import MAX_THREADS
from ipfetch.models import IpFetch, Outcome
from ipfetch.schedule import Pace
from networks.hypervisors.base import (
    AddressReader,
    EndpointUnreachable,
    HypervisorError,
    Reading,
    VmRef,
    abandoned_calls,
)
from networks.models import AddressState, Endpoint, Nic, VirtualMachine
from networks.services.places import hypervisor_at, record_health, within

log = structlog.get_logger(__name__)

BATCH_LIFE = timedelta(seconds=60)
# A batch gives up after a minute; by then its claims are written off, or their worker is dead.
CLAIM_LIFE = BATCH_LIFE + timedelta(seconds=30)
MOST_AT_ONE_HOST = 4
MOST_ABANDONED = 8

Claims = Sequence[tuple[int, int]]


class _Slots:
    """How many guests this process may ask at once; the limit is given anew with each request."""

    def __init__(self) -> None:
        self._taken = 0
        self._freed = threading.Condition()

    def take(self, most: int, limit: int) -> int:
        """Wait for a slot, and take up to `most` of those that are free."""
        with self._freed:
            self._freed.wait_for(lambda: self._taken < limit)
            slots = min(most, limit - self._taken)
            self._taken += slots
            return slots

    def give_back(self, slots: int) -> None:
        with self._freed:
            self._taken -= slots
            self._freed.notify_all()


_slots = _Slots()


@tasks.task
def read_batch(endpoint_id: int, claims: Claims) -> None:
    """Task: read one endpoint's NICs in a thread of its own, so that a stuck endpoint holds up no other.

    Safe to lose and to run twice: a claim that brings no result is claimed again, and results are
    fenced by each claim's attempt.
    """
    if abandoned_calls() > MOST_ABANDONED:
        # Threads stuck in a C library are only ended with their process; the cluster starts another.
        log.error("Too many calls to hypervisors are stuck; this worker ends itself.")
        raise SystemExit(1)
    slots = _slots.take(MOST_AT_ONE_HOST, MAX_THREADS.get())
    threading.Thread(target=_read_in_thread, args=(endpoint_id, claims, slots), daemon=True).start()


def _read_in_thread(endpoint_id: int, claims: Claims, slots: int) -> None:
    try:
        read(endpoint_id, claims, width=slots)
    except Exception:
        log.exception("A batch failed; its NICs will be claimed again.", endpoint=endpoint_id)
    finally:
        connections.close_all()
        _slots.give_back(slots)


def read(
    endpoint_id: int, claims: Claims, *, width: int = MOST_AT_ONE_HOST, done: Callable[[IpFetch], None] | None = None
) -> None:
    """Ask the endpoint for all claimed NICs, VM by VM; `done` hears of each row that got its result."""
    rows = _claimed_rows(claims)
    if not rows:
        return
    # The claims' life begins anew: they may have waited for a worker.
    IpFetch.objects.filter(pk__in=[row.pk for row in rows]).claimed(timezone.now()).update(
        claimed_until=timezone.now() + CLAIM_LIFE
    )
    endpoint = Endpoint.objects.get(pk=endpoint_id)
    by_vm: dict[VmRef, list[IpFetch]] = defaultdict(list)
    for row in rows:
        by_vm[row.nic.vm.on_host].append(row)
    try:
        reader = hypervisor_at(endpoint)
        assert isinstance(reader, AddressReader)
        asked = len(by_vm)
        for vm, reading in reader.read_addresses(list(by_vm), within(BATCH_LIFE.total_seconds()), width=width):
            for row in by_vm.pop(vm, []):
                record(row, reading, timezone.now())
                if done:
                    done(row)
        if len(by_vm) == asked:
            raise EndpointUnreachable("It answered for no VM in time.")
    except HypervisorError as error:
        record_health(endpoint, str(error))
        unread = [row for rows in by_vm.values() for row in rows]
        record_unreachable(unread, str(error))
        if done:
            for row in unread:
                done(row)
        return
    record_health(endpoint)
    give_back([row for rows in by_vm.values() for row in rows])


def record(row: IpFetch, reading: Reading, now: datetime) -> bool:
    """Write what a guest answered; False if the row has moved on since it was claimed."""
    if reading.problem:
        return record_none(row, Outcome(reading.problem.value), reading.detail)
    own = own_addresses(_facts(row.nic), reading.addresses)
    detail = f"It has {own.foreign}, which is outside {row.nic.network.cidr}." if own.foreign else reading.detail
    with transaction.atomic():
        # The VM before its NICs' rows, as a start or stop has them: the other way round two could wait for each other.
        _note_seen(row)
        mine = record_found(row, own, now) if own.ip4 else record_none(row, Outcome.NONE_YET, detail)
        if not mine:
            transaction.set_rollback(True)
    return mine


def _note_seen(row: IpFetch) -> None:
    """The guest answered, some time after this claim was made.

    The moment of the claim is what is certain, and no start or reboot has come since: a result that is
    written later, or by a batch that one has shut out, must not pass for the answer of a guest that is up again.
    """
    claimed_at = row.last_attempt_at
    earlier = Q(guest_seen_at=None) | Q(guest_seen_at__lt=claimed_at)
    VirtualMachine.objects.filter(earlier, pk=row.nic.vm_id).update(guest_seen_at=claimed_at)


def record_found(row: IpFetch, own: OwnAddresses, now: datetime) -> bool:
    """Write a learned address to its NIC, with one INFO event and one log line.

    Source: external DHCP/DNS spec, "Fetching VM ip address and Updating CS DB".
    """
    assert own.ip4 is not None
    nic, ip, source = row.nic, str(own.ip4.ip), own.ip4.source.value
    with transaction.atomic():
        if not _mine(row).update(
            state=IpFetch.State.FOUND,
            next_attempt_at=None,
            claimed_until=None,
            last_outcome=Outcome.FOUND,
            last_source=source,
            last_detail="",
            found_at=now,
        ):
            return False
        Nic.objects.filter(pk=nic.pk).update(
            ip4_address=ip,
            ip6_address=str(own.ip6.ip) if own.ip6 else F("ip6_address"),
            address_state=AddressState.CONFIRMED,
            address_source=source,
            address_seen_at=now,
        )
        _take_from_former_holders(nic, ip)
        events.record(
            EventType.IP_FETCH, f"{nic}: ip addr {ip} got fetched successfully", account=nic.vm.account, on=nic.vm
        )
    log.info("Address found", vm=str(nic.vm.uuid), nic=str(nic.uuid), mac=nic.mac_address, ip=ip, source=source)
    return True


def record_none(row: IpFetch, outcome: Outcome, detail: str) -> bool:
    """Write why there is no address; the last try gives the NIC up. What was known before is not touched."""
    if not _mine(row).update(claimed_until=None, last_outcome=outcome, last_detail=detail[:255]):
        return False
    row.refresh_from_db(fields=["state", "retries_left", "last_outcome"])
    if row.retries_left == 0:
        exhaust(row)
    return True


def exhaust(row: IpFetch) -> bool:
    """Give a NIC up, with one ERROR event. Needs nic.vm.account. False if the row has moved on."""
    with transaction.atomic():
        mine = IpFetch.objects.waiting().filter(pk=row.pk, attempt=row.attempt, retries_left=0)
        if not mine.update(state=IpFetch.State.EXHAUSTED, next_attempt_at=None, claimed_until=None):
            return False
        events.record(
            EventType.IP_FETCH,
            f"{row.nic}: ip addr fetch failed, no tries are left. {row.explanation}",
            account=row.nic.vm.account,
            on=row.nic.vm,
            level=Level.ERROR,
        )
    return True


def record_unreachable(rows: Sequence[IpFetch], detail: str) -> None:
    """The endpoint could not be asked: that spends no try, except in exact mode."""
    if not Pace.now().exact:
        give_back(rows, last_outcome=Outcome.HOST_UNREACHABLE, last_detail=detail[:255])
        return
    for row in rows:
        record_none(row, Outcome.HOST_UNREACHABLE, detail)


def give_back(rows: Sequence[IpFetch], **changes: object) -> None:
    """A NIC that was not reached gets back what its claim took, and stays in line for the next one."""
    counted, asked = Q(claim=IpFetch.Claim.COUNTED), Q(claim=IpFetch.Claim.ASKED)
    left, tries = F("retries_left"), F("tries")
    for row in rows:
        _mine(row).update(
            claimed_until=None,
            retries_left=Case(When(counted, then=left + 1), default=left, output_field=IntegerField()),
            tries=Case(When(asked | Q(tries=0), then=tries), default=tries - 1, output_field=IntegerField()),
            **changes,
        )


def _claimed_rows(claims: Claims) -> list[IpFetch]:
    attempts = dict(claims)
    rows = (
        IpFetch.objects.waiting()
        .filter(pk__in=list(attempts))
        .select_related("nic__network", "nic__vm__account")
        .prefetch_related("nic__vm__nics")
    )
    return [row for row in rows if row.attempt == attempts[row.pk]]


def _mine(row: IpFetch):
    # `attempt` is the fence: a batch that is late or delivered twice matches no row. Only the row's own
    # columns: after waiting for a concurrent write the database checks those again, but no joined ones.
    return IpFetch.objects.waiting().filter(pk=row.pk, attempt=row.attempt)


def _facts(nic: Nic) -> NicFacts:
    network = nic.network
    return NicFacts(
        mac=nic.mac_address,
        cidr=network.ip4_network,
        gateway=IPv4Address(network.gateway) if network.gateway else None,
        known=IPv4Address(nic.ip4_address) if nic.ip4_address else None,
    )


def _take_from_former_holders(nic: Nic, ip: str) -> None:
    """An address that a NIC is confirmed to hold is nobody's last known one any more."""
    former = Nic.objects.filter(Q(network=nic.network, ip4_address=ip, address_state=AddressState.LAST_KNOWN))
    former.exclude(pk=nic.pk).update(ip4_address=None, address_state=AddressState.UNKNOWN)
