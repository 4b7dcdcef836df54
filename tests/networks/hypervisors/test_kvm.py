"""The driver on libvirt's test driver inside this process, and on a connection made up for what it cannot show."""

import json
import threading
import time
import traceback
from types import SimpleNamespace

import libvirt
import libvirt_qemu
import pytest

from networks.hypervisors import kvm_agent, kvm_devices, kvm_guest, kvm_storage, kvm_xml
from networks.hypervisors.base import (
    AgentAbsent,
    AskTheOperator,
    Busy,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    Media,
    MediaFile,
    NetworkMissing,
    NetworkRef,
    NicSpec,
    NicState,
    NotFound,
    Outcome,
    PowerState,
    Refused,
    Source,
    StorageProblem,
    StorageRoom,
    Transport,
)
from networks.hypervisors.kvm import KvmHost
from networks.hypervisors.kvm_connection import CONNECTIONS, Session
from tests.networks.hypervisors.factories import IN_PROCESS, make_root, make_spec, make_vm, soon

BASE_IMAGE = """<volume><name>base.qcow2</name><capacity unit='bytes'>1048576</capacity>
<target><format type='qcow2'/></target></volume>"""


@pytest.fixture
def connection():
    connection = CONNECTIONS.acquire(IN_PROCESS, soon())
    yield connection
    CONNECTIONS.release(IN_PROCESS, connection)


@pytest.fixture
def host(connection):
    """A test driver whose VMs, volumes and ISOs go after the test: it is one for the whole process."""
    pool = connection.storagePoolLookupByName("default-pool")
    pool.createXML(BASE_IMAGE, 0)
    yield KvmHost(IN_PROCESS)
    for domain in connection.listAllDomains(0):
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    for pool in connection.listAllStoragePools(0):
        for volume in pool.listAllVolumes(0):
            volume.delete(0)


@pytest.fixture
def running(host):
    vm = make_vm()
    host.define(make_spec(vm), soon())
    host.start(vm, soon())
    return vm


# Life cycle -------------------------------------------------------------------------------------


def test_host_says_what_it_is(host):
    facts = host.host_facts(soon())

    assert facts.memory == 3 * 1024**3
    assert facts.cpus == 16
    assert "libvirt" in facts.version


def test_vm_from_definition_to_its_end(host):
    vm = make_vm(macs=("52:54:00:00:03:01", "52:54:00:00:03:02"))
    assert host.power_state(vm, soon()) is None

    host.define(make_spec(vm), soon())
    assert host.power_state(vm, soon()) is PowerState.OFF
    host.start(vm, soon())
    assert host.power_state(vm, soon()) is PowerState.RUNNING
    assert vm in [record.vm for record in host.list_vms(soon())]
    host.reboot(vm, soon())
    host.stop(vm, soon(), grace=5)
    assert host.power_state(vm, soon()) is PowerState.OFF
    host.undefine(vm, soon())
    assert host.power_state(vm, soon()) is None


def test_what_runs_is_asked_in_one_question(host, connection, running, monkeypatch):
    off, paused, another = make_vm(), make_vm(), make_vm()
    for vm in (off, paused, another):
        host.define(make_spec(vm), soon())
    for vm in (paused, another):
        host.start(vm, soon())
    connection.lookupByUUIDString(paused.uuid).suspend()
    asked, do = [], Session.do
    monkeypatch.setattr(
        Session, "do", lambda self, call, *args, **kw: asked.append(call) or do(self, call, *args, **kw)
    )

    uuids = host.running_vms(soon())

    assert {running.uuid, another.uuid} <= uuids
    assert uuids.isdisjoint({off.uuid, paused.uuid})
    assert len(asked) == 1


def test_what_is_done_already_is_success(host):
    vm, root = make_vm(), make_root()
    for _ in range(2):
        host.ensure_root(root, soon())
        host.define(make_spec(vm, root=root), soon())
    for act in (
        lambda: host.start(vm, soon()),
        lambda: host.stop(vm, soon(), grace=0),
        lambda: host.undefine(vm, soon()),
        lambda: host.stop(vm, soon(), grace=0),
        lambda: host.delete_root(root, soon()),
    ):
        act()
        act()


def test_unknown_vm_cannot_be_started_or_rebooted(host):
    for act in (host.start, host.reboot):
        with pytest.raises(NotFound):
            act(make_vm(), soon())


def test_running_vm_is_cut_off_by_undefine(host, running):
    host.undefine(running, soon())

    assert host.power_state(running, soon()) is None


