"""The jobs that move VMs: each may be killed at any line and run again from its top.

What a step needs is on the rows: the host a VM has room on, the state it is moving from. Slow calls
stand outside transactions; each change of state is one conditional update, in one transaction with
what the elements do about it.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from extdhcp_site.errors import ApiError, InternalError, ResourceUnavailable
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs import tasks
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.locks import models as locks
from extdhcp_site.locks.models import Held
from networks import elements
from networks.configuration import EXPUNGE_DELAY, SHUTDOWN_WAIT
from networks.elements import Place
from networks.hypervisors.base import (
    GuestAgent,
    HypervisorError,
    ImageRoot,
    KernelRoot,
    NicSpec,
    PowerState,
    VmSpec,
    heartbeat,
)
from networks.models import (
    AddressState,
    Cluster,
    ConfigDriveUse,
    Endpoint,
    Host,
    Nic,
    PrimaryStorage,
    VirtualMachine,
    Volume,
)
from networks.models.infrastructure import HostState
from networks.models.offerings import TemplateFormat
from networks.models.vms import VmState, VolumeState
from networks.services import capacity
from networks.services.nics import drop_nic
from networks.services.places import CALL, LONG_CALL, hypervisor_at, place, record_health, tolerated, translated, within
from networks.services.submission import must_tell
from networks.services.vms import adopt_migration as submit_adoption

log = structlog.get_logger(__name__)

NOT_AGAIN_FOR = timedelta(minutes=30)
# How a new password reaches its guest.
BY_AGENT = "by the guest agent"
NEXT_START = "at the next start"
NEXT_REBOOT = "on the drive, for the next reboot"
STUCK_AFTER = timedelta(minutes=2)
HEALTH_CALL = 15.0
MOST_VMS_A_MINUTE = 50
MOVING = [VmState.STARTING, VmState.STOPPING, VmState.MIGRATING, VmState.EXPUNGING]


# Jobs -----------------------------------------------------------------------------------------


@jobs.handler("deployVirtualMachine", EventType.VM_CREATE)
def deploy(job: AsyncJob) -> None:
    if job.arguments["start"]:
        _start(job)


@jobs.handler("startVirtualMachine", EventType.VM_START)
def start(job: AsyncJob) -> None:
    _start(job)


@jobs.handler("stopVirtualMachine", EventType.VM_STOP)
def stop(job: AsyncJob) -> None:
    vm = vm_of(job)
    _stop(job, vm, grace=0.0 if job.arguments["forced"] else float(SHUTDOWN_WAIT.get()))


@jobs.handler("rebootVirtualMachine", EventType.VM_REBOOT)
def reboot(job: AsyncJob) -> None:
    """A reset keeps the guest's definition and drive; a stop and a start, when forced or when the guest has
    to be told what it could not be told while it ran, builds the drive anew."""
    vm = vm_of(job)
    if job.arguments["forced"] or vm.needs_restart or vm.state != VmState.RUNNING:
        _move(vm, VmState.RUNNING, VmState.STOPPING)
        if vm.state != VmState.STARTING:
            _stop(job, vm, grace=0.0 if job.arguments["forced"] else float(SHUTDOWN_WAIT.get()))
            _move(vm, VmState.STOPPED, VmState.STARTING)
        _start(job)
        return
    with working(job, vm.host, "Rebooting"):
        there = place(vm.host)
        there.hypervisor.reboot(vm.on_host, within(CALL))
    _tell(vm, VmState.RUNNING, {"state_since": timezone.now()}, lambda element, now: element.started(vm, now))


@jobs.handler("migrateVirtualMachine", EventType.VM_MIGRATE)
def migrate(job: AsyncJob) -> None:
    vm = vm_of(job)
    if vm.state == VmState.RUNNING and not vm.migrating_to_id:
        return  # a former attempt came to its end
    try:
        target = vm.migrating_to or capacity.reserve_target(vm, _named_host(job))
        _migrate(job, vm, vm.host, target)
    except ApiError:
        with _cleaning_up(job):
            _stay(vm)
        raise


@jobs.handler("destroyVirtualMachine", EventType.VM_DESTROY)
def destroy(job: AsyncJob) -> None:
    """Drive, queue entry and definition go now; the ROOT volume when the VM is expunged."""
    vm = VirtualMachine.objects.for_listing().filter(uuid=job.instance_uuid).first()
    if vm is None:
        return  # expunged by a former attempt
    if vm.host_id:
        _move(vm, VmState.RUNNING, VmState.STOPPING)
        _stop(job, vm, grace=0.0)
    _drive_out(vm)
    now = timezone.now()
    gone = {"state": VmState.DESTROYED, "state_since": now, "destroyed_at": now, "taken_name": None}
    VirtualMachine.objects.filter(pk=vm.pk, state__in=[VmState.STOPPED, VmState.ERROR]).update(**gone)
    if job.arguments["expunge"]:
        expunge(vm)


@jobs.handler("adoptMigration", EventType.VM_MIGRATE)
def adopt_migration(job: AsyncJob) -> None:
    """The hypervisors moved a VM behind our back: our rows follow it, and what its guest uses comes after."""
    vm = vm_of(job)
    try:
        if vm.state == VmState.MIGRATING:
            # A fact is recorded, nothing is scheduled: were it refused, for want of room or because the host is
            # disabled, the next start would run a second guest on the same ROOT volume.
            if vm.migrating_to is None and (found_on := _named_host(job)):
                capacity.take(found_on, vm)
            # `_stay` asks the target: the VM arrives if it runs there, else it never left.
            _stay(vm)
            vm = vm_of(job)
            if vm.host_id == job.arguments["host"]:
                _tell_followed(vm)
    except ApiError:
        with _cleaning_up(job):
            _stay(vm)
        raise
    if vm.host_id != job.arguments["host"]:
        return
    refresh_guest(job, vm)
    if vm.last_host:
        _clear_former_host(vm, place(vm.last_host), place(vm.host))


def _tell_followed(vm: VirtualMachine) -> None:
    """The owner is told that it moved, the operator where to: a job of the system's own leaves no events."""
    events.record(
        EventType.VM_MIGRATE,
        f"{vm} was found on another host, and is followed there",
        account=vm.account,
        on=vm,
        for_operator=f"From {vm.last_host} to {vm.host}.",
    )


