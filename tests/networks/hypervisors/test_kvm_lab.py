"""The driver on real hosts. One VM, booted from a disk, is walked through its life: the tests stand in order."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from configdrive.iso import build_iso
from networks.hypervisors.base import (
    Busy,
    EndpointAddress,
    ImageRoot,
    KernelRoot,
    Media,
    NetworkMissing,
    NetworkRef,
    NotFound,
    Outcome,
    PowerState,
    Refused,
    Source,
    StorageProblem,
    Transport,
    VmRef,
)
from networks.hypervisors.kvm import KvmHost
from tests.lab import Lab
from tests.lab.hosts import Host
from tests.lab.system import wait_for
from tests.networks.hypervisors.factories import make_spec, make_vm, soon

pytestmark = pytest.mark.lab

BOOT = 120  # seconds; about 12 on an idle machine
PATIENCE = 60
CONTENT = {"cloudstack/metadata/local-hostname.txt": b"walked\n"}
DATED = datetime(2026, 5, 4, 12, tzinfo=UTC)


@dataclass
class Walk:
    lab: Lab
    first: KvmHost
    second: KvmHost
    vm: VmRef
    root: ImageRoot

    @property
    def media(self) -> Media:
        return Media(f"{self.vm.name}-1-ab12.iso", f"/var/lib/libvirt/extdhcp-configdrive/{self.vm.name}-1-ab12.iso")

    def reading(self, kvm: KvmHost, deadline: float = PATIENCE):
        ((_vm, reading),) = kvm.read_addresses([self.vm], soon(deadline))
        return reading

    def address(self, kvm: KvmHost) -> str | None:
        return next((str(a.ip) for a in self.reading(kvm).addresses if a.ip.version == 4), None)

    def run(self, host: Host, *command: str) -> str:
        return host.guest_run(self.vm.name, *command)


def connect(host: Host) -> KvmHost:
    return KvmHost(EndpointAddress(Transport.TCP, str(host.address)))


@pytest.fixture(scope="module")
def walk(lab) -> Iterator[Walk]:
    vm = make_vm(name="i-8-1-VM", uuid="88888888-0000-4000-8000-000000000001", macs=("52:54:00:88:00:01",))
    root = ImageRoot(lab.image_pool, f"{vm.name}-root", lab.guest.disk.name)
    walk = Walk(lab, *map(connect, lab.hosts), vm, root)
    yield walk
    for kvm in (walk.first, walk.second):
        kvm.undefine(vm, soon(PATIENCE))
        for name in kvm.list_media(soon()):
            if name.startswith(vm.name):
                kvm.remove(name, soon())
    walk.first.delete_root(root, soon())


@pytest.fixture
def spec(walk):
    return make_spec(walk.vm, root=walk.root, title="A <VM> & its title")


def test_host_says_what_it_is(walk):
    facts = walk.first.host_facts(soon())

    assert facts.hostname == walk.lab.hosts[0].name
    assert facts.memory > 2**30
    assert facts.version.startswith("QEMU ")


def test_bridge_that_the_admin_made_is_found_and_another_is_asked_for(walk):
    walk.first.ensure_network(NetworkRef(walk.lab.network.bridge, 100), soon())
    with pytest.raises(NetworkMissing, match="cloudbr999"):
        walk.first.ensure_network(NetworkRef("cloudbr999", 999), soon())


def test_root_volume_is_made_and_its_image_is_named_when_missing(walk):
    walk.first.ensure_root(walk.root, soon())
    walk.second.ensure_root(walk.root, soon())  # shared storage: there already

    assert (walk.lab.images / walk.root.volume).stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotFound):
        walk.first.ensure_root(ImageRoot(walk.root.pool, "x", "nothing.qcow2"), soon())
    with pytest.raises(StorageProblem):
        walk.first.ensure_root(ImageRoot("nothing", "x", "nothing.qcow2"), soon())
    with pytest.raises(Refused):  # an image that has a backing file
        walk.first.ensure_root(ImageRoot(walk.root.pool, "x", walk.root.volume), soon())


def test_iso_arrives_whole_and_unreadable_for_others(walk):
    for content in (b"an older, longer drive" * 100_000, build_iso(CONTENT, "config", DATED)):
        media = walk.first.place(walk.media.name, content, soon())

    file = walk.lab.hosts[0].config_drives / media.name
    assert media == walk.media
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == walk.first.read(media.name, soon()) == content
    assert media.name in walk.first.list_media(soon())


def test_file_that_libvirt_has_not_heard_of_does_not_stand_in_the_way(walk):
    name = f"{walk.vm.name}-9-stray.iso"
    (walk.lab.hosts[0].config_drives / name).write_bytes(b"stray")

    walk.first.place(name, b"ours", soon())

    assert walk.first.read(name, soon()) == b"ours"
    (walk.lab.hosts[0].config_drives / name).unlink()
    walk.first.remove(name, soon())
    assert name not in walk.first.list_media(soon())


def test_vm_boots_and_its_agent_tells_the_leased_address(walk, spec):
    walk.first.define(spec, soon())
    walk.first.insert(walk.vm, walk.media, soon())
    walk.first.start(walk.vm, soon(PATIENCE))
    assert walk.reading(walk.first).problem in {Outcome.AGENT_ABSENT, Outcome.AGENT_SILENT}

    address = wait_for("the guest's address", lambda: walk.address(walk.first), BOOT)

    assert str(walk.lab.dhcp.leases()[walk.vm.macs[0]]) == address
    assert {a.source for a in walk.reading(walk.first).addresses} == {Source.GUEST_AGENT}
    assert [record.power for record in walk.first.list_vms(soon()) if record.vm == walk.vm] == [PowerState.RUNNING]
    assert "LAB-BOOT" in (walk.lab.hosts[0].qemu_logs / f"{walk.vm.name}-serial.log").read_text()


def test_smbios_tells_the_guest_its_uuid(walk):
    uuid = walk.run(walk.lab.hosts[0], "/bin/cat", "/sys/class/dmi/id/product_uuid")
    assert uuid.strip().lower() == walk.vm.uuid


def test_disc_that_the_guest_holds_is_not_replaced_under_it(walk):
    other = walk.first.place(f"{walk.vm.name}-2-cd34.iso", build_iso(CONTENT, "config", DATED), soon())

    with pytest.raises(Busy, match="tray"):
        walk.first.insert(walk.vm, other, soon(PATIENCE))

    walk.run(walk.lab.hosts[0], "/bin/umount", "/mnt/config")
    walk.first.insert(walk.vm, other, soon(PATIENCE))
    walk.run(walk.lab.hosts[0], "/bin/mount-drive")
    assert walk.run(walk.lab.hosts[0], "/bin/cat", "/mnt/config/cloudstack/metadata/local-hostname.txt") == "walked\n"


def test_disc_that_the_guest_holds_is_taken_out_in_the_end(walk):
    walk.first.insert(walk.vm, None, soon(PATIENCE))

    walk.run(walk.lab.hosts[0], "/bin/umount", "/mnt/config")
    walk.first.insert(walk.vm, walk.media, soon(PATIENCE))


def test_frozen_guest_is_silent_within_seconds_and_speaks_again(walk):
    pid = int((walk.lab.hosts[0].directory / f"run/qemu/{walk.vm.name}.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert walk.reading(walk.first).problem is Outcome.AGENT_SILENT
        assert time.monotonic() - begun < 13
        assert walk.first.power_state(walk.vm, soon()) is PowerState.RUNNING
    finally:
        os.kill(pid, signal.SIGCONT)

    wait_for("the guest's address again", lambda: walk.address(walk.first), PATIENCE)


def test_live_migration_takes_vm_and_drive_along(walk):
    walk.second.place(walk.media.name, build_iso(CONTENT, "config", DATED), soon())

    for _ in range(2):
        walk.first.migrate(walk.vm, walk.second, soon(PATIENCE))

    assert walk.first.power_state(walk.vm, soon()) is None
    assert walk.second.power_state(walk.vm, soon()) is PowerState.RUNNING
    wait_for("the guest's address on the target", lambda: walk.address(walk.second), PATIENCE)
    walk.run(walk.lab.hosts[1], "/bin/reread")
    definition = walk.lab.hosts[1].virsh("dumpxml", "--inactive", walk.vm.name)
    assert walk.media.path in definition


def test_reset_boots_the_guest_anew(walk):
    def started_at() -> str:
        return walk.run(walk.lab.hosts[1], "/bin/cat", "/proc/sys/kernel/random/boot_id")

    before = started_at()
    walk.second.reboot(walk.vm, soon())
    wait_for("the guest's agent", lambda: walk.address(walk.second), BOOT)

    assert started_at() != before


def test_guest_shuts_itself_down_when_asked(walk):
    log = walk.lab.hosts[1].qemu_logs / f"{walk.vm.name}-serial.log"

    walk.second.stop(walk.vm, soon(BOOT), grace=PATIENCE)

    assert walk.second.power_state(walk.vm, soon()) is PowerState.OFF
    assert "LAB-POWEROFF" in log.read_text()
    assert walk.reading(walk.second).problem is Outcome.NOT_RUNNING
    with pytest.raises(Refused):
        walk.second.migrate(walk.vm, walk.first, soon())


def test_lost_iso_does_not_keep_the_vm_from_starting(walk):
    walk.second.remove(walk.media.name, soon())

    walk.second.start(walk.vm, soon(PATIENCE))
    walk.second.stop(walk.vm, soon(PATIENCE), grace=0)

    assert walk.second.power_state(walk.vm, soon()) is PowerState.OFF


def test_nothing_remains(walk):
    for _ in range(2):
        walk.second.undefine(walk.vm, soon())
        walk.second.delete_root(walk.root, soon())

    assert not Path(walk.lab.images, walk.root.volume).exists()
    assert walk.vm not in [record.vm for record in walk.second.list_vms(soon())]


def test_start_without_its_bridge_says_which_to_create(walk):
    vm = make_vm(name="i-8-2-VM")
    nic = make_spec(vm).nics[0]
    kernel = KernelRoot(str(walk.lab.guest.kernel), str(walk.lab.guest.initrd))
    spec = make_spec(vm, root=kernel, nics=(type(nic)(nic.mac, NetworkRef("cloudbr999")),))
    walk.first.define(spec, soon())
    try:
        with pytest.raises(NetworkMissing, match="cloudbr999"):
            walk.first.start(vm, soon(PATIENCE))
    finally:
        walk.first.undefine(vm, soon())
