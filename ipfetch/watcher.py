"""The process that listens to the hypervisors: a watch for each endpoint, and a loop that passes on what is told.

Without it the address loop works all the same, at its own pace. Several may run: each listens to all, and what
they pass on twice changes nothing.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import structlog
from django.db import DatabaseError, close_old_connections, connections
from django.utils import timezone

from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs import tasks
from ipfetch import planner
from networks.hypervisors.base import (
    EndpointUnreachable,
    EventSource,
    GuestEvent,
    HypervisorError,
    Refused,
    Watch,
    abandoned_calls,
    asking,
)
from networks.models import Endpoint, Host, VirtualMachine
from networks.models.vms import VmState
from networks.services.adoption import find_migrated
from networks.services.places import hypervisor_at, record_health, within

log = structlog.get_logger(__name__)

# What was told ----------------------------------------------------------------------------------

MOST_TOLD = 5_000


@dataclass(frozen=True)
class Told:
    """An event of a VM, and the endpoint that told it."""

    endpoint_id: int
    vm_uuid: str
    event: GuestEvent


@dataclass(frozen=True)
class Connected:
    """An endpoint is listened to from now on; what happened there before, nobody heard."""

    endpoint_id: int


class News:
    """From the drivers' threads to the loop. Telling never waits, and wakes the loop at once."""

    def __init__(self) -> None:
        # Unlike a Condition or an Event, it may be put into by a signal's handler while its own thread reads it.
        self._queue: queue.SimpleQueue[Told | Connected | None] = queue.SimpleQueue()

    def tell(self, news: Told | Connected) -> None:
        # What is too much is left out: those VMs are asked at the loop's own pace.
        if isinstance(news, Connected) or self._queue.qsize() < MOST_TOLD:
            self._queue.put(news)

    def wake(self) -> None:
        self._queue.put(None)

    def take(self, seconds: float) -> list[Told | Connected]:
        """All that was told, as soon as there is something; nothing after `seconds`, or when woken."""
        news: list[Told | Connected | None] = []
        with contextlib.suppress(queue.Empty):
            news.append(self._queue.get(timeout=max(0.0, seconds)))
            while len(news) < MOST_TOLD:
                news.append(self._queue.get_nowait())
        return [item for item in news if item is not None]


# Watches ----------------------------------------------------------------------------------------

OPENERS = 8
# How many of them may be waiting for endpoints that did not open the last time: the others are for those that will.
FOR_DOUBTFUL = 4
OPEN_SECONDS = 15.0
LONGEST_WAIT = 60.0
# For one that has no events: it may be another kind of hypervisor by then.
SELDOM = 3600.0
MOST_STUCK = 2


