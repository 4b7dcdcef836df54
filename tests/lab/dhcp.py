"""The external DHCP server: dnsmasq on a machine of its own, with the file that the documents show."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from tests.lab.ledger import Ledger
from tests.lab.network import WITH_DHCP, add_address, add_cable, add_namespace, inside
from tests.lab.system import Process, wait_for

CONFIGURATION = Path(__file__).with_name("dnsmasq.conf")
NAMESPACE = "extdhcp-dhcp"
ADDRESS = WITH_DHCP.cidr[2]


@dataclass(frozen=True)
class DhcpServer:
    directory: Path

    @property
    def lease_file(self) -> Path:
        return self.directory / "dnsmasq.leases"

    @property
    def log(self) -> Path:
        return self.directory / "dnsmasq.log"

    def leases(self) -> dict[str, IPv4Address]:
        """The leases held now: lower-case MAC address to IP address."""
        lines = self.lease_file.read_text().splitlines() if self.lease_file.exists() else []
        return {mac.lower(): IPv4Address(ip) for _expiry, mac, ip, *_ in map(str.split, lines)}

    def start(self, ledger: Ledger) -> None:
        self.directory.mkdir()
        add_namespace(ledger, NAMESPACE)
        add_cable(NAMESPACE, WITH_DHCP.name, WITH_DHCP.name)
        add_address(NAMESPACE, WITH_DHCP.name, f"{ADDRESS}/{WITH_DHCP.cidr.prefixlen}")
        program = (
            "dnsmasq",
            "--keep-in-foreground",
            f"--conf-file={CONFIGURATION}",
            f"--dhcp-leasefile={self.lease_file}",
            f"--pid-file={self.directory / 'dnsmasq.pid'}",
            "--log-facility=-",  # to stderr
            "--user=root",
            "--no-ping",  # an offer need not wait the seconds in which an unknown holder might answer
        )
        process = Process.spawn("dnsmasq", inside(NAMESPACE, *program), self.log)
        ledger.note("processes", process)
        wait_for("dnsmasq", lambda: "DHCP, IP range" in self.log.read_text(), seconds=10)
