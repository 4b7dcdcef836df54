"""`/api/v1/`: who gets in, what they see, and that nothing is guessed."""

import pytest
from django.contrib.contenttypes.models import ContentType
from django.test import Client

from extdhcp_site.accounts.models import Account, ApiKey, User
from extdhcp_site.api import resources
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs.models import AsyncJob
from networks.models import VirtualMachine, VmState
from tests.factories import make_account, make_network, make_vm

pytestmark = pytest.mark.django_db

PREFIXES = resources.prefixes()


def get(path: str, token: str = "", **params):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Client().get(f"/api/v1/{path}", params, headers=headers)


def record(signer, text="x"):
    return events.record(EventType.VM_CREATE, text, account=signer.user.account)


@pytest.mark.parametrize("prefix", ["", *(f"{prefix}/" for prefix in PREFIXES)])
def test_nobody_unknown_gets_in(prefix):
    response = get(prefix)
    assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="extdhcp"')


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_list_is_open_to_its_callers(root, prefix):
    for spelt in (prefix, f"{prefix}/"):
        answer = get(spelt, root.keys.token)
        assert (answer.status_code, set(answer.json())) == (200, {"next", "previous", "results"})


@pytest.mark.parametrize("prefix", ["vms", "nics", "networks"])
def test_ones_things_are_listed_and_shown(user, prefix):
    vm = make_vm(user.user.account, [make_network(account=user.user.account, acl_type="Account")])
    make_vm(make_account(), [make_network(acl_type="Account")])
    [row] = get(f"{prefix}/", user.keys.token).json()["results"]
    assert get(f"{prefix}/{row['id']}/", user.keys.token).json() == row
    assert row["id"] in {str(vm.uuid), str(vm.nics.get().uuid), str(vm.nics.get().network.uuid)}


@pytest.mark.parametrize("token", ["{}", "x", "x" * 64, "x" * 100_000, "é", "null", "' OR 1=1"])
def test_what_is_no_token_is_refused(user, token):
    """VSA-2026-062: Xen Orchestra took an empty object for a token."""
    assert get("events/", token).status_code == 401


def test_an_api_key_is_no_token(user):
    assert get("events/", user.keys.api_key).status_code == 401
    assert get("events/", ApiKey.objects.get(user=user.user).token_hash).status_code == 401


def test_when_a_token_was_used_is_noted(user):
    get("events/", user.keys.token)
    assert ApiKey.objects.get(user=user.user).last_used_at is not None


def test_a_flood_of_wrong_tokens_is_slowed_and_a_right_one_passes(user):
    answers = [get("events", "z" * 64) for _ in range(60)]
    assert (answers[0].status_code, answers[-1].status_code) == (401, 429)
    assert answers[-1].json()["errorcode"] == 429
    assert int(answers[-1]["Retry-After"]) >= 1
    assert get("events", user.keys.token).status_code == 200


def test_one_sees_ones_own(user, domain_admin, root):
    mine, others = record(user, "mine"), record(domain_admin, "theirs")

    assert [e["description"] for e in get("events/", user.keys.token).json()["results"]] == ["mine"]
    assert get(f"events/{mine.uuid}/", user.keys.token).json()["id"] == str(mine.uuid)
    assert len(get("events/", root.keys.token).json()["results"]) == 2
    invisible = get(f"events/{others.uuid}/", user.keys.token)
    missing = get("events/7c1ff9ab-0000-4000-8000-000000000000/", user.keys.token)
    assert (invisible.status_code, invisible.json()) == (missing.status_code, missing.json())
    assert invisible.status_code == 404


def test_a_session_of_a_disabled_account_is_worth_nothing(user):
    browser = Client()
    browser.force_login(user.user)
    assert browser.get("/api/v1/events/").status_code == 200
    Account.objects.filter(pk=user.user.account_id).update(state=Account.State.DISABLED)
    assert browser.get("/api/v1/events/").status_code in (401, 403)
    assert get("events/", user.keys.token).status_code == 401


