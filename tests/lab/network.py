"""Network namespaces, and the broadcast domains between them.

All bridges that join the lab lie in the namespace `extdhcp-fabric`: `mgmt` reaches the hosts,
`vlan100` and `vlan101` are the guests' networks. The machine's own namespace is on `mgmt` alone.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.lab.ledger import Ledger
from tests.lab.system import LabError, run

FABRIC = "extdhcp-fabric"
MANAGEMENT = "mgmt"
MANAGEMENT_CIDR = IPv4Network("10.199.0.0/24")
UPLINK = "extdhcp0"  # this machine's interface on the management bridge


@dataclass(frozen=True)
class Vlan:
    """A broadcast domain that guests are on."""

    vlan: int
    cidr: IPv4Network
    gateway: IPv4Address
    start: IPv4Address  # the range of the external DHCP server, where there is one
    end: IPv4Address
    has_dhcp: bool

    @property
    def name(self) -> str:
        """Of the bridge in the fabric."""
        return f"vlan{self.vlan}"

    @property
    def bridge(self) -> str:
        """Of the bridge on each host."""
        return f"cloudbr{self.vlan}"


def _vlan(number: int, *, has_dhcp: bool) -> Vlan:
    cidr = IPv4Network(f"10.{number}.0.0/24")
    return Vlan(number, cidr, cidr[1], cidr[100], cidr[199], has_dhcp)


WITH_DHCP = _vlan(100, has_dhcp=True)  # as dnsmasq.conf says
WITHOUT_DHCP = _vlan(101, has_dhcp=False)
VLANS = (WITH_DHCP, WITHOUT_DHCP)


def inside(namespace: str, *argv: str | Path) -> tuple[str | Path, ...]:
    """The words that run a program in a namespace."""
    return ("ip", "netns", "exec", namespace, *argv)


def add_fabric(ledger: Ledger) -> None:
    add_namespace(ledger, FABRIC)
    for bridge in (MANAGEMENT, *(vlan.name for vlan in VLANS)):
        add_bridge(FABRIC, bridge)
    _refuse_if_there(Path("/sys/class/net", UPLINK))
    ledger.note("links", UPLINK)
    run("ip", "link", "add", UPLINK, "type", "veth", "peer", "name", "uplink", "netns", FABRIC)
    run("ip", "address", "add", f"{MANAGEMENT_CIDR[1]}/{MANAGEMENT_CIDR.prefixlen}", "dev", UPLINK)
    run("ip", "link", "set", UPLINK, "up")
    _join("uplink", MANAGEMENT)


def add_namespace(ledger: Ledger, name: str) -> None:
    _refuse_if_there(Path("/run/netns", name))
    ledger.note("namespaces", name)
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    # Where the kernel's bridge filter is loaded, frames between guests would meet iptables' rules.
    run(*inside(name, "sysctl", "--ignore", "--quiet", "net.bridge.bridge-nf-call-iptables=0"))


def add_bridge(namespace: str, name: str) -> None:
    run("ip", "-n", namespace, "link", "add", name, "type", "bridge")
    run("ip", "-n", namespace, "link", "set", name, "up")


def add_cable(namespace: str, interface: str, fabric_bridge: str) -> None:
    """A veth pair from `interface` in a namespace to a bridge of the fabric."""
    port = cable(namespace, fabric_bridge)
    run("ip", "-n", namespace, "link", "add", interface, "type", "veth", "peer", "name", port, "netns", FABRIC)
    run("ip", "-n", namespace, "link", "set", interface, "up")
    _join(port, fabric_bridge)


def add_address(namespace: str, interface: str, address: str) -> None:
    run("ip", "-n", namespace, "address", "add", address, "dev", interface)


def cable(namespace: str, fabric_bridge: str) -> str:
    """The fabric's end of a cable. Interface names have 15 characters at most."""
    return f"{fabric_bridge}-{namespace.removeprefix('extdhcp-')}"


def set_cable(namespace: str, fabric_bridge: str, *, plugged: bool) -> None:
    run("ip", "-n", FABRIC, "link", "set", cable(namespace, fabric_bridge), "up" if plugged else "down")


def remove(ledger: Ledger) -> None:
    """Remove the recorded namespaces, with all that is in them, and the recorded links."""
    for name in ledger.namespaces:
        if Path("/run/netns", name).exists():
            run("ip", "netns", "delete", name)
    for name in ledger.links:
        if Path("/sys/class/net", name).exists():
            run("ip", "link", "delete", name)


def _refuse_if_there(path: Path) -> None:
    """Before it is noted as ours: tear-down removes what is noted."""
    if path.exists():
        raise LabError(f"{path} is there already, and this lab did not make it: does another lab run?")


def _join(port: str, bridge: str) -> None:
    run("ip", "-n", FABRIC, "link", "set", port, "master", bridge, "up")
