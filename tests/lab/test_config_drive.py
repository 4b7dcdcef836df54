"""A config drive through its VM's life on real hosts: what their directories hold, and what the guest reads.

The tests stand in the order in which two guests go through life. The walker keeps its drive in the hosts'
caches; the sitter has its ROOT volume, and so its drive, in the storage that both hosts share, and wants
the drive for its first boot only. While the product looks after the one by itself, the other is at work.
"""

import base64
import contextlib
import json
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cs import CloudStack, CloudStackApiException

from tests.lab import LabError
from tests.lab.cloud import BOOT, USER_DATA, Cloud
from tests.lab.hosts import CONFIG_DRIVE_DIRECTORY, Host
from tests.lab.system import run, wait_for

pytestmark = pytest.mark.lab

PATIENCE = 30  # seconds, for what a person would call at once
BY_ITSELF = 180  # for what the product does each minute, and then for the guest to follow

HOST_NAME = "/mnt/config/cloudstack/metadata/local_hostname.txt"
KEYS = "/mnt/config/cloudstack/metadata/public_keys.txt"
PASSWORD = "/mnt/config/cloudstack/password/vm_password.txt"
USER_DATA_FILE = "/mnt/config/openstack/latest/user_data"
NETWORK_DATA = "/mnt/config/openstack/latest/network_data.json"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass
class Guest:
    """A VM, its drive on the hosts, and what runs inside it."""

    cloud: Cloud
    deployed: dict[str, Any]  # the deploy job's result, password and all
    directory: Callable[[Host], Path]  # where a host keeps its drive
    boot_id: str = ""

    @property
    def id(self) -> str:
        return str(self.deployed["id"])

    @property
    def instance(self) -> str:
        return str(self.deployed["instancename"])

    @property
    def shown(self) -> dict[str, Any]:
        return self.cloud.vm(self.id)

    @property
    def host(self) -> Host:
        name = self.shown["hostname"]
        return next(host for host in self.cloud.lab.hosts if host.name == name)

    # On the hosts

    def files(self, host: Host) -> list[Path]:
        return sorted(self.directory(host).glob(f"{self.instance}-*"))

    def drive(self) -> Path:
        """The one file that the VM has on its host, in its CD-ROM and nobody else's to read."""
        (file,) = self.files(self.host)
        assert file.lstat().st_mode == 0o100600
        assert Path(self.disks()["hdd"] or "").name == file.name
        return file

    def disks(self, host: Host | None = None) -> dict[str, str | None]:
        """What libvirt says is in each of the VM's disks and drives."""
        definition = ET.fromstring((host or self.host).virsh("dumpxml", self.instance))
        sources = {disk.find("target").get("dev"): disk.find("source") for disk in definition.iter("disk")}
        return {name: None if source is None else source.get("file") for name, source in sources.items()}

    def remains(self) -> list[str]:
        """What is left of it on any host."""
        hosts = self.cloud.lab.hosts
        definitions = [self.instance for host in hosts if self.instance in self.cloud.domains_of(host)]
        return definitions + sorted({str(file) for host in hosts for file in self.files(host)})

    # In the guest

    def run(self, program: str, *arguments: str) -> str:
        return self.host.guest_run(self.instance, program, *arguments)

    def read(self, path: str) -> str:
        """A file of the disc as the device gives it now."""
        self.run("/bin/reread")
        return self.run("/bin/cat", path)

    def has(self, path: str) -> bool:
        return path.removeprefix("/mnt/config") in self.run("/bin/reread")

    def let_go(self) -> None:
        """Unmount, as guests do that have read their drive: the tray opens."""
        self.run("/bin/umount", "/mnt/config")

    def wait_until_booted(self) -> None:
        """It has come up since the last time that this was called, and its init is done with the drive."""

        def booted() -> str:
            with contextlib.suppress(LabError):  # no agent yet
                boot_id = self.run("/bin/cat", BOOT_ID)
                if boot_id != self.boot_id and self.run("/bin/hostname").strip() in (self.shown["name"], "lab-guest"):
                    return boot_id
            return ""

        self.boot_id = wait_for(f"{self.instance} to boot", booted, BOOT)

    # By the product

    def call(self, command: str, **fields: object) -> dict[str, Any]:
        """An asynchronous command on this VM, to its end: the VM as the job's result shows it."""
        return getattr(self.cloud.api, command)(id=self.id, fetch_result=True, **fields)["virtualmachine"]

    def update(self, **fields: object) -> None:
        """updateVirtualMachine answers at once, and a job of its own tells the guest."""
        self.cloud.api.updateVirtualMachine(id=self.id, **fields)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        wait_for(f"the job of {self.instance}", lambda: "jobid" not in self.shown, BOOT)

    def migrate(self, target: Host, look: Callable[[], object]) -> list[object]:
        """Migrate by the API. What `look` saw meanwhile, each time that it changed. Raises LabError."""
        job = self.cloud.api.migrateVirtualMachine(virtualmachineid=self.id, hostid=self.cloud.host_id(target))
        seen: list[object] = []
        ask_at = 0.0
        while True:
            if (now := look()) not in seen[-1:]:
                seen.append(now)
            if time.monotonic() > ask_at:
                ask_at = time.monotonic() + 0.3
                result = self.cloud.api.queryAsyncJobResult(jobid=job["jobid"])
                if result["jobstatus"]:
                    break
            time.sleep(0.002)
        if result["jobstatus"] == 2:
            raise MigrationFailed(result["jobresult"]["errortext"], seen)
        return [*seen, look()] if look() != seen[-1] else seen

    def troubleshoot(self) -> tuple[int, str]:
        """Exit status and what was printed."""
        try:
            return 0, self.cloud.server.manage("troubleshoot", self.deployed["name"])
        except subprocess.CalledProcessError as failed:
            return failed.returncode, failed.stdout