def test_domain_that_others_made_is_never_touched(host, connection):
    foreign = make_vm(macs=())
    connection.defineXML(
        f"<domain type='test'><name>{foreign.name}</name><uuid>{foreign.uuid}</uuid><memory>1024</memory>"
        "<os><type>hvm</type></os></domain>"
    )
    before = connection.lookupByName(foreign.name).XMLDesc(0)

    for act in (
        lambda: host.define(make_spec(foreign), soon()),
        lambda: host.define(make_spec(make_vm(name=foreign.name)), soon()),
        lambda: host.define(make_spec(make_vm(uuid=foreign.uuid)), soon()),
        lambda: host.start(foreign, soon()),
        lambda: host.stop(foreign, soon(), grace=0),
        lambda: host.reboot(foreign, soon()),
        lambda: host.insert(foreign, None, soon()),
        lambda: host.undefine(foreign, soon()),
    ):
        with pytest.raises(Refused):
            act()

    assert connection.lookupByName(foreign.name).XMLDesc(0) == before
    assert foreign.name in [record.vm.name for record in host.list_vms(soon())]


def test_vm_of_ours_is_not_replaced_by_another_of_its_name(host, running):
    with pytest.raises(Refused):
        host.define(make_spec(make_vm(name=running.name)), soon())


# Volumes ----------------------------------------------------------------------------------------


def test_root_volume_is_an_overlay_of_its_image(host, connection):
    root = make_root(size=2 * 1024 * 1024)

    host.ensure_root(root, soon())

    volume = connection.storagePoolLookupByName("default-pool").storageVolLookupByName(root.volume)
    assert volume.info()[1] == 2 * 1024 * 1024
    assert "base.qcow2" in volume.XMLDesc(0)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"image": "nothing.qcow2"}, NotFound),
        ({"pool": "nothing"}, StorageProblem),
        ({"size": 512}, Refused),
        ({"volume": "../x"}, Refused),
        ({"image_format": "vmdk"}, Refused),
    ],
)
def test_root_volume_that_cannot_be_made(host, fields, error):
    with pytest.raises(error):
        host.ensure_root(make_root(**fields), soon())


def test_image_that_reads_from_another_file_is_refused(host):
    overlay = make_root()
    host.ensure_root(overlay, soon())

    with pytest.raises(Refused, match="another file"):
        host.ensure_root(make_root(image=overlay.volume), soon())


def test_vm_without_its_root_volume_is_not_defined(host):
    with pytest.raises(NotFound):
        host.define(make_spec(root=make_root()), soon())


# Config drives ----------------------------------------------------------------------------------


def test_iso_is_placed_listed_inserted_and_removed(host, connection):
    vm = make_vm()
    host.define(make_spec(vm), soon())

    media = host.place("i-2-3-VM-1-ab12.iso", b"x" * 4096, soon())
    host.place("i-2-3-VM-1-ab12.iso", b"x" * 2048, soon())  # made anew, not written over
    assert host.list_media(soon()) == [MediaFile(media.name, 2048)]
    host.insert(vm, media, soon())
    assert media.path in connection.lookupByName(vm.name).XMLDesc(0)
    assert host.inserted(vm, soon()) == media.path
    host.start(vm, soon())
    assert host.inserted(vm, soon()) == media.path
    host.stop(vm, soon(), grace=0)
    host.insert(vm, None, soon())
    assert media.path not in connection.lookupByName(vm.name).XMLDesc(0)
    assert host.inserted(vm, soon()) is None
    for _ in range(2):
        host.remove(media.name, soon())
    assert host.list_media(soon()) == []


def test_size_of_a_name_used_again_is_the_new_one(host, connection):
    for size in (8192, 2048):
        media = host.place("i-2-3-VM-1-ab12.iso", b"x" * size, soon())

    assert connection.storageVolLookupByPath(media.path).info()[1] == 2048


def test_only_isos_are_listed(host, connection):
    host.place("i-2-3-VM-1-ab12.iso", b"x", soon())
    pool = connection.storagePoolLookupByName(kvm_storage.MEDIA_POOL)
    pool.createXML("<volume><name>notes.txt</name><capacity>1</capacity></volume>", 0)

    assert host.list_media(soon()) == [MediaFile("i-2-3-VM-1-ab12.iso", 1)]


def test_one_iso_is_asked_for_by_its_name(host):
    for name in ("i-2-3-VM-1-ab12.iso", "i-2-4-VM-1-ab12.iso"):
        host.place(name, b"x", soon())

    assert host.list_media(soon(), name="i-2-4-VM-1-ab12.iso") == [MediaFile("i-2-4-VM-1-ab12.iso", 1)]
    assert host.list_media(soon(), name="i-2-5-VM-1-ab12.iso") == []
    with pytest.raises(Refused):
        host.list_media(soon(), name="../x.iso")


