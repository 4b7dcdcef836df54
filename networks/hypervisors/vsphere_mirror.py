"""All VMs of an endpoint as this process knows them, so that a question about a thousand costs one call."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from networks.hypervisors.base import DeadlineExceeded, PowerState
from networks.hypervisors.bounded import AnswerRefused
from networks.hypervisors.vsphere_errors import OutOfStep
from networks.hypervisors.vsphere_machines import PATHS, Machine, changed
from networks.hypervisors.vsphere_session import PAGE_OBJECTS, Session
from networks.hypervisors.vsphere_types import vim
from networks.hypervisors.vsphere_updates import Change, Updates, Watched

SMALLEST_PAGE = 40
_making = threading.Lock()

T = TypeVar("T")


@dataclass
class Inventory:
    """The VMs by their identifier in vSphere."""

    machines: dict[str, Machine] = field(default_factory=dict)
    _by_uuid: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def apply(self, change: Change) -> tuple[Machine | None, Machine | None]:
        """The VM before and after: None where there was, or is, none."""
        identifier = change.ref._moId
        before = self.machines.pop(identifier, None)
        if before is not None:
            self._by_uuid[before.uuid].discard(identifier)
            if not self._by_uuid[before.uuid]:
                del self._by_uuid[before.uuid]
        if change.properties is None:
            return before, None
        after = changed(before or Machine(), change.properties)
        self.machines[identifier] = after
        self._by_uuid[after.uuid].add(identifier)
        return before, after

    def of_uuid(self, uuid: str) -> list[Machine]:
        return [self.machines[identifier] for identifier in self._by_uuid.get(uuid, ())]

    def running(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.power is PowerState.RUNNING]

    def on_host(self, host: str) -> list[str]:
        """The identifiers of the VMs that are registered on this host."""
        return [identifier for identifier, machine in self.machines.items() if machine.host == host]


class Mirror:
    """An inventory that is brought up to date when it is asked for, by one thread at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._page = PAGE_OBJECTS
        self._updates: Updates | None = None
        self._inventory = Inventory()
        self._is_whole = False

    def ask(self, deadline: float, question: Callable[[Inventory], T]) -> T:
        """What `question` finds in the inventory as it is now. Raises EndpointUnreachable."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded("Another thread has been reading this vSphere for too long.")
        try:
            self._catch_up()
            return question(self._inventory)
        finally:
            self._lock.release()

    def _catch_up(self) -> None:
        while True:
            try:
                return self._hear()
            except OutOfStep:
                return self._hear()
            except AnswerRefused:
                # A guest that runs many containers can tell as much as a hundred others.
                if self._page <= SMALLEST_PAGE:
                    raise
                self._page = max(SMALLEST_PAGE, self._page // 5)

    def _hear(self) -> None:
        if self._updates is None:
            self._inventory, self._is_whole = Inventory(), False
            self._updates = watch_all(self._session, self._page)
        try:
            for change in self._updates.next(wait=0):
                self._inventory.apply(change)
            self._is_whole = True
        except DeadlineExceeded:
            # To be told everything, page by page, may take longer than one caller has: the next one goes on with it.
            if self._is_whole:
                self._begin_anew()
            raise
        except BaseException:
            self._begin_anew()  # part of an answer may be lost
            raise

    def _begin_anew(self) -> None:
        updates, self._updates = self._updates, None
        if updates is not None:
            updates.close()


def mirror_of(session: Session) -> Mirror:
    """The one that all users of this session share."""
    with _making:
        return session.remembered(Mirror, lambda: Mirror(session))


def watch_all(session: Session, page: int) -> Updates:
    """A subscription to all VMs of an endpoint, `page` of them an answer."""
    view: Any = session.do(
        session.content.viewManager.CreateContainerView, session.content.rootFolder, [vim.VirtualMachine], True
    )
    return Updates(session, [Watched(vim.VirtualMachine, PATHS, view=view)], page)
