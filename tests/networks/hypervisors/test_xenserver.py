"""The driver's inventory, networks, volumes, life cycle and NICs, with the real library on a simulated pool."""

import ast
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from networks.hypervisors import base
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    EndpointAddress,
    HostUnavailable,
    NetworkMissing,
    NetworkRef,
    NicSpec,
    NicState,
    NotFound,
    PowerState,
    Refused,
    StorageProblem,
    StorageRoom,
    Transport,
)
from networks.hypervisors.xenserver import XenHost
from networks.hypervisors.xenserver_networks import CARRIER
from networks.hypervisors.xenserver_rights import NEEDED
from networks.hypervisors.xenserver_session import Session
from tests.networks.hypervisors.factories import KERNEL, make_vm, soon
from tests.networks.hypervisors.xen_world import (
    NETWORK,
    PRIMARY,
    address_of,
    defined,
    host_of,
    pool,
    ref_of,
    started,
    xen_root,
    xen_spec,
)

GIB = 1024**3
OTHER_NIC = NicSpec("02:00:00:00:77:01", NETWORK)


@pytest.fixture(scope="module")
def shared():
    with pool() as xen:
        yield xen


@pytest.fixture
def xen(shared):
    yield shared
    shared.faults.calm()
    shared.pace.clear()


@pytest.fixture
def here(xen) -> XenHost:
    return host_of(xen, "xen1")


@pytest.fixture
def there(xen) -> XenHost:
    return host_of(xen, "xen2")


def base_session(xen) -> Session:
    return Session(address_of(xen), soon())


# The driver --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol",
    [
        base.Inventory,
        base.NetworkOperations,
        base.Volumes,
        base.StorageReader,
        base.VmOperations,
        base.MediaStore,
        base.NicInspector,
        base.RightsReader,
        base.AddressReader,
        base.EventSource,
    ],
)
def test_driver_serves_what_a_pool_can(protocol):
    assert isinstance(XenHost(EndpointAddress(Transport.TLS, "xen.example.net")), protocol)


def test_driver_leaves_out_what_no_pool_can():
    assert not isinstance(XenHost(EndpointAddress(Transport.TLS, "xen.example.net")), base.GuestAgent)


@pytest.mark.parametrize("transport", [Transport.LOCAL, Transport.TCP, Transport.SSH])
def test_nothing_but_tls_is_spoken(transport):
    with pytest.raises(Refused):
        XenHost(EndpointAddress(transport, "xen.example.net"))


def test_repr_tells_no_secret(xen):
    assert xen.password not in repr(host_of(xen))


# Inventory ---------------------------------------------------------------------------------------


def test_host_says_what_it_is(here):
    facts = here.host_facts(soon())

    assert (facts.hostname, facts.cpus, facts.mhz, facts.memory) == ("xen1", 16, 2394, 256 * GIB)
    assert facts.version == "XCP-ng 8.3.0, Xen 4.17.5-13"


def test_pool_says_the_sum_of_its_hosts(xen):
    facts = host_of(xen, "").host_facts(soon())

    assert (facts.hostname, facts.cpus, facts.memory) == ("pool", 32, 512 * GIB)


def test_host_that_the_pool_does_not_have(xen):
    with pytest.raises(HostUnavailable, match="xen9: was it renamed"):
        host_of(xen, "xen9").host_facts(soon())


@pytest.mark.parametrize(("table", "field", "why"), [("host_metrics", "live", "off"), ("host", "enabled", "disabled")])
def test_host_that_cannot_be_used_is_unavailable_and_the_others_are_not(xen, here, there, table, field, why):
    host = xen.db.get("host", xen.ref("host", "xen2"))
    row = host.ref if table == "host" else host["metrics"]
    xen.db.set(table, row, **{field: False})
    try:
        with pytest.raises(HostUnavailable, match=f"xen2 is {why}"):
            there.host_facts(soon())
        assert here.host_facts(soon()).hostname == "xen1"
        assert host_of(xen, "").host_facts(soon()).cpus == 32
    finally:
        xen.db.set(table, row, **{field: True})


def test_start_on_a_host_that_is_off_says_so(xen, here, there):
    vm = defined(there)
    xen.faults.fail_next("Async.VM.start_on", "HOST_OFFLINE", "x")
    with pytest.raises(HostUnavailable):
        there.start(vm, soon())


def test_vms_are_known_by_our_uuid_and_foreign_ones_by_their_own(xen, here):
    vm = started(here)
    (foreign,) = xen.add_vms(1)

    running = host_of(xen, "").running_vms(soon())

    assert {vm.uuid, xen.db.get("VM", foreign)["uuid"]} <= running
    assert xen.db.get("VM", ref_of(xen, vm))["uuid"] not in running


def test_copy_that_somebody_made_of_our_vm_is_not_our_vm(xen, here):
    vm = defined(here)
    source = xen.db.get("VM", ref_of(xen, vm))
    copy = xen.db.create("VM", name_label="a copy", other_config=source["other_config"], affinity=source["affinity"])

    listed = {record.vm.name: record.vm.uuid for record in here.list_vms(soon())}

    assert listed["a copy"] == xen.db.get("VM", copy)["uuid"]
    assert listed[vm.name] == vm.uuid


