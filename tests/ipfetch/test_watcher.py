"""The watcher: a watch for each endpoint, and what is told reaches the queue of addresses."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import DatabaseError
from django.utils import timezone
from django_q.models import OrmQ

from extdhcp_site.configuration.models import Setting
from ipfetch import planner, watcher
from ipfetch.models import IpFetch, Outcome
from ipfetch.schedule import Pace
from ipfetch.watcher import Connected, News, Subscriptions, Told, Watcher
from networks.hypervisors import kvm_connection
from networks.hypervisors.base import (
    EndpointAddress,
    EndpointUnreachable,
    GuestEvent,
    Transport,
    abandoned_calls,
    call_within,
)
from networks.hypervisors.kvm import KvmHost
from networks.models import Endpoint, Nic, VmState
from networks.services.places import record_health
from tests.factories import make_endpoint, make_host, make_network, make_running_vm
from tests.fakes import FakeHypervisor, hypervisors
from tests.lab.system import wait_for
from tests.networks.hypervisors.factories import make_spec, soon
from tests.networks.hypervisors.factories import make_vm as make_ref
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

ADOPTION = "networks.services.adoption.find_migrated"
pytestmark = pytest.mark.django_db
REPOSITORY = Path(watcher.__file__).parents[1]


class FakeWatch:
    def __init__(self, tell: Callable) -> None:
        self.tell = tell
        self.alive = True
        self.closed = False

    def is_alive(self) -> bool:
        return self.alive and not self.closed

    def close(self) -> None:
        self.closed = True


@dataclass
class Telling(FakeHypervisor):
    """A host that tells events. While `frozen` is set, opening a watch does not come back."""

    watches: list[FakeWatch] = field(default_factory=list)
    frozen: threading.Event | None = None

    def watch(self, tell: Callable, deadline: float) -> FakeWatch:
        self._called("watch")
        if frozen := self.frozen:
            call_within(min(deadline, soon(3)), lambda: frozen.wait(60))
        self.watches.append(FakeWatch(tell))
        return self.watches[-1]

    @property
    def open(self) -> list[FakeWatch]:
        return [watch for watch in self.watches if watch.is_alive()]


@pytest.fixture
def host() -> Telling:
    return Telling()


@pytest.fixture
def kept(host) -> Iterator[Subscriptions]:
    with hypervisors(host), running(Subscriptions(News())) as subscriptions:
        yield subscriptions


@contextlib.contextmanager
def running(subscriptions: Subscriptions) -> Iterator[Subscriptions]:
    subscriptions.start()
    yield subscriptions
    subscriptions.keep([])
    subscriptions.end()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(watcher, "PAUSE_SECONDS", 0)


def news_of(subscriptions: Subscriptions, seconds: float = 0.0) -> list[Told | Connected]:
    return subscriptions._news.take(seconds)


def waiting_nic(**fields) -> Nic:
    """One whose next try is far off."""
    nic = make_running_vm(networks=[make_network()], **fields).nics.get()
    planner.enter_missing(Pace.now(), timezone.now())
    IpFetch.objects.filter(nic=nic).update(next_attempt_at=timezone.now() + timedelta(minutes=2))
    return nic


def is_due(nic: Nic) -> bool:
    return IpFetch.objects.due(timezone.now()).filter(nic=nic).exists()


def queued(name: str) -> int:
    return sum(1 for row in OrmQ.objects.all() if row.task["func"] == name)


def told(nic: Nic, event: GuestEvent, endpoint: Endpoint | None = None) -> Told:
    return Told((endpoint or nic.vm.host.endpoint).pk, str(nic.vm.uuid), event)


@pytest.fixture
def loop(monkeypatch) -> Watcher:
    """A watcher that only passes on: what it passes on stays to be seen, for no planner takes it."""
    loop = Watcher()
    monkeypatch.setattr(loop._tick, "_work", lambda: None)
    return loop


# What is told ------------------------------------------------------------------------------------


def test_telling_wakes_the_loop_at_once():
    news = News()
    threading.Timer(0.2, lambda: news.tell(Connected(1))).start()

    begun = time.monotonic()
    assert news.take(20) == [Connected(1)]
    assert time.monotonic() - begun < 5


def test_nothing_told_is_nothing_taken():
    news = News()
    news.wake()
    assert news.take(20) == []
    assert news.take(0) == []


def test_host_that_tells_without_end_fills_no_memory_and_hides_no_connection(monkeypatch):
    monkeypatch.setattr(watcher, "MOST_TOLD", 10)
    news = News()
    for number in range(100):
        news.tell(Told(1, str(number), GuestEvent.STARTED))
    news.tell(Connected(2))

    assert [*news.take(0), *news.take(0)][-1] == Connected(2)
    assert news.take(0) == []


# Watches -----------------------------------------------------------------------------------------


def test_endpoint_is_watched_once_and_its_connection_is_told(kept, host):
    endpoint = make_endpoint()
    for _ in range(3):
        kept.keep([endpoint])

    assert news_of(kept, 10) == [Connected(endpoint.pk)]
    assert len(host.watches) == kept.count_open() == 1


def test_event_comes_with_its_endpoint(kept, host):
    endpoint = make_endpoint()
    kept.keep([endpoint])
    news_of(kept, 10)

    host.watches[0].tell("11111111-0000-4000-8000-000000000001", GuestEvent.STARTED)

    assert news_of(kept) == [Told(endpoint.pk, "11111111-0000-4000-8000-000000000001", GuestEvent.STARTED)]


def test_dead_watch_is_closed_and_another_opened(kept, host):
    kept.keep([make_endpoint()])
    news_of(kept, 10)
    host.watches[0].alive = False

    kept.replace_dead()

    assert news_of(kept, 10)
    assert [watch.closed for watch in host.watches] == [True, False]


def test_endpoint_that_is_removed_is_watched_no_longer(kept, host):
    kept.keep([make_endpoint()])
    news_of(kept, 10)

    kept.keep([])

    wait_for("the close", lambda: host.watches[0].closed, 10)
    assert kept.count_open() == 0


@pytest.mark.parametrize("change", [{"host": "192.0.2.8"}, {"password": "another"}], ids=["address", "password"])
def test_endpoint_that_was_changed_is_watched_as_it_is_now(kept, host, change):
    endpoint = make_endpoint(transport="tcp", host="192.0.2.7", password="one")
    kept.keep(Endpoint.objects.all())
    news_of(kept, 10)
    for name, value in change.items():
        setattr(endpoint, name, value)
    endpoint.save()

    kept.keep(Endpoint.objects.all())

    assert news_of(kept, 10) == [Connected(endpoint.pk)]
    wait_for("the old watch's close", lambda: host.watches[0].closed, 10)
    assert len(host.open) == 1


def test_health_that_is_recorded_is_no_change(kept, host):
    endpoint = make_endpoint()
    kept.keep(Endpoint.objects.all())
    news_of(kept, 10)
    record_health(endpoint)

    kept.keep(Endpoint.objects.all())

    assert news_of(kept, 0.3) == []
    assert len(host.watches) == 1


def test_what_a_pool_told_of_its_hosts_is_known_when_its_watch_is_opened_anew(kept, host):
    endpoint = make_endpoint()
    kept.keep(Endpoint.objects.all())
    news_of(kept, 10)
    Endpoint.objects.update(members=[["192.0.2.8", "a" * 64]])

    kept.keep(Endpoint.objects.all())

    (subscription,) = watched(kept, [endpoint])
    assert [member.host for member in subscription.endpoint.address.members] == ["192.0.2.8"]
    assert len(host.watches) == 1


def test_endpoint_that_goes_while_it_is_opened_leaves_no_watch(kept, host):
    host.frozen = threading.Event()
    kept.keep([make_endpoint()])
    wait_for("the opening", lambda: host.calls, 10)
    kept.keep([])
    host.frozen.set()

    wait_for("the watch", lambda: host.watches, 10)
    wait_for("its close", lambda: host.watches[0].closed, 10)


def test_endpoint_that_does_not_open_is_tried_again_and_less_often(kept, host, monkeypatch):
    host.failing["watch"] = EndpointUnreachable("down")
    kept.keep([make_endpoint()])

    wait_for("two tries", lambda: len(host.calls) == 2, 10)
    (subscription,) = kept._by_endpoint.values()
    wait_for("the wait", lambda: subscription.failures == 2, 10)
    assert 1 < subscription.due_at - time.monotonic() <= 2

    del host.failing["watch"]
    assert news_of(kept, 10)


def test_waits_grow_to_a_minute_and_no_further():
    subscription = watcher._Subscription(Endpoint())
    waits = []
    for _ in range(9):
        subscription.failed()
        waits.append(round(subscription.due_at - time.monotonic()))

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_watch_that_does_not_last_is_not_opened_without_end():
    subscription = watcher._Subscription(Endpoint())
    for _ in range(3):
        subscription.opened_at = time.monotonic()
        subscription.lost()
    assert subscription.due_at > time.monotonic() + 3

    subscription.opened_at = time.monotonic() - 61
    subscription.lost()
    assert subscription.due_at <= time.monotonic()


def test_unexpected_error_is_one_endpoints_and_is_tried_again(kept, host):
    host.failing["watch"] = RuntimeError("a defect")
    kept.keep([make_endpoint()])
    wait_for("the try", lambda: host.calls, 10)
    del host.failing["watch"]

    assert news_of(kept, 10)


def test_endpoint_whose_driver_tells_nothing_costs_nothing_but_a_log_line():
    with hypervisors(FakeHypervisor()), running(Subscriptions(News())) as subscriptions:
        subscriptions.keep([make_endpoint()])
        (subscription,) = subscriptions._by_endpoint.values()
        wait_for("the refusal", lambda: subscription.error == "It tells no events.", 10)


def test_frozen_endpoints_keep_no_other_from_being_watched():
    """As many of them as there are threads; and a call that is stuck is not joined by others without end."""
    frozen, well = Telling(frozen=threading.Event()), Telling()
    hosts = {"192.0.2.7": frozen, "192.0.2.8": well}
    before = abandoned_calls()
    with hypervisors(hosts), running(Subscriptions(News())) as subscriptions:
        bad = [make_endpoint(transport="tcp", host="192.0.2.7") for _ in range(watcher.OPENERS)]
        subscriptions.keep(bad)
        wait_for("second tries", lambda: len(frozen.calls) >= len(bad) + 4, 20)
        good = make_endpoint(transport="tcp", host="192.0.2.8")

        begun = time.monotonic()
        subscriptions.keep([*bad, good])
        assert news_of(subscriptions, 10) == [Connected(good.pk)]
        assert time.monotonic() - begun < 1
        wait_for("their third tries", lambda: all(s.failures >= 3 for s in watched(subscriptions, bad)), 60)
        assert abandoned_calls() - before <= 2 * len(bad)

        frozen.frozen.set()
        frozen.frozen = None
        wait_for("all of them", lambda: subscriptions.count_open() == len(bad) + 1, 60)


def watched(subscriptions: Subscriptions, endpoints: list[Endpoint]) -> list[watcher._Subscription]:
    return [subscriptions._by_endpoint[endpoint.pk] for endpoint in endpoints]


# From events to the queue -------------------------------------------------------------------------


def test_agent_that_connected_has_its_guest_asked_now_and_each_second(loop):
    nic, other = waiting_nic(), waiting_nic()

    loop.round([told(nic, GuestEvent.AGENT_CONNECTED)])

    assert (is_due(nic), is_due(other)) == (True, False)
    assert IpFetch.objects.get(nic=nic).eager_until > timezone.now() + timedelta(seconds=20)


@pytest.mark.parametrize("event", [GuestEvent.STARTED, GuestEvent.STOPPED, GuestEvent.MIGRATED])
def test_other_events_have_the_guest_asked_once(loop, event):
    nic = waiting_nic()

    loop.round([told(nic, event)])

    assert is_due(nic)
    assert IpFetch.objects.get(nic=nic).eager_until is None


def test_connected_endpoint_has_all_that_wait_on_it_asked(loop):
    nic, other = waiting_nic(), waiting_nic()

    loop.round([Connected(nic.vm.host.endpoint.pk)])

    assert (is_due(nic), is_due(other)) == (True, False)


def test_connected_endpoint_is_left_alone_no_longer(loop):
    nic = waiting_nic()
    IpFetch.objects.filter(nic=nic).update(last_outcome=Outcome.HOST_UNREACHABLE)
    record_health(nic.vm.host.endpoint, "down")

    loop.round([Connected(nic.vm.host.endpoint.pk)])

    endpoint = Endpoint.objects.get(pk=nic.vm.host.endpoint_id)
    assert (endpoint.failures, endpoint.retry_at) == (0, None)


def test_exact_mode_asks_nobody_sooner(loop):
    Setting.objects.update_or_create(name="externaldhcp.vmip.early.retry", defaults={"value": "false"})
    nic = waiting_nic()

    loop.round([told(nic, GuestEvent.AGENT_CONNECTED), Connected(nic.vm.host.endpoint.pk)])

    assert not is_due(nic)


def test_vms_and_endpoints_that_are_not_ours_are_no_matter(loop):
    nic = waiting_nic()
    stranger = Told(10_000, "99999999-0000-4000-8000-000000000009", GuestEvent.AGENT_CONNECTED)

    loop.round([stranger, Connected(10_000), told(nic, GuestEvent.AGENT_CONNECTED)])

    assert is_due(nic)


def test_planner_plans_at_once_when_something_was_told(loop, monkeypatch):
    planned = []
    monkeypatch.setattr(loop._tick, "_work", lambda: planned.append(is_due(nic)))
    nic = waiting_nic()
    loop.round([])
    loop.round([])
    assert planned == [False]

    loop.round([told(nic, GuestEvent.AGENT_CONNECTED)])

    assert planned == [False, True]


def test_what_was_told_outlasts_a_database_that_is_away(loop, monkeypatch):
    nic = waiting_nic()
    with monkeypatch.context() as away:
        away.setattr(planner, "nudge", lambda *_, **__: (_ for _ in ()).throw(DatabaseError("away")))
        loop.round([told(nic, GuestEvent.AGENT_CONNECTED)])
    assert not is_due(nic)

    loop.round([])

    assert is_due(nic)


def test_what_cannot_be_passed_on_is_not_tried_for_ever(loop):
    loop.round([Told(1, "no uuid", GuestEvent.STARTED)])

    assert loop._told == []


def test_part_that_fails_keeps_no_other_from_its_turn(loop, monkeypatch):
    def fail():
        raise RuntimeError("a defect")

    monkeypatch.setattr(loop._tick, "_work", fail)
    requeued = []
    monkeypatch.setattr("ipfetch.watcher.jobs.requeue_lost", requeued.append)

    loop.round([])

    assert len(requeued) == 1


def test_endpoints_of_hosts_are_watched_and_read_in_one_query(host, django_assert_num_queries):
    for _ in range(3):
        make_host()
    make_endpoint()  # without a host
    loop = Watcher()
    with hypervisors(host), running(loop.subscriptions) as subscriptions:
        with django_assert_num_queries(1):
            loop._keep_subscriptions()
        wait_for("the watches", lambda: subscriptions.count_open() == 3, 10)


# VMs that others moved ----------------------------------------------------------------------------


def test_vm_that_starts_on_another_host_is_looked_for(loop):
    nic = waiting_nic()
    loop.round([told(nic, GuestEvent.STARTED, make_endpoint())])
    assert queued(ADOPTION) == 1


def test_vm_that_migrates_while_we_think_it_runs_is_looked_for(loop):
    nic = waiting_nic()
    loop.round([told(nic, GuestEvent.MIGRATED)])
    assert queued(ADOPTION) == 1


def test_vms_that_we_start_and_migrate_are_not(loop):
    started, migrating = waiting_nic(), waiting_nic()
    type(migrating.vm).objects.filter(pk=migrating.vm.pk).update(state=VmState.MIGRATING)

    loop.round([told(started, GuestEvent.STARTED), told(migrating, GuestEvent.MIGRATED, make_endpoint())])

    assert queued(ADOPTION) == 0


def test_moved_vms_are_looked_for_again_only_after_a_while(loop, monkeypatch):
    nic = waiting_nic()
    for _ in range(3):
        loop.round([told(nic, GuestEvent.MIGRATED)])
    assert queued(ADOPTION) == 1

    monkeypatch.setattr(loop, "_follow_at", 0.0)
    loop.round([])
    loop.round([])
    assert queued(ADOPTION) == 2


# Real hosts --------------------------------------------------------------------------------------


@pytest.mark.lab
def test_frozen_real_host_is_watched_again_when_it_answers_and_the_other_all_the_while(lab, monkeypatch):
    monkeypatch.setattr(kvm_connection, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(kvm_connection, "KEEPALIVE_COUNT", 1)
    monkeypatch.setattr(watcher, "OPEN_SECONDS", 2.0)
    endpoints = [Endpoint(pk=number, transport="tcp", host=str(host.address)) for number, host in enumerate(lab.hosts)]
    before = abandoned_calls()
    with running(Subscriptions(News())) as subscriptions:
        subscriptions.keep(endpoints)
        wait_for("both hosts", lambda: subscriptions.count_open() == 2, 20)
        first, second = watched(subscriptions, endpoints)
        kept = second.watch
        with lab.hosts[0].frozen():
            wait_for("the watch's end", lambda: replaced(subscriptions) and first.failures >= 3, 60)
            assert abandoned_calls() - before <= watcher.MOST_STUCK
        wait_for("the frozen host", lambda: replaced(subscriptions) and subscriptions.count_open() == 2, 60)

        assert second.watch is kept
    wait_for("the stuck threads", lambda: abandoned_calls() <= before, 30)


def replaced(subscriptions: Subscriptions) -> bool:
    subscriptions.replace_dead()
    return True


# The process --------------------------------------------------------------------------------------

# A host, and on it a VM that runs and waits for its address.
SEED = """
import django
django.setup()
from django.utils import timezone
from ipfetch import planner
from ipfetch.schedule import Pace
from tests.factories import make_network, make_running_vm
vm = make_running_vm(networks=[make_network()])
planner.enter_missing(Pace.now(), timezone.now())
print(vm.uuid)
"""


class Command:
    """`manage.py watch_hypervisors` on a database of its own."""

    def __init__(self, directory: Path, socket: str) -> None:
        self._database = directory / "db.sqlite3"
        self._log = directory / "watcher.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "DEBUG": "true",
            "VAR_DIR": str(directory),
            "EXTDHCP_ENV_FILE": "/dev/null",
            "DATABASE_URL": f"sqlite:///{self._database}",
            "ALLOW_TEST_HYPERVISOR": "true",
            "LIBVIRT_TEST_SOCKET": socket,
            "DJANGO_SETTINGS_MODULE": "extdhcp_site.settings",
        }

    def python(self, *words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, env=self._environment, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "watch_hypervisors"],
                env=self._environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def nic(self) -> tuple[int, str]:
        """How often it was claimed, and when it is asked next."""
        with contextlib.closing(sqlite3.connect(self._database)) as connection:
            return connection.execute("SELECT attempt, next_attempt_at FROM ipfetch_ipfetch").fetchone()


@pytest.fixture
def daemon(tmp_path) -> Iterator[PrivateLibvirtd]:
    try:
        with PrivateLibvirtd(tmp_path / "d") as daemon:
            yield daemon
    except LibvirtdMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def command(tmp_path, daemon) -> Command:
    command = Command(tmp_path, daemon.socket)
    command.python("manage.py", "migrate", "--verbosity", "0")
    return command


def nudged(command: Command, cause: Callable[[], object]) -> None:
    before = command.nic()[1]
    cause()
    wait_for("the NIC's nudge", lambda: command.nic()[1] != before, 20)


def ended(process: subprocess.Popen) -> int:
    """Its status. On a busy machine the end of the interpreter alone takes a second; a host's time-outs are longer."""
    begun = time.monotonic()
    process.terminate()
    status = process.wait(30)
    assert time.monotonic() - begun < 5
    return status