@pytest.mark.parametrize("name", ["../x.iso", "x", "x.iso\n", "a_b.iso", "x/y.iso", ""])
def test_name_that_is_no_isos_is_refused(host, name):
    for act in (
        lambda: host.place(name, b"x", soon()),
        lambda: host.read(name, soon()),
        lambda: host.remove(name, soon()),
    ):
        with pytest.raises(Refused):
            act()


def test_missing_iso_is_not_found(host):
    with pytest.raises(NotFound):
        host.read("i-2-3-VM-1-ab12.iso", soon())


def test_iso_larger_than_any_config_drive_is_refused(host, monkeypatch):
    monkeypatch.setattr(kvm_storage, "MEDIA_MAX_BYTES", 4)
    with pytest.raises(Refused):
        host.place("i-2-3-VM-1-ab12.iso", b"12345", soon())


def test_test_driver_refuses_to_change_a_running_vms_cdrom(host, running):
    with pytest.raises(Refused):
        host.insert(running, None, soon())


def test_what_the_test_driver_says_was_read_is_not_believed(host, running):
    assert host.bytes_read(running, soon()) is None


def test_drive_of_an_unknown_vm_is_not_found(host):
    for act in (host.inserted, host.bytes_read):
        with pytest.raises(NotFound):
            act(make_vm(), soon())


def test_iso_lies_beside_the_root_volumes_of_its_storage(host, connection):
    media = host.place("i-2-3-VM-1-ab12.iso", b"x" * 2048, soon(), storage="default-pool")

    assert media.path == "/default-pool/extdhcp-configdrive/i-2-3-VM-1-ab12.iso"
    assert host.list_media(soon(), storage="default-pool") == [MediaFile(media.name, 2048)]
    assert host.list_media(soon()) == []
    for _ in range(2):
        host.remove(media.name, soon(), storage="default-pool")
    assert host.list_media(soon(), storage="default-pool") == []


def test_same_name_in_two_storages_is_two_files(host):
    host.place("i-2-3-VM-1-ab12.iso", b"x", soon())
    host.place("i-2-3-VM-1-ab12.iso", b"x", soon(), storage="default-pool")

    host.remove("i-2-3-VM-1-ab12.iso", soon(), storage="default-pool")

    assert len(host.list_media(soon())) == 1


def in_storage(host, storage):
    """Everything that is done with an ISO in a storage."""
    name = "i-2-3-VM-1-ab12.iso"
    return [
        lambda: host.place(name, b"x", soon(), storage=storage),
        lambda: host.read(name, soon(), storage=storage),
        lambda: host.remove(name, soon(), storage=storage),
        lambda: host.list_media(soon(), storage=storage),
    ]


@pytest.fixture
def pool_of_devices(connection):
    pool = connection.storagePoolDefineXML(
        "<pool type='logical'><name>vg0</name><source><name>vg0</name></source>"
        "<target><path>/dev/vg0</path></target></pool>",
        0,
    )
    pool.create(0)
    yield "vg0"
    pool.destroy()
    pool.undefine()


def test_storage_of_devices_holds_no_iso(host, pool_of_devices):
    for act in in_storage(host, pool_of_devices):
        with pytest.raises(Refused, match="holds no files"):
            act()


def test_room_of_a_storage(host, connection):
    _, total, _, free = connection.storagePoolLookupByName("default-pool").info()
    assert host.room("default-pool", soon()) == StorageRoom(total, free)
    assert total > 0
    with pytest.raises(StorageProblem):
        host.room("nothing", soon())


@pytest.mark.parametrize("storage", ["nothing", "stopped"])
def test_storage_that_is_not_in_use_is_named(host, connection, storage):
    pool = connection.storagePoolDefineXML(
        "<pool type='dir'><name>stopped</name><target><path>/stopped</path></target></pool>", 0
    )
    try:
        for act in in_storage(host, storage):
            with pytest.raises(StorageProblem):
                act()
        with pytest.raises(StorageProblem, match=f"storage pool {storage} of host this machine"):
            host.place("i-2-3-VM-1-ab12.iso", b"x", soon(), storage=storage)
    finally:
        pool.undefine()


