"""What hosts tell by themselves: lifecycle events by a private libvirtd, the guest agent's by real hosts."""

import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import libvirt
import pytest

from networks.hypervisors import kvm_connection
from networks.hypervisors.base import (
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    EventSource,
    GuestEvent,
    KernelRoot,
    NetworkRef,
    NicSpec,
    Refused,
    Transport,
    abandoned_calls,
)
from networks.hypervisors.kvm import KvmHost
from networks.hypervisors.kvm_events import agent_event, lifecycle_event
from tests.lab.system import wait_for
from tests.networks.hypervisors.factories import IN_PROCESS, make_spec, make_vm, soon
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

PATIENCE = 60
BOOT = 120


@dataclass
class Ear:
    """Hears one watch, and notes when."""

    heard: list[tuple[str, GuestEvent, float]] = field(default_factory=list)

    def __call__(self, uuid: str, event: GuestEvent) -> None:
        self.heard.append((uuid, event, time.time()))

    def of(self, vm) -> list[GuestEvent]:
        return [event for uuid, event, _ in self.heard if uuid == vm.uuid]


@pytest.fixture
def own(tmp_path) -> Iterator[PrivateLibvirtd]:
    """A daemon that the test may stop."""
    try:
        with PrivateLibvirtd(tmp_path / "d") as daemon:
            yield daemon
    except LibvirtdMissing as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def watched(host: KvmHost) -> Iterator[tuple[Ear, object]]:
    ear = Ear()
    watch = host.watch(ear, soon())
    try:
        yield ear, watch
    finally:
        watch.close()


def host_of(daemon) -> KvmHost:
    return KvmHost(EndpointAddress(Transport.TEST, test_socket=daemon.socket))


def started(host: KvmHost, vm=None):
    vm = vm or make_vm()
    host.define(make_spec(vm), soon())
    host.start(vm, soon())
    return vm


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# What events mean --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "detail", "meaning"),
    [
        ("DEFINED", "DEFINED_ADDED", None),
        ("UNDEFINED", "UNDEFINED_REMOVED", None),
        ("STARTED", "STARTED_BOOTED", GuestEvent.STARTED),
        ("STARTED", "STARTED_RESTORED", GuestEvent.STARTED),
        ("RESUMED", "RESUMED_UNPAUSED", GuestEvent.STARTED),
        ("SUSPENDED", "SUSPENDED_PAUSED", GuestEvent.STOPPED),
        ("SHUTDOWN", "SHUTDOWN_GUEST", None),  # STOPPED follows
        ("STOPPED", "STOPPED_SHUTDOWN", GuestEvent.STOPPED),
        ("STOPPED", "STOPPED_CRASHED", GuestEvent.STOPPED),
        ("CRASHED", "CRASHED_PANICKED", GuestEvent.STOPPED),
        ("PMSUSPENDED", "PMSUSPENDED_MEMORY", GuestEvent.STOPPED),
        # A migration: on the target it waits, then goes on there, and at last is gone from the source.
        ("STARTED", "STARTED_MIGRATED", None),
        ("SUSPENDED", "SUSPENDED_MIGRATED", None),
        ("RESUMED", "RESUMED_MIGRATED", GuestEvent.MIGRATED),
        ("STOPPED", "STOPPED_MIGRATED", GuestEvent.MIGRATED),
    ],
)
def test_lifecycle_event_has_a_meaning(event, detail, meaning):
    numbers = [getattr(libvirt, f"VIR_DOMAIN_EVENT_{name}") for name in (event, detail)]
    assert lifecycle_event(*numbers) is meaning


def test_events_of_later_libvirts_mean_nothing():
    assert lifecycle_event(99, 0) is None
    assert agent_event(99) is None


def test_agent_that_connects_is_of_interest_and_one_that_leaves_is_not():
    assert agent_event(libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED) is GuestEvent.AGENT_CONNECTED
    assert agent_event(libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED) is None


# A private libvirtd ------------------------------------------------------------------------------


def test_vm_that_starts_and_stops_is_told(own):
    host = host_of(own)
    with watched(host) as (ear, watch):
        assert isinstance(host, EventSource)
        assert watch.is_alive()
        vm = started(host)
        host.stop(vm, soon(), grace=0)

        wait_for("both events", lambda: len(ear.of(vm)) == 2, 10)

    assert ear.of(vm) == [GuestEvent.STARTED, GuestEvent.STOPPED]


def test_test_driver_in_this_process_tells_too():
    host = KvmHost(IN_PROCESS)
    with watched(host) as (ear, _watch):
        vm = started(host)
        try:
            wait_for("the event", lambda: ear.of(vm) == [GuestEvent.STARTED], 10)
        finally:
            host.undefine(vm, soon())


