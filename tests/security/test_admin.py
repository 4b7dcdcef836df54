"""The administration by staff who may do less than its pages offer."""

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.db.models import Model
from django.urls import NoReverseMatch, reverse

from extdhcp_site.accounts.models import Account, ApiKey, Domain, Role, User
from extdhcp_site.configuration.models import Setting
from extdhcp_site.events.models import Event
from extdhcp_site.jobs.models import AsyncJob
from tests import factories
from tests.api.fuzz import rows
from tests.console.worlds import MAKERS, client_of, make_root

pytestmark = pytest.mark.django_db

every_model = pytest.mark.parametrize("model", MAKERS, ids=lambda model: model.__name__)


def page(model: type[Model], name: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def staff(*codenames: str) -> User:
    """Staff of a root admin's account with these permissions, "view" for all of that kind."""
    user = make_root(is_superuser=False)
    for codename in codenames:
        user.user_permissions.add(*Permission.objects.filter(codename__startswith=codename))
    return user


def contents() -> list[object]:
    """Every row of the tables that the admin shows."""
    return [list(model.objects.order_by("pk").values()) for model in MAKERS if model is not User]


def key_of(row: Model) -> object:
    if isinstance(row, Setting):
        Setting.objects.filter(pk=row.pk).update(name="expunge.delay")
        return "expunge.delay"
    return row.pk


@every_model
def test_staff_without_permissions_opens_and_changes_nothing(model):
    row = MAKERS[model]()
    key = key_of(row)
    client = client_of(staff())
    before, counted = contents(), rows()
    for url in (page(model, "changelist"), page(model, "add"), page(model, "change", key), page(model, "delete", key)):
        assert client.get(url).status_code == 403, url
        assert client.post(url, {"post": "yes", "value": "1"}).status_code == 403, url
    assert (contents(), rows()) == (before, counted)


def actions_of(model: type[Model]) -> list[str]:
    return [name for _, name, _ in admin.site._registry[model]._get_base_actions()]


@every_model
def test_who_may_only_look_does_nothing_to_many_at_once(model):
    """CVE-2026-4277, CVE-2026-4292 (Django): a forged POST of the admin wrote rows that its sender might only see;
    here no action of a list is done for who has no permission for it.
    """
    row = MAKERS[model]()
    client = client_of(staff("view_"))
    before, counted = contents(), rows()
    for name in actions_of(model):
        form = {"action": name, "_selected_action": [row.pk], "confirmed": "yes", "post": "yes"}
        assert client.post(page(model, "changelist"), form).status_code in (200, 302, 403), name
    assert (contents(), rows()) == (before, counted)


@every_model
def test_every_action_says_which_permission_it_takes(model):
    found = admin.site._registry[model]
    for function, name, _ in found._get_base_actions():
        assert getattr(function, "allowed_permissions", None), f"{model.__name__}: {name}"


@every_model
def test_a_superuser_who_is_disabled_has_no_way_in(model):
    """GHSA-32w2-6gm2-7766 and its kin (NetBox): a superuser's permissions counted although the user was not active."""
    root = make_root()
    client = client_of(root)
    User.objects.filter(pk=root.pk).update(is_active=False)
    assert client.get(page(model, "changelist")).status_code == 302
    root.refresh_from_db()
    assert not root.has_perm("networks.delete_network")
    assert not client.login(username=root.username, password="a long password")


def test_a_root_admin_who_is_no_staff_has_no_administration():
    client = client_of(make_root(is_staff=False))
    assert client.get("/admin/", follow=True).status_code == 403
    assert client.get(page(Setting, "changelist")).status_code == 302


@pytest.mark.parametrize("model", ["schedule", "success", "failure", "ormq"])
def test_the_task_queue_has_no_pages(model):
    """django-q2 #121: whoever might add a schedule ran any function of any module as the worker."""
    with pytest.raises(NoReverseMatch):
        reverse(f"admin:django_q_{model}_changelist")
    client = client_of(make_root())
    assert client.get(f"/admin/django_q/{model}/").status_code == 404
    form = {"func": "os.system", "args": "'true'"}
    assert client.post(f"/admin/django_q/{model}/add/", form).status_code == 404


class TestWhoIsMorePowerful:
    """CVE-2025-47713 (CloudStack): an administrator reset, or shut out, one who stood above."""

    @pytest.fixture
    def boss(self) -> User:
        return make_root(username="boss")

    @pytest.fixture
    def client(self):
        return client_of(staff("view_", "change_", "delete_", "add_"))

    def test_a_superusers_account_is_not_shut_or_lowered(self, boss, client):
        form = {"name": boss.account.name, "role": int(Role.USER), "state": "disabled"}
        assert client.post(page(Account, "change", boss.account.pk), form).status_code == 403
        assert client.post(page(Account, "delete", boss.account.pk), {"post": "yes"}).status_code == 403
        boss.account.refresh_from_db()
        assert (boss.account.role, boss.account.state) == (Role.ROOT_ADMIN, "enabled")

    def test_another_account_is(self, client):
        account = factories.make_account()
        assert client.post(page(Account, "change", account.pk), {"name": "new", "role": 0}).status_code == 302
        client.post(page(Account, "changelist"), {"action": "disable", "_selected_action": [account.pk]})
        account.refresh_from_db()
        assert account.name == "new"
        assert AsyncJob.objects.get().command == "disableAccount"

    @pytest.mark.parametrize("action", ["disable", "lock", "enable", "remove"])
    def test_nor_is_it_by_an_action(self, boss, client, action):
        form = {"action": action, "_selected_action": [boss.account.pk], "confirmed": "yes"}
        client.post(page(Account, "changelist"), form)
        assert not AsyncJob.objects.exists()
        assert not Event.objects.exists()

    @pytest.mark.parametrize("action", ["disable", "enable", "remove_second_factor"])
    def test_a_superuser_is_not_shut_out_by_an_action(self, boss, client, action):
        """CVE-2026-59799 (CloudStack): the second factor could be switched off without the privilege."""
        TOTP.activate(boss, "JBSWY3DP")
        client.post(page(User, "changelist"), {"action": action, "_selected_action": [boss.pk]})
        assert Authenticator.objects.filter(user=boss).exists()
        assert not AsyncJob.objects.exists()
        assert not Event.objects.exists()

    def test_a_superusers_keys_go_on(self, boss, client):
        factories.make_api_key(boss)
        key = ApiKey.objects.get(user=boss)
        client.post(page(ApiKey, "changelist"), {"action": "disable", "_selected_action": [key.pk]})
        selected = {"action": "delete_selected", "_selected_action": [key.pk], "post": "yes"}
        client.post(page(ApiKey, "changelist"), selected)
        assert client.post(page(ApiKey, "delete", key.pk), {"post": "yes"}).status_code == 403
        key.refresh_from_db()
        assert key.disabled_at is None

    def test_a_superuser_is_not_deleted(self, boss, client):
        client.post(
            page(User, "changelist"), {"action": "delete_selected", "_selected_action": [boss.pk], "post": "yes"}
        )
        assert client.post(page(User, "delete", boss.pk), {"post": "yes"}).status_code == 403
        assert client.get(reverse("admin:auth_user_password_change", args=[boss.pk])).status_code == 403
        assert User.objects.filter(pk=boss.pk).exists()

    def test_nobody_gets_power_by_a_users_page(self, boss, client):
        target = factories.make_user(first_name="before")
        group = Group.objects.create(name="operators")
        power = {"is_staff": "on", "is_superuser": "on", "groups": [group.pk], "account": boss.account.pk}
        power["user_permissions"] = list(Permission.objects.values_list("pk", flat=True))
        form = {"username": target.username, "first_name": "after", "is_active": "on", **power}

        assert client.post(page(User, "change", target.pk), form).status_code == 302

        changed = User.objects.get(pk=target.pk)
        assert (changed.first_name, changed.is_staff, changed.is_superuser) == ("after", False, False)
        assert changed.account == target.account
        assert (changed.groups.count(), changed.user_permissions.count()) == (0, 0)

    def test_nobody_gets_power_by_a_group(self, client):
        """Who is in a group and may change groups would give themselves everything."""
        group = Group.objects.create(name="operators")
        every = list(Permission.objects.values_list("pk", flat=True))
        answer = client.post(page(Group, "change", group.pk), {"name": "operators", "permissions": every})
        assert answer.status_code == 403
        assert client.post(page(Group, "add"), {"name": "new", "permissions": every}).status_code == 403
        assert client.post(page(Group, "delete", group.pk), {"post": "yes"}).status_code == 403
        assert not group.permissions.exists()


def test_what_never_changes_is_changed_by_nobody():
    row = factories.make_service_offering()
    form = {"name": "other", "cpus": 2, "mhz": 1, "memory_mib": 1}
    assert client_of(make_root()).post(page(type(row), "change", row.pk), form).status_code == 403
    assert type(row).objects.get(pk=row.pk).name == row.name


def test_a_domain_stays_where_it_is():
    """A domain's path decides who sees what."""
    row, other = factories.make_domain(), factories.make_domain()
    form = {"name": "other", "parent": other.pk, "path": "ROOT/", "network_domain": "vms.example"}
    client_of(make_root()).post(page(Domain, "change", row.pk), form)
    after = Domain.objects.get(pk=row.pk)
    assert (after.name, after.parent, after.path) == (row.name, row.parent, row.path)
    assert after.network_domain == "vms.example"


def test_a_superuser_makes_groups():
    client = client_of(make_root())
    assert client.post(page(Group, "add"), {"name": "operators", "permissions": []}).status_code == 302
    assert Group.objects.get().name == "operators"
