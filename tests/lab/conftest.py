"""The fixture `cloud`: a served product of its own for each module that asks for it."""

from collections.abc import Iterator

import pytest

from tests.lab import Lab
from tests.lab.cloud import Cloud, served


@pytest.fixture(scope="module")
def cloud(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with served(lab, tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud
