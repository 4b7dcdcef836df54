"""A job for a VM, submitted together with the change of state that it needs, or not at all."""

from django.db import transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import VirtualMachine
from networks.models.vms import VmState


def submit(
    command: str, vm: VirtualMachine, by: Caller | None, states: dict[VmState, VmState], **arguments: object
) -> AsyncJob:
    """Move the VM from one of `states` to what stands behind it, and submit the job, or neither.

    Raises InvalidParameter when it is in none of them, ResourceInUse while another job works on it.
    """
    with transaction.atomic():
        job = jobs.submit(command, vm, account=vm.account, by=by, **arguments)
        for before, after in states.items():
            # Even when the word stays the same, the update asks for it: that is the check.
            changes = {"state": after} if before == after else {"state": after, "state_since": timezone.now()}
            if VirtualMachine.objects.filter(pk=vm.pk, state=before).update(**changes):
                vm.state = after
                return job
        raise not_now(command, vm, states)


def must_tell(vm: VirtualMachine) -> None:
    """In the transaction that changes what a running VM's guest is to know.

    What is brought to the guest strikes it out. Should the job be given up, because its workers were
    lost, it is the word that a restart is needed.
    """
    VirtualMachine.objects.filter(pk=vm.pk, state=VmState.RUNNING).update(needs_restart=True)


def not_now(what: str, vm: VirtualMachine, states: dict[VmState, VmState]) -> InvalidParameter:
    now = VirtualMachine.objects.values_list("state", flat=True).get(pk=vm.pk)
    return InvalidParameter(f"{vm} is {now}; {what} needs it {' or '.join(states)}.")
