"""Repositories and disks of the simulated pool, and how bytes come into them."""

import time
from urllib.parse import urlsplit

import pytest

from tests.simulators.xen_client import Client, fails

ISO = bytes(range(256)) * 512
LOCAL = {"location": "/opt/isos", "legacy_mode": "true"}


@pytest.fixture
def isos(xen):
    return xen.add_iso_sr("ConfigDriveISOs")


def create_iso_sr(api, host, config, shared=False, name="ConfigDriveISOs"):
    return api.SR.create(host, config, "0", name, "", "iso", "iso", shared, {})


# Repositories


def test_local_repository_is_plugged_into_its_host(xen, api):
    xen.make_directory("xen1", "/opt/isos")
    host = api.host.get_by_name_label("xen1")[0]
    sr = create_iso_sr(api, host, LOCAL)
    [pbd] = api.SR.get_PBDs(sr)
    record = api.PBD.get_record(pbd)
    assert (record["host"], record["currently_attached"], record["device_config"]) == (host, True, LOCAL)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (LOCAL, "SR_BACKEND_FAILURE_226"),
        ({}, "SR_BACKEND_FAILURE_94"),
        ({"location": "isos", "type": "nfs_iso"}, "SR_BACKEND_FAILURE_225"),
        ({"location": "nas:/isos", "type": "nfs_iso"}, "SR_BACKEND_FAILURE_73"),
    ],
)
def test_repository_needs_a_directory_that_is_there(api, config, code):
    with fails(code):
        create_iso_sr(api, api.host.get_all()[0], config)


def test_repository_is_introduced_once_and_plugged_where_its_directory_is(xen, api):
    host = api.host.get_by_name_label("xen1")[0]
    introduce = ("6a1f2c0e-9a43-4c53-8a55-0d0f5a7c3b16", "ConfigDriveISOs", "", "iso", "iso", False, {})
    sr = api.SR.introduce(*introduce)
    with fails("DB_UNIQUENESS_CONSTRAINT_VIOLATION"):
        api.SR.introduce(*introduce)
    pbd = api.PBD.create({"host": host, "SR": sr, "device_config": LOCAL, "other_config": {}})
    with fails("PBD_EXISTS", sr, host, pbd):
        api.PBD.create({"host": host, "SR": sr, "device_config": LOCAL, "other_config": {}})
    with fails("SR_BACKEND_FAILURE_226"):
        api.PBD.plug(pbd)
    xen.make_directory("xen1", "/opt/isos")
    api.PBD.plug(pbd)
    assert api.PBD.get_currently_attached(pbd)


def test_directory_of_another_host_is_not_there(xen, api):
    xen.make_directory("xen1", "/opt/isos")
    with fails("SR_BACKEND_FAILURE_226"):
        create_iso_sr(api, api.host.get_by_name_label("xen2")[0], LOCAL)


def test_shared_repository_is_plugged_into_every_host(xen, api):
    xen.export("nas:/isos")
    sr = create_iso_sr(api, api.host.get_all()[0], {"location": "nas:/isos", "type": "nfs_iso"}, shared=True)
    assert {api.PBD.get_host(pbd) for pbd in api.SR.get_PBDs(sr)} == set(api.host.get_all())
    assert api.SR.get_sm_config(sr) == {"iso_type": "nfs_iso"}


def test_directory_that_is_called_shared_is_there_on_its_own_host_alone(xen, api):
    xen.make_directory("xen1", "/opt/isos")
    host = api.host.get_by_name_label("xen1")[0]
    sr = create_iso_sr(api, host, LOCAL, shared=True)
    plugged = [pbd for pbd in api.SR.get_PBDs(sr) if api.PBD.get_currently_attached(pbd)]
    assert [api.PBD.get_host(pbd) for pbd in plugged] == [host]


def test_discs_are_made_side_by_side(xen, client, isos):
    xen.pace["vdi_create"] = 0.2
    tasks = [client.api.Async.VDI.create(client.disc_record(isos, f"{number}.iso")) for number in range(3)]
    assert {client.finished(task)["status"] for task in tasks} == {"success"}


def test_unplugged_repository_is_of_no_use_until_it_is_plugged(client, isos):
    api = client.api
    for pbd in api.SR.get_PBDs(isos):
        api.PBD.unplug(pbd)
    with fails("SR_HAS_NO_PBDS", isos):
        client.new_disc(isos, "one.iso")
    for pbd in api.SR.get_PBDs(isos):
        api.PBD.plug(pbd)
    client.new_disc(isos, "one.iso")


