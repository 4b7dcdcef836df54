"""Connections to libvirt: the URI, the process's pool of connections, deadlines, errors.

Sources: libvirt's remote URI reference and virterror.h; what was measured is said where it matters.
"""

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar

import libvirt

from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    HypervisorError,
    NetworkMissing,
    NotFound,
    Refused,
    StorageProblem,
    Transport,
    TryAgainLater,
    call_within,
)
from networks.hypervisors.hosts import uri_host

T = TypeVar("T")

# The URI ----------------------------------------------------------------------------------------

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_SOCKET_PATH = re.compile(r"(/[A-Za-z0-9_.-]+)+")
SOCKET_PATH_MAX = 107  # sun_path, unix(7)


def libvirt_uri(address: EndpointAddress) -> str:
    """The URI of an endpoint, made from its fields alone. Raises Refused for a field that cannot be one.

    A libvirt URI runs programs (`?command=`), reads files (`test:///etc/shadow`) and starts QEMU on
    this machine (`qemu:///embed`), so each field admits only what it can be, and none can bring a
    parameter or a path of its own.
    """
    if address.transport is Transport.TEST:
        _refuse_remote_fields(address)
        if not address.test_socket:
            return "test:///default"
        return f"test+unix:///default?socket={_socket_path(address.test_socket)}"
    if address.test_socket:
        raise Refused("Only the test transport has a test socket.")
    if address.transport is Transport.LOCAL:
        _refuse_remote_fields(address)
        return "qemu:///system"
    user = f"{_user(address.username)}@" if address.username else ""
    port = f":{_port(address.port)}" if address.port is not None else ""
    # Without no_tty, ssh asks for a password on the terminal of whoever started the server.
    parameters = "?no_tty=1" if address.transport is Transport.SSH else ""
    return f"qemu+{address.transport.value}://{user}{uri_host(address.host)}{port}/system{parameters}"


def _refuse_remote_fields(address: EndpointAddress) -> None:
    if address.host or address.port is not None or address.username or address.password:
        raise Refused(f"The {address.transport.value} transport has no host, port, user or password.")


def _user(name: str) -> str:
    if not _USER.fullmatch(name):
        raise Refused("The user name has characters that a URI cannot hold.")
    return name


def _port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise Refused("The port is not between 1 and 65535.")
    return port


def _socket_path(path: str) -> str:
    if len(path) > SOCKET_PATH_MAX or not _SOCKET_PATH.fullmatch(path) or ".." in path.split("/"):
        raise Refused("The test socket is not the plain absolute path of a socket.")
    return path


# Errors -----------------------------------------------------------------------------------------

_MEANINGS: dict[int, tuple[type[HypervisorError], str]] = {
    libvirt.VIR_ERR_NO_DOMAIN: (NotFound, "The host does not know this VM."),
    libvirt.VIR_ERR_NO_STORAGE_VOL: (NotFound, "The storage pool has no such volume."),
    libvirt.VIR_ERR_NO_STORAGE_POOL: (StorageProblem, "The host has no such storage pool."),
    libvirt.VIR_ERR_INVALID_STORAGE_POOL: (StorageProblem, "The storage pool cannot be used."),
    libvirt.VIR_ERR_NO_NETWORK: (NetworkMissing, "The host has no such network."),
    libvirt.VIR_ERR_UNKNOWN_HOST: (EndpointUnreachable, "The host's name cannot be resolved."),
    libvirt.VIR_ERR_NO_CONNECT: (EndpointUnreachable, "The host cannot be connected to."),
    libvirt.VIR_ERR_INVALID_CONN: (EndpointUnreachable, "The connection to the host was lost."),
    libvirt.VIR_ERR_RPC: (EndpointUnreachable, "The connection to the host was lost."),
    libvirt.VIR_ERR_AUTH_FAILED: (CredentialsRefused, "The host refuses the user or the password."),
    libvirt.VIR_ERR_AUTH_CANCELLED: (CredentialsRefused, "The host asks for a user and a password."),
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: (CredentialsRefused, "The host refuses this user here."),
    libvirt.VIR_ERR_ACCESS_DENIED: (CredentialsRefused, "The host does not let this user do that."),
    libvirt.VIR_ERR_OPERATION_DENIED: (CredentialsRefused, "The host does not let this user do that."),
    libvirt.VIR_ERR_GNUTLS_ERROR: (CredentialsRefused, "TLS failed: a certificate is missing or not trusted."),
    libvirt.VIR_ERR_RESOURCE_BUSY: (Busy, "Another operation holds the VM."),
    libvirt.VIR_ERR_OPERATION_TIMEOUT: (Busy, "Another operation has held the VM for too long."),
    libvirt.VIR_ERR_OPERATION_ABORTED: (TryAgainLater, "The operation was cancelled on the host."),
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: (TryAgainLater, "The guest agent does not answer."),
    libvirt.VIR_ERR_AGENT_UNSYNCED: (TryAgainLater, "The guest agent answers out of turn."),
    libvirt.VIR_ERR_NO_SUPPORT: (Refused, "The hypervisor cannot do this."),
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: (Refused, "The hypervisor cannot do this."),
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: (Refused, "The hypervisor cannot run a VM defined like this."),
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: (Refused, "The hypervisor cannot do this for this VM."),
    libvirt.VIR_ERR_OPERATION_INVALID: (Refused, "The VM or volume is not in a state that allows this."),
    libvirt.VIR_ERR_OPERATION_FAILED: (Refused, "The hypervisor refused the operation."),
    libvirt.VIR_ERR_DOM_EXIST: (Refused, "Another VM has this name or UUID on the host."),
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: (Refused, "The volume is there already."),
}
_FAILED = (AskTheOperator, "The operation failed on the host; the host's libvirt log says why.")

