"""The driver on real hosts. One VM, booted from a disk, is walked through its life: the tests stand in order."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from configdrive.iso import build_iso
from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    AgentAbsent,
    AgentState,
    Busy,
    EndpointAddress,
    ImageRoot,
    KernelRoot,
    Media,
    MediaFile,
    NetworkMissing,
    NetworkRef,
    NicSpec,
    NicState,
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
from tests.lab.system import LabError, run, wait_for
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
        for storage in ("", lab.image_pool):
            for file in kvm.list_media(soon(), storage=storage):
                if file.name.startswith(vm.name):
                    kvm.remove(file.name, soon(), storage=storage)
    walk.first.delete_root(root, soon())


def names(kvm: KvmHost, storage: str = "") -> list[str]:
    return [file.name for file in kvm.list_media(soon(), storage=storage)]


def on_host(host: Host, *argv: str | Path) -> str:
    """Run a program among a host's mounts."""
    libvirtd = (host.directory / "run/libvirtd.pid").read_text().strip()
    return run("nsenter", "--target", libvirtd, "--mount", *argv)


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
    assert MediaFile(media.name, len(content)) in walk.first.list_media(soon())


def test_file_that_libvirt_has_not_heard_of_does_not_stand_in_the_way(walk):
    name = f"{walk.vm.name}-9-stray.iso"
    (walk.lab.hosts[0].config_drives / name).write_bytes(b"stray")

    walk.first.place(name, b"ours", soon())

    assert walk.first.read(name, soon()) == b"ours"
    (walk.lab.hosts[0].config_drives / name).unlink()
    walk.first.remove(name, soon())
    assert name not in names(walk.first)


SECRET = b"of this VM alone" * 200


@pytest.fixture
def trap(walk):
    """A name that is about to be used, and beside it a file that must not be written to."""
    drives = walk.lab.hosts[0].config_drives
    name, victim = f"{walk.vm.name}-8-trap.iso", drives / "victim"
    victim.write_bytes(b"another's")
    victim.chmod(0o644)
    yield drives / name
    assert victim.read_bytes() == b"another's"
    assert victim.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in drives.glob("victim*")) == ["victim"]
    victim.unlink()
    (drives / name).unlink(missing_ok=True)
    assert name not in names(walk.first)


@pytest.mark.parametrize(
    "lay",
    [
        lambda trap: trap.symlink_to("victim"),
        lambda trap: trap.hardlink_to(trap.with_name("victim")),
        lambda trap: (trap.write_bytes(b"x" * 10_000), trap.chmod(0o644)),
        lambda trap: trap.mkdir(),
    ],
    ids=["symlink", "hard link", "file", "directory"],
)
def test_what_lies_under_a_drives_name_is_replaced_and_never_written_through(walk, trap, lay):
    lay(trap)

    walk.first.place(trap.name, SECRET, soon())

    assert trap.lstat().st_mode == 0o100600  # a file, not a link
    assert trap.lstat().st_nlink == 1
    assert trap.read_bytes() == SECRET


@pytest.mark.parametrize(
    "lay", [lambda trap: os.mkfifo(trap), lambda trap: trap.symlink_to("victim-2")], ids=["FIFO", "dangling symlink"]
)
def test_what_libvirt_cannot_replace_is_for_the_operator(walk, trap, lay):
    lay(trap)
    before = trap.lstat().st_mode

    with pytest.raises(StorageProblem, match=trap.name if before & 0o170000 == 0o010000 else None):
        walk.first.place(trap.name, SECRET, soon())

    assert trap.lstat().st_mode == before


