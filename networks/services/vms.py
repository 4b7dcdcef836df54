"""What users ask of VMs: each function validates, writes rows and a job in one transaction, and answers at once.

The work itself is in `lifecycle`, done by the job.
"""

import base64
import binascii
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller, Role
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks import elements
from networks.configuration import PASSWORD_LENGTH, USER_DATA_MAX_LENGTH
from networks.models import Host, Network, Nic, ServiceOffering, SshKeyPair, Template, VirtualMachine, Volume, Zone
from networks.models.vms import VmState, host_name

ALPHABET = string.ascii_letters + string.digits
MOST_NICS = 8


@dataclass(frozen=True)
class Deployment:
    """What somebody wants deployed. `user_data` is base64; the first network is the default one."""

    zone: Zone
    template: Template
    service_offering: ServiceOffering
    networks: Sequence[Network]
    name: str = ""
    display_name: str = ""
    user_data: str = ""
    key_pairs: Sequence[SshKeyPair] = ()
    password: str = field(default="", repr=False)
    host: Host | None = None
    start: bool = True


def deploy(wanted: Deployment, account: Account, by: Caller) -> tuple[VirtualMachine, AsyncJob]:
    """Write a VM with its NICs and submit its first start. Raises InvalidParameter; nothing is half-made."""
    _check(wanted)
    if account != by.account:
        _check_owner_may_use(wanted, account, by)
    password = wanted.password or (new_password() if wanted.template.password_enabled else "")
    with transaction.atomic():
        vm = _create(wanted, account, password)
        job = jobs.submit(
            "deployVirtualMachine",
            vm,
            account=account,
            by=by,
            start=wanted.start,
            host=wanted.host.pk if wanted.host else None,
        )
        if password:
            jobs.keep_secret(job, password=password)
    return vm, job


def start(vm: VirtualMachine, by: Caller, host: Host | None = None) -> AsyncJob:
    return _submit("startVirtualMachine", vm, by, {VmState.STOPPED: VmState.STARTING}, host=host.pk if host else None)


def stop(vm: VirtualMachine, by: Caller, *, forced: bool = False) -> AsyncJob:
    return _submit("stopVirtualMachine", vm, by, {VmState.RUNNING: VmState.STOPPING}, forced=forced)


def reboot(vm: VirtualMachine, by: Caller, *, forced: bool = False) -> AsyncJob:
    return _submit("rebootVirtualMachine", vm, by, {VmState.RUNNING: VmState.RUNNING}, forced=forced)


def migrate(vm: VirtualMachine, by: Caller, host: Host | None = None) -> AsyncJob:
    if host and host.pk == vm.host_id:
        raise InvalidParameter(f"{vm} is on host {host} already. Name another host.")
    if host and vm.host and host.cluster_id != vm.host.cluster_id:
        raise InvalidParameter(f"Host {host} is in another cluster. A VM migrates live within its cluster only.")
    return _submit(
        "migrateVirtualMachine", vm, by, {VmState.RUNNING: VmState.MIGRATING}, host=host.pk if host else None
    )


def destroy(vm: VirtualMachine, by: Caller, *, expunge: bool = False) -> AsyncJob:
    states = {VmState.RUNNING: VmState.STOPPING, VmState.STOPPED: VmState.STOPPED, VmState.ERROR: VmState.ERROR}
    if expunge:
        states[VmState.DESTROYED] = VmState.DESTROYED
    return _submit("destroyVirtualMachine", vm, by, states, expunge=expunge)


def new_password() -> str:
    """Letters and digits only: guest scripts expand it unquoted, and Windows reads it as ANSI."""
    return "".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_LENGTH.get()))


