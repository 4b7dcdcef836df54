"""Clients that wait for news: what they are told, what they are not, and what it costs meanwhile."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from extdhcp_site.accounts.models import Account, ApiKey, Role, User
from extdhcp_site.api import live
from extdhcp_site.events import models as events
from extdhcp_site.events import stream
from extdhcp_site.events.models import Event, EventType
from networks.models import AddressState, Nic
from tests.api.client import Signer
from tests.factories import make_account, make_domain, make_l2_network, make_vm

# Another thread must see what was written.
pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

STREAM = "/api/v1/events/stream"
OPENING = stream.COME_AGAIN


@pytest.fixture(autouse=True)
def nobody_stays(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(live, "ASKED_EVERY", 0.05)
    yield
    for waiter in list(live.room._inside):
        waiter.leave()
    if thread := live.room._thread:
        thread.join(5)
    assert live.room._thread is None


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account(domain=make_domain()))


@pytest.fixture
def nic(user) -> Nic:
    return make_vm(user.user.account).nics.get()


def get(signer: Signer, path: str, **headers: str):
    return Client().get(path, headers={"authorization": f"Bearer {signer.keys.token}", **headers})


def listen(signer: Signer, **headers: str) -> Iterator[bytes]:
    response = get(signer, STREAM, **headers)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream")
    return iter(response.streaming_content)


def record(account: Account, text: str) -> Event:
    return events.record(EventType.VM_START, text, account=account)


def told(chunk: bytes) -> list[str]:
    """The descriptions of the events in a piece of a stream."""
    return [json.loads(line[6:])["description"] for line in chunk.splitlines() if line.startswith(b"data: ")]


def told_until_the_end(listening: Iterator[bytes]) -> list[str]:
    """What still comes of a stream that ends; one that goes on fails."""
    give_up, rest = time.monotonic() + 3, b""
    for chunk in listening:
        rest += chunk
        assert time.monotonic() < give_up, f"It goes on: {rest!r}"
    return told(rest)


class TestStream:
    def test_it_tells_what_happens_as_the_event_itself_is_shown(self, user):
        listening = listen(user)
        assert next(listening) == OPENING
        event = record(user.user.account, "it started")

        kind, identifier, data = next(listening).decode().strip().split("\n")

        assert (kind, identifier) == ("event: changed", f"id: {event.uuid}")
        assert json.loads(data.removeprefix("data: ")) == get(user, f"/api/v1/events/{event.uuid}").json()

    def test_what_happened_before_is_no_news(self, user):
        record(user.user.account, "before")
        listening = listen(user)
        next(listening)
        record(user.user.account, "now")
        assert told(next(listening)) == ["now"]

    @pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
    def test_others_events_are_not_told(self, role):
        domain = make_domain()
        signer = Signer.of(make_account(role, domain))
        others = [make_account(), make_account(domain=make_domain()), make_account(Role.ROOT_ADMIN, domain)]
        listening = listen(signer)
        next(listening)
        for account in [*others, signer.user.account, *others]:
            record(account, "own" if account == signer.user.account else "theirs")

        assert told(next(listening)) == ["own"]

    def test_of_those_who_listen_together_each_is_told_their_own(self, user):
        """One look asks for all of them at once."""
        signers = [user, Signer.of(make_account()), Signer.of(make_account(Role.DOMAIN_ADMIN, make_domain()))]
        listening = [listen(signer) for signer in signers]
        for each in listening:
            next(each)
        for signer in signers:
            record(signer.user.account, f"of {signer.user.username}")

        for signer, each in zip(signers, listening, strict=True):
            assert told(next(each)) == [f"of {signer.user.username}"]

    def test_only_root_admins_are_told_what_is_for_operators(self, user):
        root = Signer.of(make_account(Role.ROOT_ADMIN))
        both = listen(user), listen(root)
        for listening in both:
            next(listening)
        events.record(EventType.VM_START, "No room.", account=user.user.account, for_operator="Host h1 is full.")

        assert [told(next(listening)) for listening in both] == [["No room."], ["No room. Host h1 is full."]]

    def test_a_number_that_appears_late_is_not_left_out(self, user):
        """Two transactions: the one that took its number first may end last."""
        late, _ = record(user.user.account, "late"), record(user.user.account, "early")
        Event.objects.filter(pk=late.pk).delete()
        listening = listen(user)
        next(listening)
        late.save(force_insert=True)

        assert told(next(listening)) == ["late"]
        record(user.user.account, "next")
        assert told(next(listening)) == ["next"]

    def test_who_comes_again_is_told_what_was_missed(self, user):
        last = record(user.user.account, "seen")
        record(user.user.account, "missed")
        listening = listen(user, last_event_id=str(last.uuid))
        assert next(listening) == OPENING
        assert told(next(listening)) == ["missed"]

    def test_much_that_was_missed_comes_in_portions(self, user, monkeypatch):
        monkeypatch.setattr(stream, "TOLD_AT_ONCE", 3)
        monkeypatch.setattr(stream, "LATE", 2)
        last = record(user.user.account, "seen")
        missed = [record(user.user.account, f"{number}").description for number in range(12)]
        listening = listen(user, last_event_id=str(last.uuid))
        next(listening)

        got: list[str] = []
        while len(got) < len(missed):
            got += told(next(listening))
        assert got == missed

    @pytest.mark.parametrize("whose", ["nobody's", "another's", "no uuid"])
    def test_who_asks_to_go_on_from_what_is_not_there_is_told_so(self, user, whose):
        last = {
            "nobody's": str(uuid4()),
            "another's": str(record(make_account(), "theirs").uuid),
            "no uuid": "7",
        }[whose]
        assert next(listen(user, last_event_id=last)) == OPENING + stream.MISSED

    def test_silence_is_broken_by_a_comment(self, user, monkeypatch):
        monkeypatch.setattr(stream, "SILENT_FOR", 0.1)
        listening = listen(user)
        next(listening)
        assert next(listening) == b":\n\n"

    def test_it_is_for_get_alone(self, user):
        assert Client().head(STREAM, headers={"authorization": f"Bearer {user.keys.token}"}).status_code == 405

    def test_nobody_listens_without_a_key(self):
        assert Client().get(STREAM).status_code == 401

    def test_whatever_is_accepted_it_is_the_stream(self, user):
        response = get(user, STREAM, accept="text/event-stream")
        assert response.status_code == 200
        response.close()


def disable_key(user: User) -> None:
    ApiKey.objects.update(disabled_at=timezone.now())


def disable_account(user: User) -> None:
    Account.objects.filter(pk=user.account_id).update(state=Account.State.DISABLED)


def disable_user(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def give_another_role(user: User) -> None:
    Account.objects.filter(pk=user.account_id).update(role=Role.DOMAIN_ADMIN)


class TestWhoMayNotAnyLonger:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch):
        monkeypatch.setattr(stream, "SILENT_FOR", 0.5)

    @pytest.mark.parametrize("change", [disable_key, disable_account, disable_user, give_another_role])
    def test_their_stream_ends_within_seconds(self, user, change):
        listening = listen(user)
        next(listening)
        change(user.user)
        record(user.user.account, "not for them")

        assert told_until_the_end(listening) == []

    def test_also_when_there_is_news_that_they_have_not_read(self, user, monkeypatch):
        monkeypatch.setattr(live.room, "ask_for_all", lambda: None)
        listening = listen(user)
        next(listening)
        [waiter] = live.room._inside
        waiter.tell([record(user.user.account, "while they were allowed")])
        disable_key(user.user)

        live._ask([waiter])

        assert told_until_the_end(listening) == ["while they were allowed"]

    @pytest.mark.parametrize("how", ["log-out", "expired", "password", "disabled"])
    def test_a_log_ins_stream_ends_with_it(self, user, how):
        client = Client()
        client.force_login(user.user)
        listening = iter(client.get(STREAM).streaming_content)
        next(listening)
        record(user.user.account, "while logged in")
        assert told(next(listening)) == ["while logged in"]

        if how == "log-out":
            client.logout()
        elif how == "expired":
            Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
        elif how == "password":
            user.user.set_password("another long password")
            user.user.save()
        else:
            disable_user(user.user)

        assert told_until_the_end(listening) == []

    def test_nor_are_they_told_an_address(self, user, nic):
        timer = threading.Timer(0.2, disable_key, [user.user])
        timer.start()
        assert get(user, f"/api/v1/nics/{nic.uuid}/address?wait=10").status_code == 401
        timer.join()


class TestAddress:
    def ask(self, signer: Signer, nic: Nic, wait: object = 0):
        return get(signer, f"/api/v1/nics/{nic.uuid}/address?wait={wait}")

    @staticmethod
    def learn(nic: Nic, **fields) -> None:
        fields = {"ip4_address": "192.0.2.7", "address_state": AddressState.CONFIRMED, **fields}
        Nic.objects.filter(pk=nic.pk).update(**fields)

    def test_one_that_is_known_is_told_at_once(self, user, nic):
        self.learn(nic)
        reply = self.ask(user, nic, 60)
        assert (reply.status_code, reply.json()["ipaddress"], reply.json()["id"]) == (200, "192.0.2.7", str(nic.uuid))

    def test_one_that_is_not_known_is_no_content(self, user, nic):
        reply = self.ask(user, nic)
        assert (reply.status_code, reply.content) == (204, b"")

    def test_one_that_is_learned_meanwhile_is_told_soon(self, user, nic):
        timer = threading.Timer(0.2, self.learn, [nic])
        timer.start()
        begun = time.monotonic()
        reply = self.ask(user, nic, 30)
        assert (reply.status_code, reply.json()["ipaddress"]) == (200, "192.0.2.7")
        assert time.monotonic() - begun < 5
        timer.join()

    def test_it_is_told_without_asking_the_database_again(self, user, nic):
        timer = threading.Timer(0.2, self.learn, [nic])
        timer.start()
        assert self.ask(user, nic, 30).status_code == 200
        assert connection.connection is None
        timer.join()

    def test_the_wait_ends(self, user, nic):
        begun = time.monotonic()
        assert self.ask(user, nic, 1).status_code == 204
        assert 0.9 < time.monotonic() - begun < 5

    def test_what_a_stopped_vm_had_is_not_told(self, user, nic):
        self.learn(nic, address_state=AddressState.LAST_KNOWN)
        assert self.ask(user, nic).status_code == 204

    def test_an_ipv6_address_is_not_enough_where_dhcp_gives_ipv4(self, user, nic):
        self.learn(nic, ip4_address=None, ip6_address="2001:db8::7")
        assert self.ask(user, nic).status_code == 204

    def test_where_there_is_no_ipv4_subnet_it_is(self, user):
        nic = make_vm(user.user.account, [make_l2_network()]).nics.get()
        self.learn(nic, ip4_address=None, ip6_address="2001:db8::7")
        assert self.ask(user, nic).json()["ip6address"] == "2001:db8::7"

    def test_anothers_nic_is_no_nic(self, user):
        theirs = make_vm().nics.get()
        self.learn(theirs)
        known, none = self.ask(user, theirs, 5), self.ask(user, Nic(uuid=uuid4()), 5)
        assert (known.status_code, known.content) == (none.status_code, none.content)
        assert known.status_code == 404

    @pytest.mark.parametrize("wait", ["-1", "121", "x", "", "1.5", "²"])
    def test_a_bad_wait_is_refused(self, user, nic, wait):
        assert self.ask(user, nic, wait).status_code == 400


class TestCost:
    def test_who_waits_holds_no_connection(self, user):
        listening = listen(user)
        next(listening)
        record(user.user.account, "news")
        assert connection.connection is not None
        assert told(next(listening)) == ["news"]
        # It was this thread that waited, and what it was told it was told without asking.
        assert connection.connection is None

    def test_too_many_are_refused_until_one_leaves(self, user, settings):
        settings.LIVE_CLIENTS = 4
        first, _ = get(user, STREAM), get(user, STREAM)
        refused = get(user, STREAM)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")

        first.close()

        assert get(user, STREAM).status_code == 200

    def test_one_account_leaves_room_for_others(self, user, settings):
        settings.LIVE_CLIENTS = 5
        responses = [get(user, STREAM).status_code for _ in range(5)]
        assert responses == [200] * 3 + [503] * 2
        assert get(Signer.of(make_account()), STREAM).status_code == 200

    def test_nobody_enters_a_full_room(self, user, settings):
        settings.LIVE_CLIENTS = 1
        assert get(user, STREAM).status_code == 200
        assert get(Signer.of(make_account()), STREAM).status_code == 503

    def test_who_waits_for_an_address_counts_as_well(self, user, nic, settings):
        settings.LIVE_CLIENTS = 1
        get(user, STREAM)
        assert get(user, f"/api/v1/nics/{nic.uuid}/address").status_code == 204
        assert get(user, f"/api/v1/nics/{nic.uuid}/address?wait=5").status_code == 503

    def test_whoever_waited_leaves(self, user, nic, settings):
        settings.LIVE_CLIENTS = 1
        for _ in range(2):
            assert get(user, f"/api/v1/nics/{nic.uuid}/address?wait=1").status_code == 204

    def test_who_does_not_read_is_hung_up_on(self, user, monkeypatch):
        monkeypatch.setattr(live, "SENT_WITHIN", 0.2)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            Client().get(STREAM, headers={"authorization": f"Bearer {user.keys.token}"}, **{"gunicorn.socket": ours})
            with pytest.raises(TimeoutError):
                ours.sendall(b"news" * 10**6)

    def test_nobody_asks_while_nobody_waits(self, user):
        response = get(user, STREAM)
        listening = iter(response.streaming_content)
        next(listening)
        assert live.room._thread is None
        record(user.user.account, "news")
        next(listening)
        thread = live.room._thread
        assert thread

        response.close()

        thread.join(3)
        assert not thread.is_alive()

    def test_a_question_costs_the_same_however_many_listen(self, user):
        def queries(listeners: int) -> int:
            responses = [get(user, STREAM) for _ in range(listeners)]
            waiters = list(live.room._inside)
            record(user.user.account, "news")
            with CaptureQueriesContext(connection) as caught:
                live._ask(waiters)
            assert all(not waiter.has_read_all for waiter in waiters)
            for response in responses:
                response.close()
            return len(caught)

        assert queries(2) == queries(20) == 3  # the keys, the numbers, one account's news

    def test_a_question_that_fails_is_asked_again(self, user, monkeypatch):
        allowed, failures = live.holders, []

        def holders(tickets):
            if not failures:
                failures.append("once")
                raise OSError("the database is away")
            return allowed(tickets)

        monkeypatch.setattr(live, "holders", holders)
        listening = listen(user)
        next(listening)
        record(user.user.account, "news")
        assert told(next(listening)) == ["news"]
