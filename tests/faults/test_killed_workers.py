"""SIGKILL at the worst moment: run again, and the end is the same as without.

A whole server, with libvirt's test driver behind a private daemon for its hypervisor. Each round kills
every process of a task cluster, the workers included; `serve` starts it again.
"""

import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.system import wait_for
from tests.server import Client, Server
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

pytestmark = pytest.mark.alone

VMS = 4
KILLS = 6
# A silent job is taken up after 45 s, and may be killed once more.
RECOVERY = 240


class Cloud:
    def __init__(self, server: Server, libvirtd: PrivateLibvirtd) -> None:
        self.server, self.libvirtd = server, libvirtd
        self.api: Client = server.client

    def deploy_all(self) -> list[str]:
        """Submit the deploys; the ids of their jobs."""
        offering = self.api(
            "createNetworkOffering",
            name="external-dhcp",
            displaytext="external",
            guestiptype="Shared",
            traffictype="Guest",
            specifyvlan="true",
            specifyipranges="true",
            enable="true",
        )["networkoffering"]["id"]
        zone = self.api("listZones")["zone"][0]["id"]
        network = self.api(
            "createNetwork",
            name="n",
            networkofferingid=offering,
            zoneid=zone,
            vlan=100,
            gateway="192.168.0.1",
            netmask="255.255.0.0",
            startip="192.168.122.2",
            endip="192.168.123.254",
        )["network"]["id"]
        template = self.api("listTemplates", templatefilter="executable")["template"][0]["id"]
        size = self.api("listServiceOfferings")["serviceoffering"][0]["id"]
        return [
            self.api(
                "deployVirtualMachine",
                name=f"vm-{number}",
                zoneid=zone,
                templateid=template,
                serviceofferingid=size,
                networkids=network,
            )["jobid"]
            for number in range(VMS)
        ]

    def kill(self, cluster: str) -> None:
        """SIGKILL a task cluster's main process and, with it, all that it forked."""
        for pid in wait_for(f"the cluster {cluster}", lambda: self.processes_of(cluster), 30):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # its parent's death took it along

    def processes_of(self, cluster: str) -> list[int]:
        """Those that `serve` started under this name, by their parentage; nobody else's."""
        children = subprocess.run(
            ["ps", "-o", "pid=,sid=,args=", "-e"], check=True, text=True, stdout=subprocess.PIPE
        ).stdout.splitlines()
        ours = self.children_of(self.server.pid)
        wanted = [pid for pid in ours if self.name_of(pid) == cluster]
        return [int(line.split()[0]) for line in children if int(line.split()[1]) in wanted]

    @staticmethod
    def children_of(parent: int) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

    @staticmethod
    def name_of(pid: int) -> str:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return "gone"
        if b"qcluster" not in command:
            return "other"
        return "addresses" if b"Q_CLUSTER_NAME=addresses" in environment else "jobs"

    def rows(self, statement: str) -> list[tuple]:
        database = sqlite3.connect(f"file:{self.server.state / 'extdhcp.sqlite3'}?mode=ro", uri=True)
        try:
            return database.execute(statement).fetchall()
        finally:
            database.close()

    def ended(self) -> bool:
        return self.rows("SELECT count(*) FROM jobs_asyncjob WHERE status = 0") == [(0,)]

    def virsh(self, *words: str) -> list[str]:
        command = ["virsh", "--connect", self.libvirtd.uri, "--quiet", *words]
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    # A socket's path has at most 107 bytes, fewer than pytest's directories may take.
    libvirtd = PrivateLibvirtd(tmp_path / "v")
    try:
        libvirtd.start()
    except LibvirtdMissing as missing:
        pytest.skip(str(missing))
    server = Server(
        tmp_path / "state",
        tmp_path / "var",
        LIBVIRT_TEST_SOCKET=libvirtd.socket,
        ALLOW_TEST_HYPERVISOR="true",
        JOB_WORKERS="2",
    )
    try:
        server.prepare()
        server.run("-m", "tests.seed", "demo")
        server.start()
        yield Cloud(server, libvirtd)
    finally:
        server.stop()
        libvirtd.stop()


def expect_the_same_end_as_without_a_kill(cloud: Cloud) -> None:
    running = [name for name in cloud.virsh("list", "--name") if name != "test"]  # the driver comes with one
    media = cloud.virsh("vol-list", "extdhcp-configdrive")[::2]
    drives = [name for (name,) in cloud.rows("SELECT name FROM configdrive_configdrive")]
    assert cloud.rows("SELECT state, count(*) FROM networks_virtualmachine GROUP BY state") == [("Running", VMS)]
    assert len(running) == len(set(running)) == VMS
    assert sorted(media) == sorted(drives)
    assert cloud.rows("SELECT count(*) FROM configdrive_leftover") == [(0,)]
    assert cloud.rows("SELECT reserved_memory FROM networks_host") == [(VMS * 512 * 1024**2,)]
    assert cloud.rows("SELECT state, count(*) FROM ipfetch_ipfetch GROUP BY state") == [("found", VMS)]
    found = "SELECT count(*), count(DISTINCT resource_uuid) FROM events_event WHERE type = 'EXTERNAL.DHCP.VM.IP.FETCH'"
    assert cloud.rows(found) == [(VMS, VMS)]
    assert cloud.rows("SELECT count(*) FROM networks_nic WHERE ip4_address IS NULL") == [(0,)]


def all_found(cloud: Cloud) -> bool:
    return cloud.rows("SELECT count(*) FROM ipfetch_ipfetch WHERE state = 'found'") == [(VMS,)]


def test_workers_killed_during_deploys(cloud: Cloud):
    jobs = cloud.deploy_all()
    chance = random.Random(2)  # noqa: S311 - moments for kills, no secret
    started = "SELECT count(*) FROM jobs_asyncjob WHERE status = 0 AND heartbeat_at IS NOT NULL"
    for _ in range(KILLS):
        wait_for("a job at work, or none left", lambda: cloud.ended() or cloud.rows(started) != [(0,)], RECOVERY)
        # Somewhere in the second that a deploy takes here.
        wait_for("a moment", iter([*[None] * chance.randrange(6), True]).__next__, 10)
        cloud.kill("jobs")

    wait_for("every job to end", cloud.ended, RECOVERY)
    assert cloud.rows("SELECT error_text, error_for_operator FROM jobs_asyncjob WHERE status = 2") == []
    assert [cloud.api("queryAsyncJobResult", jobid=job)["jobstatus"] for job in jobs] == [1] * VMS
    wait_for("every address", lambda: all_found(cloud), RECOVERY)
    expect_the_same_end_as_without_a_kill(cloud)


def test_the_worker_killed_during_a_fetch(cloud: Cloud):
    cloud.deploy_all()
    wait_for("every job to end", cloud.ended, RECOVERY)
    claimed = "SELECT count(*) FROM ipfetch_ipfetch WHERE claimed_until IS NOT NULL AND state = 'waiting'"
    wait_for("a batch under way", lambda: all_found(cloud) or cloud.rows(claimed) != [(0,)], RECOVERY)
    cloud.kill("addresses")

    wait_for("every address", lambda: all_found(cloud), RECOVERY)
    expect_the_same_end_as_without_a_kill(cloud)
