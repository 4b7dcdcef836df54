"""What breaks which client (facts about clients, rules 1 to 21). Each test names who breaks."""

import re

import pytest
from django.test import Client

from extdhcp_site.api import paging, registry
from extdhcp_site.api.answers import Success
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Params
from extdhcp_site.api.registry import EVERYBODY, Command, ListCommand
from extdhcp_site.errors import InsufficientCapacity
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs.models import AsyncJob, Status
from tests.api.client import ENDPOINT, Signer, reply_of, send

pytestmark = pytest.mark.django_db


def record(signer: Signer, count: int = 1) -> list[events.Event]:
    return [events.record(EventType.VM_CREATE, f"event {n}", account=signer.user.account) for n in range(count)]


def make_job(signer: Signer, **fields) -> AsyncJob:
    return AsyncJob.objects.create(
        command="stopVirtualMachine",
        account=signer.user.account,
        user=signer.user,
        instance_type="Nothing",
        instance_uuid=signer.user.uuid,
        **fields,
    )


# Envelope and HTTP


def test_rule_1_one_key_in_lower_case(user):
    """libcloud: MalformedResponseError; cs insists on one key; cmk and the Go SDK take any key there is."""
    assert user.call("listApis").key == "listapisresponse"
    assert user.call("LISTAPIS").key == "listapisresponse"
    assert user.call("queryAsyncJobResult").key == "queryasyncjobresultresponse"


def test_rule_2_the_content_type_is_json_on_errors_too(user):
    """cs, and Ansible with it: "make sure endpoint URL is correct"."""
    for reply in [
        user.call("listApis"),
        user.call("queryAsyncJobResult"),
        user.call("nothing"),
        reply_of(send([("response", "json")])),
    ]:
        assert reply.headers["Content-Type"] == "application/json; charset=UTF-8"
        assert reply.headers["Cache-Control"] == "no-store"


def test_rule_3_success_is_200(user):
    """cs and the Go SDK take 201 and 202 for errors."""
    assert user.call("listApis").status == 200


def test_rule_4_an_errors_code_is_its_http_status(user):
    """cs and libcloud overlook an error with status 200; cmk looks for errorcode and nothing else."""
    reply = user.call("queryAsyncJobResult", jobid="x")
    assert reply.status == reply.body["errorcode"] == 431
    assert reply.body.keys() == {"uuidList", "errorcode", "cserrorcode", "errortext"}
    assert reply.headers["X-Description"] == reply.text


def test_rule_5_unknown_and_missing_commands_are_432(user):
    """cmk: the key is errorresponse."""
    for reply in [user.call("noSuchCommand"), user.call(""), user.call("listConfigurations")]:
        assert (reply.status, reply.key) == (432, "errorresponse")


def test_rule_6_an_unknown_id_is_told_in_these_words(user):
    """The Go SDK and Terraform: a destroy of what is gone already fails without them."""
    id = "7c1ff9ab-0000-4000-8000-000000000000"
    reply = user.call("listEvents", id=id)
    assert (reply.status, reply.body["cserrorcode"]) == (431, 4350)
    wanted = f"Invalid parameter id value={id} due to incorrect long value format, or entity does not exist"
    assert wanted in reply.text


def test_rule_7_no_nulls(user):
    """cmk's tables crash on a null; libcloud's guards let it pass."""
    record(user)
    make_job(user)
    raw = user.raw(("command", "listEvents"), ("response", "json")).content
    raw += user.raw(("command", "queryAsyncJobResult"), ("response", "json"), jobid=AsyncJob.objects.get().uuid).content
    assert b"null" not in raw


# Lists


def test_rule_8_an_empty_list_is_an_empty_object(user):
    """Ansible: KeyError where a count is without rows."""
    assert user.call("listEvents").body == {}
    assert user.call("listEvents", page=1, pagesize=10).body == {}


def test_rule_9_a_list_is_count_and_one_key(user):
    """cs with fetch_list: silently nothing where there is a third key."""
    record(user)
    assert user.call("listEvents").body.keys() == {"count", "event"}


def test_rule_10_count_is_the_total(user):
    """cs stops after the first page; Terraform finds "No match" without it."""
    record(user, 5)
    body = user.call("listEvents", page=2, pagesize=2).body
    assert (body["count"], len(body["event"])) == (5, 2)


