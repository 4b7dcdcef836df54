"""Jobs as their callers ask for them: by job, by object, as a list."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from extdhcp_site.accounts.models import Account, Role
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from tests.api.client import Signer
from tests.factories import make_account, make_domain, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account())


@pytest.fixture
def root() -> Signer:
    return Signer.of(make_account(Role.ROOT_ADMIN))


def make_job(account: Account, on: UUID | None = None, **fields) -> AsyncJob:
    uuid = on or uuid4()
    fields = {"command": "startVirtualMachine", "instance_type": "VirtualMachine", **fields}
    busy = uuid if fields.get("status", Status.PENDING) == Status.PENDING else None
    return AsyncJob.objects.create(
        account=account,
        user=account.users.first() or make_user(account),
        instance_uuid=uuid,
        busy_with=busy,
        **fields,
    )


def listed(signer: Signer, **params: object) -> list[str]:
    return [job["jobid"] for job in signer.call("listAsyncJobs", **params).body.get("asyncjobs", [])]


class TestQuery:
    def asked(self, signer: Signer, vm: UUID, kind: str = "VirtualMachine") -> object:
        return signer.call("queryAsyncJobResult", resourceid=vm, resourcetype=kind)

    def test_the_pending_job_of_an_object_goes_before_a_later_one(self, user):
        vm = uuid4()
        pending = make_job(user.user.account, vm, created_at=datetime(2026, 1, 1, tzinfo=UTC))
        make_job(user.user.account, vm, status=Status.FAILED, error_code=530)

        assert self.asked(user, vm).body["jobid"] == str(pending.uuid)

    def test_else_the_latest_is_meant(self, user):
        vm = uuid4()
        for year, status in ((2026, Status.SUCCEEDED), (2025, Status.FAILED)):
            make_job(user.user.account, vm, status=status, created_at=datetime(year, 1, 1, tzinfo=UTC))

        assert self.asked(user, vm, "virtualmachine").body["jobstatus"] == Status.SUCCEEDED

    def test_anothers_object_is_no_object(self, user):
        vm, nothing = uuid4(), uuid4()
        make_job(make_account(), vm)

        theirs, none = self.asked(user, vm), self.asked(user, nothing)
        assert (theirs.status, theirs.text.replace(str(vm), "")) == (431, none.text.replace(str(nothing), ""))

    @pytest.mark.parametrize("given", [{}, {"resourceid": uuid4()}, {"resourcetype": "VirtualMachine"}])
    def test_some_object_must_be_named(self, user, given):
        reply = user.call("queryAsyncJobResult", **given)
        assert (reply.status, "missing parameter jobid" in reply.text) == (431, True)


class TestList:
    def test_the_list_key_and_the_fields_that_the_go_sdk_reads(self, user):
        job = make_job(user.user.account, status=Status.FAILED, error_code=533, error_text="no room")

        reply = user.call("listAsyncJobs")

        assert reply.body.keys() == {"count", "asyncjobs"}
        [shown] = reply.body["asyncjobs"]
        wanted = {"jobid": str(job.uuid), "cmd": "startVirtualMachine", "jobstatus": 2, "jobresultcode": 533}
        assert wanted.items() <= shown.items()
        assert {"accountid", "userid", "created", "jobprocstatus", "domainpath"} <= shown.keys()

    def test_no_result_is_shown_and_no_password_counts_as_read(self, user):
        job = make_job(user.user.account, status=Status.SUCCEEDED, completed_at=datetime(2100, 1, 1, tzinfo=UTC))
        jobs.keep_secret(job, password="Sesame7")

        reply = user.call("listAsyncJobs")

        assert "jobresult" not in reply.body["asyncjobs"][0]
        assert AsyncJob.objects.get().secret_read_at is None

    def test_one_sees_ones_own_and_an_admin_with_listall_the_subtree(self, user):
        parent = make_domain()
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN, parent))
        below = make_job(make_account(domain=make_domain(parent)))
        own, mine = make_job(user.user.account), make_job(admin.user.account)

        assert (listed(user), listed(user, listall="true")) == ([str(own.uuid)], [str(own.uuid)])
        assert listed(admin) == [str(mine.uuid)]
        assert set(listed(admin, listall="true")) == {str(mine.uuid), str(below.uuid)}

    def test_owners_filter(self, root):
        account = make_account(domain=make_domain())
        job = make_job(account)
        make_job(make_account())

        assert listed(root, account=account.name, domainid=account.domain.uuid) == [str(job.uuid)]
        assert listed(root, domainid=account.domain.uuid, isrecursive="true") == [str(job.uuid)]

    @pytest.mark.parametrize(
        "asked",
        [{"startdate": "2026-01-02"}, {"keyword": "STOP"}, {"resourcetype": "network"}, {"resourceid": UUID(int=7)}],
        ids=lambda asked: next(iter(asked)),
    )
    def test_filters_really_filter(self, user, asked):
        account = user.user.account
        make_job(account, created_at=datetime(2026, 1, 1, 23, 59, tzinfo=UTC))
        found = make_job(account, UUID(int=7), command="stopVirtualMachine", instance_type="Network")

        assert listed(user, **asked) == [str(found.uuid)]

    def test_its_number_of_queries_does_not_grow(self, user):
        def queries() -> int:
            with CaptureQueriesContext(connection) as caught:
                assert user.call("listAsyncJobs").status == 200
            return len(caught)

        make_job(user.user.account)
        queries()  # the key's use is noted once a minute
        few = queries()
        for _ in range(5):
            make_job(user.user.account)
        assert queries() == few


class TestRest:
    @staticmethod
    def get(signer: Signer, path: str):
        return Client().get(f"/api/v1/jobs/{path}", headers={"authorization": f"Bearer {signer.keys.token}"})

    def test_a_job_by_its_id_has_its_result(self, user):
        job = make_job(user.user.account, status=Status.FAILED, error_code=533, error_text="no room")
        assert self.get(user, f"{job.uuid}/").json()["jobresult"] == {"errorcode": 533, "errortext": "no room"}

    def test_the_list_has_none(self, user):
        make_job(user.user.account, status=Status.SUCCEEDED)
        [shown] = self.get(user, "").json()["results"]
        assert (shown["jobstatus"], "jobresult" in shown) == (1, False)

    def test_anothers_job_is_no_job(self, user):
        theirs = make_job(make_account())
        assert self.get(user, f"{theirs.uuid}/").status_code == self.get(user, f"{uuid4()}/").status_code == 404
