"""The neighbour table: what is taken from libvirt's answer, on a connection made up; and on a host's own."""

from ipaddress import ip_address
from types import SimpleNamespace

import libvirt
import pytest

from networks.hypervisors.base import (
    DeadlineExceeded,
    EndpointUnreachable,
    GuestAddress,
    NeighbourReader,
    Source,
)
from networks.hypervisors.kvm import KvmHost
from tests.networks.hypervisors.factories import IN_PROCESS, make_spec, make_vm, soon
from tests.networks.hypervisors.test_kvm_connection import REMOTE, make_error


class Connections:
    """One connection for all, whose domains give or raise what `answers` says, by the VM's UUID."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def acquire(self, _address, _deadline):
        return self

    def release(self, _address, _connection):
        pass

    def isAlive(self):
        return True

    def lookupByUUIDString(self, uuid):
        return SimpleNamespace(interfaceAddresses=lambda source, flags: self._answer(uuid, source, flags))

    def _answer(self, uuid, *question):
        self.asked.append(question)
        answer = self.answers[uuid]
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer


def table(mac, *ips):
    """As libvirt gives it: an interface for each entry, all named like the tap, of which Python keeps one."""
    return {"vnet3": {"hwaddr": mac, "addrs": [{"addr": ip, "prefix": 0, "type": 0} for ip in ips]}}


def read(vms, answers, deadline=20.0):
    return list(KvmHost(REMOTE, Connections(answers)).read_neighbours(vms, soon(deadline)))


def test_neighbour_is_an_address_without_prefix():
    vm = make_vm()

    assert read([vm], {vm.uuid: table(vm.macs[0].upper(), "192.0.2.7")}) == [
        (vm, (GuestAddress(vm.macs[0], ip_address("192.0.2.7"), Source.NEIGHBOUR),))
    ]


def test_hosts_table_is_asked():
    vm = make_vm()
    connections = Connections({vm.uuid: {}})
    assert list(KvmHost(REMOTE, connections).read_neighbours([vm], soon())) == [(vm, ())]
    assert connections.asked == [(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, 0)]


@pytest.mark.parametrize(
    "answer",
    [
        table("52:54:00:ff:ff:ff", "192.0.2.7"),
        table("52:54:00:ff:ff:ff\x00", "192.0.2.7"),
        table(None, "192.0.2.7"),
        table("MAC", "<script>", "0.0.0.0", "127.0.0.1", "192.0.2.7/24"),
        {"vnet3": {"hwaddr": "MAC", "addrs": None}},
        {"vnet3": None},
        "<x/>",
    ],
    ids=["foreign", "NUL", "no MAC", "no address", "null", "no interface", "no table"],
)
def test_entry_that_is_not_the_vms_or_no_address_is_left_out(answer):
    vm = make_vm()
    if isinstance(answer, dict) and answer["vnet3"] and answer["vnet3"]["hwaddr"] == "MAC":
        answer["vnet3"]["hwaddr"] = vm.macs[0]

    assert read([vm], {vm.uuid: answer}) == [(vm, ())]


def test_vm_that_cannot_be_asked_about_costs_the_others_nothing():
    stopped, broken, vm = make_vm(), make_vm(), make_vm()
    answers = {
        stopped.uuid: make_error(libvirt.VIR_ERR_OPERATION_INVALID),
        broken.uuid: make_error(libvirt.VIR_ERR_INTERNAL_ERROR, text="wrong nlmsg len"),
        vm.uuid: table(vm.macs[0], "192.0.2.7"),
    }

    assert [asked for asked, _ in read([stopped, broken, vm], answers)] == [vm]


def test_lost_connection_ends_it():
    first, second = make_vm(), make_vm()
    answers = {first.uuid: make_error(libvirt.VIR_ERR_RPC), second.uuid: {}}

    with pytest.raises(EndpointUnreachable):
        read([first, second], answers)


def test_vms_not_reached_in_time_yield_nothing(release):
    first, second = make_vm(), make_vm()

    assert read([first, second], {first.uuid: {}, second.uuid: lambda: release.wait(30)}, 0.3) == [(first, ())]


def test_host_that_does_not_answer_is_unreachable_before_the_deadline(release, monkeypatch):
    monkeypatch.setattr("networks.hypervisors.kvm_neighbours.ANSWER_SECONDS", 0.2)
    vm = make_vm()

    with pytest.raises(DeadlineExceeded):
        read([vm], {vm.uuid: lambda: release.wait(30)})


@pytest.fixture
def release():
    """Set at the end: threads that were left behind come back."""
    import threading

    event = threading.Event()
    yield event
    event.set()


def test_what_the_test_driver_invents_is_not_taken_for_a_neighbour():
    host, vm = KvmHost(IN_PROCESS), make_vm()
    host.define(make_spec(vm), soon())
    host.start(vm, soon())
    try:
        assert isinstance(host, NeighbourReader)
        assert list(host.read_neighbours([vm], soon())) == []
    finally:
        host.undefine(vm, soon())
