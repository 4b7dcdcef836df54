"""`ansible-playbook` with the collection ngine_io.cloudstack. The playbooks assert for themselves."""

from tests.clients import environments
from tests.clients.clients import each
from tests.clients.programs import Outcome, Program

PLAYBOOKS = {
    "failures": Program(environments.ansible, "failures.yml"),
}


@each(PLAYBOOKS)
def test_playbook(client: str, outcome: Outcome):
    assert outcome.status == 0, outcome.text
