"""A job from its submission to its end, and what happens when the worker that runs it does not live that long."""

import pickle
import threading
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.configuration.models import JOB_EXPIRE_MINUTES, set_value
from extdhcp_site.errors import InvalidParameter, ResourceInUse
from extdhcp_site.events.models import Event, EventType, Level, State
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from extdhcp_site.turns import InTurn
from tests.api.client import Signer
from tests.factories import make_account, make_api_key, make_caller, make_user, make_vm

pytestmark = pytest.mark.django_db

WORK = "workForThisTest"
SILENT = jobs.LOST_AFTER + timedelta(seconds=1)


class Work:
    """The handler of this file's jobs: counts how often it was called, and does what a test gives it to do."""

    def __init__(self) -> None:
        self.calls = 0
        self.does = lambda job: None

    def __call__(self, job: AsyncJob) -> None:
        self.calls += 1
        self.does(job)


@pytest.fixture
def work(monkeypatch) -> Work:
    work = Work()
    monkeypatch.setitem(jobs._handlers, WORK, (work, EventType.VM_START))
    return work


@pytest.fixture
def caller() -> Caller:
    return make_caller()


@pytest.fixture
def vm(caller):
    return make_vm(caller.account)


@pytest.fixture
def job(work, vm, caller) -> AsyncJob:
    return submit(vm, caller)


def submit(vm, caller: Caller, **arguments: object) -> AsyncJob:
    return jobs.submit(WORK, vm, account=vm.account, by=caller, **arguments)


def deliver(job: AsyncJob, attempt: int = 1) -> AsyncJob:
    """What a worker does with the job's task."""
    jobs.run(job.pk, attempt)
    job.refresh_from_db()
    return job


def queued() -> list[tuple[str, tuple]]:
    packages = [SignedPackage.loads(row.payload) for row in OrmQ.objects.order_by("pk")]
    return [(package["func"], package["args"]) for package in packages]


def lose_worker(job: AsyncJob, at_attempt: int = 1) -> None:
    """A worker took the task, said that it lives, and died."""
    AsyncJob.objects.filter(pk=job.pk, attempt=at_attempt).update(heartbeat_at=timezone.now())
    OrmQ.objects.all().delete()


class TestSubmit:
    def test_job_and_task_are_written_together(self, job):
        assert AsyncJob.objects.get().status == Status.PENDING
        assert queued() == [("extdhcp_site.jobs.services.run", (job.pk, 1))]

    def test_a_rollback_leaves_neither_job_nor_task_nor_event(self, work, vm, caller):
        with transaction.atomic():
            submit(vm, caller)
            transaction.set_rollback(True)

        assert (AsyncJob.objects.count(), OrmQ.objects.count(), Event.objects.count()) == (0, 0, 0)

    def test_a_task_holds_ids_and_nothing_else(self, work, vm, caller):
        submit(vm, caller, forced=True, host=7)

        [row] = OrmQ.objects.all()
        package = SignedPackage.loads(row.payload)
        assert [type(value) for value in package["args"]] == [int, int]
        assert package["kwargs"] == {}

    def test_arguments_come_back_as_they_went_in(self, work, vm, caller):
        assert AsyncJob.objects.get(pk=submit(vm, caller, forced=True, host=7).pk).arguments == {
            "forced": True,
            "host": 7,
        }

    def test_one_job_at_a_time_works_on_an_object(self, job, vm, caller):
        with pytest.raises(ResourceInUse, match=f"{WORK}, job {job.uuid}"):
            submit(vm, caller)

        assert (AsyncJob.objects.count(), OrmQ.objects.count()) == (1, 1)

    def test_it_is_three_rows_and_no_more_statements(self, work, vm, caller, django_assert_num_queries):
        # Job, event and task; the first stands in a savepoint of its own.
        with transaction.atomic(), django_assert_num_queries(5):
            submit(vm, caller)

    def test_other_objects_have_jobs_at_the_same_time(self, job, caller):
        assert submit(make_vm(caller.account), caller).status == Status.PENDING

    @pytest.mark.parametrize("outcome", [None, InvalidParameter("no")])
    def test_an_ended_job_frees_its_object(self, job, vm, caller, outcome):
        jobs.finish(job, outcome)

        assert submit(vm, caller).pk != job.pk


