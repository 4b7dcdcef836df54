"""Exact mode is the loop of the external DHCP/DNS specification and nothing else: sentence by sentence.

Its sections are "Workflow for the VM DHCP ip address", "Fetching VM ip address and Updating CS DB", "Configuration
values" and "polling in cluster of management servers".
"""

import threading
from datetime import timedelta

import pytest
from django_q.models import OrmQ

from extdhcp_site.configuration.models import definitions
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.locks import models as locks
from ipfetch import batches, planner
from ipfetch.batches import _Slots
from ipfetch.models import IpFetch
from networks.hypervisors.base import EndpointUnreachable, Reading
from networks.models import Endpoint, VirtualMachine
from networks.services import vms
from tests.factories import make_caller, make_running_vm
from tests.ipfetch.passes import MINUTE, address, exact_mode, row_of, run_pass, set_to, waiting_nic, whole_pass

pytestmark = pytest.mark.django_db
INTERVAL = 3 * MINUTE
State = IpFetch.State


@pytest.fixture(autouse=True)
def exactly():
    set_to("externaldhcp.vmip.early.retry", "false")


class TestConfigurationValues:
    """ "Configuration values"."""

    def test_the_defaults_are_180_seconds_10_tries_and_10_threads(self):
        defaults = {definition.name: definition.default for definition in definitions()}
        assert defaults["externaldhcp.vmip.retrieval.interval"] == "180"
        assert defaults["externaldhcp.vmip.max.retry"] == "10"
        assert defaults["externaldhcp.vmipFetch.threadPool.max"] == "10"

    def test_a_try_comes_at_each_interval_and_not_before(self, fake, now):
        nic = waiting_nic()
        first = row_of(nic).next_attempt_at
        run_pass(first - timedelta(seconds=1))
        assert fake.calls.count("read_addresses") == 0
        run_pass(first)
        run_pass(first + INTERVAL - timedelta(seconds=1))
        assert fake.calls.count("read_addresses") == 1
        run_pass(first + INTERVAL)
        assert fake.calls.count("read_addresses") == 2


class TestTheMap:
    """ "Fetching VM ip address and Updating CS DB": what enters, what leaves."""

    def test_at_the_start_of_the_server_it_has_the_nics_of_running_vms(self, now):
        nic = make_running_vm().nics.get()
        whole_pass(now)
        assert (row_of(nic).state, row_of(nic).retries_left) == (State.WAITING, 10)

    def test_on_stop_the_vms_nics_are_deleted_from_it_and_on_start_added(self, fake, now):
        nic, caller = waiting_nic(), make_caller()
        jobs.run(vms.stop(nic.vm, caller).pk, 1)
        assert not IpFetch.objects.exists()
        jobs.run(vms.start(VirtualMachine.objects.get(pk=nic.vm_id), caller).pk, 1)
        assert row_of(nic).retries_left == 10

    def test_a_failed_command_decrements_the_count(self, fake, now):
        nic = waiting_nic()
        for number in range(1, 4):
            run_pass(now + number * INTERVAL + MINUTE)
        assert row_of(nic).retries_left == 7

    def test_a_host_that_does_not_answer_is_a_failed_command_too(self, fake, now):
        nic = waiting_nic()
        fake.failing["read_addresses"] = EndpointUnreachable("It does not answer.")
        for number in range(1, 4):
            run_pass(now + number * INTERVAL + MINUTE)
        assert row_of(nic).retries_left == 7

    def test_once_the_count_is_zero_it_is_tried_no_more(self, fake, now):
        exact_mode(retries=2)
        nic = waiting_nic()
        for number in range(1, 6):
            run_pass(now + number * INTERVAL + MINUTE)
        assert (row_of(nic).state, fake.calls.count("read_addresses")) == (State.EXHAUSTED, 2)

    def test_a_nic_whose_address_was_got_is_tried_no_more(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        for number in range(1, 4):
            run_pass(now + number * INTERVAL + MINUTE)
        assert fake.calls.count("read_addresses") == 1

    def test_nothing_brings_a_nic_back_that_was_given_up(self, fake, now):
        exact_mode(retries=1)
        nic = waiting_nic()
        run_pass(now + INTERVAL + MINUTE)
        Endpoint.objects.update(up_since=now + 2 * INTERVAL)
        planner.nudge([str(nic.vm.uuid)], now + 2 * INTERVAL, eager=True)
        run_pass(now + 100 * INTERVAL)
        assert row_of(nic).state == State.EXHAUSTED


class TestTheAddress:
    """ "Workflow for the VM DHCP ip address"."""

    def test_it_is_updated_in_the_nics_table(self, fake, now):
        nic = waiting_nic()
        fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
        run_pass(now + INTERVAL + MINUTE)
        nic.refresh_from_db()
        assert nic.ip4_address == "192.0.2.120"

    def test_an_event_is_generated_for_it(self, fake, now):
        self.test_it_is_updated_in_the_nics_table(fake, now)
        assert Event.objects.get(type=EventType.IP_FETCH).level == "INFO"

    def test_without_one_the_column_is_null(self, fake, now):
        nic = waiting_nic()
        fake.readings[str(nic.vm.uuid)] = Reading()
        run_pass(now + INTERVAL + MINUTE)
        nic.refresh_from_db()
        assert nic.ip4_address is None

    def test_before_the_vm_runs_nothing_is_asked(self, fake, now):
        nic = waiting_nic()
        VirtualMachine.objects.update(state="Starting")
        run_pass(now + INTERVAL + MINUTE)
        assert (fake.calls, row_of(nic).retries_left) == ([], 10)


class TestOnePolls:
    """ "polling in cluster of management servers"."""

    def test_the_global_lock_selects_it(self, fake, now):
        nic = waiting_nic()
        IpFetch.objects.update(next_attempt_at=now, scheduled_at=now)
        other = locks.acquire(planner.LOCK, "another server")
        planner.run_pass()
        assert row_of(nic).retries_left == 10
        other.release()
        planner.run_pass()
        assert row_of(nic).retries_left == 9


class TestThreads:
    """ "The thread pool default maximum size is 10, it can be configurable from the global settings."."""

    def test_no_more_guests_are_asked_at_a_time_than_the_setting_says(self):
        slots, limit = _Slots(), 5
        lock, asked, most, done = threading.Lock(), [0], [0], threading.Barrier(9)

        def batch() -> None:
            taken = slots.take(batches.AT_ONE_HOST, limit)
            with lock:
                asked[0] += taken
                most[0] = max(most[0], asked[0])
            threading.Event().wait(0.01)
            with lock:
                asked[0] -= taken
            slots.give_back(taken)
            done.wait(30)

        for _ in range(8):
            threading.Thread(target=batch, daemon=True).start()
        done.wait(30)
        assert 0 < most[0] <= limit

    def test_a_batch_takes_what_is_free_of_what_it_wants(self):
        slots = _Slots()
        assert [slots.take(3, 4), slots.take(3, 4)] == [3, 1]

    def test_the_setting_is_read_at_each_batch(self, fake, now, monkeypatch):
        limits = []
        monkeypatch.setattr(batches._slots, "take", lambda most, limit: limits.append(limit) or 0)
        monkeypatch.setattr(batches.threading.Thread, "start", lambda self: None)
        batches.read_batches((1, [], 3))
        set_to("externaldhcp.vmipFetch.threadPool.max", 25)
        batches.read_batches((1, [], 3))
        assert limits == [10, 25]
        assert not OrmQ.objects.exists()
