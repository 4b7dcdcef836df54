"""A lease as a DHCP server keeps it."""

import re
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address

# How far a DHCP server's clock may be from ours.
CLOCKS_APART = timedelta(hours=1)
MAC = rb"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}"
_HOSTNAME = re.compile(rb"[A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class Lease:
    """`mac` is lower case; `starts` None: not told; `expires` None: never. The hostname is the guest's own word."""

    mac: str
    ip: IPv4Address
    starts: datetime | None
    expires: datetime | None
    hostname: str = ""


def clean_hostname(raw: bytes) -> str:
    """`raw` if it is made of what host names are made of, else nothing: a guest may call itself anything."""
    return raw.decode("ascii") if _HOSTNAME.fullmatch(raw) else ""


def ip4(text: bytes) -> IPv4Address:
    """Raises ValueError. In C, for files of a hundred thousand leases."""
    try:
        return IPv4Address(socket.inet_pton(socket.AF_INET, text.decode()))
    except OSError as error:
        raise ValueError("This is no IPv4 address.") from error