def test_list_has_a_host_s_vms_with_their_macs(here, there):
    on, off = started(here), defined(here)
    elsewhere = started(there)

    listed = {record.vm: record.power for record in here.list_vms(soon())}

    assert listed[on] is PowerState.RUNNING
    assert listed[off] is PowerState.OFF
    assert elsewhere not in listed


def test_list_of_the_pool_has_no_templates_and_no_control_domains(xen, here):
    vm = defined(here)

    names = [record.vm.name for record in host_of(xen, "").list_vms(soon())]

    assert vm.name in names
    assert not [name for name in names if name.startswith("Control domain") or name == "debian-12"]


def test_running_vms_are_the_host_s_alone(xen, here, there):
    vm = started(here)

    assert vm.uuid in here.running_vms(soon())
    assert vm.uuid not in there.running_vms(soon())
    assert vm.uuid in host_of(xen, "").running_vms(soon())


def test_power_state_of_what_runs_elsewhere_is_not_known_here(xen, here, there):
    vm = started(here)

    assert here.power_state(vm, soon()) is PowerState.RUNNING
    assert there.power_state(vm, soon()) is None
    assert host_of(xen, "").power_state(vm, soon()) is PowerState.RUNNING


def test_power_state_of_what_is_nowhere(here):
    assert here.power_state(make_vm(), soon()) is None


def test_name_of_two_hosts_is_refused(xen, here):
    xen.db.set("host", xen.ref("host", "xen2"), name_label="xen1")
    try:
        with pytest.raises(HostUnavailable, match="2 hosts"):
            here.host_facts(soon())
    finally:
        (other,) = [row for row in xen.db.where("host", name_label="xen1") if row["hostname"] == "xen2"]
        xen.db.set("host", other.ref, name_label="xen2")


# Rights ------------------------------------------------------------------------------------------


def test_superuser_lacks_nothing(xen):
    assert host_of(xen, "").missing_rights(soon()) == ()


def test_user_who_may_only_read_lacks_the_rest(xen):
    xen.sessions.users["reader"] = ("pw", "read-only")

    missing = host_of(xen, "", username="reader", password="pw").missing_rights(soon())

    assert {"vm.start_on", "vbd.insert", "sr.introduce", "http/put_import_raw_vdi"} <= set(missing)
    assert list(missing) == sorted(missing)


def test_administrator_who_is_no_superuser_lacks_nothing(xen):
    xen.sessions.users["admin"] = ("pw", "pool-admin")

    assert host_of(xen, "", username="admin", password="pw").missing_rights(soon()) == ()


def test_rights_are_those_of_the_calls_that_are_made():
    """Each call that changes something, as the driver's modules name it."""
    made = set()
    for module in Path(base.__file__).parent.glob("xenserver*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("call", "run")
            ):
                name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
                made.add(str(name).lower())
    reading = {name for name in made if ".get_" in name or name.startswith("event.") or "." not in name}

    assert made - reading == {name for name in NEEDED if not name.startswith("http/")} - {"task.cancel"}


# Networks ----------------------------------------------------------------------------------------


def test_vlan_is_made_once_and_for_all_hosts(xen, here, there):
    network = NetworkRef("cloudbr77", 77)
    here.ensure_network(network, soon())
    there.ensure_network(network, soon())
    here.ensure_network(network, soon())

    assert len(xen.db.where("VLAN", tag=77)) == 2
    assert len(xen.db.where("network", name_label="cloudbr77")) == 1


def test_network_of_the_name_that_is_on_the_vlan_is_taken(xen, here, there):
    here.ensure_network(NetworkRef("cloudbr78", 78), soon())
    before = len(xen.db.rows("network"))
    there.ensure_network(NetworkRef("cloudbr78", 78), soon())

    assert len(xen.db.rows("network")) == before


def test_network_of_the_name_that_is_on_another_vlan_is_told(here):
    here.ensure_network(NetworkRef("cloudbr79", 79), soon())
    with pytest.raises(NetworkMissing, match="VLAN 79"):
        here.ensure_network(NetworkRef("cloudbr79", 80), soon())
    with pytest.raises(NetworkMissing, match="VLAN 79"):
        here.ensure_network(NetworkRef("cloudbr79"), soon())


def test_vlan_that_has_another_name_already_is_taken(xen, here):
    here.ensure_network(NetworkRef("cloudbr84", 84), soon())
    xen.db.set("network", xen.ref("network", "cloudbr84"), name_label="the guests' own")
    here.ensure_network(NetworkRef("cloudbr84", 84), soon())

    assert len(xen.db.where("VLAN", tag=84)) == 2


@pytest.mark.parametrize("vlan", [None, 5])
def test_network_of_the_name_without_a_tag_is_believed(xen, here, vlan):
    before = len(xen.db.rows("network"))
    here.ensure_network(NetworkRef(CARRIER, vlan), soon())

    assert len(xen.db.rows("network")) == before


def test_network_of_the_name_without_any_interface_has_no_vlan(xen, here):
    xen.db.create("network", name_label="internal")
    here.ensure_network(NetworkRef("internal"), soon())
    with pytest.raises(NetworkMissing, match="no interface"):
        here.ensure_network(NetworkRef("internal", 5), soon())


