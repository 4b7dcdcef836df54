"""A small cloud with ids and secrets that are known beforehand, to throw requests at.

Each request is undone afterwards, so that every one meets the same cloud.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Model

from extdhcp_site.accounts.models import ApiKey, Caller, Role
from extdhcp_site.api.parameters import ObjectField, ObjectListField, Params
from extdhcp_site.encryption import seal
from extdhcp_site.jobs.models import AsyncJob
from networks.models import Endpoint, VirtualMachine
from tests.api.client import Signer
from tests.api.examples import EXAMPLES
from tests.factories import make_account, make_domain

# In the order of their names: what a request is made of is decided when tests are collected, before there are rows.
MODELS = sorted(EXAMPLES, key=lambda model: model.__name__)
OURS = {"extdhcp_site", "networks", "configdrive", "ipfetch"}
CANARY = "canary-8d1f2b64"


def own_id(model: type[Model]) -> str:
    """The id of the one that belongs to the user among the callers."""
    return str(UUID(int=(1 << 120) + 2 * MODELS.index(model)))


def others_id(model: type[Model]) -> str:
    return str(UUID(int=(1 << 120) + 2 * MODELS.index(model) + 1))


IDS = [make_id(model) for model in MODELS for make_id in (own_id, others_id)]
NO_ID = str(UUID(int=7 << 120))


def ids_of(model: type[Model]) -> list[str]:
    """One's own, another's and none of a model; of a model that no parameter names: any."""
    return [own_id(model), others_id(model), NO_ID] if model in MODELS else [*IDS, NO_ID]


def ids_for(params: type[Params], caller: Caller) -> dict[str, list[str]]:
    """What to try for each parameter that is a reference."""
    return {
        name: ids_of(field.queryset_for(caller).model)
        for name, field in params.declared().items()
        if isinstance(field, ObjectField | ObjectListField)
    }


@dataclass(frozen=True)
class Cloud:
    """`callers` in the order of their powers."""

    callers: list[Signer]
    secrets: frozenset[str]

    def leaks(self, text: str) -> list[str]:
        """The secrets that stand in `text`."""
        return [secret for secret in self.secrets if secret in text]


@contextmanager
def undone() -> Iterator[None]:
    """What happens inside leaves no trace in the database."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def make_cloud() -> Cloud:
    domain = make_domain()
    accounts = [make_account(role, domain) for role in (Role.USER, Role.DOMAIN_ADMIN)] + [make_account(Role.ROOT_ADMIN)]
    callers = [Signer.of(account) for account in accounts]
    other = make_account(domain=make_domain())
    for model in MODELS:
        for account, known_id in ((accounts[0], own_id(model)), (other, others_id(model))):
            row = EXAMPLES[model].make(account)
            type(row).objects.filter(pk=row.pk).update(uuid=known_id)
    return Cloud(callers, frozenset(_plant(callers)))


def _plant(callers: list[Signer]) -> Iterator[str]:
    """Secrets at every place that has one. What one may read back, as one's user data, is not among them."""
    yield from (settings.SECRET_KEY, *settings.FIELD_ENCRYPTION_KEYS)
    yield from ApiKey.objects.values_list("token_hash", flat=True)
    for caller in callers:
        yield from (caller.keys.secret_key, caller.keys.token)
    for vm in VirtualMachine.objects.all():
        yield _kept(vm, "password")
    for endpoint in Endpoint.objects.all():
        yield _kept(endpoint, "password")
    for job in AsyncJob.objects.exclude(user__in=[caller.user for caller in callers]):
        yield _kept(job, "secret")


def _kept(row: Model, column: str) -> str:
    secret = f"{CANARY}-{type(row).__name__}-{row.pk}"
    type(row).objects.filter(pk=row.pk).update(**{column: seal(row, column, secret)})
    return secret


def rows() -> dict[str, int]:
    """How many rows each of our tables has."""
    tables = sorted(model._meta.db_table for model in apps.get_models() if model.__module__.split(".")[0] in OURS)
    quoted = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT '{table}', COUNT(*) FROM {quoted(table)}" for table in tables))  # noqa: S608
        return dict(cursor.fetchall())
