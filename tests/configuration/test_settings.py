"""Settings: who changed what, what is secret, and the way back to the default."""

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.alerts.configuration import PASSWORD
from extdhcp_site.configuration.models import PAGE_SIZE, SecretSetting, Setting, definitions
from extdhcp_site.events.models import Event, EventType
from tests.api.client import Signer
from tests.factories import make_account

pytestmark = pytest.mark.django_db
CANARY = "k9-secret-canary"


@pytest.fixture
def root():
    return Signer.of(make_account(Role.ROOT_ADMIN))


def told() -> list[str]:
    changes = Event.objects.filter(type=EventType.CONFIGURATION_EDIT).order_by("pk")
    return list(changes.values_list("description", flat=True))


def test_events_have_the_old_value_and_the_new(root):
    root.call("updateConfiguration", name="default.page.size", value="20")
    root.call("updateConfiguration", name="alert.smtp.host", value="mail.example.com")
    root.call("updateConfiguration", name="alert.smtp.host", value="")
    assert told() == [
        "default.page.size: 500 to 20",
        "alert.smtp.host: nothing to mail.example.com",
        "alert.smtp.host: mail.example.com to nothing",
    ]
    assert {event.resource_name for event in Event.objects.filter(type=EventType.CONFIGURATION_EDIT)} == {
        "default.page.size",
        "alert.smtp.host",
    }


def test_reset_gives_the_default_again(root):
    root.call("updateConfiguration", name="default.page.size", value="20")
    shown = root.call("resetConfiguration", name="default.page.size").body["configuration"]
    assert (shown["value"], PAGE_SIZE.get()) == ("500", 500)
    assert told()[-1] == "default.page.size: 20 to 500, the default"
    assert not Setting.objects.filter(name="default.page.size").exists()


def test_reset_of_a_default_is_no_change(root):
    assert root.call("resetConfiguration", name="default.page.size").status == 200
    assert told() == []


def test_reset_of_what_there_is_not(root):
    assert root.call("resetConfiguration", name="no.such.setting").status == 431


def test_a_secret_is_known_to_the_server_alone(root):
    answer = root.call("updateConfiguration", name="alert.smtp.password", value=CANARY)
    listed = root.call("listConfigurations", name="alert.smtp.password")

    assert PASSWORD.get() == CANARY
    assert CANARY not in f"{answer.body}{listed.body}{told()}"
    assert "value" not in listed.body["configuration"][0]
    assert not Setting.objects.filter(name="alert.smtp.password").exists()
    stored = SecretSetting.objects.values_list("value", flat=True).get()
    assert CANARY not in stored


def test_a_secret_is_replaced_and_forgotten(root):
    for value in (CANARY, f"{CANARY}-2"):
        root.call("updateConfiguration", name="alert.smtp.password", value=value)
    assert PASSWORD.get() == f"{CANARY}-2"
    root.call("resetConfiguration", name="alert.smtp.password")
    assert PASSWORD.get() == ""
    assert CANARY not in str(told())


def test_every_setting_says_what_it_is_for():
    for definition in definitions():
        assert definition.help.endswith("."), definition.name
        assert definition.group, definition.name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alert.email.addresses", "ops@example.com, nobody"),
        ("alert.email.sender", "two words"),
        ("alert.smtp.port", "65536"),
        ("alert.smtp.timeout", "10"),
        ("cluster.memory.allocated.capacity.notificationthreshold", "75"),
        ("endpoint.url", "javascript:alert(1)"),
    ],
)
def test_wrong_values_are_refused(root, name, value):
    answer = root.call("updateConfiguration", name=name, value=value)
    assert answer.status == 431
    assert answer.body["errortext"].startswith(f"{name}: ")
