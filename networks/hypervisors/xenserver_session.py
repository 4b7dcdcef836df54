"""Sessions with a XenServer or XCP-ng pool: logging in, calls within their deadlines, long calls as tasks.

A pool answers through its coordinator (XenAPI says master). What is known of a pool's other members is what the
coordinator says of them.
Sources: XenAPI reference, classes session and task; the behaviours that were measured are said where they matter.
"""

import atexit
import base64
import contextlib
import hashlib
import multiprocessing.util
import os
import re
import threading
import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self
from xmlrpc.client import Fault

import XenAPI

from networks.hypervisors import xenserver_records as records
from networks.hypervisors.base import (
    RENAMED,
    Busy,
    CertificateRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    HostUnavailable,
    HypervisorError,
    Member,
    NotFound,
    TryAgainLater,
    beat,
    call_within,
)
from networks.hypervisors.bounded import AnswerRefused, HttpsClient, within
from networks.hypervisors.bounded_xmlrpc import RECORDS, RpcTransport, keeping
from networks.hypervisors.xenserver_errors import translate

# xapi keeps 500 sessions for each originator and ends the oldest: without one of our own, a leak of ours would end
# other programs' sessions.
ORIGINATOR = "extdhcp"
API_VERSION = "1.0"

LOGIN_SECONDS = 15.0
CALL_SECONDS = 60.0  # of one call that is no task; xapi itself answers in well under a second
POOL_MAX = 64  # hosts; more than XenServer takes
IDLE_MAX = 4
IDLE_SECONDS = 600.0
LOGOUT_SECONDS = 3.0
POLL_SECONDS = (0.05, 1.0)  # from, to
CLEAN_UP_SECONDS = 10.0  # of a deadline, kept to cancel a task

_REDIRECTS = 2
_MEMBERS_ASKED = 3  # of those of a pool whose coordinator does not answer; each of them knows who is the new one
_VIFS = ('field "device" = "0"', 'field "device" = "1"', 'not (field "device" = "0" or field "device" = "1")')
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_RESULT = re.compile(r"<value>(OpaqueRef:[A-Za-z0-9-]{1,64})</value>")


class _CoordinatorElsewhere(Exception):
    def __init__(self, address: str) -> None:
        self.address = address


@dataclass(frozen=True)
class Connection:
    """A session, and the address that it goes to: the coordinator's."""

    remote: Any  # XenAPI.Session, which has no types
    reached: EndpointAddress

    def call(self, method: str, arguments: tuple[object, ...], deadline: float) -> Any:
        """Raises _CoordinatorElsewhere, and a HypervisorError."""
        with within(deadline):
            try:
                return self.remote.xenapi_request(method, arguments)
            except XenAPI.Failure as failure:
                if failure.details[0] == "HOST_IS_SLAVE" and len(failure.details) > 1:
                    raise _CoordinatorElsewhere(str(failure.details[1])) from failure
                raise _told(failure.details) from failure
            except Fault as fault:
                # The library's own, when the pool ends one session after the other or answers without a status.
                raise TryAgainLater("The pool does not keep a session, or does not speak XenAPI.") from fault

    def log_out(self, deadline: float | None = None) -> None:
        """For good. As the library does it, a call that another thread has in the session may log in anew."""
        self.remote.last_login_method = None
        with contextlib.suppress(HypervisorError, Fault), within(deadline or time.monotonic() + LOGOUT_SECONDS):
            getattr(self.remote, "session.logout")(self.remote.handle)


def _told(details: object) -> HypervisorError:
    if not isinstance(details, list | tuple) or not details:
        return AnswerRefused("The pool's answer has not the form of XenAPI's.")
    return translate(details)


# Members ----------------------------------------------------------------------------------------


