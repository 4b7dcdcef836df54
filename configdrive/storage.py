"""The life of a drive: built before a VM starts, carried along when it migrates, removed when it stops.

An ISO that is about to exist is first written down as a leftover, and struck out in the transaction
that makes it some VM's drive. Whatever line a worker dies at, each file on a host is known to a row.
"""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from configdrive.configuration import CLOUD_IDENTIFIER, ON_PRIMARY_STORAGE
from configdrive.facts import Plan, plan
from configdrive.models import ConfigDrive, Leftover
from extdhcp_site.errors import ApiError
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from extdhcp_site.jobs import services as jobs
from networks.elements import NetworkElement, Place
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    DeadlineExceeded,
    DoNotTryAgain,
    EndpointUnreachable,
    HostUnavailable,
    HypervisorError,
    Media,
    MediaFile,
    NotFound,
    Refused,
    beat,
)
from networks.models import ConfigDriveUse, Host, Nic, PrimaryStorage, VirtualMachine
from networks.services.places import CALL, record_failure, within

log = structlog.get_logger(__name__)

# No guest has booted sooner; an answer from before is the last one of the guest that was reset.
SHORTEST_BOOT = timedelta(seconds=5)
# From when the guest was seen: its agent comes up beside what reads the drive.
READ_WITHIN = timedelta(minutes=1)


class TrayShut(Refused):
    """A running guest's disc cannot be changed now; it boots with the new one when it is stopped and started."""


class ConfigDriveElement(NetworkElement):
    """Gives every VM its drive, unless it wants none."""

    # Outside any transaction.

    def prepare(self, vm: VirtualMachine, place: Place) -> None:
        drive = _drive_of(vm)
        if not wanted(vm, drive):
            self.release(vm, place)
            _settle(vm, drive, last_error="")
            return
        try:
            provide(vm, drive, place)
        except (ApiError, HypervisorError) as error:
            if _host_is_gone(error):
                raise
            # Most VMs can do without; the disc of a former attempt is not in the CD-ROM any more.
            note_failure(vm, drive, error)
            if vm.template.drive_required:
                raise
            _forget_drive(vm)
            _told(vm, in_full=False)

    def refresh(self, vm: VirtualMachine, place: Place) -> None:
        drive = _drive_of(vm)
        if drive.served_at and vm.drive_use == ConfigDriveUse.FIRST_BOOT and not may_be_ejected(drive):
            return
        if not wanted(vm, drive):
            if drive.name:
                eject(vm, place)
            _settle(vm, drive, last_error="")
            return
        try:
            provide(vm, drive, place)
        except TrayShut:
            _told(vm, in_full=False)
        except (ApiError, HypervisorError) as error:
            if _host_is_gone(error):
                raise
            note_failure(vm, drive, error)
            _told(vm, in_full=False)

    def release(self, vm: VirtualMachine, place: Place) -> None:
        _forget_drive(vm)
        remove(_leftovers_of(vm).filter(host=place.host), place)

    def prepare_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        drive = ConfigDrive.objects.filter(vm=vm, host=source.host).select_related("storage").first()
        if drive is None or _both_see(drive, source.host, target.host):
            return
        # The bytes are copied, not built anew: the guest must not see its disc change under it.
        image = _copy_of(vm, drive, source)
        if image is None:
            return  # it is found missing on the target, and mended there
        _note_leftover(target.host, drive.storage, drive.name)
        target.hypervisor.place(drive.name, image, within(CALL), storage=storage_name(drive))

    def commit_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        remove(_leftovers_of(vm).filter(host=source.host), source)

    def roll_back_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        remove(_leftovers_of(vm).filter(host=target.host), target)

    # Inside the transaction that changes the VM.

    def started(self, vm: VirtualMachine, now: datetime) -> None:
        ConfigDrive.objects.filter(vm=vm).exclude(name="").update(booted_at=now)

    def migrated(self, vm: VirtualMachine, source: Host, target: Host) -> None:
        drive = ConfigDrive.objects.filter(vm=vm, host=source).select_related("storage").first()
        if drive is None:
            return
        if not _both_see(drive, source, target):
            _note_leftover(source, drive.storage, drive.name)
        ConfigDrive.objects.filter(pk=drive.pk).update(host=target)
        Leftover.objects.filter(host=target, name=drive.name).delete()

    def stopped(self, vm: VirtualMachine, now: datetime) -> None:
        note_served(ConfigDrive.objects.filter(vm=vm))

    def changed(self, vm: VirtualMachine, now: datetime) -> None:
        # What the guest has read by now, it has. From here on no boot counts until there is one with the new content.
        note_served(ConfigDrive.objects.filter(vm=vm))
        ConfigDrive.objects.filter(vm=vm).update(served_at=None, booted_at=None)

    def nic_added(self, nic: Nic, now: datetime) -> None:
        self.changed(nic.vm, now)

    def nic_removed(self, nic: Nic, now: datetime) -> None:
        self.changed(nic.vm, now)


