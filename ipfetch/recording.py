"""What a try or a report has brought, written down: observations, the NIC, its row in the queue, events.

One transaction for a whole batch, and a number of queries that does not grow with it.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, ip_address

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet

from extdhcp_site.bulk import Keys
from extdhcp_site.deadlocks import repeated
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from ipfetch.addresses import IN_THE_GUEST, NicFacts, Sighting, choose, reported_for
from ipfetch.leases.lease import CLOCKS_APART
from ipfetch.models import IpFetch, Observation
from ipfetch.schedule import EAGER_DELAY, EAGER_FOR, Pace
from ipfetch.writing.conflicts import settle_conflicts
from ipfetch.writing.nics import write_nics
from ipfetch.writing.observations import confidence, observe
from ipfetch.writing.queue import write_found, write_none
from ipfetch.writing.targets import Finding, Held, Target, event_of, rows_of, still_held, targets
from networks.elements import AddressChange
from networks.hypervisors.base import GuestAddress, Source
from networks.models import AddressState, Nic, VirtualMachine, VmState

log = structlog.get_logger(__name__)

State = IpFetch.State
FAMILIES = (4, 6)
ASKED_IN_THE_GUEST = frozenset((source, family) for source in IN_THE_GUEST for family in FAMILIES)
LEASES = (Source.WEBHOOK, Source.LEASE)
MOST_ENDED = 500


def record(findings: Sequence[Finding], now: datetime) -> set[int]:
    """Write what a batch has brought; the keys of the rows that were still its own. Needs the claims' attempts."""

    def write() -> tuple[list[Held], _Written]:
        with transaction.atomic():
            held = still_held(findings, now)
            return held, _write(held, now, Pace.now()) if held else _Written()

    held, written = repeated(write)
    _log(written)
    return {one.target.row_id for one in held}


def report(source: Source, sightings: Mapping[int, Sequence[GuestAddress]], now: datetime) -> set[int]:
    """Write what somebody tells without having been asked, by NIC; the keys of the NICs that are in the queue.

    Where a better source has said otherwise before, that one is asked again at once. What is told of a VM that is
    about to run is kept for `take_up`.
    """

    def write() -> tuple[list[Held], _Written]:
        with transaction.atomic():
            _keep_for_start(source, sightings, now)
            rows = IpFetch.objects.filter(nic__in=list(sightings), nic__vm__host__isnull=False)
            findings = [_reported(target, sightings[target.nic_id]) for target in targets(rows)]
            held = still_held([finding for finding in findings if finding.reported and not _is_late(finding)], now)
            written = _write(held, now, Pace.now()) if held else _Written()
            doubted = IpFetch.objects.filter(pk__in=[one.target.row_id for one in held if one.doubted])
            doubted.update(next_attempt_at=now, eager_until=now + EAGER_FOR)
            return held, written

    held, written = repeated(write)
    _log(written)
    return {one.target.nic_id for one in held}


def _keep_for_start(source: Source, sightings: Mapping[int, Sequence[GuestAddress]], now: datetime) -> None:
    """A guest that boots fast has its lease before it is written that its VM runs."""
    starting = Nic.objects.external_dhcp().filter(pk__in=list(sightings), ip_fetch=None, vm__state=VmState.STARTING)
    for nic in starting.select_related("network"):
        gateway = IPv4Address(nic.network.gateway) if nic.network.gateway else None
        for reading in reported_for(NicFacts(nic.mac_address, nic.network.ip4_network, gateway), sightings[nic.pk]):
            Observation.objects.update_or_create(
                nic=nic,
                source=source.value,
                address=str(reading.ip),
                defaults={"last_seen_at": now, "ended_at": None, "expires_at": reading.expires},
                create_defaults={
                    "family": reading.ip.version,
                    "prefix": reading.prefix,
                    "confidence": confidence(reading),
                    "first_seen_at": now,
                    "last_seen_at": now,
                    "expires_at": reading.expires,
                },
            )


def take_up(vm: VirtualMachine, now: datetime) -> None:
    """The VM runs: what was told of it while it was started counts from now on."""
    told: dict[Source, dict[int, list[GuestAddress]]] = defaultdict(lambda: defaultdict(list))
    kept = Observation.objects.current().filter(nic__vm=vm).select_related("nic")
    for observation in kept:
        source, ip = Source(observation.source), ip_address(observation.address)
        mac = observation.nic.mac_address
        reading = GuestAddress(mac, ip, source, observation.prefix, observation.expires_at)
        told[source][observation.nic_id].append(reading)
    for source, sightings in told.items():
        report(source, sightings, now)


def _is_late(finding: Finding) -> bool:
    """Whether the same server has told of a lease since that ends later: scripts run one beside the other."""
    ends = [reading.expires for reading in finding.reported if reading.expires]
    if not ends:
        return False
    (source, family), *_ = finding.heard
    told = Observation.objects.current().filter(nic=finding.target.nic_id, source=source.value, family=family)
    others = told.exclude(address__in=[str(reading.ip) for reading in finding.reported])
    return others.filter(expires_at__gt=max(ends)).exists()


def _reported(target: Target, told: Sequence[GuestAddress]) -> Finding:
    """A lease takes the place of what the same server gave to the MAC before, in its family."""
    reported = reported_for(target.facts, told)
    return Finding(target, reported, frozenset((reading.source, reading.ip.version) for reading in reported))


def withdraw(source: Source, nic_ids: Collection[int], address: str | None, now: datetime) -> None:
    """A source says that an address, or all that it told, is gone. What was known becomes last known, and its NIC
    waits for one again."""
    told = Observation.objects.current().filter(nic__in=nic_ids, source=source)
    repeated(lambda: _withdraw(told if address is None else told.filter(address=address), now))


