"""`/api/v1/`: what changes things. The same commands as at `/client/api`, spelt in JSON."""

import base64
from types import ModuleType

import pytest
from django.test import Client
from django.urls import include, path

from extdhcp_site.accounts.models import Account
from extdhcp_site.api import registry, resources, routes
from extdhcp_site.api.answers import Success
from extdhcp_site.api.parameters import Params, Text
from extdhcp_site.api.registry import EVERYBODY, Command
from extdhcp_site.configuration.models import PAGE_SIZE
from extdhcp_site.errors import (
    InsufficientCapacity,
    InternalError,
    InvalidParameter,
    NotInThisProduct,
    PermissionDenied,
    ResourceInUse,
    ResourceUnavailable,
    TooManyRequests,
)
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs.models import AsyncJob
from networks.models import SshKeyPair, VirtualMachine
from tests.api.client import Rest
from tests.factories import (
    make_account,
    make_host,
    make_network,
    make_service_offering,
    make_template,
    make_vm,
)

pytestmark = pytest.mark.django_db

NOBODY = "00000000-0000-4000-8000-000000000000"
NOTHING = {"detail": "There is nothing here that you may see.", "errorcode": 404}


@pytest.fixture
def rest(user) -> Rest:
    return Rest.of(user)


@pytest.fixture
def vm(user) -> VirtualMachine:
    return make_vm(user.user.account)


def wanted(account: Account) -> dict[str, object]:
    """A deploy that is accepted."""
    host = make_host()
    zone = host.cluster.pod.zone
    network = make_network(zone, account, acl_type="Account")
    return {
        "name": "web-1",
        "zoneid": str(zone.uuid),
        "templateid": str(make_template(account).uuid),
        "serviceofferingid": str(make_service_offering().uuid),
        "networkids": [str(network.uuid)],
    }


# What comes of it ---------------------------------------------------------------------------------------


def test_a_deploy_is_a_job_that_says_where_to_look(rest, user):
    answer = rest.post("vms", wanted(user.user.account))

    assert answer.status_code == 202
    job = AsyncJob.objects.get(uuid=answer.json()["jobid"])
    assert answer.json() == {"jobid": str(job.uuid), "id": str(VirtualMachine.objects.get().uuid)}
    assert answer["Location"] == f"/api/v1/jobs/{job.uuid}"
    assert rest.get(f"jobs/{job.uuid}").json()["jobstatus"] == 0


@pytest.mark.parametrize("path", ["vms/{}/actions/start", "vms/{}/actions/start/"])
def test_an_action_without_a_body(rest, vm, path):
    answer = rest.post(path.format(vm.uuid))
    assert (answer.status_code, set(answer.json())) == (202, {"jobid"})


def test_a_change_answers_with_the_object(rest, vm):
    answer = rest.patch(f"vms/{vm.uuid}", {"displayname": "Shop"})
    assert (answer.status_code, answer.json()["displayname"]) == (200, "Shop")
    assert answer.json() == rest.get(f"vms/{vm.uuid}").json()


def test_what_is_made_at_once_answers_201(rest):
    made = rest.post("ssh-key-pairs/actions/create", {"name": "laptop"})
    assert (made.status_code, made.json()["name"]) == (200, "laptop")
    key = SshKeyPair.objects.get().public_key
    SshKeyPair.objects.all().delete()
    assert rest.post("ssh-key-pairs", {"name": "laptop", "publickey": key}).status_code == 201


def test_a_delete_takes_its_parameters_in_the_query(root):
    vm = make_vm(root.user.account)
    answer = Rest.of(root).delete(f"vms/{vm.uuid}?expunge=true")
    assert answer.status_code == 202
    assert AsyncJob.objects.get().arguments == {"expunge": True}


def test_a_list_and_a_map_are_json_ones(root):
    offering = {"name": "o", "displaytext": "o", "guestiptype": "Shared", "traffictype": "Guest"}
    providers = [{"service": "UserData", "provider": "ConfigDrive"}]
    rest = Rest.of(root)
    answer = rest.post(
        "network-offerings", {**offering, "supportedservices": ["UserData"], "serviceproviderlist": providers}
    )
    assert answer.status_code == 201
    assert [service["name"] for service in answer.json()["service"]] == ["UserData"]


def test_a_setting_is_read_and_changed_by_its_name(root):
    rest = Rest.of(root)
    changed = rest.patch("configurations/default.page.size", {"value": "50"})
    assert (changed.status_code, changed.json()["value"]) == (200, "50")
    assert rest.get("configurations/default.page.size").json() == changed.json()
    assert changed.json() in rest.get("configurations").json()["results"]
    assert PAGE_SIZE.get() == 50


def test_a_setting_that_there_is_not(root):
    rest = Rest.of(root)
    answers = [rest.get("configurations/no.such"), rest.patch("configurations/no.such", {"value": "1"})]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}