def wanted(vm: VirtualMachine, drive: ConfigDrive) -> bool:
    """Whether the VM is to have its drive now."""
    until_booted = vm.drive_use == ConfigDriveUse.FIRST_BOOT and drive.served_at is None
    return vm.drive_use == ConfigDriveUse.ALWAYS or until_booted


def may_be_ejected(drive: ConfigDrive) -> bool:
    """Whether the guest has had its time to read."""
    return drive.served_at is not None and drive.served_at < timezone.now() - READ_WITHIN


def provide(vm: VirtualMachine, drive: ConfigDrive, place: Place) -> None:
    """See to it that the VM's CD-ROM holds what its guest is to know. The same content is not uploaded again.

    Raises InvalidParameter (the content), TrayShut, and a HypervisorError (the host).
    """
    drive_plan = plan(vm)
    as_before = drive_plan.image(drive.dated)
    if digest(as_before) != drive.sha256:
        dated = timezone.now().replace(microsecond=0)
        _replace(vm, drive, place, drive_plan, drive_plan.image(dated), dated)
    elif drive.host_id == place.host.pk and _lies_there(drive, place):
        _insert(vm, place, Media(drive.name, drive.path))
        _settle(vm, drive, last_error="")
    else:
        _replace(vm, drive, place, drive_plan, as_before, drive.dated)
    remove(_leftovers_of(vm).filter(host=place.host), place)


def _replace(
    vm: VirtualMachine, drive: ConfigDrive, place: Place, drive_plan: Plan, image: bytes, dated: datetime
) -> None:
    """Place `image` under a new name, put it into the CD-ROM, and let go of the former one."""
    media, storage = _place(vm, drive, place, image)
    # A worker that was given up for dead stops here: its successor's disc stays in.
    beat()
    try:
        _insert(vm, place, media)
    except TrayShut:
        remove(Leftover.objects.filter(host=place.host, name=media.name), place)
        raise
    with transaction.atomic():
        same = ConfigDrive.objects.filter(pk=drive.pk, generation=drive.generation)
        if not same.update(
            generation=F("generation") + 1,
            name=media.name,
            path=media.path,
            host=place.host,
            storage=storage,
            label=drive_plan.label,
            local_ip4=drive_plan.facts.local_ipv4,
            size=len(image),
            sha256=digest(image),
            dated=dated,
            built_at=timezone.now(),
            booted_at=None,
            served_at=None,
            verified_at=None,
            last_error="",
        ):
            # The successor came first after all. The leftover may be in the CD-ROM: upkeep looks before it removes
            # one, and mends what differs from the row.
            raise jobs.TakenOver
        _forget_file(drive)
        _told(vm, in_full=True)
        Leftover.objects.filter(host=place.host, name=media.name).delete()


