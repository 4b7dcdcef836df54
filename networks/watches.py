"""What operators are alerted of in the cloud: hosts that are silent, clusters that run full (admin guide, 10.7)."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import structlog
from django.db.models import BigIntegerField, Count, F, FloatField, Q, Sum
from django.db.models.functions import Cast
from django.utils import timezone

from extdhcp_site.alerts.configuration import WAIT
from extdhcp_site.alerts.models import Kind
from extdhcp_site.alerts.services import Domain, Problem
from extdhcp_site.alerts.watches import Watch
from extdhcp_site.configuration.models import values_of
from extdhcp_site.events.models import Subject
from extdhcp_site.jobs import tasks
from extdhcp_site.locks.models import Held
from networks.configuration import CPU_OVERPROVISIONING, CPU_THRESHOLD, MEMORY_THRESHOLD, STORAGE_THRESHOLD
from networks.hypervisors.base import HypervisorError, StorageMeter, StorageRoom
from networks.models import Cluster, Endpoint, Host, PrimaryStorage
from networks.models.infrastructure import AllocationState, HostState
from networks.models.vms import VmState
from networks.services.alone import alone
from networks.services.places import ALERT_AT, CALL, HEALTH_CALL, hypervisor_at, place, record_health, within

# An endpoint that nobody has asked anything for so long is asked how it is.
HEARTBEAT = timedelta(minutes=1)
MOST_NAMES = 5
GIB = 1024**3

log = structlog.get_logger(__name__)


@tasks.task
@alone
def ask_the_idle(lock: Held) -> None:
    """Task, every minute: an endpoint that nothing is asked of would be silent unnoticed.

    One that is known to be silent is asked by housekeeping.
    """
    idle = Endpoint.objects.filter(hosts__isnull=False, last_error="").distinct()
    for endpoint in idle.filter(Q(last_ok_at=None) | Q(last_ok_at__lt=timezone.now() - HEARTBEAT)):
        if not lock.renew():
            return
        try:
            hypervisor_at(endpoint).host_facts(within(HEALTH_CALL))
        except HypervisorError as error:
            log.warning("An endpoint did not answer.", endpoint=endpoint.name, error=str(error))
            record_health(endpoint, str(error))
        else:
            record_health(endpoint)


@tasks.task
@alone
def measure_storage(lock: Held) -> None:
    """Task, every ten minutes: what is left of each primary storage, where its hosts can tell."""
    for storage in PrimaryStorage.objects.select_related("cluster"):
        found = [(room, host.name) for host in _hosts_of(storage) if lock.renew() and (room := _room(storage, host))]
        if found:
            least, name = min(found, key=lambda measured: measured[0].free)
            PrimaryStorage.objects.filter(pk=storage.pk).update(
                total=least.total, free=least.free, measured_on=name, measured_at=timezone.now()
            )


def _hosts_of(storage: PrimaryStorage) -> Sequence[Host]:
    """One tells of what all see."""
    up = storage.cluster.hosts.filter(state=HostState.UP).select_related("endpoint")
    return up[:1] if storage.shared else up


def _room(storage: PrimaryStorage, host: Host) -> StorageRoom | None:
    hypervisor = place(host).hypervisor
    if not isinstance(hypervisor, StorageMeter):
        return None
    try:
        return hypervisor.room(storage.name, within(CALL))
    except HypervisorError as error:
        log.warning("A storage could not be measured.", storage=str(storage), host=str(host), error=str(error))
        return None


# Hosts and endpoints ----------------------------------------------------------------------------------


def silent_endpoints() -> Iterator[Problem]:
    """Those that have not answered for a while, and those that are therefore left alone between two tries."""
    lasting = timedelta(seconds=WAIT.get())
    silent = Endpoint.objects.exclude(last_error="").annotate(
        on_it=Count("hosts__virtual_machines", filter=Q(hosts__virtual_machines__state=VmState.RUNNING))
    )
    for endpoint in silent.prefetch_related("hosts"):
        names = _listed([host.name for host in endpoint.hosts.all()])
        since = (
            f"since {endpoint.last_ok_at:%Y-%m-%d %H:%M:%S} UTC" if endpoint.last_ok_at else "ever since it is known"
        )
        about, how_many = Subject.of(endpoint), f"{endpoint.on_it} running VM{'' if endpoint.on_it == 1 else 's'}"
        advice = f"Run: manage.py check_endpoint {endpoint}. Its VMs may run all the same: nobody can tell from here."
        if names:
            text = f"{endpoint} has not answered {since}: {endpoint.last_error} It has {names}, with {how_many}."
            yield Problem(Kind.HOST, about, text, advice, lasting=lasting)
        if endpoint.failures >= ALERT_AT:
            text = f"{endpoint} has not answered {ALERT_AT} times in a row: {endpoint.last_error}"
            yield Problem(Kind.ENDPOINT, about, f"{text} It is asked once a minute until it does.", advice)


def unusable_hosts() -> Iterator[Problem]:
    """Those that their pool or vCenter, which answers, cannot reach."""
    lasting = timedelta(seconds=WAIT.get())
    for host in Host.objects.exclude(unavailable="").select_related("endpoint"):
        text = f"{host} cannot be used: {host.unavailable}"
        advice = f"Look at it in {host.endpoint}, then run: manage.py check_endpoint {host.endpoint}"
        yield Problem(Kind.HOST, Subject.of(host), text, advice, lasting=lasting)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(sorted(names)[:MOST_NAMES]) + more


# Room -------------------------------------------------------------------------------------------------


def full_clusters() -> Iterator[Problem]:
    """Of what the hosts have that are up and take VMs: those that are down have no room to give."""
    memory_share, cpu_share, factor = values_of(MEMORY_THRESHOLD, CPU_THRESHOLD, CPU_OVERPROVISIONING)
    usable = Q(hosts__state=HostState.UP, hosts__resource_state=AllocationState.ENABLED)
    mhz = Cast(F("hosts__cpus"), FloatField()) * F("hosts__mhz")
    clusters = Cluster.objects.annotate(
        memory=Sum("hosts__memory", filter=usable, output_field=BigIntegerField()),
        memory_taken=Sum("hosts__reserved_memory", filter=usable, output_field=BigIntegerField()),
        mhz=Sum(mhz, filter=usable),
        mhz_taken=Sum("hosts__reserved_mhz", filter=usable, output_field=BigIntegerField()),
    )
    for cluster in clusters:
        about = Subject.of(cluster)
        if cluster.memory and cluster.memory_taken > cluster.memory * memory_share:
            text = (
                f"Of cluster {cluster}'s memory {cluster.memory_taken / cluster.memory:.0%} is taken: "
                f"{(cluster.memory - cluster.memory_taken) / GIB:.1f} of {cluster.memory / GIB:.1f} GiB are left."
            )
            yield Problem(Kind.MEMORY, about, text, "Add a host, or stop VMs that are not needed.")
        promised = (cluster.mhz or 0) * factor
        if promised and cluster.mhz_taken > promised * cpu_share:
            text = (
                f"Of cluster {cluster}'s CPU {cluster.mhz_taken / promised:.0%} is taken: "
                f"{promised - cluster.mhz_taken:.0f} of {promised:.0f} MHz are left."
            )
            yield Problem(Kind.CPU, about, text, "Add a host, or raise cpu.overprovisioning.factor.")


def full_storage() -> Iterator[Problem]:
    threshold = STORAGE_THRESHOLD.get()
    for storage in PrimaryStorage.objects.filter(total__gt=0).select_related("cluster"):
        taken = storage.total - storage.free
        if taken > storage.total * threshold:
            where = f"of cluster {storage.cluster}" if storage.shared else f"on host {storage.measured_on}"
            text = (
                f"Of primary storage {storage} {where} {taken / storage.total:.0%} is taken: "
                f"{storage.free / GIB:.1f} of {storage.total / GIB:.1f} GiB are left."
            )
            advice = "Enlarge it, or expunge VMs. When nothing is left, guests' writes fail."
            yield Problem(Kind.STORAGE, Subject.of(storage), text, advice)


WATCHES = [
    Watch(Domain(frozenset({Kind.HOST, Kind.ENDPOINT}), "Endpoint"), silent_endpoints),
    Watch(Domain(frozenset({Kind.HOST}), "Host"), unusable_hosts),
    Watch(Domain(frozenset({Kind.MEMORY, Kind.CPU}), "Cluster"), full_clusters),
    Watch(Domain(frozenset({Kind.STORAGE}), "PrimaryStorage"), full_storage),
]
