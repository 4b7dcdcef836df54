"""What the Xen driver's tests need of the simulated pool."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from networks.hypervisors.base import EndpointAddress, ImageRoot, NetworkRef, NicSpec, Transport, VmRef
from networks.hypervisors.xenserver import XenHost
from networks.hypervisors.xenserver_media import DIRECTORY
from networks.hypervisors.xenserver_networks import CARRIER
from tests.networks.hypervisors.factories import make_spec, make_vm, soon
from tests.simulators.xenserver import XenServer

NETWORK = NetworkRef("cloudbr100", 100)
PRIMARY = "primary"
TEMPLATE = "debian-12"
_numbers = count(1)


@contextlib.contextmanager
def pool(hosts: int = 2) -> Iterator[XenServer]:
    """A simulated pool that an administrator has made ready: the guests' network, the directories of config drives."""
    with XenServer(hosts=hosts) as xen:
        xen.add_network(CARRIER, "eth1")
        for number in range(hosts):
            xen.make_directory(f"xen{number + 1}", DIRECTORY)
        yield xen


def address_of(xen: XenServer, **fields) -> EndpointAddress:
    address = EndpointAddress(
        Transport.TEST, xen.host, xen.port, xen.username, xen.password, ca_certificates=xen.ca_certificates
    )
    return replace(address, **fields)


def host_of(xen: XenServer, name: str = "xen1", **fields) -> XenHost:
    return XenHost(address_of(xen, **fields), name)


def xen_root(**fields) -> ImageRoot:
    return ImageRoot(**({"pool": PRIMARY, "volume": f"ROOT-{next(_numbers)}.qcow2", "image": TEMPLATE} | fields))


def xen_spec(vm: VmRef | None = None, **fields):
    vm = vm or make_vm()
    nics = tuple(NicSpec(mac, NETWORK) for mac in vm.macs)
    return make_spec(vm, **({"root": xen_root(), "nics": nics} | fields))


def defined(host: XenHost, vm: VmRef | None = None, **fields) -> VmRef:
    spec = xen_spec(vm, **fields)
    for nic in spec.nics:
        host.ensure_network(nic.network, soon())
    host.ensure_root(spec.root, soon())
    host.define(spec, soon())
    return spec.vm


def started(host: XenHost, vm: VmRef | None = None, **fields) -> VmRef:
    vm = defined(host, vm, **fields)
    host.start(vm, soon())
    return vm


def ref_of(xen: XenServer, vm: VmRef) -> str:
    return xen.ref("VM", vm.name)
