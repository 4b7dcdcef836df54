"""Many rows at a time: the same rows and the same queries as Django's own ways give."""

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from django.forms import model_to_dict

from extdhcp_site.bulk import Keys, insert_all
from extdhcp_site.events.models import Event, EventType
from ipfetch.models import Observation
from networks.models import Nic, VirtualMachine
from tests.factories import make_account, make_network, make_vm

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def columns(row):
    return model_to_dict(row, exclude=["id", "uuid"]) | {"uuid": None}


def make_observation(nic: Nic, address: str, **fields) -> Observation:
    family = ip_address(address).version
    return Observation(
        nic=nic, address=address, family=family, source="agent", confidence="confirmed", first_seen_at=NOON,
        last_seen_at=NOON, **fields,
    )  # fmt: skip


def test_inserted_rows_are_those_that_bulk_create_makes():
    nic = make_vm(networks=[make_network()]).nics.get()
    addresses = {"192.0.2.1": {"prefix": 24}, "2001:db8::1": {"expires_at": NOON}, "192.0.2.2": {"flag": "outside"}}

    insert_all([make_observation(nic, address, **fields) for address, fields in addresses.items()])
    inserted = [columns(row) for row in Observation.objects.order_by("pk")]
    Observation.objects.all().delete()
    Observation.objects.bulk_create(make_observation(nic, address, **fields) for address, fields in addresses.items())

    assert inserted == [columns(row) for row in Observation.objects.order_by("pk")]


def test_each_inserted_row_has_an_identity_of_its_own_and_any_text():
    account = make_account()
    texts = ['it\'s 100 % \\ "odd"', "naïve €", ""]

    insert_all([Event(type=EventType.IP_FETCH, account=account, description=text, created_at=NOON) for text in texts])

    events = list(Event.objects.order_by("pk"))
    assert [(event.description, event.created_at, event.archived) for event in events] == [
        (text, NOON, False) for text in texts
    ]
    assert len({event.uuid for event in events}) == len(texts)


def test_nothing_is_inserted_by_no_statement(django_assert_num_queries):
    with django_assert_num_queries(0):
        insert_all([])


def test_among_finds_rows_by_their_own_and_by_others_keys():
    some, other = make_vm(networks=[make_network()]), make_vm(networks=[make_network()])

    assert VirtualMachine.objects.get(pk__among=Keys([some.pk])) == some
    assert VirtualMachine.objects.exclude(pk__among=Keys([some.pk])).get() == other
    assert Nic.objects.get(vm__among=Keys({other.pk: "a dict has keys"})).vm == other
    assert VirtualMachine.objects.filter(pk__among=Keys([some.pk])).update(name="renamed") == 1


def test_among_none_finds_nothing(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert not list(VirtualMachine.objects.filter(pk__among=Keys([])))


def test_keys_are_whole_numbers():
    with pytest.raises(ValueError, match="invalid literal"):
        Keys(["1) OR (1=1"])
