"""Debian with cloud-init as packaged, deployed through the API; somebody on its network logs in by ssh.

Nothing in the image was prepared for the product. The tests stand in the order in which the VM goes through its life,
on one guest that boots twice.
"""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.configdrive.drives import contents, tool
from tests.lab.cloud import Cloud
from tests.lab.dhcp import NAMESPACE
from tests.lab.hosts import CONFIG_DRIVE_POOL, Host
from tests.lab.network import inside
from tests.lab.system import LabError, run, wait_for

pytestmark = pytest.mark.lab

BOOT = 420  # seconds; cloud-init ends its first boot after 65 on an idle machine
LABEL, USER = "config-2", "debian"
HOST_NAME = "web-1"
# Each boot adds a line, and so would a second run of what is to run once.
USER_DATA = """\
#cloud-config
write_files:
  - {path: /etc/motd.user, content: "written by user data"}
bootcmd: [echo boot >> /var/lib/boots]
runcmd: [echo once >> /var/lib/once]
"""


@dataclass(frozen=True)
class Guest:
    """The VM as its user has it: an address, and ssh from another machine on that network."""

    cloud: Cloud
    vm: dict[str, Any]  # as the deploy's result showed it
    directory: Path

    @property
    def host(self) -> Host:
        return next(host for host in self.cloud.lab.hosts if host.name == self.cloud.vm(self.vm["id"])["hostname"])

    def by_key(self, key: Path, *command: str) -> str:
        """What the command printed; LabError with what ssh complained of."""
        return self._ssh("ssh", "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", words=command)

    def by_password(self, password: str, *command: str) -> str:
        methods = ("-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1")
        return self._ssh(
            "sshpass", "-e", "ssh", *methods, words=command, environment=os.environ | {"SSHPASS": password}
        )

    def as_root(self, script: str) -> str:
        return self.host.guest_run(self.vm["instancename"], "/bin/sh", "-c", script)

    def wait_for_cloud_init(self) -> None:
        """Until it has done all it does at this boot, failed or not."""

        def ended() -> bool:
            try:
                return self.as_root("cloud-init status; true").strip() not in ("status: running", "status: not run")
            except LabError:  # the agent is not there yet, or the guest is too busy for it
                return False

        wait_for("cloud-init to end", ended, BOOT)

    def _ssh(self, *program: str | Path, words: tuple[str, ...], environment: dict[str, str] | None = None) -> str:
        address = self.cloud.address(self.vm["id"])
        # The host key is remembered, so that a guest which made itself a new identity is not mistaken for this one.
        known = ("-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.directory / 'known_hosts'}")
        quiet = ("-F", "/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=30")
        return run(
            *inside(NAMESPACE, *program, *known, *quiet, f"{USER}@{address}", *words), env=environment, timeout=120
        ).strip()


def key_pair(cloud: Cloud, name: str, directory: Path) -> Path:
    """A key pair that the product made; the file with its private half."""
    made = cloud.api.createSSHKeyPair(name=name)["keypair"]
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(made["privatekey"])
    return path


