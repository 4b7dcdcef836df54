"""Migrations that nobody told us of: found by asking the hosts, and followed."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.utils import timezone

from extdhcp_site.errors import ApiError
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType, Level
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs import tasks
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.locks.models import Held
from networks import elements
from networks.elements import Place
from networks.hypervisors.base import HypervisorError, PowerState
from networks.models import Cluster, Endpoint, Host, HypervisorType, VirtualMachine
from networks.models.infrastructure import HostState
from networks.models.vms import VmState
from networks.services import capacity
from networks.services.alone import alone
from networks.services.guest_jobs import refresh_guest
from networks.services.job_steps import cleaning_up, named_host, vm_of
from networks.services.lifecycle import stay
from networks.services.places import CALL, alert, hypervisor_at, place, tolerated, translated, within
from networks.services.vms import adopt_migration as submit_adoption

log = structlog.get_logger(__name__)

NOT_AGAIN_FOR = timedelta(minutes=30)
# A hypervisor's answer may be a little behind what a job has just done.
SETTLED_AFTER = timedelta(minutes=1)
OFF = [VmState.STOPPED, VmState.ERROR, VmState.DESTROYED, VmState.EXPUNGING]


@dataclass
class _Seen:
    """Which VMs run where, as far as the hypervisors could be asked: by VM, the hosts; those that answered."""

    since: datetime
    on: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    answered: set[int] = field(default_factory=set)
    # Of a pool or a vCenter: what runs on any of its hosts, ours or not.
    at: dict[int, set[str]] = field(default_factory=dict)

    def runs(self, uuid: str) -> bool:
        return uuid in self.on or any(uuid in running for running in self.at.values())


@tasks.task
@alone
def find_migrated(lock: Held) -> None:
    """Task, every five minutes, and when a hypervisor tells of a VM that moved: find VMs that run on another host of
    their cluster than our rows say. Operators hear of those that run where they should not run at all.
    """
    seen = _Seen(timezone.now())
    for cluster in Cluster.objects.filter(hosts__state=HostState.UP).distinct():
        if not lock.renew():
            return
        with tolerated(log, f"Looking for VMs that moved in {cluster}"):
            _find_migrated_in(cluster, seen)
    _tell_of_strays(seen)


def _find_migrated_in(cluster: Cluster, seen: _Seen) -> None:
    hosts = {host.pk: host for host in cluster.hosts.select_related("endpoint")}
    # The whole first: what starts meanwhile is found on its host.
    for endpoint in {host.endpoint for host in hosts.values() if host.state == HostState.UP}:
        _look_at_whole(endpoint, seen)
    for host in hosts.values():
        if host.state == HostState.UP:
            _look_at(host, seen)
    left_alone = _left_alone()
    # Thousands of VMs, of which hardly one has moved: only that one is loaded. By host alone: without
    # statistics SQLite would walk all that run, for each cluster.
    vms = VirtualMachine.objects.filter(host__in=list(hosts)).order_by()
    for uuid, host_id, state in vms.values_list("uuid", "host_id", "state").iterator():
        if state != VmState.RUNNING or uuid in left_alone:
            continue
        on = seen.on.get(str(uuid), set()) & hosts.keys()
        host = hosts[host_id]
        if not on and host_id in seen.answered and str(uuid) in seen.at.get(host.endpoint_id, ()):
            _tell_of_unlisted(uuid, host)
        # On two hosts at once, a migration is under way.
        if len(on) != 1 or host_id in on:
            continue
        found_on = hosts[next(iter(on))]
        # Of a host that is silent nobody knows what it runs, unless its pool does.
        if host_id in seen.answered or host.endpoint_id == found_on.endpoint_id:
            with tolerated(log, f"Following {uuid}"):
                vm = VirtualMachine.objects.select_related("account").filter(uuid=uuid).first()
                if vm:
                    submit_adoption(vm, found_on)


def _look_at(host: Host, seen: _Seen) -> None:
    """One that does not answer leaves the others to be looked at."""
    with tolerated(log, f"Looking for VMs on {host}"), translated(host):
        for uuid in place(host).hypervisor.running_vms(within(CALL)):
            seen.on[uuid].add(host.pk)
        seen.answered.add(host.pk)


def _look_at_whole(endpoint: Endpoint, seen: _Seen) -> None:
    """On KVM an endpoint is a host, and is not asked twice."""
    if endpoint.kind == HypervisorType.KVM or endpoint.pk in seen.at:
        return
    try:
        seen.at[endpoint.pk] = hypervisor_at(endpoint).running_vms(within(CALL))
    except HypervisorError as error:
        log.warning("An endpoint could not be asked which VMs run.", endpoint=str(endpoint), error=str(error))


def _left_alone() -> set[UUID]:
    """VMs that a job works on, and those that could not be followed a while ago."""
    busy = set(AsyncJob.objects.exclude(busy_with=None).values_list("busy_with", flat=True))
    failed = AsyncJob.objects.filter(
        command="adoptMigration", status=Status.FAILED, completed_at__gt=timezone.now() - NOT_AGAIN_FOR
    )
    return busy | set(failed.values_list("instance_uuid", flat=True))


def _tell_of_strays(seen: _Seen) -> None:
    """VMs that are off, as far as we know, and run: nothing of ours would stop them."""
    # One that strayed is driven out by housekeeping.
    off = VirtualMachine.objects.filter(state__in=OFF, stray_on=None, state_since__lt=seen.since - SETTLED_AFTER)
    busy = AsyncJob.objects.exclude(busy_with=None).values("busy_with")
    for uuid in off.exclude(uuid__in=busy).order_by().values_list("uuid", flat=True).iterator():
        if seen.runs(str(uuid)):
            on = (
                ", ".join(map(str, Host.objects.filter(pk__in=seen.on.get(str(uuid), ())))) or "a host that is not ours"
            )
            _alert_once(uuid, f"It runs on {on}. Shut it down there, then start it here.")


def _tell_of_unlisted(uuid: UUID, host: Host) -> None:
    others = f"on none of the hosts of cluster {host.cluster} that are up"
    advice = f"Move it to one of them, or make its host one of the cluster, as endpoint {host.endpoint} names it."
    _alert_once(uuid, f"It was on {host}, and runs {others}. {advice}")


def _alert_once(uuid: UUID, what: str) -> None:
    """Once for each state that the VM is in, however long it lasts."""
    vm = VirtualMachine.objects.filter(uuid=uuid).first()
    if vm is None:
        return
    told = Event.objects.about(vm).filter(type=EventType.HOST_ALERT, created_at__gte=vm.state_since)
    if not told.exists():
        alert(vm, f"{vm} ({vm.instance_name}) is {vm.state}, and not where it should be. {what}", Level.ERROR)


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
    # In a pool a VM has one definition, which went along.
    if source.host.endpoint_id != target.host.endpoint_id:
        _forget_definition(vm, source)
    for element in elements.registered():
        with tolerated(log, "Cleaning up after a migration"), translated(source.host):
            element.commit_migration(vm, source, target)


def _forget_definition(vm: VirtualMachine, source: Place) -> None:
    with tolerated(log, "Cleaning up after a migration"), translated(source.host):
        # Who moves VMs by hand often leaves the definition behind.
        if source.hypervisor.power_state(vm.on_host, within(CALL)) == PowerState.OFF:
            source.hypervisor.undefine(vm.on_host, within(CALL))