def test_network_is_looked_for_and_not_made(xen, here):
    wanted = NetworkRef("cloudbr4000", 4000)
    before = len(xen.db.rows("network"))

    assert not here.has_network(wanted, soon())
    assert len(xen.db.rows("network")) == before
    here.ensure_network(wanted, soon())
    assert here.has_network(wanted, soon())


def test_network_whose_maker_died_is_given_its_vlan(xen, here, there):
    network = NetworkRef("cloudbr86", 86)
    xen.faults.fail_next("pool.create_VLAN_from_PIF", "INTERNAL_ERROR", "x")
    xen.faults.fail_next("network.destroy", "INTERNAL_ERROR", "the worker has died")
    with pytest.raises(AskTheOperator):
        here.ensure_network(network, soon())
    spec = xen_spec(nics=(replace(OTHER_NIC, network=network),))
    here.ensure_root(spec.root, soon())
    with pytest.raises(NetworkMissing, match="yet"):
        here.define(spec, soon())
    there.ensure_network(network, soon())

    (made,) = xen.db.where("network", name_label=network.label)
    assert len(made["PIFs"]) == len(xen.db.where("VLAN", tag=86)) == 2


def test_network_that_another_process_takes_away_unfinished_is_made_by_the_next_try(xen, here):
    network = NetworkRef("cloudbr88", 88)
    xen.faults.before("pool.create_VLAN_from_PIF", lambda: xen.db.delete("network", xen.ref("network", network.label)))
    with pytest.raises(Busy):
        here.ensure_network(network, soon())
    here.ensure_network(network, soon())

    assert len(xen.db.where("VLAN", tag=88)) == 2


def test_network_that_two_processes_finish_at_once_is_finished_once(xen, here, there):
    network = NetworkRef("cloudbr87", 87)
    xen.faults.before("pool.create_VLAN_from_PIF", lambda: there.ensure_network(network, soon()))
    here.ensure_network(network, soon())

    assert len(xen.db.where("VLAN", tag=87)) == 2
    assert len(xen.db.where("network", name_label="cloudbr87")) == 1


def test_network_without_a_vlan_is_never_made(here):
    with pytest.raises(NetworkMissing, match="nothing"):
        here.ensure_network(NetworkRef("nothing"), soon())


def test_network_that_the_host_is_not_on(xen, here):
    lonely = xen.db.create("network", name_label="lonely")
    xen.db.create("PIF", network=lonely, host=xen.ref("host", "xen2"), device="eth1")
    with pytest.raises(NetworkMissing, match="no interface on network lonely"):
        here.ensure_network(NetworkRef("lonely", 5), soon())


def test_pool_without_a_network_for_guests_is_told_what_to_do(xen, here):
    xen.db.set("network", xen.ref("network", CARRIER), name_label="Pool-wide network")
    try:
        with pytest.raises(NetworkMissing, match=CARRIER):
            here.has_network(NetworkRef("cloudbr85", 85), soon())
        with pytest.raises(NetworkMissing, match=CARRIER):
            here.ensure_network(NetworkRef("cloudbr85", 85), soon())
    finally:
        xen.db.set("network", xen.ref("network", "Pool-wide network"), name_label=CARRIER)


def test_network_of_a_name_that_others_bear_too(xen, here):
    for device in ("eth1", "eth2"):
        twin = xen.db.create("network", name_label="twins")
        xen.db.create("PIF", network=twin, host=xen.ref("host", "xen1"), device=device)
    with pytest.raises(NetworkMissing, match="several"):
        here.ensure_network(NetworkRef("twins", 83), soon())


def test_failed_vlan_leaves_no_network_behind(xen, here):
    xen.faults.fail_next("pool.create_VLAN_from_PIF", "VLAN_TAG_INVALID", "81")
    with pytest.raises(Refused):
        here.ensure_network(NetworkRef("cloudbr81", 81), soon())

    assert not xen.db.where("network", name_label="cloudbr81")


def test_vlan_that_another_process_made_meanwhile_is_taken(xen, here, there):
    network = NetworkRef("cloudbr82", 82)
    xen.faults.before("network.create", lambda: there.ensure_network(network, soon()))
    here.ensure_network(network, soon())

    assert len(xen.db.where("VLAN", tag=82)) == 2
    assert len(xen.db.where("network", name_label="cloudbr82")) == 1


# Volumes -----------------------------------------------------------------------------------------


def test_root_volume_is_made_once(xen, here, there):
    root = xen_root()
    here.ensure_root(root, soon())
    there.ensure_root(root, soon())

    (vdi,) = xen.db.where("VDI", name_label=root.volume)
    assert vdi["SR"] == xen.ref("SR", PRIMARY)


def test_root_volume_is_copied_to_another_repository(xen, here):
    root = xen_root(pool="Local storage")
    here.ensure_root(root, soon())

    (vdi,) = xen.db.where("VDI", name_label=root.volume)
    assert xen.db.get("SR", vdi["SR"])["name_label"] == "Local storage"


