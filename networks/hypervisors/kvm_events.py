"""What a libvirt host tells by itself: domain events, over a connection that does nothing else.

Events come in libvirt's event loop thread, which also answers every host's pings: nothing here may hold it up.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from networks.hypervisors.base import DeadlineExceeded, EndpointAddress, GuestEvent, call_within
from networks.hypervisors.kvm_connection import is_alive, libvirt_uri, open_connection, opening_failed, translate

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0

Tell = Callable[[str, GuestEvent], None]

# By the event and its detail. What is not here is followed by an event that is: SHUTDOWN by STOPPED; a guest
# that migrates is STARTED, paused, on the target and SUSPENDED on the source before it is RESUMED on the target
# and STOPPED on the source. Source: libvirt-domain.h, virDomainEventType and the details of each.
_OF_MIGRATION = {
    (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED): None,
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED): None,
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY): None,
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED): GuestEvent.MIGRATED,
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY): GuestEvent.MIGRATED,
    # Only from now on it runs on the target alone.
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED): GuestEvent.MIGRATED,
}
_OTHERWISE = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: GuestEvent.STARTED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: GuestEvent.STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: GuestEvent.STOPPED,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: GuestEvent.STOPPED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: GuestEvent.STOPPED,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: GuestEvent.STOPPED,
}


def lifecycle_event(event: int, detail: int) -> GuestEvent | None:
    """What libvirt's lifecycle event means to us; None for what is of no interest."""
    if (event, detail) in _OF_MIGRATION:
        return _OF_MIGRATION[event, detail]
    return _OTHERWISE.get(event)


def agent_event(state: int) -> GuestEvent | None:
    """A guest agent that leaves is of no interest: reading it says so."""
    connected = state == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED
    return GuestEvent.AGENT_CONNECTED if connected else None


class KvmWatch:
    """A host's events for as long as its connection lives, which is read-only: events need no more.

    One thread at a time uses the connection, and makes no second call while one waits: see `ConnectionPool`.
    A thread that comes back too late finds the watch closed, and ends the connection itself: libvirt keeps one
    that has callbacks open for ever, with nobody to hear.
    """

    def __init__(self, address: EndpointAddress, tell: Tell) -> None:
        self._address = address
        self._tell = tell
        self._lock = threading.Lock()
        self._closed = False
        self._subscription: _Subscription | None = None

    def __repr__(self) -> str:
        return f"<KvmWatch {libvirt_uri(self._address)}>"

    def open(self, deadline: float) -> None:
        """Raises EndpointUnreachable, CredentialsRefused, Refused."""
        try:
            call_within(deadline, self._subscribe)
        except BaseException:
            self.close()
            raise

    def _subscribe(self) -> None:
        try:
            connection = open_connection(self._address, libvirt.VIR_CONNECT_RO)
        except libvirt.libvirtError as error:
            raise opening_failed(error) from error
        subscription = _Subscription(connection)
        try:
            subscription.hear(libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent)
            subscription.hear(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle)
        except libvirt.libvirtError as error:
            alive = is_alive(connection)
            subscription.end()
            raise translate(error, connected=alive) from error
        with self._lock:
            if not self._closed:
                self._subscription = subscription
                return
        subscription.end()

    def _on_agent(self, _connection: Any, domain: Any, state: int, _reason: int, _data: object) -> None:
        self._on_event(domain, agent_event(state))

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _data: object) -> None:
        self._on_event(domain, lifecycle_event(event, detail))

    def _on_event(self, domain: Any, event: GuestEvent | None) -> None:
        if event is None:
            return
        try:
            # libvirt's client writes it, from sixteen bytes: lower case, whatever the host sent.
            self._tell(domain.UUIDString(), event)
        except Exception:  # libvirt's loop goes on
            log.exception("An event of %r could not be told.", self)

    def is_alive(self) -> bool:
        # Found out by libvirt's event loop, from a closed socket or pings without an answer.
        subscription = self._subscription
        return subscription is not None and is_alive(subscription.connection)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(DeadlineExceeded):
                call_within(time.monotonic() + CLOSE_SECONDS, subscription.end)


class _Subscription:
    """A connection and the numbers of its callbacks."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._callbacks: list[int] = []

    def hear(self, event_id: int, callback: Callable[..., None]) -> None:
        self._callbacks.append(self.connection.domainEventRegisterAny(None, event_id, callback, None))

    def end(self) -> None:
        """Asks the host, so it blocks. Without a connection that lives it fails, and leaves nothing behind as well."""
        for callback in self._callbacks:
            with contextlib.suppress(libvirt.libvirtError):
                self.connection.domainEventDeregisterAny(callback)
        with contextlib.suppress(libvirt.libvirtError):
            self.connection.close()
