"""What changes in vSphere, heard through a property collector of our own: the session's is shared by all its users."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from networks.hypervisors.bounded import within
from networks.hypervisors.vsphere_session import (
    CLOSING_SECONDS,
    PAGE_OBJECTS,
    Properties,
    Session,
    all_of,
    check_missing,
)
from networks.hypervisors.vsphere_types import vmodl

_Query = vmodl.query.PropertyCollector


@dataclass(frozen=True)
class Change:
    """What is new of one object; None instead of properties when it has gone."""

    ref: Any
    properties: Properties | None


@dataclass(frozen=True)
class Watched:
    """Objects whose properties are watched: these, or all in the container view that `objects` has one of."""

    kind: type
    paths: tuple[str, ...]
    objects: tuple[Any, ...] = ()
    view: Any = None

    def specification(self) -> Any:
        objects = [_Query.ObjectSpec(obj=ref) for ref in self.objects] if self.view is None else [all_of(self.view)]
        return _Query.FilterSpec(
            objectSet=objects,
            propSet=[_Query.PropertySpec(type=self.kind, pathSet=list(self.paths))],
            reportMissingObjectsInResults=True,
        )


class Updates:
    """A subscription: the first `next` tells all there is, each later one what changed since. One thread at a time."""

    def __init__(self, session: Session, watched: Sequence[Watched], page: int = PAGE_OBJECTS) -> None:
        """`page` is how many objects an answer may tell of."""
        self._session = session
        self._page = page
        self._version = ""
        self._views = [each.view for each in watched if each.view is not None]
        self._collector = session.do(session.content.propertyCollector.CreatePropertyCollector)
        try:
            for each in watched:
                session.do(self._collector.CreateFilter, each.specification(), False)
        except BaseException:
            self.close()
            raise

    def next(self, wait: float) -> Iterator[Change]:
        """What changed; waits up to `wait` seconds when nothing has, 0 asks and comes back.

        Raises OutOfStep, SessionExpired: then this subscription is of no use any more.
        """
        more = True
        while more:
            options = _Query.WaitOptions(maxWaitSeconds=int(wait), maxObjectUpdates=self._page)
            answer = self._session.do(self._collector.WaitForUpdatesEx, self._version, options)
            if answer is None:
                return
            for page in answer.filterSet:
                yield from map(_change, page.objectSet)
            self._version = answer.version
            more, wait = bool(answer.truncated), 0

    def wake(self) -> None:
        """End the `next` that waits in another thread."""
        with within(time.monotonic() + CLOSING_SECONDS):
            self._session.tidy(self._collector.CancelWaitForUpdates)

    def close(self) -> None:
        self._session.tidy(self._collector.DestroyPropertyCollector)
        for view in self._views:
            self._session.tidy(view.DestroyView)


def _change(update: Any) -> Change:
    if update.kind == _Query.ObjectUpdate.Kind.leave:
        return Change(update.obj, None)
    check_missing(update.missingSet)
    return Change(update.obj, {change.name: change.val for change in update.changeSet})
