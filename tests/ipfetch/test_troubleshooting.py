"""`troubleshoot`: each point of the external DHCP/DNS spec's list, answered by what is found on the live system."""

from datetime import timedelta
from ipaddress import ip_address

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from ipfetch.models import AddressChain, Confidence, Flag, IpFetch, LeaseServer, Observation, create_lease_token
from networks.hypervisors.base import (
    AgentState,
    EndpointUnreachable,
    GuestAddress,
    NetworkRef,
    NicSpec,
    NicState,
    Outcome,
    Reading,
    Source,
)
from networks.models import AddressState, Endpoint, HypervisorType, Network, Nic, VirtualMachine
from networks.models.offerings import OsFamily
from networks.troubleshooting import TOOLS
from tests.factories import make_cluster, make_host, make_network, make_network_offering, make_running_vm
from tests.life import deploy

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.fixture
def vm(fake, caller):
    """Running on a host that knows it, its NIC waiting for an address."""
    cluster = make_cluster()
    make_host(cluster)
    return deploy(caller, cluster, name="web")


@pytest.fixture
def nic(vm):
    return vm.nics.get()


@pytest.fixture
def check(manage, nic):
    """The check of that name about the NIC, by one run of the command."""

    def check(name: str) -> dict:
        found = {check["name"]: check for check in manage("troubleshoot", nic.uuid, "--json").json}
        return found[name.replace("MAC", nic.mac_address)]

    return check


def learned(nic: Nic, ip: str = "192.0.2.120", state: AddressState = AddressState.CONFIRMED) -> None:
    known = {"ip4_address": ip, "address_state": state, "address_source": "agent", "address_seen_at": timezone.now()}
    Nic.objects.filter(pk=nic.pk).update(**known)
    IpFetch.objects.filter(nic=nic).update(state="found", last_outcome="found")


def answers(fake, nic: Nic, *ips: str) -> None:
    fake.answers(nic.vm.on_host, *(GuestAddress(nic.mac_address, ip_address(ip), Source.GUEST_AGENT) for ip in ips))


def observe(nic: Nic, address: str = "192.0.2.120", **fields) -> Observation:
    now = timezone.now()
    seen = {"source": "agent", "confidence": Confidence.CONFIRMED, "first_seen_at": now, "last_seen_at": now}
    return Observation.objects.create(nic=nic, address=address, **{"family": 4, **seen, **fields})


class TestWhole:
    def test_all_is_well(self, manage, fake, nic):
        learned(nic)
        answers(fake, nic, "192.0.2.120")

        ran = manage("troubleshoot", nic.mac_address)

        assert (ran.status, ran.err) == (0, "")
        lines = ran.out.splitlines()
        assert [line for line in lines if line.startswith("FAILED")] == []
        mac = nic.mac_address
        for name in ("state", "host", "endpoint", "power", "agent", f"NIC {mac}", "sources", f"address of {mac}"):
            assert [line for line in lines if line.startswith(f"ok      {name}: ")], name
        for name in (f"range of {mac}", f"guest's answer for {mac}", f"queue of {mac}"):
            assert [line for line in lines if line.startswith(f"ok      {name}: ")], name

    def test_of_a_nic_only_what_concerns_it(self, manage, fake, caller):
        cluster = make_cluster()
        make_host(cluster)
        networks = [make_network(cluster.pod.zone) for _ in range(2)]
        one, other = deploy(caller, cluster, networks=networks).nics.all()

        ran = manage("troubleshoot", one.mac_address)

        assert one.mac_address in ran.out
        assert other.mac_address not in ran.out
        for about_the_drive in ("drive:", "password:", "label:", "user data:"):
            assert about_the_drive not in ran.out
        whole = manage("troubleshoot", one.vm.name).out
        for nic in (one, other):
            assert f"address of {nic.mac_address}: " in whole

    def test_the_status_tells_that_something_is_wrong(self, manage, nic, fake):
        assert manage("troubleshoot", nic.uuid).status == 1

    def test_a_stopped_vm_is_not_asked(self, manage, fake):
        nic = make_running_vm().nics.get()
        VirtualMachine.objects.update(state="Stopped", host=None)

        ran = manage("troubleshoot", nic.uuid)

        assert fake.calls == []
        assert "looked for once the VM runs" in ran.out

    def test_nothing_is_changed(self, manage, nic):
        with CaptureQueriesContext(connection) as queries:
            manage("troubleshoot", nic.uuid)
        assert not [query for query in queries if not query["sql"].startswith("SELECT")]

    def test_a_guest_is_asked_once_for_all_its_nics(self, manage, fake, caller):
        cluster = make_cluster()
        make_host(cluster)
        deploy(caller, cluster, name="two", networks=[make_network(cluster.pod.zone) for _ in range(2)])
        fake.calls.clear()
        manage("troubleshoot", "two")
        assert fake.calls.count("read_addresses") == 1