class TestUpkeep:
    """What the system does by itself gives way to what somebody asks for."""

    @pytest.fixture
    def upkeep(self, work, vm) -> AsyncJob:
        return jobs.submit(WORK, vm, account=vm.account, by=None)

    def test_upkeep_that_has_not_begun_makes_way(self, work, upkeep, vm, caller):
        job = submit(vm, caller)

        deliver(job)
        jobs.run(upkeep.pk, upkeep.attempt)
        assert (job.status, work.calls, list(AsyncJob.objects.all())) == (Status.SUCCEEDED, 1, [job])

    def test_nothing_has_made_way_for_what_is_refused_after_all(self, upkeep, vm, caller):
        with transaction.atomic():
            submit(vm, caller)
            transaction.set_rollback(True)

        assert list(AsyncJob.objects.all()) == [upkeep]

    def test_upkeep_that_has_begun_is_waited_for(self, upkeep, vm, caller):
        AsyncJob.objects.update(heartbeat_at=timezone.now())

        with pytest.raises(jobs.BusyWithUpkeep, match=f"job {upkeep.uuid}"):
            submit(vm, caller)

    def test_upkeep_does_not_make_way_for_upkeep(self, upkeep, vm):
        with pytest.raises(ResourceInUse):
            jobs.submit(WORK, vm, account=vm.account, by=None)

    def test_what_somebody_asked_for_makes_way_for_nobody(self, job, vm, caller):
        with pytest.raises(ResourceInUse) as refused:
            submit(vm, caller)

        assert not isinstance(refused.value, jobs.BusyWithUpkeep)

    def test_inside_a_transaction_its_end_could_not_be_seen(self, upkeep, vm, caller):
        AsyncJob.objects.update(heartbeat_at=timezone.now())
        with pytest.raises(jobs.BusyWithUpkeep):
            jobs.patiently(lambda: submit(vm, caller))


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_somebody_patient_need_not_know_of_upkeep(work, vm, caller):
    upkeep = jobs.submit(WORK, vm, account=vm.account, by=None)
    AsyncJob.objects.update(heartbeat_at=timezone.now())
    refused = []

    def submit_once_it_is_free() -> AsyncJob:
        try:
            return submit(vm, caller)
        except jobs.BusyWithUpkeep as error:
            refused.append(error)
            jobs.finish(upkeep)
            raise

    assert jobs.patiently(submit_once_it_is_free).status == Status.PENDING
    assert len(refused) == 1


def test_a_patient_request_leaves_its_turn_to_others():
    def application(environ, start_response):
        if "patient" in environ:
            other.start()
            jobs.patiently(refused_until_the_other_is_done)
        return [b""]

    def refused_until_the_other_is_done() -> None:
        if other.is_alive():
            raise jobs.BusyWithUpkeep("busy")

    in_turn = InTurn(application, 1)
    other = threading.Thread(target=lambda: in_turn({}, None).close())
    # Refused for good when it keeps its turn.
    in_turn({"patient": True}, None).close()
    other.join()


