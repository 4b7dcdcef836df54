"""Config drives on a simulated pool: where they lie, the CD-ROM that holds them, and what a move does to both."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from networks.hypervisors.base import (
    Busy,
    CredentialsRefused,
    EndpointUnreachable,
    HypervisorError,
    Media,
    MediaFile,
    NotFound,
    PowerState,
    Refused,
    StorageProblem,
)
from networks.hypervisors.xenserver import XenHost
from networks.hypervisors.xenserver_media import DIRECTORY, MEDIA_MAX_BYTES, STORE
from tests.networks.hypervisors.factories import make_vm, soon
from tests.networks.hypervisors.xen_world import PRIMARY, defined, host_of, pool, ref_of, started
from tests.simulators.xenserver import XenServer, hostile

NAME = "i-2-7-VM-1-0a1b2c.iso"
CONTENT = bytes(range(256)) * 16


@pytest.fixture
def xen():
    with pool() as xen:
        yield xen


@pytest.fixture
def shared(xen):
    """The administrator's repository for ISOs."""
    return xen.add_iso_sr(STORE)


@pytest.fixture
def here(xen) -> XenHost:
    return host_of(xen, "xen1")


@pytest.fixture
def there(xen) -> XenHost:
    return host_of(xen, "xen2")


def local_store(xen: XenServer, host: str) -> str:
    wanted = xen.ref("host", host)
    (store,) = [
        pbd["SR"]
        for pbd in xen.db.where("PBD", host=wanted)
        if xen.db.get("SR", pbd["SR"])["name_label"] == STORE and not xen.db.get("SR", pbd["SR"])["shared"]
    ]
    return store


def our_drive(xen: XenServer, vm):
    return next(row for row in xen.db.rows("VBD") if row["VM"] == ref_of(xen, vm) and "extdhcp" in row["other_config"])


# Where they lie ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["xen1", "xen2"])
def test_image_arrives_whole_in_the_host_s_own_repository(xen, host):
    driver = host_of(xen, host)
    media = driver.place(NAME, CONTENT, soon())

    assert media == Media(NAME, f"{STORE}/{NAME}")
    assert xen.files(local_store(xen, host)) == {NAME: CONTENT}
    assert driver.read(NAME, soon()) == CONTENT
    assert driver.list_media(soon()) == [MediaFile(NAME, len(CONTENT))]


def test_repository_is_made_once(xen, here):
    here.place(NAME, CONTENT, soon())
    here.place("i-2-8-VM-1-0a1b2c.iso", CONTENT, soon())

    assert xen.calls["SR.introduce"] == 1


@pytest.mark.parametrize("step", ["SR.introduce", "PBD.create", "Async.PBD.plug"])
def test_repository_that_another_process_makes_meanwhile_is_used(xen, here, step):
    xen.faults.before(step, lambda: here.place("i-2-8-VM-1-0a1b2c.iso", CONTENT, soon()))
    here.place(NAME, CONTENT, soon())

    assert sorted(xen.files(local_store(xen, "xen1"))) == [NAME, "i-2-8-VM-1-0a1b2c.iso"]


