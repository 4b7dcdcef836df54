"""CloudStack's commands for alerts, and ours."""

from datetime import timedelta

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.alerts import services
from extdhcp_site.alerts.models import Alert, Kind
from tests.alerts.test_alerts import problem
from tests.api.client import Signer
from tests.factories import make_account

pytestmark = pytest.mark.django_db


@pytest.fixture
def root():
    return Signer.of(make_account(Role.ROOT_ADMIN))


@pytest.fixture
def alert():
    services.raise_(problem(advice="Look at it."), timezone.now())
    return Alert.objects.get()


def test_list_alerts_has_cloudstacks_fields(root, alert):
    [shown] = root.call("listAlerts").body["alert"]
    assert shown["id"] == str(alert.uuid)
    assert (shown["type"], shown["name"], shown["description"]) == (7, "ALERT.COMPUTE.HOST", "kvm-1 is silent.")
    assert shown["sent"].endswith("+0000")
    assert (shown["state"], shown["resourcename"], shown["advice"]) == ("Open", "kvm-1", "Look at it.")


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"type": 7}, 1),
        ({"type": 0}, 0),
        ({"name": "ALERT.COMPUTE.HOST"}, 1),
        ({"name": "ALERT.MEMORY"}, 0),
        ({"state": "open"}, 1),
        ({"state": "Resolved"}, 0),
        ({"keyword": "kvm-1"}, 1),
        ({"keyword": "kvm-2"}, 0),
        ({"archived": "true"}, 0),
    ],
)
def test_list_alerts_narrows(root, alert, asked, count):
    assert len(root.call("listAlerts", **asked).body.get("alert", [])) == count


def test_what_has_not_lasted_long_enough_is_not_listed(root):
    services.raise_(problem(lasting=timedelta(minutes=3)), timezone.now())
    assert root.call("listAlerts").body == {}


def test_acknowledge(root, alert):
    shown = root.call("acknowledgeAlert", id=alert.uuid).body["alert"]
    assert shown["state"] == "Acknowledged"
    assert shown["acknowledgedby"]
    assert root.call("acknowledgeAlert", id=alert.uuid).status == 431


def test_archived_trouble_is_not_told_again(root, alert):
    root.call("archiveAlerts", ids=alert.uuid)
    services.raise_(problem(), timezone.now())
    assert root.call("listAlerts").body == {}
    assert len(root.call("listAlerts", archived="true").body["alert"]) == 1


def test_delete_needs_to_be_told_which(root, alert):
    assert root.call("deleteAlerts").status == 431
    root.call("deleteAlerts", ids=alert.uuid)
    assert not Alert.objects.exists()


def test_alert_types(root):
    shown = root.call("listAlertTypes").body["alerttype"]
    assert {"id": 0, "name": "ALERT.MEMORY", "description": "Memory is low"} in shown
    assert len(shown) == len(Kind)


@pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
def test_alerts_are_for_root_admins(role, alert):
    assert Signer.of(make_account(role)).call("listAlerts").status == 432
