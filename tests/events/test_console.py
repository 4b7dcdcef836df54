"""The page of events, and a job's story."""

from datetime import timedelta

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType, Level, State
from tests.factories import make_caller, make_vm

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller():
    return make_caller()


@pytest.fixture
def signed_in(client, caller):
    client.force_login(caller.user)
    return client


def tell(caller, text="something happened", **fields) -> Event:
    return events.record(EventType.VM_START, text, account=caller.account, **fields)


def story(caller) -> list[Event]:
    first = tell(caller, "asked for", state=State.SCHEDULED)
    return [
        first,
        tell(caller, "it began", state=State.STARTED, parent=first.uuid),
        tell(caller, "it ended", state=State.COMPLETED, parent=first.uuid, for_operator="on kvm-1"),
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=web-1", True),
        ("q=web-2", False),
        ("level=ERROR", True),
        ("level=INFO", False),
        ("type=VM.START", True),
        ("type=VM.STOP", False),
        ("from=2020-01-01", True),
        ("to=2020-01-01", False),
        ("from=2020-01-01 10:00:00&to=2999-01-01", True),
        ("state=Created", True),
    ],
)
def test_filters(signed_in, caller, query, found):
    tell(caller, "web-1 started", level=Level.ERROR)
    assert (b"web-1 started" in signed_in.get(f"/events/?{query}").content) == found


@pytest.mark.parametrize("query", ["from=yesterday", "resource=web-1", "chain=x", "level=BAD", "kind=x"])
def test_a_wrong_filter_is_said_to_be_wrong(signed_in, query):
    assert signed_in.get(f"/events/?{query}").status_code == 400


def test_of_one_object(signed_in, caller):
    vm = make_vm(caller.account)
    tell(caller, "about it", on=vm)
    tell(caller, "about nothing")
    page = signed_in.get(f"/events/?resource={vm.uuid}").content
    assert b"about it" in page
    assert b"about nothing" not in page


def test_others_events_are_not_there(signed_in):
    other = make_caller()
    told = tell(other, "told to another")
    assert b"told to another" not in signed_in.get("/events/").content
    assert signed_in.get(f"/events/chain/{told.uuid}/").status_code == 404


def test_hosts_are_named_to_root_admins_only(signed_in, caller, client):
    first, *_ = story(caller)
    assert b"kvm-1" not in signed_in.get("/events/").content
    assert b"it ended" not in signed_in.get("/events/?q=kvm-1").content
    client.force_login(make_caller(Role.ROOT_ADMIN).user)
    assert b"kvm-1" in client.get(f"/events/chain/{first.uuid}/").content


def test_a_story_is_told_from_its_beginning(signed_in, caller):
    first, *_ = story(caller)
    tell(caller, "another")
    page = signed_in.get(f"/events/chain/{first.uuid}/").content.decode()
    assert page.index("asked for") < page.index("it began") < page.index("it ended")
    assert "another" not in page


def test_each_event_of_a_story_leads_to_it(signed_in, caller):
    first, *_ = story(caller)
    assert signed_in.get("/events/").content.decode().count(f"/events/chain/{first.uuid}/") == 3


def test_what_it_says_is_escaped(signed_in, caller):
    tell(caller, "<script>alert(1)</script>")
    assert b"<script>alert" not in signed_in.get("/events/").content


def test_archived_ones_are_put_away(signed_in, caller):
    tell(caller, "put away")
    Event.objects.update(archived=True)
    assert b"put away" not in signed_in.get("/events/").content


def test_what_is_new_waits_until_it_is_asked_for(signed_in, caller):
    shown = tell(caller, "shown")
    tell(caller, "just now")
    rows = signed_in.get(f"/events/?fragment=rows&shown={shown.uuid}").content.decode()
    assert "1 new: show" in rows
    assert "just now" not in rows


def test_export_has_what_the_list_shows(signed_in, caller):
    tell(caller, "web-1 started")
    lines = b"".join(signed_in.get("/events/?export=csv&q=web").streaming_content).decode().splitlines()
    assert lines[0] == "When,Level,What happened,Type,About,Account,By"
    assert "web-1 started,VM.START,no object" in lines[1]


def test_the_number_of_queries_is_fixed(signed_in, caller, django_assert_max_num_queries):
    tell(caller)
    signed_in.get("/events/")
    with django_assert_max_num_queries(12) as few:
        signed_in.get("/events/")
    for _ in range(40):
        story(caller)
    with django_assert_max_num_queries(len(few) + 1):  # that counts further than a page
        signed_in.get("/events/")


def test_the_overview_has_the_last_events(signed_in, caller):
    late = tell(caller, "too long ago to be shown")
    Event.objects.filter(pk=late.pk).update(created_at=timezone.now() - timedelta(days=1))
    for number in range(10):
        tell(caller, f"number {number}")
    page = signed_in.get("/").content.decode()
    assert "number 9" in page
    assert "too long ago" not in page
