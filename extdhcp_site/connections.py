"""Database connections that outlive the piece of work that opened them."""

from django.db import connections

KEPT_SECONDS = 120


def keep_connections() -> None:
    """From now on this process keeps its connections, for a process that does small work again and again.

    A new one costs more than a small piece of work: SQLite reads the whole schema with it. Between two pieces
    `close_old_connections` closes one that is too old, or that the server has ended.
    """
    for connection in connections.all():
        # The dictionary that all threads' connections are made from.
        connection.settings_dict.update(CONN_MAX_AGE=KEPT_SECONDS, CONN_HEALTH_CHECKS=True)
