"""What may be done with a VM's config drive: not in CloudStack."""

import base64

from rest_framework import serializers

from configdrive import reveal, upkeep
from configdrive.facts import ShownFile
from configdrive.models import ConfigDrive
from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import routes
from extdhcp_site.api.answers import Answer
from extdhcp_site.api.parameters import ObjectField, Params, Values, visible
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, AsyncCommand, Command, command
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs.models import AsyncJob
from networks.api.vm_answers import VmAnswer
from networks.models import VirtualMachine


class DriveParams(Params):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)


class FileAnswer(Answer):
    path = serializers.CharField(help_text="From the drive's root, with slashes.")
    size = serializers.IntegerField(help_text="Bytes, as they are on the drive.")
    content = serializers.SerializerMethodField(
        help_text="Its content, in base64: user data may be any bytes. A password is masked."
    )

    def get_content(self, file: ShownFile) -> str:
        return base64.b64encode(file.content).decode()


class DriveAnswer(Answer):
    virtualmachineid = serializers.CharField(help_text="The VM's id.")
    label = serializers.CharField(help_text="The label of its volume.")
    asbuilt = serializers.BooleanField(help_text="Whether the disc in the VM's CD-ROM holds this.")
    file = FileAnswer(many=True, help_text="Its files.")


@command(since="1.2", roles=EVERYBODY)
class RevealConfigDrive(Command):
    """Show what is on a VM's config drive, user data in clear and passwords masked, and leave an event that says so.

    For another account's VM an administrator needs the permission to reveal config drives.
    """

    params = DriveParams
    answer = ("configdrive", DriveAnswer)

    def run(self, caller: Caller, params: Values) -> dict[str, object]:
        found = reveal.reveal(params["virtualmachineid"], caller)
        return {
            "virtualmachineid": str(params["virtualmachineid"].uuid),
            "label": found.label,
            "asbuilt": found.as_built,
            "file": found.files,
        }


class _DriveCommand(AsyncCommand):
    params = DriveParams
    answer = ("virtualmachine", VmAnswer)

    @staticmethod
    def drive_of(params: Values) -> ConfigDrive:
        vm = params["virtualmachineid"]
        drive = ConfigDrive.objects.filter(vm=vm).select_related("vm__account").first()
        if drive is None:
            raise InvalidParameter(f"{vm} has no config drive yet. It gets one when it starts.")
        return drive


@command(since="1.2", roles=ROOT_ADMIN)
class RebuildConfigDrive(_DriveCommand):
    """Bring the config drive of a running VM up to date with what its guest is to know."""

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return upkeep.rebuild(self.drive_of(params), caller)


@command(since="1.2", roles=ROOT_ADMIN)
class VerifyConfigDrive(_DriveCommand):
    """Compare a running VM's config drive, as it lies on the host, with what was built, and repair it."""

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return upkeep.verify(self.drive_of(params), caller)


@command(since="1.2", roles=ROOT_ADMIN)
class EjectConfigDrive(_DriveCommand):
    """Take the config drive out of a running VM, until its next start or until what it tells changes."""

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return upkeep.eject_now(self.drive_of(params), caller)


# A POST: it leaves an event.
routes.post("vms/{virtualmachineid}/config-drive/actions/reveal", RevealConfigDrive)
routes.post("vms/{virtualmachineid}/config-drive/actions/rebuild", RebuildConfigDrive)
routes.post("vms/{virtualmachineid}/config-drive/actions/verify", VerifyConfigDrive)
routes.post("vms/{virtualmachineid}/config-drive/actions/eject", EjectConfigDrive)
