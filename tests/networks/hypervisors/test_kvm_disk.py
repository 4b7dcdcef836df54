"""Reading lease files from guests' disks: with stand-ins for the programs, and by the real ones from real disks."""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import libvirt
import pytest

from ipfetch.guest_leases import leases_of
from networks.hypervisors import kvm_disk
from networks.hypervisors.base import (
    DeadlineExceeded,
    DiskAccess,
    DiskReader,
    EndpointAddress,
    EndpointUnreachable,
    GuestClient,
    LeaseFile,
    NotFound,
    Refused,
    StorageProblem,
    Transport,
    heartbeat,
)
from networks.hypervisors.kvm import KvmHost
from networks.hypervisors.kvm_disk import RootDisk, read_lease_files, root_disk
from networks.hypervisors.kvm_xml import NAMESPACE
from tests.lab.system import wait_for
from tests.networks.hypervisors.factories import make_vm, soon
from tests.networks.hypervisors.guest_disks import GUID, appliance, linux_disk, missing_tools, windows_disk

LOCAL = EndpointAddress(Transport.LOCAL, disk_access=DiskAccess.LOCAL)
BY_SSH = EndpointAddress(Transport.SSH, host="192.0.2.7", username="reader", port=2222, disk_access=DiskAccess.SSH)
DISK = RootDisk("/pool/ROOT-7", "qcow2")
SAMPLES = Path("tests/ipfetch/samples/guest")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that a user without rights may read; pytest's own are closed to him."""
    with tempfile.TemporaryDirectory(prefix="extdhcp-test-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


@pytest.fixture
def program(public, monkeypatch):
    """Writes a stand-in, a shell script, that is found before the real program."""
    monkeypatch.setattr(kvm_disk, "PROGRAM_DIRECTORIES", f"{public}:{kvm_disk.PROGRAM_DIRECTORIES}")

    def write(name: str, script: str) -> None:
        (public / name).write_text(f"#!/bin/sh\n{script}\n")
        (public / name).chmod(0o755)

    return write


# What guestfish prints: nothing for a directory that is not there, and the marks that it was told to.
SAYS_NOTHING = "sed -n 's/^echo //p'"


class TestRootDisk:
    def xml(self, disk: str) -> str:
        return f"<domain><devices><disk device='cdrom'><source file='/x.iso'/></disk>{disk}</devices></domain>"

    @pytest.mark.parametrize("source", ["file='/pool/ROOT-7'", "dev='/pool/ROOT-7'"])
    def test_path_and_format_come_from_the_definition(self, source):
        disk = f"<disk device='disk'><driver type='qcow2'/><source {source}/></disk>"
        assert root_disk(self.xml(disk)) == DISK

    @pytest.mark.parametrize(
        "disk",
        [
            "",
            "<disk device='disk'><source file='/pool/ROOT-7'/></disk>",
            "<disk device='disk'><driver type='vmdk'/><source file='/pool/ROOT-7'/></disk>",
            "<disk device='disk'><driver type='raw'/><source protocol='rbd' name='pool/7'/></disk>",
            "<disk device='disk'><driver type='raw'/><source file='nbd://192.0.2.1:10809'/></disk>",
            "<disk device='disk'><driver type='raw'/><source file='-'/></disk>",
        ],
        ids=["none", "of a format nobody said", "of another format", "in the network", "a URI", "an option"],
    )
    def test_no_other_disk_is_read(self, disk):
        with pytest.raises(Refused):
            root_disk(self.xml(disk))


class TestAccess:
    @pytest.mark.parametrize(
        "address",
        [
            EndpointAddress(Transport.LOCAL),
            EndpointAddress(Transport.LOCAL, disk_access=DiskAccess.SSH),
            EndpointAddress(Transport.TCP, host="-oProxyCommand=sh", disk_access=DiskAccess.SSH),
            EndpointAddress(Transport.SSH, host="192.0.2.7", username="-oX", disk_access=DiskAccess.SSH),
        ],
        ids=["not allowed", "ssh to nowhere", "an option for a host", "an option for a user"],
    )
    def test_is_refused(self, address, program):
        program("guestfish", SAYS_NOTHING)
        program("ssh", "exit 0")
        with pytest.raises(Refused):
            read_lease_files(address, DISK, soon(), windows=False)


class TestWhatIsRun:
    def test_the_format_is_said_and_the_disk_only_read(self, program, public):
        program("guestfish", f'echo "$@" > {public}/said; {SAYS_NOTHING}')
        assert read_lease_files(LOCAL, DISK, soon(), windows=False) == ()
        assert (public / "said").read_text() == "--ro --format=qcow2 -a /pool/ROOT-7 -i\n"

    def test_no_two_commands_have_the_same_mark(self, program, public):
        program("guestfish", f"tee -a {public}/said | {SAYS_NOTHING}")
        for _ in range(2):
            read_lease_files(LOCAL, DISK, soon(), windows=False)
        commands = (public / "said").read_text().splitlines()
        marks = [line for line in commands if line.startswith("echo")]
        assert len(set(marks)) == 2
        directories = {line.split()[1] for line in commands if line.startswith("-tar-out")}
        assert directories == {directory for _client, directory in kvm_disk.DIRECTORIES}

    def test_the_environment_is_ours(self, program, public, monkeypatch):
        monkeypatch.setenv("SECRET_KEY", "hunter2")
        monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
        program("guestfish", f"env > {public}/said; {SAYS_NOTHING}")
        read_lease_files(LOCAL, DISK, soon(), windows=False)
        environment = dict(line.split("=", 1) for line in (public / "said").read_text().splitlines())
        assert environment["LIBGUESTFS_BACKEND_SETTINGS"] == "force_tcg"
        assert "SECRET_KEY" not in environment

    @as_root
    def test_by_a_user_without_rights_and_with_limits(self, program, public):
        program("guestfish", f"{{ id -un; id -Gn; ulimit -t; ulimit -n; ulimit -c; }} > {public}/said; {SAYS_NOTHING}")
        read_lease_files(LOCAL, DISK, soon(), windows=False)
        assert (public / "said").read_text().split() == ["nobody", "nogroup", "600", "1024", "0"]

    def test_by_ssh_it_is_one_word_for_the_hosts_shell(self, program, public):
        program("ssh", f"printf '%s\\n' \"$@\" > {public}/said; {SAYS_NOTHING}")
        disk = RootDisk("/a pool/ROOT-7", "raw")
        read_lease_files(BY_SSH, disk, soon(60), windows=False)
        *options, destination, command = (public / "said").read_text().splitlines()
        assert options == [*kvm_disk.SSH_OPTIONS, "-p", "2222", "--"]
        assert destination == "reader@192.0.2.7"
        assert command.endswith("-- guestfish --ro --format=raw -a '/a pool/ROOT-7' -i")
        assert " timeout --kill-after=5 " in command

    def test_by_ssh_an_address_of_ipv6_has_no_brackets(self, program, public):
        program("ssh", f"printf '%s\\n' \"$@\" > {public}/said; {SAYS_NOTHING}")
        address = EndpointAddress(Transport.TLS, host="2001:db8::7", port=16514, disk_access=DiskAccess.SSH)
        read_lease_files(address, DISK, soon(), windows=False)
        *options, destination, _command = (public / "said").read_text().splitlines()
        assert (options, destination) == ([*kvm_disk.SSH_OPTIONS, "--"], "2001:db8::7")

    def test_of_windows_the_settings_in_use_are_read(self, program, public):
        program(
            "virt-win-reg",
            f'echo "$@" >> {public}/said\n'
            'case "$4" in *Select) echo \'"Current"=dword:00000002\';; *) echo "[$4]";; esac',
        )
        (file,) = read_lease_files(LOCAL, DISK, soon(), windows=True)
        assert (public / "said").read_text().splitlines() == [
            r"--format qcow2 /pool/ROOT-7 HKLM\SYSTEM\Select",
            r"--format qcow2 /pool/ROOT-7 HKLM\SYSTEM\ControlSet002\Services\Tcpip\Parameters\Interfaces",
        ]
        assert file.client is GuestClient.WINDOWS
        assert file.content.count(b"\n") == 2

    @pytest.mark.parametrize("current", ["00000000", "000003e8", "ffffffff", "0000000", "..\\..\\SAM"])
    def test_a_registry_can_name_no_other_key(self, program, current):
        program("virt-win-reg", f"echo '\"Current\"=dword:{current}'")
        with pytest.raises(NotFound):
            read_lease_files(LOCAL, DISK, soon(), windows=True)


class TestBounds:
    def test_a_program_that_dies_midway_is_not_believed(self, program):
        program("guestfish", f"printf one; {SAYS_NOTHING} | head -n 4")
        with pytest.raises(StorageProblem):
            read_lease_files(LOCAL, DISK, soon(), windows=False)

    def test_files_go_by_their_client(self, program):
        program("guestfish", f"{SAYS_NOTHING} | sed 's/^/x/; 2s/^x//'")
        files = read_lease_files(LOCAL, DISK, soon(), windows=False)
        clients = [client for client, _directory in kvm_disk.DIRECTORIES]
        assert files == tuple(LeaseFile(client, b"x") for client in (clients[0], *clients[2:]))

    def test_too_much_is_cut_off(self, program):
        program("guestfish", "cat /dev/zero")
        (file,) = read_lease_files(LOCAL, DISK, soon(), windows=False)
        assert len(file.content) == kvm_disk.OUTPUT_MAX_BYTES

    def test_what_was_said_before_too_much_still_counts(self, program):
        program("guestfish", f"printf one; {SAYS_NOTHING} | head -n 1; cat /dev/zero")
        files = read_lease_files(LOCAL, DISK, soon(), windows=False)
        assert files[0] == LeaseFile(GuestClient.DHCLIENT, b"one")

    def test_endless_complaints_are_forgotten(self, program):
        program("guestfish", "head -c 20000000 /dev/zero >&2; exit 1")
        with pytest.raises(StorageProblem):
            read_lease_files(LOCAL, DISK, soon(), windows=False)

    def test_at_the_deadline_all_that_was_started_ends(self, program, public):
        program("guestfish", f"sleep 1000 & echo $! > {public}/child; wait")
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            read_lease_files(LOCAL, DISK, soon(1.5), windows=False)
        assert time.monotonic() - begun < 5
        wait_until_ended(int((public / "child").read_text()))

    def test_what_it_leaves_behind_ends_with_it(self, program, public):
        program("guestfish", f"sleep 1000 & echo $! > {public}/child; {SAYS_NOTHING}")
        assert read_lease_files(LOCAL, DISK, soon(), windows=False) == ()
        wait_until_ended(int((public / "child").read_text()))

    def test_whoever_loses_the_host_stops_at_once(self, program, public, monkeypatch):
        monkeypatch.setattr(kvm_disk, "HEARTBEAT_SECONDS", 0.1)
        program("guestfish", f"echo $$ > {public}/child; exec sleep 1000")

        def lost() -> None:
            raise RuntimeError("lost")

        with heartbeat(lost), pytest.raises(RuntimeError):
            read_lease_files(LOCAL, DISK, soon(), windows=False)
        wait_until_ended(int((public / "child").read_text()))

    def test_nothing_stays_on_the_host(self, program, public):
        program("ssh", f'for line; do :; done; export TMPDIR={public}; exec sh -c "$line"')
        program("guestfish", f"touch $LIBGUESTFS_TMPDIR/left; ls -d $LIBGUESTFS_TMPDIR/* > {public}/said; exit 3")
        with pytest.raises(StorageProblem):
            read_lease_files(BY_SSH, DISK, soon(), windows=False)
        left = [Path(line) for line in (public / "said").read_text().splitlines()]
        assert [path.name for path in left] == ["hv", "left"]
        assert not left[0].parent.exists()

    def test_nothing_stays_in_the_temporary_directory(self, program, public, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(public))
        program("guestfish", f"mkdir $LIBGUESTFS_TMPDIR/deep; touch $HOME/left; {SAYS_NOTHING}")
        read_lease_files(LOCAL, DISK, soon(), windows=False)
        assert not list(public.glob("extdhcp-disk-*"))


def wait_until_ended(pid: int) -> None:
    def gone() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    wait_for(f"the end of process {pid}", gone, seconds=10)


class TestFailures:
    """Each has a name for what is to be done, and none repeats what the program said."""

    @pytest.mark.parametrize(
        ("complaint", "status", "kind"),
        [
            ("guestfish: no operating system was found on this disk", 1, NotFound),
            ("guestfish: multi-boot operating systems are not supported by the -i option", 1, NotFound),
            ("virt-win-reg: inspect_os: unknown architecture", 1, NotFound),
            ("libguestfs: error: /pool/ROOT-7: Permission denied", 1, StorageProblem),
            ("libguestfs: error: /usr/bin/supermin exited with error status 1.", 1, StorageProblem),
            ("guestfs_launch failed. the libguestfs appliance failed to start or crashed", 1, StorageProblem),
            ("libguestfs: error: /pool/ROOT-7: No such file or directory", 1, Refused),
            ("prlimit: failed to execute guestfish: No such file or directory", 127, StorageProblem),
            ("something else", 1, StorageProblem),
            ("", -9, StorageProblem),
        ],
    )
    @pytest.mark.parametrize("windows", [False, True])
    def test_of_the_reader(self, program, complaint, status, kind, windows):
        end = "kill -9 $$" if status < 0 else f"exit {status}"
        for name in ("guestfish", "virt-win-reg"):
            program(name, f"echo '{complaint}' >&2; {end}")
        with pytest.raises(kind) as raised:
            read_lease_files(LOCAL, DISK, soon(), windows=windows)
        assert "ROOT-7" not in str(raised.value)

    @pytest.mark.parametrize(
        ("complaint", "status", "kind"),
        [
            ("ssh: connect to host 192.0.2.7 port 22: No route to host", 255, EndpointUnreachable),
            ("ssh: Could not resolve hostname kvm1", 255, EndpointUnreachable),
            ("Host key verification failed.", 255, Refused),
            ("reader@192.0.2.7: Permission denied (publickey).", 255, Refused),
            ("", 124, DeadlineExceeded),
            ("bash: guestfish: command not found", 127, StorageProblem),
        ],
    )
    def test_of_ssh(self, program, complaint, status, kind):
        program("ssh", f"echo '{complaint}' >&2; exit {status}")
        with pytest.raises(kind):
            read_lease_files(BY_SSH, DISK, soon(), windows=False)

    def test_a_deadline_that_has_passed_starts_nothing(self, program, public):
        program("guestfish", f"touch {public}/said")
        with pytest.raises(DeadlineExceeded):
            read_lease_files(LOCAL, DISK, time.monotonic() - 1, windows=False)
        assert not (public / "said").exists()


# Real programs, real disks ----------------------------------------------------------------------------

ADDRESS = IPv4Address("192.0.2.77")
FILES_ON_DISK = {
    "var/lib/dhcp/dhclient.eth0.leases": "dhclient.eth0.leases",
    "var/lib/dhclient/dhclient--eth0.lease": "dhclient--eth0.lease",
    "var/lib/NetworkManager/internal-5fb06bd0-0bb0-7ffb-45f1-d6edd65f3e03-eth0.lease": (
        "internal-5fb06bd0-0bb0-7ffb-45f1-d6edd65f3e03-eth0.lease"
    ),
    "var/lib/dhcpcd/eth0.lease": "eth0.lease",
    "var/lib/wicked/lease-eth0-dhcp-ipv4.xml": "lease-eth0-dhcp-ipv4.xml",
}
# For `ssh`: the command line goes to a shell, as on the host, and that host has its small VM.
SHELL_OF_ANOTHER_HOST = 'for line; do :; done; export LIBGUESTFS_PATH={appliance}; exec sh -c "$line"'
READING = 240  # seconds; about 16 on an idle machine without KVM


@pytest.fixture(scope="module")
def reader() -> Iterator[Path]:
    """A directory that everybody may read, with the small VM in it; the server's environment names that."""
    if missing := missing_tools():
        if os.environ.get("CI") == "true":
            pytest.fail(f"not installed: {', '.join(missing)}")
        pytest.skip(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="extdhcp-reader-") as name, pytest.MonkeyPatch.context() as patch:
        directory = Path(name)
        directory.chmod(0o755)
        patch.setenv("LIBGUESTFS_PATH", str(appliance(directory)))
        patch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")  # /dev/kvm may be there and not work
        yield directory


@pytest.fixture(scope="module")
def linux(reader) -> Path:
    return linux_disk(reader, {path: (SAMPLES / name).read_bytes() for path, name in FILES_ON_DISK.items()})


@contextlib.contextmanager
def in_use(image: Path) -> Iterator[None]:
    """QEMU holds the image as a running guest's, with its locks; the processor stands still."""
    drive = f"file={image},format=qcow2,if=virtio"
    argv = ("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-display", "none", "-m", "64", "-S", "-drive", drive)
    guest = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    locked = ("qemu-img", "info", image)
    try:
        wait_for("the lock", lambda: subprocess.run(locked, capture_output=True, check=False).returncode, seconds=20)
        yield
    finally:
        guest.kill()
        guest.wait()


def left_behind(image: Path) -> list[str]:
    """Processes that still have to do with `image`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(image).encode() in (words := path.read_bytes()):
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.lab
class TestRealDisks:
    def test_linux_while_its_guest_runs(self, reader, linux):
        overlay = reader / "overlay.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", linux, "-F", "qcow2", overlay], check=True)
        overlay.chmod(0o644)
        with in_use(overlay):
            files = read_lease_files(LOCAL, RootDisk(str(overlay), "qcow2"), soon(READING), windows=False)
        leases = leases_of(files)
        assert [lease.ip for lease in leases] == [ADDRESS] * len(FILES_ON_DISK)
        assert all(lease.renewed for lease in leases)
        assert not left_behind(reader)

    def test_windows(self, reader):
        disk = RootDisk(str(windows_disk(reader)), "qcow2")
        (lease,) = leases_of(read_lease_files(LOCAL, disk, soon(2 * READING), windows=True))
        assert (lease.ip, lease.prefix, lease.interface) == (ADDRESS, 24, GUID)

    def test_by_the_shell_of_another_host(self, reader, linux, program):
        """Only the way to the host is a stand-in: the command line and all that it starts are real."""
        program("ssh", SHELL_OF_ANOTHER_HOST.format(appliance=f"{reader}/appliance"))
        files = read_lease_files(BY_SSH, RootDisk(str(linux), "qcow2"), soon(READING), windows=False)
        assert {lease.ip for lease in leases_of(files)} == {ADDRESS}

    def test_through_libvirt_the_vm_is_found_and_its_disk(self, reader, linux):
        vm = make_vm()
        host = KvmHost(
            EndpointAddress(Transport.TEST, disk_access=DiskAccess.LOCAL), OneConnection(defined(vm, str(linux)))
        )
        assert isinstance(host, DiskReader)
        files = host.read_lease_files(vm, soon(READING), windows=False)
        assert {lease.ip for lease in leases_of(files)} == {ADDRESS}

    def test_a_disk_that_holds_no_operating_system(self, reader):
        image = reader / "empty.raw"
        with image.open("wb") as file:
            file.truncate(16 * 1024**2)
        with pytest.raises(NotFound):
            read_lease_files(LOCAL, RootDisk(str(image), "raw"), soon(READING), windows=False)

    @pytest.mark.parametrize(
        ("address", "image_format", "windows"),
        [(LOCAL, "raw", False), (BY_SSH, "qcow2", False), (LOCAL, "qcow2", True)],
        ids=["a raw disk", "a qcow2 disk on another host", "a disk of Windows"],
    )
    def test_a_header_that_the_guest_wrote_opens_no_file_of_the_host(
        self, reader, linux, program, address, image_format, windows
    ):
        """CVE-2010-3851, and its like: here the file named in the header has leases, and would be seen."""
        program("ssh", SHELL_OF_ANOTHER_HOST.format(appliance=f"{reader}/appliance"))
        written, image = reader / "written.raw", reader / "hostile"
        named = windows_disk(reader) if windows else linux
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", named, "-F", "qcow2", written], check=True)
        os.truncate(written, 64 * 1024**2)  # the rest of the guest's disk
        convert = ("qemu-img", "convert", "-f", "raw", "-O", image_format, written, image)
        subprocess.run(convert, check=True)
        image.chmod(0o644)
        with pytest.raises(NotFound):
            read_lease_files(address, RootDisk(str(image), image_format), soon(READING), windows=windows)

    @as_root
    def test_a_disk_that_the_reading_user_may_not_read(self, reader, linux):
        closed = reader / "closed.qcow2"
        closed.write_bytes(linux.read_bytes())
        closed.chmod(0o600)
        with pytest.raises(StorageProblem, match="may not read"):
            read_lease_files(LOCAL, RootDisk(str(closed), "qcow2"), soon(READING), windows=False)

    def test_at_the_deadline_the_small_vm_ends_too(self, reader, linux):
        with pytest.raises(DeadlineExceeded):
            read_lease_files(LOCAL, RootDisk(str(linux), "qcow2"), soon(5), windows=False)
        wait_for("the end of the small VM", lambda: not left_behind(reader), seconds=10)

    @pytest.mark.parametrize("kind", ["cut in the middle", "damaged all over", "damaged file system"])
    def test_a_damaged_disk_has_a_clean_end(self, reader, linux, kind):
        image = damaged(linux, reader / "damaged.qcow2", kind)
        with contextlib.suppress(NotFound, Refused, StorageProblem):
            files = read_lease_files(LOCAL, RootDisk(str(image), "qcow2"), soon(READING), windows=False)
            leases_of(files)
        assert not left_behind(image)


def damaged(image: Path, target: Path, kind: str) -> Path:
    content = bytearray(image.read_bytes())
    dice = random.Random(kind)  # noqa: S311 - the same damage each time
    if kind == "cut in the middle":
        del content[len(content) // 2 :]
    # The first clusters are QEMU's own tables; the guest's file system begins behind them.
    begin = 5 * 65536 if kind == "damaged file system" else 0
    for _ in range(0 if kind == "cut in the middle" else 2000):
        content[dice.randrange(begin, len(content))] = dice.randrange(256)
    target.write_bytes(content)
    target.chmod(0o644)
    return target


def defined(vm, path: str) -> libvirt.virConnect:
    """libvirt's test driver with a VM of ours whose disk is real."""
    connection = libvirt.open("test:///default")
    connection.defineXML(
        f"<domain type='test'><name>{vm.name}</name><uuid>{vm.uuid}</uuid><memory>65536</memory>"
        f"<metadata><x:vm xmlns:x='{NAMESPACE}'/></metadata><os><type>hvm</type></os><devices>"
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>"
        "<target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
    return connection


class OneConnection:
    """Hands out a connection that a test has made."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def acquire(self, address: EndpointAddress, deadline: float) -> libvirt.virConnect:
        return self._connection

    def release(self, address: EndpointAddress, connection: libvirt.virConnect) -> None:
        pass
