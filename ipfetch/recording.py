"""What a try or a report has brought, written down: observations, the NIC, its row in the queue, events.

One transaction for a whole batch, and a number of queries that does not grow with it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, ip_address
from typing import ClassVar, TypeVar

import structlog
from django.db import transaction
from django.db.models import F, Q, QuerySet

from extdhcp_site.deadlocks import repeated
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType, Level
from ipfetch.addresses import UNCONFIRMED, Choice, NicFacts, Sighting, can_be_leased, choose, reported_for, settles
from ipfetch.bulk import update_each
from ipfetch.leases.lease import CLOCKS_APART
from ipfetch.models import Confidence, Flag, IpFetch, Observation, Outcome
from ipfetch.schedule import EAGER_DELAY, EAGER_FOR, Pace
from networks import elements
from networks.elements import AddressChange
from networks.hypervisors.base import GuestAddress, Source, VmRef
from networks.models import AddressState, Host, Network, Nic, Template, VirtualMachine, VmState
from networks.models.offerings import OsFamily

log = structlog.get_logger(__name__)

State = IpFetch.State
FAMILIES = (4, 6)
ASKED_IN_THE_GUEST = frozenset(
    (source, family) for source in (Source.GUEST_AGENT, Source.TEST_DRIVER) for family in FAMILIES
)
MOST_DIFFERENT_ANSWERS = 8
MOST_KEPT = 64
NOTHING = Choice()
LEASES = (Source.WEBHOOK, Source.LEASE)
# After a start a server's lease may be that of the boot before, until the guest has asked it again.
YOUNG_FOR = timedelta(minutes=5)
YOUNG_DELAY = timedelta(seconds=20)

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


# Values -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A NIC in the queue, as it is asked for and written: read once a batch."""

    row_id: int
    attempt: int
    claim: str
    claimed_at: datetime | None
    nic_id: int
    nic_uuid: str
    device_id: int
    facts: NicFacts
    cidr: str
    network_id: int
    vm_id: int
    vm_uuid: str
    vm_name: str
    account_id: int
    zone_id: int
    hypervisor: str
    windows: bool
    endpoint_id: int | None

    @property
    def name(self) -> str:
        return f"NIC {self.device_id} of {self.vm_name}"

    def on_host(self, macs: Iterable[str]) -> VmRef:
        """How the hypervisor knows its VM, as `VirtualMachine.on_host` says it."""
        return VmRef(f"i-{self.account_id}-{self.vm_id}-VM", self.vm_uuid, tuple(sorted(macs)))


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of asking for one NIC: `heard` are the sources that answered, and for which family, so that what
    they no longer tell has ended; `outcome` says why there is no address, in case there is none."""

    target: Target
    reported: tuple[GuestAddress, ...] = ()
    heard: frozenset[tuple[Source, int]] = frozenset()
    outcome: Outcome = Outcome.NONE_YET
    detail: str = ""

    @property
    def settled(self) -> bool:
        return settles(self.target.facts, self.reported)


@dataclass(slots=True, eq=False)
class _Held:
    """A finding whose row is still its own, with what the row and the NIC say now, under the row's lock."""

    finding: Finding
    state: str
    retries_left: int
    entered_at: datetime
    found_at: datetime | None
    eager: bool
    ip4: str | None
    ip6: str | None
    address_state: str
    address_source: str
    seen_at: datetime | None
    secondary: list[str]
    choice: Choice = NOTHING
    doubted: bool = False
    change: AddressChange | None = None

    @property
    def was_found_since(self) -> bool:
        """A report has come while it was asked for."""
        claimed_at = self.target.claimed_at
        return self.state == State.FOUND and bool(self.found_at and claimed_at and self.found_at >= claimed_at)

    @property
    def has_lost(self) -> bool:
        """Who told the NIC's address answers, and does not tell it any more, nor does anybody else."""
        source = self.address_source
        return self.has_lost_ip4 or (
            self.ip6 is not None and self.choice.ip6 is None and (source, 6) in self.finding.heard
        )

    @property
    def has_lost_ip4(self) -> bool:
        confirmed = self.ip4 is not None and self.address_state == AddressState.CONFIRMED
        return confirmed and self.choice.ip4 is None and (self.address_source, 4) in self.finding.heard

    @property
    def target(self) -> Target:
        return self.finding.target


