"""The page of settings."""

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.configuration.models import PAGE_SIZE, definitions, set_value
from tests.factories import make_caller

pytestmark = pytest.mark.django_db
CANARY = "settings-page-canary"


@pytest.fixture
def root():
    return make_caller(Role.ROOT_ADMIN)


@pytest.fixture
def signed_in(client, root):
    client.force_login(root.user)
    return client


def change(client, name: str, value: str, path: str = "/settings/"):
    return client.post(path, {"name": name, "value": value})


def test_every_setting_has_its_help_and_its_unit(signed_in):
    page = signed_in.get("/settings/").content.decode()
    for definition in definitions():
        assert f'id="{definition.name}"' in page
    assert "<b>180</b> seconds" in page


def test_a_change_in_place(signed_in, root):
    answer = change(signed_in, "default.page.size", "20", "/settings/?q=page")
    assert answer["Location"] == "/settings/?q=page#default.page.size"
    assert PAGE_SIZE.get() == 20
    page = signed_in.get("/settings/?q=page.size").content.decode()
    assert f"Default: 500. Changed by {root.user.username}" in page


def test_who_changed_what(signed_in, root):
    change(signed_in, "default.page.size", "20")
    assert "default.page.size: 500 to 20" in signed_in.get("/settings/").content.decode()


def test_a_wrong_value_stays_beside_what_is_wrong_with_it(signed_in):
    page = change(signed_in, "default.page.size", "many").content.decode()
    assert "default.page.size: must be a whole number above 0." in page
    assert 'value="many"' in page
    assert PAGE_SIZE.get() == 500


def test_a_text_can_be_emptied(signed_in, root):
    set_value("alert.smtp.host", "mail.example.com", root)
    change(signed_in, "alert.smtp.host", "")
    assert "mail.example.com to nothing" in signed_in.get("/settings/").content.decode()


def test_a_secret_is_never_shown(signed_in):
    change(signed_in, "alert.smtp.password", CANARY)
    for path in ("/settings/", "/events/", "/"):
        assert CANARY not in signed_in.get(path).content.decode(), path
    assert CANARY not in change(signed_in, "alert.smtp.password", f"{CANARY}\x00").content.decode()
    assert "Set, and secret" in signed_in.get("/settings/?q=smtp").content.decode()


def test_back_to_the_default(signed_in, root):
    set_value("default.page.size", "20", root)
    assert "cmk reset configuration name=default.page.size" in signed_in.get("/settings/").content.decode()
    signed_in.post("/do/resetConfiguration", {"name": "default.page.size", "_then": "/settings/"})
    assert PAGE_SIZE.get() == 500


def test_a_default_has_no_way_back_to_itself(signed_in):
    assert "resetConfiguration" not in signed_in.get("/settings/?q=default.page").content.decode()


@pytest.mark.parametrize(("word", "found"), [("throttling", False), ("PAGE.size", True), ("rows in a", True)])
def test_search(signed_in, word, found):
    page = signed_in.get("/settings/", {"q": word}).content.decode()
    assert ('id="default.page.size"' in page) == found


def test_a_search_that_finds_nothing_says_so(signed_in):
    assert "No setting is called like that" in signed_in.get("/settings/?q=<b>").content.decode()


@pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
def test_settings_are_for_root_admins(client, role):
    client.force_login(make_caller(role).user)
    assert client.get("/settings/").status_code == 404
    assert change(client, "default.page.size", "20").status_code == 404


def test_the_number_of_queries_is_fixed(signed_in, root, django_assert_max_num_queries):
    signed_in.get("/settings/")
    with django_assert_max_num_queries(10) as few:
        signed_in.get("/settings/")
    for number in range(20):
        set_value("default.page.size", str(100 + number), root)
    with django_assert_max_num_queries(len(few)):
        signed_in.get("/settings/")
