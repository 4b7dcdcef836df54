"""Which of the addresses that are reported for a NIC is its own: pure functions over untrusted values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from networks.hypervisors.base import GuestAddress, Source

Address = IPv4Address | IPv6Address

# Whose word counts: the guest's own, the DHCP server's, what the guest may have said of another NIC, what the host has
# overheard, what was once written down.
RANKS = {
    Source.GUEST_AGENT: 0,
    Source.TEST_DRIVER: 0,
    Source.WEBHOOK: 1,
    Source.LEASE: 1,
    Source.UNSURE_AGENT: 2,
    Source.NEIGHBOUR: 3,
    Source.DISK: 4,
}
UNCONFIRMED = frozenset({Source.UNSURE_AGENT, Source.NEIGHBOUR, Source.DISK})
# Asked by the hypervisor for us, each time: silent about an address, they take it back.
IN_THE_GUEST = frozenset({Source.GUEST_AGENT, Source.UNSURE_AGENT, Source.TEST_DRIVER})
# A hint: it is shown, and the NIC stays in the queue.
HINTS = frozenset({Source.NEIGHBOUR})
MOST_REPORTED = 16
MOST_SECONDARY = 16


@dataclass(frozen=True)
class NicFacts:
    """What is known of a NIC before it is asked."""

    mac: str
    cidr: IPv4Network | None
    gateway: IPv4Address | None


@dataclass(frozen=True)
class Sighting:
    """An address that a source has told, and when it did last."""

    ip: Address
    source: Source
    last_seen: datetime


@dataclass(frozen=True)
class Choice:
    """A NIC's primary addresses with who told them, and what else it has."""

    ip4: Sighting | None = None
    ip6: Sighting | None = None
    secondary: tuple[str, ...] = ()

    @property
    def source(self) -> Source | None:
        primary = self.ip4 or self.ip6
        return primary.source if primary else None


def reported_for(nic: NicFacts, readings: Iterable[GuestAddress]) -> tuple[GuestAddress, ...]:
    """What is said of `nic`, each address once: by its MAC, and of a kind that a server can lease.

    A bond and its slave both carry the MAC, so all interfaces with it count. Addresses of the network come
    first, so that a guest with very many others does not push them out.
    """
    by_address = {
        (reading.source, reading.ip): reading
        for reading in readings
        # Self-assigned addresses (RFC 3927; RFC 4291, 2.5.6) are never leased.
        if reading.mac == nic.mac
        and not (reading.ip.is_link_local or reading.ip.is_loopback or reading.ip.is_multicast)
        and not (reading.ip.is_unspecified or reading.ip.is_reserved)
    }
    own_first = list(by_address.values())
    if len(own_first) > 1:
        own_first.sort(key=lambda reading: not can_be_leased(nic, reading.ip))
    return tuple(own_first[:MOST_REPORTED])


def can_be_leased(nic: NicFacts, ip: Address) -> bool:
    """Whether the network's server can have given this address. Of IPv6 nothing is known."""
    if isinstance(ip, IPv6Address):
        return True
    if ip == nic.gateway:
        return False
    if nic.cidr is None:
        return True
    is_edge = nic.cidr.prefixlen < 31 and ip in (nic.cidr.network_address, nic.cidr.broadcast_address)
    return ip in nic.cidr and not is_edge


def settles(nic: NicFacts, reported: Iterable[GuestAddress]) -> bool:
    """Whether this ends the NIC's wait: an IPv4 address of its network, or any where the network has no CIDR."""
    return any(
        reading.source not in HINTS and can_be_leased(nic, reading.ip)
        for reading in reported
        if isinstance(reading.ip, IPv4Address) or nic.cidr is None
    )


def choose(nic: NicFacts, sightings: Sequence[Sighting], known: Iterable[str | None], stale_after: timedelta) -> Choice:
    """The primary address of each family, and the others.

    By rank, unless the better source has been silent for `stale_after` while a lesser one has not; of equals the one
    heard last. Of several that were told at once, one that is `known` already is kept, else the first is taken: the
    others are the guest's own.
    """
    possible = [sighting for sighting in sightings if can_be_leased(nic, sighting.ip)]
    if len(possible) == 1:
        (only,) = possible
        return Choice(ip4=only) if only.ip.version == 4 else Choice(ip6=only)
    newest = max((sighting.last_seen for sighting in possible), default=None)
    kept = set(known)

    def preference(sighting: Sighting) -> tuple[bool, int, timedelta, bool]:
        silent_for = newest - sighting.last_seen if newest else timedelta()
        return silent_for > stale_after, RANKS[sighting.source], silent_for, str(sighting.ip) not in kept

    ordered = sorted(possible, key=preference)
    ip4 = next((sighting for sighting in ordered if sighting.ip.version == 4), None)
    ip6 = next((sighting for sighting in ordered if sighting.ip.version == 6), None)
    primary = {str(sighting.ip) for sighting in (ip4, ip6) if sighting}
    others = dict.fromkeys(str(sighting.ip) for sighting in ordered if sighting.source not in UNCONFIRMED)
    return Choice(ip4, ip6, tuple(ip for ip in others if ip not in primary)[:MOST_SECONDARY])