def test_storage_that_was_moved_says_which_pool_to_remove(host, connection):
    host.list_media(soon(), storage="default-pool")
    ours = connection.storagePoolLookupByName("extdhcp-configdrive-default-pool")
    ours.destroy()
    ours.undefine()
    moved = "<pool type='dir'><name>extdhcp-configdrive-default-pool</name><target><path>/else</path></target></pool>"
    moved = connection.storagePoolDefineXML(moved, 0)
    try:
        with pytest.raises(StorageProblem, match="undefine that pool"):
            host.list_media(soon(), storage="default-pool")
    finally:
        if moved.isActive():
            moved.destroy()
        moved.undefine()


# NICs -------------------------------------------------------------------------------------------


def test_nics_of_a_vm_that_is_off(host, connection):
    vm = make_vm(macs=("52:54:00:00:03:01",))
    host.define(make_spec(vm), soon())
    more = NicSpec("52:54:00:00:03:02", NetworkRef("cloudbr100", 100))

    for _ in range(2):
        host.add_nic(vm, more, soon())
    ((record,),) = [[record for record in host.list_vms(soon()) if record.vm.uuid == vm.uuid]]
    assert record.vm.macs == ("52:54:00:00:03:01", "52:54:00:00:03:02")
    for _ in range(2):
        host.remove_nic(vm, "52:54:00:00:03:01", soon())
    ((record,),) = [[record for record in host.list_vms(soon()) if record.vm.uuid == vm.uuid]]
    assert record.vm.macs == ("52:54:00:00:03:02",)
    host.start(vm, soon())


def test_test_driver_refuses_to_plug_into_a_running_vm(host, running):
    with pytest.raises(Refused):
        host.add_nic(running, NicSpec("52:54:00:00:03:02", NetworkRef("cloudbr100", 100)), soon())
    with pytest.raises(Refused):
        host.remove_nic(running, running.macs[0], soon())
    assert [record.vm.macs for record in host.list_vms(soon()) if record.vm == running] == [running.macs]


@pytest.mark.parametrize("mac", ["", "52:54:00:00:03", "53:54:00:00:03:02", "52:54:00:00:03:AB"])
def test_mac_that_is_none_is_refused(host, running, mac):
    with pytest.raises(Refused):
        host.remove_nic(running, mac, soon())
    with pytest.raises(Refused):
        host.add_nic(running, NicSpec(mac, NetworkRef("cloudbr100", 100)), soon())


# The guest agent --------------------------------------------------------------------------------


def test_test_drivers_guests_have_no_files(host, running):
    with pytest.raises(AgentAbsent):
        host.read_guest_file(running, "/etc/hostname", soon())


def test_vm_that_is_not_there_has_no_agent(host):
    with pytest.raises(NotFound):
        host.set_password(make_vm(), "root", "secret", soon())
    with pytest.raises(NotFound):
        host.read_guest_file(make_vm(), "/etc/hostname", soon())


def test_test_driver_does_not_tell_whether_an_agent_is_connected(host, running):
    assert host.agent_state(running, soon()) is None


def test_nic_is_there_or_not(host, running):
    """The test driver has one network, whatever bridge was asked for."""
    network = NetworkRef("cloudbr100", 100)
    assert host.nic_state(running, NicSpec(running.macs[0], network), soon()) is NicState.PLUGGED
    assert host.nic_state(running, NicSpec("52:54:00:00:ee:ee", network), soon()) is NicState.ABSENT
    with pytest.raises(NotFound):
        host.nic_state(make_vm(), NicSpec("52:54:00:00:ee:ee", network), soon())


# Addresses --------------------------------------------------------------------------------------


def test_test_driver_invents_an_address_for_each_nic(host):
    vm = make_vm(macs=("52:54:00:00:03:01", "52:54:00:00:03:02"))
    host.define(make_spec(vm), soon())
    host.start(vm, soon())

    ((read_vm, reading),) = host.read_addresses([vm], soon())

    assert read_vm == vm
    assert reading.problem is None
    assert [address.mac for address in reading.addresses] == list(vm.macs)
    assert {address.source for address in reading.addresses} == {Source.TEST_DRIVER}


def test_vm_that_is_off_or_gone_is_a_reading_of_its_own(host, running):
    off, gone = make_vm(), make_vm()
    host.define(make_spec(off), soon())

    readings = dict(host.read_addresses([off, gone, running], soon()))

    assert readings[off].problem is Outcome.NOT_RUNNING
    assert readings[gone].problem is Outcome.NOT_RUNNING
    assert readings[running].addresses


def test_no_vms_are_no_readings(host):
    assert list(host.read_addresses([], soon())) == []


# A connection made up ------------------------------------------------------------------------------


REMOTE = EndpointAddress(Transport.TCP, host="192.0.2.7")
OURS = "<extdhcp:vm xmlns:extdhcp='urn:extdhcp:vm'/>"


