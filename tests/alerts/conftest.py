from datetime import UTC, datetime

import pytest

from extdhcp_site.configuration.models import Setting
from tests.alerts.smtp import mail_server


@pytest.fixture
def now():
    return datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def post(db):
    """A mail server, and the settings that lead to it."""
    with mail_server() as server:
        for name, value in {
            "alert.email.addresses": "ops@example.com, night@example.com",
            "alert.email.sender": "cloud@example.com",
            "alert.smtp.host": "127.0.0.1",
            "alert.smtp.port": str(server.port),
            "alert.smtp.timeout": "2000",
        }.items():
            Setting.objects.create(name=name, value=value)
        yield server
