"""What the database is asked grows with the batches, not with the NICs in them."""

from datetime import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ

from extdhcp_site.events.models import Event, EventType
from ipfetch import batches, planner
from ipfetch.models import IpFetch, Observation, Outcome
from ipfetch.schedule import Pace
from networks.models import Host, Nic
from tests.factories import GIB, make_account, make_host, make_network, make_service_offering, make_template, make_vm
from tests.fakes import FakeHypervisor
from tests.ipfetch.passes import MINUTE, address, queued_batches

pytestmark = pytest.mark.django_db
FEW, MANY = 10, 100
# SQLite's long INSERTs are cut into several; a statement a NIC would be far more.
ROWS_A_STATEMENT = 20


@pytest.fixture(autouse=True)
def one_lot(monkeypatch):
    """Answers that come slowly are written in several lots: how many is a matter of time."""
    monkeypatch.setattr(batches, "_as_they_arrive", lambda answers: [list(answers)])


class Batch:
    """NICs of one host on one network, which wait."""

    def __init__(self, fake: FakeHypervisor, nics: int, now: datetime) -> None:
        self.fake, self.now = fake, now
        shared = {"account": make_account(), "template": make_template(), "service_offering": make_service_offering()}
        network = make_network(cidr="198.51.100.0/24", gateway="198.51.100.254")
        self.host: Host = make_host(memory=1024 * GIB, cpus=1024)
        for _ in range(nics):
            make_vm(state="Running", host=self.host, networks=[network], **shared)
        planner.enter_missing(Pace.now(), now)

    @property
    def nics(self) -> list[Nic]:
        return list(Nic.objects.filter(vm__host=self.host).select_related("vm"))

    def answers(self, first: int, step: int = 1) -> None:
        """The guests have addresses counted from `first`; all have the same with a step of 0."""
        for number, nic in enumerate(self.nics):
            self.fake.answers(nic.vm.on_host, address(nic, f"198.51.100.{first + step * number}"))

    def read(self, at: datetime) -> int:
        """Plan and read at a moment when all are due; how many queries the reading took."""
        OrmQ.objects.all().delete()
        planner.plan(at)
        (batch,) = queued_batches()
        with CaptureQueriesContext(connection) as captured:
            batches.read(*batch)
        return len(captured)


def found(batch: Batch) -> int:
    batch.answers(first=1)
    return batch.read(batch.now + MINUTE)


def found_again(batch: Batch) -> int:
    found(batch)
    return batch.read(batch.now + 60 * MINUTE)


def changed(batch: Batch) -> int:
    found(batch)
    batch.answers(first=120)
    return batch.read(batch.now + 60 * MINUTE)


def in_conflict(batch: Batch) -> int:
    batch.answers(first=1, step=0)
    return batch.read(batch.now + MINUTE)


def conflict_over(batch: Batch) -> int:
    in_conflict(batch)
    batch.answers(first=1)
    return batch.read(batch.now + 60 * MINUTE)


def none_yet(batch: Batch) -> int:
    for nic in batch.nics:
        batch.fake.answers(nic.vm.on_host)
    return batch.read(batch.now + MINUTE)


def no_agent(batch: Batch) -> int:
    return batch.read(batch.now + MINUTE)


def given_up(batch: Batch) -> int:
    IpFetch.objects.update(tries=100, retries_left=1)
    return batch.read(batch.now + MINUTE)


CASES = [found, found_again, changed, in_conflict, conflict_over, none_yet, no_agent, given_up]


@pytest.mark.parametrize("case", CASES)
def test_a_batch_of_many_nics_takes_as_many_queries_as_one_of_few(case, fake, now):
    few = case(Batch(fake, FEW, now))
    IpFetch.objects.update(state=IpFetch.State.PAUSED)

    many = case(Batch(fake, MANY, now))

    assert few > 0
    assert many - few <= (MANY - FEW) / ROWS_A_STATEMENT, f"{few} queries for {FEW} NICs, {many} for {MANY}"


def test_every_nic_of_a_large_batch_has_its_address_its_observation_and_its_event(fake, now):
    batch = Batch(fake, MANY, now)

    found(batch)

    expected = {(nic.pk, f"198.51.100.{number}") for number, nic in enumerate(batch.nics, start=1)}
    assert set(Nic.objects.values_list("pk", "ip4_address")) == expected
    assert set(Observation.objects.values_list("nic", "address")) == expected
    assert Observation.objects.count() == MANY
    told = Event.objects.filter(type=EventType.IP_FETCH).values_list("resource_uuid", flat=True)
    assert sorted(told) == sorted(nic.vm.uuid for nic in batch.nics)
    assert IpFetch.objects.filter(state=IpFetch.State.FOUND, last_outcome=Outcome.FOUND).count() == MANY


def test_a_pass_takes_as_many_queries_for_a_batch_of_many_as_for_one_of_few(fake, now):
    def planned(nics: int) -> int:
        IpFetch.objects.update(state=IpFetch.State.PAUSED)
        Batch(fake, nics, now)
        with CaptureQueriesContext(connection) as captured:
            planner.plan(now + MINUTE)
        return len(captured)

    assert planned(MANY) == planned(FEW)