def _clear_former_host(vm: VirtualMachine, source: Place, target: Place) -> None:
    with tolerated(log, "Cleaning up after a migration"), translated(source.host):
        # Who moves VMs by hand often leaves the definition behind.
        if source.hypervisor.power_state(vm.on_host, within(CALL)) == PowerState.OFF:
            source.hypervisor.undefine(vm.on_host, within(CALL))
    for element in elements.registered():
        with tolerated(log, "Cleaning up after a migration"), translated(source.host):
            element.commit_migration(vm, source, target)


# What a guest is to know, and its NICs


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
        with _cleaning_up(job):
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


@tasks.task
def find_migrated() -> None:
    """Task, every minute: find VMs that run on another host of their cluster than our rows say."""
    if (lock := locks.acquire("find-migrated", f"{socket.gethostname()}:{os.getpid()}")) is None:
        return
    try:
        with heartbeat(lock.renew):
            for cluster in Cluster.objects.filter(hosts__state=HostState.UP).distinct():
                if not lock.renew():
                    return
                with tolerated(log, f"Looking for VMs that moved in {cluster}"):
                    _find_migrated_in(cluster)
    finally:
        lock.release()


def _find_migrated_in(cluster: Cluster) -> None:
    hosts = list(cluster.hosts.filter(state=HostState.UP).select_related("endpoint"))
    if len(hosts) < 2:
        return
    running: dict[str, set[int]] = {}
    for host in hosts:
        with translated(host):
            for uuid in place(host).hypervisor.running_vms(within(CALL)):
                running.setdefault(uuid, set()).add(host.pk)
    busy = AsyncJob.objects.exclude(busy_with=None).values("busy_with")
    in_vain = AsyncJob.objects.filter(
        command="adoptMigration", status=Status.FAILED, completed_at__gt=timezone.now() - NOT_AGAIN_FOR
    )
    idle = VirtualMachine.objects.filter(state=VmState.RUNNING, host__in=hosts).exclude(uuid__in=busy)
    for vm in idle.exclude(uuid__in=in_vain.values("instance_uuid")).select_related("account"):
        on = running.get(str(vm.uuid), set())
        # On two hosts at once, a migration is under way.
        if len(on) == 1 and vm.host_id not in on:
            with tolerated(log, f"Following {vm.uuid}"):
                submit_adoption(vm, next(host for host in hosts if host.pk in on))


