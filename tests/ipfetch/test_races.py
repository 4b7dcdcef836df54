"""What happens beside, between or too late: each test is a fault that a review found, and names the race behind it."""

import itertools
import threading
import time
from datetime import timedelta
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from django.db import connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import OrmQ

from extdhcp_site.accounts.models import Role
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from ipfetch import batches, disks, planner, recording, webhook
from ipfetch.models import Flag, IpFetch, Observation
from ipfetch.schedule import Pace
from ipfetch.writing import nics as holders
from ipfetch.writing.bulk import ROWS_A_STATEMENT, update_each
from networks import elements
from networks.elements import AddressChange, NetworkElement
from networks.hypervisors.base import Outcome as ReadOutcome
from networks.hypervisors.base import Reading, Source
from networks.models import AddressState, Endpoint, Nic, VirtualMachine
from networks.services import vms
from networks.services.nics import pin, write_nic
from networks.services.places import ALERT_AT, record_health
from tests.factories import (
    make_account,
    make_caller,
    make_cluster,
    make_endpoint,
    make_host,
    make_network,
    make_running_vm,
    make_vm,
)
from tests.fakes import FakeHypervisor, hypervisors
from tests.ipfetch.passes import MINUTE, address, exact_mode, queued_batches, row_of, run_pass, waiting_nic

pytestmark = pytest.mark.django_db
State = IpFetch.State
SECOND = timedelta(seconds=1)
QUARTER = 16 * MINUTE  # a refresh interval, and a little
NO_AGENT = Reading((), ReadOutcome.AGENT_ABSENT)


@pytest.fixture
def found(fake, now) -> Nic:
    """A NIC whose guest's agent has told 192.0.2.120 a minute from now."""
    nic = waiting_nic()
    fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
    run_pass(now + MINUTE)
    nic.refresh_from_db()
    assert nic.ip4_address == "192.0.2.120"
    return nic


def neighbour(nic: Nic) -> Nic:
    """Another VM's NIC that waits, on the same network and host."""
    other = make_running_vm(networks=[nic.network], host=nic.vm.host).nics.get()
    planner.enter_missing(Pace.now(), timezone.now())
    return other


def run_job(submit, vm: VirtualMachine) -> None:
    jobs.run(submit(VirtualMachine.objects.get(pk=vm.pk), make_caller()).pk, 1)


def restart(nic: Nic) -> None:
    for submit in (vms.stop, vms.start):
        run_job(submit, nic.vm)


def claimed_batch(now) -> batches.Batch:
    """The one batch that is due."""
    OrmQ.objects.all().delete()
    planner.plan(now)
    (batch,) = queued_batches()
    return batch


def holding(nic: Nic) -> tuple[str | None, str]:
    nic.refresh_from_db()
    return nic.ip4_address, nic.address_state


def flagged(flag: Flag) -> list[tuple[int, str]]:
    current = Observation.objects.current().filter(flag=flag).order_by("nic", "address")
    return list(current.values_list("nic", "address"))


def events(type: EventType) -> list[str]:
    return list(Event.objects.filter(type=type).order_by("pk").values_list("description", flat=True))


