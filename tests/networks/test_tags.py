"""Tags: who may put them on what, what lists show and find by them, and that they go with their object."""

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from extdhcp_site.accounts.models import Role
from extdhcp_site.events.models import Event, EventType, State
from extdhcp_site.jobs.models import AsyncJob
from networks.api.tag_answers import MOST_ASKED_FOR
from networks.models import Network, ResourceTag, VirtualMachine
from networks.models.networks import AclType
from networks.services import tags
from networks.services.tags import MOST_TAGS
from tests.api.client import Reply, Signer, refused
from tests.factories import make_account, make_network, make_template, make_vm
from tests.life import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def vm(user) -> VirtualMachine:
    return make_vm(user.user.account)


def put(by: Signer, *rows, word: str = "UserVm", **tags: str) -> Reply:
    return by.call("createTags", **_on(rows, word), **spelt(tags))


def take(by: Signer, *rows, word: str = "UserVm", **tags: str) -> Reply:
    return by.call("deleteTags", **_on(rows, word), **spelt(tags))


def _on(rows, word: str) -> dict[str, str]:
    return {"resourcetype": word, "resourceids": ",".join(str(row.uuid) for row in rows)}


def spelt(tags: dict[str, str]) -> dict[str, str]:
    spelt = {}
    for index, (key, value) in enumerate(tags.items()):
        spelt |= {f"tags[{index}].key": key, f"tags[{index}].value": value}
    return spelt


def shown(by: Signer, vm: VirtualMachine) -> dict[str, str]:
    (answer,) = by.call("listVirtualMachines", id=vm.uuid).body["virtualmachine"]
    return {tag["key"]: tag["value"] for tag in answer["tags"]}


class TestPuttingThemOn:
    def test_it_shows_at_once_on_every_object_named(self, user, vm):
        other = make_vm(user.user.account)

        reply = put(user, vm, other, role="db", stage="test")

        assert reply.status == 200, reply
        assert shown(user, vm) == shown(user, other) == {"role": "db", "stage": "test"}

    def test_the_job_succeeds_and_leaves_the_events_of_a_job(self, user, vm):
        put(user, vm, role="db")
        job = run(AsyncJob.objects.get())

        result = user.call("queryAsyncJobResult", jobid=job.uuid).body

        assert (result["jobstatus"], result["jobresult"]) == (1, {"success": True})
        states = Event.objects.filter(type=EventType.TAGS_CREATE).values_list("state", flat=True)
        assert set(states) == {State.SCHEDULED, State.STARTED, State.COMPLETED}

    def test_an_object_at_work_can_be_tagged(self, user, vm):
        user.call("startVirtualMachine", id=vm.uuid)
        assert put(user, vm, role="db").status == 200

    @pytest.mark.parametrize("key", ["role", "ROLE"])
    def test_a_key_is_on_an_object_once_in_any_case(self, user, vm, key):
        put(user, vm, role="db")
        reply = put(user, make_vm(user.user.account), vm, **{key: "web"})
        assert reply.status == 431
        assert f"has a tag {key} already" in reply.text
        assert ResourceTag.objects.count() == 1

    @pytest.mark.parametrize(
        ("params", "says"),
        [
            ({}, "missing parameter tags"),
            ({"tags[0].value": "db"}, "missing parameter tags.key"),
            ({"tags[0].key": " ", "tags[0].value": "db"}, "Each tag has a key"),
            ({"tags[0].key": "x" * 256, "tags[0].value": "db"}, "no more than 255"),
            ({"tags[0].key": "x", "tags[0].value": "x" * 256}, "no more than 255"),
            ({"tags[0].key": "x", "tags[1].key": "X"}, "Each key can be given once"),
            ({"tags": "role=db"}, "must be spelt as name[0].key=value"),
        ],
    )
    def test_what_is_no_tag_is_refused(self, user, vm, params, says):
        reply = user.call("createTags", **_on([vm], "UserVm"), **params)
        assert reply.status == 431
        assert says in reply.text
        assert not ResourceTag.objects.exists()

    def test_a_kind_that_has_no_tags_here_is_refused_with_those_that_have(self, user, vm):
        reply = put(user, vm, word="Volume", role="db")
        assert reply.status == 431
        assert "must be one of UserVm, Network, Template" in reply.text

    def test_on_nothing_is_refused(self, user):
        reply = user.call("createTags", resourcetype="UserVm", resourceids=",", **spelt({"role": "db"}))
        assert reply.status == 431
        assert "must name an object" in reply.text

    def test_there_is_an_end_to_them(self, user, vm):
        put(user, vm, **{f"k{number}": "v" for number in range(MOST_TAGS)})
        reply = put(user, vm, one="more")
        assert reply.status == 431
        assert f"at most {MOST_TAGS} tags" in reply.text

    def test_it_costs_no_more_queries_on_more_objects(self, user, vm):
        def queries(*rows: VirtualMachine) -> int:
            with CaptureQueriesContext(connection) as captured:
                assert put(user, *rows, role="db").status == 200
            return len(captured)

        queries(vm)  # what is asked once a process
        others = [make_vm(user.user.account) for _ in range(5)]
        assert queries(others[0]) == queries(*others[1:])

    def test_there_is_an_end_to_those_put_on_at_once(self, user, monkeypatch):
        monkeypatch.setattr(tags, "MOST_AT_ONCE", 3)
        refused(put(user, *[make_vm(user.user.account) for _ in range(2)], role="db", stage="test"), "At most 3 tags")

    def test_terraforms_spelling_of_the_kind_is_taken(self, user, vm):
        assert put(user, vm, word="userVm", role="db").status == 200


