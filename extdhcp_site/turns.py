"""How many requests a web process works on at a time.

Its threads are many, since each client that waits for news has one. What a request at work may have is
a database connection, and these are few: MariaDB, as it is installed, lets 151 in. So a turn brings its connection,
which is kept for the next one.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from extdhcp_site.connections import Stock

TURN = "extdhcp.turn"
AT_A_TIME = 16

Content = Iterable[bytes]
Application = Callable[[dict[str, Any], Callable[..., Any]], Content]


class Turn:
    """A request's; `end` may be called before the request ends, and again."""

    def __init__(self, free: threading.Semaphore, stock: Stock) -> None:
        self._free: threading.Semaphore | None = free
        self._stock = stock
        free.acquire()
        self._own = stock.lend()

    def end(self) -> None:
        """In the thread that it began in."""
        free, self._free = self._free, None
        if free:
            self._stock.take_back(self._own)
            free.release()


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
