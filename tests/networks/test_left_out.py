"""Commands of CloudStack's that this product leaves out on purpose."""

from pathlib import Path

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.api import registry
from networks.api.left_out import LEFT_OUT
from tests.api.client import Signer
from tests.factories import make_account

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = [(what, name) for what, names in LEFT_OUT.items() for name in names]


@pytest.mark.django_db
@pytest.mark.parametrize(("what", "name"), COMMANDS)
def test_a_command_that_is_left_out_says_so(what, name):
    """Not 432: that would say that the caller lacks a right."""
    reply = Signer.of(make_account(Role.ROOT_ADMIN)).call(name, id="x", zoneid="y")
    assert (reply.status, reply.key) == (431, f"{name.lower()}response")
    assert reply.text.startswith(f"{what} are not in this product.")


@pytest.mark.django_db
def test_nobody_unknown_is_told(client):
    answer = client.get("/client/api", {"command": "createSnapshot", "response": "json"})
    assert answer.status_code == 401


@pytest.mark.django_db
def test_none_of_them_is_listed():
    body = Signer.of(make_account()).call("listApis").body
    assert not {name for _, name in COMMANDS} & {api["name"] for api in body["api"]}


def test_none_of_them_exists():
    assert not {name.lower() for _, name in COMMANDS} & {command.name.lower() for command in registry.commands()}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_each_is_in_the_documentation(what):
    text = " ".join((ROOT / "docs" / "left-out.md").read_text().split())
    assert what in text
