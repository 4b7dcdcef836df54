"""What the DHCP and DNS server that is not ours must have for a network, in the words of those that are about."""

import re
from dataclasses import dataclass

from networks.models import Network

LEASE_HOURS = 12
_QUOTES = re.compile("['\u2018-\u201b]")


@dataclass(frozen=True)
class Recipe:
    """`text` goes into `place` as it stands, once what is in angle brackets is filled in."""

    server: str
    place: str
    text: str


def recipes(network: Network) -> list[Recipe]:
    """For dnsmasq, ISC dhcpd and Windows; none for a network whose subnet nobody has told. Needs `zone`."""
    if network.ip4_network is None:
        return []
    return [
        Recipe("dnsmasq", "a file in /etc/dnsmasq.d/, then restart dnsmasq", _dnsmasq(network)),
        Recipe("ISC dhcpd", "/etc/dhcp/dhcpd.conf, then restart isc-dhcp-server", _isc(network)),
        Recipe("Windows Server", "PowerShell on the DHCP server", _windows(network)),
    ]


def dns_servers(network: Network) -> list[str]:
    """What the zone tells of them."""
    return [address for address in (network.zone.dns1, network.zone.dns2) if address]


def _ends(network: Network) -> tuple[str, str]:
    return network.start_ip or "<first address>", network.end_ip or "<last address>"


def _dnsmasq(network: Network) -> str:
    tag = f"vlan{network.vlan}" if network.vlan else "extdhcp"
    first, last = _ends(network)
    lines = [f"dhcp-range=set:{tag},{first},{last},{network.netmask},{LEASE_HOURS}h"]
    lines += [f"dhcp-option=tag:{tag},option:router,{network.gateway}"]
    if servers := dns_servers(network):
        lines.append(f"dhcp-option=tag:{tag},option:dns-server,{','.join(servers)}")
    if network.network_domain:
        lines.append(f"domain={network.network_domain},{network.cidr}")
    return "\n".join(lines)


def _isc(network: Network) -> str:
    assert network.ip4_network
    first, last = _ends(network)
    inside = [f"range {first} {last};", f"option routers {network.gateway};"]
    if servers := dns_servers(network):
        inside.append(f"option domain-name-servers {', '.join(servers)};")
    if network.network_domain:
        inside.append(f'option domain-name "{network.network_domain}";')
    inside.append(f"default-lease-time {LEASE_HOURS * 3600};")
    head = f"subnet {network.ip4_network.network_address} netmask {network.netmask} {{"
    return "\n".join([head, *(f"  {line}" for line in inside), "}"])


def _windows(network: Network) -> str:
    assert network.ip4_network
    first, last = _ends(network)
    scope = network.ip4_network.network_address
    options = f"Set-DhcpServerv4OptionValue -ScopeId {scope} -Router {network.gateway}"
    if servers := dns_servers(network):
        options += f" -DnsServer {','.join(servers)}"
    if network.network_domain:
        options += f" -DnsDomain {_quoted(network.network_domain)}"
    return "\n".join(
        [
            f"Add-DhcpServerv4Scope -Name {_quoted(network.name)} -StartRange {first} -EndRange {last} "
            f"-SubnetMask {network.netmask} -LeaseDuration 0.{LEASE_HOURS}:00:00 -State Active",
            options,
        ]
    )


def _quoted(text: str) -> str:
    """For PowerShell, which takes the typographic quotes for quotes too."""
    return "'" + _QUOTES.sub(r"\g<0>\g<0>", text) + "'"
