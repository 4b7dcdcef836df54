"""One VM of ours in vSphere, and what is done with it.

A ROOT volume is a VM too, for that is what vSphere can clone, move and delete as a whole: the clone of a template,
known by an instance UUID that is made of the volume's name, wherever its files are moved. While a VM of ours is
defined, that clone has the VM's name, SMBIOS UUID, NICs and drive; otherwise it is "parked": off, and called like the
volume.
"""

import time
from dataclasses import dataclass
from typing import Any

from networks.hypervisors import vsphere_devices, vsphere_places
from networks.hypervisors.base import (
    Busy,
    ImageRoot,
    NotFound,
    PowerState,
    Refused,
    VmRef,
    VmSpec,
    beat,
)
from networks.hypervisors.bounded import current_deadline
from networks.hypervisors.vsphere_devices import Slot
from networks.hypervisors.vsphere_machines import power_state
from networks.hypervisors.vsphere_names import root_uuid, vm_name, vm_uuid, volume_name
from networks.hypervisors.vsphere_places import Place
from networks.hypervisors.vsphere_session import Session
from networks.hypervisors.vsphere_tasks import LockedDoor, finish
from networks.hypervisors.vsphere_types import vim
from networks.hypervisors.vsphere_updates import Updates, Watched

VOLUME_MARK = "extdhcp.volume"  # says that the VM is ours, and how its ROOT volume is called
DRIVE_MARK = "extdhcp.drive"  # the slot of our CD-ROM drive
WAIT_SECONDS = 5.0
LATEST_SECONDS = 10.0  # before the deadline, a clone that is being made is waited for no longer
_PATHS = (
    "config.uuid",
    "config.instanceUuid",
    "config.extraConfig",
    "config.hardware.device",
    "runtime.powerState",
    "runtime.host",
    "datastore",
    "guest.toolsRunningStatus",
)


@dataclass(frozen=True)
class Guest:
    """A VM as it was read a moment ago. `host` is the identifier of the one it is registered on."""

    ref: Any
    instance_uuid: str
    power: PowerState
    host: str
    devices: tuple[Any, ...]
    marks: dict[str, str]
    datastores: tuple[Any, ...]
    tools_run: bool

    @property
    def is_off(self) -> bool:
        return self.power is PowerState.OFF

    @property
    def drive(self) -> Any | None:
        return vsphere_devices.drive_in(self.devices, Slot.written(self.marks.get(DRIVE_MARK, "")))


def find(session: Session, vm: VmRef) -> Any:
    """Raises NotFound."""
    found = session.do(session.content.searchIndex.FindByUuid, None, vm_uuid(vm.uuid), True, False)
    if found is None:
        raise NotFound(f"vSphere does not know {vm.name}.")
    return found


def ours(session: Session, vm: VmRef) -> Guest:
    """Raises NotFound, and Refused for a VM that others made."""
    guest = _read(session, find(session, vm))
    if VOLUME_MARK not in guest.marks:
        raise Refused(f"A VM with the UUID of {vm.name} is in vSphere, and it is not ours.")
    return guest


def known(session: Session, vm: VmRef) -> Guest | None:
    """None for a VM that vSphere does not know. Raises Refused for one that others made."""
    try:
        return ours(session, vm)
    except NotFound:
        return None


def _read(session: Session, ref: Any) -> Guest:
    facts = session.read(ref, *_PATHS)
    if facts["config.uuid"] is None or facts["runtime.host"] is None:
        raise Busy("vSphere has not finished making the VM, or cannot reach its files.")
    options = {option.key: option.value for option in facts["config.extraConfig"] or []}
    return Guest(
        ref=ref,
        instance_uuid=facts["config.instanceUuid"].lower(),
        power=power_state(facts["runtime.powerState"]),
        host=facts["runtime.host"]._moId,
        devices=tuple(facts["config.hardware.device"] or ()),
        marks={key: str(value) for key, value in options.items() if key in (VOLUME_MARK, DRIVE_MARK) and value},
        datastores=tuple(facts["datastore"] or ()),
        tools_run=facts["guest.toolsRunningStatus"] == "guestToolsRunning",
    )