def make_error(code, text="", domain=libvirt.VIR_FROM_QEMU):
    error = libvirt.libvirtError(text)
    error.args = (text,)
    error.err = (code, domain, text, libvirt.VIR_ERR_ERROR, None, None, None, -1, -1)
    return error


def raising(code, text=""):
    def call(*_arguments):
        raise make_error(code, text)

    return call


class FakeDomain:
    """A running domain of ours; `answer` is what its guest agent says: a value, or a callable."""

    def __init__(self, answer=None, xml="<domain/>", **methods):
        self.answer = answer
        self.xml = xml
        self.__dict__.update(methods)

    def interfaceAddresses(self, *_arguments):
        return self.answer() if callable(self.answer) else self.answer

    def agentSetResponseTimeout(self, seconds, _flags):
        assert seconds > 0

    def XMLDesc(self, _flags):
        return self.xml

    def isPersistent(self):
        return 1

    def metadata(self, *_arguments):
        return OURS

    def state(self, _flags):
        return [libvirt.VIR_DOMAIN_RUNNING, 1]


class FakeSource:
    """The connections of a host on which every UUID is `domain`, or what `domains` says."""

    def __init__(self, domain=None, domains=None, **methods):
        self.connection = SimpleNamespace(isAlive=lambda: True, **methods)
        self.connection.lookupByUUIDString = lambda uuid: domain if domains is None else domains[uuid]

    def acquire(self, _address, _deadline):
        return self.connection

    def release(self, _address, connection):
        assert connection is self.connection


def make_host(domain=None, **arguments):
    return KvmHost(REMOTE, FakeSource(domain, **arguments))


def read_one(domain, deadline=None):
    vm = make_vm()
    return [reading for _vm, reading in make_host(domain).read_addresses([vm], deadline or soon())]


def channel(state):
    target = f"<target name='org.qemu.guest_agent.0' state='{state}'/>"
    return f"<domain><devices><channel>{target}</channel></devices></domain>"


@pytest.mark.parametrize(
    ("code", "xml", "problem"),
    [
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, channel("disconnected"), Outcome.AGENT_ABSENT),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, channel("connected"), Outcome.AGENT_SILENT),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "<domain/>", Outcome.AGENT_SILENT),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "<domain/>", Outcome.AGENT_ABSENT),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, "<domain/>", Outcome.AGENT_SILENT),
        (libvirt.VIR_ERR_AGENT_UNSYNCED, "<domain/>", Outcome.AGENT_SILENT),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "<domain/>", Outcome.AGENT_SILENT),
        (libvirt.VIR_ERR_OPERATION_INVALID, "<domain/>", Outcome.NOT_RUNNING),
        (libvirt.VIR_ERR_NO_DOMAIN, "<domain/>", Outcome.NOT_RUNNING),
    ],
)
def test_why_a_guest_gave_no_address(code, xml, problem):
    (reading,) = read_one(FakeDomain(raising(code), xml))

    assert (reading.problem, reading.addresses) == (problem, ())
    assert f"libvirt error {code}" in reading.detail


def test_daemon_without_agent_timeouts_is_read_all_the_same():
    domain = FakeDomain({}, agentSetResponseTimeout=raising(libvirt.VIR_ERR_NO_SUPPORT))

    (reading,) = read_one(domain)

    assert reading.problem is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "x" * 10**6,
        {"eth0": None},
        {f"veth{i}": {"hwaddr": "02:00:00:00:00:01", "addrs": None} for i in range(10_000)},
        {"x" * 10**6: {"hwaddr": "x" * 10**6, "addrs": [{"addr": "x" * 10**6}]}},
        {"eth0": {"hwaddr": None, "addrs": [{"addr": "192.0.2.9"}]}},
    ],
)
def test_hostile_guest_costs_its_own_reading_only(answer):
    hostile, honest = make_vm(), make_vm()
    good = {"eth0": {"hwaddr": honest.macs[0], "addrs": [{"addr": "192.0.2.9", "prefix": 24, "type": 0}]}}
    domains = {hostile.uuid: FakeDomain(answer), honest.uuid: FakeDomain(good)}

    readings = dict(make_host(domains=domains).read_addresses([hostile, honest], soon()))

    assert readings[hostile].addresses == ()
    assert [str(address.ip) for address in readings[honest].addresses] == ["192.0.2.9"]


