"""Why a password was not set, or user data not read (config drive spec, "Troubleshooting", 1 and 2)."""

from collections.abc import Iterator

from configdrive.facts import FIXED_LABELS, STOCK_LABEL, label
from configdrive.guest_scripts import STATUS_FILE, WINDOWS_STATUS_FILE, InvalidStatus, parse_status
from configdrive.models import ConfigDrive
from configdrive.storage import SHORTEST_BOOT, wanted
from configdrive.upkeep import fault_of
from networks.checks import Check
from networks.elements import Place
from networks.hypervisors.base import GuestAgent, HypervisorError, NotFound
from networks.models import ConfigDriveUse, DriveReader, VirtualMachine, VmState
from networks.models.offerings import OsFamily
from networks.services.places import CALL, place, within

# SeaBIOS reads one sector of each CD-ROM at every reset; a mount and a look at the smallest file read some 10 KB.
MORE_THAN_FIRMWARE_READS = 8192


def drive_checks(vm: VirtualMachine) -> Iterator[Check]:
    drive = ConfigDrive.objects.filter(vm=vm).select_related("storage", "host", "vm").first()
    yield from _data(vm)
    if drive is None or not drive.name:
        yield _why_none(vm, drive)
        return
    there = place(vm.host) if vm.host else None
    yield _on_host(drive, there)
    yield _label(vm, drive)
    if vm.needs_restart:
        advice = drive.last_error or "Reboot the VM by the API, or stop and start it."
        yield Check("news", False, f"What changed has not reached the guest. {advice}")
    if there and vm.state == VmState.RUNNING:
        yield _read(vm, there)
        yield _boot(vm, drive)
        yield _script(vm, there)


def _data(vm: VirtualMachine) -> Iterator[Check]:
    if not vm.template.password_enabled:
        yield Check("password", None, f"Template {vm.template} is not password enabled: the VM has none.")
    elif vm.password:
        yield Check("password", None, "one waits to be set: it is on the drive until the guest was seen booted with it")
    elif vm.drive_use == ConfigDriveUse.NEVER:
        yield Check("password", None, "none waits; without a drive, only a reset with guestuser sets one")
    else:
        yield Check("password", True, "none waits: the guest has booted with it, or its agent has set it")
    size = len(vm.user_data_bytes or b"")
    yield Check(
        "user data", None, f"{size} bytes" if size else "The VM has none: give it some with updateVirtualMachine."
    )


def _why_none(vm: VirtualMachine, drive: ConfigDrive | None) -> Check:
    if drive and drive.last_error:
        when = "every ten minutes" if vm.state == VmState.RUNNING else "when the VM starts"
        return Check("drive", False, f"There is none: {drive.last_error} It is tried again {when}.")
    if vm.state != VmState.RUNNING:
        return Check("drive", None, "There is none while the VM is off; it is built when it starts.")
    if drive and not wanted(vm, drive):
        return Check("drive", None, f"There is none, as the VM's setting says: {vm.get_drive_use_display()}.")
    return Check("drive", False, "It was ejected. Stop and start the VM, or reset what the guest is to know.")


def _on_host(drive: ConfigDrive, there: Place | None) -> Check:
    facts = (
        f"generation {drive.generation} of {drive.built_at:%Y-%m-%d %H:%M:%S} UTC, {drive.size} bytes, "
        f"{drive.path} on {drive.host}"
    )
    try:
        fault = fault_of(drive, there) if there else ""
    except HypervisorError as error:
        return Check("drive", None, f"{facts}; {drive.host} could not be asked: {error}")
    if fault:
        return Check("drive", False, f"{facts}; it is {fault}. Verify it in the admin, which makes it anew.")
    return Check("drive", True, facts)


def _label(vm: VirtualMachine, drive: ConfigDrive) -> Check:
    reader = vm.template.drive_reader
    looks_for = FIXED_LABELS.get(DriveReader(reader)) if reader else None
    if label(vm) != drive.label:
        return Check("label", None, f"{drive.label}; after the next start {label(vm)}")
    if looks_for:
        found = drive.label.lower() == looks_for
        return Check("label", found, f"{drive.label}; {vm.template.get_drive_reader_display()} looks for {looks_for}")
    if drive.label.lower() != STOCK_LABEL and not reader:
        return Check(
            "label",
            None,
            f"{drive.label}: stock cloud-init, cloudbase-init and Ignition look for {STOCK_LABEL} only. Say in the "
            f"template {vm.template} what reads its drive.",
        )
    return Check("label", True, drive.label)


def _read(vm: VirtualMachine, there: Place) -> Check:
    try:
        count = there.hypervisor.bytes_read(vm.on_host, within(CALL))
    except HypervisorError as error:
        return Check("read", None, f"{there.host} could not be asked: {error}")
    if count is None:
        return Check("read", None, f"{there.host} does not count what a guest reads.")
    if count < MORE_THAN_FIRMWARE_READS:
        return Check(
            "read", False, "The guest has not read the disc since its power-on: no CD-ROM driver, or not booted."
        )
    return Check("read", True, f"The guest has read {count} bytes of the disc since its power-on.")


def _boot(vm: VirtualMachine, drive: ConfigDrive) -> Check:
    if drive.booted_at is None:
        return Check("boot", False, "The guest has not booted with this disc yet: reboot it.")
    if vm.guest_seen_at and vm.guest_seen_at >= drive.booted_at + SHORTEST_BOOT:
        return Check("boot", True, f"booted with it at {drive.booted_at:%Y-%m-%d %H:%M:%S} UTC, and seen since")
    return Check("boot", None, f"powered on with it at {drive.booted_at:%Y-%m-%d %H:%M:%S} UTC, and not seen since")


def _script(vm: VirtualMachine, there: Place) -> Check:
    if not isinstance(there.hypervisor, GuestAgent):
        return Check("guest script", None, "This hypervisor cannot look into a guest.")
    path = WINDOWS_STATUS_FILE if vm.template.os_family == OsFamily.WINDOWS else STATUS_FILE
    try:
        status = parse_status(there.hypervisor.read_guest_file(vm.on_host, path, within(CALL)))
    except NotFound:
        return Check(
            "guest script",
            None,
            f"It has left no {path}: the scripts of /guest/ are not in the template, or did not run.",
        )
    except InvalidStatus as error:
        return Check("guest script", None, f"{path} is not its report: {error}")
    except HypervisorError as error:
        return Check("guest script", None, f"The guest agent does not tell: {error}")
    acts = f"password: {status.password or 'not reached'}, keys: {status.keys or 'not reached'}"
    size = "not reached" if status.user_data_bytes is None else f"{status.user_data_bytes} bytes"
    drive = status.drive or f"no drive labelled {status.label}"
    failed = not status.drive or "failed" in (status.password, status.keys)
    return Check(
        "guest script",
        not failed,
        f"ran at {status.ran_at:%Y-%m-%d %H:%M:%S} UTC by the guest's clock, found {drive}; {acts}; user data: {size}",
    )
