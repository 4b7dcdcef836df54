"""Looking for addresses on a guest's disk: the spec's own method, slow, and the last resort.

Source: external DHCP/DNS spec, "Use the guestfish command in KVM host to read the VM dhcp lease".
"""

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog
from django.db import connections
from django.utils import timezone

from extdhcp_site.jobs import tasks
from extdhcp_site.locks import models as locks
from extdhcp_site.locks.models import Held
from ipfetch import recording
from ipfetch.explanations import ON_DISK
from ipfetch.guest_leases import Ambiguous, DiskNic, choose, leases_of
from ipfetch.models import IpFetch, Outcome
from networks.hypervisors.base import (
    Busy,
    DiskAccess,
    DiskReader,
    GuestAddress,
    HypervisorError,
    Source,
    asking,
    heartbeat,
)
from networks.models import Endpoint, Nic, VirtualMachine
from networks.models.offerings import OsFamily
from networks.services.places import hypervisor_at, within

log = structlog.get_logger(__name__)

READ_SECONDS = 180.0  # two small VMs for a Windows guest, each half a minute where there is no KVM
# Of as many hosts disks are read at a time by this process. Who finds no place is asked for again at the next try.
MOST_AT_A_TIME = 4
_places = threading.BoundedSemaphore(MOST_AT_A_TIME)
LACKING = (IpFetch.State.WAITING, IpFetch.State.EXHAUSTED)


@tasks.task
def read_disks(endpoint_id: int, nic_ids: Sequence[int]) -> None:
    """Task: look for the NICs' addresses on their VMs' disks, in a thread of its own, so that no batch waits for it.

    Safe to lose and to run twice: the next counted try asks for it again, and results are fenced by the row's attempt.
    """
    if _places.acquire(blocking=False):
        threading.Thread(target=_look_in_thread, args=(endpoint_id, nic_ids), name="read-disks", daemon=True).start()


def _look_in_thread(endpoint_id: int, nic_ids: Sequence[int]) -> None:
    try:
        look(endpoint_id, nic_ids)
    except Exception:
        log.exception("Guests' disks could not be looked at.", endpoint=endpoint_id)
    finally:
        connections.close_all()
        _places.release()


def look(endpoint_id: int, nic_ids: Sequence[int]) -> None:
    """Look for the addresses of all NICs of these ones' VMs that lack one, disk by disk; nothing while another disk
    of the host is being read, wherever in the farm.
    """
    if _readable(endpoint_id) is None:
        return
    lock = locks.acquire(f"disk-{endpoint_id}", f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}")
    if lock is None:
        return
    try:
        with asking(endpoint_id), heartbeat(lambda: _renew(lock)):
            _look_one_by_one(endpoint_id, nic_ids, lock)
    finally:
        lock.release()


def _look_one_by_one(endpoint_id: int, nic_ids: Sequence[int], lock: Held) -> None:
    looked_at: set[int] = set()
    for nic_id in nic_ids:
        # All is read anew: minutes may have passed since the list was made.
        endpoint = _readable(endpoint_id)
        nics = Nic.objects.filter(pk=nic_id, vm__host__endpoint=endpoint_id).exclude(vm__in=looked_at)
        nic = nics.select_related("vm__template").first()
        if endpoint is None or (nic and not lock.renew()):
            return
        if nic:
            looked_at.add(nic.vm_id)
            _look(nic.vm, endpoint)


def _readable(endpoint_id: int) -> Endpoint | None:
    """The endpoint, if its guests' disks may be read."""
    return Endpoint.objects.filter(pk=endpoint_id).exclude(disk_access=DiskAccess.NONE).first()


def _renew(lock: Held) -> None:
    if not lock.renew():
        raise Busy("Another server reads a disk of this host.")


def _look(vm: VirtualMachine, endpoint: Endpoint) -> None:
    rows = {row.nic_id: row for row in IpFetch.objects.filter(nic__vm=vm, state__in=LACKING)}
    hypervisor = hypervisor_at(endpoint)
    if not rows or not isinstance(hypervisor, DiskReader):
        return
    windows = vm.template.os_family == OsFamily.WINDOWS
    try:
        leases = leases_of(hypervisor.read_lease_files(vm.on_host, within(READ_SECONDS), windows=windows))
    except Busy:
        return  # whoever has the lock by now tells what it finds
    except HypervisorError as error:
        log.warning("A guest's disk could not be read", vm=str(vm.uuid), endpoint=str(endpoint), error=str(error))
        for row in rows.values():
            _mine(row).update(last_detail=f"{ON_DISK} {error}"[:255])
        return
    now = timezone.now()
    nics = {nic.pk: DiskNic(nic.mac_address, nic.network.ip4_network) for nic in vm.nics.select_related("network")}
    sightings: dict[int, tuple[GuestAddress, ...]] = {}
    for nic_id in rows.keys() & nics.keys():
        others = [other for other_id, other in nics.items() if other_id != nic_id]
        choice = choose(leases, nics[nic_id], others, _powered_on_at(vm, rows[nic_id]), now)
        if isinstance(choice, Ambiguous):
            _mine(rows[nic_id]).update(last_outcome=Outcome.AMBIGUOUS, last_detail=choice.reason[:255])
        elif choice:
            sightings[nic_id] = choice
        else:
            _mine(rows[nic_id]).filter(last_detail="").update(last_detail="Its disk has no valid lease of it.")
    _report(sightings, rows, now)


def _powered_on_at(vm: VirtualMachine, row: IpFetch) -> datetime:
    """At the latest. A migration sets the one anew, and a revival the other, while the guest runs on."""
    return min(vm.state_since, row.entered_at)


def _report(sightings: Mapping[int, tuple[GuestAddress, ...]], rows: Mapping[int, IpFetch], now: datetime) -> None:
    """A NIC that entered the queue anew while its disk was read may be of another boot: it is left out."""
    entered = dict(IpFetch.objects.filter(nic__in=list(sightings)).values_list("nic_id", "entered_at"))
    of_this_boot = {nic: found for nic, found in sightings.items() if entered.get(nic) == rows[nic].entered_at}
    if of_this_boot:
        recording.report(Source.DISK, of_this_boot, now)


def _mine(row: IpFetch):
    # `attempt` is the fence: by now another try may have said something newer.
    return IpFetch.objects.waiting().filter(pk=row.pk, attempt=row.attempt)
