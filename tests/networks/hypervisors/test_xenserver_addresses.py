"""What guests say of themselves: joined to their NICs, and the mirror of a pool that it is read from."""

import contextlib
import os
import threading
import time
from ipaddress import ip_address

import pytest

from networks.hypervisors.base import (
    DeadlineExceeded,
    EndpointUnreachable,
    GuestAddress,
    HypervisorError,
    Outcome,
    Reading,
    Source,
    VmRef,
)
from networks.hypervisors.xenserver import FEW, XenHost
from networks.hypervisors.xenserver_addresses import MAX_ADDRESSES, Vif, guest, reading
from tests.networks.hypervisors.factories import make_vm, soon
from tests.networks.hypervisors.xen_world import address_of, host_of, pool, ref_of, started
from tests.simulators.xenserver import hostile

FIRST, SECOND = "02:00:00:00:00:01", "02:00:00:00:00:02"
VM = "OpaqueRef:vm"
ONE_NIC = [Vif(VM, "0", FIRST)]
TWO_NICS = [Vif(VM, "0", FIRST), Vif(VM, "1", SECOND)]


def said(networks, drivers=None, system=None, live=True):
    return guest(networks, drivers if drivers is not None else {"major": "8"}, system or {}, live)


def of(mac: str, ip: str, source: Source = Source.GUEST_AGENT) -> GuestAddress:
    return GuestAddress(mac, ip_address(ip), source)


# Joining -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "vifs", "expected"),
    [
        # Agents of today: by the VIF's number; "N/ip" says the first again.
        ({"0/ip": "192.0.2.1", "0/ipv4/0": "192.0.2.1"}, ONE_NIC, [of(FIRST, "192.0.2.1")]),
        (
            {"1/ip": "192.0.2.1", "1/ipv4/0": "192.0.2.1", "1/ipv4/1": "192.0.2.2", "1/ipv6/0": "2001:db8::1"},
            TWO_NICS,
            [of(SECOND, "192.0.2.1"), of(SECOND, "192.0.2.2"), of(SECOND, "2001:db8::1")],
        ),
        (
            {"0/ipv4/0": "192.0.2.1", "1/ipv4/0": "198.51.100.1"},
            TWO_NICS,
            [of(FIRST, "192.0.2.1"), of(SECOND, "198.51.100.1")],
        ),
        # Older agents: the number is from the guest's name for it.
        ({"0/ip": "192.0.2.1"}, ONE_NIC, [of(FIRST, "192.0.2.1")]),
        ({"0/ip": "192.0.2.1"}, TWO_NICS, [of(FIRST, "192.0.2.1", Source.UNSURE_AGENT)]),
        ({"3/ip": "192.0.2.1"}, ONE_NIC, [of(FIRST, "192.0.2.1", Source.UNSURE_AGENT)]),
        (
            {"0/ip": "192.0.2.1", "3/ip": "198.51.100.1"},
            TWO_NICS,
            [of(FIRST, "192.0.2.1", Source.UNSURE_AGENT), of(SECOND, "198.51.100.1", Source.UNSURE_AGENT)],
        ),
    ],
)
def test_addresses_are_given_to_their_nics(networks, vifs, expected):
    assert reading(said(networks), vifs) == Reading(tuple(expected))


def test_addresses_of_a_number_that_no_nic_has_may_be_either_s():
    assert reading(said({"5/ip": "192.0.2.1"}), TWO_NICS).problem is Outcome.AMBIGUOUS


def test_addresses_that_fit_no_nic_do_not_hide_those_that_do():
    three = [*TWO_NICS, Vif(VM, "2", "02:00:00:00:00:03")]
    networks = {"0/ipv4/0": "192.0.2.1", "7/ipv4/0": "198.51.100.1"}

    assert reading(said(networks), three) == Reading((of(FIRST, "192.0.2.1"),))


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::ffff:192.0.2.1",
        "fe80::1%eth0",
        "192.0.2.1\n; rm",
        "0x7f.1",
        "192.0.2.01",
        "192.0.2.1/24",
        "",
        "x" * 10_000,
    ],
)
def test_what_is_no_address_of_a_guest_is_skipped(text):
    assert reading(said({"0/ip": text}), ONE_NIC) == Reading(())


@pytest.mark.parametrize("key", ["ip", "/ip", "eth0/ip", "0/ip/1", "0/mac", "-1/ip", "9999999/ip", "0/ipv4/x"])
def test_keys_of_no_known_form_are_skipped(key):
    assert reading(said({key: "192.0.2.1"}), ONE_NIC) == Reading(())


