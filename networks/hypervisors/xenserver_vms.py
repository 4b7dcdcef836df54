"""VMs of a pool: finding ours, making one from a template's settings, starting and stopping it.

Source: XenAPI reference, class VM.
"""

import contextlib
import time

from networks.hypervisors import xenserver_media as media
from networks.hypervisors import xenserver_networks as networks
from networks.hypervisors import xenserver_records as records
from networks.hypervisors import xenserver_storage as storage
from networks.hypervisors.base import (
    Busy,
    DoNotTryAgain,
    EndpointUnreachable,
    HypervisorError,
    ImageRoot,
    NotFound,
    PowerState,
    Refused,
    TryAgainLater,
    VmRef,
    VmSpec,
    beat,
)
from networks.hypervisors.xenserver_records import Record, Vm
from networks.hypervisors.xenserver_session import CLEAN_UP_SECONDS, Session

POLL_SECONDS = 0.5

# What a VM takes from its template as the administrator made it: how it boots, and on what machine.
_FROM_TEMPLATE = (
    "platform",
    "HVM_boot_policy",
    "HVM_boot_params",
    "HVM_shadow_multiplier",
    "PV_bootloader",
    "PV_bootloader_args",
    "PV_kernel",
    "PV_ramdisk",
    "PV_args",
    "PV_legacy_args",
    "PCI_bus",
    "VCPUs_params",
    "recommendations",
    "hardware_platform_version",
    "has_vendor_device",
    "domain_type",
    "NVRAM",
)

# Finding ----------------------------------------------------------------------------------------


def find(session: Session, wanted: VmRef) -> Vm | None:
    """The VM of this UUID: by its name, which is quick, or by the pool's own UUID when others made it."""
    uuid = records.vm_uuid(wanted.uuid)
    for vm in named(session, wanted.name):
        if vm.uuid == uuid:
            return vm
    try:
        ref = records.reference(session.call("VM.get_by_uuid", uuid))
        return records.vm(ref, session.record("VM", ref))
    except NotFound:
        return None


def named(session: Session, name: str) -> list[Vm]:
    found = session.named("VM", records.vm_name(name)).items()
    return [vm for ref, record in found if (vm := records.vm(ref, record)) is not None]


def ours(session: Session, wanted: VmRef) -> Vm:
    """Raises NotFound, and Refused for a VM that others made."""
    vm = ours_if_any(session, wanted)
    if vm is None:
        raise NotFound(f"The pool does not know {wanted.name}.")
    return vm


def here(session: Session, wanted: VmRef, host: str) -> Vm:
    """As `ours`, and Refused too when it runs on another host than `host` (a reference; "" for any)."""
    vm = ours(session, wanted)
    if is_elsewhere(vm, host):
        raise Refused(f"{wanted.name} runs on another host of the pool.")
    return vm


def ours_if_any(session: Session, wanted: VmRef) -> Vm | None:
    """As `ours`, but None when the pool does not know it."""
    vm = find(session, wanted)
    return None if vm is None else _checked(vm, wanted)


def runs_on(vm: Vm) -> str:
    """The host on which it runs; "" for one that is off or suspended: it is nowhere."""
    return "" if vm.power is PowerState.OFF or vm.suspended else vm.host


def is_elsewhere(vm: Vm, host: str) -> bool:
    """Whether it runs on another host than `host`."""
    return host != "" and runs_on(vm) not in ("", host)


def _checked(vm: Vm, wanted: VmRef) -> Vm:
    if not vm.ours:
        raise Refused(f"A VM with the name or the UUID of {wanted.name} is in the pool, and it is not ours.")
    return vm


def again(session: Session, vm: Vm) -> Vm | None:
    """What has become of it by now."""
    found = session.find("VM", vm.ref)
    return None if found is None else records.vm(vm.ref, found)


# Making -----------------------------------------------------------------------------------------


def define(session: Session, host: str, spec: VmSpec) -> None:
    """A VM that is there and off is made anew; one that is on stays as it is."""
    if not isinstance(spec.root, ImageRoot):
        raise Refused("A VM on XenServer boots from a template's disk; it cannot be given a kernel.")
    former = _former(session, spec.vm)
    if former is not None and former.power is not PowerState.OFF:
        return
    _template, settings = storage.template(session, spec.root.image)
    root = storage.root(session, host, spec.root.volume)
    if root is None:
        raise NotFound(f"The pool has no volume {spec.root.volume}.")
    nics = [(nic.mac, networks.find(session, host, nic.network)) for nic in spec.nics]
    if former is not None:
        destroy(session, former)
    made = records.reference(session.call("VM.create", _description(spec, settings, host)))
    try:
        own = records.text(session.record("VM", made), "uuid")
        session.call("VM.add_to_other_config", made, records.OUR_SELF, own)
        session.call("VBD.create", _disk(made, root))
        for device, (mac, network) in enumerate(nics):
            networks.create(session, made, network, mac, str(device))
        media.add_drive(session, made)
    except BaseException:
        with contextlib.suppress(HypervisorError):
            session.run("VM.destroy", made)
        raise


