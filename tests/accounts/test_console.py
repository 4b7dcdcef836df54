"""The pages of one's own account, and of the accounts and users that an administrator sees."""

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from extdhcp_site.accounts.models import Account, ApiKey, Domain, Role, User
from extdhcp_site.api import throttling
from extdhcp_site.jobs.models import AsyncJob
from tests.accounts.conftest import PASSWORD
from tests.factories import make_account, make_api_key, make_domain, make_user

pytestmark = pytest.mark.django_db

NEW = "correct horse battery"
PAGE = "/account/password/"


def browser_of(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


def admin_of(path_name: str = "sales") -> Client:
    domain = make_domain(name=path_name)
    return browser_of(make_user(make_account(Role.DOMAIN_ADMIN, domain, name="boss"), username="boss"))


def sales() -> Domain:
    return Domain.objects.get(path="ROOT/sales/")


def root() -> Client:
    return browser_of(make_user(make_account(Role.ROOT_ADMIN, name="root"), username="root"))


# One's own ------------------------------------------------------------------------------------------


def test_one_sees_who_one_is():
    user = make_user(make_account(domain=make_domain(name="sales"), name="ann's"), username="ann", email="a@x.example")
    page = browser_of(user).get("/account/").text
    for shown in ("ann", "ann&#x27;s", "ROOT/sales", "a@x.example", str(user.uuid), "User"):
        assert shown in page


def test_the_password_is_changed_knowing_it_and_other_sessions_end():
    user = make_user()
    here, elsewhere = browser_of(user), browser_of(user)

    answer = here.post(PAGE, {"currentpassword": PASSWORD, "password": NEW})

    assert answer["Location"] == "/account/"
    assert User.objects.get().check_password(NEW)
    assert here.get("/account/").status_code == 200
    assert elsewhere.get("/account/").status_code == 302


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"currentpassword": "wrong", "password": NEW}, "currentpassword"),
        ({"currentpassword": PASSWORD, "password": "short"}, "too short"),
        ({"currentpassword": PASSWORD, "password": "password1234"}, "too common"),
        ({"currentpassword": PASSWORD}, "password"),
        ({}, "password"),
    ],
)
def test_a_bad_change_of_the_password_is_refused_and_repeats_none(form, says):
    user = make_user()
    page = browser_of(user).post(PAGE, form)
    assert page.status_code == 200
    assert says in page.text
    assert 'role="alert"' in page.text
    for typed in form.values():
        assert f'value="{typed}"' not in page.text
        assert f"password={typed}" not in page.text
    assert User.objects.get().check_password(PASSWORD)


def test_the_current_password_is_not_guessed_with_a_found_session(settings):
    settings.WEB_PROCESSES = 1
    throttling.forget()
    browser = browser_of(make_user())
    for _ in range(10):
        browser.post(PAGE, {"currentpassword": "wrong", "password": NEW})
    assert "Too many" in browser.post(PAGE, {"currentpassword": PASSWORD, "password": NEW}).text
    # Nor where it is asked again.
    assert "Too many" in browser.post("/account/confirm/", {"password": PASSWORD}).text


def test_ones_own_is_the_only_one_that_the_form_changes():
    user, other = make_user(), make_user()
    browser_of(user).post(PAGE, {"currentpassword": PASSWORD, "password": NEW, "id": str(other.uuid)})
    assert User.objects.get(pk=other.pk).check_password(PASSWORD)
    assert User.objects.get(pk=user.pk).check_password(NEW)


def test_api_keys_are_made_shown_once_and_disabled():
    user = make_user()
    browser = browser_of(user)

    made = browser.post("/account/keys/new/")
    [key] = ApiKey.objects.all()
    assert key.secret in made.text
    page = browser.get("/account/").text
    assert f"{key.key[:8]}…" in page
    assert key.secret not in page
    assert key.key not in page

    browser.post("/do/disableApiKey", {"id": str(key.uuid), "_then": "/account/"})
    key.refresh_from_db()
    assert key.disabled_at
    assert "disabled" in browser.get("/account/").text


# Administrators' ------------------------------------------------------------------------------------

LISTS = ["accounts", "users"]


@pytest.mark.parametrize("name", LISTS)
def test_users_have_no_such_list(name):
    assert browser_of(make_user()).get(reverse(name)).status_code == 404


@pytest.mark.parametrize("name", LISTS)
def test_the_menu_offers_what_there_is_for_the_role(name):
    menu = re.compile(r"<nav.*?</nav>", re.S)
    for browser, is_offered in ((browser_of(make_user()), False), (admin_of(), True), (root(), True)):
        bar = menu.search(browser.get("/account/").text)[0]
        assert (reverse("accounts") in bar) == is_offered
        assert "/admin/" not in bar


