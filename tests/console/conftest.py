import itertools

import pytest

from extdhcp_site.console import kept
from tests import factories


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch):
    """Each test counts from 1: the factories number VLANs too, and tests with many rows would use these up."""
    monkeypatch.setattr(factories, "_numbers", itertools.count(1))


@pytest.fixture(autouse=True)
def counted_each_time(monkeypatch):
    """Another test's numbers are not this one's."""
    monkeypatch.setattr(kept, "SECONDS", 0.0)
