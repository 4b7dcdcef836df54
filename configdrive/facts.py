"""From a VM's rows to its drive: what goes onto it, and under which label."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from configdrive.configuration import CLOUD_IDENTIFIER, LABEL
from configdrive.content import PASSWORD_CHECKSUM_FILES, DriveError, DriveFacts, drive_files
from configdrive.guest_scripts import boothook
from configdrive.iso import build_iso
from configdrive.models import ConfigDrive
from extdhcp_site.errors import InvalidParameter
from networks.models import DriveReader, Nic, Template, VirtualMachine
from networks.models.offerings import OsFamily

# The one label that stock cloud images, Windows and CoreOS look for, each in its own code.
STOCK_LABEL = "config-2"
MASK = "(not shown)"
FIXED_LABELS = {
    DriveReader.CLOUD_INIT: STOCK_LABEL,
    DriveReader.CLOUDBASE_INIT: STOCK_LABEL,
    DriveReader.IGNITION: STOCK_LABEL,
    DriveReader.CLOUDSTACK: STOCK_LABEL,
}


@dataclass(frozen=True)
class Plan:
    """What a VM's drive is to be: its content and its label."""

    facts: DriveFacts
    label: str

    def image(self, dated: datetime) -> bytes:
        """As an ISO image, all of it `dated`. Raises InvalidParameter when the content cannot be written."""
        try:
            return build_iso(drive_files(self.facts), self.label, dated)
        except DriveError as error:
            raise InvalidParameter(f"The config drive of {self.facts.hostname} cannot be built: {error}") from error


def plan(vm: VirtualMachine) -> Plan:
    """The VM's drive as it is to be now.

    While a disc is in the CD-ROM, what the VM's owner did not change stays as it is there: a boothook that
    the guest keeps looks for the label of old, and an address that was learned meanwhile is no news to it.
    """
    return _plan(vm, vm.nics.all(), ConfigDrive.objects.filter(vm=vm).exclude(name="").first())


def plan_of_new(vm: VirtualMachine, nics: Iterable[Nic]) -> Plan:
    """The first drive of a VM that is not written yet, nor are its NICs."""
    return _plan(vm, nics, None)


def _plan(vm: VirtualMachine, of_vm: Iterable[Nic], disc: ConfigDrive | None) -> Plan:
    nics = sorted((nic for nic in of_vm if nic.plugged), key=lambda nic: (not nic.is_default, nic.device_id))
    learned = next((nic.ip4_address for nic in nics if nic.is_default), None)
    drive_label = (disc.label if disc else "") or label(vm)
    facts = DriveFacts(
        uuid=str(vm.uuid),
        instance_name=vm.instance_name,
        vm_number=vm.pk,
        hostname=vm.name,
        availability_zone=vm.zone.name,
        service_offering=vm.service_offering.name,
        cloud_identifier=CLOUD_IDENTIFIER.get(),
        local_ipv4=disc.local_ip4 if disc else learned,
        public_keys=tuple(key["public_key"].strip() for key in vm.ssh_keys),
        user_data=vm.user_data_bytes,
        password=vm.password,
        windows=vm.template.os_family == OsFamily.WINDOWS,
        macs=tuple(nic.mac_address for nic in nics),
        per_boot_script=_per_boot_script(vm.template, drive_label),
        always_keys_file=vm.template.drive_reader == DriveReader.IGNITION,
    )
    return Plan(facts, drive_label)


def label(vm: VirtualMachine) -> str:
    """For its next start: the template's own word, else what its reader looks for, else the zone's, else the
    setting's."""
    template = vm.template
    fixed = FIXED_LABELS.get(DriveReader(template.drive_reader), "") if template.drive_reader else ""
    return template.config_drive_label or fixed or vm.zone.config_drive_label or LABEL.get()


def _per_boot_script(template: Template, drive_label: str) -> str:
    """For guests with cloud-init, which reads password and keys once: so that a reset reaches a stock image too."""
    if template.os_family == OsFamily.WINDOWS:
        return ""
    perhaps = not template.drive_reader and template.password_enabled
    return boothook(drive_label) if perhaps or template.drive_reader == DriveReader.CLOUD_INIT else ""


@dataclass(frozen=True)
class ShownFile:
    """A file of a drive as a person may see it; `size` in bytes is the real one."""

    path: str
    size: int
    content: bytes

    @property
    def text(self) -> str:
        """What is no text is not shown as one."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            return "(not a text)"

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def shown_files(vm: VirtualMachine) -> list[ShownFile]:
    """What would be on the VM's drive if it were built now, with password and user data masked."""
    return masked_files(plan(vm))


def masked_files(of: Plan) -> list[ShownFile]:
    """The planned drive's files, with password and user data masked. Raises DriveError."""
    real = of.facts
    return drive_with(
        of,
        password=MASK,
        user_data=MASK.encode() if real.user_data else None,
        per_boot_script=f"#cloud-boothook {MASK}" if real.per_boot_script else "",
    )


def drive_with(of: Plan, *, password: str, **others: Any) -> list[ShownFile]:
    """The planned drive's files, with `password` for the real one if it has one, and with these other facts.

    Raises DriveError.
    """
    real = of.facts
    shown = drive_files(replace(real, password=password if real.password else None, **others))
    return [
        ShownFile(path, len(content), _without_checksum(path, shown[path]))
        for path, content in drive_files(real).items()
    ]


def _without_checksum(path: str, content: bytes) -> bytes:
    # A checksum of a password is a means to guess it.
    return MASK.encode() if path in PASSWORD_CHECKSUM_FILES else content