def test_tags_are_put_on_and_taken_off(rest, vm):
    on = {"resourcetype": "UserVm", "resourceids": [str(vm.uuid)]}
    tag = {"key": "role", "value": "web"}
    assert rest.post("tags", {**on, "tags": [tag]}).status_code == 202
    [shown] = rest.get("tags", vm=vm.uuid, key="role").json()["results"]
    assert (shown["value"], shown["resourceid"]) == ("web", str(vm.uuid))
    assert rest.get(f"tags/{shown['id']}").json() == shown
    assert rest.post("tags/actions/delete", {**on, "tags": [{"key": "role"}]}).status_code == 202
    assert not vm.tags.exists()


def test_a_stopped_vm_is_given_another_service_offering(rest, vm):
    larger = make_service_offering()
    answer = rest.post(f"vms/{vm.uuid}/actions/change-service-offering", {"serviceofferingid": str(larger.uuid)})
    assert (answer.status_code, answer.json()["serviceofferingid"]) == (200, str(larger.uuid))


def test_whose_an_api_key_is(rest, user):
    answer = rest.get("users/by-api-key", userapikey=user.keys.api_key)
    assert answer.json() == rest.get(f"users/{user.user.uuid}").json()


def test_a_list_of_constants_is_one_page(rest):
    page = rest.get("event-types").json()
    assert (page["next"], page["previous"]) == (None, None)
    assert {"name": EventType.VM_CREATE} in page["results"]


# What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"dispalyname": "x"}, "dispalyname: is not a field of this request."),
        ({"id": NOBODY}, "id: stands in the path already."),
        ({"displayname": 5}, "displayname: must be a text."),
        ({"displayname": None}, "displayname: must be a text."),
        ({"displayname": ["x"]}, "displayname: must be a text."),
        ({"displayname": ""}, "displayname: This field may not be blank."),
        ({"displayname": "a\x00b"}, "displayname: contains control characters."),
        ({"displayname": "\ud800"}, "displayname: contains control characters."),
        ({"displayname": "a\nb"}, "displayname: must be one line without control characters."),
        ({"userdata": "a\x00b"}, "userdata: contains control characters."),
        ([], "The body must be a JSON object."),
        ("x", "The body must be a JSON object."),
    ],
)
def test_a_body_is_read_strictly(rest, vm, body, detail):
    """Mass assignment: a field that is not declared is refused by its name, whatever it is called."""
    answer = rest.patch(f"vms/{vm.uuid}", body)
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)
    vm.refresh_from_db()
    assert vm.display_name == ""


@pytest.mark.parametrize("name", ["accountid", "instance_name", "state", "hostid", "password", "__class__", "pk"])
def test_a_column_is_no_field(rest, vm, name):
    """Internal names, and columns of our own."""
    answer = rest.patch(f"vms/{vm.uuid}", {name: "x"})
    assert (answer.status_code, answer.json()["detail"]) == (400, f"{name}: is not a field of this request.")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"displayname": "a", "displayname": "b"}',
        b'{"displayname": NaN}',
        b"[" * 100_000,
        b'{"displayname": ' + b"9" * 5000 + b"}",
        b"a=b",
    ],
)
def test_a_body_that_is_not_json_is_refused(rest, vm, body):
    """Doubled names, deep nesting, numbers without end."""
    answer = rest.send("patch", f"vms/{vm.uuid}", body)
    assert (answer.status_code, answer.json()["errorcode"]) == (400, 400)


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "text/xml"]
)
def test_a_form_or_xml_is_no_json(rest, vm, content_type):
    """A browser sends those across sites without asking first."""
    answer = rest.send("patch", f"vms/{vm.uuid}", b'{"displayname": "x"}', content_type)
    assert answer.status_code == 415


def test_a_body_without_end_is_refused(rest, vm):
    assert rest.patch(f"vms/{vm.uuid}", {"displayname": "x" * 4_000_000}).status_code == 413


@pytest.mark.parametrize(("size", "status"), [(20_000, 200), (700_000, 400)])
def test_user_data_that_a_url_would_not_hold_comes_in_a_body(rest, vm, size, status):
    userdata = base64.b64encode(b"#" * size).decode()
    assert rest.patch(f"vms/{vm.uuid}", {"userdata": userdata}).status_code == status


@pytest.mark.parametrize("query", ["x=1", "expunge=maybe", "expunge=true&expunge=false", "expunge=%00", "id=x"])
def test_a_query_is_read_strictly(rest, vm, query):
    assert rest.delete(f"vms/{vm.uuid}?{query}").status_code == 400
    assert not AsyncJob.objects.exists()