def _place(vm: VirtualMachine, drive: ConfigDrive, place: Place, image: bytes) -> tuple[Media, PrimaryStorage | None]:
    """Beside the ROOT volume if that is the setting, there is one, and its storage holds files; else on the host."""
    name = f"{vm.instance_name}-{drive.generation + 1}-{installation_mark()}{secrets.token_hex(12)}.iso"
    storage = vm.root_volume.storage if ON_PRIMARY_STORAGE.get() else None
    if storage:
        _note_leftover(place.host, storage, name)
        try:
            return place.hypervisor.place(name, image, within(CALL), storage=storage.name), storage
        except Refused as error:
            log.info("Config drives of this storage lie in the hosts' caches.", storage=str(storage), error=str(error))
            Leftover.objects.filter(host=place.host, name=name).delete()
    _note_leftover(place.host, None, name)
    return place.hypervisor.place(name, image, within(CALL)), None


def _insert(vm: VirtualMachine, place: Place, media: Media) -> None:
    try:
        place.hypervisor.insert(vm.on_host, media, within(CALL))
    except (Busy, Refused) as error:
        raise TrayShut(str(error)) from error


def eject(vm: VirtualMachine, place: Place) -> None:
    """Take the disc out of a running VM's CD-ROM and off the host."""
    place.hypervisor.insert(vm.on_host, None, within(CALL))
    _forget_drive(vm)
    ConfigDrive.objects.filter(vm=vm).update(last_error="")
    remove(_leftovers_of(vm).filter(host=place.host), place)


def note_served(drives: QuerySet[ConfigDrive]) -> None:
    """A guest that was seen since it booted with its drive has read it: the password has arrived, and
    must not undo, from a later drive, what its owner changed since."""
    booted = drives.filter(served_at=None, vm__guest_seen_at__gte=F("booted_at") + SHORTEST_BOOT)
    for drive in booted:
        with transaction.atomic():
            # By the row's own columns: a reset meanwhile has taken `booted_at` away.
            same = ConfigDrive.objects.filter(pk=drive.pk, served_at=None, booted_at=drive.booted_at)
            if same.update(served_at=timezone.now()):
                VirtualMachine.objects.filter(pk=drive.vm_id).update(password=None)


def note_failure(vm: VirtualMachine, drive: ConfigDrive, error: Exception) -> None:
    """Remember and tell why a VM's drive could not be made; once, not at each try."""
    text = error.text if isinstance(error, ApiError) else str(error)
    if ConfigDrive.objects.filter(pk=drive.pk).exclude(last_error=text[:255]).update(last_error=text[:255]):
        events.record(
            EventType.VM_CONFIGDRIVE,
            f"{vm}: its config drive could not be made ready",
            account=vm.account,
            on=vm,
            level=Level.ERROR,
            for_operator=text,
        )


def storage_name(row: ConfigDrive | Leftover) -> str:
    """As a driver wants it: empty for the host's own cache."""
    return row.storage.name if row.storage else ""


def installation_mark() -> str:
    """What the names of this installation's ISOs have in common: another's on the same host are not ours to touch."""
    return hashlib.sha256(CLOUD_IDENTIFIER.get().encode()).hexdigest()[:8]


def remove(leftovers: QuerySet[Leftover], there: Place) -> None:
    """Delete these ISOs from their host; what cannot be deleted now stays written down."""
    for leftover in leftovers.select_related("storage", "host"):
        if not Leftover.objects.filter(pk=leftover.pk, since=leftover.since).exists():
            continue  # it has become some VM's drive since the list was read
        if _is_a_drive(leftover):
            leftover.delete()
            continue
        try:
            there.hypervisor.remove(leftover.name, within(CALL), storage=storage_name(leftover))
        except HypervisorError as error:
            log.warning("An ISO could not be deleted; it will be tried again.", name=leftover.name, error=str(error))
            Leftover.objects.filter(pk=leftover.pk).update(last_error=str(error)[:255], tried_at=timezone.now())
            if isinstance(error, EndpointUnreachable | HostUnavailable):
                record_failure(there.host, error)
                return
        else:
            leftover.delete()