class TestRun:
    def test_its_events_name_the_object_also_when_it_is_gone(self, work, job, vm):
        work.does = lambda job: vm.delete()

        deliver(job)

        assert set(Event.objects.values_list("state", "resource_type", "resource_name")) == {
            (state, "VirtualMachine", vm.name) for state in (State.SCHEDULED, State.STARTED, State.COMPLETED)
        }

    def test_three_events_with_one_parent(self, job, vm, caller):
        deliver(job)

        scheduled, started, completed = Event.objects.order_by("pk")
        assert [e.state for e in (scheduled, started, completed)] == [State.SCHEDULED, State.STARTED, State.COMPLETED]
        assert (started.parent_uuid, completed.parent_uuid) == (scheduled.uuid, scheduled.uuid)
        assert {e.type for e in (scheduled, started, completed)} == {EventType.VM_START}
        assert {e.resource_uuid for e in (scheduled, started, completed)} == {vm.uuid}
        assert {e.username for e in (scheduled, started, completed)} == {caller.user.username}

    def test_a_done_job_says_so(self, work, job):
        deliver(job)

        assert (job.status, job.error_code, job.busy_with, work.calls) == (Status.SUCCEEDED, None, None, 1)

    def test_an_error_of_ours_is_the_result(self, work, job):
        def refuse(job):
            raise InvalidParameter("This will not do.", for_operator="Host h7 is full.")

        work.does = refuse
        deliver(job)

        last = Event.objects.order_by("pk").last()
        assert (job.status, job.error_code, job.error_text) == (Status.FAILED, 431, "This will not do.")
        assert (last.state, last.level) == (State.COMPLETED, Level.ERROR)
        assert (last.description, last.for_operator) == (f"{WORK} failed: This will not do.", "Host h7 is full.")

    def test_what_the_system_does_by_itself_leaves_no_events(self, work, vm):
        job = deliver(jobs.submit(WORK, vm, account=vm.account, by=None))

        assert (job.status, work.calls, Event.objects.count()) == (Status.SUCCEEDED, 1, 0)

    def test_unless_it_fails(self, work, vm):
        job = jobs.submit(WORK, vm, account=vm.account, by=None)
        jobs.finish(job, InvalidParameter("no"))

        [event] = Event.objects.all()
        assert (event.level, event.state, event.username) == (Level.ERROR, State.COMPLETED, "system")
        assert event.description == f"{WORK} failed: no"

    def test_what_nobody_foresaw_fails_the_job_without_its_words(self, work, job):
        def break_down(job):
            raise RuntimeError("the library's own words")

        work.does = break_down
        deliver(job)

        assert (job.status, job.error_code) == (Status.FAILED, 530)
        assert str(job.uuid) in job.error_text
        assert "own words" not in job.error_text + job.error_for_operator + Event.objects.latest("pk").description

    def test_the_same_task_delivered_again_does_nothing(self, work, job):
        deliver(job)
        before = AsyncJob.objects.values().get()

        deliver(job)

        assert (work.calls, Event.objects.count(), AsyncJob.objects.values().get()) == (1, 3, before)

    def test_the_same_task_delivered_while_it_runs_does_nothing(self, work, job):
        work.does = lambda job: jobs.run(job.pk, job.attempt)

        deliver(job)

        assert (work.calls, Event.objects.count()) == (1, 3)

    def test_a_task_of_an_old_attempt_does_nothing(self, work, job):
        lose_worker(job)
        jobs.requeue_lost(timezone.now() + SILENT)

        deliver(job, attempt=1)

        assert (work.calls, job.status, job.heartbeat_at) == (0, Status.PENDING, None)

    def test_a_task_whose_job_is_gone_does_nothing(self, work, job):
        AsyncJob.objects.all().delete()

        jobs.run(job.pk, 1)

        assert work.calls == 0


