"""Which hosts may be connected to: how a name may be spelled, and what its addresses may be."""

import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from networks.hypervisors.base import EndpointUnreachable, Refused, call_within

_DNS_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
# What the C library's resolver would take for an IPv4 address in an odd spelling: 127.1, 0x7f000001.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_IPV6_HOSTS = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the IPv4 address is the last 32 bits
_NEVER = (
    IPv4Network("0.0.0.0/8"),
    # Clouds answer here with a machine's own credentials, as at 169.254.169.254.
    IPv4Network("100.100.100.200/32"),
    IPv6Network("fd00:ec2::254/128"),
    # Teredo and 6to4 lead to an IPv4 address of the sender's choice.
    IPv6Network("2001::/32"),
    IPv6Network("2002::/16"),
)


def uri_host(host: str) -> str:
    """`host` as it stands in a URI: a DNS name, an IPv4 address, or an IPv6 address in brackets. Raises Refused."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        last_label = host.rpartition(".")[2]
        if len(host) > 253 or not _DNS_NAME.fullmatch(host) or _NUMBER.fullmatch(last_label):
            raise Refused("The host is neither a DNS name nor an IP address.") from None
        return host
    if isinstance(literal, IPv4Address):
        return str(literal)
    if literal.scope_id is not None:
        raise Refused("An IPv6 address with a zone cannot be used.")
    return f"[{literal}]"


def resolve(host: str, port: int, deadline: float, *, loopback: bool) -> list[str]:
    """The IP addresses behind `host` (a name or an address), each of which may be connected to, best first.

    Connect to these and not to the name: a second answer of the DNS may be another. Hypervisors are in private
    networks, so those are allowed; this machine itself is only if `loopback`. Raises Refused (spelling, or an address
    where no hypervisor can be), EndpointUnreachable (no such name), DeadlineExceeded.
    """
    name = uri_host(host).strip("[]")
    try:
        found = call_within(deadline, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        raise EndpointUnreachable("The host's name cannot be resolved.") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        _check(address, loopback)
    return addresses


def _check(text: str, loopback: bool) -> None:
    address = ipaddress.ip_address(text)
    if _is_in(address, _LOOPBACK):
        if not loopback:
            raise Refused("The host is this server itself, where no hypervisor is looked for.")
    elif not _can_be_a_host(address):
        raise Refused(f"The host's address {address} cannot be a hypervisor's.")


def _can_be_a_host(address: IPv4Address | IPv6Address) -> bool:
    """Not so: link-local (there is the metadata service of clouds), multicast, reserved, unspecified and the like."""
    if _is_in(address, _NEVER):
        return False
    if isinstance(address, IPv4Address):
        return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_reserved)
    if address in _NAT64:
        return _can_be_a_host(IPv4Address(int(address) & 0xFFFFFFFF))
    return address.scope_id is None and _is_in(address, _IPV6_HOSTS)


def _is_in(address: IPv4Address | IPv6Address, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return any(address in network for network in networks if network.version == address.version)
