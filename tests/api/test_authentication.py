"""Who gets in, and that everybody else hears the same."""

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from extdhcp_site.accounts.models import Account, ApiKey, User
from extdhcp_site.api import signing, throttling
from tests.api.client import ENDPOINT, Signer, as_cs_signs, reply_of, send
from tests.factories import make_api_key

pytestmark = pytest.mark.django_db

LIST = [("command", "listApis"), ("response", "json")]


def signed(keys, pairs, **changes):
    signature = signing.sign(keys.secret_key, as_cs_signs([*pairs, ("apiKey", keys.api_key)]))
    given = {"apiKey": keys.api_key, "signature": signature, **changes}
    return [*pairs, *((name, value) for name, value in given.items() if value is not None)]


def _disable_key(signer: Signer) -> None:
    ApiKey.objects.update(disabled_at=timezone.now())


def _disable_user(signer: Signer) -> None:
    User.objects.filter(pk=signer.user.pk).update(is_active=False)


def _disable_account(signer: Signer) -> None:
    Account.objects.filter(pk=signer.user.account_id).update(state=Account.State.DISABLED)


@pytest.mark.parametrize("disable", [_disable_key, _disable_user, _disable_account])
def test_who_is_disabled_is_out_at_once(user, disable):
    """A key that was disabled, or whose user or account was."""
    assert user.call("listApis").status == 200
    disable(user)
    assert user.call("listApis").status == 401


def test_every_refusal_reads_the_same(user):
    """libcloud takes 401, and only that, for wrong credentials."""
    keys, others = user.keys, make_api_key()
    later = (timezone.now() - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S+0000")
    requests = {
        "no key at all": LIST,
        "no signature": signed(keys, LIST, signature=None),
        "empty signature": signed(keys, LIST, signature=""),
        "wrong signature": signed(keys, LIST, signature="AAAA"),
        "no key but a signature": signed(keys, LIST, apiKey=None),
        "unknown key": signed(keys, LIST, apiKey="x" * 86),
        "empty key": signed(keys, LIST, apiKey=""),
        "endless key": signed(keys, LIST, apiKey="x" * 100_000),
        "key in other letters": signed(keys, LIST, apiKey="é"),
        "key in another case": signed(keys, LIST, apiKey=keys.api_key.swapcase()),
        "another's key": signed(keys, LIST, apiKey=others.api_key),
        "another's signature": signed(keys, LIST, signature=dict(signed(others, LIST))["signature"]),
        "one parameter more": [*signed(keys, LIST), ("name", "x")],
        "one parameter changed": [("command", "listEvents"), ("response", "json"), *signed(keys, LIST)[2:]],
        "expired": signed(keys, [*LIST, ("signatureVersion", "3"), ("expires", later)]),
        "version 3 without expires": signed(keys, [*LIST, ("signatureVersion", "3")]),
        "a bearer token as key": signed(keys, LIST, apiKey=keys.token),
    }
    replies = {name: reply_of(send(pairs, "post")) for name, pairs in requests.items()}

    bodies = {json.dumps(reply.body) for reply in replies.values()}
    assert {name: reply.status for name, reply in replies.items()} == dict.fromkeys(requests, 401)
    assert bodies == {
        '{"uuidList": [], "errorcode": 401, "errortext": "unable to verify user credentials and/or request signature"}'
    }


@pytest.mark.parametrize("name", ["apikey[]", "apikey[0].x"])
def test_a_key_in_another_shape_is_no_key(user, name):
    assert reply_of(send([*LIST, (name, user.keys.api_key), ("signature", "x")])).status == 401


def test_the_same_work_is_done_for_a_key_that_does_not_exist(user, monkeypatch):
    """Nor does the time tell which keys there are."""
    signed_with = []
    monkeypatch.setattr(signing, "sign", lambda secret, text: signed_with.append(secret) or "x")
    send(signed(user.keys, LIST))
    known = len(signed_with)
    signed_with.clear()
    send(signed(user.keys, LIST, apiKey="x" * 86))
    assert len(signed_with) == known > 0


def test_a_flood_without_keys_is_refused_before_the_work(user, monkeypatch, settings):
    first, second = (signed(user.keys, LIST, apiKey=letter * 86) for letter in "xy")
    signed_with = []
    monkeypatch.setattr(signing, "sign", lambda secret, text: signed_with.append(secret) or "x")
    monkeypatch.setattr(throttling.wrong_signatures, "peer", 1)
    settings.WEB_PROCESSES = 1
    assert reply_of(send(first)).status == 401
    done = len(signed_with)
    assert reply_of(send(second)).status == 429
    assert len(signed_with) == done > 0


def test_a_request_that_all_spell_alike_is_signed_once(user, monkeypatch):
    """A megabyte of user data is not signed twelve times over."""
    request = signed(user.keys, LIST)
    signed_with = []
    monkeypatch.setattr(signing, "sign", lambda secret, text: signed_with.append(text) or "x")
    send(request)
    assert len(signed_with) == 1


def test_get_and_post_are_alike(user):
    """The Go SDK posts a form for all that changes something, libcloud and cmk know GET only."""
    assert user.call("listApis").body == user.call("listApis", method="post").body


def test_a_request_is_good_until_it_expires(user):
    soon = (timezone.now() + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%S")
    for spelt in (f"{soon}+0000", f"{soon}Z"):
        assert user.call("listApis", signatureVersion="3", expires=spelt).status == 200


def test_when_a_key_was_used_is_noted_once_a_minute(user):
    user.call("listApis")
    noted = ApiKey.objects.get(user=user.user).last_used_at
    user.call("listApis")
    assert ApiKey.objects.get(user=user.user).last_used_at == noted

    ApiKey.objects.update(last_used_at=noted - timedelta(minutes=2))
    user.call("listApis")
    assert ApiKey.objects.get(user=user.user).last_used_at > noted - timedelta(minutes=2)


def test_a_refused_request_is_not_a_use(user):
    send(signed(user.keys, LIST, signature="AAAA"))
    assert ApiKey.objects.get(user=user.user).last_used_at is None


def test_one_query_lets_a_caller_in(user, django_assert_num_queries):
    user.call("listApis")
    with django_assert_num_queries(1):
        user.call("listApis")


def test_a_browsers_session_is_no_way_in(user):
    """CVE-2024-45693: the signed API takes no cookie, so a foreign page cannot use one."""
    browser = Client()
    browser.force_login(user.user)
    assert browser.get(ENDPOINT, dict(LIST)).status_code == 401
