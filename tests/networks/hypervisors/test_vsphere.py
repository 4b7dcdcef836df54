"""The driver with the real pyVmomi, on a vCenter and an ESXi that are simulated. What those do not model is tried in
`test_vsphere_fake`.
"""

import dataclasses

import pytest

from networks.hypervisors import vsphere_media
from networks.hypervisors.base import (
    AddressReader,
    DiskReader,
    EventSource,
    GuestAgent,
    HostUnavailable,
    Inventory,
    Media,
    MediaFile,
    MediaStore,
    NeighbourReader,
    NetworkMissing,
    NetworkOperations,
    NetworkRef,
    NicInspector,
    NicSpec,
    NicState,
    NotFound,
    PowerState,
    Refused,
    RightsReader,
    StorageProblem,
    StorageReader,
    VmOperations,
    Volumes,
)
from networks.hypervisors.vsphere import VsphereHost
from networks.hypervisors.vsphere_devices import disk_bytes, root_disk
from networks.hypervisors.vsphere_guests import configure, find_root, ours
from networks.hypervisors.vsphere_tasks import finish
from networks.hypervisors.vsphere_types import vim
from tests.networks.hypervisors.factories import KERNEL, make_spec, make_vm, soon
from tests.networks.hypervisors.vsphere_factories import DATASTORE, GIB, GROUP, STANDARD, define, make_clone
from tests.simulators.vcenter.starting import vcenter_for_tests

ISO = "i-2-3-VM-1-ab12.iso"


@pytest.fixture(scope="module")
def vcenter():
    with vcenter_for_tests() as vcenter:
        yield vcenter


@pytest.fixture(scope="module")
def esxi():
    with vcenter_for_tests(esx=True) as esxi:
        yield esxi


@pytest.fixture
def everywhere(vcenter):
    return VsphereHost(vcenter.address)


@pytest.fixture
def host(vcenter):
    return VsphereHost(vcenter.address, vcenter.hosts()[0])


@pytest.fixture
def other(vcenter):
    return VsphereHost(vcenter.address, vcenter.hosts()[1])


@pytest.fixture
def defined(host):
    return define(host).vm


@pytest.fixture
def running(host, defined):
    host.start(defined, soon())
    return defined


@pytest.fixture
def media(host):
    yield host.place(ISO, b"x" * 4096, soon(), storage=DATASTORE)
    host.remove(ISO, soon(), storage=DATASTORE)


def names(host) -> list[str]:
    return [record.vm.name for record in host.list_vms(soon())]


def macs(host, vm) -> tuple[str, ...]:
    ((found,),) = [[record.vm.macs for record in host.list_vms(soon()) if record.vm.uuid == vm.uuid]]
    return found


def test_what_the_driver_can_do(host):
    can = (AddressReader, EventSource, Inventory, MediaStore, NetworkOperations, NicInspector, RightsReader)
    can += (StorageReader, VmOperations, Volumes)
    cannot = (DiskReader, GuestAgent, NeighbourReader)

    assert [isinstance(host, protocol) for protocol in (*can, *cannot)] == [True] * len(can) + [False] * len(cannot)


# Inventory --------------------------------------------------------------------------------------


def test_host_says_what_it_is(host):
    facts = host.host_facts(soon())

    assert (facts.hostname, facts.cpus) == (host.host, 2)
    assert facts.memory > 4 * 10**9
    assert facts.version.startswith("VMware vCenter Server 6.5")


def test_all_hosts_together_have_the_sum_of_what_each_has(everywhere, host):
    together, one = everywhere.host_facts(soon()), host.host_facts(soon())

    assert (together.cpus, together.memory) == (2 * one.cpus, 2 * one.memory)


def test_host_that_vsphere_does_not_have_is_unavailable(vcenter):
    with pytest.raises(HostUnavailable, match="no host nowhere: was it renamed"):
        VsphereHost(vcenter.address, "nowhere").host_facts(soon())


def test_what_must_be_done_on_one_host_asks_which(everywhere):
    with pytest.raises(Refused, match="none was named"):
        everywhere.ensure_network(GROUP, soon())