def targets(rows: QuerySet[IpFetch]) -> list[Target]:
    """The rows as targets, in a fixed number of queries.

    Networks, templates and hosts are few, and are not joined: MariaDB would begin with one of them and walk
    all of its NICs.
    """
    found = list(
        rows.order_by().values_list(
            "pk", "attempt", "claim", "last_attempt_at", "nic_id", "nic__uuid", "nic__device_id", "nic__mac_address",
            "nic__network_id", "nic__vm_id", "nic__vm__uuid", "nic__vm__name", "nic__vm__account_id",
            "nic__vm__zone_id", "nic__vm__hypervisor", "nic__vm__template_id", "nic__vm__host_id",
        )
    )  # fmt: skip
    networks = {network.pk: network for network in Network.objects.filter(pk__in={values[8] for values in found})}
    ranges = {
        pk: (network.ip4_network, IPv4Address(network.gateway) if network.gateway else None)
        for pk, network in networks.items()
    }
    families = dict(Template.objects.filter(pk__in={values[15] for values in found}).values_list("pk", "os_family"))
    endpoints = dict(Host.objects.filter(pk__in={values[16] for values in found}).values_list("pk", "endpoint_id"))

    def target(values: tuple) -> Target:
        row_id, attempt, claim, claimed_at, nic_id, nic_uuid, device_id, mac, network_id, *of_vm = values
        vm_id, vm_uuid, vm_name, account_id, zone_id, hypervisor, template_id, host_id = of_vm
        return Target(
            row_id, attempt, claim, claimed_at, nic_id, str(nic_uuid), device_id, NicFacts(mac, *ranges[network_id]),
            networks[network_id].cidr, network_id, vm_id, str(vm_uuid), vm_name, account_id, zone_id, hypervisor,
            families.get(template_id) == OsFamily.WINDOWS, endpoints.get(host_id),
        )  # fmt: skip

    return [target(values) for values in found if values[8] in networks]


# What is called ---------------------------------------------------------------------------------


def record(findings: Sequence[Finding], now: datetime) -> set[int]:
    """Write what a batch has brought; the keys of the rows that were still its own. Needs the claims' attempts."""

    def write() -> tuple[list[_Held], _Written]:
        with transaction.atomic():
            held = _still_held(findings, now)
            return held, _write(held, now, Pace.now()) if held else _Written()

    held, written = repeated(write)
    _log(written)
    return {one.target.row_id for one in held}


def report(source: Source, sightings: Mapping[int, Sequence[GuestAddress]], now: datetime) -> set[int]:
    """Write what somebody tells without having been asked, by NIC; the keys of the NICs that are in the queue.

    Where a better source has said otherwise before, that one is asked again at once. What is told of a VM that is
    about to run is kept for `take_up`.
    """

    def write() -> tuple[list[_Held], _Written]:
        with transaction.atomic():
            _keep_for_start(source, sightings, now)
            rows = IpFetch.objects.filter(nic__in=list(sightings), nic__vm__host__isnull=False)
            findings = [_reported(target, sightings[target.nic_id]) for target in targets(rows)]
            held = _still_held([finding for finding in findings if finding.reported and not _is_late(finding)], now)
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
                defaults={"last_seen_at": now, "ended_at": None},
                create_defaults={
                    "family": reading.ip.version,
                    "prefix": reading.prefix,
                    "confidence": _confidence(reading),
                    "first_seen_at": now,
                    "last_seen_at": now,
                },
            )