@pytest.fixture
def small(walk):
    """A storage of 64 KiB on the first host, and the means to change how it is mounted."""
    host, directory = walk.lab.hosts[0], Path("/var/lib/libvirt/small")
    on_host(host, "mkdir", directory)
    on_host(host, "mount", "-t", "tmpfs", "-o", "size=64k", "small", directory)
    host.virsh("pool-define-as", "small", "dir", "--target", directory)
    host.virsh("pool-start", "small")
    yield lambda *options: on_host(host, "mount", "-o", ",".join(options), directory)
    for pool in ("extdhcp-configdrive-small", "small"):
        with contextlib.suppress(LabError):  # one that was not made
            host.virsh("pool-destroy", pool)
            host.virsh("pool-undefine", pool)
    on_host(host, "umount", directory)
    on_host(host, "rmdir", directory)


def test_full_storage_says_so_and_keeps_nothing_half_written(walk, small):
    name = f"{walk.vm.name}-1-ab12.iso"
    with pytest.raises(StorageProblem, match=r"storage pool small of host .*full: free some space"):
        walk.first.place(name, b"x" * 100_000, soon(), storage="small")

    assert on_host(walk.lab.hosts[0], "find", "/var/lib/libvirt/small", "-type", "f") == ""
    walk.first.place(name, b"x" * 1000, soon(), storage="small")
    assert walk.first.list_media(soon(), storage="small") == [MediaFile(name, 1000)]


@pytest.mark.parametrize("used_before", [False, True])
def test_read_only_storage_says_so(walk, small, used_before):
    if used_before:
        walk.first.place(f"{walk.vm.name}-1-ab12.iso", b"x", soon(), storage="small")
    small("remount", "ro")

    with pytest.raises(StorageProblem, match="read-only: mount it for writing"):
        walk.first.place(f"{walk.vm.name}-2-cd34.iso", b"x", soon(), storage="small")


def test_storage_that_was_unmounted_is_not_written_under(walk, small):
    walk.first.place(f"{walk.vm.name}-1-ab12.iso", b"x", soon(), storage="small")
    walk.lab.hosts[0].virsh("pool-destroy", "small")

    with pytest.raises(StorageProblem, match="not started"):
        walk.first.place(f"{walk.vm.name}-2-cd34.iso", b"x", soon(), storage="small")


def test_vm_boots_and_its_agent_tells_the_leased_address(walk, spec):
    walk.first.define(spec, soon())
    walk.first.insert(walk.vm, walk.media, soon())
    assert walk.first.inserted(walk.vm, soon()) == walk.media.path
    assert walk.first.bytes_read(walk.vm, soon()) is None
    with pytest.raises(AgentAbsent):
        walk.first.set_password(walk.vm, "root", "secret", soon())

    walk.first.start(walk.vm, soon(PATIENCE))
    before_its_kernel = walk.first.bytes_read(walk.vm, soon())
    with pytest.raises(AgentAbsent):
        walk.first.read_guest_file(walk.vm, "/etc/modules", soon(PATIENCE))
    assert walk.reading(walk.first).problem in {Outcome.AGENT_ABSENT, Outcome.AGENT_SILENT}
    assert walk.first.agent_state(walk.vm, soon()) is AgentState.NOT_CONNECTED

    address = wait_for("the guest's address", lambda: walk.address(walk.first), BOOT)

    assert walk.first.agent_state(walk.vm, soon()) is AgentState.CONNECTED
    assert walk.first.inserted(walk.vm, soon()) == walk.media.path
    # Its firmware may have looked at one block, for something to boot.
    assert before_its_kernel <= 2048
    assert walk.first.bytes_read(walk.vm, soon()) > 2048
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


def test_disc_whose_file_was_deleted_by_hand_is_changed_all_the_same(walk):
    (walk.lab.hosts[0].config_drives / walk.media.name).unlink()
    walk.run(walk.lab.hosts[0], "/bin/reread")  # QEMU has the file open: the guest reads on
    assert walk.media.name not in names(walk.first)
    other = walk.first.place(f"{walk.vm.name}-3-ef56.iso", build_iso(CONTENT, "config", DATED), soon())

    walk.run(walk.lab.hosts[0], "/bin/umount", "/mnt/config")
    walk.first.insert(walk.vm, other, soon(PATIENCE))
    walk.run(walk.lab.hosts[0], "/bin/mount-drive")

    assert walk.first.inserted(walk.vm, soon()) == other.path
    assert walk.run(walk.lab.hosts[0], "/bin/cat", "/mnt/config/cloudstack/metadata/local-hostname.txt") == "walked\n"