@pytest.mark.parametrize("name", LISTS)
def test_an_administrator_sees_their_domain_alone(name):
    browser = admin_of()
    mine = make_user(make_account(domain=sales(), name="mine"), username="mine")
    foreign = make_user(make_account(domain=make_domain(name="other"), name="foreign"), username="foreign")
    gone = make_user(
        make_account(domain=sales(), name="gone", state="removed"), username="gone", removed_at="2026-01-01T00:00Z"
    )
    page = browser.get(reverse(name)).text
    assert "mine" in page
    assert "foreign" not in page
    assert ">gone<" not in page
    one = {"accounts": "account", "users": "user"}[name]
    for user, status in ((mine, 200), (foreign, 404), (gone, 404)):
        row = user.account if name == "accounts" else user
        assert browser.get(reverse(one, args=[row.uuid])).status_code == status


@pytest.mark.parametrize("name", LISTS)
def test_a_list_costs_the_same_whatever_its_length(name):
    browser = root()

    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert browser.get(reverse(name)).status_code == 200
        return len(captured)

    make_user()
    few = cost()
    for _ in range(20):
        make_user(make_account(domain=make_domain()))
    assert cost() == few


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("state=disabled", {"shut"}),
        ("username=ope", {"open"}),
        ("role=0", {"open", "shut"}),
        ("account=aa", {"open"}),
        ("secondfactor=yes", set()),
        ("secondfactor=no&role=0", {"open", "shut"}),
    ],
)
def test_users_are_narrowed_by_the_url(query, shown):
    browser = root()
    make_user(make_account(name="aa"), username="open")
    make_user(make_account(name="bb"), username="shut", is_active=False)
    text = browser.get(f"{reverse('users')}?{query}&export=json").getvalue().decode()
    assert {name for name in ("open", "shut") if f'"{name}"' in text} == shown


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("query", ["accountid=x", "role=7", "nothing=1", "state=removed"])
def test_a_filter_that_cannot_be_is_refused(name, query):
    assert root().get(f"{reverse(name)}?{query}").status_code == 400


def test_an_account_is_shut_and_opened_by_commands():
    browser = admin_of()
    account = make_account(domain=sales(), name="shop")
    page = browser.get(reverse("account", args=[account.uuid])).text
    assert "cmk disable account" in page
    browser.post("/do/disableAccount", {"id": str(account.uuid), "lock": "true"})
    assert AsyncJob.objects.get().command == "disableAccount"

    Account.objects.filter(pk=account.pk).update(state="locked")
    assert "cmk enable account" in browser.get(reverse("account", args=[account.uuid])).text
    browser.post("/do/enableAccount", {"id": str(account.uuid)})
    account.refresh_from_db()
    assert account.state == "enabled"


def test_no_button_stands_where_it_would_be_refused():
    """One's own, and whoever is more powerful."""
    browser = root()
    me = User.objects.get(username="root")
    above = make_user(make_account(Role.ROOT_ADMIN, name="above"), is_superuser=True)
    for user in (me, above):
        assert "cmk " not in browser.get(reverse("user", args=[user.uuid])).text
        assert "cmk " not in browser.get(reverse("account", args=[user.account.uuid])).text


def test_of_anothers_key_only_the_beginning_is_shown():
    browser = root()
    user = make_user()
    key = make_api_key(user)
    page = browser.get(reverse("user", args=[user.uuid])).text
    assert f"{key.api_key[:8]}…" in page
    assert key.api_key not in page


def test_hostile_names_are_text():
    browser = root()
    user = make_user(make_account(name="<script>alert(1)</script>"), first_name="<script>alert(1)</script>")
    for page in ("/accounts/", "/users/", f"/users/{user.uuid}/", f"/accounts/{user.account.uuid}/"):
        assert "<script>alert" not in browser.get(page).text


PERSON = {"username": "newbie", "password": NEW, "firstname": "N", "lastname": "B", "email": "n@x.example"}


def test_an_account_is_made_with_its_first_user():
    answer = admin_of().post("/accounts/new/", {**PERSON, "account": "shop", "accounttype": "2", "domainid": ""})
    account = Account.objects.get(name="shop")
    assert answer["Location"] == reverse("account", args=[account.uuid])
    assert (account.role, account.domain, account.users.get().username) == (Role.DOMAIN_ADMIN, sales(), "newbie")


def test_nobody_makes_somebody_more_powerful():
    browser = admin_of()
    assert ">Root admin<" not in browser.get("/accounts/new/").text
    page = browser.post("/accounts/new/", {**PERSON, "accounttype": "1"})
    assert "Only a root admin makes root admins" in page.text
    assert not User.objects.filter(username="newbie").exists()


def test_a_user_is_made_of_the_account_on_the_page():
    browser = admin_of()
    account = make_account(domain=sales(), name="shop")
    answer = browser.post(reverse("new-user", args=[account.uuid]), {**PERSON, "account": "boss"})
    user = account.users.get()
    assert (user.username, answer["Location"]) == ("newbie", reverse("user", args=[user.uuid]))


def test_a_user_of_anothers_account_is_not_made():
    account = make_account(domain=make_domain(name="other"))
    assert admin_of().post(reverse("new-user", args=[account.uuid]), PERSON).status_code == 404
    assert not account.users.exists()


def test_a_refused_form_does_not_repeat_the_password():
    page = admin_of().post("/accounts/new/", {**PERSON, "email": "nonsense", "password": "a secret canary"})
    assert page.status_code == 200
    assert "canary" not in page.text
