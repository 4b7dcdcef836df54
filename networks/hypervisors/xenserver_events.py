"""What a pool tells by itself: XenAPI's events, by a call that waits for them.

Source: XenAPI reference, class event. A pool has no event of its own for a guest agent: what the agent writes changes
the VM's guest metrics.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from networks.hypervisors.base import (
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    GuestEvent,
    HypervisorError,
    PowerState,
)
from networks.hypervisors.xenserver_mirror import Change, Mirror
from networks.hypervisors.xenserver_records import Vm
from networks.hypervisors.xenserver_session import SESSIONS, Session, Sessions

log = logging.getLogger(__name__)

WAIT_SECONDS = 30.0  # a pool that says nothing for so long is asked again, so that one that is dead is noticed
GRACE_SECONDS = 15.0
READ_SECONDS = 300.0  # for a pool that is read whole

Tell = Callable[[str, GuestEvent], None]


def events_of(change: Change) -> Iterator[tuple[str, GuestEvent]]:
    """What a change means to us, with the VM's UUID."""
    before, after = change.before, change.after
    if after is None or after.power is not PowerState.RUNNING:
        if before is not None and before.power is PowerState.RUNNING:
            yield before.uuid, GuestEvent.STOPPED
        return
    if before is None or before.power is not PowerState.RUNNING:
        yield after.uuid, GuestEvent.STARTED
    elif before.host != after.host:
        yield after.uuid, GuestEvent.MIGRATED
    if _has_more_to_tell(change, before):
        yield after.uuid, GuestEvent.AGENT_CONNECTED


def _has_more_to_tell(change: Change, before: Vm | None) -> bool:
    """Whether the agent came, or told addresses that it had not told."""
    now = change.guest_after
    if now is None or not (now.present and now.live):
        return False
    former = change.guest_before if before else None
    return former is None or not former.live or not former.present or bool(set(now.networks) - set(former.networks))


class XenWatch:
    """A pool's events for as long as its session lives. Lost once, it is not opened again: its owner does that."""

    def __init__(self, endpoint: EndpointAddress, tell: Tell, sessions: Sessions = SESSIONS) -> None:
        self._endpoint = endpoint
        self._tell = tell
        self._sessions = sessions
        self._mirror = Mirror()
        self._lock = threading.Lock()
        self._closed = False
        self._session: Session | None = None  # in which the call waits
        self._thread = threading.Thread(target=self._run, name="xenserver-events", daemon=True)

    def __repr__(self) -> str:
        return f"<XenWatch {self._endpoint.host}>"

    def open(self, deadline: float) -> None:
        """Raises EndpointUnreachable, CredentialsRefused, CertificateRefused."""
        with Session(self._endpoint, deadline, self._sessions) as session:
            session.pool()
            # A large pool takes longer: its thread goes on, and what happens until it has read it is not told.
            with contextlib.suppress(DeadlineExceeded):
                self._mirror.wait(session, 0.0)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    def close(self) -> None:
        """Nothing is told from now on, and the call that waits is ended, by ending its session."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            session.end()

    def _run(self) -> None:
        try:
            while not self._closed:
                for change in self._next():
                    self._report(change)
        except HypervisorError as error:
            if not self._closed:
                level = logging.INFO if isinstance(error, EndpointUnreachable) else logging.WARNING
                log.log(level, "%r has ended: %s", self, error)

    def _next(self) -> list[Change]:
        deadline = time.monotonic() + (WAIT_SECONDS + GRACE_SECONDS if self._mirror.is_read else READ_SECONDS)
        with Session(self._endpoint, deadline, self._sessions) as session:
            with self._lock:
                if self._closed:
                    return []
                self._session = session
            try:
                return self._mirror.wait(session, WAIT_SECONDS)
            finally:
                with self._lock:
                    self._session = None

    def _report(self, change: Change) -> None:
        for uuid, event in events_of(change):
            if self._closed:
                return
            try:
                self._tell(uuid, event)
            except Exception:  # who hears may fail, and hears the next
                log.exception("An event of %r could not be told.", self)