def take_up(vm: VirtualMachine, now: datetime) -> None:
    """The VM runs: what was told of it while it was started counts from now on."""
    told: dict[Source, dict[int, list[GuestAddress]]] = defaultdict(lambda: defaultdict(list))
    kept = Observation.objects.current().filter(nic__vm=vm).select_related("nic")
    for observation in kept:
        source, ip = Source(observation.source), ip_address(observation.address)
        reading = GuestAddress(observation.nic.mac_address, ip, source, observation.prefix)
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
    """
    ended = Observation.objects.current().filter(expires_at__lt=now - CLOCKS_APART)
    repeated(lambda: _withdraw(ended, now, wait_again=False))


def _withdraw(gone: QuerySet[Observation], now: datetime, *, wait_again: bool = True) -> None:
    with transaction.atomic():
        of_nics = set(gone.order_by().values_list("nic_id", flat=True))
        if not of_nics:
            return
        for locked in (VirtualMachine.objects.filter(nics__in=of_nics), IpFetch.objects.filter(nic__in=of_nics)):
            list(locked.select_for_update().order_by("pk").values_list("pk"))
        ended = list(gone.order_by().values_list("pk", "nic_id", "address", "source"))
        Observation.objects.filter(pk__in=[pk for pk, *_ in ended]).end(now)
        lost = []
        for _, nic_id, address, source in ended:
            of_nic = Nic.objects.filter(pk=nic_id, ip4_address=address, address_source=source)
            confirmed = of_nic.filter(address_state=AddressState.CONFIRMED)
            if confirmed.update(address_state=AddressState.LAST_KNOWN):
                lost.append(nic_id)
        if wait_again:
            IpFetch.objects.filter(nic__in=lost).begin_anew(Pace.now(), now)
        IpFetch.objects.filter(nic__in=lost).update(next_attempt_at=now)


def exhaust(rows: QuerySet[IpFetch], now: datetime) -> None:
    """Give up those of `rows` that have no try left, with one ERROR event each."""
    with transaction.atomic():
        locked = IpFetch.objects.select_for_update().waiting().filter(pk__in=list(rows.values_list("pk", flat=True)))
        spent = locked.filter(retries_left=0)
        outcomes = dict(spent.values_list("pk", "last_outcome"))
        if outcomes:
            gone = targets(IpFetch.objects.filter(pk__in=outcomes))
            _exhaust([(target, outcomes[target.row_id]) for target in gone], Pace.now(), now)


# The row, under its lock ------------------------------------------------------------------------


def _still_held(findings: Sequence[Finding], now: datetime) -> list[_Held]:
    """Those whose row has not moved on: `attempt` is the fence, for a start and each claim raise it.

    The VMs are locked before their NICs' rows, as a start or stop does it: the other way round two could
    wait for each other for ever.
    """
    vm_ids = sorted({finding.target.vm_id for finding in findings})
    list(VirtualMachine.objects.select_for_update().filter(pk__in=vm_ids).order_by("pk").values_list("pk"))
    by_row = {finding.target.row_id: finding for finding in findings}
    rows = IpFetch.objects.select_for_update().filter(pk__in=by_row).order_by("pk")
    values = rows.values_list(
        "pk", "attempt", "state", "retries_left", "entered_at", "found_at", "eager_until",
        "nic__ip4_address", "nic__ip6_address", "nic__address_state", "nic__address_source", "nic__address_seen_at",
        "nic__secondary_addresses",
    )  # fmt: skip
    return [
        _Held(
            by_row[pk],
            state,
            retries_left,
            entered_at,
            found_at,
            eager_until is not None and eager_until > now,
            *of_nic,
        )
        for pk, attempt, state, retries_left, entered_at, found_at, eager_until, *of_nic in values
        if by_row[pk].target.attempt == attempt
    ]


@dataclass(frozen=True)
class _Written:
    """What people are told of."""

    found: Sequence[_Held] = ()
    changed: Sequence[_Held] = ()


def _write(held: list[_Held], now: datetime, pace: Pace) -> _Written:
    _note_seen(held)
    observed, appeared = _observe(held, now)
    for one in held:
        known = (one.ip4, one.ip6)
        sightings = observed[one.target.nic_id]
        one.choice = choose(one.target.facts, sightings, known, pace.stale_after)
        one.doubted = any(_contradicts(sighting, one.choice.ip4, now) for sighting in sightings)
    new = _write_nics(held, pace, now)
    _settle_conflicts(held, appeared)
    found = [one for one in held if one.finding.settled and one.state != State.FOUND and _has_address(one)]
    entered = set(found)
    changed = [one for one in new if one.change and (one.ip4 or (one.ip6 and one not in entered))]
    _write_found([one for one in held if one.finding.settled], entered, pace, now)
    _write_none([one for one in held if not one.finding.settled], pace, now)
    _rows(one for one in held if one.has_lost_ip4 and one.state == State.FOUND).begin_anew(pace, now)
    events.record_all(
        [_event(one.target, EventType.IP_FETCH, f"ip addr {_primary(one)} got fetched successfully") for one in found]
        + [_event(one.target, EventType.IP_CHANGE, f"ip addr changed {_change(one.change)}") for one in changed]
    )
    return _Written(found, changed)


def _log(written: _Written) -> None:
    for one in written.found:
        log.info("Address found", **_for_log(one))
    for one in written.changed:
        log.info("Address changed", before=one.ip4 or one.ip6, **_for_log(one))


def _for_log(one: _Held) -> dict[str, object]:
    target = one.target
    source = one.choice.source or one.address_source
    return {
        "vm": target.vm_uuid,
        "nic": target.nic_uuid,
        "mac": target.facts.mac,
        "ip": _primary(one),
        "source": str(source),
    }


def _contradicts(sighting: Sighting, chosen: Sighting | None, now: datetime) -> bool:
    """A server has just given the guest another address than the one it tells: it is about to put it on."""
    told = sighting.source in LEASES and sighting.ip.version == 4 and now - sighting.last_seen < EAGER_FOR
    return told and chosen is not None and chosen.source not in LEASES and chosen.ip != sighting.ip


def _note_seen(held: Sequence[_Held]) -> None:
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
        VirtualMachine.objects.filter(earlier, pk__in=vm_ids).update(guest_seen_at=claimed_at)


# Observations -----------------------------------------------------------------------------------


Place = tuple[int, str]  # a network, and an address there


def _observe(held: Sequence[_Held], now: datetime) -> tuple[dict[int, list[Sighting]], set[Place]]:
    """Write what was seen and what has ended. Gives by NIC all that is said at present, and what is new."""
    by_nic = {one.target.nic_id: one for one in held}
    known: dict[tuple[int, str, str], int] = {}
    history: dict[int, list[int]] = defaultdict(list)  # keys of what has ended, the first seen first
    present: dict[int, dict[tuple[str, str], Sighting]] = {nic_id: {} for nic_id in by_nic}
    stored = Observation.objects.filter(nic__in=list(by_nic)).order_by("pk")
    ends: dict[int, datetime | None] = {}
    for pk, nic_id, source, address, last_seen_at, ended_at, expires_at in stored.values_list(
        "pk", "nic_id", "source", "address", "last_seen_at", "ended_at", "expires_at"
    ):
        ends[pk] = expires_at
        known[nic_id, source, address] = pk
        if ended_at is None:
            present[nic_id][source, address] = Sighting(ip_address(address), Source(source), last_seen_at)
        else:
            history[nic_id].append(pk)
    again, new, ended, alerts = [], [], [], []
    renewed: dict[int, tuple[datetime | None]] = {}
    appeared: set[Place] = set()
    for nic_id, one in by_nic.items():
        told = {(reading.source.value, str(reading.ip)): reading for reading in one.finding.reported}
        had_outside = any(not can_be_leased(one.target.facts, each.ip) for each in present[nic_id].values())
        for key, former in list(present[nic_id].items()):
            if key not in told and (former.source, former.ip.version) in one.finding.heard:
                ended.append(known[nic_id, *key])
                del present[nic_id][key]
        for key, reading in told.items():
            if key not in present[nic_id] and _can_conflict(one.target, reading):
                appeared.add((one.target.network_id, str(reading.ip)))
            present[nic_id][key] = Sighting(reading.ip, reading.source, now)
            if (nic_id, *key) in known:
                again.append(known[nic_id, *key])
                if ends[again[-1]] != reading.expires:
                    renewed[again[-1]] = (reading.expires,)
            else:
                new.append(_observation(one.target, reading, now))
                outside = new[-1].flag == Flag.OUTSIDE
                if outside and not had_outside:
                    alerts.append(_outside(one.target, reading))
                    had_outside = True
    Observation.objects.filter(pk__in=again).update(last_seen_at=now, ended_at=None)
    Observation.objects.filter(pk__in=ended).end(now)
    update_each(Observation, renewed, ["expires_at"])
    Observation.objects.bulk_create(new)
    events.record_all(alerts)
    # A guest that shows new addresses at every read would fill the table.
    if forgotten := [pk for pks in history.values() for pk in pks[:-MOST_KEPT] if pk not in again]:
        Observation.objects.filter(pk__in=forgotten).delete()
    return {nic_id: list(sightings.values()) for nic_id, sightings in present.items()}, appeared


def _can_conflict(target: Target, reading: GuestAddress) -> bool:
    return reading.source not in UNCONFIRMED and can_be_leased(target.facts, reading.ip)


def _confidence(reading: GuestAddress) -> Confidence:
    return Confidence.UNCONFIRMED if reading.source in UNCONFIRMED else Confidence.CONFIRMED


def _outside(target: Target, reading: GuestAddress) -> Event:
    text = f"it has ip addr {reading.ip}, which is outside {target.cidr or 'its network'}"
    return _event(target, EventType.IP_OUTSIDE, text, level=Level.WARN)


def _observation(target: Target, reading: GuestAddress, now: datetime) -> Observation:
    return Observation(
        nic_id=target.nic_id,
        address=str(reading.ip),
        family=reading.ip.version,
        prefix=reading.prefix,
        source=reading.source.value,
        confidence=_confidence(reading),
        flag="" if can_be_leased(target.facts, reading.ip) else Flag.OUTSIDE,
        first_seen_at=now,
        last_seen_at=now,
        expires_at=reading.expires,
    )


# NICs -------------------------------------------------------------------------------------------


def _write_nics(held: Sequence[_Held], pace: Pace, now: datetime) -> list[_Held]:
    """Write the choices; those whose primary address is another than before. What is not chosen anew stays."""
    chosen = [one for one in held if (one.choice.source and one.finding.reported) or one.has_lost]
    wanted = {one: _wanted(one, now) for one in chosen}
    # Most have what they had: for all of these it is one statement.
    same = [one for one in chosen if wanted[one].is_as_before(one)]
    seen = [one.target.nic_id for one in same if wanted[one].seen_at == now]
    Nic.objects.filter(pk__in=seen).update(address_seen_at=now)
    other = [one for one in chosen if not wanted[one].is_as_before(one)]
    update_each(Nic, {one.target.nic_id: wanted[one].row for one in other}, _Wanted.FIELDS)
    moved = [one for one in other if (wanted[one].ip4, wanted[one].ip6) != (one.ip4, one.ip6)]
    changes = [_address_change(one, wanted[one]) for one in moved]
    changes += _take_from_former_holders([one for one in other if one.choice.ip4], pace, now)
    if changes:
        for element in elements.registered():
            element.addresses_changed(changes, now)
    return moved


@dataclass(frozen=True)
class _Wanted:
    """A NIC's columns as they are to be."""

    ip4: str | None
    ip6: str | None
    state: str
    source: str
    secondary: list[str]
    seen_at: datetime | None

    FIELDS: ClassVar = [
        "ip4_address", "ip6_address", "address_state", "address_source", "secondary_addresses", "address_seen_at",
    ]  # fmt: skip

    @property
    def row(self) -> tuple[object, ...]:
        return self.ip4, self.ip6, self.state, self.source, self.secondary, self.seen_at

    def is_as_before(self, one: _Held) -> bool:
        return (one.ip4, one.ip6, one.address_state, one.address_source, one.secondary) == self.row[:-1]


