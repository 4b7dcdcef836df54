"""The ground floor's own commands: listApis, listCapabilities, jobs, events, settings."""

import json
from datetime import UTC, datetime

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.api import registry
from extdhcp_site.configuration.models import PAGE_SIZE, Setting
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from tests.api.client import Signer
from tests.factories import make_account, make_api_key, make_user

pytestmark = pytest.mark.django_db


# listApis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_list_apis_names_what_the_caller_may_use_and_nothing_else(role):
    """cmk cannot call what its first look at the list left out."""
    body = Signer.of(make_account(role)).call("listApis", listall="true").body
    assert [api["name"] for api in body["api"]] == [c.name for c in registry.commands() if role in c.roles]
    assert body["count"] == len(body["api"])


def test_list_apis_has_every_field_that_cmk_panics_without(root):
    for api in root.call("listApis").body["api"]:
        assert isinstance(api["isasync"], bool)
        assert api["name"]
        assert api["description"]
        assert isinstance(api["response"], list)
        for param in api["params"]:
            assert {"name", "type", "description", "required"} <= param.keys()
            assert isinstance(param["required"], bool)
        for field in api["response"]:
            assert {"name", "type", "description"} <= field.keys()


def test_list_apis_is_never_cut_into_pages(user, root):
    root.call("updateConfiguration", name="default.page.size", value=1)
    assert len(user.call("listApis").body["api"]) > 1


def test_list_apis_knows_types(user):
    [api] = user.call("listApis", name="queryAsyncJobResult").body["api"]
    types = {field["name"]: field["type"] for field in api["response"]}
    wanted = {"jobid": "uuid", "jobstatus": "integer", "jobprocstatus": "integer", "jobresultcode": "integer"}
    assert wanted.items() <= types.items()
    assert (types["jobresult"], types["created"]) == ("map", "date")


def test_capabilities_are_one_object(user):
    body = user.call("listCapabilities").body
    assert body.keys() == {"capability"}
    assert body["capability"]["defaultuipagesize"] == 500


def test_the_limit_of_calls_is_told_where_there_is_one(user, root):
    limits = {"apilimitinterval": 10, "apilimitmax": 6000}
    assert limits.items() <= user.call("listCapabilities").body["capability"].items()
    root.call("updateConfiguration", name="api.throttling.enabled", value="false")
    assert not limits.keys() & user.call("listCapabilities").body["capability"].keys()


# Jobs --------------------------------------------------------------------------------------------


def make_job(signer: Signer, **fields) -> AsyncJob:
    return AsyncJob.objects.create(
        command="stopVirtualMachine",
        account=signer.user.account,
        user=signer.user,
        instance_type="VirtualMachine",
        instance_uuid="7c1ff9ab-0000-4000-8000-000000000000",
        **fields,
    )


def test_a_job_shows_who_what_and_when(user):
    job = make_job(user, status=Status.SUCCEEDED, completed_at=datetime(2026, 1, 1, tzinfo=UTC))
    body = user.call("queryAsyncJobResult", jobid=job.uuid).body
    account = user.user.account
    assert body["jobid"] == str(job.uuid)
    assert body["cmd"] == "stopVirtualMachine"
    assert (body["jobinstancetype"], body["jobinstanceid"]) == ("VirtualMachine", str(job.instance_uuid))
    assert (body["accountid"], body["userid"]) == (str(account.uuid), str(user.user.uuid))
    assert (body["domainid"], body["domainpath"]) == (str(account.domain.uuid), str(account.domain))
    assert body["completed"] == "2026-01-01T00:00:00+0000"


def test_a_jobs_secret_is_its_callers_alone(user, root, monkeypatch):
    """CVE-2026-59657 (CloudStack), #23196 (NetBox): whoever may look at jobs read the passwords that they hold."""
    monkeypatch.setitem(jobs._renderers, "VirtualMachine", lambda *_: {"virtualmachine": {"id": "x"}})
    job = make_job(user, status=Status.SUCCEEDED, completed_at="2100-01-01T00:00:00Z")
    jobs.keep_secret(job, password="hunter2hunter2")
    other = make_user(user.user.account)
    colleague = Signer(other, make_api_key(other))

    for caller in (root, colleague):
        assert "hunter2" not in json.dumps(caller.call("queryAsyncJobResult", jobid=job.uuid).body)
    body = user.call("queryAsyncJobResult", jobid=job.uuid).body
    assert body["jobresult"]["virtualmachine"]["password"] == "hunter2hunter2"


