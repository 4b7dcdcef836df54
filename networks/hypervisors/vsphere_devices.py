"""A VM's devices: our CD-ROM drive and the NICs. Device lists in, changes of them out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from networks.hypervisors.base import ImageRoot, Refused
from networks.hypervisors.vsphere_types import vim

_Device = vim.vm.device
_Cdrom = _Device.VirtualCdrom
_Operation = _Device.VirtualDeviceSpec.Operation
_SLOT = re.compile(r"([0-9]{1,9}):([0-9]{1,3})")
_SATA_UNITS, _IDE_UNITS = 30, 2


def change(operation: str, device: Any) -> Any:
    return _Device.VirtualDeviceSpec(operation=operation, device=device)


# Our CD-ROM drive -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """Where a drive sits. Users have drives of their own: which one is ours is written down with the VM."""

    controller: int
    unit: int

    def __str__(self) -> str:
        return f"{self.controller}:{self.unit}"

    @classmethod
    def written(cls, text: str) -> "Slot | None":
        found = _SLOT.fullmatch(text)
        return cls(int(found[1]), int(found[2])) if found else None


def drive_in(devices: Iterable[Any], slot: Slot | None) -> Any | None:
    for device in devices:
        if isinstance(device, _Cdrom) and slot == Slot(device.controllerKey or 0, device.unitNumber or 0):
            return device
    return None


def free_slot(devices: Iterable[Any]) -> Slot:
    """For a drive of ours: on SATA where the VM has a controller, else on IDE. Raises Refused when all are taken."""
    devices = list(devices)
    taken = {(device.controllerKey, device.unitNumber) for device in devices}
    for kind, units in ((_Device.VirtualSATAController, _SATA_UNITS), (_Device.VirtualIDEController, _IDE_UNITS)):
        for controller in devices:
            if isinstance(controller, kind):
                # From the end: guests number drives from the beginning, where the user's own belong.
                for unit in reversed(range(units)):
                    if (controller.key, unit) not in taken:
                        return Slot(controller.key, unit)
    raise Refused("The VM has no place left for a CD-ROM drive on SATA or IDE.")


def new_drive(slot: Slot, path: str | None) -> Any:
    return change(_Operation.add, _drive(-1, slot, path, connected=False))


def changed_drive(drive: Any, path: str | None, *, running: bool) -> Any:
    """`path` is the disc's, None ejects it."""
    slot = Slot(drive.controllerKey, drive.unitNumber or 0)
    return change(_Operation.edit, _drive(drive.key, slot, path, connected=running and path is not None))


def _drive(key: int, slot: Slot, path: str | None, *, connected: bool) -> Any:
    if path is None:
        backing = _Cdrom.RemotePassthroughBackingInfo(deviceName="", exclusive=False)
    else:
        backing = _Cdrom.IsoBackingInfo(fileName=path)
    return _Cdrom(
        key=key,
        controllerKey=slot.controller,
        unitNumber=slot.unit,
        backing=backing,
        deviceInfo=vim.Description(label="", summary=""),
        connectable=_Device.VirtualDevice.ConnectInfo(
            startConnected=path is not None, connected=connected, allowGuestControl=True
        ),
    )


def disc(drive: Any) -> str | None:
    """The path of the ISO in a drive."""
    return str(drive.backing.fileName) if isinstance(drive.backing, _Cdrom.IsoBackingInfo) else None


# NICs -------------------------------------------------------------------------------------------


def cards(devices: Iterable[Any]) -> dict[str, Any]:
    """The NICs by MAC address, lower case."""
    found = (device for device in devices if isinstance(device, _Device.VirtualEthernetCard))
    return {(card.macAddress or "").lower(): card for card in found}


def card_kind(devices: Iterable[Any]) -> type:
    """The NIC that this VM's guest has a driver for: the one it has."""
    for device in devices:
        if isinstance(device, _Device.VirtualEthernetCard):
            return type(device)
    return type(_Device.VirtualVmxnet3())


def new_card(kind: type, mac: str, backing: Any, *, number: int) -> Any:
    card = kind(
        key=-100 - number,  # new devices of one request need keys of their own
        backing=backing,
        addressType="manual",
        macAddress=mac,
        wakeOnLanEnabled=True,
        connectable=_Device.VirtualDevice.ConnectInfo(startConnected=True, connected=True, allowGuestControl=False),
    )
    return change(_Operation.add, card)


def card_changes(devices: Iterable[Any], wanted: dict[str, Any]) -> Iterator[Any]:
    """What makes the NICs of a VM that is off those `wanted`, given as the backing of each MAC."""
    devices = list(devices)
    present, kind = cards(devices), card_kind(devices)
    for mac, card in present.items():
        if mac not in wanted:
            yield change(_Operation.remove, card)
    for number, (mac, backing) in enumerate(wanted.items()):
        if mac not in present:
            yield new_card(kind, mac, backing, number=number)
        elif not same_network(present[mac].backing, backing):
            present[mac].backing = backing
            yield change(_Operation.edit, present[mac])


def same_network(one: Any, other: Any) -> bool:
    return _network_key(one) == _network_key(other)


def _network_key(backing: Any) -> tuple[str, str]:
    card = _Device.VirtualEthernetCard
    if isinstance(backing, card.DistributedVirtualPortBackingInfo):
        return "distributed", backing.port.portgroupKey or ""
    if isinstance(backing, card.OpaqueNetworkBackingInfo):
        return "opaque", backing.opaqueNetworkId
    return "standard", getattr(backing, "deviceName", "")


def is_connected(card: Any) -> bool:
    return card.connectable is None or bool(card.connectable.connected)


# Disks ------------------------------------------------------------------------------------------


def root_disk(devices: Iterable[Any]) -> Any | None:
    return next((device for device in devices if isinstance(device, _Device.VirtualDisk)), None)


def disk_bytes(disk: Any) -> int:
    return int(disk.capacityInBytes or disk.capacityInKB * 1024)


def check_size(devices: Iterable[Any], root: ImageRoot) -> None:
    """Raises Refused for a template that cannot become this ROOT volume."""
    disk = root_disk(devices)
    if disk is None:
        raise Refused(f"Template {root.image} has no disk.")
    if root.size and root.size < disk_bytes(disk):
        raise Refused(f"Template {root.image} is larger than the ROOT volume asked for.")


def grown(devices: Iterable[Any], size: int) -> Any | None:
    """What makes the ROOT disk as large as asked for; None when it is."""
    disk = root_disk(devices)
    if disk is None or size <= disk_bytes(disk):
        return None
    disk.capacityInBytes, disk.capacityInKB = size, size // 1024
    return change(_Operation.edit, disk)
