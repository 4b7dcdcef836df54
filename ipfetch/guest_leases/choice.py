"""Which of the leases on a guest's disk are a NIC's own: pure, and in doubt it says so."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network

from ipfetch.guest_leases.values import GuestLease
from networks.hypervisors.base import GuestAddress, Source

CLOCK_DIFFERENCE = timedelta(hours=1)  # between a guest and us: a hardware clock in local time, mostly


@dataclass(frozen=True)
class DiskNic:
    """What is known of a NIC: its MAC address, lower case, and its network's CIDR where it has one."""

    mac: str
    cidr: IPv4Network | None


@dataclass(frozen=True)
class Ambiguous:
    """Leases there are, and none is clearly the NIC's; `reason` is a sentence for people."""

    reason: str


def choose(
    leases: Iterable[GuestLease], nic: DiskNic, others: Sequence[DiskNic], started_at: datetime, now: datetime
) -> tuple[GuestAddress, ...] | Ambiguous:
    """The addresses of `nic`, the one last renewed first; empty when no valid lease can be its own.

    `others` are the VM's other NICs, `started_at` is when the VM was powered on. A lease with a MAC belongs
    to the NIC that has it. One without belongs to the only NIC, or to the only one on whose network its
    address can be.
    """
    valid = _last_of_each_interface(lease for lease in leases if is_valid(lease, started_at, now))
    own = _not_ended([lease for lease in valid if lease.mac == nic.mac], now)
    nameless = [lease for lease in valid if lease.mac is None]
    if own or not nameless:
        return _addresses(own, nic)
    inside = _not_ended([lease for lease in nameless if nic.cidr is not None and lease.ip in nic.cidr], now)
    if not others:
        return _only_one(inside or _not_ended(nameless, now), nic)
    if nic.cidr is None:
        return Ambiguous("The leases on the disk have no MAC address, and the network has no CIDR to tell them by.")
    if not inside:
        return ()
    if any(other.cidr is None or other.cidr.overlaps(nic.cidr) for other in others):
        return Ambiguous("The leases on the disk have no MAC address, and another NIC's network has the same range.")
    return _only_one(inside, nic)


def is_valid(lease: GuestLease, started_at: datetime, now: datetime) -> bool:
    """Whether a guest that was powered on at `started_at` can still have this lease.

    One that ended long ago, or was given before this start, is the template's or a former boot's. One without any
    time, not even its file's, could be either and does not count; nor does one from the future.
    """
    if lease.expires is not None and lease.expires <= now - CLOCK_DIFFERENCE:
        return False
    if lease.renewed is None:
        return False
    return started_at - CLOCK_DIFFERENCE <= lease.renewed <= now + CLOCK_DIFFERENCE


def _not_ended(leases: list[GuestLease], now: datetime) -> list[GuestLease]:
    """Those that have not ended by our clock; where there are none such all, because the guest's may be behind."""
    return [lease for lease in leases if lease.expires is None or lease.expires > now] or leases


def _last_of_each_interface(leases: Iterable[GuestLease]) -> list[GuestLease]:
    """Of the leases that several files have of one interface, the last; newest first."""
    ordered = sorted(leases, key=lambda lease: lease.renewed.timestamp() if lease.renewed else 0, reverse=True)
    seen: set[str] = set()
    found = []
    for lease in ordered:
        if lease.interface and lease.interface in seen:
            continue
        seen.add(lease.interface)
        found.append(lease)
    return found


def _only_one(leases: Collection[GuestLease], nic: DiskNic) -> tuple[GuestAddress, ...] | Ambiguous:
    addresses = sorted({lease.ip for lease in leases})
    if len(addresses) > 1:
        named = ", ".join(map(str, addresses[:3])) + (" and others" if len(addresses) > 3 else "")
        return Ambiguous(f"The disk has valid leases of {named}, and none says whose it is.")
    return _addresses(leases, nic)


def _addresses(leases: Collection[GuestLease], nic: DiskNic) -> tuple[GuestAddress, ...]:
    found = {lease.ip: GuestAddress(nic.mac, lease.ip, Source.DISK, lease.prefix) for lease in reversed(list(leases))}
    return tuple(reversed(found.values()))
