"""The guest scripts in a guest: a kernel that mounts real drives, busybox, accounts. The tests stand in order."""

import base64
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from configdrive.guest_scripts import STATUS_FILE, Act, GuestStatus, boothook, parse_status
from configdrive.iso import build_iso
from tests.configdrive.drives import DATED, USER_DATA, make_files
from tests.lab import Lab, LabError
from tests.lab.hosts import CONFIG_DRIVE_DIRECTORY, Host
from tests.lab.system import wait_for

pytestmark = pytest.mark.lab

GUEST = "lab-guest-scripts"
READ, SET = "/usr/local/sbin/config-drive-read.sh", "/usr/local/sbin/cloud-set-vm-password.sh"
BOOT_SECONDS = 90
FIRST, SECOND, THIRD = "first0Password", "second0Password", "third0Password"
# The user's own disc, in the first CD drive: of the same label by chance.
OTHER_DISC = {"readme.txt": b"not a config drive"}


@dataclass(frozen=True)
class Done:
    status: int
    out: bytes
    err: str


@dataclass(frozen=True)
class Guest:
    host: Host

    def run(self, *command: str) -> Done:
        program, *arguments = command
        started = self.host.ask_agent(GUEST, "guest-exec", path=program, arg=arguments, **{"capture-output": True})

        def result() -> dict | None:
            status = self.host.ask_agent(GUEST, "guest-exec-status", pid=started["pid"])
            return status if status["exited"] else None

        status = wait_for(f"{command} in the guest", result, seconds=60)
        out, err = (base64.b64decode(status.get(key, "")) for key in ("out-data", "err-data"))
        return Done(status["exitcode"], out, err.decode())

    def status(self) -> GuestStatus:
        return parse_status(self.run("/bin/cat", STATUS_FILE).out)

    def accepts(self, password: str) -> bool:
        """Whether somebody without rights becomes root with it."""
        return self.run("/bin/su", "nobody", "-c", f"echo {password} | su root -c true").status == 0

    def insert(self, tray: str, files: dict[str, bytes]) -> None:
        # A new name each time, as the product does: what is in a drive is never written to.
        name = f"{GUEST}-{uuid4()}.iso"
        (self.host.config_drives / name).write_bytes(build_iso(files, "config", DATED))
        self.host.virsh("change-media", GUEST, tray, CONFIG_DRIVE_DIRECTORY / name, "--live", "--update")

    def eject(self, tray: str) -> None:
        self.host.virsh("change-media", GUEST, tray, "--live", "--eject")


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    """A guest with two CD drives, nothing in them when it boots."""
    host = lab.hosts[0]
    guest = Guest(host)
    definition = host.directory / f"{GUEST}.xml"
    definition.write_bytes(_definition(lab))
    host.virsh("define", definition)
    try:
        host.virsh("start", GUEST)
        # It stops looking for a drive of its own accord: from then on nothing but the scripts mounts one.
        log = host.qemu_logs / f"{GUEST}-serial.log"
        wait_for("the boot", lambda: log.exists() and "LAB-DRIVE-NONE" in log.read_text(errors="replace"), BOOT_SECONDS)
        wait_for("the guest's agent", lambda: _agent_answers(host), BOOT_SECONDS)
        yield guest
    finally:
        if GUEST in host.virsh("list", "--name").split():
            host.virsh("destroy", GUEST)
        host.virsh("undefine", GUEST)
        definition.unlink()
        for file in (*host.config_drives.glob(f"{GUEST}-*.iso"), host.qemu_logs / f"{GUEST}-serial.log"):
            file.unlink(missing_ok=True)


def _definition(lab: Lab) -> bytes:
    domain = ET.parse(Path(__file__).with_name("guest.xml")).getroot()
    domain.find("name").text = GUEST
    devices = domain.find("devices")
    disk, drive = devices.findall("disk")
    disk.find("source").set("file", str(lab.guest.disk))
    drive.remove(drive.find("source"))
    other = deepcopy(drive)
    other.find("target").set("dev", "hdc")
    devices.append(other)
    for nic in devices.findall("interface"):
        devices.remove(nic)
    domain.find("devices/serial/log").set("file", f"/var/log/libvirt/qemu/{GUEST}-serial.log")
    return ET.tostring(domain)


def _agent_answers(host: Host) -> bool:
    try:
        host.ask_agent(GUEST, "guest-ping")
    except LabError:
        return False
    return True


def test_no_drive_is_told(guest: Guest):
    done = guest.run(READ, "-m")
    assert (done.status, done.out) == (4, b"")
    assert "No drive with the label 'config' was found" in done.err

    assert guest.run(SET).status == 4
    assert guest.status().drive is None