def _wanted(one: _Held, now: datetime) -> _Wanted:
    """The NIC with its address as chosen. State and source are those of the IPv4 address, where there is one: an IPv6
    address says nothing of it. What an operator has set wins, whatever is seen."""
    ip4, ip6 = one.choice.ip4, one.choice.ip6
    secondary = list(one.choice.secondary)
    if one.address_state == AddressState.PINNED and ip4 and str(ip4.ip) != one.ip4:
        secondary.insert(0, str(ip4.ip))
    # What is only overheard or was written down takes no confirmed address's place.
    weaker = ip4 is None or (ip4.source in UNCONFIRMED and one.address_state == AddressState.CONFIRMED)
    keeps = one.address_state == AddressState.PINNED or (weaker and one.ip4 is not None)
    told = None if keeps else ip4 or ip6
    seen = ip4 or ip6 if one.address_state == AddressState.PINNED else told
    return _Wanted(
        ip4=one.ip4 if keeps or ip4 is None else str(ip4.ip),
        ip6=str(ip6.ip) if ip6 else None if (one.address_source, 6) in one.finding.heard else one.ip6,
        state=AddressState.LAST_KNOWN if one.has_lost_ip4 else one.address_state if told is None else _state_of(told),
        source=one.address_source if told is None else told.source.value,
        secondary=[address for address in secondary if address != one.ip4] if keeps else secondary,
        seen_at=now if seen and seen.last_seen == now else one.seen_at,
    )


