"""Where a drive lies, under which label, and what happens when it cannot be made."""

import re

import pytest
from django.utils import timezone

from configdrive import upkeep
from configdrive.models import ConfigDrive, Leftover
from extdhcp_site.configuration.models import set_value
from extdhcp_site.events.models import Event, EventType, Level
from extdhcp_site.jobs.models import AsyncJob
from networks.hypervisors.base import (
    Busy,
    DeadlineExceeded,
    EndpointUnreachable,
    Refused,
    StorageProblem,
)
from networks.models import PrimaryStorage, VirtualMachine, VmState
from networks.models.infrastructure import HostState
from networks.services import guest_data, vms
from tests.configdrive.discs import again, disc, drive_of, was_seen
from tests.factories import make_template
from tests.fakes import FakeHypervisor
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

PASSWORD = "cloudstack/password/vm_password.txt"
KEYS = "cloudstack/metadata/public_keys.txt"
NETWORK_DATA = "openstack/latest/network_data.json"


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