def test_rule_11_a_page_past_the_end_has_no_list(user):
    """cs up to 4.0.1 asks for ever for {"count": N, "event": []}."""
    record(user, 5)
    assert user.call("listEvents", page=9, pagesize=2).body == {"count": 5}


@pytest.mark.parametrize("found", registry.commands(), ids=lambda found: found.name)
def test_rule_12_every_list_is_paged(found):
    """Ansible pages with 500 rows a page."""
    if found.name.startswith("list") and found.name not in ("listApis", "listCapabilities"):
        assert issubclass(found, ListCommand)
        assert issubclass(found.params, ListParams)


def test_rule_12_pages_join_without_gap_or_repetition(user):
    record(user, 7)
    events.Event.objects.update(created_at="2026-01-01T00:00:00Z")
    pages = [user.call("listEvents", page=page, pagesize=3).body["event"] for page in (1, 2, 3)]
    assert len({event["id"] for page in pages for event in page}) == 7


def test_rule_12_rows_that_sort_alike_keep_their_order(own_commands, user):
    """Zones of one name, for instance: without a last criterion a page may repeat what another leaves out."""
    record(user)
    ordered = paging.in_stable_order(events.Event.objects.order_by("type"))
    assert ordered.query.order_by == ("type", "pk")


def test_rule_13_name_and_id_filter(user, root):
    """The Go SDK and Ansible take the only entry without comparing its name."""
    first, _ = record(user, 2)
    assert [event["id"] for event in user.call("listEvents", id=first.uuid).body["event"]] == [str(first.uuid)]
    assert root.call("listConfigurations", name="default.page").body == {}
    assert root.call("listConfigurations", name="default.page.size").body["count"] == 1
    assert user.call("listApis", name="listevents").body["api"][0]["name"] == "listEvents"
    assert user.call("listApis", name="list").body == {}


def test_rule_14_keyword_is_part_of_a_text_in_any_case(user):
    """Ansible finds a VM through it."""
    record(user, 2)
    assert user.call("listEvents", keyword="EVENT 1").body["count"] == 1


def test_rule_15_unknown_parameters_are_ignored(user):
    """cmk sends filter=, the Ansible inventory listItems, libcloud forced=None."""
    assert user.call("listApis", filter="name", listItems="x", forced="None").status == 200


# Values


def test_rule_16_ids_are_lower_case_uuids(user):
    """Terraform tells an id from a name by this; cmk panics on a number."""
    record(user)
    [event] = user.call("listEvents").body["event"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event["id"])


def test_rule_17_timestamps(user):
    """Terraform's data sources parse this layout."""
    record(user)
    [event] = user.call("listEvents").body["event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000", event["created"])


@pytest.mark.parametrize("status", Status)
def test_rule_18_a_jobs_numbers_are_numbers(user, status):
    """cmk panics on a string, the Go SDK fails, csclient polls for ever."""
    failed = {"error_code": 533, "error_text": "no room"} if status == Status.FAILED else {}
    job = make_job(user, status=status, **failed)
    body = user.call("queryAsyncJobResult", jobid=job.uuid).body
    assert (body["jobstatus"], body["jobprocstatus"], body["jobresultcode"]) == (status, 0, failed.get("error_code", 0))


def test_an_ended_job_has_a_result(user):
    """Ansible loops for ever without jobresult, cs polls for ever without jobresultcode on a failed one."""
    done = make_job(user, status=Status.SUCCEEDED)
    failed = make_job(user, status=Status.FAILED, error_code=533, error_text="no room")

    assert user.call("queryAsyncJobResult", jobid=done.uuid).body["jobresult"] == {"success": True}
    body = user.call("queryAsyncJobResult", jobid=failed.uuid).body
    assert body["jobresult"] == {"errorcode": 533, "errortext": "no room"}
    assert body["jobresulttype"] == "object"
    assert "jobresult" not in user.call("queryAsyncJobResult", jobid=make_job(user).uuid).body


