"""What is plugged into VMs: disks and CD drives (VBDs), and NICs (VIFs).

The rules for CD drives are those of ocaml/xapi/xapi_vbd.ml and xapi_vbd_helpers.ml
(https://github.com/xapi-project/xen-api). Not modelled: device names other than numbers, rate limits, hot-plugging that
the guest refuses, SR-IOV.
"""

import os
import re
from collections.abc import Mapping

from . import storage
from .calls import Call, Steps, Work, from_record, message
from .classes import NULL
from .database import Database, Row
from .errors import XenError, bad_power_state, handle_invalid

MOST_VBDS = 16
MOST_VIFS = 7
_MIGRATING = ("pool_migrate", "migrate_send")


def _of_vm(db: Database, class_name: str, vm: str) -> list[Row]:
    return db.listed(class_name, db.get("VM", vm).refs(f"{class_name}s"))


def free_vbd_devices(db: Database, vm: str) -> list[str]:
    used = {vbd["userdevice"] for vbd in _of_vm(db, "VBD", vm)}
    return [str(number) for number in range(MOST_VBDS) if str(number) not in used]


def free_vif_devices(db: Database, vm: str) -> list[str]:
    used = {vif["device"] for vif in _of_vm(db, "VIF", vm)}
    return [str(number) for number in range(MOST_VIFS) if str(number) not in used]


# Disks and CD drives ---------------------------------------------------------------------------------------