class TestTakingThemOff:
    @pytest.fixture(autouse=True)
    def tags(self, user, vm):
        put(user, vm, role="db", stage="test")

    def test_by_key_and_value(self, user, vm):
        take(user, vm, role="db")
        assert shown(user, vm) == {"stage": "test"}

    def test_by_key_alone(self, user, vm):
        user.call("deleteTags", **_on([vm], "UserVm"), **{"tags[0].key": "role"})
        assert shown(user, vm) == {"stage": "test"}

    def test_all_where_none_is_named(self, user, vm):
        assert take(user, vm).status == 200
        assert shown(user, vm) == {}

    def test_another_value_is_another_tag(self, user, vm):
        reply = take(user, vm, role="web")
        assert reply.status == 431
        assert "Unable to find any tags" in reply.text
        assert shown(user, vm) == {"role": "db", "stage": "test"}

    def test_they_go_with_their_object(self, vm):
        vm.delete()
        assert not ResourceTag.objects.exists()


class TestWhoseObjects:
    """T-REF for the kinds that the generated matrix does not name: it asks with VMs."""

    @pytest.mark.parametrize("command", ["createTags", "deleteTags"])
    @pytest.mark.parametrize("word", ["Network", "Template"])
    def test_one_that_others_own_answers_like_one_that_is_not_there(self, user, command, word):
        others = make_account(domain=user.user.account.domain)
        make = {"Network": make_network, "Template": make_template}[word]
        row = make(account=others)
        ResourceTag.objects.create(**{word.lower(): row}, key="role", value="db")
        seen = user.call(f"list{word}s", id=row.uuid, templatefilter="all").body
        assert seen["count"] == 1, "visible, and yet not theirs to change"

        reply = user.call(command, **_on([row], word), **spelt({"role": "db"}))
        gone = str(row.uuid)
        row_uuid = row.uuid
        ResourceTag.objects.all().delete()
        row.delete()
        never = user.call(command, resourcetype=word, resourceids=row_uuid, **spelt({"role": "db"}))

        assert reply.status == never.status == 431
        assert reply.text == never.text
        assert gone in reply.text

    def test_an_id_of_another_kind_is_no_object(self, user, vm):
        assert put(user, vm, word="Network", role="db").status == 431

    def test_an_admin_tags_what_is_in_the_domain(self, user, vm):
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN, user.user.account.domain))
        assert put(admin, vm, role="db").status == 200


