"""Answers that lists take straight from the database's columns: a page of hundreds of rows, and no object made.

Each field says from which columns it comes, in the words of every other answer, and these are the query too.
An object that is at hand is shown from its attributes, which are named as the columns are.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from django.db.models import (
    BooleanField,
    CharField,
    DateTimeField,
    F,
    Field,
    Func,
    JSONField,
    Lookup,
    Model,
    QuerySet,
    UUIDField,
)
from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.answers import Answer, Computed, Constant, Moment

Shown = dict[str, Any]
Column = Sequence[Any]


class ColumnAnswer(Answer):
    """An Answer whose fields name their columns.

    A field's `source` is a column, as in "account.domain.name", or an annotation of the rows. The method of a
    `Computed` field takes the values of the columns that it names; a uuid is a text to it. A `ColumnAnswer` with
    many=True shows the rows of another table that refer to this one, in the order of their `for_listing()`; a
    method may name it among its columns.
    """

    @classmethod
    def select(cls, rows: QuerySet, caller: Caller | None, key: str = "pk") -> list[tuple[Any, Shown]]:
        """The value of `key` and what is shown, of each of `rows` in their order: a query, and one a table more."""
        plan = _plan(cls, _sees_all(cls, caller))
        fields = [_field(rows, column) for column in plan.columns]
        wanted = [_as_it_is(column, field) for column, field in zip(plan.columns, fields, strict=True)]
        selected = rows.prefetch_related(None).values_list(key, *wanted)
        # Each join goes out from the rows, which are few: MariaDB would begin with the smallest table, and meet all.
        selected.query.promote_joins(selected.query.alias_map)
        found = list(selected)
        if not found:
            return []
        keys, *columns = zip(*found, strict=True)
        values = [_read(field, column) for field, column in zip(fields, columns, strict=True)]
        for source, answer in plan.related:
            by_key = _referring(rows.model, source, answer, keys, caller)
            values.append([by_key.get(key, []) for key in keys])
        return list(zip(keys, plan.shown(values, len(keys)), strict=True))

    def to_representation(self, instance: Model) -> Shown:
        plan = _plan(type(self), _sees_all(type(self), self.caller))
        values: list[Column] = [[_attribute(instance, column)] for column in plan.columns]
        for source, answer in plan.related:
            shown = answer(context=self.context)
            values.append([[shown.to_representation(each) for each in getattr(instance, source).all()]])
        return plan.shown(values, 1)[0]


def _referring(
    model: type[Model], source: str, answer: type[ColumnAnswer], keys: Column, caller: Caller | None
) -> dict[Any, list[Shown]]:
    """What is shown of the rows that refer to those of `keys`, by key."""
    relation: Any = model._meta.get_field(source)
    rows = relation.related_model._default_manager.for_listing().filter(Among(relation.field.name, keys))
    by_key: dict[Any, list[Shown]] = {}
    for key, shown in answer.select(rows, caller, key=relation.field.attname):
        by_key.setdefault(key, []).append(shown)
    return by_key


class Among(Lookup):
    """The condition that a column of numbers has one of these, of which there is one at least.

    `__in` takes longer to handle hundreds of parameters than the database takes to find the rows.
    """

    prepare_rhs = False

    def __init__(self, column: str, numbers: Iterable[int]) -> None:
        super().__init__(F(column), ",".join(str(int(number)) for number in numbers))

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Sequence[Any]]:
        column, parameters = self.process_lhs(compiler, connection)
        return f"{column} IN ({self.rhs})", parameters


# From columns to what is shown ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How an answer's fields are made from the values of `columns`, and of `related` after them.

    All rows of a field at once, rather than all fields of a row: for hundreds of rows that is a fraction of the time.
    """

    columns: tuple[str, ...]
    related: tuple[tuple[str, type[ColumnAnswer]], ...]
    # By field: what makes it, None for what is shown as it is; and the places of its arguments among the values.
    fields: dict[str, tuple[Callable[..., Any] | None, tuple[int, ...]]]
    may_be_empty: frozenset[str]

    def shown(self, values: Sequence[Column], rows: int) -> list[Shown]:
        columns = {
            name: _made(make, [values[place] for place in places], rows) for name, (make, places) in self.fields.items()
        }
        missing = {name: column.count(None) + column.count("") for name, column in columns.items()}
        missing |= {name: columns[name].count(None) for name in self.may_be_empty}
        there = {name: column for name, column in columns.items() if missing[name] < rows}
        shown = [dict(zip(there, row, strict=True)) for row in zip(*there.values(), strict=True)]
        for name in there:
            if missing[name]:
                self._leave_out(name, shown)
        return shown

    def _leave_out(self, name: str, shown: list[Shown]) -> None:
        for row in shown:
            if row[name] is None or (row[name] == "" and name not in self.may_be_empty):
                del row[name]