class Members:
    """What the coordinators told of their pools: which certificate a member has, by its address.

    What this process was told counts before what came with the endpoint's address.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fingerprints: dict[EndpointAddress, dict[str, str]] = {}

    def learn(self, endpoint: EndpointAddress, host: str, fingerprint: str) -> None:
        with self._lock:
            self._fingerprints.setdefault(endpoint, {})[host] = fingerprint

    def reach(self, endpoint: EndpointAddress, host: str) -> EndpointAddress | None:
        """How a member is reached that its coordinator told of; None for one that is not known."""
        with self._lock:
            learned = self._fingerprints.get(endpoint, {})
        fingerprint = ({one.host: one.fingerprint for one in endpoint.members} | learned).get(host)
        return None if fingerprint is None else _known_by(endpoint, host, fingerprint)


MEMBERS = Members()


def _known_by(endpoint: EndpointAddress, host: str, fingerprint: str) -> EndpointAddress:
    return replace(endpoint, host=host, ca_certificates="", fingerprint=fingerprint)


def _coordinator(endpoint: EndpointAddress, host: str) -> EndpointAddress:
    """How the host is reached that a member named as its coordinator. Raises CertificateRefused.

    The member may be anybody's by now, so it is not believed: the password goes only to a host that is known from
    the pool itself, or that the operator's own certificate authority has signed for.
    """
    if host == endpoint.host:
        return endpoint
    if known := MEMBERS.reach(endpoint, host):
        return known
    if endpoint.ca_certificates:
        return replace(endpoint, host=host)
    raise CertificateRefused(
        f"Host {endpoint.host} is a member of a pool whose coordinator is elsewhere: enter the coordinator as the "
        "endpoint's host with its certificate, or the certificate authority of the pool's hosts."
    )


# The process's sessions -------------------------------------------------------------------------


class Sessions:
    """This process's sessions, each used by one operation at a time; idle ones are kept for the next."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # the idle ones are the parent's, to use and to end
        atexit.register(self.close)
        self._ends_in = 0

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[EndpointAddress, list[tuple[Connection, float]]] = {}
        self._transports: dict[EndpointAddress, RpcTransport] = {}
        self._reached: dict[EndpointAddress, EndpointAddress] = {}

    def acquire(self, endpoint: EndpointAddress, deadline: float) -> Connection:
        """A session for the caller alone. Raises EndpointUnreachable, CredentialsRefused, CertificateRefused."""
        self._end_old_ones()
        with self._lock:
            idle = self._idle.get(endpoint)
            if idle:
                return idle.pop()[0]
        return self.open(endpoint, min(deadline, time.monotonic() + LOGIN_SECONDS))

    def release(self, endpoint: EndpointAddress, connection: Connection) -> None:
        with self._lock:
            self._end_with_worker()
            idle = self._idle.setdefault(endpoint, [])
            if len(idle) < IDLE_MAX:
                idle.append((connection, time.monotonic()))
                return
        connection.log_out()

    def discard(self, connection: Connection) -> None:
        """End a session in which a call is stuck, without waiting for it."""
        threading.Thread(target=connection.log_out, name="xenserver-logout", daemon=True).start()

    def _end_with_worker(self) -> None:
        """A worker that multiprocessing has forked ends without atexit, and with what it registered itself alone."""
        if self._ends_in != os.getpid():
            self._ends_in = os.getpid()
            multiprocessing.util.Finalize(None, self.close, exitpriority=10)

    def close(self) -> None:
        """At the process's end, which pools that do not answer must not hold up."""
        deadline = time.monotonic() + LOGOUT_SECONDS
        with self._lock:
            left = [connection for idle in self._idle.values() for connection, _ in idle]
            self._idle = {}
        for connection in left:
            connection.log_out(deadline)

    def _end_old_ones(self) -> None:
        oldest = time.monotonic() - IDLE_SECONDS
        with self._lock:
            ended = [one for idle in self._idle.values() for one, since in idle if since < oldest]
            self._idle = {
                endpoint: fresh
                for endpoint, idle in self._idle.items()
                if (fresh := [(one, since) for one, since in idle if since >= oldest])
            }
        for connection in ended:
            self.discard(connection)

    def open(self, endpoint: EndpointAddress, deadline: float) -> Connection:
        """A new session; one that is not given back is to be logged out.

        Where a pool's coordinator does not answer, its other members are asked who it is now.
        """
        ways = self._ways(endpoint)
        for way in ways[:-1]:
            now = time.monotonic()
            with contextlib.suppress(EndpointUnreachable):
                return self._reach(endpoint, way, now + (deadline - now) / 2)
        return self._reach(endpoint, ways[-1], deadline)

    def _ways(self, endpoint: EndpointAddress) -> list[EndpointAddress]:
        """Where to ask, in this order: who answered last, the endpoint's own address, members."""
        with self._lock:
            last = self._reached.get(endpoint, endpoint)
        members = (_known_by(endpoint, one.host, one.fingerprint) for one in endpoint.members)
        ways = {way.host: way for way in (last, endpoint)}
        others = [way for way in members if way.host not in ways]
        return [*ways.values(), *others[:_MEMBERS_ASKED]]

    def _reach(self, endpoint: EndpointAddress, way: EndpointAddress, deadline: float) -> Connection:
        reached = way
        for _ in range(_REDIRECTS + 1):
            try:
                connection = self._log_in(reached, deadline)
                with self._lock:
                    self._reached[endpoint] = reached
                return connection
            except _CoordinatorElsewhere as told:
                reached = _coordinator(endpoint, told.address)
        raise EndpointUnreachable("The pool's hosts do not agree on who their coordinator is.")

    def _log_in(self, reached: EndpointAddress, deadline: float) -> Connection:
        remote = XenAPI.Session("https://pool/", transport=self._transport(reached), allow_none=True)
        connection = Connection(remote, reached)
        credentials = (reached.username, reached.password, API_VERSION, ORIGINATOR)
        try:
            call_within(deadline, lambda: connection.call("login_with_password", credentials, deadline))
        except HostUnavailable as error:  # of the coordinator, without which there is no pool
            raise EndpointUnreachable(str(error)) from error
        return connection

    def _transport(self, reached: EndpointAddress) -> RpcTransport:
        """One for all sessions: it keeps its connections, and threads may share it."""
        with self._lock:
            if reached not in self._transports:
                self._transports[reached] = RpcTransport(reached)
            return self._transports[reached]


