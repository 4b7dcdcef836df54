"""How many requests a web process works on at a time.

Its threads are many, since each client that waits for news has one. What a request at work may have is
a database connection, and these are few: MariaDB, as it is installed, lets 151 in. So a turn brings its connection,
which is kept for the next one.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from extdhcp_site.connections import Stock

TURN = "extdhcp.turn"
AT_A_TIME = 16

Content = Iterable[bytes]
Application = Callable[[dict[str, Any], Callable[..., Any]], Content]


_of_thread = threading.local()


class Turn:
    """A request's, in the one thread that works on it; `end` may be called before the request ends, and again."""

    def __init__(self, free: threading.Semaphore, stock: Stock) -> None:
        self._free, self._stock = free, stock
        self.begin()
        _of_thread.turn = self

    def begin(self) -> None:
        self._free.acquire()
        try:
            self._own = self._stock.lend()
        except BaseException:
            self._free.release()
            raise
        self._going_on = True

    def end(self) -> bool:
        """False if it has ended already."""
        if not self._going_on:
            return False
        self._going_on = False
        self._stock.take_back(self._own)
        self._free.release()
        return True


@contextlib.contextmanager
def given_up() -> Iterator[None]:
    """For a sleep, outside of any transaction: meanwhile another request has the turn of the one at work here, if any.

    After it the request waits for a turn anew.
    """
    turn: Turn | None = getattr(_of_thread, "turn", None)
    if turn is None or not turn.end():
        yield
        return
    try:
        yield
    finally:
        turn.begin()


class InTurn:
    """WSGI middleware: requests beyond `at_a_time` wait until one of those at work is answered, or ends its turn."""

    def __init__(self, application: Application, at_a_time: int = AT_A_TIME) -> None:
        self._application, self._free = application, threading.BoundedSemaphore(at_a_time)
        self._stock = Stock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Content:
        turn = environ[TURN] = Turn(self._free, self._stock)
        try:
            return _Answered(self._application(environ, start_response), turn)
        except BaseException:
            turn.end()
            raise


class _Answered:
    def __init__(self, content: Content, turn: Turn) -> None:
        self._content, self._turn = content, turn

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._content)

    def close(self) -> None:
        try:
            if hasattr(self._content, "close"):
                self._content.close()
        finally:
            self._turn.end()