class TestHost:
    def test_an_endpoint_that_does_not_answer(self, check, fake):
        fake.failing["power_state"] = EndpointUnreachable("No route to it.")
        retry_at = timezone.now() + MINUTE
        Endpoint.objects.update(failures=4, retry_at=retry_at, stuck_calls=2)

        found = check("endpoint")

        assert found["passed"] is False
        for words in (
            "does not answer: No route to it.",
            "not 4 times in a row",
            f"again from {retry_at:%H:%M:%S} UTC",
            "2 calls to it do not come back",
            "Run: manage.py check_endpoint",
        ):
            assert words in found["text"]

    def test_one_that_answers_again_before_the_breaker_closes(self, check):
        Endpoint.objects.update(failures=4, retry_at=timezone.now() + MINUTE)
        found = check("endpoint")
        assert found["passed"] is True
        assert "It did not before; addresses are asked for again from" in found["text"]

    @pytest.mark.parametrize(
        ("state", "passed", "says"),
        [
            (AgentState.CONNECTED, True, "connected"),
            (AgentState.NOT_CONNECTED, False, "A Linux guest on KVM needs qemu-guest-agent in its template."),
            (AgentState.NO_CHANNEL, False, "no channel for an agent"),
            (None, None, "does not say whether it is connected"),
        ],
    )
    def test_the_agent_as_the_host_sees_it(self, check, fake, vm, state, passed, says):
        fake.agents[str(vm.uuid)] = state
        found = check("agent")
        assert (found["passed"], says in found["text"]) == (passed, True)

    def test_who_has_its_address_from_elsewhere_needs_no_agent(self, check, fake, nic):
        learned(nic)
        fake.agents[str(nic.vm.uuid)] = AgentState.NOT_CONNECTED
        assert check("agent")["passed"] is None

    def test_a_windows_guest_is_told_what_it_needs(self, check, fake, nic):
        nic.vm.template.os_family = OsFamily.WINDOWS
        nic.vm.template.save()
        assert "A Windows guest on KVM needs the virtio drivers" in check("guest's answer for MAC")["text"]

    def test_a_nic_that_the_running_vm_lacks(self, check, fake, vm):
        fake.nics[str(vm.uuid)] = ()
        found = check("NIC MAC")
        assert (found["passed"], "has no NIC with this MAC address" in found["text"]) == (False, True)

    @pytest.mark.parametrize(
        ("hypervisor", "advice"),
        [
            ("KVM", "virsh domif-setlink NAME MAC up"),
            ("XenServer", "xe vif-list vm-name-label=NAME MAC=MAC and unlock it"),
            ("VMware", "In the settings of NAME, connect the network adapter with MAC address MAC."),
        ],
    )
    def test_a_link_that_was_set_down(self, check, fake, vm, nic, monkeypatch, hypervisor, advice):
        VirtualMachine.objects.update(hypervisor=hypervisor)
        monkeypatch.setattr(fake, "nic_state", lambda *asked: NicState.LINK_DOWN)
        found = check("NIC MAC")
        told = advice.replace("=MAC", f"={nic.mac_address}").replace(" MAC up", f" {nic.mac_address} up")
        told = told.replace("address MAC", f"address {nic.mac_address}").replace("NAME", vm.instance_name)
        assert (found["passed"], told in found["text"]) == (False, True)

    def test_a_nic_on_another_bridge(self, check, fake, nic):
        fake.nics[str(nic.vm.uuid)] = (NicSpec(nic.mac_address, NetworkRef("cloudbr999", 999)),)
        found = check("NIC MAC")
        assert found["passed"] is False
        assert f"not plugged into cloudbr{nic.network.vlan}" in found["text"]

    def test_a_host_that_cannot_be_asked_about_it(self, check, fake):
        fake.failing |= {"nic_state": EndpointUnreachable("No."), "agent_state": EndpointUnreachable("No.")}
        assert (check("NIC MAC")["passed"], check("agent")["passed"]) == (None, None)


