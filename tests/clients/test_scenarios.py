"""Lists of several pages, and what goes wrong, as scripts that call a client meet it."""

from tests.clients.clients import scenario
from tests.clients.programs import Outcome
from tests.seed import CROWD


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