class TestLostWorkers:
    def test_a_silent_job_is_queued_again_as_the_next_attempt(self, work, job):
        lose_worker(job)

        assert jobs.requeue_lost(timezone.now() + SILENT) == 1

        job.refresh_from_db()
        assert (job.attempt, job.lost_workers, job.heartbeat_at) == (2, 1, None)
        assert queued() == [("extdhcp_site.jobs.services.run", (job.pk, 2))]
        assert deliver(job, attempt=2).status == Status.SUCCEEDED
        assert work.calls == 1

    def test_one_that_beats_is_left_alone(self, job):
        lose_worker(job)

        assert jobs.requeue_lost(timezone.now() + jobs.LOST_AFTER - timedelta(seconds=5)) == 0

        assert queued() == []

    def test_two_that_look_at_once_queue_it_once(self, job, monkeypatch):
        lose_worker(job)
        later = timezone.now() + SILENT
        seen_by_both = AsyncJob.objects.get()
        jobs.requeue_lost(later)

        with pytest.raises(jobs.TakenOver):
            jobs._requeue(seen_by_both, later)

        assert len(queued()) == 1

    def test_one_never_started_waits_while_the_queue_has_tasks(self, job):
        later = timezone.now() + jobs.NEVER_STARTED_AFTER * 2

        assert jobs.requeue_lost(later) == 0

    def test_one_never_started_whose_task_is_gone_is_queued_again(self, job):
        later = timezone.now() + jobs.NEVER_STARTED_AFTER * 2
        OrmQ.objects.all().delete()

        assert jobs.requeue_lost(later) == 1

        job.refresh_from_db()
        # No worker is known to have died over it, and one that is only slow may still begin it.
        assert (job.attempt, job.lost_workers) == (1, 0)
        assert queued() == [("extdhcp_site.jobs.services.run", (job.pk, 1))]

    def test_one_never_started_is_queued_again_when_a_worker_holds_its_task(self, job):
        later = timezone.now() + jobs.NEVER_STARTED_AFTER * 2
        OrmQ.objects.update(lock=later + timedelta(minutes=30))

        assert jobs.requeue_lost(later) == 1

    def test_nor_does_it_wait_for_the_others_in_the_queue(self, job, caller):
        later = timezone.now() + jobs.NEVER_STARTED_AFTER * 2
        OrmQ.objects.update(lock=later + timedelta(minutes=30))
        other = submit(make_vm(caller.account), caller)
        a_little_later = job.queued_at + timedelta(seconds=10)
        OrmQ.objects.filter(lock__lt=later).update(lock=a_little_later)
        AsyncJob.objects.filter(pk=other.pk).update(queued_at=a_little_later)

        assert jobs.requeue_lost(later) == 1

        assert queued() == [("extdhcp_site.jobs.services.run", (each.pk, 1)) for each in (job, other, job)]

    def test_what_never_started_is_queued_again_once(self, job):
        later = timezone.now() + jobs.NEVER_STARTED_AFTER * 2
        OrmQ.objects.all().delete()
        jobs.requeue_lost(later)

        with pytest.raises(jobs.TakenOver):
            jobs._requeue(job, later)

    def test_one_just_queued_is_not_never_started(self, job):
        OrmQ.objects.all().delete()

        assert jobs.requeue_lost(timezone.now() + jobs.NEVER_STARTED_AFTER / 2) == 0

    def test_one_that_kills_its_workers_fails_and_frees_its_object(self, work, job, vm, caller):
        for attempt in range(1, jobs.MOST_LOST_WORKERS + 2):
            lose_worker(job, attempt)
            jobs.requeue_lost(timezone.now() + SILENT)

        job.refresh_from_db()
        assert (job.status, job.error_code, job.busy_with) == (Status.FAILED, 530, None)
        assert f"died {jobs.MOST_LOST_WORKERS} times" in job.error_text
        assert (queued(), Event.objects.latest("pk").level) == ([], Level.ERROR)
        assert submit(vm, caller)

    def test_it_gets_every_try_before_that(self, job):
        for attempt in range(1, jobs.MOST_LOST_WORKERS + 1):
            lose_worker(job, attempt)
            assert jobs.requeue_lost(timezone.now() + SILENT) == 1

        job.refresh_from_db()
        assert (job.status, job.attempt) == (Status.PENDING, jobs.MOST_LOST_WORKERS + 1)

    def test_a_worker_given_up_for_dead_stops_at_its_next_beat(self, work, job):
        written = []

        def work_on_while_given_up(job):
            jobs.requeue_lost(timezone.now() + SILENT)
            jobs.beat(job, "still here")
            written.append("after the beat")

        work.does = work_on_while_given_up
        deliver(job)

        assert (written, job.status, job.attempt, job.progress) == ([], Status.PENDING, 2, "")

    def test_a_worker_given_up_for_dead_does_not_end_the_job(self, job):
        zombie = AsyncJob.objects.get()
        lose_worker(job)
        jobs.requeue_lost(timezone.now() + SILENT)

        jobs.finish(zombie, InvalidParameter("The zombie's opinion."))

        job.refresh_from_db()
        assert (job.status, job.error_text, job.busy_with) == (Status.PENDING, "", job.instance_uuid)

    def test_a_beat_shows_how_far_it_is(self, work, job):
        work.does = lambda job: jobs.beat(job, "x" * 500)

        deliver(job)

        assert job.progress == "x" * 200

    def test_where_it_is_done_is_for_operators(self, work, job, caller):
        work.does = lambda job: jobs.beat(job, "Starting", for_operator="on h7")

        deliver(job)

        assert jobs.progress(job, make_caller(Role.ROOT_ADMIN)) == "Starting on h7"
        assert jobs.progress(job, caller) == "Starting"


