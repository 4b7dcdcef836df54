"""The lease file of ISC's dhcpd."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, pairwise

from ipfetch.leases.lease import MAC, Lease, clean_hostname, ip4

LARGEST_BLOCK = 65_536
ENDED = {b"free", b"expired", b"released", b"abandoned", b"reset", b"backup"}
_BEGINNING = re.compile(rb"^lease ([0-9.]{7,15}) \{\r?$", re.MULTILINE)
# One statement a line, as dhcpd writes them. `next binding state` and the like are others.
_STATEMENT = re.compile(rb"\n[ \t]*(binding state|hardware ethernet|starts|ends|client-hostname) ([^\r\n]*);")
_MAC = re.compile(MAC)
_DATE = re.compile(rb"\d \d{4}/\d\d/\d\d \d\d:\d\d:\d\d")
_EPOCH = re.compile(rb"epoch (\d{1,10})(?:;.*)?")
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2}|.)")


def leases(content: bytes) -> Iterator[Lease]:
    """The active leases in a file of dhcpd, expired ones too.

    The file is a journal: of several blocks about an address the last one holds. A block that is not
    understood, or that was not written to its end, counts as not there. Times are in UTC. The leases of
    dhcpd6.leases name no MAC addresses.
    Source: dhcpd.leases(5).
    """
    last: dict[bytes, Lease] = {}
    for ip, block in _blocks(content):
        statements = dict(_STATEMENT.findall(block))
        state = statements.get(b"binding state")
        if state in ENDED:
            last.pop(ip, None)
        elif state == b"active" and (lease := _lease(ip, statements)):
            last[ip] = lease
    yield from last.values()


def _blocks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each block's address and the lines in it."""
    for beginning, following in pairwise(chain(_BEGINNING.finditer(content), [None])):
        assert beginning is not None
        start = beginning.end()
        limit = following.start() if following else len(content)
        end = content.find(b"\n}", start, min(limit, start + LARGEST_BLOCK))
        if end >= 0:
            yield beginning[1], content[start:end]


def _lease(ip: bytes, statements: dict[bytes, bytes]) -> Lease | None:
    mac = statements.get(b"hardware ethernet", b"")
    if not _MAC.fullmatch(mac):
        return None
    hostname = statements.get(b"client-hostname", b"").strip(b'"')
    try:
        return Lease(
            mac=mac.decode().lower(),
            ip=ip4(ip),
            starts=_moment(statements[b"starts"]) if b"starts" in statements else None,
            expires=_moment(statements[b"ends"]),
            hostname=clean_hostname(_ESCAPED.sub(_unescaped, hostname) if b"\\" in hostname else hostname),
        )
    except (ValueError, KeyError):
        # An address or a date that does not exist, or no end.
        return None


# Many leases are given in the same second.
@lru_cache(maxsize=8192)
def _moment(value: bytes) -> datetime | None:
    """`6 2026/11/21 16:30:00` or `epoch 1795278600`; None for `never`. Raises ValueError."""
    if value == b"never":
        return None
    if epoch := _EPOCH.fullmatch(value):
        return datetime.fromtimestamp(int(epoch[1]), UTC)
    if not _DATE.fullmatch(value):
        raise ValueError
    # Five times as fast as strptime, for files of a hundred thousand leases.
    return datetime.fromisoformat(value[2:].decode().replace("/", "-") + "+00:00")


def _unescaped(found: re.Match[bytes]) -> bytes:
    """dhcpd writes in octal whatever is not printable."""
    return bytes([int(found[1], 8)]) if len(found[1]) == 3 else found[1]
