"""What vSphere tells of a guest, made into addresses: the pure part, and the mirror on the vCenter simulator."""

from ipaddress import ip_address

import pytest

from networks.hypervisors import bounded
from networks.hypervisors.base import GuestAddress, Outcome, Source, VmRef
from networks.hypervisors.bounded import AnswerRefused
from networks.hypervisors.vsphere import VsphereHost
from networks.hypervisors.vsphere_machines import MAX_ADDRESSES, MAX_INTERFACES, Machine, changed, reading
from networks.hypervisors.vsphere_session import SESSIONS
from networks.hypervisors.vsphere_types import vim
from tests.networks.hypervisors.factories import make_vm, soon
from tests.networks.hypervisors.vsphere_factories import define
from tests.simulators.vcenter.starting import vcenter_for_tests

MAC, SECOND = "52:54:00:00:05:01", "52:54:00:00:05:02"
VM = VmRef("i-2-3-VM", "0b5a0b6e-7a3c-4f0e-9d3e-0f3f4c1f8f01", (MAC,))


def make_nic(mac: str = MAC, *addresses: str, key: int = 4000, structured: bool = True):
    """`addresses` with their prefixes; old tools tell them without, in a list of texts."""
    known = [each.partition("/") for each in addresses]
    config = None
    if structured:
        config = vim.net.IpConfigInfo(
            ipAddress=[
                vim.net.IpConfigInfo.IpAddress(ipAddress=ip, prefixLength=int(prefix or 0)) for ip, _, prefix in known
            ]
        )
    return vim.vm.GuestInfo.NicInfo(
        macAddress=mac, deviceConfigId=key, connected=True, ipAddress=[ip for ip, _, _ in known], ipConfig=config
    )


def make_machine(*nics, **properties) -> Machine:
    told = {
        "config.uuid": VM.uuid,
        "runtime.powerState": "poweredOn",
        "guest.toolsRunningStatus": "guestToolsRunning",
        "guest.toolsVersionStatus2": "guestToolsCurrent",
        "guest.net": list(nics),
    }
    return changed(Machine(), told | properties)


def addresses(machine: Machine, vm: VmRef = VM) -> list[tuple[str, str]]:
    return [(address.mac, str(address.ip)) for address in reading(vm, [machine]).addresses]


def test_addresses_are_those_of_the_nic_with_their_prefix():
    found = reading(VM, [make_machine(make_nic(MAC.upper(), "192.0.2.7/24", "2001:db8::7/64"))])

    assert found.problem is None
    assert found.addresses == (
        GuestAddress(MAC, ip_address("192.0.2.7"), Source.GUEST_AGENT, 24),
        GuestAddress(MAC, ip_address("2001:db8::7"), Source.GUEST_AGENT, 64),
    )


def test_interface_that_only_the_guest_has_is_left_out():
    bridge = make_nic("02:42:00:00:00:01", "172.17.0.1/16", key=-1)

    assert addresses(make_machine(bridge, make_nic(MAC, "192.0.2.7/24"))) == [(MAC, "192.0.2.7")]


def test_interface_with_a_nics_mac_and_no_device_key_is_left_out():
    assert addresses(make_machine(make_nic(MAC, "192.0.2.66/24", key=-1))) == []


def test_summary_address_is_not_used_beside_what_the_nics_say():
    machine = make_machine(make_nic(MAC, "192.0.2.7/24"), **{"guest.ipAddress": "172.17.0.1"})

    assert addresses(machine) == [(MAC, "192.0.2.7")]


def test_summary_address_of_old_tools_is_unsure():
    machine = make_machine(**{"guest.ipAddress": "192.0.2.7"})

    (address,) = reading(VM, [machine]).addresses

    assert (address.mac, str(address.ip), address.source) == (MAC, "192.0.2.7", Source.UNSURE_AGENT)


def test_summary_address_may_be_any_of_two_nics():
    machine = make_machine(**{"guest.ipAddress": "192.0.2.7"})

    assert addresses(machine, VmRef(VM.name, VM.uuid, (MAC, SECOND))) == []


