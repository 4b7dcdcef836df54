"""wicked (SUSE): lease-INTERFACE-dhcp-ipv4.xml. Source: wicked, src/leasefile.c and src/dhcp4/lease.c.

Its names have colons and no namespaces, which an XML parser that knows namespaces refuses.
"""

import re
from xml.parsers import expat  # a document type is refused before it can define an entity

from ipfetch.guest_leases.values import FILE_MAX_BYTES, FileOnDisk, GuestLease, interface, ip4, later, moment, number
from ipfetch.guest_leases.values import prefix as prefix_of

_NAME = re.compile(r"lease-(.+)-dhcp-ipv4\.xml")
_GRANTED = "granted"
DEPTH_MAX = 16
VALUE_MAX = 256  # characters
_DHCP = ("lease", "ipv4:dhcp")


class _Refused(Exception):
    pass


def leases(file: FileOnDisk) -> list[GuestLease]:
    name = _NAME.fullmatch(file.name)
    if (file.name and not name) or len(file.content) > FILE_MAX_BYTES:
        return []
    try:
        values = _values(file.content)
    except (expat.ExpatError, _Refused, UnicodeError, ValueError, LookupError):
        return []
    ip = ip4(values.get((*_DHCP, "address"), ""))
    if ip is None or values.get(("lease", "state"), _GRANTED) != _GRANTED:
        return []
    renewed = moment(number(values.get(("lease", "acquired"), ""))) or file.modified
    return [
        GuestLease(
            ip=ip,
            prefix=prefix_of(values.get((*_DHCP, "netmask"), "")),
            mac=None,
            interface=interface(name[1]) if name else "",
            renewed=renewed,
            expires=later(renewed, number(values.get((*_DHCP, "lease-time"), ""))),
        )
    ]


def _values(document: bytes) -> dict[tuple[str, ...], str]:
    """The text of each element, by the names of those around it; the first of several wins."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    words: list[str] = []

    def begin(name: str, _attributes: dict[str, str]) -> None:
        path.append(name)
        words.clear()
        if len(path) > DEPTH_MAX:
            raise _Refused

    def end(_name: str) -> None:
        found.setdefault(tuple(path), "".join(words)[:VALUE_MAX].strip())
        path.pop()
        words.clear()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = words.append
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.Parse(document, True)
    return found


def _refuse(*_words: object) -> None:
    raise _Refused
