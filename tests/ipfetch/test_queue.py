"""The queue and its passes: who is in it, what a try costs, and that late results change nothing."""

from datetime import timedelta
from ipaddress import ip_address

import pytest
from django_q.models import OrmQ

from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.locks import models as locks
from ipfetch import batches, planner, recording, sweep
from ipfetch.models import IpFetch, Outcome
from ipfetch.schedule import Pace
from ipfetch.writing.targets import Finding, targets
from networks.hypervisors.base import EndpointUnreachable, GuestAddress, Reading, Source
from networks.hypervisors.base import Outcome as ReadOutcome
from networks.models import AddressState, Nic, VirtualMachine
from networks.services import vms
from tests.factories import (
    make_caller,
    make_l2_network,
    make_network,
    make_network_offering,
    make_running_vm,
    make_vm,
)
from tests.fakes import FakeHypervisor
from tests.ipfetch.passes import MINUTE, address, exact_mode, queued_batches, run_pass, set_to, waiting_nic, whole_pass

pytestmark = pytest.mark.django_db
# The command reads in threads, which do not see what a test's transaction holds.
beside_transactions = pytest.mark.django_db(transaction=True, serialized_rollback=True)


class TestWhoIsInTheQueue:
    """External DHCP/DNS spec, functional requirements 1 and 2, and "Fetching VM ip address"."""

    def test_running_nics_without_a_row_enter_at_the_beginning_of_a_pass(self, now):
        nic = make_running_vm().nics.get()

        whole_pass(now)

        row = IpFetch.objects.get(nic=nic)
        assert (row.state, row.retries_left, row.next_attempt_at) == ("waiting", 10, now + timedelta(seconds=5))

    def test_a_network_with_user_data_only_is_eligible(self, now):
        offering = make_network_offering({"UserData": "ConfigDrive"})
        make_running_vm(networks=[make_network(offering=offering)])
        whole_pass(now)
        assert IpFetch.objects.count() == 1

    def test_a_network_whose_offering_has_dhcp_is_not(self, now):
        offering = make_network_offering({"Dhcp": "ConfigDrive"})
        make_running_vm(networks=[make_network(offering=offering)])
        whole_pass(now)
        assert not IpFetch.objects.exists()

    def test_l2_networks_are_eligible(self, now):
        make_running_vm(networks=[make_l2_network()])
        whole_pass(now)
        assert IpFetch.objects.count() == 1

    def test_stopped_vms_are_not(self, now):
        make_vm()
        whole_pass(now)
        assert not IpFetch.objects.exists()

    def test_a_nic_that_is_removed_takes_its_row_along(self, now):
        nic = waiting_nic()
        nic.delete()
        assert not IpFetch.objects.exists()

    def test_entering_takes_one_statement_however_many_nics(self, now, django_assert_num_queries):
        for _ in range(5):
            make_running_vm()
        with django_assert_num_queries(3):  # with the savepoint around it
            planner.enter_missing(Pace(timedelta(seconds=180), 10, exact=False), now)
        assert IpFetch.objects.count() == 5


class TestFound:
    def test_the_nic_gets_the_address_with_its_source_and_time(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))

        run_pass(now + MINUTE)

        nic.refresh_from_db()
        assert nic.ip4_address == "192.0.2.120"
        assert (nic.address_state, nic.address_source) == (AddressState.CONFIRMED, "agent")
        assert nic.address_seen_at is not None
        assert nic.ip_fetch.state == IpFetch.State.FOUND

    def test_one_info_event_belongs_to_the_owner(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))

        run_pass(now + MINUTE)
        run_pass(now + 60 * MINUTE)

        event = Event.objects.get(type=EventType.IP_FETCH)
        assert (event.level, event.account) == ("INFO", nic.vm.account)
        assert "192.0.2.120 got fetched successfully" in event.description

    def test_in_exact_mode_a_found_nic_is_not_asked_again(self, fake, now):
        exact_mode()
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + 4 * MINUTE)
        fake.calls.clear()

        run_pass(now + 60 * MINUTE)

        assert fake.calls == []

    def test_a_last_known_address_of_another_nic_is_taken_from_it(self, fake, now):
        nic = waiting_nic()
        former = make_vm(networks=[nic.network]).nics.get()
        Nic.objects.filter(pk=former.pk).update(ip4_address="192.0.2.120", address_state=AddressState.LAST_KNOWN)
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))

        run_pass(now + MINUTE)

        former.refresh_from_db()
        assert (former.ip4_address, former.address_state) == (None, AddressState.UNKNOWN)


