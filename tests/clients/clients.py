"""What each client is run with, and the mark that has a test wait for its program."""

import pytest

from tests.clients import environments
from tests.clients.programs import Program

SCENARIOS = {
    "cs": (environments.own, "scenario_cs.py"),
    "cs-3.4": (environments.cs34, "scenario_cs.py"),
    "libcloud": (environments.libcloud, "scenario_libcloud.py"),
    "csclient": (environments.csclient, "scenario_csclient.js"),
}


def each(programs: dict[str, Program]) -> pytest.MarkDecorator:
    """One test for each client, with its `program`."""
    marked = [pytest.param(name, marks=pytest.mark.program(program)) for name, program in programs.items()]
    return pytest.mark.parametrize("client", marked)


def scenario(name: str, user: str = "maria") -> pytest.MarkDecorator:
    """One test for each client that is called by scripts."""
    return each({client: Program(where, file, (name,), user) for client, (where, file) in SCENARIOS.items()})
