"""What a VM's guest is to know: password, SSH keys, user data, host name. Checked, and changed.

A change is written in one transaction with the job that brings it to a running guest; a stopped one
learns it at its next start. How it is brought is the elements' part.
"""

import base64
import binascii
import re
import secrets
import string
from collections.abc import Sequence

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.encryption import seal
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken
from networks import elements
from networks.configuration import PASSWORD_LENGTH, USER_DATA_MAX_LENGTH
from networks.models import ConfigDriveUse, SshKeyPair, Template, VirtualMachine
from networks.models.vms import VmState, host_name
from networks.services.submission import must_tell, not_now, submit

ALPHABET = string.ascii_letters + string.digits
AT_REST = {VmState.RUNNING: VmState.RUNNING, VmState.STOPPED: VmState.STOPPED}
# cloud-init takes the first two for "make one up", CloudStack's scripts the third for "it did not change".
_TAKEN_WORDS = ("R", "RANDOM", "saved_password")
# What cloud-init and chpasswd take for a password that is hashed already (crypt(5)).
_LOOKS_HASHED = re.compile(r"\$[0-9a-z]{1,3}\$.+")
# A program that is run through the guest agent is given it: names as useradd and Windows allow them.
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}")


# Checks ---------------------------------------------------------------------------------------


def new_password() -> str:
    """Letters and digits only: guest scripts expand it unquoted, and Windows reads it as ANSI."""
    return "".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_LENGTH.get()))


def check_password(password: str) -> None:
    """Raises InvalidParameter for what some reader of the drive would not set as it is. Empty: none is given."""
    if not (password.isascii() and password.isprintable()):
        raise InvalidParameter("password: printable ASCII characters only, on one line.")
    if password != password.strip():
        raise InvalidParameter("password: must not begin or end with a blank.")
    if password in _TAKEN_WORDS:
        raise InvalidParameter(f"password: guests give {password!r} a meaning of its own. Choose another one.")
    if _LOOKS_HASHED.fullmatch(password):
        raise InvalidParameter("password: guests would take this for a hash. Give it in clear, or choose another one.")


def check_user_data(user_data: str) -> None:
    """Raises InvalidParameter unless it is strict base64 of at most `vm.userdata.max.length` characters, or empty."""
    if not user_data:
        return
    longest = USER_DATA_MAX_LENGTH.get()
    if len(user_data) > longest:
        raise InvalidParameter(
            f"userdata has {len(user_data)} base64 characters; vm.userdata.max.length allows {longest}."
        )
    try:
        strict = base64.b64encode(base64.b64decode(user_data, validate=True)).decode() == user_data
    except (binascii.Error, ValueError):
        strict = False
    if not strict:
        raise InvalidParameter("userdata must be base64 (RFC 4648, section 4), without line breaks.")


def check_drive_use(drive_use: str, template: Template) -> None:
    """Raises InvalidParameter for no drive where the template's guests cannot do without."""
    if drive_use == ConfigDriveUse.NEVER and template.drive_required:
        raise InvalidParameter(f"Template {template} requires a config drive: configdrive=Never is not for its VMs.")


def _check_takes_passwords(vm: VirtualMachine, agent_user: str) -> None:
    if not vm.template.password_enabled:
        raise InvalidParameter(
            f"Template {vm.template} is not password enabled: nothing in its guest would set the password."
        )
    if vm.drive_use == ConfigDriveUse.NEVER and not agent_user:
        raise InvalidParameter(
            f"{vm} has no config drive to bring the password. Name a guestuser, whose password the guest agent of the "
            "running VM sets at once, or give it a drive: updateVirtualMachine configdrive=Always."
        )


# Changes --------------------------------------------------------------------------------------


def reset_password(vm: VirtualMachine, by: Caller, password: str = "", *, agent_user: str = "") -> AsyncJob:
    """Give the guest a new password, made up if none is given; whoever submits the job reads it in the result.

    With `agent_user`, a running guest's agent is asked to set that user's password at once. Unlike
    in CloudStack, the network needs no service for it, and the VM may run.
    """
    _check_takes_passwords(vm, agent_user)
    check_password(password)
    if agent_user and not _USER_NAME.fullmatch(agent_user):
        raise InvalidParameter("guestuser: a user's name as it is in the guest, such as root or Administrator.")
    if agent_user and vm.state != VmState.RUNNING:
        raise InvalidParameter(f"{vm} is {vm.state}: its guest agent can be asked only while it is Running.")
    password = password or new_password()
    with transaction.atomic():
        job = submit("resetPasswordForVirtualMachine", vm, by, AT_REST, agent_user=agent_user)
        _change(vm, password=seal(vm, "password", password))
        jobs.keep_secret(job, password=password)
    return job