def test_forgotten_repository_keeps_its_files(xen, client, isos):
    client.disc(isos, "one.iso", ISO)
    directory = xen.disks.directory(xen.db.get("SR", isos))
    with fails("SR_HAS_PBD", isos):
        client.api.SR.forget(isos)
    for pbd in client.api.SR.get_PBDs(isos):
        client.api.PBD.unplug(pbd)
    client.api.SR.forget(isos)
    assert client.api.SR.get_by_name_label("ConfigDriveISOs") == []
    assert [file.name for file in directory.iterdir()] == ["one.iso"]


def test_scan_finds_files_and_forgets_vanished_ones(xen, client, isos):
    client.disc(isos, "ours.iso", ISO)
    directory = xen.disks.directory(xen.db.get("SR", isos))
    (directory / "ours.iso").unlink()
    (directory / "by hand.iso").write_bytes(ISO)
    (directory / "notes.txt").write_text("not an image")
    client.api.SR.scan(isos)
    [found] = client.api.SR.get_VDIs(isos)
    record = client.api.VDI.get_record(found)
    assert (record["name_label"], record["virtual_size"], record["read_only"]) == ("by hand.iso", str(len(ISO)), True)


# Discs


def test_disc_is_a_file_of_its_name_and_size(xen, client, isos):
    vdi = client.new_disc(isos, "i-2-3-VM.iso", 4096)
    assert xen.files(isos) == {"i-2-3-VM.iso": bytes(4096)}
    record = client.api.VDI.get_record(vdi)
    assert (record["location"], record["sm_config"]["path"]) == ("i-2-3-VM.iso", "i-2-3-VM.iso")


@pytest.mark.parametrize("name", ["i_2.iso", "i-2.raw", "../i-2.iso", "a b.iso"])
def test_disc_of_a_name_that_the_driver_does_not_take_is_refused(xen, client, isos, name):
    with fails("SR_BACKEND_FAILURE_78"):
        client.new_disc(isos, name)
    assert xen.files(isos) == {}


def test_file_that_is_there_is_not_made_again(client, isos):
    client.new_disc(isos, "one.iso")
    with fails("SR_BACKEND_FAILURE_43", "", "The VDI already exists"):
        client.new_disc(isos, "one.iso")


def test_destroyed_disc_takes_its_file_with_it(xen, client, isos):
    vdi = client.disc(isos, "one.iso", ISO)
    client.api.VDI.destroy(vdi)
    assert xen.files(isos) == {}
    assert client.api.SR.get_VDIs(isos) == []


def test_disc_is_neither_cloned_nor_resized(client, isos):
    vdi = client.new_disc(isos, "one.iso")
    with fails("SR_OPERATION_NOT_SUPPORTED", isos):
        client.api.VDI.clone(vdi, {})
    with fails("SR_OPERATION_NOT_SUPPORTED", isos):
        client.api.VDI.resize(vdi, "4096")


# Disks


@pytest.fixture
def disk(api):
    return api.VDI.get_by_name_label("debian-12 root")[0]


def test_disk_is_cloned_beside_its_source_and_copied_elsewhere(xen, client, disk):
    api = client.api
    clone = api.VDI.clone(disk, {})
    assert api.VDI.get_SR(clone) == api.VDI.get_SR(disk)
    assert api.VDI.get_virtual_size(clone) == api.VDI.get_virtual_size(disk)
    local = api.SR.get_by_name_label("Local storage")[0]
    [task] = [client.run("VDI.copy", disk, local)]
    copy = task["result"].removeprefix("<value>").removesuffix("</value>")
    assert api.VDI.get_SR(copy) == local


def test_clone_has_what_was_imported_into_its_source(client, disk):
    task = client.api.task.create("import", "")
    client.put(disk, ISO, task_id=task)
    assert client.finished(task)["status"] == "success"
    clone = client.api.VDI.clone(disk, {})
    answer = client.request("GET", "/export_raw_vdi", vdi=clone, format="raw")
    assert answer.read(len(ISO)) == ISO


def test_disk_grows_and_does_not_shrink(api, disk):
    size = int(api.VDI.get_virtual_size(disk))
    api.VDI.resize(disk, str(2 * size))
    assert api.VDI.get_virtual_size(disk) == str(2 * size)
    with fails("SR_BACKEND_FAILURE_79"):
        api.VDI.resize(disk, str(size))


def test_full_repository_takes_no_disk(xen, api, disk):
    xen.fill(api.VDI.get_SR(disk))
    with fails("SR_BACKEND_FAILURE_44", "", "There is insufficient space"):
        api.VDI.clone(disk, {})
    with fails("SR_BACKEND_FAILURE_44"):
        api.VM.clone(xen.ref("VM", "debian-12"), "one")
    assert api.VM.get_by_name_label("one") == []


