"""VMs on a pool or a vCenter: one endpoint with many hosts, of which one may be off, and which moves VMs by itself."""

import pytest
from django.utils import timezone

from configdrive import upkeep
from configdrive.models import ConfigDrive, Leftover
from configdrive.storage import remove
from extdhcp_site.accounts.models import Role
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.hypervisors.base import Busy, DeadlineExceeded, EndpointUnreachable, HostUnavailable, Member
from networks.models import Endpoint, Host, PrimaryStorage, VirtualMachine, VmState
from networks.services import adoption, lifecycle, pool_members, vms
from networks.services.places import place, record_health, translated
from tests.factories import GIB, make_account, make_cluster, make_endpoint, make_host, make_template
from tests.fakes import FakePool, hypervisors
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

OFF = HostUnavailable("Host one is off.")


@pytest.fixture
def pool():
    pool = FakePool("one", "two", "unlisted")
    with hypervisors(pool):
        yield pool


@pytest.fixture
def cluster(pool):
    make_account(Role.ROOT_ADMIN)
    cluster = make_cluster()
    cluster.hypervisor = "XenServer"
    cluster.save()
    endpoint = make_endpoint(kind="XenServer", transport="tls", host="pool.example")
    for name, memory in (("one", 8 * GIB), ("two", 4 * GIB)):
        make_host(cluster, name=name, memory=memory, endpoint=endpoint)
    return cluster


@pytest.fixture
def template():
    return make_template(format="VHD", hypervisor="XenServer", image="debian-12")


@pytest.fixture
def vm(caller, cluster, template):
    return deploy(caller, cluster, template=template)


@pytest.fixture
def moved(vm, pool):
    """DRS, HA or an administrator has moved it from host one to host two; nobody told us."""
    move(pool, vm, "one", "two")
    return vm


def move(pool: FakePool, vm: VirtualMachine, source: str, target: str) -> None:
    pool.bound_to(source).migrate(vm.on_host, pool.bound_to(target), 0.0)


def states() -> dict[str, str]:
    return dict(Host.objects.values_list("name", "state"))


def alerts() -> list[str]:
    return list(Event.objects.filter(type=EventType.HOST_ALERT).values_list("description", flat=True))


class TestAHostThatIsOff:
    @pytest.fixture
    def failed(self, pool, caller, cluster, template):
        """A deploy that chose it, for it has the most room."""
        pool.hosts["one"].failing["start"] = pool.hosts["one"].failing["host_facts"] = OFF
        return deploy(caller, cluster, template=template)

    def test_is_down_alone_and_the_next_vm_goes_to_another(self, failed, caller, cluster, template):
        assert failed.state == VmState.ERROR
        assert states() == {"one": "Down", "two": "Up"}
        assert (Endpoint.objects.get().last_error, Endpoint.objects.get().retry_at) == ("", None)
        assert deploy(caller, cluster, template=template).host.name == "two"

    def test_stays_down_while_its_pool_answers(self, failed):
        record_health(Endpoint.objects.get(), "It does not answer.")
        record_health(Endpoint.objects.get())
        lifecycle.housekeeping()
        assert states() == {"one": "Down", "two": "Up"}

    def test_is_up_again_when_it_can_be_used(self, failed, pool):
        pool.hosts["one"].failing.clear()
        lifecycle.housekeeping()
        assert states() == {"one": "Up", "two": "Up"}

    def test_operators_hear_of_it_once_and_of_its_end(self, failed, pool):
        with pytest.raises(Exception, match="did not answer"), translated(Host.objects.get(name="one")):
            raise OFF
        pool.hosts["one"].failing.clear()
        lifecycle.housekeeping()
        assert alerts() == ["one can be used again", "one cannot be used: Host one is off."]

    def test_its_reason_is_told_when_there_is_no_room(self, failed, caller, cluster, template):
        Host.objects.filter(name="two").update(resource_state="Disabled")
        deploy(caller, cluster, template=template)
        assert "one: Down (Host one is off.)" in AsyncJob.objects.latest("pk").error_for_operator

    def test_what_its_pool_started_elsewhere_is_followed(self, vm, pool):
        move(pool, vm, "one", "two")
        Host.objects.filter(name="one").update(state="Down", unavailable="off")
        adoption.find_migrated()
        run(AsyncJob.objects.get(command="adoptMigration"))
        assert VirtualMachine.objects.get().host.name == "two"