def reset_ssh_keys(vm: VirtualMachine, by: Caller, pairs: Sequence[SshKeyPair]) -> AsyncJob:
    """Replace the VM's SSH keys by those of `pairs`."""
    with transaction.atomic():
        job = submit("resetSSHKeyForVirtualMachine", vm, by, AT_REST)
        _change(vm, ssh_keys=keys_of(pairs))
    return job


def reset_user_data(vm: VirtualMachine, by: Caller, user_data: str) -> None:
    """Replace the VM's user data (base64; empty: none from now on)."""
    check_user_data(user_data)
    with transaction.atomic():
        _change_at_rest("resetUserDataForVirtualMachine", vm, by, user_data=_sealed_user_data(vm, user_data))
        events.record(EventType.VM_RESETUSERDATA, f"{vm}: user data replaced", account=vm.account, on=vm, by=by)


def update(
    vm: VirtualMachine,
    by: Caller,
    *,
    name: str | None = None,
    display_name: str | None = None,
    group_name: str | None = None,
    user_data: str | None = None,
    drive_use: str | None = None,
) -> None:
    """Change what is given. A new host name needs the VM stopped: a guest takes its name as it boots."""
    changes: dict[str, object] = {}
    if user_data is not None:
        check_user_data(user_data)
        changes["user_data"] = _sealed_user_data(vm, user_data)
    if drive_use is not None and drive_use != vm.drive_use:
        check_drive_use(drive_use, vm.template)
        changes["drive_use"] = ConfigDriveUse(drive_use)
    is_renamed = name is not None and name != vm.name
    said = {"display_name": display_name, "group_name": group_name}
    labels = {column: text for column, text in said.items() if text and text != getattr(vm, column)}
    if not (is_renamed or labels or changes):
        return  # Terraform and Ansible say again what they said before
    with transaction.atomic():
        if is_renamed:
            _rename(vm, name)
        if labels:
            VirtualMachine.objects.filter(pk=vm.pk).update(**labels)
        if changes:
            _change_at_rest("updateVirtualMachine", vm, by, **changes)
        events.record(EventType.VM_UPDATE, f"{vm} updated", account=vm.account, on=vm, by=by)


def begin_anew(vm: VirtualMachine, job: AsyncJob) -> None:
    """The VM gets a new ROOT volume: its guest is told everything again, and given a new password if it takes one.

    In the transaction that submits `job`, whose caller reads the password in its result.
    """
    changes: dict[str, object] = {}
    if vm.template.password_enabled and vm.drive_use != ConfigDriveUse.NEVER:
        password = new_password()
        changes["password"] = seal(vm, "password", password)
        jobs.keep_secret(job, password=password)
    _change(vm, **changes)


def refresh(vm: VirtualMachine, by: Caller | None) -> AsyncJob:
    """Bring to a running guest what it is to know; what it has already costs nothing."""
    return submit("refreshVirtualMachine", vm, by, {VmState.RUNNING: VmState.RUNNING})


def keys_of(pairs: Sequence[SshKeyPair]) -> list[dict[str, str]]:
    """As a VM keeps them: a pair that is deleted later changes nothing for it."""
    return [{"name": pair.name, "public_key": pair.public_key} for pair in pairs]


def _rename(vm: VirtualMachine, name: str) -> None:
    try:
        host_name(name)
    except ValidationError as error:
        raise InvalidParameter(f"name: {error.messages[0]}") from None
    stopped = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.STOPPED)
    with unless_taken(InvalidParameter(f"You have a VM named {name} already. Choose another name.")):
        renamed = stopped.update(name=name, taken_name=name.lower())
    if not renamed:
        raise not_now("A new name", vm, {VmState.STOPPED: VmState.STOPPED})
    vm.name = name
    _tell_changed(vm)


def _change_at_rest(what: str, vm: VirtualMachine, by: Caller, **changes: object) -> None:
    """For commands that answer at once: a running guest is told by a job of its own. In a transaction."""
    # `vm` was read a while ago. One that starts meanwhile waits for this row, and then for its drive reads the change.
    if VirtualMachine.objects.filter(pk=vm.pk, state=VmState.STOPPED).update(**changes):
        _tell_changed(vm)
        return
    now = VirtualMachine.objects.select_for_update().values_list("state", flat=True).get(pk=vm.pk)
    if now != VmState.RUNNING:
        raise not_now(what, vm, AT_REST)
    refresh(vm, by)
    _change(vm, **changes)


def _change(vm: VirtualMachine, **changes: object) -> None:
    # First: what the guest has by now is settled before something new, a password perhaps, takes its place.
    _tell_changed(vm)
    VirtualMachine.objects.filter(pk=vm.pk).update(**changes)
    must_tell(vm)


def _tell_changed(vm: VirtualMachine) -> None:
    now = timezone.now()
    for element in elements.registered():
        element.changed(vm, now)


def _sealed_user_data(vm: VirtualMachine, user_data: str) -> object:
    return seal(vm, "user_data", user_data) if user_data else None