class TestAddress:
    def test_none_and_why(self, check, nic):
        IpFetch.objects.update(last_outcome="agent_absent")
        found = check("address of MAC")
        assert found["passed"] is None
        assert "No guest agent answers in the VM. Install and start" in found["text"]

    def test_none_and_given_up(self, check, nic):
        IpFetch.objects.update(state="exhausted", last_outcome="none_yet")
        assert (check("address of MAC")["passed"], check("queue of MAC")["passed"]) == (False, False)

    @pytest.mark.parametrize(
        ("state", "passed", "words"),
        [
            (AddressState.CONFIRMED, True, "192.0.2.120, confirmed, told by agent, last seen at "),
            (AddressState.PINNED, True, "192.0.2.120, set by an operator, last seen"),
            (AddressState.UNCONFIRMED, None, "192.0.2.120, unconfirmed, told by agent"),
            (AddressState.LAST_KNOWN, None, "192.0.2.120, last known, told by agent"),
        ],
    )
    def test_how_far_it_can_be_believed(self, check, nic, state, passed, words):
        learned(nic, state=state)
        found = check("address of MAC")
        assert (found["passed"], words in found["text"]) == (passed, True)

    @pytest.mark.parametrize(
        ("ip", "passed", "words"),
        [
            ("192.0.2.120", True, "is in 192.0.2.0/24"),
            ("192.0.2.20", None, "outside 192.0.2.100 to 192.0.2.199: a reservation"),
            ("198.51.100.7", False, "not an address for guests of 192.0.2.0/24"),
            ("192.0.2.1", False, "not an address for guests of 192.0.2.0/24"),
        ],
    )
    def test_its_place_in_the_network(self, check, nic, ip, passed, words):
        learned(nic, ip)
        found = check("range of MAC")
        assert (found["passed"], words in found["text"]) == (passed, True)

    def test_a_network_with_dhcp_of_its_own(self, check, nic):
        Network.objects.update(offering=make_network_offering({"Dhcp": "ConfigDrive"}))
        assert "has no external DHCP server: nothing is looked for" in check("address of MAC")["text"]


class TestGuest:
    """What it says at this moment, whatever is written down."""

    def test_it_has_the_address(self, check, fake, nic):
        answers(fake, nic, "192.0.2.120", "2001:db8::7")
        found = check("guest's answer for MAC")
        assert (found["passed"], found["text"]) == (True, "192.0.2.120, 2001:db8::7")

    def test_it_has_another_than_is_written_down(self, check, fake, nic):
        learned(nic, "192.0.2.121")
        answers(fake, nic, "192.0.2.120")
        assert "192.0.2.121 is written down until the next try" in check("guest's answer for MAC")["text"]

    def test_it_has_another_than_was_set_by_hand(self, check, fake, nic):
        learned(nic, "192.0.2.121", AddressState.PINNED)
        answers(fake, nic, "192.0.2.120")
        assert "192.0.2.121 was set by hand, and stays" in check("guest's answer for MAC")["text"]

    def test_it_has_none(self, check, fake, nic):
        answers(fake, nic, "169.254.7.7")
        found = check("guest's answer for MAC")
        assert found["passed"] is False
        assert "The agent answers, and this NIC has no address." in found["text"]
        assert "Check the VLAN" in found["text"]

    def test_it_has_one_of_another_network(self, check, fake, nic):
        answers(fake, nic, "198.51.100.7")
        found = check("guest's answer for MAC")
        assert (found["passed"], "It has 198.51.100.7: no IPv4 address of 192.0.2.0/24" in found["text"]) == (
            False,
            True,
        )

    @pytest.mark.parametrize(
        ("problem", "says"),
        [(Outcome.AGENT_SILENT, "Look at the VM's console"), (Outcome.NOT_RUNNING, "not running on its host")],
    )
    def test_it_does_not_answer(self, check, fake, nic, problem, says):
        fake.readings[str(nic.vm.uuid)] = Reading(problem=problem)
        found = check("guest's answer for MAC")
        assert (found["passed"], says in found["text"]) == (False, True)

    def test_it_could_not_be_asked(self, check, fake):
        fake.failing["read_addresses"] = EndpointUnreachable("No answer.")
        assert check("guest's answer for MAC")["passed"] is None


