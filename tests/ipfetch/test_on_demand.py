"""What people ask for a NIC's search: a try now, all tries anew, a pause; and what that costs."""

from datetime import timedelta

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events.models import Event, EventType
from ipfetch import on_demand
from ipfetch.models import IpFetch, Outcome
from networks.models import AddressState, Nic, VmState
from networks.services import nics
from tests.api.client import Signer, refused
from tests.factories import make_account, make_caller, make_vm
from tests.ipfetch.passes import MINUTE, exact_mode, queued_batches, row_of, waiting_nic, whole_pass

pytestmark = pytest.mark.django_db

State = IpFetch.State


@pytest.fixture
def root():
    return make_caller(Role.ROOT_ADMIN)


@pytest.fixture
def nic():
    """It waits, and its next try is a minute away."""
    nic = waiting_nic()
    set_row(nic, next_attempt_at=timezone.now() + MINUTE, scheduled_at=timezone.now() + MINUTE, tries=5)
    return nic


def set_row(nic: Nic, **fields) -> None:
    IpFetch.objects.filter(nic=nic).update(**fields)


# A try now


def test_a_try_now_is_made_at_the_next_pass_and_costs_none(nic, root):
    whole_pass(timezone.now())
    assert queued_batches() == []

    on_demand.try_now(nic, root)
    whole_pass(timezone.now())

    row = row_of(nic)
    assert [claims for _, claims, _ in queued_batches()] == [[(row.pk, row.attempt)]]
    assert (row.tries, row.retries_left, row.claim) == (5, 10, IpFetch.Claim.PUSHED)


def test_in_exact_mode_too(nic, root):
    exact_mode()

    on_demand.try_now(nic, root)
    whole_pass(timezone.now())

    assert len(queued_batches()) == 1
    assert row_of(nic).retries_left == 10


@pytest.mark.parametrize("exact", [False, True])
def test_one_that_was_given_up_gets_all_its_tries(nic, root, exact):
    if exact:
        exact_mode()
    set_row(nic, state=State.EXHAUSTED, retries_left=0, next_attempt_at=None)

    on_demand.try_now(nic, root)
    whole_pass(timezone.now())

    row = row_of(nic)
    assert (row.state, row.retries_left, len(queued_batches())) == (State.WAITING, 10, 1)


def test_a_known_address_is_looked_at_again(nic, root):
    set_row(nic, state=State.FOUND)

    on_demand.try_now(nic, root)
    whole_pass(timezone.now())

    assert len(queued_batches()) == 1
    assert row_of(nic).state == State.FOUND


def test_in_exact_mode_a_known_address_is_not(nic, root):
    exact_mode()
    set_row(nic, state=State.FOUND)

    with pytest.raises(InvalidParameter, match="Reset the NIC's tries"):
        on_demand.try_now(nic, root)


# All tries anew


@pytest.mark.parametrize("state", [State.WAITING, State.EXHAUSTED, State.FOUND])
def test_all_tries_anew(nic, root, state):
    set_row(nic, state=state, retries_left=0, tries=14, last_outcome=Outcome.NONE_YET)
    before = row_of(nic).attempt

    row = on_demand.reset_tries(nic, root)

    assert (row.state, row.retries_left, row.tries, row.last_outcome) == (State.WAITING, 10, 0, "")
    assert row.attempt > before


def test_an_address_that_is_known_stays_while_it_is_looked_for_anew(nic, root):
    Nic.objects.filter(pk=nic.pk).update(ip4_address="192.0.2.77", address_state=AddressState.CONFIRMED)
    set_row(nic, state=State.FOUND)

    on_demand.reset_tries(nic, root)

    nic.refresh_from_db()
    assert (nic.ip4_address, nic.address_state) == ("192.0.2.77", AddressState.CONFIRMED)


def test_an_address_set_by_hand_is_not_looked_for(nic, root):
    nics.pin(nic, "192.0.2.77", root)

    with pytest.raises(InvalidParameter, match="set by hand"):
        on_demand.reset_tries(nic, root)


# A pause


def test_nobody_asks_while_it_is_paused(nic, root):
    on_demand.pause(nic, root)

    whole_pass(timezone.now() + timedelta(days=1))

    assert queued_batches() == []
    assert (row_of(nic).state, row_of(nic).next_attempt_at) == (State.PAUSED, None)


def test_an_answer_that_comes_after_the_pause_changes_nothing(nic, root):
    set_row(nic, next_attempt_at=timezone.now())
    whole_pass(timezone.now())
    (_, ((_, attempt),), _), *_ = queued_batches()

    on_demand.pause(nic, root)

    assert row_of(nic).attempt > attempt
    assert row_of(nic).claimed_until is None


def test_it_is_asked_at_once_when_it_is_resumed(nic, root):
    on_demand.pause(nic, root)
    set_row(nic, retries_left=0)

    on_demand.resume(nic, root)
    whole_pass(timezone.now())

    assert len(queued_batches()) == 1
    assert (row_of(nic).state, row_of(nic).retries_left) == (State.WAITING, 10)


def test_a_pause_twice_is_one(nic, root):
    on_demand.pause(nic, root)
    on_demand.pause(nic, root)

    assert Event.objects.filter(description__contains="paused").count() == 1


@pytest.mark.parametrize(
    ("act", "state", "says"),
    [
        (on_demand.try_now, State.PAUSED, "Resume it"),
        (on_demand.reset_tries, State.PAUSED, "Resume it"),
        (on_demand.pause, State.FOUND, "has its address"),
        (on_demand.resume, State.WAITING, "is not paused"),
    ],
)
def test_what_does_not_fit_is_refused(nic, root, act, state, says):
    set_row(nic, state=state)

    with pytest.raises(InvalidParameter, match=says):
        act(nic, root)


# By the wire


def test_who_did_it_is_in_the_events(nic):
    owner = Signer.of(nic.vm.account)

    owner.call("pauseNicAddress", nicid=nic.uuid)

    event = Event.objects.get(type=EventType.IP_FETCH)
    assert (event.username, event.resource_uuid) == (owner.user.username, nic.vm.uuid)
    assert event.description == f"NIC 0 of {nic.vm}: ip addr fetch was paused"


def test_the_answer_is_the_search_as_it_is_now(nic):
    shown = Signer.of(nic.vm.account).call("pauseNicAddress", nicid=nic.uuid).body["addressfetch"]

    assert (shown["id"], shown["state"]) == (str(nic.uuid), "paused")
    assert "nextattempt" not in shown


@pytest.mark.parametrize("command", ["fetchNicAddress", "resetNicAddressTries", "pauseNicAddress", "resumeNicAddress"])
def test_a_nic_of_a_stopped_vm_has_no_search(command):
    account = make_account()
    nic = make_vm(account, state=VmState.STOPPED).nics.get()

    reply = Signer.of(account).call(command, nicid=nic.uuid)

    refused(reply, "whose VM is Stopped")
