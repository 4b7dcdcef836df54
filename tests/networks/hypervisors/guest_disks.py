"""Disks to read lease files from, and the small VM that libguestfs reads them in.

Nothing is mounted on this machine and nothing of Microsoft's is here: the hive is made from its
documented layout, and its keys by hivexregedit.
"""

import glob
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.lab.guest import _kernel_package, _unpack, cache_dir
from tests.lab.system import run

TOOLS = ("guestfish", "virt-win-reg", "supermin", "hivexregedit", "mkfs.ext4", "qemu-img", "depmod")
APPLIANCE_RECIPE = "1"  # raised when what is below would build another appliance or Windows disk

LINUX_LAYOUT = {
    "etc/fstab": b"LABEL=root / ext4 defaults 0 0\n",
    "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "etc/debian_version": b"12.1\n",
    "etc/hostname": b"vm\n",
}
LINUX_DIRECTORIES = ("bin", "boot", "dev", "proc", "root", "tmp", "usr", "var/lib")


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def appliance(directory: Path) -> Path:
    """The small VM, ready made, at a place in `directory`: what LIBGUESTFS_PATH names. From the cache, or built."""
    target = directory / "appliance"
    target.mkdir()
    for file in _cached("appliance", _build_appliance).iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:  # the cache is on another file system
            run("cp", "--sparse=always", file, target / file.name)
    return target