class MigrationFailed(Exception):
    pass


def generation(drive: Path) -> int:
    return int(drive.name.split("-")[-2])


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def in_the_server(cloud: Cloud, code: str) -> None:
    """Run a scheduled task now, in a process like the server's workers."""
    cloud.server.run("-c", f"import django; django.setup(); from configdrive import upkeep; {code}")


@pytest.fixture(scope="module")
def walker(cloud: Cloud) -> Guest:
    here = cloud.lab.hosts[0]
    vm = cloud.deploy("walker", here, cloud.silent_network)
    return Guest(cloud, vm, directory=lambda host: host.config_drives)


@pytest.fixture(scope="module")
def sitter(cloud: Cloud) -> Guest:
    here, shared = cloud.lab.hosts[0], cloud.lab.images / "extdhcp-configdrive"
    vm = cloud.deploy("sitter", here, cloud.network, template="small-linux-disk", configdrive="FirstBoot")
    return Guest(cloud, vm, directory=lambda _host: shared)


@pytest.fixture(scope="module")
def first(cloud: Cloud) -> Host:
    return cloud.lab.hosts[0]


@pytest.fixture(scope="module")
def second(cloud: Cloud) -> Host:
    return cloud.lab.hosts[1]


# Deploy -----------------------------------------------------------------------------------------


def test_a_deployed_vm_has_its_drive_and_the_guest_reads_it(walker: Guest, sitter: Guest):
    for guest in (walker, sitter):
        guest.wait_until_booted()
        drive = guest.drive()

        assert generation(drive) == 1
        assert guest.directory(guest.host).stat().st_mode & 0o777 == 0o711
        assert guest.read(HOST_NAME) == guest.deployed["name"]
        assert guest.read(PASSWORD) == guest.deployed["password"]
        assert guest.read(USER_DATA_FILE).encode() == USER_DATA


def test_a_drive_in_shared_storage_is_not_copied_for_a_migration(sitter: Guest, first: Host, second: Host):
    drive, before, caches = sitter.drive(), sitter.run("/bin/reread"), sitter.cloud.drives_of(second)

    seen = sitter.migrate(second, lambda: (sitter.files(second), sitter.cloud.drives_of(second)))

    assert seen == [([drive], caches)]
    assert (sitter.host, sitter.drive()) == (second, drive)
    assert sitter.run("/bin/reread") == before
    assert sitter.instance not in sitter.cloud.domains_of(first)


