"""/healthz and /readyz."""

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client


def test_the_process_is_up_without_a_database():
    assert Client().get("/healthz").status_code == 200


@pytest.mark.django_db
def test_ready_with_all_tables():
    assert Client().get("/readyz").json() == {"status": "ready"}


@pytest.mark.django_db
def test_not_ready_before_a_migration():
    newest = max(name for app, name in MigrationRecorder(connection).applied_migrations() if app == "events")
    MigrationRecorder(connection).record_unapplied("events", newest)
    response = Client().get("/readyz")
    assert (response.status_code, response.json()["reason"]) == (503, "Run: manage.py migrate")


@pytest.mark.django_db
def test_not_ready_without_a_database(monkeypatch):
    from django.db import OperationalError

    def broken(*args):
        raise OperationalError("secret host name")

    monkeypatch.setattr("extdhcp_site.api.health.MigrationExecutor", broken)
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert "secret" not in response.content.decode()