def linux_disk(directory: Path, files: Mapping[str, bytes]) -> Path:
    """A qcow2 image with a Linux on it that `files` (path to content) are added to."""
    root, raw, image = directory / "root", directory / "linux.raw", directory / "linux.qcow2"
    for name in LINUX_DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for path, content in {**LINUX_LAYOUT, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    with raw.open("wb") as file:
        file.truncate(64 * 1024**2)
    run("mkfs.ext4", "-q", "-F", "-L", "root", "-d", root, raw)
    run("qemu-img", "convert", "-O", "qcow2", raw, image)
    raw.unlink()
    image.chmod(0o644)
    return image


def windows_disk(directory: Path) -> Path:
    """A qcow2 image with what libguestfs knows Windows by, and a registry with one lease of 192.0.2.77."""
    image = directory / "windows.qcow2"
    shutil.copy(_cached("windows", _build_windows) / "windows.qcow2", image)
    image.chmod(0o644)
    return image


def _cached(name: str, build) -> Path:
    version = run("dpkg-query", "-W", "-f", "${Version}", "libguestfs0")
    recipe = hashlib.sha256(f"{APPLIANCE_RECIPE} {version}".encode()).hexdigest()[:16]
    home = cache_dir() / f"{name}-{recipe}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=home.parent) as work:
            result = Path(work, "result")
            result.mkdir()
            build(Path(work), result)
            result.rename(home)
    return home


def _build_appliance(work: Path, result: Path) -> None:
    """As libguestfs-make-fixed-appliance does, with a kernel that is downloaded and not installed."""
    _unpack(_kernel_package(), work / "unpacked")
    (kernel,) = (work / "unpacked/boot").glob("vmlinuz-*")
    version = kernel.name.removeprefix("vmlinuz-")
    run("depmod", "-b", work / "unpacked", version)
    Path("/lib/modules").mkdir(exist_ok=True)  # supermin copies the directory, empty or not
    environment = {
        **os.environ,
        "SUPERMIN_KERNEL": str(kernel),
        "SUPERMIN_KERNEL_VERSION": version,
        "SUPERMIN_MODULES": str(work / "unpacked/lib/modules" / version),
    }
    (parts,) = glob.glob("/usr/lib/*/guestfs/supermin.d")
    options = ("--build", "--copy-kernel", "-f", "ext2", "--host-cpu", "x86_64")
    run("supermin", *options, parts, "-o", result, env=environment)
    (result / "README.fixed").write_text("Made for tests.\n")
    for file in result.iterdir():
        file.chmod(0o644)


# Windows ----------------------------------------------------------------------------------------

GUID = "{A2E805D4-9CCF-4EA9-8832-17611F5D3FA8}"
STATIC_GUID = "{0B8E1C1C-7C1B-4E8B-9E0B-5D9D0F7F7A11}"
OBTAINED = 1795279014  # 2026-11-21 16:36:54 UTC

_BUILD_WINDOWS = """\
run
part-disk /dev/sda mbr
part-set-mbr-id /dev/sda 1 7
mkfs ntfs /dev/sda1
mount /dev/sda1 /
mkdir-p /Windows/System32/config
mkdir-p /Windows/System32/drivers
mkdir-p "/Program Files"
upload SYSTEM /Windows/System32/config/SYSTEM
upload SOFTWARE /Windows/System32/config/SOFTWARE
touch /Windows/System32/config/SAM
touch /Windows/explorer.exe
upload cmd.exe /Windows/System32/cmd.exe
touch /autoexec.bat
"""


def _build_windows(work: Path, result: Path) -> None:
    for hive, text in (("SYSTEM", _system()), ("SOFTWARE", _software())):
        (work / hive).write_bytes(_empty_hive())
        (work / f"{hive}.reg").write_text(text)
        run("hivexregedit", "--merge", "--prefix", f"HKEY_LOCAL_MACHINE\\{hive}", work / hive, work / f"{hive}.reg")
    (work / "cmd.exe").write_bytes(_program())
    raw = work / "windows.raw"
    with raw.open("wb") as file:
        file.truncate(64 * 1024**2)
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "LIBGUESTFS_PATH": str(appliance(Path(directory)))}
        environment |= {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
        argv = ("guestfish", "--format=raw", "-a", str(raw))
        subprocess.run(argv, input=_BUILD_WINDOWS, text=True, cwd=work, env=environment, check=True)
    run("qemu-img", "convert", "-c", "-O", "qcow2", raw, result / "windows.qcow2")


def _system() -> str:
    """Two ControlSets, of which the second is in use; in each an interface with DHCP and one without."""
    keys = ['[HKEY_LOCAL_MACHINE\\SYSTEM\\Select]\n"Current"=dword:00000002\n"LastKnownGood"=dword:00000002\n']
    for number, ip, obtained in ((1, "192.0.2.99", OBTAINED - 365 * 86400), (2, "192.0.2.77", OBTAINED)):
        path = "HKEY_LOCAL_MACHINE\\SYSTEM"
        for part in (f"ControlSet{number:03d}", "Services", "Tcpip", "Parameters", "Interfaces"):
            path += f"\\{part}"
            keys.append(f"[{path}]\n")
        leased = f'"EnableDHCP"=dword:00000001\n"DhcpIPAddress"="{ip}"\n"DhcpSubnetMask"="255.255.255.0"\n'
        times = f'"LeaseObtainedTime"=dword:{obtained:08x}\n"LeaseTerminatesTime"=dword:{obtained + 3600:08x}\n'
        keys.append(f"[{path}\\{GUID}]\n{leased}{times}")
        keys.append(f'[{path}\\{STATIC_GUID}]\n"EnableDHCP"=dword:00000000\n"DhcpIPAddress"="0.0.0.0"\n')
    return "Windows Registry Editor Version 5.00\n\n" + "\n".join(keys)


def _software() -> str:
    path = "HKEY_LOCAL_MACHINE\\SOFTWARE"
    keys = []
    for part in ("Microsoft", "Windows NT", "CurrentVersion"):
        path += f"\\{part}"
        keys.append(f"[{path}]\n")
    keys[-1] += '"ProductName"="Windows Server 2019 Standard"\n"CurrentVersion"="6.3"\n"SystemRoot"="C:\\\\Windows"\n'
    return "Windows Registry Editor Version 5.00\n\n" + "\n".join(keys)


def _program() -> bytes:
    """As much of a 64-bit program as says for which processor it is: MZ, PE and optional header."""
    header = bytearray(1024)
    header[:2], header[0x80:0x84] = b"MZ", b"PE\0\0"
    struct.pack_into("<I", header, 0x3C, 0x80)
    struct.pack_into("<HHIIIHH", header, 0x84, 0x8664, 1, 0, 0, 0, 0xF0, 0x22)
    struct.pack_into("<H", header, 0x98, 0x20B)
    struct.pack_into("<H", header, 0x98 + 68, 3)
    return bytes(header)


def _empty_hive() -> bytes:
    """A registry hive with nothing but its root key: a base block, and one bin with two cells."""
    page, bin_header = 4096, 32
    security_at = bin_header
    empty_acl = bytes.fromhex("0100048000000000000000000000000014000000")
    security = b"sk\0\0" + struct.pack("<IIII", security_at, security_at, 1, len(empty_acl)) + empty_acl
    root_at = security_at + len(_cell(security))
    none, name = 0xFFFFFFFF, b"ROOT"
    root = b"nk" + struct.pack("<HQ", 0x2C, 0)
    root += struct.pack("<IIIIIIII", 0, none, 0, 0, none, none, 0, none) + struct.pack("<II", security_at, none)
    root += struct.pack("<IIIII", 0, 0, 0, 0, 0) + struct.pack("<HH", len(name), 0) + name
    cells = _cell(security) + _cell(root)
    free = page - bin_header - len(cells)
    hive_bin = b"hbin" + struct.pack("<II", 0, page) + bytes(20) + cells + struct.pack("<i", free) + bytes(free - 4)
    base = bytearray(page)
    base[:4] = b"regf"
    struct.pack_into("<II", base, 4, 1, 1)  # both sequence numbers: it was written to its end
    struct.pack_into("<IIIIIII", base, 20, 1, 3, 0, 1, root_at, page, 1)
    checksum = 0
    for (word,) in struct.iter_unpack("<I", bytes(base[:508])):
        checksum ^= word
    struct.pack_into("<I", base, 508, checksum)
    return bytes(base) + hive_bin


def _cell(content: bytes) -> bytes:
    """In use, so its size is negative; a multiple of eight."""
    size = (len(content) + 4 + 7) // 8 * 8
    return struct.pack("<i", -size) + content.ljust(size - 4, b"\0")
