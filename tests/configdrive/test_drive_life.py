"""A drive through its VM's life: what each step leaves in the CD-ROM, on the hosts and on the rows."""

import base64
import re
from datetime import timedelta

import pytest
from django.utils import timezone

from configdrive import storage, upkeep
from configdrive.models import ConfigDrive, Leftover
from extdhcp_site.configuration.models import set_value
from extdhcp_site.errors import InvalidParameter, ResourceInUse
from extdhcp_site.events.models import Event, EventType, Level
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.locks import models as locks
from networks.hypervisors.base import (
    AgentAbsent,
    Busy,
    DeadlineExceeded,
    EndpointUnreachable,
    Refused,
    StorageProblem,
)
from networks.models import ConfigDriveUse, Host, Nic, PrimaryStorage, SshKeyPair, VirtualMachine, VmState
from networks.models.infrastructure import HostState
from networks.services import adoption, guest_data, nics, vms
from tests.configdrive.drives import contents
from tests.factories import make_caller, make_cluster, make_endpoint, make_host, make_network, make_template
from tests.fakes import FakeHypervisor, hypervisors
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

PASSWORD = "cloudstack/password/vm_password.txt"
KEYS = "cloudstack/metadata/public_keys.txt"
NETWORK_DATA = "openstack/latest/network_data.json"
ONE, TWO = "one.example", "two.example"


@pytest.fixture
def hosts():
    """Two hosts in memory, which share the files of their cluster's primary storage."""
    shared: dict[str, bytes] = {}
    fakes = {name: FakeHypervisor(stored={"primary": shared}) for name in (ONE, TWO)}
    with hypervisors(fakes):
        yield fakes


@pytest.fixture
def caller():
    return make_caller()


@pytest.fixture
def cluster():
    cluster = make_cluster()
    # The first has more memory: VMs begin there.
    make_host(cluster, endpoint=make_endpoint(host=ONE), memory=64 * 1024**3)
    make_host(cluster, endpoint=make_endpoint(host=TWO))
    return cluster


@pytest.fixture
def one(hosts):
    return hosts[ONE]


@pytest.fixture
def two(hosts):
    return hosts[TWO]


@pytest.fixture
def vm(hosts, caller, cluster):
    return deploy(caller, cluster, template=make_template(password_enabled=True))


def drive_of(vm: VirtualMachine) -> ConfigDrive:
    return ConfigDrive.objects.get(vm=vm)


def disc(vm: VirtualMachine, fake: FakeHypervisor) -> dict[str, bytes]:
    """What the guest reads: the files of the ISO that its CD-ROM holds."""
    path = fake.discs[str(vm.uuid)]
    assert path, "the CD-ROM is empty"
    name = path.rpartition("/")[2]
    (image,) = [files[name] for files in (fake.media, *fake.stored.values()) if name in files]
    return contents(image, "rr")


def was_seen(vm: VirtualMachine) -> None:
    """The guest's agent answered, a while after it booted."""
    VirtualMachine.objects.filter(pk=vm.pk).update(guest_seen_at=timezone.now() + timedelta(seconds=30))


def again(vm: VirtualMachine) -> VirtualMachine:
    return VirtualMachine.objects.get(pk=vm.pk)


def make_pair(caller, name="laptop") -> SshKeyPair:
    blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"k" * 32).decode()
    return SshKeyPair.objects.create(account=caller.account, name=name, public_key=f"ssh-ed25519 {blob} {name}")