@pytest.fixture(scope="module")
def keys(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("keys")
    return {name: key_pair(cloud, name, directory) for name in ("first", "second")}


@pytest.fixture(scope="module")
def guest(cloud: Cloud, keys: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    cloud.register_debian()
    vm = cloud.deploy(
        HOST_NAME,
        cloud.lab.hosts[0],
        cloud.network,
        template="debian-12",
        offering="Small",
        userdata=base64.b64encode(USER_DATA.encode()).decode(),
        keypair="first",
    )
    cloud.address(vm["id"], BOOT)
    guest = Guest(cloud, vm, tmp_path_factory.mktemp("ssh"))
    guest.wait_for_cloud_init()
    yield guest
    cloud.api.destroyVirtualMachine(id=vm["id"], expunge=True, fetch_result=True)


# The first boot


def test_the_key_logs_in(guest: Guest, keys):
    assert guest.by_key(keys["first"], "id", "-un") == USER


def test_a_key_that_the_vm_was_not_given_does_not(guest: Guest, keys):
    with pytest.raises(LabError, match="Permission denied"):
        guest.by_key(keys["second"], "true")


def test_the_password_of_the_jobs_result_logs_in(guest: Guest):
    assert guest.by_password(guest.vm["password"], "id", "-un") == USER


def test_another_password_does_not(guest: Guest):
    with pytest.raises(LabError, match="Permission denied"):
        guest.by_password(guest.vm["password"] + "x", "true")


def test_the_host_name_is_the_vms(guest: Guest, keys):
    assert guest.by_key(keys["first"], "hostname") == HOST_NAME


def test_the_user_data_ran(guest: Guest, keys):
    assert guest.by_key(keys["first"], "cat", "/etc/motd.user") == "written by user data"
    assert guest.by_key(keys["first"], "cat", "/var/lib/boots", "/var/lib/once").split() == ["boot", "once"]


def test_cloud_init_has_nothing_to_complain_of(guest: Guest):
    told = guest.as_root("cloud-init status --long")
    assert "status: done" in told
    assert "DataSourceConfigDrive" in told
    log = guest.as_root("cat /var/log/cloud-init.log")
    assert [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line or "Traceback" in line] == []


def test_the_instance_is_the_one_that_its_firmware_names(guest: Guest):
    told = guest.as_root("cloud-init query instance_id; cat /sys/class/dmi/id/product_uuid")
    assert told.lower().split() == [guest.vm["id"], guest.vm["id"]]


# The drive, as the guest's kernel and tools see it and as those on the host do


@pytest.fixture(scope="module")
def drive(guest: Guest) -> Path:
    # In shared storage, beside the ROOT volume.
    (drive,) = (guest.cloud.lab.images / CONFIG_DRIVE_POOL).glob(f"{guest.vm['instancename']}-*")
    return drive


def test_the_guest_and_the_host_agree_on_the_label(guest: Guest, drive: Path):
    of_blkid = ("blkid", "-p", "-o", "value", "-s", "LABEL", "-s", "TYPE")
    in_the_guest = guest.as_root(f"{' '.join(of_blkid)} /dev/disk/by-label/{LABEL}")
    assert in_the_guest.split() == run(*of_blkid, drive).split() == [LABEL, "iso9660"]


def test_the_guests_kernel_shows_the_names_and_bytes_that_the_host_finds_there(guest: Guest, drive: Path, tmp_path):
    sums = "find . -type f -exec sha256sum {} +"
    mounted = guest.as_root(f"mount -o ro /dev/disk/by-label/{LABEL} /mnt && cd /mnt && {sums}; cd / && umount /mnt")
    tool(tmp_path, "bsdtar", "--extract", "--file", str(drive))
    extracted = run("sh", "-c", sums, cwd=tmp_path)

    assert sorted(mounted.splitlines()) == sorted(extracted.splitlines())
    assert {line.split("./")[1] for line in mounted.splitlines()} == set(contents(drive.read_bytes(), "joliet"))


def test_nothing_keeps_the_drive_mounted(guest: Guest):
    assert LABEL not in guest.as_root("findmnt --noheadings --list --output LABEL,SOURCE")


# A reset, the reboot that the API's words ask for, and what an unprepared image makes of it


@pytest.fixture(scope="module")
def reset(guest: Guest, keys) -> str:
    """The new password. The VM has been rebooted since, with the key pair `second`."""
    api, vm_id = guest.cloud.api, guest.vm["id"]
    password = api.resetPasswordForVirtualMachine(id=vm_id, fetch_result=True)["virtualmachine"]["password"]
    api.resetSSHKeyForVirtualMachine(id=vm_id, keypair="second", fetch_result=True)
    before = guest.as_root("cat /proc/sys/kernel/random/boot_id")

    api.rebootVirtualMachine(id=vm_id, fetch_result=True)

    def is_up_again() -> bool:
        try:
            return guest.as_root("cat /proc/sys/kernel/random/boot_id") != before
        except LabError:
            return False

    wait_for("the second boot", is_up_again, BOOT)
    guest.wait_for_cloud_init()
    return password


def test_after_a_reset_the_new_password_logs_in(guest: Guest, reset: str):
    assert reset != guest.vm["password"]
    assert guest.by_password(reset, "id", "-un") == USER


def test_after_a_reset_the_old_password_does_not(guest: Guest, reset: str):
    with pytest.raises(LabError, match="Permission denied"):
        guest.by_password(guest.vm["password"], "true")


def test_after_a_reset_the_new_key_logs_in(guest: Guest, reset: str, keys):
    assert guest.by_key(keys["second"], "id", "-un") == USER


def test_after_a_reset_the_old_key_does_not(guest: Guest, reset: str, keys):
    with pytest.raises(LabError, match="Permission denied"):
        guest.by_key(keys["first"], "true")


def test_to_cloud_init_it_is_still_the_same_instance(guest: Guest, reset: str, keys):
    assert guest.by_key(keys["second"], "cat", "/var/lib/boots", "/var/lib/once").split() == ["boot", "boot", "once"]


def test_the_guest_agent_sets_a_password_at_once(guest: Guest, reset: str):
    result = guest.cloud.api.resetPasswordForVirtualMachine(id=guest.vm["id"], guestuser=USER, fetch_result=True)

    assert guest.by_password(result["virtualmachine"]["password"], "id", "-un") == USER
    with pytest.raises(LabError, match="Permission denied"):
        guest.by_password(reset, "true")