def configure(session: Session, ref: Any, door: LockedDoor = LockedDoor.LEAVE, **fields: Any) -> None:
    """Change a VM's configuration; `fields` are those of vSphere's ConfigSpec."""
    specification = vim.vm.ConfigSpec(**fields)
    finish(session, session.do(ref.ReconfigVM_Task, specification), ref, door)


# ROOT volumes -----------------------------------------------------------------------------------


def find_root(session: Session, root: ImageRoot) -> Any | None:
    uuid = root_uuid(volume_name(root.volume))
    return session.do(session.content.searchIndex.FindByUuid, None, uuid, True, True)


def clone_root(session: Session, there: Place, root: ImageRoot) -> Any:
    """A parked clone of the template. Raises NotFound, Refused, StorageProblem."""
    if not session.is_vcenter:
        raise Refused("An ESXi without a vCenter cannot clone a template: add it to a vCenter.")
    vsphere_places.check_usable(session, there)
    store = vsphere_places.datastore(session, there, root.pool)
    source = vsphere_places.template(session, there, root.image)
    vsphere_devices.check_size(session.read(source, "config.hardware.device")["config.hardware.device"] or [], root)
    uuid = root_uuid(root.volume)
    specification = vim.vm.CloneSpec(
        location=vim.vm.RelocateSpec(host=there.host, pool=there.pool, datastore=store.ref),
        powerOn=False,
        template=False,
        config=vim.vm.ConfigSpec(instanceUuid=uuid, extraConfig=_options({VOLUME_MARK: root.volume})),
    )
    try:
        clone = finish(session, session.do(source.CloneVM_Task, there.vm_folder, root.volume, specification))
    except Refused as error:
        if not isinstance(error.__cause__, vim.fault.DuplicateName):
            raise
        clone = _cloned_before(session, there, root)
    configure(session, clone, **_parked(uuid, root.volume))
    return clone


def _cloned_before(session: Session, there: Place, root: ImageRoot) -> Any:
    """What a former attempt, which did not wait until the end, has made by now."""
    found = session.do(session.content.searchIndex.FindChild, there.vm_folder, root.volume)
    if isinstance(found, vim.VirtualMachine):
        _wait_until_made(session, found)
        if _read(session, found).marks.get(VOLUME_MARK) == root.volume:
            return found
    raise Refused(f"Something else in vSphere is called {root.volume}.")


def _wait_until_made(session: Session, ref: Any) -> None:
    """Until the VM has a configuration. Raises Busy when that takes too long."""
    updates = Updates(session, [Watched(vim.VirtualMachine, ("config.uuid",), objects=(ref,))])
    try:
        while time.monotonic() < current_deadline() - LATEST_SECONDS:
            for change in updates.next(WAIT_SECONDS):
                if change.properties is None:
                    raise Busy("The clone that vSphere was making has gone: it could not be made.")
                if change.properties.get("config.uuid"):
                    return
            beat()
    finally:
        updates.close()
    raise Busy("vSphere has not finished making the VM.")


def grow(session: Session, ref: Any, size: int) -> None:
    devices = session.read(ref, "config.hardware.device")["config.hardware.device"] or []
    change = vsphere_devices.grown(devices, size)
    if change is not None:
        configure(session, ref, deviceChange=[change])


def _parked(instance_uuid: str, volume: str) -> dict[str, Any]:
    # Nobody asks for this SMBIOS UUID: no VM of ours is found by it.
    return {"name": volume, "uuid": instance_uuid, "instanceUuid": instance_uuid}


def is_parked(uuid: str, instance_uuid: str) -> bool:
    return uuid == instance_uuid


def delete_root(session: Session, root: ImageRoot) -> None:
    """Gone already is success. Raises Busy while it is in use, or being made."""
    ref = find_root(session, root)
    guest = _begun(session, root) if ref is None else _read(session, ref)
    if guest is None:
        return
    if not guest.is_off:
        raise Busy(f"ROOT volume {root.volume} is in use by a VM that is {guest.power.value}.")
    finish(session, session.do(guest.ref.Destroy_Task))


