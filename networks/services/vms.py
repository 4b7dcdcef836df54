"""What users ask of VMs: each function validates, writes rows and a job in one transaction, and answers at once.

The work itself is in `lifecycle`, done by the job. What the guest is to know, is in `guest_data`, its NICs in `nics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller, Role
from extdhcp_site.accounts.services.removal import refuse_if_removed
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken
from networks.models import (
    Cluster,
    ConfigDriveUse,
    Host,
    Network,
    Nic,
    Pod,
    ServiceOffering,
    SshKeyPair,
    Template,
    VirtualMachine,
    Volume,
    Zone,
)
from networks.models.networks import AclType
from networks.models.vms import VmState, host_name
from networks.services.guest_data import (
    begin_anew,
    check_drive_use,
    check_password,
    check_user_data,
    keys_of,
    new_password,
)
from networks.services.nics import MOST_NICS
from networks.services.submission import not_now, submit


@dataclass(frozen=True)
class Deployment:
    """What somebody wants deployed. `user_data` is base64; the first network that may be is the default one."""

    zone: Zone
    template: Template
    service_offering: ServiceOffering
    networks: Sequence[Network]
    name: str = ""
    display_name: str = ""
    group_name: str = ""
    user_data: str = ""
    key_pairs: Sequence[SshKeyPair] = ()
    password: str = field(default="", repr=False)
    host: Host | None = None
    start: bool = True
    drive_use: str = ConfigDriveUse.ALWAYS

    @property
    def default_first(self) -> list[Network]:
        default = next((network for network in self.networks if network.is_default), None)
        return sorted(self.networks, key=lambda network: network != default)


def deploy(wanted: Deployment, account: Account, by: Caller) -> tuple[VirtualMachine, AsyncJob]:
    """Write a VM with its NICs and submit its first start. Raises InvalidParameter; nothing is half-made."""
    _check_for(wanted, account, by)
    password = _password(wanted)
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


def preview(wanted: Deployment, account: Account, by: Caller) -> tuple[VirtualMachine, list[Nic]]:
    """What `deploy` would write, with ids that it will not have; nothing is written. Raises as `deploy` does."""
    _check_for(wanted, account, by)
    vm = _draft(wanted, account, _password(wanted))
    vm.pk = 0
    return vm, _nics(wanted, vm)


def start(
    vm: VirtualMachine,
    by: Caller,
    host: Host | None = None,
    *,
    cluster: Cluster | None = None,
    pod: Pod | None = None,
) -> AsyncJob:
    """On `host`, or on a host of `cluster` and of `pod`, where they are given."""
    places = {"host": host, "cluster": cluster, "pod": pod}
    named = {name: row.pk for name, row in places.items() if row}
    return submit("startVirtualMachine", vm, by, {VmState.STOPPED: VmState.STARTING}, **named)


def stop(vm: VirtualMachine, by: Caller, *, forced: bool = False) -> AsyncJob:
    return submit("stopVirtualMachine", vm, by, {VmState.RUNNING: VmState.STOPPING}, forced=forced)


def reboot(vm: VirtualMachine, by: Caller, *, forced: bool = False) -> AsyncJob:
    return submit("rebootVirtualMachine", vm, by, {VmState.RUNNING: VmState.RUNNING}, forced=forced)


def migrate(vm: VirtualMachine, by: Caller, host: Host | None = None) -> AsyncJob:
    if host and host.pk == vm.host_id:
        raise InvalidParameter(f"{vm} is on host {host} already. Name another host.")
    if host and vm.host and host.cluster_id != vm.host.cluster_id:
        raise InvalidParameter(f"Host {host} is in another cluster. A VM migrates live within its cluster only.")
    return submit("migrateVirtualMachine", vm, by, {VmState.RUNNING: VmState.MIGRATING}, host=host.pk if host else None)


def destroy(vm: VirtualMachine, by: Caller, *, expunge: bool = False) -> AsyncJob:
    states = {VmState.RUNNING: VmState.STOPPING, VmState.STOPPED: VmState.STOPPED, VmState.ERROR: VmState.ERROR}
    if expunge:
        states[VmState.DESTROYED] = VmState.DESTROYED
    return submit("destroyVirtualMachine", vm, by, states, expunge=expunge)


def expunge(vm: VirtualMachine, by: Caller) -> AsyncJob:
    """Delete a destroyed VM's ROOT volume and its rows, before its time."""
    states = {VmState.DESTROYED: VmState.DESTROYED, VmState.EXPUNGING: VmState.EXPUNGING}
    return submit("expungeVirtualMachine", vm, by, states)


def restore(vm: VirtualMachine, by: Caller) -> AsyncJob:
    """Make the ROOT volume of the template again: what the guest wrote on it is lost. One that runs is restarted."""
    runs = vm.state == VmState.RUNNING
    states = {VmState.RUNNING: VmState.STOPPING} if runs else {VmState.STOPPED: VmState.STOPPED}
    with transaction.atomic():
        job = submit("restoreVirtualMachine", vm, by, states, start=runs)
        begin_anew(vm, job)
    return job


def change_service(vm: VirtualMachine, offering: ServiceOffering, by: Caller) -> None:
    """Give a stopped VM another size."""
    with transaction.atomic():
        _change_service("changeServiceForVirtualMachine", vm, offering)
        text = f"{vm} has service offering {offering} from now on"
        events.record(EventType.VM_UPGRADE, text, account=vm.account, on=vm, by=by)


