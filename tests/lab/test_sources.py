"""An address found by each source alone, and shown with it: agent, webhook, lease file, and the guest's disk.

Webhook and lease file belong to one network, and serve guests without an agent in turn. The other network's DHCP
server tells nobody anything: a guest with an agent is there, and a Debian guest without one, which only its disk
gives away.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab
from tests.lab.cloud import BOOT, Cloud, served
from tests.lab.dhcp import read_leases
from tests.lab.hosts import Host
from tests.lab.system import wait_for
from tests.networks.hypervisors.guest_disks import appliance

# Booted first, so that they are ready when the tests of the other network are done.
pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("quiet")]

PATIENCE = 30  # seconds
DEBIAN_BOOT = 240  # about 45 to its lease, on an idle machine
DISK = 240  # an appliance without KVM takes half a minute, after at most one that came too early


@dataclass(frozen=True)
class Guest:
    cloud: Cloud
    vm: dict[str, Any]

    @property
    def mac(self) -> str:
        return str(self.vm["nic"][0]["macaddress"])

    def is_shown(self, seconds: float) -> tuple[str, str, str]:
        """Address, its source and its state in listNics, once there is one."""
        self.cloud.address(self.vm["id"], seconds)
        nic = self.cloud.nic(self.vm["id"])
        return nic["ipaddress"], nic["addresssource"], nic["addressstate"]

    def events(self) -> list[tuple[str, str]]:
        answer = self.cloud.api.listEvents(type="EXTERNAL.DHCP.VM.IP.FETCH", resourceid=self.vm["id"])
        return [(event["level"], event["description"]) for event in answer.get("event", [])]


@dataclass(frozen=True)
class Quiet:
    """What is on the network whose DHCP server tells nobody."""

    with_agent: Guest
    debian: Guest
    lease_file: Path

    def lease_of(self, guest: Guest, seconds: float) -> str:
        return str(wait_for("the lease", lambda: read_leases(self.lease_file).get(guest.mac), seconds))


def deploy(cloud: Cloud, name: str, host: Host, network: str, *, agent: bool, **fields: object) -> Guest:
    vm = cloud.deploy(name, host, network, **fields)
    if not agent:
        cloud.take_agent_away(vm, host)
    return Guest(cloud, vm)


@pytest.fixture(scope="module")
def cloud(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A product that reads disks in libguestfs's small VM, which is not installed on this machine."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)  # for the reader, who has no rights
        environment = {"LIBGUESTFS_PATH": str(appliance(Path(directory))), "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
        with served(lab, tmp_path_factory.mktemp("cloud"), **environment) as cloud:
            yield cloud


@pytest.fixture(scope="module")
def quiet(cloud: Cloud) -> Iterator[Quiet]:
    """Booted while the tests of the other network run."""
    first, second = cloud.lab.hosts
    cloud.register_debian()
    network = cloud.silent_network
    with cloud.lab.dhcp.serving_also(cloud.lab.silent_network) as lease_file:
        debian = deploy(cloud, "disk", second, network, agent=False, template="debian-12", offering="Small")
        with_agent = deploy(cloud, "agent", first, network, agent=True)
        yield Quiet(with_agent, debian, lease_file)


def leased(guest: Guest) -> IPv4Address:
    return wait_for("the lease", lambda: guest.cloud.lab.dhcp.leases().get(guest.mac), BOOT)


def test_by_webhook(cloud: Cloud):
    host = cloud.lab.hosts[0]
    with cloud.lab.dhcp.reporting_to(cloud.leases_url, cloud.lease_token()):
        guest = deploy(cloud, "webhook", host, cloud.network, agent=False)
        address = leased(guest)

        assert guest.is_shown(PATIENCE) == (str(address), "webhook", "confirmed")
        assert guest.events() == [("INFO", f"NIC 0 of webhook: ip addr {address} got fetched successfully")]


def test_by_lease_file(cloud: Cloud):
    cloud.in_the_server(
        "from ipfetch.models import LeaseServer; from networks.models import Network;"
        f"server = LeaseServer.objects.create(name='dnsmasq', kind='dnsmasq', path='{cloud.lab.dhcp.lease_file.name}');"
        f"server.networks.set(Network.objects.filter(uuid='{cloud.network}'))"
    )
    guest = deploy(cloud, "lease", cloud.lab.hosts[0], cloud.network, agent=False)
    address = leased(guest)

    assert guest.is_shown(PATIENCE) == (str(address), "lease", "confirmed")
    assert guest.events() == [("INFO", f"NIC 0 of lease: ip addr {address} got fetched successfully")]


def test_by_agent(quiet: Quiet):
    guest = quiet.with_agent
    assert guest.is_shown(BOOT) == (quiet.lease_of(guest, BOOT), "agent", "confirmed")


def test_by_disk(cloud: Cloud, quiet: Quiet):
    """A real guestfish reads what the guest's own dhclient has written."""
    guest, host = quiet.debian, cloud.lab.hosts[1]
    address = quiet.lease_of(guest, DEBIAN_BOOT)
    assert "ipaddress" not in cloud.nic(guest.vm["id"])
    readable_by_anybody(cloud)
    cloud.in_the_server(
        f"from networks.models import Endpoint;Endpoint.objects.filter(name='{host.name}').update(disk_access='local')"
    )

    with cloud.configured({"externaldhcp.vmip.retrieval.interval": 10}):
        assert guest.is_shown(DISK) == (address, "disk", "unconfirmed")
    assert guest.events() == [("INFO", f"NIC 0 of disk: ip addr {address} got fetched successfully")]


def readable_by_anybody(cloud: Cloud) -> None:
    """The reader is a process without rights, and libvirt makes ROOT volumes readable for root alone."""
    for image in cloud.lab.images.iterdir():
        if image.is_file():
            image.chmod(0o644)
