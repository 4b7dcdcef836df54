"""Seal every secret in the database anew with the first key of FIELD_ENCRYPTION_KEYS."""

import json
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from extdhcp_site.rotation import Result, SealedColumn, rotate, sealed_columns

MOST_NAMED = 100


class Command(BaseCommand):
    help = (
        "Seal every secret in the database anew with the first key of FIELD_ENCRYPTION_KEYS, while the server runs. "
        "Exit status 1 when there is a value that no key opens: then no key may be taken away."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print a JSON array with an object for each column.")

    def handle(self, *args: Any, **options: Any) -> None:
        counted = [(column, self._rotate(column)) for column in sealed_columns()]
        if options["json"]:
            shown = [_as_object(column, counts) for column, counts in counted]
            self.stdout.write(json.dumps(shown))
        else:
            for column, counts in counted:
                self.stdout.write(_as_line(column, counts))
        if lost := sum(counts[Result.NOT_OPENED] for _, counts in counted):
            raise CommandError(
                f"{lost} values were not opened. Put the key that sealed them back into FIELD_ENCRYPTION_KEYS, behind "
                "the first, and run this again; or enter those values anew. Until then remove no key."
            )

    def _rotate(self, column: SealedColumn) -> Counter[Result]:
        counts: Counter[Result] = Counter()
        for outcome in rotate(column):
            counts[outcome.result] += 1
            if outcome.result == Result.NOT_OPENED and counts[Result.NOT_OPENED] <= MOST_NAMED:
                self.stderr.write(f"{column.table}, row {outcome.row}: {outcome.reason}")
        return counts


def _as_object(column: SealedColumn, counts: Counter[Result]) -> dict[str, object]:
    names = (Result.SEALED_ANEW, Result.CURRENT, Result.NOT_OPENED)
    return {"table": column.table, "column": column.field.column, **{str(name): counts[name] for name in names}}


def _as_line(column: SealedColumn, counts: Counter[Result]) -> str:
    line = f"{column}: {counts[Result.SEALED_ANEW]} sealed anew, {counts[Result.CURRENT]} were already"
    return f"{line}, {counts[Result.NOT_OPENED]} NOT OPENED" if counts[Result.NOT_OPENED] else line