def test_templates_and_unused_root_volumes_are_no_vms(host, everywhere):
    host.ensure_root(make_clone(volume="unused"), soon())

    listed = names(everywhere)

    assert not {"template-ide", "template-sata", "unused"} & set(listed)
    assert "DC0_C0_RP0_VM0" in listed


def test_each_vm_is_listed_by_the_host_that_it_is_on(host, other, everywhere):
    assert sorted(names(host) + names(other)) == sorted(names(everywhere))


def test_what_runs_is_asked_in_one_question(vcenter, everywhere, host, running):
    everywhere.running_vms(soon())
    off = define(host).vm
    vcenter.forget_calls()

    uuids = everywhere.running_vms(soon())

    assert running.uuid in uuids
    assert off.uuid not in uuids
    assert vcenter.calls() == {"WaitForUpdatesEx": 1}


def test_what_runs_on_another_host_does_not_run_here(host, other, running):
    assert running.uuid in host.running_vms(soon())
    assert running.uuid not in other.running_vms(soon())


def test_power_state_of_a_vm_on_another_host_is_unknown_unless_it_is_off(host, other, everywhere, defined):
    assert other.power_state(defined, soon()) is PowerState.OFF
    host.start(defined, soon())
    assert other.power_state(defined, soon()) is None
    assert host.power_state(defined, soon()) is everywhere.power_state(defined, soon()) is PowerState.RUNNING


def test_administrator_lacks_no_right(everywhere, host):
    assert everywhere.missing_rights(soon()) == host.missing_rights(soon()) == ()


# Life cycle -------------------------------------------------------------------------------------


def test_vm_from_definition_to_its_end(host):
    vm = make_vm(macs=("52:54:00:00:03:01", "52:54:00:00:03:02"))
    assert host.power_state(vm, soon()) is None

    spec = define(host, vm)
    assert host.power_state(vm, soon()) is PowerState.OFF
    host.start(vm, soon())
    assert vm in [record.vm for record in host.list_vms(soon())]
    host.reboot(vm, soon())
    assert host.power_state(vm, soon()) is PowerState.RUNNING
    host.stop(vm, soon(), grace=5)
    assert host.power_state(vm, soon()) is PowerState.OFF
    host.undefine(vm, soon())
    assert host.power_state(vm, soon()) is None
    assert vm.name not in names(host)
    host.delete_root(spec.root, soon())


def test_nothing_remains_on_the_datastore(vcenter, host, running):
    spec = define(host)
    assert any(spec.root.volume in str(path) for path in vcenter.files())

    host.undefine(spec.vm, soon())
    host.delete_root(spec.root, soon())

    assert not [path for path in vcenter.files() if spec.root.volume in str(path)]


def test_root_volume_outlives_its_vm_and_becomes_it_again(host):
    spec = define(host)
    host.undefine(spec.vm, soon())

    host.ensure_root(spec.root, soon())
    host.define(spec, soon())
    host.start(spec.vm, soon())

    assert host.power_state(spec.vm, soon()) is PowerState.RUNNING


def test_what_is_done_already_is_success(host):
    vm, root = make_vm(), make_clone()
    spec = make_spec(vm, root=root, nics=(NicSpec(vm.macs[0], GROUP),))
    for _ in range(2):
        host.ensure_root(root, soon())
        host.define(spec, soon())
    for act in (
        lambda: host.start(vm, soon()),
        lambda: host.stop(vm, soon(), grace=0),
        lambda: host.undefine(vm, soon()),
        lambda: host.stop(vm, soon(), grace=0),
        lambda: host.delete_root(root, soon()),
    ):
        act()
        act()


def test_vm_is_started_on_the_host_that_is_asked(host, other, defined):
    other.start(defined, soon())

    assert other.power_state(defined, soon()) is PowerState.RUNNING


def test_vm_is_defined_on_the_host_that_is_asked(host, other):
    spec = define(host)
    host.undefine(spec.vm, soon())

    other.define(spec, soon())

    assert spec.vm.name in names(other)


def test_vm_that_drs_has_moved_is_stopped_where_it_runs(host, other, running):
    host.migrate(running, other, soon())

    host.stop(running, soon(), grace=0)

    assert other.power_state(running, soon()) is PowerState.OFF


