"""The life of a drive: built before a VM starts, carried along when it migrates, removed when it stops.

An ISO that is about to exist is first written down as a leftover, and struck out in the transaction
that makes it some VM's drive. Whatever line a worker dies at, each file on a host is known to a row.
"""

import hashlib
import secrets
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from configdrive.configuration import CLOUD_IDENTIFIER, LABEL
from configdrive.content import DriveError, DriveFacts, drive_files
from configdrive.iso import build_iso
from configdrive.models import ConfigDrive, Leftover
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import tasks
from networks.elements import NetworkElement, Place
from networks.hypervisors.base import EndpointUnreachable, HypervisorError
from networks.models import Host, VirtualMachine
from networks.models.infrastructure import HostState
from networks.models.offerings import OsFamily
from networks.services.places import CALL, place, within

log = structlog.get_logger(__name__)

# Younger ones belong to a job that is at work.
LEFT_FOR = timedelta(minutes=15)


def facts(vm: VirtualMachine) -> DriveFacts:
    """What goes onto a VM's drive now."""
    address = next((nic.ip4_address for nic in vm.nics.all() if nic.is_default), None)
    return DriveFacts(
        uuid=str(vm.uuid),
        instance_name=vm.instance_name,
        vm_number=vm.pk,
        hostname=vm.name,
        availability_zone=vm.zone.name,
        service_offering=vm.service_offering.name,
        cloud_identifier=CLOUD_IDENTIFIER.get(),
        local_ipv4=address,
        public_keys=tuple(key["public_key"].strip() for key in vm.ssh_keys),
        user_data=vm.user_data_bytes,
        password=vm.password,
        windows=vm.template.os_family == OsFamily.WINDOWS,
    )


def build(vm: VirtualMachine) -> tuple[bytes, str]:
    """The VM's drive as an ISO image, and its label. Raises InvalidParameter when its content cannot be written."""
    label = LABEL.get()
    try:
        return build_iso(drive_files(facts(vm)), label, vm.created_at), label
    except DriveError as error:
        raise InvalidParameter(f"The config drive of {vm} cannot be built: {error}") from error


class ConfigDriveElement(NetworkElement):
    """Gives every VM its drive."""

    def prepare(self, vm: VirtualMachine, place: Place) -> None:
        drive, _ = ConfigDrive.objects.get_or_create(vm=vm)
        image, label = build(vm)
        name = f"{vm.instance_name}-{drive.generation + 1}-{secrets.token_hex(16)}.iso"
        Leftover.objects.create(host=place.host, name=name)
        media = place.hypervisor.place(name, image, within(CALL))
        place.hypervisor.insert(vm.on_host, media, within(CALL))
        with transaction.atomic():
            _forget_file(drive)
            ConfigDrive.objects.filter(pk=drive.pk).update(
                generation=F("generation") + 1,
                name=name,
                path=media.path,
                host=place.host,
                label=label,
                size=len(image),
                sha256=hashlib.sha256(image).hexdigest(),
                built_at=timezone.now(),
            )
            Leftover.objects.filter(host=place.host, name=name).delete()
        _remove(Leftover.objects.filter(name__startswith=f"{vm.instance_name}-", host=place.host), place)

    def release(self, vm: VirtualMachine, place: Place) -> None:
        with transaction.atomic():
            drive = ConfigDrive.objects.filter(vm=vm).exclude(name="").first()
            if drive:
                _forget_file(drive)
                ConfigDrive.objects.filter(pk=drive.pk).update(name="", path="", host=None)
        _remove(Leftover.objects.filter(name__startswith=f"{vm.instance_name}-", host=place.host), place)

    def prepare_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        drive = ConfigDrive.objects.filter(vm=vm, host=source.host).first()
        if drive is None:
            return
        # The bytes are copied, not built anew: the guest must not see its disc change under it.
        image = source.hypervisor.read(drive.name, within(CALL))
        _note_leftover(target.host, drive.name)
        target.hypervisor.place(drive.name, image, within(CALL))

    def migrated(self, vm: VirtualMachine, source: Host, target: Host) -> None:
        drive = ConfigDrive.objects.filter(vm=vm, host=source).first()
        if drive:
            _forget_file(drive)
            ConfigDrive.objects.filter(pk=drive.pk).update(host=target)
            Leftover.objects.filter(host=target, name=drive.name).delete()

    def commit_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        _remove(Leftover.objects.filter(name__startswith=f"{vm.instance_name}-", host=source.host), source)

    def roll_back_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        _remove(Leftover.objects.filter(name__startswith=f"{vm.instance_name}-", host=target.host), target)

    def stopped(self, vm: VirtualMachine, now: datetime) -> None:
        # A guest that was seen with an address since its drive was built has read its drive: the password
        # has arrived, and must not undo at the next boot what its owner changed since.
        drive = ConfigDrive.objects.filter(vm=vm).exclude(built_at=None).first()
        if drive and vm.nics.filter(address_seen_at__gte=drive.built_at).exists():
            VirtualMachine.objects.filter(pk=vm.pk).update(password=None)


@tasks.task
def remove_leftovers() -> None:
    """Task, every minute: delete the ISOs that no VM needs and that could not be deleted at once."""
    old = Leftover.objects.filter(since__lt=timezone.now() - LEFT_FOR)
    # One that is down is asked by the life cycle's housekeeping; here it would cost a time-out each minute.
    up = Host.objects.filter(state=HostState.UP)
    hosts = up.select_related("endpoint").filter(pk__in=old.values("host"))
    for host in hosts:
        _remove(old.filter(host=host)[:100], place(host))


def _forget_file(drive: ConfigDrive) -> None:
    """In a transaction: the drive's present file becomes a leftover."""
    if drive.name and drive.host:
        _note_leftover(drive.host, drive.name)


def _note_leftover(host: Host, name: str) -> None:
    """Whatever is known of the file from before, its time begins now."""
    Leftover.objects.update_or_create(host=host, name=name, defaults={"since": timezone.now()})


def _remove(leftovers, there: Place) -> None:
    for leftover in leftovers:
        if not Leftover.objects.filter(pk=leftover.pk, since=leftover.since).exists():
            continue  # it has become some VM's drive since the list was read
        try:
            there.hypervisor.remove(leftover.name, within(CALL))
        except HypervisorError as error:
            log.warning("An ISO could not be deleted; it will be tried again.", name=leftover.name, error=str(error))
            Leftover.objects.filter(pk=leftover.pk).update(last_error=str(error)[:255])
            if isinstance(error, EndpointUnreachable):
                return
        else:
            leftover.delete()
