"""Callers of each role, and commands that exist only here."""

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.api import registry
from tests.api.client import Signer
from tests.factories import make_account, make_domain


@pytest.fixture
def user(db) -> Signer:
    return Signer.of(make_account(domain=make_domain()))


@pytest.fixture
def domain_admin(db) -> Signer:
    return Signer.of(make_account(Role.DOMAIN_ADMIN, make_domain()))


@pytest.fixture
def root(db) -> Signer:
    return Signer.of(make_account(Role.ROOT_ADMIN))


@pytest.fixture
def own_commands(monkeypatch):
    """Commands that a test declares are gone after it."""
    monkeypatch.setattr(registry, "_commands", dict(registry._commands))
