"""CD drives, disks and NICs of VMs in the simulated pool."""

import time

import pytest

from tests.simulators.xen_client import QOS, fails

NULL = "OpaqueRef:NULL"


@pytest.fixture
def isos(xen):
    return xen.add_iso_sr("ConfigDriveISOs")


@pytest.fixture
def disc(client, isos):
    return client.disc(isos, "one.iso", b"first" * 100)


@pytest.fixture
def running(client, vm):
    """It runs, with a drive of ours."""
    client.drive(vm)
    client.api.VM.start(vm, False, False)
    return vm


def our_drive(api, vm):
    return api.VM.get_VBDs(vm)[-1]


# Drives


def test_drive_holds_read_only_discs(api, vm):
    record = {"VM": vm, "VDI": NULL, "userdevice": "4", "bootable": False, "mode": "RW", "type": "CD", "empty": True}
    with fails("VBD_CDS_MUST_BE_READONLY"):
        api.VBD.create(record | QOS)


def test_disk_is_never_empty(api, vm):
    record = {"VM": vm, "VDI": NULL, "userdevice": "4", "bootable": False, "mode": "RO", "type": "Disk", "empty": True}
    with fails("VBD_NOT_REMOVABLE_MEDIA"):
        api.VBD.create(record | QOS)


def test_devices_are_given_once(client, vm):
    assert "3" not in client.api.VM.get_allowed_VBD_devices(vm)
    with fails("DEVICE_ALREADY_EXISTS", "3"):
        client.drive(vm, "3")
    with fails("INVALID_DEVICE", "99"):
        client.drive(vm, "99")
    assert client.api.VBD.get_userdevice(client.drive(vm)) == "1"


@pytest.mark.parametrize("state", ["halted", "running"])
def test_disc_is_inserted_and_ejected(client, vm, disc, state):
    api, drive = client.api, client.drive(vm)
    if state == "running":
        api.VM.start(vm, False, False)
    api.VBD.insert(drive, disc)
    assert (api.VBD.get_VDI(drive), api.VBD.get_empty(drive), api.VDI.get_VBDs(disc)) == (disc, False, [drive])
    api.VBD.eject(drive)
    assert (api.VBD.get_VDI(drive), api.VBD.get_empty(drive), api.VDI.get_VBDs(disc)) == (NULL, True, [])


def test_full_drive_takes_no_other_disc(client, running, disc):
    drive = our_drive(client.api, running)
    client.api.VBD.insert(drive, disc)
    with fails("VBD_NOT_EMPTY", drive):
        client.api.VBD.insert(drive, disc)


def test_empty_drive_has_nothing_to_eject(api, running):
    with fails("VBD_IS_EMPTY"):
        api.VBD.eject(our_drive(api, running))


def test_disk_is_not_ejected(api, running):
    [disk] = [vbd for vbd in api.VM.get_VBDs(running) if api.VBD.get_type(vbd) == "Disk"]
    with fails("VBD_NOT_REMOVABLE_MEDIA", disk):
        api.VBD.eject(disk)


def test_drive_takes_discs_of_iso_repositories_only(xen, api, running):
    disk = next(iter(api.VDI.get_by_name_label("debian-12 root")))
    with fails("VDI_IS_NOT_ISO", disk):
        api.VBD.insert(our_drive(api, running), disk)


def test_drive_made_while_the_vm_runs_is_there_after_the_next_boot(client, vm, disc):
    client.api.VM.start(vm, False, False)
    drive = client.drive(vm)
    with fails("OPERATION_NOT_ALLOWED", "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected"):
        client.api.VBD.plug(drive)
    with fails("DEVICE_NOT_ATTACHED", drive):
        client.api.VBD.insert(drive, disc)
    client.api.VM.hard_reboot(vm)
    client.api.VBD.insert(drive, disc)


def test_door_that_the_guest_locks_stays_shut_until_time_is_up(xen, client, running, disc):
    drive = our_drive(client.api, running)
    client.api.VBD.insert(drive, disc)
    xen.guests.locks_door(running)
    started = time.monotonic()
    with fails("VBD_TRAY_LOCKED", drive):
        client.api.VBD.eject(drive)
    assert time.monotonic() - started >= xen.guests.door_seconds
    xen.guests.unlocks_door(running)
    client.api.VBD.eject(drive)


