"""Looking on a guest's disk: one at a time on a host, and what comes of it in the queue."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from django.db import connections
from django.http import HttpResponse
from django.urls import reverse
from django.utils import timezone

from extdhcp_site.locks import models as locks
from ipfetch import disks, planner
from ipfetch.models import IpFetch, Observation, Outcome
from networks.hypervisors.base import (
    DiskAccess,
    GuestClient,
    LeaseFile,
    StorageProblem,
    VmRef,
    beat,
)
from networks.models import Endpoint, Nic
from networks.models.offerings import OsFamily
from tests.console.worlds import client_of, make_root
from tests.factories import make_network, make_running_vm
from tests.fakes import FakeHypervisor, hypervisors
from tests.ipfetch.passes import row_of, waiting_nic

pytestmark = pytest.mark.django_db
beside_transactions = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@dataclass
class HypervisorWithDisks(FakeHypervisor):
    """`files` is what its guests' disks hold; `meanwhile` runs while one is read."""

    files: tuple[LeaseFile, ...] = ()
    read: list[tuple[VmRef, bool]] = field(default_factory=list)
    meanwhile: Callable[[], object] | None = None

    def read_lease_files(self, vm: VmRef, deadline: float, *, windows: bool) -> tuple[LeaseFile, ...]:
        self._called("read_lease_files")
        self.read.append((vm, windows))
        if self.meanwhile:
            self.meanwhile()
        return self.files


@pytest.fixture
def fake():
    fake = HypervisorWithDisks()
    with hypervisors(fake):
        yield fake


def nic_with_disk(**network) -> Nic:
    """A NIC that waits, of a VM whose disk may be looked at."""
    nic = waiting_nic(**network)
    Endpoint.objects.update(disk_access=DiskAccess.LOCAL)
    return nic


def lease(ip: str, interface: str = "eth0", expires_in: timedelta = timedelta(hours=1)) -> LeaseFile:
    expire = (timezone.now() + expires_in).strftime("%w %Y/%m/%d %H:%M:%S")
    text = (
        f'lease {{ interface "{interface}"; fixed-address {ip}; option subnet-mask 255.255.255.0;'
        f" option dhcp-lease-time 3600; expire {expire}; }}\n"
    )
    return LeaseFile(GuestClient.DHCLIENT, text.encode())


def look(nic: Nic) -> None:
    disks.look(nic.vm.host.endpoint_id, [nic.pk])


def test_an_address_on_the_disk_is_found_with_its_source(fake):
    nic = nic_with_disk(cidr="192.0.2.0/24", gateway="192.0.2.1")
    fake.files = (lease("192.0.2.7"),)

    look(nic)

    nic.refresh_from_db()
    assert (nic.ip4_address, nic.address_source, row_of(nic).state) == ("192.0.2.7", "disk", IpFetch.State.FOUND)


def test_one_reading_serves_all_nics_of_the_vm_that_lack_an_address(fake):
    networks = [
        make_network(cidr="192.0.2.0/24", gateway="192.0.2.1"),
        make_network(cidr="198.51.100.0/24", gateway="198.51.100.1"),
    ]
    vm = make_running_vm(networks=networks)
    planner.enter_missing(planner.Pace.now(), timezone.now())
    Endpoint.objects.update(disk_access=DiskAccess.LOCAL)
    fake.files = (lease("192.0.2.7"), lease("198.51.100.9", "eth1"))

    look(vm.nics.first())

    assert sorted(vm.nics.values_list("ip4_address", flat=True)) == ["192.0.2.7", "198.51.100.9"]
    assert len(fake.read) == 1


@pytest.mark.parametrize(("family", "windows"), [(OsFamily.LINUX, False), (OsFamily.WINDOWS, True)])
def test_the_template_says_whether_the_guest_is_windows(fake, family, windows):
    nic = nic_with_disk()
    template = nic.vm.template
    template.os_family = family
    template.save()

    look(nic)

    assert fake.read == [(nic.vm.on_host, windows)]


