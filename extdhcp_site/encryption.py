"""A text column that is sealed at rest.

The seal (Fernet, by FIELD_ENCRYPTION_KEYS) covers the table, column and uuid of its row beside the
value, so that a ciphertext copied into another row does not open. A wrong key is an error: it never
yields the ciphertext as if it were the value.
"""

import json
from functools import cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import FieldError
from django.db import models


class CannotUnseal(Exception):
    """No key in FIELD_ENCRYPTION_KEYS opens the value, or it was sealed for another row."""


class Sealed(str):
    """Ciphertext, as the database holds it."""


@cache
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def _place(field: models.Field, row: models.Model) -> str:
    return f"{row._meta.db_table}.{field.column}:{row.uuid}"


def seal(row: models.Model, field_name: str, value: str) -> Sealed:
    """`value` sealed for this row and column, as `QuerySet.update()` wants it."""
    return seal_for(_place(row._meta.get_field(field_name), row), value)


def seal_for(place: str, value: str) -> Sealed:
    """`value` sealed for a place that is no column of ours: a word that `unseal_from` must be given again."""
    payload = json.dumps([place, value]).encode()
    return Sealed(_fernet(tuple(settings.FIELD_ENCRYPTION_KEYS)).encrypt(payload).decode())


def unseal(row: models.Model, field: models.Field, sealed: Sealed) -> str:
    return _open(tuple(settings.FIELD_ENCRYPTION_KEYS), _place(field, row), sealed, str(field))


def unseal_from(place: str, sealed: Sealed) -> str:
    """Raises CannotUnseal."""
    return _open(tuple(settings.FIELD_ENCRYPTION_KEYS), place, sealed, place)


def is_current(row: models.Model, field: models.Field, sealed: Sealed) -> bool:
    """Whether the first key, the one that seals, opens it for this row."""
    return is_current_at(_place(field, row), sealed)


def is_current_at(place: str, sealed: Sealed) -> bool:
    """The same of what `seal_for` gave."""
    try:
        _open((settings.FIELD_ENCRYPTION_KEYS[0],), place, sealed, place)
    except CannotUnseal:
        return False
    return True


def _open(keys: tuple[str, ...], place: str, sealed: Sealed, what: str) -> str:
    try:
        sealed_for, value = json.loads(_fernet(keys).decrypt(sealed.encode()))
    except InvalidToken:
        raise CannotUnseal(f"{what}: no key in FIELD_ENCRYPTION_KEYS opens it.") from None
    if sealed_for != place:
        raise CannotUnseal(f"{what}: the value was sealed for another row.")
    return value


def seal_anew(row: models.Model, field: models.Field, sealed: Sealed) -> Sealed:
    """The same value under the first key; `sealed` itself where it is so already. Raises CannotUnseal."""
    return sealed if is_current(row, field, sealed) else seal(row, field.name, unseal(row, field, sealed))


class _UnsealOnRead:
    """Opens the value when an attribute is read, not when a list is loaded."""

    def __init__(self, field: "EncryptedTextField") -> None:
        self.field = field

    def __get__(self, row: models.Model | None, owner: type | None = None) -> Any:
        if row is None:
            return self
        if self.field.attname not in row.__dict__:
            row.refresh_from_db(fields=[self.field.attname])
        value = row.__dict__[self.field.attname]
        return unseal(row, self.field, value) if isinstance(value, Sealed) else value

    def __set__(self, row: models.Model, value: str | None) -> None:
        row.__dict__[self.field.attname] = value


class EncryptedTextField(models.TextField):
    """Sealed on save; `update()` takes what `seal()` gives; only `isnull` can be asked of it."""

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        super().contribute_to_class(cls, name, private_only)
        setattr(cls, self.attname, _UnsealOnRead(self))

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Sealed | None:
        return None if value is None else Sealed(value)

    def pre_save(self, row: models.Model, add: bool) -> Sealed | None:
        value = row.__dict__[self.attname]
        if isinstance(value, Sealed):
            return self._for_saving(row, value)
        return None if value is None else seal(row, self.name, value)

    def _for_saving(self, row: models.Model, sealed: Sealed) -> Sealed:
        if len(settings.FIELD_ENCRYPTION_KEYS) == 1:
            return sealed
        # Read before rotate_keys came by and saved after it, a row would bring the old key's ciphertext back.
        try:
            return seal_anew(row, self, sealed)
        except CannotUnseal:
            return sealed

    def get_prep_value(self, value: Any) -> Any:
        if value is not None and not isinstance(value, Sealed):
            raise FieldError(f"{self}: a plain value would be stored in clear. Pass seal(row, {self.name!r}, value).")
        return None if value is None else str(value)

    def get_lookup(self, name: str) -> Any:
        if name != "isnull":
            raise FieldError(f"{self} is sealed and cannot be searched.")
        return super().get_lookup(name)
