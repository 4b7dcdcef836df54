"""Which of the addresses that a guest reports is a NIC's own: pure functions over untrusted values."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from networks.hypervisors.base import GuestAddress


@dataclass(frozen=True)
class NicFacts:
    """What is known of a NIC before it is asked; `known` is its present address."""

    mac: str
    cidr: IPv4Network | None
    gateway: IPv4Address | None
    known: IPv4Address | None = None


@dataclass(frozen=True)
class OwnAddresses:
    """The NIC's addresses, or none; `foreign` is one that it has but that the network cannot have given."""

    ip4: GuestAddress | None = None
    ip6: GuestAddress | None = None
    foreign: IPv4Address | None = None


def own_addresses(nic: NicFacts, readings: Iterable[GuestAddress]) -> OwnAddresses:
    """The addresses that belong to `nic` and can have come from DHCP.

    A bond and its slave both carry the MAC, so all interfaces with it count. Of several addresses in the
    CIDR the one already known is kept, else the first reported one is taken: the others are the guest's own.
    """
    # Self-assigned addresses (RFC 3927; RFC 4291, 2.5.6) are never leased.
    own = [
        reading
        for reading in readings
        if reading.mac == nic.mac
        and not (reading.ip.is_link_local or reading.ip.is_loopback or reading.ip.is_multicast)
        and not (reading.ip.is_unspecified or reading.ip.is_reserved)
    ]
    leased = [reading for reading in own if isinstance(reading.ip, IPv4Address) and _can_be_leased(nic, reading.ip)]
    kept = [reading for reading in leased if reading.ip == nic.known]
    foreign = [reading.ip for reading in own if isinstance(reading.ip, IPv4Address) and reading not in leased]
    return OwnAddresses(
        ip4=next(iter(kept or leased), None),
        ip6=next((reading for reading in own if isinstance(reading.ip, IPv6Address)), None),
        foreign=next(iter(foreign), None),
    )


def _can_be_leased(nic: NicFacts, ip: IPv4Address) -> bool:
    if ip == nic.gateway:
        return False
    if nic.cidr is None:
        return True
    is_edge = nic.cidr.prefixlen < 31 and ip in (nic.cidr.network_address, nic.cidr.broadcast_address)
    return ip in nic.cidr and not is_edge