@tasks.task
def housekeeping() -> None:
    """Task, every minute: look after hosts that are down and after VMs that no job moves any more.

    One server at a time, each VM by itself, and no host twice that did not answer once.
    """
    lock = locks.acquire("housekeeping", f"{socket.gethostname()}:{os.getpid()}")
    if lock is None:
        return
    try:
        # The lock lasts as long as the calls come back: a dead host costs its time-out, not the lock.
        with heartbeat(lock.renew):
            _look_after_vms(lock, timezone.now())
            _look_after_hosts(lock)
    finally:
        lock.release()


def _look_after_hosts(lock: Held) -> None:
    """A host that went down is up again once its endpoint answers."""
    for endpoint in Endpoint.objects.filter(hosts__state=HostState.DOWN).distinct():
        if not lock.renew():
            return
        try:
            hypervisor_at(endpoint).host_facts(within(HEALTH_CALL))
        except HypervisorError as error:
            log.warning("A host is still down.", endpoint=endpoint.name, error=str(error))
        else:
            record_health(endpoint)


def _look_after_vms(lock: Held, now: datetime) -> None:
    """Settle what is stuck, drive out what strayed, expunge what was destroyed long enough ago."""
    busy = AsyncJob.objects.exclude(busy_with=None).values("busy_with")
    idle = VirtualMachine.objects.exclude(uuid__in=busy).order_by("state_since")
    kept_until = now - timedelta(seconds=EXPUNGE_DELAY.get())
    work: list[tuple[QuerySet[VirtualMachine], Callable[[VirtualMachine], None]]] = [
        (idle.filter(state__in=MOVING, state_since__lt=now - STUCK_AFTER), _settle),
        (idle.exclude(stray_on=None), _drive_out),
        (idle.filter(state=VmState.DESTROYED, destroyed_at__lt=kept_until), expunge),
    ]
    down = Host.objects.filter(state=HostState.DOWN)
    for vms, look_after in work:
        # Those of a host that is down wait for it; they must not hold up the others.
        reachable = vms.exclude(host__in=down).exclude(migrating_to__in=down).exclude(stray_on__in=down)
        for vm_id in list(reachable.values_list("pk", flat=True)[:MOST_VMS_A_MINUTE]):
            # Read anew: minutes may have passed since the list was made.
            vm = VirtualMachine.objects.for_listing().filter(pk__in=vms.filter(pk=vm_id).values("pk")).first()
            if vm and not lock.renew():
                return
            if vm:
                with tolerated(log, f"Looking after {vm.uuid}"):
                    look_after(vm)


def expunge(vm: VirtualMachine) -> None:
    """Remove a destroyed VM's ROOT volume, then its rows. Raises ResourceUnavailable to be tried again."""
    states = [VmState.DESTROYED, VmState.EXPUNGING]
    if not VirtualMachine.objects.filter(pk=vm.pk, state__in=states).update(state=VmState.EXPUNGING):
        return
    volume = vm.root_volume
    root = _root(vm, volume.storage)
    if isinstance(root, ImageRoot) and volume.state == VolumeState.READY:
        host = _host_that_sees(volume, vm)
        with translated(host):
            place(host).hypervisor.delete_root(root, within(CALL))
    with transaction.atomic():
        events.record(EventType.VM_EXPUNGE, f"{vm} expunged", account=vm.account, on=vm)
        vm.delete()


# Steps ----------------------------------------------------------------------------------------