def _drive_of(vm: VirtualMachine) -> ConfigDrive:
    """The VM's row, with what is known by now of what its guest has read."""
    ConfigDrive.objects.get_or_create(vm=vm)
    note_served(ConfigDrive.objects.filter(vm=vm))
    vm.refresh_from_db(fields=["password"])
    return ConfigDrive.objects.select_related("host", "storage").get(vm=vm)


def _host_is_gone(error: Exception) -> bool:
    """Then nothing else goes either. A call that took too long may be about the storage alone."""
    return isinstance(error, EndpointUnreachable | HostUnavailable) and not isinstance(error, DeadlineExceeded)


def _settle(vm: VirtualMachine, drive: ConfigDrive, **changes: object) -> None:
    with transaction.atomic():
        ConfigDrive.objects.filter(pk=drive.pk).update(**changes)
        _told(vm, in_full=True)


def _told(vm: VirtualMachine, *, in_full: bool) -> None:
    VirtualMachine.objects.filter(pk=vm.pk).update(needs_restart=not in_full)
    vm.needs_restart = not in_full


def digest(image: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(image).hexdigest()


def _lies_there(drive: ConfigDrive, place: Place) -> bool:
    try:
        files = place.hypervisor.list_media(within(CALL), storage=storage_name(drive), name=drive.name)
    except (AskTheOperator, DoNotTryAgain):
        return False
    return lies_among(drive, files)


def lies_among(drive: ConfigDrive, files: Iterable[MediaFile]) -> bool:
    """Whether the drive's file is there in its full length."""
    return MediaFile(drive.name, drive.size) in files


def _copy_of(vm: VirtualMachine, drive: ConfigDrive, source: Place) -> bytes | None:
    """The drive's bytes; built anew if somebody has deleted its file. None if they would not be the same."""
    try:
        return source.hypervisor.read(drive.name, within(CALL), storage=storage_name(drive))
    except NotFound:
        image = plan(vm).image(drive.dated)
        return image if digest(image) == drive.sha256 else None


def _both_see(file: ConfigDrive | Leftover, one: Host, other: Host) -> bool:
    """Whether it is one file for both hosts.

    A pool or a vCenter keeps none on storage that one host alone sees, whatever our row says of that storage.
    """
    if one.pk == other.pk:
        return True
    return file.storage is not None and (file.storage.shared or one.endpoint_id == other.endpoint_id)


def _is_a_drive(leftover: Leftover) -> bool:
    """Whether its file is some VM's drive, which another host than the leftover's has: it moved with its guest."""
    drive = ConfigDrive.objects.filter(name=leftover.name).select_related("host").first()
    return drive is not None and drive.host is not None and _both_see(leftover, leftover.host, drive.host)


def _forget_drive(vm: VirtualMachine) -> None:
    with transaction.atomic():
        drive = ConfigDrive.objects.filter(vm=vm).exclude(name="").select_related("storage").first()
        if drive:
            _forget_file(drive)
            ConfigDrive.objects.filter(pk=drive.pk).update(name="", path="", host=None, storage=None)


def _forget_file(drive: ConfigDrive) -> None:
    """In a transaction: the drive's present file becomes a leftover."""
    if drive.name and drive.host:
        _note_leftover(drive.host, drive.storage, drive.name)


def _note_leftover(host: Host, storage: PrimaryStorage | None, name: str) -> None:
    """Whatever is known of the file from before, its time begins now."""
    Leftover.objects.update_or_create(host=host, name=name, defaults={"storage": storage, "since": timezone.now()})


def _leftovers_of(vm: VirtualMachine) -> QuerySet[Leftover]:
    return Leftover.objects.filter(name__startswith=f"{vm.instance_name}-")
