"""What keeps drives true while nobody asks: ejected once read, verified, repaired; files that nobody needs removed."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db.models import F, Q
from django.utils import timezone

from configdrive.models import ConfigDrive, Leftover
from configdrive.storage import (
    READ_WITHIN,
    digest,
    eject,
    installation_mark,
    lies_among,
    note_served,
    remove,
    storage_name,
)
from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs import tasks
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.locks.models import Held
from networks.elements import Place
from networks.hypervisors.base import (
    AskTheOperator,
    DoNotTryAgain,
    HypervisorError,
    MediaFile,
    NotFound,
    Refused,
)
from networks.models import ConfigDriveUse, Host, PrimaryStorage, VirtualMachine, VmState
from networks.models.infrastructure import HostState
from networks.services import guest_data
from networks.services.alone import alone
from networks.services.guest_jobs import refresh_guest
from networks.services.job_steps import vm_of, working
from networks.services.places import CALL, hypervisor_at, place, record_failure, tolerated, translated, within
from networks.services.submission import submit

log = structlog.get_logger(__name__)

# Younger ones belong to a job that is at work.
LEFT_FOR = timedelta(minutes=15)
TRIED_AGAIN_AFTER = timedelta(minutes=10)
READ_BACK_A_PASS = 20  # drives a host
LEFTOVERS_A_PASS = 100  # a host
RUNNING = {VmState.RUNNING: VmState.RUNNING}


# On demand ------------------------------------------------------------------------------------


def rebuild(drive: ConfigDrive, by: Caller) -> AsyncJob:
    """Bring the drive of a running VM up to date; one that tells the same already is left as it is."""
    return guest_data.refresh(drive.vm, by)


def verify(drive: ConfigDrive, by: Caller | None) -> AsyncJob:
    """Compare what lies on the host with what was built, and repair it if it differs."""
    return submit("verifyConfigDrive", _vm_with_disc(drive), by, RUNNING)


def eject_now(drive: ConfigDrive, by: Caller) -> AsyncJob:
    """Take the disc out of a running VM, until its next start or until what it tells changes."""
    return submit("ejectConfigDrive", _vm_with_disc(drive), by, RUNNING)


def _vm_with_disc(drive: ConfigDrive) -> VirtualMachine:
    if not drive.name:
        raise InvalidParameter(f"{drive.vm} has no config drive on any host now. It gets one when it starts.")
    return drive.vm


@jobs.handler("verifyConfigDrive", EventType.VM_CONFIGDRIVE)
def _verify(job: AsyncJob) -> None:
    vm, drive = _at_work_on(job)
    if drive is None:
        return
    with working(job, vm.host, "Verifying the config drive"):
        fault = fault_of(drive, place(vm.host))
    if not fault:
        ConfigDrive.objects.filter(pk=drive.pk).update(verified_at=timezone.now())
        return
    # Without its digest it counts as changed, and is built and placed anew. While the guest keeps the tray
    # shut this is tried at each pass, and told once.
    if ConfigDrive.objects.filter(pk=drive.pk).exclude(sha256="").update(sha256=""):
        events.record(
            EventType.VM_CONFIGDRIVE,
            f"{vm}: its config drive was found {fault}, and is made anew",
            account=vm.account,
            on=vm,
            level=Level.WARN,
        )
    refresh_guest(job, vm)


@jobs.handler("ejectConfigDrive", EventType.VM_CONFIGDRIVE)
def _eject(job: AsyncJob) -> None:
    vm, drive = _at_work_on(job)
    if drive:
        with working(job, vm.host, "Ejecting the config drive"):
            eject(vm, place(vm.host))


def _at_work_on(job: AsyncJob) -> tuple[VirtualMachine, ConfigDrive | None]:
    vm = vm_of(job)
    return vm, ConfigDrive.objects.filter(vm=vm, host=vm.host).exclude(name="").select_related("storage").first()


def fault_of(drive: ConfigDrive, there: Place) -> str:
    """What is wrong with a running VM's drive on its host; empty if nothing. Raises a HypervisorError."""
    storage = storage_name(drive)
    if there.hypervisor.inserted(drive.vm.on_host, within(CALL)) != drive.path:
        return "missing from the VM's CD-ROM"
    try:
        content = there.hypervisor.read(drive.name, within(CALL), storage=storage)
    except NotFound:
        return "deleted on its host"
    except Refused:
        # libvirt's test driver keeps no content.
        found = there.hypervisor.list_media(within(CALL), storage=storage, name=drive.name)
        return "" if lies_among(drive, found) else "incomplete"
    return "" if digest(content) == drive.sha256 else "changed on its host"


