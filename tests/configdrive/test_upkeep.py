"""What keeps drives true by itself: repairs, leftovers, orphans, migrations that nobody told us of."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from configdrive import upkeep
from configdrive.models import Leftover
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events.models import Event, EventType, Level
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.locks import models as locks
from networks.hypervisors.base import Busy, EndpointUnreachable, Refused
from networks.models import Host, PrimaryStorage, VmState
from networks.models.infrastructure import HostState
from networks.services import adoption, vms
from tests.configdrive.discs import ONE, TWO, again, disc, drive_of
from tests.factories import make_host
from tests.life import run

pytestmark = pytest.mark.django_db

PASSWORD = "cloudstack/password/vm_password.txt"
KEYS = "cloudstack/metadata/public_keys.txt"
NETWORK_DATA = "openstack/latest/network_data.json"


def test_a_host_without_drives_costs_the_database_the_locks_renewal_alone(fake):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            upkeep.reconcile()
        return len(captured)

    upkeep.reconcile()  # makes the lock
    none = queries()
    for _ in range(5):
        make_host()
    assert queries() - none == 5
    assert fake.calls.count("list_media") == 10


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

    def test_one_that_cannot_be_read_back_is_looked_for_by_its_name_alone(self, vm, one):
        one.failing["read"] = Refused("as libvirt's test driver")
        one.listed.clear()
        upkeep.verify(drive_of(vm), by=None)
        run(AsyncJob.objects.get(command="verifyConfigDrive"))
        assert one.listed == [drive_of(vm).name]
        assert drive_of(vm).verified_at

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