# One VM cannot see another's --------------------------------------------------------------------


def test_a_guest_has_an_empty_cdrom_and_its_own_drive_and_nothing_else(walker: Guest, sitter: Guest):
    assert walker.disks() == {"hdc": None, "hdd": f"{CONFIG_DRIVE_DIRECTORY}/{walker.drive().name}"}
    assert sitter.disks().keys() == {"vda", "hdc", "hdd"}
    assert (sitter.disks()["hdc"], sitter.disks()["hdd"]) == (None, str(sitter.drive()))
    for guest in (walker, sitter):
        definition = ET.fromstring(guest.host.virsh("dumpxml", guest.instance))
        assert not list(definition.iter("filesystem"))
        assert sorted(guest.run("/bin/find", "/sys/block", "-name", "sr*").split()) == [
            "/sys/block/sr0",
            "/sys/block/sr1",
        ]
        assert guest.run("/bin/cat", "/run/drive") == "/dev/sr1\n"
        with pytest.raises(LabError, match="No medium"):
            guest.run("/bin/sh", "-c", "dd if=/dev/sr0 of=/dev/null count=1 2>&1")


def test_names_of_drives_cannot_be_guessed_and_the_api_does_not_tell_them(walker: Guest, sitter: Guest):
    api = walker.cloud.api
    told = json.dumps([api.listVirtualMachines(listall=True), api.listEvents(listall=True)])
    for guest in (walker, sitter):
        random_part = guest.drive().name.removesuffix(".iso").rpartition("-")[2]
        assert len(random_part) == 8 + 24  # the installation's mark, and 96 random bits
        assert random_part not in told
        assert guest.deployed["password"] not in told


def test_a_stranger_reads_nothing_of_it(walker: Guest):
    fields = walker.cloud.server.announced
    key = json.loads(walker.cloud.server.manage("create_api_key", "stranger", "--json"))
    stranger = CloudStack(fields["endpoint"], key["api_key"], key["secret_key"], poll_interval=0.5)

    assert stranger.listVirtualMachines(listall=True) == {}
    for call, field in (
        (stranger.getVirtualMachineUserData, "virtualmachineid"),
        (stranger.resetPasswordForVirtualMachine, "id"),
        (stranger.listNics, "virtualmachineid"),
    ):
        answers = []
        for vm in (walker.id, "00000000-0000-4000-8000-000000000000"):
            with pytest.raises(CloudStackApiException) as refused:
                call(**{field: vm})
            answers.append(refused.value.error["errortext"].replace(vm, ""))
        assert answers[0] == answers[1]  # as if there were no such VM


def test_troubleshoot_finds_nothing_wrong_but_the_address(walker: Guest):
    wait_for("the guest to be seen", lambda: "ok      guest:" in walker.troubleshoot()[1], BOOT)

    status, printed = walker.troubleshoot()

    assert status == 1
    # Its network has no DHCP server. That it has none is a fault once all tries are spent.
    mac = walker.shown["nic"][0]["macaddress"]
    wrong = {line.removeprefix("FAILED  ").split(": ")[0] for line in printed.splitlines() if line.startswith("FAILED")}
    assert wrong - {f"address of {mac}"} == {f"guest's answer for {mac}"}, printed
    assert f"ok      drive: generation 1 of {time.strftime('%Y-')}" in printed
    assert f"{CONFIG_DRIVE_DIRECTORY}/{walker.drive().name} on kvm-1" in printed
    assert "ok      read: The guest has read " in printed
    assert "ok      boot: booted with it at " in printed
    assert f"unknown user data: {len(USER_DATA)} bytes" in printed
    assert walker.deployed["password"] not in printed


# What the guest is to know changes --------------------------------------------------------------


def test_a_reset_under_a_shut_tray_waits_for_the_reboot(walker: Guest):
    walker.run("/bin/reread")  # and it stays mounted
    drive = walker.drive()

    reset = walker.call("resetPasswordForVirtualMachine", password="Stale1password")

    assert (reset["passworddelivery"], reset["needsrestart"]) == ("at the next start", True)
    assert walker.drive() == drive
    assert walker.run("/bin/cat", PASSWORD) == walker.deployed["password"]


