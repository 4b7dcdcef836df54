"""The second factor in the console: set up, asked for, lost, and guessed at."""

import time
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Role, User
from extdhcp_site.events.models import Event, EventType
from tests.accounts.conftest import PASSWORD
from tests.api.client import ENDPOINT
from tests.factories import make_account, make_user

pytestmark = pytest.mark.django_db

SET_UP, REMOVE = "/account/second-factor/set-up/", "/account/second-factor/remove/"
CODES, NEW_CODES = "/account/recovery-codes/", "/account/recovery-codes/new/"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Moves on when told to; each code is good once."""

    class Clock:
        now = time.time() // 30 * 30

        def next_code(self) -> None:
            self.now += 30

    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromtimestamp(clock.now, UTC))
    cache.clear()
    return clock


def code_of(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time() // 30)))


class Person:
    """Somebody with a browser, a password, and perhaps an app."""

    def __init__(self, user: User) -> None:
        self.user, self.browser, self.secret = user, Client(), ""

    def give_password(self, next: str = ""):
        form = {"username": self.user.username, "password": PASSWORD, **({"next": next} if next else {})}
        return self.browser.post("/login/", form)

    def give_code(self, code: str = ""):
        return self.browser.post("/login/code/", {"code": code or code_of(self.secret)})

    def confirm(self, path: str):
        """What `path` shows once the password is given again."""
        asked = self.browser.get(path)
        assert asked.status_code == 302
        assert asked["Location"].startswith("/account/confirm/")
        return self.browser.post(asked["Location"], {"password": PASSWORD}, follow=True)

    def set_up(self) -> list[str]:
        """The recovery codes."""
        self.secret = self.confirm(SET_UP).context["form"].secret
        codes = self.browser.post(SET_UP, {"code": code_of(self.secret)}, follow=True)
        assert codes.redirect_chain[-1][0] == CODES
        return codes.context["unused_codes"]

    @property
    def is_in(self) -> bool:
        return self.browser.get("/account/").status_code == 200


@pytest.fixture
def ann() -> Person:
    ann = Person(make_user(username="ann"))
    ann.give_password()
    return ann


@pytest.fixture
def guarded(ann, clock) -> Person:
    """Logged out, with a second factor."""
    ann.set_up()
    ann.browser = Client()
    clock.next_code()
    return ann


# Setting up -----------------------------------------------------------------------------------------


def test_the_set_up_shows_the_secret_as_a_picture_and_in_letters(ann):
    page = ann.confirm(SET_UP)
    assert 'src="data:image/svg+xml;base64,' in page.text
    assert page.context["form"].secret in page.text
    assert page.context["totp_url"].startswith("otpauth://totp/ann?")
    assert "issuer=extdhcp" in page.context["totp_url"]


def test_a_wrong_code_sets_nothing_up(ann):
    ann.confirm(SET_UP)
    assert "Incorrect code" in ann.browser.post(SET_UP, {"code": "12345"}).text
    assert not Authenticator.objects.exists()


def test_it_is_told_and_gives_ten_recovery_codes(ann, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        assert len(set(ann.set_up())) == 10
    event = Event.objects.get(type=EventType.USER_UPDATE)
    assert (event.description, event.username) == ("User ann: second factor set up", "ann")


def test_the_database_has_neither_secret_nor_codes(ann):
    codes = ann.set_up()
    with connection.cursor() as cursor:
        cursor.execute("SELECT data FROM mfa_authenticator")
        kept = " ".join(data for (data,) in cursor.fetchall())
    assert ann.secret not in kept
    assert not any(code in kept for code in codes)
    assert Session.objects.count() == 1
    assert ann.secret not in str(Session.objects.get().get_decoded())


@pytest.mark.parametrize("path", [SET_UP, REMOVE, CODES, NEW_CODES, "/account/recovery-codes/download/"])
def test_before_anything_of_it_the_password_is_asked_again(guarded, clock, path):
    if path == SET_UP:
        Authenticator.objects.all().delete()
        guarded.give_password()
    else:
        guarded.give_password()
        guarded.give_code()
    asked = guarded.browser.get(path)
    assert asked.status_code == 302
    assert asked["Location"].startswith("/account/confirm/")
    assert guarded.browser.post(path).status_code in (302, 405)
    assert Authenticator.objects.count() == (0 if path == SET_UP else 2)
    wrong = guarded.browser.post("/account/confirm/", {"password": "wrong"})
    assert "Incorrect password" in wrong.text


def test_a_code_confirms_too(guarded, clock):
    guarded.give_password()
    guarded.give_code()
    clock.next_code()
    page = guarded.browser.post(f"/account/confirm/code/?next={CODES}", {"code": code_of(guarded.secret)}, follow=True)
    assert page.redirect_chain[-1][0] == CODES


@pytest.mark.parametrize("path", [SET_UP, REMOVE, CODES, NEW_CODES, "/account/confirm/", "/account/confirm/code/"])
def test_strangers_are_sent_to_the_log_in(path):
    for method in (Client().get, Client().post):
        answer = method(path)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/login/")


# Logging in -----------------------------------------------------------------------------------------


def test_the_password_alone_is_not_enough(guarded):
    assert guarded.give_password()["Location"] == "/login/code/"
    assert not guarded.is_in
    assert guarded.browser.get("/api/v1/vms").status_code in (401, 403)
    assert Event.objects.filter(type=EventType.USER_LOGIN).count() == 1  # before it was set up


def test_password_and_code_let_in_and_it_is_told(guarded):
    guarded.give_password(next="/api/docs/")
    before = guarded.browser.cookies["sessionid"].value
    assert guarded.give_code()["Location"] == "/api/docs/"
    assert guarded.is_in
    assert guarded.browser.cookies["sessionid"].value != before
    assert Event.objects.filter(type=EventType.USER_LOGIN).count() == 2


def test_a_code_without_the_password_is_nothing(guarded):
    assert guarded.give_code()["Location"] == "/login/"
    assert not guarded.is_in


@pytest.mark.parametrize("code", ["", "0", "000000 ", "None", "💥", "1" * 10_000])
def test_a_wrong_code_lets_nobody_in(guarded, code):
    guarded.give_password()
    assert guarded.browser.post("/login/code/", {"code": code}).status_code == 200
    assert not guarded.is_in


@pytest.mark.parametrize("form", [{}, {"credential": "{}"}, {"code": ["1", "2"]}, {"tfa-challenge": "x"}])
def test_no_other_field_takes_the_place_of_the_code(guarded, form):
    """CVE-2023-54391 (Proxmox): a parameter's mere presence skipped the other factor."""
    guarded.give_password()
    answer = guarded.browser.post("/login/code/", form)
    assert answer.status_code < 500
    assert not guarded.is_in