def test_guest_that_keeps_its_call_is_silent_and_others_are_read(monkeypatch):
    monkeypatch.setattr(kvm_agent, "READING_SECONDS", 0.2)
    release = threading.Event()
    stuck, healthy = make_vm(), [make_vm() for _ in range(5)]
    domains = {vm.uuid: FakeDomain({}) for vm in healthy} | {stuck.uuid: FakeDomain(lambda: release.wait(30))}

    begun = time.monotonic()
    readings = dict(make_host(domains=domains).read_addresses([stuck, *healthy], soon(), width=2))

    assert readings[stuck].problem is Outcome.AGENT_SILENT
    assert [readings[vm].problem for vm in healthy] == [None] * 5
    assert time.monotonic() - begun < 2
    release.set()


def test_vm_not_reached_before_the_deadline_yields_nothing():
    release = threading.Event()
    vms = [make_vm() for _ in range(3)]

    begun = time.monotonic()
    readings = list(make_host(FakeDomain(lambda: release.wait(30))).read_addresses(vms, soon(0.2), width=1))

    assert readings == []
    assert time.monotonic() - begun < 1
    release.set()


def test_at_most_width_guests_are_asked_at_a_time():
    asked, most, lock = 0, 0, threading.Lock()

    def answer():
        nonlocal asked, most
        with lock:
            asked += 1
            most = max(most, asked)
        time.sleep(0.02)
        with lock:
            asked -= 1
        return {}

    readings = list(make_host(FakeDomain(answer)).read_addresses([make_vm() for _ in range(12)], soon(), width=3))

    assert len(readings) == 12
    assert most == 3


def test_lost_host_ends_the_batch():
    vms = [make_vm() for _ in range(3)]
    host = make_host(FakeDomain(raising(libvirt.VIR_ERR_RPC)))

    with pytest.raises(EndpointUnreachable):
        list(host.read_addresses(vms, soon()))


def test_defect_in_the_reader_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        read_one(FakeDomain(lambda: 1 / 0))


# Failures of a host --------------------------------------------------------------------------------


def test_start_without_its_bridge_says_which_to_create():
    interface = "<interface type='bridge'><source bridge='cloudbr100'/></interface>"
    words = "Cannot get interface MTU on 'cloudbr100': No such device"
    domain = FakeDomain(
        xml=f"<domain><devices>{interface}</devices></domain>",
        state=lambda _flags: [libvirt.VIR_DOMAIN_SHUTOFF, 1],
        create=raising(libvirt.VIR_ERR_SYSTEM_ERROR, words),
    )

    with pytest.raises(NetworkMissing, match=r"Bridge cloudbr100 is not there on host 192\.0\.2\.7: create it"):
        make_host(domain).start(make_vm(), soon())


def test_start_that_fails_names_the_log_and_not_libvirts_words():
    domain = FakeDomain(
        state=lambda _flags: [libvirt.VIR_DOMAIN_SHUTOFF, 1],
        create=raising(libvirt.VIR_ERR_INTERNAL_ERROR, "could not open /etc/shadow: root:x"),
    )
    vm = make_vm()

    with pytest.raises(AskTheOperator) as caught:
        make_host(domain).start(vm, soon())

    assert f"/var/log/libvirt/qemu/{vm.name}.log" in str(caught.value)
    assert "shadow" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "missing"), [(["lo", "cloudbr100"], False), (["lo", "eth0"], True), ([], False), (None, False)]
)
def test_bridge_is_looked_for_where_the_host_can_tell(names, missing):
    listing = raising(libvirt.VIR_ERR_NO_SUPPORT)
    if names is not None:
        interfaces = [SimpleNamespace(name=lambda name=name: name) for name in names]
        listing = lambda _flags: interfaces  # noqa: E731
    host = make_host(listAllInterfaces=listing)

    if missing:
        for ask in (host.ensure_network, host.has_network):
            with pytest.raises(NetworkMissing):
                ask(NetworkRef("cloudbr100", 100), soon())
    else:
        host.ensure_network(NetworkRef("cloudbr100", 100), soon())
        assert host.has_network(NetworkRef("cloudbr100", 100), soon())


def with_drive(path=None):
    return f"<domain><devices>{kvm_xml.config_drive(path)}</devices></domain>"


class ShutTray:
    """A CD-ROM that opens for force alone."""

    def __init__(self):
        self.flags = []

    def __call__(self, _xml, flags):
        self.flags.append(flags)
        if not flags & libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE:
            raise make_error(libvirt.VIR_ERR_OPERATION_FAILED, "timed out waiting to open tray of 'hdd'")


def test_new_disc_waits_for_a_tray_that_stays_shut():
    tray = ShutTray()
    media = Media("a.iso", "/drives/a.iso")

    with pytest.raises(Busy, match="tray"):
        make_host(FakeDomain(xml=with_drive("/drives/old.iso"), updateDeviceFlags=tray)).insert(
            make_vm(), media, soon()
        )

    assert len(tray.flags) == 2
    assert not any(flags & libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE for flags in tray.flags)


