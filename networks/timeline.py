"""What happened to a NIC since its VM was started last: told by whoever knows a part of it.

Who has something to tell registers a function here, from its AppConfig.ready().
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from extdhcp_site.accounts.models import Caller
from extdhcp_site.events.models import Event, EventType, Level, State
from networks.models import Nic, VirtualMachine, VmState

# Of one VM's events since its start; a VM that runs for years has the last of them.
MOST_EVENTS = 100
STARTS = (EventType.VM_CREATE, EventType.VM_START, EventType.VM_REBOOT, EventType.VM_RESTORE)
_VERBS = {
    EventType.VM_CREATE: "Deploy",
    EventType.VM_START: "Start",
    EventType.VM_STOP: "Stop",
    EventType.VM_REBOOT: "Reboot",
    EventType.VM_DESTROY: "Destroy",
    EventType.VM_MIGRATE: "Migration",
    EventType.VM_RECOVER: "Recover",
    EventType.VM_RESTORE: "Reinstall",
    EventType.VM_CONFIGDRIVE: "Config drive",
    EventType.VM_UPDATE: "Change of the VM",
    EventType.VM_UPGRADE: "Change of the service offering",
    EventType.VM_RESETPASSWORD: "Password reset",
    EventType.VM_RESETSSHKEY: "SSH key reset",
    EventType.VM_RESETUSERDATA: "User data reset",
    EventType.NIC_CREATE: "New NIC",
    EventType.NIC_DELETE: "Removal of a NIC",
    EventType.NIC_UPDATE: "Change of a NIC",
}


class Kind(StrEnum):
    """A chip's class: what became of it."""

    DONE = "found"
    FAILED = "error"
    DOUBTFUL = "warn"
    NOTE = "off"
    NEXT = "waiting"


@dataclass(frozen=True)
class Entry:
    """`at` lies ahead where `kind` is NEXT: the page counts down to it."""

    at: datetime
    title: str
    text: str = ""
    kind: Kind = Kind.DONE


Teller = Callable[[Nic, Caller, datetime], Iterable[Entry]]
_tellers: list[Teller] = []


def tells(teller: Teller) -> None:
    """Register who knows a part: it is given the NIC with its `vm`, who asks, and the moment of the last start."""
    _tellers.append(teller)


def of(nic: Nic, caller: Caller) -> list[Entry]:
    """All that is known since the VM's last start, in order; what was made for it before that comes first."""
    since = begun(nic.vm)
    return sorted((entry for teller in _tellers for entry in teller(nic, caller, since)), key=lambda entry: entry.at)


def begun(vm: VirtualMachine) -> datetime:
    """When the last start, or what includes one, was asked for."""
    starts = Event.objects.about(vm).filter(type__in=STARTS, state__in=[State.SCHEDULED, State.CREATED])
    last = starts.order_by("-created_at").values_list("created_at", flat=True).first()
    return last or (vm.state_since if vm.state == VmState.RUNNING else vm.created_at)


def of_the_vm(nic: Nic, caller: Caller, since: datetime) -> Iterator[Entry]:
    """Its jobs, and where it runs."""
    vm = nic.vm
    events = Event.objects.about(vm).filter(created_at__gte=since, type__in=_VERBS).exclude(state=State.STARTED)
    yield from (_of_event(event, caller) for event in events[:MOST_EVENTS])
    if vm.state == VmState.RUNNING and vm.host:
        where = f"On {vm.host}, as {vm.instance_name}." if caller.is_root else ""
        yield Entry(vm.state_since, "Runs", where)
    if vm.guest_seen_at and vm.guest_seen_at >= since:
        yield Entry(vm.guest_seen_at, "Guest seen", "Its agent answered, or an address of its was seen.")


def _of_event(event: Event, caller: Caller) -> Entry:
    verb = _VERBS[EventType(event.type)]
    if event.state == State.SCHEDULED:
        return Entry(event.created_at, f"{verb} asked for", f"By {event.username}.", Kind.NOTE)
    if event.level == Level.ERROR:
        return Entry(event.created_at, f"{verb} failed", event.text_for(caller), Kind.FAILED)
    kind = Kind.DOUBTFUL if event.level == Level.WARN else Kind.DONE
    # That a job is completed is all that its event says.
    text = "" if event.state == State.COMPLETED else event.text_for(caller)
    return Entry(event.created_at, f"{verb} done" if event.state == State.COMPLETED else verb, text, kind)
