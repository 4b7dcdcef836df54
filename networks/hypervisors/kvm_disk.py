"""The lease files on a guest's ROOT disk, read by libguestfs's own programs.

They look at the disk inside a small VM of their own: the host's kernel never mounts what a guest wrote.
Around that VM is a process without rights, with limits, that is killed when its time is over. It never
writes: the disk is opened read-only, below an overlay of the reader's own, and may be in use by its guest.
Sources: guestfish(1), virt-win-reg(1), guestfs-security(1); CVE-2010-3851 for saying the image's format; what
was measured is said where it matters.
"""

import contextlib
import os
import pwd
import re
import secrets
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    HEARTBEAT_SECONDS,
    DeadlineExceeded,
    DiskAccess,
    EndpointAddress,
    EndpointUnreachable,
    GuestClient,
    HypervisorError,
    LeaseFile,
    NotFound,
    Refused,
    StorageProblem,
    Transport,
    beat,
)
from networks.hypervisors.hosts import uri_host
from networks.hypervisors.kvm_connection import libvirt_uri

# Directories, because what is in them is named by the guest, and no such name may get into a command. They
# come as tar archives, which keep the files and their times apart: two clients write no time into them.
DIRECTORIES = (
    (GuestClient.DHCLIENT, "/var/lib/dhcp"),
    (GuestClient.DHCLIENT, "/var/lib/dhclient"),
    (GuestClient.NETWORK_MANAGER, "/var/lib/NetworkManager"),
    (GuestClient.DHCPCD, "/var/lib/dhcpcd"),
    (GuestClient.WICKED, "/var/lib/wicked"),
)
NOT_WANTED = "secret_key secret seen-bssids timestamps"
SELECT = r"HKLM\SYSTEM\Select"
INTERFACES = r"HKLM\SYSTEM\ControlSet{:03d}\Services\Tcpip\Parameters\Interfaces"

OUTPUT_MAX_BYTES = 1024 * 1024
COMPLAINT_MAX_BYTES = 64 * 1024
UNPRIVILEGED_USER = "nobody"
# CPU seconds; bytes in one file (the reader's VM has a disk of 4 GiB, full of holes); bytes of memory that
# can be addressed (QEMU asks for much more than it uses); files; no core dumps, with a guest's data in them.
LIMITS = ("--cpu=600", f"--fsize={8 * 1024**3}", f"--as={16 * 1024**3}", "--nofile=1024", "--core=0")
# A worker that is recycled ends at once, and its thread with it; libguestfs ends its VM when its program dies.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
PROGRAM_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What an administrator may say of the reader's VM, in the server's environment: guestfs(3), "ENVIRONMENT VARIABLES".
FROM_ENVIRONMENT = ("LIBGUESTFS_BACKEND_SETTINGS", "LIBGUESTFS_CACHEDIR", "LIBGUESTFS_PATH")
SSH_FROM_ENVIRONMENT = ("HOME", "SSH_AUTH_SOCK")
SSH_OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5")
# To say the format is not enough. libguestfs (1.48) opens a read-only disk through an overlay of its own, and lets
# QEMU guess what is in that: a guest that writes a qcow2 header to the beginning of its disk has QEMU read whatever
# file of the host, or address of the network, that header names. So QEMU is told that what the overlay holds is raw.
HYPERVISOR = (
    "#!/bin/sh\n"
    'for word; do case $word in *,format=*) ;; *id=hd0*) set -- "$@" -set drive.hd0.format=raw; break;; esac; done; '
    'for hv in "qemu-system-$(uname -m)" /usr/libexec/qemu-kvm; do '
    'if command -v "$hv" >/dev/null; then exec "$hv" "$@"; fi; done; exit 127\n'
)
# On the host, the same by its shell: a directory for all that is left behind, HYPERVISOR in it, and the program.
ON_HOST = (
    "d=$(mktemp -d) || exit; trap 'rm -rf \"$d\"' EXIT; "
    'printf "#!/bin/sh\\n%s" "$1" > "$d/hv" && chmod 700 "$d/hv" || exit; shift; '
    "export LIBGUESTFS_BACKEND=direct LANG=C.UTF-8 LIBGUESTFS_CACHEDIR=${LIBGUESTFS_CACHEDIR:-/var/tmp} "
    'LIBGUESTFS_HV="$d/hv" LIBGUESTFS_TMPDIR="$d" TMPDIR="$d" XDG_RUNTIME_DIR="$d"; "$@"'
)
KILL_AFTER_SECONDS = 5  # of a reader on the host that did not heed the end of its time
POLL_SECONDS = 0.5
GOODBYE_SECONDS = 5.0  # for a program that has said all to end by itself

