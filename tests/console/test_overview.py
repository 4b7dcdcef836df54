"""Logging in, and the console's first page: what may not be on it. Its numbers are in test_dashboard.py."""

import re

import pytest

from extdhcp_site.events.models import Level
from networks.models import Nic
from networks.services.places import record_health
from tests import factories
from tests.console.worlds import client_of, make_event, make_ip_fetch, make_root

pytestmark = pytest.mark.django_db
XSS = "<script>alert(1)</script>"
INLINE_SCRIPT = re.compile(r"<script(?![^>]* src=)")


@pytest.fixture
def root():
    return client_of(make_root())


def test_a_visitor_logs_in_first(client):
    assert client.get("/", follow=True).redirect_chain[-1][0] == "/login/?next=/"


def test_log_in_and_out(client):
    user = factories.make_user()

    assert client.post("/login/", {"username": user.username, "password": "a long password"})["Location"] == "/"
    assert client.get("/").status_code == 200
    client.post("/logout/")
    assert client.get("/").status_code == 302


def test_a_disabled_account_does_not_log_in(client):
    user = factories.make_user(factories.make_account(state="disabled"))

    page = client.post("/login/", {"username": user.username, "password": "a long password"})

    # The same words as for a wrong password: nobody learns which accounts there are.
    assert "Please enter a correct username and password" in page.text
    assert client_of(user).get("/").status_code == 302


def test_logging_in_leads_to_this_server_only(client):
    user = factories.make_user()
    form = {"username": user.username, "password": "a long password", "next": "https://evil.example.org/"}

    assert client.post("/login/", form)["Location"] == "/"


def test_alerts_are_among_the_last_events(root):
    """The third failure in a row, as whoever asked the endpoint reports it."""
    endpoint = factories.make_host().endpoint
    for _ in range(3):
        record_health(endpoint, "No answer.")

    page = root.get("/").text

    assert f"{endpoint} does not answer: No answer." in page
    assert "ALERT.COMPUTE.HOST" in page


def test_what_people_and_guests_typed_is_escaped(root):
    vm = factories.make_running_vm(display_name=XSS)
    make_ip_fetch(vm, last_detail=XSS)
    make_event(text=XSS, level=Level.ERROR)
    Nic.objects.update(secondary_addresses=[XSS], address_source=XSS[:20])
    factories.make_host(endpoint=factories.make_endpoint(last_error=XSS))

    page = root.get("/").text

    assert XSS not in page
    assert not INLINE_SCRIPT.search(page)


def test_a_tenant_is_told_of_its_own_only():
    own, other = factories.make_account(), factories.make_account()
    for account in (own, other):
        make_event(account, f"event of {account.name}", for_operator="on host-secret")
    factories.make_host(name="host-secret")

    page = client_of(factories.make_user(own)).get("/").text

    assert f"event of {own.name}" in page
    for hidden in (other.name, "host-secret", "/admin/", 'id="endpoints-and-hosts"'):
        assert hidden not in page


def test_no_page_may_be_kept(root):
    assert root.get("/")["Cache-Control"] == "no-store"


def test_pages_bring_no_inline_script_or_style(root, client):
    make_ip_fetch()
    for page in (root.get("/").text, client.get("/login/").text):
        assert "style=" not in page
        assert not INLINE_SCRIPT.search(page)
