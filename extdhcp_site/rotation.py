"""Every sealed value anew under the first key, so that an older key can be taken away. See docs/keys.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from allauth.mfa.models import Authenticator
from django.apps import apps
from django.db import models, transaction

from extdhcp_site.accounts import second_factor
from extdhcp_site.encryption import CannotUnseal, EncryptedTextField, Sealed, is_current, seal_anew

ROWS_AT_ONCE = 200


class Result(StrEnum):
    """What became of one value."""

    SEALED_ANEW = "sealed_anew"
    CURRENT = "current"  # the first key had sealed it already
    GONE = "gone"  # it was deleted meanwhile
    NOT_OPENED = "not_opened"


@dataclass(frozen=True)
class SealedColumn:
    """A column of sealed values. A table's rows all have a `uuid`: a seal names it."""

    model: type[models.Model]
    field: models.Field

    @property
    def table(self) -> str:
        return str(self.model._meta.db_table)

    def rows(self) -> models.QuerySet:
        """Those that have a value; a manager of the model's own might hide some."""
        filled = self.model._base_manager.filter(**{f"{self.field.name}__isnull": False})
        return filled.only("uuid", self.field.name).order_by("pk")

    def is_current(self, row: models.Model) -> bool:
        """Whether the first key sealed it."""
        return is_current(row, self.field, self._sealed(row))

    def anew(self, row: models.Model) -> Any:
        """What the column is to hold. Raises CannotUnseal."""
        return seal_anew(row, self.field, self._sealed(row))

    def _sealed(self, row: models.Model) -> Sealed:
        return Sealed(row.__dict__[self.field.attname])

    def __str__(self) -> str:
        return f"{self.table}.{self.field.column}"


class SecondFactors(SealedColumn):
    """allauth's secrets of second factors, each in a JSON column."""

    def rows(self) -> models.QuerySet:
        return Authenticator.objects.filter(type__in=second_factor.SECRETS).only("type", "data").order_by("pk")

    def is_current(self, row: models.Model) -> bool:
        return second_factor.is_current(row)

    def anew(self, row: models.Model) -> dict[str, object]:
        return second_factor.sealed_anew(row)


@dataclass(frozen=True)
class Outcome:
    """`reason` says why a value was not opened; it quotes nothing of it."""

    row: int
    result: Result
    reason: str = ""


def sealed_columns() -> list[SealedColumn]:
    """Every sealed column of every table that there is, whichever app it belongs to."""
    found = [
        SealedColumn(model, field)
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
        for field in model._meta.local_fields
        if isinstance(field, EncryptedTextField)
    ]
    return sorted([*found, SecondFactors(Authenticator, Authenticator._meta.get_field("data"))], key=str)


def rotate(column: SealedColumn) -> Iterator[Outcome]:
    """Seal the column's values anew, each in a transaction of its own: the server may run meanwhile.

    One that is stopped can be run again: it passes over what is current.
    """
    last = 0
    while rows := list(column.rows().filter(pk__gt=last)[:ROWS_AT_ONCE]):
        for row in rows:
            yield _rotate(column, row)
        last = rows[-1].pk


def _rotate(column: SealedColumn, seen: models.Model) -> Outcome:
    if column.is_current(seen):
        return Outcome(seen.pk, Result.CURRENT)
    with transaction.atomic():
        # Read again under a lock: what somebody wrote since is not to be overwritten.
        row = column.rows().select_for_update().filter(pk=seen.pk).first()
        if row is None:
            return Outcome(seen.pk, Result.GONE)
        if column.is_current(row):
            return Outcome(row.pk, Result.CURRENT)
        try:
            anew = column.anew(row)
        except CannotUnseal as error:
            return Outcome(row.pk, Result.NOT_OPENED, str(error))
        column.model._base_manager.filter(pk=row.pk).update(**{column.field.name: anew})
    return Outcome(row.pk, Result.SEALED_ANEW)