def _begun(session: Session, root: ImageRoot) -> Guest | None:
    """The clone that nobody waits for any more: it has its name at once, and its UUID when it is made. Raises Busy."""
    for datacenter in session.find_all(vim.Datacenter, "vmFolder"):
        folder = datacenter.properties["vmFolder"]
        found = session.do(session.content.searchIndex.FindChild, folder, root.volume)
        if isinstance(found, vim.VirtualMachine):
            guest = _read(session, found)
            if guest.marks.get(VOLUME_MARK) == root.volume:
                return guest
    return None


# Life cycle -------------------------------------------------------------------------------------


def define(session: Session, there: Place, spec: VmSpec, root: ImageRoot) -> None:
    """Make the parked clone the VM; one that is defined gets its definition anew. Its drive is empty then."""
    ref = find_root(session, root)
    if ref is None:
        raise NotFound(f"vSphere has no ROOT volume {root.volume}.")
    holder = session.do(session.content.searchIndex.FindByUuid, None, vm_uuid(spec.vm.uuid), True, False)
    if holder is not None and holder != ref:
        raise Refused(f"Another VM in vSphere has the UUID of {spec.vm.name}.")
    guest = _read(session, ref)
    if not guest.is_off:
        raise Refused(f"{spec.vm.name} is {guest.power.value} in vSphere: its definition cannot be changed.")
    settle(session, there, guest)
    networks = {nic.mac: nic.network for nic in spec.nics}
    found = {each: vsphere_places.network(session, there, each) for each in dict.fromkeys(networks.values())}
    backings = {each: vsphere_places.backing(session, ref) for each, ref in found.items()}
    changes = list(vsphere_devices.card_changes(guest.devices, {mac: backings[each] for mac, each in networks.items()}))
    slot, drive_change = _emptied_drive(guest)
    configure(
        session,
        ref,
        name=vm_name(spec.vm.name),
        uuid=vm_uuid(spec.vm.uuid),
        annotation=spec.title,
        numCPUs=spec.cpus,
        memoryMB=_megabytes(spec.memory),
        deviceChange=[*changes, drive_change],
        # A VM whose files seem to have moved is asked about its UUID at its start, unless this is said.
        extraConfig=_options({DRIVE_MARK: str(slot), VOLUME_MARK: root.volume, "uuid.action": "keep"}),
    )


def _megabytes(size: int) -> int:
    """vSphere wants a multiple of four."""
    return -(-size // (4 * 1024**2)) * 4


def _emptied_drive(guest: Guest) -> tuple[Slot, Any]:
    drive = guest.drive
    if drive is None:
        slot = vsphere_devices.free_slot(guest.devices)
        return slot, vsphere_devices.new_drive(slot, None)
    return Slot(drive.controllerKey, drive.unitNumber or 0), vsphere_devices.changed_drive(drive, None, running=False)


def _options(values: dict[str, str]) -> list[Any]:
    return [vim.option.OptionValue(key=key, value=value) for key, value in values.items()]


def settle(session: Session, there: Place, guest: Guest) -> None:
    """Register a VM that is off on this host. Raises HostUnavailable, Refused."""
    vsphere_places.check_usable(session, there)
    if guest.host == there.identifier:
        return
    check_storage_shared(session, there, guest)
    specification = vim.vm.RelocateSpec(host=there.host, pool=there.pool)
    finish(session, session.do(guest.ref.RelocateVM_Task, specification), guest.ref)


def check_storage_shared(session: Session, there: Place, guest: Guest) -> None:
    mounted = session.read(there.host, "datastore")["datastore"] or []
    if any(store not in mounted for store in guest.datastores):
        raise Refused(f"Host {there.name} does not see this VM's datastore: the storage is not shared.")


def power_off(session: Session, guest: Guest) -> None:
    try:
        finish(session, session.do(guest.ref.PowerOffVM_Task), guest.ref, LockedDoor.OVERRIDE)
    except Refused:
        if power_state(session.read(guest.ref, "runtime.powerState")["runtime.powerState"]) is not PowerState.OFF:
            raise


def park(session: Session, guest: Guest) -> None:
    """Forget the VM, and keep its ROOT volume."""
    drive = guest.drive
    ejected = [] if drive is None else [vsphere_devices.changed_drive(drive, None, running=False)]
    configure(session, guest.ref, deviceChange=ejected, **_parked(guest.instance_uuid, guest.marks[VOLUME_MARK]))
