"""Asking guests for their addresses through the guest agent, several at a time."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import libvirt

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    HEARTBEAT_SECONDS,
    AskTheOperator,
    DeadlineExceeded,
    DoNotTryAgain,
    EndpointUnreachable,
    HypervisorError,
    NotFound,
    Outcome,
    Reading,
    Source,
    VmRef,
    beat,
)
from networks.hypervisors.kvm_addresses import guest_addresses
from networks.hypervisors.kvm_connection import Session, error_code

AGENT_RESPONSE_SECONDS = 4
# A healthy agent answers in well under a second. libvirt itself may wait 30 s for the domain's agent
# lock, 5 s to synchronise and then the response time-out.
READING_SECONDS = 12.0

_NOT_RUNNING = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)
NO_AGENT = (
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
)


def read_vm(session: Session, vm: VmRef, source: Source) -> Reading | None:
    """One VM's reading; None when the whole batch's deadline cut it short.

    Raises EndpointUnreachable, also when the host itself is slow: looking a VM up asks no guest.
    """
    until = time.monotonic() + READING_SECONDS
    try:
        domain = session.do(_domain_with_timeout, session.connection, kvm_xml.vm_uuid(vm.uuid), until=until)
    except NotFound as error:
        return Reading(problem=Outcome.NOT_RUNNING, detail=str(error))
    except DeadlineExceeded:
        if time.monotonic() < until:
            return None
        raise
    agent = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
    try:
        answer = session.do(domain.interfaceAddresses, agent, 0, until=until)
    except DeadlineExceeded as error:
        return None if time.monotonic() < until else Reading(problem=Outcome.AGENT_SILENT, detail=str(error))
    except EndpointUnreachable:
        raise
    except HypervisorError as error:
        return Reading(problem=_why_silent(session, domain, error), detail=str(error))
    return Reading(guest_addresses(answer, vm.macs, source))


def _domain_with_timeout(connection: Any, uuid: str) -> Any:
    domain = connection.lookupByUUIDString(uuid)
    limit_waiting(domain)
    return domain


def limit_waiting(domain: Any) -> None:
    """Give the domain's agent a few seconds to answer: by default libvirt waits for ever.

    The time-out is kept in the daemon, for its every client; what others ask of an agent fits in it.
    """
    # Not known to libvirt before 5.10 nor to the test driver; the deadline of the call holds anyway.
    with contextlib.suppress(libvirt.libvirtError):
        domain.agentSetResponseTimeout(AGENT_RESPONSE_SECONDS, 0)


def _why_silent(session: Session, domain: Any, error: HypervisorError) -> Outcome:
    code = error_code(error)
    if code in _NOT_RUNNING:
        return Outcome.NOT_RUNNING
    if code in NO_AGENT:
        return Outcome.AGENT_ABSENT
    if code == libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
        with contextlib.suppress(DoNotTryAgain, AskTheOperator):
            if kvm_xml.agent_connected(session.do(domain.XMLDesc, 0)) is False:
                return Outcome.AGENT_ABSENT
    return Outcome.AGENT_SILENT


_Result = tuple[VmRef, Reading | None] | Exception


def side_by_side(
    vms: Sequence[VmRef], deadline: float, width: int, read: Callable[[VmRef], Reading | None]
) -> Iterator[tuple[VmRef, Reading]]:
    """Readings as they arrive, `width` at a time; the first EndpointUnreachable ends the batch."""
    waiting: queue.SimpleQueue[VmRef] = queue.SimpleQueue()
    for vm in vms:
        waiting.put(vm)
    results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not ended.is_set() and time.monotonic() < deadline:
                vm = waiting.get_nowait()
                try:
                    results.put((vm, read(vm)))
                except Exception as error:  # it belongs to the caller's thread
                    results.put(error)

    for _ in range(min(max(1, width), len(vms))):
        threading.Thread(target=work, name="read-addresses", daemon=True).start()
    try:
        for _ in vms:
            result = _next_result(results, deadline)
            if result is None:
                return
            if isinstance(result, Exception):
                raise result
            vm, reading = result
            if reading is not None:
                yield vm, reading
    finally:
        ended.set()


def _next_result(results: "queue.SimpleQueue[_Result]", deadline: float) -> "_Result | None":
    """None when the deadline has come first."""
    while (remaining := deadline - time.monotonic()) > 0:
        try:
            return results.get(timeout=min(remaining, HEARTBEAT_SECONDS))
        except queue.Empty:
            beat()
    return None
