"""Each client from deploy to address to destroy, over lists of several pages, and in what goes wrong.

In one file, so that they share a server when tests are shared out among processes.
"""

import re

import pytest

from tests.clients import environments
from tests.clients.programs import Outcome, Program
from tests.seed import CROWD

# As docs/api.md shows it.
STARTS = {
    "cs": Program(environments.own, "cs", on_page=True),
    "libcloud": Program(environments.libcloud, "Apache Libcloud", on_page=True),
    "csclient": Program(environments.csclient, "csclient", on_page=True),
    "ansible": Program(environments.ansible, "Ansible", on_page=True),
    "rest": Program(environments.own, "A VM by REST", on_page=True),
}
SCRIPTS = {
    "cs": (environments.own, "scenario_cs.py"),
    "cs-3.4": (environments.cs34, "scenario_cs.py"),
    "libcloud": (environments.libcloud, "scenario_libcloud.py"),
    "csclient": (environments.csclient, "scenario_csclient.js"),
}
# They assert for themselves.
PLAYBOOKS = {
    "instance": Program(environments.ansible, "instance.yml"),
    "network": Program(environments.ansible, "network.yml", user="admin"),
    "addresses": Program(environments.ansible, "addresses.yml", ("-e", "address=192.168.255.3")),
    "inventory": Program(environments.ansible, "inventory.yml"),
    "failures": Program(environments.ansible, "failures.yml"),
    "pages": Program(environments.ansible, "pages.yml", user="crowd"),
}
# By the same playbooks, for a user of its own.
PLAYBOOKS_2 = {
    "instance": Program(environments.ansible_2, "instance.yml", user="olga", old_names=True),
    "network": Program(environments.ansible_2, "network.yml", ("-e", "vlan=301"), user="admin", old_names=True),
    "addresses": Program(
        environments.ansible_2, "addresses.yml", ("-e", "address=192.168.255.2"), user="olga", old_names=True
    ),
    "inventory": Program(environments.ansible_2, "inventory.yml", user="olga", old_names=True),
    "pages": Program(environments.ansible_2, "pages.yml", user="crowd", old_names=True),
}


def each(programs: dict[str, Program]) -> pytest.MarkDecorator:
    """One test for each, with its `program`."""
    marked = [pytest.param(name, marks=pytest.mark.program(program)) for name, program in programs.items()]
    return pytest.mark.parametrize("client", marked)


def scenario(name: str, user: str = "maria") -> pytest.MarkDecorator:
    """One test for each client that is called by scripts."""
    return each({client: Program(where, file, (name,), user) for client, (where, file) in SCRIPTS.items()})


@each(STARTS)
def test_a_vm_from_deploy_to_address_to_destroy(client: str, outcome: Outcome, programs):
    assert outcome.status == 0, outcome.text
    assert re.search(rf"from-{client} has 192\.168\.\d+\.\d+", outcome.printed), outcome.text
    vms = programs.client_of("maria")("listVirtualMachines").get("virtualmachine", [])
    assert {vm["state"] for vm in vms if vm["name"] == f"from-{client}"} <= {"Destroyed"}


@pytest.mark.program(Program(environments.own, "curl", on_page=True))
def test_requests_signed_in_a_shell(outcome: Outcome):
    assert outcome.status == 0, outcome.text
    assert '{"listserviceofferingsresponse":{"count":3,' in outcome.printed, outcome.text
    assert "errorcode" not in outcome.printed


@each(PLAYBOOKS)
def test_playbook(client: str, outcome: Outcome):
    assert outcome.status == 0, outcome.text


@each(PLAYBOOKS_2)
def test_playbook_with_collection_2(client: str, outcome: Outcome):
    assert outcome.status == 0, outcome.text


@scenario("pages", user="crowd")
def test_a_list_of_several_pages(client: str, outcome: Outcome):
    answer = outcome.answer
    assert answer["rows"] == answer["names"] == CROWD
    # What never asks for a page is given the first.
    assert answer.get("unpaged", 500) == 500


@scenario("wrong_key", user="nobody")
def test_a_wrong_key(client: str, outcome: Outcome):
    assert outcome.answer["code"] == 401


@scenario("unknown_command")
def test_an_unknown_command(client: str, outcome: Outcome):
    # csclient looks for errors under the command's own key; CloudStack does not answer there either.
    assert outcome.answer["code"] == (0 if client == "csclient" else 432)


@scenario("failing_job")
def test_a_job_that_fails_tells_why(client: str, outcome: Outcome):
    answer = outcome.answer
    assert answer.get("code", 533) == 533, answer["text"]
    assert answer["text"].startswith("No host has room for too-large-")