class TestWhatIsNoOutage:
    """Of an endpoint with all its hosts."""

    @pytest.fixture
    def one(self, cluster):
        return Host.objects.get(name="one")

    def fails(self, host: Host, error: Exception) -> None:
        with pytest.raises(Exception, match="did not answer"), translated(host):
            raise error

    def test_a_vm_that_is_busy(self, one):
        self.fails(one, Busy("being moved"))
        assert states() == {"one": "Up", "two": "Up"}

    def test_one_long_operation_while_the_endpoint_answers(self, one):
        self.fails(one, DeadlineExceeded("The clone took too long."))
        assert (states(), Endpoint.objects.get().last_error) == ({"one": "Up", "two": "Up"}, "")

    def test_but_one_that_answers_nothing_else_is(self, one, pool):
        pool.whole.failing["host_facts"] = EndpointUnreachable("silent")
        self.fails(one, DeadlineExceeded("The clone took too long."))
        assert states() == {"one": "Down", "two": "Down"}


class TestAVmThatMovedBehindOurBack:
    def test_is_stopped_where_it_is(self, moved, pool, caller):
        run(vms.stop(moved, caller))
        moved.refresh_from_db()
        assert (moved.state, pool.hosts["two"].running) == (VmState.STOPPED, set())

    def test_is_destroyed_where_it_is(self, moved, pool, caller):
        run(vms.destroy(moved, caller, expunge=True))
        assert (pool.hosts["two"].defined, VirtualMachine.objects.count()) == ({}, 0)

    def test_is_followed_and_stays_defined(self, moved, pool):
        adoption.find_migrated()
        job = run(AsyncJob.objects.get(command="adoptMigration"))
        moved.refresh_from_db()
        assert (job.status, moved.host.name, moved.state) == (Status.SUCCEEDED, "two", VmState.RUNNING)
        assert list(pool.hosts["two"].defined) == [str(moved.uuid)]

    def test_is_not_forgotten_by_its_pool_when_it_is_off_by_the_time_it_was_followed(self, moved, pool):
        """Its one definition is not a former host's."""
        adoption.find_migrated()
        pool.hosts["two"].failing["inserted"] = Busy("shutting down")
        run(AsyncJob.objects.get(command="adoptMigration"))
        assert list(pool.hosts["two"].defined) == [str(moved.uuid)]

    def test_is_found_running_when_its_job_was_lost(self, moved):
        long_ago = timezone.now() - lifecycle.STUCK_AFTER * 2
        VirtualMachine.objects.update(state=VmState.STOPPING, state_since=long_ago)
        lifecycle.housekeeping()
        moved.refresh_from_db()
        assert moved.state == VmState.RUNNING

    def test_is_driven_out_where_it_is(self, moved, pool):
        one = Host.objects.get(name="one")
        VirtualMachine.objects.update(state=VmState.STOPPED, host=None, stray_on=one)
        lifecycle.housekeeping()
        moved.refresh_from_db()
        assert (moved.stray_on, pool.hosts["two"].running) == (None, set())

    def test_a_host_that_cannot_be_asked_leaves_the_others_to_be_looked_at(self, moved, pool, cluster):
        make_host(cluster, name="unlisted", endpoint=Endpoint.objects.get())
        pool.hosts["unlisted"].failing["running_vms"] = HostUnavailable("It was renamed.")
        adoption.find_migrated()
        assert AsyncJob.objects.filter(command="adoptMigration").count() == 1

    def test_to_a_host_that_is_not_ours_is_told_once(self, vm, pool):
        move(pool, vm, "one", "unlisted")
        adoption.find_migrated()
        adoption.find_migrated()
        assert len(alerts()) == 1
        assert "runs on none of the hosts of cluster" in alerts()[0]

    @pytest.mark.parametrize("state", [VmState.STOPPED, VmState.ERROR, VmState.DESTROYED, VmState.EXPUNGING])
    def test_one_that_should_be_off_and_runs_is_told_once(self, moved, state):
        VirtualMachine.objects.update(state=state, host=None, state_since=timezone.now() - adoption.SETTLED_AFTER * 2)
        adoption.find_migrated()
        adoption.find_migrated()
        assert len(alerts()) == 1
        assert f"is {state}, and not where it should be. It runs on two." in alerts()[0]

    def test_one_that_a_job_has_just_stopped_is_not(self, moved):
        VirtualMachine.objects.update(state=VmState.STOPPED, host=None, state_since=timezone.now())
        adoption.find_migrated()
        assert alerts() == []