def _state_of(sighting: Sighting) -> AddressState:
    return AddressState.UNCONFIRMED if sighting.source in UNCONFIRMED else AddressState.CONFIRMED


def _address_change(one: _Held, wanted: _Wanted) -> AddressChange:
    one.change = AddressChange(one.target.nic_id, one.target.vm_id, one.ip4, wanted.ip4, one.ip6, wanted.ip6)
    return one.change


def _take_from_former_holders(held: Sequence[_Held], pace: Pace, now: datetime) -> list[AddressChange]:
    """An address that a NIC is confirmed to hold is nobody's last known or unconfirmed one any more.

    Who had it on somebody's word waits for one of its own again.
    """
    taken = {
        (one.target.network_id, str(one.choice.ip4.ip))
        for one in held
        if one.choice.ip4 and one.choice.ip4.source not in UNCONFIRMED and one.address_state != AddressState.PINNED
    }
    mine = {one.target.nic_id for one in held}
    suspects = [
        pk
        for pk, _, network_id, address, _, state in _with_addresses(taken)
        if (network_id, address) in taken and state in _LESSER and pk not in mine
    ]
    if not suspects:
        return []
    # Asked again under their locks: one may have been given another address since.
    still = Nic.objects.filter(pk__in=suspects, ip4_address__in={address for _, address in taken})
    lost = list(
        still.filter(address_state__in=_LESSER)
        .select_for_update()
        .order_by("pk")
        .values_list("pk", "vm_id", "ip4_address", "ip6_address")
    )
    nic_ids = [pk for pk, *_ in lost]
    unknown = {"ip4_address": None, "address_state": AddressState.UNKNOWN, "address_source": ""}
    Nic.objects.filter(pk__in=nic_ids).update(**unknown)
    IpFetch.objects.filter(nic__in=nic_ids, state=State.FOUND).begin_anew(pace, now)
    return [AddressChange(pk, vm_id, address, None, ip6, ip6) for pk, vm_id, address, ip6 in lost]