def test_ejection_is_forced_in_the_end():
    tray = ShutTray()

    make_host(FakeDomain(xml=with_drive("/drives/old.iso"), updateDeviceFlags=tray)).insert(make_vm(), None, soon())

    assert len(tray.flags) == 3
    both = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    assert all(flags & both == both for flags in tray.flags)


def test_drive_that_the_host_emptied_is_filled_by_force():
    """A guest that had the disc mounted as it was migrated keeps its tray locked, with nothing in it."""
    tray = ShutTray()

    make_host(FakeDomain(xml=with_drive(), updateDeviceFlags=tray)).insert(
        make_vm(), Media("a.iso", "/drives/a.iso"), soon()
    )

    assert len(tray.flags) == 1


def test_running_vm_that_lost_our_cdrom_needs_a_restart():
    with pytest.raises(Refused, match="a stop and a start"):
        make_host(FakeDomain()).insert(make_vm(), Media("a.iso", "/drives/a.iso"), soon())


def test_vm_that_others_made_transient_is_kept():
    defined = []
    domain = FakeDomain(xml=with_drive(), isPersistent=lambda: 0, updateDeviceFlags=lambda *_arguments: None)

    make_host(domain, defineXML=defined.append).insert(make_vm(), None, soon())

    assert defined == [with_drive()]


def test_guest_that_holds_on_to_its_nic_keeps_it(monkeypatch):
    monkeypatch.setattr(kvm_devices, "LETTING_GO_SECONDS", 0.1)
    monkeypatch.setattr(kvm_devices, "POLL_SECONDS", 0.02)
    interface = "<interface type='bridge'><mac address='52:54:00:00:03:01'/></interface>"
    asked = []
    domain = FakeDomain(
        xml=f"<domain><devices>{interface}</devices></domain>",
        detachDeviceFlags=lambda xml, flags: asked.append((xml, flags)),
    )

    with pytest.raises(Busy, match="let go"):
        make_host(domain).remove_nic(make_vm(), "52:54:00:00:03:01", soon())

    assert asked == [(interface.replace("'", '"').replace("/>", " />"), libvirt.VIR_DOMAIN_AFFECT_LIVE)]


PASSWORD = "hunter2-secret"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, AgentAbsent),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, AgentAbsent),
        (libvirt.VIR_ERR_OPERATION_INVALID, AgentAbsent),
        (libvirt.VIR_ERR_INTERNAL_ERROR, Refused),
        (libvirt.VIR_ERR_RPC, EndpointUnreachable),
    ],
)
def test_why_a_password_was_not_set_is_told_without_it(code, error):
    domain = FakeDomain(setUserPassword=raising(code, f"unable to execute 'set-user-password': {PASSWORD}"))

    with pytest.raises(error) as caught:
        make_host(domain).set_password(make_vm(), "root", PASSWORD, soon())

    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_guest_that_keeps_a_password_call_has_no_agent(monkeypatch):
    monkeypatch.setattr(kvm_guest, "READING_SECONDS", 0.1)
    release = threading.Event()
    domain = FakeDomain(setUserPassword=lambda *_arguments: release.wait(30))

    with pytest.raises(AgentAbsent):
        make_host(domain).set_password(make_vm(), "root", PASSWORD, soon())
    with pytest.raises(DeadlineExceeded):
        make_host(domain).set_password(make_vm(), "root", PASSWORD, soon(0.05))
    release.set()


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("", PASSWORD), ("root:x", PASSWORD), ("root\n", PASSWORD), ("a b", PASSWORD), ("x" * 257, PASSWORD),
        ("root", ""), ("root", "x\nroot:y"), ("root", "x\0"), ("root", "x" * 1025),
    ],
)  # fmt: skip
def test_account_that_could_be_more_than_one_is_refused(user, password):
    with pytest.raises(Refused) as caught:
        make_host(FakeDomain()).set_password(make_vm(), user, password, soon())

    assert not password or password not in str(caught.value)


class Agent:
    """A guest agent that answers each command with what it is given for it."""

    def __init__(self, opened='{"return": 7}', read="", closed='{"return": {}}'):
        self.answers = {"guest-file-open": opened, "guest-file-read": read, "guest-file-close": closed}
        self.asked = []

    def __call__(self, _domain, question, timeout, _flags):
        assert timeout > 0
        command = json.loads(question)
        self.asked.append((command["execute"], command["arguments"]))
        answer = self.answers[command["execute"]]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def read_through(monkeypatch):
    def read(agent, most=16):
        monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", agent)
        return make_host(FakeDomain()).read_guest_file(make_vm(), "/run/x", soon(), most=most)

    return read