_CURRENT = re.compile(rb'^"Current"=dword:([0-9a-f]{8})\r?$', re.MULTILINE)
_TIMED_OUT, _NO_PROGRAM, _SSH_FAILED = 124, 127, 255  # timeout(1), the shell and prlimit(1), ssh(1)


@dataclass(frozen=True)
class RootDisk:
    """Where a VM's ROOT disk lies on its host, and the format that the VM's definition says it has."""

    path: str
    format: str


def root_disk(domain_xml: str) -> RootDisk:
    """The first disk of a VM. Raises Refused when it has none that can be read as a file."""
    disk = kvm_xml.parse(domain_xml).find("devices/disk[@device='disk']")
    source, driver = (None, None) if disk is None else (disk.find("source"), disk.find("driver"))
    path = None if source is None else source.get("file") or source.get("dev")
    image_format = None if driver is None else driver.get("type")
    if not path or image_format not in ("raw", "qcow2"):
        raise Refused("The VM has no ROOT disk that could be read as a file.")
    return RootDisk(kvm_xml.file_path(path), image_format)


def check_access(address: EndpointAddress) -> None:
    """Raises Refused where guests' disks may not be read."""
    if address.disk_access not in (DiskAccess.LOCAL, DiskAccess.SSH):
        raise Refused("Guests' disks are not read at this endpoint.")
    if address.disk_access is DiskAccess.SSH:
        _ssh(address)


def read_lease_files(
    address: EndpointAddress, disk: RootDisk, deadline: float, *, windows: bool
) -> tuple[LeaseFile, ...]:
    """What DHCP clients left on the disk. Errors as DiskReader says, and EndpointUnreachable where ssh fails.

    Linux: one archive for each directory that is there. Windows: the registry's text.
    """
    check_access(address)
    return _of_windows(address, disk, deadline) if windows else _of_linux(address, disk, deadline)


def _of_linux(address: EndpointAddress, disk: RootDisk, deadline: float) -> tuple[LeaseFile, ...]:
    """All directories through one reader's VM. A directory that is not there leaves nothing before its mark."""
    mark = secrets.token_hex(16)  # no guest can know it
    commands = "".join(
        f'-tar-out {directory} - numericowner:true "excludes:{NOT_WANTED}"\necho {mark}\n'
        for _client, directory in DIRECTORIES
    )
    argv = ("guestfish", "--ro", f"--format={disk.format}", "-a", disk.path, "-i")
    result = _run(address, argv, commands.encode(), deadline)
    parts = result.output.split(f"{mark}\n".encode())
    if not result.cut and len(parts) <= len(DIRECTORIES):
        raise _failure(result)
    return tuple(
        LeaseFile(client, content) for (client, _directory), content in zip(DIRECTORIES, parts, strict=False) if content
    )


def _of_windows(address: EndpointAddress, disk: RootDisk, deadline: float) -> tuple[LeaseFile, ...]:
    """Twice, because which ControlSet is in use stands in the registry itself."""
    select = _export(address, disk, SELECT, deadline)
    current = _CURRENT.search(select)
    if current is None or not 0 < (number := int(current[1], 16)) < 1000:
        raise NotFound("The registry on the disk does not say which of its settings are in use.")
    return (LeaseFile(GuestClient.WINDOWS, select + _export(address, disk, INTERFACES.format(number), deadline)),)


