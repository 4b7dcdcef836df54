"""News for clients that wait, without a database connection for each of them.

One thread a process asks the database, twice a second, for all who wait in it, and only while somebody does.
Who waits has a thread of the web server's and nothing else: neither a connection nor a turn.
"""

import queue
import select
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connections
from django.utils import timezone
from rest_framework import status
from rest_framework.exceptions import APIException, AuthenticationFailed
from rest_framework.request import Request

from extdhcp_site.accounts.backends import AccountBackend
from extdhcp_site.accounts.models import ApiKey, Caller, User
from extdhcp_site.turns import TURN

log = structlog.get_logger(__name__)

ASKED_EVERY = 0.5
# Seconds for a piece of news: who takes longer to read it is hung up on, and may come again.
SENT_WITHIN = 30.0

A = TypeVar("A")
N = TypeVar("N")


class TooManyWaiting(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "No place is left where a client of your account may wait. Ask again in a few seconds."
    # Retry-After, in seconds.
    wait = 5


@dataclass(frozen=True)
class Ticket:
    """What let a client in: an API key, or a log-in. It is looked at again for as long as the client waits."""

    user_id: int
    key_id: int | None
    session_key: str | None
    session_hash: str

    @classmethod
    def of(cls, request: Request) -> "Ticket":
        user: User = request.user
        if isinstance(request.auth, ApiKey):
            return cls(user.pk, request.auth.pk, None, "")
        return cls(user.pk, None, request.session.session_key, user.get_session_auth_hash())


def holders(tickets: Collection[Ticket]) -> dict[Ticket, Caller]:
    """Who may come in by each ticket now; one that is missing lets nobody in any more. Three queries at most."""
    keys = ApiKey.objects.usable().in_bulk({ticket.key_id for ticket in tickets} - {None})
    found = {ticket: keys[ticket.key_id].user for ticket in tickets if ticket.key_id in keys}
    logged_in = {ticket for ticket in tickets if ticket.key_id is None}
    sessions = Session.objects.filter(
        session_key__in={ticket.session_key for ticket in logged_in}, expire_date__gt=timezone.now()
    )
    going_on = set(sessions.values_list("session_key", flat=True))
    users = User.objects.select_related("account__domain").in_bulk({ticket.user_id for ticket in logged_in})
    for ticket in logged_in:
        user = users.get(ticket.user_id)
        # The hash changes with the password: Django ends the log-ins of before.
        if (
            user
            and ticket.session_key in going_on
            and AccountBackend().user_can_authenticate(user)
            and user.get_session_auth_hash() == ticket.session_hash
        ):
            found[ticket] = user
    return {ticket: Caller.of(user) for ticket, user in found.items()}


class Look(Protocol[A, N]):
    """Asks the database for all who wait for such: what each is to be told; who is left out goes on waiting."""

    def __call__(self, waiters: Sequence["Waiter[A, N]"]) -> Mapping["Waiter[A, N]", list[N]]: ...


class Waiter(Generic[A, N]):
    """A client that waits for what `look` finds.

    `about` is for `look`, to tell them apart and to remember what each was told.
    """

    def __init__(self, room: "Room", request: Request, caller: Caller, look: Look[A, N], about: A) -> None:
        self.ticket, self.caller, self.look, self.about = Ticket.of(request), caller, look, about
        self._room, self._turn, self._socket = room, request.META.get(TURN), request.META.get("gunicorn.socket")
        if self._socket:
            self._socket.settimeout(SENT_WITHIN)
        # None: waits no longer.
        self._news: queue.SimpleQueue[list[N] | None] = queue.SimpleQueue()

    def news(self, seconds: float) -> list[N]:
        """What was found, [] when nothing was in so many seconds. What the thread holds of the database is let go.

        Raises AuthenticationFailed once the caller may not come in any more, or has become another: may see other
        things than when they came.
        """
        self._hold_nothing()
        self._room.ask_for_all()
        try:
            found = self._news.get(timeout=seconds)
        except queue.Empty:
            return []
        if found is None:
            raise AuthenticationFailed("You may not wait for this any longer.")
        return found

    def leave(self) -> None:
        self._room.leave(self)

    @property
    def has_read_all(self) -> bool:
        return self._news.empty()

    @property
    def has_hung_up(self) -> bool:
        """Whether the client is gone, as far as the web server lets us see; a write would tell half a minute later."""
        if self._socket is None:
            return False
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLRDHUP)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return True  # closed on this side meanwhile

    def tell(self, found: list[N] | None) -> None:
        self._news.put(found)

    def _hold_nothing(self) -> None:
        if self._turn:
            self._turn.end()
        # What the thread has opened since.
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()


class Room:
    """Everybody who waits in this process, and the one thread that asks for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: set[Waiter[Any, Any]] = set()
        self._thread: threading.Thread | None = None

    def enter(self, request: Request, caller: Caller, look: Look[A, N], about: A) -> Waiter[A, N]:
        """Raises TooManyWaiting. Whoever has entered must leave."""
        waiter = Waiter(self, request, caller, look, about)
        with self._lock:
            own = sum(other.caller.account.pk == caller.account.pk for other in self._inside)
            # No account takes more places than it leaves to all others.
            if own >= settings.LIVE_CLIENTS - len(self._inside):
                raise TooManyWaiting
            self._inside.add(waiter)
        return waiter

    def leave(self, waiter: Waiter[Any, Any]) -> None:
        with self._lock:
            self._inside.discard(waiter)

    def ask_for_all(self) -> None:
        """Start the thread, unless it is at work."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._ask_on, name="live", daemon=True)
                self._thread.start()

    def _ask_on(self) -> None:
        try:
            while waiters := self._everybody():
                try:
                    _ask(waiters)
                except Exception:
                    log.exception("Asking for those who wait failed; it is tried again.")
                    connections.close_all()
                time.sleep(ASKED_EVERY)
        finally:
            connections.close_all()

    def _everybody(self) -> list[Waiter[Any, Any]]:
        with self._lock:
            if not self._inside:
                # Under the lock: whoever comes next starts another thread.
                self._thread = None
            return list(self._inside)


def _ask(waiters: Sequence[Waiter[Any, Any]]) -> None:
    allowed = holders({waiter.ticket for waiter in waiters})
    still_here = []
    for waiter in waiters:
        if allowed.get(waiter.ticket) != waiter.caller or waiter.has_hung_up:
            waiter.tell(None)
        elif waiter.has_read_all:  # for a slow reader nothing piles up
            still_here.append(waiter)
    for look in {waiter.look for waiter in still_here}:
        for waiter, found in look([waiter for waiter in still_here if waiter.look is look]).items():
            waiter.tell(found)


room = Room()