# By the number that the host's kernel gave; libvirt hands it on beside its own.
_STORAGE_FAILURES = {
    errno.ENOSPC: "The storage is full: free some space on it.",
    errno.EDQUOT: "The storage's quota is used up: raise it, or free some space.",
    errno.EROFS: "The storage is read-only: mount it for writing.",
}


def translate(error: libvirt.libvirtError, *, connected: bool = True) -> HypervisorError:
    """Ours for libvirt's. Its text is left out: it may hold file contents and paths of the host."""
    code = error.get_error_code()
    kind, text = _MEANINGS.get(code, _FAILED)
    if code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_error_domain() == libvirt.VIR_FROM_STORAGE:
        kind, text = StorageProblem, "The host's storage failed; the host's libvirt log says why."
    if code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() in _STORAGE_FAILURES:
        kind, text = StorageProblem, _STORAGE_FAILURES[error.get_int1()]
    # A broken socket is told by several codes: what decides is whether the connection lives.
    lost = not connected or error.get_error_domain() == libvirt.VIR_FROM_RPC
    if lost and not issubclass(kind, EndpointUnreachable | CredentialsRefused):
        kind, text = EndpointUnreachable, "The connection to the host was lost."
    return kind(f"{text} (libvirt error {code})")


def error_code(error: HypervisorError) -> int | None:
    """libvirt's number for the failure behind one of our errors."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, libvirt.libvirtError):
        cause = cause.__cause__
    return None if cause is None else cause.get_error_code()


def opening_failed(error: libvirt.libvirtError) -> HypervisorError:
    code = error.get_error_code()
    if "certificate" in str(error).lower():  # told by several codes, and never in another's words
        return CredentialsRefused(f"TLS failed: a certificate is missing or not trusted. (libvirt error {code})")
    if code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() == errno.EACCES:
        return CredentialsRefused(f"This user may not open libvirt's socket. (libvirt error {code})")
    kind, text = _MEANINGS.get(code, _FAILED)
    if not issubclass(kind, EndpointUnreachable | CredentialsRefused):
        kind, text = EndpointUnreachable, "The host cannot be connected to."
    return kind(f"{text} (libvirt error {code})")


# The event loop ---------------------------------------------------------------------------------

_loop_lock = threading.Lock()
_loop_registered = False


def _start_event_loop() -> None:
    """Run libvirt's event loop in this process: without it there is no keepalive.

    It must be registered before the first connection is opened, and once registered it must run:
    otherwise the host's own pings go unanswered and it hangs up after half a minute.
    """
    global _loop_registered
    with _loop_lock:
        if _loop_registered:
            return
        libvirt.registerErrorHandler(lambda context, error: None, None)  # else it prints to stderr
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _loop_registered = True


# A turn goes through all connections, so with a thousand, each of which a ping wakes every few seconds, the loop
# took a fifth of a core. With this rest it answers many in one turn: a fortieth. An event takes two turns.
LOOP_REST_SECONDS = 0.05


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
            time.sleep(LOOP_REST_SECONDS)
        except libvirt.libvirtError:
            time.sleep(1)  # one bad turn must not end keepalive for good, nor spin


# Connections ------------------------------------------------------------------------------------

KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5, 3
PING_AFTER_SECONDS = 20.0
OPEN_SECONDS = 15.0
IDLE_MAX = 4  # for each endpoint, as many as read guests' addresses at a time


def open_connection(address: EndpointAddress, flags: int = 0) -> Any:
    """A new virConnect with keepalive; blocks, so call it within a deadline. `flags` are virConnectOpenAuth's."""
    uri = libvirt_uri(address)
    _start_event_loop()

    def answer(requests: Sequence[list[Any]], _data: object) -> int:
        for request in requests:
            name_asked = request[0] in (libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_USERNAME)
            request[4] = address.username if name_asked else address.password
        return 0 if address.password else -1

    kinds = [
        libvirt.VIR_CRED_AUTHNAME,
        libvirt.VIR_CRED_USERNAME,
        libvirt.VIR_CRED_PASSPHRASE,
        libvirt.VIR_CRED_NOECHOPROMPT,
    ]
    connection = libvirt.openAuth(uri, [kinds, answer, None], flags)
    with contextlib.suppress(libvirt.libvirtError):  # the test driver inside this process has none
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
    return connection


