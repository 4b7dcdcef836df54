"""API keys through the API: made anew, looked at, disabled."""

import pytest
from django.test import Client
from django.utils import timezone

from extdhcp_site.accounts.models import ApiKey, NewApiKey, User
from extdhcp_site.events.models import Event, EventType
from tests.api.client import Signer
from tests.factories import make_api_key, make_user

pytestmark = pytest.mark.django_db


def register(signer: Signer, user: User) -> Signer:
    made = signer.call("registerUserKeys", id=user.uuid).body["userkeys"]
    return Signer(user, NewApiKey(made["apikey"], made["secretkey"], made["token"]))


def test_new_keys_let_in_and_the_former_do_no_more(user):
    fresh = register(user, user.user)

    assert fresh.call("listZones").status == 200
    assert user.call("listZones").status == 401
    assert Client().get("/api/v1/vms", headers={"authorization": f"Bearer {fresh.keys.token}"}).status_code in (
        200,
        301,
    )
    assert Event.objects.get().type == EventType.API_KEY_CREATE


def test_a_secret_key_is_shown_once(user):
    fresh = register(user, user.user)

    shown = fresh.call("getUserKeys", id=user.user.uuid).body["userkeys"]

    assert shown == {"apikey": fresh.keys.api_key}
    stored = ApiKey.objects.filter(key=fresh.keys.api_key).values_list("secret", "token_hash").get()
    assert fresh.keys.secret_key not in str(stored)
    assert fresh.keys.token not in str(stored)


def test_an_admin_makes_keys_for_a_user_but_never_sees_those_there_are(admin, user):
    """CVE-2024-42062, CVE-2025-47849, CVE-2025-26521: domain admins read others' keys; here nobody does."""
    assert admin.call("getUserKeys", id=user.user.uuid).status == 431
    assert register(admin, user.user).call("listZones").status == 200
    [listed] = admin.call("listApiKeys", userid=user.user.uuid, page=1, pagesize=1).body["apikey"]
    assert len(listed["apikey"]) == 9


def test_a_disabled_user_gets_no_keys(admin, user):
    User.objects.filter(pk=user.user.pk).update(is_active=False)
    assert "disabled" in admin.call("registerUserKeys", id=user.user.uuid).text


def test_keys_are_listed_with_their_last_use(user):
    make_api_key()
    ApiKey.objects.filter(user=user.user).update(last_used_at=timezone.now())
    [key] = user.call("listApiKeys").body["apikey"]
    assert key["apikey"] == user.keys.api_key
    assert {"id", "userid", "username", "account", "domainid", "created", "lastused"} <= key.keys()
    assert "disabled" not in key


def test_a_key_is_disabled(user):
    other = Signer(user.user, make_api_key(user.user))
    key = ApiKey.objects.get(key=other.keys.api_key)

    assert "disabled" in user.call("disableApiKey", id=key.uuid).body["apikey"]

    assert other.call("listZones").status == 401
    assert user.call("listZones").status == 200


def test_a_colleagues_keys_are_not_seen(user):
    make_api_key(make_user(user.user.account))
    assert user.call("listApiKeys", listall="true").body["count"] == 1


def test_a_disabled_key_finds_nobody_and_is_not_shown_as_the_one_in_use(admin, user):
    fresh = Signer(user.user, make_api_key(user.user))
    fresh.call("disableApiKey", id=ApiKey.objects.get(key=fresh.keys.api_key).uuid)
    assert user.call("getUserKeys", id=user.user.uuid).body["userkeys"]["apikey"] == user.keys.api_key
    for caller in (user, admin):
        assert caller.call("getUser", userapikey=fresh.keys.api_key).status == 431
