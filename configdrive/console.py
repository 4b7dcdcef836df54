"""A VM's config drive on its page, what its content is, and what it would be of a VM that is yet to be deployed."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from configdrive.content import DriveError
from configdrive.facts import ShownFile, masked_files, plan, plan_of_new
from configdrive.models import ConfigDrive
from configdrive.reveal import is_as_built, may_reveal
from configdrive.storage import wanted
from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action
from extdhcp_site.console.pages import page
from extdhcp_site.errors import ApiError
from extdhcp_site.events.models import Event, EventType, State
from networks.console.sections import Section, add, previews
from networks.console.vm import find
from networks.models import ConfigDriveUse, Nic, VirtualMachine, VmState

# What a guest is to know anew leaves one of these.
CHANGES = (
    EventType.VM_UPDATE,
    EventType.VM_UPGRADE,
    EventType.VM_RESETPASSWORD,
    EventType.VM_RESETSSHKEY,
    EventType.VM_RESETUSERDATA,
    EventType.NIC_CREATE,
    EventType.NIC_DELETE,
    EventType.NIC_UPDATE,
)
MOST_CHANGES = 8
MAY_START = (VmState.STOPPED, VmState.STARTING)
# For good, or until it is recovered: what its drive would be is of no use.
OFF = (VmState.DESTROYED, VmState.EXPUNGING, VmState.ERROR)


@dataclass(frozen=True)
class DriveState:
    """A word, its chip's class, and what it means for the guest."""

    word: str
    chip: str
    text: str


def state_of(vm: VirtualMachine, drive: ConfigDrive | None) -> DriveState:
    if drive is not None and drive.name:
        if vm.needs_restart:
            return DriveState("Waits for a restart", "warn", "The guest learns what is new when it is restarted.")
        return DriveState("In the CD-ROM", "found", "The guest has it in its CD-ROM drive.")
    if drive is not None and drive.last_error:
        return DriveState("Missing", "error", "It could not be made ready, and is tried again.")
    if vm.state == VmState.RUNNING and (drive is None or wanted(vm, drive)):
        return DriveState("Ejected", "warn", "It was taken out until the VM starts again, or what it tells changes.")
    if vm.drive_use == ConfigDriveUse.NEVER:
        return DriveState("None", "off", "The VM is set to have none.")
    if vm.state == VmState.RUNNING:
        return DriveState("None", "off", "The guest has booted with all that it told, and it was taken out as is set.")
    if vm.state in MAY_START:
        return DriveState("None", "off", "It is built when the VM starts.")
    return DriveState("None", "off", "The VM is off, and has none.")


def _drive(caller: Caller, vm: VirtualMachine) -> dict[str, object]:
    drive = ConfigDrive.objects.filter(vm=vm).select_related("host", "storage").first()
    as_built = is_as_built(vm, drive)
    return {
        "drive": drive,
        "state": state_of(vm, drive),
        "as_built": as_built,
        "changes": [] if as_built else _changes(caller, vm, drive),
        "drive_actions": _actions(caller, vm, drive),
        "reveal": _reveal(vm) if may_reveal(vm, caller) else None,
        **(_files(vm) if vm.state not in OFF else {}),
    }


def _files(vm: VirtualMachine) -> dict[str, object]:
    try:
        return _listed(masked_files(plan(vm)))
    except DriveError as error:
        return {"files": [], "cannot_build": f"The config drive of {vm} cannot be built: {error}"}


def _listed(files: Sequence[ShownFile]) -> dict[str, object]:
    return {"files": files, "bytes": sum(file.size for file in files)}


def _changes(caller: Caller, vm: VirtualMachine, drive: ConfigDrive | None) -> list[tuple[Event, str]]:
    """What became other than the disc in the CD-ROM tells, as far as events say it."""
    if drive is None or not drive.name or drive.built_at is None:
        return []
    since = Event.objects.visible_to(caller).about(vm).filter(type__in=CHANGES, created_at__gt=drive.built_at)
    ended = since.filter(state__in=[State.CREATED, State.COMPLETED])[:MOST_CHANGES]
    return [(event, event.text_for(caller)) for event in ended]


def _actions(caller: Caller, vm: VirtualMachine, drive: ConfigDrive | None) -> list[Action]:
    if vm.state != VmState.RUNNING or drive is None:
        return []
    values = {"virtualmachineid": str(vm.uuid)}
    actions = [Action("rebuildConfigDrive", "Rebuild", values)]
    if drive.name:
        sure = f"Take the config drive out of {vm}? It will be erased from {drive.host} until the VM starts again."
        actions += [
            Action("verifyConfigDrive", "Verify", values),
            Action("ejectConfigDrive", "Eject", values, sure=sure, is_destructive=True),
        ]
    return commands.permitted(caller, actions)


def _reveal(vm: VirtualMachine) -> Action:
    return Action(
        "revealConfigDrive",
        "Reveal",
        {"virtualmachineid": str(vm.uuid)},
        sure=f"Show the user data that is on the drive of {vm}? An event says so. Passwords are shown to nobody.",
    )


def _preview(vm: VirtualMachine, nics: Sequence[Nic]) -> dict[str, object]:
    if vm.drive_use == ConfigDriveUse.NEVER:
        return {"label": "", "files": []}
    planned = plan_of_new(vm, nics)
    try:
        return {"label": planned.label, **_listed(masked_files(planned))}
    except DriveError as error:
        return {"label": planned.label, "files": [], "cannot_build": str(error)}


add(Section("Config drive", "configdrive/vm_drive.html", _drive, order=30))
previews("configdrive/preview.html", _preview)


@page("vms/<uuid:uuid>/drive/", name="vm-drive", roles=EVERYBODY, section="vms", posts=True)
def vm_drive(request: HttpRequest, caller: Caller, uuid: str) -> HttpResponse:
    """What is on it, revealed: shown for as long as the page is open."""
    vm = find(caller, uuid)
    if request.method != "POST":
        return redirect("vm", vm.uuid)
    action = _reveal(vm)
    try:
        answer = commands.run(action.command, caller, action.values.items())[1]["configdrive"]
    except ApiError as refusal:
        messages.error(request, commands.words(refusal, caller))
        return redirect("vm", vm.uuid)
    context = {"vm": vm, "action": action, "answer": answer, **_listed(list(_told(answer["file"])))}
    return render(request, "configdrive/vm_drive_revealed.html", context)


def _told(files: Iterable[dict[str, object]]) -> Iterable[ShownFile]:
    for file in files:
        yield ShownFile(str(file["path"]), int(str(file["size"])), base64.b64decode(str(file["content"])))