class TestNotFound:
    @pytest.mark.parametrize("ip", ["169.254.7.7", "127.0.0.1", "0.0.0.0", "224.0.0.1", "192.0.2.0", "192.0.2.255"])
    def test_an_address_that_no_server_leases_is_not_stored(self, fake, now, ip):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, ip))

        run_pass(now + MINUTE)

        nic.refresh_from_db()
        assert (nic.ip4_address, nic.ip_fetch.last_outcome) == (None, Outcome.NONE_YET)

    def test_the_gateways_address_is_not_a_guests(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.1"))
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert nic.ip4_address is None

    def test_an_address_outside_the_cidr_is_named_but_not_stored(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "198.51.100.7"))

        run_pass(now + MINUTE)

        nic.refresh_from_db()
        assert nic.ip4_address is None
        assert "198.51.100.7, which is outside 192.0.2.0/24" in nic.ip_fetch.last_detail

    def test_another_interfaces_address_is_not_taken(self, fake, now):
        nic = waiting_nic()
        foreign = GuestAddress("02:42:00:00:00:01", ip_address("192.0.2.44"), Source.GUEST_AGENT)
        fake.answers(nic.vm.on_host, foreign)
        run_pass(now + MINUTE)
        nic.refresh_from_db()
        assert nic.ip4_address is None

    def test_a_silent_guest_erases_nothing(self, fake, now):
        nic = waiting_nic()
        Nic.objects.update(ip4_address="192.0.2.120", address_state=AddressState.LAST_KNOWN)

        run_pass(now + MINUTE)

        nic.refresh_from_db()
        assert nic.ip4_address == "192.0.2.120"
        assert nic.ip_fetch.last_outcome == Outcome.AGENT_ABSENT

    def test_the_last_try_gives_up_with_one_error_event(self, fake, now):
        exact_mode(retries=2)
        nic = waiting_nic()
        for number in range(1, 5):
            run_pass(now + number * 4 * MINUTE)

        row = IpFetch.objects.get(nic=nic)
        event = Event.objects.get(type=EventType.IP_FETCH)
        assert (row.state, row.retries_left, row.tries) == (IpFetch.State.EXHAUSTED, 0, 2)
        assert (event.level, event.account) == ("ERROR", nic.vm.account)

    def test_a_later_start_begins_anew(self, fake, now):
        exact_mode(retries=1)
        nic = waiting_nic()
        run_pass(now + 4 * MINUTE)
        assert IpFetch.objects.get().state == IpFetch.State.EXHAUSTED
        vm, caller = nic.vm, make_caller()
        for submit in (vms.stop, vms.start):
            jobs.run(submit(vm, caller).pk, 1)
            vm = VirtualMachine.objects.get(pk=vm.pk)

        row = IpFetch.objects.get()
        assert (row.state, row.retries_left, row.last_outcome) == (IpFetch.State.WAITING, 1, "")