def _submit(
    command: str, vm: VirtualMachine, by: Caller, states: dict[VmState, VmState], **arguments: object
) -> AsyncJob:
    """Move the VM from one of `states` to what stands behind it, and submit the job, or neither."""
    with transaction.atomic():
        job = jobs.submit(command, vm, account=vm.account, by=by, **arguments)
        for before, after in states.items():
            # Even when the word stays the same, the update asks for it: that is the check.
            changes = {"state": after} if before == after else {"state": after, "state_since": timezone.now()}
            if VirtualMachine.objects.filter(pk=vm.pk, state=before).update(**changes):
                return job
        now = VirtualMachine.objects.values_list("state", flat=True).get(pk=vm.pk)
        raise InvalidParameter(f"{vm} is {now}; {command} needs it {' or '.join(states)}.")


def _check(wanted: Deployment) -> None:
    if wanted.template.zone_id not in (None, wanted.zone.pk):
        raise InvalidParameter(f"Template {wanted.template} is not in zone {wanted.zone}.")
    if not wanted.networks:
        raise InvalidParameter("Name at least one network in networkids.")
    if len(wanted.networks) > MOST_NICS:
        raise InvalidParameter(f"A VM has at most {MOST_NICS} NICs.")
    if len({network.pk for network in wanted.networks}) != len(wanted.networks):
        raise InvalidParameter("Each network can be given once.")
    for network in wanted.networks:
        if network.zone_id != wanted.zone.pk:
            raise InvalidParameter(f"Network {network} is not in zone {wanted.zone}.")
    if wanted.name:
        try:
            host_name(wanted.name)
        except ValidationError as error:
            raise InvalidParameter(f"name: {error.messages[0]}") from None
    check_user_data(wanted.user_data)
    if wanted.password and not (wanted.password.isascii() and wanted.password.isprintable()):
        raise InvalidParameter("password: printable ASCII characters only, on one line.")
    if wanted.password and not wanted.template.password_enabled:
        raise InvalidParameter(f"Template {wanted.template} is not password enabled.")


def _check_owner_may_use(wanted: Deployment, account: Account, by: Caller) -> None:
    """Who deploys for another account deploys with what that account could have deployed with."""
    owner = Caller(by.user, account, Role(account.role), account.domain.path)
    for row in (wanted.zone, wanted.template, *wanted.networks):
        if not type(row).objects.visible_to(owner).filter(pk=row.pk).exists():
            raise InvalidParameter(f"Account {account.name} may not use {row}.")


def check_user_data(user_data: str) -> None:
    """Raises InvalidParameter unless it is strict base64 of at most `vm.userdata.max.length` characters."""
    longest = USER_DATA_MAX_LENGTH.get()
    if len(user_data) > longest:
        raise InvalidParameter(
            f"userdata has {len(user_data)} base64 characters; vm.userdata.max.length allows {longest}."
        )
    try:
        base64.b64decode(user_data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter("userdata must be base64 (RFC 4648, section 4), without line breaks.") from None


def _create(wanted: Deployment, account: Account, password: str) -> VirtualMachine:
    vm = VirtualMachine(
        name=wanted.name,
        display_name=wanted.display_name,
        account=account,
        zone=wanted.zone,
        hypervisor=wanted.template.hypervisor,
        service_offering=wanted.service_offering,
        template=wanted.template,
        state=VmState.STARTING if wanted.start else VmState.STOPPED,
        ssh_keys=[{"name": pair.name, "public_key": pair.public_key} for pair in wanted.key_pairs],
        user_data=wanted.user_data or None,
        password=password or None,
    )
    vm.name = wanted.name or f"VM-{vm.uuid}"
    vm.taken_name = vm.name.lower()
    vm.display_name = wanted.display_name or vm.name
    try:
        with transaction.atomic():
            vm.save()
    except IntegrityError:
        raise InvalidParameter(f"You have a VM named {vm.name} already. Choose another name.") from None
    Volume.objects.create(vm=vm, size=wanted.template.size)
    now = timezone.now()
    for device, network in enumerate(wanted.networks):
        nic = Nic.objects.create(vm=vm, network=network, device_id=device, is_default=device == 0)
        for element in elements.registered():
            element.nic_added(nic, now)
    return vm