# By itself ------------------------------------------------------------------------------------


@tasks.task
@alone
def look_after(lock: Held) -> None:
    """Task, every minute: note which guests have read their drives, eject where that is wanted, try failures again."""
    now = timezone.now()
    note_served(ConfigDrive.objects.filter(vm__state=VmState.RUNNING))
    running = ConfigDrive.objects.filter(vm__state=VmState.RUNNING, vm__host__state=HostState.UP)
    read = Q(vm__drive_use=ConfigDriveUse.FIRST_BOOT, served_at__lt=now - READ_WITHIN)
    switched_off = Q(vm__drive_use=ConfigDriveUse.NEVER)
    due = running.filter((read | switched_off) & ~Q(name="") | ~Q(last_error=""))
    due = due.exclude(vm__uuid__in=_refreshed_since(now - TRIED_AGAIN_AFTER)).exclude(vm__uuid__in=_busy())
    for drive in due.select_related("vm__account"):
        if not lock.renew():
            return
        with tolerated(log, f"Looking after the drive of {drive.vm.uuid}"):
            guest_data.refresh(drive.vm, by=None)


@tasks.task
@alone
def remove_leftovers(lock: Held) -> None:
    """Task, every minute: delete the ISOs that no VM needs and that could not be deleted at once."""
    old = Leftover.objects.filter(since__lt=timezone.now() - LEFT_FOR)
    down = Q(storage__isnull=False) & ~Q(host__state=HostState.UP)
    if not old.exists():
        return
    # A host that is down is asked by the life cycle's housekeeping; here it would cost a time-out each minute.
    for host in Host.objects.filter(state=HostState.UP).select_related("endpoint"):
        shared = Q(storage__shared=True, storage__cluster=host.cluster_id) | Q(host__endpoint=host.endpoint_id)
        its_own_or_seen = Q(host=host) | down & shared
        # The longest untried first: some that cannot be deleted must not hold up the others.
        due = list(
            old.filter(its_own_or_seen).order_by(F("tried_at").asc(nulls_first=True), "since")[:LEFTOVERS_A_PASS]
        )
        if not due:
            continue
        if not lock.renew():
            return
        with tolerated(log, f"Removing leftovers on {host}"), translated(host):
            read = [leftover.pk for leftover in due if _is_in_a_drive(leftover)]
            Leftover.objects.filter(pk__in=read).update(tried_at=timezone.now())
            free = [leftover.pk for leftover in due if leftover.pk not in read]
            remove(Leftover.objects.filter(pk__in=free), place(host))


def _is_in_a_drive(leftover: Leftover) -> bool:
    """Whether a running VM reads it all the same: its job was given up between the disc and the rows."""
    match = re.fullmatch(r"i-\d+-(\d+)-VM", instance_of(leftover.name))
    vm = VirtualMachine.objects.filter(pk=match[1], state=VmState.RUNNING).first() if match else None
    if vm is None:
        return False
    if vm.host.state != HostState.UP:
        return True  # as far as anybody knows
    try:
        path = place(vm.host).hypervisor.inserted(vm.on_host, within(CALL))
    except NotFound:
        return False
    except HypervisorError as error:
        log.warning("A VM could not be asked for its disc.", vm=str(vm.uuid), error=str(error))
        record_failure(vm.host, error)
        return True
    if path is None or not path.endswith(f"/{leftover.name}"):
        return False
    with tolerated(log, f"Repairing the drive of {vm.uuid}"):
        guest_data.refresh(vm, by=None)
    return True


@tasks.task
@alone
def reconcile(lock: Held) -> None:
    """Task, every five minutes: compare what lies on the hosts with what our rows say."""
    storages: dict[int, list[PrimaryStorage]] = defaultdict(list)
    for storage in PrimaryStorage.objects.all():
        storages[storage.cluster_id].append(storage)
    # Of a thousand hosts most may have none: these are not asked for in the database.
    with_drives = set(ConfigDrive.objects.exclude(name="").values_list("host_id", "storage_id").distinct())
    listings: _Listings = {}
    for host in Host.objects.filter(state=HostState.UP).select_related("endpoint"):
        if not lock.renew():
            return
        with tolerated(log, f"Looking at the config drives of {host}"), translated(host):
            _reconcile(place(host), storages[host.cluster_id], with_drives, listings)


