"""The driver on libvirt's test driver inside this process, and on a connection made up for what it cannot show."""

import threading
import time
from types import SimpleNamespace

import libvirt
import pytest

from networks.hypervisors import kvm_agent, kvm_storage
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    EndpointAddress,
    EndpointUnreachable,
    NetworkMissing,
    NetworkRef,
    NotFound,
    Outcome,
    PowerState,
    Refused,
    Source,
    StorageProblem,
    Transport,
)
from networks.hypervisors.kvm import KvmHost
from networks.hypervisors.kvm_connection import CONNECTIONS
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
    assert host.list_media(soon()) == [media.name]
    host.insert(vm, media, soon())
    assert media.path in connection.lookupByName(vm.name).XMLDesc(0)
    host.insert(vm, None, soon())
    assert media.path not in connection.lookupByName(vm.name).XMLDesc(0)
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

    assert host.list_media(soon()) == ["i-2-3-VM-1-ab12.iso"]


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
        with pytest.raises(NetworkMissing):
            host.ensure_network(NetworkRef("cloudbr100", 100), soon())
    else:
        host.ensure_network(NetworkRef("cloudbr100", 100), soon())


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
    media = SimpleNamespace(name="a.iso", path="/drives/a.iso")

    with pytest.raises(Busy, match="tray"):
        make_host(FakeDomain(updateDeviceFlags=tray)).insert(make_vm(), media, soon())

    assert len(tray.flags) == 2
    assert not any(flags & libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE for flags in tray.flags)


def test_ejection_is_forced_in_the_end():
    tray = ShutTray()

    make_host(FakeDomain(updateDeviceFlags=tray)).insert(make_vm(), None, soon())

    assert len(tray.flags) == 3
    both = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    assert all(flags & both == both for flags in tray.flags)


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