class ConnectionSource(Protocol):
    def acquire(self, address: EndpointAddress, deadline: float) -> Any: ...

    def release(self, address: EndpointAddress, connection: Any) -> None: ...


class ConnectionPool:
    """This process's connections, each used by one operation at a time.

    A virConnect may be shared by threads, libvirt says, but its client crashed the process when the
    host froze with two calls waiting on one connection (9.0; a use after free in
    virNetClientIOEventLoop, as in CVE-2024-4418). So a connection in which a call is stuck is never
    used again, nor closed: the stuck thread holds the last reference, and libvirt-python closes what
    nobody refers to.
    """

    def __init__(self, opener: Callable[[EndpointAddress], Any] = open_connection) -> None:
        self._opener = opener
        self._begin()
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def acquire(self, address: EndpointAddress, deadline: float) -> Any:
        """A living connection for the caller alone. Raises EndpointUnreachable, CredentialsRefused, Refused."""
        while (idle := self._take(address)) is not None:
            if _lives(*idle, deadline):
                return idle[0]
        try:
            return call_within(min(deadline, time.monotonic() + OPEN_SECONDS), lambda: self._opener(address))
        except libvirt.libvirtError as error:
            raise opening_failed(error) from error

    def release(self, address: EndpointAddress, connection: Any) -> None:
        """Give back a connection in which no call is waiting; a dead one is dropped."""
        if not is_alive(connection):
            return
        with self._lock:
            idle = self._idle.setdefault(address, [])
            if len(idle) < IDLE_MAX:
                idle.append((connection, time.monotonic()))

    def _take(self, address: EndpointAddress) -> tuple[Any, float] | None:
        with self._lock:
            idle = self._idle.get(address)
            return idle.pop() if idle else None

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[EndpointAddress, list[tuple[Any, float]]] = {}

    def _leave_to_parent(self) -> None:
        """In a forked child: the sockets are the parent's, and closing one would end its talk with the host."""
        for idle in self._idle.values():
            for connection, _since in idle:
                # libvirt-python closes what `_o` holds when the object goes; without it, it leaks, as it should.
                connection._o = None
        self._begin()


def _lives(connection: Any, idle_since: float, deadline: float) -> bool:
    if not is_alive(connection):
        return False
    if time.monotonic() - idle_since < PING_AFTER_SECONDS:
        return True
    # isAlive knows what the event loop has seen, and a forked child has no loop: after a rest, ask the host.
    try:
        call_within(deadline, connection.getLibVersion)
    except libvirt.libvirtError:
        return False
    return True


def is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())  # asks nobody, so it needs no deadline
    except libvirt.libvirtError:
        return False


CONNECTIONS = ConnectionPool()


class Session:
    """One operation's use of a connection: each libvirt call within its deadline, each error made ours.

    Calls run one by one, not as a whole: a thread left behind in a stuck call must not go on to the
    next step when the host wakes up. After a stuck call the session is at its end.
    """

    def __init__(self, source: ConnectionSource, address: EndpointAddress, deadline: float) -> None:
        self._source = source
        self._address = address
        self._usable = True
        self.deadline = deadline
        self.connection = source.acquire(address, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._usable:
            self._source.release(self._address, self.connection)

    def do(self, call: Callable[..., T], *arguments: object, until: float | None = None) -> T:
        """The result of `call(*arguments)`. `until` is an earlier deadline for this call alone."""
        if not self._usable:
            raise EndpointUnreachable("The connection to the host is stuck in an earlier call.")
        deadline = self.deadline if until is None else min(until, self.deadline)
        try:
            return call_within(deadline, lambda: call(*arguments))
        except DeadlineExceeded:
            self.give_up()
            raise
        except libvirt.libvirtError as error:
            raise translate(error, connected=is_alive(self.connection)) from error
        except BaseException:
            # The wait was broken off, not the call: it may run in this connection still.
            self.give_up()
            raise

    def give_up(self) -> None:
        """A call is stuck in this connection: nobody may use it again."""
        self._usable = False
