"""What guests read, and what is known of it: for the tests that lead a drive through its life."""

import base64
from datetime import timedelta

from django.utils import timezone

from configdrive.models import ConfigDrive
from networks.models import SshKeyPair, VirtualMachine
from tests.configdrive.drives import contents
from tests.fakes import FakeHypervisor

ONE, TWO = "one.example", "two.example"


def drive_of(vm: VirtualMachine) -> ConfigDrive:
    return ConfigDrive.objects.get(vm=vm)


def disc(vm: VirtualMachine, fake: FakeHypervisor) -> dict[str, bytes]:
    """What the guest reads: the files of the ISO that its CD-ROM holds."""
    path = fake.discs[str(vm.uuid)]
    assert path, "the CD-ROM is empty"
    name = path.rpartition("/")[2]
    (image,) = [files[name] for files in (fake.media, *fake.stored.values()) if name in files]
    return contents(image, "rr")


def was_seen(vm: VirtualMachine) -> None:
    """The guest's agent answered, a while after it booted."""
    VirtualMachine.objects.filter(pk=vm.pk).update(guest_seen_at=timezone.now() + timedelta(seconds=30))


def again(vm: VirtualMachine) -> VirtualMachine:
    return VirtualMachine.objects.get(pk=vm.pk)


def make_pair(caller, name="laptop") -> SshKeyPair:
    blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"k" * 32).decode()
    return SshKeyPair.objects.create(account=caller.account, name=name, public_key=f"ssh-ed25519 {blob} {name}")
