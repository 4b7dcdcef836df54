"""What every driver believes of the addresses that a guest tells. The guest is not trusted."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

MAX_ADDRESSES = 64  # of one guest
_MAX_CHARACTERS = 45  # the longest IPv6 address in text, RFC 4291, 2.2


def usable(text: object) -> IPv4Address | IPv6Address | None:
    """The address that `text` spells, if an interface can have it as its own; None for all else."""
    if not isinstance(text, str) or len(text) > _MAX_CHARACTERS:
        return None
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified:
        return None
    if isinstance(ip, IPv4Address):
        return None if ip.is_reserved else ip
    # A zone names an interface of the guest, and a mapped address is an IPv4 one in disguise.
    return None if ip.scope_id is not None or ip.ipv4_mapped is not None else ip