class TestListing:
    def test_ones_own(self, user, vm):
        network = make_network(account=user.user.account, acl_type=AclType.ACCOUNT)
        put(user, vm, role="db")
        put(user, network, word="Network", stage="test")

        found = user.call("listTags").body

        assert found["count"] == 2
        account = user.user.account
        assert found["tag"][0] == {
            "id": str(vm.tags.get().uuid),
            "key": "role",
            "value": "db",
            "resourcetype": "UserVm",
            "resourceid": str(vm.uuid),
            "account": account.name,
            "domain": account.domain.name,
            "domainid": str(account.domain.uuid),
        }

    @pytest.mark.parametrize(
        ("params", "found"),
        [
            ({"resourcetype": "UserVm"}, {"role"}),
            ({"resourcetype": "Network"}, {"stage"}),
            ({"resourcetype": "userVm"}, {"role"}),
            ({"resourcetype": "Volume"}, set()),
            ({"key": "stage"}, {"stage"}),
            ({"value": "db"}, {"role"}),
            ({"key": "stage", "value": "db"}, set()),
            ({"keyword": "TAG"}, {"stage"}),
        ],
    )
    def test_its_filters_filter(self, user, vm, params, found):
        put(user, vm, role="db")
        put(user, make_network(account=user.user.account), word="Network", stage="test")
        answer = user.call("listTags", **params).body
        assert {tag["key"] for tag in answer.get("tag", [])} == found

    def test_of_one_object(self, user, vm):
        put(user, vm, role="db")
        put(user, make_vm(user.user.account), role="web")
        (tag,) = user.call("listTags", resourceid=vm.uuid, resourcetype="UserVm").body["tag"]
        assert tag["value"] == "db"

    @pytest.mark.parametrize("params", [{}, {"listall": "true"}, {"resourceid": "the VM's"}])
    def test_others_tags_are_not_seen(self, user, vm, params):
        put(user, vm, role="db")
        stranger = Signer.of(make_account())
        asked = {name: vm.uuid if name == "resourceid" else value for name, value in params.items()}
        assert stranger.call("listTags", **asked).body == {}

    def test_an_admin_asks_for_all_or_for_an_account(self, user, vm):
        put(user, vm, role="db")
        root = Signer.of(make_account(Role.ROOT_ADMIN))
        account = user.user.account
        assert root.call("listTags").body == {}
        assert root.call("listTags", listall="true").body["count"] == 1
        assert root.call("listTags", account=account.name, domainid=account.domain.uuid).body["count"] == 1


class TestFindingByThem:
    def test_only_vms_that_have_all_of_them(self, user, vm):
        put(user, vm, role="db", stage="test")
        other = make_vm(user.user.account)
        put(user, other, role="db")

        def found(**tags: str) -> set[str]:
            answer = user.call("listVirtualMachines", **spelt(tags)).body
            return {vm["id"] for vm in answer.get("virtualmachine", [])}

        assert found(role="db") == {str(vm.uuid), str(other.uuid)}
        assert found(role="db", stage="test") == {str(vm.uuid)}
        assert found(role="web") == set()

    def test_a_key_alone_asks_for_no_value(self, user, vm):
        put(user, vm, role="db")
        assert user.call("listVirtualMachines", **{"tags[0].key": "role"}).body["count"] == 1

    @pytest.mark.parametrize("command", ["listVirtualMachines", "listNetworks", "listTemplates"])
    def test_there_is_an_end_to_those_asked_for(self, user, command):
        asked = {f"k{number}": "v" for number in range(MOST_ASKED_FOR)}
        assert user.call(command, **spelt(asked)).status == 200
        refused(user.call(command, **spelt({**asked, "one": "more"})), f"{MOST_ASKED_FOR} are the most")


def test_a_tag_is_on_exactly_one_object(vm):
    with pytest.raises(IntegrityError, match="tag_is_on_one_object"):
        ResourceTag.objects.create(vm=vm, network=Network.objects.get(), key="x")


@pytest.mark.parametrize("do", [put, take])
def test_several_accounts_objects_at_once_are_refused(root, do):
    """The job and its events are one account's: the others would never hear of it."""
    refused(do(root, make_vm(), make_vm(), role="db"), "several accounts' objects")
    assert not ResourceTag.objects.exists()