class TestLease:
    @pytest.fixture
    def directory(self, settings, tmp_path):
        settings.LEASE_DIR = tmp_path
        return tmp_path

    @pytest.fixture
    def server(self, nic):
        server = LeaseServer.objects.create(name="corp-dhcp", kind="dnsmasq", path="dnsmasq.leases")
        server.networks.add(nic.network)
        return server

    def test_nobody_is_known(self, check):
        assert "lets its leases be read, or reports them" in check("lease of MAC")["text"]

    def test_the_server_has_it(self, check, directory, server, nic):
        expires = int((timezone.now() + MINUTE).timestamp())
        (directory / "dnsmasq.leases").write_text(f"{expires} {nic.mac_address} 192.0.2.120 web *\n")
        found = check("lease of MAC")
        assert (found["passed"], found["text"]) == (True, "192.0.2.120, by corp-dhcp.")

    def test_the_server_has_none(self, check, directory, server):
        (directory / "dnsmasq.leases").write_text("")
        found = check("lease of MAC")
        assert (found["passed"], "corp-dhcp has none for this MAC address" in found["text"]) == (False, True)

    def test_the_server_cannot_be_read(self, check, directory, server):
        found = check("lease of MAC")
        assert (found["passed"], found["text"]) == (False, "corp-dhcp: It is not there.")

    def test_when_it_reported_last(self, check, nic):
        create_lease_token(nic.network, "corp-dhcp")
        assert check("lease of MAC")["text"] == "corp-dhcp has never reported."


class TestSources:
    def test_the_order_in_which_they_are_asked(self, check, nic):
        AddressChain.objects.create(zone=nic.vm.zone, hypervisor="KVM", os_family="Linux", sources="lease, agent")
        assert check("sources")["text"] == "asked in this order: lease, agent."

    def test_that_the_disk_is_not_read(self, check, nic):
        assert f"endpoint {nic.vm.host.endpoint} does not allow it" in check("sources")["text"]
        Endpoint.objects.update(disk_access="local")
        assert "not allow" not in check("sources")["text"]

    def test_what_each_said_last_and_when(self, check, nic):
        seen = observe(nic, source="arp", confidence=Confidence.UNCONFIRMED)
        found = check("arp about MAC")
        assert found["passed"] is True
        assert found["text"] == f"192.0.2.120, unconfirmed, last at {seen.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"

    def test_what_it_does_not_say_any_more(self, check, manage, nic):
        observe(nic, "192.0.2.121", ended_at=timezone.now(), last_seen_at=timezone.now() - MINUTE)
        observe(nic, "192.0.2.122", ended_at=timezone.now())
        found = check("agent about MAC")
        assert (found["passed"], found["text"].startswith("192.0.2.122")) == (None, True)
        assert "not any more since" in found["text"]
        assert "192.0.2.121" not in manage("troubleshoot", nic.uuid).out

    def test_two_nics_with_one_address(self, check, nic):
        other = make_running_vm(name="twin", networks=[nic.network]).nics.get()
        for each in (nic, other):
            learned(each)
        observe(nic, flag=Flag.CONFLICT)
        found = check("agent about MAC")
        assert found["passed"] is False
        assert f"It is also that of {other} ({other.mac_address})" in found["text"]

    def test_an_address_of_another_network(self, check, nic):
        observe(nic, "198.51.100.7", flag=Flag.OUTSIDE)
        found = check("agent about MAC")
        assert (found["passed"], "no address for guests of 192.0.2.0/24" in found["text"]) == (None, True)


class TestQueue:
    def test_its_place_in_it(self, check, nic):
        IpFetch.objects.update(tries=7, retries_left=8, last_attempt_at=timezone.now(), last_outcome="none_yet")
        found = check("queue of MAC")
        assert found["passed"] is None
        for words in ("waiting, 7 tries made, 8 counted tries left", "the last try was at", "the next one is at"):
            assert words in found["text"]
        assert "The guest has no address yet. Check the VLAN" in found["text"]

    def test_a_try_that_nobody_makes(self, check, nic):
        IpFetch.objects.update(next_attempt_at=timezone.now() - 5 * MINUTE)
        found = check("queue of MAC")
        assert (found["passed"], "see that qcluster runs" in found["text"]) == (False, True)

    def test_is_put_off_while_its_endpoint_is_left_alone(self, check, nic):
        IpFetch.objects.update(next_attempt_at=timezone.now() - 5 * MINUTE)
        Endpoint.objects.update(retry_at=timezone.now() + MINUTE)
        assert check("queue of MAC")["passed"] is None

    def test_a_nic_that_is_not_in_it_yet(self, check, nic):
        IpFetch.objects.all().delete()
        assert "enters within a minute" in check("queue of MAC")["text"]


def test_every_hypervisor_and_system_has_its_tools_named():
    assert set(TOOLS) == {(kind, family) for kind in HypervisorType for family in OsFamily}