class TestGuestSeen:
    """When a guest is known to have been up: what makes its drive count as read, and its password as arrived."""

    @pytest.fixture
    def nic(self, fake) -> Nic:
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        return nic

    @staticmethod
    def seen_at(nic: Nic):
        return VirtualMachine.objects.values_list("guest_seen_at", flat=True).get(pk=nic.vm_id)

    @pytest.mark.parametrize("ip", ["192.0.2.120", "169.254.7.7"])
    def test_it_is_the_moment_at_which_the_nic_was_claimed(self, nic, fake, now, ip):
        fake.answers(nic.vm.on_host, address(nic, ip))
        run_pass(now + MINUTE)
        assert self.seen_at(nic) == now + MINUTE

    def test_a_guest_that_does_not_answer_was_not_seen(self, nic, fake, now):
        fake.readings.clear()
        run_pass(now + MINUTE)
        assert self.seen_at(nic) is None

    def test_a_batch_that_a_reboot_has_shut_out_saw_nobody(self, nic, fake, now):
        planner.plan(now + MINUTE)
        (late,) = queued_batches()
        (target,) = targets(IpFetch.objects.all())
        assert (target.row_id, target.attempt) == late[1][0]
        run_job = vms.reboot(nic.vm, make_caller())
        jobs.run(run_job.pk, 1)

        told = Finding(target, (address(nic, "192.0.2.120"),), recording.ASKED_IN_THE_GUEST)
        assert recording.record([told], now + 2 * MINUTE) == set()

        assert self.seen_at(nic) is None

    def test_an_earlier_claim_takes_nothing_back(self, nic, fake, now):
        VirtualMachine.objects.update(guest_seen_at=now + 5 * MINUTE)
        run_pass(now + MINUTE)
        assert self.seen_at(nic) == now + 5 * MINUTE

    def test_it_is_written_with_the_result_or_not_at_all(self, nic, fake, now, monkeypatch):
        def dies(*args):
            raise SystemExit

        monkeypatch.setattr(recording, "write_found", dies)
        with pytest.raises(SystemExit):
            run_pass(now + MINUTE)
        assert self.seen_at(nic) is None


class TestPace:
    def test_early_tries_come_quickly_and_cost_nothing(self, fake, now):
        nic = waiting_nic()
        moment, waits = IpFetch.objects.get().next_attempt_at, []
        for _ in range(7):
            run_pass(moment)
            following = IpFetch.objects.get().next_attempt_at
            waits.append((following - moment).total_seconds())
            moment = following

        row = IpFetch.objects.get(nic=nic)
        assert waits == [10, 20, 40, 80, 160, 180, 180]
        assert (row.tries, row.retries_left) == (7, 9)

    def test_exact_mode_waits_the_interval_and_counts_each_try(self, fake, now):
        exact_mode(interval=60, retries=3)
        waiting_nic()
        first = IpFetch.objects.get().next_attempt_at
        run_pass(first)
        row = IpFetch.objects.get()
        assert (row.retries_left, row.next_attempt_at) == (2, first + MINUTE)

    def test_settings_are_read_anew_at_each_pass(self, fake, now):
        exact_mode(interval=60)
        waiting_nic()
        first = IpFetch.objects.get().next_attempt_at
        set_to("externaldhcp.vmip.retrieval.interval", 600)

        run_pass(first)

        assert IpFetch.objects.get().next_attempt_at == first + 10 * MINUTE


class TestFence:
    def test_a_batch_that_is_late_changes_nothing(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        planner.plan(now + MINUTE)
        (late,) = queued_batches()
        planner.plan(now + 10 * MINUTE)  # its worker was given up, and the NIC claimed again

        batches.read(*late)

        nic.refresh_from_db()
        assert nic.ip4_address is None

    def test_a_batch_delivered_twice_writes_once(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        planner.plan(now + MINUTE)
        (batch,) = queued_batches()

        batches.read(*batch)
        batches.read(*batch)

        assert Event.objects.filter(type=EventType.IP_FETCH).count() == 1

    def test_a_batch_lost_with_its_worker_is_claimed_again(self, fake, now):
        nic = waiting_nic()
        planner.plan(now + MINUTE)  # and nobody reads
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))

        run_pass(now + 10 * MINUTE)

        nic.refresh_from_db()
        assert nic.ip4_address == "192.0.2.120"

    def test_a_nic_given_up_with_its_last_batch_lost_gets_its_event(self, fake, now):
        exact_mode(retries=1)
        nic = waiting_nic()
        planner.plan(now + 4 * MINUTE)  # the last try is spent
        IpFetch.objects.update(begun=True)  # and its worker dies

        planner.plan(now + 10 * MINUTE)

        assert IpFetch.objects.get(nic=nic).state == IpFetch.State.EXHAUSTED
        assert Event.objects.get(type=EventType.IP_FETCH).level == "ERROR"

    def test_an_endpoint_with_a_batch_under_way_gets_no_second_one(self, fake, now):
        nic = waiting_nic()
        planner.plan(now + MINUTE)
        other = make_running_vm(networks=[nic.network], host=nic.vm.host)
        planner.enter_missing(Pace.now(), now)
        OrmQ.objects.all().delete()

        planner.plan(now + MINUTE + timedelta(seconds=10))

        assert not OrmQ.objects.exists()
        assert IpFetch.objects.get(nic__vm=other).tries == 0

    def test_one_server_plans_at_a_time(self, fake, now):
        waiting_nic()
        IpFetch.objects.update(next_attempt_at=now)
        assert locks.acquire(planner.LOCK, "another server")

        planner.run_pass()

        assert IpFetch.objects.get().tries == 0