def test_addresses_without_prefixes_are_addresses_too():
    (address,) = reading(VM, [make_machine(make_nic(MAC, "192.0.2.7", structured=False))]).addresses

    assert (str(address.ip), address.prefix) == ("192.0.2.7", None)


@pytest.mark.parametrize("state", ["disconnected", "orphaned", "inaccessible"])
def test_what_a_guest_said_before_its_host_was_lost_is_not_told(state):
    machine = make_machine(make_nic(MAC, "192.0.2.7/24"), **{"runtime.connectionState": state})

    told = reading(VM, [machine])

    assert (told.addresses, told.problem) == ((), Outcome.AGENT_SILENT)
    assert state in told.detail


def test_tools_that_are_absent_stopped_and_old_and_have_nothing_to_tell_yet_are_told_apart():
    absent = {"guest.toolsRunningStatus": "guestToolsNotRunning", "guest.toolsVersionStatus2": "guestToolsNotInstalled"}
    stopped = {"guest.toolsRunningStatus": "guestToolsNotRunning"}
    old = {"guest.toolsVersionStatus2": "guestToolsTooOld"}

    readings = [reading(VM, [make_machine(**each)]) for each in (absent, stopped, old, {})]

    assert [(each.problem, each.detail) for each in readings] == [
        (Outcome.AGENT_ABSENT, "VMware Tools are not installed in the guest."),
        (Outcome.AGENT_ABSENT, "VMware Tools do not run in the guest."),
        (None, "VMware Tools in the guest are old, and tell nothing of its NICs."),
        (None, ""),
    ]


def test_old_tools_that_tell_addresses_are_believed():
    machine = make_machine(make_nic(MAC, "192.0.2.7/24"), **{"guest.toolsVersionStatus2": "guestToolsNeedUpgrade"})

    assert addresses(machine) == [(MAC, "192.0.2.7")]


@pytest.mark.parametrize("power", ["poweredOff", "suspended"])
def test_what_a_guest_said_before_it_was_switched_off_is_not_believed(power):
    machine = make_machine(make_nic(MAC, "192.0.2.7/24"), **{"runtime.powerState": power})

    found = reading(VM, [machine])

    assert (found.problem, found.addresses) == (Outcome.NOT_RUNNING, ())


def test_two_vms_with_one_uuid_are_not_told_apart():
    machine = make_machine(make_nic(MAC, "192.0.2.7/24"))

    assert reading(VM, [machine, machine]).problem is Outcome.AMBIGUOUS


def test_vm_that_is_not_there_does_not_run():
    assert reading(VM, []).problem is Outcome.NOT_RUNNING


NO_ADDRESSES = (
    *("", "1.2.3.4\n; rm", "0x7f.1", "::ffff:192.0.2.7", "fe80::1%eth0", "127.0.0.1", "0.0.0.0", "255.255.255.255"),
    *("224.0.0.1", "192.0.2.07", "x" * 65536, "ff02::1", "::1"),
)


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_of_a_guest_is_skipped(text):
    nic = make_nic(MAC, "192.0.2.7/24")
    nic.ipAddress.append(text)

    assert addresses(make_machine(nic, **{"guest.ipAddress": text})) == [(MAC, "192.0.2.7")]


@pytest.mark.parametrize("mac", ["", "x", "52:54:00:00:05", "52-54-00-00-05-01", "52:54:00:00:05:01\n"])
def test_what_is_no_mac_address_is_skipped(mac):
    assert addresses(make_machine(make_nic(mac, "192.0.2.66/24"))) == []


