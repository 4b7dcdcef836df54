"""NICs in the queue as they are asked for, what came of it, and what their rows say under their lock."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from ipaddress import IPv4Address
from typing import TypeVar

from django.db import connection
from django.db.models import QuerySet

from extdhcp_site.bulk import Keys
from extdhcp_site.events.models import Event, EventType, Level
from ipfetch.addresses import Choice, NicFacts, settles
from ipfetch.models import IpFetch, Outcome
from networks.elements import AddressChange
from networks.hypervisors.base import GuestAddress, Source, VmRef
from networks.models import AddressState, Network, Template, VirtualMachine
from networks.models.offerings import OsFamily

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

NOTHING = Choice()


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


@dataclass(frozen=True)
class Finding:
    """What came of asking for one NIC: `heard` are the sources that answered, and for which family, so that what
    they no longer tell has ended; `outcome` says why there is no address, in case there is none."""

    target: Target
    reported: tuple[GuestAddress, ...] = ()
    heard: frozenset[tuple[Source, int]] = frozenset()
    outcome: Outcome = Outcome.NONE_YET
    detail: str = ""

    @cached_property
    def settled(self) -> bool:
        """Whether this ends the NIC's wait."""
        return settles(self.target.facts, self.reported)


@dataclass(slots=True, eq=False)
class Held:
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
        return self.state == IpFetch.State.FOUND and bool(self.found_at and claimed_at and self.found_at >= claimed_at)

    @property
    def has_lost(self) -> bool:
        """Who told the NIC's address answers, and does not tell it any more, nor does anybody else."""
        ip6_is_gone = self.ip6 is not None and self.choice.ip6 is None
        return self.has_lost_ip4 or (ip6_is_gone and (self.address_source, 6) in self.finding.heard)

    @property
    def has_lost_ip4(self) -> bool:
        confirmed = self.ip4 is not None and self.address_state == AddressState.CONFIRMED
        return confirmed and self.choice.ip4 is None and (self.address_source, 4) in self.finding.heard

    @property
    def target(self) -> Target:
        return self.finding.target

    @property
    def primary(self) -> str:
        """The address that is shown, as it is to be."""
        if self.address_state == AddressState.PINNED and self.ip4:
            return self.ip4
        sighting = self.choice.ip4 or self.choice.ip6
        return str(sighting.ip) if sighting else ""


def targets(rows: QuerySet[IpFetch]) -> list[Target]:
    """The rows as targets, in a fixed number of queries.

    Networks and templates are few, and are not joined: MariaDB would begin with one of them and walk all of its
    NICs. With hosts it cannot: a VM may have none.
    """
    found = list(
        rows.order_by().values_list(
            "pk", "attempt", "claim", "last_attempt_at", "nic_id", "nic__uuid", "nic__device_id", "nic__mac_address",
            "nic__network_id", "nic__vm_id", "nic__vm__uuid", "nic__vm__name", "nic__vm__account_id",
            "nic__vm__zone_id", "nic__vm__hypervisor", "nic__vm__template_id",
            "nic__vm__host__endpoint_id",
        )
    )  # fmt: skip
    networks = {network.pk: network for network in Network.objects.filter(pk__in={values[8] for values in found})}
    ranges = {
        pk: (network.ip4_network, IPv4Address(network.gateway) if network.gateway else None)
        for pk, network in networks.items()
    }
    families = dict(Template.objects.filter(pk__in={values[15] for values in found}).values_list("pk", "os_family"))

    def target(values: tuple) -> Target:
        row_id, attempt, claim, claimed_at, nic_id, nic_uuid, device_id, mac, network_id, *of_vm = values
        vm_id, vm_uuid, vm_name, account_id, zone_id, hypervisor, template_id, endpoint_id = of_vm
        return Target(
            row_id, attempt, claim, claimed_at, nic_id, str(nic_uuid), device_id, NicFacts(mac, *ranges[network_id]),
            networks[network_id].cidr, network_id, vm_id, str(vm_uuid), vm_name, account_id, zone_id, hypervisor,
            families.get(template_id) == OsFamily.WINDOWS, endpoint_id,
        )  # fmt: skip

    return [target(values) for values in found if values[8] in networks]


def still_held(findings: Sequence[Finding], now: datetime) -> list[Held]:
    """Those whose row has not moved on: `attempt` is the fence, for a start and each claim raise it.

    The VMs are locked before their NICs' rows, as a start or stop does it: the other way round two could
    wait for each other for ever.
    """
    if connection.features.has_select_for_update:
        vm_ids = sorted({finding.target.vm_id for finding in findings})
        list(VirtualMachine.objects.select_for_update().filter(pk__among=Keys(vm_ids)).order_by("pk").values_list("pk"))
    by_row = {finding.target.row_id: finding for finding in findings}
    rows = IpFetch.objects.select_for_update().filter(pk__among=Keys(by_row)).order_by("pk")
    values = rows.values_list(
        "pk", "attempt", "state", "retries_left", "entered_at", "found_at", "eager_until",
        "nic__ip4_address", "nic__ip6_address", "nic__address_state", "nic__address_source", "nic__address_seen_at",
        "nic__secondary_addresses",
    )  # fmt: skip
    return [
        Held(
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


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def rows_of(held: Iterable[Held]) -> QuerySet[IpFetch]:
    return IpFetch.objects.filter(pk__among=Keys(one.target.row_id for one in held))


def event_of(target: Target, type: EventType, text: str, level: Level = Level.INFO) -> Event:
    return Event(
        type=type,
        description=f"{target.name}: {text}",
        account_id=target.account_id,
        level=level,
        resource_type=VirtualMachine.__name__,
        resource_uuid=target.vm_uuid,
        resource_name=target.vm_name,
    )
