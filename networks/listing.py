"""What the commands that list objects share: a table for people, a JSON array for programs."""

import json
from typing import Any, ClassVar

from django.core.management.base import CommandParser
from django.db.models import QuerySet
from django_rich.management import RichCommand
from rich.table import Table

from extdhcp_site.accounts.models import Account, Caller, Domain, Role, User
from extdhcp_site.api.answers import Answer


class ListObjects(RichCommand):
    """`answer` shows a row as the API does; `columns` are those of its fields that the table has."""

    answer: ClassVar[type[Answer]]
    columns: ClassVar[tuple[str, ...]]

    def rows(self) -> QuerySet:
        raise NotImplementedError

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print a JSON array of API objects.")

    def handle(self, *args: Any, **options: Any) -> None:
        shown = self.answer(self.rows(), many=True, context={"caller": _at_the_console()}).data
        if options["json"]:
            self.stdout.write(json.dumps(shown, default=str))
            return
        table = Table()
        for column in self.columns:
            # Folded, never cut: an address without its end is no address.
            table.add_column(column, overflow="fold")
        for fields in shown:
            table.add_row(*(str(fields.get(column, "")) for column in self.columns))
        self.console.print(table)


def _at_the_console() -> Caller:
    """Whoever may run manage.py holds the database and the keys: shown is what a root admin sees."""
    account = Account(name="console", domain=Domain.root(), role=Role.ROOT_ADMIN)
    return Caller(User(username="console", account=account), account, Role.ROOT_ADMIN, account.domain.path)