_LESSER = (AddressState.LAST_KNOWN, AddressState.UNCONFIRMED)


def _with_addresses(places: Iterable[Place]) -> list[tuple]:
    """NICs of any network with one of these addresses: a database without statistics of its tables would take
    the network's index, and walk all of its NICs."""
    wanted = {address for _, address in places}
    columns = ("pk", "vm_id", "network_id", "ip4_address", "ip6_address", "address_state")
    return list(Nic.objects.filter(ip4_address__in=wanted).order_by().values_list(*columns)) if wanted else []


def _settle_conflicts(held: Sequence[_Held], appeared: Iterable[Place]) -> None:
    """Flag and tell of addresses that several NICs of one network are said to have; unflag what is settled."""
    of_ours = Observation.objects.current().filter(nic__in=[one.target.nic_id for one in held], flag=Flag.CONFLICT)
    flagged = list(of_ours.order_by().values_list("pk", "nic__network_id", "address"))
    suspects = {*appeared, *((network_id, address) for _, network_id, address in flagged)}
    holders = _holders(suspects)
    contested = {place: holders[place] for place in suspects if len(holders[place]) > 1}
    if settled := [pk for pk, network_id, address in flagged if (network_id, address) not in contested]:
        Observation.objects.filter(pk__in=settled).update(flag="")
    for (_, address), nic_ids in contested.items():
        _tell_of_conflict(nic_ids, address)


