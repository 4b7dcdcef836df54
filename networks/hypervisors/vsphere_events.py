"""What vSphere tells by itself: changes of its VMs, heard over a session that does nothing else."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from networks.hypervisors.base import DeadlineExceeded, EndpointAddress, GuestEvent, HypervisorError, PowerState
from networks.hypervisors.bounded import within
from networks.hypervisors.vsphere_errors import OutOfStep, SessionExpired
from networks.hypervisors.vsphere_machines import Machine
from networks.hypervisors.vsphere_mirror import Inventory, watch_all
from networks.hypervisors.vsphere_session import Session
from networks.hypervisors.vsphere_updates import Change, Updates

log = logging.getLogger(__name__)

PAGE = 200  # VMs an answer: nobody waits for the first, and a busy guest tells much
WAIT_SECONDS = 30.0
ANSWER_SECONDS = 60.0  # beyond that wait
READ_SECONDS = 300.0  # for a vCenter that tells of all its VMs
CLOSE_SECONDS = 5.0

Tell = Callable[[str, GuestEvent], None]


def events(before: Machine | None, after: Machine | None) -> Iterator[GuestEvent]:
    """What it means to us that a VM went from one state to the other; None is a VM that is not there."""
    ran = before is not None and before.power is PowerState.RUNNING
    if after is None or after.power is not PowerState.RUNNING:
        if ran:
            yield GuestEvent.STOPPED
        return
    if not ran or before is None:
        yield GuestEvent.STARTED
        before = Machine()
    elif before.host and before.host != after.host:
        yield GuestEvent.MIGRATED
    # Tools run for up to half a minute before they tell the first address: both are worth a look.
    if after.tools_run and (not before.tools_run or _tells_more(before, after)):
        yield GuestEvent.AGENT_CONNECTED


def _tells_more(before: Machine, after: Machine) -> bool:
    has_some = any(interface.addresses for interface in after.interfaces) or after.summary_ip is not None
    return has_some and (before.interfaces, before.summary_ip) != (after.interfaces, after.summary_ip)


class VsphereWatch:
    """A subscription to all VMs of an endpoint, in a thread of its own.

    A session that vSphere forgot is replaced, and what changed in between is told; when vSphere cannot be reached any
    more the watch is at its end.
    """

    def __init__(self, address: EndpointAddress, tell: Tell) -> None:
        self._address = address
        self._tell = tell
        self._inventory = Inventory()
        self._is_whole = False
        self._lock = threading.Lock()
        self._closed = False
        self._alive = False
        self._session: Session | None = None
        self._updates: Updates | None = None
        self._thread = threading.Thread(target=self._listen, name="vsphere-watch", daemon=True)

    def __repr__(self) -> str:
        return f"<VsphereWatch {self._address.host}>"

    def open(self, deadline: float) -> None:
        """Raises EndpointUnreachable, CertificateRefused, CredentialsRefused."""
        with within(deadline):
            try:
                self._subscribe()
                # A large vCenter takes longer: the thread goes on with it.
                with contextlib.suppress(DeadlineExceeded):
                    self._read_whole()
            except BaseException:
                self._end()
                raise
        self._alive = True
        self._thread.start()

    def is_alive(self) -> bool:
        return self._alive

    def close(self) -> None:
        with self._lock:
            self._closed, self._alive = True, False
            updates = self._updates
        if updates is not None:
            updates.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)  # it logs out

    def _listen(self) -> None:
        try:
            while not self._closed:
                self._hear()
        except HypervisorError as error:
            if not self._closed:
                log.info("%r ended: %s", self, error)
        except Exception:
            log.exception("%r ended.", self)
        finally:
            self._alive = False
            self._end()

    def _hear(self) -> None:
        try:
            if not self._is_whole:
                with within(time.monotonic() + READ_SECONDS):
                    self._read_whole()
            with within(time.monotonic() + WAIT_SECONDS + ANSWER_SECONDS):
                for change in self._current().next(WAIT_SECONDS):
                    self._take(change)
        except (SessionExpired, OutOfStep):
            with within(time.monotonic() + READ_SECONDS):
                self._end()
                self._subscribe()
                self._compare()

    def _read_whole(self) -> None:
        """Of a VM that is told of for the first time nothing is said: it was there before."""
        for change in self._current().next(wait=0):
            if self._closed:
                return
            self._take(change)
        self._is_whole = True

    def _compare(self) -> None:
        """After a break: vSphere tells what there is, and what is not told has gone."""
        gone = dict(self._inventory.machines)
        for change in self._current().next(wait=0):
            gone.pop(change.ref._moId, None)
            self._take(change)
        for identifier in gone:
            self._take(Change(_Gone(identifier), None))
        self._is_whole = True

    def _take(self, change: Change) -> None:
        before, after = self._inventory.apply(change)
        known = after or before
        if known is None or not known.uuid or (before is None and not self._is_whole):
            return
        for event in events(before, after):
            try:
                self._tell(known.uuid, event)
            except Exception:  # the watch goes on
                log.exception("An event of %r could not be told.", self)

    def _subscribe(self) -> None:
        self._session = Session(self._address)
        updates = watch_all(self._session, PAGE)
        with self._lock:
            self._updates = updates

    def _current(self) -> Updates:
        assert self._updates is not None
        return self._updates

    def _end(self) -> None:
        with self._lock:
            self._updates = None
        session, self._session = self._session, None
        if session is not None:
            session.close()  # its collector and view go with it


class _Gone:
    """Stands for an object that vSphere does not tell of any more."""

    def __init__(self, identifier: str) -> None:
        self._moId = identifier
