"""A root admin, a domain admin with a tree, and one of their users; and jobs done as a worker does them."""

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from tests.api.client import Reply, Signer
from tests.factories import make_account, make_domain

PASSWORD = "a long password"


def work() -> None:
    for job in AsyncJob.objects.filter(status=Status.PENDING):
        jobs.run(job.pk, job.attempt)


def result_of(signer: Signer, reply: Reply) -> dict:
    """What an asynchronous command's job came to."""
    assert reply.status == 200, reply
    work()
    return signer.call("queryAsyncJobResult", jobid=reply.body["jobid"]).body["jobresult"]


@pytest.fixture
def root(db) -> Signer:
    return Signer.of(make_account(Role.ROOT_ADMIN, name="root"))


@pytest.fixture
def domain():
    return make_domain(name="sales")


@pytest.fixture
def admin(db, domain) -> Signer:
    """The admin of ROOT/sales."""
    return Signer.of(make_account(Role.DOMAIN_ADMIN, domain, name="boss"))


@pytest.fixture
def user(db, domain) -> Signer:
    return Signer.of(make_account(domain=domain, name="ann"))
