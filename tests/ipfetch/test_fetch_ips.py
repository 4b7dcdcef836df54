"""`fetch_ips`: whom it asks, what it prints, and the status that tells."""

import time
from datetime import timedelta
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from django.utils import timezone

from ipfetch import batches, planner, sweep
from ipfetch.models import IpFetch
from ipfetch.schedule import Pace
from networks.hypervisors.base import EndpointUnreachable, GuestAddress, Outcome, Reading, Source
from networks.models import AddressState, Nic, VirtualMachine
from tests.factories import make_network, make_network_offering, make_running_vm, make_vm
from tests.fakes import FakeHypervisor
from tests.ipfetch.passes import row_of, set_to

# It asks in threads, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)
State = IpFetch.State


def answer(fake: FakeHypervisor, vm: VirtualMachine, ip: str) -> None:
    fake.answers(vm.on_host, GuestAddress(vm.nics.get().mac_address, ip_address(ip), Source.GUEST_AGENT, 24))


def enter(nic: Nic, **fields) -> None:
    """Its row in the queue, as it is in the test."""
    planner.enter_missing(Pace.now(), timezone.now())
    IpFetch.objects.filter(nic=nic).update(**fields)


def found_nic(ip: str = "192.0.2.7", **vm) -> Nic:
    nic = make_running_vm(**vm).nics.get()
    enter(nic, state=State.FOUND, last_outcome="found")
    known = {"ip4_address": ip, "address_state": AddressState.CONFIRMED, "address_source": "agent"}
    Nic.objects.filter(pk=nic.pk).update(**known)
    return nic


def names(ran) -> list[str]:
    return sorted(line["virtualmachine"] for line in ran.json)


class TestWhatItTells:
    def test_status_0_when_all_are_found(self, manage, fake):
        vm = make_running_vm(name="web")
        answer(fake, vm, "192.0.2.7")

        ran = manage("fetch_ips", "--json")

        [found] = ran.json
        assert (ran.status, found["virtualmachine"], found["ipaddress"]) == (0, "web", "192.0.2.7")
        assert (found["outcome"], found["source"], found["why"]) == ("found", "agent", "")
        assert (found["addressstate"], found["state"]) == ("confirmed", "found")
        assert Nic.objects.get().ip4_address == "192.0.2.7"
        assert "1 asked, 1 with an address, 0 without." in ran.err

    def test_status_1_when_one_is_missing_and_it_says_why(self, manage, fake):
        found, missing = make_running_vm(name="web"), make_running_vm(name="db")
        answer(fake, found, "192.0.2.7")

        ran = manage("fetch_ips", "--json")

        by_name = {line["virtualmachine"]: line for line in ran.json}
        assert ran.status == 1
        assert (by_name["db"]["ipaddress"], by_name["db"]["outcome"]) == (None, "agent_absent")
        assert "Install and start qemu-guest-agent" in by_name["db"]["why"]
        assert by_name["db"]["nicid"] == str(missing.nics.get().uuid)
        assert by_name["web"]["ipaddress"] == "192.0.2.7"
        assert "2 asked, 1 with an address, 1 without." in ran.err

    def test_status_1_when_a_host_does_not_answer(self, manage, fake):
        make_running_vm()
        fake.failing["read_addresses"] = EndpointUnreachable("It does not answer.")

        ran = manage("fetch_ips", "--json")

        assert (ran.status, [line["outcome"] for line in ran.json]) == (1, ["host_unreachable"])
        assert ran.json[0]["detail"] == "It does not answer."

    def test_nothing_to_ask_for_is_success(self, manage, fake):
        assert (manage("fetch_ips", "--json").json, manage("fetch_ips").status) == ([], 0)

    def test_a_line_for_people_has_the_source_and_the_outcome(self, manage, fake):
        vm = make_running_vm(name="web")
        answer(fake, vm, "192.0.2.7")

        assert manage("fetch_ips").out == f"web  {vm.nics.get().mac_address}  192.0.2.7  agent  found\n"

    def test_or_why_there_is_none(self, manage, fake):
        vm = make_running_vm(name="web")
        fake.readings[str(vm.uuid)] = Reading(problem=Outcome.AGENT_SILENT)

        assert manage("fetch_ips").out == (
            f"web  {vm.nics.get().mac_address}  -  -  agent_silent  "
            "The guest agent stopped answering. Look at the VM's console: the guest may hang.\n"
        )

    def test_a_known_address_that_could_not_be_read_again_is_shown_with_why(self, manage, fake):
        found_nic(name="web")

        ran = manage("fetch_ips", "--vm", "web")

        assert ran.status == 0
        assert "192.0.2.7  agent  agent_absent  No guest agent answers" in ran.out

    def test_a_hint_is_no_address(self, manage, fake):
        vm = make_running_vm(name="web")
        fake.neighbours[str(vm.uuid)] = (
            GuestAddress(vm.nics.get().mac_address, ip_address("192.0.2.7"), Source.NEIGHBOUR),
        )

        ran = manage("fetch_ips", "--json")

        assert (ran.status, ran.json[0]["ipaddress"], ran.json[0]["addressstate"]) == (1, None, "unconfirmed")