def test_nic_comes_and_goes_while_the_guest_runs(walk):
    host, second = walk.lab.hosts[0], NicSpec("52:54:00:88:00:02", NetworkRef(walk.lab.network.bridge, 100))

    for _ in range(2):
        walk.first.add_nic(walk.vm, second, soon(PATIENCE))
    wait_for("the new NIC's address", lambda: second.mac in macs_with_address(walk), PATIENCE)
    for definition in (host.virsh("dumpxml", walk.vm.name), host.virsh("dumpxml", "--inactive", walk.vm.name)):
        assert kvm_xml.macs(definition) == (*walk.vm.macs, second.mac)

    for _ in range(2):
        walk.first.remove_nic(walk.vm, second.mac, soon(PATIENCE))
    for definition in (host.virsh("dumpxml", walk.vm.name), host.virsh("dumpxml", "--inactive", walk.vm.name)):
        assert kvm_xml.macs(definition) == walk.vm.macs
    assert second.mac not in walk.run(host, "/bin/cat", *interfaces_of(walk))


def macs_with_address(walk) -> set[str]:
    return {address.mac for address in walk.reading(walk.first).addresses}


def interfaces_of(walk) -> list[str]:
    found = walk.run(walk.lab.hosts[0], "/bin/find", "/sys/class/net/", "-name", "eth*")
    return [f"{path}/address" for path in found.split()]


def test_nic_on_a_bridge_that_is_not_there_is_not_plugged_in(walk):
    with pytest.raises(NetworkMissing, match="cloudbr999"):
        walk.first.add_nic(walk.vm, NicSpec("52:54:00:88:00:02", NetworkRef("cloudbr999", 999)), soon(PATIENCE))

    definition = walk.lab.hosts[0].virsh("dumpxml", "--inactive", walk.vm.name)
    assert kvm_xml.macs(definition) == walk.vm.macs


CHPASSWD = "#!/bin/sh\nread line; echo $line >/run/chpasswd; case $line in root:*) exit 0;; esac; exit 1\n"


def test_nic_whose_link_was_cut_or_that_is_on_another_bridge(walk):
    nic = NicSpec(walk.vm.macs[0], NetworkRef(walk.lab.network.bridge, 100))
    assert walk.first.nic_state(walk.vm, nic, soon()) is NicState.PLUGGED
    assert walk.first.nic_state(walk.vm, NicSpec(nic.mac, NetworkRef("cloudbr999")), soon()) is NicState.ELSEWHERE

    walk.lab.hosts[0].virsh("domif-setlink", walk.vm.name, nic.mac, "down")
    cut = walk.first.nic_state(walk.vm, nic, soon())
    walk.lab.hosts[0].virsh("domif-setlink", walk.vm.name, nic.mac, "up")

    assert cut is NicState.LINK_DOWN
    assert walk.first.nic_state(walk.vm, nic, soon()) is NicState.PLUGGED


def test_password_is_set_through_the_agent(walk):
    # The small guest has no accounts; what its agent runs is this.
    host, script = walk.lab.hosts[0], f"printf '{CHPASSWD}' >/bin/chpasswd; chmod +x /bin/chpasswd"
    walk.run(host, "/bin/sh", "-c", script.replace("\n", "\\n"))

    walk.first.set_password(walk.vm, "root", "tüte '\"$(id)", soon(PATIENCE))

    assert walk.run(host, "/bin/cat", "/run/chpasswd") == "root:tüte '\"$(id)\n"
    with pytest.raises(Refused, match="no such user"):
        walk.first.set_password(walk.vm, "nobody", "secret", soon(PATIENCE))


