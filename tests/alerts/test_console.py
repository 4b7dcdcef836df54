"""The page of alerts, and their panel on the overview."""

from datetime import timedelta

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.alerts import services
from extdhcp_site.alerts.models import Alert, Kind
from tests.alerts.test_alerts import HOSTS, problem
from tests.factories import make_caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def root():
    return make_caller(Role.ROOT_ADMIN)


@pytest.fixture
def signed_in(client, root):
    client.force_login(root.user)
    return client


@pytest.fixture
def alert():
    services.raise_(problem(advice="Look at its power supply.", link="/vms/?host=1"), timezone.now())
    return Alert.objects.get()


def test_it_opens_on_those_that_wait_for_somebody(signed_in, alert, root):
    page = signed_in.get("/alerts/").content.decode()
    assert "Look at its power supply." in page
    assert 'href="/vms/?host=1"' in page
    services.acknowledge(alert, root, timezone.now())
    assert "kvm-1 is silent" not in signed_in.get("/alerts/").content.decode()
    assert root.user.username in signed_in.get("/alerts/?state=acknowledged").content.decode()


def test_resolved_ones(signed_in, alert):
    services.resolve(Kind.HOST, alert.subject_uuid, timezone.now())
    assert "kvm-1 is silent" in signed_in.get("/alerts/?state=resolved").content.decode()
    assert "kvm-1 is silent" not in signed_in.get("/alerts/?state=open").content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [("kind=ALERT.COMPUTE.HOST", True), ("kind=ALERT.MEMORY", False), ("q=kvm-1", True), ("q=kvm-2", False)],
)
def test_filters(signed_in, alert, query, found):
    assert ("kvm-1 is silent" in signed_in.get(f"/alerts/?{query}").content.decode()) == found


def test_the_button_is_the_command(signed_in, alert, root):
    assert f"cmk acknowledge alert id={alert.uuid}" in signed_in.get("/alerts/").content.decode()
    answer = signed_in.post("/do/acknowledgeAlert", {"id": str(alert.uuid), "_then": "/alerts/"})
    assert answer["Location"] == "/alerts/"
    assert Alert.objects.acknowledged().get().acknowledged_by == root.user.username


def test_the_bar_counts_what_is_open(signed_in, alert):
    assert 'Alerts <span class="count">1</span>' in signed_in.get("/events/").content.decode()


def test_names_are_escaped(signed_in):
    services.raise_(problem("<script>alert(1)</script>"), timezone.now())
    for path in ("/alerts/", "/"):
        assert "<script>alert" not in signed_in.get(path).content.decode()


@pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
def test_alerts_are_for_root_admins(client, alert, role):
    client.force_login(make_caller(role).user)
    assert client.get("/alerts/").status_code == 404
    overview = client.get("/").content.decode()
    assert "kvm-1 is silent" not in overview
    assert "/alerts/" not in overview


def test_the_overview_shows_some_and_says_how_many_more(signed_in):
    services.settle(HOSTS, [problem(f"kvm-{number}") for number in range(9)], timezone.now())
    assert "4 more" in signed_in.get("/").content.decode()


def test_the_number_of_queries_is_fixed(signed_in, django_assert_max_num_queries):
    now = timezone.now() - timedelta(hours=1)
    services.settle(HOSTS, [problem()], now)
    signed_in.get("/alerts/")
    with django_assert_max_num_queries(12) as few:
        signed_in.get("/alerts/")
    services.settle(HOSTS, [problem(f"kvm-{number}") for number in range(30)], now)
    with django_assert_max_num_queries(len(few)):
        signed_in.get("/alerts/")