def scale(vm: VirtualMachine, offering: ServiceOffering, by: Caller) -> AsyncJob:
    """As `change_service`, with a job that has nothing left to do."""
    with transaction.atomic():
        _change_service("scaleVirtualMachine", vm, offering)
        return submit("scaleVirtualMachine", vm, by, {VmState.STOPPED: VmState.STOPPED})


def _change_service(what: str, vm: VirtualMachine, offering: ServiceOffering) -> None:
    stopped = {VmState.STOPPED: VmState.STOPPED}
    if not VirtualMachine.objects.filter(pk=vm.pk, state__in=stopped).update(service_offering=offering):
        raise not_now(what, vm, stopped)


def recover(vm: VirtualMachine, by: Caller) -> None:
    """Take a destroyed VM back, stopped, while it has not been expunged. Its name must be free still."""
    stopped = {"state": VmState.STOPPED, "state_since": timezone.now(), "destroyed_at": None}
    destroyed = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.DESTROYED)
    with transaction.atomic():
        if AsyncJob.objects.filter(busy_with=vm.uuid).exists():
            raise InvalidParameter(f"A job works on {vm}. Wait for it to end, then try again.")
        taken = InvalidParameter(f"Another VM of the account is named {vm.name} by now. Rename or destroy it.")
        with unless_taken(taken):
            recovered = destroyed.update(**stopped, taken_name=vm.name.lower())
        if not recovered:
            raise InvalidParameter(f"{vm} is not Destroyed: there is nothing to recover.")
        events.record(EventType.VM_RECOVER, f"{vm} recovered", account=vm.account, on=vm, by=by)


def adopt_migration(vm: VirtualMachine, found_on: Host) -> AsyncJob:
    """By the system: the VM was found running on a host to which nobody here migrated it."""
    return submit("adoptMigration", vm, None, {VmState.RUNNING: VmState.MIGRATING}, host=found_on.pk)


def _check_for(wanted: Deployment, account: Account, by: Caller) -> None:
    _check(wanted)
    check_owner_may_use(account, by, wanted.zone, wanted.template)
    check_scope(account, *wanted.networks)


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
    if not any(network.is_default for network in wanted.networks):
        raise InvalidParameter("Name at least one network that may be a VM's default network.")
    if wanted.name:
        try:
            host_name(wanted.name)
        except ValidationError as error:
            raise InvalidParameter(f"name: {error.messages[0]}") from None
    check_user_data(wanted.user_data)
    check_password(wanted.password)
    if wanted.password and not wanted.template.password_enabled:
        raise InvalidParameter(f"Template {wanted.template} is not password enabled.")
    if wanted.password and wanted.drive_use == ConfigDriveUse.NEVER:
        raise InvalidParameter("password: with configdrive=Never nothing would bring it to the guest. Leave one out.")
    check_drive_use(wanted.drive_use, wanted.template)


def check_scope(account: Account, *networks: Network) -> None:
    """Raises InvalidParameter for a network that is not for this account, whoever acts for it.

    Source: admin guide, 6.7.1 Network Scope: a network is zone-wide (here: in a domain and those below it), or one
    account's alone.
    """
    for network in networks:
        if network.acl_type == AclType.ACCOUNT:
            is_for_it = network.account_id == account.pk
        else:
            is_for_it = account.domain.path.startswith(network.domain.path)
        if not is_for_it:
            raise InvalidParameter(f"Account {account.name} may not use {network}.")


def check_owner_may_use(account: Account, by: Caller, *rows: Zone | Template) -> None:
    """Who acts for another account gives it nothing that it could not have taken itself."""
    if account == by.account:
        return
    owner = Caller(by.user, account, Role(account.role), account.domain.path)
    for row in rows:
        if not type(row).objects.visible_to(owner).filter(pk=row.pk).exists():
            raise InvalidParameter(f"Account {account.name} may not use {row}.")


def _password(wanted: Deployment) -> str:
    makes_one_up = wanted.template.password_enabled and wanted.drive_use != ConfigDriveUse.NEVER
    return wanted.password or (new_password() if makes_one_up else "")


def _draft(wanted: Deployment, account: Account, password: str) -> VirtualMachine:
    vm = VirtualMachine(
        name=wanted.name,
        display_name=wanted.display_name,
        group_name=wanted.group_name,
        account=account,
        zone=wanted.zone,
        hypervisor=wanted.template.hypervisor,
        service_offering=wanted.service_offering,
        template=wanted.template,
        state=VmState.STARTING if wanted.start else VmState.STOPPED,
        ssh_keys=keys_of(wanted.key_pairs),
        user_data=wanted.user_data or None,
        password=password or None,
        drive_use=wanted.drive_use,
    )
    vm.name = wanted.name or f"VM-{vm.uuid}"
    vm.taken_name = vm.name.lower()
    vm.display_name = wanted.display_name or vm.name
    return vm


def _nics(wanted: Deployment, vm: VirtualMachine) -> list[Nic]:
    return [
        Nic(vm=vm, network=network, device_id=device, is_default=device == 0)
        for device, network in enumerate(wanted.default_first)
    ]


def _create(wanted: Deployment, account: Account, password: str) -> VirtualMachine:
    vm = _draft(wanted, account, password)
    with unless_taken(InvalidParameter(f"You have a VM named {vm.name} already. Choose another name.")):
        vm.save()
    refuse_if_removed(vm.account)
    Volume.objects.create(vm=vm, size=wanted.template.size)
    Nic.objects.bulk_create(_nics(wanted, vm))
    return vm
