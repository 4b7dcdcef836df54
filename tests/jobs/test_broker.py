"""What a worker is handed: our tasks alone, whatever somebody wrote into the queue's table."""

import datetime
import io
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from multiprocessing import Queue, Value
from pathlib import Path

import pytest
from django.core.management import get_commands
from django.db import OperationalError, connection
from django.utils import timezone
from django_q import core_signing
from django_q.brokers import get_broker
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule, Task
from django_q.monitor import monitor
from django_q.scheduler import scheduler
from django_q.signing import SignedPackage
from django_q.worker import worker

from extdhcp_site.jobs import services, tasks
from extdhcp_site.jobs.broker import AllowListBroker

pytestmark = pytest.mark.django_db

OURS = "extdhcp_site.jobs.services.housekeeping"


class Evil:
    """Runs a program when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Harmless:
    """A class that does nothing; it is not on the list all the same."""


class AsIs:
    """A serializer that signs bytes which are no pickle of ours."""

    @staticmethod
    def dumps(content: bytes) -> bytes:
        return content


@pytest.fixture
def marker(tmp_path) -> Path:
    """A file that is there only if what a row holds was run."""
    return tmp_path / "ran"


def package(**fields) -> dict:
    return {
        "id": uuid.uuid4().hex,
        "name": "x",
        "func": OURS,
        "args": (),
        "kwargs": {},
        "started": timezone.now(),
        **fields,
    }


def signed(content: bytes, key: str = Conf.SECRET_KEY, salt: str = Conf.PREFIX) -> str:
    return core_signing.dumps(content, key=key, salt=salt, serializer=AsIs)


def put(payload: str) -> OrmQ:
    return OrmQ.objects.create(key=Conf.PREFIX, payload=payload, lock=timezone.now() - datetime.timedelta(seconds=1))


def take() -> list[tuple[int, str]]:
    return AllowListBroker(list_key=Conf.PREFIX).dequeue()


def refused(payload: str) -> bool:
    put(payload)
    return take() == [] and not OrmQ.objects.exists()


def test_the_workers_broker_is_ours():
    assert type(get_broker()) is AllowListBroker


def test_a_task_of_ours_passes():
    tasks.enqueue(services.run, 7, 1)
    OrmQ.objects.update(lock=timezone.now() - datetime.timedelta(seconds=1))

    [(row_id, payload)] = take()

    assert (OrmQ.objects.get().pk, SignedPackage.loads(payload)["args"]) == (row_id, (7, 1))


def test_a_task_with_nested_numbers_and_dates_passes():
    put(SignedPackage.dumps(package(args=(1, [(2, 3)], datetime.timedelta(1), uuid.uuid4(), timezone.now()))))

    assert len(take()) == 1


@pytest.mark.parametrize(
    "function", ["os.system", "subprocess.check_output", "builtins.eval", "", None, 7, ["os.system"]]
)
def test_another_function_is_deleted(function):
    assert refused(SignedPackage.dumps(package(func=function, args=("true",))))


@pytest.mark.parametrize(
    "function",
    [
        "extdhcp_site.jobs.services.forget_secrets",  # ours, and not a task
        f"{OURS} ",
        f"{OURS}.__globals__",
        OURS.replace("jobs.", "jobs.tasks."),
        OURS.upper(),
    ],
)
def test_what_only_looks_like_a_task_is_deleted(function):
    assert refused(SignedPackage.dumps(package(func=function)))


def test_a_foreign_function_never_runs(marker):
    put(SignedPackage.dumps(package(func="os.system", args=(f"touch {marker}",))))

    work_all()

    assert not marker.exists()


def test_a_function_itself_instead_of_its_name_is_deleted():
    assert refused(SignedPackage.dumps(package(func=os.system, args=("true",))))


def test_a_hook_is_deleted():
    assert refused(SignedPackage.dumps(package(hook="os.system")))


@pytest.mark.parametrize("where", ["args", "kwargs", "func", "name", "extra"])
def test_a_pickled_class_is_deleted_and_nothing_runs(marker, where):
    content = {"args": (Evil(marker),), "kwargs": {"x": Evil(marker)}}.get(where, Evil(marker))

    assert refused(signed(pickle.dumps(package(**{where: content}))))
    assert not marker.exists()


def test_the_evil_class_of_these_tests_does_run_where_nobody_looks(marker):
    pickle.loads(pickle.dumps(Evil(marker)))  # noqa: S301 - the proof that the tests above can fail

    assert marker.exists()


def test_a_harmless_class_is_deleted_too():
    assert refused(signed(pickle.dumps(package(args=(Harmless(),)))))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_is_read_by_the_same_rule(marker, protocol):
    assert refused(signed(pickle.dumps(package(args=(Evil(marker),)), protocol=protocol)))
    assert not marker.exists()


@pytest.mark.parametrize(("key", "salt"), [("another key", Conf.PREFIX), (Conf.SECRET_KEY, "another-salt"), ("x", "y")])
def test_a_bad_signature_is_deleted_and_nothing_runs(marker, key, salt):
    assert refused(signed(pickle.dumps(package(args=(Evil(marker),))), key, salt))
    assert not marker.exists()


def test_a_changed_payload_is_deleted():
    payload = SignedPackage.dumps(package())

    assert refused(("A" if payload[0] != "A" else "B") + payload[1:])


@pytest.mark.parametrize("junk", ["", ":", "::", "junk", "a:b:c", "\x00", "é:é:é", "." * 1000, "A" * 100_000])
def test_junk_is_deleted(junk):
    assert refused(junk)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b".",
        b"\x80\x05",
        b"\x80\x05N.",
        pickle.dumps([1]),
        pickle.dumps("os.system"),
        pickle.dumps({"func": OURS})[:-3],
        b"cdatetime\ndatetime\n(S'junk'\ntR.",
        b"cdatetime\nno_such_name\n.",
    ],
)
def test_signed_junk_is_deleted(content):
    assert refused(signed(content))


def test_signed_junk_that_says_it_is_compressed_is_deleted():
    signer = core_signing.TimestampSigner(key=Conf.SECRET_KEY, salt=Conf.PREFIX)

    assert refused(signer.sign(".bm90IHpsaWI"))


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
class TestConnection:
    """A queue is looked at several times a second, for ever."""

    @pytest.fixture
    def broker(self, monkeypatch):
        monkeypatch.setattr(Conf, "POLL", 0)
        connection.close()
        broker = AllowListBroker("addresses")
        broker.dequeue()
        return broker

    def test_looking_again_keeps_the_connection(self, broker):
        kept = connection.connection
        broker.dequeue()
        assert connection.connection is kept is not None

    def test_one_that_the_server_has_ended_is_replaced(self, broker):
        tasks.enqueue(services.housekeeping, queue="addresses")
        # As a server does it, behind Django's back.
        connection.connection.close()
        if connection.vendor == "sqlite":
            # Its library has another class of errors for a closed connection than for one that broke.
            connection.connection = _Broken()

        assert len(broker.dequeue()) == 1

    def test_a_database_that_is_gone_is_told(self, broker, monkeypatch):
        def refuse(*args):
            raise OperationalError("gone")

        monkeypatch.setattr(ORM, "dequeue", refuse)
        with pytest.raises(OperationalError):
            broker.dequeue()

    def test_other_processes_close_theirs_by_age_as_before(self, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
        AllowListBroker("addresses").queue_size()
        used = connection.connection
        AllowListBroker("addresses").queue_size()
        assert connection.connection is not used


class _Broken:
    def cursor(self, *args, **kwargs):
        raise sqlite3.OperationalError("the database is gone")

    def close(self) -> None:
        pass


def test_a_bad_row_holds_up_no_good_one():
    put("junk")
    put(SignedPackage.dumps(package()))

    assert (len(take()), len(take())) == (0, 1)


def test_what_is_deleted_is_logged_by_its_number_without_its_content(caplog):
    row = put("content-that-nobody-should-read")

    take()

    assert str(row.pk) in caplog.text
    assert "content-that-nobody-should-read" not in caplog.text


# What a cluster's processes do, in this one ---------------------------------------------------------


def work_all() -> None:
    """Take every task there is, as the pusher does; run it as a worker does; end it as the monitor does."""
    to_do, done = Queue(), Queue()
    OrmQ.objects.update(lock=timezone.now() - datetime.timedelta(seconds=1))
    while OrmQ.objects.filter(lock__lt=timezone.now()).exists():
        for row_id, payload in take():
            to_do.put({**SignedPackage.loads(payload), "cluster": Conf.CLUSTER_NAME, "ack_id": row_id})
    to_do.put("STOP")
    worker(to_do, done, Value("d", -1))
    done.put("STOP")
    monitor(done, AllowListBroker(list_key=Conf.PREFIX))


# A worker closes connections between its tasks, and with them a test's transaction.
beside_transactions = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@beside_transactions
def test_no_result_of_a_task_is_stored():
    tasks.enqueue(services.housekeeping)

    work_all()

    assert (Task.objects.count(), OrmQ.objects.count()) == (0, 0)


@beside_transactions
def test_no_result_of_a_failed_task_is_stored(monkeypatch):
    monkeypatch.setattr(services, "requeue_lost", lambda now: 1 / 0)
    put(SignedPackage.dumps(package()))

    work_all()

    assert (Task.objects.count(), OrmQ.objects.count()) == (0, 0)


class TestSchedules:
    @pytest.fixture(autouse=True)
    def synced(self):
        tasks.sync_schedules()

    @staticmethod
    def rows() -> list[tuple]:
        return sorted(Schedule.objects.values_list("name", "func", "schedule_type", "minutes", "repeats"))

    def test_they_are_what_the_code_declares(self):
        declared = [(name, name, Schedule.MINUTES, each.minutes, -1) for name, each in tasks._schedules.items()]
        assert self.rows() == sorted(declared)
        assert {name for name, *_ in declared} >= {
            "extdhcp_site.jobs.services.housekeeping",
            "networks.services.lifecycle.housekeeping",
            "configdrive.upkeep.remove_leftovers",
        }

    def test_lost_jobs_are_looked_for_twice_a_minute(self):
        """With the 45 s after which a job counts as lost that makes 75; 90 are promised."""
        looks = Schedule.objects.filter(func__in=[OURS, "extdhcp_site.jobs.services.take_up_lost"])
        first, second = looks.order_by("next_run").values_list("next_run", "minutes")
        assert (first[1], second[1]) == (1, 1)
        assert datetime.timedelta(seconds=29) < second[0] - first[0] < datetime.timedelta(seconds=31)
        silent = max(services.LOST_AFTER, services.NEVER_STARTED_AFTER)
        assert silent + datetime.timedelta(seconds=30) <= datetime.timedelta(seconds=90)

    def test_each_is_a_task_that_a_worker_may_run(self):
        assert all(tasks.is_allowed(func) for func in Schedule.objects.values_list("func", flat=True))

    def test_syncing_twice_changes_nothing(self):
        before = list(Schedule.objects.order_by("pk").values())

        tasks.sync_schedules()

        assert list(Schedule.objects.order_by("pk").values()) == before

    def test_foreign_ones_are_removed(self):
        Schedule.objects.create(name="evil", func="os.system", args="'true'")
        Schedule.objects.create(func=OURS)  # without a name

        tasks.sync_schedules()

        assert Schedule.objects.count() == len(tasks._schedules)

    def test_changed_ones_are_put_right(self):
        Schedule.objects.filter(name=OURS).update(func="os.system", minutes=9)

        tasks.sync_schedules()

        row = Schedule.objects.get(name=OURS)
        assert (row.func, row.minutes) == (OURS, 1)

    @beside_transactions
    @pytest.mark.parametrize(
        "kwargs",
        [
            "",
            # These would run in the scheduler itself, past the broker.
            "{'q_options': {'sync': True}}",
            "sync=True",
        ],
    )
    def test_a_foreign_one_runs_nothing(self, marker, kwargs):
        Schedule.objects.all().delete()
        Schedule.objects.create(
            func="os.system",
            args=f"'touch {marker}'",
            kwargs=kwargs,
            schedule_type=Schedule.ONCE,
            next_run=timezone.now() - datetime.timedelta(minutes=1),
        )

        scheduler(AllowListBroker(list_key=Conf.PREFIX))
        work_all()

        assert not marker.exists()

    @beside_transactions
    def test_a_foreign_one_holds_up_none_of_ours(self):
        past = timezone.now() - datetime.timedelta(minutes=5)
        Schedule.objects.create(name="evil", func="os.system", args="'true'")
        Schedule.objects.update(next_run=past)

        scheduler(AllowListBroker(list_key=Conf.PREFIX))

        queued = {SignedPackage.loads(payload)["func"] for payload in OrmQ.objects.values_list("payload", flat=True)}
        assert queued >= tasks._schedules.keys()


def test_qcluster_is_our_command():
    assert get_commands()["qcluster"] == "extdhcp_site.jobs"


def test_what_qcluster_forks_dies_with_it(tmp_path):
    """Its children ask the kernel to be killed when their parent is."""
    program = """
import os, time
from extdhcp_site.processes import children_die_with_parent
children_die_with_parent()
child = os.fork()
if not child:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    with io.TextIOWrapper(parent.stdout) as output:
        child = int(output.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        # The pipe closes once nobody is left who could write to it.
        assert output.read() == ""
    with pytest.raises(ProcessLookupError):
        wait_until_gone(child)


def wait_until_gone(pid: int) -> None:
    """Raises ProcessLookupError once it is; returns if it is still there after a while."""
    for _ in range(100):
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            raise ProcessLookupError
        os.kill(pid, 0)
        time.sleep(0.05)
