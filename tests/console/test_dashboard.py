"""The overview: each number leads to a list that has as many rows, and no number takes a query more for more rows."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from extdhcp_site.accounts.models import Role
from ipfetch.models import IpFetch, Outcome, Sweep
from networks.models import Endpoint, Host
from tests import factories
from tests.console.worlds import client_of, make_event, make_ip_fetch, make_root

pytestmark = pytest.mark.django_db

XSS = "<script>alert(1)</script>"
NUMBER = re.compile(r'<a[^>]* href="(/[^"#]*)"[^>]*>(?:<b>)?(\d+)(?:</b>)?')
TOTAL = re.compile(r'class="total">(\d+)')
State = IpFetch.State


@pytest.fixture
def root():
    return client_of(make_root())


def panel(client, slug: str) -> str:
    return " ".join(client.get("/", {"panel": slug}).text.split())


def numbers(page: str) -> dict[str, int]:
    """Each linked number by where it leads."""
    return {url.replace("&amp;", "&"): int(count) for url, count in NUMBER.findall(page)}


def make_fleet() -> None:
    """NICs of every state, reason, age and number of tries; hosts and endpoints in every condition."""
    now = timezone.now()
    for minutes, left, outcome in (
        (0, 10, Outcome.NONE_YET),
        (5, 7, Outcome.AGENT_ABSENT),
        (30, 4, Outcome.AGENT_ABSENT),
        (300, 1, Outcome.HOST_UNREACHABLE),
        (3000, 0, Outcome.NONE_YET),
        (3000, 0, ""),
    ):
        entered = {"entered_at": now - timedelta(minutes=minutes, seconds=1)}
        make_ip_fetch(factories.make_running_vm(), retries_left=left, last_outcome=outcome, **entered)
    for seconds in (3, 20, 45, 100, 1000, 5000):
        took = {"entered_at": now - timedelta(seconds=seconds), "found_at": now}
        make_ip_fetch(
            factories.make_running_vm(), state=State.FOUND, next_attempt_at=None, last_outcome=Outcome.FOUND, **took
        )
    make_ip_fetch(factories.make_running_vm(), state=State.EXHAUSTED, next_attempt_at=None, retries_left=0)
    make_ip_fetch(factories.make_running_vm(), state=State.PAUSED, next_attempt_at=None)
    factories.make_vm()
    factories.make_vm(state="Destroyed")
    factories.make_host(state="Down", endpoint=factories.make_endpoint(last_error="No answer.", failures=3))
    factories.make_host(state="Down", unavailable="It is in maintenance.")
    factories.make_host(resource_state="Disabled", endpoint=factories.make_endpoint(last_ok_at=now))
    Host.objects.filter(pk=factories.make_host().pk).update(reserved_memory=15 * factories.GIB)


@pytest.mark.parametrize(
    "slug", ["addresses", "waiting-for-an-address", "from-start-to-address", "endpoints-and-hosts"]
)
def test_each_number_leads_to_a_list_of_as_many(root, slug):
    make_fleet()

    found = numbers(panel(root, slug))

    assert sum(found.values()) > 5
    for url, count in found.items():
        assert int(TOTAL.findall(root.get(url).text)[0]) == count, url


@pytest.mark.parametrize("slug", ["addresses", "waiting-for-an-address", "from-start-to-address"])
def test_a_tenants_numbers_are_the_tenants(slug):
    make_fleet()
    account = factories.make_account()
    make_ip_fetch(factories.make_running_vm(account=account))
    make_ip_fetch(
        factories.make_running_vm(account=account), state=State.FOUND, next_attempt_at=None, found_at=timezone.now()
    )
    client = client_of(factories.make_user(account))

    found = numbers(panel(client, slug))

    assert set(found.values()) <= {0, 1, 2}
    for url, count in found.items():
        assert int(TOTAL.findall(client.get(url).text)[0]) == count, url


def test_what_waits_is_told_by_age_and_by_tries_left(root):
    make_fleet()

    page = panel(root, "waiting-for-an-address")

    assert numbers(page) == {
        "/nics/?state=waiting": 6,
        "/nics/?state=waiting&waited=under-1-min": 1,
        "/nics/?state=waiting&waited=1-min-to-10-min": 1,
        "/nics/?state=waiting&waited=10-min-to-1-h": 1,
        "/nics/?state=waiting&waited=1-h-to-1-d": 1,
        "/nics/?state=waiting&waited=over-1-d": 2,
        "/nics/?state=waiting&left=0": 2,
        "/nics/?state=waiting&left=1-2": 1,
        "/nics/?state=waiting&left=3-5": 1,
        "/nics/?state=waiting&left=6-9": 1,
        "/nics/?state=waiting&left=10-": 1,
    }


def test_nothing_waits(root):
    assert "None waits." in panel(root, "waiting-for-an-address")
    assert "No address is known yet." in panel(root, "from-start-to-address")


def test_sweeps_are_added_up_over_processes(root):
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=2)
    for _ in range(2):
        Sweep.objects.create(at=minute, batches=1, nics=50, found=40, failed=1, seconds=1, slowest=2.5)
    Sweep.objects.create(at=minute - timedelta(hours=2), batches=1, nics=7, found=7, failed=0, seconds=1, slowest=9)
    Sweep.objects.create(at=minute - timedelta(hours=9), batches=1, nics=9, found=7, failed=0, seconds=1, slowest=9)

    page = panel(root, "sweeps")

    for shown in ("<b>100</b> NICs asked", "<b>80</b>", "<b>2</b> batches failed", "<b>2.5 s</b>"):
        assert shown in page
    assert '"values": [7, 100]' in page


def test_an_endpoint_in_trouble_and_a_host_that_is_off_are_named(root):
    make_fleet()

    page = panel(root, "endpoints-and-hosts")

    assert "No answer. <small>3 failures in a row" in page
    assert "It is in maintenance." in page


@pytest.mark.parametrize("slug", ["endpoints-and-hosts", "sweeps"])
@pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
def test_hosts_and_sweeps_are_root_admins(role, slug):
    client = client_of(factories.make_user(factories.make_account(role)))

    assert client.get("/", {"panel": slug}).status_code == 404
    assert f'id="{slug}"' not in client.get("/").text


def test_a_panel_that_is_none_is_not_found(root):
    assert root.get("/", {"panel": XSS}).status_code == 404


def test_a_panel_is_fetched_without_its_page(root):
    page = root.get("/", {"panel": "addresses"}).text

    assert page.strip().startswith("<section")
    assert "<html" not in page


def test_what_hosts_say_is_escaped(root):
    factories.make_host(state="Down", unavailable=XSS, name=XSS, endpoint=factories.make_endpoint(last_error=XSS))

    page = root.get("/").text

    assert escape(XSS) in page
    assert XSS not in page


def test_the_page_takes_a_fixed_number_of_queries(root):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            root.get("/")
        return len(captured)

    make_fleet()
    make_event()
    few = queries()
    for _ in range(3):
        make_fleet()
        make_event()

    assert queries() == few
    assert Endpoint.objects.count() > 40
