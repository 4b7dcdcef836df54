"""Events are archived and deleted by those whom they concern, and the rest of what is asked of the log."""

from datetime import timedelta

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Role
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType, State
from tests.api.client import Reply, Signer
from tests.factories import make_account, make_domain

pytestmark = pytest.mark.django_db

both = pytest.mark.parametrize("command", ["archiveEvents", "deleteEvents"])


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account())


def record(account: Account, text: str, type: EventType = EventType.VM_START, **fields) -> Event:
    event = events.record(type, text, account=account)
    Event.objects.filter(pk=event.pk).update(**fields)
    event.refresh_from_db()
    return event


def left(signer: Signer) -> set[str]:
    """What a list still shows by default."""
    return {event["description"] for event in signer.call("listEvents", listall="true").body.get("event", [])}


@both
class TestWhich:
    @pytest.mark.parametrize(
        ("asked", "stay"),
        [
            ({"type": "VM.STOP"}, {"old", "new"}),
            ({"enddate": "2026-01-02"}, {"new", "stop"}),
            ({"startdate": "2026-01-02", "enddate": "2026-01-02 23:59:59"}, {"old", "new", "stop"}),
            ({"type": "VM.START", "enddate": "2026-01-01"}, {"new", "stop"}),
            ({"type": "NO.SUCH.TYPE"}, {"old", "new", "stop"}),
        ],
        ids=str,
    )
    def test_by_type_and_day(self, user, command, asked, stay):
        account = user.user.account
        record(account, "old", created_at="2026-01-01T23:59:59Z")
        record(account, "new")
        record(account, "stop", EventType.VM_STOP)

        reply = user.call(command, **asked)

        assert (reply.body, left(user)) == ({"success": True}, stay)

    def test_by_ids(self, user, command):
        first, second, third = (record(user.user.account, text) for text in ("first", "second", "third"))
        user.call(command, ids=f"{first.uuid},{third.uuid}")
        assert left(user) == {second.description}

    @pytest.mark.parametrize("asked", [{}, {"startdate": "2026-01-01"}], ids=str)
    def test_not_everything_by_an_omission(self, user, command, asked):
        record(user.user.account, "kept")
        reply = user.call(command, **asked)
        assert (reply.status, left(user)) == (431, {"kept"})


@both
class TestWhose:
    def put_away(self, signer: Signer, command: str, event: Event) -> Reply:
        return signer.call(command, ids=event.uuid)

    def test_another_accounts_event_is_none_and_nothing_happens(self, user, command):
        own, theirs = record(user.user.account, "own"), record(make_account(), "theirs")

        reply = user.call(command, ids=f"{own.uuid},{theirs.uuid}")

        assert (reply.status, "entity does not exist" in reply.text) == (431, True)
        assert Event.objects.filter(archived=False).count() == 2

    def test_by_type_a_user_reaches_their_own_only(self, user, command):
        record(user.user.account, "own")
        theirs = record(make_account(), "theirs")

        user.call(command, type="VM.START")

        assert list(Event.objects.filter(archived=False)) == [theirs]

    def test_a_domain_admin_reaches_the_subtree_but_no_root_admin(self, command):
        parent = make_domain()
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN, parent))
        record(make_account(domain=make_domain(parent)), "below")
        kept = {record(make_account(), "beside"), record(make_account(Role.ROOT_ADMIN, parent), "root's")}

        admin.call(command, type="VM.START")

        assert set(Event.objects.filter(archived=False)) == kept


def test_archived_events_are_shown_when_asked_for_and_are_not_deleted_with_their_type(user):
    event = record(user.user.account, "put away")
    user.call("archiveEvents", ids=event.uuid)

    user.call("deleteEvents", type="VM.START")

    [shown] = user.call("listEvents", archived="true").body["event"]
    assert (shown["id"], shown["archived"]) == (str(event.uuid), True)
    user.call("deleteEvents", ids=event.uuid)
    assert not Event.objects.exists()


class TestUnderWay:
    """`entrytime` and `duration`: what was begun in a span of seconds ago and has not ended."""

    @pytest.fixture
    def begun(self, user) -> Event:
        account = user.user.account
        ago = timezone.now() - timedelta(seconds=100)
        begun = record(account, "begun", state=State.SCHEDULED, created_at=ago)
        record(account, "goes on", state=State.STARTED, parent_uuid=begun.uuid, created_at=ago)
        ended = record(account, "ended", state=State.SCHEDULED, created_at=ago)
        record(account, "its end", state=State.COMPLETED, parent_uuid=ended.uuid, created_at=ago)
        return begun

    @pytest.mark.parametrize(
        ("entry_time", "duration", "found"), [(200, 50, ["begun"]), (200, 150, []), (90, 0, [])], ids=str
    )
    def test_it_is_found_by_its_age(self, user, begun, entry_time, duration, found):
        body = user.call("listEvents", entrytime=entry_time, duration=duration).body
        assert [event["description"] for event in body.get("event", [])] == found

    @pytest.mark.parametrize("asked", [{"entrytime": 5}, {"duration": 5}, {"entrytime": 5, "duration": 5}], ids=str)
    def test_a_span_has_two_ends(self, user, asked):
        assert user.call("listEvents", **asked).status == 431


def test_every_type_is_listed(user):
    body = user.call("listEventTypes").body
    assert [shown["name"] for shown in body["eventtype"]] == sorted(EventType.values)
    assert {"name": "EXTERNAL.DHCP.VM.IP.FETCH"} in body["eventtype"]


def test_types_are_found_by_keyword(user):
    body = user.call("listEventTypes", keyword="ip.fetch").body
    assert body == {"count": 1, "eventtype": [{"name": "EXTERNAL.DHCP.VM.IP.FETCH"}]}
