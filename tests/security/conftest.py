"""Callers of each role."""

from tests.api.conftest import domain_admin, root, user  # noqa: F401 - fixtures
