"""Sessions with a vCenter or a lone ESXi, and the two ways to ask one for properties of many objects.

The version of the API is pinned: to find out the server's, pyVmomi would ask for a document without a time-out. Each
answer is bounded and each call ends by the deadline of the `within` around it, or sooner: see `bounded_soap`.
"""

import atexit
import contextlib
import math
import multiprocessing.util
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from networks.hypervisors.base import (
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    HypervisorError,
    NotFound,
    call_within,
)
from networks.hypervisors.bounded import HttpsClient, current_deadline, within
from networks.hypervisors.bounded_soap import SoapStub
from networks.hypervisors.vsphere_errors import SessionExpired, translate
from networks.hypervisors.vsphere_types import vim, vmodl

API_VERSION = "vim.version.version11"  # 6.5, which every release since then still speaks
PAGE_OBJECTS = 1000
CALL_SECONDS = 60.0  # what takes longer is a task, which is asked about again and again
IDLE_SECONDS = 15 * 60.0  # vCenter itself forgets a session after 30 minutes, and has a limit of them
TIDYING_SECONDS = 2.0
CLOSING_SECONDS = 5.0

T = TypeVar("T")
Properties = dict[str, Any]
_Query = vmodl.query.PropertyCollector


@dataclass(frozen=True)
class Found:
    """An object and those of the properties asked for that it has."""

    ref: Any
    properties: Properties


