"""Looking into a VM's config drive, which the VM's owner hears of. A password is shown to nobody."""

from dataclasses import dataclass

from configdrive.content import DriveError
from configdrive.facts import MASK, ShownFile, drive_with, plan
from configdrive.models import ConfigDrive
from configdrive.storage import digest
from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import ApiError, InvalidParameter, PermissionDenied
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from networks.models import VirtualMachine

PERMISSION = "configdrive.reveal_configdrive"


@dataclass(frozen=True)
class Revealed:
    """`as_built`: the disc in the VM's CD-ROM holds these files; otherwise it would if it were built now."""

    label: str
    as_built: bool
    files: list[ShownFile]


def may_reveal(vm: VirtualMachine, caller: Caller) -> bool:
    return vm.account_id == caller.account.pk or caller.user.has_perm(PERMISSION)


def reveal(vm: VirtualMachine, by: Caller) -> Revealed:
    """The drive's files with all but the password. Raises PermissionDenied, InvalidParameter."""
    if not may_reveal(vm, by):
        raise PermissionDenied("You lack the permission to reveal config drives of other accounts' VMs.")
    wanted = plan(vm)
    drive = ConfigDrive.objects.filter(vm=vm).first()
    try:
        files = drive_with(wanted, password=MASK)
    except DriveError as error:
        raise InvalidParameter(f"The config drive of {vm} cannot be built: {error}") from None
    found = Revealed(wanted.label, is_as_built(vm, drive), files)
    events.record(
        EventType.VM_CONFIGDRIVE,
        f"{vm}: the content of its config drive was revealed, but for passwords",
        account=vm.account,
        on=vm,
        by=by,
    )
    return found


def is_as_built(vm: VirtualMachine, drive: ConfigDrive | None) -> bool:
    """Whether the disc in the VM's CD-ROM holds what the VM's drive is to say now."""
    if drive is None or not drive.name:
        return False
    try:
        return digest(plan(vm).image(drive.dated)) == drive.sha256
    except ApiError:
        return False
