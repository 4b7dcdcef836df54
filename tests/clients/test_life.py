"""Deploy to address to destroy, as docs/api.md shows it for each client."""

import re

import pytest

from tests.clients import environments
from tests.clients.clients import each
from tests.clients.programs import Outcome, Program

STARTS = {
    "cs": Program(environments.own, "cs", on_page=True),
    "libcloud": Program(environments.libcloud, "Apache Libcloud", on_page=True),
    "csclient": Program(environments.csclient, "csclient", on_page=True),
    "ansible": Program(environments.ansible, "Ansible", on_page=True),
}


@each(STARTS)
def test_a_vm_from_deploy_to_address_to_destroy(client: str, outcome: Outcome, programs):
    assert outcome.status == 0, outcome.text
    assert re.search(rf"from-{client} has 192\.168\.\d+\.\d+", outcome.printed), outcome.text
    left = programs.client_of("maria")("listVirtualMachines", name=f"from-{client}").get("virtualmachine", [])
    assert not [vm for vm in left if vm["state"] != "Destroyed"]


@pytest.mark.program(Program(environments.own, "curl", on_page=True))
def test_requests_signed_in_a_shell(outcome: Outcome):
    assert outcome.status == 0, outcome.text
    assert '{"listserviceofferingsresponse":{"count":3,' in outcome.printed, outcome.text
    assert "errorcode" not in outcome.printed