def _former(session: Session, wanted: VmRef) -> Vm | None:
    """The VM itself, if it is there. Raises Refused when its name or its UUID is another's."""
    vm = find(session, wanted)
    if any(vm is None or other.ref != vm.ref for other in named(session, wanted.name)):
        raise Refused(f"Another VM in the pool has the name {wanted.name}.")
    return None if vm is None else _checked(vm, wanted)


def _description(spec: VmSpec, template: Record, host: str) -> dict[str, object]:
    memory, cpus = str(spec.memory), str(spec.cpus)
    return {name: template[name] for name in _FROM_TEMPLATE if name in template} | {
        "name_label": records.vm_name(spec.vm.name),
        "name_description": records.plain(spec.title),
        "user_version": "1",
        "is_a_template": False,
        "affinity": host,
        "memory_static_max": memory,
        "memory_dynamic_max": memory,
        "memory_dynamic_min": memory,
        "memory_static_min": memory,
        "VCPUs_max": cpus,
        "VCPUs_at_startup": cpus,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "ha_always_run": False,
        "ha_restart_priority": "",
        "blocked_operations": {},
        "other_config": {records.OUR_UUID: records.vm_uuid(spec.vm.uuid)},
        "xenstore_data": {},
        "tags": [],
    }


def _disk(vm: str, vdi: str) -> dict[str, object]:
    return {
        "VM": vm,
        "VDI": vdi,
        "userdevice": "0",
        "bootable": True,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": False,
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }


def destroy(session: Session, vm: Vm) -> None:
    """Forget a VM that is off. Its disks stay."""
    with contextlib.suppress(NotFound):
        session.run("VM.destroy", vm.ref)


# Power ------------------------------------------------------------------------------------------


def start(session: Session, host: str, vm: Vm) -> None:
    if vm.power is PowerState.RUNNING:
        return
    try:
        if vm.suspended:
            session.run("VM.resume_on", vm.ref, host, False, False)
        elif vm.power is PowerState.PAUSED:
            session.run("VM.unpause", vm.ref)
        else:
            session.run("VM.start_on", vm.ref, host, False, False)
    except EndpointUnreachable:
        raise
    except HypervisorError:
        now = again(session, vm)  # somebody may have been faster
        if now is None or now.power is not PowerState.RUNNING or is_elsewhere(now, host):
            raise


def stop(session: Session, vm: Vm, grace: float) -> None:
    if vm.power is PowerState.OFF:
        return
    if grace > 0 and vm.power is PowerState.RUNNING:
        # Refused by a guest without tools, which cannot be asked; Busy when it took too long.
        with contextlib.suppress(DoNotTryAgain, TryAgainLater):
            until = min(time.monotonic() + grace, session.deadline - CLEAN_UP_SECONDS)
            session.run("VM.clean_shutdown", vm.ref, until=until)
    power_off(session, vm)


def power_off(session: Session, vm: Vm) -> None:
    """Cut the power. An operation that is just being cancelled is waited for."""
    while (now := again(session, vm)) is not None and now.power is not PowerState.OFF:
        try:
            session.run("VM.hard_shutdown", vm.ref)
        except Busy:
            if time.monotonic() + POLL_SECONDS > session.deadline:
                raise
            time.sleep(POLL_SECONDS)
            beat()
        except DoNotTryAgain:
            if (now := again(session, vm)) is not None and now.power is not PowerState.OFF:
                raise


# Moving -----------------------------------------------------------------------------------------


def migrate(session: Session, vm: Vm, host: str, target: str) -> None:
    """Live, to another host of the pool. A disc that only this host has is taken out, and the target's put in."""
    disc = media.local_disc(session, vm)
    if disc is not None:
        media.eject(session, disc[0])
    try:
        session.run("VM.pool_migrate", vm.ref, target, {"live": "true"})
    except HypervisorError:
        now = again(session, vm)
        arrived = now is not None and now.host == target
        if disc is not None and now is not None:
            with contextlib.suppress(HypervisorError):
                media.put_back(session, target if arrived else host, *disc)
        if not arrived:
            raise
    else:
        if disc is not None:
            # The VM has moved: an empty CD-ROM is mended there, a move that is said to have failed is not.
            with contextlib.suppress(HypervisorError):
                media.put_back(session, target, *disc)