def test_a_code_is_good_once_whichever_process_is_asked(guarded):
    guarded.give_password()
    guarded.give_code()
    # What one process remembers another has not heard of.
    cache.clear()
    thief = Person(guarded.user)
    thief.give_password()
    assert "Incorrect code" in thief.give_code(code_of(guarded.secret)).text
    assert not thief.is_in


def test_a_recovery_code_is_good_once(ann, clock):
    codes = ann.set_up()
    for is_in in (True, False):
        ann.browser = Client()
        ann.give_password()
        ann.give_code(codes[0])
        assert ann.is_in == is_in
    assert ann.give_code(codes[1])["Location"] == "/"


def test_codes_are_not_guessed(guarded, settings):
    settings.WEB_PROCESSES = 1
    guarded.give_password()
    for _ in range(10):
        guarded.give_code("123")
    # Neither from elsewhere, nor with the right one.
    other = Person(guarded.user)
    other.give_password()
    assert "Too many" in other.give_code(code_of(guarded.secret)).text
    assert not other.is_in


def test_whoever_is_shut_out_between_password_and_code_stays_out(guarded):
    guarded.give_password()
    Account.objects.update(state="disabled")
    assert guarded.give_code()["Location"] == "/login/"
    assert not guarded.is_in
    assert Event.objects.filter(type=EventType.USER_LOGIN).count() == 1


def test_the_password_is_not_given_for_ever(guarded, clock):
    guarded.give_password()
    clock.now += 16 * 60
    assert guarded.give_code()["Location"] == "/login/"


def test_a_session_put_into_the_browser_before_is_not_gone_on_with(guarded):
    mallory = Client()
    mallory.force_login(make_user(username="mallory"))
    guarded.browser.cookies["sessionid"] = mallory.cookies["sessionid"].value
    guarded.give_password()
    guarded.give_code()
    assert "ann" in guarded.browser.get("/account/").text
    assert mallory.get("/account/").status_code == 302


def test_the_apis_log_in_is_refused_with_the_reason(guarded):
    """Else the password alone would be a way round the second factor."""
    form = {"command": "login", "response": "json", "username": "ann", "password": PASSWORD, "domain": "ROOT"}

    def ask(**other: str):
        return Client().post(ENDPOINT, urlencode({**form, **other}), content_type="application/x-www-form-urlencoded")

    answer = ask()
    assert answer.status_code == 401
    assert "second factor" in answer.text
    assert "sessionid" not in answer.cookies
    assert "second factor" not in ask(password="wrong").text


# Ending ---------------------------------------------------------------------------------------------


def test_removed_it_is_not_asked_for(guarded):
    guarded.give_password()
    guarded.give_code()
    guarded.confirm(REMOVE)
    assert guarded.browser.post(REMOVE)["Location"] == "/account/second-factor/"
    assert not Authenticator.objects.exists()
    guarded.browser = Client()
    guarded.give_password()
    assert guarded.is_in


def test_new_recovery_codes_end_the_old(ann):
    old = ann.set_up()
    new = ann.browser.post(NEW_CODES, follow=True).context["unused_codes"]
    assert not set(old) & set(new)
    ann.browser = Client()
    ann.give_password()
    assert "Incorrect code" in ann.give_code(old[0]).text


def test_an_administrator_removes_a_lost_one(root, admin, user, guarded):
    """Only of those within reach, never one's own: a found API key is no way round it."""
    lost = guarded.user
    for signer in (user, admin):
        assert signer.call("removeSecondFactor", id=lost.uuid).status in (431, 432)
    assert root.call("removeSecondFactor", id=root.user.uuid).status == 431
    assert root.call("removeSecondFactor", id=lost.uuid).status == 200
    assert not Authenticator.objects.exists()
    assert Event.objects.filter(type=EventType.USER_UPDATE, username=root.user.username).exists()
    assert "no second factor" in root.call("removeSecondFactor", id=lost.uuid).text


def test_a_removed_users_is_gone(root, guarded):
    root.call("deleteUser", id=guarded.user.uuid)
    assert not Authenticator.objects.exists()


def test_roots_own_is_asked_for_by_the_admin(guarded):
    User.objects.filter(pk=guarded.user.pk).update(is_staff=True, is_superuser=True)
    Account.objects.update(role=Role.ROOT_ADMIN)
    guarded.give_password(next="/admin/")
    assert guarded.browser.get("/admin/").status_code == 302
    assert guarded.give_code()["Location"] == "/admin/"
    assert guarded.browser.get("/admin/").status_code == 200


def test_nobody_signs_up():
    for path in ("/signup/", "/account/signup/", "/accounts/signup/", "/account/password/reset/", "/account/email/"):
        assert Client().get(path).status_code == 404
    assert not make_account().users.exists()