def _export(address: EndpointAddress, disk: RootDisk, key: str, deadline: float) -> bytes:
    result = _run(address, ("virt-win-reg", "--format", disk.format, disk.path, key), b"", deadline)
    if result.status != 0 and not result.cut:
        raise _failure(result)
    return result.output


# Running a program ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Result:
    """What a program said; `cut` if that was too much, and it was ended for it."""

    output: bytes
    complaint: bytes
    status: int
    cut: bool


def _run(address: EndpointAddress, argv: Sequence[str], commands: bytes, deadline: float) -> _Result:
    limited = ("prlimit", *LIMITS, "--", *argv)
    if address.disk_access is DiskAccess.SSH:
        environment = {name: os.environ[name] for name in SSH_FROM_ENVIRONMENT if name in os.environ}
        return _converse((*_ssh(address), _on_host(limited, deadline)), commands, deadline, environment, user=None)
    user = pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="extdhcp-disk-", ignore_cleanup_errors=True) as directory:
        hypervisor = Path(directory, "hv")
        hypervisor.write_text(HYPERVISOR)
        hypervisor.chmod(0o755)
        if user:
            os.chown(directory, user.pw_uid, user.pw_gid)
        return _converse(limited, commands, deadline, _environment(directory), user)


def _environment(directory: str) -> dict[str, str]:
    """All that the reader leaves behind when it is killed lies in `directory`."""
    chosen = {name: os.environ[name] for name in FROM_ENVIRONMENT if name in os.environ}
    return {
        "LIBGUESTFS_BACKEND": "direct",  # not by libvirt, which would start its VM with rights of its own
        "LIBGUESTFS_CACHEDIR": "/var/tmp",  # noqa: S108 - libguestfs's default; each user has a directory of its own in it
        "LIBGUESTFS_HV": f"{directory}/hv",
        "LIBGUESTFS_TMPDIR": directory,
        "TMPDIR": directory,
        "XDG_RUNTIME_DIR": directory,
        "HOME": directory,
        "LANG": "C.UTF-8",
    } | chosen


def _ssh(address: EndpointAddress) -> tuple[str, ...]:
    """ssh to the endpoint's host, up to the command. Raises Refused for a host or user that cannot be one."""
    if address.transport is not Transport.TEST:
        libvirt_uri(address)  # checks the user
    host = uri_host(address.host).strip("[]")
    port = ("-p", str(address.port)) if address.transport is Transport.SSH and address.port is not None else ()
    return ("ssh", *SSH_OPTIONS, *port, "--", f"{address.username}@{host}" if address.username else host)


def _on_host(argv: Sequence[str], deadline: float) -> str:
    """The command line for the host's shell. It ends itself in time there, even when we cannot reach it any more."""
    seconds = max(1, int(deadline - time.monotonic()))
    chosen = os.environ.get("LIBGUESTFS_BACKEND_SETTINGS")
    settings = ["env", f"LIBGUESTFS_BACKEND_SETTINGS={chosen}"] if chosen else []
    limited = [*settings, "timeout", f"--kill-after={KILL_AFTER_SECONDS}", str(seconds), *argv]
    # Without line ends, which not every login shell takes within quotes.
    return shlex.join(["sh", "-c", ON_HOST, "read-disk", HYPERVISOR.partition("\n")[2].strip(), *limited])


def _converse(
    argv: Sequence[str],
    commands: bytes,
    deadline: float,
    environment: Mapping[str, str],
    user: pwd.struct_passwd | None,
) -> _Result:
    """Run a program in a process group of its own, which ends with this call. Raises DeadlineExceeded."""
    if deadline <= time.monotonic():
        raise DeadlineExceeded("The time for this was used up before the disk was read.")
    try:
        process = subprocess.Popen(
            (*DIES_WITH_US, *argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PROGRAM_DIRECTORIES, **environment},
            cwd="/",
            start_new_session=True,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        raise StorageProblem("This server cannot start the program that reads disks.") from error
    with process, _ended_with_us(process):
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):  # it ended at once, and has said why
            process.stdin.write(commands)
            process.stdin.close()
        output, complaint, cut = _listen(process, deadline)
        if not cut:
            _wait(process, min(deadline, time.monotonic() + GOODBYE_SECONDS))
    return _Result(output, complaint, process.returncode, cut)


