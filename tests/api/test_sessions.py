"""Log-in by password on /client/api: who gets a session, what it is good for, and when it ends."""

import json
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Domain, Role, User
from extdhcp_site.api import sessions, throttling
from extdhcp_site.events.models import Event, EventType
from networks.models import SshKeyPair
from tests.api.client import ENDPOINT, reply_of
from tests.factories import make_account, make_domain, make_user

pytestmark = pytest.mark.django_db

PASSWORD = "a long password"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def person(db) -> User:
    return make_user(make_account(domain=make_domain(name="sales"), name="ann"), username="ann", first_name="Ann")


class Browser:
    """Logs in and calls as a browser does: cookies go along by themselves."""

    def __init__(self, client: Client | None = None) -> None:
        self.client, self.key = client or Client(), ""

    def log_in(self, username="ann", password=PASSWORD, domain: str | None = "sales", headers=None, **params):
        given = {"command": "login", "username": username, "password": password, "response": "json", **params}
        if domain is not None:
            given["domain"] = domain
        response = self.client.post(ENDPOINT, urlencode(given), content_type=FORM, headers=headers)
        if response.status_code == 200:
            self.key = response.json()["loginresponse"]["sessionkey"]
        return response

    def call(self, command="listZones", method="get", headers=None, **params):
        given = {"command": command, "response": "json", "sessionkey": self.key, **params}
        given = {name: value for name, value in given.items() if value is not None}
        if method == "get":
            return reply_of(self.client.get(ENDPOINT, given, headers=headers))
        return reply_of(self.client.post(ENDPOINT, urlencode(given), content_type=FORM, headers=headers))


@pytest.fixture
def browser(person) -> Browser:
    browser = Browser()
    assert browser.log_in().status_code == 200
    return browser


# Logging in --------------------------------------------------------------------------------------


def test_log_in_answers_what_clients_read(person):
    response = Browser().log_in()

    told = response.json()["loginresponse"]
    key = told.pop("sessionkey")
    assert len(key) >= 27
    assert told == {
        "username": "ann",
        "userid": str(person.uuid),
        "firstname": "Ann",
        "lastname": "",
        "account": "ann",
        "domainid": str(person.account.domain.uuid),
        "type": "0",
        "timeout": 1800,
        "timezone": "UTC",
        "timezoneoffset": "0.0",
        "registered": "false",
    }
    assert Event.objects.get().type == EventType.USER_LOGIN


def test_the_cookies_are_out_of_scripts_reach(person):
    """cmk takes the key from a cookie of this name."""
    response = Browser().log_in()
    for name in ("sessionid", "sessionkey"):
        assert response.cookies[name]["httponly"]
        assert response.cookies[name]["samesite"] == "Lax"
    assert response.cookies["sessionkey"].value == response.json()["loginresponse"]["sessionkey"]


@pytest.mark.parametrize(
    ("where", "domain"),
    [
        ("sales", "sales"),
        ("sales", "/sales/"),
        ("sales", "ROOT/sales"),
        ("sales", "root/SALES"),
        ("ROOT", None),
        ("ROOT", ""),
        ("ROOT", "/"),
        ("ROOT", "ROOT"),
    ],
)
def test_the_domain_is_told_by_its_path(person, where, domain):
    if where == "ROOT":
        person = make_user(username="rob")
    assert Browser().log_in(person.username, domain=domain).status_code == 200


def test_the_domain_is_told_by_its_id(person):
    assert Browser().log_in(domain=None, domainid=person.account.domain.uuid).status_code == 200
    assert Browser().log_in(domain=None, domainid=Domain.root().uuid).status_code == 401


def _disable_user(person: User) -> None:
    User.objects.filter(pk=person.pk).update(is_active=False)


def _disable_account(person: User) -> None:
    Account.objects.filter(pk=person.account_id).update(state=Account.State.DISABLED)


