"""What can be wrong with a VM itself: its state, its host, its guest agent, its NICs on the host."""

from collections.abc import Iterator, Sequence
from typing import Any

from networks.checks import Check
from networks.hypervisors.base import (
    AgentState,
    GuestAgent,
    HypervisorError,
    NicInspector,
    NicSpec,
    NicState,
    PowerState,
)
from networks.models import AddressState, Endpoint, HypervisorType, Nic, VirtualMachine, VmState
from networks.models.infrastructure import HostState
from networks.models.offerings import OsFamily
from networks.services.places import CALL, place, within

# The external DHCP/DNS spec's support matrix: what must be in a template so that the hypervisor can tell addresses.
TOOLS = {
    (HypervisorType.KVM, OsFamily.LINUX): "qemu-guest-agent",
    (HypervisorType.KVM, OsFamily.WINDOWS): "the virtio drivers and the QEMU guest agent (virtio-win-guest-tools)",
    (HypervisorType.XENSERVER, OsFamily.LINUX): "the XenServer tools",
    (HypervisorType.XENSERVER, OsFamily.WINDOWS): "the XenServer tools with the PV drivers",
    (HypervisorType.VMWARE, OsFamily.LINUX): "VMware Tools (open-vm-tools)",
    (HypervisorType.VMWARE, OsFamily.WINDOWS): "VMware Tools",
}


def vm_checks(vm: VirtualMachine, nics: Sequence[Nic]) -> Iterator[Check]:
    moving = {VmState.STARTING, VmState.STOPPING, VmState.MIGRATING}
    passed = {VmState.RUNNING: True, VmState.ERROR: False}.get(VmState(vm.state))
    job = f", job {vm.pending_job} is at work" if vm.pending_job else ", and no job works on it" * (vm.state in moving)
    text = f"{vm.state} since {vm.state_since:%Y-%m-%d %H:%M:%S} UTC{job}. {vm.error_text}".strip()
    yield Check("state", passed, text, public=True)
    if vm.host is None:
        return
    yield Check("host", vm.host.state == HostState.UP, f"{vm.host} is {vm.host.state}.")
    hypervisor = place(vm.host).hypervisor
    power = _power(hypervisor, vm)
    yield _endpoint(vm.host.endpoint, power)
    yield _as_it_should(vm, power)
    if power == PowerState.RUNNING:
        yield from _agent(hypervisor, vm, nics)
        yield from _nics(hypervisor, vm, nics)
    if vm.guest_seen_at:
        yield Check("guest", True, f"last seen at {vm.guest_seen_at:%Y-%m-%d %H:%M:%S} UTC", public=True)
    else:
        yield Check("guest", None, "never seen: its agent has not answered since the VM was made", public=True)


def _power(hypervisor: Any, vm: VirtualMachine) -> PowerState | HypervisorError | None:
    try:
        return hypervisor.power_state(vm.on_host, within(CALL))
    except HypervisorError as error:
        return error


def _endpoint(endpoint: Endpoint, power: PowerState | HypervisorError | None) -> Check:
    """Whether it answers now, and what those who ask often have found."""
    stuck = f" {endpoint.stuck_calls} calls to it do not come back." if endpoint.stuck_calls else ""
    if not isinstance(power, HypervisorError):
        left_alone = ""
        if endpoint.retry_at:
            left_alone = f" It did not before; addresses are asked for again from {endpoint.retry_at:%H:%M:%S} UTC."
        return Check("endpoint", True, f"{endpoint} answers.{left_alone}{stuck}")
    failures = f" It has not {endpoint.failures} times in a row before." if endpoint.failures else ""
    until = f" Addresses are asked for again from {endpoint.retry_at:%H:%M:%S} UTC." if endpoint.retry_at else ""
    advice = f" Run: manage.py check_endpoint {endpoint}"
    return Check("endpoint", False, f"{endpoint} does not answer: {power}{failures}{until}{stuck}{advice}")


def _as_it_should(vm: VirtualMachine, power: PowerState | HypervisorError | None) -> Check:
    if isinstance(power, HypervisorError):
        return Check("power", None, f"{vm.host} could not be asked: {power}")
    if power is None:
        return Check("power", False, f"{vm.host} does not know {vm.instance_name}: it was removed or moved by hand.")
    runs = power == PowerState.RUNNING
    return Check("power", runs == (vm.state == VmState.RUNNING), f"{vm.host} says that it is {power}")


def tools(vm: VirtualMachine) -> str:
    """What its template must have, in one sentence."""
    needed = TOOLS[HypervisorType(vm.hypervisor), OsFamily(vm.template.os_family)]
    return f"A {vm.template.os_family} guest on {vm.hypervisor} needs {needed} in its template."


def _agent(hypervisor: Any, vm: VirtualMachine, nics: Sequence[Nic]) -> Iterator[Check]:
    if not isinstance(hypervisor, GuestAgent):
        return
    try:
        state = hypervisor.agent_state(vm.on_host, within(CALL))
    except HypervisorError as error:
        yield Check("agent", None, f"{vm.host} could not be asked: {error}")
        return
    known = {AddressState.CONFIRMED, AddressState.PINNED}
    # Other sources than the agent may have told all that is needed.
    missed = False if any(nic.address_state not in known for nic in nics) else None
    match state:
        case AgentState.CONNECTED:
            yield Check("agent", True, "connected", public=True)
        case AgentState.NOT_CONNECTED:
            text = f"not connected: the guest boots still, or has no agent. {tools(vm)}"
            yield Check("agent", missed, text, public=True)
        case AgentState.NO_CHANNEL:
            advice = "Stop the VM, then start it: its definition is written anew."
            yield Check(
                "agent", missed, f"The VM has no channel for an agent: somebody took it away. {advice}", public=True
            )
        case None:
            yield Check("agent", None, f"{vm.host} does not say whether it is connected. {tools(vm)}")


def _link_up(vm: VirtualMachine, nic: Nic) -> str:
    match HypervisorType(vm.hypervisor):
        case HypervisorType.KVM:
            return f"Set it up there: virsh domif-setlink {vm.instance_name} {nic.mac_address} up"
        case HypervisorType.XENSERVER:
            find = f"xe vif-list vm-name-label={vm.instance_name} MAC={nic.mac_address}"
            return f"Find it in the pool: {find} and unlock it: xe vif-param-set uuid=UUID locking-mode=network_default"
        case HypervisorType.VMWARE:
            adapter = f"the network adapter with MAC address {nic.mac_address}"
            return f"In the settings of {vm.instance_name}, connect {adapter}."


def _nics(hypervisor: Any, vm: VirtualMachine, nics: Sequence[Nic]) -> Iterator[Check]:
    if not isinstance(hypervisor, NicInspector):
        return
    for nic in nics:
        network = nic.network.on_host
        try:
            state = hypervisor.nic_state(vm.on_host, NicSpec(nic.mac_address, network), within(CALL))
        except HypervisorError as error:
            yield Check(f"NIC {nic.mac_address}", None, f"{vm.host} could not be asked: {error}")
            continue
        anew = "Stop the VM, then start it: all its NICs are plugged in anew."
        text = {
            NicState.PLUGGED: f"plugged into {network.label}",
            NicState.ABSENT: f"The running VM has no NIC with this MAC address. {anew}",
            NicState.ELSEWHERE: f"It is not plugged into {network.label}, where network {nic.network} is. {anew}",
            NicState.LINK_DOWN: f"Its link was set down on the host. {_link_up(vm, nic)}",
        }[state]
        yield Check(f"NIC {nic.mac_address}", state == NicState.PLUGGED, text)
