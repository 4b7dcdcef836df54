"""VMs: made, started, stopped, moved; what runs where, and what each host has memory for.

Not modelled: the image of a suspended VM, snapshots of VMs, high availability, storage migration, GPUs, and guests that
stop by themselves (`guests.py` plays the guests).
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from . import devices, storage
from .calls import Call, Steps, Work, from_record, message, ref_or_null
from .classes import CLASSES, NULL
from .database import Database, Row
from .errors import XenError, bad_power_state

_HALTED = ("changing_VCPUs", "changing_memory_limits", "clone", "copy", "destroy", "export", "make_into_template")
_RUNNING = ("clean_reboot", "clean_shutdown", "hard_reboot", "hard_shutdown", "pause", "pool_migrate", "suspend")
ALLOWED = {
    "Halted": (*_HALTED, "start", "start_on"),
    "Running": _RUNNING,
    "Suspended": ("hard_shutdown", "resume", "resume_on"),
    "Paused": ("hard_shutdown", "hard_reboot", "unpause"),
}
_TEMPLATE = ("clone", "copy", "destroy", "export", "provision")


# Making and removing ---------------------------------------------------------------------------------


@message("VM.create", "record")
def create(call: Call, record: Mapping[str, object]) -> str:
    values = from_record("VM", record)
    for name in ("affinity", "suspend_VDI", "suspend_SR"):
        ref_or_null(call, CLASSES["VM"][name].target, values.get(name, NULL))
    _check_memory(values)
    # What only the server writes is not taken from the record, whatever stands there.
    given = {name: value for name, value in values.items() if not _is_runtime(name)}
    return _new(call.db, given)


def _is_runtime(name: str) -> bool:
    field = CLASSES["VM"][name]
    constructed = {"order", "start_delay", "shutdown_delay", "generation_id", "domain_type", "NVRAM", "reference_label"}
    constructed |= {"has_vendor_device", "memory_target", "HVM_shadow_multiplier", "version"}
    return not (field.required or field.writable or name in constructed)


def _new(db: Database, values: Mapping[str, object]) -> str:
    metrics = db.create(
        "VM_metrics", VCPUs_number=values["VCPUs_at_startup"], memory_actual=values["memory_dynamic_max"]
    )
    ref = db.create("VM", **{**values, "metrics": metrics, "memory_target": values["memory_dynamic_max"]})
    update_allowed(db, ref)
    return ref


def _check_memory(values: Mapping[str, object]) -> None:
    names = ("static_min", "dynamic_min", "dynamic_max", "static_max")
    limits = [int(str(values[f"memory_{name}"])) for name in names]
    if limits != sorted(limits):
        raise XenError(
            "MEMORY_CONSTRAINT_VIOLATION",
            "Memory limits must satisfy: static_min ≤ dynamic_min ≤ dynamic_max ≤ static_max",
        )


@message("VM.clone", "VM", "string")
def clone(call: Call, vm: str, name: str) -> Steps:
    """The new VM has clones of the disks, the same discs, and NICs with new MAC addresses."""
    source = _halted(call.db, vm)
    yield Work("VM", vm, "clone")
    return copy_of(call, source, name)


@message("VM.copy", "VM", "string", "string")
def copy(call: Call, vm: str, name: str, sr: str) -> Steps:
    source = _halted(call.db, vm)
    ref_or_null(call, "SR", sr)
    yield Work("VM", vm, "copy")
    return copy_of(call, source, name)


def copy_of(call: Call, source: Row, name: str) -> str:
    db = call.db
    own: tuple[str, ...] = (
        "uuid",
        "name_label",
        "VIFs",
        "VBDs",
        "consoles",
        "metrics",
        "guest_metrics",
        "is_default_template",
    )
    own += ("current_operations", "allowed_operations", "children", "snapshots", "parent")
    values = {field: value for field, value in source.values.items() if field not in own}
    for vbd in db.listed("VBD", source.refs("VBDs")):
        if vbd["type"] != "CD":
            storage.clonable(db, vbd.text("VDI"))
    ref = _new(db, {**values, "name_label": name, "parent": source.ref})
    for vbd in db.listed("VBD", source.refs("VBDs")):
        devices.copy_vbd(call, vbd, ref)
    for vif in db.listed("VIF", source.refs("VIFs")):
        devices.copy_vif(call, vif, ref)
    return ref


@message("VM.destroy", "VM")
def destroy(call: Call, vm: str) -> Steps:
    """Its disks stay; its VBDs and VIFs go with it."""
    row = call.db.get("VM", vm)
    if row["power_state"] != "Halted":
        raise bad_power_state(vm, "halted", row.text("power_state"))
    yield Work("VM", vm, "destroy")
    remove(call.db, vm)


def remove(db: Database, vm: str) -> None:
    """Without asking: also what somebody else's hand does."""
    with db.lock:
        row = db.find("VM", vm)
        if row is None:
            return
        for class_name, field in (("VBD", "VBDs"), ("VIF", "VIFs")):
            for ref in row.refs(field):
                db.delete(class_name, ref)
        db.delete("VM", vm)
        db.delete("VM_metrics", row.text("metrics"))
        db.delete("VM_guest_metrics", row.text("guest_metrics"))