def test_guest_with_interfaces_without_end_costs_what_a_large_one_does():
    many = [make_nic(f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}", "192.0.2.9/24") for number in range(1000)]
    busy = make_nic(MAC, *[f"10.0.{number >> 8}.{number & 255}/8" for number in range(1, 1000)])

    assert len(make_machine(*many).interfaces) == MAX_INTERFACES
    (interface,) = make_machine(busy).interfaces
    assert len(interface.addresses) <= MAX_ADDRESSES


def test_prefix_out_of_range_is_none():
    (address,) = reading(VM, [make_machine(make_nic(MAC, "192.0.2.7/99"))]).addresses

    assert address.prefix is None


def test_property_that_vsphere_takes_back_is_gone():
    machine = changed(make_machine(make_nic(MAC, "192.0.2.7/24")), {"guest.net": None, "guest.ipAddress": None})

    assert addresses(machine) == []


# The mirror -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vcenter():
    with vcenter_for_tests(vms=1200, addresses=True) as vcenter:
        yield vcenter


@pytest.fixture
def everywhere(vcenter):
    return VsphereHost(vcenter.address)


@pytest.fixture
def running(vcenter):
    host = VsphereHost(vcenter.address, vcenter.hosts()[0])
    vm = define(host, make_vm(macs=(MAC, SECOND))).vm
    host.start(vm, soon())
    yield vm
    host.undefine(vm, soon())


def test_guests_report_is_read_by_nic(vcenter, everywhere, running):
    said = {MAC: ["192.0.2.7/24"], SECOND: ["198.51.100.7/24"], "02:42:00:00:00:01": ["172.17.0.1/16"]}
    vcenter.guest_says(running.uuid, said, ip="172.17.0.1")

    ((vm, found),) = everywhere.read_addresses([running], soon())

    assert vm == running
    assert sorted((address.mac, str(address.ip)) for address in found.addresses) == [
        (MAC, "192.0.2.7"),
        (SECOND, "198.51.100.7"),
    ]


def test_guest_that_has_just_been_started_has_no_tools(everywhere, running):
    ((_vm, found),) = everywhere.read_addresses([running], soon())

    assert found.problem is Outcome.AGENT_ABSENT


def test_batch_costs_one_call_whatever_its_size(vcenter, everywhere):
    uuids = everywhere.running_vms(soon())
    vms = [VmRef("x", uuid) for uuid in uuids]
    vcenter.forget_calls()

    found = [reading for _vm, reading in everywhere.read_addresses(vms, soon())]

    assert vcenter.calls() == {"WaitForUpdatesEx": 1}
    assert len(found) >= 1200
    assert sum(1 for each in found if each.addresses) >= 1200


def test_first_batch_is_told_in_pages(vcenter, everywhere):
    SESSIONS.close()
    vcenter.forget_calls()

    assert len(everywhere.running_vms(soon(60))) >= 1200

    assert vcenter.calls()["WaitForUpdatesEx"] == 2  # pages of 1,000


def test_all_vms_are_listed_page_by_page(vcenter, everywhere):
    assert len(everywhere.list_vms(soon(60))) >= 1200

    assert vcenter.calls()["ContinueRetrievePropertiesEx"] >= 12  # pages of 100


def test_page_that_is_too_much_is_asked_for_in_smaller_ones(vcenter, everywhere, monkeypatch):
    SESSIONS.close()
    monkeypatch.setattr(bounded.Budget.__init__, "__defaults__", (8 * 1024 * 1024,))  # 1,000 VMs cost 17 MiB
    vcenter.forget_calls()

    assert len(everywhere.running_vms(soon(60))) >= 1200

    assert vcenter.calls()["CreatePropertyCollector"] == 2


def test_endpoint_that_tells_too_much_whatever_is_asked_is_refused(everywhere, monkeypatch):
    SESSIONS.close()
    everywhere.host_facts(soon())
    monkeypatch.setattr(bounded.Budget.__init__, "__defaults__", (100_000,))

    with pytest.raises(AnswerRefused):
        everywhere.running_vms(soon(60))


def test_vm_deleted_meanwhile_does_not_run(vcenter, everywhere):
    host = VsphereHost(vcenter.address, vcenter.hosts()[0])
    spec = define(host)
    host.start(spec.vm, soon())
    ((_vm, before),) = everywhere.read_addresses([spec.vm], soon())
    host.undefine(spec.vm, soon())
    host.delete_root(spec.root, soon())

    ((_vm, after),) = everywhere.read_addresses([spec.vm], soon())

    assert before.problem is Outcome.AGENT_ABSENT
    assert after.problem is Outcome.NOT_RUNNING