class TestWhatAUserIsTold:
    def test_of_leases_that_nobody_can_tell_apart(self, fake):
        nic = nic_with_disk(cidr="192.0.2.0/24", gateway="192.0.2.1")
        fake.files = (lease("192.0.2.7"), lease("192.0.2.8", "eth1"))

        look(nic)

        row = row_of(nic)
        assert (row.state, row.last_outcome) == (IpFetch.State.WAITING, Outcome.AMBIGUOUS)
        assert row.last_detail == "The disk has valid leases of 192.0.2.7, 192.0.2.8, and none says whose it is."

    def test_of_a_disk_that_could_not_be_read(self, fake):
        nic = nic_with_disk()
        IpFetch.objects.update(last_outcome=Outcome.AGENT_ABSENT)
        fake.failing["read_lease_files"] = StorageProblem("guestfish is not installed.")

        look(nic)

        row = row_of(nic)
        assert (row.last_outcome, row.last_detail) == (Outcome.AGENT_ABSENT, "On its disk: guestfish is not installed.")

    def test_of_a_disk_without_a_valid_lease(self, fake):
        nic = nic_with_disk()
        fake.files = (lease("192.0.2.7", expires_in=-timedelta(minutes=1)),)

        look(nic)

        assert row_of(nic).last_detail == "Its disk has no valid lease of it."

    def test_a_later_try_has_the_last_word(self, fake):
        nic = nic_with_disk(cidr="192.0.2.0/24", gateway="192.0.2.1")
        later = "The guest agent answered since."

        def another_try() -> None:
            IpFetch.objects.update(attempt=7, last_detail=later)

        fake.files = (lease("192.0.2.7"), lease("192.0.2.8", "eth1"))
        fake.meanwhile = another_try

        look(nic)

        assert (row_of(nic).last_outcome, row_of(nic).last_detail) == ("", later)


class TestWhatHappensMeanwhile:
    def test_the_nic_is_deleted(self, fake):
        nic = nic_with_disk(cidr="192.0.2.0/24", gateway="192.0.2.1")
        fake.files = (lease("192.0.2.7"),)
        fake.meanwhile = nic.delete

        look(nic)

        assert not Observation.objects.exists()

    def test_the_vm_was_started_anew_and_the_lease_is_of_its_former_boot(self, fake):
        nic = nic_with_disk(cidr="192.0.2.0/24", gateway="192.0.2.1")
        fake.files = (lease("192.0.2.7"),)
        fake.meanwhile = lambda: IpFetch.objects.all().begin_anew(planner.Pace.now(), timezone.now())

        look(nic)

        nic.refresh_from_db()
        assert (nic.ip4_address, row_of(nic).state) == (None, IpFetch.State.WAITING)

    def test_the_host_is_given_to_another_server(self, fake):
        nic = nic_with_disk(cidr="192.0.2.0/24", gateway="192.0.2.1")
        endpoint = nic.vm.host.endpoint_id
        fake.files = (lease("192.0.2.7"),)

        def taken_over() -> None:
            locks.Lock.objects.filter(name=f"disk-{endpoint}").update(holder="another", token=99)
            beat()

        fake.meanwhile = taken_over

        look(nic)

        nic.refresh_from_db()
        assert nic.ip4_address is None
        assert locks.Lock.objects.get(name=f"disk-{endpoint}").holder == "another"


