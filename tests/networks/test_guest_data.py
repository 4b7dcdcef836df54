"""NICs and resets when something goes wrong half-way: what rows, host and guest are left with.

A worker that dies is one whose call ends in SystemExit: nothing in the code under test catches it.
"""

import base64

import pytest
from django.utils import timezone

from configdrive.models import ConfigDrive
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.hypervisors.base import AgentAbsent, Busy, DeadlineExceeded, EndpointUnreachable
from networks.models import ConfigDriveUse, Nic, VirtualMachine, VmState
from networks.services import guest_data, nics, vms
from networks.services.vms import Deployment
from tests.configdrive.drives import contents
from tests.factories import (
    make_cluster,
    make_host,
    make_network,
    make_service_offering,
    make_template,
)
from tests.fakes import FakeHypervisor
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

PASSWORD = "cloudstack/password/vm_password.txt"
NETWORK_DATA = "openstack/latest/network_data.json"
USER_DATA = "openstack/latest/user_data"
NEW = base64.b64encode(b"new").decode()


@pytest.fixture
def cluster():
    cluster = make_cluster()
    make_host(cluster)
    return cluster


@pytest.fixture
def vm(fake, caller, cluster):
    return deploy(caller, cluster, template=make_template(password_enabled=True))


@pytest.fixture
def network(cluster):
    return make_network(cluster.pod.zone)


def again(vm: VirtualMachine) -> VirtualMachine:
    return VirtualMachine.objects.get(pk=vm.pk)


def disc(vm: VirtualMachine, fake: FakeHypervisor) -> dict[str, bytes]:
    """The files of the ISO that the guest's CD-ROM holds."""
    path = fake.discs[str(vm.uuid)]
    assert path, "the CD-ROM is empty"
    name = path.rpartition("/")[2]
    (image,) = [files[name] for files in (fake.media, *fake.stored.values()) if name in files]
    return contents(image, "rr")


def told_macs(vm: VirtualMachine, fake: FakeHypervisor) -> int:
    """How many NICs the drive names; a guest with one is told of none."""
    return disc(vm, fake).get(NETWORK_DATA, b"ethernet_mac_address").count(b"ethernet_mac_address")


def plugged(vm: VirtualMachine, fake: FakeHypervisor) -> int:
    return len(fake.nics[str(vm.uuid)])


def second(vm: VirtualMachine) -> Nic:
    return vm.nics.get(is_default=False)


def die_once(job: AsyncJob) -> AsyncJob:
    """The worker that runs the job dies, and the job is due again."""
    with pytest.raises(SystemExit):
        jobs.run(job.pk, job.attempt)
    AsyncJob.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * jobs.LOST_AFTER)
    jobs.requeue_lost(timezone.now())
    job.refresh_from_db()
    return job


def give_up(job: AsyncJob) -> AsyncJob:
    """Every worker that runs the job dies over it."""
    for _ in range(jobs.MOST_LOST_WORKERS + 1):
        die_once(job)
    assert job.status == Status.FAILED
    return job


def after(method, outcome: BaseException):
    """A call that does its work, and then does not come back."""

    def call(*args, **kwargs):
        method(*args, **kwargs)
        raise outcome

    return call


def delivery(job: AsyncJob, caller) -> str:
    return jobs.result(job, caller)["virtualmachine"]["passworddelivery"]