def test_that_reboot_is_a_stop_and_a_start_with_a_new_drive(walker: Guest):
    console = walker.cloud.console(walker.host, walker.instance).count("LAB-POWEROFF")
    former = walker.drive()

    rebooted = walker.call("rebootVirtualMachine")
    walker.wait_until_booted()

    assert walker.cloud.console(walker.host, walker.instance).count("LAB-POWEROFF") == console + 1
    assert rebooted["needsrestart"] is False
    assert generation(walker.drive()) == generation(former) + 1
    assert walker.read(PASSWORD) == "Stale1password"


def test_a_reset_under_an_open_tray_reaches_the_running_guest(walker: Guest):
    former, boot_id = walker.drive(), walker.boot_id
    walker.let_go()

    reset = walker.call("resetPasswordForVirtualMachine", password="Live2password")

    assert (reset["passworddelivery"], reset["needsrestart"]) == ("on the drive, for the next reboot", False)
    assert reset["password"] == "Live2password"
    assert generation(walker.drive()) == generation(former) + 1
    assert walker.read(PASSWORD) == "Live2password"
    assert walker.run("/bin/cat", BOOT_ID) == boot_id


def test_new_ssh_keys_reach_it(walker: Guest):
    pair = walker.cloud.api.createSSHKeyPair(name="laptop")["keypair"]
    listed = walker.cloud.api.listSSHKeyPairs(name="laptop")["sshkeypair"]
    former = walker.drive()
    walker.let_go()

    reset = walker.call("resetSSHKeyForVirtualMachine", keypair="laptop")

    assert [listed[0]["fingerprint"], reset["keypairs"]] == [pair["fingerprint"], "laptop"]
    public = run("ssh-keygen", "-y", "-f", "/dev/stdin", input=pair["privatekey"]).split()[:2]
    assert walker.read(KEYS).split()[:2] == public
    assert walker.run("/bin/cat", PASSWORD) == "Live2password"
    assert generation(walker.drive()) == generation(former) + 1


def test_new_user_data_reaches_it(walker: Guest):
    former = walker.drive()
    walker.let_go()

    walker.cloud.api.resetUserDataForVirtualMachine(id=walker.id, userdata=encoded(b"reset\0data"))
    walker.wait_until_idle()

    assert walker.read(USER_DATA_FILE) == "reset\0data"
    assert generation(walker.drive()) == generation(former) + 1
    answer = walker.cloud.api.getVirtualMachineUserData(virtualmachineid=walker.id)
    assert answer["virtualmachineuserdata"]["userdata"] == encoded(b"reset\0data")


def test_switched_off_it_is_ejected_and_switched_on_it_is_back_with_the_news(walker: Guest):
    former = walker.drive()
    walker.let_go()

    walker.update(configdrive="Never")

    assert (walker.files(walker.host), walker.disks()["hdd"]) == ([], None)
    with pytest.raises(LabError, match="No medium"):
        walker.run("/bin/sh", "-c", "dd if=/dev/sr1 of=/dev/null count=1 2>&1")

    walker.update(configdrive="Always", userdata=encoded(b"updated"))

    assert generation(walker.drive()) == generation(former) + 1
    assert walker.read(USER_DATA_FILE) == "updated"


def test_a_reboot_keeps_the_drive(walker: Guest):
    drive, before = walker.drive(), walker.run("/bin/reread")

    walker.call("rebootVirtualMachine")
    walker.wait_until_booted()

    assert walker.drive() == drive
    assert walker.run("/bin/reread") == before


# NICs -------------------------------------------------------------------------------------------


def macs(guest: Guest) -> set[str]:
    found = guest.run("/bin/find", "/sys/class/net/", "-name", "eth*").split()
    return set(guest.run("/bin/cat", *(f"{path}/address" for path in found)).split())


def network_data_macs(guest: Guest) -> set[str]:
    return {link["ethernet_mac_address"] for link in json.loads(guest.read(NETWORK_DATA))["links"]}