def withdraw_ended(now: datetime) -> None:
    """Leases that have ended by any clock, and of which nobody has told more: what is known by them is last known.

    The NIC does not wait for another: its guest may well have renewed, and only the server's script not told it.
    Some at a time, those that ended first before the others: a script that failed leaves all of a network's.
    """
    ended = Observation.objects.current().filter(expires_at__lt=now - CLOCKS_APART).order_by("expires_at")
    some = list(ended.values_list("pk", flat=True)[:MOST_ENDED])
    if some:
        repeated(lambda: _withdraw(Observation.objects.current().filter(pk__in=some), now, wait_again=False))


def _withdraw(gone: QuerySet[Observation], now: datetime, *, wait_again: bool = True) -> None:
    with transaction.atomic():
        of_nics = set(gone.order_by().values_list("nic_id", flat=True))
        if not of_nics:
            return
        for locked in (VirtualMachine.objects.filter(nics__in=of_nics), IpFetch.objects.filter(nic__in=of_nics)):
            list(locked.select_for_update().order_by("pk").values_list("pk"))
        ended = {pk: told for pk, *told in gone.order_by().values_list("pk", "nic_id", "address", "source")}
        Observation.objects.filter(pk__in=ended).end(now)
        known_by = Nic.objects.filter(pk__in=of_nics, address_state=AddressState.CONFIRMED)
        told = {tuple(each) for each in ended.values()}
        lost = [each[0] for each in known_by.values_list("pk", "ip4_address", "address_source") if each in told]
        Nic.objects.filter(pk__in=lost).update(address_state=AddressState.LAST_KNOWN)
        rows = IpFetch.objects.filter(nic__in=lost)
        if wait_again:
            rows.begin_anew(Pace.now(), now)
        rows.update(next_attempt_at=now)


@dataclass(frozen=True)
class _Written:
    """What people are told of."""

    found: Sequence[Held] = ()
    changed: Sequence[Held] = ()


def _write(held: list[Held], now: datetime, pace: Pace) -> _Written:
    _note_seen(held)
    observed = observe(held, now)
    for one in held:
        known = (one.ip4, one.ip6)
        sightings = observed.said[one.target.nic_id]
        one.choice = choose(one.target.facts, sightings, known, pace.stale_after)
        one.doubted = any(_contradicts(sighting, one.choice.ip4, now) for sighting in sightings)
    new = write_nics(held, pace, now)
    settle_conflicts(observed)
    found = [one for one in held if one.finding.settled and one.state != State.FOUND and one.choice.source]
    entered = set(found)
    changed = [one for one in new if one.change and (one.ip4 or (one.ip6 and one not in entered))]
    write_found([one for one in held if one.finding.settled], entered, pace, now)
    write_none([one for one in held if not one.finding.settled], pace, now)
    _begin_anew([one for one in held if one.has_lost_ip4 and one.state == State.FOUND], pace, now)
    events.record_all(
        [event_of(one.target, EventType.IP_FETCH, f"ip addr {one.primary} got fetched successfully") for one in found]
        + [event_of(one.target, EventType.IP_CHANGE, f"ip addr changed {_change(one.change)}") for one in changed]
    )
    return _Written(found, changed)


def _begin_anew(lost: Sequence[Held], pace: Pace, now: datetime) -> None:
    """A guest without its address may be between two leases: then it has the next in seconds."""
    if lost:
        rows_of(lost).begin_anew(pace, now)
    if lost and not pace.exact:
        rows_of(lost).update(next_attempt_at=now + EAGER_DELAY, eager_until=now + EAGER_FOR)


def _log(written: _Written) -> None:
    for one in written.found:
        log.info("Address found", **_for_log(one))
    for one in written.changed:
        log.info("Address changed", before=one.ip4 or one.ip6, **_for_log(one))


def _for_log(one: Held) -> dict[str, object]:
    target = one.target
    source = one.choice.source or one.address_source
    return {
        "vm": target.vm_uuid,
        "nic": target.nic_uuid,
        "mac": target.facts.mac,
        "ip": one.primary,
        "source": str(source),
    }


def _contradicts(sighting: Sighting, chosen: Sighting | None, now: datetime) -> bool:
    """A server has just given the guest another address than the one it tells: it is about to put it on."""
    told = sighting.source in LEASES and sighting.ip.version == 4 and now - sighting.last_seen < EAGER_FOR
    return told and chosen is not None and chosen.source not in LEASES and chosen.ip != sighting.ip


def _note_seen(held: Sequence[Held]) -> None:
    """The guest answered, some time after the claim was made.

    The moment of the claim is what is certain, and no start or reboot has come since: a result that is
    written later must not pass for the answer of a guest that is up again.
    """
    by_claim: dict[datetime, list[int]] = defaultdict(list)
    for one in held:
        if one.target.claimed_at and one.finding.heard & ASKED_IN_THE_GUEST:
            by_claim[one.target.claimed_at].append(one.target.vm_id)
    for claimed_at, vm_ids in by_claim.items():
        earlier = Q(guest_seen_at=None) | Q(guest_seen_at__lt=claimed_at)
        VirtualMachine.objects.filter(earlier, pk__among=Keys(vm_ids)).update(guest_seen_at=claimed_at)


def _change(change: AddressChange) -> str:
    """In words, for the family that has changed."""
    pairs = [(change.ip4_before, change.ip4), (change.ip6_before, change.ip6)]
    return " and ".join(f"from {before or 'none'} to {after or 'none'}" for before, after in pairs if after != before)