def _start(job: AsyncJob) -> None:
    vm = vm_of(job)
    if vm.state == VmState.RUNNING:
        return  # a former attempt came to its end
    try:
        if vm.stray_on:
            with heartbeat(lambda: jobs.beat(job)):
                _drive_out(vm)
        host = vm.host or capacity.reserve_host(vm, _named_host(job))
        with working(job, host, f"Starting on {host}"):
            _bring_up(job, vm, place(host))
    except ApiError as error:
        with _cleaning_up(job):
            _give_up_start(vm, error)
        raise
    running = {"state": VmState.RUNNING, "state_since": timezone.now(), "error_text": "", "ever_started": True}
    _tell(vm, VmState.STARTING, running, lambda element, now: element.started(vm, now))


def _bring_up(job: AsyncJob, vm: VirtualMachine, there: Place) -> None:
    hypervisor, ref = there.hypervisor, vm.on_host
    if hypervisor.power_state(ref, within(CALL)) == PowerState.RUNNING:
        return
    nics = list(vm.nics.all())
    for nic in nics:
        hypervisor.ensure_network(nic.network.on_host, within(CALL))
    root = _ensure_root(job, vm, there)
    offering = vm.service_offering
    hypervisor.define(
        VmSpec(
            vm=ref,
            title=vm.display_name,
            cpus=offering.cpus,
            memory=offering.memory,
            root=root,
            nics=tuple(NicSpec(nic.mac_address, nic.network.on_host) for nic in nics),
        ),
        within(CALL),
    )
    Nic.objects.filter(vm=vm).update(plugged=True)
    for nic in nics:
        nic.plugged = True  # what is written for the guest is made of these rows
    for element in elements.registered():
        element.prepare(vm, there)
    hypervisor.start(ref, within(CALL * 2))


def _ensure_root(job: AsyncJob, vm: VirtualMachine, there: Place) -> ImageRoot | KernelRoot:
    volume = vm.root_volume
    if vm.template.format == TemplateFormat.KERNEL:
        return _root(vm, None)
    if volume.storage is None:
        storage = there.host.cluster.storage.first()
        if storage is None:
            raise InternalError(
                "There is no storage for this VM. Ask your administrator.",
                for_operator=f"Cluster {there.host.cluster} has no primary storage. Add one in the admin.",
            )
        # Recorded before the file is made: what may exist can be found and removed.
        Volume.objects.filter(pk=volume.pk).update(storage=storage, state=VolumeState.READY)
        volume.storage = storage
    root = _root(vm, volume.storage)
    jobs.beat(job, "Making the ROOT volume")
    there.hypervisor.ensure_root(root, within(LONG_CALL))
    return root


def _root(vm: VirtualMachine, storage: PrimaryStorage | None) -> ImageRoot | KernelRoot:
    template = vm.template
    if template.format == TemplateFormat.KERNEL:
        return KernelRoot(template.kernel, template.initrd, template.command_line)
    return ImageRoot(
        pool=storage.name if storage else "",
        volume=f"{vm.root_volume.name}-{vm.uuid}.qcow2",
        image=template.image,
        image_format=template.format.lower(),
        size=vm.root_volume.size,
    )


def _stop(job: AsyncJob, vm: VirtualMachine, grace: float) -> None:
    """Leave nothing of the VM on its host but the ROOT volume; the next start may be elsewhere."""
    if vm.host is None:
        return
    try:
        with working(job, vm.host, f"Stopping on {vm.host}"):
            there = place(vm.host)
            there.hypervisor.stop(vm.on_host, within(CALL + grace), grace=grace)
            there.hypervisor.undefine(vm.on_host, within(CALL))
            for element in elements.registered():
                element.release(vm, there)
    except ApiError:
        with _cleaning_up(job):
            # It is where it was, as far as anybody knows, and can be stopped or destroyed again.
            _move(vm, VmState.STOPPING, VmState.RUNNING)
        raise
    _forget_host(vm, VmState.STOPPING, VmState.STOPPED)


