"""A pool's running VMs, their NICs and what their guests say, kept in this process and brought up to date by events.

Read whole once, by a few calls for the whole pool, then only what has changed since: event.from with the token of the
last look. Sources: XenAPI reference, class event; xen-api, xapi_event.ml.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from networks.hypervisors import xenserver_addresses as addresses
from networks.hypervisors import xenserver_records as records
from networks.hypervisors.base import (
    DeadlineExceeded,
    DoNotTryAgain,
    EndpointAddress,
    Outcome,
    PowerState,
    Reading,
    VmRef,
)
from networks.hypervisors.bounded import AnswerRefused
from networks.hypervisors.bounded_xmlrpc import RECORDS, SNAPSHOTS, keeping
from networks.hypervisors.xenserver_session import Session

# A VM's record is some 10 KB of XML, and an answer is limited: those of a host or a few at a time.
VMS_A_CALL = 4000
# Looks that were too late before the pool is read whole: its answer may be more than it can give in the time.
LATE_MAX = 2

_VM = records.VM_FIELDS
_VIF = frozenset({"VM", "device", "MAC"})
_GUEST = frozenset({"networks", "PV_drivers_version", "os_version", "live"})
CLASSES = ("vm", "vif", "vm_guest_metrics")

NOT_RUNNING = Reading(problem=Outcome.NOT_RUNNING, detail="The VM does not run in the pool.")
HOST_LOST = Reading(
    problem=Outcome.AGENT_SILENT,
    detail="The VM's host is off, or its pool's coordinator cannot reach it: what its guest said last may be old.",
)


@dataclass
class _State:
    """By reference. VMs that do not run are left out: of them nothing is asked."""

    token: str = ""
    vms: dict[str, records.Vm] = field(default_factory=dict)
    vifs: dict[str, addresses.Vif] = field(default_factory=dict)
    guests: dict[str, addresses.Guest] = field(default_factory=dict)
    by_uuid: dict[str, str] = field(default_factory=dict)

    def set_vm(self, ref: str, vm: records.Vm | None) -> None:
        former = self.vms.pop(ref, None)
        if former and self.by_uuid.get(former.uuid) == ref:
            del self.by_uuid[former.uuid]
        if vm is not None and vm.power is not PowerState.OFF and not vm.suspended:
            self.vms[ref] = vm
            self.by_uuid[vm.uuid] = ref


@dataclass(frozen=True)
class Change:
    """What became of a VM between two looks; `before` or `after` is None when it did not run."""

    before: records.Vm | None
    after: records.Vm | None
    guest_before: addresses.Guest | None = None
    guest_after: addresses.Guest | None = None


class Mirror:
    """One pool's. Safe to share between threads: one at a time looks at the pool, and reads what it found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: _State | None = None
        self._late = 0  # looks one after the other whose answer did not come in time

    @property
    def is_read(self) -> bool:
        return self._state is not None

    def readings(self, session: Session, vms: Sequence[VmRef]) -> list[tuple[VmRef, Reading]]:
        """As of now. Raises a HypervisorError."""
        with self._up_to_date(session) as state:
            lost = _lost_hosts(session)
            return [(vm, _reading(state, vm, lost)) for vm in vms]

    def running(self, session: Session, host: str = "") -> set[str]:
        """UUIDs of all that runs now, or of what runs on one host. Raises a HypervisorError."""
        with self._up_to_date(session) as state:
            here = (vm for vm in state.vms.values() if host in ("", vm.host))
            return {vm.uuid for vm in here if vm.power is PowerState.RUNNING}

    def wait(self, session: Session, seconds: float) -> list[Change]:
        """What has changed since the last look; waits for something to change.

        A look that reads the pool whole, as the first does, has no changes.
        """
        with self._alone(session.deadline):
            return self._look(session, seconds)[1]

    @contextlib.contextmanager
    def _up_to_date(self, session: Session) -> Iterator[_State]:
        with self._alone(session.deadline):
            yield self._look(session, wait=0.0)[0]

    @contextlib.contextmanager
    def _alone(self, deadline: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded("The pool was still being read for somebody else.")
        try:
            yield
        finally:
            self._lock.release()

    def _look(self, session: Session, wait: float) -> tuple[_State, list[Change]]:
        state = self._state
        changes = self._changes(session, state, wait) if state is not None and self._late < LATE_MAX else None
        if state is None or changes is None:
            state, changes = _read(session), []
        self._state, self._late = state, 0
        return state, changes

    def _changes(self, session: Session, state: _State, wait: float) -> list[Change] | None:
        try:
            return _follow(session, state, wait)
        except AnswerRefused:
            return None  # so much has changed that no answer can hold it
        except DeadlineExceeded:
            self._late += 1
            raise


def _reading(state: _State, vm: VmRef, lost: set[str]) -> Reading:
    ref = state.by_uuid.get(vm.uuid)
    known = state.vms.get(ref) if ref else None
    if known is None or known.power is not PowerState.RUNNING:
        return NOT_RUNNING
    if known.host in lost:
        return HOST_LOST
    vifs = [vif for one in known.vifs if (vif := state.vifs.get(one)) is not None]
    return addresses.reading(state.guests.get(known.metrics), vifs)


def read_alone(session: Session, vm: records.Vm | None) -> Reading:
    """One VM's reading without a mirror: three small calls."""
    if vm is None or vm.power is not PowerState.RUNNING:
        return NOT_RUNNING
    if vm.host in _lost_hosts(session):
        return HOST_LOST
    vifs = [_vif(record) for record in session.where("VIF", "VM", vm.ref).values()]
    found = session.find("VM_guest_metrics", vm.metrics)
    return addresses.reading(None if found is None else _guest(found), vifs)


def _lost_hosts(session: Session) -> set[str]:
    """Hosts that the pool has lost: their VMs count as running until somebody, or high availability, decides."""
    answer = records.records(session.call("host_metrics.get_all_records_where", 'field "live" = "false"'))
    return set(session.where("host", "metrics", *answer)) if answer else set()


# Reading it whole -------------------------------------------------------------------------------


def _read(session: Session) -> _State:
    pool, _record = session.pool()
    # The point from which changes are told: taken before what follows is read, so that none is missed.
    state = _State(token=str(session.call("event.inject", "pool", pool)))
    for hosts in _together(session):
        with keeping(_VM, depth=RECORDS):
            found = session.where("VM", "resident_on", *hosts)
        for ref, record in found.items():
            state.set_vm(ref, records.vm(ref, record))
    with keeping(_VIF, depth=RECORDS):
        for ref, record in session.vifs().items():
            state.vifs[ref] = _vif(record)
    with keeping(_GUEST, depth=RECORDS):
        for ref, record in records.records(session.call("VM_guest_metrics.get_all_records")).items():
            state.guests[ref] = _guest(record)
    return state


def _together(session: Session) -> Iterator[list[str]]:
    """The pool's hosts, in groups that run no more VMs than one call is to tell."""
    with keeping({"resident_VMs"}, depth=RECORDS):
        hosts = records.records(session.call("host.get_all_records"))
    group: list[str] = []
    total = 0
    for ref, host in hosts.items():
        count = len(records.references(host.get("resident_VMs")))
        if group and total + count > VMS_A_CALL:
            yield group
            group, total = [], 0
        group.append(ref)
        total += count
    if group:
        yield group


def _vif(record: records.Record) -> addresses.Vif:
    return addresses.Vif(records.ref(record, "VM"), records.text(record, "device"), records.mac(record))


def _guest(record: records.Record) -> addresses.Guest:
    return addresses.guest(
        networks=records.strings(record, "networks"),
        drivers=records.strings(record, "PV_drivers_version"),
        system=records.strings(record, "os_version"),
        live=records.flag(record, "live"),
    )


# Following its changes --------------------------------------------------------------------------


def _follow(session: Session, state: _State, wait: float) -> list[Change] | None:
    """Changes since the token; None when it has to be read whole again."""
    with keeping(_VM | _VIF | _GUEST, depth=SNAPSHOTS):
        try:
            answer = records.record(session.call("event.from", list(CLASSES), state.token, float(wait)))
        except DoNotTryAgain:
            return None  # the pool does not know the token: its database was restored, say
    events, token = answer.get("events"), answer.get("token")
    if not isinstance(events, list) or not isinstance(token, str):
        return None
    touched = _Touched(state)
    for event in events:
        _apply(state, records.record(event), touched)
    if not _complete(state, answer.get("valid_ref_counts")):
        return None
    state.token = token
    return touched.changes()


class _Touched:
    """What VMs were like before a round of events."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._vms: dict[str, records.Vm | None] = {}
        self._guests: dict[str, addresses.Guest | None] = {}

    def vm(self, ref: str) -> None:
        self._vms.setdefault(ref, self._state.vms.get(ref))

    def guest(self, ref: str) -> None:
        self._guests.setdefault(ref, self._state.guests.get(ref))

    def changes(self) -> list[Change]:
        state = self._state
        if self._guests:
            for ref, vm in state.vms.items():
                if vm.metrics in self._guests:
                    self.vm(ref)
        return [self._change(ref, before) for ref, before in self._vms.items()]

    def _change(self, ref: str, before: records.Vm | None) -> Change:
        after = self._state.vms.get(ref)
        now = self._state.guests.get(after.metrics) if after else None
        former = self._guests.get(before.metrics, self._state.guests.get(before.metrics)) if before else None
        return Change(before, after, former, now)


def _apply(state: _State, event: records.Record, touched: _Touched) -> None:
    kind, ref = records.text(event, "class").lower(), records.reference(event.get("ref"))
    gone = records.text(event, "operation").lower() == "del"
    snapshot: Any = None if gone else records.record(event.get("snapshot"))
    if kind == "vm":
        touched.vm(ref)
        state.set_vm(ref, None if gone else records.vm(ref, snapshot))
    elif kind == "vif":
        _set(state.vifs, ref, snapshot, _vif)
    elif kind == "vm_guest_metrics":
        touched.guest(ref)
        _set(state.guests, ref, snapshot, _guest)


def _set(table: dict[str, Any], ref: str, snapshot: Any, value: Callable[[records.Record], object]) -> None:
    if snapshot is None:
        table.pop(ref, None)
    else:
        table[ref] = value(snapshot)


def _complete(state: _State, counts: object) -> bool:
    """Whether nothing was lost: the pool forgets after a while what was deleted, and tells how many there are."""
    if not isinstance(counts, dict):
        return True
    have = {"vif": len(state.vifs), "vm_guest_metrics": len(state.guests)}
    told = {name: counts[name] for name in have if name in counts}
    return all(int(count) == have[name] for name, count in told.items() if str(count).isdecimal())


# The process's mirrors --------------------------------------------------------------------------


class Mirrors:
    """One for each pool that this process asks."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a thread of the parent's may have held a lock

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._mirrors: dict[EndpointAddress, Mirror] = {}

    def of(self, endpoint: EndpointAddress) -> Mirror:
        with self._lock:
            return self._mirrors.setdefault(endpoint, Mirror())


MIRRORS = Mirrors()
