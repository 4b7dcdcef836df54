"""NICs of a VM that exists: added and removed, while it runs or is stopped."""

from django.db import IntegrityError, transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs.models import AsyncJob
from networks import elements
from networks.models import Network, Nic, VirtualMachine, VmState
from networks.services.guest_data import AT_REST
from networks.services.submission import must_tell, submit

MOST_NICS = 8


def add_nic(vm: VirtualMachine, network: Network, by: Caller) -> AsyncJob:
    """Write the NIC, and submit the job that plugs it into a running VM."""
    if network.zone_id != vm.zone_id:
        raise InvalidParameter(f"Network {network} is not in zone {vm.zone}.")
    with transaction.atomic():
        job = submit("addNicToVirtualMachine", vm, by, AT_REST, network=network.pk)
        taken = set(vm.nics.values_list("device_id", flat=True))
        if len(taken) >= MOST_NICS:
            raise InvalidParameter(f"A VM has at most {MOST_NICS} NICs.")
        device = next(number for number in range(MOST_NICS) if number not in taken)
        write_nic(vm, network, device, plugged=vm.state != VmState.RUNNING)
        must_tell(vm)
    return job


def remove_nic(vm: VirtualMachine, nic: Nic, by: Caller) -> AsyncJob:
    if nic.vm_id != vm.pk:
        raise InvalidParameter(f"{vm} has no such NIC.")
    if nic.is_default:
        raise InvalidParameter("The default NIC stays: its address is the VM's.")
    with transaction.atomic():
        job = submit("removeNicFromVirtualMachine", vm, by, AT_REST, nic=nic.pk)
        must_tell(vm)
    return job


def write_nic(vm: VirtualMachine, network: Network, device: int, *, plugged: bool = True) -> Nic:
    """In a transaction."""
    try:
        with transaction.atomic():
            nic = Nic.objects.create(vm=vm, network=network, device_id=device, is_default=device == 0, plugged=plugged)
    except IntegrityError:
        raise InvalidParameter(f"{vm} has a NIC on network {network} already.") from None
    now = timezone.now()
    for element in elements.registered():
        element.nic_added(nic, now)
    return nic


def drop_nic(nic: Nic) -> None:
    """Nothing of the VM holds it any more."""
    now = timezone.now()
    with transaction.atomic():
        for element in elements.registered():
            element.nic_removed(nic, now)
        nic.delete()
