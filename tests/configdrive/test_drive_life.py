"""A drive through its VM's life: what each step leaves in the CD-ROM, on the hosts and on the rows."""

import base64

import pytest
from django.utils import timezone

from configdrive import storage, upkeep
from configdrive.models import ConfigDrive
from extdhcp_site.configuration.models import set_value
from extdhcp_site.errors import InvalidParameter, ResourceInUse
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.hypervisors.base import (
    AgentAbsent,
    Busy,
    EndpointUnreachable,
)
from networks.models import ConfigDriveUse, Nic, VirtualMachine, VmState
from networks.services import guest_data, nics, vms
from tests.configdrive.discs import again, disc, drive_of, make_pair, was_seen
from tests.factories import make_network, make_template
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

PASSWORD = "cloudstack/password/vm_password.txt"
KEYS = "cloudstack/metadata/public_keys.txt"
NETWORK_DATA = "openstack/latest/network_data.json"


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

    def test_whether_its_file_is_there_is_asked_for_that_file_alone(self, vm, caller, one):
        one.listed.clear()
        run(guest_data.refresh(vm, caller))
        assert one.listed == [drive_of(vm).name]


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
