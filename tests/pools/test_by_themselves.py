"""What pools and vCenters do by themselves, with the real drivers in this process: they move VMs, and lose hosts."""

import hashlib
from collections.abc import Iterator

import pytest
from django.utils import timezone

from configdrive.content import PASSWORD_CHECKSUM_FILES
from configdrive.models import Leftover
from extdhcp_site.accounts.models import Role
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.hypervisors.base import PowerState
from networks.hypervisors.drivers import driver
from networks.hypervisors.xenserver_networks import CARRIER
from networks.hypervisors.xenserver_session import SESSIONS
from networks.models import Cluster, Endpoint, Host, Network, Pod, PrimaryStorage, Template, VirtualMachine, VmState
from networks.services import adoption, lifecycle, vms
from tests.configdrive.drives import contents
from tests.factories import GIB, make_account, make_network, make_template, make_zone
from tests.ipfetch.passes import MINUTE, run_pass
from tests.life import deploy, run
from tests.networks.hypervisors.factories import soon
from tests.pools.worlds import VLAN, Pool, World, vmware, xenserver
from tests.simulators.xenserver import XenServer

pytestmark = pytest.mark.django_db


class Cloud:
    """A cluster of the world's two hosts."""

    def __init__(self, world: World, caller) -> None:
        self.world, self.caller = world, caller
        zone = make_zone()
        pod = Pod.objects.create(zone=zone, name="pod")
        self.cluster = Cluster.objects.create(pod=pod, name="cluster", hypervisor=world.kind)
        PrimaryStorage.objects.create(cluster=self.cluster, name=world.storage)
        address = world.address
        endpoint = Endpoint.objects.create(
            name="pool",
            kind=world.kind,
            transport=address.transport,
            host=address.host,
            port=address.port,
            username=address.username,
            password=address.password,
            ca_certificates=address.ca_certificates,
        )
        for number, name in enumerate(world.hosts[:2]):
            # The first has the most room.
            Host.objects.create(
                name=name, cluster=self.cluster, endpoint=endpoint, cpus=8, mhz=2000, memory=(16 - number) * GIB
            )
        self.template: Template = make_template(format=world.format, hypervisor=world.kind, image=world.template)
        self.network: Network = make_network(zone, vlan=VLAN)

    def deploy(self) -> VirtualMachine:
        return deploy(self.caller, self.cluster, template=self.template, networks=[self.network])

    def at(self, host: int):
        """The driver of the first or the second host."""
        return driver(self.world.kind, self.world.address, self.world.hosts[host])

    def moves(self, vm: VirtualMachine) -> None:
        """From the first host to the second: by DRS, HA or an administrator, who tell nobody."""
        self.at(0).migrate(vm.on_host, self.at(1), soon())


@pytest.fixture(params=[xenserver, vmware], ids=["XenServer", "VMware"])
def cloud(request: pytest.FixtureRequest, caller) -> Iterator[Cloud]:
    with request.param() as world:
        yield Cloud(world, caller)


@pytest.fixture
def xen() -> Iterator[XenServer]:
    with XenServer(hosts=2) as xen:
        yield xen


@pytest.fixture
def pool(xen: XenServer, caller) -> Cloud:
    return Cloud(Pool(xen), caller)


def states() -> list[str]:
    return list(Host.objects.order_by("name").values_list("state", flat=True))


def test_a_vm_that_has_moved_is_stopped_where_it_is(cloud: Cloud):
    vm = cloud.deploy()
    cloud.moves(vm)

    job = run(vms.stop(vm, cloud.caller))

    vm.refresh_from_db()
    assert (job.status, vm.state) == (Status.SUCCEEDED, VmState.STOPPED)
    assert (cloud.at(1).power_state(vm.on_host, soon()), cloud.world.drives()) == (None, [])


@pytest.mark.parametrize("shared", [True, False])
def test_a_vm_that_has_moved_is_followed_and_its_drive_stays(cloud: Cloud, shared: bool):
    """Whether or not somebody has told us that its storage is shared: it is."""
    PrimaryStorage.objects.update(shared=shared)
    vm = cloud.deploy()
    disc = cloud.at(0).inserted(vm.on_host, soon())
    cloud.moves(vm)

    adoption.find_migrated()
    run(AsyncJob.objects.get(command="adoptMigration"))

    vm.refresh_from_db()
    assert (vm.state, vm.host.name) == (VmState.RUNNING, cloud.world.hosts[1])
    assert cloud.at(1).power_state(vm.on_host, soon()) == PowerState.RUNNING
    assert (cloud.at(1).inserted(vm.on_host, soon()), len(cloud.world.drives())) == (disc, 1)
    assert not Leftover.objects.exists()


