"""Numbers that may be a moment old: counted once for all who see the same, and for nobody else."""

import pytest

from extdhcp_site.console import kept
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(kept, "SECONDS", 60.0)
    monkeypatch.setattr(kept, "_kept", kept.OrderedDict())
    calls = []

    @kept.kept
    def count(caller):
        calls.append(caller.account.pk)
        return len(calls)

    return count


def test_is_counted_once_for_an_account(counted):
    account = factories.make_account()
    first, second = (kept.Caller.of(factories.make_user(account)) for _ in range(2))

    assert (counted(first), counted(second), counted(first)) == (1, 1, 1)


def test_is_counted_anew_for_another(counted):
    assert (counted(factories.make_caller()), counted(factories.make_caller())) == (1, 2)


def test_is_counted_anew_after_a_while(counted, monkeypatch):
    caller = factories.make_caller()
    counted(caller)
    monkeypatch.setattr(kept, "SECONDS", 0.0)

    assert counted(caller) == 2


def test_what_is_kept_is_bounded(counted, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 2)
    callers = [factories.make_caller() for _ in range(3)]
    for caller in callers:
        counted(caller)

    assert len(kept._kept) == 2
    assert counted(callers[0]) == 4