@message("VM.provision", "VM")
def provision(call: Call, vm: str) -> Steps:
    call.db.get("VM", vm)
    yield Work("VM", vm, "provision")


# Power ------------------------------------------------------------------------------------------------


@message("VM.start", "VM", "bool", "bool")
def start(call: Call, vm: str, paused: bool, force: bool) -> Steps:
    _startable(call, vm)
    host = _choose_host(call, vm)
    yield Work("VM", vm, "start")
    power_on(call, vm, host, "Paused" if paused else "Running")


@message("VM.start_on", "VM", "host", "bool", "bool")
def start_on(call: Call, vm: str, host: str, paused: bool, force: bool) -> Steps:
    _startable(call, vm)
    assert_can_run(call, vm, host)
    yield Work("VM", vm, "start_on")
    power_on(call, vm, host, "Paused" if paused else "Running")


def _startable(call: Call, vm: str) -> None:
    row = _halted(call.db, vm)
    if row["is_a_template"]:
        raise XenError("VM_IS_TEMPLATE", vm)
    for vbd in call.db.listed("VBD", row.refs("VBDs")):
        devices.assert_attachable(call.db, vbd)
        if not vbd["empty"]:
            storage.assert_present(call, vbd.text("VDI"))


def _choose_host(call: Call, vm: str) -> str:
    """Raises what stands in the way on the only host there is, else NO_HOSTS_AVAILABLE."""
    reasons = []
    affinity = call.db.get("VM", vm)["affinity"]
    hosts = sorted(call.db.rows("host"), key=lambda row: (row.ref != affinity, -free_memory(call.db, row.ref)))
    for host in hosts:
        try:
            assert_can_run(call, vm, host.ref)
        except XenError as error:
            reasons.append(error)
        else:
            return host.ref
    raise reasons[0] if len(reasons) == 1 else XenError("NO_HOSTS_AVAILABLE")


@message("VM.assert_can_boot_here", "VM", "host")
def assert_can_run(call: Call, vm: str, host: str, *, moving: bool = False) -> None:
    """Raises HOST_DISABLED, VM_REQUIRES_SR, VM_REQUIRES_NETWORK, HOST_NOT_ENOUGH_FREE_MEMORY."""
    db = call.db
    row, target = db.get("VM", vm), db.get("host", host)
    if not target["enabled"]:
        raise XenError("HOST_DISABLED", host)
    if not db.get("host_metrics", target["metrics"])["live"]:
        raise XenError("HOST_OFFLINE", host)
    for vbd in db.listed("VBD", row.refs("VBDs")):
        disk = db.find("VDI", vbd["VDI"])
        if disk is not None and not storage.reaches(db, host, disk.text("SR")):
            raise XenError("VM_REQUIRES_SR", vm, disk["SR"])
    for vif in db.listed("VIF", row.refs("VIFs")):
        if not _reaches_network(db, host, vif.text("network")):
            raise XenError("VM_REQUIRES_NETWORK", vm, vif["network"])
    needed, free = row.number("memory_dynamic_max"), free_memory(db, host)
    if needed > free and not (moving and row["resident_on"] == host):
        raise XenError("HOST_NOT_ENOUGH_FREE_MEMORY", needed, free)


def _reaches_network(db: Database, host: str, network: str) -> bool:
    pifs = db.listed("PIF", db.get("network", network).refs("PIFs"))
    # A network without any PIF is internal to a host.
    return not pifs or any(pif["host"] == host and pif["currently_attached"] for pif in pifs)


def free_memory(db: Database, host: str) -> int:
    row = db.get("host", host)
    total = db.get("host_metrics", row["metrics"]).number("memory_total")
    return total - sum(vm.number("memory_dynamic_max") for vm in db.listed("VM", row.refs("resident_VMs")))