def test_a_second_nic_gets_a_lease_and_its_place_on_the_drive(walker: Guest):
    cloud, (own,) = walker.cloud, macs(walker)
    assert not walker.has(NETWORK_DATA)
    walker.let_go()

    cloud.api.addNicToVirtualMachine(virtualmachineid=walker.id, networkid=cloud.network, fetch_result=True)

    (added,) = {nic["macaddress"] for nic in walker.shown["nic"]} - {own}
    assert wait_for("the second NIC", lambda: macs(walker) == {own, added}, PATIENCE)
    assert network_data_macs(walker) == {own, added}
    assert wait_for("its lease", lambda: cloud.lab.dhcp.leases().get(added), BOOT)


def test_a_nic_that_goes_leaves_no_mac_behind(walker: Guest):
    cloud = walker.cloud
    (second_nic,) = [nic for nic in walker.shown["nic"] if not nic["isdefault"]]
    walker.let_go()

    cloud.api.removeNicFromVirtualMachine(virtualmachineid=walker.id, nicid=second_nic["id"], fetch_result=True)

    assert second_nic["macaddress"] not in macs(walker)
    assert not walker.has(NETWORK_DATA)
    for definition in ("--inactive",), ():
        assert second_nic["macaddress"] not in walker.host.virsh("dumpxml", walker.instance, *definition)
    assert walker.shown["needsrestart"] is False


# Stop and start ---------------------------------------------------------------------------------


def test_a_stop_removes_it_and_a_start_builds_the_next(walker: Guest, first: Host):
    former = walker.drive()

    walker.call("stopVirtualMachine", forced=True)
    assert walker.remains() == []
    reset = walker.call("resetPasswordForVirtualMachine", password="Stopped3password")
    assert reset["passworddelivery"] == "at the next start"
    assert walker.remains() == []
    walker.call("startVirtualMachine", hostid=walker.cloud.host_id(first))

    assert generation(walker.drive()) == generation(former) + 1


def test_a_forced_reboot_builds_it_anew_and_so_can_a_person(walker: Guest, tmp_path: Path):
    former = walker.drive()

    walker.call("rebootVirtualMachine", forced=True)

    # Before its guest is seen: from then on, the password is not to be on the next one.
    built = tmp_path / "built.iso"
    walker.cloud.server.manage("build_configdrive", walker.id, "--output", str(built))
    assert built.read_bytes() == walker.drive().read_bytes()
    assert built.stat().st_mode & 0o777 == 0o600
    assert generation(walker.drive()) == generation(former) + 1
    walker.wait_until_booted()
    assert walker.read(PASSWORD) == "Stopped3password"


# Storage that is full -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(second: Host) -> Iterator[Callable[[], None]]:
    """The second host's cache is full, until it is called."""
    second.run("mount", "-t", "tmpfs", "-o", "size=4k", "full", CONFIG_DRIVE_DIRECTORY)
    undo = contextlib.ExitStack()
    undo.callback(second.run, "umount", "--lazy", CONFIG_DRIVE_DIRECTORY)
    with undo:
        yield undo.close


def test_a_template_that_requires_its_drive_does_not_start_without(cloud: Cloud, second: Host, full):
    with pytest.raises(CloudStackApiException) as refused:
        cloud.deploy("strict", second, cloud.network, template="small-linux-needs-drive")

    vm = cloud.api.listVirtualMachines(name="strict")["virtualmachine"][0]
    assert vm["state"] == "Error"
    assert "A host is not set up for this" in vm["errortext"]
    assert "full: free some space" in str(refused.value.error)
    assert vm["instancename"] not in cloud.domains_of(second)


def test_others_start_without_and_get_it_when_there_is_room(cloud: Cloud, second: Host, full):
    guest = Guest(cloud, cloud.deploy("patient", second, cloud.network), lambda host: host.config_drives)
    assert (guest.shown["state"], guest.shown["needsrestart"], guest.disks()["hdd"]) == ("Running", True, None)
    assert second.run("find", CONFIG_DRIVE_DIRECTORY, "-type", "f") == ""
    status, printed = guest.troubleshoot()
    assert status == 1
    assert "FAILED  drive: There is none: " in printed
    assert "full: free some space" in printed
    guest.wait_until_booted()
    assert guest.run("/bin/find", "/mnt/config").split() == ["/mnt/config"]

    full()
    guest.wait_until_idle()
    in_the_server(
        cloud,
        "from extdhcp_site.jobs.models import AsyncJob; from django.utils import timezone; "
        "AsyncJob.objects.update(created_at=timezone.now() - upkeep.TRIED_AGAIN_AFTER); upkeep.look_after()",
    )
    guest.wait_until_idle()

    assert generation(guest.drive()) == 1
    assert guest.read(PASSWORD) == guest.deployed["password"]
    assert guest.shown["needsrestart"] is False
    assert "FAILED  drive" not in guest.troubleshoot()[1]


