"""A VM's way through its states, with what each step leaves on the host, on the rows and in the queue."""

import threading

import pytest
from django.utils import timezone

from configdrive.models import ConfigDrive, Leftover
from extdhcp_site.accounts.models import Role
from extdhcp_site.errors import InsufficientCapacity, InvalidParameter, ResourceInUse
from extdhcp_site.events.models import Event, EventType, Level
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.locks.models import Held, Lock
from ipfetch.models import IpFetch
from networks.hypervisors import base
from networks.hypervisors.base import EndpointUnreachable, NetworkMissing
from networks.models import AddressState, Host, Nic, PrimaryStorage, VirtualMachine, VmState
from networks.services import adoption, lifecycle, vms
from networks.services.vms import Deployment
from tests.factories import (
    GIB,
    make_account,
    make_caller,
    make_cluster,
    make_endpoint,
    make_host,
    make_network,
    make_service_offering,
    make_template,
    make_zone,
)
from tests.fakes import FakeHypervisor, hypervisors
from tests.life import deploy, run

pytestmark = pytest.mark.django_db


@pytest.fixture
def cluster():
    return make_cluster()


@pytest.fixture
def host(cluster):
    return make_host(cluster)


def free_memory(host: Host) -> int:
    host.refresh_from_db()
    return host.memory - host.reserved_memory


def host_named(name: str) -> Host:
    return Host.objects.get(endpoint__host=f"{name}.example")


def test_a_deployed_vm_runs_with_its_drive_and_waits_for_its_address(fake, caller, cluster, host):
    vm = deploy(caller, cluster)

    drive = ConfigDrive.objects.get(vm=vm)
    assert (vm.state, vm.host) == (VmState.RUNNING, host)
    assert fake.discs == {str(vm.uuid): drive.path}
    assert list(fake.media) == [drive.name]
    assert IpFetch.objects.get(nic__vm=vm).state == IpFetch.State.WAITING


def test_a_vm_reserves_memory_on_its_host_and_gives_it_back_on_stop(fake, caller, cluster, host):
    before = free_memory(host)
    vm = deploy(caller, cluster)
    assert free_memory(host) == before - 512 * 1024 * 1024

    run(vms.stop(vm, caller))

    assert free_memory(host) == before


