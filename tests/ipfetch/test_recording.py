"""What becomes of reports: which address is the NIC's, what is kept, flagged and told. Guests answer what they like."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest
from django.db import OperationalError
from django.utils import timezone
from django_q.models import OrmQ
from hypothesis import given
from hypothesis import strategies as st

from extdhcp_site.events.models import Event, EventType
from ipfetch import addresses, batches, planner, recording
from ipfetch.addresses import NicFacts, Sighting, choose
from ipfetch.models import AddressChain, Flag, IpFetch, Observation, Outcome
from ipfetch.schedule import Pace
from ipfetch.writing import observations, queue
from networks.hypervisors.base import GuestAddress, HypervisorError, Reading, Source
from networks.hypervisors.base import Outcome as ReadOutcome
from networks.hypervisors.kvm_addresses import MAX_INTERFACES, guest_addresses
from networks.models import AddressState, Nic
from tests.factories import GIB, make_host, make_l2_network, make_network, make_running_vm, make_vm
from tests.ipfetch.passes import MINUTE, address, queued_batches, row_of, run_pass, waiting_nic

pytestmark = pytest.mark.django_db
MAC = "06:00:00:00:00:01"
FACTS = NicFacts(MAC, IPv4Network("192.0.2.0/24"), IPv4Address("192.0.2.1"))
HOUR = timedelta(hours=1)


def sighting(ip: str, source: Source, now, ago: timedelta = timedelta()) -> Sighting:
    return Sighting(ip_address(ip), source, now - ago)


class TestChoice:
    def test_agent_over_lease_over_unsure_agent_over_arp_over_disk(self, now):
        order = [Source.GUEST_AGENT, Source.LEASE, Source.UNSURE_AGENT, Source.NEIGHBOUR, Source.DISK]
        seen = [sighting(f"192.0.2.{10 + place}", source, now) for place, source in enumerate(order)]
        while seen:
            chosen = choose(FACTS, list(reversed(seen)), (), 2 * HOUR)
            assert chosen.ip4 == seen[0]
            seen = seen[1:]

    def test_of_several_by_the_best_source_the_known_one_stays(self, now):
        seen = [sighting("192.0.2.10", Source.GUEST_AGENT, now), sighting("192.0.2.11", Source.GUEST_AGENT, now)]
        assert str(choose(FACTS, seen, ("192.0.2.11",), HOUR).ip4.ip) == "192.0.2.11"
        assert str(choose(FACTS, seen, (), HOUR).ip4.ip) == "192.0.2.10"

    def test_a_better_source_that_fell_silent_yields_after_a_while(self, now):
        seen = [
            sighting("192.0.2.10", Source.GUEST_AGENT, now, ago=2 * HOUR),
            sighting("192.0.2.11", Source.LEASE, now),
        ]
        assert str(choose(FACTS, seen, ("192.0.2.10",), HOUR).ip4.ip) == "192.0.2.11"
        assert str(choose(FACTS, seen, ("192.0.2.10",), 3 * HOUR).ip4.ip) == "192.0.2.10"

    def test_of_equals_the_one_heard_last_is_right(self, now):
        seen = [
            sighting("192.0.2.10", Source.LEASE, now, ago=timedelta(minutes=1)),
            sighting("192.0.2.11", Source.WEBHOOK, now),
        ]
        assert str(choose(FACTS, seen, ("192.0.2.10",), HOUR).ip4.ip) == "192.0.2.11"

    def test_outside_the_cidr_nothing_is_chosen(self, now):
        assert choose(FACTS, [sighting("198.51.100.7", Source.GUEST_AGENT, now)], (), HOUR).source is None

    def test_the_others_are_secondary_but_hints_are_not(self, now):
        seen = [
            sighting("192.0.2.10", Source.GUEST_AGENT, now),
            sighting("192.0.2.12", Source.GUEST_AGENT, now),
            sighting("2001:db8::5", Source.GUEST_AGENT, now),
            sighting("2001:db8::6", Source.GUEST_AGENT, now),
            sighting("192.0.2.99", Source.NEIGHBOUR, now),
        ]
        chosen = choose(FACTS, seen, (), HOUR)
        assert (str(chosen.ip4.ip), str(chosen.ip6.ip)) == ("192.0.2.10", "2001:db8::5")
        assert chosen.secondary == ("192.0.2.12", "2001:db8::6")

    @given(
        st.lists(
            st.tuples(st.ip_addresses(), st.sampled_from(list(addresses.RANKS)), st.integers(0, 10_000)), max_size=20
        )
    )
    def test_whatever_is_seen_the_choice_is_one_that_the_server_can_have_given(self, seen):
        now = datetime(2026, 5, 4, 12, tzinfo=UTC)
        sightings = [Sighting(ip, source, now - timedelta(seconds=ago)) for ip, source, ago in seen]
        chosen = choose(FACTS, sightings, (), HOUR)
        assert chosen.ip4 is None or chosen.ip4.ip in FACTS.cidr
        assert chosen.ip6 is None or chosen.ip6.ip.version == 6
        assert len(chosen.secondary) <= addresses.MOST_SECONDARY


class TestAnAgentThatIsUnsure:
    """It told an address and not whose: the NIC was found by elimination (XenServer, VMware)."""

    @pytest.fixture
    def nic(self, fake, now) -> Nic:
        nic = waiting_nic()
        fake.readings[str(nic.vm.uuid)] = Reading((self.told(nic, "192.0.2.120", Source.UNSURE_AGENT),))
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        return nic

    @staticmethod
    def told(nic: Nic, ip: str, source: Source) -> GuestAddress:
        return GuestAddress(nic.mac_address, ip_address(ip), source)

    def test_ends_the_wait_and_is_marked(self, nic):
        assert (nic.ip4_address, nic.address_state) == ("192.0.2.120", AddressState.UNCONFIRMED)
        assert row_of(nic).state == IpFetch.State.FOUND

    def test_becomes_sure(self, fake, nic, now):
        fake.readings[str(nic.vm.uuid)] = Reading((self.told(nic, "192.0.2.120", Source.GUEST_AGENT),))
        recording.report(Source.GUEST_AGENT, {nic.pk: fake.readings[str(nic.vm.uuid)].addresses}, now)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_state) == ("192.0.2.120", AddressState.CONFIRMED)


class TestWhatGuestsAnswer:
    """Each of these is one guest's: the other guest of the batch gets its address all the same."""

    @pytest.fixture
    def hostile(self, fake, now) -> Nic:
        nic = waiting_nic()
        neighbour = make_running_vm(networks=[nic.network], host=nic.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        fake.answers(neighbour.vm.on_host, address(neighbour, "192.0.2.121"))
        yield nic
        neighbour.refresh_from_db()
        assert neighbour.ip4_address == "192.0.2.121"

    def answer(self, fake, nic: Nic, libvirts: object) -> None:
        fake.readings[str(nic.vm.uuid)] = Reading(
            guest_addresses(libvirts, (nic.mac_address,), Source.GUEST_AGENT), None, ""
        )

    @staticmethod
    def interface(mac: str, *ips: str) -> dict[str, object]:
        return {"hwaddr": mac, "addrs": [{"addr": ip, "prefix": 24, "type": 0} for ip in ips]}

    def test_ten_thousand_interfaces_do_not_push_its_own_out(self, hostile, fake, now):
        many = {
            f"veth{n}": self.interface(f"02:42:00:00:{n // 256:02x}:{n % 256:02x}", "172.17.0.2") for n in range(10_000)
        }
        self.answer(fake, hostile, {**many, "eth0": self.interface(hostile.mac_address, "192.0.2.120")})
        run_pass(now + MINUTE)
        hostile.refresh_from_db()
        assert hostile.ip4_address == "192.0.2.120"
        assert len(fake.readings[str(hostile.vm.uuid)].addresses) <= MAX_INTERFACES
        assert Observation.objects.filter(nic=hostile).count() == 1

    def test_ten_thousand_addresses_on_its_own_are_bounded(self, hostile, fake, now):
        ips = [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(1, 10_000)]
        self.answer(fake, hostile, {"eth0": self.interface(hostile.mac_address, "192.0.2.120", *ips)})
        run_pass(now + MINUTE)
        hostile.refresh_from_db()
        assert hostile.ip4_address == "192.0.2.120"
        assert Observation.objects.filter(nic=hostile).count() <= addresses.MOST_REPORTED

    def test_new_addresses_at_every_read_do_not_fill_the_history_for_ever(self, hostile, fake, now):
        for number in range(12):
            ips = [f"10.9.{number}.{n}" for n in range(1, 17)]
            self.answer(fake, hostile, {"eth0": self.interface(hostile.mac_address, *ips)})
            run_pass(now + number * 4 * MINUTE)
        assert Observation.objects.filter(nic=hostile).count() <= observations.MOST_KEPT + 2 * addresses.MOST_REPORTED

    @pytest.mark.parametrize(
        "ip",
        [
            "<script>alert(1)</script>",
            "192.0.2.120\r\nSet-Cookie: x=1",
            "192.0.2.120\x00",
            "x" * 1_000_000,
            "0.0.0.0",
            "0x7f.1",
            "192.0.2.0120",
            "::ffff:192.0.2.120",
            "fe80::1%eth0",
            "١٩٢.0.2.120",
        ],
    )
    def test_what_is_no_address_is_not_stored(self, hostile, fake, now, ip):
        self.answer(fake, hostile, {"eth0": self.interface(hostile.mac_address, ip)})
        run_pass(now + MINUTE)
        hostile.refresh_from_db()
        assert (hostile.ip4_address, hostile.ip6_address) == (None, None)
        assert not Observation.objects.filter(nic=hostile).exists()
        assert row_of(hostile).last_outcome == Outcome.NONE_YET

    def test_a_foreign_mac_is_not_its_own(self, hostile, fake, now):
        self.answer(fake, hostile, {"eth0": self.interface("02:42:ac:11:00:02", "192.0.2.120")})
        run_pass(now + MINUTE)
        hostile.refresh_from_db()
        assert hostile.ip4_address is None

    def test_an_address_of_another_vm_is_flagged_and_takes_nothing_from_it(self, hostile, fake, now):
        self.answer(fake, hostile, {"eth0": self.interface(hostile.mac_address, "192.0.2.121")})
        run_pass(now + MINUTE)
        flagged = Observation.objects.filter(flag=Flag.CONFLICT)
        assert {observation.nic.ip4_address for observation in flagged} == {"192.0.2.121"}
        assert flagged.count() == 2
        assert Event.objects.filter(type=EventType.IP_CONFLICT, level="WARN").count() == 2

    def test_a_vm_deleted_during_the_read_is_no_error(self, hostile, fake, now):
        """The race: the answer comes when the VM has been expunged."""
        OrmQ.objects.all().delete()
        planner.plan(now + MINUTE)
        hostile.vm.delete()
        (batch,) = queued_batches()
        batches.read(*batch)
        assert not Observation.objects.filter(nic=hostile.pk).exists()


class TestConflict:
    def test_it_is_told_once_and_unflagged_when_settled(self, fake, now):
        first = waiting_nic()
        second = make_running_vm(networks=[first.network], host=first.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        for nic in (first, second):
            fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        run_pass(now + 20 * MINUTE)
        assert Event.objects.filter(type=EventType.IP_CONFLICT).count() == 2
        fake.answers(second.vm.on_host, address(second, "192.0.2.121"))
        run_pass(now + 40 * MINUTE)
        run_pass(now + 60 * MINUTE)
        assert not Observation.objects.current().exclude(flag="").exists()

    def test_users_are_not_told_whose_it_is(self, fake, now):
        first = waiting_nic()
        second = make_running_vm(networks=[first.network], host=first.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        for nic in (first, second):
            fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        event = Event.objects.get(type=EventType.IP_CONFLICT, account=first.vm.account)
        assert second.vm.name not in event.description
        assert second.vm.name in event.for_operator

    def test_the_same_address_in_two_networks_is_none(self, fake, now):
        nics = [waiting_nic(), waiting_nic()]
        for nic in nics:
            fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        assert not Observation.objects.exclude(flag="").exists()


class TestReports:
    def test_a_report_ends_the_wait(self, fake, now):
        nic = waiting_nic()
        written = recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.120", Source.WEBHOOK)]}, now)
        nic.refresh_from_db()
        assert written == {nic.pk}
        assert (nic.ip4_address, nic.address_source, row_of(nic).state) == ("192.0.2.120", "webhook", "found")

    def test_an_agents_word_is_not_overridden_but_asked_again(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.130", Source.WEBHOOK)]}, now + 2 * MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, row_of(nic).next_attempt_at) == ("192.0.2.120", now + 2 * MINUTE)
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.130"))
        run_pass(now + 3 * MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_source) == ("192.0.2.130", "agent")

    def test_a_batch_under_way_does_not_undo_it(self, fake, now):
        """The race: the agent was asked before the lease, and answers after the report that it has none."""
        nic = waiting_nic()
        IpFetch.objects.update(retries_left=1, tries=100)
        planner.plan(now + MINUTE)
        recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.120", Source.WEBHOOK)]}, now + MINUTE)
        fake.readings[str(nic.vm.uuid)] = Reading()
        (batch,) = queued_batches()
        batches.read(*batch)
        nic.refresh_from_db()
        assert (nic.ip4_address, row_of(nic).state) == ("192.0.2.120", "found")
        assert not Event.objects.filter(level="ERROR").exists()

    def test_that_the_agent_was_asked_in_vain_meanwhile_is_not_said_of_it(self, fake, now):
        nic = waiting_nic()
        planner.plan(now + MINUTE)
        recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.120", Source.WEBHOOK)]}, now + MINUTE)
        fake.readings.clear()
        (batch,) = queued_batches()
        batches.read(*batch)
        assert (row_of(nic).last_outcome, row_of(nic).claimed_until) == (Outcome.FOUND, None)

    def test_a_guest_that_has_not_put_on_its_new_lease_yet_is_asked_until_it_has(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        told = address(nic, "192.0.2.130", Source.WEBHOOK)
        recording.report(Source.WEBHOOK, {nic.pk: [told]}, timezone.now())
        IpFetch.objects.update(eager_until=now + 10 * MINUTE)
        for second in range(3):
            run_pass(now + 2 * MINUTE + timedelta(seconds=second))
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.130"))
        run_pass(now + 2 * MINUTE + timedelta(seconds=4))
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_source) == ("192.0.2.130", "agent")

    def test_of_a_vm_that_does_not_run_it_is_ignored(self, now):
        nic = make_vm().nics.get()
        assert recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.120", Source.WEBHOOK)]}, now) == set()
        nic.refresh_from_db()
        assert nic.ip4_address is None

    def test_a_lease_that_is_withdrawn_becomes_last_known(self, fake, now):
        nic = waiting_nic()
        recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.120", Source.WEBHOOK)]}, now)
        recording.withdraw(Source.WEBHOOK, [nic.pk], "192.0.2.120", now + MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_state) == ("192.0.2.120", AddressState.LAST_KNOWN)
        assert row_of(nic).next_attempt_at == now + MINUTE

    def test_a_new_lease_takes_the_former_ones_place(self, now):
        nic = waiting_nic()
        for minute, ip in enumerate(["192.0.2.120", "192.0.2.130"]):
            told = address(nic, ip, Source.WEBHOOK)
            recording.report(Source.WEBHOOK, {nic.pk: [told]}, now + minute * MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.secondary_addresses) == ("192.0.2.130", [])
        assert Event.objects.filter(type=EventType.IP_CHANGE).count() == 1

    def test_an_ipv6_lease_leaves_the_ipv4_one_in_place(self, now):
        nic = waiting_nic()
        for ip in ("192.0.2.120", "2001:db8::5"):
            recording.report(Source.WEBHOOK, {nic.pk: [address(nic, ip, Source.WEBHOOK)]}, now)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.ip6_address) == ("192.0.2.120", "2001:db8::5")

    def test_the_host_s_own_table_is_a_hint_and_the_wait_goes_on(self, fake, now):
        nic = waiting_nic()
        fake.neighbours[str(nic.vm.uuid)] = (address(nic, "192.0.2.120", Source.NEIGHBOUR),)
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_state) == ("192.0.2.120", AddressState.UNCONFIRMED)
        assert row_of(nic).state == "waiting"

    def test_a_hint_yields_to_another_nics_confirmed_address(self, fake, now):
        self.test_the_host_s_own_table_is_a_hint_and_the_wait_goes_on(fake, now)
        hinted = Nic.objects.get()
        fake.neighbours.clear()
        owner = make_running_vm(networks=[hinted.network], host=hinted.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        fake.answers(owner.vm.on_host, address(owner, "192.0.2.120"))
        run_pass(now + 2 * MINUTE)
        hinted.refresh_from_db()
        assert (hinted.ip4_address, hinted.address_state) == (None, AddressState.UNKNOWN)

    def test_a_table_that_cannot_be_read_does_not_end_the_chain(self, fake, now):
        nic = waiting_nic()
        fake.failing["read_neighbours"] = HypervisorError("wrong nlmsg len")
        run_pass(now + MINUTE)
        assert row_of(nic).last_outcome == Outcome.AGENT_ABSENT


class TestChain:
    def lease(self, nic, monkeypatch, ip="192.0.2.150"):
        monkeypatch.setattr(
            batches.leases,
            "addresses",
            lambda networks, macs, now: {(nic.network_id, nic.mac_address): address(nic, ip, Source.LEASE)},
        )

    def test_a_lease_helps_where_no_agent_answers(self, fake, now, monkeypatch):
        nic = waiting_nic()
        self.lease(nic, monkeypatch)
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_source, nic.address_state) == ("192.0.2.150", "lease", "confirmed")

    def test_a_file_that_cannot_be_read_any_more_takes_nothing_away(self, fake, now, monkeypatch):
        nic = waiting_nic()
        self.lease(nic, monkeypatch)
        run_pass(now + MINUTE)
        monkeypatch.setattr(batches.leases, "addresses", lambda networks, macs, now: {})
        run_pass(now + 20 * MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_state, row_of(nic).state) == ("192.0.2.150", "confirmed", "found")

    def test_soon_after_a_start_it_is_looked_at_again(self, fake, now, monkeypatch):
        """The server may still hold the lease of the boot before."""
        nic = waiting_nic()
        self.lease(nic, monkeypatch)
        run_pass(now + MINUTE)
        self.lease(nic, monkeypatch, "192.0.2.151")
        run_pass(now + 2 * MINUTE)
        nic.refresh_from_db()
        assert nic.ip4_address == "192.0.2.151"

    def test_the_agent_is_asked_first(self, fake, now, monkeypatch):
        nic = waiting_nic()
        self.lease(nic, monkeypatch)
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_source) == ("192.0.2.120", "agent")

    def test_a_zone_may_ask_the_leases_first(self, fake, now, monkeypatch):
        nic = waiting_nic()
        AddressChain.objects.create(zone=nic.vm.zone, sources="lease,agent")
        self.lease(nic, monkeypatch)
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert (nic.address_source, fake.calls) == ("lease", [])

    def test_a_zone_may_leave_the_guest_in_peace(self, fake, now):
        nic = waiting_nic()
        AddressChain.objects.create(zone=nic.vm.zone, sources="lease")
        run_pass(now + MINUTE)
        assert fake.calls == []
        assert row_of(nic).claimed_until is None

    def test_windows_guests_have_an_order_of_their_own(self, fake, now, monkeypatch):
        nic = waiting_nic()
        AddressChain.objects.create(zone=nic.vm.zone, os_family="Windows", sources="lease")
        run_pass(now + MINUTE)
        assert "read_addresses" in fake.calls

    def test_disks_are_read_at_counted_tries_where_the_endpoint_allows_it(self, fake, now):
        nic = waiting_nic()
        type(nic.vm.host.endpoint).objects.update(disk_access="local")

        def disks_queued():
            return [q.task["args"] for q in OrmQ.objects.all() if q.task["func"].endswith("read_disks")]

        run_pass(now + MINUTE)
        assert disks_queued() == []
        IpFetch.objects.update(tries=100)
        run_pass(now + 4 * MINUTE)
        assert disks_queued() == [(nic.vm.host.endpoint_id, [nic.pk])]


class TestFamilies:
    def test_ipv6_beside_ipv4(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "2001:db8::5"), address(nic, "192.0.2.120"), address(nic, "fe80::1"))
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.ip6_address) == ("192.0.2.120", "2001:db8::5")

    def test_ipv6_alone_is_written_and_the_wait_for_ipv4_goes_on(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "2001:db8::5"))
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert (nic.ip6_address, row_of(nic).state) == ("2001:db8::5", "waiting")
        assert row_of(nic).last_detail == "It has IPv6 addresses only."

    def test_where_no_cidr_is_known_ipv6_alone_is_enough(self, fake, now):
        nic = make_running_vm(networks=[make_l2_network()]).nics.get()
        planner.enter_missing(Pace.now(), now)
        fake.answers(nic.vm.on_host, address(nic, "2001:db8::5"))
        run_pass(now + MINUTE)
        assert row_of(nic).state == "found"

    def test_several_addresses_make_the_others_secondary(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, *(address(nic, f"192.0.2.{n}") for n in (120, 121, 122)))
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.secondary_addresses) == ("192.0.2.120", ["192.0.2.121", "192.0.2.122"])

    def test_an_address_outside_is_kept_and_flagged(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "198.51.100.7"))
        run_pass(now + MINUTE)
        seen = Observation.objects.get(nic=nic)
        assert (seen.address, seen.flag, seen.source) == ("198.51.100.7", Flag.OUTSIDE, "agent")

    def test_its_owner_is_warned_once_however_many_follow(self, fake, now):
        nic = waiting_nic()
        for number in range(1, 4):
            fake.answers(nic.vm.on_host, *(address(nic, f"198.51.100.{number * 10 + n}") for n in range(3)))
            run_pass(now + number * 4 * MINUTE)
        event = Event.objects.get(type=EventType.IP_OUTSIDE)
        assert (event.level, event.account) == ("WARN", nic.vm.account)