# Migration --------------------------------------------------------------------------------------


def switching(guest: Guest, source: Host, target: Host) -> tuple[list[Path], list[Path], bool]:
    """The VM's files on both hosts, and whether it is being received; in an order that accuses no host falsely."""
    files = guest.files(source), guest.files(target)
    return *files, (target.directory / f"run/qemu/{guest.instance}.pid").exists()


def test_a_migration_that_fails_leaves_the_target_as_it_was(walker: Guest, first: Host, second: Host):
    drive, before = walker.drive(), walker.run("/bin/reread")
    brought = second.config_drives / drive.name

    with second.without_bridge("cloudbr101"), pytest.raises(MigrationFailed) as failed:
        walker.migrate(second, lambda: switching(walker, first, second))

    seen = failed.value.args[1]
    assert [target for _, target, _ in seen][:2] == [[], [brought]]
    assert {tuple(source) for source, _, _ in seen} == {(drive,)}
    wait_for("the target to be cleared", lambda: walker.files(second) == [], PATIENCE)
    assert walker.instance not in walker.cloud.domains_of(second)
    assert (walker.shown["state"], walker.host, walker.drive()) == ("Running", first, drive)
    assert walker.run("/bin/reread") == before


def test_others_can_migrate_it_without_its_disc(walker: Guest, first: Host, second: Host):
    drive, there = walker.drive(), f"tcp://{second.address}"

    first.virsh("migrate", "--live", "--unsafe", walker.instance, second.uri, "--migrateuri", there)

    assert walker.disks(second)["hdd"] is None
    assert walker.files(first) == [drive]
    assert walker.instance in walker.cloud.domains_of(first)  # a definition left behind


def test_a_drive_for_the_first_boot_is_ejected_once_the_guest_was_seen(sitter: Guest):
    """Meanwhile, the product finds out what was done to the other."""
    wait_for("the sitter's drive to be ejected", lambda: sitter.files(sitter.host) == [], BY_ITSELF)

    assert sitter.cloud.address(sitter.id)
    assert sitter.disks()["hdd"] is None
    sitter.wait_until_idle()
    assert sitter.shown["configdrive"] == "FirstBoot"


def test_it_comes_back_with_a_reset(sitter: Guest):
    reset = sitter.call("resetPasswordForVirtualMachine", password="Sitting4password")

    assert reset["passworddelivery"] == "on the drive, for the next reboot"
    assert generation(sitter.drive()) == 2
    assert sitter.read(PASSWORD) == "Sitting4password"


def test_destroy_keeps_root_alone_and_what_is_recovered_starts_with_a_drive(sitter: Guest):
    (root,) = sitter.cloud.lab.images.glob(f"ROOT-*{sitter.id}*")

    sitter.call("destroyVirtualMachine")
    assert (sitter.remains(), root.exists()) == ([], True)
    sitter.cloud.api.recoverVirtualMachine(id=sitter.id)
    assert sitter.shown["state"] == "Stopped"
    sitter.call("startVirtualMachine")

    assert generation(sitter.drive()) == 3
    assert sitter.disks()["vda"] == str(root)
    sitter.wait_until_booted()
    assert sitter.read(PASSWORD) == "Sitting4password"


def test_expunge_takes_its_root_volume_too(sitter: Guest):
    sitter.cloud.api.destroyVirtualMachine(id=sitter.id, expunge=True, fetch_result=True)

    assert sitter.remains() == []
    assert not list(sitter.cloud.lab.images.glob(f"ROOT-*{sitter.id}*"))


