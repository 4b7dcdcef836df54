"""The jobs that move VMs: each may be killed at any line and run again from its top.

What a step needs is on the rows: the host a VM has room on, the state it is moving from. Slow calls
stand outside transactions; each change of state is one conditional update, in one transaction with
what the elements do about it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from extdhcp_site.deadlocks import repeated
from extdhcp_site.errors import ApiError, InternalError
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs import tasks
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.locks.models import Held
from networks import elements
from networks.configuration import EXPUNGE_DELAY, SHUTDOWN_WAIT
from networks.elements import Place
from networks.hypervisors.base import (
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
    Endpoint,
    Host,
    HypervisorType,
    Nic,
    PrimaryStorage,
    VirtualMachine,
    Volume,
)
from networks.models.infrastructure import HostState
from networks.models.offerings import TemplateFormat
from networks.models.vms import VmState, VolumeState
from networks.services import capacity, guest_data
from networks.services.alone import alone
from networks.services.guest_jobs import refresh_guest
from networks.services.job_steps import cleaning_up, named_hosts, vm_of, working
from networks.services.places import (
    CALL,
    HEALTH_CALL,
    LONG_CALL,
    hypervisor_at,
    place,
    record_health,
    record_unavailable,
    tolerated,
    translated,
    within,
)
from networks.services.pool_members import look_at_pools

log = structlog.get_logger(__name__)

STUCK_AFTER = timedelta(minutes=2)
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
    # Else a former attempt came to its end.
    if vm.state != VmState.RUNNING or vm.migrating_to_id:
        try:
            target = vm.migrating_to or capacity.reserve_target(vm, named_hosts(job))
            _migrate(job, vm, vm.host, target)
        except ApiError:
            with cleaning_up(job):
                if stay(vm):
                    refresh_guest(job, vm_of(job))
            raise
    if job.attempt > 1:
        # The former one may have died while the guest's disc was out.
        refresh_guest(job, vm_of(job))


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


@jobs.handler("expungeVirtualMachine", EventType.VM_EXPUNGE)
def expunge_now(job: AsyncJob) -> None:
    vm = VirtualMachine.objects.for_listing().filter(uuid=job.instance_uuid).first()
    if vm:
        expunge(vm)


@jobs.handler("restoreVirtualMachine", EventType.VM_RESTORE)
def restore(job: AsyncJob) -> None:
    """The ROOT volume goes, and is made of the template again at the next start; at once for a VM that ran."""
    vm = vm_of(job)
    if vm.state == VmState.STOPPING:
        _stop(job, vm, grace=0.0)
    if vm.state == VmState.STOPPED:
        _delete_root(vm)
        Volume.objects.filter(vm=vm).update(storage=None, state=VolumeState.ALLOCATED)
    if job.arguments["start"]:
        _move(vm, VmState.STOPPED, VmState.STARTING)
        _start(job)


@jobs.handler("scaleVirtualMachine", EventType.VM_UPGRADE)
def scale(job: AsyncJob) -> None:
    """The service offering was written with the job; what it gives is reserved at the next start."""


@tasks.task
@alone
def housekeeping(lock: Held) -> None:
    """Task, every minute: look after hosts that are down, after VMs that no job moves any more, and after pools.

    Each VM by itself, and no host twice that did not answer once.
    """
    _look_after_vms(lock, timezone.now())
    _look_after_hosts(lock)
    look_at_pools(lock, timezone.now())


def _look_after_hosts(lock: Held) -> None:
    """A host that went down is up again once its endpoint answers; one that was down by itself, once it can be used."""
    for endpoint in Endpoint.objects.filter(hosts__state=HostState.DOWN).distinct():
        if not lock.renew():
            return
        try:
            hypervisor_at(endpoint).host_facts(within(HEALTH_CALL))
        except HypervisorError as error:
            log.warning("A host is still down.", endpoint=endpoint.name, error=str(error))
            continue
        record_health(endpoint)
        for host in endpoint.hosts.exclude(unavailable=""):
            if not lock.renew():
                return
            try:
                place(host).hypervisor.host_facts(within(HEALTH_CALL))
            except HypervisorError as error:
                log.warning("A host still cannot be used.", host=str(host), error=str(error))
            else:
                record_unavailable(host, "")


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
    _delete_root(vm)
    with transaction.atomic():
        events.record(EventType.VM_EXPUNGE, f"{vm} expunged", account=vm.account, on=vm)
        vm.delete()


def _delete_root(vm: VirtualMachine) -> None:
    volume = vm.root_volume
    root = _root(vm, volume.storage)
    if isinstance(root, ImageRoot) and volume.state == VolumeState.READY:
        host = _host_that_sees(volume, vm)
        with translated(host):
            place(host).hypervisor.delete_root(root, within(CALL))


# Steps ----------------------------------------------------------------------------------------


def _start(job: AsyncJob) -> None:
    vm = vm_of(job)
    if vm.state == VmState.RUNNING:
        return  # a former attempt came to its end
    try:
        if vm.stray_on:
            with heartbeat(lambda: jobs.beat(job)):
                _drive_out(vm)
        host = vm.host or capacity.reserve_host(vm, named_hosts(job))
        with working(job, host, "Starting"):
            _bring_up(job, vm, place(host))
    except ApiError as error:
        with cleaning_up(job):
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
        volume=f"{vm.root_volume.name}-{vm.uuid}" + (".qcow2" if vm.hypervisor == HypervisorType.KVM else ""),
        image=template.image,
        image_format=template.format.lower(),
        size=vm.root_volume.size,
    )


def _stop(job: AsyncJob, vm: VirtualMachine, grace: float) -> None:
    """Leave nothing of the VM on its host but the ROOT volume; the next start may be elsewhere."""
    if vm.host is None:
        return
    try:
        with working(job, vm.host, "Stopping"):
            there = place(vm.host)
            there.hypervisor.stop(vm.on_host, within(CALL + grace), grace=grace)
            there.hypervisor.undefine(vm.on_host, within(CALL))
            for element in elements.registered():
                element.release(vm, there)
    except ApiError:
        with cleaning_up(job):
            # It is where it was, as far as anybody knows, and can be stopped or destroyed again.
            _move(vm, VmState.STOPPING, VmState.RUNNING)
        raise
    _forget_host(vm, VmState.STOPPING, VmState.STOPPED)


def _migrate(job: AsyncJob, vm: VirtualMachine, source: Host, target: Host) -> None:
    with working(job, target, "Migrating", where=f"from {source} to {target}"):
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
    def arrive() -> None:
        with transaction.atomic():
            moving = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.MIGRATING, migrating_to=target)
            if moving.update(state=VmState.RUNNING, host=target, last_host=source, migrating_to=None):
                capacity.give_back(source.pk, vm)
                for element in elements.registered():
                    element.migrated(vm, source, target)

    repeated(arrive)


def stay(vm: VirtualMachine) -> bool:
    """The migration failed: the guest runs where the hypervisors say it runs, and the other host keeps nothing.

    Returns whether it has arrived on the target after all; then its disc may be out still. While the target cannot be
    asked, the VM stays Migrating; `settle` asks again.
    """
    vm.refresh_from_db()
    source, target = vm.host, vm.migrating_to
    if source is None or vm.state != VmState.MIGRATING:
        return False
    if target:
        here, there = place(source), place(target)
        with translated(target):
            arrived = there.hypervisor.power_state(vm.on_host, within(CALL)) == PowerState.RUNNING
        if arrived:
            _arrive(vm, source, target)
            return True
        for element in elements.registered():
            with tolerated(log, "Rolling a migration back"), translated(target):
                element.roll_back_migration(vm, here, there)
    with transaction.atomic():
        staying = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.MIGRATING, migrating_to=target)
        if staying.update(state=VmState.RUNNING, migrating_to=None) and target:
            capacity.give_back(target.pk, vm)
    return False


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
    changes = {"state": after, "state_since": now, "error_text": error_text[:1024], "host": None}
    if stray_on:
        changes["stray_on"] = stray_on
    if vm.host_id:
        changes["last_host"] = vm.host

    def forget() -> bool:
        with transaction.atomic():
            if not VirtualMachine.objects.filter(pk=vm.pk, state=before, host=vm.host_id).update(**changes):
                return False
            if vm.host_id:
                capacity.give_back(vm.host_id, vm)
            held = Nic.objects.filter(vm=vm, address_state__in=[AddressState.CONFIRMED, AddressState.UNCONFIRMED])
            held.update(address_state=AddressState.LAST_KNOWN)
            for element in elements.registered():
                element.stopped(vm, now)
        return True

    if repeated(forget):
        vm.refresh_from_db()


def _settle(vm: VirtualMachine) -> None:
    """A VM in a moving state with no job to move it: its job was given up. Find out what is, and say so."""
    if vm.state == VmState.EXPUNGING:
        expunge(vm)
    elif vm.state == VmState.MIGRATING:
        if stay(vm):
            guest_data.refresh(vm, by=None)
    elif vm.host is None:
        _forget_host(vm, VmState(vm.state), VmState.STOPPED if vm.ever_started else VmState.ERROR, _NO_JOB)
    else:
        _settle_on(vm, vm.host)


def _settle_on(vm: VirtualMachine, host: Host) -> None:
    with translated(host):
        # On whichever host of a pool: one that has moved is followed once it counts as running.
        runs = hypervisor_at(host.endpoint).power_state(vm.on_host, within(CALL)) == PowerState.RUNNING
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


def _host_that_sees(volume: Volume, vm: VirtualMachine) -> Host:
    storage = volume.storage
    if storage and not storage.shared and vm.last_host:
        return vm.last_host
    hosts = Host.objects.select_related("endpoint").filter(cluster=storage.cluster if storage else None)
    host = hosts.filter(state=HostState.UP).first() or vm.last_host
    if host is None:
        raise InternalError("No host can reach the ROOT volume.", for_operator=f"Storage {storage} has no host.")
    return host


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

    def change() -> None:
        with transaction.atomic():
            if VirtualMachine.objects.filter(pk=vm.pk, state=before).update(**changes):
                now = timezone.now()
                for element in elements.registered():
                    tell(element, now)

    repeated(change)
