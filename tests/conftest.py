"""What tests of several rooms share: the lab's real hosts, a host in memory, and somebody to deploy on it."""

import os
from functools import partial

import pytest
from hypothesis import settings

from extdhcp_site.api import throttling
from tests.factories import make_caller
from tests.fakes import FakeHypervisor, hypervisors
from tests.lab import alone, bring_up, is_up, tear_down, why_not
from tests.running import run_command

# Machines are shared: how long an example takes says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def lab():
    """The running lab, brought up once a test run. One that was up before stays up."""
    if reason := why_not():
        # A machine of CI must be able to run it: there, a skipped lab would be a hole nobody sees.
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with alone():
        was_up = is_up()
        yield bring_up()
        if not was_up:
            tear_down()


@pytest.fixture(autouse=True)
def nobody_was_wrong_before():
    """What a web process has counted so far ends with each test."""
    throttling.forget()


@pytest.fixture
def fake():
    """A host in memory, which every endpoint leads to."""
    fake = FakeHypervisor()
    with hypervisors(fake):
        yield fake


@pytest.fixture
def caller():
    return make_caller()


@pytest.fixture
def manage(capsys):
    """Runs a command of manage.py."""
    return partial(run_command, capsys)
