"""What the tests of the image share."""

import pytest

from tests.configdrive.drives import tool


@pytest.fixture
def run(tmp_path):
    """Run an independent tool in an empty directory and return its output as text."""
    return lambda name, *arguments: tool(tmp_path, name, *arguments).decode()
