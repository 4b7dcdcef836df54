import itertools

import pytest

from tests import factories


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch):
    """Each test counts from 1: the factories number VLANs too, and tests with many rows would use these up."""
    monkeypatch.setattr(factories, "_numbers", itertools.count(1))
