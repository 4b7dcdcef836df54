"""The unmodified `cs` client (hence Ansible) against a server that listens."""

from datetime import timedelta

import pytest
from cs import CloudStack, CloudStackApiException

from extdhcp_site.accounts.models import Role
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs.models import AsyncJob, Status
from tests.api.client import Signer
from tests.factories import make_account

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def admin(transactional_db) -> Signer:
    return Signer.of(make_account(Role.ROOT_ADMIN))


@pytest.fixture(params=["get", "post"])
def cs(request, live_server, admin) -> CloudStack:
    return client(live_server, admin, method=request.param)


def client(live_server, signer: Signer, **options) -> CloudStack:
    defaults = {"endpoint": f"{live_server.url}/client/api", "key": signer.keys.api_key}
    return CloudStack(**{**defaults, "secret": signer.keys.secret_key, **options})


def test_an_object_a_list_and_an_empty_list(cs, admin):
    assert cs.listCapabilities()["capability"]["defaultuipagesize"] == 500
    assert cs.listEvents() == {}
    assert cs.listEvents(fetch_list=True) == []
    for n in range(3):
        events.record(EventType.VM_CREATE, f"Web *~+/=&é ({n})", account=admin.user.account)
    assert cs.listEvents(keyword="*~+/=&é")["count"] == 3
    assert len(cs.listEvents(fetch_list=True, pagesize=2)) == 3
    assert cs.listEvents(listall=True, page=2, pagesize=2)["count"] == 3


def test_errors_are_api_errors(cs):
    with pytest.raises(CloudStackApiException) as caught:
        cs.queryAsyncJobResult(jobid="x")
    assert caught.value.error["errorcode"] == caught.value.response.status_code == 431
    with pytest.raises(CloudStackApiException) as caught:
        cs.noSuchCommand()
    assert caught.value.error["errorcode"] == 432


def test_wrong_credentials(live_server, admin):
    for wrong in ({"secret": "wrong"}, {"key": "wrong"}, {"expiration": timedelta(days=2)}):
        with pytest.raises(CloudStackApiException) as caught:
            client(live_server, admin, **wrong).listApis()
        assert caught.value.error["errorcode"] == 401


def test_a_request_without_expiry(live_server, admin):
    assert client(live_server, admin, expiration=-1).listApis()["count"] > 0


def test_xml(cs):
    assert "<listeventsresponse" in cs.listEvents(json=False)


def test_a_failed_job_is_read_to_its_end(cs, admin):
    """cs polls for ever without jobresultcode or jobresult."""
    job = AsyncJob.objects.create(
        command="stopVirtualMachine",
        account=admin.user.account,
        user=admin.user,
        instance_type="VirtualMachine",
        instance_uuid=admin.user.uuid,
        status=Status.FAILED,
        error_code=533,
        error_text="no room",
    )
    cs.poll_interval, cs.job_timeout = 0.01, 5
    with pytest.raises(CloudStackApiException) as caught:
        cs._jobresult(jobid=str(job.uuid))
    assert caught.value.error == {"errorcode": 533, "errortext": "no room"}