def test_first_drives_of_a_host_at_once_all_arrive_in_one_repository(xen, here):
    xen.pace["plug"] = 0.2
    names = [f"i-2-{number}-VM-1-0a1b2c.iso" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as workers:
        list(workers.map(lambda name: here.place(name, CONTENT, soon()), names))

    assert sorted(xen.files(local_store(xen, "xen1"))) == names


@pytest.mark.parametrize("step", ["PBD.create", "Async.PBD.plug"])
def test_repository_whose_maker_died_is_finished(xen, here, step):
    xen.faults.fail_next(step, "INTERNAL_ERROR", "and nobody tries again at once")
    with pytest.raises(HypervisorError):
        here.place(NAME, CONTENT, soon())
    here.place(NAME, CONTENT, soon())

    assert xen.files(local_store(xen, "xen1")) == {NAME: CONTENT}


def test_each_host_has_a_repository_of_its_own(xen, here, there):
    here.place(NAME, CONTENT, soon())
    there.place(NAME, CONTENT, soon())

    assert local_store(xen, "xen1") != local_store(xen, "xen2")


def test_missing_directory_is_asked_for():
    with XenServer(hosts=1) as xen, pytest.raises(StorageProblem, match="mkdir -p") as refused:
        host_of(xen).place(NAME, CONTENT, soon())
    assert DIRECTORY in str(refused.value)


@pytest.mark.parametrize("host", ["xen1", "xen2"])
def test_image_arrives_whole_in_the_shared_repository(xen, shared, host):
    driver = host_of(xen, host)
    media = driver.place(NAME, CONTENT, soon(), storage=PRIMARY)

    assert media == Media(NAME, f"{STORE}/{NAME}")
    assert xen.files(shared) == {NAME: CONTENT}
    assert driver.read(NAME, soon(), storage=PRIMARY) == CONTENT
    assert driver.list_media(soon()) == []


def test_shared_image_is_seen_from_the_other_host(shared, here, there):
    here.place(NAME, CONTENT, soon(), storage=PRIMARY)

    assert there.read(NAME, soon(), storage=PRIMARY) == CONTENT


def test_host_that_is_not_plugged_into_the_shared_repository_uses_it_no_more(xen, shared, there):
    (pbd,) = [row for row in xen.db.where("PBD", SR=shared) if row["host"] == xen.ref("host", "xen2")]
    xen.db.set("PBD", pbd.ref, currently_attached=False)

    there.place(NAME, CONTENT, soon(), storage=PRIMARY)  # plugs it

    assert xen.db.get("PBD", pbd.ref)["currently_attached"]


def test_shared_repository_that_cannot_be_plugged_is_no_matter_of_the_directory(xen, shared, there):
    (pbd,) = [row for row in xen.db.where("PBD", SR=shared) if row["host"] == xen.ref("host", "xen2")]
    xen.db.set("PBD", pbd.ref, currently_attached=False)
    xen.faults.fail_next("Async.PBD.plug", "SR_BACKEND_FAILURE_73", "", "mount failed", "")
    with pytest.raises(StorageProblem) as refused:
        there.place(NAME, CONTENT, soon(), storage=PRIMARY)

    assert "mkdir" not in str(refused.value)


def test_coordinator_that_does_not_see_the_shared_repository_is_not_asked_for_its_files(xen, shared, there):
    (pbd,) = [row for row in xen.db.where("PBD", SR=shared) if row["host"] == xen.master.ref]
    xen.db.set("PBD", pbd.ref, currently_attached=False)

    there.place(NAME, CONTENT, soon(), storage=PRIMARY)

    assert xen.files(shared) == {NAME: CONTENT}


def test_pool_without_a_shared_repository_refuses(here):
    with pytest.raises(Refused, match=STORE):
        here.place(NAME, CONTENT, soon(), storage=PRIMARY)


def test_primary_storage_that_is_not_shared_refuses(shared, here):
    with pytest.raises(Refused, match="not shared"):
        here.place(NAME, CONTENT, soon(), storage="Local storage")


def test_primary_storage_that_is_not_there_is_a_storage_problem(shared, here):
    with pytest.raises(StorageProblem, match="nothing"):
        here.place(NAME, CONTENT, soon(), storage="nothing")


def test_name_is_taken_again_by_a_later_attempt(xen, here):
    here.place(NAME, b"an older, longer drive" * 1000, soon())
    here.place(NAME, CONTENT, soon())

    assert xen.files(local_store(xen, "xen1")) == {NAME: CONTENT}


def test_file_that_the_pool_has_not_heard_of_does_not_stand_in_the_way(xen, here):
    here.place("i-2-8-VM-1-0a1b2c.iso", CONTENT, soon())
    (xen.make_directory("xen1", DIRECTORY) / NAME).write_bytes(b"stray")

    here.place(NAME, CONTENT, soon())

    assert here.read(NAME, soon()) == CONTENT


def test_what_lies_under_the_name_and_is_no_file_fails_cleanly(xen, here):
    here.place("i-2-8-VM-1-0a1b2c.iso", CONTENT, soon())
    (xen.make_directory("xen1", DIRECTORY) / NAME).mkdir()

    with pytest.raises(StorageProblem):
        here.place(NAME, CONTENT, soon())


def test_image_that_a_vm_reads_is_not_replaced(xen, here):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    with pytest.raises(Busy):
        here.place(NAME, b"other", soon())

    assert here.read(NAME, soon()) == CONTENT


@pytest.mark.parametrize("name", ["a_b.iso", "../x.iso", "a.img", "", "x" * 200 + ".iso", "a b.iso", "a\n.iso"])
def test_odd_names_are_refused(here, name):
    with pytest.raises(Refused):
        here.place(name, CONTENT, soon())


@pytest.mark.parametrize("size", [0, MEDIA_MAX_BYTES + 1])
def test_what_is_no_config_drive_is_refused(here, size):
    with pytest.raises(Refused):
        here.place(NAME, bytes(size), soon())


# Failures ----------------------------------------------------------------------------------------


def test_full_repository_is_told_and_leaves_nothing_behind(xen, shared, here):
    xen.fill(shared)
    with pytest.raises(StorageProblem, match="full"):
        here.place(NAME, CONTENT, soon(), storage=PRIMARY)

    assert xen.files(shared) == {}
    assert here.list_media(soon(), storage=PRIMARY) == []


def test_upload_that_the_pool_refuses_leaves_nothing_behind(xen, here):
    xen.sessions.users["reader"] = (xen.password, "read-only")
    here.place("i-2-8-VM-1-0a1b2c.iso", CONTENT, soon())
    with pytest.raises(CredentialsRefused):
        host_of(xen, "xen1", username="reader").place(NAME, CONTENT, soon())

    assert list(xen.files(local_store(xen, "xen1"))) == ["i-2-8-VM-1-0a1b2c.iso"]


def test_tasks_of_uploads_are_forgotten(xen, here):
    here.place(NAME, CONTENT, soon())

    assert not xen.db.rows("task")


def test_upload_that_takes_too_long_is_given_up(xen, here):
    here.place("i-2-8-VM-1-0a1b2c.iso", CONTENT, soon())
    xen.pace["import"] = 30
    with pytest.raises(Busy):
        here.place(NAME, CONTENT, soon(2))


def test_image_that_was_not_filled_to_its_end_has_no_size(xen, here):
    here.place(NAME, CONTENT, soon())
    (vdi,) = xen.db.where("VDI", name_label=NAME)
    xen.db.set("VDI", vdi.ref, other_config={})

    assert here.list_media(soon()) == [MediaFile(NAME, 0)]


def test_image_that_is_not_there(here):
    with pytest.raises(NotFound):
        here.read(NAME, soon())


def test_image_that_is_no_more(here):
    here.place(NAME, CONTENT, soon())
    here.remove(NAME, soon())
    with pytest.raises(NotFound):
        here.read(NAME, soon())


def test_image_whose_file_somebody_deleted_is_not_there(xen, here):
    here.place(NAME, CONTENT, soon())
    (xen.make_directory("xen1", DIRECTORY) / NAME).unlink()
    xen.faults.answer("GET /export_raw_vdi", hostile.server_error)
    with pytest.raises(NotFound):
        here.read(NAME, soon())

    assert here.list_media(soon()) == []


def test_image_that_the_pool_does_not_give_is_told(xen, here):
    here.place(NAME, CONTENT, soon())
    xen.faults.answer("GET /export_raw_vdi", hostile.server_error)
    with pytest.raises(Refused):
        here.read(NAME, soon())


def test_image_that_breaks_off_is_not_taken_for_whole(xen, here):
    here.place(NAME, CONTENT, soon())
    xen.faults.answer("GET /export_raw_vdi", lambda send, _closing: send(b"HTTP/1.1 200 OK\r\n\r\nhalf"))
    with pytest.raises(EndpointUnreachable):
        here.read(NAME, soon())


def test_disc_whose_file_somebody_deleted_is_not_there(xen, here):
    media = here.place(NAME, CONTENT, soon())
    vm = started(here)
    (xen.make_directory("xen1", DIRECTORY) / NAME).unlink()
    with pytest.raises(NotFound):
        here.insert(vm, media, soon())


def test_image_larger_than_any_config_drive_is_not_read(xen, here):
    here.place(NAME, CONTENT, soon())
    (vdi,) = xen.db.where("VDI", name_label=NAME)
    xen.db.set("VDI", vdi.ref, other_config={}, virtual_size=MEDIA_MAX_BYTES + 1)
    with pytest.raises(Refused):
        here.read(NAME, soon())


def test_removed_image_is_gone_and_removing_it_again_is_success(xen, here):
    here.remove(NAME, soon())
    here.place(NAME, CONTENT, soon())
    here.remove(NAME, soon())
    here.remove(NAME, soon())

    assert xen.files(local_store(xen, "xen1")) == {}


def test_files_of_others_are_not_listed(xen, here):
    here.place(NAME, CONTENT, soon())
    xen.db.create("VDI", name_label="somebody's tools.iso", SR=local_store(xen, "xen1"))

    assert [file.name for file in here.list_media(soon())] == [NAME]


def test_one_file_is_asked_for_without_a_look_at_the_others(xen, shared, here):
    here.place(NAME, CONTENT, soon(), storage=PRIMARY)
    here.place("i-2-8-VM-1-0a1b2c.iso", CONTENT, soon(), storage=PRIMARY)

    assert here.list_media(soon(), storage=PRIMARY, name=NAME) == [MediaFile(NAME, len(CONTENT))]
    assert here.list_media(soon(), storage=PRIMARY, name="i-2-9-VM-1-0a1b2c.iso") == []
    assert xen.calls["VDI.get_all_records_where"] == 0


def test_looking_makes_no_repository(xen, here):
    assert here.list_media(soon()) == []
    assert xen.calls["SR.introduce"] == 0


# The CD-ROM --------------------------------------------------------------------------------------


def test_vm_has_a_cd_rom_of_its_own_and_the_usual_place_stays_free(xen, here):
    vm = defined(here)

    assert our_drive(xen, vm)["userdevice"] == "2"
    assert here.inserted(vm, soon()) is None


def test_vm_without_a_place_for_its_cd_rom_is_refused(xen, here):
    vm = defined(here)
    media = here.place(NAME, CONTENT, soon())
    xen.db.delete("VBD", our_drive(xen, vm).ref)
    for device in "123":
        xen.db.create("VBD", VM=ref_of(xen, vm), type="CD", mode="RO", userdevice=device, empty=True)
    with pytest.raises(Refused, match="no place"):
        here.insert(vm, media, soon())


def test_disc_that_the_guest_lets_go_of_by_itself_is_out(xen, here):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    drive = our_drive(xen, vm).ref
    xen.faults.before("Async.VBD.eject", lambda: xen.db.set("VBD", drive, VDI="OpaqueRef:NULL", empty=True))
    here.insert(vm, None, soon())

    assert here.inserted(vm, soon()) is None


def test_disc_that_vanished_under_the_guest_is_not_told(xen, here):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    (vdi,) = xen.db.where("VDI", name_label=NAME)
    drive = our_drive(xen, vm).ref
    xen.db.delete("VDI", vdi.ref)
    xen.db.set("VBD", drive, VDI=vdi.ref, empty=False)

    assert here.inserted(vm, soon()) is None


def test_disc_is_put_in_before_the_start(here):
    vm = defined(here)
    media = here.place(NAME, CONTENT, soon())
    here.insert(vm, media, soon())
    here.start(vm, soon())

    assert here.inserted(vm, soon()) == media.path


def test_disc_is_changed_while_the_guest_runs(here):
    vm = started(here)
    first, second = (here.place(f"i-2-7-VM-{n}-ab.iso", CONTENT, soon()) for n in (1, 2))
    for media in (first, second, second):
        here.insert(vm, media, soon())
        assert here.inserted(vm, soon()) == media.path


def test_disc_is_taken_out_while_the_guest_runs(here):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    here.insert(vm, None, soon())
    here.insert(vm, None, soon())

    assert here.inserted(vm, soon()) is None
    here.remove(NAME, soon())


def test_disc_of_the_shared_repository_is_put_in(shared, there):
    vm = started(there)
    media = there.place(NAME, CONTENT, soon(), storage=PRIMARY)
    there.insert(vm, media, soon())

    assert there.inserted(vm, soon()) == media.path


def test_guest_that_keeps_its_tray_shut_is_busy(xen, here):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    xen.guests.locks_door(ref_of(xen, vm))
    with pytest.raises(Busy, match="tray"):
        here.insert(vm, None, soon())

    assert here.inserted(vm, soon()) == f"{STORE}/{NAME}"


def test_running_vm_that_has_lost_its_cd_rom_needs_a_restart(xen, here):
    vm = started(here)
    media = here.place(NAME, CONTENT, soon())
    xen.db.delete("VBD", our_drive(xen, vm).ref)
    with pytest.raises(Refused, match="stop and a start"):
        here.insert(vm, media, soon())


def test_vm_that_is_off_is_given_its_cd_rom_back(xen, here):
    vm = defined(here)
    media = here.place(NAME, CONTENT, soon())
    xen.db.delete("VBD", our_drive(xen, vm).ref)
    here.insert(vm, media, soon())

    assert here.inserted(vm, soon()) == media.path


def test_disc_that_is_not_there(here):
    with pytest.raises(NotFound):
        here.insert(started(here), Media(NAME, f"{STORE}/{NAME}"), soon())


def test_disc_of_another_host_alone_is_not_there(here, there):
    media = there.place(NAME, CONTENT, soon())
    with pytest.raises(NotFound):
        here.insert(started(here), media, soon())


def test_cd_rom_of_a_vm_that_was_moved_behind_our_back(shared, here, there):
    vm = started(here)
    media = here.place(NAME, CONTENT, soon(), storage=PRIMARY)
    here.insert(vm, media, soon())
    here.migrate(vm, there, soon())

    assert here.inserted(vm, soon()) == media.path
    here.insert(vm, None, soon())
    assert there.inserted(vm, soon()) is None


def test_disc_is_looked_for_where_the_vm_runs(here, there):
    vm = started(here)
    here.migrate(vm, there, soon())
    here.insert(vm, there.place(NAME, CONTENT, soon()), soon())

    assert there.inserted(vm, soon())


def test_cd_rom_of_what_is_not_there(here):
    with pytest.raises(NotFound):
        here.inserted(make_vm(), soon())


def test_bytes_read_are_not_told(here):
    assert here.bytes_read(started(here), soon()) is None
    with pytest.raises(NotFound):
        here.bytes_read(make_vm(), soon())


# A move ------------------------------------------------------------------------------------------


def test_disc_in_the_shared_repository_moves_along(shared, here, there):
    vm = started(here)
    media = here.place(NAME, CONTENT, soon(), storage=PRIMARY)
    here.insert(vm, media, soon())
    here.migrate(vm, there, soon())

    assert there.inserted(vm, soon()) == media.path


def test_disc_of_the_host_s_own_is_replaced_by_the_target_s_copy(xen, here, there):
    vm = started(here)
    media = here.place(NAME, CONTENT, soon())
    here.insert(vm, media, soon())
    there.place(NAME, CONTENT, soon())
    here.migrate(vm, there, soon())

    assert there.power_state(vm, soon()) is PowerState.RUNNING
    assert there.inserted(vm, soon()) == media.path
    here.remove(NAME, soon())  # nobody holds it


def test_move_to_a_host_without_a_copy_leaves_the_cd_rom_empty(here, there):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    here.migrate(vm, there, soon())

    assert there.inserted(vm, soon()) is None


def test_move_that_fails_puts_the_disc_back(xen, here, there):
    vm = started(here)
    media = here.place(NAME, CONTENT, soon())
    here.insert(vm, media, soon())
    there.place(NAME, CONTENT, soon())
    xen.faults.fail_next("Async.VM.pool_migrate", "VM_MIGRATE_FAILED", "x", "a", "b", "c")
    with pytest.raises(Exception, match="migration failed"):
        here.migrate(vm, there, soon())

    assert here.inserted(vm, soon()) == media.path


def test_guest_that_keeps_its_tray_shut_does_not_move(xen, here, there):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    xen.guests.locks_door(ref_of(xen, vm))
    with pytest.raises(Busy, match="tray"):
        here.migrate(vm, there, soon())

    assert here.power_state(vm, soon()) is PowerState.RUNNING


def test_users_own_disc_stays_where_it_is(xen, shared, here, there):
    vm = started(here)
    here.insert(vm, here.place(NAME, CONTENT, soon()), soon())
    own = xen.db.create("VDI", name_label="theirs.iso", SR=shared, location="theirs.iso")
    drive = xen.db.create(
        "VBD", VM=ref_of(xen, vm), VDI=own, type="CD", mode="RO", userdevice="3", empty=False, currently_attached=True
    )
    here.migrate(vm, there, soon())

    assert xen.db.get("VBD", drive)["VDI"] == own


def test_move_that_takes_too_long_puts_the_disc_back(xen, here, there):
    vm = started(here)
    media = here.place(NAME, CONTENT, soon())
    here.insert(vm, media, soon())
    there.place(NAME, CONTENT, soon())
    xen.pace["pool_migrate"] = 30
    with pytest.raises(Busy, match="cancelled"):
        here.migrate(vm, there, soon(4))

    assert here.power_state(vm, soon()) is PowerState.RUNNING
    assert here.inserted(vm, soon()) == media.path
