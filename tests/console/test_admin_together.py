"""Two who edit the same thing in the admin, and one whose permission ends while a page is open."""

import html
import re

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import reverse

from extdhcp_site.accounts.models import Account, Role, User
from networks.models import Zone
from tests import factories
from tests.console.worlds import client_of, make_root

pytestmark = pytest.mark.django_db


class Tab:
    """A change page that somebody has open."""

    def __init__(self, row, client: Client | None = None) -> None:
        self.client = client or client_of(make_root())
        self.url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
        self.open()

    def open(self) -> None:
        self.read(self.client.get(self.url))

    def read(self, page) -> None:
        self.form = page.context["adminform"].form
        self.seen = html.unescape(re.search(r'name="_seen" value="([^"]*)"', page.text)[1])

    def save(self, **changes):
        """As a browser does: with every field as it stood when the page was opened."""
        kept = {name: value for name, value in self.form.initial.items() if value not in (None, False, [])}
        many = {name: [each.pk for each in value] for name, value in kept.items() if isinstance(value, list)}
        sent = {name: value for name, value in {**kept, **many, **changes}.items() if name in self.form.fields}
        page = self.client.post(self.url, {**sent, "_seen": self.seen})
        if page.status_code == 200:
            self.read(page)
        return page


@pytest.fixture
def zone() -> Zone:
    return factories.make_zone(name="before", dns1="192.0.2.1")


def test_the_second_is_told_and_overwrites_nothing(zone):
    first, second = Tab(zone), Tab(zone)
    assert first.save(name="of the first").status_code == 302

    page = second.save(dns1="192.0.2.9")

    assert "Somebody else has changed this since you opened it: Name is now of the first." in page.text
    zone.refresh_from_db()
    assert (zone.name, zone.dns1) == ("of the first", "192.0.2.1")


def test_who_was_told_and_saves_again_means_it(zone):
    first, second = Tab(zone), Tab(zone)
    first.save(name="of the first")
    assert second.save(name="of the second").status_code == 200

    assert second.save(name="of the second").status_code == 302
    zone.refresh_from_db()
    assert zone.name == "of the second"


def test_what_nobody_else_changed_is_saved(zone):
    tab = Tab(zone)
    assert tab.save(name="after").status_code == 302
    zone.refresh_from_db()
    assert zone.name == "after"


def test_a_group_is_watched_too():
    group, permission = Group.objects.create(name="operators"), Permission.objects.first()
    tab = Tab(group)
    group.permissions.add(permission)

    assert "Permissions" in tab.save(name="others").text
    assert Group.objects.get().permissions.get() == permission


def test_a_users_password_is_not_quoted():
    user = factories.make_user()
    tab = Tab(user)
    user.set_password("another long password")
    user.save()

    page = tab.save(first_name="Ann")

    assert "changed this since you opened it: Password. " in page.text
    assert user.password not in page.text


@pytest.mark.parametrize("seen", ["", "x", "[]", "{}", "null", '{"name": 1}', '{"nothing": "x"}'])
def test_a_page_that_does_not_say_what_it_showed_is_no_error(zone, seen):
    tab = Tab(zone)
    tab.seen = seen
    assert tab.save(name="after").status_code in (200, 302)


def test_a_hostile_name_is_quoted_as_text(zone):
    first, second = Tab(zone), Tab(zone)
    first.save(name="<script>alert(1)</script>")
    assert "<script>alert(1)" not in second.save(dns1="192.0.2.9").text


# A permission that ends half-way ----------------------------------------------------------------------


@pytest.fixture
def operator() -> User:
    user = make_root(is_superuser=False)
    user.user_permissions.add(*Permission.objects.filter(codename__in=("view_zone", "change_zone")))
    return user


def test_a_permission_taken_meanwhile(zone, operator):
    tab = Tab(zone, client_of(operator))
    operator.user_permissions.clear()
    answer = tab.client.post(tab.url, {"name": "after"})
    assert (answer.status_code, "Not for you" in answer.text) == (403, True)
    zone.refresh_from_db()
    assert zone.name == "before"


def test_the_admin_taken_meanwhile(zone, operator):
    tab = Tab(zone, client_of(operator))
    User.objects.update(is_staff=False)
    answer = tab.client.post(tab.url, {"name": "after"}, follow=True)
    assert (answer.status_code, "Not for you" in answer.text) == (403, True)
    zone.refresh_from_db()
    assert zone.name == "before"


def test_the_role_taken_meanwhile_ends_the_session(zone, operator):
    tab = Tab(zone, client_of(operator))
    Account.objects.filter(pk=operator.account_id).update(role=Role.DOMAIN_ADMIN)
    answer = tab.client.post(tab.url, {"name": "after"}, follow=True)
    assert answer.redirect_chain[-1][0].startswith("/login/")
    zone.refresh_from_db()
    assert zone.name == "before"


# Many rows ------------------------------------------------------------------------------------------


def test_a_big_table_is_not_counted_to_its_end(monkeypatch, django_assert_max_num_queries):
    monkeypatch.setattr("extdhcp_site.console.administration.MOST_COUNTED", 3)
    for _ in range(6):
        factories.make_zone()
    page = client_of(make_root()).get(reverse("admin:networks_zone_changelist"))
    assert page.context["cl"].result_count == 4
