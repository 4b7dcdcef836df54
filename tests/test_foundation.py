"""The rules of the ground floor: sealing, locks, and that each table can be migrated and administered."""

import pytest
from django.contrib import admin
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import IntegrityError, connection

from extdhcp_site.accounts.models import ApiKey
from extdhcp_site.encryption import CannotUnseal, seal
from extdhcp_site.locks import models as locks
from tests.factories import make_api_key

pytestmark = pytest.mark.django_db


def test_models_and_migrations_agree():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_a_sealed_value_opens_in_its_own_row_only():
    make_api_key()
    make_api_key()
    one, other = ApiKey.objects.all()
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM accounts_apikey WHERE id = %s", [one.pk])
        stored = cursor.fetchone()[0]
        cursor.execute("UPDATE accounts_apikey SET secret = %s WHERE id = %s", [stored, other.pk])

    assert one.secret not in stored
    with pytest.raises(CannotUnseal, match="another row"):
        _ = ApiKey.objects.get(pk=other.pk).secret


def test_a_sealed_value_without_its_key_is_an_error(settings):
    make_api_key()
    settings.FIELD_ENCRYPTION_KEYS = ["x" * 43 + "="]
    with pytest.raises(CannotUnseal, match="no key"):
        _ = ApiKey.objects.get().secret


def test_update_refuses_to_store_a_secret_in_clear():
    make_api_key()
    with pytest.raises(FieldError):
        ApiKey.objects.update(secret="in clear")


def test_update_takes_a_sealed_value():
    make_api_key()
    key = ApiKey.objects.get()
    ApiKey.objects.update(secret=seal(key, "secret", "new"))
    assert ApiKey.objects.get().secret == "new"


def test_a_lock_has_one_holder_until_it_gives_it_back():
    held = locks.acquire("pass", "one")
    assert held is not None
    assert locks.acquire("pass", "two") is None

    held.release()

    assert locks.acquire("pass", "two").token == held.token + 1


def test_a_late_holder_of_a_lock_is_refused():
    held = locks.acquire("pass", "one")
    locks.Lock.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert locks.acquire("pass", "two") is not None

    assert held.renew() is False


def test_an_empty_api_key_cannot_exist():
    make_api_key()
    with pytest.raises(IntegrityError):
        ApiKey.objects.update(key="")


def test_the_queue_has_no_admin_pages():
    names = {model._meta.app_label for model in admin.site._registry}
    assert "django_q" not in names