def power_on(call: Call, vm: str, host: str, state: str = "Running") -> None:
    db = call.db
    devices.attach_all(db, vm)
    _new_domain(call, vm, power_state=state, resident_on=host)
    update_allowed(db, vm)
    call.xen.guests.started(vm)


def _new_domain(call: Call, vm: str, **values: object) -> None:
    """A boot: another domain, and nothing known of its guest yet."""
    db = call.db
    row = db.get("VM", vm)
    now = datetime.now(UTC)
    db.set("VM_metrics", row.text("metrics"), start_time=now, last_updated=now, hvm=True, current_domain_type="hvm")
    guest_metrics = row.text("guest_metrics")
    db.set("VM", vm, domid=call.xen.next_domid(), domarch="x86_64", guest_metrics=NULL, **values)
    db.delete("VM_guest_metrics", guest_metrics)


def power_off(db: Database, vm: str) -> None:
    guest_metrics = db.get("VM", vm).text("guest_metrics")
    devices.detach_all(db, vm)
    db.set("VM", vm, power_state="Halted", resident_on=NULL, domid=-1, guest_metrics=NULL)
    db.delete("VM_guest_metrics", guest_metrics)
    update_allowed(db, vm)


def _needs_power(db: Database, vm: str, *states: str) -> Row:
    row = db.get("VM", vm)
    if row["power_state"] not in states:
        raise bad_power_state(vm, ", ".join(states), row.text("power_state"))
    return row


@message("VM.hard_shutdown", "VM")
def hard_shutdown(call: Call, vm: str) -> Steps:
    _needs_power(call.db, vm, "Running", "Paused", "Suspended")
    yield Work("VM", vm, "hard_shutdown")
    power_off(call.db, vm)


@message("VM.clean_shutdown", "VM")
def clean_shutdown(call: Call, vm: str) -> Steps:
    _needs_power(call.db, vm, "Running")
    call.xen.guests.assert_has_drivers(vm)
    obeys = call.xen.guests.obeys(vm)
    yield Work("VM", vm, "clean_shutdown", None if obeys else call.xen.guests.shutdown_seconds)
    if not obeys:
        raise XenError("VM_SHUTDOWN_TIMEOUT", vm, call.xen.guests.shutdown_seconds)
    power_off(call.db, vm)


@message("VM.shutdown", "VM")
def shutdown(call: Call, vm: str) -> Steps:
    """Clean, and hard where the guest does not obey."""
    _needs_power(call.db, vm, "Running", "Paused", "Suspended")
    yield Work("VM", vm, "shutdown")
    power_off(call.db, vm)


@message("VM.hard_reboot", "VM")
def hard_reboot(call: Call, vm: str) -> Steps:
    _needs_power(call.db, vm, "Running", "Paused")
    yield Work("VM", vm, "hard_reboot")
    _reboot(call, vm)


@message("VM.clean_reboot", "VM")
def clean_reboot(call: Call, vm: str) -> Steps:
    _needs_power(call.db, vm, "Running")
    call.xen.guests.assert_has_drivers(vm)
    yield Work("VM", vm, "clean_reboot")
    _reboot(call, vm)


def _reboot(call: Call, vm: str) -> None:
    """What was added while it ran is there from now on."""
    devices.attach_all(call.db, vm)
    _new_domain(call, vm, power_state="Running")
    update_allowed(call.db, vm)
    call.xen.guests.started(vm)


@message("VM.pause", "VM")
def pause(call: Call, vm: str) -> Steps:
    _needs_power(call.db, vm, "Running")
    yield Work("VM", vm, "pause")
    call.db.set("VM", vm, power_state="Paused")
    update_allowed(call.db, vm)


@message("VM.unpause", "VM")
def unpause(call: Call, vm: str) -> Steps:
    _needs_power(call.db, vm, "Paused")
    yield Work("VM", vm, "unpause")
    call.db.set("VM", vm, power_state="Running")
    update_allowed(call.db, vm)


@message("VM.suspend", "VM")
def suspend(call: Call, vm: str) -> Steps:
    _needs_power(call.db, vm, "Running")
    call.xen.guests.assert_has_drivers(vm)
    yield Work("VM", vm, "suspend")
    call.db.set("VM", vm, power_state="Suspended", resident_on=NULL, domid=-1)
    update_allowed(call.db, vm)


