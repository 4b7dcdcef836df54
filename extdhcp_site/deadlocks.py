"""Two transactions that wait for each other: the database ends one, which then has to be made anew."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import OperationalError, connection

T = TypeVar("T")

TIMES = 3
# MariaDB's ER_LOCK_DEADLOCK and ER_LOCK_WAIT_TIMEOUT.
_ENDED = (1213, 1205)
_chance = random.SystemRandom()


def repeated(write: Callable[[], T]) -> T:
    """The result of `write`, a whole transaction, made again when the database has ended it for another's sake.

    Inside of another transaction it is made once: that one is gone as well, and its owner makes it anew.
    """
    for _ in range(TIMES):
        try:
            return write()
        except OperationalError as error:
            if error.args[0] not in _ENDED or connection.in_atomic_block:
                raise
            time.sleep(_chance.uniform(0.02, 0.2))
    return write()