def test_guest_with_very_many_addresses_is_cut_short():
    networks = {f"0/ipv6/{n}": f"2001:db8::{n:x}" for n in range(5000)}

    assert len(reading(said(networks), ONE_NIC).addresses) == MAX_ADDRESSES


def test_guest_without_tools_has_no_agent():
    assert reading(None, ONE_NIC).problem is Outcome.AGENT_ABSENT
    # What the pool writes by itself is no agent.
    assert reading(said({}, drivers={"micro": "-1"}), ONE_NIC).problem is Outcome.AGENT_ABSENT


def test_guest_whose_tools_have_stopped_is_silent():
    assert reading(said({"0/ip": "192.0.2.1"}, live=False), ONE_NIC).problem is Outcome.AGENT_SILENT


def test_guest_with_tools_and_no_address_has_answered():
    assert reading(said({}), ONE_NIC) == Reading(())


STRANGERS = [make_vm() for _ in range(FEW)]

# Reading a pool ----------------------------------------------------------------------------------


@pytest.fixture
def xen():
    with pool() as xen:
        yield xen


@pytest.fixture
def vm(xen) -> VmRef:
    return started(host_of(xen))


def read_one(xen, vm: VmRef) -> Reading:
    """From the mirror: more VMs are wanted than are read by themselves."""
    readings = dict(host_of(xen, "").read_addresses([vm, *STRANGERS], soon()))
    return readings[vm]


def test_address_of_a_guest_is_read(xen, vm):
    assert read_one(xen, vm).problem is Outcome.AGENT_ABSENT
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7", "2001:db8::7")

    assert read_one(xen, vm) == Reading((of(vm.macs[0], "192.0.2.7"), of(vm.macs[0], "2001:db8::7")))


def test_address_of_an_old_agent_is_read(xen, vm):
    xen.guests.has_interfaces(ref_of(xen, vm), {"ens3": "192.0.2.7"})

    assert read_one(xen, vm) == Reading((of(vm.macs[0], "192.0.2.7", Source.UNSURE_AGENT),))


def test_addresses_follow_what_the_guest_says(xen, vm):
    ref = ref_of(xen, vm)
    for ip in ("192.0.2.7", "192.0.2.8"):
        xen.guests.has_addresses(ref, vm.macs[0], ip)
        assert [str(address.ip) for address in read_one(xen, vm).addresses] == [ip]
    xen.guests.falls_silent(ref)

    assert read_one(xen, vm).problem is Outcome.AGENT_SILENT


def test_vm_that_is_off_does_not_run(xen, vm):
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    read_one(xen, vm)
    host_of(xen).stop(vm, soon(), grace=0)

    assert read_one(xen, vm).problem is Outcome.NOT_RUNNING


def test_boot_forgets_the_addresses_of_the_former_one(xen, vm):
    host = host_of(xen)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    read_one(xen, vm)
    host.stop(vm, soon(), grace=0)
    host.start(vm, soon())

    assert read_one(xen, vm).problem is Outcome.AGENT_ABSENT


def test_vm_that_is_paused_does_not_answer(xen, vm):
    xen.db.set("VM", ref_of(xen, vm), power_state="Paused")

    assert read_one(xen, vm).problem is Outcome.NOT_RUNNING


def test_vm_that_is_nowhere_does_not_run(xen, vm):
    assert read_one(xen, make_vm()).problem is Outcome.NOT_RUNNING


def test_vm_that_was_made_after_the_pool_was_first_read(xen, vm):
    read_one(xen, vm)
    later = started(host_of(xen, "xen2"))
    xen.guests.has_addresses(ref_of(xen, later), later.macs[0], "192.0.2.9")

    assert read_one(xen, later) == Reading((of(later.macs[0], "192.0.2.9"),))


def test_vm_that_moved_is_read_as_before(xen, vm):
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    read_one(xen, vm)
    host_of(xen).migrate(vm, host_of(xen, "xen2"), soon())

    assert read_one(xen, vm) == Reading((of(vm.macs[0], "192.0.2.7"),))
    assert vm.uuid in host_of(xen, "xen2").running_vms(soon())


@pytest.mark.parametrize(
    "call", ["VM.get_all_records_where", "VIF.get_all_records_where", "VM_guest_metrics.get_all_records"]
)
def test_vm_that_is_deleted_while_the_pool_is_read(xen, vm, call):
    other = started(host_of(xen))
    ref = ref_of(xen, other)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    xen.faults.before(call, lambda: xen.delete_vm(ref))

    readings = dict(host_of(xen, "").read_addresses([vm, other, *STRANGERS], soon()))
    assert readings[vm].addresses
    readings = dict(host_of(xen, "").read_addresses([vm, other, *STRANGERS], soon()))
    assert readings[other].problem is Outcome.NOT_RUNNING