class TestNewsSpendsNoTry:
    """Who is asked because something was told is asked beside the schedule."""

    @pytest.fixture
    def counted(self, fake, now) -> Nic:
        """A NIC whose early tries are over, and which was asked just now."""
        nic = waiting_nic()
        IpFetch.objects.update(tries=100, next_attempt_at=now, scheduled_at=now)
        run_pass(now)
        assert row_of(nic).retries_left == 9
        return nic

    def test_when_a_watch_breaks_and_opens_again(self, counted, fake, now):
        """A host's connection comes and goes, and each time all that wait on it are asked."""
        fake.calls.clear()
        for second in range(1, 13):
            planner.nudge_endpoints([counted.vm.host.endpoint_id], now + second * SECOND)
            run_pass(now + second * SECOND)
        row = row_of(counted)
        assert fake.calls.count("read_addresses") == 12
        assert (row.state, row.retries_left) == (State.WAITING, 9)

    def test_when_a_guest_suspends_and_wakes(self, counted, fake, now):
        """Each STOPPED and STARTED of the hypervisor leads to a read."""
        for second in range(1, 13):
            planner.nudge([str(counted.vm.uuid)], now + second * SECOND, eager=False)
            run_pass(now + second * SECOND)
        assert row_of(counted).retries_left == 9

    def test_its_next_try_is_not_put_off(self, counted, now):
        """The hypervisor tells something between two tries."""
        planner.nudge([str(counted.vm.uuid)], now + MINUTE, eager=False)
        run_pass(now + MINUTE)
        assert row_of(counted).next_attempt_at == now + 3 * MINUTE

    def test_the_early_tries_stay_where_they_are(self, fake, now):
        """libvirt's STARTED of our own start comes before the first try."""
        nic = waiting_nic()
        IpFetch.objects.update(next_attempt_at=now + 5 * SECOND, scheduled_at=now + 5 * SECOND)
        planner.nudge([str(nic.vm.uuid)], now, eager=False)
        asked = []
        for second in range(40):
            before = len(fake.calls)
            run_pass(now + second * SECOND)
            if len(fake.calls) > before:
                asked.append(second)
        assert asked == [0, 5, 15, 35]

    def test_a_stop_revives_nobody(self, fake, now):
        """The hypervisor tells that a guest was suspended whose NIC was given up."""
        nic = waiting_nic()
        IpFetch.objects.update(state=State.EXHAUSTED, retries_left=0)
        planner.nudge([str(nic.vm.uuid)], now, eager=False)
        assert row_of(nic).state == State.EXHAUSTED

    def test_nor_does_one_call_that_failed(self, fake, now):
        """One slow call to a host whose agentless guests were given up, then a good one."""
        nic = waiting_nic()
        endpoint = nic.vm.host.endpoint
        record_health(endpoint)
        IpFetch.objects.update(state=State.EXHAUSTED, retries_left=0, last_attempt_at=timezone.now())
        record_health(endpoint, "It did not answer in time.")
        record_health(endpoint)
        planner.reconcile(Pace.now(), timezone.now())
        assert row_of(nic).state == State.EXHAUSTED

    def test_an_outage_that_is_over_does(self, fake, now):
        """A host is away for so long that operators are told, and its NICs are given up meanwhile."""
        nic = waiting_nic()
        endpoint = nic.vm.host.endpoint
        record_health(endpoint)
        IpFetch.objects.update(state=State.EXHAUSTED, retries_left=0, last_attempt_at=timezone.now())
        for _ in range(ALERT_AT):
            record_health(endpoint, "It did not answer in time.")
        record_health(endpoint)
        planner.reconcile(Pace.now(), timezone.now())
        assert (row_of(nic).state, row_of(nic).retries_left) == (State.WAITING, 10)


