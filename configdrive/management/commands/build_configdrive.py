"""Build a VM's config drive as it would be built for its next start."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from configdrive.content import drive_files
from configdrive.facts import plan
from configdrive.models import ConfigDrive
from extdhcp_site.errors import ApiError
from networks.models import VirtualMachine
from networks.selection import one_vm


class Command(BaseCommand):
    help = "Build a VM's config drive into a file (mode 0600; it holds the VM's secrets). No host is touched."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("vm", help="Name, uuid or instance name.")
        parser.add_argument("--output", type=Path, help="File to write (default: <instance name>.iso here).")
        parser.add_argument("--json", action="store_true", help="Print a JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        vm = one_vm(options["vm"])
        output = options["output"] or Path(f"{vm.instance_name}.iso")
        try:
            drive = plan(vm)
            image = drive.image(_dated(vm))
        except ApiError as error:
            raise CommandError(error.text) from error
        _write_new(output, image)
        files = {path: len(content) for path, content in sorted(drive_files(drive.facts).items())}
        if options["json"]:
            shown = {"virtualmachine": str(vm.uuid), "file": str(output), "label": drive.label, "size": len(image)}
            self.stdout.write(json.dumps({**shown, "files": files}))
            return
        self.stderr.write(f"Config drive of {vm}, label {drive.label}, {len(image)} bytes:")
        for path, size in files.items():
            self.stderr.write(f"  {size:>8}  {path}")
        self.stdout.write(str(output))


def _dated(vm: VirtualMachine) -> datetime:
    """As on the host, so that the same content is the same file."""
    drive = ConfigDrive.objects.filter(vm=vm).first()
    return drive.dated if drive else timezone.now().replace(microsecond=0)


def _write_new(output: Path, image: bytes) -> None:
    """Secrets are in it: its owner's alone from the first byte on, and never written through what stands there."""
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(image)
    except FileExistsError:
        raise CommandError(f"{output} exists. Remove it, or name another file with --output.") from None
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}.") from None