SESSIONS = Sessions()


# One operation's session ------------------------------------------------------------------------


class Session:
    """One operation's use of a session: each call within the deadline, each error made ours.

    The library logs in again by itself when the pool has ended the session. After a call that did not come back the
    session is at its end.
    """

    def __init__(self, endpoint: EndpointAddress, deadline: float, sessions: Sessions = SESSIONS) -> None:
        self.endpoint = endpoint
        self.deadline = deadline
        self._sessions = sessions
        self._connection = sessions.acquire(endpoint, deadline)
        self._stuck = self._spoilt = self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._stuck or self._spoilt:
            self.end()
        elif not self._ended:
            self._sessions.release(self.endpoint, self._connection)

    def end(self) -> None:
        """Log out without waiting for it, also while another thread's call waits in it: that one fails then."""
        if not self._ended:
            self._ended = self._stuck = True
            self._sessions.discard(self._connection)

    # Calls

    def call(self, method: str, *arguments: object, until: float | None = None) -> Any:
        """The result of a XenAPI call. `until` is an earlier deadline for this call alone."""
        try:
            return self._call(method, arguments, until)
        except _CoordinatorElsewhere:
            # The pool has changed its coordinator. References hold in the whole pool.
            self.end()
            self._connection = self._sessions.open(self.endpoint, self.deadline)
            self._stuck = self._spoilt = self._ended = False
        try:
            return self._call(method, arguments, until)
        except _CoordinatorElsewhere:
            raise EndpointUnreachable("The pool's hosts do not agree on who their coordinator is.") from None

    def _call(self, method: str, arguments: tuple[object, ...], until: float | None) -> Any:
        if self._stuck:
            raise EndpointUnreachable("The session is stuck in an earlier call.")
        deadline = min(until or self.deadline, self.deadline, time.monotonic() + CALL_SECONDS)
        try:
            return call_within(deadline, lambda: self._connection.call(method, arguments, deadline))
        except (HypervisorError, _CoordinatorElsewhere) as error:
            self._stuck = self._stuck or isinstance(error, DeadlineExceeded)
            # What failed without being the pool's own word may be the session's fault: the next has another.
            self._spoilt = self._spoilt or not isinstance(error.__cause__, XenAPI.Failure)
            raise
        except BaseException:
            # The wait was broken off, not the call: it may run in this session still.
            self._stuck = True
            raise

    def run(self, method: str, *arguments: object, until: float | None = None) -> str:
        """A long call, as a task that is waited for: the reference that it made, or "".

        Raises Busy when it did not end in time; it was cancelled then.
        """
        task = records.reference(self.call(f"Async.{method}", *arguments))
        return self.wait_for(task, until=until)

    def wait_for(self, task: str, *, until: float | None = None) -> str:
        """Wait for a task to end, and forget it."""
        give_up = min(until or self.deadline, self.deadline - _kept_of(self.deadline))
        pause = POLL_SECONDS[0]
        while True:
            state = records.record(self.call("task.get_record", task))
            status = records.text(state, "status")
            if status not in ("pending", "cancelling"):
                break
            if time.monotonic() + pause > give_up:
                self._cancel(task)
                raise Busy("The pool did not do it in time, and it was cancelled.")
            time.sleep(pause)
            beat()
            pause = min(pause * 1.5, POLL_SECONDS[1])
        self.forget(task)
        if status == "success":
            made = _RESULT.fullmatch(str(state.get("result", "")).strip())
            return made[1] if made else ""
        if status == "cancelled":
            raise TryAgainLater("The operation was cancelled in the pool.")
        raise _told(state.get("error_info"))

    def _cancel(self, task: str) -> None:
        for method in ("task.cancel", "task.destroy"):
            with contextlib.suppress(HypervisorError):
                self.call(method, task)

    def forget(self, task: str) -> None:
        with contextlib.suppress(HypervisorError):
            self.call("task.destroy", task)

    # Records

    def record(self, kind: str, ref: str) -> records.Record:
        return records.record(self.call(f"{kind}.get_record", ref))

    def find(self, kind: str, ref: str) -> records.Record | None:
        """None when it is gone, or was never there."""
        if ref == records.NULL:
            return None
        try:
            return self.record(kind, ref)
        except NotFound:
            return None

    def where(self, kind: str, field: str, *refs: str) -> dict[str, records.Record]:
        return records.records(self.call(f"{kind}.get_all_records_where", records.where(field, *refs)))

    def vifs(self) -> dict[str, records.Record]:
        """All NICs of the pool. In parts, for an answer is limited, and a VM may have seven."""
        found: dict[str, records.Record] = {}
        for part in _VIFS:
            found |= records.records(self.call("VIF.get_all_records_where", part))
        return found

    def named(self, kind: str, name: str) -> dict[str, records.Record]:
        """All objects of a class that bear this name: names are not unique."""
        found = ((ref, self.find(kind, ref)) for ref in self.named_refs(kind, name))
        return {ref: one for ref, one in found if one is not None}

    def named_refs(self, kind: str, name: str) -> list[str]:
        return records.references(self.call(f"{kind}.get_by_name_label", name))

    # The pool's hosts

    def pool(self) -> tuple[str, records.Record]:
        for ref, pool in records.records(self.call("pool.get_all_records")).items():
            return ref, pool
        raise AnswerRefused("The pool has no record of itself.")

    def host(self, name: str) -> str:
        """The host of this name. Raises HostUnavailable: until it has its name again, nothing can be done on it."""
        found = self.named_refs("host", name)
        if len(found) > 1:
            raise HostUnavailable(f"The pool has {len(found)} hosts of the name {name}: give each its own.")
        if not found:
            raise HostUnavailable(f"The pool has no host {name}: {RENAMED}")
        return found[0]

    def members(self) -> tuple[Member, ...]:
        with keeping({"address"}, depth=RECORDS):
            hosts = records.records(self.call("host.get_all_records"))
        found = []
        for ref, host in islice(hosts.items(), POOL_MAX):
            with contextlib.suppress(HostUnavailable):
                fingerprint = _fingerprint(self.call("host.get_server_certificate", ref))
                found.append(Member(records.text(host, "address"), fingerprint))
        return tuple(found)

    def door(self, host: str) -> HttpsClient:
        """For files on this host of the pool. Close it."""
        return HttpsClient(self._reach(records.text(self.record("host", host), "address"), host))

    def _reach(self, address: str, host: str) -> EndpointAddress:
        _ref, pool = self.pool()
        if records.ref(pool, "master") == host:
            return self._connection.reached
        # Asked each time: a member's certificate is renewed now and then.
        fingerprint = _fingerprint(self.call("host.get_server_certificate", host))
        MEMBERS.learn(self.endpoint, address, fingerprint)
        return _known_by(self.endpoint, address, fingerprint)

    @property
    def credential(self) -> str:
        """The session's reference, which lets in whoever has it."""
        return records.reference(self._connection.remote.handle)


def _kept_of(deadline: float) -> float:
    return min(CLEAN_UP_SECONDS, max(0.0, deadline - time.monotonic()) * 0.1)


def _fingerprint(pem: object) -> str:
    """SHA-256 of a certificate in PEM, in hexadecimal digits."""
    match = _PEM.search(pem) if isinstance(pem, str) else None
    try:
        der = base64.b64decode("".join(match[1].split()), validate=True) if match else b""
    except ValueError:
        der = b""
    if not der:
        raise AnswerRefused("The pool does not tell the certificate of its member.")
    return hashlib.sha256(der).hexdigest()