def test_a_stopped_vm_leaves_nothing_on_host_or_queue_and_its_address_is_last_known(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    Nic.objects.update(ip4_address="192.0.2.7", address_state=AddressState.CONFIRMED)

    run(vms.stop(vm, caller))

    nic = Nic.objects.get()
    assert (fake.media, fake.defined, fake.running) == ({}, {}, set())
    assert not IpFetch.objects.exists()
    assert not Leftover.objects.exists()
    assert (nic.ip4_address, nic.address_state) == ("192.0.2.7", AddressState.LAST_KNOWN)


def test_a_started_again_vm_gets_a_new_drive_under_a_new_name(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    first = ConfigDrive.objects.get().name
    run(vms.stop(vm, caller))

    run(vms.start(vm, caller))

    drive = ConfigDrive.objects.get()
    assert drive.generation == 2
    assert drive.name != first
    assert list(fake.media) == [drive.name]


def test_a_drive_of_a_retried_start_leaves_no_file_behind(fake, caller, cluster, host):
    vm, job = vms.deploy(
        Deployment(cluster.pod.zone, make_template(), make_service_offering(), [make_network(cluster.pod.zone)]),
        caller.account,
        caller,
    )
    fake.failing["start"] = SystemExit()  # what a killed worker looks like from inside
    with pytest.raises(SystemExit):
        jobs.run(job.pk, 1)
    fake.failing.clear()
    fake.running.clear()

    jobs.requeue_lost(timezone.now() + jobs.LOST_AFTER * 2)
    jobs.run(job.pk, 2)

    vm.refresh_from_db()
    assert vm.state == VmState.RUNNING
    assert list(fake.media) == [ConfigDrive.objects.get().name]
    assert not Leftover.objects.exists()


def test_a_reboot_keeps_the_drive_and_gives_new_tries(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    name = ConfigDrive.objects.get().name
    IpFetch.objects.update(state=IpFetch.State.EXHAUSTED, retries_left=0)

    run(vms.reboot(vm, caller))

    row = IpFetch.objects.get()
    assert ConfigDrive.objects.get().name == name
    assert (row.state, row.retries_left) == (IpFetch.State.WAITING, 10)


def test_a_forced_reboot_rebuilds_the_drive(fake, caller, cluster, host):
    vm = deploy(caller, cluster)

    run(vms.reboot(vm, caller, forced=True))

    vm.refresh_from_db()
    assert vm.state == VmState.RUNNING
    assert ConfigDrive.objects.get().generation == 2
    assert len(fake.media) == 1


def test_destroy_with_expunge_leaves_nothing_at_all(fake, caller, cluster, host):
    before = free_memory(host)
    template = make_template(format="QCOW2", image="debian.qcow2")
    vm = deploy(caller, cluster, template=template)
    assert len(fake.volumes) == 1

    job = run(vms.destroy(vm, caller, expunge=True))

    assert job.status == Status.SUCCEEDED
    assert not VirtualMachine.objects.exists()
    assert not IpFetch.objects.exists()
    assert (fake.media, fake.defined, fake.volumes) == ({}, {}, set())
    assert free_memory(host) == before


def test_a_destroyed_vm_keeps_its_root_volume_and_frees_its_name(fake, caller, cluster, host):
    template = make_template(format="QCOW2", image="debian.qcow2")
    vm = deploy(caller, cluster, template=template, name="web")

    run(vms.destroy(vm, caller))

    vm.refresh_from_db()
    assert vm.state == VmState.DESTROYED
    assert len(fake.volumes) == 1
    assert deploy(caller, cluster, name="web").state == VmState.RUNNING


def test_a_destroyed_vm_is_expunged_after_the_delay(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    run(vms.destroy(vm, caller))

    lifecycle.housekeeping()
    assert VirtualMachine.objects.filter(pk=vm.pk).exists()
    VirtualMachine.objects.update(destroyed_at=timezone.now() - timezone.timedelta(days=2))
    lifecycle.housekeeping()

    assert not VirtualMachine.objects.filter(pk=vm.pk).exists()


def test_a_dead_host_leaves_the_vm_in_error_with_the_reason_and_resources_released(fake, caller, cluster, host):
    before = free_memory(host)
    fake.failing["power_state"] = EndpointUnreachable("It does not answer.")
    fake.failing["undefine"] = EndpointUnreachable("It does not answer.")

    vm = deploy(caller, cluster)

    job = AsyncJob.objects.get()
    assert (vm.state, vm.host) == (VmState.ERROR, None)
    assert "did not answer" in vm.error_text
    assert (job.status, job.error_code) == (Status.FAILED, 534)
    assert free_memory(host) == before
    assert not IpFetch.objects.exists()


def test_a_users_error_does_not_name_the_host_and_the_operators_does(fake, caller, cluster, host):
    fake.failing["ensure_network"] = NetworkMissing("Bridge cloudbr7 is missing.")

    vm = deploy(caller, cluster)

    event = Event.objects.filter(level="ERROR").get()
    assert host.name not in vm.error_text + event.text_for(caller)
    assert "Bridge cloudbr7 is missing." in event.for_operator


def test_a_failed_later_start_is_stopped_not_error(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    run(vms.stop(vm, caller))
    fake.failing["start"] = EndpointUnreachable("It does not answer.")

    run(vms.start(vm, caller))

    vm.refresh_from_db()
    assert vm.state == VmState.STOPPED


def test_no_room_is_told_host_by_host(fake, caller, cluster):
    small = make_host(cluster, memory=GIB // 4)

    vm = deploy(caller, cluster)

    job = AsyncJob.objects.get()
    assert job.error_code == InsufficientCapacity.status
    assert job.error_for_operator == f"{small}: 256 MiB free of 256, and 512 wanted."
    assert vm.state == VmState.ERROR


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ({"state": "Down", "unavailable": "It is off."}, "Down (It is off.)"),
        ({"state": "Down"}, "Down (its endpoint does not answer)"),
        ({"resource_state": "Disabled"}, "Disabled"),
        ({"cpus": 1, "mhz": 2000, "reserved_mhz": 2000}, "2000 MHz promised of 2000, and 500 wanted"),
        ({"memory": GIB, "reserved_memory": GIB, "state": "Down"}, "0 MiB free of 1024, and 512 wanted"),
    ],
)
def test_each_reason_against_a_host_is_told(fake, caller, cluster, host, reason):
    make_host(cluster, **host)
    deploy(caller, cluster)
    assert reason in AsyncJob.objects.get().error_for_operator


class TestStorageOfOneHost:
    @pytest.fixture
    def vm(self, fake, caller, cluster):
        make_host(cluster, name="h1")
        PrimaryStorage.objects.update(shared=False)
        return deploy(caller, cluster, template=make_template(format="QCOW2", image="debian.qcow2"))

    def test_is_why_its_vm_cannot_be_migrated(self, vm, caller, cluster):
        make_host(cluster, name="h2")
        job = run(vms.migrate(vm, caller))
        assert "no other host sees the storage of its ROOT volume" in job.error_text
        assert "h2: does not see the VM's ROOT volume" in job.error_for_operator
        assert "is not marked as shared" in job.error_for_operator

    def test_is_where_its_vm_starts_or_nowhere(self, vm, caller, cluster):
        make_host(cluster, name="h2")
        run(vms.stop(vm, caller))
        Host.objects.filter(name="h1").update(resource_state="Disabled")
        job = run(vms.start(VirtualMachine.objects.get(), caller))
        assert "can start on one host alone" in job.error_text
        assert "h1: Disabled. h2: does not see" in job.error_for_operator


def test_a_vm_that_could_migrate_nowhere_is_told_why(fake, caller, cluster):
    make_host(cluster)
    vm = deploy(caller, cluster)
    assert "has no other KVM host" in run(vms.migrate(vm, caller)).error_for_operator
    elsewhere = make_host(make_cluster(vm.zone), memory=32 * GIB)
    vm.refresh_from_db()
    assert f"{elsewhere}: in another cluster than the VM." in run(vms.migrate(vm, caller)).error_for_operator


def test_the_host_with_the_most_free_memory_is_chosen(fake, caller, cluster):
    make_host(cluster, memory=4 * GIB)
    roomy = make_host(cluster, memory=8 * GIB)

    assert deploy(caller, cluster).host == roomy


def test_a_second_job_on_a_busy_vm_is_refused(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    vms.stop(vm, caller)

    with pytest.raises(ResourceInUse, match="busy with stopVirtualMachine"):
        vms.destroy(vm, caller)


def test_starting_a_running_vm_is_refused_and_leaves_no_job(fake, caller, cluster, host):
    vm = deploy(caller, cluster)

    with pytest.raises(InvalidParameter, match="is Running; startVirtualMachine needs it Stopped"):
        vms.start(vm, caller)

    assert AsyncJob.objects.count() == 1


def test_a_duplicate_name_is_refused_and_nothing_is_made(fake, caller, cluster, host):
    deploy(caller, cluster, name="web")

    with pytest.raises(InvalidParameter, match="named WEB already"):
        deploy(caller, cluster, name="WEB")

    assert VirtualMachine.objects.count() == 1


@pytest.mark.parametrize("user_data", ["not base64!", "QQ", "QUI=\n", "QUI-"])
def test_user_data_must_be_strict_base64(fake, caller, cluster, host, user_data):
    with pytest.raises(InvalidParameter, match="base64"):
        deploy(caller, cluster, user_data=user_data)


class TestMigration:
    @pytest.fixture
    def hosts(self):
        fakes = {"one.example": FakeHypervisor(), "two.example": FakeHypervisor()}
        with hypervisors(fakes):
            yield fakes

    @pytest.fixture
    def vm(self, hosts, caller):
        cluster = make_cluster(make_zone())
        for name, memory in (("one.example", 8 * GIB), ("two.example", 4 * GIB)):
            make_host(cluster, memory=memory, endpoint=make_endpoint(transport="tls", host=name))
        return deploy(caller, cluster)

    def test_the_drive_goes_along_and_the_source_keeps_nothing(self, hosts, vm, caller):
        run(vms.migrate(vm, caller))

        vm.refresh_from_db()
        drive = ConfigDrive.objects.get()
        assert vm.host.endpoint.host == "two.example"
        assert drive.host == vm.host
        assert list(hosts["two.example"].media) == [drive.name]
        assert (hosts["one.example"].media, hosts["one.example"].defined) == ({}, {})
        assert not Leftover.objects.exists()

    def test_the_room_moves_along(self, hosts, vm, caller):
        run(vms.migrate(vm, caller))

        one, two = Host.objects.order_by("endpoint__host")
        assert (one.reserved_memory, two.reserved_memory) == (0, 512 * 1024 * 1024)

    def test_a_failed_one_leaves_the_vm_where_it_was_and_the_target_with_nothing(self, hosts, vm, caller):
        hosts["one.example"].failing["migrate"] = EndpointUnreachable("It does not answer.")

        job = run(vms.migrate(vm, caller))

        vm.refresh_from_db()
        assert job.status == Status.FAILED
        assert (vm.state, vm.host.endpoint.host) == (VmState.RUNNING, "one.example")
        assert hosts["two.example"].media == {}
        assert Host.objects.get(endpoint__host="two.example").reserved_memory == 0

    def test_one_killed_after_the_switch_is_completed_by_the_next_attempt(self, hosts, vm, caller, monkeypatch):
        job = vms.migrate(vm, caller)
        with monkeypatch.context() as patch:
            patch.setattr(lifecycle, "_arrive", lambda *args: (_ for _ in ()).throw(SystemExit()))
            with pytest.raises(SystemExit):
                jobs.run(job.pk, 1)
        hosts["one.example"].failing["migrate"] = EndpointUnreachable("The VM is not there any more.")
        jobs.requeue_lost(timezone.now() + jobs.LOST_AFTER * 2)
        jobs.run(job.pk, 2)

        vm.refresh_from_db()
        assert (vm.state, vm.host.endpoint.host) == (VmState.RUNNING, "two.example")
        assert len(hosts["two.example"].media) == 1


class TestAMigrationByOtherHands:
    """`virsh migrate`, an admin's tool: the VM is where it is, whatever we would have chosen."""

    @pytest.fixture
    def hosts(self):
        fakes = {"one.example": FakeHypervisor(), "two.example": FakeHypervisor()}
        with hypervisors(fakes):
            yield fakes

    @pytest.fixture
    def one(self, hosts):
        return hosts["one.example"]

    @pytest.fixture
    def two(self, hosts):
        return hosts["two.example"]

    @pytest.fixture
    def vm(self, hosts, caller, cluster):
        for name, memory in (("one.example", 8 * GIB), ("two.example", 4 * GIB)):
            make_host(cluster, memory=memory, endpoint=make_endpoint(transport="tls", host=name))
        return deploy(caller, cluster)

    @pytest.mark.parametrize("found_on", [{"resource_state": "Disabled"}, {"memory": GIB // 4}, {"cpus": 0}])
    def test_the_vm_is_followed_to_a_host_that_would_not_have_been_chosen(self, vm, caller, one, two, found_on):
        Host.objects.filter(endpoint__host="two.example").update(**found_on)
        one.moved_behind_our_back(vm.on_host, two)

        adoption.find_migrated()
        job = run(AsyncJob.objects.get(command="adoptMigration"))

        assert job.status == Status.SUCCEEDED
        assert VirtualMachine.objects.get().host.endpoint.host == "two.example"
        [event] = Event.objects.filter(type=EventType.VM_MIGRATE)
        assert (event.level, event.for_operator) == (Level.INFO, f"From {host_named('one')} to {host_named('two')}.")
        # Else the next start would run a second guest on the same ROOT volume.
        run(vms.stop(vm, caller))
        assert two.running == set()

    def test_looking_for_them_reads_no_definitions(self, vm, one, two):
        one.calls.clear()
        adoption.find_migrated()
        assert (one.calls, two.calls) == (["running_vms"], ["running_vms"])

    def test_it_holds_its_room_there_even_where_there_is_none(self, vm, caller, one, two):
        Host.objects.filter(endpoint__host="two.example").update(memory=GIB // 4)
        one.moved_behind_our_back(vm.on_host, two)
        adoption.find_migrated()
        run(AsyncJob.objects.get(command="adoptMigration"))

        reserved = Host.objects.order_by("endpoint__host").values_list("reserved_memory", flat=True)
        assert list(reserved) == [0, GIB // 2]

        run(vms.stop(vm, caller))
        assert list(reserved.all()) == [0, 0]

    def test_a_host_that_holds_more_than_it_has_gets_no_new_vms(self, vm, caller, cluster, one, two):
        Host.objects.filter(endpoint__host="two.example").update(memory=GIB // 4)
        one.moved_behind_our_back(vm.on_host, two)
        adoption.find_migrated()
        run(AsyncJob.objects.get(command="adoptMigration"))
        assert deploy(caller, cluster).host.endpoint.host == "one.example"

        Host.objects.filter(endpoint__host="one.example").update(resource_state="Disabled")

        assert deploy(caller, cluster).state == VmState.ERROR
        assert "-256 MiB free of 256" in AsyncJob.objects.latest("pk").error_for_operator

    def test_one_that_came_back_before_we_looked_holds_no_room_there(self, vm, one, two):
        one.moved_behind_our_back(vm.on_host, two)
        adoption.find_migrated()
        two.moved_behind_our_back(vm.on_host, one)

        run(AsyncJob.objects.get(command="adoptMigration"))

        assert VirtualMachine.objects.get().host.endpoint.host == "one.example"
        assert Host.objects.get(endpoint__host="two.example").reserved_memory == 0

    def test_after_a_failure_it_is_left_alone_for_a_while(self, vm, one, two):
        one.moved_behind_our_back(vm.on_host, two)
        adoption.find_migrated()
        two.failing["power_state"] = EndpointUnreachable("silent")
        job = run(AsyncJob.objects.get(command="adoptMigration"))
        assert job.status == Status.FAILED
        two.failing.clear()
        VirtualMachine.objects.update(state_since=timezone.now() - timezone.timedelta(minutes=5))
        two.running.clear()
        lifecycle.housekeeping()  # the host is up again, and the VM where it was
        lifecycle.housekeeping()
        assert VirtualMachine.objects.get().state == VmState.RUNNING
        two.running.add(str(vm.uuid))

        adoption.find_migrated()
        assert AsyncJob.objects.filter(command="adoptMigration").count() == 1

        AsyncJob.objects.update(completed_at=timezone.now() - adoption.NOT_AGAIN_FOR * 2)
        adoption.find_migrated()
        assert AsyncJob.objects.filter(command="adoptMigration").count() == 2


def test_a_vm_whose_job_was_lost_is_settled_by_what_the_host_says(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    VirtualMachine.objects.update(state=VmState.STOPPING, state_since=timezone.now() - timezone.timedelta(minutes=5))

    lifecycle.housekeeping()

    vm.refresh_from_db()
    assert vm.state == VmState.RUNNING


# What a hard look at the failure paths found -------------------------------------------------------


def test_a_worker_that_was_given_up_does_not_touch_the_vm_that_another_started(fake, caller, cluster, host):
    zone = cluster.pod.zone
    vm, job = vms.deploy(
        Deployment(zone, make_template(), make_service_offering(), [make_network(zone)]), caller.account, caller
    )

    def taken_over_meanwhile(*args, **kwargs):
        jobs.requeue_lost(timezone.now() + jobs.LOST_AFTER * 2)
        fake.ensure_network = FakeHypervisor.ensure_network.__get__(fake)
        jobs.run(job.pk, 2)
        raise EndpointUnreachable("The late worker's call timed out.")

    fake.ensure_network = taken_over_meanwhile
    jobs.run(job.pk, 1)

    vm.refresh_from_db()
    assert vm.state == VmState.RUNNING
    assert fake.running == {str(vm.uuid)}
    assert AsyncJob.objects.get().status == Status.SUCCEEDED


def test_a_late_worker_does_not_call_a_vm_running_that_its_successor_is_stopping(fake, caller, cluster, host):
    vm = deploy(caller, cluster)
    job = vms.stop(vm, caller)

    def taken_over_meanwhile(*args, **kwargs):
        jobs.requeue_lost(timezone.now() + jobs.LOST_AFTER * 2)
        raise EndpointUnreachable("The late worker's call timed out.")

    fake.stop = taken_over_meanwhile
    jobs.run(job.pk, 1)
    vm.refresh_from_db()
    assert vm.state == VmState.STOPPING

    del fake.stop
    jobs.run(job.pk, 2)

    vm.refresh_from_db()
    assert (vm.state, fake.running) == (VmState.STOPPED, set())


class TestAHostThatCannotBeAsked:
    @pytest.fixture
    def hosts(self):
        fakes = {"one.example": FakeHypervisor(), "two.example": FakeHypervisor()}
        with hypervisors(fakes):
            yield fakes

    @pytest.fixture
    def two_hosts(self, cluster):
        for name, memory in (("one.example", 8 * GIB), ("two.example", 4 * GIB)):
            make_host(cluster, memory=memory, endpoint=make_endpoint(transport="tls", host=name))

    @pytest.fixture
    def stray(self, hosts, two_hosts, caller, cluster):
        """A VM whose start timed out although the guest started, on a host that fell silent then."""
        silent = EndpointUnreachable("It does not answer.")
        one = hosts["one.example"]
        started = one.start
        one.start = lambda vm, deadline: (started(vm, deadline), (_ for _ in ()).throw(silent))
        one.failing["undefine"] = silent
        vm = deploy(caller, cluster)
        del one.start
        assert one.running
        return vm

    def test_a_vm_that_may_run_there_is_remembered(self, stray):
        assert stray.state == VmState.ERROR
        assert stray.stray_on.endpoint.host == "one.example"

    def test_it_is_not_expunged_before_the_host_gave_it_up(self, hosts, stray, caller):
        job = run(vms.destroy(stray, caller, expunge=True))
        assert job.status == Status.FAILED
        assert VirtualMachine.objects.filter(pk=stray.pk).exists()

        hosts["one.example"].failing.clear()
        run(vms.destroy(stray, caller, expunge=True))

        assert hosts["one.example"].running == set()
        assert not VirtualMachine.objects.filter(pk=stray.pk).exists()

    def test_it_gets_no_new_vms_until_it_answers(self, hosts, stray, caller, cluster):
        assert deploy(caller, cluster).host.endpoint.host == "two.example"

        hosts["one.example"].failing.clear()
        lifecycle.housekeeping()  # the host is up again
        lifecycle.housekeeping()  # and lets go of the VM

        stray.refresh_from_db()
        assert Host.objects.get(endpoint__host="one.example").state == "Up"
        assert stray.stray_on is None

    def test_housekeeping_keeps_its_lock_while_a_host_takes_its_time(self, hosts, stray, monkeypatch):
        monkeypatch.setattr(base, "HEARTBEAT_SECONDS", 0.01)
        soon, later = timezone.now() + timezone.timedelta(seconds=2), timezone.now() + timezone.timedelta(seconds=5)
        renewed = threading.Event()

        def slow_host(deadline: float) -> None:
            Lock.objects.update(expires_at=soon)
            renewed.clear()
            base.call_within(deadline, lambda: renewed.wait(5))

        def renew_and_tell(held: Held) -> bool:
            renewed.set()
            return renew(held)

        renew = Held.renew
        monkeypatch.setattr(Held, "renew", renew_and_tell)
        hosts["one.example"].host_facts = slow_host
        expiries = []
        monkeypatch.setattr(Held, "release", lambda held: expiries.append(Lock.objects.get().expires_at))

        lifecycle.housekeeping()

        assert expiries[0] > later

    def test_a_stop_that_failed_can_be_tried_again(self, hosts, two_hosts, caller, cluster):
        vm = deploy(caller, cluster)
        hosts["one.example"].failing["stop"] = EndpointUnreachable("It does not answer.")
        run(vms.stop(vm, caller))
        vm.refresh_from_db()
        assert vm.state == VmState.RUNNING

        hosts["one.example"].failing.clear()
        run(vms.stop(vm, caller))

        vm.refresh_from_db()
        assert vm.state == VmState.STOPPED

    def test_a_migration_whose_end_nobody_saw_stays_migrating_until_the_target_answers(
        self, hosts, two_hosts, caller, cluster
    ):
        vm = deploy(caller, cluster)
        one, two = hosts["one.example"], hosts["two.example"]
        silent = EndpointUnreachable("It does not answer.")

        def arrives_and_falls_silent(ref, target, deadline):
            FakeHypervisor.migrate(one, ref, target, deadline)
            two.failing["power_state"] = silent
            raise silent

        one.migrate = arrives_and_falls_silent
        run(vms.migrate(vm, caller))
        vm.refresh_from_db()
        assert vm.state == VmState.MIGRATING

        two.failing.clear()
        VirtualMachine.objects.update(state_since=timezone.now() - timezone.timedelta(minutes=5))
        lifecycle.housekeeping()
        lifecycle.housekeeping()

        vm.refresh_from_db()
        assert (vm.state, vm.host.endpoint.host) == (VmState.RUNNING, "two.example")


def test_a_vm_with_a_root_volume_starts_only_where_that_volume_is(fake, caller, cluster, host):
    vm = deploy(caller, cluster, template=make_template(format="QCOW2", image="debian.qcow2"))
    run(vms.stop(vm, caller))
    another = make_cluster(cluster.pod.zone)
    make_host(another, memory=64 * GIB)

    run(vms.start(vm, caller))

    vm.refresh_from_db()
    assert vm.host == host


def test_a_password_that_has_arrived_is_not_on_the_next_drive(fake, caller, cluster, host):
    vm = deploy(caller, cluster, template=make_template(password_enabled=True))
    assert vm.password
    VirtualMachine.objects.update(guest_seen_at=timezone.now() + timezone.timedelta(seconds=30))

    run(vms.stop(vm, caller))

    assert VirtualMachine.objects.get().password is None


def test_a_password_that_may_not_have_arrived_stays(fake, caller, cluster, host):
    vm = deploy(caller, cluster, template=make_template(password_enabled=True))
    password = vm.password

    run(vms.stop(vm, caller))

    assert VirtualMachine.objects.get().password == password


def test_deploying_for_another_account_stays_within_what_that_account_may_use(fake, cluster, host):
    root, owner = make_caller(Role.ROOT_ADMIN), make_account()
    foreign = make_network(cluster.pod.zone, acl_type="Account")
    wanted = Deployment(cluster.pod.zone, make_template(), make_service_offering(), [foreign])

    with pytest.raises(InvalidParameter, match="may not use"):
        vms.deploy(wanted, owner, root)
