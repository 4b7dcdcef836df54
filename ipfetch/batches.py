"""One batch: ask one endpoint for the addresses of its claimed NICs, and write what comes back."""

import contextlib
import contextvars
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog
from django.db import close_old_connections
from django.utils import timezone

from extdhcp_site.bulk import Keys
from extdhcp_site.jobs import tasks
from ipfetch import chains, disks, leases, sweeps
from ipfetch.addresses import reported_for, settles
from ipfetch.chains import Chains
from ipfetch.configuration import MAX_THREADS
from ipfetch.models import IpFetch, Outcome
from ipfetch.recording import ASKED_IN_THE_GUEST, record
from ipfetch.schedule import Pace
from ipfetch.writing.bulk import batched
from ipfetch.writing.queue import give_back
from ipfetch.writing.targets import Finding, Target, targets
from networks.hypervisors.base import (
    AddressReader,
    EndpointUnreachable,
    GuestAddress,
    HypervisorError,
    NeighbourReader,
    Reading,
    Source,
    TryAgainLater,
    VmRef,
    abandoned_calls,
    asking,
)
from networks.models import Endpoint, Nic
from networks.services.places import hypervisor_at, record_health, within

log = structlog.get_logger(__name__)

BATCH_LIFE = timedelta(seconds=60)
# Renewed while the batch is at work. When its server dies, another asks for its NICs after this time.
CLAIM_LIFE = timedelta(seconds=20)
RENEW_SECONDS = 5.0
# Guests of one host that are asked at a time, four in all: those that answer, and one of those whose agent hangs.
AT_ONE_HOST = 3
SILENT_AT_ONE_HOST = 1
MOST_ABANDONED = 32
NEIGHBOURS_SECONDS = 5.0
LARGEST_LOT = 200
GATHER_SECONDS = 0.02
# Lease files name IPv6 clients by other things than their MAC address.
LEASES_HEARD = frozenset({(Source.LEASE, 4)})

Claims = Sequence[tuple[int, int]]  # rows with their attempts
Batch = tuple[int, Claims, int]  # an endpoint, its rows, and how many of its guests are asked at a time


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

    def wait_until_free(self, seconds: float) -> None:
        """Let the batches that are at work come to their end."""
        with self._freed:
            self._freed.wait_for(lambda: self._taken == 0, seconds)


_slots = _Slots()


@tasks.task
def read_batches(*batches: Batch) -> None:
    """Task: read the NICs of some endpoints, each in a thread of its own, so that a stuck one holds up no other.

    Safe to lose and to run twice: a claim that brings no result is claimed again, and results are fenced by each
    claim's attempt.
    """
    if abandoned_calls() > MOST_ABANDONED:
        # Threads stuck in a C library are only ended with their process; the cluster starts another.
        log.error("Too many calls to hypervisors are stuck; this worker ends itself.")
        _slots.wait_until_free(BATCH_LIFE.total_seconds())
        raise SystemExit(1)
    limit, until = MAX_THREADS.get(), time.monotonic() + CLAIM_LIFE.total_seconds()
    for endpoint_id, claims, width in batches:
        if time.monotonic() > until:
            return  # by then the other claims have run out
        slots = _slots.take(width, limit)
        _readers.run(partial(_read_in_thread, endpoint_id, claims, slots))


def _read_in_thread(endpoint_id: int, claims: Claims, slots: int) -> None:
    try:
        close_old_connections()
        read(endpoint_id, claims, slots)
    except Exception:
        log.exception("A batch failed; its NICs will be claimed again.", endpoint=endpoint_id)
    finally:
        _slots.give_back(slots)


class _Readers:
    """Threads that keep their connection and wait for the next batch.

    Daemons: one that hangs does not keep the process alive. There are as many as were ever at work at once.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    def run(self, work: Callable[[], None]) -> None:
        """In a thread that has nothing to do, else in a new one."""
        with self._lock:
            found = self._idle > 0
            self._idle -= found
        self._work.put(work)
        if not found:
            threading.Thread(target=self._attend, daemon=True).start()

    def _attend(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self._idle += 1


_readers = _Readers()


def read(
    endpoint_id: int, claims: Claims, width: int = AT_ONE_HOST, *, done: Callable[[int], None] | None = None
) -> None:
    """Ask for all claimed NICs, each by its zone's chain of sources; `done` hears how many more have their result."""
    claimed = _claimed(claims)
    if not claimed:
        return
    endpoint = Endpoint.objects.get(pk=endpoint_id)
    batch = _Batch(endpoint, claimed, done or (lambda count: None))
    batch.hold()
    begun = time.monotonic()
    with asking(endpoint_id):
        try:
            batch.read(hypervisor_at(endpoint), width)
        except HypervisorError as error:
            if isinstance(error, EndpointUnreachable) or not isinstance(error, TryAgainLater):
                record_health(endpoint, str(error), stuck_calls=abandoned_calls(endpoint_id))
            batch.unreachable(str(error))
            sweeps.note(len(claimed), batch.found, time.monotonic() - begun, timezone.now(), answered=False)
            return
    record_health(endpoint, stuck_calls=abandoned_calls(endpoint_id))
    batch.not_reached()
    sweeps.note(len(claimed), batch.found, time.monotonic() - begun, timezone.now(), answered=True)