class TestBatchesThatComeLate:
    def test_one_does_not_take_its_claims_again_after_a_start(self, fake, now, monkeypatch):
        """The VM is started anew while a batch asks for it, and the batch renews its claims after that."""
        nic = waiting_nic()
        args = claimed_batch(now + MINUTE)
        asked = fake.read_addresses

        def meanwhile(*args, **kwargs):
            IpFetch.objects.all().begin_anew(Pace.now(), timezone.now())
            return asked(*args, **kwargs)

        fake.read_addresses = meanwhile
        monkeypatch.setattr(batches, "RENEW_SECONDS", 0.0)
        batches.read(*args)
        assert row_of(nic).claimed_until is None

    def test_one_does_not_take_its_claims_again_from_a_later_one(self, fake, now):
        """A batch is so late that its claims ran out and another holds them."""
        nic = waiting_nic()
        _, claims, _ = claimed_batch(now + MINUTE)
        late = batches._Batch(nic.vm.host.endpoint, batches._claimed(claims), lambda count: None)
        claimed_batch(now + 2 * MINUTE)
        before = row_of(nic).claimed_until

        late.hold()

        assert (row_of(nic).claimed_until, row_of(nic).begun) == (before, False)

    def test_what_the_former_host_answers_after_a_migration_costs_no_try(self, now):
        """The VM moves during its last try, and its former host says that it does not run."""
        fakes = {"one.example": FakeHypervisor(), "two.example": FakeHypervisor()}
        network = make_network()
        cluster = make_cluster(network.zone)
        for name in fakes:
            make_host(cluster, endpoint=make_endpoint(transport="tls", host=name))
        with hypervisors(fakes):
            vm = make_vm(networks=[network])
            run_job(vms.start, vm)
            vm.refresh_from_db()
            IpFetch.objects.update(tries=100, retries_left=1, next_attempt_at=now, scheduled_at=now)
            args = claimed_batch(now + MINUTE)
            former = fakes[vm.host.endpoint.host]
            former.readings[str(vm.uuid)] = Reading((), ReadOutcome.NOT_RUNNING)
            asked = former.read_addresses

            def meanwhile(*args, **kwargs):
                run_job(vms.migrate, vm)
                return asked(*args, **kwargs)

            former.read_addresses = meanwhile
            batches.read(*args)
        row = IpFetch.objects.get()
        assert row.nic.vm.host.endpoint.host != vm.host.endpoint.host
        assert (row.state, row.retries_left, row.last_outcome) == (State.WAITING, 1, "")


class TestAfterARestart:
    def test_an_ipv6_address_does_not_confirm_the_last_known_ipv4_one(self, found, fake, now):
        """SLAAC comes before DHCP: the guest is read between them."""
        restart(found)
        fake.answers(found.vm.on_host, address(found, "2001:db8::7"))
        run_pass(now + 2 * MINUTE)
        assert holding(found) == ("192.0.2.120", AddressState.LAST_KNOWN)
        assert found.ip6_address == "2001:db8::7"

    def test_who_has_got_its_former_address_since_is_in_no_conflict(self, found, fake, now):
        """One guest is read between SLAAC and DHCP, and the server has given its former address to another."""
        restart(found)
        fake.answers(found.vm.on_host, address(found, "2001:db8::7"))
        run_pass(now + 2 * MINUTE)
        other = neighbour(found)
        fake.answers(other.vm.on_host, address(other, "192.0.2.120"))
        run_pass(now + 4 * MINUTE)
        assert holding(other) == ("192.0.2.120", AddressState.CONFIRMED)
        assert events(EventType.IP_CONFLICT) == []

    def test_another_address_than_before_is_told_as_a_change(self, found, fake, now):
        """The lease ended while the VM was off."""
        restart(found)
        fake.answers(found.vm.on_host, address(found, "192.0.2.130"))
        run_pass(now + 2 * MINUTE)
        (told,) = events(EventType.IP_CHANGE)
        assert "from 192.0.2.120 to 192.0.2.130" in told

    def test_a_lease_reported_while_the_host_starts_it_is_not_lost(self, fake, now):
        """The guest has its lease before it is written that its VM runs."""
        network = make_network()
        make_host(make_cluster(network.zone))
        vm = make_vm(networks=[network])
        nic = vm.nics.get()
        power_on = fake.start

        def start(*args, **kwargs):
            power_on(*args, **kwargs)
            report = {"mac": nic.mac_address, "ip": ip_address("192.0.2.77"), "event": "add"}
            webhook.take(network, report, timezone.now())

        fake.start = start
        run_job(vms.start, vm)
        assert holding(nic) == ("192.0.2.77", AddressState.CONFIRMED)
        assert row_of(nic).state == State.FOUND

    def test_a_nic_added_to_a_running_vm_is_in_the_queue_at_once(self, fake, now):
        """The guest configures it before the next pass looks for NICs without a row."""
        nic = waiting_nic()
        added = write_nic(nic.vm, make_network(nic.vm.zone), 1, plugged=False)
        assert row_of(added).state == State.WAITING

    def test_one_added_to_a_stopped_vm_is_not(self):
        vm = make_vm()
        added = write_nic(vm, make_network(vm.zone), 1)
        assert not IpFetch.objects.filter(nic=added).exists()