def test_another_disc_of_that_label_is_not_taken_for_it(guest: Guest):
    guest.insert("hdc", OTHER_DISC)

    done = guest.run(READ, "-m")

    assert done.status == 5
    assert "/dev/sr0 has the label 'config' but no directory 'cloudstack'" in done.err


def test_the_drive_is_found_beside_it_and_read(guest: Guest):
    guest.insert("hdd", make_files(password=FIRST))

    assert guest.run(READ, "-m", "instance_id").out == b"i-2-21-VM\n"
    assert b"\nservice-offering=Small Instance\n" in guest.run(READ, "-m").out
    assert guest.run(READ, "-k").out == b"ssh-ed25519 AAAAC3Nz alice@example.org\n"
    assert guest.run(READ, "-u").out == USER_DATA
    assert guest.run(READ, "-a").out.startswith(b"== drive\n/dev/sr1\n")
    assert guest.run(READ, "-m", "local-ipv4").status == 6


def test_a_drive_that_is_mounted_already_is_read_all_the_same(guest: Guest):
    for device in ("/dev/sr0", "/dev/sr1"):
        assert guest.run("/bin/mount", "-t", "iso9660", "-o", "ro", device, "/mnt/config").status == 0

        assert guest.run(READ, "-m", "vm-id").out == b"21\n"

        assert guest.run("/bin/umount", "/mnt/config").status == 0


def test_nothing_stays_mounted(guest: Guest):
    assert b"extdhcp" not in guest.run("/bin/cat", "/proc/mounts").out
    assert guest.run("/bin/sh", "-c", "ls -d /run/extdhcp.*").out == b""


def test_a_label_of_the_command_line_is_looked_for_instead(guest: Guest):
    assert guest.run(READ, "-l", "config-2", "-w", "0", "-m").status == 4


def test_only_root_reads_the_device(guest: Guest):
    done = guest.run("/bin/su", "nobody", "-c", f"{READ} -m")

    assert done.status == 3
    assert "Only root" in done.err


def test_password_and_keys_are_set_once(guest: Guest):
    assert not guest.accepts(FIRST)

    assert guest.run(SET).status == 0
    status = guest.status()
    assert (status.password, status.keys, status.drive) == (Act.SET, Act.SET, "/dev/sr1")
    assert (status.instance_id, status.user_data_bytes) == ("i-2-21-VM", len(USER_DATA))
    assert guest.accepts(FIRST)
    assert not guest.accepts(SECOND)
    assert guest.run("/bin/cat", "/root/.ssh/authorized_keys").out == b"ssh-ed25519 AAAAC3Nz alice@example.org\n"


def test_what_the_user_changed_is_not_undone(guest: Guest):
    guest.run("/bin/sh", "-c", "echo root:own0Password | chpasswd")

    assert guest.run(SET, "start").status == 0

    assert guest.status().password is Act.UNCHANGED
    assert guest.accepts("own0Password")


def test_a_new_drive_brings_the_new_password(guest: Guest):
    guest.insert("hdd", make_files(password=SECOND, public_keys=("ssh-ed25519 BBBB bob@example.org",)))

    done = guest.run(SET)

    assert done.status == 0
    assert SECOND not in done.err
    assert guest.accepts(SECOND)
    assert guest.run("/bin/cat", "/root/.ssh/authorized_keys").out == b"ssh-ed25519 BBBB bob@example.org\n"


def test_a_drive_without_a_password_changes_nothing(guest: Guest):
    guest.insert("hdd", make_files(password=None))

    assert guest.run(SET).status == 0

    assert guest.status().password is Act.ABSENT
    assert guest.accepts(SECOND)


def test_boothook_does_the_same_after_an_instances_first_boot(guest: Guest):
    # This guest has no cloud-init: a directory and a mark stand for it.
    hook = boothook("config").removeprefix("#cloud-boothook\n")
    guest.insert("hdd", make_files(password=THIRD))
    mark = "/var/lib/cloud/instance/sem/config_set_passwords"
    guest.run("/bin/sh", "-c", f"mkdir -p {mark} && echo root:own0Password | chpasswd")

    assert guest.run("/bin/sh", "-c", hook).status == 0
    assert (guest.status().script, guest.status().password) == ("cloud-boothook", Act.SET)
    assert guest.accepts(THIRD)
    assert guest.run("/bin/sh", "-c", hook).status == 0
    assert guest.status().password is Act.UNCHANGED


def test_ejected_drive_is_told(guest: Guest):
    guest.eject("hdd")

    assert guest.run(SET).status == 5  # the other disc is still there
    assert guest.run(READ, "-l", "config-2", "-m").status == 4
    assert guest.accepts(THIRD)
