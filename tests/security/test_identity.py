"""Who a request is taken for: never another, and nobody at all where what would prove it is missing."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
import requests
from django.contrib.auth.hashers import make_password
from django.test import Client
from django.urls import reverse

from extdhcp_site.accounts.models import ApiKey, ApiKeyQuerySet, Role, User, hash_token
from extdhcp_site.api import throttling
from extdhcp_site.api.signing import sign
from ipfetch.models import LeaseToken
from tests.api.client import ENDPOINT, Rest, Signer, as_cs_signs, send
from tests.factories import make_account, make_domain, make_network, make_user

PASSWORD = "a long password"


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_each_of_many_at_once_is_taken_for_themselves(live_server):
    """CVE-2026-59655, CVE-2026-61397 (CloudStack): what one request held in a shared instance leaked into another;
    here requests of many that cross each other each see their own account.
    """
    signers = [Signer.of(make_account(role, make_domain())) for role in (*Role, Role.USER, Role.USER)]

    def asks(signer: Signer) -> tuple[str, str]:
        pairs = [("command", "listUsers"), ("response", "json"), ("apiKey", signer.keys.api_key)]
        signed = {**dict(pairs), "signature": sign(signer.keys.secret_key, as_cs_signs(pairs))}
        by_signature = requests.get(f"{live_server}{ENDPOINT}", signed, timeout=60).json()
        bearer = {"Authorization": f"Bearer {signer.keys.token}"}
        by_token = requests.get(f"{live_server}/api/v1/api-keys", headers=bearer, timeout=60).json()
        [shown] = by_signature["listusersresponse"]["user"]
        return shown["username"], {key["username"] for key in by_token["results"] if "…" not in key["apikey"]}.pop()

    callers = list(itertools.islice(itertools.cycle(signers), 60))
    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(asks, callers))

    assert seen == [(signer.user.username, signer.user.username) for signer in callers]


@pytest.mark.django_db
class TestWithoutAnythingToVerifyBy:
    """CVE-2016-3085, CVE-2024-41107, CVE-2026-68745 (CloudStack): SAML was let through where there was no signature,
    or no certificate to check one by; here what cannot be verified is refused.
    """

    @pytest.mark.parametrize("signed_with", ["", "\0"])
    def test_an_api_key_without_a_secret(self, user, signed_with):
        row = ApiKey.objects.get(user=user.user)
        row.secret = ""
        row.save()
        pairs = [("command", "listZones"), ("response", "json"), ("apiKey", user.keys.api_key)]
        answer = send([*pairs, ("signature", sign(signed_with, as_cs_signs(pairs)))])
        assert answer.status_code == 401

    @pytest.mark.parametrize("token", ["", " ", "x"])
    def test_an_api_token_of_nothing(self, user, token):
        ApiKey.objects.update(token_hash=hash_token(token))
        assert Client().get("/api/v1/vms", headers={"authorization": f"Bearer {token}"}).status_code == 401
        assert Client().get("/api/v1/vms", headers={"authorization": "Bearer"}).status_code == 401

    def test_a_lease_token_of_nothing(self):
        LeaseToken.objects.create(network=make_network(), name="x", token_hash=hash_token(""))
        for header in ("Bearer ", "Bearer", ""):
            headers = {"authorization": header}
            answer = Client().post("/api/v1/leases/", "{}", content_type="application/json", headers=headers)
            assert answer.status_code == 401

    @pytest.mark.parametrize(
        "kept", ["", "!", make_password(None), make_password("")], ids=["none", "!", "no", "empty"]
    )
    def test_a_user_without_a_password(self, kept):
        """CVE-2014-7807 (CloudStack): an empty password let in."""
        user = make_user()
        User.objects.filter(pk=user.pk).update(password=kept)
        for password in ("", " ", "None", "!"):
            throttling.forget()  # what is asked here is not how often one may be wrong
            form = {"username": user.username, "password": password}
            assert Client().post("/login/", form).status_code == 200
            body = urlencode({"command": "login", "response": "json", "domain": "ROOT", **form})
            by_api = Client().post(ENDPOINT, body, content_type="application/x-www-form-urlencoded")
            # An empty one is no password at all.
            assert by_api.status_code == (401 if password else 431)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name",
    ["X-User-Id", "X-Roles", "X-Project-Id", "X-Identity-Status", "X-Remote-User", "Remote-User", "X-Auth-Token"],
)
def test_no_header_says_who_one_is(user, name):
    """OSSA-2026-001 (keystonemiddleware): forged identity headers survived; here no header but the token counts."""
    root = make_user(make_account(Role.ROOT_ADMIN), is_superuser=True, is_staff=True)
    headers = {name: root.username, name.replace("-", "_"): str(root.uuid)}
    assert Client().get("/api/v1/vms", headers=headers).status_code == 401
    assert Client().get("/admin/", headers=headers).status_code == 302
    mine = Client().get("/api/v1/hosts", headers={**headers, "authorization": f"Bearer {user.keys.token}"})
    assert mine.status_code == 404


@pytest.mark.django_db
class TestTheConsolesLogIn:
    def test_every_refusal_reads_the_same(self):
        """Who is unknown, disabled, deleted, of a shut account, or wrong: nobody learns which."""
        known = make_user()
        names = [
            known.username,
            "nobody-at-all",
            make_user(is_active=False).username,
            make_user(make_account(state="disabled")).username,
            make_user(make_account(state="locked")).username,
        ]
        pages = set()
        for name in names:
            page = Client().post("/login/", {"username": name, "password": "wrong"})
            pages.add(re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", page.text.replace(name, "NAME")))
        assert len(pages) == 1

    def test_another_sites_form_logs_nobody_in(self):
        user = make_user()
        browser = Client(enforce_csrf_checks=True)
        form = {"username": user.username, "password": PASSWORD}
        assert browser.post("/login/", form).status_code == 403
        assert "sessionid" not in browser.cookies

    def test_a_session_put_into_the_browser_before_is_not_gone_on_with(self):
        mallory, victim = Client(), Client()
        mallory.force_login(make_user())
        planted = mallory.cookies["sessionid"].value
        victim.cookies["sessionid"] = planted
        user = make_user()

        assert victim.post("/login/", {"username": user.username, "password": PASSWORD}).status_code == 302

        assert victim.cookies["sessionid"].value != planted
        assert mallory.get("/").status_code == 302

    def test_log_out_takes_a_form_of_ours(self):
        browser = Client(enforce_csrf_checks=True)
        browser.force_login(make_user())
        assert browser.get(reverse("logout")).status_code == 405
        assert browser.post(reverse("logout")).status_code == 403
        assert browser.get("/").status_code == 200


@pytest.mark.django_db
def test_who_signs_is_who_signs_whatever_session_comes_along(user, root):
    """The session's key in a signed request makes nobody the session's user, nor is the request refused for it."""
    browser = Client()
    browser.force_login(root.user)
    pairs = [("command", "listUsers"), ("response", "json"), ("sessionkey", "x"), ("apiKey", user.keys.api_key)]
    signature = sign(user.keys.secret_key, as_cs_signs(pairs))
    answer = browser.get(ENDPOINT, {**dict(pairs), "signature": signature})
    [shown] = answer.json()["listusersresponse"]["user"]
    assert shown["username"] == user.user.username


@pytest.mark.django_db
def test_a_key_in_other_letters_is_another_on_every_database(user, monkeypatch):
    """MariaDB compares without regard to case and accents."""
    exact = ApiKeyQuerySet.filter
    monkeypatch.setattr(
        ApiKeyQuerySet,
        "filter",
        lambda rows, *asked, **by: exact(
            rows, *asked, **{"key__iexact" if n == "key" else n: v for n, v in by.items()}
        ),
    )
    for key, status in ((user.keys.api_key, 200), (user.keys.api_key.swapcase(), 401)):
        pairs = [("command", "listZones"), ("response", "json"), ("apiKey", key)]
        answer = send([*pairs, ("signature", sign(user.keys.secret_key, as_cs_signs(pairs)))])
        assert answer.status_code == status


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "x" * 87, "é", "x" * 1_000_000])
def test_the_database_is_not_asked_for_what_is_no_key(key, django_assert_num_queries):
    pairs = [("command", "listZones"), ("response", "json"), ("apiKey", key), ("signature", "AAAA")]
    with django_assert_num_queries(0):
        assert send(pairs, "post").status_code == 401


@pytest.mark.django_db
def test_what_is_wrong_with_a_tokens_owner_ends_rest_at_once(user):
    rest = Rest.of(user)
    assert rest.get("vms").status_code == 200
    User.objects.filter(pk=user.user.pk).update(is_active=False)
    assert rest.get("vms").status_code == 401