class TestHoldersOfOneAddress:
    def test_a_guess_that_another_is_confirmed_to_have_is_asked_for_again(self, fake, now):
        """A lease on a disk is older than it seemed: the server has given the address to another guest."""
        nic = waiting_nic()
        recording.report(Source.DISK, {nic.pk: [address(nic, "192.0.2.50", Source.DISK)]}, now)
        assert row_of(nic).state == State.FOUND
        other = neighbour(nic)
        recording.report(Source.WEBHOOK, {other.pk: [address(other, "192.0.2.50", Source.WEBHOOK)]}, now)
        assert holding(nic) == (None, AddressState.UNKNOWN)
        assert nic.address_source == ""
        assert row_of(nic).state == State.WAITING

    def test_so_is_one_that_another_is_given_by_hand(self, fake, now):
        """An operator gives a NIC the address of an old lease on another's disk."""
        nic = waiting_nic()
        recording.report(Source.DISK, {nic.pk: [address(nic, "192.0.2.50", Source.DISK)]}, now)
        pin(neighbour(nic), "192.0.2.50", make_caller(Role.ROOT_ADMIN))
        assert holding(nic) == (None, AddressState.UNKNOWN)
        assert (nic.address_source, row_of(nic).state) == ("", State.WAITING)

    @pytest.fixture
    def given_another_meanwhile(self, fake, now, monkeypatch) -> Nic:
        """Who held 192.0.2.50 as last known, and is confirmed to have 192.0.2.60 while it is being taken from it."""
        nic = waiting_nic()
        Nic.objects.filter(pk=nic.pk).update(ip4_address="192.0.2.50", address_state=AddressState.LAST_KNOWN)
        other = neighbour(nic)
        looked_up = holders.with_addresses

        def then_changed(places):
            found = looked_up(places)
            if nic.pk in [holder for holder, *_ in found]:
                Nic.objects.filter(pk=nic.pk).update(ip4_address="192.0.2.60", address_state=AddressState.CONFIRMED)
            return found

        monkeypatch.setattr(holders, "with_addresses", then_changed)
        recording.report(Source.WEBHOOK, {other.pk: [address(other, "192.0.2.50", Source.WEBHOOK)]}, now)
        return nic

    def test_nothing_is_taken_from_who_has_been_given_another_meanwhile(self, given_another_meanwhile):
        """Between the look-up of former holders and the update another batch writes."""
        assert holding(given_another_meanwhile) == ("192.0.2.60", AddressState.CONFIRMED)

    @pytest.fixture
    def told(self, monkeypatch) -> list[AddressChange]:
        told: list[AddressChange] = []

        class Listener(NetworkElement):
            def addresses_changed(self, changes, now):
                told.extend(changes)

        monkeypatch.setattr(elements, "_elements", [*elements.registered(), Listener()])
        return told

    def test_nor_is_anybody_told_that_it_has_lost_one(self, told, given_another_meanwhile):
        """As before: whoever publishes names would forget one that has an address."""
        assert told
        assert given_another_meanwhile.pk not in [change.nic_id for change in told]

    def test_the_same_ipv6_address_at_two_is_a_conflict(self, fake, now):
        """Both guests are read in one batch."""
        nic = waiting_nic()
        other = neighbour(nic)
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.50"), address(nic, "2001:db8::7"))
        fake.answers(other.vm.on_host, address(other, "192.0.2.51"), address(other, "2001:db8::7"))
        run_pass(now + MINUTE)
        assert flagged(Flag.CONFLICT) == [(nic.pk, "2001:db8::7"), (other.pk, "2001:db8::7")]
        assert len(events(EventType.IP_CONFLICT)) == 2

    def test_the_same_secondary_address_at_two_is_a_conflict(self, found, fake, now):
        """One guest puts on another's address beside its own."""
        other = neighbour(found)
        fake.answers(other.vm.on_host, address(other, "192.0.2.51"), address(other, "192.0.2.120"))
        run_pass(now + 2 * MINUTE)
        assert flagged(Flag.CONFLICT) == [(found.pk, "192.0.2.120"), (other.pk, "192.0.2.120")]

    def test_a_hint_that_the_agent_confirms_is_a_conflict(self, found, fake, now):
        """The address does not change, only who tells it: first the host's neighbour table, then the guest."""
        other = neighbour(found)
        hint = address(other, "192.0.2.120", Source.NEIGHBOUR)
        recording.report(Source.NEIGHBOUR, {other.pk: [hint]}, now)
        assert events(EventType.IP_CONFLICT) == []
        fake.answers(other.vm.on_host, address(other, "192.0.2.120"))
        run_pass(now + 2 * MINUTE)
        assert len(events(EventType.IP_CONFLICT)) == 2

    def test_a_conflict_is_told_again_after_a_restart(self, found, fake, now):
        """Both were told; one is off while the other is read again, and comes back with the same address."""
        other = neighbour(found)
        fake.answers(other.vm.on_host, address(other, "192.0.2.120"))
        run_pass(now + 2 * MINUTE)
        run_job(vms.stop, other.vm)
        run_pass(now + QUARTER)
        assert flagged(Flag.CONFLICT) == []
        Event.objects.all().delete()

        run_job(vms.start, other.vm)
        run_pass(now + QUARTER + MINUTE)

        assert flagged(Flag.CONFLICT) == [(found.pk, "192.0.2.120"), (other.pk, "192.0.2.120")]
        assert len(events(EventType.IP_CONFLICT)) == 2


