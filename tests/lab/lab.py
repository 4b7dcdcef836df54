"""The whole lab: what it offers, how it comes up, how it goes, and why a machine cannot have it."""

import contextlib
import fcntl
import os
import platform
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.lab import debian, guest, network
from tests.lab.dhcp import DhcpServer
from tests.lab.guest import COMMAND_LINE, GuestImage
from tests.lab.hosts import CONFIG_DRIVE_POOL, IMAGE_POOL, Host
from tests.lab.ledger import Ledger
from tests.lab.network import MANAGEMENT_CIDR, WITH_DHCP, WITHOUT_DHCP, Vlan
from tests.lab.system import LabError, end, run, say

PACKAGES = Path(__file__).with_name("packages.txt")


@dataclass(frozen=True)
class Lab:
    directory: Path
    hosts: tuple[Host, Host]
    dhcp: DhcpServer
    guest: GuestImage  # kernel, initrd and bootable disk, at the same path on every host
    guest_command_line: str = COMMAND_LINE
    image_pool: str = IMAGE_POOL  # shared by the hosts
    config_drive_pool: str = CONFIG_DRIVE_POOL  # each host's own
    network: Vlan = WITH_DHCP
    silent_network: Vlan = WITHOUT_DHCP  # no DHCP server on it

    @property
    def images(self) -> Path:
        """The directory of `image_pool`, the same seen from a host and from outside."""
        return self.guest.disk.parent

    def add_debian(self) -> str:
        """The Debian guest's image in `image_pool`, put there by the first who asks: its name."""
        image = self.images / "debian.qcow2"
        if not image.exists():
            part = self.directory / f"{image.name}.part"
            shutil.copy(debian.build(), part)
            part.rename(image)
            for host in self.hosts:
                host.virsh("pool-refresh", self.image_pool)
        return image.name


def lab_dir() -> Path:
    return Path(os.environ.get("EXTDHCP_LAB_DIR") or "/run/extdhcp-lab")


def describe() -> Lab:
    """The lab as it is when it is up."""
    directory = lab_dir()
    images = directory / "images"
    return Lab(
        directory=directory,
        hosts=tuple(
            Host(
                name=f"kvm-{number}",
                address=MANAGEMENT_CIDR[10 + number],
                uuid=f"6c616220-0000-4000-8000-00000000000{number}",
                directory=directory / f"kvm-{number}",
            )
            for number in (1, 2)
        ),
        dhcp=DhcpServer(directory / "dhcp"),
        guest=GuestImage(images / "vmlinuz", images / "initrd.img", images / "guest.qcow2"),
    )


def is_up() -> bool:
    """Whether bring-up ended well and everything it started still runs."""
    ledger = _ledger()
    return ledger is not None and ledger.complete and all(process.is_alive() for process in ledger.processes)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other test run of this machine has the lab: served products would give VMs the same names."""
    directory = lab_dir()
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waits for another test run to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bring_up() -> Lab:
    """The running lab; started unless it runs already. A failure leaves nothing behind."""
    lab = describe()
    if is_up():
        say("is up already")
        return lab
    tear_down()
    if reason := why_not():
        raise LabError(reason)
    if lab.directory.exists() and any(lab.directory.iterdir()):
        raise LabError(f"{lab.directory} holds what is not the lab's, and tear-down would remove it.")
    built = guest.build()
    try:
        _start(lab, built)
    except BaseException:
        _show_logs(lab)
        tear_down()
        raise
    say(f"is up: {', '.join(f'{host.name} at {host.uri}' for host in lab.hosts)}")
    return lab


def tear_down() -> None:
    """End and remove exactly what bring-up started, and the guests that run on its hosts."""
    ledger = _ledger()
    if ledger is None:
        return
    say("tearing down")
    lab = describe()
    end(ledger.processes)
    # Guests outlive their daemon; by now nothing starts another.
    end([guest for host in lab.hosts if host.namespace in ledger.namespaces for guest in host.guests()])
    network.remove(ledger)
    for directory in ledger.directories:
        if Path(directory).exists() and not any(Path(directory).iterdir()):
            Path(directory).rmdir()
    shutil.rmtree(lab.directory)
    say("is down")


def why_not() -> str | None:
    """Why this machine cannot run the lab, or None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "The lab's guest is for Linux on x86_64."
    if os.geteuid() != 0:
        return "The lab needs root: it makes network namespaces, bridges and mounts."
    if missing := missing_packages():
        return f"The lab needs Debian packages that are not installed: {', '.join(missing)}."
    if not Path("/dev/net/tun").exists():
        return "The lab needs /dev/net/tun: guests' NICs are TAP devices."
    try:
        run("unshare", "--net", "--mount", "ip", "link", "add", "probe", "type", "bridge")
    except LabError as error:
        return f"The lab needs network namespaces and bridges: {error}"
    return None


def missing_packages() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in PACKAGES.read_text().splitlines())
    return [name for name in lines if name and not _is_installed(name)]


def _is_installed(package: str) -> bool:
    try:
        return run("dpkg-query", "--show", "--showformat=${db:Status-Status}", package) == "installed"
    except (LabError, FileNotFoundError):
        return False


def _ledger() -> Ledger | None:
    return Ledger.read(lab_dir() / "ledger.json")


def _start(lab: Lab, built: GuestImage) -> None:
    lab.directory.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(lab.directory / "ledger.json")
    ledger.save()
    say("networks and the DHCP server")
    network.add_fabric(ledger)
    lab.dhcp.start(ledger)
    say("hosts")
    neighbours = "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in lab.hosts)
    for host in lab.hosts:
        host.start(ledger, neighbours)
    lab.images.mkdir()
    for source, target in zip(astuple(built), astuple(lab.guest), strict=True):
        shutil.copy(source, target)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda host: host.finish(lab.images), lab.hosts))
    ledger.complete = True
    ledger.save()


def _show_logs(lab: Lab) -> None:
    """The last words of each daemon, for whoever asks why the lab did not come up."""
    for log in sorted(lab.directory.glob("*/*.log")):
        for line in log.read_text(errors="replace").splitlines()[-10:]:
            say(f"{log.name} of {log.parent.name}: {line}")
