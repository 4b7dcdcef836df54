"""What can be wrong with a VM itself: its state, its host, its guest agent."""

from collections.abc import Iterator

from networks.checks import Check
from networks.hypervisors.base import HypervisorError, PowerState
from networks.models import VirtualMachine, VmState
from networks.models.infrastructure import HostState
from networks.services.places import CALL, place, within


def vm_checks(vm: VirtualMachine) -> Iterator[Check]:
    moving = {VmState.STARTING, VmState.STOPPING, VmState.MIGRATING}
    passed = {VmState.RUNNING: True, VmState.ERROR: False}.get(VmState(vm.state))
    job = f", job {vm.pending_job} is at work" if vm.pending_job else ", and no job works on it" * (vm.state in moving)
    yield Check(
        "state", passed, f"{vm.state} since {vm.state_since:%Y-%m-%d %H:%M:%S} UTC{job}. {vm.error_text}".strip()
    )
    if vm.host is None:
        return
    up = vm.host.state == HostState.UP
    advice = "" if up else f" {vm.host.endpoint.last_error} Run: manage.py check_endpoint {vm.host.endpoint}"
    yield Check("host", up, f"{vm.host} is {vm.host.state}.{advice}")
    yield _power(vm)
    if vm.guest_seen_at:
        yield Check("guest", True, f"last seen at {vm.guest_seen_at:%Y-%m-%d %H:%M:%S} UTC")
    else:
        yield Check("guest", None, "never seen: neither its agent nor an address. Is qemu-guest-agent in the template?")


def _power(vm: VirtualMachine) -> Check:
    try:
        power = place(vm.host).hypervisor.power_state(vm.on_host, within(CALL))
    except HypervisorError as error:
        return Check("power", None, f"{vm.host} could not be asked: {error}")
    if power is None:
        return Check("power", False, f"{vm.host} does not know {vm.instance_name}: it was removed or moved by hand.")
    runs = power == PowerState.RUNNING
    return Check("power", runs == (vm.state == VmState.RUNNING), f"{vm.host} says that it is {power}")
