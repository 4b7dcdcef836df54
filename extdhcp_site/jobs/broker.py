"""The queue's broker: a row is handed to a worker only if it is one of our tasks.

A signature alone is not enough: django-q unpickles what is signed and calls any importable name in
it. Here a payload is read by an unpickler that knows a few harmless classes, then its function is
looked up in the list of tasks; what does not pass is deleted and logged.
"""

import io
import pickle

import structlog
from django.db import InterfaceError, OperationalError, connections
from django_q import core_signing
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ

from extdhcp_site.jobs import tasks

log = structlog.get_logger(__name__)


class _PlainData(pickle.Unpickler):
    """Loads numbers, texts, lists and dates; refuses every other class."""

    ALLOWED = frozenset(
        {("datetime", "datetime"), ("datetime", "timezone"), ("datetime", "timedelta"), ("uuid", "UUID")}
    )

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a task")
        return super().find_class(module, name)


class _PlainSerializer:
    @staticmethod
    def loads(data: bytes) -> object:
        return _PlainData(io.BytesIO(data)).load()


def is_one_of_ours(payload: str) -> bool:
    try:
        task = core_signing.loads(payload, key=Conf.SECRET_KEY, salt=Conf.PREFIX, serializer=_PlainSerializer)
    except Exception:  # signature, compression, pickle: whatever it is that cannot be read, it is not ours
        return False
    # A hook is one more importable name that a worker would call.
    return isinstance(task, dict) and tasks.is_allowed(task.get("func")) and not task.get("hook")


class AllowListBroker(ORM):
    # Only the process that polls does so, and it forks none that would inherit its connection.
    _polls = False

    def dequeue(self):
        self._polls = True
        return [row for row in self._dequeue() if self._accept(*row)]

    def _dequeue(self) -> list[tuple[int, str]]:
        connection = connections[Conf.ORM]
        was_open = connection.connection is not None
        try:
            return super().dequeue() or []
        except (OperationalError, InterfaceError):
            if not was_open or connection.in_atomic_block:
                raise
            # The server may have ended the one that was kept. A new one that fails is an outage.
            connection.close()
            return super().dequeue() or []

    def get_connection(self, list_key: str | None = None):
        """Where the rows are. What polls keeps its connection: a new one for each look cost five times the look."""
        return OrmQ.objects.using(Conf.ORM) if self._polls else super().get_connection(list_key)

    def _accept(self, row_id: int, payload: str) -> bool:
        if is_one_of_ours(payload):
            return True
        log.error("A row in the task queue is not one of our tasks; deleted.", row=row_id)
        self.delete(row_id)
        return False