class TestWhatIsNoMore:
    """A source that told an address answers, and does not tell it any more."""

    def test_an_address_that_the_guest_has_lost_is_last_known(self, found, fake, now):
        """The lease ended while the guest ran, and it has IPv6 only."""
        fake.answers(found.vm.on_host, address(found, "2001:db8::7"))
        run_pass(now + QUARTER)
        assert holding(found) == ("192.0.2.120", AddressState.LAST_KNOWN)
        assert row_of(found).state == State.WAITING

    def test_the_time_at_which_it_was_seen_stays(self, found, fake, now):
        """The guest is read, and shows another family's address."""
        before = found.address_seen_at
        fake.answers(found.vm.on_host, address(found, "2001:db8::7"))
        run_pass(now + QUARTER)
        found.refresh_from_db()
        assert found.address_seen_at == before

    def test_so_is_one_of_a_guest_that_has_none_at_all(self, found, fake, now):
        """The agent answers with an empty list."""
        fake.answers(found.vm.on_host)
        run_pass(now + QUARTER)
        assert holding(found) == ("192.0.2.120", AddressState.LAST_KNOWN)
        assert row_of(found).state == State.WAITING

    def test_it_raises_no_conflict_with_who_has_it_now(self, found, fake, now):
        """The server gives the address to another guest while the one that lost it still runs."""
        fake.answers(found.vm.on_host, address(found, "2001:db8::7"))
        run_pass(now + QUARTER)
        other = neighbour(found)
        fake.answers(other.vm.on_host, address(other, "192.0.2.120"))
        run_pass(now + QUARTER + MINUTE)
        assert events(EventType.IP_CONFLICT) == []

    def test_an_ipv6_address_goes(self, found, fake, now):
        """The prefix of the network was renumbered, or the guest's privacy address is over."""
        fake.answers(found.vm.on_host, address(found, "192.0.2.120"), address(found, "2001:db8::7"))
        run_pass(now + QUARTER)
        found.refresh_from_db()
        assert found.ip6_address == "2001:db8::7"
        fake.answers(found.vm.on_host, address(found, "192.0.2.120"))
        run_pass(now + 2 * QUARTER)
        found.refresh_from_db()
        assert (found.ip4_address, found.ip6_address) == ("192.0.2.120", None)

    def test_a_lease_withdrawn_in_exact_mode_is_asked_for_again(self, fake, now):
        """Nothing is read again there, so a NIC that is found would never be."""
        exact_mode()
        nic = waiting_nic()
        recording.report(Source.WEBHOOK, {nic.pk: [address(nic, "192.0.2.50", Source.WEBHOOK)]}, now)
        recording.withdraw(Source.WEBHOOK, [nic.pk], "192.0.2.50", now)
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.51"))
        run_pass(now + 4 * MINUTE)
        assert holding(nic) == ("192.0.2.51", AddressState.CONFIRMED)

    def test_an_old_entry_of_the_host_s_table_takes_no_confirmed_address_s_place(self, found, fake, now):
        """The agent is being upgraded for longer than its word outweighs others'."""
        Observation.objects.update(last_seen_at=timezone.now() - 40 * MINUTE)
        fake.readings[str(found.vm.uuid)] = NO_AGENT
        fake.neighbours[str(found.vm.uuid)] = (address(found, "192.0.2.66", Source.NEIGHBOUR),)
        run_pass(now + QUARTER)
        assert "read_neighbours" in fake.calls
        assert holding(found) == ("192.0.2.120", AddressState.CONFIRMED)
        assert events(EventType.IP_CHANGE) == []

    def test_an_address_outside_that_is_seen_again_is_flagged_again(self, found, fake, now):
        """The guest changes between an address of its network and a foreign one."""
        foreign = address(found, "198.51.100.7")
        for number, told in enumerate([foreign, address(found, "192.0.2.120"), foreign], start=1):
            fake.answers(found.vm.on_host, told)
            run_pass(now + number * QUARTER)
        assert flagged(Flag.OUTSIDE) == [(found.pk, "198.51.100.7")]


