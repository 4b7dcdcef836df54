"""What every page of the console has: roles, a place in the menu, a form that is a command."""

import pytest
from django.http import HttpResponse

from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN
from extdhcp_site.console import pages
from tests import factories
from tests.console.worlds import client_of, make_root

pytestmark = pytest.mark.django_db


def test_a_page_without_roles_cannot_be_registered():
    with pytest.raises(TypeError, match="roles"):
        pages.page("x/", name="x", roles=[])


def test_a_name_is_given_once():
    with pytest.raises(TypeError, match="already"):
        pages.page("x/", name="overview", roles=EVERYBODY)


def test_who_is_not_logged_in_is_led_to_the_log_in(client):
    for it in pages.registered():
        if "<" not in it.route:
            response = client.get(f"/{it.route}")
            assert response.status_code == 302
            assert response["Location"].startswith("/login/")


def test_a_page_is_not_there_for_other_roles(rf):
    it = pages.Page("x/", "x", ROOT_ADMIN, lambda request, caller: HttpResponse(), None, "x")
    request = rf.get("/x/")
    request.user = factories.make_user()

    with pytest.raises(pages.Http404):
        pages._guarded(it)(request)


def test_the_menu_offers_what_the_role_may_open():
    user = Caller.of(factories.make_user())
    offered = {entry.url_name for entry in pages.menu_of(user, "overview")}

    for it in pages.registered():
        assert (it.name in offered) == bool(it.menu and Role.USER in it.roles)


# Buttons


@pytest.fixture
def root():
    return client_of(make_root())


def test_a_button_carries_out_its_command_and_comes_back(root):
    response = root.post("/do/createSSHKeyPair", {"name": "k", "_then": "/?a=b", "_label": "Make"}, follow=True)

    assert response.redirect_chain == [("/?a=b", 302)]
    assert "Make: done." in response.text


def test_a_refusal_is_said_on_the_page_with_the_button(root):
    response = root.post("/do/createSSHKeyPair", {"_then": "/"}, follow=True)

    assert "missing parameter name" in response.text


@pytest.mark.parametrize(
    "then",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "overview",
        "vm",
        "/\x00",
        "/a\r\nb",
    ],
)
def test_a_button_leads_nowhere_else(root, then):
    assert root.post("/do/createSSHKeyPair", {"name": "k", "_then": then})["Location"] == "/"


def test_what_is_shown_once_is_on_a_page_that_is_not_kept(root):
    response = root.post("/do/createSSHKeyPair", {"name": "k", "_show": "1"})

    assert "PRIVATE KEY" in response.text
    assert response["Cache-Control"] == "no-store"


def test_a_command_of_another_role_is_not_there():
    client = client_of(factories.make_user())

    assert "does not exist or is not available" in client.post("/do/createZone", {"_then": "/"}, follow=True).text


def test_a_button_needs_the_pages_token(root):
    root.handler.enforce_csrf_checks = True

    assert root.post("/do/createSSHKeyPair", {"name": "k"}).status_code == 403


def test_a_link_changes_nothing(root):
    assert root.get("/do/createSSHKeyPair").status_code == 405


def test_who_is_not_logged_in_changes_nothing(client):
    response = client.post("/do/createSSHKeyPair", {"name": "k", "_then": "/x/"})

    assert response["Location"] == "/login/?next=/x/"