def _migrate(job: AsyncJob, vm: VirtualMachine, source: Host, target: Host) -> None:
    with working(job, target, f"Migrating from {source} to {target}"):
        here, there = place(source), place(target)
        # A former attempt may have died after the switch; the guest on the target must not be disturbed.
        if there.hypervisor.power_state(vm.on_host, within(CALL)) != PowerState.RUNNING:
            for element in elements.registered():
                element.prepare_migration(vm, here, there)
            here.hypervisor.migrate(vm.on_host, there.hypervisor, within(LONG_CALL))
    _arrive(vm, source, target)
    for element in elements.registered():
        with tolerated(log, "Cleaning up after a migration"):
            element.commit_migration(vm, here, there)


def _arrive(vm: VirtualMachine, source: Host, target: Host) -> None:
    with transaction.atomic():
        moving = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.MIGRATING, migrating_to=target)
        if moving.update(state=VmState.RUNNING, host=target, last_host=source, migrating_to=None):
            capacity.give_back(source.pk, vm)
            for element in elements.registered():
                element.migrated(vm, source, target)


def _stay(vm: VirtualMachine) -> None:
    """The migration failed: the guest runs where the hypervisors say it runs, and the other host keeps nothing.

    While the target cannot be asked, the VM stays Migrating; `settle` asks again.
    """
    vm.refresh_from_db()
    source, target = vm.host, vm.migrating_to
    if source is None or vm.state != VmState.MIGRATING:
        return
    if target:
        here, there = place(source), place(target)
        with translated(target):
            arrived = there.hypervisor.power_state(vm.on_host, within(CALL)) == PowerState.RUNNING
        if arrived:
            _arrive(vm, source, target)
            return
        for element in elements.registered():
            with tolerated(log, "Rolling a migration back"), translated(target):
                element.roll_back_migration(vm, here, there)
    with transaction.atomic():
        staying = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.MIGRATING, migrating_to=target)
        if staying.update(state=VmState.RUNNING, migrating_to=None) and target:
            capacity.give_back(target.pk, vm)


def _give_up_start(vm: VirtualMachine, error: ApiError) -> None:
    """Release what the failed start holds. A failed first start is Error with the reason; a later one is Stopped."""
    vm.refresh_from_db()
    if vm.state != VmState.STARTING:
        return  # another worker took over and came to an end
    stray_on = None
    if vm.host:
        stray_on = vm.host
        with tolerated(log, "Removing a VM that did not start"), translated(vm.host):
            place(vm.host).hypervisor.undefine(vm.on_host, within(CALL))
            stray_on = None
        for element in elements.registered():
            with tolerated(log, "Releasing a VM that did not start"), translated(vm.host):
                element.release(vm, place(vm.host))
    state = VmState.STOPPED if vm.ever_started else VmState.ERROR
    _forget_host(vm, VmState.STARTING, state, error.text, stray_on)


def _drive_out(vm: VirtualMachine) -> None:
    """Remove the VM from a host that could not be reached when its start failed: it may run there.

    Raises ResourceUnavailable while it still cannot be; until then it is started nowhere else.
    """
    if vm.stray_on is None:
        return
    with translated(vm.stray_on):
        place(vm.stray_on).hypervisor.undefine(vm.on_host, within(CALL))
    VirtualMachine.objects.filter(pk=vm.pk, stray_on=vm.stray_on).update(stray_on=None)
    vm.stray_on = None


def _forget_host(
    vm: VirtualMachine, before: VmState, after: VmState, error_text: str = "", stray_on: Host | None = None
) -> None:
    """The VM is off. In one transaction: its state, its room on the host, and what the elements do about it."""
    now = timezone.now()
    with transaction.atomic():
        changes = {"state": after, "state_since": now, "error_text": error_text[:1024], "host": None}
        if stray_on:
            changes["stray_on"] = stray_on
        if vm.host_id:
            changes["last_host"] = vm.host
        if not VirtualMachine.objects.filter(pk=vm.pk, state=before, host=vm.host_id).update(**changes):
            return
        if vm.host_id:
            capacity.give_back(vm.host_id, vm)
        Nic.objects.filter(vm=vm, address_state=AddressState.CONFIRMED).update(address_state=AddressState.LAST_KNOWN)
        for element in elements.registered():
            element.stopped(vm, now)
    vm.refresh_from_db()


