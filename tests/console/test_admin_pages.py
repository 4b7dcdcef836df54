"""What holds for every page of the admin: who may open it, what it costs, what it never shows."""

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from extdhcp_site.accounts.models import ApiKey, Role
from extdhcp_site.configuration.models import SecretSetting, Setting
from extdhcp_site.encryption import EncryptedTextField
from extdhcp_site.jobs.models import AsyncJob
from networks.models import Endpoint, VirtualMachine
from tests import factories
from tests.console.worlds import MAKERS, client_of, make_ip_fetch, make_job, make_root

pytestmark = pytest.mark.django_db

OURS = ("accounts", "events", "jobs", "configuration", "locks", "networks", "configdrive", "ipfetch")
# Shown as part of its offering; on the console's page alone.
ELSEWHERE = {"offeredservice", "secretsetting"}
XSS = "<script>alert(1)</script>"
every_model = pytest.mark.parametrize("model", MAKERS, ids=lambda model: model.__name__)


def changelist(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def change_page(row: Model) -> str:
    key = row.name if isinstance(row, Setting) else row.pk
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[key])


def test_each_model_is_in_the_admin_and_in_these_tests():
    ours = {
        model
        for model in apps.get_models()
        if model._meta.app_label in OURS and model._meta.model_name not in ELSEWHERE and not model._meta.auto_created
    }
    assert ours <= set(admin.site._registry)
    assert set(admin.site._registry) == set(MAKERS)


@every_model
def test_a_list_takes_the_same_number_of_queries_whatever_its_length(model):
    client = client_of(make_root())

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(changelist(model)).status_code == 200
        return len(captured)

    for _ in range(3):
        MAKERS[model]()
    queries()  # fills the caches of permissions' content types
    few = queries()
    for _ in range(27):
        MAKERS[model]()

    assert queries() == few


@every_model
def test_lists_and_pages_open(model):
    row = MAKERS[model]()
    if isinstance(row, Setting):
        Setting.objects.filter(pk=row.pk).update(name="expunge.delay")
        row.refresh_from_db()
    client = client_of(make_root())

    assert client.get(changelist(model), {"q": "x"}).status_code == 200
    assert client.get(change_page(row)).status_code == 200
    add = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")
    assert client.get(add).status_code in (200, 403)


@every_model
def test_who_may_only_look_changes_nothing(model):
    row = MAKERS[model]()
    if isinstance(row, Setting):
        Setting.objects.filter(pk=row.pk).update(name="expunge.delay")
        row.refresh_from_db()
    user = make_root(is_superuser=False)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = client_of(user)
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}"

    assert client.get(change_page(row)).status_code == 200
    assert client.post(change_page(row), {}).status_code == 403
    assert client.post(reverse(f"{name}_add"), {}).status_code == 403
    assert client.post(reverse(f"{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    assert type(row).objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
def test_staff_of_other_accounts_gets_no_admin(role):
    user = factories.make_user(factories.make_account(role), is_staff=True, is_superuser=True)
    client = client_of(user)

    assert client.get("/admin/", follow=True).status_code == 403
    assert client.get(changelist(VirtualMachine)).status_code == 302
    assert client.post(changelist(VirtualMachine), {"action": "destroy"}).status_code == 302


def test_a_disabled_account_gets_no_admin():
    root = make_root()
    client = client_of(root)
    root.account.state = "disabled"
    root.account.save()

    assert client.get(changelist(VirtualMachine)).status_code == 302


def test_the_admin_has_no_log_in_page_of_its_own(client):
    response = client.get("/admin/networks/zone/", follow=True)

    assert response.redirect_chain[-1][0] == "/login/?next=/admin/networks/zone/"


CANARY = "canary-0f9d-secret"


def plant_canaries() -> list[Model]:
    """Every sealed column, with a secret of its own."""
    vm = factories.make_running_vm(password=f"{CANARY}-password", user_data=f"{CANARY}-user-data")
    make_ip_fetch(vm)
    return [
        vm,
        make_job(secret=f"{CANARY}-job"),
        factories.make_endpoint(transport="tcp", host="192.0.2.1", username="u", password=f"{CANARY}-endpoint"),
        ApiKey.objects.create(
            user=factories.make_user(), key="public-key", secret=f"{CANARY}-key", token_hash=f"{CANARY}-hash"
        ),
    ]


def test_no_admin_page_shows_a_secret():
    rows = plant_canaries()
    SecretSetting.objects.create(name="alert.email.password", value=f"{CANARY}-setting")
    sealed = {model for model in apps.get_models() for f in model._meta.fields if isinstance(f, EncryptedTextField)}
    assert sealed == {*map(type, rows), SecretSetting}, "a model with a sealed column has no canary"
    client = client_of(make_root())

    pages = [changelist(model) for model in MAKERS]
    pages += [f"{changelist(model)}?q={CANARY}" for model in MAKERS]
    pages += [change_page(row) for row in rows]
    pages += [change_page(nic) for nic in rows[0].nics.all()]
    for page in pages:
        # The search field repeats CANARY; each secret is longer.
        assert f"{CANARY}-" not in client.get(page).text, page


def test_a_secret_is_not_found_by_searching_for_it():
    plant_canaries()
    client = client_of(make_root())

    for model in (VirtualMachine, AsyncJob, Endpoint, ApiKey):
        assert client.get(changelist(model), {"q": CANARY}).context["cl"].result_count == 0


def test_what_people_typed_is_escaped():
    vm = factories.make_running_vm(display_name=XSS)
    offering = factories.make_network_offering(name=XSS)
    make_ip_fetch(vm, last_detail=XSS)
    factories.make_endpoint(last_error=XSS)
    client = client_of(make_root())

    for page in (
        *(changelist(model) for model in MAKERS),
        change_page(vm),
        change_page(offering),
        change_page(vm.nics.get().ip_fetch),
    ):
        assert XSS not in client.get(page).text, page


def test_pages_bring_no_inline_script_or_style():
    client = client_of(make_root())
    for page in ("/admin/", *(changelist(model) for model in MAKERS), "/admin/networks/network/add/"):
        text = client.get(page).text
        assert " style=" not in text, page
        assert "<style" not in text, page
        assert "<script>" not in text, page
