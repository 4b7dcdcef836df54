"""What operators are alerted of in address discovery."""

from datetime import timedelta

import pytest

from extdhcp_site.alerts import watches as alerts
from extdhcp_site.alerts.models import Alert, Kind
from extdhcp_site.events.models import Event, EventType
from ipfetch import watches
from ipfetch.models import IpFetch, Outcome
from networks.models import Endpoint
from tests.factories import make_network, make_running_vm
from tests.ipfetch.passes import waiting_nic

pytestmark = pytest.mark.django_db


def look(now) -> None:
    for watch in watches.WATCHES:
        alerts.look_at(watch, now)


def change(nic, **fields) -> None:
    IpFetch.objects.filter(nic=nic).update(**fields)


def test_many_nics_that_were_given_up_are_one_alert_a_network(now):
    network = make_network()
    for _ in range(3):
        waiting = waiting_nic()
        waiting.network = network
        waiting.save()
        change(waiting, state=IpFetch.State.EXHAUSTED)
    look(now)

    alert = Alert.objects.open().get()
    assert (alert.kind, alert.subject_name) == (Kind.ADDRESSES, network.name)
    assert alert.text.startswith("3 NICs of network")
    assert alert.link == f"/nics/?network={network.uuid}&state=exhausted"


def test_it_ends_when_the_last_has_its_address(now):
    nic = waiting_nic()
    change(nic, state=IpFetch.State.EXHAUSTED)
    look(now)
    change(nic, state=IpFetch.State.FOUND)
    look(now)
    assert not Alert.objects.open().exists()


def test_passes_that_are_late(now):
    nic = waiting_nic()
    change(nic, next_attempt_at=now - timedelta(minutes=4))
    look(now)
    assert Alert.objects.open().get().text.startswith("1 NIC waits to be asked")


def test_those_that_wait_for_a_silent_endpoint_are_not_late(now):
    nic = waiting_nic()
    change(nic, next_attempt_at=now - timedelta(minutes=4))
    Endpoint.objects.update(failures=1)
    look(now)
    assert not Alert.objects.exists()


def test_one_that_is_being_asked_is_not_late(now):
    nic = waiting_nic()
    change(nic, next_attempt_at=now - timedelta(minutes=4), claimed_until=now + timedelta(hours=1))
    look(now)
    assert not Alert.objects.exists()


def test_a_vm_that_is_down_is_told_to_its_owner_too(now):
    vm = make_running_vm()
    nic = vm.nics.get()
    IpFetch.objects.create(
        nic=nic, state=IpFetch.State.WAITING, retries_left=1, next_attempt_at=now, last_outcome=Outcome.NOT_RUNNING
    )
    look(now)

    alert = Alert.objects.open().get()
    assert (alert.kind, alert.subject_uuid, alert.account) == (Kind.VM, vm.uuid, vm.account)
    told = Event.objects.get(type=EventType.VM_ALERT)
    assert told.account == vm.account
    assert vm.host.name not in told.description
