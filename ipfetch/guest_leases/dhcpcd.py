"""dhcpcd: the server's last answer, as it came in over the wire. Source: RFC 2131, figure 1; RFC 2132.

The file has no times: it is written when the lease is given, so the file's own time stands for that.
"""

import re
from ipaddress import IPv4Address

from ipfetch.guest_leases.values import FileOnDisk, GuestLease, interface, ip4, later, prefix

_NAME = re.compile(r"([^/]+?)(-[^/]*)?\.lease")  # after a dash: the wireless network's name
_REPLY, _ETHERNET, _MAC_BYTES = 2, 1, 6
_COOKIE = b"\x63\x82\x53\x63"
_OPTIONS_AT = 240
_PAD, _SUBNET_MASK, _LEASE_TIME, _MESSAGE_TYPE, _END = 0, 1, 51, 53, 255
_ACK = b"\5"
MESSAGE_MAX_BYTES = 2048  # what fits in a frame, and more


def leases(file: FileOnDisk) -> list[GuestLease]:
    """One lease, or none. IPv6's leases (NAME.lease6) have another form."""
    name = _NAME.fullmatch(file.name)
    message = file.content[:MESSAGE_MAX_BYTES]
    if (file.name and not name) or len(message) < _OPTIONS_AT or message[236:240] != _COOKIE:
        return []
    ip = ip4(str(IPv4Address(message[16:20])))
    options = _options(message[_OPTIONS_AT:])
    if message[0] != _REPLY or ip is None or options is None or options.get(_MESSAGE_TYPE, _ACK) != _ACK:
        return []
    mask, seconds = options.get(_SUBNET_MASK, b""), options.get(_LEASE_TIME, b"")
    return [
        GuestLease(
            ip=ip,
            prefix=prefix(str(IPv4Address(mask))) if len(mask) == 4 else None,
            mac=_mac(message),
            interface=interface(name[1]) if name else "",
            renewed=file.modified,
            expires=later(file.modified, int.from_bytes(seconds, "big")) if len(seconds) == 4 else None,
        )
    ]


def _mac(message: bytes) -> str | None:
    if message[1:3] != bytes([_ETHERNET, _MAC_BYTES]):
        return None
    return message[28:34].hex(":")


def _options(content: bytes) -> dict[int, bytes] | None:
    """Code to value, up to the end mark; None for a message that is cut off before it."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(content) and content[at] != _END:
        if content[at] == _PAD:
            at += 1
            continue
        size = content[at + 1]
        found[content[at]] = content[at + 2 : at + 2 + size]
        at += 2 + size
    return found if content[at : at + 1] == bytes([_END]) else None