class TestWhoIsNotLookedAt:
    def test_where_nobody_allowed_it(self, fake):
        nic = nic_with_disk()
        Endpoint.objects.update(disk_access=DiskAccess.NONE)
        look(nic)
        assert fake.read == []

    def test_while_another_disk_of_the_host_is_read(self, fake):
        nic = nic_with_disk()
        held = locks.acquire(f"disk-{nic.vm.host.endpoint_id}", "another server")
        look(nic)
        assert fake.read == []
        assert held.renew()

    def test_a_nic_that_is_found_by_now(self, fake):
        nic = nic_with_disk()
        IpFetch.objects.update(state=IpFetch.State.FOUND)
        look(nic)
        assert fake.read == []

    def test_a_nic_that_is_gone(self, fake):
        nic = nic_with_disk()
        endpoint_id, gone = nic.vm.host.endpoint_id, nic.pk
        nic.delete()
        disks.look(endpoint_id, [gone])
        assert fake.read == []

    def test_on_a_hypervisor_that_cannot(self):
        nic = nic_with_disk()
        with hypervisors(FakeHypervisor()):
            look(nic)
        assert row_of(nic).last_detail == ""


def test_the_host_is_free_again_afterwards(fake):
    nic = nic_with_disk()
    fake.failing["read_lease_files"] = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        look(nic)
    assert locks.acquire(f"disk-{nic.vm.host.endpoint_id}", "the next")


def test_one_after_the_other_all_guests_of_a_host_get_their_turn(fake):
    first = nic_with_disk()
    nics = [first, *(make_running_vm(networks=[first.network], host=first.vm.host).nics.get() for _ in range(2))]
    planner.enter_missing(planner.Pace.now(), timezone.now())

    disks.look(first.vm.host.endpoint_id, [nic.pk for nic in nics])

    assert [vm.uuid for vm, _ in fake.read] == [str(nic.vm.uuid) for nic in nics]


def test_disks_that_may_not_be_read_any_more_are_not(fake):
    first = nic_with_disk()
    second = make_running_vm(networks=[first.network], host=first.vm.host).nics.get()
    planner.enter_missing(planner.Pace.now(), timezone.now())
    fake.meanwhile = lambda: Endpoint.objects.update(disk_access=DiskAccess.NONE)

    disks.look(first.vm.host.endpoint_id, [first.pk, second.pk])

    assert len(fake.read) == 1


@beside_transactions
def test_the_task_is_back_before_the_disk_is_read(fake):
    nic = nic_with_disk(cidr="192.0.2.0/24", gateway="192.0.2.1")
    go_on = threading.Event()
    fake.files = (lease("192.0.2.7"),)
    fake.meanwhile = lambda: go_on.wait(20)

    disks.read_disks(nic.vm.host.endpoint_id, [nic.pk])

    nic.refresh_from_db()
    assert nic.ip4_address is None
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "read-disks":
            thread.join(20)
    connections.close_all()
    nic.refresh_from_db()
    assert nic.ip4_address == "192.0.2.7"


class TestTheEndpointsForm:
    """Guests' disks are read where an administrator says so, and nowhere else."""

    def post(self, **fields: object) -> HttpResponse:
        values = {"name": "kvm1", "kind": "KVM", "transport": "tls", "host": "kvm1.example.org", "new_password": "x"}
        return client_of(make_root()).post(reverse("admin:networks_endpoint_add"), values | fields)

    def test_nothing_said_is_never(self):
        self.post()
        assert Endpoint.objects.get().disk_access == DiskAccess.NONE

    def test_it_can_be_allowed_and_taken_back(self):
        self.post(disk_access="ssh")
        endpoint = Endpoint.objects.get()
        assert endpoint.address.disk_access is DiskAccess.SSH
        values = {"name": "kvm1", "kind": "KVM", "transport": "tls", "host": "kvm1.example.org", "disk_access": ""}
        client_of(make_root()).post(reverse("admin:networks_endpoint_change", args=[endpoint.pk]), values)
        endpoint.refresh_from_db()
        assert endpoint.disk_access == DiskAccess.NONE

    def test_by_ssh_needs_a_host(self):
        page = self.post(transport="local", host="", new_password="", disk_access="ssh")
        assert "There is no host to go to by ssh" in page.content.decode()
        assert not Endpoint.objects.exists()
