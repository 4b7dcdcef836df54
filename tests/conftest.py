"""The fixture `lab`: real hosts for every test that asks for them."""

import os

import pytest

from tests.lab import alone, bring_up, is_up, tear_down, why_not


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
