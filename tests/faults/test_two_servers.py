"""Two management servers on one database, and the one that plans dies with all its processes.

External DHCP/DNS spec, "polling in cluster of management servers": one polls at a time, and another goes on for it.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import MySQLdb
import pytest

from tests.bench.mariadb import MariadbMissing, private_server
from tests.lab.system import wait_for
from tests.server import Client, Server
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

pytestmark = pytest.mark.alone

VMS = 3
RECOVERY = 120  # seconds
GOES_ON_WITHIN = 30


@dataclass
class Farm:
    servers: tuple[Server, Server]
    libvirtd: PrivateLibvirtd
    select: Callable[[str], list[tuple]]  # straight from the database

    def tries(self) -> dict[int, int]:
        """Claims so far of each NIC whose last one has brought its result."""
        done = "SELECT nic_id, attempt FROM ipfetch_ipfetch WHERE claimed_until IS NULL AND last_outcome <> ''"
        return dict(self.select(done))

    def planner_first(self) -> tuple[Server, Server]:
        """The server that plans now, and the other."""
        first, second = self.servers
        holder = "SELECT holder FROM locks_lock WHERE name = 'ipfetch-planner' AND holder <> ''"
        ((name,),) = wait_for("a planner", lambda: self.select(holder), RECOVERY)
        return (first, second) if int(name.rpartition(":")[2]) in processes_of(first) else (second, first)

    @contextlib.contextmanager
    def batch_in_the_hands_of(self, reader: Server, idle: Server) -> Iterator[None]:
        """All NICs are claimed by a batch that `reader` has begun, and that waits for its host."""
        begun = "SELECT count(*) FROM ipfetch_ipfetch WHERE claimed_until IS NOT NULL AND begun"
        hypervisor = int(self.libvirtd.pid_file.read_text())
        with stopped(*readers_of(idle)), stopped(hypervisor):
            wait_for("the batch", lambda: self.select(begun) == [(VMS,)], RECOVERY)
            yield


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def readers_of(server: Server) -> list[int]:
    """The task cluster that asks for addresses."""
    mark = b"Q_CLUSTER_NAME=addresses"
    return [pid for pid in processes_of(server) if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]


def processes_of(server: Server) -> list[int]:
    """Its main process and all that descends from it."""
    listed = subprocess.run(["ps", "-e", "-o", "ppid=,pid="], check=True, text=True, stdout=subprocess.PIPE).stdout
    family = [server.pid]
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    for parent in family:  # grows as it is walked through
        family += [pid for ppid, pid in pairs if ppid == parent]
    return family


def kill(server: Server) -> None:
    """As if its machine had lost its power."""
    for pid in processes_of(server):
        with contextlib.suppress(ProcessLookupError):  # its parent's death took it along
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def sqlite_file(directory: Path) -> Iterator[str]:
    yield f"sqlite:///{directory / 'farm.sqlite3'}"


@contextlib.contextmanager
def mariadb_server(_directory: Path) -> Iterator[str]:
    # It runs as a user who may not enter pytest's directories.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        with private_server(Path(directory, "mariadb")) as url:
            yield url


@pytest.fixture(params=[sqlite_file, mariadb_server], ids=["sqlite", "mariadb"])
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Farm]:
    with contextlib.ExitStack() as stack:
        try:
            libvirtd = stack.enter_context(PrivateLibvirtd(tmp_path / "v"))
            database = stack.enter_context(request.param(tmp_path / "database"))
        except (LibvirtdMissing, MariadbMissing) as missing:
            pytest.skip(str(missing))
        environment = {
            "DATABASE_URL": database,
            "LIBVIRT_TEST_SOCKET": libvirtd.socket,
            "ALLOW_TEST_HYPERVISOR": "true",
            "JOB_WORKERS": "1",
        }
        first, second = (Server(tmp_path / "state", tmp_path / name, **environment) for name in ("var-1", "var-2"))
        first.prepare()
        first.run("-m", "tests.seed", "demo")
        stack.callback(first.stop)
        stack.callback(second.stop)
        with ThreadPoolExecutor() as threads:
            list(threads.map(Server.start, (first, second)))
        yield Farm((first, second), libvirtd, selecting(database, stack))


def selecting(database: str, stack: contextlib.ExitStack) -> Callable[[str], list[tuple]]:
    url = urlsplit(database)
    if url.scheme == "sqlite":
        connection = sqlite3.connect(f"file:{url.path[1:]}?mode=ro", uri=True)
    else:
        where = {"host": url.hostname, "port": url.port, "user": url.username, "database": url.path[1:]}
        connection = MySQLdb.connect(**where, autocommit=True)
    stack.callback(connection.close)

    def select(statement: str) -> list[tuple]:
        cursor = connection.cursor()
        cursor.execute(statement)
        return list(cursor.fetchall())

    return select


def deploy_vms_that_get_no_address(api: Client) -> None:
    """The addresses that the test driver invents lie outside their network, so they are asked for ever."""
    for name, value in (("externaldhcp.vmip.retrieval.interval", 2), ("externaldhcp.vmip.max.retry", 10_000)):
        api("updateConfiguration", name=name, value=value)
    offering = api(
        "createNetworkOffering",
        name="external-dhcp",
        displaytext="external",
        guestiptype="Shared",
        traffictype="Guest",
        specifyvlan="true",
        specifyipranges="true",
        enable="true",
    )["networkoffering"]["id"]
    zone = api("listZones")["zone"][0]["id"]
    network = api(
        "createNetwork",
        name="n",
        networkofferingid=offering,
        zoneid=zone,
        vlan=100,
        gateway="198.51.100.1",
        netmask="255.255.255.0",
        startip="198.51.100.2",
        endip="198.51.100.254",
    )["network"]["id"]
    template = api("listTemplates", templatefilter="executable")["template"][0]["id"]
    size = api("listServiceOfferings")["serviceoffering"][0]["id"]
    fields = {"zoneid": zone, "templateid": template, "serviceofferingid": size, "networkids": network}
    jobs = [api("deployVirtualMachine", name=f"vm-{number}", **fields)["jobid"] for number in range(VMS)]
    for job in jobs:
        api.wait_for(job, RECOVERY)


def test_polling_goes_on_when_the_planner_is_killed_with_its_whole_server(farm: Farm):
    deploy_vms_that_get_no_address(farm.servers[0].client)
    wait_for("a try of each NIC", lambda: len(farm.tries()) == VMS, RECOVERY)

    dead, alive = farm.planner_first()
    with farm.batch_in_the_hands_of(dead, alive):
        before = dict(farm.select("SELECT nic_id, attempt FROM ipfetch_ipfetch"))
        kill(dead)
        killed_at = time.monotonic()

    def asked_again() -> bool:
        now = farm.tries()
        return all(now.get(nic, 0) > tries for nic, tries in before.items())

    wait_for("each NIC to be asked again", asked_again, GOES_ON_WITHIN)
    print(f"after {time.monotonic() - killed_at:.1f} s")
    assert alive.client("listNetworks")["count"] == 1