def test_an_async_command_answers_with_ids_as_texts(user, own_commands):
    """cmk panics on a number; `id` is there for commands that make something."""

    @registry.command(since="1.0", roles=EVERYBODY)
    class MakeThing(registry.AsyncCommand):
        """Make a thing."""

        answer = Success
        creates = True

        def submit(self, caller, params):
            return make_job(user)

    @registry.command(since="1.0", roles=EVERYBODY)
    class StopThing(MakeThing):
        """Stop a thing."""

        creates = False

    made = user.call("makeThing").body
    assert made == {"id": str(user.user.uuid), "jobid": str(AsyncJob.objects.order_by("id").first().uuid)}
    assert user.call("stopThing").body.keys() == {"jobid"}


# Errors


def _failing(error: Exception):
    @registry.command(since="1.0", roles=EVERYBODY)
    class Fail(Command):
        """Fail."""

        params = Params
        answer = Success

        def run(self, caller, params):
            raise error

    return Fail


def test_what_is_for_operators_is_told_to_root_admins_only(user, domain_admin, root, own_commands):
    _failing(InsufficientCapacity("No host has room.", for_operator="Host h1 is full."))
    assert user.call("fail").text == domain_admin.call("fail").text == "No host has room."
    reply = root.call("fail")
    assert (reply.status, reply.text) == (533, "No host has room. Host h1 is full.")


def test_what_nobody_expected_is_not_told_and_not_logged(user, own_commands, caplog):
    _failing(ValueError("the password hunter2"))
    reply = user.call("fail", password="hunter2")
    assert (reply.status, reply.key) == (530, "failresponse")
    assert "hunter2" not in reply.text + caplog.text
    assert "ValueError" in caplog.text
    assert "test_clients.py" in caplog.text


def test_a_header_cannot_be_split(user, own_commands):
    _failing(InsufficientCapacity("a\r\nSet-Cookie: x=1 \u2028é" + "z" * 9999))
    reply = user.call("fail")
    assert reply.headers["X-Description"].startswith("aSet-Cookie: x=1 zzz")
    assert len(reply.headers["X-Description"]) == 512
    assert "Set-Cookie" not in reply.headers


@pytest.mark.parametrize("method", ["put", "delete", "patch", "options", "head"])
def test_other_methods_are_refused(method):
    response = getattr(Client(), method)(ENDPOINT)
    assert response.status_code == 405
    assert response["Content-Type"].startswith("application/json")


def test_a_body_that_is_no_form_is_refused():
    response = Client().post(ENDPOINT, {"command": "listApis"}, content_type="application/json")
    assert (response.status_code, response.json()["errorresponse"]["errorcode"]) == (431, 431)


@pytest.mark.parametrize("query", ["a=%ff", "&".join(f"a{n}=" for n in range(2000)), "a%00=1", "=&=&="])
def test_a_request_that_cannot_be_read_is_refused(query):
    response = Client().get(f"{ENDPOINT}?response=json&{query}")
    assert response.status_code in (431, 401)
    assert "errorresponse" in response.json()


def test_a_client_needs_no_csrf_token(user):
    response = Client(enforce_csrf_checks=True).post(
        ENDPOINT, "command=listApis&response=json", content_type="application/x-www-form-urlencoded"
    )
    assert response.status_code == 401


def test_xml_is_what_a_client_gets_that_does_not_ask_for_json(user):
    response = user.raw(("command", "listCapabilities"))
    assert response["Content-Type"] == "text/xml; charset=UTF-8"
    assert b"<listcapabilitiesresponse cloud-stack-version=" in response.content
    refused = user.raw(("command", "noSuchCommand"))
    assert refused.status_code == 432
    assert b"<errorcode>432</errorcode>" in refused.content


def test_no_callback_is_ever_called(user):
    """JSONP would hand the answer to any page."""
    response = user.raw(("command", "listApis"), ("response", "json"), callback="steal")
    assert response.content.startswith(b'{"listapisresponse":')


def test_a_command_keeps_nothing_between_requests(user, root, own_commands):
    """CVE-2026-61397: a token of one request leaked into another through a shared instance."""
    seen = []

    @registry.command(since="1.0", roles=EVERYBODY)
    class Remember(Command):
        """Remember who called."""

        answer = Success

        def run(self, caller, params):
            seen.append(getattr(self, "caller", None))
            self.caller = caller

    user.call("remember")
    root.call("remember")
    assert seen == [None, None]