def test_a_host_that_is_off_takes_no_other_down(pool: Cloud, xen: XenServer):
    xen.faults.fail_next("Async.VM.start_on", "HOST_OFFLINE", "xen1")

    assert pool.deploy().state == VmState.ERROR

    assert (states(), Endpoint.objects.get().last_error) == (["Down", "Up"], "")
    assert pool.deploy().host.name == "xen2"


def test_a_host_that_was_renamed_is_down_by_itself_and_operators_hear_of_it_once(cloud: Cloud):
    make_account(Role.ROOT_ADMIN)
    host = Host.objects.get(name=cloud.world.hosts[0])
    Host.objects.filter(pk=host.pk).update(name="the-name-it-had")

    for _ in range(2):
        adoption.find_migrated()

    told = Event.objects.filter(type=EventType.HOST_ALERT).values_list("description", flat=True)
    assert [text.partition(": ")[2].partition(":")[0].split(" has ")[1] for text in told] == ["no host the-name-it-had"]
    assert sorted(states()) == ["Down", "Up"]
    assert cloud.deploy().host.name == cloud.world.hosts[1]

    Host.objects.filter(pk=host.pk).update(name=host.name)
    lifecycle.housekeeping()
    assert states() == ["Up", "Up"]


def test_a_pool_whose_coordinator_is_dead_goes_on_under_another(pool: Cloud, xen: XenServer):
    """Known by the certificate of the dead one alone."""
    Endpoint.objects.update(ca_certificates="", fingerprint=xen.fingerprint)
    lifecycle.housekeeping()
    SESSIONS.close()
    xen.change_master("xen2")
    xen.switch_off("xen1")
    Host.objects.filter(name="xen1").update(state="Down", unavailable="It is off.")

    assert pool.deploy().host.name == "xen2"


def test_a_check_makes_no_networks_and_takes_nothing_down(pool: Cloud, xen: XenServer, manage):
    Host.objects.filter(name="xen2").update(memory=1024 * GIB)
    before = len(xen.db.where("network"))

    assert "FAILED  memory of xen2" in manage("check_endpoint", "pool").out

    assert (states(), len(xen.db.where("network"))) == (["Up", "Up"], before)


def test_a_check_names_the_network_that_guests_vlans_would_lie_on(pool: Cloud, xen: XenServer, manage):
    assert "cloudbr100 is made when a VM first needs it" in manage("check_endpoint", "pool").out

    xen.db.set("network", xen.ref("network", CARRIER), name_label="renamed")

    missing = "on xen1: The pool has no network cloudbr100, nor one named cloud-guest"
    assert missing in manage("check_endpoint", "pool").out


def test_a_check_names_storage_that_is_not_shared(xen: XenServer, caller, manage):
    world = Pool(xen)
    world.storage = "Local storage"
    Cloud(world, caller)

    assert (
        "FAILED  storage Local storage on xen1: It is shared here, and this host alone"
        in manage("check_endpoint", "pool").out
    )


def test_a_windows_guest_gets_its_drive_and_tells_its_address(cloud: Cloud, manage):
    cloud.template.os_family, cloud.template.password_enabled = "Windows", True
    cloud.template.save()
    vm = cloud.deploy()

    (image,) = cloud.world.drives()
    files = contents(image, "joliet")  # the names that Windows reads
    password = files["cloudstack/password/vm_password.txt"]
    assert password.decode() == vm.password
    checksum = hashlib.md5(password, usedforsecurity=False).hexdigest()
    assert {files[name].decode() for name in PASSWORD_CHECKSUM_FILES} == {checksum}
    assert cloud.at(0).inserted(vm.on_host, soon())

    nic = vm.nics.get()
    cloud.world.guest_has(
        {"instancename": vm.instance_name, "id": str(vm.uuid), "nic": [{"macaddress": nic.mac_address}]}, "192.0.2.57"
    )
    run_pass(timezone.now() + MINUTE)
    nic.refresh_from_db()
    assert nic.ip4_address == "192.0.2.57"
    assert "FAILED" not in manage("troubleshoot", str(vm.uuid)).out
