"""A XenServer pool and a vCenter, each simulated, as the administrator of a cloud would describe them."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from networks.hypervisors.base import EndpointAddress, Transport
from networks.hypervisors.vsphere import VsphereHost
from networks.hypervisors.vsphere_session import SESSIONS, Session
from networks.hypervisors.vsphere_tasks import finish
from networks.hypervisors.vsphere_types import vim
from networks.hypervisors.xenserver_media import STORE
from networks.hypervisors.xenserver_networks import CARRIER
from tests.networks.hypervisors.factories import soon
from tests.simulators.vcenter import Vcenter
from tests.simulators.vcenter.starting import vcenter_for_tests
from tests.simulators.xenserver import XenServer

VLAN = 100


class World(Protocol):
    """Two hosts, shared storage, a template; and what a guest or an administrator sees behind the product's back."""

    kind: str
    hosts: list[str]
    storage: str
    template: str
    format: str
    address: EndpointAddress

    def guest_has(self, vm: dict[str, Any], ip: str) -> None:
        """The guest has taken a lease, and its tools tell so."""

    def drives(self) -> list[bytes]:
        """The contents of all config drives that lie in its storage."""

    def vms(self) -> list[str]:
        """The names of the VMs that there are."""

    def volumes(self) -> list[str]:
        """The ROOT volumes of our VMs, running or not."""


class Pool:
    kind, format = "XenServer", "VHD"
    hosts, storage, template = ["xen1", "xen2"], "primary", "debian-12"

    def __init__(self, xen: XenServer) -> None:
        self._xen = xen
        self.address = EndpointAddress(
            Transport.TEST, xen.host, xen.port, xen.username, xen.password, ca_certificates=xen.ca_certificates
        )
        xen.add_network(CARRIER, "eth1")
        self._store = xen.add_iso_sr(STORE)

    def guest_has(self, vm: dict[str, Any], ip: str) -> None:
        ref = self._xen.ref("VM", vm["instancename"])
        self._xen.guests.has_addresses(ref, vm["nic"][0]["macaddress"], ip)

    def drives(self) -> list[bytes]:
        return list(self._xen.files(self._store).values())

    def vms(self) -> list[str]:
        return [vm["name_label"] for vm in self._xen.db.where("VM", is_a_template=False, is_control_domain=False)]

    def volumes(self) -> list[str]:
        disks = self._xen.db.where("VDI", SR=self._xen.ref("SR", self.storage))
        return [disk["name_label"] for disk in disks if disk["name_label"].startswith("ROOT-")]


class Center:
    kind, format = "VMware", "OVA"
    storage, template = "LocalDS_0", "template-sata"

    def __init__(self, vcenter: Vcenter) -> None:
        self._vcenter = vcenter
        self.address = vcenter.address
        self.hosts = vcenter.hosts()
        SESSIONS.run(self.address, soon(), _make_port_group)

    def guest_has(self, vm: dict[str, Any], ip: str) -> None:
        self._vcenter.guest_says(vm["id"], {vm["nic"][0]["macaddress"]: [f"{ip}/24"]})

    def drives(self) -> list[bytes]:
        return [path.read_bytes() for path in self._vcenter.files("**/*.iso")]

    def vms(self) -> list[str]:
        return [record.vm.name for record in VsphereHost(self.address).list_vms(soon())]

    def volumes(self) -> list[str]:
        return sorted({path.parent.name for path in self._vcenter.files("ROOT-*/*")})


@contextlib.contextmanager
def xenserver() -> Iterator[World]:
    with XenServer(hosts=2) as xen:
        yield Pool(xen)


@contextlib.contextmanager
def vmware() -> Iterator[World]:
    with vcenter_for_tests(hosts=2, vms=0) as vcenter:
        yield Center(vcenter)


def _make_port_group(session: Session) -> None:
    """What the administrator of a vCenter does for each VLAN."""
    switches = vim.dvs.VmwareDistributedVirtualSwitch
    ports = switches.VmwarePortConfigPolicy(vlan=switches.VlanIdSpec(vlanId=VLAN, inherited=False))
    group = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
        name=f"cloudbr{VLAN}", numPorts=8, type="earlyBinding", defaultPortConfig=ports
    )
    (switch,) = session.find_all(vim.DistributedVirtualSwitch, "name")
    finish(session, session.do(switch.ref.AddDVPortgroup_Task, [group]))
