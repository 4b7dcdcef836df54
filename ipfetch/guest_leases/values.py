"""What a lease file tells, and the small pieces that files of several clients are made of."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network

FILE_MAX_BYTES = 512 * 1024  # the clients' files have hundreds of bytes, some kilobytes at most
INTERFACE_MAX = 64  # characters; Linux has 15, a Windows GUID 38

_INTERFACE = re.compile(r"[A-Za-z0-9._:@{}-]+")
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_NUMBER = re.compile(r"[0-9]{1,10}")
FOREVER = 0xFFFFFFFF  # seconds; RFC 2131, 3.3


@dataclass(frozen=True)
class FileOnDisk:
    """A guest's file; `name` without directories and `modified` are empty and None where nobody knows them."""

    content: bytes
    name: str = ""
    modified: datetime | None = None


@dataclass(frozen=True)
class GuestLease:
    """One IPv4 lease as the guest recorded it, by its own clock.

    `mac` is lower case and colon-separated, and None where the client does not write it. `renewed` is when
    the lease was last given. `expires` is None for a lease without an end, and where the file does not say.
    """

    ip: IPv4Address
    prefix: int | None
    mac: str | None
    interface: str
    renewed: datetime | None
    expires: datetime | None


def text(content: bytes) -> str:
    """The file as text. All that matters in it is ASCII; what is not becomes a character that nothing asks for."""
    return content[:FILE_MAX_BYTES].decode("ascii", errors="replace")


def ip4(value: str) -> IPv4Address | None:
    """An address that a DHCP server can have given to a host."""
    if not _ADDRESS.fullmatch(value):
        return None
    try:
        address = IPv4Address(value)
    except ValueError:
        return None
    unusable = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return None if unusable or address.is_reserved else address


def prefix(mask: str) -> int | None:
    """255.255.255.0 is 24. The inverse, 0.0.0.255, is no netmask."""
    if not _ADDRESS.fullmatch(mask):
        return None
    try:
        length = IPv4Network(f"0.0.0.0/{mask}").prefixlen
        return length if str(IPv4Network(f"0.0.0.0/{length}").netmask) == mask else None
    except ValueError:
        return None


def number(value: str) -> int | None:
    """Up to ten ASCII digits."""
    return int(value) if _NUMBER.fullmatch(value) else None


def interface(name: str) -> str:
    """`name` if an interface can be called so, else nothing: it is shown to people."""
    return name if len(name) <= INTERFACE_MAX and _INTERFACE.fullmatch(name) else ""


def moment(seconds: int | None) -> datetime | None:
    """The moment so many seconds after 1970 began (UTC); None for 0, which stands for no time at all."""
    if not seconds:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def later(start: datetime | None, seconds: int | None) -> datetime | None:
    """None for a lease without an end, and when either is not known."""
    if start is None or seconds is None or seconds == FOREVER:
        return None
    try:
        return start + timedelta(seconds=seconds)
    except OverflowError:
        return None