def test_process_hears_of_vms_outlives_its_hosts_and_ends_when_asked(command, daemon):
    """One process walked through its life, because each takes seconds to start."""
    vm = make_ref(uuid=command.python("-c", SEED))
    with command.running() as process:
        # No worker takes the batch, so the claim stays and what follows is seen in the next try's time.
        wait_for("the first claim, once the host is connected to", lambda: command.nic()[0] == 1, 30)
        host = KvmHost(EndpointAddress(Transport.TEST, test_socket=daemon.socket))
        host.define(make_spec(vm), soon())
        nudged(command, lambda: host.start(vm, soon()))

        daemon.stop()
        nudged(command, daemon.start)  # it is connected to again

        os.kill(daemon._process.pid, signal.SIGSTOP)
        try:
            assert ended(process) == 0
        finally:
            os.kill(daemon._process.pid, signal.SIGCONT)
    assert "Traceback" not in command.log


def test_process_ends_in_time_while_hosts_do_not_answer(command, daemon):
    command.python("-c", SEED)
    os.kill(daemon._process.pid, signal.SIGSTOP)
    try:
        with command.running() as process:
            wait_for("the first claim", lambda: command.nic()[0] == 1, 30)
            assert ended(process) == 0
    finally:
        os.kill(daemon._process.pid, signal.SIGCONT)
    assert "Traceback" not in command.log