class TestPinned:
    @pytest.fixture
    def pinned(self, found) -> Nic:
        by_hand = {"address_state": AddressState.PINNED, "address_source": Source.OPERATOR}
        Nic.objects.filter(pk=found.pk).update(ip4_address="192.0.2.200", **by_hand)
        return found

    def test_an_event_does_not_tell_of_a_change_that_was_not_made(self, pinned, fake, now):
        """Its guest gets an IPv6 address, and has another IPv4 address than the one set by hand."""
        fake.answers(pinned.vm.on_host, address(pinned, "192.0.2.120"), address(pinned, "2001:db8::7"))
        run_pass(now + QUARTER)
        (told,) = events(EventType.IP_CHANGE)
        assert "from none to 2001:db8::7" in told
        assert "192.0.2.120" not in told

    def test_what_the_guest_has_is_among_the_secondary_addresses(self, pinned, fake, now):
        """The guest has two others than the one set by hand, so one of them would be its primary."""
        fake.answers(pinned.vm.on_host, address(pinned, "192.0.2.120"), address(pinned, "192.0.2.121"))
        run_pass(now + QUARTER)
        assert holding(pinned) == ("192.0.2.200", AddressState.PINNED)
        assert set(pinned.secondary_addresses) == {"192.0.2.120", "192.0.2.121"}


