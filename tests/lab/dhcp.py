"""The external DHCP server: dnsmasq on a machine of its own, with the file that the documents show."""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from tests.lab.ledger import Ledger
from tests.lab.network import WITH_DHCP, Vlan, add_address, add_cable, add_namespace, inside
from tests.lab.system import Process, end, run, wait_for

CONFIGURATION = Path(__file__).with_name("dnsmasq.conf")
SCRIPT = Path(__file__).with_name("dhcp-script")
NAMESPACE = "extdhcp-dhcp"
ADDRESS = WITH_DHCP.cidr[2]

_DISCOVER = re.compile(r"DHCPDISCOVER\(\w+\) (?:[0-9.]+ )?((?:[0-9a-f]{2}:){5}[0-9a-f]{2})")


@dataclass(frozen=True)
class Given:
    """A lease at the moment when the server's script heard of it, milliseconds after the DHCPACK."""

    at: float  # seconds since the epoch
    event: str  # "add" or "old", in dnsmasq's words
    mac: str
    ip: IPv4Address


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
        return read_leases(self.lease_file)

    def given(self) -> list[Given]:
        """Every lease that was given or renewed since the lab came up, the first one first."""
        lines = self._given.read_text().splitlines() if self._given.exists() else []
        words = [line.split() for line in lines]
        return [Given(float(at), event, mac.lower(), IPv4Address(ip)) for at, event, mac, ip in words if event != "del"]

    def discovered(self) -> set[str]:
        """MAC addresses of all that have asked for an address, answered or not."""
        return set(_DISCOVER.findall(self.log.read_text()))

    def know(self, mac: str, *facts: str) -> None:
        """A dhcp-host line of its own for this MAC address from now on, such as an address it is to have."""
        self._hosts.joinpath(mac.replace(":", "-")).write_text(",".join((mac, *facts)) + "\n")

    def forget(self, *macs: str) -> None:
        for mac in macs:
            self._hosts.joinpath(mac.replace(":", "-")).unlink(missing_ok=True)
        self._process().signal(signal.SIGHUP)

    @contextlib.contextmanager
    def answering_only_the_known(self) -> Iterator[None]:
        """Nobody gets an address before `know` has told of it."""
        self._restart("--dhcp-ignore=tag:!known")
        try:
            yield
        finally:
            self._restart()

    @contextlib.contextmanager
    def reporting_to(self, url: str, token: str) -> Iterator[None]:
        """Each lease is posted to this URL the moment it is given."""
        self._webhook.mkdir(mode=0o700)
        try:
            (self._webhook / "curl").write_text(f'url = "{url}"\nheader = "Authorization: Bearer {token}"\n')
            # The product listens on the loopback of this process's namespace, which no other has.
            (self._webhook / "namespace").symlink_to(f"/proc/{os.getpid()}/ns/net")
            yield
        finally:
            shutil.rmtree(self._webhook)

    @contextlib.contextmanager
    def serving_also(self, vlan: Vlan) -> Iterator[Path]:
        """A second server, which tells nobody anything, on a network that has none: its lease file."""
        ledger, leases = self._ledger(), self.directory / f"{vlan.name}.leases"
        add_cable(NAMESPACE, vlan.name, vlan.name)
        add_address(NAMESPACE, vlan.name, f"{vlan.cidr[2]}/{vlan.cidr.prefixlen}")
        program = (
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            f"--interface={vlan.name}",
            "--bind-interfaces",
            f"--dhcp-range={vlan.start},{vlan.end},{vlan.cidr.netmask},1h",
            f"--dhcp-leasefile={leases}",
            f"--pid-file={self.directory / vlan.name}.pid",
            "--log-facility=-",
            "--user=root",
            "--no-ping",
        )
        process = Process.spawn(f"dnsmasq of {vlan.name}", inside(NAMESPACE, *program), self.log)
        ledger.note("processes", process)
        try:
            yield leases
        finally:
            end([process])
            ledger.processes.remove(process)
            ledger.save()
            run("ip", "-n", NAMESPACE, "link", "delete", vlan.name)
            leases.unlink(missing_ok=True)

    def start(self, ledger: Ledger) -> None:
        self._hosts.mkdir(parents=True)
        shutil.copy(SCRIPT, self.directory)
        add_namespace(ledger, NAMESPACE)
        add_cable(NAMESPACE, WITH_DHCP.name, WITH_DHCP.name)
        add_address(NAMESPACE, WITH_DHCP.name, f"{ADDRESS}/{WITH_DHCP.cidr.prefixlen}")
        self._spawn(ledger)

    def _spawn(self, ledger: Ledger, *options: str) -> None:
        program = (
            "dnsmasq",
            "--keep-in-foreground",
            f"--conf-file={CONFIGURATION}",
            f"--dhcp-leasefile={self.lease_file}",
            f"--dhcp-script={self.directory / SCRIPT.name}",
            f"--dhcp-hostsdir={self._hosts}",
            f"--pid-file={self.directory / 'dnsmasq.pid'}",
            "--log-facility=-",  # to stderr
            "--user=root",
            "--no-ping",  # an offer need not wait the seconds in which an unknown holder might answer
            *options,
        )
        started = len(_starts(self.log))
        ledger.note("processes", Process.spawn("dnsmasq", inside(NAMESPACE, *program), self.log))
        wait_for("dnsmasq", lambda: len(_starts(self.log)) > started, seconds=10)

    def _restart(self, *options: str) -> None:
        ledger = self._ledger()
        former = self._process(ledger)
        end([former])
        ledger.processes.remove(former)
        self._spawn(ledger, *options)

    def _process(self, ledger: Ledger | None = None) -> Process:
        return next(process for process in (ledger or self._ledger()).processes if process.name == "dnsmasq")

    def _ledger(self) -> Ledger:
        ledger = Ledger.read(self.directory.parent / "ledger.json")
        assert ledger
        return ledger

    @property
    def _given(self) -> Path:
        return self.directory / "given"

    @property
    def _hosts(self) -> Path:
        return self.directory / "hosts"

    @property
    def _webhook(self) -> Path:
        return self.directory / "webhook"


def read_leases(file: Path) -> dict[str, IPv4Address]:
    """What a lease file of dnsmasq holds: lower-case MAC address to IP address."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {mac.lower(): IPv4Address(ip) for _expiry, mac, ip, *_ in map(str.split, lines)}


def _starts(log: Path) -> list[str]:
    return re.findall("DHCP, IP range", log.read_text()) if log.exists() else []