def test_vm_that_drs_has_moved_is_forgotten_where_it_runs(host, other, everywhere, running):
    host.migrate(running, other, soon())

    host.undefine(running, soon())

    assert everywhere.power_state(running, soon()) is None


def test_vm_that_runs_elsewhere_is_not_started_here(other, running):
    with pytest.raises(Refused, match="another host"):
        other.start(running, soon())


def test_running_vm_is_cut_off_by_undefine(host, running):
    host.undefine(running, soon())

    assert host.power_state(running, soon()) is None


def test_running_vm_is_not_defined_anew(host):
    spec = define(host)
    host.start(spec.vm, soon())

    with pytest.raises(Refused, match="running"):
        host.define(spec, soon())


def test_unknown_vm_cannot_be_started_or_rebooted(host):
    for act in (host.start, host.reboot):
        with pytest.raises(NotFound):
            act(make_vm(), soon())


def test_vm_has_what_was_asked_for(host):
    spec = define(host, cpus=2, memory=GIB // 2, title="A <VM> & its title")

    def look(session):
        reference = session.do(session.content.searchIndex.FindByUuid, None, spec.vm.uuid, True, False)
        return session.read(reference, "config.hardware", "config.annotation", "runtime.host")

    found = host._ask(soon(), look)

    assert (found["config.hardware"].numCPU, found["config.hardware"].memoryMB) == (2, 512)


def test_definition_made_anew_changes_the_nics(host):
    spec = define(host, make_vm(macs=("52:54:00:00:03:01", "52:54:00:00:03:02")))
    nics = (NicSpec("52:54:00:00:03:02", STANDARD), NicSpec("52:54:00:00:03:03", GROUP))

    host.define(make_spec(spec.vm, root=spec.root, nics=nics), soon())

    assert set(macs(host, spec.vm)) == {"52:54:00:00:03:02", "52:54:00:00:03:03"}
    assert [host.nic_state(spec.vm, nic, soon()) for nic in nics] == [NicState.PLUGGED] * 2


def test_vm_that_others_made_is_never_touched(host, everywhere):
    foreign = next(record.vm for record in everywhere.list_vms(soon()) if record.vm.name == "DC0_C0_RP0_VM0")
    spec = make_spec(foreign, root=make_clone(), nics=())
    host.ensure_root(spec.root, soon())

    for act in (
        lambda: host.define(spec, soon()),
        lambda: host.start(foreign, soon()),
        lambda: everywhere.stop(foreign, soon(), grace=0),
        lambda: host.reboot(foreign, soon()),
        lambda: host.insert(foreign, None, soon()),
        lambda: host.remove_nic(foreign, foreign.macs[0], soon()),
        lambda: everywhere.undefine(foreign, soon()),
    ):
        with pytest.raises(Refused):
            act()

    assert everywhere.power_state(foreign, soon()) is PowerState.RUNNING


def test_vm_without_its_root_volume_is_not_defined(host):
    with pytest.raises(NotFound, match="no ROOT volume"):
        host.define(make_spec(root=make_clone()), soon())


def test_vm_without_a_disk_is_refused(host):
    with pytest.raises(Refused, match="kernel"):
        host.define(make_spec(root=KERNEL), soon())


@pytest.mark.parametrize("name", ["", "x/y", "a b", "..", "x" * 81, "a\n", "%2f"])
def test_vm_name_of_another_form_is_refused(host, name):
    spec = make_spec(make_vm(name=name), root=make_clone(volume="odd-names"), nics=())
    host.ensure_root(spec.root, soon())

    with pytest.raises(Refused):
        host.define(spec, soon())


# Migration --------------------------------------------------------------------------------------


def test_running_vm_moves_with_the_disc_in_its_drive(host, other, running, media):
    host.insert(running, media, soon())

    host.migrate(running, other, soon())

    assert (host.power_state(running, soon()), other.power_state(running, soon())) == (None, PowerState.RUNNING)
    assert other.inserted(running, soon()) == media.path


def test_migration_that_was_done_already_is_success(host, other, running):
    for _ in range(2):
        host.migrate(running, other, soon())

    assert other.power_state(running, soon()) is PowerState.RUNNING


def test_vm_that_is_off_is_not_moved_live(host, other, defined):
    with pytest.raises(Refused, match="only a running VM"):
        host.migrate(defined, other, soon())


def test_vm_does_not_move_to_another_vcenter(host, esxi, running):
    with pytest.raises(Refused, match="one vCenter"):
        host.migrate(running, VsphereHost(esxi.address), soon())


# Volumes ----------------------------------------------------------------------------------------


def test_root_volume_is_as_large_as_asked_for(host):
    root = make_clone(size=2 * GIB)

    for _ in range(2):
        host.ensure_root(root, soon())

    def look(session):
        devices = session.read(find_root(session, root), "config.hardware.device")["config.hardware.device"]
        return disk_bytes(root_disk(devices))

    assert host._ask(soon(), look) == 2 * GIB


def test_root_volume_is_known_after_storage_vmotion_and_a_new_name(host, everywhere):
    spec = define(host)

    def move(session):
        reference = find_root(session, spec.root)
        stores = session.find_all(vim.Datastore, "name")
        (store,) = [each.ref for each in stores if each.properties["name"] == "LocalDS_1"]
        finish(session, session.do(reference.RelocateVM_Task, vim.vm.RelocateSpec(datastore=store)))
        configure(session, reference, name="renamed")

    host._ask(soon(), move)
    host.start(spec.vm, soon())
    host.undefine(spec.vm, soon())
    host.delete_root(spec.root, soon())

    assert "renamed" not in names(everywhere)
    assert host._ask(soon(), lambda session: find_root(session, spec.root)) is None


def test_root_volume_is_known_whatever_its_datastore_is_called_now(host):
    spec = define(host)
    host.undefine(spec.vm, soon())
    renamed = dataclasses.replace(spec.root, pool="LocalDS_1")

    host.delete_root(renamed, soon())

    assert host._ask(soon(), lambda session: find_root(session, spec.root)) is None


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"image": "nothing"}, NotFound, "no template nothing"),
        ({"image": "base.qcow2"}, NotFound, "no template"),
        ({"image": "DC0_C0_RP0_VM0"}, NotFound, "no template: turn it into one"),
        ({"pool": "nothing"}, StorageProblem, "mounts no datastore nothing"),
        ({"size": 512}, Refused, "larger than"),
        ({"volume": "../x"}, Refused, "volume name"),
        ({"image": "a\nb"}, Refused, "template's name"),
    ],
)
def test_root_volume_that_cannot_be_made(host, fields, error, words):
    with pytest.raises(error, match=words):
        host.ensure_root(make_clone(**fields), soon())