def test_watch_needs_no_rights_to_change_anything(own):
    with watched(host_of(own)) as (_ear, watch), pytest.raises(libvirt.libvirtError) as refused:
        watch._subscription.connection.defineXML("<domain/>")

    assert refused.value.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED


def test_nothing_is_told_after_the_close(own):
    host = host_of(own)
    with watched(host) as (closed, watch):
        watch.close()
        assert not watch.is_alive()
        with watched(host) as (open_one, _):
            vm = started(host)
            wait_for("the event in the other watch", lambda: open_one.of(vm), 10)

    assert closed.of(vm) == []


def test_closing_twice_is_closing(own):
    with watched(host_of(own)) as (_ear, watch):
        watch.close()


def test_who_hears_may_fail_and_hears_the_next(own, caplog):
    host, heard = host_of(own), []

    def ear(uuid, event):
        heard.append(event)
        raise ValueError("of the caller's own")

    watch = host.watch(ear, soon())
    try:
        with caplog.at_level(logging.ERROR):
            host.stop(started(host), soon(), grace=0)
            wait_for("both events", lambda: len(heard) == 2, 10)
    finally:
        watch.close()
    assert "could not be told" in caplog.text


def test_daemon_that_ends_ends_the_watch_and_can_be_watched_again(own):
    host = host_of(own)
    with watched(host) as (_ear, watch):
        own.stop()
        wait_for("the watch's end", lambda: not watch.is_alive(), 10)
        with pytest.raises(EndpointUnreachable):
            host.watch(Ear(), soon())
    own.start()

    with watched(host) as (ear, _):
        vm = started(host)
        wait_for("the event", lambda: ear.of(vm), 10)