# Bytes


def test_imported_bytes_are_the_file(xen, client, isos):
    client.disc(isos, "one.iso", ISO)
    assert xen.files(isos) == {"one.iso": ISO}


def test_disc_is_read_back(client, isos):
    vdi = client.disc(isos, "one.iso", ISO)
    answer = client.request("GET", "/export_raw_vdi", vdi=vdi, format="raw")
    assert (answer.status, answer.getheader("Content-Length"), answer.read()) == (200, None, ISO)


def test_disk_is_named_by_its_uuid_as_well(xen, client, isos):
    vdi = client.new_disc(isos, "one.iso", len(ISO))
    task = client.api.task.create("import", "")
    client.put(client.api.VDI.get_uuid(vdi), ISO, task_id=task)
    assert client.finished(task)["status"] == "success"
    assert xen.files(isos) == {"one.iso": ISO}


def test_answer_comes_before_the_bytes_are_stored(xen, client, isos):
    xen.pace["import"] = 0.3
    vdi = client.new_disc(isos, "one.iso", len(ISO))
    task = client.api.task.create("import", "")
    answer = client.put(vdi, ISO, task_id=task)
    assert (answer.status, client.api.task.get_status(task)) == (200, "pending")
    assert client.finished(task)["status"] == "success"


def test_full_repository_is_told_by_the_task_alone(xen, client, isos):
    xen.fill(isos)
    vdi = client.new_disc(isos, "one.iso", len(ISO))
    task = client.api.task.create("import", "")
    assert client.put(vdi, ISO, task_id=task).status == 200
    record = client.finished(task)
    assert (record["status"], record["error_info"][0]) == ("failure", "VDI_IO_ERROR")


def test_more_bytes_than_the_disc_holds_fail(client, isos):
    vdi = client.new_disc(isos, "one.iso", 2048)
    task = client.api.task.create("import", "")
    assert client.put(vdi, bytes(4096), task_id=task).status == 200
    assert client.finished(task)["status"] == "failure"


def test_chunked_bytes_are_refused(client, isos):
    vdi = client.new_disc(isos, "one.iso", len(ISO))
    task = client.api.task.create("import", "")
    answer = client.request("PUT", "/import_raw_vdi", iter([ISO]), vdi=vdi, task_id=task, format="raw")
    assert answer.status == 403
    assert client.finished(task)["status"] == "failure"


def test_bytes_without_a_session_are_refused(client, isos):
    vdi = client.new_disc(isos, "one.iso", len(ISO))
    assert client.put(vdi, ISO, session_id="OpaqueRef:gone").status == 401


def test_reader_stores_nothing(xen, client, isos):
    vdi = client.new_disc(isos, "one.iso", len(ISO))
    xen.sessions.users["reader"] = ("secret", "read-only")
    assert Client.of(xen, "reader", "secret").put(vdi, ISO).status == 403


def test_bytes_for_another_hosts_repository_are_sent_there(xen, client):
    xen.make_directory("xen2", "/opt/isos")
    sr = create_iso_sr(client.api, client.api.host.get_by_name_label("xen2")[0], LOCAL)
    vdi = client.new_disc(sr, "one.iso", len(ISO))
    task = client.api.task.create("import", "")
    answer = client.put(vdi, ISO, task_id=task)
    assert answer.status == 302
    location = urlsplit(answer.getheader("Location"))
    assert (location.hostname, location.path) == (xen.addresses[1], "/import_raw_vdi")
    assert client.put(vdi, ISO, task_id=task, url=xen.member_url).status == 200
    assert client.finished(task)["status"] == "success"
    assert xen.files(sr) == {"one.iso": ISO}


def test_disc_that_a_vm_reads_is_not_written(client, vm, isos):
    vdi, drive = client.disc(isos, "one.iso", ISO), client.drive(vm)
    client.api.VBD.insert(drive, vdi)
    client.api.VM.start(vm, False, False)
    task = client.api.task.create("import", "")
    assert client.put(vdi, ISO, task_id=task).status == 500
    assert client.finished(task)["error_info"][:2] == ["VDI_IN_USE", vdi]


def test_work_takes_the_time_that_it_is_given(xen, client, isos):
    xen.pace["vdi_create"] = 0.2
    started = time.monotonic()
    client.new_disc(isos, "one.iso")
    assert time.monotonic() - started >= 0.2
