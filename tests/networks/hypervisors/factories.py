"""Values for the drivers' tests: each names only what the test is about."""

import time
import uuid
from itertools import count

from networks.hypervisors.base import (
    EndpointAddress,
    ImageRoot,
    KernelRoot,
    NetworkRef,
    NicSpec,
    Transport,
    VmRef,
    VmSpec,
)

KERNEL = KernelRoot("/boot/vmlinuz", "/boot/initrd.img", "console=ttyS0")
IN_PROCESS = EndpointAddress(Transport.TEST)
_numbers = count(1)


def soon(seconds: float = 20) -> float:
    return time.monotonic() + seconds


def make_vm(**fields) -> VmRef:
    number = next(_numbers)
    defaults = {"name": f"i-2-{number}-VM", "uuid": str(uuid.uuid4()), "macs": (f"52:54:00:00:02:{number % 256:02x}",)}
    return VmRef(**(defaults | fields))


def make_spec(vm: VmRef | None = None, **fields) -> VmSpec:
    vm = vm or make_vm()
    nics = tuple(NicSpec(mac, NetworkRef("cloudbr100", 100)) for mac in vm.macs)
    defaults = {"title": "A VM", "cpus": 1, "memory": 192 * 1024 * 1024, "root": KERNEL, "nics": nics}
    return VmSpec(vm=vm, **(defaults | fields))


def make_root(**fields) -> ImageRoot:
    defaults = {"pool": "default-pool", "volume": f"root-{next(_numbers)}", "image": "base.qcow2"}
    return ImageRoot(**(defaults | fields))
