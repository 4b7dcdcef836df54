"""What a guest agent says of its interfaces, made into addresses. The guest is not trusted."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from itertools import islice

from networks.hypervisors.base import GuestAddress, Source
from networks.hypervisors.guest_addresses import MAX_ADDRESSES, usable

MAX_INTERFACES = 64
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def guest_addresses(answer: object, macs: tuple[str, ...], source: Source) -> tuple[GuestAddress, ...]:
    """The usable addresses in `answer`, the shape of libvirt-python's `interfaceAddresses`:
    {name: {"hwaddr": str | None, "addrs": [{"addr": str, "prefix": int, "type": int}] | None}}.

    The VM's own interfaces (`macs`) come first, so that a guest with many others, a container host
    say, does not push them over the limit. What is malformed is skipped.
    """
    interfaces = sorted(_interfaces(answer), key=lambda interface: interface[0] not in macs)
    found = (
        GuestAddress(mac, ip, source, prefix)
        for mac, entries in islice(interfaces, MAX_INTERFACES)
        for ip, prefix in _addresses(entries)
    )
    return tuple(islice(found, MAX_ADDRESSES))


def _interfaces(answer: object) -> Iterator[tuple[str, list[object]]]:
    if not isinstance(answer, Mapping):
        return
    for interface in answer.values():
        if not isinstance(interface, Mapping):
            continue
        mac, entries = interface.get("hwaddr"), interface.get("addrs")
        if isinstance(mac, str) and isinstance(entries, list) and _MAC.fullmatch(mac.lower()):
            yield mac.lower(), entries


def _addresses(
    entries: list[object],
) -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int | None]]:
    for entry in islice(entries, MAX_ADDRESSES):
        if not isinstance(entry, Mapping):
            continue
        ip = usable(entry.get("addr"))
        if ip is not None:
            prefix = entry.get("prefix")
            in_range = type(prefix) is int and 0 <= prefix <= ip.max_prefixlen
            yield ip, prefix if in_range else None
