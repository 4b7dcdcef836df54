"""VMs, volumes and networks as the vCenter simulator has them."""

from networks.hypervisors.base import ImageRoot, NetworkRef, NicSpec, VmRef, VmSpec
from networks.hypervisors.vsphere import VsphereHost
from tests.networks.hypervisors.factories import make_root, make_spec, make_vm, soon

DATASTORE = "LocalDS_0"
GROUP = NetworkRef("DC0_DVPG0", 0)  # a distributed port group
STANDARD = NetworkRef("VM Network", 0)
GIB = 1024**3


def make_clone(**fields) -> ImageRoot:
    """A ROOT volume on the simulator's first datastore, to be cloned from its template with SATA."""
    return make_root(**({"pool": DATASTORE, "image": "template-sata"} | fields))


def define(host: VsphereHost, vm: VmRef | None = None, **fields) -> VmSpec:
    """A VM of ours, defined and off."""
    vm = vm or make_vm()
    nics = tuple(NicSpec(mac, GROUP) for mac in vm.macs)
    spec = make_spec(vm, **({"root": make_clone(), "nics": nics} | fields))
    host.ensure_root(spec.root, soon())
    host.define(spec, soon())
    return spec