class TestWhomItAsks:
    @pytest.fixture
    def world(self, fake):
        """A NIC that waits, one that is found, one that was given up."""
        waiting = make_running_vm(name="waiting").nics.get()
        enter(waiting)
        found_nic(name="found")
        given_up = make_running_vm(name="given-up").nics.get()
        enter(given_up, state=State.EXHAUSTED, retries_left=0, next_attempt_at=None)
        return given_up

    def test_without_a_selection_those_that_wait(self, manage, world):
        assert names(manage("fetch_ips", "--json")) == ["waiting"]

    def test_all_are_the_found_and_the_given_up_too(self, manage, world):
        assert names(manage("fetch_ips", "--all", "--json")) == ["found", "given-up", "waiting"]

    @pytest.mark.parametrize("name", ["waiting", "found", "given-up"])
    def test_who_is_named_is_asked_whatever_is_known(self, manage, fake, world, name):
        vm = VirtualMachine.objects.get(name=name)
        answer(fake, vm, "192.0.2.9")

        for words in (["--vm", vm.name], ["--vm", vm.uuid], ["--nic", vm.nics.get().uuid]):
            assert [line["ipaddress"] for line in manage("fetch_ips", *words, "--json").json] == ["192.0.2.9"]

    @pytest.mark.parametrize("spell", [str, str.upper, lambda text: text.replace(":", "-")])
    def test_a_nic_by_its_mac_address(self, manage, world, spell):
        nic = Nic.objects.get(vm__name="found")
        assert names(manage("fetch_ips", "--nic", spell(nic.mac_address), "--json")) == ["found"]

    def test_a_network_by_name_or_uuid(self, manage, world):
        network = Nic.objects.get(vm__name="found").network
        for text in (network.name, network.uuid):
            assert names(manage("fetch_ips", "--network", text, "--json")) == ["found"]

    def test_now_is_what_it_does_anyway(self, manage, world):
        assert names(manage("fetch_ips", "--now", "--json")) == names(manage("fetch_ips", "--json"))

    def test_a_vm_that_is_off_is_not_asked(self, manage, fake):
        make_vm()

        assert manage("fetch_ips", "--json").json == []
        assert fake.calls == []

    def test_one_that_was_named_is_an_error(self, manage, fake):
        make_vm(name="web")
        ran = manage("fetch_ips", "--vm", "web")
        assert (ran.status, ran.out) == (1, "")
        assert "No address is asked for of VM web, which is Stopped." in ran.err

    def test_so_is_one_whose_network_has_dhcp_of_its_own(self, manage, fake):
        make_running_vm(name="web", networks=[make_network(offering=make_network_offering({"Dhcp": "ConfigDrive"}))])
        assert "networks whose DHCP is external" in manage("fetch_ips", "--vm", "web").err

    def test_a_network_without_running_vms_is_none(self, manage, fake):
        network = make_network(name="empty")
        assert (manage("fetch_ips", "--network", network.name, "--json").json) == []

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--vm", "nobody"], "There is no VM nobody. list_vms shows all."),
            (["--nic", "02:00:00:00:00:00"], "There is no NIC 02:00:00:00:00:00. list_nics shows all."),
            (["--nic", "web"], "There is no NIC web."),
            (["--nic", ""], "There is no NIC ."),
            (["--network", "nowhere"], "There is no network nowhere."),
            (["--vm", "web", "--all"], "not allowed with argument"),
        ],
    )
    def test_what_is_unknown_is_named(self, manage, fake, words, says):
        make_running_vm(name="web")
        ran = manage("fetch_ips", *words)
        assert (ran.status, ran.out) == (1, "")
        assert says in ran.err
        assert fake.calls == []

    def test_a_network_that_two_zones_have(self, manage, fake):
        for _ in range(2):
            make_network(name="office")
        assert "Several zones have a network office. Give its uuid." in manage("fetch_ips", "--network", "office").err

    def test_a_mac_address_that_two_nics_have(self, manage, fake):
        for _ in range(2):
            make_running_vm()
        Nic.objects.update(mac_address="06:00:00:00:00:01")
        assert "Several NICs have" in manage("fetch_ips", "--nic", "06:00:00:00:00:01").err