def test_file_of_the_guest_is_read_through_the_agent(walk):
    walk.run(walk.lab.hosts[0], "/bin/sh", "-c", "printf 'a\\0b' >/run/short; head -c 10000 /dev/zero >/run/long")

    assert walk.first.read_guest_file(walk.vm, "/run/short", soon(PATIENCE)) == b"a\0b"
    assert walk.first.read_guest_file(walk.vm, "/run/long", soon(PATIENCE)) == bytes(4096)
    with pytest.raises(NotFound):
        walk.first.read_guest_file(walk.vm, "/run/nothing", soon(PATIENCE))
    with pytest.raises(Refused):
        walk.first.read_guest_file(walk.vm, "/run", soon(PATIENCE))


def test_frozen_guest_is_silent_within_seconds_and_speaks_again(walk):
    pid = int((walk.lab.hosts[0].directory / f"run/qemu/{walk.vm.name}.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert walk.reading(walk.first).problem is Outcome.AGENT_SILENT
        assert time.monotonic() - begun < 13
        with pytest.raises(AgentAbsent):
            walk.first.set_password(walk.vm, "root", "secret", soon(PATIENCE))
        assert walk.first.power_state(walk.vm, soon()) is PowerState.RUNNING
    finally:
        os.kill(pid, signal.SIGCONT)

    wait_for("the guest's address again", lambda: walk.address(walk.first), PATIENCE)


def test_vm_that_somebody_else_migrated_gets_its_disc_back(walk):
    """The target lacks the file: libvirt empties the drive and migrates. The guest has it mounted."""
    source, target = walk.lab.hosts
    source.virsh("migrate", "--live", "--unsafe", walk.vm.name, target.uri, "--migrateuri", f"tcp://{target.address}")
    assert walk.second.power_state(walk.vm, soon()) is PowerState.RUNNING
    assert walk.first.power_state(walk.vm, soon()) is PowerState.OFF
    assert walk.second.inserted(walk.vm, soon()) is None

    media = walk.second.place(f"{walk.vm.name}-4-0a1b.iso", build_iso(CONTENT, "config", DATED), soon())
    walk.second.insert(walk.vm, media, soon(PATIENCE))

    assert walk.second.inserted(walk.vm, soon()) == media.path
    wait_for("the guest's address on the target", lambda: walk.address(walk.second), PATIENCE)
    walk.run(target, "/bin/reread")
    assert "yes" in target.virsh("dominfo", walk.vm.name).partition("Persistent:")[2].splitlines()[0]
    assert media.path in target.virsh("dumpxml", "--inactive", walk.vm.name)
    walk.first.undefine(walk.vm, soon())


def test_drive_in_shared_storage_need_not_be_carried_along(walk):
    storage, content = walk.lab.image_pool, build_iso(CONTENT, "config", DATED)
    media = walk.second.place(f"{walk.vm.name}-5-2c3d.iso", content, soon(), storage=storage)
    file = walk.lab.images / "extdhcp-configdrive" / media.name
    assert (media.path, file.lstat().st_mode, file.parent.stat().st_mode) == (str(file), 0o100600, 0o040711)
    walk.run(walk.lab.hosts[1], "/bin/umount", "/mnt/config")
    walk.second.insert(walk.vm, media, soon(PATIENCE))

    walk.second.migrate(walk.vm, walk.first, soon(PATIENCE))

    assert walk.first.inserted(walk.vm, soon()) == media.path
    wait_for("the guest's address on the target", lambda: walk.address(walk.first), PATIENCE)
    walk.run(walk.lab.hosts[0], "/bin/reread")
    assert walk.first.list_media(soon(), storage=storage) == [MediaFile(media.name, len(content))]
    assert walk.first.read(media.name, soon(), storage=storage) == content

    back = walk.first.place(walk.media.name, content, soon())
    walk.run(walk.lab.hosts[0], "/bin/umount", "/mnt/config")
    walk.first.insert(walk.vm, back, soon(PATIENCE))
    walk.first.remove(media.name, soon(), storage=storage)
    assert names(walk.second, storage) == []
    assert not file.exists()


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