def test_root_volume_of_a_running_vm_is_not_deleted(host):
    spec = define(host)
    host.start(spec.vm, soon())

    with pytest.raises(Exception, match="in use"):
        host.delete_root(spec.root, soon())


# Config drives ----------------------------------------------------------------------------------


def test_iso_arrives_whole_on_the_datastore(vcenter, host, media):
    (file,) = vcenter.files(f"**/{ISO}")

    assert media == Media(ISO, f"[{DATASTORE}] extdhcp-configdrive/{ISO}")
    assert file.read_bytes() == host.read(ISO, soon(), storage=DATASTORE) == b"x" * 4096
    assert host.list_media(soon(), storage=DATASTORE) == [MediaFile(ISO, 4096)]


def test_iso_is_inserted_and_ejected_on_and_off(host, defined, media):
    assert host.inserted(defined, soon()) is None
    host.insert(defined, media, soon())
    assert host.inserted(defined, soon()) == media.path
    host.start(defined, soon())
    assert host.inserted(defined, soon()) == media.path
    host.insert(defined, None, soon())
    assert host.inserted(defined, soon()) is None
    host.insert(defined, media, soon())
    host.stop(defined, soon(), grace=0)
    assert host.inserted(defined, soon()) == media.path


def test_undefined_vm_lets_go_of_its_disc(host, media):
    spec = define(host)
    host.insert(spec.vm, media, soon())

    host.undefine(spec.vm, soon())
    host.define(spec, soon())

    assert host.inserted(spec.vm, soon()) is None