def test_a_job_of_another_account_and_an_internal_number_are_no_jobs(user, domain_admin):
    job = make_job(domain_admin)
    for jobid in (job.uuid, job.pk):
        reply = user.call("queryAsyncJobResult", jobid=jobid)
        assert (reply.status, "entity does not exist" in reply.text) == (431, True)


# Events ------------------------------------------------------------------------------------------


def record(signer: Signer, text: str, **fields) -> Event:
    event = events.record(EventType.VM_START, text, account=signer.user.account, by=signer.caller)
    Event.objects.filter(pk=event.pk).update(**fields)
    event.refresh_from_db()
    return event


@pytest.fixture
def three(user):
    begun = record(user, "begun", created_at="2026-01-01T10:00:00Z", resource_type="VirtualMachine")
    record(user, "ended", created_at="2026-01-01T23:59:59Z", parent_uuid=begun.uuid, level="ERROR", state="Completed")
    record(user, "later", created_at="2026-01-02T00:00:00Z", type=EventType.VM_STOP, resource_uuid=begun.uuid)
    record(user, "put away", archived=True)
    return begun


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["later", "ended", "begun"]),
        ({"archived": "true"}, ["put away"]),
        ({"type": "VM.STOP"}, ["later"]),
        ({"level": "error"}, ["ended"]),
        ({"state": "Completed"}, ["ended"]),
        ({"startdate": "2026-01-02"}, ["later"]),
        ({"enddate": "2026-01-01"}, ["ended", "begun"]),
        ({"startdate": "2026-01-01 10:00:01", "enddate": "2026-01-01 23:59:59"}, ["ended"]),
        ({"startid": "BEGUN"}, ["ended", "begun"]),
        ({"resourceid": "BEGUN"}, ["later"]),
        ({"resourcetype": "virtualmachine"}, ["begun"]),
        ({"keyword": "VM.ST"}, ["later", "ended", "begun"]),
        ({"keyword": "nothing"}, []),
    ],
    ids=str,
)
def test_events_are_filtered(user, three, params, expected):
    params = {name: three.uuid if value == "BEGUN" else value for name, value in params.items()}
    body = user.call("listEvents", **params).body
    assert [event["description"] for event in body.get("event", [])] == expected


def test_what_an_event_tells_operators_is_for_root_admins(user, root):
    """Hosts and their addresses are not visible to users."""
    event = record(user, "No host has room.", for_operator="Host h1 is full.")
    assert user.call("listEvents", id=event.uuid).body["event"][0]["description"] == "No host has room."
    assert "h1" in root.call("listEvents", id=event.uuid).body["event"][0]["description"]


def test_a_list_of_events_takes_the_same_queries_however_long(user, django_assert_num_queries):
    user.call("listEvents")
    for count in (1, 20):
        for _ in range(count):
            record(user, "x")
        with django_assert_num_queries(3):  # the key, the page size, the rows
            user.call("listEvents")


# Settings ----------------------------------------------------------------------------------------


def test_settings_are_listed_with_their_values_as_text(root):
    [setting] = root.call("listConfigurations", name="default.page.size").body["configuration"]
    assert (setting["value"], setting["defaultvalue"], setting["type"]) == ("500", "500", "Number")
    assert setting["isdynamic"] is True


def test_settings_are_found_by_keyword_and_category(root):
    by_keyword = root.call("listConfigurations", keyword="PAGE.size").body
    assert [setting["name"] for setting in by_keyword["configuration"]] == ["default.page.size"]
    assert root.call("listConfigurations", category="nothing").body == {}


def test_a_setting_is_changed_at_once_and_the_change_is_an_event(root):
    reply = root.call("updateConfiguration", name="default.page.size", value=" 20 ")
    assert reply.body["configuration"]["value"] == "20"
    assert PAGE_SIZE.get() == 20
    assert Event.objects.get(type=EventType.CONFIGURATION_EDIT).account == root.user.account


@pytest.mark.parametrize("params", [{"name": "no.such", "value": "1"}, {"name": "default.page.size", "value": "x"}, {}])
def test_a_bad_setting_changes_nothing(root, params):
    assert root.call("updateConfiguration", **params).status == 431
    assert not Setting.objects.filter(name="default.page.size").exists()
