"""Who has which address, by all lease files that concern a network."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

from django.conf import settings

from ipfetch.leases import dnsmasq, isc
from ipfetch.leases.files import MOST_BYTES, Content, FileState, Unreadable, content_unless
from ipfetch.leases.lease import CLOCKS_APART, Lease
from ipfetch.models.leases import LeaseServer
from networks.hypervisors.base import DeadlineExceeded, GuestAddress, Source, abandoned_calls, asking, call_within

PARSERS: dict[str, Callable[[bytes], Iterator[Lease]]] = {
    LeaseServer.Kind.DNSMASQ: dnsmasq.leases,
    LeaseServer.Kind.ISC: isc.leases,
}
# Some 450 bytes each.
MOST_LEASES = 250_000
# A file that changes all the time is parsed for at most a tenth of it: one of 100,000 leases takes a second or two.
PAUSE = 9
# A file on a mount that hangs keeps whoever reads it, and nobody can be called back from there.
READ_SECONDS = 10.0
HUNG_SECONDS = 60.0
FILES_AT_A_TIME = 16
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
    lease counts until CLOCKS_APART after its end by our clock, and also before its beginning. A server that
    cannot be read shows why in its row, and the others go on. Back within READ_SECONDS and what parsing takes.
    """
    servers = list(LeaseServer.objects.serving(network_ids))
    best: dict[tuple[int, str], tuple[tuple[bool, datetime], Lease]] = {}
    for server, leases in zip(servers, _leases_of(servers, now), strict=True):
        known = [mac for mac in macs if mac in leases]
        for network in server.networks.all():
            if network.pk not in network_ids:
                continue
            for mac in known:
                for lease in _valid(leases[mac], now):
                    rank = _rank(lease, network.ip4_network)
                    if (network.pk, mac) not in best or rank > best[network.pk, mac][0]:
                        best[network.pk, mac] = rank, lease
    return {
        key: GuestAddress(key[1], lease.ip, Source.LEASE, expires=lease.expires) for key, (_, lease) in best.items()
    }


def _valid(leases: Iterable[Lease], now: datetime) -> Iterator[Lease]:
    return (lease for lease in leases if lease.expires is None or lease.expires > now - CLOCKS_APART)


def _rank(lease: Lease, cidr: IPv4Network | None) -> tuple[bool, datetime]:
    return cidr is None or lease.ip in cidr, lease.expires or NEVER


def _leases_of(servers: Sequence[LeaseServer], now: datetime) -> list[Mapping[str, Sequence[Lease]]]:
    """Of each server, none where its file cannot be read; the server's row says why."""
    if not servers:
        return []
    # All at the same time: those whose files are well do not wait for one that hangs.
    with ThreadPoolExecutor(min(len(servers), FILES_AT_A_TIME)) as pool:
        found = list(pool.map(_looked_up, servers))
    for server, (book, is_new) in zip(servers, found, strict=True):
        server.note(book.problem, now, was_read=is_new)
    return [book.leases for book, _ in found]


def _looked_up(server: LeaseServer) -> tuple[Book, bool]:
    """Asks the file and not the database: this runs in a thread of its own."""
    try:
        return _books.get(server)
    except Unreadable as error:
        return Book({}, problem=str(error)), False


def _parse(kind: str, content: Content) -> Book:
    parsed = PARSERS[kind](content.end)
    leases: dict[str, list[Lease]] = {}
    size = 0
    for lease in islice(parsed, MOST_LEASES):
        leases.setdefault(lease.mac, []).append(lease)
        size += 1
    problems = [
        "It is larger than 64 MiB: only its end is read." if content.state.size > MOST_BYTES else "",
        f"It has more than {MOST_LEASES:,} leases: the others are left out." if next(parsed, None) else "",
    ]
    return Book(leases, size, " ".join(filter(None, problems)))


@dataclass(frozen=True)
class _Kept:
    state: FileState
    book: Book
    # On the monotonic clock: until then nobody looks whether the file has changed.
    again_at: float


_Key = tuple[str, str]


class _Books:
    """The files as they were read last, so that one which has not changed is not parsed again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._turns: dict[_Key, threading.Lock] = {}
        self._hung_until: dict[_Key, float] = {}
        # For the above, and never held while a file is read.
        self._lock = threading.Lock()

    def get(self, server: LeaseServer) -> tuple[Book, bool]:
        """The file's book, and whether it had to be parsed for it. Raises Unreadable."""
        key = server.path, server.kind
        with self._turn(key) as is_ours:
            kept = self._find(key)
            if kept and (not is_ours or time.monotonic() < kept.again_at):
                return kept.book, False
            if not is_ours:
                raise Unreadable("It is being read for the first time, which takes long.")
            content = self._content(key, kept.state if kept else None)
            if content is None:
                assert kept is not None
                return kept.book, False
            began = time.monotonic()
            book = _parse(server.kind, content)
            ended = time.monotonic()
            self._keep(key, _Kept(content.state, book, ended + (ended - began) * PAUSE))
            return book, True

    @contextmanager
    def _turn(self, key: _Key) -> Iterator[bool]:
        """One at a time for each file; False for whom it takes too long until the others are done."""
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        is_ours = turn.acquire(timeout=READ_SECONDS)
        try:
            yield is_ours
        finally:
            if is_ours:
                turn.release()

    def _find(self, key: _Key) -> _Kept | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept:
                self._kept.move_to_end(key)
            return kept

    def _keep(self, key: _Key, kept: _Kept) -> None:
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(kept.book.size for kept in self._kept.values()) > MOST_LEASES:
                self._kept.popitem(last=False)

    def _content(self, key: _Key, known: FileState | None) -> Content | None:
        directory, (path, _) = Path(settings.LEASE_DIR), key
        # Not the hypervisor's fault, whoever reads it at whose turn.
        whom = "lease file", path
        hung = f"It did not come within {READ_SECONDS:g} seconds. Look at the mount that it lies on."
        # A thread that hangs there stays there: never another beside it.
        if time.monotonic() < self._hung_until.get(key, 0.0) or abandoned_calls(whom):
            raise Unreadable(hung)
        try:
            with asking(whom):
                return call_within(time.monotonic() + READ_SECONDS, lambda: content_unless(known, directory, path))
        except DeadlineExceeded as error:
            self._hung_until[key] = time.monotonic() + HUNG_SECONDS
            raise Unreadable(hung) from error


_books = _Books()