class Session:
    """One log-in, which may be used by several threads at once. It is not renewed: another takes its place."""

    def __init__(self, address: EndpointAddress) -> None:
        """Log in. Raises EndpointUnreachable, CertificateRefused, CredentialsRefused."""
        self.address = address
        self.used_at = time.monotonic()
        self._stub = SoapStub(address, version=API_VERSION)
        self._files = HttpsClient(address)
        self.content = self.do(vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent)
        self.key: str = self.do(self.content.sessionManager.Login, address.username, address.password).key
        self._lock = threading.Lock()
        self._remembered: dict[object, tuple[float, Any]] = {}

    def __repr__(self) -> str:
        return f"<vSphere session at {self.address.host}>"

    @property
    def is_vcenter(self) -> bool:
        return bool(self.content.about.apiType == "VirtualCenter")

    def close(self) -> None:
        """Log out, if it can be done at once."""
        with within(time.monotonic() + CLOSING_SECONDS):
            self.tidy(self.content.sessionManager.Logout)
        self._files.close()
        self._stub.DropConnections()

    def do(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """The result of a method of the API, with its faults made our errors. Beats while it waits for the answer."""
        deadline = min(current_deadline(), time.monotonic() + CALL_SECONDS)

        def ask() -> T:
            with within(deadline):
                return call(*arguments, **named)

        try:
            return call_within(deadline, ask)
        except (vmodl.MethodFault, vmodl.RuntimeFault) as fault:
            raise translate(fault) from fault

    def tidy(self, call: Callable[..., object], *arguments: Any) -> None:
        """Remove what is of no use any more; what cannot be removed goes with the session.

        Who has no time left does not wait for it.
        """

        def remove() -> None:
            with within(time.monotonic() + TIDYING_SECONDS), contextlib.suppress(HypervisorError):
                self.do(call, *arguments)

        if time.monotonic() + TIDYING_SECONDS < current_deadline():
            remove()
        else:
            threading.Thread(target=remove, name="vsphere-tidy", daemon=True).start()

    def remembered(self, key: object, find: Callable[[], T], seconds: float = math.inf) -> T:
        """What `find` gives, asked once in that time."""
        with self._lock:
            until, value = self._remembered.get(key, (0.0, None))
            if time.monotonic() < until:
                return cast(T, value)
        found = find()
        with self._lock:
            self._remembered[key] = time.monotonic() + seconds, found
        return found

    def object(self, kind: type, identifier: str) -> Any:
        """What is known by its identifier, to call its methods."""
        return kind(identifier, self._stub)

    # Files of datastores ------------------------------------------------------------------------

    def put(self, path: str, query: dict[str, str], content: bytes, deadline: float) -> None:
        with _perhaps_expired():
            self._files.put(path, content, deadline, query=query, headers=self._cookie())

    def get(self, path: str, query: dict[str, str], deadline: float, *, most: int) -> bytes:
        with _perhaps_expired():
            return self._files.get(path, deadline, query=query, headers=self._cookie(), most=most)

    def _cookie(self) -> dict[str, str]:
        return {"Cookie": self._stub.cookie}

    # Properties ---------------------------------------------------------------------------------

    def read(self, ref: Any, *paths: str) -> Properties:
        """Properties of one object; one that it does not have is None. Raises NotFound."""
        for found in self.read_all([ref], *paths):
            return dict.fromkeys(paths) | found.properties
        raise NotFound("It is not there any more. (vSphere object)")

    def read_all(
        self, refs: Sequence[Any], *paths: str, kind: type | None = None, page: int = PAGE_OBJECTS
    ) -> list[Found]:
        """Properties of several objects of one kind, `page` of them an answer; those that have gone are left out."""
        if not refs:
            return []
        return list(self._retrieve([_Query.ObjectSpec(obj=ref) for ref in refs], kind or type(refs[0]), paths, page))

    def find_all(self, kind: type, *paths: str, under: Any = None) -> list[Found]:
        """Properties of all objects of a kind, in the whole inventory or `under` a folder, datacenter or pool."""
        view = self.do(self.content.viewManager.CreateContainerView, under or self.content.rootFolder, [kind], True)
        try:
            return list(self._retrieve([all_of(view)], kind, paths, PAGE_OBJECTS))
        finally:
            self.tidy(view.DestroyView)

    def _retrieve(self, objects: list[Any], kind: type, paths: Iterable[str], size: int) -> Iterator[Found]:
        specification = _Query.FilterSpec(
            objectSet=objects,
            propSet=[_Query.PropertySpec(type=kind, pathSet=list(paths))],
            reportMissingObjectsInResults=True,
        )
        collector = self.content.propertyCollector
        options = _Query.RetrieveOptions(maxObjects=size)
        page = self.do(collector.RetrievePropertiesEx, [specification], options)
        while page is not None:
            for found in page.objects:
                check_missing(found.missingSet)
                yield Found(found.obj, {each.name: each.val for each in found.propSet})
            page = self.do(collector.ContinueRetrievePropertiesEx, page.token) if page.token else None


@contextlib.contextmanager
def _perhaps_expired() -> Iterator[None]:
    """Over HTTPS, a forgotten session and a missing privilege look the same."""
    try:
        yield
    except CredentialsRefused as error:
        raise SessionExpired(str(error)) from error


def all_of(view: Any) -> Any:
    """What a collector is told to look at all that a container view has."""
    into = _Query.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
    return _Query.ObjectSpec(obj=view, skip=True, selectSet=[into])


def check_missing(missing: Iterable[Any] | None) -> None:
    """Without a session, vSphere names the objects and leaves out their properties."""
    for each in missing or ():
        if isinstance(each.fault, vim.fault.NotAuthenticated):
            raise translate(each.fault)


# The process's sessions -------------------------------------------------------------------------


@dataclass
class Sessions:
    """This process's sessions, one for each endpoint and user. Those not used for long are logged out."""

    _open: dict[EndpointAddress, Session] = field(default_factory=dict)
    _locks: dict[EndpointAddress, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _registered_in: int = 0

    def __post_init__(self) -> None:
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def run(self, address: EndpointAddress, deadline: float, operation: Callable[[Session], T]) -> T:
        """Do `operation`, which must be safe to repeat: once more when vSphere has forgotten our session."""
        with within(deadline):
            session = self._session(address)
            try:
                return operation(session)
            except SessionExpired:
                self._forget(session)
            return operation(self._session(address))

    def close(self) -> None:
        """Log out everywhere."""
        with self._lock:
            sessions, self._open = list(self._open.values()), {}
        for session in sessions:
            session.close()

    def _session(self, address: EndpointAddress) -> Session:
        self._close_idle()
        lock = self._lock_of(address)
        # The first thread logs in, the others wait for it.
        if not lock.acquire(timeout=max(0.0, current_deadline() - time.monotonic())):
            raise DeadlineExceeded("Another thread has been logging in to this vSphere for too long.")
        try:
            session = self._open.get(address)
            if session is None:
                session = Session(address)
                with self._lock:
                    self._open[address] = session
                self._log_out_at_exit()
            session.used_at = time.monotonic()
            return session
        finally:
            lock.release()

    def _lock_of(self, address: EndpointAddress) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(address, threading.Lock())

    def _forget(self, session: Session) -> None:
        with self._lock:
            if self._open.get(session.address) is session:
                del self._open[session.address]

    def _close_idle(self) -> None:
        earliest = time.monotonic() - IDLE_SECONDS
        with self._lock:
            idle = [session for session in self._open.values() if session.used_at < earliest]
            for session in idle:
                del self._open[session.address]
        for session in idle:
            # Nobody's call to another endpoint waits for that.
            threading.Thread(target=session.close, name="vsphere-log-out", daemon=True).start()

    def _log_out_at_exit(self) -> None:
        if self._registered_in == os.getpid():
            return
        self._registered_in = os.getpid()
        atexit.register(self.close)
        # A worker that multiprocessing has forked ends without atexit.
        multiprocessing.util.Finalize(None, self.close, exitpriority=10)

    def _leave_to_parent(self) -> None:
        """In a forked child: the sessions are the parent's, who would be logged out too."""
        self._open, self._locks, self._lock = {}, {}, threading.Lock()


SESSIONS = Sessions()