def _holders(places: Collection[Place]) -> dict[Place, set[int]]:
    """The NICs that are said to have an address, and those that an operator gave it to."""
    holders: dict[Place, set[int]] = defaultdict(set)
    if not places:
        return holders
    said = Observation.objects.current().filter(address__in={address for _, address in places})
    for nic_id, network_id, address, confidence in said.order_by().values_list(
        "nic_id", "nic__network_id", "address", "confidence"
    ):
        if confidence == Confidence.CONFIRMED:
            holders[network_id, address].add(nic_id)
    for pk, _, network_id, address, _, state in _with_addresses(places):
        if state == AddressState.PINNED:
            holders[network_id, address].add(pk)
    return holders


def _tell_of_conflict(nic_ids: Collection[int], address: str) -> None:
    unflagged = Observation.objects.current().filter(nic__in=nic_ids, address=address).exclude(flag=Flag.CONFLICT)
    newly = set(unflagged.values_list("nic_id", flat=True))
    unflagged.update(flag=Flag.CONFLICT)
    nics = list(Nic.objects.filter(pk__in=nic_ids).select_related("vm"))
    names = ", ".join(f"{nic} ({nic.mac_address})" for nic in nics)
    events.record_all(
        [
            events.unsaved(
                EventType.IP_CONFLICT,
                f"{nic}: another NIC of the network has ip addr {address} too",
                account_id=nic.vm.account_id,
                on=nic.vm,
                level=Level.WARN,
                for_operator=f"({names})",
            )
            for nic in nics
            if nic.pk in newly
        ]
    )


# The queue --------------------------------------------------------------------------------------


def _write_found(settled: Sequence[_Held], newly: Collection[_Held], pace: Pace, now: datetime) -> None:
    groups = _grouped(
        settled,
        lambda one: (one in newly, str(one.choice.source or ""), one.target.endpoint_id, _look_again(one, pace, now)),
    )
    for (is_new, source, endpoint_id, (soon, eager_until)), ones in groups.items():
        changes = ({"found_at": now} if is_new else {}) | ({"eager_until": eager_until} if eager_until else {})
        _rows(ones).update(
            state=State.FOUND,
            next_attempt_at=soon or pace.refresh_at(endpoint_id or 0, now),
            claimed_until=None,
            last_outcome=Outcome.FOUND,
            last_source=source,
            last_detail="",
            **changes,
        )


def _look_again(one: _Held, pace: Pace, now: datetime) -> tuple[datetime | None, datetime | None]:
    """When a NIC that has its address is read again, if not with the others of its endpoint; and the end of its being
    asked eagerly, if that changes."""
    if pace.exact:
        return None, None
    if one.doubted and one.eager:
        return now + EAGER_DELAY, None
    # Cut short, not forgotten: a guest whose agent comes and goes is not eagerly asked each time.
    eager_until = now if one.eager else None
    in_guest = one.choice.source in (Source.GUEST_AGENT, Source.TEST_DRIVER)
    young = not in_guest and now - one.entered_at < YOUNG_FOR
    return (now + YOUNG_DELAY if young else None), eager_until