def test_every_refusal_reads_the_same_and_takes_the_same_work(person, monkeypatch):
    """Nobody learns which users there are; CVE-2014-7807: nor gets in without a password."""
    hashed = []
    original = User.check_password
    monkeypatch.setattr(User, "check_password", lambda self, raw: hashed.append(raw) or original(self, raw))
    set_password = User.set_password
    monkeypatch.setattr(User, "set_password", lambda self, raw: hashed.append(raw) or set_password(self, raw))
    disabled = make_user(make_account(domain=person.account.domain), username="di", is_active=False)
    shut = make_user(make_account(domain=person.account.domain, state="disabled"), username="sh")
    locked = make_user(make_account(domain=person.account.domain, state="locked"), username="lo")
    gone = make_user(make_account(domain=person.account.domain), username="gone")
    User.objects.filter(pk=gone.pk).update(removed_at=timezone.now(), is_active=False)
    attempts = {
        "wrong password": {"password": "x"},
        "password in other letters": {"password": PASSWORD.upper()},
        "password with a blank": {"password": f"{PASSWORD} "},
        "unknown user": {"username": "nobody"},
        "wrong domain": {"domain": "ROOT"},
        "no such domain": {"domain": "nowhere"},
        "no domain": {"domain": None},
        "disabled user": {"username": disabled.username},
        "user of a disabled account": {"username": shut.username},
        "user of a locked account": {"username": locked.username},
        "deleted user": {"username": gone.username},
    }
    answers = {}
    for name, attempt in attempts.items():
        throttling.forget()
        hashed.clear()
        response = Browser().log_in(**attempt)
        answers[name] = (response.status_code, response.content, len(hashed), dict(response.cookies))
    assert {name: answer[0] for name, answer in answers.items()} == dict.fromkeys(attempts, 401)
    assert len({answer[1] for answer in answers.values()}) == 1
    assert {answer[2] for answer in answers.values()} == {1}
    assert {str(answer[3]) for answer in answers.values()} == {"{}"}
    assert Session.objects.count() == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"password": ""},
        {"password": "\0"},
        {"password": f"{PASSWORD}\0"},
        {"password": "x" * 5000},
        {"username": ""},
        {"username": "ann\0"},
        {"username": "ann\n"},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_a_name_or_password_that_cannot_be_is_refused(person, changes):
    """CVE-2014-7807 (Apache CloudStack): an empty password was taken for an anonymous bind, and let in."""
    response = Browser().log_in(**changes)
    assert response.status_code == 431
    assert Session.objects.count() == 0


@pytest.mark.parametrize(
    "body",
    [
        "command=login&username=ann&domain=sales",
        "command=login&username=ann&domain=sales&password[]=x",
        "command=login&username=ann&domain=sales&password[0].x=y",
        "command=login&username=ann&domain=sales&password=a+long+password&password=a+long+password",
        "command=login&username=ann&domain=sales&password=a+long+password&PASSWORD=x",
        "command=login&username[0].x=ann&domain=sales&password=a+long+password",
        "command=login&command=listZones&username=ann&domain=sales&password=a+long+password",
        "command=login&sessionkey=x&userid=1",
        "command=login",
    ],
)
def test_a_log_in_in_another_shape_is_none(person, body):
    """VSA-2026-062 (Xen Orchestra): an empty object let in; CVE-2023-54391 (Proxmox): a parameter more did."""
    response = Client().post(ENDPOINT, body, content_type=FORM)
    assert response.status_code == 431
    assert Session.objects.count() == 0


