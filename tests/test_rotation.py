"""Changing the keys that seal secrets: nothing is lost on the way, and the old key is of no use after it."""

import io
import json
import threading
import time
from contextlib import suppress

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from cryptography.fernet import Fernet
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from extdhcp_site import encryption, rotation
from extdhcp_site.accounts import second_factor
from extdhcp_site.accounts.models import ApiKey
from extdhcp_site.configuration.models import SecretSetting
from extdhcp_site.encryption import CannotUnseal, EncryptedTextField, seal
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.rotation import Result, SealedColumn, rotate, sealed_columns
from networks.models import Endpoint, VirtualMachine
from tests.factories import make_api_key, make_endpoint, make_user, make_vm

pytestmark = pytest.mark.django_db

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def keys(settings):
    """Sets FIELD_ENCRYPTION_KEYS as a restart would; the old key alone to begin with."""

    def restart_with(*values: str) -> None:
        settings.FIELD_ENCRYPTION_KEYS = list(values)

    restart_with(OLD)
    return restart_with


def run_rotate_keys(*words: str) -> tuple[str, str]:
    """What it prints to stdout and stderr. Raises CommandError for exit status 1."""
    out, err = io.StringIO(), io.StringIO()
    call_command("rotate_keys", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def column_of(model, name: str) -> SealedColumn:
    return SealedColumn(model, model._meta.get_field(name))


def stored(row, name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name} FROM {row._meta.db_table} WHERE id = %s", [row.pk])  # noqa: S608
        return cursor.fetchone()[0]


def store(row, name: str, value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {row._meta.db_table} SET {name} = %s WHERE id = %s", [value, row.pk])  # noqa: S608


def opened(row, name: str) -> str | None:
    value = getattr(type(row).objects.get(pk=row.pk), name)
    return second_factor.unsealed(value["secret"]) if isinstance(row, Authenticator) else value


def make_secrets() -> dict[tuple[str, str], tuple]:
    """One value in each sealed column: (table, column) to (row, what was sealed)."""
    secret_key = make_api_key().secret_key
    vm = make_vm(user_data="dXNlciBkYXRh", password="pass-word-1")
    job = AsyncJob.objects.create(
        command="x", account=vm.account, user=make_user(), instance_type="x", instance_uuid=vm.uuid, secret="job-secret"
    )
    made = (
        (ApiKey.objects.get(), "secret", secret_key),
        (job, "secret", "job-secret"),
        (make_endpoint(password="endpoint-password"), "password", "endpoint-password"),
        (SecretSetting.objects.create(name="alert.email.password", value="mail-password"), "value", "mail-password"),
        (vm, "password", "pass-word-1"),
        (vm, "user_data", "dXNlciBkYXRh"),
        (TOTP.activate(make_user(), "JBSWY3DP").instance, "data", "JBSWY3DP"),
    )
    return {(row._meta.db_table, name): (row, value) for row, name, value in made}


# The drill -----------------------------------------------------------------------------------------


def test_the_whole_drill(keys):
    """docs/keys.md: the new key in front, restart, rotate, the old key away."""
    secrets = make_secrets()
    # A column that has no example above is a column that nobody tried.
    assert {(column.table, column.field.column) for column in sealed_columns()} == set(secrets)

    keys(NEW, OLD)
    for (_, name), (row, value) in secrets.items():
        assert opened(row, name) == value
    out, err = run_rotate_keys("--json")

    assert json.loads(out) == [
        {"table": table, "column": column, "sealed_anew": 1, "current": 0, "not_opened": 0}
        for table, column in sorted(secrets)
    ]
    assert err == ""
    keys(NEW)
    for (_, name), (row, value) in secrets.items():
        assert opened(row, name) == value
    keys(OLD)
    for (_, name), (row, _value) in secrets.items():
        with pytest.raises(CannotUnseal):
            opened(row, name)


def test_what_is_sealed_anew_is_bound_to_its_row_still(keys):
    one, other = make_endpoint(password="one"), make_endpoint(password="other")
    keys(NEW, OLD)
    run_rotate_keys()

    store(other, "password", stored(one, "password"))

    with pytest.raises(CannotUnseal, match="another row"):
        opened(other, "password")


def test_a_second_run_changes_nothing(keys):
    secrets = make_secrets()
    keys(NEW, OLD)
    run_rotate_keys()
    before = {place: stored(row, place[1]) for place, (row, _) in secrets.items()}

    out, _ = run_rotate_keys()

    assert {place: stored(row, place[1]) for place, (row, _) in secrets.items()} == before
    assert out.splitlines() == [f"{table}.{column}: 0 sealed anew, 1 were already" for table, column in sorted(secrets)]


def test_one_that_was_stopped_goes_on_where_it_ended(keys, monkeypatch):
    monkeypatch.setattr(rotation, "ROWS_AT_ONCE", 2)
    endpoints = [make_endpoint(password=f"pw-{number}") for number in range(5)]
    make_endpoint(password=None)
    keys(NEW, OLD)
    column = column_of(Endpoint, "password")
    stopped = rotate(column)
    assert [next(stopped).result for _ in range(3)] == [Result.SEALED_ANEW] * 3
    stopped.close()

    assert [outcome.result for outcome in rotate(column)] == [Result.CURRENT] * 3 + [Result.SEALED_ANEW] * 2

    keys(NEW)
    assert [opened(row, "password") for row in endpoints] == [f"pw-{number}" for number in range(5)]


def test_a_new_sealed_column_is_found_by_itself():
    """The registry is asked, not a list: the canary test's list must name the same columns."""
    declared = {
        f"{model._meta.db_table}.{field.column}"
        for model in apps.get_models()
        for field in model._meta.local_fields
        if isinstance(field, EncryptedTextField)
    }
    assert {str(column) for column in sealed_columns()} == {*declared, "mfa_authenticator.data"}


def test_recovery_codes_outlive_their_key(keys):
    user = make_user()
    codes = RecoveryCodes.activate(user).generate_codes()
    keys(NEW, OLD)
    run_rotate_keys()
    keys(NEW)
    assert RecoveryCodes(Authenticator.objects.get(user=user)).validate_code(codes[3])


def test_a_second_factor_that_no_key_opens_is_named(keys):
    TOTP.activate(make_user(), "JBSWY3DP")
    keys(NEW)
    err = io.StringIO()
    with pytest.raises(CommandError, match="1 values were not opened"):
        call_command("rotate_keys", stdout=io.StringIO(), stderr=err)
    assert "mfa_authenticator, row" in err.getvalue()


# While the server runs -----------------------------------------------------------------------------


def test_a_value_that_changes_meanwhile_stays_as_it_was_changed(keys):
    first, second, third = (make_endpoint(password=name) for name in ("one", "two", "three"))
    keys(NEW, OLD)
    rotating = rotate(column_of(Endpoint, "password"))
    # All three have been read by now.
    next(rotating)

    Endpoint.objects.filter(pk=second.pk).update(password=seal(second, "password", "changed"))
    Endpoint.objects.filter(pk=third.pk).update(password=None)

    assert [outcome.result for outcome in rotating] == [Result.CURRENT, Result.GONE]
    assert [opened(row, "password") for row in (first, second, third)] == ["one", "changed", None]


def test_a_value_that_an_old_process_writes_meanwhile_is_kept_too(keys):
    """One that was not restarted seals with the old key: its value is sealed anew, not the one read before."""
    first, second = make_endpoint(password="one"), make_endpoint(password="two")
    keys(OLD)
    by_old_process = seal(second, "password", "changed")
    keys(NEW, OLD)
    rotating = rotate(column_of(Endpoint, "password"))
    next(rotating)

    Endpoint.objects.filter(pk=second.pk).update(password=by_old_process)

    assert [outcome.result for outcome in rotating] == [Result.SEALED_ANEW]
    keys(NEW)
    assert [opened(row, "password") for row in (first, second)] == ["one", "changed"]


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_no_write_of_many_is_lost(keys, monkeypatch):
    def slowly(*arguments) -> bool:
        # Time for the other thread between what was read and what is written.
        time.sleep(0.002)
        return encryption.is_current(*arguments)

    monkeypatch.setattr(rotation, "is_current", slowly)
    endpoint = make_endpoint(password="0")
    keys(NEW, OLD)
    column = column_of(Endpoint, "password")
    done = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(1, 60):
                time.sleep(0.003)
                before = opened(endpoint, "password")
                assert before == str(number - 1), "what was written last is not there any more"
                # As a process would that still has the old key alone.
                sealed = Fernet(OLD).encrypt(
                    json.dumps([f"networks_endpoint.password:{endpoint.uuid}", str(number)]).encode()
                )
                Endpoint.objects.filter(pk=endpoint.pk).update(password=encryption.Sealed(sealed.decode()))
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    results = []
    while not done.is_set():
        results += [outcome.result for outcome in rotate(column)]
    writer.join()

    assert not failed
    assert Result.SEALED_ANEW in results
    list(rotate(column))
    keys(NEW)
    assert opened(endpoint, "password") == "59"


def test_a_row_read_before_and_saved_after_does_not_bring_the_old_key_back(keys):
    """The admin's forms and `save()` write every column, also those nobody changed."""
    endpoint = make_endpoint(password="one")
    keys(NEW, OLD)
    read_before = Endpoint.objects.get(pk=endpoint.pk)
    run_rotate_keys()

    read_before.name = "renamed.example"
    read_before.save()

    keys(NEW)
    assert opened(endpoint, "password") == "one"


def test_saving_a_row_whose_value_no_key_opens_leaves_it_as_it_is(keys):
    endpoint = make_endpoint(password="one")
    before = stored(endpoint, "password")
    keys(NEW, Fernet.generate_key().decode())

    row = Endpoint.objects.get(pk=endpoint.pk)
    row.save()

    assert stored(endpoint, "password") == before


# What no key opens ---------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_what_no_key_opens_is_named_and_the_rest_is_done(keys, as_json, capsys):
    lost, kept = make_endpoint(password="lost-secret"), make_vm(password="kept-secret")
    ciphertext = stored(lost, "password")
    keys(NEW)
    VirtualMachine.objects.filter(pk=kept.pk).update(password=seal(kept, "password", "kept-secret"))
    out, err = io.StringIO(), io.StringIO()

    with pytest.raises(CommandError, match="1 values were not opened") as caught:
        call_command("rotate_keys", *as_json, stdout=out, stderr=err)

    assert caught.value.returncode == 1
    line = f"networks_endpoint, row {lost.pk}: networks.Endpoint.password: no key in FIELD_ENCRYPTION_KEYS opens it."
    assert err.getvalue().strip() == line
    said = out.getvalue() + err.getvalue() + str(caught.value)
    assert not [value for value in ("lost-secret", "kept-secret", ciphertext, OLD, NEW) if value in said]
    assert stored(lost, "password") == ciphertext
    assert opened(kept, "password") == "kept-secret"
    if as_json:
        counts = {(found["table"], found["column"]): found["not_opened"] for found in json.loads(out.getvalue())}
        assert counts.pop(("networks_endpoint", "password")) == 1
        assert set(counts.values()) == {0}
    else:
        assert "networks_endpoint.password: 0 sealed anew, 0 were already, 1 NOT OPENED" in out.getvalue()


@pytest.mark.parametrize("front", [OLD, NEW], ids=["old", "new"])
def test_a_value_of_another_row_is_never_sealed_anew(keys, front):
    """Under the first key as under an older one: rotation must not make a copied ciphertext valid."""
    one, other = make_endpoint(password="one"), make_endpoint(password="other")
    store(other, "password", stored(one, "password"))
    keys(front, NEW if front == OLD else OLD)

    results = {outcome.row: outcome for outcome in rotate(column_of(Endpoint, "password"))}

    assert results[other.pk].result == Result.NOT_OPENED
    assert "another row" in results[other.pk].reason
    with suppress(CannotUnseal):
        raise AssertionError(opened(other, "password"))


@pytest.mark.parametrize("junk", ["", "junk", "é", "gAAAAA"])
def test_junk_in_a_column_is_named_too(keys, junk):
    endpoint = make_endpoint(password="one")
    store(endpoint, "password", junk)
    with pytest.raises(CommandError, match="not opened"):
        run_rotate_keys()
    assert stored(endpoint, "password") == junk