class TestSecrets:
    @pytest.fixture
    def job(self, job) -> AsyncJob:
        jobs.keep_secret(job, password="Sesame7")
        return deliver(job)

    @staticmethod
    def password_for(job: AsyncJob, caller: Caller) -> str | None:
        shown = jobs.result(AsyncJob.objects.get(pk=job.pk), caller)
        return shown["virtualmachine"].get("password")

    def test_its_caller_reads_it_and_reads_it_again(self, job, caller):
        assert [self.password_for(job, caller) for _ in range(2)] == ["Sesame7", "Sesame7"]

    def test_nobody_else_reads_it(self, job, vm, caller):
        others = [
            Caller.of(make_user(caller.account)),
            make_caller(Role.DOMAIN_ADMIN),
            make_caller(Role.ROOT_ADMIN),
            make_caller(),
        ]
        assert [self.password_for(job, other) for other in others] == [None] * len(others)
        assert AsyncJob.objects.get().secret_read_at is None

    def test_it_is_sealed_in_the_database(self, job):
        [stored] = AsyncJob.objects.values_list("secret", flat=True)
        assert "Sesame7" not in str(stored)

    def test_it_is_forgotten_ten_minutes_after_the_first_read(self, job, caller):
        self.password_for(job, caller)
        read_at = AsyncJob.objects.get().secret_read_at

        jobs.forget_secrets(read_at + timedelta(minutes=9, seconds=59))
        assert AsyncJob.objects.get().secret
        # Reading it again does not prolong its life.
        self.password_for(job, caller)
        jobs.forget_secrets(read_at + timedelta(minutes=10, seconds=1))

        assert AsyncJob.objects.get().secret is None
        assert self.password_for(job, caller) is None

    def test_unread_it_is_forgotten_an_hour_after_the_end(self, job, caller):
        jobs.forget_secrets(job.completed_at + timedelta(minutes=59))
        assert AsyncJob.objects.get().secret

        jobs.forget_secrets(job.completed_at + timedelta(minutes=61))

        assert self.password_for(job, caller) is None

    def test_a_late_reader_gets_nothing_even_before_housekeeping(self, job, caller):
        AsyncJob.objects.update(completed_at=timezone.now() - timedelta(minutes=61))

        assert self.password_for(job, caller) is None

    def test_while_pending_nobody_reads_it(self, work, caller):
        pending = submit(make_vm(caller.account), caller)
        jobs.keep_secret(pending, password="Sesame7")

        assert jobs.result(pending, caller) is None

    def test_of_a_failed_job_its_caller_reads_it_too(self, work, caller):
        """A reset that was given up may have changed the password all the same."""
        job = submit(make_vm(caller.account), caller)
        jobs.keep_secret(job, password="Sesame7")
        jobs.finish(job, InvalidParameter("no", for_operator="Host h7 is full."))
        why = {"errorcode": 431, "errortext": "no"}

        def read(by: Caller) -> dict | None:
            return jobs.result(AsyncJob.objects.get(pk=job.pk), by)

        colleague, root = Caller.of(make_user(caller.account)), make_caller(Role.ROOT_ADMIN)
        assert (read(colleague), read(root)) == (why, {**why, "errortext": "no Host h7 is full."})
        assert read(caller) == {**why, "password": "Sesame7"}
        AsyncJob.objects.update(secret_read_at=timezone.now() - timedelta(minutes=10, seconds=1))
        assert read(caller) == why

    def test_over_the_api_its_caller_alone_reads_it(self, work):
        account = make_account()
        owner, colleague = (Signer(user, make_api_key(user)) for user in (make_user(account), make_user(account)))
        job = submit(make_vm(account), owner.caller)
        jobs.keep_secret(job, password="Sesame7")
        deliver(job)

        def result(signer):
            return signer.call("queryAsyncJobResult", jobid=job.uuid).body["jobresult"]["virtualmachine"]

        assert "password" not in result(colleague)
        assert result(owner)["password"] == "Sesame7"


class TestHousekeeping:
    def test_an_ended_job_is_forgotten_after_job_expire_minutes(self, job):
        deliver(job)
        AsyncJob.objects.update(completed_at=timezone.now() - timedelta(minutes=1439))
        jobs.housekeeping()
        assert AsyncJob.objects.exists()

        AsyncJob.objects.update(completed_at=timezone.now() - timedelta(minutes=1441))
        jobs.housekeeping()

        assert not AsyncJob.objects.exists()

    def test_the_setting_counts_at_once(self, job, caller):
        deliver(job)
        set_value(JOB_EXPIRE_MINUTES.name, "5", caller)
        AsyncJob.objects.update(completed_at=timezone.now() - timedelta(minutes=6))

        jobs.housekeeping()

        assert not AsyncJob.objects.exists()

    def test_a_pending_job_is_never_forgotten(self, job):
        AsyncJob.objects.update(created_at=timezone.now() - timedelta(days=9))

        jobs.housekeeping()

        assert AsyncJob.objects.get().status == Status.PENDING

    def test_it_takes_up_lost_jobs_and_forgets_secrets(self, work, caller):
        lost, ended = (submit(make_vm(caller.account), caller) for _ in range(2))
        jobs.keep_secret(ended, password="Sesame7")
        jobs.finish(ended)
        AsyncJob.objects.filter(pk=ended.pk).update(completed_at=timezone.now() - timedelta(hours=2))
        AsyncJob.objects.filter(pk=lost.pk).update(heartbeat_at=timezone.now() - SILENT)

        jobs.housekeeping()

        assert AsyncJob.objects.get(pk=ended.pk).secret is None
        assert AsyncJob.objects.get(pk=lost.pk).attempt == 2


def test_a_jobs_row_can_be_pickled_without_its_secret_in_clear(job):
    jobs.keep_secret(job, password="Sesame7")

    assert b"Sesame7" not in pickle.dumps(AsyncJob.objects.get())