class _Subscription:
    """One endpoint that is to be listened to. All but `endpoint` belongs to who holds the lock of Subscriptions."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.watch: Watch | None = None
        self.opened_at = 0.0
        self.failures = 0  # in a row
        self.due_at = 0.0
        self.taken = False  # by a thread
        self.dropped = False
        self.error = ""

    @property
    def is_closed(self) -> bool:
        return self.watch is None and not self.taken

    def failed(self, wait: float | None = None) -> None:
        """Tried again after `wait`, without one after longer each time."""
        self.failures += 1
        self.due_at = time.monotonic() + (wait or min(2.0 ** min(self.failures - 1, 10), LONGEST_WAIT))

    def lost(self) -> None:
        """Opened again at once, unless it does not last."""
        if time.monotonic() - self.opened_at > LONGEST_WAIT:
            self.failures, self.due_at = 0, 0.0
        else:
            self.failed()


class Subscriptions:
    """A watch for each endpoint, opened and opened again by a few threads: a frozen endpoint costs one a while."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._lock = threading.Condition()
        self._by_endpoint: dict[int, _Subscription] = {}
        self._to_close: list[Watch] = []
        self._ended = False

    def start(self) -> None:
        for _ in range(OPENERS):
            threading.Thread(target=self._work, name="watch-openers", daemon=True).start()

    def end(self) -> None:
        """The threads end when they next look; watches end with the process: closing them would ask their hosts."""
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    def keep(self, endpoints: Iterable[Endpoint]) -> None:
        """Listen to these endpoints, as they are now, and to no others."""
        wanted = {endpoint.pk: endpoint for endpoint in endpoints}
        with self._lock:
            for endpoint_id, subscription in list(self._by_endpoint.items()):
                endpoint = wanted.get(endpoint_id)
                if endpoint is None or _access(endpoint) != _access(subscription.endpoint):
                    self._drop(endpoint_id)
            for endpoint_id, endpoint in wanted.items():
                # What else is known of it counts when its watch is opened anew: where its pool answers, say.
                self._by_endpoint.setdefault(endpoint_id, _Subscription(endpoint)).endpoint = endpoint
            self._lock.notify_all()

    def _drop(self, endpoint_id: int) -> None:
        subscription = self._by_endpoint.pop(endpoint_id)
        subscription.dropped = True
        if subscription.watch:
            self._to_close.append(subscription.watch)

    def replace_dead(self) -> None:
        with self._lock:
            dead = [(s, s.watch) for s in self._by_endpoint.values() if s.watch and not s.watch.is_alive()]
            for subscription, watch in dead:
                self._to_close.append(watch)
                subscription.watch = None
                subscription.lost()
            if dead:
                self._lock.notify_all()

    def count_open(self) -> int:
        with self._lock:
            return sum(1 for subscription in self._by_endpoint.values() if subscription.watch)

    def _work(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception:
                log.exception("A watch could not be opened or closed.")

    def _next(self) -> Callable[[], None] | None:
        """Wait for something to do; None at the end."""
        with self._lock:
            while not self._ended:
                if self._to_close:
                    return self._to_close.pop().close
                now = time.monotonic()
                if subscription := self._due(now):
                    subscription.taken = True
                    return partial(self._open, subscription)
                later = [s.due_at - now for s in self._by_endpoint.values() if s.is_closed and s.due_at > now]
                self._lock.wait(min(later, default=None))
        return None

    def _due(self, now: float) -> _Subscription | None:
        """Of those that are to be opened now, the one that has failed the least."""
        subscriptions = self._by_endpoint.values()
        first = min((s for s in subscriptions if s.is_closed and s.due_at <= now), key=_hope, default=None)
        if first and first.failures and sum(1 for s in subscriptions if s.taken and s.failures) >= FOR_DOUBTFUL:
            return None
        return first

    def _open(self, subscription: _Subscription) -> None:
        watch, error, has_none = None, "", False
        try:
            watch = self._watch(subscription.endpoint)
        except HypervisorError as failure:
            error, has_none = str(failure), isinstance(failure, Refused)
        except Exception:
            error = "Something of ours failed."
            log.exception("A watch could not be opened.", endpoint=str(subscription.endpoint))
        _note(subscription, error)
        with self._lock:
            subscription.taken = False
            if subscription.dropped:
                if watch:
                    self._to_close.append(watch)
            elif watch:
                subscription.watch, subscription.opened_at = watch, time.monotonic()
                self._news.tell(Connected(subscription.endpoint.pk))
            else:
                subscription.failed(SELDOM if has_none else None)
            self._lock.notify_all()

    def _watch(self, endpoint: Endpoint) -> Watch:
        source = hypervisor_at(endpoint)
        if not isinstance(source, EventSource):
            raise Refused("It tells no events.")
        whom = ("watch", endpoint.pk)
        if abandoned_calls(whom) >= MOST_STUCK:
            raise EndpointUnreachable("Earlier calls to it are stuck.")
        with asking(whom):
            return source.watch(partial(self._tell, endpoint.pk), within(OPEN_SECONDS))

    def _tell(self, endpoint_id: int, vm_uuid: str, event: GuestEvent) -> None:
        self._news.tell(Told(endpoint_id, vm_uuid, event))


def _hope(subscription: _Subscription) -> tuple[int, float]:
    return subscription.failures, subscription.due_at


def _access(endpoint: Endpoint) -> tuple[object, ...]:
    """What a watch depends on; the password as it is stored, sealed."""
    return tuple(endpoint.__dict__[name] for name in (*Endpoint.ADDRESS_FIELDS, "password"))


def _note(subscription: _Subscription, error: str) -> None:
    """Log a change for the worse or the better, once."""
    if error and error != subscription.error:
        log.warning("An endpoint's events cannot be listened to.", endpoint=str(subscription.endpoint), error=error)
    elif subscription.error and not error:
        log.info("An endpoint's events are listened to again.", endpoint=str(subscription.endpoint))
    subscription.error = error


# The loop ---------------------------------------------------------------------------------------

TICK_SECONDS = 1.0
ENDPOINTS_EVERY = 10.0
LOST_JOBS_EVERY = 10.0
MOVED_EVERY = 5.0
# A host or a guest that tells without end must not keep the loop busy without end.
PAUSE_SECONDS = 0.2


class _Part:
    """Something that the loop does every few seconds. Its errors end here: the next time finds what this one left."""

    def __init__(self, seconds: float, work: Callable[[], object]) -> None:
        self._seconds = seconds
        self._work = work
        self.due_at = 0.0

    def run(self) -> None:
        if time.monotonic() < self.due_at:
            return
        self.due_at = time.monotonic() + self._seconds
        try:
            self._work()
        except Exception:
            log.exception("A part of the watcher's work failed; it is tried again.", part=self._work.__qualname__)


class Watcher:
    """The loop. It waits for the database and for no hypervisor."""

    def __init__(self) -> None:
        self.news = News()
        self.subscriptions = Subscriptions(self.news)
        self._stopping = False
        self._told: list[Told | Connected] = []
        self._moved = False
        self._follow_at = 0.0
        self._turn = planner.Turn()
        self._tick = _Part(TICK_SECONDS, self._plan)
        self._parts = [
            _Part(0, self._pass_on),
            self._tick,
            _Part(TICK_SECONDS, self.subscriptions.replace_dead),
            _Part(ENDPOINTS_EVERY, self._keep_subscriptions),
            _Part(LOST_JOBS_EVERY, self._requeue_lost_jobs),
            _Part(0, self._follow_moved),
        ]

    def stop(self) -> None:
        """May be called by a signal's handler."""
        self._stopping = True
        self.news.wake()

    def run(self) -> None:
        self.subscriptions.start()
        try:
            while not self._stopping:
                news = self.news.take(self._tick.due_at - time.monotonic())
                close_old_connections()
                self.round(news)
        finally:
            self.subscriptions.end()
            _Part(0, self._turn.end).run()
            connections.close_all()

    def round(self, news: list[Told | Connected]) -> None:
        if news:
            self._told = [*self._told, *news][-2 * MOST_TOLD :]
            self._tick.due_at = 0.0
        for part in self._parts:
            if self._stopping:
                return
            part.run()
        if news:
            time.sleep(PAUSE_SECONDS)

    def _plan(self) -> None:
        if self._turn.tick():
            self._tick.due_at = time.monotonic() + planner.MORE_AFTER_SECONDS

    def _keep_subscriptions(self) -> None:
        self.subscriptions.keep(Endpoint.objects.filter(pk__in=Host.objects.values("endpoint")))

    def _requeue_lost_jobs(self) -> None:
        jobs.requeue_lost(timezone.now())

    def _pass_on(self) -> None:
        """Let the planner ask those NICs next that something was told of."""
        news, self._told = self._told, []
        try:
            self._nudge(news)
        except DatabaseError:
            self._told = news  # it comes back
            raise

    def _nudge(self, news: list[Told | Connected]) -> None:
        now = timezone.now()
        if connected := _connected(news):
            for endpoint in Endpoint.objects.filter(pk__in=connected, failures__gt=0):
                record_health(endpoint)  # it answers: readers need not leave it alone any longer
            planner.nudge_endpoints(connected, now)
        told = [item for item in news if isinstance(item, Told)]
        ready = {item.vm_uuid for item in told if item.event is GuestEvent.AGENT_CONNECTED}
        others = {item.vm_uuid for item in told} - ready
        if ready:
            planner.nudge(ready, now, eager=True)
        if others:
            planner.nudge(others, now, eager=False)
        self._moved = self._moved or _have_moved(told)

    def _follow_moved(self) -> None:
        """Look for VMs that somebody else moved or started elsewhere, which otherwise is done every minute.

        While a migration ends, a VM is on both hosts and not followed; its last event comes from the source, and
        the next look finds it.
        """
        if self._moved and time.monotonic() >= self._follow_at:
            self._follow_at = time.monotonic() + MOVED_EVERY
            tasks.enqueue(find_migrated)
            self._moved = False


def _connected(news: Iterable[Told | Connected]) -> set[int]:
    return {item.endpoint_id for item in news if isinstance(item, Connected)}


def _have_moved(told: Iterable[Told]) -> bool:
    """Whether a VM that runs, as far as we know, was started on another host than ours or migrated."""
    arrivals = {
        (item.vm_uuid, item.endpoint_id, item.event)
        for item in told
        if item.event in (GuestEvent.STARTED, GuestEvent.MIGRATED)
    }
    if not arrivals:
        return False
    uuids = {vm_uuid for vm_uuid, _, _ in arrivals}
    running = VirtualMachine.objects.filter(state=VmState.RUNNING, uuid__in=uuids)
    known_at = {str(vm_uuid): endpoint for vm_uuid, endpoint in running.values_list("uuid", "host__endpoint_id")}
    return any(
        vm_uuid in known_at and (event is GuestEvent.MIGRATED or endpoint_id != known_at[vm_uuid])
        for vm_uuid, endpoint_id, event in arrivals
    )