class TestHostileGuest:
    """It closes and opens its agent's port each second, which asks for a read each time."""

    @pytest.fixture
    def each_second(self, found, now, monkeypatch):
        """Forty passes, and what is written in each is written at its time: longer than a guest is eagerly asked."""

        def seconds():
            for number in range(40):
                at = now + 2 * MINUTE + number * SECOND
                monkeypatch.setattr(batches, "timezone", SimpleNamespace(now=lambda at=at: at))
                yield number
                planner.nudge([str(found.vm.uuid)], at, eager=True)
                run_pass(at)

        return seconds()

    def test_another_address_each_time_does_not_fill_the_events(self, each_second, found, fake):
        """Each read would be one change."""
        for second in each_second:
            fake.answers(found.vm.on_host, address(found, f"192.0.2.{10 + second % 2}"))
        # By the push, and where a refresh falls into these seconds.
        assert 1 <= len(events(EventType.IP_CHANGE)) <= 2

    def test_nor_do_addresses_outside(self, each_second, found, fake):
        """Each address outside the network that follows one inside would be one alert."""
        for second in each_second:
            ip = "192.0.2.120" if second % 2 else f"198.51.100.{second}"
            fake.answers(found.vm.on_host, address(found, ip))
        assert 1 <= len(events(EventType.IP_OUTSIDE)) <= 2


class TestManyEndpoints:
    @pytest.fixture
    def nics(self, fake, now) -> list[Nic]:
        """Six, each on an endpoint of its own, all due since an hour."""
        network = make_network()
        hosts = [make_host(make_cluster(network.zone)) for _ in range(6)]
        nics = [make_running_vm(networks=[network], host=host).nics.get() for host in hosts]
        planner.enter_missing(Pace.now(), now - 60 * MINUTE)
        return nics

    def claimed(self) -> set[int]:
        return set(IpFetch.objects.exclude(claimed_until=None).values_list("nic", flat=True))

    def test_a_pass_goes_on_as_long_as_there_is_more_to_ask(self, nics, monkeypatch):
        """Without the watcher there is one pass a minute, and readers are done long before the next."""
        monkeypatch.setattr(planner, "MOST_WAITING_BATCHES", 2)
        monkeypatch.setattr(planner, "MORE_AFTER_SECONDS", 0.0)
        # Readers that have always taken all there is.
        monkeypatch.setattr(planner.tasks, "waiting", lambda queue, now: 0)
        planner.run_pass()
        assert self.claimed() == {nic.pk for nic in nics}

    def test_one_task_brings_the_batches_of_some(self, nics, now):
        planner.plan(now)
        task = OrmQ.objects.get().task
        assert task["func"].endswith("read_batches")
        assert {endpoint for endpoint, _, _ in task["args"]} == {nic.vm.host.endpoint_id for nic in nics}
        assert self.claimed() == {nic.pk for nic in nics}

    def test_a_task_begins_no_batch_whose_claims_have_run_out(self, monkeypatch):
        """All readers were busy for so long; others may be asking for these NICs by now."""
        begun = []
        monkeypatch.setattr(batches, "CLAIM_LIFE", timedelta(0))
        monkeypatch.setattr(batches._readers, "run", begun.append)
        batches.read_batches((1, [], 1), (2, [], 1))
        assert begun == []

    def test_a_pass_ends_although_readers_are_behind(self, nics, monkeypatch):
        """The readers take nothing, and the next pass comes anyhow."""
        monkeypatch.setattr(planner, "MOST_WAITING_BATCHES", 2)
        monkeypatch.setattr(planner, "PASS_SECONDS", 0.5)
        planner.run_pass()
        assert len(self.claimed()) == 2

    def test_hosts_that_did_not_answer_come_after_those_that_do(self, nics, now, monkeypatch):
        """The dead are the longest overdue, and there is room for fewer than they are."""
        monkeypatch.setattr(planner, "MOST_WAITING_BATCHES", 3)
        living = nics[-1]
        Endpoint.objects.exclude(pk=living.vm.host.endpoint_id).update(failures=5, retry_at=now - MINUTE)
        IpFetch.objects.filter(nic=living).update(next_attempt_at=now - MINUTE)
        planner.plan(now)
        assert living.pk in self.claimed()
        assert len(self.claimed()) == 3

    def test_of_hosts_that_did_not_answer_few_are_asked_at_a_time(self, nics, now):
        """Each holds up a reader's thread until its deadline, and a tick comes each second."""
        Endpoint.objects.update(failures=5, retry_at=now - MINUTE)
        for second in range(3):
            planner.plan(now + second * SECOND)
        assert len(self.claimed()) == planner.MOST_DOUBTFUL

    def test_disks_are_read_by_few_threads(self, monkeypatch):
        """As many tasks as hosts come at once, and each disk takes minutes."""
        gate, before = threading.Event(), set(threading.enumerate())
        monkeypatch.setattr(disks, "look", lambda endpoint_id, nic_ids: gate.wait(30))
        try:
            for endpoint_id in range(3 * disks.MOST_AT_A_TIME):
                disks.read_disks(endpoint_id, [1])
            readers = [thread for thread in set(threading.enumerate()) - before if thread.name == "read-disks"]
            assert len(readers) == disks.MOST_AT_A_TIME
        finally:
            gate.set()
        for reader in readers:
            reader.join(30)

    def test_a_disk_that_is_done_makes_room_for_another(self, monkeypatch):
        """A reading that fails must give its place back too."""
        looked: list[int] = []

        def look(endpoint_id, nic_ids):
            looked.append(endpoint_id)
            raise RuntimeError("It failed.")

        monkeypatch.setattr(disks, "look", look)
        deadline = time.monotonic() + 30
        while len(looked) <= disks.MOST_AT_A_TIME and time.monotonic() < deadline:
            disks.read_disks(len(looked), [1])
            for reader in [thread for thread in threading.enumerate() if thread.name == "read-disks"]:
                reader.join(30)
        assert len(looked) == disks.MOST_AT_A_TIME + 1