@pytest.mark.parametrize("body", [json.dumps({"command": "login", "username": "ann", "password": PASSWORD}), "{}"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x"])
def test_a_body_that_is_no_form_is_refused(person, body, content_type):
    assert Client().post(ENDPOINT, body, content_type=content_type).status_code == 431


def test_a_password_in_a_url_is_refused(person):
    """It would stand in the log of every proxy on the way."""
    given = {"command": "login", "username": "ann", "password": PASSWORD, "domain": "sales"}
    assert Client().get(ENDPOINT, given).status_code == 431
    in_both = Client().post(
        f"{ENDPOINT}?{urlencode({'password': PASSWORD})}",
        urlencode({"command": "login", "username": "ann", "domain": "sales"}),
        content_type=FORM,
    )
    assert in_both.status_code == 431
    assert Session.objects.count() == 0


def test_cmks_try_after_a_wrong_key_is_refused(person):
    """cmk logs in as admin/password after each 401, and panics if that succeeds (rule 26)."""
    response = Browser().log_in("admin", "password", domain="/")
    assert response.status_code == 401
    assert response.json()["loginresponse"]["errorcode"] == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver.evil.example"},
        {"origin": "https://testserver"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_another_sites_page_logs_nobody_in(person, headers):
    """Somebody would work in the attacker's account, and leave their data there."""
    response = Browser().log_in(headers=headers)
    assert response.status_code == 401
    assert Session.objects.count() == 0


@pytest.mark.parametrize("headers", [{}, {"origin": "http://testserver"}, {"sec-fetch-site": "same-origin"}], ids=str)
def test_a_page_of_ours_and_a_program_log_in(person, headers):
    assert Browser().log_in(headers=headers).status_code == 200


def test_a_trusted_origin_is_trusted(person, settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://console.example"]
    headers = {"origin": "https://console.example", "sec-fetch-site": "cross-site"}
    assert Browser().log_in(headers=headers).status_code == 200


def test_anonymous_requests_leave_no_sessions(person):
    """OSSA-2021-002 and its kind: whoever is not logged in makes rows without end."""
    client = Client()
    for number in range(30):
        client.get("/login/", {"next": f"/{number}"})
        client.post("/login/", {"username": "ann", "password": "x", "next": f"/{number}"})
        client.get(ENDPOINT, {"command": "listZones", "sessionkey": "x"})
        client.cookies["sessionid"] = f"{number}" * 16
    assert Session.objects.count() == 0


# What a session is good for ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_session_calls(browser, method):
    """cmk calls by GET, and by POST where there is a password or user data."""
    assert browser.call(method=method).status == 200


def test_a_session_is_let_in_by_two_queries(browser, django_assert_num_queries):
    browser.call("listApis")
    with django_assert_num_queries(2):
        browser.call("listApis")


def test_a_session_may_do_what_its_user_may(browser):
    assert browser.call("createSSHKeyPair", name="mine").body["keypair"]["account"] == "ann"
    assert browser.call("updateConfiguration", name="x").status == 432
    assert (browser.call("noSuchCommand").status, browser.call("noSuchCommand").key) == (432, "errorresponse")


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("key", [None, "", "x", "x" * 27, "[]", "{}", "true", "0"])
def test_a_cookie_alone_lets_nobody_in(browser, method, key):
    """CVE-2024-45693 (Apache CloudStack): a foreign page's request came with the victim's cookies."""
    browser.key = key

    assert browser.call("createSSHKeyPair", method=method, name="theirs").status == 401
    assert not SshKeyPair.objects.exists()


def test_the_key_in_the_cookie_is_not_the_parameter(browser):
    assert browser.client.cookies["sessionkey"].value == browser.key
    assert reply_of(browser.client.get(ENDPOINT, {"command": "listZones", "response": "json"})).status == 401


def test_a_wrong_key_ends_no_session(browser):
    """A foreign page could log people out."""
    key, browser.key = browser.key, "x"
    assert browser.call().status == 401
    browser.key = key
    assert browser.call().status == 200


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
    ids=str,
)
def test_another_sites_page_does_nothing_even_with_the_key(browser, method, headers):
    assert browser.call("createSSHKeyPair", method=method, headers=headers, name="theirs").status == 401
    assert not SshKeyPair.objects.exists()


def test_a_key_belongs_to_its_session(browser, person):
    """Two tabs, two users."""
    make_user(make_account(domain=person.account.domain), username="bob")
    other = Browser()
    other.log_in("bob")
    browser.key, other.key = other.key, browser.key
    assert browser.call().status == other.call().status == 401


def test_a_consoles_session_is_no_way_in(person):
    """CVE-2024-45693: it has no key, so that no page can name it."""
    browser = Browser()
    browser.client.force_login(person)
    for key in (None, "", "x"):
        browser.key = key
        assert browser.call().status == 401


def test_the_database_does_not_have_the_key(browser):
    assert browser.key not in str(Session.objects.get().get_decoded())


@pytest.mark.parametrize("call", ["login", "listZones", "logout"])
def test_nothing_of_a_session_may_be_kept(browser, call):
    """The back button shows nothing after log-out."""
    given = {"command": call, "sessionkey": browser.key, "username": "ann", "password": PASSWORD, "domain": "sales"}
    response = browser.client.post(ENDPOINT, urlencode(given), content_type=FORM)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"


# When it ends -------------------------------------------------------------------------------------


def test_log_out_ends_it_at_once(browser):
    """CVE-2024-45462 (Apache CloudStack): a session went on after log-out."""
    kept, key = browser.client.cookies["sessionid"].value, browser.key

    reply = browser.call("logout")

    assert (reply.status, reply.key, reply.body) == (200, "logoutresponse", {"description": "success"})
    replayed = Browser()
    replayed.client.cookies["sessionid"], replayed.key = kept, key
    assert replayed.call().status == 401
    assert Session.objects.count() == 0
    assert set(Event.objects.values_list("type", flat=True)) == {EventType.USER_LOGIN, EventType.USER_LOGOUT}


def test_log_out_takes_the_key(browser):
    """A foreign page logs nobody out."""
    for key in (None, "x"):
        assert browser.call("logout", sessionkey=key).status == 401
    assert browser.call().status == 200


def _change_password(person: User) -> None:
    person.set_password("another long password")
    person.save()


def _change_role(person: User) -> None:
    Account.objects.filter(pk=person.account_id).update(role=Role.DOMAIN_ADMIN)


def _delete_user(person: User) -> None:
    from extdhcp_site.accounts.services import users

    users.remove(person, timezone.now())


@pytest.mark.parametrize(
    "change", [_change_password, _change_role, _disable_user, _disable_account, _delete_user], ids=lambda f: f.__name__
)
def test_what_takes_ones_power_ends_the_session(browser, person, change):
    """Dead with the next request, for the API and the console."""
    assert browser.client.get("/").status_code == 200

    change(person)

    assert browser.call().status == 401
    assert browser.client.get("/").status_code == 302


def test_a_session_put_into_the_browser_before_is_not_gone_on_with(person):
    """Fixation: whoever set the cookie would be logged in as well."""
    mallory = Browser()
    make_user(username="mallory")
    mallory.log_in("mallory", domain=None)
    planted = mallory.client.cookies["sessionid"].value
    victim = Browser()
    victim.client.cookies["sessionid"] = planted

    victim.log_in()

    assert victim.client.cookies["sessionid"].value != planted
    assert mallory.call().status == 401
    assert Session.objects.count() == 1


def test_a_session_without_calls_ends(browser):
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert browser.call().status == 401


def test_a_session_with_calls_goes_on(browser):
    """A call prolongs it, by a write each tenth of its time."""
    before = Session.objects.get().expire_date
    browser.call()
    assert Session.objects.get().expire_date == before

    store = browser.client.session
    store[sessions._SEEN] -= 200
    store.save()
    prolonged = Session.objects.get().expire_date
    browser.call()
    assert Session.objects.get().expire_date > prolonged


def test_how_long_it_lasts_is_a_setting(person, root):
    root.call("updateConfiguration", name="api.session.timeout", value="60")
    browser = Browser()
    assert browser.log_in().json()["loginresponse"]["timeout"] == 60
    assert browser.client.session.get_expiry_age() == 60


def test_a_password_is_not_guessed(person):
    """Wrong ones from one place are soon not even looked at; from elsewhere the right one lets in."""
    statuses = [Browser().log_in(password=f"guess {number}").status_code for number in range(20)]
    refused = Browser().log_in()

    assert statuses[0] == 401
    assert statuses[-1] == refused.status_code == 429
    assert int(refused["Retry-After"]) > 0
    assert refused.json()["loginresponse"]["cserrorcode"] == 4545
    assert Browser(Client(REMOTE_ADDR="198.51.100.7")).log_in().status_code == 200


def test_unknown_users_are_slowed_alike(person):
    """Else the slowing would tell which users there are."""
    statuses = {
        name: [Browser().log_in(name, password="x").status_code for _ in range(20)] for name in ("ann", "nobody")
    }
    assert statuses["ann"] == statuses["nobody"]


def test_right_log_ins_are_not_counted(person):
    assert {Browser().log_in().status_code for _ in range(30)} == {200}


def test_the_consoles_log_in_counts_too(person):
    for number in range(20):
        page = Client().post("/login/", {"username": "ann", "password": f"guess {number}"})
    assert "Too many failed log-ins" in page.text
    assert Browser().log_in().status_code == 429
    throttling.forget()
    assert Client().post("/login/", {"username": "ann", "password": PASSWORD}).status_code == 302