@message("VBD.create", "record")
def create_vbd(call: Call, record: Mapping[str, object]) -> str:
    """On a VM that runs it is there from the next boot on, unless it is plugged."""
    db = call.db
    values = from_record("VBD", record)
    vm = db.get("VM", values["VM"])
    is_cd, empty = values["type"] == "CD", bool(values["empty"])
    if not empty:
        db.get("VDI", values["VDI"])
    if is_cd and values["mode"] != "RO":
        raise XenError("VBD_CDS_MUST_BE_READONLY")
    if empty and not is_cd:
        raise XenError("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
    if is_cd and not empty:
        storage.assert_is_iso(db, str(values["VDI"]))
    if not empty and values["mode"] == "RW" and db.get("VDI", values["VDI"])["read_only"]:
        raise XenError("VDI_READONLY", values["VDI"])
    operations = vm.mapping("current_operations")
    for operation in operations.values():
        if operation in _MIGRATING:
            raise XenError("OTHER_OPERATION_IN_PROGRESS", "VM", vm.ref, operation)
    device = _vbd_device(db, vm.ref, str(values["userdevice"]))
    return db.create(
        "VBD",
        VM=vm.ref,
        VDI=NULL if empty else values["VDI"],
        userdevice=device,
        allowed_operations=("attach", "insert") if empty else ("attach", "eject") if is_cd else ("attach",),
        **_given(values, "bootable", "mode", "type", "empty", "other_config", "unpluggable", *_QOS),
    )


_QOS = ("qos_algorithm_type", "qos_algorithm_params")


def _given(values: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: values[name] for name in names if name in values}


def _vbd_device(db: Database, vm: str, wanted: str) -> str:
    free = free_vbd_devices(db, vm)
    if wanted == "autodetect" and free:
        return free[0]
    if not re.fullmatch(r"\d{1,2}", wanted) or int(wanted) >= MOST_VBDS:
        raise XenError("INVALID_DEVICE", wanted)
    if wanted not in free:
        raise XenError("DEVICE_ALREADY_EXISTS", wanted)
    return wanted


def copy_vbd(call: Call, vbd: Row, vm: str) -> None:
    """A disk is cloned with its VM; a disc is shared, an empty drive stays empty."""
    disk = vbd.text("VDI")
    if vbd["type"] != "CD":
        disk = storage.clone_vdi(call, disk)
    own = ("uuid", "VM", "VDI", "currently_attached", "current_operations", "device")
    values = {field: value for field, value in vbd.values.items() if field not in own}
    call.db.create("VBD", **{**values, "VM": vm, "VDI": disk})


@message("VBD.destroy", "VBD")
def destroy_vbd(call: Call, vbd: str) -> None:
    row = call.db.get("VBD", vbd)
    if row["currently_attached"]:
        raise XenError("OPERATION_NOT_ALLOWED", f"VBD '{row['uuid']}' still attached to '{row['VM']}'")
    call.db.delete("VBD", vbd)


@message("VBD.insert", "VBD", "VDI")
def insert(call: Call, vbd: str, vdi: str) -> Steps:
    db = call.db
    row = _removable(db, vbd)
    if not row["empty"]:
        raise XenError("VBD_NOT_EMPTY", vbd)
    storage.assert_is_iso(db, vdi)
    if not db.get("VDI", vdi)["managed"]:
        raise XenError("VDI_NOT_MANAGED", vdi)
    vm = db.get("VM", row["VM"])
    if vm["power_state"] != "Halted":
        if not row["currently_attached"]:
            raise XenError("DEVICE_NOT_ATTACHED", vbd)
        storage.assert_present(call, vdi)
        if not storage.reaches(db, vm.text("resident_on"), db.get("VDI", vdi).text("SR")):
            raise XenError("VM_REQUIRES_SR", vm.ref, db.get("VDI", vdi)["SR"])
    yield Work("VBD", vbd, "insert")
    db.set("VBD", vbd, VDI=vdi, empty=False, allowed_operations=("attach", "eject"))


@message("VBD.eject", "VBD")
def eject(call: Call, vbd: str) -> Steps:
    """A guest that keeps the door locked has it until time is up."""
    row = _removable(call.db, vbd)
    if row["empty"]:
        raise XenError("VBD_IS_EMPTY", vbd)
    locked = bool(row["currently_attached"]) and call.xen.guests.has_locked_door(row.text("VM"))
    yield Work("VBD", vbd, "eject", call.xen.guests.door_seconds if locked else None)
    if locked:
        raise XenError("VBD_TRAY_LOCKED", vbd)
    empty(call.db, vbd)


def empty(db: Database, vbd: str) -> None:
    db.set("VBD", vbd, VDI=NULL, empty=True, allowed_operations=("attach", "insert"))


def _removable(db: Database, vbd: str) -> Row:
    row = db.get("VBD", vbd)
    vm = db.get("VM", row["VM"])
    if vm["power_state"] == "Suspended":
        raise bad_power_state(vm.ref, "halted, running", "suspended")
    if row["type"] != "CD":
        raise XenError("VBD_NOT_REMOVABLE_MEDIA", vbd)
    return row


@message("VBD.plug", "VBD")
def plug_vbd(call: Call, vbd: str) -> Steps:
    row = _pluggable(call.db, vbd)
    if row["currently_attached"]:
        raise XenError("DEVICE_ALREADY_ATTACHED", vbd)
    assert_attachable(call.db, row)
    yield Work("VBD", vbd, "plug")
    _attach_vbd(call.db, row)


@message("VBD.unplug", "VBD")
def unplug_vbd(call: Call, vbd: str) -> Steps:
    row = _pluggable(call.db, vbd)
    if not row["currently_attached"]:
        raise XenError("DEVICE_ALREADY_DETACHED", vbd)
    if not row["unpluggable"]:
        raise XenError("VBD_NOT_UNPLUGGABLE", vbd)
    yield Work("VBD", vbd, "unplug")
    call.db.set("VBD", vbd, currently_attached=False, device="")


def _pluggable(db: Database, vbd: str) -> Row:
    row = db.get("VBD", vbd)
    vm = db.get("VM", row["VM"])
    if vm["power_state"] != "Running":
        raise bad_power_state(vm.ref, "running", vm.text("power_state"))
    if row["type"] == "CD" and vm["domain_type"] == "hvm":
        words = "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected"
        raise XenError("OPERATION_NOT_ALLOWED", words)
    return row


@message("VBD.set_mode", "VBD", "string")
def set_mode(call: Call, vbd: str, mode: str) -> None:
    vm = call.db.get("VM", call.db.get("VBD", vbd)["VM"])
    if vm["power_state"] != "Halted":
        raise bad_power_state(vm.ref, "halted", vm.text("power_state"))
    call.db.set("VBD", vbd, mode=mode)


def assert_attachable(db: Database, vbd: Row) -> None:
    """Raises VDI_IN_USE: a disk that somebody writes to is nobody else's."""
    disk = db.find("VDI", vbd["VDI"])
    if disk is None:
        if vbd["empty"]:
            return
        raise handle_invalid("VDI", vbd["VDI"])
    for other in disk.refs("VBDs"):
        row = db.get("VBD", other)
        if (
            other != vbd.ref
            and row["currently_attached"]
            and "RW" in (row["mode"], vbd["mode"])
            and not disk["sharable"]
        ):
            raise XenError("VDI_IN_USE", disk.ref, "attach")


def _attach_vbd(db: Database, vbd: Row) -> None:
    device = f"xvd{chr(ord('a') + vbd.number('userdevice'))}"
    db.set("VBD", vbd.ref, currently_attached=True, device=device)


# NICs ---------------------------------------------------------------------------------------------------------


@message("VIF.create", "record")
def create_vif(call: Call, record: Mapping[str, object]) -> str:
    db = call.db
    values = from_record("VIF", record)
    vm, network = db.get("VM", values["VM"]), db.get("network", values["network"])
    device, mac = str(values["device"]), str(values["MAC"])
    if not re.fullmatch(r"\d", device) or int(device) >= MOST_VIFS:
        raise XenError("INVALID_DEVICE", device)
    if device not in free_vif_devices(db, vm.ref):
        raise XenError("DEVICE_ALREADY_EXISTS", device)
    # A group address (its first octet odd) is no NIC's.
    if mac and (not re.fullmatch(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", mac) or int(mac[:2], 16) & 1):
        raise XenError("MAC_INVALID", mac)
    return db.create(
        "VIF",
        VM=vm.ref,
        network=network.ref,
        device=device,
        MAC=mac or random_mac(),
        MAC_autogenerated=not mac,
        allowed_operations=("attach", "plug"),
        **_given(values, "MTU", "other_config", "locking_mode", "ipv4_allowed", "ipv6_allowed", *_QOS),
    )


def random_mac() -> str:
    octets = list(os.urandom(6))
    octets[0] = octets[0] & 0b11111100 | 0b10
    return ":".join(f"{octet:02x}" for octet in octets)


def copy_vif(call: Call, vif: Row, vm: str) -> None:
    own = ("uuid", "VM", "MAC", "MAC_autogenerated", "currently_attached", "current_operations")
    values = {field: value for field, value in vif.values.items() if field not in own}
    call.db.create("VIF", **{**values, "VM": vm, "MAC": random_mac(), "MAC_autogenerated": True})


@message("VIF.destroy", "VIF")
def destroy_vif(call: Call, vif: str) -> None:
    row = call.db.get("VIF", vif)
    if row["currently_attached"]:
        raise XenError("OPERATION_NOT_ALLOWED", f"VIF '{row['uuid']}' still attached to '{row['VM']}'")
    call.db.delete("VIF", vif)


@message("VIF.plug", "VIF")
def plug_vif(call: Call, vif: str) -> Steps:
    row = _running_vif(call.db, vif)
    if row["currently_attached"]:
        raise XenError("DEVICE_ALREADY_ATTACHED", vif)
    yield Work("VIF", vif, "plug")
    _attach_vif(call.db, vif)


@message("VIF.unplug", "VIF")
def unplug_vif(call: Call, vif: str) -> Steps:
    row = _running_vif(call.db, vif)
    if not row["currently_attached"]:
        raise XenError("DEVICE_ALREADY_DETACHED", vif)
    call.xen.guests.assert_has_drivers(row.text("VM"))
    yield Work("VIF", vif, "unplug")
    call.db.set("VIF", vif, currently_attached=False, allowed_operations=("attach", "plug"))


@message("VIF.move", "VIF", "network")
def move_vif(call: Call, vif: str, network: str) -> Steps:
    yield Work("VIF", vif, "plug")
    call.db.set("VIF", vif, network=network)


def _running_vif(db: Database, vif: str) -> Row:
    row = db.get("VIF", vif)
    vm = db.get("VM", row["VM"])
    if vm["power_state"] != "Running":
        raise bad_power_state(vm.ref, "running", vm.text("power_state"))
    return row


def _attach_vif(db: Database, vif: str) -> None:
    db.set("VIF", vif, currently_attached=True, allowed_operations=("attach", "unplug"))


# All of a VM's -------------------------------------------------------------------------------------------------


def attach_all(db: Database, vm: str) -> None:
    for vbd in _of_vm(db, "VBD", vm):
        _attach_vbd(db, vbd)
    for vif in _of_vm(db, "VIF", vm):
        _attach_vif(db, vif.ref)


def detach_all(db: Database, vm: str) -> None:
    for vbd in _of_vm(db, "VBD", vm):
        db.set("VBD", vbd.ref, currently_attached=False, device="")
    for vif in _of_vm(db, "VIF", vm):
        db.set("VIF", vif.ref, currently_attached=False, allowed_operations=("attach", "plug"))


def let_go(call: Call, vdi: str) -> None:
    """What xapi's collector does after a disk is gone: drives are emptied, other VBDs removed."""
    for vbd in call.db.get("VDI", vdi).refs("VBDs"):
        if call.db.get("VBD", vbd)["type"] == "CD":
            empty(call.db, vbd)
        else:
            call.db.delete("VBD", vbd)


def used_vdi(db: Database, vdi: str) -> bool:
    return any(db.get("VBD", ref)["currently_attached"] for ref in db.get("VDI", vdi).refs("VBDs"))