@pytest.mark.parametrize(("template", "controller"), [("template-sata", 15000), ("template-ide", 200)])
def test_drive_is_on_sata_where_there_is_a_controller_and_else_on_ide(host, template, controller):
    vm = define(host, root=make_clone(image=template)).vm

    def look(session):
        return ours(session, vm).drive

    drive = host._ask(soon(), look)

    assert drive.controllerKey == controller
    assert drive.connectable.allowGuestControl


def test_inserted_disc_is_connected_at_each_start(host, defined, media):
    host.insert(defined, media, soon())

    def look(session):
        return ours(session, defined).drive.connectable

    assert host._ask(soon(), look).startConnected


def test_iso_that_is_there_already_is_not_written_over(host, media):
    with pytest.raises(Refused, match="already"):
        host.place(ISO, b"another", soon(), storage=DATASTORE)

    assert host.read(ISO, soon(), storage=DATASTORE) == b"x" * 4096


def test_iso_that_is_gone_already_is_removed(host):
    for _ in range(2):
        host.remove(ISO, soon(), storage=DATASTORE)


def test_missing_iso_is_not_found(host):
    with pytest.raises(NotFound):
        host.read(ISO, soon(), storage=DATASTORE)


def test_same_name_on_two_datastores_is_two_files(host, media):
    host.place(ISO, b"y", soon(), storage="LocalDS_1")
    host.remove(ISO, soon(), storage=DATASTORE)

    assert host.list_media(soon(), storage=DATASTORE) == []
    assert host.read(ISO, soon(), storage="LocalDS_1") == b"y"
    host.remove(ISO, soon(), storage="LocalDS_1")


def test_full_datastore_says_so_and_keeps_nothing(vcenter, host):
    vcenter.set_free("LocalDS_1", 1000)
    try:
        with pytest.raises(StorageProblem, match="Datastore LocalDS_1 is full: free some space"):
            host.place(ISO, b"x" * 2000, soon(), storage="LocalDS_1")
        assert host.list_media(soon(), storage="LocalDS_1") == []
    finally:
        vcenter.set_free("LocalDS_1", 10**11)


def test_hosts_of_vsphere_have_no_cache_of_their_own(host):
    with pytest.raises(Refused, match="primary storage"):
        host.place(ISO, b"x", soon())
    assert host.list_media(soon()) == []


def test_only_isos_are_listed(vcenter, host, media):
    (file,) = vcenter.files(f"**/{ISO}")
    file.with_name("notes.txt").write_text("x")
    file.with_name("an_other.iso").write_text("x")

    assert [each.name for each in host.list_media(soon(), storage=DATASTORE)] == [ISO]


def test_iso_is_found_among_others_by_its_name(host, media):
    host.place("another.iso", b"y", soon(), storage=DATASTORE)

    assert host.list_media(soon(), storage=DATASTORE, name=ISO) == [MediaFile(ISO, 4096)]
    assert host.list_media(soon(), storage=DATASTORE, name="third.iso") == []
    host.remove("another.iso", soon(), storage=DATASTORE)


@pytest.mark.parametrize("name", ["../x.iso", "x", "x.iso\n", "a_b.iso", "x/y.iso", ""])
def test_name_that_is_no_isos_is_refused(host, name):
    for act in (
        lambda: host.place(name, b"x", soon(), storage=DATASTORE),
        lambda: host.read(name, soon(), storage=DATASTORE),
        lambda: host.remove(name, soon(), storage=DATASTORE),
        lambda: host.list_media(soon(), storage=DATASTORE, name=name or "*"),
    ):
        with pytest.raises(Refused, match="ISO name"):
            act()


def test_iso_larger_than_any_config_drive_is_refused(host, monkeypatch):
    monkeypatch.setattr(vsphere_media, "MEDIA_MAX_BYTES", 4)
    with pytest.raises(Refused, match="not a config drive"):
        host.place(ISO, b"12345", soon(), storage=DATASTORE)


def test_datastore_that_the_host_does_not_mount_is_named(host):
    for act in (
        lambda: host.place(ISO, b"x", soon(), storage="nothing"),
        lambda: host.read(ISO, soon(), storage="nothing"),
        lambda: host.remove(ISO, soon(), storage="nothing"),
        lambda: host.list_media(soon(), storage="nothing"),
        lambda: host.is_shared("nothing", soon()),
    ):
        with pytest.raises(StorageProblem, match="mounts no datastore nothing"):
            act()