def _write_none(unsettled: Sequence[_Held], pace: Pace, now: datetime) -> None:
    """Why there is no address; the last try gives the NIC up. What was known before is not touched."""
    # Found by a report since it was asked for: that it was asked in vain tells nobody anything.
    overtaken = {one for one in unsettled if one.was_found_since}
    _rows(overtaken).update(claimed_until=None)
    unsettled = [one for one in unsettled if one not in overtaken]
    groups = _grouped(unsettled, lambda one: (one.finding.outcome, one.finding.detail[:255]))
    if len(groups) <= MOST_DIFFERENT_ANSWERS:
        for (outcome, detail), ones in groups.items():
            _rows(ones).update(claimed_until=None, last_outcome=outcome, last_detail=detail)
    else:
        answers = {one.target.row_id: (None, *answer) for answer, ones in groups.items() for one in ones}
        update_each(IpFetch, answers, ["claimed_until", "last_outcome", "last_detail"])
    spent = [one for one in unsettled if one.state == State.WAITING and one.retries_left == 0 and not one.eager]
    if spent:
        _exhaust([(one.target, one.finding.outcome) for one in spent], pace, now)


def _exhaust(spent: Sequence[tuple[Target, str]], pace: Pace, now: datetime) -> None:
    for endpoint_id, ones in _grouped(spent, lambda pair: pair[0].endpoint_id).items():
        IpFetch.objects.filter(pk__in=[target.row_id for target, _ in ones]).update(
            state=State.EXHAUSTED,
            next_attempt_at=pace.refresh_at(endpoint_id or 0, now),
            claimed_until=None,
        )
    events.record_all(
        [
            _event(
                target,
                EventType.IP_FETCH,
                f"ip addr fetch failed, no tries are left. {Outcome(outcome).advice if outcome else ''}".strip(),
                level=Level.ERROR,
            )
            for target, outcome in spent
        ]
    )


def give_back(batch: Sequence[Target], now: datetime, **changes: object) -> None:
    """NICs that were not reached get back what their claim took, and stay in line for the next one."""

    def write() -> None:
        with transaction.atomic():
            held = _still_held([Finding(target) for target in batch], now)
            for claim, ones in _grouped(held, lambda one: one.target.claim).items():
                took: dict[str, object] = {}
                if claim in (IpFetch.Claim.EARLY, IpFetch.Claim.COUNTED):
                    took["tries"] = F("tries") - 1
                if claim == IpFetch.Claim.COUNTED:
                    took["retries_left"] = F("retries_left") + 1
                _rows(ones).update(claimed_until=None, **took, **changes)

    repeated(write)


# Helpers ----------------------------------------------------------------------------------------


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _rows(held: Iterable[_Held]) -> QuerySet[IpFetch]:
    return IpFetch.objects.filter(pk__in=[one.target.row_id for one in held])


def _has_address(one: _Held) -> bool:
    return one.choice.source is not None


def _primary(one: _Held) -> str:
    if one.address_state == AddressState.PINNED and one.ip4:
        return one.ip4
    sighting = one.choice.ip4 or one.choice.ip6
    return str(sighting.ip) if sighting else ""


def _change(change: AddressChange) -> str:
    """In words, for the family that has changed."""
    pairs = [(change.ip4_before, change.ip4), (change.ip6_before, change.ip6)]
    return " and ".join(f"from {before or 'none'} to {after or 'none'}" for before, after in pairs if after != before)


def _event(target: Target, type: EventType, text: str, level: Level = Level.INFO) -> Event:
    return Event(
        type=type,
        description=f"{target.name}: {text}",
        account_id=target.account_id,
        level=level,
        resource_type=VirtualMachine.__name__,
        resource_uuid=target.vm_uuid,
        resource_name=target.vm_name,
    )
