"""What is told of a VM's config drive in its NICs' time lines."""

from collections.abc import Iterator
from datetime import datetime

from configdrive.models import ConfigDrive
from extdhcp_site.accounts.models import Caller
from networks.models import Nic
from networks.timeline import Entry, Kind


def of_the_drive(nic: Nic, caller: Caller, since: datetime) -> Iterator[Entry]:
    drive = ConfigDrive.objects.filter(vm=nic.vm_id).select_related("host", "storage").first()
    if drive is None:
        return
    if drive.name and drive.built_at:
        where = f" On {drive.host}, {drive.storage or 'in its cache'}." if caller.is_root else ""
        yield Entry(drive.built_at, "Config drive built", f"{drive.name}, {drive.size // 1024} KiB.{where}")
    if drive.booted_at and drive.booted_at >= since:
        yield Entry(drive.booted_at, "Powered on with the config drive in its CD-ROM")
    if drive.served_at and drive.served_at >= since:
        yield Entry(drive.served_at, "Guest has booted with all that the drive tells")
    if drive.last_error and drive.built_at:
        told = drive.last_error if caller.is_root else "An administrator can see why."
        yield Entry(drive.verified_at or drive.built_at, "Config drive in trouble", told, Kind.FAILED)