def test_nic_that_appears_while_the_pool_is_read_is_not_missed(xen, vm):
    ref = ref_of(xen, vm)
    xen.faults.before(
        "VM_guest_metrics.get_all_records", lambda: xen.guests.has_addresses(ref, vm.macs[0], "192.0.2.7")
    )
    read_one(xen, vm)

    assert read_one(xen, vm).addresses


# One by one --------------------------------------------------------------------------------------


def test_few_vms_are_read_by_themselves(xen, vm):
    host = host_of(xen, "")
    ref = ref_of(xen, vm)
    assert dict(host.read_addresses([vm], soon()))[vm].problem is Outcome.AGENT_ABSENT
    xen.guests.has_addresses(ref, vm.macs[0], "192.0.2.7")
    readings = dict(host.read_addresses([vm, STRANGERS[0]], soon()))

    assert readings[vm] == Reading((of(vm.macs[0], "192.0.2.7"),))
    assert readings[STRANGERS[0]].problem is Outcome.NOT_RUNNING
    assert xen.calls["event.inject"] == 0


@pytest.mark.parametrize("others", [[], STRANGERS], ids=["alone", "from the mirror"])
def test_guest_of_a_host_that_the_pool_has_lost_confirms_no_address(xen, vm, others):
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    lost = xen.db.get("host", xen.db.get("VM", ref_of(xen, vm))["resident_on"])["metrics"]
    xen.db.set("host_metrics", lost, live=False)
    read = dict(host_of(xen, "").read_addresses([vm, *others], soon()))[vm]

    assert (read.addresses, read.problem) == ((), Outcome.AGENT_SILENT)
    assert "old" in read.detail


# The mirror --------------------------------------------------------------------------------------


def used(xen, host: XenHost, vms) -> int:
    before = sum(xen.calls.values())
    list(host.read_addresses(vms, soon()))
    return sum(xen.calls.values()) - before


def test_pool_is_read_by_few_calls_and_then_by_two(xen):
    xen.add_vms(300)
    host = host_of(xen, "")
    vms = [make_vm() for _ in range(50)]

    assert used(xen, host, vms) <= 10
    assert used(xen, host, vms) == 2
    xen.add_vms(10)
    assert used(xen, host, vms) == 2


def test_large_pool_is_read_in_parts(xen, monkeypatch):
    monkeypatch.setattr("networks.hypervisors.xenserver_mirror.VMS_A_CALL", 10)
    xen.add_vms(30)

    assert len(host_of(xen, "").running_vms(soon())) == 30
    assert xen.calls["VM.get_all_records_where"] == 2


def test_reader_does_not_wait_for_another_beyond_its_deadline(xen, vm):
    read_one(xen, vm)
    xen.faults.hang("event.from")
    other = threading.Thread(target=slow, args=(xen, vm))
    other.start()
    wait_for_call(xen, "event.from")
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="somebody else"):
        list(host_of(xen, "").read_addresses([vm, *STRANGERS], soon(0.5)))
    assert time.monotonic() - begun < 1.5
    other.join()


def slow(xen, vm) -> None:
    with contextlib.suppress(DeadlineExceeded):
        list(host_of(xen, "").read_addresses([vm, *STRANGERS], soon(2)))


def wait_for_call(xen, name: str) -> None:
    give_up = time.monotonic() + 5
    while not xen.calls[name]:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_token_that_the_pool_does_not_know_has_it_read_anew(xen, vm):
    read_one(xen, vm)
    xen.faults.fail_next("event.from", "EVENT_FROM_TOKEN_PARSE_FAILURE", "x")
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")

    assert read_one(xen, vm).addresses


def test_deletion_that_the_pool_forgot_has_it_read_anew(xen, vm):
    read_one(xen, vm)
    xen.delete_vm(ref_of(xen, vm))
    xen.db.deletions.clear()

    assert read_one(xen, vm).problem is Outcome.NOT_RUNNING


def test_session_that_ends_between_two_looks_loses_nothing(xen, vm):
    read_one(xen, vm)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    xen.expire_sessions()
    before = xen.calls["VM.get_all_records_where"]

    assert read_one(xen, vm).addresses
    assert xen.calls["VM.get_all_records_where"] == before


def test_pool_that_fails_is_told_and_read_the_next_time(xen, vm):
    read_one(xen, vm)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    xen.faults.answer("event.from", hostile.hang_up)
    with pytest.raises(EndpointUnreachable):
        read_one(xen, vm)
    xen.faults.calm()

    assert read_one(xen, vm).addresses