class TestPinned:
    def test_what_an_operator_has_set_wins(self, fake, now):
        nic = waiting_nic()
        Nic.objects.update(ip4_address="192.0.2.77", address_state=AddressState.PINNED, address_source="operator")
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        run_pass(now + 20 * MINUTE)
        nic.refresh_from_db()
        assert (nic.ip4_address, nic.address_state, nic.address_source) == ("192.0.2.77", "pinned", "operator")
        assert Observation.objects.current().get().address == "192.0.2.120"


class TestDeadlock:
    @pytest.mark.django_db(transaction=True, serialized_rollback=True)
    def test_a_write_that_the_database_has_ended_is_repeated(self, fake, now, monkeypatch):
        nic = waiting_nic()
        held, times = recording.still_held, []

        def ended_once(*args):
            times.append(args)
            if len(times) == 1:
                raise OperationalError(1213, "Deadlock found when trying to get lock")
            return held(*args)

        monkeypatch.setattr(recording, "still_held", ended_once)
        recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.120", Source.WEBHOOK)]}, now)
        nic.refresh_from_db()
        assert nic.ip4_address == "192.0.2.120"


class TestManyAtOnce:
    def test_different_reasons_are_each_written(self, fake, now):
        first = waiting_nic()
        for number in range(queue.MOST_DIFFERENT_ANSWERS + 2):
            nic = make_running_vm(networks=[first.network], host=first.vm.host).nics.get()
            fake.readings[str(nic.vm.uuid)] = Reading(problem=ReadOutcome.AGENT_SILENT, detail=f"reason {number}")
        planner.enter_missing(Pace.now(), now)
        run_pass(now + MINUTE)
        details = set(IpFetch.objects.exclude(nic=first).values_list("last_detail", flat=True))
        assert details == {f"reason {number}" for number in range(queue.MOST_DIFFERENT_ANSWERS + 2)}

    def test_queries_do_not_grow_with_the_batch(self, fake, now, django_assert_max_num_queries):
        network, host = make_network(), make_host(memory=1024 * GIB, cpus=1000)
        for number in range(60):
            nic = make_running_vm(networks=[network], host=host).nics.get()
            fake.answers(nic.vm.on_host, address(nic, f"192.0.2.{number + 10}"))
        planner.enter_missing(Pace.now(), now)
        OrmQ.objects.all().delete()
        planner.plan(now + MINUTE)
        (batch,) = queued_batches()
        with django_assert_max_num_queries(40):
            batches.read(*batch)
        assert Nic.objects.exclude(ip4_address=None).count() == 60