@message("VM.resume", "VM", "bool", "bool")
def resume(call: Call, vm: str, paused: bool, force: bool) -> Steps:
    _needs_power(call.db, vm, "Suspended")
    host = _choose_host(call, vm)
    yield Work("VM", vm, "resume")
    _wake(call, vm, host, paused)


@message("VM.resume_on", "VM", "host", "bool", "bool")
def resume_on(call: Call, vm: str, host: str, paused: bool, force: bool) -> Steps:
    _needs_power(call.db, vm, "Suspended")
    assert_can_run(call, vm, host)
    yield Work("VM", vm, "resume_on")
    _wake(call, vm, host, paused)


def _wake(call: Call, vm: str, host: str, paused: bool) -> None:
    """It goes on where it was: the same guest, with what it had reported."""
    state = "Paused" if paused else "Running"
    call.db.set("VM", vm, power_state=state, resident_on=host, domid=call.xen.next_domid())
    update_allowed(call.db, vm)


@message("VM.pool_migrate", "VM", "host", "map")
def pool_migrate(call: Call, vm: str, host: str, options: Mapping[str, str]) -> Steps:
    """Live. A disc of a storage that the target does not reach is refused."""
    _needs_power(call.db, vm, "Running", "Paused")
    call.xen.guests.assert_has_drivers(vm)
    assert_can_run(call, vm, host, moving=True)
    yield Work("VM", vm, "pool_migrate")
    call.db.set("VM", vm, resident_on=host, domid=call.xen.next_domid())


@message("VM.power_state_reset", "VM")
def power_state_reset(call: Call, vm: str) -> None:
    power_off(call.db, vm)


# Settings -------------------------------------------------------------------------------------------------


@message("VM.set_is_a_template", "VM", "bool")
def set_is_a_template(call: Call, vm: str, value: bool) -> None:
    _halted(call.db, vm)
    call.db.set("VM", vm, is_a_template=value)
    update_allowed(call.db, vm)


@message("VM.set_VCPUs_max", "VM", "int")
def set_vcpus_max(call: Call, vm: str, value: int) -> None:
    row = _halted(call.db, vm)
    if value < row.number("VCPUs_at_startup"):
        raise XenError("INVALID_VALUE", "VCPUs_max", value)
    call.db.set("VM", vm, VCPUs_max=value)


@message("VM.set_VCPUs_at_startup", "VM", "int")
def set_vcpus_at_startup(call: Call, vm: str, value: int) -> None:
    row = _halted(call.db, vm)
    if not 0 < value <= row.number("VCPUs_max"):
        raise XenError("INVALID_VALUE", "VCPUs_at_startup", value)
    call.db.set("VM", vm, VCPUs_at_startup=value)


@message("VM.set_memory_limits", "VM", "int", "int", "int", "int")
def set_memory_limits(
    call: Call, vm: str, static_min: int, static_max: int, dynamic_min: int, dynamic_max: int
) -> None:
    _halted(call.db, vm)
    values = {
        "memory_static_min": static_min,
        "memory_static_max": static_max,
        "memory_dynamic_min": dynamic_min,
        "memory_dynamic_max": dynamic_max,
    }
    _check_memory(values)
    call.db.set("VM", vm, **values, memory_target=dynamic_max)


@message("VM.set_memory", "VM", "int")
def set_memory(call: Call, vm: str, value: int) -> None:
    set_memory_limits(call, vm, min(value, call.db.get("VM", vm).number("memory_static_min")), value, value, value)


@message("VM.get_possible_hosts", "VM")
def possible_hosts(call: Call, vm: str) -> list[str]:
    possible = []
    for host in call.db.rows("host"):
        try:
            assert_can_run(call, vm, host.ref)
        except XenError:
            continue
        possible.append(host.ref)
    return possible


@message("VM.get_allowed_VBD_devices", "VM")
def allowed_vbd_devices(call: Call, vm: str) -> list[str]:
    return devices.free_vbd_devices(call.db, vm)


@message("VM.get_allowed_VIF_devices", "VM")
def allowed_vif_devices(call: Call, vm: str) -> list[str]:
    return devices.free_vif_devices(call.db, vm)


# Shared ----------------------------------------------------------------------------------------------------


def _halted(db: Database, vm: str) -> Row:
    return _needs_power(db, vm, "Halted")


def update_allowed(db: Database, vm: str) -> None:
    row = db.get("VM", vm)
    allowed = _TEMPLATE if row["is_a_template"] else ALLOWED[row.text("power_state")]
    db.set("VM", vm, allowed_operations=allowed)