class TestAMigrationWhoseWorkerDied:
    """With the disc out of the guest's CD-ROM, as where each host keeps its own."""

    @pytest.fixture
    def arrived(self, vm, pool, caller, monkeypatch):
        """On the target; the worker that brought it there has not put the disc back."""
        job = vms.migrate(vm, caller)
        with monkeypatch.context() as patch:
            patch.setattr(lifecycle, "_arrive", lambda *args: (_ for _ in ()).throw(SystemExit()))
            with pytest.raises(SystemExit):
                run(job)
        pool.hosts["two"].discs[str(vm.uuid)] = None
        return job

    def has_its_disc(self, vm: VirtualMachine, pool: FakePool) -> bool:
        return pool.hosts["two"].discs[str(vm.uuid)] == ConfigDrive.objects.get().path

    def test_ends_with_the_disc_in(self, arrived, vm, pool):
        jobs.requeue_lost(timezone.now() + jobs.LOST_AFTER * 2)
        jobs.run(arrived.pk, 2)
        assert self.has_its_disc(vm, pool)

    def test_and_which_nobody_took_over_is_settled_with_the_disc_in(self, arrived, vm, pool):
        AsyncJob.objects.update(status=Status.FAILED, busy_with=None)
        VirtualMachine.objects.update(state_since=timezone.now() - lifecycle.STUCK_AFTER * 2)
        lifecycle.housekeeping()
        run(AsyncJob.objects.get(command="refreshVirtualMachine"))
        assert self.has_its_disc(vm, pool)


class TestADriveThatAllHostsSee:
    """By whatever the flag says: a pool's hosts see one file."""

    @pytest.fixture(autouse=True)
    def not_told(self, cluster):
        PrimaryStorage.objects.update(shared=False)

    @pytest.fixture
    def files(self, pool):
        return pool.hosts["one"].stored["default-pool"]

    @pytest.fixture
    def may_go_back(self, vm):
        """To where it has run before."""
        VirtualMachine.objects.update(last_host=Host.objects.get(name="two"))

    def test_goes_along_with_a_migration(self, vm, may_go_back, caller, files):
        before = dict(files)
        job = run(vms.migrate(vm, caller))
        vm.refresh_from_db()
        assert (job.status, vm.host.name) == (Status.SUCCEEDED, "two")
        assert files == before

    def test_is_not_removed_when_others_moved_the_vm(self, moved, files):
        before = dict(files)
        adoption.find_migrated()
        run(AsyncJob.objects.get(command="adoptMigration"))
        assert files == before

    def test_is_not_removed_when_a_migration_failed(self, vm, may_go_back, pool, caller, files):
        before = dict(files)
        pool.hosts["one"].failing["migrate"] = Busy("no")
        run(vms.migrate(vm, caller))
        assert "migrate" in pool.hosts["one"].calls
        assert files == before

    def test_is_not_removed_as_a_leftover_of_a_former_host(self, vm, files):
        """One that was written down before it was known that both see it."""
        drive, two = ConfigDrive.objects.get(), Host.objects.get(name="two")
        Leftover.objects.create(host=two, storage=drive.storage, name=drive.name)
        remove(Leftover.objects.all(), place(two))
        assert (list(files), Leftover.objects.count()) == ([drive.name], 0)


