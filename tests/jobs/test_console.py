"""The page of jobs, and one job's."""

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, State
from extdhcp_site.jobs import services
from extdhcp_site.jobs.models import AsyncJob, Status
from tests.factories import make_caller, make_vm

pytestmark = pytest.mark.django_db
CANARY = "job-secret-canary"


@pytest.fixture
def caller():
    return make_caller()


@pytest.fixture
def signed_in(client, caller):
    client.force_login(caller.user)
    return client


def make_job(caller, **fields) -> AsyncJob:
    vm = make_vm(caller.account)
    return AsyncJob.objects.create(
        **{
            "command": "startVirtualMachine",
            "account": caller.account,
            "user": caller.user,
            "instance_type": "VirtualMachine",
            "instance_uuid": vm.uuid,
            "instance_name": vm.name,
            **fields,
        }
    )


def failed(caller, **fields) -> AsyncJob:
    words = {"error_text": "It did not start.", "error_for_operator": "Host kvm-1: no room.", "error_code": 533}
    return make_job(caller, status=Status.FAILED, completed_at=timezone.now(), **{**words, **fields})


@pytest.mark.parametrize(
    ("fields", "statuses"),
    [
        ({}, {"pending", "waiting"}),
        ({"heartbeat_at": timezone.now()}, {"pending", "running"}),
        ({"status": Status.FAILED}, {"failed"}),
        ({"status": Status.SUCCEEDED}, {"done"}),
    ],
)
def test_by_state(signed_in, caller, fields, statuses):
    job = make_job(caller, **fields)
    shown = {
        status
        for status in ("pending", "waiting", "running", "failed", "done")
        if str(job.uuid) in signed_in.get(f"/jobs/?status={status}").content.decode()
    }
    assert shown == statuses


def test_by_command_and_by_object(signed_in, caller):
    job, other = make_job(caller), make_job(caller, command="stopVirtualMachine")
    for query in ("command=start", f"instance={job.instance_uuid}", f"q={job.instance_name}"):
        page = signed_in.get(f"/jobs/?{query}").content.decode()
        assert str(job.uuid) in page, query
        assert str(other.uuid) not in page, query


def test_others_jobs_are_not_there(signed_in):
    job = make_job(make_caller())
    assert str(job.uuid) not in signed_in.get("/jobs/").content.decode()
    assert signed_in.get(f"/jobs/{job.uuid}/").status_code == 404


def test_why_it_failed(signed_in, caller):
    page = signed_in.get(f"/jobs/{failed(caller).uuid}/").content.decode()
    assert "It did not start." in page
    assert "kvm-1" not in page


def test_operators_read_more(client, caller):
    job = failed(caller)
    client.force_login(make_caller(Role.ROOT_ADMIN).user)
    for path in ("/jobs/", f"/jobs/{job.uuid}/", "/"):
        assert "Host kvm-1: no room." in client.get(path).content.decode(), path


def test_a_job_with_its_parameters_and_its_story(signed_in, caller):
    scheduled = events.record(
        EventType.VM_START, "startVirtualMachine: web", account=caller.account, by=caller, state=State.SCHEDULED
    )
    job = make_job(caller, arguments={"forced": True}, scheduled_event=scheduled.uuid)
    page = signed_in.get(f"/jobs/{job.uuid}/").content.decode()
    assert "forced=true" in page
    assert "startVirtualMachine: web" in page


def test_what_the_system_chose_is_not_for_the_owner(signed_in, caller):
    job = make_job(caller, user=None, arguments={"host": "kvm-7"})
    assert "kvm-7" not in signed_in.get(f"/jobs/{job.uuid}/").content.decode()


def test_its_secret_is_shown_when_asked_for_and_only_then(signed_in, caller):
    job = make_job(caller, status=Status.SUCCEEDED, completed_at=timezone.now())
    services.keep_secret(job, password=CANARY)
    page = signed_in.get(f"/jobs/{job.uuid}/").content.decode()
    assert CANARY not in page
    assert CANARY not in signed_in.get("/jobs/").content.decode()
    job.refresh_from_db()
    assert job.secret_read_at is None

    assert "Show the result with its password" in page
    asked = {"jobid": str(job.uuid), "_show": "1", "_label": "x"}
    assert CANARY in signed_in.post("/do/queryAsyncJobResult", asked).content.decode()


def test_nobody_else_is_offered_the_secret(client, caller):
    job = make_job(caller, status=Status.SUCCEEDED, completed_at=timezone.now())
    services.keep_secret(job, password=CANARY)
    client.force_login(make_caller(Role.ROOT_ADMIN).user)
    assert "queryAsyncJobResult" not in client.get(f"/jobs/{job.uuid}/").content.decode()


def test_only_a_job_under_way_asks_again(signed_in, caller):
    for job, asks in ((make_job(caller), True), (failed(caller), False)):
        assert ("hx-get" in signed_in.get(f"/jobs/{job.uuid}/?fragment=parts").content.decode()) == asks


def test_the_overview_counts_them(signed_in, caller):
    make_job(caller, heartbeat_at=timezone.now())
    failed(caller)
    page = signed_in.get("/").content.decode()
    for status in ("running", "waiting", "failed"):
        assert f"/jobs/?status={status}" in page
    assert "failed, 1 in the last hour" in page


def test_the_number_of_queries_is_fixed(signed_in, caller, django_assert_max_num_queries):
    failed(caller)
    signed_in.get("/jobs/")
    with django_assert_max_num_queries(12) as few:
        signed_in.get("/jobs/")
    for _ in range(10):
        failed(caller)
    with django_assert_max_num_queries(len(few)):
        signed_in.get("/jobs/")