def test_guests_file_is_read_and_closed(read_through):
    agent = Agent(read='{"return": {"count": 3, "buf-b64": "YWJj", "eof": true}}')

    assert read_through(agent) == b"abc"
    assert agent.asked == [
        ("guest-file-open", {"path": "/run/x", "mode": "r"}),
        ("guest-file-read", {"handle": 7, "count": 16}),
        ("guest-file-close", {"handle": 7}),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        None, "", "[]", "{", "[" * 4000, '{"return": 3}', '{"return": {"buf-b64": 3}}', '{"error": {}}',
        '{"return": {"buf-b64": "YWJj\\n"}}', '{"return": {"buf-b64": "YW-j"}}', '{"return": {"buf-b64": "YWJ"}}',
        '{"return": {"buf-b64": "' + "YWJj" * 6 + '"}}',  # more than was asked for
        '{"return": {"buf-b64": "' + "YWJj" * 10**6 + '"}}',
        '{"return": {"count": ' + "9" * 4000 + "}}",
    ],
)  # fmt: skip
def test_answer_that_is_none_is_refused_and_the_file_closed(read_through, answer):
    agent = Agent(read=answer)

    with pytest.raises(Refused):
        read_through(agent)

    assert agent.asked[-1][0] == "guest-file-close"


@pytest.mark.parametrize("opened", ['{"return": true}', '{"return": "7"}', '{"return": 7.5}', '{"return": null}'])
def test_handle_that_is_none_is_refused(read_through, opened):
    with pytest.raises(Refused):
        read_through(Agent(opened=opened))


@pytest.mark.parametrize(
    ("code", "words", "error"),
    [
        (libvirt.VIR_ERR_INTERNAL_ERROR, "failed to open file '/run/x': No such file or directory", NotFound),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "Command guest-file-open has been disabled", Refused),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "The command guest-file-open has not been found", Refused),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding", AgentAbsent),
        (libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported", AgentAbsent),
        (libvirt.VIR_ERR_RPC, "gone", EndpointUnreachable),
    ],
)
def test_why_a_file_was_not_read(read_through, code, words, error):
    with pytest.raises(error):
        read_through(Agent(opened=make_error(code, words)))


def test_guest_that_ignores_the_request_is_cut_off_after_its_grace():
    events = []
    state = [libvirt.VIR_DOMAIN_RUNNING, 1]

    def destroy():
        events.append("destroy")
        state[0] = libvirt.VIR_DOMAIN_SHUTOFF

    domain = FakeDomain(state=lambda _flags: state, shutdownFlags=lambda _flags: events.append("ask"), destroy=destroy)
    begun = time.monotonic()

    make_host(domain).stop(make_vm(), soon(), grace=0.3)

    assert events == ["ask", "destroy"]
    assert 0.3 <= time.monotonic() - begun < 3


def test_failed_upload_leaves_no_volume():
    deleted, aborted = [], []
    volume = SimpleNamespace(
        upload=lambda *_arguments: None, delete=lambda _flags: deleted.append(True), path=lambda: "/drives/a.iso"
    )
    pool = SimpleNamespace(
        isActive=lambda: 1,
        storageVolLookupByName=raising(libvirt.VIR_ERR_NO_STORAGE_VOL),
        createXML=lambda *_arguments: volume,
    )
    stream = SimpleNamespace(
        sendAll=raising(libvirt.VIR_ERR_SYSTEM_ERROR, "No space left on device"),
        abort=lambda: aborted.append(True),
    )
    host = make_host(storagePoolLookupByName=lambda _name: pool, newStream=lambda _flags: stream)

    with pytest.raises(AskTheOperator):
        host.place("i-2-3-VM-1-ab12.iso", b"x", soon())

    assert (deleted, aborted) == ([True], [True])


def test_endless_volume_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(kvm_storage, "MEDIA_MAX_BYTES", 10**6)
    aborted = []
    stream = SimpleNamespace(recv=lambda size: b"x" * size, abort=lambda: aborted.append(True))
    volume = SimpleNamespace(download=lambda *_arguments: None)
    pool = SimpleNamespace(isActive=lambda: 1, storageVolLookupByName=lambda _name: volume)
    host = make_host(storagePoolLookupByName=lambda _name: pool, newStream=lambda _flags: stream)

    with pytest.raises(Refused):
        host.read("i-2-3-VM-1-ab12.iso", soon())

    assert aborted == [True]
