"""The jobs that bring to a running guest what it is to know: password, SSH keys, user data, NICs.

Each may be killed at any line and run again from its top. What they bring was written by `guest_data` and `nics`.
"""

import structlog
from django.db import transaction

from extdhcp_site.errors import ApiError, InternalError, ResourceUnavailable
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks import elements
from networks.hypervisors.base import GuestAgent, HypervisorError, NicSpec, heartbeat
from networks.models import ConfigDriveUse, Nic, VirtualMachine
from networks.models.vms import VmState
from networks.services.job_steps import cleaning_up, vm_of, working
from networks.services.nics import drop_nic
from networks.services.places import CALL, place, tolerated, translated, within
from networks.services.submission import must_tell

log = structlog.get_logger(__name__)

# How a new password reaches its guest.
BY_AGENT = "by the guest agent"
NEXT_START = "at the next start"
NEXT_REBOOT = "on the drive, for the next reboot"


@jobs.handler("resetPasswordForVirtualMachine", EventType.VM_RESETPASSWORD)
def reset_password(job: AsyncJob) -> None:
    vm = vm_of(job)
    if vm.state != VmState.RUNNING:
        jobs.remark(job, passworddelivery=NEXT_START)
        return
    user = job.arguments["agent_user"]
    delivered = job.remarks.get("passworddelivery") == BY_AGENT  # by a former attempt, which died after that
    if user and not delivered:
        delivered = _set_by_agent(job, vm, user)
    if not delivered and vm.drive_use == ConfigDriveUse.NEVER:
        _take_back_password(vm)
        refresh_guest(job, vm)
        raise ResourceUnavailable(
            "The guest agent did not say that the password is set, and the VM has no config drive to bring it."
        )
    refresh_guest(job, vm)
    if not delivered:
        jobs.remark(job, passworddelivery=NEXT_START if vm.needs_restart else NEXT_REBOOT)


@jobs.handler("resetSSHKeyForVirtualMachine", EventType.VM_RESETSSHKEY)
def reset_ssh_keys(job: AsyncJob) -> None:
    refresh_guest(job, vm_of(job))


@jobs.handler("refreshVirtualMachine", EventType.VM_CONFIGDRIVE)
def refresh(job: AsyncJob) -> None:
    refresh_guest(job, vm_of(job))


@jobs.handler("addNicToVirtualMachine", EventType.NIC_CREATE)
def add_nic(job: AsyncJob) -> None:
    vm = vm_of(job)
    nic = next((nic for nic in vm.nics.all() if nic.network_id == job.arguments["network"]), None)
    if nic is None:
        raise InternalError("The NIC could not be plugged in, and was taken back. Try again, or with the VM stopped.")
    if vm.state != VmState.RUNNING:
        return
    try:
        with working(job, vm.host, f"Plugging in {nic}"):
            there = place(vm.host)
            there.hypervisor.ensure_network(nic.network.on_host, within(CALL))
            there.hypervisor.add_nic(vm.on_host, NicSpec(nic.mac_address, nic.network.on_host), within(CALL))
    except ApiError:
        with cleaning_up(job):
            _take_back_nic(vm, nic)
        refresh_guest(job, vm_of(job))
        raise
    Nic.objects.filter(pk=nic.pk).update(plugged=True)
    refresh_guest(job, vm_of(job))


def _take_back_nic(vm: VirtualMachine, nic: Nic) -> None:
    """What failed or timed out may have plugged it in all the same. It is forgotten only once it is out for certain."""
    with tolerated(log, "Unplugging a NIC that was not wanted any more"), translated(vm.host):
        place(vm.host).hypervisor.remove_nic(vm.on_host, nic.mac_address, within(CALL))
        drop_nic(nic)


@jobs.handler("removeNicFromVirtualMachine", EventType.NIC_DELETE)
def remove_nic(job: AsyncJob) -> None:
    vm = vm_of(job)
    nic = next((nic for nic in vm.nics.all() if nic.pk == job.arguments["nic"]), None)
    if nic and vm.state == VmState.RUNNING:
        _unplug(job, vm, nic)
    if nic:
        drop_nic(nic)
    refresh_guest(job, vm_of(job))


def _unplug(job: AsyncJob, vm: VirtualMachine, nic: Nic) -> None:
    row = Nic.objects.filter(pk=nic.pk)
    # First: a NIC that the drive does not name is left alone, one that the guest lacks is waited for.
    row.update(plugged=False)
    try:
        with working(job, vm.host, f"Unplugging {nic}"):
            place(vm.host).hypervisor.remove_nic(vm.on_host, nic.mac_address, within(CALL))
    except ApiError:
        jobs.beat(job)
        row.update(plugged=True)
        refresh_guest(job, vm_of(job))
        raise


@jobs.handler("updateDefaultNicForVirtualMachine", EventType.NIC_UPDATE)
def make_default(job: AsyncJob) -> None:
    refresh_guest(job, vm_of(job))


@jobs.handler("updateVmNicIp", EventType.NIC_UPDATE)
def update_address(job: AsyncJob) -> None:
    """It was written with the job."""


def refresh_guest(job: AsyncJob, vm: VirtualMachine) -> None:
    """Let every element bring to the running guest what it is to know.

    Never fails the job: what could not be brought now is brought at the next start, and the row says so.
    """
    if vm.state != VmState.RUNNING:
        return
    try:
        with working(job, vm.host, "Telling the guest"):
            there = place(vm.host)
            for element in elements.registered():
                element.refresh(vm, there)
    except ApiError as error:
        log.warning("A running guest could not be told", vm=str(vm.uuid), error=error.for_operator or error.text)
        must_tell(vm)
    if Nic.objects.filter(vm=vm, plugged=False).exists():
        # No drive can make up for it: only a start plugs in what could not be plugged in.
        must_tell(vm)
    vm.refresh_from_db(fields=["needs_restart"])


def _set_by_agent(job: AsyncJob, vm: VirtualMachine, user: str) -> bool:
    """Whether the guest's agent has set the pending password; if not, the drive brings it.

    Once set, it is pending no more: on the drive it would undo, at the next boot, what its owner changes
    from now on. That and the word of it are one, so that the next attempt neither asks again nor says otherwise.
    """
    hypervisor = place(vm.host).hypervisor
    if not isinstance(hypervisor, GuestAgent) or not vm.password:
        return False
    jobs.beat(job, "Asking the guest agent")
    with heartbeat(lambda: jobs.beat(job)):
        try:
            hypervisor.set_password(vm.on_host, user, vm.password, within(CALL))
        except HypervisorError as error:
            log.warning("The guest agent did not set the password", vm=str(vm.uuid), error=str(error))
            return False
    with transaction.atomic():
        # The agent may have taken longer than this worker was given: then the job is another's by now.
        jobs.beat(job)
        _take_back_password(vm)
        jobs.remark(job, passworddelivery=BY_AGENT)
    return True


def _take_back_password(vm: VirtualMachine) -> None:
    """The pending password waits for no drive any more, unless it is another one by now."""
    with transaction.atomic():
        # Compared in clear and under a lock: a seal is never the same twice, and is not searched for.
        pending = VirtualMachine.objects.select_for_update().only("uuid", "password").get(pk=vm.pk)
        if pending.password == vm.password:
            VirtualMachine.objects.filter(pk=vm.pk).update(password=None)
    vm.refresh_from_db(fields=["password"])