class TestAddNic:
    def test_it_is_plugged_in_and_the_guest_is_told_of_both(self, vm, caller, network, fake):
        job = nics.add_nic(vm, network, caller)
        assert (second(vm).plugged, again(vm).needs_restart) == (False, True)

        run(job)

        assert (second(vm).plugged, again(vm).needs_restart) == (True, False)
        assert (plugged(vm, fake), told_macs(vm, fake)) == (2, 2)

    def test_one_for_a_stopped_vm_is_plugged_in_as_it_starts(self, vm, caller, network, fake):
        run(vms.stop(vm, caller))
        run(nics.add_nic(again(vm), network, caller))
        assert not again(vm).needs_restart

        run(vms.start(again(vm), caller))

        assert (second(vm).plugged, plugged(vm, fake), told_macs(vm, fake)) == (True, 2, 2)

    def test_one_that_was_given_up_is_not_told_of_and_waits_for_a_restart(self, vm, caller, network, fake):
        job = nics.add_nic(vm, network, caller)
        fake.failing["ensure_network"] = SystemExit()
        give_up(job)
        fake.failing.clear()

        # Whatever else is brought to the guest, the NIC is not.
        reset = run(guest_data.reset_password(again(vm), caller, "n3wPassword"))
        assert (second(vm).plugged, plugged(vm, fake), told_macs(vm, fake)) == (False, 1, 1)
        assert (again(vm).needs_restart, delivery(reset, caller)) == (True, "at the next start")

        run(vms.reboot(again(vm), caller))
        assert (second(vm).plugged, plugged(vm, fake), told_macs(vm, fake)) == (True, 2, 2)
        assert not again(vm).needs_restart

    def test_one_that_failed_late_is_unplugged_before_it_is_forgotten(self, vm, caller, network, fake):
        fake.add_nic = after(fake.add_nic, DeadlineExceeded("late"))

        job = run(nics.add_nic(vm, network, caller))

        assert job.status == Status.FAILED
        assert (vm.nics.count(), plugged(vm, fake), told_macs(vm, fake)) == (1, 1, 1)
        assert not again(vm).needs_restart

    def test_one_that_cannot_be_unplugged_either_is_kept_until_the_restart(self, vm, caller, network, fake):
        fake.add_nic = after(fake.add_nic, DeadlineExceeded("late"))
        fake.failing["remove_nic"] = Busy("The guest does not let go.")

        job = run(nics.add_nic(vm, network, caller))

        assert job.status == Status.FAILED
        assert (second(vm).plugged, again(vm).needs_restart, told_macs(vm, fake)) == (False, True, 1)

    def test_a_worker_that_dies_after_taking_it_back_leaves_a_clear_error(self, vm, caller, network, fake, monkeypatch):
        job = nics.add_nic(vm, network, caller)
        fake.failing["add_nic"] = Busy("no slot")
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "finish", lambda *args: (_ for _ in ()).throw(SystemExit()))
            with pytest.raises(SystemExit):
                jobs.run(job.pk, job.attempt)
        AsyncJob.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * jobs.LOST_AFTER)
        jobs.requeue_lost(timezone.now())
        job.refresh_from_db()

        run(job)

        assert job.error_text.startswith("The NIC could not be plugged in, and was taken back.")


class TestRemoveNic:
    @pytest.fixture
    def vm(self, vm, caller, network):
        run(nics.add_nic(vm, network, caller))
        return again(vm)

    def test_it_is_unplugged_and_the_guest_is_told_of_one(self, vm, caller, fake):
        job = nics.remove_nic(vm, second(vm), caller)
        assert again(vm).needs_restart

        run(job)

        assert (vm.nics.count(), plugged(vm, fake), told_macs(vm, fake)) == (1, 1, 1)
        assert not again(vm).needs_restart

    def test_one_that_its_guest_holds_on_to_stays_and_stays_told_of(self, vm, caller, fake):
        fake.failing["remove_nic"] = Busy("The guest does not let go.")

        job = run(nics.remove_nic(vm, second(vm), caller))

        assert job.status == Status.FAILED
        assert (second(vm).plugged, again(vm).needs_restart, told_macs(vm, fake)) == (True, False, 2)

    def test_one_that_was_given_up_is_not_told_of_until_the_restart(self, vm, caller, fake):
        fake.remove_nic = after(fake.remove_nic, SystemExit())
        give_up(nics.remove_nic(vm, second(vm), caller))
        assert again(vm).needs_restart

        run(guest_data.reset_password(again(vm), caller, "n3wPassword"))
        assert (plugged(vm, fake), told_macs(vm, fake), again(vm).needs_restart) == (1, 1, True)

        run(vms.reboot(again(vm), caller))
        assert (plugged(vm, fake), told_macs(vm, fake), again(vm).needs_restart) == (2, 2, False)

    def test_a_worker_that_died_after_unplugging_is_finished_by_the_next(self, vm, caller, fake):
        job = nics.remove_nic(vm, second(vm), caller)
        real = fake.remove_nic
        fake.remove_nic = after(real, SystemExit())
        die_once(job)
        fake.remove_nic = real

        assert run(job).status == Status.SUCCEEDED
        assert (vm.nics.count(), plugged(vm, fake), told_macs(vm, fake)) == (1, 1, 1)
        assert not again(vm).needs_restart


CHANGES = {
    "password": lambda vm, caller: guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root"),
    "keys": lambda vm, caller: guest_data.reset_ssh_keys(vm, caller, []),
    "user data": lambda vm, caller: guest_data.reset_user_data(vm, caller, NEW),
    "user data by update": lambda vm, caller: guest_data.update(vm, caller, user_data=NEW),
    "the drive's use": lambda vm, caller: guest_data.update(vm, caller, drive_use=other_use(vm)),
    "a NIC": lambda vm, caller: nics.add_nic(vm, make_network(vm.zone), caller),
}