class TestWhatItCosts:
    def test_a_persons_try_is_not_counted(self, manage, fake):
        nic = make_running_vm().nics.get()
        manage("fetch_ips")
        before = row_of(nic)

        manage("fetch_ips")

        after = row_of(nic)
        assert (after.retries_left, after.tries) == (before.retries_left, before.tries)
        assert after.next_attempt_at == before.next_attempt_at

    def test_a_given_up_nic_that_is_asked_gets_all_its_tries_anew(self, manage, fake):
        nic = make_running_vm(name="web").nics.get()
        enter(nic, state=State.EXHAUSTED, retries_left=0, tries=15, next_attempt_at=None)

        ran = manage("fetch_ips", "--vm", "web", "--json")

        assert (ran.status, ran.json[0]["state"], ran.json[0]["retriesleft"]) == (1, "waiting", 10)
        row = row_of(nic)
        assert (row.tries, row.next_attempt_at > timezone.now()) == (0, True)

    def test_the_others_do_not(self, manage, fake):
        nic = make_running_vm().nics.get()
        enter(nic, state=State.EXHAUSTED, retries_left=0, next_attempt_at=None)
        manage("fetch_ips")
        assert row_of(nic).state == State.EXHAUSTED

    def test_a_failed_look_at_a_found_one_takes_nothing_from_it(self, manage, fake):
        nic = found_nic(name="web")
        manage("fetch_ips", "--all")
        assert (row_of(nic).state, Nic.objects.get().ip4_address) == (State.FOUND, "192.0.2.7")


class TestBesideTheLoop:
    def test_a_nic_that_a_batch_asks_just_now_is_waited_for(self, manage, fake, monkeypatch):
        """The watcher is as quick as a person: who is named is in the answer all the same."""
        nic = make_running_vm(name="web").nics.get()
        enter(nic, claimed_until=timezone.now() + timedelta(minutes=1), attempt=7)

        def the_batch_ends(seconds: float) -> None:
            Nic.objects.update(ip4_address="192.0.2.8", address_state="confirmed", address_source="agent")
            IpFetch.objects.update(claimed_until=None, state=State.FOUND, last_outcome="found")

        # Its own clock alone: a thread that another test has left behind may sleep just now.
        monkeypatch.setattr(sweep, "time", SimpleNamespace(monotonic=time.monotonic, sleep=the_batch_ends))
        ran = manage("fetch_ips", "--vm", "web", "--json")

        assert (ran.status, ran.json[0]["ipaddress"], fake.calls) == (0, "192.0.2.8", [])

    def test_a_claim_that_its_batch_leaves_behind_is_not_waited_for_for_ever(self, manage, fake):
        nic = make_running_vm(name="web").nics.get()
        enter(nic, claimed_until=timezone.now() + timedelta(seconds=1))
        assert [line["outcome"] for line in manage("fetch_ips", "--vm", "web", "--json").json] == [""]

    def test_many_endpoints_are_each_claimed_when_their_turn_comes(self, manage, fake, monkeypatch):
        """A claim made long before it is read would run out, and another batch take the NIC."""
        held_at_once = []
        read = batches.read

        def count(*args, **options):
            held_at_once.append(IpFetch.objects.claimed(timezone.now()).count())
            return read(*args, **options)

        monkeypatch.setattr(batches, "read", count)
        set_to("externaldhcp.vmipFetch.threadPool.max", 2 * batches.AT_ONE_HOST)
        for _ in range(6):
            make_running_vm()

        assert len(manage("fetch_ips", "--json").json) == 6
        assert max(held_at_once) <= 2