def test_an_inactive_user_is_out(user):
    User.objects.filter(pk=user.user.pk).update(is_active=False)
    assert get("events/", user.keys.token).status_code == 401


def test_pages_go_on_where_they_ended(user):
    for n in range(5):
        record(user, str(n))
    seen, url = [], "events/?page_size=2"
    while url:
        page = get(url.removeprefix("http://testserver/api/v1/"), user.keys.token).json()
        seen += [event["description"] for event in page["results"]]
        record(user, "new")
        url = page["next"]
    assert seen == ["4", "3", "2", "1", "0"]


def test_a_page_has_an_upper_limit(user):
    events.Event.objects.bulk_create(
        events.Event(type=EventType.VM_CREATE, account=user.user.account) for _ in range(501)
    )
    assert len(get("events/", user.keys.token, page_size=10**9).json()["results"]) == 500


def test_a_list_of_vms_hides_from_users_what_they_destroyed(user, root):
    """As listVirtualMachines; one by its id, or asked for by its state, is shown."""
    gone = make_vm(user.user.account)
    VirtualMachine.objects.filter(pk=gone.pk).update(state=VmState.DESTROYED, taken_name=None)
    assert get("vms", user.keys.token).json()["results"] == []
    assert len(get("vms", user.keys.token, state="Destroyed").json()["results"]) == 1
    assert get(f"vms/{gone.uuid}", user.keys.token).json()["state"] == "Destroyed"
    assert len(get("vms", root.keys.token).json()["results"]) == 1


def test_a_list_of_events_hides_what_was_put_away(user):
    event = record(user)
    events.Event.objects.update(archived=True)
    assert get("events", user.keys.token).json()["results"] == []
    assert len(get("events", user.keys.token, archived="true").json()["results"]) == 1
    assert get(f"events/{event.uuid}", user.keys.token).status_code == 200


def test_filters_filter(user):
    record(user, "info")
    events.record(EventType.VM_STOP, "stop", account=user.user.account)
    results = get("events/", user.keys.token, type="VM.STOP").json()["results"]
    assert [event["description"] for event in results] == ["stop"]


@pytest.mark.parametrize(
    "params",
    [
        {"tpye": "VM.STOP"},
        {"type": "NOTHING"},
        {"account": "x"},
        {"resource_uuid": "x"},
        {"archived": "maybe"},
        {"type": ""},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(user, params):
    """A misspelt filter that is ignored answers with everything."""
    assert get("events/", user.keys.token, **params).status_code == 400
    assert get(f"events/{record(user).uuid}/", user.keys.token, type="VM.STOP").status_code == 400


@pytest.mark.parametrize("cursor", ["x", "cD0x", "cD14", "cD0tMQ==", "bz0xMDAwMDAwMDAwMDAwMA==", "%00"])
def test_a_made_up_cursor_breaks_nothing(user, cursor):
    assert get("events/", user.keys.token, cursor=cursor).status_code in (200, 404)


def test_what_is_not_bound_to_its_caller_cannot_be_registered():
    class Open(resources.VisibleViewSet):
        queryset = ContentType.objects.all()

    with pytest.raises(TypeError, match="visible_to"):
        resources.register("open", Open)
    with pytest.raises(TypeError):
        resources.register("open", type("NotOurs", (), {"queryset": AsyncJob.objects.all()}))


def test_the_schema_and_its_page_are_for_people_who_logged_in(user):
    assert Client().get("/api/schema/").status_code == 401
    assert Client().get("/api/docs/").status_code == 302
    browser = Client()
    browser.force_login(user.user)
    schema = browser.get("/api/schema/", {"format": "json"})
    assert schema.status_code == 200
    assert browser.get("/api/docs/").status_code == 200
    assert "/api/v1/events" in schema.content.decode()


def test_a_refusal_reveals_no_token(user):
    response = get("events/", "z" * 64)
    assert "z" * 64 not in response.content.decode()