def test_root_volume_lies_on_the_repository_of_its_own_host(xen, there):
    root = xen_root(pool="Local storage")
    there.ensure_root(root, soon())

    (vdi,) = xen.db.where("VDI", name_label=root.volume)
    (pbd,) = xen.db.get("SR", vdi["SR"])["PBDs"]
    assert xen.db.get("PBD", pbd)["host"] == xen.ref("host", "xen2")


def test_root_volume_on_another_host_s_storage_is_not_made_anew(xen, here, there):
    root = xen_root(pool="Local storage")
    here.ensure_root(root, soon())
    for refused in (there.ensure_root, lambda root, deadline: there.define(xen_spec(root=root), deadline)):
        with pytest.raises(Refused, match=r"of xen1: .* not shared"):
            refused(root, soon())

    assert len(xen.db.where("VDI", name_label=root.volume)) == 1
    there.delete_root(root, soon())
    assert not xen.db.where("VDI", name_label=root.volume)


def test_root_volume_that_was_moved_to_other_storage_is_the_vm_s(xen, here):
    root = xen_root()
    here.ensure_root(root, soon())
    original = xen.ref("VDI", root.volume)
    copy_by_hand(xen, original)
    xen.db.delete("VDI", original)
    here.ensure_root(root, soon())

    assert len(xen.db.where("VDI", name_label=root.volume)) == 1
    here.delete_root(root, soon())
    assert not xen.db.where("VDI", name_label=root.volume)


def test_copy_that_somebody_made_of_a_root_volume_is_not_the_vm_s(xen, here):
    root = xen_root()
    here.ensure_root(root, soon())
    copy = copy_by_hand(xen, xen.ref("VDI", root.volume))
    here.ensure_root(root, soon())
    here.delete_root(root, soon())

    assert [row.ref for row in xen.db.where("VDI", name_label=root.volume)] == [copy]


def test_root_volume_of_which_there_are_copies_alone_is_asked_for(xen, here):
    root = xen_root()
    here.ensure_root(root, soon())
    original = xen.ref("VDI", root.volume)
    for _ in range(2):
        copy_by_hand(xen, original)
    xen.db.delete("VDI", original)
    with pytest.raises(Refused, match="2 volumes"):
        here.ensure_root(root, soon())


def copy_by_hand(xen, vdi: str) -> str:
    with base_session(xen) as session:
        return session.run("VDI.copy", vdi, xen.ref("SR", PRIMARY))


def test_storage_says_whether_further_hosts_see_it(here):
    assert here.is_shared(PRIMARY, soon())
    assert not here.is_shared("Local storage", soon())
    with pytest.raises(StorageProblem, match="nothing"):
        here.is_shared("nothing", soon())


def test_room_of_a_storage(xen, here):
    repository = xen.db.get("SR", xen.ref("SR", PRIMARY))
    size, used = repository["physical_size"], repository["physical_utilisation"]
    xen.db.set("SR", repository.ref, physical_size=100, physical_utilisation=70)
    try:
        assert here.room(PRIMARY, soon()) == StorageRoom(100, 30)
    finally:
        xen.db.set("SR", repository.ref, physical_size=size, physical_utilisation=used)
    with pytest.raises(StorageProblem, match="nothing"):
        here.room("nothing", soon())