def test_what_others_migrated_is_followed_and_given_its_disc(walker: Guest, first: Host, second: Host):
    wait_for("the VM to be found", lambda: walker.shown["hostname"] == second.name, BY_ITSELF)
    walker.wait_until_idle()

    assert walker.shown["state"] == "Running"
    assert walker.drive().parent == second.config_drives
    assert walker.read(USER_DATA_FILE) == "updated"
    assert walker.files(first) == []
    assert walker.instance not in walker.cloud.domains_of(first)


def test_a_migration_has_the_drive_on_the_target_before_the_guest(walker: Guest, first: Host, second: Host):
    drive, before = walker.drive(), walker.run("/bin/reread")
    brought = first.config_drives / drive.name

    seen = walker.migrate(first, lambda: switching(walker, second, first))

    assert seen == [
        ([drive], [], False),
        ([drive], [brought], False),
        ([drive], [brought], True),
        ([], [brought], True),
    ]
    assert (walker.host, walker.drive()) == (first, brought)
    assert walker.run("/bin/reread") == before
    assert walker.instance not in walker.cloud.domains_of(second)


# Hands --------------------------------------------------------------------------------------------


def test_an_iso_deleted_by_hand_is_noticed_and_made_anew(walker: Guest):
    drive, before = walker.drive(), walker.run("/bin/reread")
    drive.unlink()
    status, printed = walker.troubleshoot()
    assert status == 1
    assert "FAILED  drive: " in printed, printed
    assert "deleted on its host" in printed

    # The guest holds the tray, and reads on.
    in_the_server(walker.cloud, "upkeep.reconcile()")
    walker.wait_until_idle()
    assert (walker.files(walker.host), walker.shown["needsrestart"]) == ([], True)
    assert walker.run("/bin/reread") == before

    walker.let_go()
    in_the_server(walker.cloud, "upkeep.reconcile()")
    walker.wait_until_idle()
    assert (generation(walker.drive()), walker.shown["needsrestart"]) == (generation(drive) + 1, False)
    assert walker.read(HOST_NAME) == "walker"
    events = walker.cloud.api.listEvents(type="VM.CONFIGDRIVE", resourceid=walker.id, level="WARN")["event"]
    assert [event["description"] for event in events] == [
        "walker: its config drive was found deleted on its host, and is made anew"
    ]


def test_an_iso_overwritten_by_hand_is_made_anew(walker: Guest):
    drive = walker.drive()
    walker.let_go()
    drive.write_bytes(b"X" * drive.stat().st_size)

    in_the_server(walker.cloud, "upkeep.reconcile()")
    walker.wait_until_idle()

    assert generation(walker.drive()) == generation(drive) + 1
    assert walker.read(HOST_NAME) == "walker"


def test_an_orphan_of_ours_goes_and_what_is_others_stays(walker: Guest, first: Host):
    mark = walker.drive().name.split("-")[-1][:8]
    orphan = first.config_drives / f"i-9999-1-VM-1-{mark}{'0' * 24}.iso"
    foreign = [
        first.config_drives / name
        for name in ("debian-12.iso", f"i-9999-1-VM-1-{'f' * 8}{'0' * 24}.iso", f"notes-{mark}.txt")
    ]
    try:
        for file in (orphan, *foreign):
            file.write_bytes(b"left behind")

        in_the_server(walker.cloud, "upkeep.reconcile(); upkeep.remove_leftovers()")
        assert orphan.exists()  # young ones belong to a job that is at work
        in_the_server(
            walker.cloud,
            "from configdrive.models import Leftover; from django.utils import timezone; "
            "Leftover.objects.update(since=timezone.now() - upkeep.LEFT_FOR); upkeep.remove_leftovers()",
        )

        assert not orphan.exists()
        assert [file.exists() for file in foreign] == [True, True, True]
        assert walker.drive()
    finally:
        for file in (orphan, *foreign):
            file.unlink(missing_ok=True)


def test_expunge_leaves_nothing(walker: Guest):
    walker.cloud.api.destroyVirtualMachine(id=walker.id, expunge=True, fetch_result=True)

    assert walker.remains() == []