def other_use(vm: VirtualMachine) -> str:
    return next(use for use in ConfigDriveUse.values if use != vm.drive_use)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
class TestNeedsRestart:
    @pytest.mark.parametrize("use", ConfigDriveUse.values)
    def test_it_stands_until_the_guest_is_told(self, vm, caller, fake, change, use):
        VirtualMachine.objects.update(drive_use=use)
        change(again(vm), caller)
        assert again(vm).needs_restart

        job = run(AsyncJob.objects.get(busy_with=vm.uuid))

        assert (job.status, again(vm).needs_restart) == (Status.SUCCEEDED, False)

    def test_it_stands_when_all_workers_were_lost(self, vm, caller, fake, change):
        change(again(vm), caller)
        for method in ("list_media", "place", "insert", "set_password", "add_nic"):
            fake.failing[method] = SystemExit()

        give_up(AsyncJob.objects.get(busy_with=vm.uuid))

        assert again(vm).needs_restart

    def test_a_stopped_vm_needs_none(self, vm, caller, change):
        run(vms.stop(vm, caller))
        with_agent = change is CHANGES["password"]
        if with_agent:
            guest_data.reset_password(again(vm), caller, "n3wPassword")
        else:
            change(again(vm), caller)

        assert not again(vm).needs_restart


class TestChangeAtRest:
    """What decides is the VM's state at the moment of the change, not the one its caller once read."""

    def test_a_vm_that_was_started_meanwhile_is_told(self, vm, caller, fake):
        run(vms.stop(vm, caller))
        read_before = again(vm)
        run(vms.start(again(vm), caller))

        guest_data.reset_user_data(read_before, caller, NEW)
        run(AsyncJob.objects.get(busy_with=vm.uuid))

        assert disc(vm, fake)[USER_DATA] == b"new"

    def test_a_vm_that_was_stopped_meanwhile_learns_it_at_its_next_start(self, vm, caller, fake):
        read_before = again(vm)
        run(vms.stop(vm, caller))

        guest_data.update(read_before, caller, user_data=NEW)

        assert not AsyncJob.objects.exclude(busy_with=None).exists()
        run(vms.start(again(vm), caller))
        assert disc(vm, fake)[USER_DATA] == b"new"

    def test_the_refusal_names_the_state_that_is(self, vm, caller):
        read_before = again(vm)
        vms.stop(again(vm), caller)

        with pytest.raises(InvalidParameter, match="is Stopping; resetUserDataForVirtualMachine needs it"):
            guest_data.reset_user_data(read_before, caller, NEW)
        assert again(vm).user_data is None


class TestResetPassword:
    def test_one_that_was_given_up_is_read_by_its_submitter_all_the_same(self, vm, caller, fake):
        job = guest_data.reset_password(vm, caller)
        fake.failing["insert"] = SystemExit()
        give_up(job)
        fake.failing.clear()

        run(vms.reboot(again(vm), caller))

        # It is the password that the guest finds.
        assert jobs.result(job, caller)["password"].encode() == disc(vm, fake)[PASSWORD]

    def test_a_worker_that_died_after_the_agent_set_it_leaves_the_word_of_it(self, vm, caller, fake):
        job = guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root")
        fake.failing["list_media"] = fake.failing["place"] = SystemExit()
        die_once(job)
        assert again(vm).password is None
        fake.failing.clear()
        fake.passwords.clear()

        run(job)

        assert delivery(job, caller) == "by the guest agent"
        assert fake.passwords == {}  # it was not asked again: the owner may have changed the password since
        assert PASSWORD not in disc(vm, fake)

    def test_a_worker_that_died_before_it_could_say_so_asks_the_agent_again(self, vm, caller, fake):
        job = guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root")
        real = fake.set_password
        fake.set_password = after(real, SystemExit())
        die_once(job)
        assert again(vm).password == "n3wPassword"
        fake.set_password = real

        run(job)

        assert (delivery(job, caller), again(vm).password) == ("by the guest agent", None)

    def test_a_late_worker_does_not_drop_the_next_password(self, vm, caller, fake):
        first = guest_data.reset_password(vm, caller, "firstOne1", agent_user="root")
        real = fake.set_password

        def slow(*args, **kwargs):
            # Meanwhile this worker is given up, another ends the job, and the user resets once more.
            fake.set_password = real
            AsyncJob.objects.filter(pk=first.pk).update(heartbeat_at=timezone.now() - 2 * jobs.LOST_AFTER)
            jobs.requeue_lost(timezone.now())
            jobs.run(first.pk, 2)
            guest_data.reset_password(again(vm), caller, "secondOne2")
            real(*args, **kwargs)

        fake.set_password = slow
        jobs.run(first.pk, 1)

        assert again(vm).password == "secondOne2"
        run(AsyncJob.objects.get(busy_with=vm.uuid))
        assert disc(vm, fake)[PASSWORD] == b"secondOne2"

    def test_a_late_worker_does_not_drop_what_its_successor_put_on_the_drive(self, vm, caller, fake):
        job = guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root")
        real = fake.set_password

        def slow(*args, **kwargs):
            fake.set_password = real
            fake.failing["set_password"] = AgentAbsent("silent")
            AsyncJob.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() - 2 * jobs.LOST_AFTER)
            jobs.requeue_lost(timezone.now())
            jobs.run(job.pk, 2)
            fake.failing.clear()
            real(*args, **kwargs)

        fake.set_password = slow
        jobs.run(job.pk, 1)

        job.refresh_from_db()
        assert delivery(job, caller) == "on the drive, for the next reboot"
        assert again(vm).password == "n3wPassword"

    def test_it_drops_only_the_password_that_was_set(self, vm, caller, fake):
        job = guest_data.reset_password(vm, caller, "firstOne1", agent_user="root")
        real = fake.set_password

        def and_meanwhile(*args, **kwargs):
            real(*args, **kwargs)
            row = again(vm)
            row.password = "0therOne"
            row.save(update_fields=["password"])

        fake.set_password = and_meanwhile
        run(job)

        assert again(vm).password == "0therOne"