def test_drive_of_an_unknown_vm_is_not_found(host):
    for act in (host.inserted, host.bytes_read):
        with pytest.raises(NotFound):
            act(make_vm(), soon())


def test_vsphere_does_not_tell_what_was_read_from_a_drive(host, running):
    assert host.bytes_read(running, soon()) is None


# Networks and NICs ------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [GROUP, STANDARD, NetworkRef("VM Network")], ids=lambda each: each.label)
def test_port_group_that_the_admin_made_is_found(host, network):
    host.ensure_network(network, soon())
    assert host.has_network(network, soon())


@pytest.mark.parametrize("label", ["cloudbr100", "vm network", "x" * 81, "a\x00b"])
def test_port_group_that_is_missing_is_asked_for(host, label):
    for ask in (host.ensure_network, host.has_network):
        with pytest.raises((NetworkMissing, Refused)):
            ask(NetworkRef(label, 0), soon())


@pytest.mark.parametrize("label", ["DC0_DVPG0", "VM Network"])
def test_port_group_with_another_vlan_is_the_wrong_one(host, label):
    with pytest.raises(NetworkMissing, match="carries VLAN 0, not 100"):
        host.ensure_network(NetworkRef(label, 100), soon())


@pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
def test_nic_comes_and_goes(host, defined, is_on):
    if is_on:
        host.start(defined, soon())
    more = NicSpec("52:54:00:00:04:02", STANDARD)

    for _ in range(2):
        host.add_nic(defined, more, soon())
    assert macs(host, defined) == (*defined.macs, more.mac)
    assert host.nic_state(defined, more, soon()) is NicState.PLUGGED
    for _ in range(2):
        host.remove_nic(defined, more.mac, soon())
    assert macs(host, defined) == defined.macs


def test_nic_on_a_port_group_that_is_not_there_is_not_plugged_in(host, running):
    with pytest.raises(NetworkMissing, match="cloudbr999"):
        host.add_nic(running, NicSpec("52:54:00:00:04:02", NetworkRef("cloudbr999")), soon())

    assert macs(host, running) == running.macs


def test_nic_is_there_or_elsewhere_or_not(host, running):
    assert host.nic_state(running, NicSpec(running.macs[0], GROUP), soon()) is NicState.PLUGGED
    assert host.nic_state(running, NicSpec(running.macs[0], STANDARD), soon()) is NicState.ELSEWHERE
    assert host.nic_state(running, NicSpec(running.macs[0], NetworkRef("gone")), soon()) is NicState.ELSEWHERE
    assert host.nic_state(running, NicSpec("52:54:00:00:ee:ee", GROUP), soon()) is NicState.ABSENT


@pytest.mark.parametrize("mac", ["", "52:54:00:00:03", "53:54:00:00:03:02", "52:54:00:00:03:AB"])
def test_mac_that_is_none_is_refused(host, running, mac):
    with pytest.raises(Refused):
        host.remove_nic(running, mac, soon())
    with pytest.raises(Refused):
        host.add_nic(running, NicSpec(mac, GROUP), soon())


# A lone ESXi ------------------------------------------------------------------------------------


def test_lone_esxi_is_its_own_only_host(esxi):
    host = VsphereHost(esxi.address)

    host.ensure_network(STANDARD, soon())

    assert len(host.running_vms(soon())) == 3
    assert host.host_facts(soon()).version.startswith("VMware ESXi")


def test_lone_esxi_keeps_config_drives(esxi):
    host = VsphereHost(esxi.address)

    host.place(ISO, b"x", soon(), storage=DATASTORE)

    assert host.read(ISO, soon(), storage=DATASTORE) == b"x"


def test_datastore_of_a_lone_esxi_is_not_shared(esxi):
    assert not VsphereHost(esxi.address).is_shared(DATASTORE, soon())


def test_lone_esxi_cannot_clone(esxi):
    with pytest.raises(Refused, match="add it to a vCenter"):
        VsphereHost(esxi.address).ensure_root(make_clone(), soon())
