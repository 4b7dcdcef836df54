"""Many rows at a time, where what Django does for each of them costs more than the database does."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.fields.related import ForeignObject
from django.db.models.sql.compiler import SQLCompiler


def insert_all(rows: Sequence[models.Model]) -> None:
    """INSERT new rows of one model, which do not learn their keys.

    What `QuerySet.bulk_create` does. That asks the field anew how each value is prepared, and compiles an expression
    for it; most columns of a batch have one value.
    """
    if not rows:
        return
    meta, connection = rows[0]._meta, connections[DEFAULT_DB_ALIAS]
    quote = connection.ops.quote_name
    fields = [field for field in meta.local_concrete_fields if not field.primary_key]
    names, marks = ", ".join(quote(field.column) for field in fields), ", ".join(["%s"] * len(fields))
    columns = [_prepared(field, [getattr(row, field.attname) for row in rows], connection) for field in fields]
    with connection.cursor() as cursor:
        # Only our own names are put together here; every value is a parameter.
        statement = f"INSERT INTO {quote(meta.db_table)} ({names}) VALUES ({marks})"  # noqa: S608
        cursor.executemany(statement, list(zip(*columns, strict=True)))


def _prepared(field: models.Field, values: Iterable[Any], connection: BaseDatabaseWrapper) -> list[object]:
    """The values as the database takes them; all must be hashable."""
    prepare = functools.cache(functools.partial(field.get_db_prep_save, connection=connection))
    return [prepare(value) for value in values]


class Keys:
    """Primary keys, for the lookup `among`."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.listed = ", ".join(map(str, map(int, numbers)))


@models.Field.register_lookup
@ForeignObject.register_lookup
class Among(models.Lookup):
    """What `in` does, for `Keys`: thousands are not prepared and looked at one by one, nor parameters each."""

    lookup_name = "among"
    prepare_rhs = False

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> tuple[str, Any]:
        if not self.rhs.listed:
            raise EmptyResultSet
        column, parameters = self.process_lhs(compiler, connection)
        return f"{column} IN ({self.rhs.listed})", parameters
