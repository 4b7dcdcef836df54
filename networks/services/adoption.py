"""Migrations that nobody told us of: found by asking the hosts, and followed."""

from datetime import timedelta

import structlog
from django.utils import timezone

from extdhcp_site.errors import ApiError
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs import tasks
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.locks.models import Held
from networks import elements
from networks.elements import Place
from networks.hypervisors.base import PowerState
from networks.models import Cluster, VirtualMachine
from networks.models.infrastructure import HostState
from networks.models.vms import VmState
from networks.services import capacity
from networks.services.alone import alone
from networks.services.guest_jobs import refresh_guest
from networks.services.job_steps import cleaning_up, named_host, vm_of
from networks.services.lifecycle import stay
from networks.services.places import CALL, place, tolerated, translated, within
from networks.services.vms import adopt_migration as submit_adoption

log = structlog.get_logger(__name__)

NOT_AGAIN_FOR = timedelta(minutes=30)


@tasks.task
@alone
def find_migrated(lock: Held) -> None:
    """Task, every five minutes, and when a hypervisor tells of a VM that moved: find VMs that run on another host of
    their cluster than our rows say."""
    for cluster in Cluster.objects.filter(hosts__state=HostState.UP).distinct():
        if not lock.renew():
            return
        with tolerated(log, f"Looking for VMs that moved in {cluster}"):
            _find_migrated_in(cluster)


def _find_migrated_in(cluster: Cluster) -> None:
    hosts = list(cluster.hosts.filter(state=HostState.UP).select_related("endpoint"))
    if len(hosts) < 2:
        return
    running: dict[str, set[int]] = {}
    for host in hosts:
        with translated(host):
            for uuid in place(host).hypervisor.running_vms(within(CALL)):
                running.setdefault(uuid, set()).add(host.pk)
    left_alone = set(AsyncJob.objects.exclude(busy_with=None).values_list("busy_with", flat=True))
    left_alone |= set(
        AsyncJob.objects.filter(
            command="adoptMigration", status=Status.FAILED, completed_at__gt=timezone.now() - NOT_AGAIN_FOR
        ).values_list("instance_uuid", flat=True)
    )
    # Thousands of VMs, of which hardly one has moved: only that one is loaded. By host alone: without
    # statistics SQLite would walk all that run, for each cluster.
    vms = VirtualMachine.objects.filter(host__in=[host.pk for host in hosts]).order_by()
    for uuid, host_id, state in vms.values_list("uuid", "host_id", "state").iterator():
        if state != VmState.RUNNING or uuid in left_alone:
            continue
        on = running.get(str(uuid), set())
        # On two hosts at once, a migration is under way.
        if len(on) == 1 and host_id not in on:
            with tolerated(log, f"Following {uuid}"):
                vm = VirtualMachine.objects.select_related("account").filter(uuid=uuid).first()
                if vm:
                    submit_adoption(vm, next(host for host in hosts if host.pk in on))


@jobs.handler("adoptMigration", EventType.VM_MIGRATE)
def adopt_migration(job: AsyncJob) -> None:
    """The hypervisors moved a VM behind our back: our rows follow it, and what its guest uses comes after."""
    vm = vm_of(job)
    try:
        if vm.state == VmState.MIGRATING:
            # A fact is recorded, nothing is scheduled: were it refused, for want of room or because the host is
            # disabled, the next start would run a second guest on the same ROOT volume.
            if vm.migrating_to is None and (found_on := named_host(job)):
                capacity.take(found_on, vm)
            # `stay` asks the target: the VM arrives if it runs there, else it never left.
            stay(vm)
            vm = vm_of(job)
            if vm.host_id == job.arguments["host"]:
                _tell_followed(vm)
    except ApiError:
        with cleaning_up(job):
            stay(vm)
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