class TestWithoutADrive:
    def deployment(self, cluster, **wanted) -> Deployment:
        zone = cluster.pod.zone
        defaults = {"template": make_template(password_enabled=True), "drive_use": ConfigDriveUse.NEVER}
        return Deployment(
            **{
                "zone": zone,
                "service_offering": make_service_offering(),
                "networks": [make_network(zone)],
                **defaults,
                **wanted,
            }
        )

    @pytest.fixture
    def vm(self, fake, caller, cluster):
        vm, job = vms.deploy(self.deployment(cluster), caller.account, caller)
        run(job)
        assert "password" not in jobs.result(AsyncJob.objects.get(), caller)["virtualmachine"]
        return again(vm)

    def test_no_password_is_made_up(self, vm):
        assert (vm.state, vm.password) == (VmState.RUNNING, None)

    def test_a_password_at_deploy_is_refused(self, fake, caller, cluster):
        with pytest.raises(InvalidParameter, match="configdrive=Never"):
            vms.deploy(self.deployment(cluster, password="n3wPassword"), caller.account, caller)

    def test_a_reset_that_nothing_would_deliver_is_refused(self, vm, caller):
        with pytest.raises(InvalidParameter, match="Name a guestuser"):
            guest_data.reset_password(vm, caller)
        assert again(vm).password is None

    def test_a_reset_by_the_agent_is_not(self, vm, caller, fake):
        job = run(guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root"))

        assert delivery(job, caller) == "by the guest agent"
        assert fake.passwords == {(str(vm.uuid), "root"): "n3wPassword"}

    def test_an_agent_that_does_not_answer_fails_it(self, vm, caller, fake):
        fake.failing["set_password"] = AgentAbsent("silent")

        job = run(guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root"))

        result = jobs.result(job, caller)
        # It may have been set all the same, before the agent fell silent.
        assert (result["errorcode"], result["password"]) == (534, "n3wPassword")
        assert (again(vm).password, again(vm).needs_restart) == (None, False)

    def test_a_template_that_requires_its_drive_is_not_deployed_so(self, fake, caller, cluster):
        with pytest.raises(InvalidParameter, match="requires a config drive"):
            vms.deploy(self.deployment(cluster, template=make_template(drive_required=True)), caller.account, caller)

    def test_nor_are_its_vms_changed_so(self, fake, caller, cluster):
        vm = deploy(caller, cluster, template=make_template(drive_required=True))

        with pytest.raises(InvalidParameter, match="requires a config drive"):
            guest_data.update(vm, caller, drive_use=ConfigDriveUse.NEVER)
        assert again(vm).drive_use == ConfigDriveUse.ALWAYS


def test_a_host_that_fell_silent_leaves_word_that_a_restart_is_needed(vm, caller, network, fake):
    fake.failing["remove_nic"] = fake.failing["add_nic"] = EndpointUnreachable("silent")
    fake.failing["list_media"] = fake.failing["place"] = EndpointUnreachable("silent")

    run(nics.add_nic(vm, network, caller))

    assert again(vm).needs_restart
    assert ConfigDrive.objects.get(vm=vm).generation == 1
