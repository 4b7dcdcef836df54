"""Who calls the API in tests of the cloud's commands."""

import pytest

from extdhcp_site.accounts.models import Role
from tests.api.client import Signer
from tests.factories import make_account, make_domain


@pytest.fixture
def root() -> Signer:
    return Signer.of(make_account(Role.ROOT_ADMIN))


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account(domain=make_domain()))
