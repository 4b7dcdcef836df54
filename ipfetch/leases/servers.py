"""Who has which address, by all lease files that concern a network."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

from django.conf import settings

from ipfetch.leases import dnsmasq, isc
from ipfetch.leases.files import MOST_BYTES, FileState, OpenFile, Unreadable, opened
from ipfetch.leases.lease import Lease
from ipfetch.models.leases import LeaseServer
from networks.hypervisors.base import GuestAddress, Source

PARSERS: dict[str, Callable[[bytes], Iterator[Lease]]] = {
    LeaseServer.Kind.DNSMASQ: dnsmasq.leases,
    LeaseServer.Kind.ISC: isc.leases,
}
# Some 450 bytes each.
MOST_LEASES = 250_000
# A file that changes all the time is parsed for at most a tenth of it: one of 100,000 leases takes a second or two.
PAUSE = 9
NEVER = datetime(MAXYEAR, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Book:
    """One lease file: the leases by MAC address, and what is wrong with it as a whole."""

    leases: Mapping[str, Sequence[Lease]]
    size: int = 0
    problem: str = ""


def addresses(
    network_ids: Collection[int], macs: Collection[str], now: datetime
) -> Mapping[tuple[int, str], GuestAddress]:
    """What the networks' DHCP servers have leased to these MAC addresses (lower case), by (network id, MAC).

    Of several leases for one MAC address that one which lies in the network's CIDR, then the one that ends last. A
    lease that has ended does not count; one that begins in the future does: clocks differ. A server that
    cannot be read shows why in its row, and the others go on.
    """
    best: dict[tuple[int, str], tuple[tuple[bool, datetime], Lease]] = {}
    for server in LeaseServer.objects.serving(network_ids):
        leases = _leases_of(server, now)
        known = [mac for mac in macs if mac in leases]
        for network in server.networks.all():
            if network.pk not in network_ids:
                continue
            for mac in known:
                for lease in _valid(leases[mac], now):
                    rank = _rank(lease, network.ip4_network)
                    if (network.pk, mac) not in best or rank > best[network.pk, mac][0]:
                        best[network.pk, mac] = rank, lease
    return {key: GuestAddress(key[1], lease.ip, Source.LEASE) for key, (_, lease) in best.items()}


def _valid(leases: Iterable[Lease], now: datetime) -> Iterator[Lease]:
    return (lease for lease in leases if lease.expires is None or lease.expires > now)


def _rank(lease: Lease, cidr: IPv4Network | None) -> tuple[bool, datetime]:
    return cidr is None or lease.ip in cidr, lease.expires or NEVER


def _leases_of(server: LeaseServer, now: datetime) -> Mapping[str, Sequence[Lease]]:
    """None when the file cannot be read; the server's row says why."""
    try:
        with opened(Path(settings.LEASE_DIR), server.path) as file:
            book, is_new = _books.get(server, file)
    except Unreadable as error:
        server.note(str(error), now, was_read=False)
        return {}
    server.note(book.problem, now, was_read=is_new)
    return book.leases


def _parse(kind: str, file: OpenFile) -> Book:
    parsed = PARSERS[kind](file.read_end())
    leases: dict[str, list[Lease]] = {}
    size = 0
    for lease in islice(parsed, MOST_LEASES):
        leases.setdefault(lease.mac, []).append(lease)
        size += 1
    problems = [
        "It is larger than 64 MiB: only its end is read." if file.state.size > MOST_BYTES else "",
        f"It has more than {MOST_LEASES:,} leases: the others are left out." if next(parsed, None) else "",
    ]
    return Book(leases, size, " ".join(filter(None, problems)))


@dataclass(frozen=True)
class _Kept:
    state: FileState
    book: Book
    # On the monotonic clock: from when on a change of the file counts.
    again_at: float


class _Books:
    """The files as they were read last, so that one which has not changed is not parsed again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, server: LeaseServer, file: OpenFile) -> tuple[Book, bool]:
        """The file's book, and whether it had to be parsed for it."""
        key = server.path, server.kind
        with self._lock:
            kept, began = self._kept.pop(key, None), time.monotonic()
            is_new = kept is None or (kept.state != file.state and began >= kept.again_at)
            if kept is None or is_new:
                book = _parse(server.kind, file)
                ended = time.monotonic()
                kept = _Kept(file.state, book, ended + (ended - began) * PAUSE)
            self._kept[key] = kept
            while len(self._kept) > 1 and sum(kept.book.size for kept in self._kept.values()) > MOST_LEASES:
                self._kept.popitem(last=False)
        return kept.book, is_new


_books = _Books()
