"""What the admin's pages do with users and keys, and what becomes of forgotten sessions."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from extdhcp_site.accounts import upkeep
from extdhcp_site.accounts.models import Account, ApiKey, Domain, Role, User
from extdhcp_site.events.models import Event, EventType
from tests.accounts.conftest import PASSWORD
from tests.factories import make_account, make_api_key, make_domain, make_user

pytestmark = pytest.mark.django_db

NEW = "correct horse battery"


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(make_user(make_account(Role.ROOT_ADMIN), username="boss", is_staff=True, is_superuser=True))
    return client


def test_a_users_password_is_set_and_their_sessions_end(boss):
    user, theirs = make_user(), Client()
    theirs.force_login(user)
    assert theirs.get("/").status_code == 200

    page = reverse("admin:auth_user_password_change", args=[user.pk])
    assert boss.post(page, {"usable_password": "true", "password1": NEW, "password2": NEW}).status_code == 302

    assert User.objects.get(pk=user.pk).check_password(NEW)
    assert theirs.get("/").status_code == 302


def test_ones_own_password_is_changed_on_the_consoles_page(boss):
    form = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert boss.post(reverse("admin:password_change"), form)["Location"] == "/account/password/"
    assert User.objects.get(username="boss").check_password(PASSWORD)


def test_disabling_keys_is_told(boss):
    user = make_user()
    make_api_key(user)
    key = ApiKey.objects.get()
    form = {"action": "disable", "_selected_action": [key.pk]}

    boss.post(reverse("admin:accounts_apikey_changelist"), form)

    key.refresh_from_db()
    assert key.disabled_at
    assert (Event.objects.get().type, Event.objects.get().username) == (EventType.API_KEY_DISABLE, "boss")


def test_what_was_removed_is_not_there(boss):
    account = make_account(name="gone", state=Account.State.REMOVED)
    user = make_user(account, username="departed", removed_at=timezone.now(), is_active=False)
    domain = make_domain(name="former")
    Domain.objects.filter(pk=domain.pk).update(path=f"removed-{domain.uuid}/")
    for name, row, shown in (("account", account, "gone"), ("user", user, "departed"), ("domain", domain, "former")):
        assert shown not in boss.get(reverse(f"admin:accounts_{name}_changelist")).text
        assert boss.get(reverse(f"admin:accounts_{name}_change", args=[row.pk])).status_code == 302


def test_an_account_is_not_removed_by_a_word(boss):
    account = make_account(name="ann")
    page = reverse("admin:accounts_account_change", args=[account.pk])
    assert boss.post(page, {"name": "ann", "role": 0, "state": "removed"}).status_code == 302
    account.refresh_from_db()
    assert account.state == Account.State.ENABLED


def test_expired_sessions_are_forgotten(boss):
    Client().force_login(make_user())
    Session.objects.filter(pk=boss.session.session_key).update(expire_date=timezone.now() - timedelta(days=1))
    upkeep.forget_expired_sessions()
    assert Session.objects.count() == 1