class _Batch:
    """The NICs of one endpoint that are asked for together."""

    def __init__(self, endpoint: Endpoint, claimed: Sequence[Target], done: Callable[[int], None]) -> None:
        self._endpoint, self._done = endpoint, done
        self._open = {target.row_id: target for target in claimed}
        self._chains = Chains.now()
        self._leases: Mapping[tuple[int, str], GuestAddress] | None = None
        # NICs whose address is known now.
        self.found = 0

    def hold(self) -> None:
        """The claims' life begins anew: somebody is at work on them. Not those that others have taken since."""
        self._held_at = time.monotonic()
        by_attempt: dict[int, list[int]] = defaultdict(list)
        for target in self._open.values():
            by_attempt[target.attempt].append(target.row_id)
        for attempt, row_ids in by_attempt.items():
            mine = IpFetch.objects.filter(pk__among=Keys(row_ids), attempt=attempt, claimed_until__isnull=False)
            mine.update(claimed_until=timezone.now() + CLAIM_LIFE, begun=True)

    def read(self, hypervisor: Any, width: int) -> None:
        """Raises HypervisorError when the endpoint could not be asked at all."""
        self._without_the_guest()
        by_vm = self._by_vm()
        if not by_vm:
            return
        assert isinstance(hypervisor, AddressReader)
        heard = False
        answers = hypervisor.read_addresses(list(by_vm), within(BATCH_LIFE.total_seconds()), width=width)
        for arrived in _as_they_arrive(answers):
            if time.monotonic() - self._held_at > RENEW_SECONDS:
                self.hold()
            heard = heard or bool(arrived)
            readings = [(target, reading) for vm, reading in arrived for target in by_vm[vm]]
            self._record(self._after_the_guest(hypervisor, readings, {vm for vm, _ in arrived}))
        if not heard:
            raise EndpointUnreachable("It answered for no VM in time.")

    def unreachable(self, detail: str) -> None:
        """The endpoint could not be asked: that spends no try, except in exact mode."""
        unread = list(self._open.values())
        if Pace.now().exact:
            self._record([Finding(target, outcome=Outcome.HOST_UNREACHABLE, detail=detail) for target in unread])
            return
        give_back(unread, timezone.now(), last_outcome=Outcome.HOST_UNREACHABLE, last_detail=detail[:255])
        self._done(len(unread))

    def not_reached(self) -> None:
        """What the deadline cut off stays first in line."""
        if self._open:
            now = timezone.now()
            give_back(list(self._open.values()), now, next_attempt_at=now, scheduled_at=now)

    # Steps of the chain

    def _without_the_guest(self) -> None:
        """Whom the zone asks before the guest, or instead of it."""
        found, never_asked = [], []
        for target in self._open.values():
            before, ask_guest, _ = chains.split(self._chain(target))
            finding = self._from_leases(target) if Source.LEASE in before else None
            if finding and finding.settled:
                found.append(finding)
            elif not ask_guest:
                never_asked.append(finding or Finding(target, detail="Its zone does not ask the guest agent."))
        self._record([*found, *never_asked])

    def _by_vm(self) -> dict[VmRef, list[Target]]:
        """The guests to ask, each once for all its NICs."""
        of_vm: dict[int, list[Target]] = defaultdict(list)
        for target in self._open.values():
            of_vm[target.vm_id].append(target)
        macs: dict[int, list[str]] = defaultdict(list)
        for vm_id, mac in Nic.objects.filter(vm__among=Keys(of_vm)).order_by().values_list("vm_id", "mac_address"):
            macs[vm_id].append(mac)
        return {some[0].on_host(macs[vm_id]): some for vm_id, some in of_vm.items()}

    def _after_the_guest(
        self, hypervisor: Any, readings: Sequence[tuple[Target, Reading]], vms: set[VmRef]
    ) -> list[Finding]:
        findings = [_from_guest(target, reading) for target, reading in readings]
        lacking = [finding for finding in findings if not finding.settled]
        if not lacking:
            return findings
        neighbours = self._neighbours(hypervisor, lacking, vms)
        return [self._completed(finding, neighbours) for finding in findings]

    def _completed(self, finding: Finding, neighbours: Mapping[str, tuple[GuestAddress, ...]]) -> Finding:
        """What the guest did not tell, from those who stand behind it in the chain."""
        target = finding.target
        _, _, after = chains.split(self._chain(target))
        reported, heard = finding.reported, finding.heard
        for source in after:
            if settles(target.facts, reported):
                break
            if source == Source.LEASE:
                lease = self._from_leases(target)
                reported, heard = (*reported, *lease.reported), heard | lease.heard
            elif source == Source.NEIGHBOUR:
                reported += reported_for(target.facts, neighbours.get(target.vm_uuid, ()))
        return Finding(target, reported, heard, finding.outcome, finding.detail)

    def _from_leases(self, target: Target) -> Finding:
        if self._leases is None:
            some = self._open.values()
            self._leases = leases.addresses(
                {each.network_id for each in some}, {each.facts.mac for each in some}, timezone.now()
            )
        lease = self._leases.get((target.network_id, target.facts.mac))
        # That there is none says nothing: the file may be out of reach. A lease that is gone ends at its time.
        return Finding(
            target, reported_for(target.facts, [lease] if lease else []), LEASES_HEARD if lease else frozenset()
        )

    def _neighbours(
        self, hypervisor: Any, lacking: Sequence[Finding], vms: set[VmRef]
    ) -> dict[str, tuple[GuestAddress, ...]]:
        """The host's own table; whatever is wrong with it, the chain goes on."""
        uuids = {
            finding.target.vm_uuid
            for finding in lacking
            if Source.NEIGHBOUR in chains.split(self._chain(finding.target))[2]
            and finding.outcome not in (Outcome.NOT_RUNNING, Outcome.AGENT_SILENT)
        }
        asked = [vm for vm in vms if vm.uuid in uuids]
        if not asked or not isinstance(hypervisor, NeighbourReader):
            return {}
        with contextlib.suppress(HypervisorError):
            return {vm.uuid: found for vm, found in hypervisor.read_neighbours(asked, within(NEIGHBOURS_SECONDS))}
        return {}

    def _chain(self, target: Target) -> tuple[Source, ...]:
        return self._chains.of(target.zone_id, target.hypervisor, target.windows)

    # Results

    def _record(self, findings: Sequence[Finding]) -> None:
        for some in batched(findings, LARGEST_LOT):
            self._record_lot(some)

    def _record_lot(self, findings: Sequence[Finding]) -> None:
        written = record(findings, timezone.now())
        for finding in findings:
            self._open.pop(finding.target.row_id, None)
            self.found += finding.settled
        self._done(len(findings))
        if self._endpoint.disk_access:
            self._look_at_disks([finding for finding in findings if finding.target.row_id in written])

    def _look_at_disks(self, findings: Iterable[Finding]) -> None:
        """A last resort, and slow: at the tries that count only, and not in this batch."""
        wanted = [
            finding.target.nic_id
            for finding in findings
            if not finding.settled
            and finding.target.claim == IpFetch.Claim.COUNTED
            and finding.outcome != Outcome.NOT_RUNNING
            and Source.DISK in self._chain(finding.target)
        ]
        if wanted:
            tasks.enqueue(disks.read_disks, self._endpoint.pk, wanted, queue=tasks.ADDRESSES)