@dataclass(frozen=True)
class _Listing:
    """What lay in a storage, asked at `since`."""

    files: list[MediaFile]
    since: datetime


# By endpoint and storage: a pool's hosts see the same files.
_Listings = dict[tuple[int, int], _Listing]


def _reconcile(
    there: Place, storages: Iterable[PrimaryStorage], with_drives: set[tuple[int, int | None]], listings: _Listings
) -> None:
    for storage in [None, *storages]:
        key = (there.host.endpoint_id, storage.pk) if storage else None
        listing = listings.get(key) if key else None
        if listing is None:
            since = timezone.now()
            try:
                files = there.hypervisor.list_media(within(CALL), storage=storage.name if storage else "")
            except (AskTheOperator, DoNotTryAgain):
                continue  # it holds no files, or not now
            listing = _Listing(files, since)
            if key:
                listings[key] = listing
            _note_orphans(there, storage, files)
        if (there.host.pk, storage.pk if storage else None) in with_drives:
            _check_drives(there, storage, listing)


def _note_orphans(there: Place, storage: PrimaryStorage | None, files: Iterable[MediaFile]) -> None:
    """An ISO with our mark that no row knows, of a VM that the host does not know, becomes a leftover.

    A row is written before its file is made, so the file of a job at work is known. One whose VM is on a
    host that sees it may be in use: after a database was restored from an old backup, for instance.
    """
    ours = {file.name for file in files if _bears_our_mark(file.name)}
    if not ours:
        return
    known = set(ConfigDrive.objects.filter(name__in=ours).values_list("name", flat=True))
    known |= set(Leftover.objects.filter(name__in=ours).values_list("name", flat=True))
    if not (unknown := ours - known):
        return
    present = _vms_that_may_read(there, storage)
    for name in unknown:
        if present is not None and instance_of(name) not in present:
            log.warning("An ISO that no VM needs was found; it will be deleted.", host=str(there.host), name=name)
            Leftover.objects.get_or_create(host=there.host, name=name, defaults={"storage": storage})


def _vms_that_may_read(there: Place, storage: PrimaryStorage | None) -> set[str] | None:
    """Instance names of all VMs on hosts that see the storage; None when one of these cannot be asked.

    A pool or a vCenter knows the VMs of all its hosts, and of those that are off.
    """
    hosts = [there.host]
    if storage and storage.shared:
        hosts = list(there.host.cluster.hosts.select_related("endpoint"))
    if any(host.state != HostState.UP and not host.unavailable for host in hosts):
        return None
    names: set[str] = set()
    for host in {host.endpoint_id: host for host in hosts}.values():
        try:
            names |= {record.vm.name for record in hypervisor_at(host.endpoint).list_vms(within(CALL))}
        except HypervisorError as error:
            record_failure(host, error)
            return None
    return names


def _check_drives(there: Place, storage: PrimaryStorage | None, listing: _Listing) -> None:
    """Those that are missing are repaired at once; of the others a few are read back, the longest unread first."""
    drives = ConfigDrive.objects.filter(host=there.host, storage=storage, vm__state=VmState.RUNNING).exclude(name="")
    # The list may be older than the drive.
    drives = drives.filter(built_at__lt=listing.since)
    drives = drives.exclude(vm__uuid__in=_busy()).select_related("vm__account", "storage")
    whole, broken = [], []
    for drive in drives.order_by(F("verified_at").asc(nulls_first=True)):
        (whole if lies_among(drive, listing.files) else broken).append(drive)
    for drive in whole[:READ_BACK_A_PASS]:
        with tolerated(log, f"Reading back the drive of {drive.vm.uuid}"):
            if fault_of(drive, there):
                broken.append(drive)
            else:
                ConfigDrive.objects.filter(pk=drive.pk).update(verified_at=timezone.now())
    for drive in broken:
        # The job looks again: only then does nothing else work on the VM.
        with tolerated(log, f"Repairing the drive of {drive.vm.uuid}"):
            verify(drive, by=None)


def _busy():
    return AsyncJob.objects.exclude(busy_with=None).values("busy_with")


def _refreshed_since(then: datetime):
    return AsyncJob.objects.filter(command="refreshVirtualMachine", created_at__gt=then).values("instance_uuid")


def _bears_our_mark(name: str) -> bool:
    return name.rpartition("-")[2].startswith(installation_mark())


def instance_of(name: str) -> str:
    """i-2-21-VM of i-2-21-VM-3-<random>.iso."""
    return name.rsplit("-", 2)[0]
