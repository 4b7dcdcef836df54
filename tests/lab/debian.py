"""A guest that we did not write: Debian with its own kernel, systemd, OpenSSH and cloud-init, as packaged.

Made of this machine's own apt sources and without mounting anything. cloud-init has no setting of
ours, so what is seen on this guest holds for an image that nobody prepared for the product.
"""

import hashlib
import tempfile
from pathlib import Path

from tests.lab.guest import cache_dir
from tests.lab.system import LabError, run, say

PACKAGES = (
    "systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "zstd",  # zstd: of the initrd, which is unpacked faster
    "cloud-init", "openssh-server", "qemu-guest-agent",
    "ifupdown", "isc-dhcp-client", "iproute2", "netbase",
)  # fmt: skip

# What nobody reads here; a quarter of the files.
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")

# Upkeep that a guest which lives for minutes does not need, and which makes a boot without KVM slower.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-pstore.service",
)

FILES = {
    "etc/fstab": "LABEL=root / ext4 defaults 0 0\n",
    # Without it cloud-init makes en_US.UTF-8, for which the files are left out; Debian's cloud images have it too.
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/hostname": "localhost\n",  # not the builder's
    "etc/resolv.conf": "",
    "etc/apt/sources.list": "",
}
COMMAND_LINE = "root=LABEL=root ro quiet console=ttyS0"

SECTOR = 512
BOOT_START = 2048  # sectors; where partitions begin by custom
ROOT_BYTES = 1024**3
MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")


def build() -> Path:
    """The image (qcow2, boots by BIOS) from the cache, built first when this recipe was never built here."""
    home = cache_dir() / f"debian-{_recipe()}"
    image = home / "debian.qcow2"
    if home.exists():
        return image
    say("building the Debian guest (once; it is kept in the cache)")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="debian-", dir=home.parent) as work:
        root, result = Path(work, "root"), Path(work, "result")
        result.mkdir()
        _bootstrap(root)
        _lay_out(root)
        _make_disk(root, result / image.name)
        result.rename(home)
    say("built the Debian guest")
    return image


def _recipe() -> str:
    """A name for what is built: it changes when this module or the release of Debian does."""
    return hashlib.sha256(Path(__file__).read_bytes() + _release().encode()).hexdigest()[:16]


def _release() -> str:
    """The code name of the Debian that this machine is, and that its apt sources have."""
    lines = Path("/etc/os-release").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    if values.get("ID") != "debian":
        raise LabError("The Debian guest is made of this machine's own packages, and this machine is not Debian.")
    return values["VERSION_CODENAME"]


def _sources() -> str:
    """This machine's apt sources that are Debian's, without those that others gave it."""
    source = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    return run("apt-get", "indextargets", "--format", source, "Created-By: Packages", "Origin: Debian")


def _bootstrap(root: Path) -> None:
    run(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        _release(),
        root,
        "-",
        input=_sources(),
    )


def _lay_out(root: Path) -> None:
    for name in MASKED:
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    for name, content in FILES.items():
        (root / name).unlink(missing_ok=True)  # it may be a link to a file of the builder's
        (root / name).write_text(content)


def _make_disk(root: Path, image: Path) -> None:
    """A FAT partition that SYSLINUX boots, with kernel and initrd, and an ext4 partition with all the rest."""
    (kernel,), (initrd,) = root.glob("boot/vmlinuz-*"), root.glob("boot/initrd.img-*")
    raw, settings = image.with_suffix(".raw"), image.with_name("syslinux.cfg")
    boot_sectors = (kernel.stat().st_size + initrd.stat().st_size + 8 * 1024**2) // 1024**2 * 1024**2 // SECTOR
    root_start = BOOT_START + boot_sectors
    with raw.open("wb") as file:
        file.write(MBR_CODE.read_bytes())
        file.truncate(root_start * SECTOR + ROOT_BYTES)
    table = f"label: dos\nstart={BOOT_START}, size={boot_sectors}, type=e, bootable\nstart={root_start}, type=83\n"
    run("sfdisk", "--quiet", raw, input=table)

    fat = f"{raw}@@{BOOT_START * SECTOR}"
    run(
        "mkfs.fat",
        "-F",
        "16",
        "--offset",
        str(BOOT_START),
        "-h",
        str(BOOT_START),
        raw,
        str(boot_sectors * SECTOR // 1024),
    )
    settings.write_text(
        f"DEFAULT debian\nLABEL debian\n  LINUX vmlinuz\n  INITRD initrd.img\n  APPEND {COMMAND_LINE}\n"
    )
    for source, name in ((kernel, "vmlinuz"), (initrd, "initrd.img"), (settings, settings.name)):
        run("mcopy", "-i", fat, source, f"::/{name}")
    run("syslinux", "--install", "--offset", str(BOOT_START * SECTOR), raw)

    at_root = f"offset={root_start * SECTOR}"
    run("mkfs.ext4", "-q", "-L", "root", "-d", root, "-E", at_root, raw, str(ROOT_BYTES // 1024) + "k")
    # Compressed: it is copied into each lab, and a guest's own reads cost more than unpacking.
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", raw, image)
    raw.unlink()
    settings.unlink()