def _settle(vm: VirtualMachine) -> None:
    """A VM in a moving state with no job to move it: its job was given up. Find out what is, and say so."""
    if vm.state == VmState.EXPUNGING:
        expunge(vm)
    elif vm.state == VmState.MIGRATING:
        _stay(vm)
    elif vm.host is None:
        _forget_host(vm, VmState(vm.state), VmState.STOPPED if vm.ever_started else VmState.ERROR, _NO_JOB)
    else:
        _settle_on(vm, vm.host)


def _settle_on(vm: VirtualMachine, host: Host) -> None:
    with translated(host):
        runs = place(host).hypervisor.power_state(vm.on_host, within(CALL)) == PowerState.RUNNING
    if runs:
        running = {"state": VmState.RUNNING, "state_since": timezone.now(), "ever_started": True}
        _tell(vm, VmState(vm.state), running, lambda element, now: element.started(vm, now))
    elif vm.state == VmState.STARTING:
        _give_up_start(vm, InternalError(_NO_JOB))
    else:
        there = place(host)
        with translated(host):
            there.hypervisor.undefine(vm.on_host, within(CALL))
            for element in elements.registered():
                element.release(vm, there)
        _forget_host(vm, VmState.STOPPING, VmState.STOPPED)
    events.record(
        EventType.VM_START if runs else EventType.VM_STOP,
        f"{vm}: its job was lost; found {'running' if runs else 'off'}",
        account=vm.account,
        on=vm,
        level=Level.WARN,
    )


_NO_JOB = "The job that worked on this VM was lost. Start it again."


# Helpers --------------------------------------------------------------------------------------


def vm_of(job: AsyncJob) -> VirtualMachine:
    vm = (
        VirtualMachine.objects.for_listing()
        .select_related(
            "root_volume__storage",
            "host__endpoint",
            "host__cluster__pod__zone",
            "migrating_to__endpoint",
            "service_offering",
            "template",
            "account",
            "zone",
        )
        .filter(uuid=job.instance_uuid)
        .first()
    )
    if vm is None:
        raise InternalError("The VM is gone.")
    return vm


def _named_host(job: AsyncJob) -> Host | None:
    return Host.objects.filter(pk=job.arguments["host"]).first() if job.arguments.get("host") else None


def _host_that_sees(volume: Volume, vm: VirtualMachine) -> Host:
    storage = volume.storage
    if storage and not storage.shared and vm.last_host:
        return vm.last_host
    hosts = Host.objects.select_related("endpoint").filter(cluster=storage.cluster if storage else None)
    host = hosts.filter(state=HostState.UP).first() or vm.last_host
    if host is None:
        raise InternalError("No host can reach the ROOT volume.", for_operator=f"Storage {storage} has no host.")
    return host


@contextlib.contextmanager
def working(job: AsyncJob, host: Host | None, progress: str) -> Iterator[None]:
    """While slow calls are made: the job's heart beats, and drivers' errors become ours."""
    assert host is not None
    jobs.beat(job, progress)
    with heartbeat(lambda: jobs.beat(job)), translated(host):
        yield


@contextlib.contextmanager
def _cleaning_up(job: AsyncJob) -> Iterator[None]:
    """After a failure: only while the job is this worker's own, and with its heart beating on."""
    jobs.beat(job, "Cleaning up")
    with heartbeat(lambda: jobs.beat(job)):
        yield


def _move(vm: VirtualMachine, before: VmState, after: VmState) -> None:
    """Move the state if it is `before`; read it anew either way."""
    VirtualMachine.objects.filter(pk=vm.pk, state=before).update(state=after, state_since=timezone.now())
    vm.refresh_from_db()


def _tell(
    vm: VirtualMachine,
    before: VmState,
    changes: dict[str, object],
    tell: Callable[[elements.NetworkElement, datetime], None],
) -> None:
    """Change the VM from `before` and tell the elements, in one transaction; nothing if it moved on."""
    with transaction.atomic():
        if VirtualMachine.objects.filter(pk=vm.pk, state=before).update(**changes):
            now = timezone.now()
            for element in elements.registered():
                tell(element, now)
