"""What vSphere tells of a VM and its guest, and the addresses in it. Pure: nothing here talks to vSphere.

The guest says what `guest.*` holds, so it is not trusted. Source of what the properties mean: vSphere Web Services API,
GuestInfo and GuestNicInfo.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from networks.hypervisors.base import GuestAddress, Outcome, PowerState, Reading, Source, VmRef
from networks.hypervisors.guest_addresses import MAX_ADDRESSES, usable

# What the mirror keeps of each VM, and no more: every property costs its bytes 10,000 times.
PATHS = (
    "config.uuid",
    "runtime.powerState",
    "runtime.host",
    "runtime.connectionState",
    "guest.toolsRunningStatus",
    "guest.toolsVersionStatus2",
    "guest.ipAddress",
    "guest.net",
)
MAX_INTERFACES = 64
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_POWER = {"poweredOn": PowerState.RUNNING, "suspended": PowerState.PAUSED, "poweredOff": PowerState.OFF}
_TOOLS_RUNNING = ("guestToolsRunning", "guestToolsExecutingScripts")
_TOOLS_ABSENT = "guestToolsNotInstalled"
_TOOLS_OLD = ("guestToolsNeedUpgrade", "guestToolsTooOld", "guestToolsSupportedOld", "guestToolsBlacklisted")

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Interface:
    """A NIC of the VM as its guest sees it."""

    mac: str
    addresses: tuple[tuple[_Ip, int | None], ...]


@dataclass(frozen=True)
class Machine:
    """One VM. `host` is the identifier of the one it is registered on. `summary_ip` is an address of any interface."""

    uuid: str = ""
    power: PowerState = PowerState.OFF
    host: str = ""
    tools: str = ""
    tools_version: str = ""
    summary_ip: _Ip | None = None
    interfaces: tuple[Interface, ...] = ()
    connection: str = "connected"

    @property
    def tools_run(self) -> bool:
        return self.tools in _TOOLS_RUNNING


def changed(machine: Machine, properties: dict[str, Any]) -> Machine:
    """The VM after some of its `PATHS` took these values; None is a property that it has no more."""
    updates = {field: read(properties[path]) for path, (field, read) in _READERS.items() if path in properties}
    return replace(machine, **updates)


def power_state(value: object) -> PowerState:
    return _POWER.get(str(value), PowerState.RUNNING)


def object_identifier(ref: Any) -> str:
    """Empty for no object: a VM that vCenter has lost may be on no host."""
    return "" if ref is None else str(ref._moId)


def _interfaces(nics: object) -> tuple[Interface, ...]:
    return tuple(islice(_own_interfaces(nics if isinstance(nics, list) else []), MAX_INTERFACES))


def _own_interfaces(nics: Iterable[Any]) -> Iterator[Interface]:
    for nic in nics:
        mac = (nic.macAddress or "").lower()
        # The device key is vSphere's word for "a NIC of this VM"; an interface inside the guest has -1.
        if _MAC.fullmatch(mac) and nic.deviceConfigId >= 0:
            yield Interface(mac, tuple(islice(_addresses(nic), MAX_ADDRESSES)))


def _addresses(nic: Any) -> Iterator[tuple[_Ip, int | None]]:
    structured = nic.ipConfig.ipAddress if nic.ipConfig is not None else []
    prefixes = {each.ipAddress: each.prefixLength for each in islice(structured, MAX_ADDRESSES)}
    for text in islice(dict.fromkeys([*prefixes, *islice(nic.ipAddress, MAX_ADDRESSES)]), 2 * MAX_ADDRESSES):
        ip = usable(text)
        if ip is not None:
            prefix = prefixes.get(text)
            yield ip, prefix if prefix is not None and 0 <= prefix <= ip.max_prefixlen else None


_READERS: dict[str, tuple[str, Any]] = {
    "config.uuid": ("uuid", lambda value: str(value or "").lower()),
    "runtime.powerState": ("power", power_state),
    "runtime.host": ("host", object_identifier),
    "runtime.connectionState": ("connection", str),
    "guest.toolsRunningStatus": ("tools", lambda value: str(value or "")),
    "guest.toolsVersionStatus2": ("tools_version", lambda value: str(value or "")),
    "guest.ipAddress": ("summary_ip", usable),
    "guest.net": ("interfaces", _interfaces),
}


# Readings ---------------------------------------------------------------------------------------


def reading(vm: VmRef, machines: list[Machine]) -> Reading:
    """What is known of the addresses of `vm`, of which vSphere has these: one, unless somebody copied a UUID."""
    if not machines:
        return Reading(problem=Outcome.NOT_RUNNING, detail="vSphere does not know this VM.")
    if len(machines) > 1:
        return Reading(problem=Outcome.AMBIGUOUS, detail="Several VMs in vSphere have this VM's UUID.")
    (machine,) = machines
    if machine.power is not PowerState.RUNNING:
        # What its guest said before it was switched off may stand there still.
        return Reading(problem=Outcome.NOT_RUNNING, detail=f"The VM is {machine.power.value}.")
    if machine.connection != "connected":
        return Reading(
            problem=Outcome.AGENT_SILENT,
            detail=f"The VM or its host is {machine.connection} in vSphere: what its guest said last may be old.",
        )
    if machine.tools and not machine.tools_run:
        return Reading(problem=Outcome.AGENT_ABSENT, detail=_why_silent(machine))
    return Reading(tuple(_addresses_of(vm, machine)), detail=_old_tools(machine))


def _why_silent(machine: Machine) -> str:
    if machine.tools_version == _TOOLS_ABSENT:
        return "VMware Tools are not installed in the guest."
    return "VMware Tools do not run in the guest."


def _old_tools(machine: Machine) -> str:
    if machine.interfaces or machine.tools_version not in _TOOLS_OLD:
        return ""
    return "VMware Tools in the guest are old, and tell nothing of its NICs."


def _addresses_of(vm: VmRef, machine: Machine) -> Iterator[GuestAddress]:
    for interface in sorted(machine.interfaces, key=lambda interface: interface.mac not in vm.macs):
        for ip, prefix in interface.addresses:
            yield GuestAddress(interface.mac, ip, Source.GUEST_AGENT, prefix)
    # Old tools tell this one only. With several NICs it may be any of theirs, or a container's bridge's.
    if not machine.interfaces and len(vm.macs) == 1 and machine.summary_ip is not None:
        yield GuestAddress(vm.macs[0], machine.summary_ip, Source.UNSURE_AGENT)