@pytest.mark.parametrize("pool", [PRIMARY, "Local storage"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_worker_that_dies_at_any_call_of_making_a_root_volume_leaves_nothing_for_ever(
    xen, here, monkeypatch, pool, when
):
    before = (len(xen.db.rows("VDI")), len(xen.db.rows("VM")))
    call = Session.call
    for dies_at in count(1):
        root, calls = xen_root(pool=pool, size=20 * GIB), count(1)

        def dying(self, *arguments, calls=calls, dies_at=dies_at, **named):
            is_the_one = next(calls) == dies_at
            if is_the_one and when == "before":
                raise SystemExit
            answer = call(self, *arguments, **named)
            if is_the_one:
                raise SystemExit
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(Session, "call", dying)
            try:
                here.ensure_root(root, soon())
                break
            except SystemExit:
                pass
        if dies_at % 2:
            here.ensure_root(root, soon())
            (made,) = xen.db.where("VDI", name_label=root.volume)
            assert int(made["virtual_size"]) == 20 * GIB
        here.delete_root(root, soon())
        assert (len(xen.db.rows("VDI")), len(xen.db.rows("VM"))) == before
    here.delete_root(root, soon())

    assert dies_at > 10


def test_templates_other_disks_are_not_cloned_for_good(xen, here):
    template = xen.ref("VM", "debian-12")
    data = xen.db.create("VDI", name_label="data", SR=xen.ref("SR", PRIMARY))
    vbd = xen.db.create("VBD", VM=template, VDI=data, type="Disk", userdevice="1")
    before = len(xen.db.rows("VDI"))
    root = xen_root()
    try:
        here.ensure_root(root, soon())

        assert len(xen.db.rows("VDI")) == before + 1
        assert len(xen.db.where("VDI", name_label="data")) == 1
    finally:
        here.delete_root(root, soon())
        xen.db.delete("VBD", vbd)
        xen.db.delete("VDI", data)


def test_root_volumes_are_cloned_side_by_side(xen, here):
    xen.pace["clone"] = 0.3
    roots = [xen_root() for _ in range(4)]
    with ThreadPoolExecutor(len(roots)) as workers:
        list(workers.map(lambda root: here.ensure_root(root, soon()), roots))

    assert all(xen.db.where("VDI", name_label=root.volume) for root in roots)


def die(*_arguments):
    raise SystemExit


def test_copy_that_outlives_its_worker_is_waited_for(xen, here):
    root = xen_root(pool="Local storage")
    xen.pace["copy"] = 1.0
    before = len(xen.db.rows("VDI"))
    with pytest.raises(SystemExit), base.heartbeat(die):
        here.ensure_root(root, soon())
    here.ensure_root(root, soon())

    assert len(xen.db.rows("VDI")) == before + 1
    assert len(xen.db.where("VDI", name_label=root.volume)) == 1


@pytest.mark.parametrize("pool", [PRIMARY, "Local storage"])
def test_root_volume_is_given_its_size(xen, here, pool):
    root = xen_root(size=20 * GIB, pool=pool)
    here.ensure_root(root, soon())

    (vdi,) = xen.db.where("VDI", name_label=root.volume)
    assert int(vdi["virtual_size"]) == 20 * GIB


def test_root_volume_smaller_than_its_template_is_refused(here):
    with pytest.raises(Refused, match="larger"):
        here.ensure_root(xen_root(size=GIB), soon())


@pytest.mark.parametrize(("fields", "error"), [({"image": "nothing"}, NotFound), ({"pool": "nothing"}, StorageProblem)])
def test_root_volume_of_what_is_not_there(here, fields, error):
    with pytest.raises(error, match="nothing"):
        here.ensure_root(xen_root(**fields), soon())


def test_template_of_a_name_that_others_bear_too(xen, here):
    for _ in range(2):
        xen.db.create("VM", name_label="twins", is_a_template=True)
    with pytest.raises(Refused, match="2 templates"):
        here.ensure_root(xen_root(image="twins"), soon())


def test_template_without_a_disk_is_refused(xen, here):
    xen.db.create("VM", name_label="empty", is_a_template=True)
    with pytest.raises(Refused, match="no disk"):
        here.ensure_root(xen_root(image="empty"), soon())


def test_repository_that_the_host_is_not_plugged_into(xen, here):
    (pbd,) = [row for row in xen.db.where("PBD", SR=xen.ref("SR", PRIMARY)) if row["host"] == xen.ref("host", "xen1")]
    xen.db.set("PBD", pbd.ref, currently_attached=False)
    try:
        with pytest.raises(StorageProblem, match="not plugged"):
            here.ensure_root(xen_root(), soon())
    finally:
        xen.db.set("PBD", pbd.ref, currently_attached=True)


def test_full_repository_is_told_as_such(xen, here):
    xen.faults.fail_next("Async.VM.clone", "SR_BACKEND_FAILURE_44", "", "no space", "")
    with pytest.raises(StorageProblem, match="full"):
        here.ensure_root(xen_root(), soon())


def test_root_volume_that_fails_half_way_leaves_nothing_behind(xen, here):
    before = {row.ref for row in xen.db.rows("VDI")}
    xen.faults.fail_next("VDI.set_name_label", "INTERNAL_ERROR", "boom")
    with pytest.raises(AskTheOperator):
        here.ensure_root(xen_root(), soon())

    assert {row.ref for row in xen.db.rows("VDI")} == before


def test_deleted_root_volume_is_gone_and_deleting_it_again_is_success(xen, here):
    root = xen_root()
    here.ensure_root(root, soon())
    here.delete_root(root, soon())
    here.delete_root(root, soon())

    assert not xen.db.where("VDI", name_label=root.volume)


def test_disk_of_others_is_not_deleted(xen, here):
    root = xen_root(volume="somebody-s-disk")
    xen.db.create("VDI", name_label=root.volume, SR=xen.ref("SR", PRIMARY))
    here.delete_root(root, soon())

    assert xen.db.where("VDI", name_label=root.volume)


def test_root_volume_of_a_running_vm_is_in_use(here):
    root = xen_root()
    started(here, root=root)
    with pytest.raises(Busy):
        here.delete_root(root, soon())


# Defining ----------------------------------------------------------------------------------------


def test_vm_is_defined_from_its_template(xen, here):
    vm = defined(here, title="A <VM>", cpus=3, memory=GIB)

    row = xen.db.get("VM", ref_of(xen, vm))
    template = xen.db.get("VM", xen.ref("VM", "debian-12"))
    assert (row["name_description"], row["VCPUs_max"], row["memory_static_max"]) == ("A <VM>", 3, GIB)
    assert row["platform"] == template["platform"]
    assert row["HVM_boot_params"] == template["HVM_boot_params"]
    assert here.power_state(vm, soon()) is PowerState.OFF


def test_defining_again_makes_the_vm_anew(xen, here):
    spec = xen_spec()
    defined(here, spec.vm, root=spec.root)
    here.define(replace(spec, cpus=4), soon())

    assert xen.db.get("VM", ref_of(xen, spec.vm))["VCPUs_max"] == 4
    assert xen.db.where("VDI", name_label=spec.root.volume)


def test_defining_a_running_vm_leaves_it_as_it_is(xen, here):
    spec = xen_spec()
    vm = started(here, spec.vm, root=spec.root)
    before = ref_of(xen, vm)
    here.define(replace(spec, cpus=4), soon())

    assert ref_of(xen, vm) == before


def test_vm_boots_from_a_disk_and_no_kernel(here):
    with pytest.raises(Refused):
        here.define(xen_spec(root=KERNEL), soon())


def test_name_of_another_vm_is_refused(xen, here):
    vm = make_vm()
    xen.db.create("VM", name_label=vm.name)
    with pytest.raises(Refused, match="has the name"):
        defined(here, vm)


def test_uuid_of_a_vm_of_others_is_refused(xen, here):
    (foreign,) = xen.add_vms(1)
    vm = make_vm(uuid=xen.db.get("VM", foreign)["uuid"])
    with pytest.raises(Refused, match="not ours"):
        defined(here, vm)


def test_definition_that_fails_half_way_leaves_no_vm_behind(xen, here):
    vm = make_vm()
    xen.faults.fail_next("VIF.create", "MAC_INVALID", "x")
    with pytest.raises(Refused):
        defined(here, vm)

    assert not xen.db.where("VM", name_label=vm.name)


def test_vm_without_its_root_volume_is_not_defined(here):
    here.ensure_network(NETWORK, soon())
    with pytest.raises(NotFound, match="ROOT"):
        here.define(xen_spec(), soon())


def test_vm_on_a_network_that_was_not_made_is_not_defined(here):
    spec = xen_spec(nics=(NicSpec(OTHER_NIC.mac, NetworkRef("cloudbr999", 999)),))
    here.ensure_root(spec.root, soon())
    with pytest.raises(NetworkMissing, match="999"):
        here.define(spec, soon())


def test_uuid_that_is_none_is_refused(here):
    with pytest.raises(Refused, match="UUID"):
        here.power_state(make_vm(uuid="x"), soon())


def test_pool_as_a_whole_defines_nothing(xen):
    with pytest.raises(Refused, match="Which host"):
        host_of(xen, "").define(xen_spec(), soon())


@pytest.mark.parametrize("name", ["a b", "x</name>", "", "-rf", "a\x00b", "x" * 200])
def test_odd_names_of_vms_are_refused(here, name):
    with pytest.raises(Refused):
        here.define(xen_spec(make_vm(name=name)), soon())


@pytest.mark.parametrize("title", ['<&>"', "Grüße ☃ ‮", "tab\tand\x01control", "x" * 500])
def test_odd_titles_are_carried(here, title):
    defined(here, title=title)


# Starting and stopping ---------------------------------------------------------------------------


def test_vm_starts_on_the_host_that_it_is_put_on(xen, there):
    vm = started(there)

    assert xen.db.get("VM", ref_of(xen, vm))["resident_on"] == xen.ref("host", "xen2")


def test_starting_again_is_success(here):
    here.start(started(here), soon())


def test_start_on_another_host_of_what_runs_is_refused(here, there):
    with pytest.raises(Refused, match="another host"):
        there.start(started(here), soon())


def test_start_that_somebody_else_did_meanwhile_is_success(xen, here):
    vm = defined(here)
    xen.faults.before("Async.VM.start_on", lambda: host_of(xen).start(vm, soon()))
    here.start(vm, soon())

    assert here.power_state(vm, soon()) is PowerState.RUNNING


def test_paused_vm_goes_on(xen, here):
    vm = started(here)
    xen.db.set("VM", ref_of(xen, vm), power_state="Paused")
    assert here.power_state(vm, soon()) is PowerState.PAUSED

    here.start(vm, soon())

    assert here.power_state(vm, soon()) is PowerState.RUNNING


def test_suspended_vm_goes_on_where_it_is_put(xen, here, there):
    vm = started(here)
    with base_session(xen) as session:
        session.run("VM.suspend", ref_of(xen, vm))
    assert here.power_state(vm, soon()) is PowerState.PAUSED

    there.start(vm, soon())

    assert there.power_state(vm, soon()) is PowerState.RUNNING


def test_host_without_memory_is_told_as_such(here):
    with pytest.raises(AskTheOperator, match="memory"):
        started(here, memory=10_000 * GIB)


def test_start_of_what_is_not_there(here):
    with pytest.raises(NotFound):
        here.start(make_vm(), soon())


def test_start_of_a_vm_of_others_is_refused(xen, here):
    (foreign,) = xen.add_vms(1)
    row = xen.db.get("VM", foreign)
    with pytest.raises(Refused, match="not ours"):
        here.start(make_vm(name=row["name_label"], uuid=row["uuid"]), soon())


def test_guest_is_asked_to_shut_down(xen, here):
    vm = started(here)
    before = xen.calls["Async.VM.hard_shutdown"]
    here.stop(vm, soon(), grace=10)

    assert here.power_state(vm, soon()) is PowerState.OFF
    assert xen.calls["Async.VM.hard_shutdown"] == before


def test_guest_that_does_not_listen_has_its_power_cut(xen, here):
    vm = started(here)
    xen.guests.ignores_shutdown(ref_of(xen, vm))
    xen.guests.shutdown_seconds = 60
    try:
        begun = time.monotonic()
        here.stop(vm, soon(), grace=0.5)
    finally:
        xen.guests.shutdown_seconds = 0.2

    assert here.power_state(vm, soon()) is PowerState.OFF
    assert time.monotonic() - begun < 10


def test_guest_without_tools_cannot_be_asked(xen, here):
    vm = started(here)
    xen.guests.without_drivers(ref_of(xen, vm))
    here.stop(vm, soon(), grace=60)

    assert here.power_state(vm, soon()) is PowerState.OFF


def test_power_is_cut_at_once_without_grace(xen, here):
    vm = started(here)
    before = xen.calls["Async.VM.clean_shutdown"]
    here.stop(vm, soon(), grace=0)

    assert here.power_state(vm, soon()) is PowerState.OFF
    assert xen.calls["Async.VM.clean_shutdown"] == before


def test_stopping_again_is_success(here):
    vm = defined(here)
    here.stop(vm, soon(), grace=0)
    here.stop(make_vm(), soon(), grace=0)


def test_stop_reaches_a_vm_that_was_moved_behind_our_back(here, there):
    vm = started(here)
    here.migrate(vm, there, soon())
    here.stop(vm, soon(), grace=0)

    assert there.power_state(vm, soon()) is PowerState.OFF
    here.start(vm, soon())
    assert here.power_state(vm, soon()) is PowerState.RUNNING


def test_reboot_keeps_the_vm_running(xen, here):
    vm = started(here)
    before = xen.calls["Async.VM.hard_reboot"]
    here.reboot(vm, soon())

    assert here.power_state(vm, soon()) is PowerState.RUNNING
    assert xen.calls["Async.VM.hard_reboot"] == before + 1


def test_reboot_reaches_a_vm_that_was_moved_behind_our_back(here, there):
    vm = started(here)
    here.migrate(vm, there, soon())
    here.reboot(vm, soon())

    assert there.power_state(vm, soon()) is PowerState.RUNNING


def test_undefined_vm_is_gone_and_its_root_volume_is_there(xen, here):
    root = xen_root()
    vm = started(here, root=root)
    here.undefine(vm, soon())
    here.undefine(vm, soon())

    assert here.power_state(vm, soon()) is None
    assert xen.db.where("VDI", name_label=root.volume)
    assert not xen.db.where("VM", name_label=vm.name)


def test_undefine_reaches_a_vm_that_was_moved_behind_our_back(here, there):
    root = xen_root()
    vm = started(here, root=root)
    here.migrate(vm, there, soon())
    here.undefine(vm, soon())

    assert there.power_state(vm, soon()) is None
    here.delete_root(root, soon())


def test_undefine_of_a_vm_of_others_is_refused(xen, here):
    (foreign,) = xen.add_vms(1)
    row = xen.db.get("VM", foreign)
    with pytest.raises(Refused, match="not ours"):
        host_of(xen, "").undefine(make_vm(name=row["name_label"], uuid=row["uuid"]), soon())


def test_cut_waits_for_an_operation_that_is_being_cancelled(xen, here):
    vm = started(here)
    xen.faults.fail_next("Async.VM.hard_shutdown", "OTHER_OPERATION_IN_PROGRESS", "VM", "x", "clean_shutdown")
    here.stop(vm, soon(), grace=0)

    assert here.power_state(vm, soon()) is PowerState.OFF


def test_cut_waits_no_longer_than_its_deadline(xen, here):
    vm = started(here)
    for _ in range(20):
        xen.faults.fail_next("Async.VM.hard_shutdown", "OTHER_OPERATION_IN_PROGRESS", "VM", "x", "clean_shutdown")
    begun = time.monotonic()
    with pytest.raises(Busy):
        here.stop(vm, soon(2), grace=0)

    assert time.monotonic() - begun < 3


def test_cut_that_is_refused_is_told(xen, here):
    vm = started(here)
    xen.faults.fail_next("Async.VM.hard_shutdown", "OPERATION_BLOCKED", "x", "y")
    with pytest.raises(Refused, match="blocked"):
        here.stop(vm, soon(), grace=0)


def test_operation_of_others_is_waited_out_by_the_next_try(xen, here):
    vm = started(here)
    xen.faults.fail_next("Async.VM.hard_reboot", "OTHER_OPERATION_IN_PROGRESS", "VM", "x", "pool_migrate")
    with pytest.raises(Busy):
        here.reboot(vm, soon())
    here.reboot(vm, soon())


# Moving ------------------------------------------------------------------------------------------


def test_running_vm_moves(here, there):
    vm = started(here)
    here.migrate(vm, there, soon())

    assert here.power_state(vm, soon()) is None
    assert there.power_state(vm, soon()) is PowerState.RUNNING


def test_moving_again_what_went_over_is_success(here, there):
    vm = started(here)
    here.migrate(vm, there, soon())
    here.migrate(vm, there, soon())


def test_vm_that_is_off_does_not_move(here, there):
    with pytest.raises(Refused, match="does not run"):
        here.migrate(defined(here), there, soon())


def test_root_on_a_local_repository_does_not_move(here, there):
    vm = started(here, root=xen_root(pool="Local storage"))
    with pytest.raises(Refused, match="storage"):
        here.migrate(vm, there, soon())
    assert here.power_state(vm, soon()) is PowerState.RUNNING


def test_move_that_takes_too_long_is_cancelled(xen, here, there):
    vm = started(here)
    xen.pace["pool_migrate"] = 30
    with pytest.raises(Busy, match="cancelled"):
        here.migrate(vm, there, soon(2))

    assert here.power_state(vm, soon()) is PowerState.RUNNING
    assert xen.calls["task.cancel"] >= 1


def test_move_from_where_the_vm_is_not_is_refused(xen, here, there):
    with pool(hosts=3) as three:
        vm = started(host_of(three, "xen1"))
        with pytest.raises(Refused, match="another host"):
            host_of(three, "xen2").migrate(vm, host_of(three, "xen3"), soon())


def test_move_to_another_pool_is_refused(xen, here):
    with pytest.raises(Refused, match="within its pool"):
        here.migrate(make_vm(), XenHost(address_of(xen, username="other"), "xen2"), soon())


# NICs --------------------------------------------------------------------------------------------


def test_nic_is_added_to_a_running_vm(here):
    vm = started(here)
    assert here.nic_state(vm, OTHER_NIC, soon()) is NicState.ABSENT
    here.add_nic(vm, OTHER_NIC, soon())
    here.add_nic(vm, OTHER_NIC, soon())

    assert here.nic_state(vm, OTHER_NIC, soon()) is NicState.PLUGGED


def test_nic_is_added_to_a_vm_that_is_off(here):
    vm = defined(here)
    here.add_nic(vm, OTHER_NIC, soon())
    here.start(vm, soon())

    assert here.nic_state(vm, OTHER_NIC, soon()) is NicState.PLUGGED


def test_nic_is_taken_from_a_running_vm(xen, here):
    vm = started(here)
    here.remove_nic(vm, vm.macs[0], soon())
    here.remove_nic(vm, vm.macs[0], soon())

    assert here.nic_state(vm, NicSpec(vm.macs[0], NETWORK), soon()) is NicState.ABSENT
    assert not xen.db.get("VM", ref_of(xen, vm))["VIFs"]


def test_nic_that_the_guest_holds_on_to(xen, here):
    vm = started(here)
    xen.faults.fail_next("Async.VIF.unplug", "DEVICE_DETACH_REJECTED", "VIF", "x", "no")
    with pytest.raises(Busy):
        here.remove_nic(vm, vm.macs[0], soon())

    assert here.nic_state(vm, NicSpec(vm.macs[0], NETWORK), soon()) is NicState.PLUGGED


def test_nic_that_cannot_be_plugged_leaves_nothing_behind(xen, here):
    vm = started(here)
    xen.faults.fail_next("Async.VIF.plug", "VM_MISSING_PV_DRIVERS", "x")
    with pytest.raises(Refused):
        here.add_nic(vm, OTHER_NIC, soon())

    assert len(xen.db.get("VM", ref_of(xen, vm))["VIFs"]) == 1


def test_nic_on_another_network_is_elsewhere(here):
    vm = started(here)
    here.ensure_network(NetworkRef("cloudbr101", 101), soon())

    assert here.nic_state(vm, NicSpec(vm.macs[0], NetworkRef("cloudbr101", 101)), soon()) is NicState.ELSEWHERE


def test_nic_that_was_unplugged_is_absent(xen, here):
    vm = started(here)
    (vif,) = xen.db.get("VM", ref_of(xen, vm))["VIFs"]
    xen.db.set("VIF", vif, currently_attached=False)

    assert here.nic_state(vm, NicSpec(vm.macs[0], NETWORK), soon()) is NicState.ABSENT


def test_nic_of_a_network_that_is_not_there_is_elsewhere(here):
    vm = started(here)

    assert here.nic_state(vm, NicSpec(vm.macs[0], NetworkRef("cloudbr998", 998)), soon()) is NicState.ELSEWHERE


def test_vm_with_as_many_nics_as_it_can_have(here):
    vm = defined(here)
    for number in range(6):
        here.add_nic(vm, NicSpec(f"02:00:00:00:88:0{number}", NETWORK), soon())
    with pytest.raises(Refused, match="as many"):
        here.add_nic(vm, OTHER_NIC, soon())


def test_nic_that_is_locked_has_its_link_down(xen, here):
    vm = started(here)
    (vif,) = xen.db.get("VM", ref_of(xen, vm))["VIFs"]
    xen.db.set("VIF", vif, locking_mode="disabled")

    assert here.nic_state(vm, NicSpec(vm.macs[0], NETWORK), soon()) is NicState.LINK_DOWN


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "02:00:00:00:00", "02-00-00-00-00-01", ""])
def test_address_that_no_nic_can_have_is_refused(here, mac):
    with pytest.raises(Refused):
        here.remove_nic(defined(here), mac, soon())


def test_nic_of_what_is_not_there(here):
    with pytest.raises(NotFound):
        here.add_nic(make_vm(), OTHER_NIC, soon())
