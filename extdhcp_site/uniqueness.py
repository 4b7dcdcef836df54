"""What may be there once only, and is guarded by the database."""

import contextlib
from collections.abc import Iterator

from django.db import IntegrityError, connection, transaction

from extdhcp_site.errors import ApiError

# MariaDB's ER_DUP_ENTRY.
_DUPLICATE = 1062


@contextlib.contextmanager
def unless_taken(refusal: ApiError) -> Iterator[None]:
    """Write in here what must be unique; raises `refusal` when it is there already.

    The refusal ends the transaction around it, too. Any other IntegrityError stays what it is, such as that of a row
    that was to be referred to and has gone meanwhile.
    """
    try:
        with transaction.atomic(savepoint=False):
            yield
    except IntegrityError as error:
        if _is_duplicate(error):
            raise refusal from None
        raise


def _is_duplicate(error: IntegrityError) -> bool:
    if connection.vendor == "sqlite":
        return getattr(error.__cause__, "sqlite_errorname", "") in (
            "SQLITE_CONSTRAINT_UNIQUE",
            "SQLITE_CONSTRAINT_PRIMARYKEY",
        )
    return bool(error.args) and error.args[0] == _DUPLICATE