def test_frozen_daemon_ends_the_watch_and_does_not_hold_up_its_close(own, monkeypatch):
    monkeypatch.setattr(kvm_connection, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(kvm_connection, "KEEPALIVE_COUNT", 1)
    with watched(host_of(own)) as (_ear, watch), frozen(own._process.pid):
        wait_for("the watch's end", lambda: not watch.is_alive(), 20)

        begun = time.monotonic()
        watch.close()
        assert time.monotonic() - begun < 1


def test_close_gives_up_on_a_daemon_that_has_just_frozen(own, monkeypatch):
    monkeypatch.setattr("networks.hypervisors.kvm_events.CLOSE_SECONDS", 0.3)
    with watched(host_of(own)) as (_ear, watch), frozen(own._process.pid):
        before = abandoned_calls()
        watch.close()
        assert abandoned_calls() == before + 1
        assert not watch.is_alive()


def test_watch_that_opens_too_late_closes_itself(own):
    """Else libvirt would keep its connection, and call back, for ever."""
    host, ear = host_of(own), Ear()
    connections = count_connections()
    before = abandoned_calls()
    with frozen(own._process.pid), pytest.raises(DeadlineExceeded):
        host.watch(ear, soon(0.5))

    wait_for("the late thread", lambda: abandoned_calls() == before, 10)
    vm = started(host)
    with watched(host) as (other, _):
        host.stop(vm, soon(), grace=0)
        wait_for("the event in another watch", lambda: other.of(vm), 10)
    assert ear.heard == []
    wait_for("the connections' end", lambda: count_connections() <= connections + 1, 10)  # the pool's own


def test_watches_that_come_and_go_leave_no_connection_behind(own):
    host = host_of(own)
    with watched(host):
        pass
    before = count_connections()
    for _ in range(20):
        with watched(host):
            pass

    assert count_connections() == before


def count_connections() -> int:
    gc.collect()
    # Not isinstance: that asks a proxy for its class, and what other tests left may be gone behind theirs.
    return sum(1 for thing in gc.get_objects() if type(thing) is libvirt.virConnect)


def test_address_that_leads_nowhere():
    with pytest.raises(EndpointUnreachable):
        KvmHost(EndpointAddress(Transport.TEST, test_socket="/nowhere/libvirt-sock")).watch(Ear(), soon())


def test_error_says_nothing_of_the_librarys(monkeypatch):
    def refuse(_address, _flags):
        error = libvirt.libvirtError("x")
        error.err = (libvirt.VIR_ERR_AUTH_FAILED, 0, "secret", 2, None, None, None, 0, -1)
        raise error

    monkeypatch.setattr("networks.hypervisors.kvm_events.open_connection", refuse)
    with pytest.raises(CredentialsRefused) as refused:
        KvmHost(IN_PROCESS).watch(Ear(), soon())
    assert "secret" not in str(refused.value)


def test_host_without_such_events_refuses(monkeypatch):
    class Connection:
        closed = False

        def isAlive(self):
            return True

        def domainEventRegisterAny(self, *_arguments):
            error = libvirt.libvirtError("x")
            error.err = (libvirt.VIR_ERR_NO_SUPPORT, 0, "x", 2, None, None, None, 0, -1)
            raise error

        def close(self):
            self.closed = True

    connection = Connection()
    monkeypatch.setattr("networks.hypervisors.kvm_events.open_connection", lambda *_: connection)
    with pytest.raises(Refused):
        KvmHost(IN_PROCESS).watch(Ear(), soon())
    assert connection.closed


# Real hosts --------------------------------------------------------------------------------------


def connect(host) -> KvmHost:
    return KvmHost(EndpointAddress(Transport.TCP, str(host.address)))


@pytest.fixture
def guest(lab) -> Iterator:
    """A small guest, defined on the first host."""
    vm = make_vm(name="i-8-7-VM", uuid="88888888-0000-4000-8000-000000000007", macs=("52:54:00:88:00:07",))
    kernel = KernelRoot(str(lab.guest.kernel), str(lab.guest.initrd), lab.guest_command_line)
    nic = NicSpec(vm.macs[0], NetworkRef(lab.network.bridge, 100))
    host = connect(lab.hosts[0])
    host.define(make_spec(vm, root=kernel, nics=(nic,)), soon(PATIENCE))
    yield vm
    for each in lab.hosts:
        connect(each).undefine(vm, soon(PATIENCE))


def libvirtd_of(host) -> int:
    return int((host.directory / "run/libvirtd.pid").read_text())


@pytest.mark.lab
def test_agent_of_a_real_guest_is_told_each_time_it_connects(lab, guest):
    host = connect(lab.hosts[0])
    with watched(host) as (ear, _watch):
        host.start(guest, soon(PATIENCE))
        wait_for("the agent", lambda: GuestEvent.AGENT_CONNECTED in ear.of(guest), BOOT)
        assert ear.of(guest)[0] is GuestEvent.STARTED
        ((_vm, reading),) = host.read_addresses([guest], soon(PATIENCE))
        assert reading.problem is None

        ear.heard.clear()
        host.reboot(guest, soon())
        wait_for("the agent after the reset", lambda: GuestEvent.AGENT_CONNECTED in ear.of(guest), BOOT)

        ear.heard.clear()
        host.stop(guest, soon(PATIENCE), grace=0)
        wait_for("the stop", lambda: GuestEvent.STOPPED in ear.of(guest), PATIENCE)


@pytest.mark.lab
def test_neighbour_table_of_a_real_host_ends_nothing(lab, guest):
    host = connect(lab.hosts[0])
    host.start(guest, soon(PATIENCE))

    for vm, addresses in host.read_neighbours([guest, make_vm()], soon()):
        assert vm == guest
        assert {address.mac for address in addresses} <= set(guest.macs)


@pytest.mark.lab
def test_migration_is_told_by_the_target_and_last_by_the_source(lab, guest):
    source, target = map(connect, lab.hosts)
    source.start(guest, soon(PATIENCE))
    with watched(source) as (at_source, _), watched(target) as (at_target, _):
        source.migrate(guest, target, soon(PATIENCE))
        wait_for("the target's event", lambda: GuestEvent.MIGRATED in at_target.of(guest), PATIENCE)
        wait_for("the source's event", lambda: GuestEvent.MIGRATED in at_source.of(guest), PATIENCE)

    assert GuestEvent.STARTED not in at_target.of(guest)


@pytest.mark.lab
def test_host_that_was_frozen_for_a_moment_is_heard_again(lab, guest):
    host = connect(lab.hosts[0])
    with watched(host) as (ear, watch):
        with frozen(libvirtd_of(lab.hosts[0])):
            time.sleep(3)
        host.start(guest, soon(PATIENCE))

        wait_for("the event", lambda: GuestEvent.STARTED in ear.of(guest), PATIENCE)
        assert watch.is_alive()


@pytest.mark.lab
def test_host_that_is_cut_off_loses_the_watch(lab, monkeypatch):
    monkeypatch.setattr(kvm_connection, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(kvm_connection, "KEEPALIVE_COUNT", 1)
    with watched(connect(lab.hosts[1])) as (_ear, watch):
        lab.hosts[1].unplug()
        try:
            wait_for("the watch's end", lambda: not watch.is_alive(), PATIENCE)
        finally:
            lab.hosts[1].plug_in()