def _from_guest(target: Target, reading: Reading) -> Finding:
    """What a guest answered about one NIC. A failed read says nothing of what has ended."""
    if reading.problem:
        return Finding(target, outcome=Outcome(reading.problem.value), detail=reading.detail)
    reported = reported_for(target.facts, reading.addresses)
    finding = Finding(target, reported, ASKED_IN_THE_GUEST, Outcome.NONE_YET, reading.detail)
    if not reported or finding.settled:
        return finding
    foreign = next((each.ip for each in reported if each.ip.version == 4), None)
    detail = f"It has {foreign}, which is outside {target.cidr}." if foreign else "It has IPv6 addresses only."
    return replace(finding, detail=detail)


T = TypeVar("T")


def _as_they_arrive(answers: Iterator[T]) -> Iterator[list[T]]:
    """The answers in lots: what has come while the last lot was worked on. A slow one holds back none before it.

    A lot is empty when nothing has come for a while. Who stops taking lots ends the asking.
    """
    arrived: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    given_up = threading.Event()
    context = contextvars.copy_context()

    def ask() -> None:
        error = None
        try:
            for answer in answers:
                if given_up.is_set():
                    return
                arrived.put(answer)
        except BaseException as raised:  # it belongs to the caller's thread
            error = raised
        arrived.put(_End(error))

    threading.Thread(target=context.run, args=(ask,), daemon=True).start()
    try:
        end = None
        while end is None:
            lot, end = _next_lot(arrived)
            if lot or end is None:
                yield lot
        if end.error:
            raise end.error
    finally:
        given_up.set()


@dataclass(frozen=True)
class _End:
    """No more answers come: all were given, or something went wrong."""

    error: BaseException | None


def _next_lot(arrived: "queue.SimpleQueue[T | _End]") -> tuple[list[T], _End | None]:
    lot: list[T] = []
    wait = RENEW_SECONDS
    with contextlib.suppress(queue.Empty):
        while len(lot) < LARGEST_LOT:
            answer = arrived.get(timeout=wait)
            if isinstance(answer, _End):
                return lot, answer
            lot.append(answer)
            # Written together they cost much less: a moment for those that are about to come.
            wait = GATHER_SECONDS
    return lot, None


def _claimed(claims: Claims) -> list[Target]:
    attempts = dict(claims)
    rows = targets(IpFetch.objects.filter(pk__among=Keys(attempts), claimed_until__isnull=False))
    return [row for row in rows if row.attempt == attempts[row.row_id]]