@contextlib.contextmanager
def _ended_with_us(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        # Before it is waited for: until then its number, which is also its group's, is nobody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _listen(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, bytes, bool]:
    """Output and complaint until both end or the program does, and whether there was too much output."""
    assert process.stdout
    assert process.stderr
    output, complaint = bytearray(), bytearray()
    last_beat = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, complaint)
        while selector.get_map():
            if (now := time.monotonic()) >= deadline:
                raise DeadlineExceeded("The disk could not be read in time.")
            if now - last_beat >= HEARTBEAT_SECONDS:
                last_beat = now
                beat()
            ready = selector.select(min(deadline - now, POLL_SECONDS))
            if not ready and _has_ended(process):
                break  # what it started may hold its ends of the pipes still
            for key, _events in ready:
                if chunk := os.read(key.fd, 65536):
                    key.data.extend(chunk)
                else:
                    selector.unregister(key.fileobj)
            if len(output) > OUTPUT_MAX_BYTES:
                return bytes(output[:OUTPUT_MAX_BYTES]), bytes(complaint), True
            del complaint[COMPLAINT_MAX_BYTES:]
    return bytes(output), bytes(complaint), False


def _wait(process: "subprocess.Popen[bytes]", until: float) -> None:
    while not _has_ended(process) and time.monotonic() < until:
        time.sleep(0.02)


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Without taking its status, so that its number stays its own."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


# Failures ---------------------------------------------------------------------------------------

# What the programs say, in small letters, and what that is to us; the first that fits. Their words go no
# further: they hold the host's paths, and what the guest wrote.
_MEANINGS: tuple[tuple[str, type[HypervisorError], str], ...] = (
    ("no operating system", NotFound, "No operating system was found on the disk."),
    ("multi-boot", NotFound, "The disk has several operating systems."),
    ("inspect_os", NotFound, "No operating system was found on the disk."),
    ("no root device", NotFound, "No operating system was found on the disk."),
    ("hivex", NotFound, "The registry on the disk cannot be read."),
    ("not found in this hive", NotFound, "The registry on the disk has no network settings."),
    ("could not resolve hostname", EndpointUnreachable, "The host's name cannot be resolved."),
    ("host key verification failed", Refused, "The host's ssh key is not known to this server."),
    ("permission denied (", Refused, "The host does not let this server in by ssh."),
    ("permission denied", StorageProblem, "The user who reads disks may not read this one."),
    ("not accessible", StorageProblem, "The user who reads disks may not read this one."),
    ("supermin", StorageProblem, "guestfish cannot make its own small VM: libguestfs-test-tool says why."),
    ("appliance", StorageProblem, "The disk cannot be opened; libguestfs-test-tool says whether any can."),
    ("no such file or directory", Refused, "The disk is not where the VM's definition says."),
)


def _failure(result: _Result) -> HypervisorError:
    """Ours for a program that did not do what it was told."""
    complaint = result.complaint.decode("ascii", errors="replace").lower()
    if result.status in (_TIMED_OUT, -signal.SIGXCPU):
        return DeadlineExceeded("The disk could not be read in time.")
    if result.status == _NO_PROGRAM:
        return StorageProblem("The programs that read disks are not installed: guestfish and virt-win-reg.")
    for words, kind, text in _MEANINGS:
        if words in complaint:
            return kind(text)
    if result.status == _SSH_FAILED:
        return EndpointUnreachable("The host cannot be reached by ssh.")
    return StorageProblem("The disk could not be read; guestfish on the host says why.")