def test_what_is_missing_is_named(rest):
    answer = rest.post("vms", {})
    assert answer.status_code == 400
    assert "zoneid: This field is required." in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "vms/{}"),
        ("patch", "vms/{}"),
        ("delete", "vms/{}"),
        ("post", "vms/{}/actions/start"),
        ("delete", "vms/{}/nics/{}"),
        ("get", "nothing/{}"),
        ("post", "nothing/{}"),
    ],
)
def test_another_accounts_object_answers_as_none_at_all(rest, method, path):
    other = make_vm(make_account())
    for name in (other.uuid, NOBODY, "x", "%00", "1", "..%2f..", "' OR 1=1 --", "x" * 5000):
        answer = rest.send(method, path.replace("{}", str(name)), b"{}")
        assert (answer.status_code, answer.json()) == (404, NOTHING), name


def test_a_reference_in_a_body_to_anothers_object_is_refused_like_none(rest, user):
    body = wanted(user.user.account)
    others = str(make_template(make_account(), public=False).uuid)
    refusals = [rest.post("vms", {**body, "templateid": uuid}) for uuid in (others, NOBODY, "x", "")]
    assert {(answer.status_code, answer.content) for answer in refusals} == {(400, refusals[0].content)}
    assert refusals[0].json()["detail"] == "templateid: There is no such object."
    assert not VirtualMachine.objects.exists()


def test_what_a_role_may_not_is_not_there(rest):
    answer = rest.post("networks", {})
    assert (answer.status_code, answer.json()) == (404, NOTHING)
    assert (rest.get("hosts").status_code, rest.get("hosts").json()) == (404, NOTHING)


# Problems -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidParameter("x"), 400),
        (NotInThisProduct("x is"), 400),
        (PermissionDenied("x"), 403),
        (ResourceInUse("x"), 409),
        (InsufficientCapacity("x"), 409),
        (ResourceUnavailable("x"), 503),
        (TooManyRequests("x"), 429),
        (InternalError("x"), 500),
    ],
)
def test_each_error_has_its_status(own_routes, rest, error, status):
    own_routes(error)
    answer = rest.post("vms/actions/fail", {"text": "x"})
    assert (answer.status_code, answer.json()) == (status, {"detail": error.text, "errorcode": error.status})


def test_what_nobody_foresaw_is_answered_without_its_words(own_routes, rest, caplog):
    own_routes(RuntimeError("password=hunter2"))
    answer = rest.post("vms/actions/fail", {"text": "hunter3"})
    assert (answer.status_code, answer.json()["errorcode"]) == (500, 530)
    assert "hunter" not in answer.content.decode() + caplog.text


def test_only_root_admins_read_what_is_for_operators(own_routes, rest, root):
    own_routes(ResourceUnavailable("No host answers.", for_operator="kvm-7 is down."))
    assert rest.post("vms/actions/fail").json()["detail"] == "No host answers."
    assert Rest.of(root).post("vms/actions/fail").json()["detail"] == "No host answers. kvm-7 is down."


@pytest.fixture
def own_routes(own_commands, monkeypatch, settings):
    """A route to a command that raises what it is given."""
    own_places = dict(resources.places)
    monkeypatch.setattr(resources, "places", own_places)
    monkeypatch.setattr(routes, "places", own_places)

    def fails_with(error: Exception) -> None:
        class FailParams(Params):
            text = Text("any")

        @registry.command(since="1.0", roles=EVERYBODY)
        class Fail(Command):
            """Fail."""

            params = FailParams
            answer = Success

            def run(self, caller, params):
                raise error

        routes.post("vms/actions/fail", Fail)
        settings.ROOT_URLCONF = ModuleType("own_urls")
        settings.ROOT_URLCONF.urlpatterns = [path("api/v1/", include(routes.urls()))]

    return fails_with


# Sessions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_a_browsers_session_needs_the_csrf_token(user, vm, method):
    """A state change with nothing but the cookie."""
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user.user)
    url = f"/api/v1/vms/{vm.uuid}" + ("/actions/start" if method == "post" else "")
    answer = getattr(browser, method)(url, b"{}", content_type="application/json")
    assert answer.status_code == 403
    assert not AsyncJob.objects.exists()


def test_a_state_is_not_changed_by_get(rest, vm):
    assert rest.get(f"vms/{vm.uuid}/actions/start").status_code == 405
    assert rest.send("options", f"vms/{vm.uuid}").status_code == 405


# Registering --------------------------------------------------------------------------------------------


def test_only_a_command_that_says_who_may_call_it_can_be_a_route(own_commands):
    class Loose(Command):
        """Do something."""

        params = Params
        answer = Success

    with pytest.raises(TypeError, match="@command"):
        routes.post("vms/actions/loose", Loose)


def test_a_name_in_the_path_is_a_parameter():
    with pytest.raises(TypeError, match="no parameter nicid"):
        routes.post("vms/{nicid}/actions/stop", registry.find("stopVirtualMachine"))


def test_a_route_is_declared_once():
    with pytest.raises(TypeError, match="already"):
        routes.post("vms", registry.find("deployVirtualMachine"))


def test_a_path_has_one_spelling():
    with pytest.raises(TypeError, match="one path"):
        routes.post("vms/{virtualmachineid}", registry.find("migrateVirtualMachine"))
