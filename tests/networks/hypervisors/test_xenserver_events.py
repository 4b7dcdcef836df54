"""What a pool tells by itself."""

import contextlib
import logging
import threading
import time

import pytest

from networks.hypervisors import xenserver_events
from networks.hypervisors.base import CertificateRefused, CredentialsRefused, EndpointUnreachable, GuestEvent
from tests.networks.hypervisors.factories import soon
from tests.networks.hypervisors.xen_world import defined, host_of, pool, ref_of, started


@pytest.fixture
def xen():
    with pool() as xen:
        yield xen


class Ear:
    def __init__(self) -> None:
        self.heard: list[tuple[str, GuestEvent]] = []
        self._something = threading.Condition()

    def __call__(self, uuid: str, event: GuestEvent) -> None:
        with self._something:
            self.heard.append((uuid, event))
            self._something.notify_all()

    def of(self, vm) -> list[GuestEvent]:
        return [event for uuid, event in self.heard if uuid == vm.uuid]

    def hears(self, vm, *events: GuestEvent, seconds: float = 10) -> None:
        with self._something:
            assert self._something.wait_for(lambda: self.of(vm) == list(events), seconds), self.heard


@contextlib.contextmanager
def watched(host):
    ear = Ear()
    watch = host.watch(ear, soon())
    try:
        yield ear, watch
    finally:
        watch.close()


def wait_until(true, seconds: float = 10) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_life_of_a_vm_is_told_by_our_uuid(xen):
    here, there = host_of(xen), host_of(xen, "xen2")
    vm = defined(here)
    with watched(host_of(xen, "")) as (ear, _watch):
        here.start(vm, soon())
        ear.hears(vm, GuestEvent.STARTED)
        here.migrate(vm, there, soon())
        ear.hears(vm, GuestEvent.STARTED, GuestEvent.MIGRATED)
        there.stop(vm, soon(), grace=0)
        ear.hears(vm, GuestEvent.STARTED, GuestEvent.MIGRATED, GuestEvent.STOPPED)


def test_agent_is_told_when_it_comes_and_when_it_says_more(xen):
    vm = started(host_of(xen))
    with watched(host_of(xen, "")) as (ear, _watch):
        xen.guests.report(ref_of(xen, vm), {})
        ear.hears(vm, GuestEvent.AGENT_CONNECTED)
        xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
        ear.hears(vm, *[GuestEvent.AGENT_CONNECTED] * 2)
        xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
        xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.8")
        ear.hears(vm, *[GuestEvent.AGENT_CONNECTED] * 3)


def test_guest_that_was_there_before_the_watch_is_not_told(xen):
    vm = started(host_of(xen))
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    with watched(host_of(xen, "")) as (ear, _watch):
        later = started(host_of(xen))
        ear.hears(later, GuestEvent.STARTED)

    assert ear.of(vm) == []


def test_pause_is_a_stop(xen):
    vm = started(host_of(xen))
    with watched(host_of(xen, "")) as (ear, _watch):
        xen.db.set("VM", ref_of(xen, vm), power_state="Paused")
        ear.hears(vm, GuestEvent.STOPPED)
        xen.db.set("VM", ref_of(xen, vm), power_state="Running")
        ear.hears(vm, GuestEvent.STOPPED, GuestEvent.STARTED)


def test_deleted_vm_has_stopped(xen):
    vm = started(host_of(xen))
    with watched(host_of(xen, "")) as (ear, _watch):
        xen.delete_vm(ref_of(xen, vm))
        ear.hears(vm, GuestEvent.STOPPED)


def test_nothing_is_told_after_the_close(xen):
    vm = defined(host_of(xen))
    with watched(host_of(xen, "")) as (closed, watch):
        watch.close()
        watch.close()
        assert not watch.is_alive()
        with watched(host_of(xen, "")) as (open_one, _):
            host_of(xen).start(vm, soon())
            open_one.hears(vm, GuestEvent.STARTED)

    assert closed.of(vm) == []


def test_who_hears_may_fail_and_hears_the_next(xen, caplog):
    vm, heard = defined(host_of(xen)), []

    def ear(uuid, event):
        heard.append(event)
        raise ValueError("of the caller's own")

    watch = host_of(xen, "").watch(ear, soon())
    try:
        with caplog.at_level(logging.ERROR):
            host_of(xen).start(vm, soon())
            wait_until(lambda: heard == [GuestEvent.STARTED])
            host_of(xen).stop(vm, soon(), grace=0)
            wait_until(lambda: heard == [GuestEvent.STARTED, GuestEvent.STOPPED])
    finally:
        watch.close()
    assert "could not be told" in caplog.text


def test_pool_that_takes_long_to_read_is_watched_nevertheless(xen):
    vm = defined(host_of(xen))
    xen.faults.delay(1.5, "VM_guest_metrics.get_all_records")
    watch = host_of(xen, "").watch(ear := Ear(), soon(1))
    try:
        xen.faults.calm()
        wait_until(lambda: xen.calls["event.from"] > 0)
        host_of(xen).start(vm, soon())
        ear.hears(vm, GuestEvent.STARTED)
    finally:
        watch.close()


def test_session_that_ends_does_not_end_the_watch(xen, monkeypatch):
    monkeypatch.setattr(xenserver_events, "WAIT_SECONDS", 0.2)
    with watched(host_of(xen, "")) as (ear, watch):
        xen.expire_sessions()
        vm = started(host_of(xen))
        ear.hears(vm, GuestEvent.STARTED)
        assert watch.is_alive()


def test_quiet_pool_keeps_the_watch(xen, monkeypatch):
    monkeypatch.setattr(xenserver_events, "WAIT_SECONDS", 0.1)
    with watched(host_of(xen, "")) as (ear, watch):
        before = xen.calls["event.from"]
        wait_until(lambda: xen.calls["event.from"] > before + 2)
        assert watch.is_alive()
        assert ear.heard == []


def test_pool_that_ends_ends_the_watch(xen):
    with watched(host_of(xen, "")) as (_ear, watch):
        xen.stop()
        wait_until(lambda: not watch.is_alive())


def test_silent_pool_ends_the_watch(xen, monkeypatch):
    monkeypatch.setattr(xenserver_events, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(xenserver_events, "GRACE_SECONDS", 0.5)
    with watched(host_of(xen, "")) as (_ear, watch):
        xen.faults.hang("event.from")
        wait_until(lambda: not watch.is_alive())


def test_watch_that_cannot_be_opened_says_why(xen):
    with pytest.raises(CredentialsRefused):
        host_of(xen, "", password="wrong").watch(Ear(), soon())
    with pytest.raises(CertificateRefused):
        host_of(xen, "", ca_certificates="", fingerprint="00" * 32).watch(Ear(), soon())
    xen.faults.hang("pool.get_all_records")
    with pytest.raises(EndpointUnreachable):
        host_of(xen, "").watch(Ear(), soon(1))


def test_watches_leave_no_session_behind(xen):
    for _ in range(10):
        with watched(host_of(xen, "")):
            pass

    wait_until(lambda: len(xen.db.rows("session")) <= 1)


def test_repr_tells_no_secret(xen):
    with watched(host_of(xen, "")) as (_ear, watch):
        assert xen.password not in repr(watch)