def test_door_is_unlocked_after_a_boot(xen, client, running, disc):
    drive = our_drive(client.api, running)
    client.api.VBD.insert(drive, disc)
    xen.guests.locks_door(running)
    client.api.VM.hard_reboot(running)
    client.api.VBD.eject(drive)


def test_halted_vm_lets_go_of_a_disc_whatever_its_guest_did(xen, client, running, disc):
    drive = our_drive(client.api, running)
    client.api.VBD.insert(drive, disc)
    xen.guests.locks_door(running)
    client.api.VM.hard_shutdown(running)
    client.api.VBD.eject(drive)


def test_file_that_has_vanished_is_not_inserted(xen, client, running, isos, disc):
    xen.disks.file(xen.db.get("VDI", disc)).unlink()
    with fails("SR_BACKEND_FAILURE_144"):
        client.api.VBD.insert(our_drive(client.api, running), disc)


def test_vm_whose_disc_has_vanished_does_not_start(xen, client, vm, disc):
    client.api.VBD.insert(client.drive(vm), disc)
    xen.disks.file(xen.db.get("VDI", disc)).unlink()
    with fails("SR_BACKEND_FAILURE_144"):
        client.api.VM.start(vm, False, False)


def test_disc_in_a_running_vm_is_not_destroyed(client, running, disc):
    client.api.VBD.insert(our_drive(client.api, running), disc)
    with fails("VDI_IN_USE", disc):
        client.api.VDI.destroy(disc)


def test_disc_of_a_halted_vm_is_destroyed_and_its_drive_emptied(client, vm, disc):
    drive = client.drive(vm)
    client.api.VBD.insert(drive, disc)
    client.api.VDI.destroy(disc)
    assert client.api.VBD.get_empty(drive) is True


def test_drive_in_use_is_not_destroyed(api, running):
    with fails("OPERATION_NOT_ALLOWED"):
        api.VBD.destroy(our_drive(api, running))


# Discs and migration


def test_disc_of_a_shared_repository_moves_with_its_vm(client, running, disc):
    api, drive = client.api, our_drive(client.api, running)
    api.VBD.insert(drive, disc)
    target = next(host for host in api.host.get_all() if host != api.VM.get_resident_on(running))
    api.VM.pool_migrate(running, target, {"live": "true"})
    assert (api.VM.get_resident_on(running), api.VBD.get_VDI(drive)) == (target, disc)


def test_disc_of_a_local_repository_keeps_its_vm(xen, client, vm):
    api = client.api
    here, there = (api.host.get_by_name_label(name)[0] for name in ("xen1", "xen2"))
    xen.make_directory("xen1", "/opt/isos")
    sr = api.SR.create(
        here, {"location": "/opt/isos", "legacy_mode": "true"}, "0", "local", "", "iso", "iso", False, {}
    )
    disc, drive = client.disc(sr, "one.iso", b"x" * 2048), client.drive(vm)
    api.VBD.insert(drive, disc)
    with fails("VM_REQUIRES_SR", vm, sr):
        api.VM.start_on(vm, there, False, False)
    api.VM.start_on(vm, here, False, False)
    with fails("VM_REQUIRES_SR", vm, sr):
        api.VM.pool_migrate(vm, there, {"live": "true"})
    api.VBD.eject(drive)
    api.VM.pool_migrate(vm, there, {"live": "true"})


def test_disk_that_one_vm_writes_to_starts_no_other(api, running):
    [disk] = [api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(running) if api.VBD.get_type(vbd) == "Disk"]
    record = api.VM.get_record(running) | {"name_label": "thief", "affinity": NULL}
    thief = api.VM.create(record)
    vbd = {"VM": thief, "VDI": disk, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "empty": False}
    api.VBD.create(vbd | QOS)
    with fails("VDI_IN_USE", disk):
        api.VM.start(thief, False, False)


# NICs


def nic(vm, network):
    return {"device": "1", "network": network, "VM": vm, "MAC": "02:00:00:00:00:08", "MTU": "1500"} | QOS