@pytest.mark.parametrize("answer", [hostile.a_number, hostile.not_xml, hostile.deep, hostile.endless])
def test_hostile_events_harm_nobody(xen, vm, answer):
    read_one(xen, vm)
    xen.faults.answer("event.from", answer)
    with contextlib.suppress(HypervisorError):
        list(host_of(xen, "").read_addresses([vm, *STRANGERS], soon(3)))
    xen.faults.calm()

    assert read_one(xen, vm).problem is Outcome.AGENT_ABSENT


@pytest.mark.parametrize("answer", [hostile.a_number, hostile.endless])
def test_changes_that_no_answer_can_hold_have_the_pool_read_anew(xen, vm, answer):
    read_one(xen, vm)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    xen.faults.answer("event.from", answer)

    assert read_one(xen, vm).addresses


def test_changes_that_are_too_late_twice_have_the_pool_read_anew(xen, vm):
    read_one(xen, vm)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    xen.faults.hang("event.from")
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            list(host_of(xen, "").read_addresses([vm, *STRANGERS], soon(1)))

    assert read_one(xen, vm).addresses


def test_pool_that_is_read_anew_hides_no_vm_from_others(xen, vm):
    read_one(xen, vm)
    xen.faults.fail_next("event.from", "EVENT_FROM_TOKEN_PARSE_FAILURE", "x")
    xen.faults.delay(0.5, "host.get_all_records")
    host = host_of(xen, "")
    other = threading.Thread(target=read_one, args=(xen, vm))
    other.start()
    wait_for_call(xen, "event.from")
    seen = []
    while other.is_alive():
        seen.append(host.running_vms(soon()))
    other.join()

    assert seen
    assert all(vm.uuid in running for running in seen)


def test_pool_that_cannot_be_read_anew_stays_known_as_it_was(xen, vm):
    read_one(xen, vm)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    xen.faults.fail_next("event.from", "EVENT_FROM_TOKEN_PARSE_FAILURE", "x")
    xen.faults.answer("VM_guest_metrics.get_all_records", hostile.hang_up)
    with pytest.raises(EndpointUnreachable):
        read_one(xen, vm)

    assert read_one(xen, vm).addresses


@pytest.mark.parametrize("device", ["0", "1", "2", "6"])
def test_nics_are_read_in_parts_and_all_of_them(xen, vm, device):
    (vif,) = xen.db.where("VIF", VM=ref_of(xen, vm))
    xen.db.set("VIF", vif.ref, device=device)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")

    assert read_one(xen, vm).addresses
    assert xen.calls["VIF.get_all_records"] == 0


def test_silent_pool_does_not_hold_us_up(xen, vm):
    read_one(xen, vm)
    xen.faults.hang("event.from")
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        list(host_of(xen, "").read_addresses([vm, *STRANGERS], soon(1)))

    assert time.monotonic() - begun < 2


def test_threads_share_what_is_known(xen):
    xen.add_vms(100)
    host = host_of(xen, "")
    results: list[set[str]] = []
    threads = [threading.Thread(target=lambda: results.append(host.running_vms(soon()))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [len(found) for found in results] == [100] * 6
    assert xen.calls["event.inject"] == 1


def test_child_process_reads_for_itself(xen, vm):
    """What the parent holds, its sessions, sockets and locks, is not the child's."""
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")
    read_one(xen, vm)
    child = os.fork()
    if child == 0:
        os._exit(0 if read_one(xen, vm).addresses else 1)
    _pid, status = os.waitpid(child, 0)

    assert status == 0
    assert read_one(xen, vm).addresses


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("VIF", {"MAC": "not a MAC", "device": "x"}),
        ("VIF", {"MAC": FIRST.upper(), "device": "0"}),
        ("VM_guest_metrics", {"networks": {"0/ip": "<img onerror=x>", "": "x"}}),
    ],
)
def test_odd_records_of_others_harm_nobody(xen, vm, table, values):
    xen.db.create(table, **values)
    xen.guests.has_addresses(ref_of(xen, vm), vm.macs[0], "192.0.2.7")

    assert read_one(xen, vm).addresses


def test_pool_of_another_address_is_another_s(xen, vm):
    read_one(xen, vm)
    before = xen.calls["event.inject"]
    xen.sessions.users["reader"] = ("pw", "read-only")
    reader = XenHost(address_of(xen, username="reader", password="pw"))

    assert reader.running_vms(soon()) == {vm.uuid}
    assert xen.calls["event.inject"] == before + 1
