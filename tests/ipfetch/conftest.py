import pytest
from django.utils import timezone

from ipfetch import sweeps


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture(autouse=True)
def no_minute_begun(monkeypatch):
    """What another test's batches have left would be written in this one."""
    monkeypatch.setattr(sweeps, "_open", None)
