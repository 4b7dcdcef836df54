"""Known addresses are read again, and followed when the lease changes; who was given up is looked at again."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django_q.models import OrmQ

from extdhcp_site.accounts.models import Role
from extdhcp_site.events.models import Event, EventType
from ipfetch import batches, planner, recording
from ipfetch.models import IpFetch, Observation, Outcome
from ipfetch.schedule import TURNS, Pace
from ipfetch.writing.targets import Finding, targets
from networks import elements
from networks.elements import AddressChange, NetworkElement
from networks.hypervisors.base import EndpointUnreachable, Reading
from networks.hypervisors.base import Outcome as ReadOutcome
from networks.models import AddressState, Endpoint, Nic, VirtualMachine, VmState
from networks.services.places import record_health
from tests.factories import make_account, make_running_vm
from tests.ipfetch.passes import (
    MINUTE,
    address,
    exact_mode,
    queued_batches,
    row_of,
    run_pass,
    set_to,
    waiting_nic,
    whole_pass,
)

pytestmark = pytest.mark.django_db
State = IpFetch.State
QUARTER = 16 * MINUTE  # a refresh interval, and a little


@pytest.fixture
def found(fake, now) -> Nic:
    nic = waiting_nic()
    fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
    run_pass(now + MINUTE)
    nic.refresh_from_db()
    assert nic.ip4_address == "192.0.2.120"
    return nic


class TestChange:
    def test_a_new_lease_is_written_to_the_nic(self, found, fake, now):
        fake.answers(found.vm.on_host, address(found, "192.0.2.130"))
        run_pass(now + QUARTER)
        found.refresh_from_db()
        assert (found.ip4_address, found.address_state) == ("192.0.2.130", AddressState.CONFIRMED)

    def test_one_event_tells_of_it_to_the_owner(self, found, fake, now):
        fake.answers(found.vm.on_host, address(found, "192.0.2.130"))
        run_pass(now + QUARTER)
        run_pass(now + 2 * QUARTER)
        event = Event.objects.get(type=EventType.IP_CHANGE)
        assert "from 192.0.2.120 to 192.0.2.130" in event.description
        assert (event.account, event.resource_uuid) == (found.vm.account, found.vm.uuid)

    def test_whoever_publishes_names_hears_of_it(self, found, fake, now, monkeypatch):
        heard: list[AddressChange] = []

        class Publisher(NetworkElement):
            def addresses_changed(self, changes, now):
                heard.extend(changes)

        monkeypatch.setattr(elements, "_elements", [*elements.registered(), Publisher()])
        fake.answers(found.vm.on_host, address(found, "192.0.2.130"))
        run_pass(now + QUARTER)
        run_pass(now + 2 * QUARTER)
        assert heard == [AddressChange(found.pk, found.vm_id, "192.0.2.120", "192.0.2.130", None, None)]

    def test_the_former_address_is_history(self, found, fake, now):
        fake.answers(found.vm.on_host, address(found, "192.0.2.130"))
        run_pass(now + QUARTER)
        seen = Observation.objects.filter(nic=found)
        assert seen.current().get().address == "192.0.2.130"
        assert seen.exclude(ended_at=None).get().address == "192.0.2.120"


class TestNothingNew:
    def test_the_time_at_which_it_was_seen_is_written(self, found, fake, now):
        before = found.address_seen_at
        run_pass(now + QUARTER)
        found.refresh_from_db()
        assert found.address_seen_at > before
        assert Observation.objects.get(nic=found).last_seen_at > before

    def test_a_failed_read_changes_nothing(self, found, fake, now):
        fake.readings.clear()
        run_pass(now + QUARTER)
        found.refresh_from_db()
        row = row_of(found)
        assert (found.ip4_address, found.address_state) == ("192.0.2.120", AddressState.CONFIRMED)
        assert (row.state, row.last_outcome) == (State.FOUND, Outcome.AGENT_ABSENT)
        assert Observation.objects.current().get(nic=found).address == "192.0.2.120"

    def test_a_guest_that_has_lost_its_address_keeps_it_as_known(self, found, fake, now):
        fake.readings[str(found.vm.uuid)] = Reading()
        run_pass(now + QUARTER)
        found.refresh_from_db()
        assert found.ip4_address == "192.0.2.120"

    def test_it_costs_no_try(self, found, fake, now):
        before = row_of(found)
        run_pass(now + QUARTER)
        row = row_of(found)
        assert (row.retries_left, row.tries) == (before.retries_left, before.tries)


class TestWhen:
    def test_zero_means_never(self, fake, now):
        set_to("externaldhcp.vmip.refresh.interval", 0)
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + MINUTE)
        assert row_of(nic).next_attempt_at is None

    def test_switched_on_again_it_begins_at_the_next_pass(self, fake, now):
        self.test_zero_means_never(fake, now)
        set_to("externaldhcp.vmip.refresh.interval", 60)
        fake.calls.clear()
        run_pass(now + 2 * MINUTE)
        assert fake.calls == ["read_addresses"]

    def test_a_shorter_interval_holds_at_once(self, found, fake, now):
        set_to("externaldhcp.vmip.refresh.interval", 60)
        whole_pass(now + MINUTE)
        assert row_of(found).next_attempt_at <= now + 2 * MINUTE

    def test_the_process_that_plans_each_second_sees_it_at_its_next_tick(self, found, now):
        turn = planner.Turn()
        turn.tick()
        set_to("externaldhcp.vmip.refresh.interval", 60)
        turn.tick()
        assert row_of(found).next_attempt_at <= now + 2 * MINUTE

    def test_all_of_an_endpoint_come_due_at_one_moment(self, now):
        pace = Pace.now()
        moments = {pace.refresh_at(7, now + timedelta(seconds=seconds)) for seconds in range(0, 60, 10)}
        assert len(moments) <= 2

    def test_endpoints_are_spread_over_the_interval_in_turns(self):
        pace, noon = Pace(3 * MINUTE, 10, exact=False, refresh=15 * MINUTE), datetime(2026, 5, 4, 12, tzinfo=UTC)
        waits = [(pace.refresh_at(pk, noon) - noon).total_seconds() for pk in range(1, 1001)]
        turns = Counter(waits)
        assert 0 < min(waits) <= max(waits) <= 900
        assert len(turns) == TURNS
        assert max(turns.values()) - min(turns.values()) <= 3

    def test_those_that_wait_go_first(self, found, fake, now):
        late = make_running_vm(networks=[found.network], host=found.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        IpFetch.objects.filter(nic=late).update(next_attempt_at=now + QUARTER)
        OrmQ.objects.all().delete()
        planner.plan(now + QUARTER)
        ((_, (first, second), _),) = queued_batches()
        assert {first[0], second[0]} == set(IpFetch.objects.values_list("pk", flat=True))
        lanes = planner._due_batches(Pace.now(), now + QUARTER, (), (), most=1)
        assert lanes == {}  # one batch has both

    def test_in_exact_mode_nothing_is_read_again(self, found, fake, now):
        exact_mode()
        fake.calls.clear()
        run_pass(now + 100 * MINUTE)
        assert fake.calls == []


class TestGivenUp:
    @pytest.fixture
    def given_up(self, fake, now) -> Nic:
        nic = waiting_nic()
        IpFetch.objects.update(retries_left=1, tries=100)
        run_pass(now + MINUTE)
        assert row_of(nic).state == State.EXHAUSTED
        return nic

    def test_it_is_looked_at_again_with_the_refreshes(self, given_up, fake, now):
        fake.answers(given_up.vm.on_host, address(given_up, "192.0.2.120"))
        run_pass(now + QUARTER)
        given_up.refresh_from_db()
        assert (given_up.ip4_address, row_of(given_up).state) == ("192.0.2.120", State.FOUND)
        assert Event.objects.filter(type=EventType.IP_FETCH, level="INFO").count() == 1

    def test_looking_again_in_vain_gives_no_second_error(self, given_up, fake, now):
        for number in range(1, 4):
            run_pass(now + number * QUARTER)
        assert Event.objects.filter(type=EventType.IP_FETCH, level="ERROR").count() == 1

    def test_an_endpoint_that_answers_again_revives_it(self, given_up, now):
        endpoint = given_up.vm.host.endpoint
        record_health(endpoint, "It does not answer.")
        record_health(endpoint)
        Endpoint.objects.update(up_since=now + 2 * MINUTE)
        planner.reconcile(Pace.now(), now + 3 * MINUTE)
        row = row_of(given_up)
        assert (row.state, row.retries_left, row.tries) == (State.WAITING, 10, 0)

    def test_a_revival_shuts_out_the_batch_before_it(self, given_up, fake, now):
        """The race: a refresh is under way while the endpoint recovers; its failure must not count in the new life."""
        IpFetch.objects.update(next_attempt_at=now)
        OrmQ.objects.all().delete()
        planner.plan(now + 2 * MINUTE)
        (target,) = targets(IpFetch.objects.all())
        IpFetch.objects.all().begin_anew(Pace.now(), now + 3 * MINUTE)
        assert recording.record([Finding(target, outcome=Outcome.AGENT_ABSENT)], now + 3 * MINUTE) == set()
        assert row_of(given_up).last_outcome == ""

    def test_a_push_revives_it(self, given_up, now):
        planner.nudge([str(given_up.vm.uuid)], now + 2 * MINUTE, eager=True)
        assert row_of(given_up).state == State.WAITING

    def test_in_exact_mode_it_stays_given_up(self, given_up, now):
        exact_mode()
        planner.nudge([str(given_up.vm.uuid)], now + 2 * MINUTE, eager=True)
        record_health(given_up.vm.host.endpoint)
        Endpoint.objects.update(up_since=now + 2 * MINUTE)
        run_pass(now + 100 * MINUTE)
        assert row_of(given_up).state == State.EXHAUSTED


class TestPush:
    """After "agent connected" a guest is asked each second for a while: it is about to have its address."""

    def test_it_is_asked_each_second_and_spends_nothing(self, fake, now):
        nic = waiting_nic()
        before = row_of(nic)
        planner.nudge([str(nic.vm.uuid)], now, eager=True)
        for second in range(3):
            run_pass(now + timedelta(seconds=second))
        row = row_of(nic)
        assert fake.calls.count("read_addresses") == 3
        assert (row.tries, row.retries_left) == (before.tries, before.retries_left)

    def test_after_half_a_minute_the_usual_pace_returns(self, fake, now):
        nic = waiting_nic()
        planner.nudge([str(nic.vm.uuid)], now, eager=True)
        run_pass(now + timedelta(seconds=31))
        assert row_of(nic).next_attempt_at == now + timedelta(seconds=41)

    def test_its_last_try_is_not_given_up_meanwhile(self, fake, now):
        """The race: the agent connects while the last try is under way, and that one comes back empty."""
        nic = waiting_nic()
        IpFetch.objects.update(retries_left=1, tries=100, next_attempt_at=now)
        OrmQ.objects.all().delete()
        planner.plan(now)
        planner.nudge([str(nic.vm.uuid)], now, eager=True)
        (batch,) = queued_batches()
        batches.read(*batch)
        assert row_of(nic).state == State.WAITING

    def test_a_found_nic_is_read_again_until_it_answers(self, found, fake, now):
        fake.readings.clear()
        planner.nudge([str(found.vm.uuid)], now + 2 * MINUTE, eager=True)
        run_pass(now + 2 * MINUTE)
        assert row_of(found).next_attempt_at == now + 2 * MINUTE + timedelta(seconds=1)

    def test_in_exact_mode_a_push_does_nothing(self, fake, now):
        exact_mode()
        nic = waiting_nic()
        before = row_of(nic).next_attempt_at
        planner.nudge([str(nic.vm.uuid)], now, eager=True)
        assert row_of(nic).next_attempt_at == before


class TestBreaker:
    def test_a_silent_endpoint_is_left_alone_longer_each_time(self, fake, now):
        nic = waiting_nic()
        waits = []
        for number in range(6):
            record_health(nic.vm.host.endpoint, "It does not answer.")
            endpoint = Endpoint.objects.get()
            waits.append(round((endpoint.retry_at - now).total_seconds()))
            assert endpoint.failures == number + 1
        assert waits == [5, 10, 20, 40, 60, 60]

    def test_its_nics_are_not_claimed_meanwhile(self, fake, now):
        nic = waiting_nic()
        Endpoint.objects.update(retry_at=now + 2 * MINUTE, failures=3, last_error="It does not answer.")
        run_pass(now + MINUTE)
        assert fake.calls == []
        run_pass(now + 3 * MINUTE)
        assert fake.calls.count("read_addresses") == 1
        assert row_of(nic).tries == 1

    def test_after_a_failure_one_thread_asks_first(self, fake, now):
        waiting_nic()
        planner.plan(now + MINUTE)
        Endpoint.objects.update(failures=1)
        IpFetch.objects.update(claimed_until=None, next_attempt_at=now)
        planner.plan(now + 2 * MINUTE)
        assert [width for _, _, width in queued_batches()] == [batches.AT_ONE_HOST, 1]

    def test_in_exact_mode_each_try_is_made(self, fake, now):
        exact_mode()
        nic = waiting_nic()
        fake.failing["read_addresses"] = EndpointUnreachable("It does not answer.")
        run_pass(now + 4 * MINUTE)
        Endpoint.objects.update(retry_at=now + 100 * MINUTE, failures=3)
        run_pass(now + 8 * MINUTE)
        assert row_of(nic).retries_left == 8

    def test_operators_hear_of_the_third_failure_and_of_the_recovery(self, fake, now):
        operators = make_account(Role.ROOT_ADMIN)
        nic = waiting_nic()
        for _ in range(5):
            record_health(nic.vm.host.endpoint, "It does not answer.")
        record_health(nic.vm.host.endpoint)
        record_health(nic.vm.host.endpoint)
        told = Event.objects.filter(type=EventType.HOST_ALERT).order_by("pk")
        assert [(event.level, event.account) for event in told] == [("ERROR", operators), ("INFO", operators)]

    def test_who_could_not_be_asked_is_asked_as_soon_as_it_answers(self, fake, now):
        nic = waiting_nic()
        IpFetch.objects.update(tries=100)
        fake.failing["read_addresses"] = EndpointUnreachable("It does not answer.")
        run_pass(now + MINUTE)
        assert row_of(nic).next_attempt_at == now + 4 * MINUTE
        record_health(nic.vm.host.endpoint)
        Endpoint.objects.update(up_since=now + 2 * MINUTE)
        planner.reconcile(Pace.now(), now + 2 * MINUTE)
        assert row_of(nic).next_attempt_at == now + 2 * MINUTE


class TestVmsThatDoNotRun:
    def test_however_many_are_overdue_they_stand_in_nobodys_way(self, fake, now, monkeypatch):
        monkeypatch.setattr(planner, "MOST_WAITING_BATCHES", 1)
        monkeypatch.setattr(planner, "USUAL_BATCH", 2)
        moving = [waiting_nic() for _ in range(3)]
        IpFetch.objects.update(next_attempt_at=now - MINUTE, scheduled_at=now - MINUTE)
        VirtualMachine.objects.filter(pk__in=[nic.vm_id for nic in moving]).update(state=VmState.STOPPING)
        nic = waiting_nic()
        planner.plan(now + MINUTE)
        assert row_of(nic).tries == 1
        assert [row_of(each).tries for each in moving] == [0, 0, 0]


class TestSilentGuests:
    def test_they_are_read_apart_from_the_others(self, fake, now):
        frozen = waiting_nic()
        other = make_running_vm(networks=[frozen.network], host=frozen.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        fake.readings[str(frozen.vm.uuid)] = Reading(problem=ReadOutcome.AGENT_SILENT)
        run_pass(now + MINUTE)
        OrmQ.objects.all().delete()
        planner.plan(now + 2 * MINUTE)
        read = [[row for row, _ in claims] for _, claims, _ in queued_batches()]
        assert sorted(read) == sorted([[row_of(frozen).pk], [row_of(other).pk]])

    def test_a_batch_of_them_holds_up_no_other(self, fake, now):
        """The race: a batch of frozen guests is under way when another guest of the host comes due."""
        frozen = waiting_nic()
        fake.readings[str(frozen.vm.uuid)] = Reading(problem=ReadOutcome.AGENT_SILENT)
        run_pass(now + MINUTE)
        planner.plan(now + 2 * MINUTE)  # and nobody has read it yet
        other = make_running_vm(networks=[frozen.network], host=frozen.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        planner.plan(now + 2 * MINUTE + timedelta(seconds=6))
        assert row_of(other).tries == 1


class TestClaims:
    def test_one_that_nobody_began_costs_no_try(self, fake, now):
        """The race: the reader's server dies with the batch still in its queue."""
        nic = waiting_nic()
        IpFetch.objects.update(tries=100)
        planner.plan(now + MINUTE)
        planner.plan(now + 5 * MINUTE)
        row = row_of(nic)
        assert (row.tries, row.retries_left, row.claim) == (101, 9, IpFetch.Claim.COUNTED)

    def test_one_that_was_begun_is_spent(self, fake, now):
        nic = waiting_nic()
        IpFetch.objects.update(tries=100)
        planner.plan(now + MINUTE)
        IpFetch.objects.update(begun=True)
        planner.plan(now + 5 * MINUTE)
        assert row_of(nic).retries_left == 8

    def test_what_was_lost_is_asked_again_at_once_but_once_only(self, fake, now):
        """The race: the batch that asks for it is what its server dies of, again and again."""
        nic = waiting_nic()
        IpFetch.objects.update(tries=100)
        planner.plan(now + MINUTE)
        asked = [row_of(nic).last_attempt_at]
        for seconds in range(20, 170, 10):
            IpFetch.objects.update(begun=True)
            planner.plan(now + MINUTE + timedelta(seconds=seconds))
            asked.append(row_of(nic).last_attempt_at)
        assert len(set(asked)) == 2
        assert row_of(nic).retries_left == 9

    def test_a_dead_servers_claims_are_free_within_half_a_minute(self):
        assert batches.CLAIM_LIFE + timedelta(seconds=planner.locks.LIFE.total_seconds()) <= timedelta(seconds=30)

    def test_a_batch_at_work_keeps_its_claims(self, fake, now, monkeypatch):
        waiting_nic()
        monkeypatch.setattr(batches, "RENEW_SECONDS", 0.01)
        held_twice, hold, times = threading.Event(), batches._Batch.hold, []

        def counted(batch):
            hold(batch)
            times.append(IpFetch.objects.get().claimed_until)
            if len(times) == 2:
                held_twice.set()

        def slowly(self, vms, deadline, width=4):
            assert held_twice.wait(30)
            yield from ()

        monkeypatch.setattr(batches._Batch, "hold", counted)
        monkeypatch.setattr(type(fake), "read_addresses", slowly)
        run_pass(now)
        run_pass(now + MINUTE)
        assert times[0] < times[1]