class TestUnreachable:
    def test_an_unreachable_endpoint_spends_no_try(self, fake, now):
        set_to("externaldhcp.vmip.retrieval.interval", 4)  # below the first early try: every try counts
        nic = waiting_nic()
        fake.failing["read_addresses"] = EndpointUnreachable("It does not answer.")

        run_pass(now + MINUTE)

        row = IpFetch.objects.get(nic=nic)
        assert (row.retries_left, row.tries, row.last_outcome) == (10, 0, Outcome.HOST_UNREACHABLE)
        assert "check_endpoint" in row.explanation

    def test_in_exact_mode_it_does(self, fake, now):
        exact_mode()
        nic = waiting_nic()
        fake.failing["read_addresses"] = EndpointUnreachable("It does not answer.")
        run_pass(now + 4 * MINUTE)
        assert IpFetch.objects.get(nic=nic).retries_left == 9

    def test_a_nic_not_reached_before_the_deadline_gets_its_try_back(self, fake, now, monkeypatch):
        set_to("externaldhcp.vmip.retrieval.interval", 4)
        waiting_nic()
        monkeypatch.setattr(FakeHypervisor, "read_addresses", lambda *args, **kwargs: iter(()))

        run_pass(now + MINUTE)

        row = IpFetch.objects.get()
        assert (row.retries_left, row.tries, row.claimed_until) == (10, 0, None)

    def test_one_guests_problem_is_its_own(self, fake, now):
        nic = waiting_nic()
        other = make_running_vm(networks=[nic.network], host=nic.vm.host).nics.get()
        planner.enter_missing(Pace.now(), now)
        fake.readings[str(nic.vm.uuid)] = Reading(problem=ReadOutcome.AGENT_SILENT)
        fake.answers(other.vm.on_host, address(other, "192.0.2.121"))

        run_pass(now + MINUTE)

        other.refresh_from_db()
        assert other.ip4_address == "192.0.2.121"
        assert IpFetch.objects.get(nic=nic).last_outcome == Outcome.AGENT_SILENT

    @beside_transactions
    def test_a_person_who_asks_an_unreachable_host_changes_nothing(self, fake, now):
        set_to("externaldhcp.vmip.retrieval.interval", 4)
        waiting_nic()
        IpFetch.objects.update(retries_left=3, tries=5)
        fake.failing["read_addresses"] = EndpointUnreachable("It does not answer.")
        before = IpFetch.objects.get()

        sweep.run_now(sweep.queue(now).waiting(), now, done=lambda count: None)

        row = IpFetch.objects.get()
        assert (row.retries_left, row.tries, row.next_attempt_at) == (3, 5, before.next_attempt_at)

    @beside_transactions
    def test_a_person_who_asks_uses_up_no_early_try(self, fake, now):
        waiting_nic()
        before = IpFetch.objects.get()

        sweep.run_now(sweep.queue(now).waiting(), now, done=lambda count: None)

        row = IpFetch.objects.get()
        assert (row.tries, row.next_attempt_at, row.last_outcome) == (
            0,
            before.next_attempt_at,
            Outcome.AGENT_ABSENT,
        )

    def test_nothing_is_claimed_while_readers_are_behind(self, fake, now, monkeypatch):
        monkeypatch.setattr(planner, "MOST_WAITING_BATCHES", 1)
        for _ in range(3):
            waiting_nic()

        assert planner.plan(now + MINUTE)
        assert OrmQ.objects.count() == 1
