"""The console's log-in and its sessions: what begins one, where it leads, and what ends it."""

from collections.abc import Callable

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from extdhcp_site.accounts import urls
from extdhcp_site.accounts.models import Account, Role, User
from extdhcp_site.events.models import Event, EventType
from networks.models import SshKeyPair
from tests.accounts.conftest import PASSWORD
from tests.console.worlds import client_of, make_key_pair
from tests.factories import make_user

pytestmark = pytest.mark.django_db

NEW = "correct horse battery"


def log_in(user: User, browser: Client | None = None, **form: str):
    return (browser or Client()).post("/login/", {"username": user.username, "password": PASSWORD, **form})


# Where it leads -------------------------------------------------------------------------------------

ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https:evil.example",
    "https://evil.example/",
    "http://testserver/vms/",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "/vms/\r\nSet-Cookie: a=b",
    "/\t/evil.example",
    " //evil.example",
    "/" + "a" * 16_384,
    "\x00/vms/",
]


@pytest.mark.parametrize("next", ELSEWHERE, ids=range(len(ELSEWHERE)))
@pytest.mark.parametrize("how", ["body", "url"])
def test_a_log_in_leads_nowhere_else(next, how):
    user, browser = make_user(), Client()
    if how == "url":
        browser.get("/login/", {"next": next})
        answer = browser.post("/login/", {"username": user.username, "password": PASSWORD}, query_params={"next": next})
    else:
        answer = log_in(user, browser, next=next)
    assert (answer.status_code, answer["Location"]) == (302, "/")


def test_a_log_in_leads_back_to_the_page_that_was_asked_for():
    user, browser = make_user(), Client()
    asked = browser.get("/key-pairs/?name=laptop")
    assert asked["Location"] == "/login/?next=/key-pairs/%3Fname%3Dlaptop"
    page = browser.get(asked["Location"])
    assert 'name="next" value="/key-pairs/?name=laptop"' in page.text
    assert log_in(user, browser, next="/key-pairs/?name=laptop")["Location"] == "/key-pairs/?name=laptop"


def test_anonymous_requests_leave_no_sessions(django_assert_num_queries):
    """OSSA-2026-009 (Horizon): `next` was kept before anybody had logged in, a row a request."""
    for number in range(200):
        browser = Client()
        browser.get("/login/", {"next": f"/vms/?page={number}"})
        browser.get(f"/vms/?page={number}")
        browser.post("/login/", {"username": f"nobody-{number % 5}", "password": "wrong", "next": "/vms/"})
    for it in urls.urlpatterns:
        for ask in (browser.get, browser.post):
            ask(f"/{it.pattern}?next=/account/")
    assert Session.objects.count() == 0


# What begins and ends one -----------------------------------------------------------------------------


def test_log_in_and_log_out_are_told_with_where_from():
    user, browser = make_user(username="ann"), Client(REMOTE_ADDR="192.0.2.7")
    log_in(user, browser)
    browser.post("/logout/")
    said = [(event.type, event.description, event.username) for event in Event.objects.order_by("pk")]
    assert said == [
        (EventType.USER_LOGIN, "ann logged in from 192.0.2.7", "ann"),
        (EventType.USER_LOGOUT, "ann logged out from 192.0.2.7", "ann"),
    ]


def test_a_forged_address_is_not_believed():
    """CVE-2024-29006 (CloudStack)."""
    browser = Client(REMOTE_ADDR="192.0.2.7", HTTP_X_FORWARDED_FOR="198.51.100.1", HTTP_X_REAL_IP="198.51.100.1")
    log_in(make_user(), browser)
    assert Event.objects.get().description.endswith("from 192.0.2.7")


def _log_out(user: User, browser: Client) -> None:
    browser.post("/logout/")


def _new_password(user: User, browser: Client) -> None:
    form = {"currentpassword": PASSWORD, "password": NEW}
    assert browser.post("/account/password/", form).status_code == 302


def _new_role(user: User, browser: Client) -> None:
    Account.objects.filter(pk=user.account_id).update(role=Role.DOMAIN_ADMIN)


def _shut_account(user: User, browser: Client) -> None:
    Account.objects.filter(pk=user.account_id).update(state=Account.State.LOCKED)


def _disable(user: User, browser: Client) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def _remove(user: User, browser: Client) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False, removed_at=timezone.now())


@pytest.mark.parametrize("end", [_log_out, _new_password, _new_role, _shut_account, _disable, _remove])
def test_a_stolen_cookie_dies_at_once(end: Callable[[User, Client], None]):
    """CVE-2024-45462 (CloudStack): a session outlived its log-out."""
    user, browser, thief = make_user(), Client(), Client()
    log_in(user, browser)
    thief.cookies["sessionid"] = browser.cookies["sessionid"].value
    assert thief.get("/account/").status_code == 200

    end(user, browser)

    for path in ("/account/", "/", "/admin/", "/account/second-factor/set-up/"):
        assert thief.get(path).status_code == 302, path
    assert thief.get("/api/v1/vms").status_code in (401, 403)
    assert thief.post("/do/registerUserKeys", {"id": str(user.uuid)})["Location"].startswith("/login/")
    assert not user.api_keys.exists()


def test_two_tabs_and_two_people():
    """The second log-in takes the browser over whole; the first's form then acts for nobody it does not say."""
    ann, bob, browser = make_user(username="ann"), make_user(username="bob"), Client()
    log_in(ann, browser)
    first = browser.cookies["sessionid"].value
    log_in(bob, browser)
    assert browser.cookies["sessionid"].value != first
    assert "bob" in browser.get("/account/").text
    old_tab = Client()
    old_tab.cookies["sessionid"] = first
    assert old_tab.get("/account/").status_code == 302


@pytest.mark.parametrize("path", ["/account/", "/account/password/", "/key-pairs/", "/login/", "/"])
def test_the_back_button_shows_nothing_after_a_log_out(path):
    assert "no-store" in client_of(make_user()).get(path)["Cache-Control"]


# What a foreign page can make of one ------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "https://evil.example"}, {"origin": "null"}, {"referer": "https://evil.example/"}],
    ids=["nothing", "origin", "null", "referer"],
)
@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
)
def test_a_foreign_pages_form_does_nothing(headers, content_type):
    pair = make_key_pair()
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(make_user(pair.account))
    answer = browser.post("/do/deleteSSHKeyPair", "name=laptop", content_type=content_type, headers=headers)
    assert answer.status_code == 403
    assert SshKeyPair.objects.exists()


@pytest.mark.parametrize(
    "path",
    [
        "/do/deleteSSHKeyPair?name=laptop",
        "/key-pairs/new/?name=other",
        "/account/password/?currentpassword=a+long+password&password=correct+horse+battery",
        "/logout/",
    ],
)
def test_a_link_changes_nothing(path):
    pair = make_key_pair()
    user = make_user(pair.account)
    browser = client_of(user)
    before = User.objects.get(pk=user.pk).password
    assert browser.get(path).status_code in (200, 405)
    assert browser.get("/account/").status_code == 200
    assert (SshKeyPair.objects.count(), User.objects.get(pk=user.pk).password) == (1, before)


@pytest.mark.parametrize("path", ["/login/", "/account/confirm/", "/account/password/", "/key-pairs/new/"])
def test_each_form_of_ours_takes_its_token(path):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(make_user())
    assert browser.post(path, {}).status_code == 403
