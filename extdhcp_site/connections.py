"""Database connections that outlive the piece of work that opened them.

A new one costs more than a small piece of work: SQLite reads the whole schema with it.
"""

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

KEPT_SECONDS = 120
_KEPT = {"CONN_MAX_AGE": KEPT_SECONDS, "CONN_HEALTH_CHECKS": True}


def keep_connections() -> None:
    """From now on this process keeps its connections, for a process that does small work again and again.

    Between two pieces `close_old_connections` closes one that is too old, or that the server has ended.
    """
    for connection in connections.all():
        # The dictionary that all threads' connections are made from.
        connection.settings_dict.update(_KEPT)


class Stock:
    """Connections that are lent to one thread after another: as many as were lately at work at a time."""

    def __init__(self) -> None:
        self._free: list[BaseDatabaseWrapper] = []

    def lend(self) -> BaseDatabaseWrapper:
        """Give this thread a connection, and return the one that was the thread's own, which goes to `take_back`."""
        own = connections[DEFAULT_DB_ALIAS]
        # The last one that came back: those that are not needed any more stay at the bottom.
        try:
            connections[DEFAULT_DB_ALIAS] = self._free.pop()
        except IndexError:
            connections[DEFAULT_DB_ALIAS] = _kept_copy(own)
        return own

    def take_back(self, own: BaseDatabaseWrapper) -> None:
        self._free.append(connections[DEFAULT_DB_ALIAS])
        connections[DEFAULT_DB_ALIAS] = own
        self._drop_one_too_old()

    def _drop_one_too_old(self) -> None:
        """The one that has waited longest, once it is too old."""
        try:
            longest = self._free.pop(0)
        except IndexError:
            return
        longest.close_if_unusable_or_obsolete()
        if longest.connection is not None:
            self._free.insert(0, longest)


def _kept_copy(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    copy = connection.copy()
    copy.settings_dict.update(_KEPT)
    # Any thread may use it, one at a time.
    copy.inc_thread_sharing()
    return copy
