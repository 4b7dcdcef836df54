"""Which host a VM goes to. What it needs is reserved by conditional updates, so no two VMs get the same room."""

from django.db import transaction
from django.db.models import F, Q
from django.db.models.expressions import CombinedExpression

from extdhcp_site.errors import InsufficientCapacity
from networks.configuration import CPU_OVERPROVISIONING
from networks.models import Host, VirtualMachine
from networks.models.infrastructure import AllocationState, HostQuerySet, HostState
from networks.models.vms import VmState

EVERYWHERE = Q()


def reserve_host(vm: VirtualMachine, among: Q = EVERYWHERE) -> Host:
    """Give a starting VM its host: `among` those asked for, the one with the most free memory that fits.

    Raises InsufficientCapacity, which tells the operator why each host was left out.
    """
    for host in _fitting(vm, among):
        with transaction.atomic():
            unplaced = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.STARTING, host=None)
            if reserve(host, vm) and unplaced.update(host=host):
                vm.host = host
                return host
            transaction.set_rollback(True)
    raise _no_room(vm, among)


def reserve_target(vm: VirtualMachine, among: Q = EVERYWHERE) -> Host:
    """Room on another host of the same cluster for a VM that is about to migrate. Raises InsufficientCapacity."""
    assert vm.host is not None
    for host in _fitting(vm, among).filter(cluster=vm.host.cluster).exclude(pk=vm.host_id):
        with transaction.atomic():
            staying = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.MIGRATING, migrating_to=None)
            if reserve(host, vm) and staying.update(migrating_to=host):
                vm.migrating_to = host
                return host
            transaction.set_rollback(True)
    raise _no_room(vm, among)


def reserve(host: Host, vm: VirtualMachine) -> bool:
    """Take the room if it is there still."""
    # By the row's own columns: after waiting for a concurrent reservation the database asks those again.
    return bool(_with_room(Host.objects.filter(pk=host.pk), vm).update(**_held_by(vm, 1)))


def take(host: Host, vm: VirtualMachine) -> None:
    """Hold room on `host` for a VM that others moved there: it uses it already, whether there was any or not."""
    with transaction.atomic():
        staying = VirtualMachine.objects.filter(pk=vm.pk, state=VmState.MIGRATING, migrating_to=None)
        if staying.update(migrating_to=host):
            Host.objects.filter(pk=host.pk).update(**_held_by(vm, 1))
            vm.migrating_to = host


def give_back(host_id: int, vm: VirtualMachine) -> None:
    """Call it in the transaction that takes the host from the VM."""
    Host.objects.filter(pk=host_id).update(**_held_by(vm, -1))


def _held_by(vm: VirtualMachine, times: int) -> dict[str, CombinedExpression]:
    offering = vm.service_offering
    return {
        "reserved_memory": F("reserved_memory") + times * offering.memory,
        "reserved_mhz": F("reserved_mhz") + times * offering.total_mhz,
    }


def _fitting(vm: VirtualMachine, among: Q) -> HostQuerySet:
    """Hosts of the VM's zone and hypervisor with room for it, the one with the most free memory first."""
    hosts = Host.objects.select_related("endpoint", "cluster").most_free_first()
    hosts = hosts.filter(cluster__pod__zone=vm.zone, cluster__hypervisor=vm.hypervisor)
    if storage := vm.root_volume.storage:
        # Elsewhere its ROOT volume would be made anew, empty.
        hosts = hosts.filter(cluster=storage.cluster)
        hosts = hosts if storage.shared else hosts.filter(pk=vm.last_host_id)
    return _with_room(hosts.filter(among), vm)


def _with_room(hosts: HostQuerySet, vm: VirtualMachine) -> HostQuerySet:
    offering = vm.service_offering
    return hosts.with_room(offering.total_mhz, offering.memory, CPU_OVERPROVISIONING.get())


def _no_room(vm: VirtualMachine, among: Q) -> InsufficientCapacity:
    hosts = Host.objects.select_related("cluster").filter(
        among, cluster__pod__zone=vm.zone, cluster__hypervisor=vm.hypervisor
    )
    reasons = [f"{host}: {', '.join(_against(host, vm))}." for host in hosts.exclude(pk=vm.host_id)[:20]]
    other = "other " if vm.host_id else ""
    return InsufficientCapacity(
        _refusal(vm), for_operator=" ".join(reasons) or f"Zone {vm.zone} has no {other}{vm.hypervisor} host."
    )


def _refusal(vm: VirtualMachine) -> str:
    storage = vm.root_volume.storage
    if storage and not storage.shared and vm.host_id:
        return f"{vm} cannot be migrated live: no other host sees the storage of its ROOT volume."
    if storage and not storage.shared:
        return (
            f"{vm} can start on one host alone, which sees the storage of its ROOT volume, and that one has no room or "
            "cannot be used now. Try again later, or ask your administrator."
        )
    return (
        f"No host has room for {vm}: it needs {vm.service_offering.memory_mib} MiB and "
        f"{vm.service_offering.total_mhz} MHz. Choose a smaller service offering, or ask your administrator."
    )


def _against(host: Host, vm: VirtualMachine) -> list[str]:
    """Why the VM cannot go to this host, for operators."""
    offering, storage, mib = vm.service_offering, vm.root_volume.storage, 1024 * 1024
    reasons = []
    if host.state != HostState.UP:
        reasons.append(f"{host.state} ({host.unavailable or 'its endpoint does not answer'})")
    if host.resource_state != AllocationState.ENABLED:
        reasons.append(host.resource_state)
    if vm.host is not None and host.cluster_id != vm.host.cluster_id:
        reasons.append("in another cluster than the VM")
    elif storage and host.cluster_id != storage.cluster_id:
        reasons.append(f"in another cluster than storage {storage} with the VM's ROOT volume")
    elif storage and not storage.shared and host.pk != vm.last_host_id:
        reasons.append(f"does not see the VM's ROOT volume, for storage {storage} is not marked as shared")
    free = (host.memory - host.reserved_memory) // mib
    if free < offering.memory_mib:
        reasons.append(f"{free} MiB free of {host.memory // mib}, and {offering.memory_mib} wanted")
    mhz = int(host.cpus * host.mhz * CPU_OVERPROVISIONING.get())
    if host.reserved_mhz + offering.total_mhz > mhz:
        reasons.append(f"{host.reserved_mhz} MHz promised of {mhz}, and {offering.total_mhz} wanted")
    return reasons or ["had room again when this was written"]