def _made(make: Callable[..., Any] | None, arguments: list[Column], rows: int) -> Column:
    if make is None:
        return arguments[0]
    return list(map(make, *arguments)) if arguments else [make()] * rows


@cache
def _plan(answer: type[ColumnAnswer], sees_all: bool) -> _Plan:
    hidden = () if sees_all else answer.for_root
    fields = {name: field for name, field in answer._declared_fields.items() if name not in hidden}
    related = {field.source or name: type(field.child) for name, field in fields.items() if _is_related(field)}
    sources = {name: _sources(name, field) for name, field in fields.items()}
    columns = dict.fromkeys(source for each in sources.values() for source in each if source not in related)
    place = {source: number for number, source in enumerate([*columns, *related])}
    return _Plan(
        columns=tuple(columns),
        related=tuple(related.items()),
        fields={
            name: (_maker(answer, name, field), tuple(place[source] for source in sources[name]))
            for name, field in fields.items()
        },
        may_be_empty=frozenset(name for name, field in fields.items() if getattr(field, "allow_blank", False)),
    )


def _is_related(field: serializers.Field) -> bool:
    return isinstance(field, serializers.ListSerializer)


def _sources(name: str, field: serializers.Field) -> tuple[str, ...]:
    match field:
        case Constant():
            return ()
        case Computed():
            return field.columns
        case _:
            return (field.source or name,)


def _maker(answer: type[ColumnAnswer], name: str, field: serializers.Field) -> Callable[..., Any] | None:
    match field:
        case Constant():
            return lambda: field.value
        case Computed():
            return getattr(answer, f"get_{name}")
        case Moment():
            return lambda at: None if at is None else field.to_representation(at)
        case _:
            return None


def _sees_all(answer: type[ColumnAnswer], caller: Caller | None) -> bool:
    return not answer.for_root or caller is None or caller.is_root


# Columns ------------------------------------------------------------------------------------------------

# How the database keeps what Django would make objects of, one by one: for a page that is most of the time.
_READERS: dict[type[Field], Callable[[Any], Any]] = {
    BooleanField: bool,
    DateTimeField: lambda at: (datetime.fromisoformat(at) if isinstance(at, str) else at).replace(tzinfo=UTC),
    JSONField: lambda text: [] if text == "[]" else json.loads(text),
    # 32 digits, where the database has no such type.
    UUIDField: lambda it: it if "-" in it else f"{it[:8]}-{it[8:12]}-{it[12:16]}-{it[16:20]}-{it[20:]}",
}


def _field(rows: QuerySet, column: str) -> Field:
    if column in rows.query.annotations:
        return rows.query.annotations[column].output_field
    *way, name = column.split(".")
    model: Any = rows.model
    for step in way:
        model = model._meta.get_field(step).related_model
    return model._meta.get_field(name)


def _as_it_is(column: str, field: Field) -> str | Func:
    """What to select so that neither Django nor, for the sign before it, Python's sqlite3 goes by the column's type."""
    lookup = column.replace(".", "__")
    if type(field) not in _READERS:
        return lookup
    return Func(F(lookup), template="+%(expressions)s", output_field=CharField())


def _read(field: Field, column: Column) -> Column:
    read = _READERS.get(type(field))
    if read is None:
        return column
    # Each value once: most of what is joined is the same in many rows.
    known = {value: read(value) for value in set(column) if value is not None}
    return list(map(known.get, column))


def _attribute(instance: Any, column: str) -> Any:
    for name in column.split("."):
        instance = getattr(instance, name)
        if instance is None:
            return None
    return str(instance) if isinstance(instance, UUID) else instance