def test_nic_is_plugged_into_a_running_vm_and_out_again(api, vm):
    api.VM.start(vm, False, False)
    vif = api.VIF.create(nic(vm, api.network.get_all()[0]))
    assert api.VIF.get_currently_attached(vif) is False
    api.VIF.plug(vif)
    with fails("OPERATION_NOT_ALLOWED"):
        api.VIF.destroy(vif)
    api.VIF.unplug(vif)
    with fails("DEVICE_ALREADY_DETACHED", vif):
        api.VIF.unplug(vif)
    api.VIF.destroy(vif)


def test_nic_of_a_halted_vm_is_not_plugged(api, vm):
    with fails("VM_BAD_POWER_STATE", vm, "running", "halted"):
        api.VIF.plug(api.VM.get_VIFs(vm)[0])


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"device": "0"}, "DEVICE_ALREADY_EXISTS"),
        ({"device": "7"}, "INVALID_DEVICE"),
        ({"MAC": "03:00:00:00:00:08"}, "MAC_INVALID"),
        ({"MAC": "02-00-00-00-00-08"}, "MAC_INVALID"),
        ({"network": "OpaqueRef:gone"}, "HANDLE_INVALID"),
    ],
)
def test_nic_that_cannot_be_is_refused(api, vm, more, code):
    with fails(code):
        api.VIF.create(nic(vm, api.network.get_all()[0]) | more)


def test_nic_without_an_address_is_given_one(api, vm):
    vif = api.VIF.create(nic(vm, api.network.get_all()[0]) | {"MAC": ""})
    assert api.VIF.get_MAC_autogenerated(vif) is True
    assert int(api.VIF.get_MAC(vif)[:2], 16) & 0b11 == 0b10


# VLANs


def test_vlan_is_made_on_every_host(api):
    pif = next(ref for ref, pif in api.PIF.get_all_records().items() if pif["physical"])
    network = api.network.create({"name_label": "guests", "other_config": {}})
    pifs = api.pool.create_VLAN_from_PIF(pif, network, "100")
    assert {api.PIF.get_host(one) for one in pifs} == set(api.host.get_all())
    assert {api.PIF.get_VLAN(one) for one in pifs} == {"100"}
    assert sorted(api.network.get_PIFs(network)) == sorted(pifs)
    assert {vlan["tag"] for vlan in api.VLAN.get_all_records().values()} == {"100"}


def test_network_of_guests_is_on_an_interface_of_every_host(xen, api):
    network = xen.add_network("cloud-guest", "eth1")
    pifs = [api.PIF.get_record(pif) for pif in api.network.get_PIFs(network)]
    assert {(pif["host"], pif["device"], pif["VLAN"]) for pif in pifs} == {
        (host, "eth1", "-1") for host in api.host.get_all()
    }


def test_vlan_that_is_there_or_cannot_be_is_refused(api):
    pif = next(ref for ref, pif in api.PIF.get_all_records().items() if pif["physical"])
    first, second = (api.network.create({"name_label": name, "other_config": {}}) for name in ("one", "two"))
    with fails("VLAN_TAG_INVALID", "4095"):
        api.VLAN.create(pif, "4095", first)
    vlan = api.VLAN.create(pif, "100", first)
    with fails("PIF_VLAN_EXISTS", pif):
        api.VLAN.create(pif, "100", second)
    with fails("NETWORK_ALREADY_CONNECTED", api.PIF.get_host(pif)):
        api.VLAN.create(pif, "101", first)
    with fails("PIF_IS_VLAN"):
        api.VLAN.create(api.VLAN.get_untagged_PIF(vlan), "101", second)


def test_network_in_use_is_not_destroyed(api, vm):
    [network] = api.network.get_all()
    with fails("NETWORK_CONTAINS_VIF"):
        api.network.destroy(network)


def test_vlan_and_its_network_are_removed(api):
    pif = next(ref for ref, pif in api.PIF.get_all_records().items() if pif["physical"])
    network = api.network.create({"name_label": "guests", "other_config": {}})
    vlan = api.VLAN.create(pif, "100", network)
    with fails("NETWORK_CONTAINS_PIF"):
        api.network.destroy(network)
    api.VLAN.destroy(vlan)
    api.network.destroy(network)
    assert network not in api.network.get_all()