class TestAlerts:
    @pytest.mark.parametrize("failures", [1, 2])
    @pytest.mark.parametrize("statements", [1, 2, 3])
    def test_failures_at_one_moment_are_told_once(self, failures, statements, monkeypatch):
        """Two batches of a host fail together, and the one is counted between two statements of the other."""
        make_account(Role.ROOT_ADMIN)
        endpoint = make_endpoint(failures=failures, last_error="It does not answer.")
        update, ours = QuerySet.update, itertools.count(1)

        def then_the_other(rows, **values):
            changed = update(rows, **values)
            if rows.model is Endpoint and next(ours) == statements:
                record_health(endpoint, "It does not answer.")
            return changed

        with monkeypatch.context() as patch:
            patch.setattr(QuerySet, "update", then_the_other)
            record_health(endpoint, "It does not answer.")
        record_health(endpoint, "It does not answer.")
        assert len(events(EventType.HOST_ALERT)) == 1


class TestManyRows:
    def test_each_row_gets_its_own_value_in_statements_of_bounded_size(self, now):
        """A statement's time grows with the square of its rows, while every other writer waits for it."""
        nic = make_vm().nics.get()
        seen = {"source": "agent", "family": 4, "confidence": "confirmed", "first_seen_at": now, "last_seen_at": now}
        addresses = [f"198.51.{number // 250}.{number % 250}" for number in range(2 * ROWS_A_STATEMENT + 1)]
        Observation.objects.bulk_create(Observation(nic=nic, address=each, **seen) for each in addresses)
        wanted = {pk: (pk % 33, f"{pk}") for pk in Observation.objects.values_list("pk", flat=True)}

        with CaptureQueriesContext(
            connection,
        ) as statements:
            update_each(Observation, wanted, ["prefix", "source"])

        assert len(statements) == 3
        stored = Observation.objects.values_list("pk", "prefix", "source")
        assert {pk: tuple(values) for pk, *values in stored} == wanted
