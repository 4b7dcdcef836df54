"""The lab's small guest: Debian's cloud kernel, a busybox root in memory, and the QEMU guest agent.

Debian packages are downloaded and unpacked, never installed. What `init` and its helpers in
`guest_files/` do, the guest does: it prints its config drive, asks DHCP on every NIC, runs the
agent, and obeys the power button. The product's guest scripts are installed, and run when a test says so.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from configdrive.guest_scripts import render
from tests.lab.system import LabError, run, say

FILES = Path(__file__).parent / "guest_files"
COMMAND_LINE = "console=ttyS0 quiet"
DISK_BYTES = 32 * 1024 * 1024
SCRIPTS = {
    f"usr/local/sbin/{name}": render(name, "config") for name in ("config-drive-read.sh", "cloud-set-vm-password.sh")
}


@dataclass(frozen=True)
class GuestImage:
    kernel: Path
    initrd: Path
    disk: Path  # a qcow2 image that boots by itself with the same kernel and initrd


def cache_dir() -> Path:
    return Path(os.environ.get("EXTDHCP_CACHE") or Path.home() / ".cache" / "extdhcp")


def build() -> GuestImage:
    """The guest from the cache, built first when this recipe was never built here."""
    home = cache_dir() / f"guest-{_recipe()}"
    image = GuestImage(home / "vmlinuz", home / "initrd.img", home / "guest.qcow2")
    if home.exists():
        return image
    say("building the small guest (once; it is kept in the cache)")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="guest-", dir=home.parent) as work:
        unpacked, root, result = (Path(work, name) for name in ("unpacked", "root", "result"))
        result.mkdir()
        for package in (_kernel_package(), "busybox-static", "qemu-guest-agent", "passwd", "libpam-modules"):
            _unpack(package, unpacked)
        _lay_out(root, unpacked)
        shutil.copy(next(unpacked.glob("boot/vmlinuz-*")), result / "vmlinuz")
        _pack(root, result / "initrd.img")
        _make_disk(result)
        result.rename(home)
    return image


def _recipe() -> str:
    """A name for what is built: it changes when this module or a file of the guest does."""
    digest = hashlib.sha256()
    for path in [Path(__file__), *sorted(FILES.iterdir())]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path, script in SCRIPTS.items():
        digest.update(f"{path}\0{script}".encode())
    return digest.hexdigest()[:16]


def _kernel_package() -> str:
    """linux-image-cloud-amd64 is empty and depends on the newest cloud kernel."""
    try:
        depends = run("apt-cache", "depends", "linux-image-cloud-amd64")
        return re.search(r"Depends: (linux-image-\S+)", depends)[1]
    except (LabError, TypeError) as error:
        raise LabError("apt knows no linux-image-cloud-amd64: run apt-get update, on Debian.") from error


def _unpack(package: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as download:
        run("apt-get", "download", package, cwd=download)
        run("dpkg", "-x", next(Path(download).glob("*.deb")), target)


def _lay_out(root: Path, unpacked: Path) -> None:
    """Fill the guest's root directory."""
    for name in (
        "bin",
        "sbin",
        "dev",
        "proc",
        "sys",
        "run",
        "etc/acpi/PWRF",
        "var",
        "lib/modules",
        "mnt/config",
        "root",
    ):
        (root / name).mkdir(parents=True)
    (root / "var/run").symlink_to("/run")
    shutil.copy(next(unpacked.glob("**/bin/busybox")), root / "bin/busybox")
    (root / "bin/busybox").chmod(0o4755)  # for its `su`; it gives the right up for what does not need it
    _copy_program(next(unpacked.glob("**/sbin/qemu-ga")), root, "bin/qemu-ga")
    # Inserted in this order: a module comes after those it uses.
    for module in (FILES / "modules").read_text().split():
        shutil.copy(next(unpacked.glob(f"**/kernel/**/{module}.ko")), root / "lib/modules")
    shutil.copy(FILES / "modules", root / "etc")

    shutil.copy(FILES / "init", root / "init")
    shutil.copy(FILES / "udhcpc.script", root / "etc")
    for name in ("agent", "shutdown"):
        shutil.copy(FILES / name, root / "sbin")
    for name in ("mount-drive", "print-drive", "reread"):
        shutil.copy(FILES / name, root / "bin")
    (root / "etc/acpi/PWRF/00000080").symlink_to("/sbin/shutdown")  # the path busybox acpid runs
    _add_accounts(root, unpacked)
    for path, script in SCRIPTS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(script)
        (root / path).chmod(0o755)


def _add_accounts(root: Path, unpacked: Path) -> None:
    """Users, and chpasswd to give them passwords: Debian's, because its busybox has none."""
    _copy_program(next(unpacked.glob("**/sbin/chpasswd")), root, "sbin/chpasswd")
    _copy_program(next(unpacked.glob("**/security/pam_unix.so")), root, "lib/pam_unix.so")
    (root / "etc/pam.d").mkdir()
    for service in ("chpasswd", "other"):
        (root / "etc/pam.d" / service).write_text("password required /lib/pam_unix.so sha512\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n")
    (root / "etc/shadow").chmod(0o600)


def _copy_program(program: Path, root: Path, path: str) -> None:
    """A program, or what a program loads, with the libraries that it needs: this machine's."""
    shutil.copy(program, root / path)
    for library in re.findall(r"(/\S+) \(0x", run("ldd", program)):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])


def _pack(root: Path, initrd: Path) -> None:
    """A gzipped cpio archive of `root`, as the kernel unpacks it into memory."""
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet"],
        cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    initrd.write_bytes(gzip.compress(archive.stdout, mtime=0))


def _make_disk(result: Path) -> None:
    """One FAT file system over the whole disk, which SYSLINUX boots: no partitions, no mounting."""
    raw, settings = result / "guest.raw", result / "syslinux.cfg"
    settings.write_text(f"DEFAULT lab\nLABEL lab\n  LINUX vmlinuz\n  INITRD initrd.img\n  APPEND {COMMAND_LINE}\n")
    with raw.open("wb") as file:
        file.truncate(DISK_BYTES)
    run("mkfs.fat", "-n", "LAB", raw)
    run("mcopy", "-i", raw, result / "vmlinuz", result / "initrd.img", settings, "::/")
    run("syslinux", "--install", raw)
    run("qemu-img", "convert", "-O", "qcow2", raw, result / "guest.qcow2")
    raw.unlink()
    settings.unlink()