class TestUpkeepOfDrives:
    @pytest.fixture
    def storage(self, cluster):
        return PrimaryStorage.objects.get()

    def lists(self, pool: FakePool) -> int:
        """How often the shared storage was listed; each host's own cache is, once a host."""
        return sum(host.calls.count("list_media") for host in pool.hosts.values()) - Host.objects.count()

    def test_what_all_hosts_see_is_listed_once(self, vm, pool):
        for host in pool.hosts.values():
            host.calls.clear()
        upkeep.reconcile()
        assert self.lists(pool) == 1

    def test_a_missing_drive_is_found_by_another_hosts_list(self, vm, pool, cluster):
        make_host(cluster, name="a", endpoint=Endpoint.objects.get())
        pool.hosts["a"] = pool.hosts["unlisted"]
        pool.hosts["one"].stored["default-pool"].clear()
        upkeep.reconcile()
        assert AsyncJob.objects.filter(command="verifyConfigDrive").count() == 1

    def test_a_drive_that_is_younger_than_the_list_is_not_missed(self, vm, pool):
        pool.hosts["one"].stored["default-pool"].clear()
        ConfigDrive.objects.update(built_at=timezone.now() + timezone.timedelta(seconds=5))
        upkeep.reconcile()
        assert not AsyncJob.objects.filter(command="verifyConfigDrive").exists()

    def test_an_orphan_of_a_vm_that_any_host_of_the_pool_has_stays(self, vm, pool, storage):
        PrimaryStorage.objects.update(shared=False)
        move(pool, vm, "one", "unlisted")
        orphan = f"{vm.instance_name}-9-{upkeep.installation_mark()}{'0' * 24}.iso"
        pool.hosts["one"].stored["default-pool"][orphan] = b"in use, after a database was restored"
        upkeep.reconcile()
        assert not Leftover.objects.exists()

    def test_a_vm_that_cannot_be_asked_holds_up_only_its_own_leftovers(self, vm, pool, storage, monkeypatch):
        monkeypatch.setattr(upkeep, "LEFTOVERS_A_PASS", 1)
        old = timezone.now() - upkeep.LEFT_FOR
        files = pool.hosts["one"].stored["default-pool"]
        for name in (f"{vm.instance_name}-9-x.iso", "i-9-9-VM-1-x.iso"):
            files[name] = b"old"
            Leftover.objects.create(host=vm.host, storage=storage, name=name, since=old)
        pool.hosts["one"].failing["inserted"] = Busy("being moved")
        upkeep.remove_leftovers()
        upkeep.remove_leftovers()
        assert sorted(files) == sorted([ConfigDrive.objects.get().name, f"{vm.instance_name}-9-x.iso"])

    def test_a_host_that_is_off_is_down_alone(self, vm, pool):
        pool.hosts["one"].failing["remove"] = OFF
        Leftover.objects.create(host=vm.host, name="i-9-9-VM-1-x.iso", since=timezone.now() - upkeep.LEFT_FOR)
        upkeep.remove_leftovers()
        assert states() == {"one": "Down", "two": "Up"}

    def test_another_host_removes_what_one_that_is_off_has_left(self, vm, pool, storage):
        PrimaryStorage.objects.update(shared=False)
        files = pool.hosts["one"].stored["default-pool"]
        files["i-9-9-VM-1-x.iso"] = b"old"
        old = timezone.now() - upkeep.LEFT_FOR
        Leftover.objects.create(host=vm.host, storage=storage, name="i-9-9-VM-1-x.iso", since=old)
        Host.objects.filter(name="one").update(state="Down", unavailable="off")
        upkeep.remove_leftovers()
        assert "i-9-9-VM-1-x.iso" not in files


class TestMembersOfAPool:
    """What a pool told of its hosts, so that another may speak for it."""

    TOLD = [["192.0.2.11", "a" * 64], ["192.0.2.12", "b" * 64]]

    @pytest.fixture
    def endpoint(self, pool, cluster):
        pool.of_pool = tuple(Member(*member) for member in self.TOLD)
        lifecycle.housekeeping()
        return Endpoint.objects.get()

    def test_are_written_down_and_go_with_its_address(self, endpoint):
        assert endpoint.members == self.TOLD
        assert endpoint.address.members == tuple(Member(*member) for member in self.TOLD)

    def test_are_asked_for_again_when_they_are_old(self, endpoint, pool):
        pool.of_pool = ()
        lifecycle.housekeeping()
        assert Endpoint.objects.get().members == self.TOLD
        Endpoint.objects.update(members_at=timezone.now() - pool_members.HOLD_FOR)
        lifecycle.housekeeping()
        assert Endpoint.objects.get().members == []

    def test_stay_while_it_does_not_tell(self, endpoint, pool):
        pool.whole.failing["members"] = EndpointUnreachable("It is silent.")
        Endpoint.objects.update(members_at=timezone.now() - pool_members.HOLD_FOR)
        lifecycle.housekeeping()
        assert Endpoint.objects.get().members == self.TOLD

    @pytest.mark.parametrize("change", [{"host": "other.example"}, {"fingerprint": "c" * 64}, {"username": "other"}])
    def test_are_forgotten_with_the_address_that_told_them(self, endpoint, change):
        for name, value in change.items():
            setattr(endpoint, name, value)
        endpoint.save(update_fields=list(change))
        endpoint.refresh_from_db()
        assert (endpoint.members, endpoint.members_at) == ([], None)
