"""The lab by itself: one guest, walked through what the product's own tests build on."""

import hashlib
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.lab import Lab, LabError
from tests.lab.hosts import CONFIG_DRIVE_DIRECTORY, Host
from tests.lab.system import run, wait_for

pytestmark = pytest.mark.lab

GUEST, DRIVE = "lab-selftest", "lab-selftest.iso"
MAC = "02:00:4c:00:00:01"  # as in guest.xml
FILES = {
    "cloudstack/metadata/local_hostname.txt": "selftest-1",
    "cloudstack/password/vm_password.txt": "not-to-be-printed",
}
BOOT_SECONDS = 90  # a guest takes about ten on an idle machine


@pytest.fixture(scope="module")
def guest(lab: Lab, tmp_path_factory: pytest.TempPathFactory):
    """One guest for all of this module, started on the first host, with a config drive."""
    work = tmp_path_factory.mktemp("guest")
    tree = work / "drive"
    for name, content in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    source = lab.hosts[0]
    run("genisoimage", "-quiet", "-V", "config", "-R", "-J", "-o", source.config_drives / DRIVE, tree)
    definition = work / "guest.xml"
    definition.write_bytes(_definition(lab))
    source.virsh("define", definition)
    try:
        source.virsh("start", GUEST)
        yield source
    finally:
        for host in lab.hosts:
            _remove(host)


def _remove(host: Host) -> None:
    if GUEST in host.virsh("list", "--name").split():
        host.virsh("destroy", GUEST)
    if GUEST in host.virsh("list", "--name", "--all").split():
        host.virsh("undefine", GUEST)
    for file in (host.config_drives / DRIVE, _console_log(host)):
        file.unlink(missing_ok=True)


def test_console_shows_the_drive_but_no_password(lab: Lab, guest: Host):
    lease_line = re.compile(f"^LAB-LEASE eth0 {MAC} (.+)\n", re.MULTILINE)
    leased = wait_for("the lease on the console", lambda: lease_line.search(_console(guest)), BOOT_SECONDS)[1]

    assert leased == str(lab.dhcp.leases()[MAC])
    lines = _console(guest).splitlines()
    drive = lines[lines.index("LAB-DRIVE-BEGIN /dev/sr0 config") : lines.index("LAB-DRIVE-END")]
    assert drive[1:] == [
        "LAB-FILE cloudstack/metadata/local_hostname.txt 10",
        "selftest-1",
        "LAB-FILE cloudstack/password/vm_password.txt 17",
    ]


def test_a_guest_lives_on_both_hosts(lab: Lab, guest: Host):
    source, target = lab.hosts

    leased = str(wait_for("the lease", lambda: lab.dhcp.leases().get(MAC), BOOT_SECONDS))
    assert _address_by_agent(source) == leased
    assert _drive_is_whole(source)

    shutil.copy(source.config_drives / DRIVE, target.config_drives / DRIVE)
    source.virsh("migrate", "--live", "--persistent", "--undefinesource", GUEST, target.uri)
    (source.config_drives / DRIVE).unlink()
    assert _address_by_agent(target) == leased
    assert _drive_is_whole(target)

    target.virsh("reboot", GUEST, "--mode", "acpi")
    wait_for("the second boot", lambda: "LAB-LEASE" in _console(target), BOOT_SECONDS)
    assert _address_by_agent(target) == leased

    target.virsh("shutdown", GUEST, "--mode", "acpi")
    wait_for("the guest to be off", lambda: target.virsh("domstate", GUEST) == "shut off", 30)


def test_a_second_bring_up_changes_nothing(lab: Lab):
    before = (lab.directory / "ledger.json").read_bytes()

    run(sys.executable, "-m", "tests.lab", "up")

    assert (lab.directory / "ledger.json").read_bytes() == before


def _definition(lab: Lab) -> bytes:
    domain = ET.parse(Path(__file__).with_name("guest.xml")).getroot()
    domain.find("name").text = GUEST
    disk, drive = domain.findall("devices/disk/source")
    disk.set("file", str(lab.guest.disk))
    drive.set("file", str(CONFIG_DRIVE_DIRECTORY / DRIVE))
    domain.find("devices/serial/log").set("file", f"/var/log/libvirt/qemu/{GUEST}-serial.log")
    return ET.tostring(domain)


def _address_by_agent(host: Host) -> str:
    """The address that the guest's agent tells for MAC."""

    def address() -> str | None:
        try:
            rows = host.virsh("domifaddr", GUEST, "--source", "agent").splitlines()
        except LabError:  # the agent is not there yet
            return None
        found = [row.split()[3] for row in rows if MAC in row and "ipv4" in row]
        return found[0].partition("/")[0] if found else None

    return wait_for("the agent", address, BOOT_SECONDS)


def _drive_is_whole(host: Host) -> bool:
    sums = dict(reversed(line.split()) for line in host.guest_run(GUEST, "/bin/reread").splitlines())
    return sums == {f"./{name}": hashlib.sha256(content.encode()).hexdigest() for name, content in FILES.items()}


def _console(host: Host) -> str:
    log = _console_log(host)
    return log.read_text(errors="replace").replace("\r", "") if log.exists() else ""


def _console_log(host: Host) -> Path:
    return host.qemu_logs / f"{GUEST}-serial.log"