class TestResetPassword:
    def test_a_stopped_vm_gets_it_at_its_next_start(self, vm, caller, one):
        run(vms.stop(vm, caller))

        job = run(guest_data.reset_password(again(vm), caller, "n3wPassword"))

        assert jobs.result(job, caller)["virtualmachine"]["passworddelivery"] == "at the next start"
        run(vms.start(again(vm), caller))
        assert disc(vm, one)[PASSWORD] == b"n3wPassword"

    def test_a_running_vm_finds_it_on_a_new_disc(self, vm, caller, one):
        before = drive_of(vm)

        job = run(guest_data.reset_password(vm, caller, "n3wPassword"))

        shown = jobs.result(job, caller)["virtualmachine"]
        assert (shown["password"], shown["passworddelivery"]) == ("n3wPassword", "on the drive, for the next reboot")
        assert disc(vm, one)[PASSWORD] == b"n3wPassword"
        assert before.name not in one.media
        assert drive_of(vm).generation == before.generation + 1

    def test_a_tray_that_stays_shut_makes_the_reboot_a_stop_and_a_start(self, vm, caller, one):
        one.failing["insert"] = Busy("shut")
        job = run(guest_data.reset_password(vm, caller, "n3wPassword"))
        assert jobs.result(job, caller)["virtualmachine"]["passworddelivery"] == "at the next start"
        assert jobs.result(job, caller)["virtualmachine"]["needsrestart"] is True
        assert list(one.media) == [drive_of(vm).name]

        one.failing.clear()
        run(vms.reboot(again(vm), caller))

        assert "reboot" not in one.calls
        assert disc(vm, one)[PASSWORD] == b"n3wPassword"
        assert not again(vm).needs_restart

    def test_a_host_that_does_not_answer_delays_it_and_loses_nothing(self, vm, caller, one):
        one.failing["list_media"] = one.failing["place"] = EndpointUnreachable("silent")
        job = run(guest_data.reset_password(vm, caller, "n3wPassword"))
        assert job.status == Status.SUCCEEDED
        assert (again(vm).needs_restart, again(vm).password) == (True, "n3wPassword")

    def test_the_guest_agent_sets_it_at_once_when_asked(self, vm, caller, one):
        job = run(guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root"))

        assert one.passwords == {(str(vm.uuid), "root"): "n3wPassword"}
        assert jobs.result(job, caller)["virtualmachine"]["passworddelivery"] == "by the guest agent"
        # The deploy's password would undo it at the next boot, and this one what its owner does later.
        assert PASSWORD not in disc(vm, one)
        assert again(vm).password is None

    def test_an_agent_that_is_not_there_leaves_it_to_the_drive(self, vm, caller, one):
        one.failing["set_password"] = AgentAbsent("none")
        job = run(guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root"))
        assert jobs.result(job, caller)["virtualmachine"]["passworddelivery"] == "on the drive, for the next reboot"
        assert disc(vm, one)[PASSWORD] == b"n3wPassword"

    def test_a_second_one_waits_for_the_first(self, vm, caller):
        guest_data.reset_password(vm, caller, "firstOne1")
        with pytest.raises(ResourceInUse):
            guest_data.reset_password(vm, caller, "secondOne2")
        assert again(vm).password == "firstOne1"

    def test_a_worker_that_died_after_the_disc_was_placed_is_followed_by_one_with_the_same_password(
        self, vm, caller, one
    ):
        job = guest_data.reset_password(vm, caller, "n3wPassword")
        one.failing["insert"] = SystemExit()  # what ends a worker, between the ISO and the rows
        with pytest.raises(SystemExit):
            jobs.run(job.pk, job.attempt)
        one.failing.clear()
        AsyncJob.objects.update(attempt=2, heartbeat_at=None)
        job.attempt = 2

        run(job)

        assert jobs.result(job, caller)["virtualmachine"]["password"] == "n3wPassword"
        assert disc(vm, one)[PASSWORD] == b"n3wPassword"
        assert list(one.media) == [drive_of(vm).name]

    def test_a_template_without_passwords_refuses(self, hosts, caller, cluster):
        vm = deploy(caller, cluster)
        with pytest.raises(InvalidParameter, match="not password enabled"):
            guest_data.reset_password(vm, caller)

    @pytest.mark.parametrize(
        "password",
        ["R", "RANDOM", "saved_password", "$6$salt$hash", "$2b$12$abc", "two\nlines", "é", " blank", "tab\t"],
    )
    def test_what_a_guest_would_not_set_as_it_is_is_refused(self, vm, caller, password):
        with pytest.raises(InvalidParameter, match=r"^password: "):
            guest_data.reset_password(vm, caller, password)

    @pytest.mark.parametrize("user", ["-x", "a b", "root;id", "x" * 33, "../x"])
    def test_only_a_users_name_reaches_the_agent(self, vm, caller, user):
        with pytest.raises(InvalidParameter, match=r"^guestuser: "):
            guest_data.reset_password(vm, caller, agent_user=user)


class TestPasswordsLife:
    """Pending until the guest was seen booted with it; dropped with the next disc."""

    def test_it_stays_until_the_guest_was_seen(self, vm, caller, one):
        password = vm.password
        run(vms.stop(vm, caller))
        run(vms.start(again(vm), caller))
        assert disc(vm, one)[PASSWORD].decode() == password

    def test_it_is_gone_from_the_next_disc_once_the_guest_was_seen(self, vm, caller, one):
        was_seen(vm)
        run(vms.stop(again(vm), caller))
        run(vms.start(again(vm), caller))
        assert PASSWORD not in disc(vm, one)
        assert again(vm).password is None

    def test_a_guest_seen_with_the_former_password_has_not_got_the_new_one(self, vm, caller, one):
        was_seen(vm)
        guest_data.reset_password(again(vm), caller, "n3wPassword")
        upkeep.look_after()
        assert again(vm).password == "n3wPassword"

    def test_a_new_disc_counts_only_after_a_boot(self, vm, caller, one):
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        was_seen(vm)
        upkeep.look_after()
        assert again(vm).password == "n3wPassword"

        run(vms.reboot(again(vm), caller))
        was_seen(vm)
        upkeep.look_after()
        assert again(vm).password is None

    def test_one_that_has_arrived_does_not_come_again_with_other_news(self, vm, caller, one):
        was_seen(vm)
        run(guest_data.reset_ssh_keys(again(vm), caller, [make_pair(caller)]))
        assert again(vm).password is None
        assert PASSWORD not in disc(vm, one)

    def test_an_answer_from_before_the_boot_does_not_count(self, vm):
        VirtualMachine.objects.update(guest_seen_at=timezone.now())
        upkeep.look_after()
        assert again(vm).password

    def test_a_migration_brings_no_change_that_waits_for_a_restart(self, vm, caller, one, two):
        one.failing["insert"] = Busy("shut")
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        one.failing.clear()
        one.media.clear()  # its file was deleted by hand, and one made anew would not be the same
        run(vms.migrate(again(vm), caller))
        assert (again(vm).state, two.media, again(vm).needs_restart) == (VmState.RUNNING, {}, True)

    def test_a_migration_copies_the_bytes(self, vm, caller, cluster, one, two):
        before = disc(vm, one)
        was_seen(vm)
        run(vms.migrate(again(vm), caller))
        assert disc(vm, two) == before


class TestOtherResets:
    def test_new_keys_replace_the_old_ones(self, vm, caller, one):
        pair = make_pair(caller)
        run(guest_data.reset_ssh_keys(vm, caller, [pair]))
        assert disc(vm, one)[KEYS].decode() == f"{pair.public_key}\n"

    def test_new_user_data_reaches_a_running_guest_by_a_job_of_its_own(self, vm, caller, one):
        guest_data.reset_user_data(vm, caller, base64.b64encode(b"new").decode())
        run(AsyncJob.objects.get(command="refreshVirtualMachine"))
        assert disc(vm, one)["openstack/latest/user_data"] == b"new"

    def test_a_stopped_vm_needs_no_job(self, vm, caller, one):
        run(vms.stop(vm, caller))
        guest_data.reset_user_data(again(vm), caller, base64.b64encode(b"new").decode())
        assert not AsyncJob.objects.filter(command="refreshVirtualMachine").exists()
        run(vms.start(again(vm), caller))
        assert disc(vm, one)["cloudstack/userdata/user_data.txt"] == b"new"

    def test_a_vm_on_its_way_refuses_and_keeps_what_it_has(self, vm, caller):
        VirtualMachine.objects.update(state=VmState.STARTING)
        with pytest.raises(InvalidParameter, match="Starting"):
            guest_data.reset_user_data(again(vm), caller, base64.b64encode(b"new").decode())
        assert again(vm).user_data is None

    def test_a_new_host_name_needs_a_stopped_vm(self, vm, caller, one):
        with pytest.raises(InvalidParameter, match="Running"):
            guest_data.update(vm, caller, name="web-2")
        run(vms.stop(vm, caller))
        guest_data.update(again(vm), caller, name="web-2", display_name="Web 2")
        run(vms.start(again(vm), caller))
        assert disc(vm, one)["cloudstack/metadata/local_hostname.txt"] == b"web-2"

    def test_an_address_that_was_learned_is_news_for_the_next_start_only(self, vm, caller, one):
        path = "cloudstack/metadata/local_ipv4.txt"
        before = drive_of(vm).name
        Nic.objects.update(ip4_address="192.0.2.7")
        run(guest_data.refresh(again(vm), caller))
        assert (drive_of(vm).name, path in disc(vm, one)) == (before, False)
        run(vms.stop(again(vm), caller))
        run(vms.start(again(vm), caller))
        assert disc(vm, one)[path] == b"192.0.2.7"

    def test_the_label_of_a_disc_stays_while_the_vm_runs(self, vm, caller, one):
        set_value("vm.configdrive.label", "other", caller)
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        assert drive_of(vm).label == "config"
        run(vms.stop(again(vm), caller))
        run(vms.start(again(vm), caller))
        assert drive_of(vm).label == "other"

    def test_the_same_again_costs_no_upload(self, vm, caller, one):
        before, calls = drive_of(vm), one.calls.count("place")
        run(guest_data.refresh(vm, caller))
        assert one.calls.count("place") == calls
        assert (drive_of(vm).name, drive_of(vm).generation) == (before.name, before.generation)


class TestNics:
    def test_a_second_one_brings_network_data_with_both_macs(self, vm, caller, cluster, one):
        assert NETWORK_DATA not in disc(vm, one)
        run(nics.add_nic(vm, make_network(cluster.pod.zone), caller))

        macs = set(Nic.objects.values_list("mac_address", flat=True))
        assert {plugged.mac for plugged in one.nics[str(vm.uuid)]} == macs
        assert len(macs) == 2
        assert all(mac in disc(vm, one)[NETWORK_DATA].decode() for mac in macs)

    def test_one_that_goes_leaves_no_mac_behind(self, vm, caller, cluster, one):
        run(nics.add_nic(vm, make_network(cluster.pod.zone), caller))
        second = Nic.objects.get(is_default=False)
        run(nics.remove_nic(again(vm), second, caller))
        assert [nic.mac for nic in one.nics[str(vm.uuid)]] == [Nic.objects.get().mac_address]
        assert NETWORK_DATA not in disc(vm, one)

    def test_one_that_cannot_be_plugged_in_is_forgotten(self, vm, caller, cluster, one):
        one.failing["add_nic"] = Busy("no slot")
        job = run(nics.add_nic(vm, make_network(cluster.pod.zone), caller))
        assert job.status == Status.FAILED
        assert Nic.objects.count() == 1

    def test_a_stopped_vm_gets_it_at_its_next_start(self, vm, caller, cluster, one):
        run(vms.stop(vm, caller))
        run(nics.add_nic(again(vm), make_network(cluster.pod.zone), caller))
        assert "add_nic" not in one.calls
        run(vms.start(again(vm), caller))
        assert len(one.nics[str(vm.uuid)]) == 2

    def test_the_default_one_stays(self, vm, caller):
        with pytest.raises(InvalidParameter, match="default"):
            nics.remove_nic(vm, Nic.objects.get(), caller)

    def test_a_network_is_joined_once(self, vm, caller):
        with pytest.raises(InvalidParameter, match="already"):
            nics.add_nic(vm, Nic.objects.get().network, caller)


class TestRecover:
    def test_a_destroyed_vm_comes_back_with_a_drive_at_its_start(self, vm, caller, one):
        run(vms.destroy(vm, caller))
        assert (one.media, one.defined) == ({}, {})
        vms.recover(again(vm), caller)
        assert again(vm).state == VmState.STOPPED
        run(vms.start(again(vm), caller))
        assert disc(vm, one)["cloudstack/metadata/local_hostname.txt"].decode() == vm.name

    def test_a_name_that_was_taken_meanwhile_is_refused(self, vm, caller, cluster):
        run(vms.destroy(vm, caller))
        deploy(caller, cluster, name=vm.name)
        with pytest.raises(InvalidParameter, match="is named"):
            vms.recover(again(vm), caller)

    def test_a_vm_that_is_not_destroyed_has_nothing_to_recover(self, vm, caller):
        with pytest.raises(InvalidParameter, match="not Destroyed"):
            vms.recover(vm, caller)


class TestUse:
    """The switch: no drive, a drive, a drive until the first boot."""

    def test_never_means_an_empty_cdrom(self, hosts, caller, cluster, one):
        vm = deploy(caller, cluster, drive_use=ConfigDriveUse.NEVER)
        assert (one.discs[str(vm.uuid)], one.media) == (None, {})

    def test_switched_off_while_it_runs_it_is_ejected(self, vm, caller, one):
        guest_data.update(vm, caller, drive_use=ConfigDriveUse.NEVER)
        run(AsyncJob.objects.get(command="refreshVirtualMachine"))
        assert (one.discs[str(vm.uuid)], one.media) == (None, {})

    def test_it_is_ejected_after_the_first_boot_and_comes_back_with_news(self, hosts, caller, cluster, one):
        template = make_template(password_enabled=True)
        vm = deploy(caller, cluster, drive_use=ConfigDriveUse.FIRST_BOOT, template=template)
        assert PASSWORD in disc(vm, one)
        upkeep.look_after()
        assert not AsyncJob.objects.filter(command="refreshVirtualMachine").exists()

        was_seen(vm)
        upkeep.look_after()
        run(guest_data.refresh(again(vm), caller))
        assert PASSWORD in disc(vm, one), "it may be reading still"
        ConfigDrive.objects.update(served_at=timezone.now() - storage.READ_WITHIN)
        AsyncJob.objects.all().delete()
        upkeep.look_after()
        run(AsyncJob.objects.get(command="refreshVirtualMachine"))
        assert (one.discs[str(vm.uuid)], one.media) == (None, {})

        run(vms.stop(again(vm), caller))
        run(vms.start(again(vm), caller))
        assert one.discs[str(vm.uuid)] is None

        run(guest_data.reset_password(again(vm), caller, "n3wPassword"))
        assert disc(vm, one)[PASSWORD] == b"n3wPassword"


class TestStorage:
    @pytest.fixture
    def primary(self, cluster):
        PrimaryStorage.objects.filter(cluster=cluster).update(name="primary")
        return PrimaryStorage.objects.get()

    @pytest.fixture
    def on_disk(self, primary, hosts, caller, cluster):
        return deploy(caller, cluster, template=make_template(format="QCOW2", image="debian.qcow2"))

    def test_a_drive_lies_beside_the_root_volume(self, on_disk, one, primary):
        assert list(one.stored["primary"]) == [drive_of(on_disk).name]
        assert (one.media, drive_of(on_disk).storage) == ({}, primary)

    def test_a_storage_without_files_leaves_it_to_the_host(self, primary, hosts, caller, cluster, one):
        one.no_files.add("primary")
        vm = deploy(caller, cluster, template=make_template(format="QCOW2", image="debian.qcow2"))
        assert list(one.media) == [drive_of(vm).name]
        assert drive_of(vm).storage is None

    def test_its_removal_follows_the_record_and_not_todays_setting(self, on_disk, caller, one):
        set_value("vm.configdrive.primarypool.enabled", "false", caller)
        run(vms.stop(on_disk, caller))
        assert one.stored["primary"] == {}
        run(vms.start(again(on_disk), caller))
        assert list(one.media) == [drive_of(on_disk).name]

    def test_hosts_that_share_it_need_no_copy_for_a_migration(self, on_disk, caller, one, two):
        before = drive_of(on_disk)
        run(vms.migrate(on_disk, caller))
        assert "place" not in two.calls
        assert two.discs[str(on_disk.uuid)] == before.path
        assert list(two.stored["primary"]) == [before.name]
        run(vms.stop(again(on_disk), caller))
        assert two.stored["primary"] == {}


class TestFailures:
    """A drive that cannot be made never keeps a VM from starting, unless its template says so."""

    def test_a_full_storage_is_told_once_and_tried_again(self, hosts, caller, cluster, one):
        one.failing["place"] = StorageProblem("The pool is full.")
        vm = deploy(caller, cluster)

        assert (vm.state, vm.needs_restart, one.discs[str(vm.uuid)]) == (VmState.RUNNING, True, None)
        assert drive_of(vm).last_error == "The pool is full."
        told = Event.objects.filter(type=EventType.VM_CONFIGDRIVE, level=Level.ERROR)
        assert told.get().for_operator == "The pool is full."
        assert Leftover.objects.count() == 1

        upkeep.look_after()
        run(AsyncJob.objects.get(command="refreshVirtualMachine"))
        assert told.count() == 1

        one.failing.clear()
        upkeep.look_after()
        assert AsyncJob.objects.filter(command="refreshVirtualMachine").count() == 1, "not every minute"
        AsyncJob.objects.update(created_at=timezone.now() - upkeep.TRIED_AGAIN_AFTER)
        upkeep.look_after()
        run(AsyncJob.objects.filter(command="refreshVirtualMachine").first())
        assert disc(vm, one)["cloudstack/metadata/local_hostname.txt"].decode() == vm.name
        assert (drive_of(vm).last_error, again(vm).needs_restart) == ("", False)

    def test_a_template_that_requires_its_drive_does_not_start_without(self, hosts, caller, cluster, one):
        one.failing["place"] = StorageProblem("The pool is full.")
        vm = deploy(caller, cluster, template=make_template(drive_required=True))
        assert vm.state == VmState.ERROR
        assert one.running == set()

    @pytest.mark.parametrize("error", [Busy("being written"), DeadlineExceeded("slow"), Refused("no")])
    def test_no_trouble_with_the_drive_alone_keeps_a_vm_from_starting(self, hosts, caller, cluster, one, error):
        one.failing["place"] = error
        vm = deploy(caller, cluster)
        assert (vm.state, vm.host.state, vm.needs_restart) == (VmState.RUNNING, HostState.UP, True)

    def test_a_host_that_is_gone_does(self, hosts, caller, cluster, one):
        one.failing["place"] = EndpointUnreachable("silent")
        assert deploy(caller, cluster).state == VmState.ERROR

    def test_a_password_that_was_on_no_disc_stays_pending(self, hosts, caller, cluster, one):
        """The disc of a first attempt left the CD-ROM with the second one's definition."""
        template = make_template(password_enabled=True)
        one.failing["start"] = SystemExit()
        with pytest.raises(SystemExit):
            deploy(caller, cluster, template=template)
        one.failing = {"insert": Refused("no CD-ROM"), "place": StorageProblem("full")}
        AsyncJob.objects.update(attempt=2, heartbeat_at=None)
        job = AsyncJob.objects.get()
        run(job)

        vm = VirtualMachine.objects.get()
        assert (vm.state, one.discs[str(vm.uuid)]) == (VmState.RUNNING, None)
        was_seen(vm)
        upkeep.look_after()
        assert again(vm).password

    def test_a_change_whose_outcome_is_not_known_deletes_nothing(self, vm, caller, one):
        def takes_effect_late(ref, media, deadline):
            FakeHypervisor.insert(one, ref, media, deadline)
            raise DeadlineExceeded("slow")

        one.insert = takes_effect_late
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        del one.insert
        assert disc(vm, one)[PASSWORD] == b"n3wPassword"

    def test_a_late_worker_does_not_overwrite_its_successors_row(self, vm, caller, one):
        def successor_is_faster(ref, media, deadline):
            FakeHypervisor.insert(one, ref, media, deadline)
            ConfigDrive.objects.update(generation=7, name="successors.iso")

        one.insert = successor_is_faster
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        assert (drive_of(vm).generation, drive_of(vm).name) == (7, "successors.iso")
        assert one.discs[str(vm.uuid)] in one.paths(), "what a guest reads is not deleted"

    @pytest.mark.parametrize("name", ["Frankfurt\u2028Main", "Zone\x85One", "a\nb"])
    def test_an_operators_name_with_a_line_break_costs_no_drive(self, hosts, caller, cluster, one, name):
        type(cluster.pod.zone).objects.update(name=name)
        vm = deploy(caller, cluster)
        shown = disc(vm, one)["cloudstack/metadata/availability_zone.txt"].decode()
        assert shown == re.sub(r"[\u2028\x85\n]", " ", name)


class TestUpkeep:
    def test_an_iso_deleted_by_hand_is_made_anew(self, vm, caller, one):
        before = drive_of(vm)
        one.media.clear()

        upkeep.reconcile()
        job = run(AsyncJob.objects.get(command="verifyConfigDrive"))

        assert job.status == Status.SUCCEEDED
        assert disc(vm, one)[PASSWORD].decode() == vm.password
        assert drive_of(vm).name != before.name
        event = Event.objects.get(type=EventType.VM_CONFIGDRIVE, level=Level.WARN)
        assert "deleted on its host" in event.description

    def test_a_tray_that_stays_shut_is_tried_again_and_told_once(self, vm, one):
        one.media.clear()
        one.failing["insert"] = Busy("shut")
        for _ in range(2):
            upkeep.reconcile()
            run(AsyncJob.objects.filter(command="verifyConfigDrive").latest("pk"))
        assert (again(vm).needs_restart, one.media) == (True, {})
        assert Event.objects.filter(type=EventType.VM_CONFIGDRIVE, level=Level.WARN).count() == 1

        one.failing.clear()
        upkeep.reconcile()
        run(AsyncJob.objects.filter(command="verifyConfigDrive").latest("pk"))
        assert disc(vm, one)[PASSWORD].decode() == vm.password
        assert not again(vm).needs_restart

    def test_an_iso_replaced_by_one_of_the_same_size_is_found_by_its_checksum(self, vm, one):
        (name,) = one.media
        one.media[name] = b"X" * len(one.media[name])

        upkeep.reconcile()
        run(AsyncJob.objects.get(command="verifyConfigDrive"))

        assert disc(vm, one)[PASSWORD].decode() == vm.password
        assert name not in one.media

    def test_a_disc_that_somebody_took_out_is_put_back(self, vm, one):
        one.discs[str(vm.uuid)] = None
        upkeep.reconcile()
        run(AsyncJob.objects.get(command="verifyConfigDrive"))
        assert disc(vm, one)[PASSWORD].decode() == vm.password

    def test_a_drive_in_order_is_noted_and_left_alone(self, vm, one):
        calls = one.calls.count("place")
        upkeep.reconcile()
        assert drive_of(vm).verified_at
        assert (one.calls.count("place"), AsyncJob.objects.filter(command="verifyConfigDrive").count()) == (calls, 0)

    def test_an_orphan_with_our_mark_is_removed_a_while_later(self, vm, one):
        orphan = f"i-9-99-VM-1-{upkeep.installation_mark()}{'0' * 24}.iso"
        one.media[orphan] = b"old secrets"

        upkeep.reconcile()
        upkeep.remove_leftovers()
        assert orphan in one.media
        assert Leftover.objects.get().name == orphan

        Leftover.objects.update(since=timezone.now() - upkeep.LEFT_FOR)
        upkeep.remove_leftovers()
        assert orphan not in one.media
        assert list(one.media) == [drive_of(vm).name]

    @pytest.mark.parametrize(
        "name", ["debian-12.iso", "i-9-99-VM-1-ffffffff000000000000000000000000.iso", "{instance}-9-{mark}{zeros}.iso"]
    )
    def test_what_is_not_ours_or_may_be_in_use_stays(self, vm, one, name):
        """Without our mark, with another installation's, or of a VM that the host has."""
        name = name.format(instance=vm.instance_name, mark=upkeep.installation_mark(), zeros="0" * 24)
        one.media[name] = b"somebody's"
        upkeep.reconcile()
        assert not Leftover.objects.exists()

    def test_an_orphan_on_shared_storage_stays_while_a_host_cannot_be_asked(self, vm, one, two):
        PrimaryStorage.objects.update(name="primary", shared=True)
        orphan = f"i-9-99-VM-1-{upkeep.installation_mark()}{'0' * 24}.iso"
        one.stored["primary"][orphan] = b"perhaps in use"
        two.failing["list_vms"] = EndpointUnreachable("silent")
        upkeep.reconcile()
        upkeep.reconcile()
        assert not Leftover.objects.exists()
        assert {host.endpoint.host: host.state for host in Host.objects.all()} == {ONE: "Up", TWO: "Down"}

        two.failing.clear()
        Host.objects.update(state=HostState.UP)
        upkeep.reconcile()
        assert Leftover.objects.get().name == orphan

    def test_a_leftover_that_a_guest_reads_all_the_same_stays_until_its_drive_is_mended(self, vm, one):
        """Its job was given up between the disc and the rows."""
        former = drive_of(vm)
        name = former.name.replace("VM-1-", "VM-2-")
        one.media[name] = one.media[former.name]
        one.discs[str(vm.uuid)] = f"/pool/{name}"
        Leftover.objects.create(host=vm.host, name=name, since=timezone.now() - upkeep.LEFT_FOR)

        upkeep.remove_leftovers()
        assert name in one.media

        run(AsyncJob.objects.get(command="refreshVirtualMachine"))
        assert (one.discs[str(vm.uuid)], list(one.media)) == (f"/pool/{former.name}", [former.name])

    def test_leftovers_that_cannot_be_deleted_do_not_hold_up_the_others(self, vm, one, monkeypatch):
        monkeypatch.setattr(upkeep, "LEFTOVERS_A_PASS", 2)
        old = timezone.now() - upkeep.LEFT_FOR
        for number in range(3):
            one.media[f"i-9-{number}-VM-1-x.iso"] = b"old"
            Leftover.objects.create(host=vm.host, name=f"i-9-{number}-VM-1-x.iso", since=old)
        refuse, remove = Busy("in use"), one.remove
        one.remove = lambda name, *rest, **where: (
            remove(name, *rest, **where) if "i-9-2-" in name else (_ for _ in ()).throw(refuse)
        )
        upkeep.remove_leftovers()
        upkeep.remove_leftovers()
        assert "i-9-2-VM-1-x.iso" not in one.media

    def test_another_host_removes_what_lies_on_shared_storage_while_its_own_is_down(self, vm, one, two):
        shared = PrimaryStorage.objects.get()
        PrimaryStorage.objects.update(name="primary", shared=True)
        one.stored["primary"]["i-9-9-VM-1-x.iso"] = b"old"
        old = timezone.now() - upkeep.LEFT_FOR
        Leftover.objects.create(host=vm.host, storage=shared, name="i-9-9-VM-1-x.iso", since=old)
        Host.objects.filter(pk=vm.host_id).update(state=HostState.DOWN)
        upkeep.remove_leftovers()
        assert (two.stored["primary"], Leftover.objects.count()) == ({}, 0)

    def test_one_server_at_a_time_looks_after_them(self, vm, one):
        one.media.clear()
        lock = locks.acquire("configdrive.upkeep.reconcile", "another server")
        upkeep.reconcile()
        assert not AsyncJob.objects.filter(command="verifyConfigDrive").exists()
        lock.release()
        upkeep.reconcile()
        assert AsyncJob.objects.filter(command="verifyConfigDrive").exists()

    def test_a_person_ejects_it_until_the_next_start(self, vm, caller, one):
        run(upkeep.eject_now(drive_of(vm), caller))
        assert (one.discs[str(vm.uuid)], one.media) == (None, {})
        upkeep.look_after()
        upkeep.reconcile()
        assert not AsyncJob.objects.filter(busy_with=vm.uuid).exists()

        run(vms.stop(again(vm), caller))
        run(vms.start(again(vm), caller))
        assert PASSWORD in disc(vm, one)

    def test_a_stopped_vm_has_nothing_to_verify_or_eject(self, vm, caller):
        run(vms.stop(vm, caller))
        with pytest.raises(InvalidParameter, match="no config drive on any host"):
            upkeep.verify(drive_of(vm), caller)


class TestMigrationsNobodyToldUsOf:
    def test_rows_follow_the_vm_and_its_drive_is_brought_after(self, vm, one, two):
        before = drive_of(vm)
        password = vm.password
        one.moved_behind_our_back(vm.on_host, two)

        adoption.find_migrated()
        job = run(AsyncJob.objects.get(command="adoptMigration"))

        assert job.status == Status.SUCCEEDED
        vm = again(vm)
        assert (vm.state, vm.host.endpoint.host) == (VmState.RUNNING, TWO)
        assert disc(vm, two)[PASSWORD].decode() == password
        assert one.media == {}
        assert drive_of(vm).dated == before.dated
        assert vm.last_host.reserved_memory == 0

    def test_one_that_came_back_meanwhile_stays_where_it_is(self, vm, one, two):
        one.moved_behind_our_back(vm.on_host, two)
        adoption.find_migrated()
        two.moved_behind_our_back(vm.on_host, one)
        run(AsyncJob.objects.get(command="adoptMigration"))
        assert (again(vm).state, again(vm).host.endpoint.host) == (VmState.RUNNING, ONE)
        assert again(vm).migrating_to is None

    def test_a_migration_under_way_is_left_alone(self, vm, one, two):
        two.defined[str(vm.uuid)] = one.defined[str(vm.uuid)]
        two.running.add(str(vm.uuid))
        adoption.find_migrated()
        assert not AsyncJob.objects.filter(command="adoptMigration").exists()


class TestLabels:
    @pytest.mark.parametrize(
        ("template", "zone", "label"),
        [
            ({}, "", "config"),
            ({}, "zone-label", "zone-label"),
            ({"drive_reader": "cloud-init"}, "zone-label", "config-2"),
            ({"drive_reader": "scripts"}, "zone-label", "zone-label"),
            ({"drive_reader": "ignition", "config_drive_label": "CONFIG-2"}, "zone-label", "CONFIG-2"),
        ],
    )
    def test_the_nearest_word_counts(self, hosts, caller, cluster, template, zone, label):
        type(cluster.pod.zone).objects.update(config_drive_label=zone)
        vm = deploy(caller, cluster, template=make_template(**template))
        assert drive_of(vm).label == label


class TestPerBootPart:
    """cloud-init alone gets a script that brings what is reset later."""

    @pytest.mark.parametrize(
        ("template", "carries_it"),
        [
            ({"drive_reader": "cloud-init"}, True),
            ({"password_enabled": True}, True),
            ({}, False),
            ({"drive_reader": "scripts", "password_enabled": True}, False),
            ({"password_enabled": True, "os_family": "Windows"}, False),
        ],
    )
    def test_who_carries_it(self, hosts, caller, cluster, one, template, carries_it):
        vm = deploy(caller, cluster, template=make_template(**template))
        vendor_data = disc(vm, one)["openstack/latest/vendor_data.json"].decode()
        assert ("#cloud-boothook" in vendor_data) == carries_it
