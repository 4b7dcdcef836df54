"""What vSphere tells by itself: which change means what, and a watch on the vCenter simulator."""

from ipaddress import ip_address

import pytest

from networks.hypervisors.base import CredentialsRefused, GuestEvent, PowerState
from networks.hypervisors.vsphere import VsphereHost
from networks.hypervisors.vsphere_events import events
from networks.hypervisors.vsphere_machines import Interface, Machine
from tests.lab.system import wait_for
from tests.networks.hypervisors.factories import soon
from tests.networks.hypervisors.test_vsphere_session import terminate, with_changed
from tests.networks.hypervisors.vsphere_factories import define
from tests.simulators.vcenter.starting import vcenter_for_tests

PATIENCE = 20
OFF = Machine("u", PowerState.OFF, "host-1")
ON = Machine("u", PowerState.RUNNING, "host-1", tools="guestToolsNotRunning")
WITH_TOOLS = Machine("u", PowerState.RUNNING, "host-1", tools="guestToolsRunning")
PAUSED = Machine("u", PowerState.PAUSED, "host-1")
MOVED = Machine("u", PowerState.RUNNING, "host-2", tools="guestToolsNotRunning")
KNOWN = Machine(
    "u",
    PowerState.RUNNING,
    "host-1",
    tools="guestToolsRunning",
    interfaces=(Interface("52:54:00:00:05:01", ((ip_address("192.0.2.7"), 24),)),),
)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, OFF, []),
        (None, ON, [GuestEvent.STARTED]),
        (OFF, ON, [GuestEvent.STARTED]),
        (PAUSED, ON, [GuestEvent.STARTED]),
        (OFF, KNOWN, [GuestEvent.STARTED, GuestEvent.AGENT_CONNECTED]),
        (ON, OFF, [GuestEvent.STOPPED]),
        (ON, PAUSED, [GuestEvent.STOPPED]),
        (ON, None, [GuestEvent.STOPPED]),
        (OFF, None, []),
        (ON, MOVED, [GuestEvent.MIGRATED]),
        (ON, WITH_TOOLS, [GuestEvent.AGENT_CONNECTED]),
        (WITH_TOOLS, KNOWN, [GuestEvent.AGENT_CONNECTED]),
        (KNOWN, KNOWN, []),
        (KNOWN, WITH_TOOLS, []),
        (WITH_TOOLS, ON, []),
    ],
)
def test_what_a_change_means(before, after, told):
    assert list(events(before, after)) == told


@pytest.fixture(scope="module")
def vcenter():
    with vcenter_for_tests() as vcenter:
        yield vcenter


@pytest.fixture
def told():
    return []


@pytest.fixture
def watch(vcenter, told):
    watch = VsphereHost(vcenter.address).watch(lambda uuid, event: told.append((uuid, event)), soon())
    yield watch
    watch.close()


@pytest.fixture
def hosts(vcenter):
    return [VsphereHost(vcenter.address, name) for name in vcenter.hosts()]


def wait_until_told(told: list, *expected) -> None:
    wait_for(f"{expected}", lambda: set(expected) <= set(told), PATIENCE)


def test_life_of_a_vm_is_told(vcenter, hosts, watch, told):
    spec = define(hosts[0])
    hosts[0].start(spec.vm, soon())
    wait_until_told(told, (spec.vm.uuid, GuestEvent.STARTED))
    vcenter.guest_says(spec.vm.uuid, {spec.vm.macs[0]: ["192.0.2.7/24"]})
    wait_until_told(told, (spec.vm.uuid, GuestEvent.AGENT_CONNECTED))
    hosts[0].migrate(spec.vm, hosts[1], soon())
    wait_until_told(told, (spec.vm.uuid, GuestEvent.MIGRATED))
    hosts[1].stop(spec.vm, soon(), grace=0)
    wait_until_told(told, (spec.vm.uuid, GuestEvent.STOPPED))


def test_what_there_was_before_is_not_told(hosts, watch, told):
    spec = define(hosts[0])
    hosts[0].start(spec.vm, soon())
    wait_until_told(told, (spec.vm.uuid, GuestEvent.STARTED))

    assert {uuid for uuid, _event in told} == {spec.vm.uuid}


def test_watch_that_vcenter_forgot_begins_anew_and_tells_what_it_missed(vcenter, hosts, watch, told):
    spec = define(hosts[0])
    session = watch._session
    terminate(vcenter, session)
    hosts[0].start(spec.vm, soon())
    watch._updates.wake()

    wait_until_told(told, (spec.vm.uuid, GuestEvent.STARTED))
    assert watch.is_alive()
    assert watch._session is not session


def test_vm_that_went_during_a_break_has_stopped(vcenter, hosts, told):
    spec = define(hosts[0])
    hosts[0].start(spec.vm, soon())
    watch = VsphereHost(vcenter.address).watch(lambda uuid, event: told.append((uuid, event)), soon())
    terminate(vcenter, watch._session)
    hosts[0].undefine(spec.vm, soon())
    hosts[0].delete_root(spec.root, soon())

    wait_until_told(told, (spec.vm.uuid, GuestEvent.STOPPED))
    watch.close()


def test_closed_watch_logs_out_and_is_dead(vcenter, watch):
    vcenter.forget_calls()

    watch.close()

    assert not watch.is_alive()
    assert vcenter.calls()["Logout"] == 1


def test_listener_that_fails_does_not_end_the_watch(vcenter, hosts, told):
    def listen(uuid, event):
        told.append((uuid, event))
        raise ZeroDivisionError

    watch = VsphereHost(vcenter.address).watch(listen, soon())
    for _ in range(2):
        spec = define(hosts[0])
        hosts[0].start(spec.vm, soon())
        wait_until_told(told, (spec.vm.uuid, GuestEvent.STARTED))

    assert watch.is_alive()
    watch.close()


def test_watch_ends_when_vcenter_does(told):
    with vcenter_for_tests(vms=1) as vcenter:
        watch = VsphereHost(vcenter.address).watch(lambda uuid, event: told.append((uuid, event)), soon())

    wait_for("the watch's end", lambda: not watch.is_alive(), PATIENCE)
    watch.close()


def test_watch_cannot_be_opened_with_a_wrong_password(vcenter):
    with pytest.raises(CredentialsRefused):
        with_changed(vcenter, password="wrong").watch(lambda uuid, event: None, soon())
