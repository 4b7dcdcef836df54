"""The KVM hosts: each a libvirtd with its own network, mounts, hostname and storage."""

import base64
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from tests.lab.ledger import Ledger
from tests.lab.network import (
    MANAGEMENT,
    MANAGEMENT_CIDR,
    VLANS,
    add_address,
    add_bridge,
    add_cable,
    add_namespace,
    inside,
    set_cable,
)
from tests.lab.system import LabError, Process, run, wait_for

IMAGE_POOL = "lab-images"
CONFIG_DRIVE_POOL = "extdhcp-configdrive"
CONFIG_DRIVE_DIRECTORY = Path("/var/lib/libvirt", CONFIG_DRIVE_POOL)  # as a host sees it
PORT = 16509

# What a host has for itself: its name under the host's own directory, and where libvirt looks for it.
PRIVATE = {
    "etc": Path("/etc/libvirt"),
    "lib": Path("/var/lib/libvirt"),
    "run": Path("/run/libvirt"),
    "log": Path("/var/log/libvirt"),
    "cache": Path("/var/cache/libvirt"),
}

LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
listen_addr = "{address}"
host_uuid = "{uuid}"
"""
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
# A /dev of its own for each guest could not take over what hides /dev/kvm here.
namespaces = [ ]
"""


@dataclass(frozen=True)
class Host:
    name: str  # hostname inside
    address: IPv4Address
    uuid: str
    directory: Path  # what is the host's alone, seen from outside

    @property
    def uri(self) -> str:
        return f"qemu+tcp://{self.address}/system"

    @property
    def namespace(self) -> str:
        return f"extdhcp-{self.name}"

    @property
    def config_drives(self) -> Path:
        """The directory of CONFIG_DRIVE_POOL, seen from outside."""
        return self.directory / "lib" / CONFIG_DRIVE_POOL

    @property
    def qemu_logs(self) -> Path:
        """/var/log/libvirt/qemu, seen from outside: QEMU's words, and serial logs that a domain sends there."""
        return self.directory / "log" / "qemu"

    def virsh(self, *words: str | Path) -> str:
        """Run virsh against this host; LabError with its complaint when it fails."""
        return run("virsh", "--connect", self.uri, "--quiet", *words).strip()

    def ask_agent(self, domain: str, command: str, **arguments) -> dict:
        """One command of the QEMU guest agent's own protocol."""
        question = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.virsh("qemu-agent-command", domain, question, "--timeout", "5"))["return"]

    def guest_run(self, domain: str, program: str, *arguments: str) -> str:
        """Run a program inside a guest through its agent and return what it printed."""
        started = self.ask_agent(domain, "guest-exec", path=program, arg=arguments, **{"capture-output": True})

        def result() -> dict | None:
            status = self.ask_agent(domain, "guest-exec-status", pid=started["pid"])
            return status if status["exited"] else None

        status = wait_for(f"{program} in {domain}", result, seconds=20)
        output = base64.b64decode(status.get("out-data", "")).decode()
        if status.get("exitcode"):
            raise LabError(f"{program} in {domain} ended with {status['exitcode']}: {output}")
        return output

    def run(self, *argv: str | Path) -> str:
        """Run a program among the host's mounts and return what it printed."""
        libvirtd = (self.directory / "run/libvirtd.pid").read_text().strip()
        return run("nsenter", "--target", libvirtd, "--mount", *argv)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop libvirtd as it is: connections stay open, and nothing is answered. Guests run on."""
        pid = int((self.directory / "run/libvirtd.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def without_bridge(self, bridge: str) -> Iterator[None]:
        """Rename a bridge: nobody finds it, and what is joined to it stays."""
        link = ("ip", "-n", self.namespace, "link", "set")
        lost = f"{bridge}-lost"
        run(*link, bridge, "down")
        run(*link, bridge, "name", lost)
        try:
            yield
        finally:
            run(*link, lost, "name", bridge)
            run(*link, bridge, "up")

    def unplug(self) -> None:
        """Cut the management cable: the host runs on, and nobody reaches it."""
        set_cable(self.namespace, MANAGEMENT, plugged=False)

    def plug_in(self) -> None:
        set_cable(self.namespace, MANAGEMENT, plugged=True)

    # Bring-up -------------------------------------------------------------------------------

    def start(self, ledger: Ledger, neighbours: str) -> None:
        """Start the host's daemons. `neighbours` is its hosts(5) file: migration calls a target by hostname."""
        self._lay_out(neighbours)
        self._wire(ledger)
        # A process that does nothing but keep the host's mounts and hostname.
        keeper = ("unshare", "--mount", "--uts", "--propagation", "private", "sleep", "infinity")
        process = self._spawn(ledger, "keeper", inside(self.namespace, *keeper))
        wait_for("the host's namespaces", lambda: _comm(process.pid) == "sleep", seconds=10)
        enter = ("nsenter", "--target", str(process.pid), "--mount", "--uts", "--net")
        self._mount(ledger, enter)
        run(*enter, "hostname", self.name)
        self._spawn(ledger, "virtlogd", (*enter, "virtlogd", "--pid-file", "/run/libvirt/virtlogd.pid"))
        # Without virtlogd's socket the first guest would fail to start.
        wait_for("virtlogd", (self.directory / "run/virtlogd-sock").is_socket, seconds=10)
        self._spawn(ledger, "libvirtd", (*enter, "libvirtd", "--listen", "--pid-file", "/run/libvirt/libvirtd.pid"))

    def finish(self, image_directory: Path) -> None:
        """Wait for the daemon and give it its storage pools."""
        wait_for(f"libvirtd of {self.name}", self._listens, seconds=30)
        for pool, path in ((IMAGE_POOL, image_directory), (CONFIG_DRIVE_POOL, CONFIG_DRIVE_DIRECTORY)):
            self.virsh("pool-define-as", pool, "dir", "--target", path)
            self.virsh("pool-start", pool)
            self.virsh("pool-autostart", pool)
        # The first question about QEMU takes seconds, and its answer is kept: a host in use has it.
        self.virsh("domcapabilities")

    def guests(self) -> Iterator[Process]:
        """The QEMU processes of this host, by the ids that its libvirt wrote down."""
        ours = set(run("ip", "netns", "pids", self.namespace).split())
        for file in (self.directory / "run/qemu").glob("*.pid"):
            pid = file.read_text().strip()
            if pid in ours and (process := Process.found(f"guest {file.stem}", int(pid))):
                yield process

    def _lay_out(self, neighbours: str) -> None:
        for name in PRIVATE:
            (self.directory / name).mkdir(parents=True)
        self.config_drives.mkdir(mode=0o711)
        self.qemu_logs.mkdir()  # Debian's package has it; virtlogd does not make it
        (self.directory / "hosts").write_text(neighbours)
        etc = self.directory / "etc"
        (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(address=self.address, uuid=self.uuid))
        (etc / "qemu.conf").write_text(QEMU_CONF)
        # libvirt's clients read this inside the namespaces too; empty says "no aliases, no default".
        (etc / "libvirt.conf").touch()

    def _wire(self, ledger: Ledger) -> None:
        add_namespace(ledger, self.namespace)
        add_cable(self.namespace, MANAGEMENT, MANAGEMENT)
        add_address(self.namespace, MANAGEMENT, f"{self.address}/{MANAGEMENT_CIDR.prefixlen}")
        for vlan in VLANS:
            add_bridge(self.namespace, vlan.bridge)
            add_cable(self.namespace, vlan.name, vlan.name)
            run("ip", "-n", self.namespace, "link", "set", vlan.name, "master", vlan.bridge)

    def _mount(self, ledger: Ledger, enter: tuple[str, ...]) -> None:
        for name, target in PRIVATE.items():
            if not target.exists():
                ledger.note("directories", str(target))
                target.mkdir(parents=True)
            run(*enter, "mount", "--bind", self.directory / name, target)
        run(*enter, "mount", "--bind", self.directory / "hosts", "/etc/hosts")
        if Path("/dev/kvm").exists():
            # KVM may be there and yet not run a guest (nested virtualisation). With a file that not even
            # root can write in its place, libvirt offers domain type qemu alone, here as on any machine.
            # (A device that opens but is not KVM's makes libvirt probe QEMU anew at every call.)
            no_kvm = self.directory / "no-kvm"
            no_kvm.touch()
            run(*enter, "mount", "--bind", "--read-only", no_kvm, "/dev/kvm")

    def _spawn(self, ledger: Ledger, name: str, argv: tuple[str | Path, ...]) -> Process:
        process = Process.spawn(f"{name} of {self.name}", argv, self.directory / f"{name}.log")
        ledger.note("processes", process)
        return process

    def _listens(self) -> bool:
        try:
            socket.create_connection((str(self.address), PORT), timeout=1).close()
        except OSError:
            return False
        return True


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
