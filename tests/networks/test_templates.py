"""Templates and guest operating systems by the wire."""

import uuid

import pytest

from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import Template
from networks.os_types import OS_CATEGORIES, OS_TYPES, by_name
from tests.api.client import Signer, refused
from tests.factories import make_template, make_vm, make_zone

pytestmark = pytest.mark.django_db


def names(signer: Signer, **params: object) -> set[str]:
    reply = signer.call("listTemplates", **params)
    assert reply.status == 200, reply
    return {row["name"] for row in reply.body.get("template", [])}


class TestFilter:
    @pytest.fixture
    def templates(self, user) -> None:
        make_template(user.user.account, name="own", public=False)
        make_template(user.user.account, name="own public")
        make_template(name="public")
        make_template(name="private", public=False)

    @pytest.mark.parametrize(
        ("word", "meant"),
        [
            ("self", {"own", "own public"}),
            ("selfexecutable", {"own", "own public"}),
            ("executable", {"own", "own public", "public"}),
            ("all", {"own", "own public", "public"}),
            ("featured", {"own public", "public"}),
            ("community", {"own public", "public"}),
            ("sharedexecutable", set()),
        ],
    )
    def test_each_word_means_what_it_means_in_cloudstack(self, user, templates, word, meant):
        assert names(user, templatefilter=word) == meant

    def test_another_word_is_refused(self, user):
        refused(user.call("listTemplates", templatefilter="none"), "templatefilter")

    def test_a_named_owner_has_its_own_and_the_public_ones(self, user, root, templates):
        """Ansible with account and domain looks for a public template like that, too."""
        owner = {"account": user.user.account.name, "domainid": user.user.account.domain.uuid}
        assert names(root, templatefilter="executable", **owner) == {"own", "own public", "public"}
        assert names(root, templatefilter="self", **owner) == {"own", "own public"}


class TestList:
    def test_a_zones_templates_are_its_own_and_those_of_all_zones(self, user):
        zone = make_zone()
        make_template(name="here", zone=zone)
        make_template(name="there", zone=make_zone())
        make_template(name="everywhere")
        assert names(user, templatefilter="executable", zoneid=zone.uuid) == {"here", "everywhere"}

    @pytest.mark.parametrize("asked", [{"name": "debian"}, {"keyword": "DEB"}, {"hypervisor": "kvm"}])
    def test_each_filters(self, user, asked):
        make_template(name="debian")
        make_template(name="other", hypervisor="VMware")
        assert names(user, templatefilter="executable", isrecursive="true", **asked) == {"debian"}

    def test_ids_filter(self, user):
        one, two, _ = (make_template(name=name) for name in ("one", "two", "three"))
        assert names(user, templatefilter="all", ids=f"{one.uuid},{two.uuid}") == {"one", "two"}

    def test_a_templates_size_is_in_bytes(self, user):
        """Ansible with root_disk_size compares it."""
        make_template(size=2**31)
        (shown,) = user.call("listTemplates", templatefilter="executable").body["template"]
        assert shown["size"] == 2**31

    def test_takes_as_many_queries_for_thirty_as_for_three(self, user, django_assert_max_num_queries):
        for _ in range(3):
            make_template()
        with django_assert_max_num_queries(20) as few:
            user.call("listTemplates", templatefilter="all")
        for _ in range(27):
            make_template()
        with django_assert_max_num_queries(len(few)):
            assert user.call("listTemplates", templatefilter="all").body["count"] == 30


class TestOsTypes:
    def test_are_listed_with_their_category(self, user):
        body = user.call("listOsTypes").body
        assert body["count"] == len(OS_TYPES)
        categories = {row["id"]: row["name"] for row in user.call("listOsCategories").body["oscategory"]}
        assert len(categories) == len(OS_CATEGORIES)
        assert all(categories[row["oscategoryid"]] == row["oscategoryname"] for row in body["ostype"])

    def test_have_ids_that_are_the_same_on_every_server(self):
        assert str(by_name("Debian GNU/Linux 12").uuid) == "191a100f-1c10-5ecb-9f41-7936186923ae"
        assert len({os_type.uuid for os_type in OS_TYPES}) == len(OS_TYPES)

    @pytest.mark.parametrize("asked", ["id", "description", "keyword"])
    def test_each_filters(self, user, asked):
        wanted = by_name("Debian GNU/Linux 12")
        value = {"id": wanted.uuid, "description": wanted.description, "keyword": "linux 12"}[asked]
        (shown,) = user.call("listOsTypes", **{asked: value}).body["ostype"]
        assert shown["description"] == wanted.description

    def test_a_category_filters(self, user):
        windows = user.call("listOsCategories", name="Windows").body["oscategory"][0]["id"]
        shown = user.call("listOsTypes", oscategoryid=windows).body["ostype"]
        assert {row["oscategoryname"] for row in shown} == {"Windows"}

    def test_an_unknown_one_is_not_found(self, user):
        assert user.call("listOsTypes", id=uuid.uuid4()).body == {}
        assert user.call("listOsCategories", keyword="VMS").body == {}


class TestChanges:
    WANTED = {"name": "t", "displaytext": "t", "format": "QCOW2", "hypervisor": "KVM", "url": "t.qcow2"}

    def test_a_registered_ones_operating_system(self, root):
        windows = by_name("Windows Server 2022")
        root.call("registerTemplate", **self.WANTED, ostypeid=windows.uuid)
        (shown,) = root.call("listTemplates", templatefilter="all").body["template"]
        assert (shown["ostypeid"], shown["ostypename"]) == (str(windows.uuid), "Windows Server 2022")
        assert shown["oscategoryname"] == "Windows"

    def test_a_registered_one_is_a_list_of_one(self, root):
        """Terraform and Ansible's template module take the first of a list."""
        body = root.call("registerTemplate", **self.WANTED).body
        assert (body["count"], [row["name"] for row in body["template"]]) == (1, ["t"])

    @pytest.mark.parametrize(("hypervisor", "wanted"), [("XenServer", "VHD"), ("VMware", "OVA")])
    def test_a_pools_or_vcenters_template_is_named_as_it_stands_there(self, root, hypervisor, wanted):
        given = {**self.WANTED, "format": wanted, "hypervisor": hypervisor, "url": "Debian 12 (64-bit)/golden"}
        shown = root.call("registerTemplate", **given).body["template"][0]
        assert (shown["format"], shown["hypervisor"]) == (wanted, hypervisor)

    def test_a_format_of_another_hypervisor_is_refused(self, root):
        refused(root.call("registerTemplate", **{**self.WANTED, "format": "OVA"}), "are for VMware, not KVM")
        assert not Template.objects.exists()

    def test_an_unknown_operating_system_is_refused(self, root):
        refused(root.call("registerTemplate", **self.WANTED, ostypeid=uuid.uuid4()), "See listOsTypes")
        assert not Template.objects.exists()

    def test_what_is_said_of_it_is_changed_and_the_rest_stays(self, root):
        template = make_template(name="t", password_enabled=True)
        changes = {"displaytext": "Debian", "ostypeid": by_name("Debian GNU/Linux 12").uuid, "ispublic": "false"}
        shown = root.call("updateTemplate", id=template.uuid, **changes).body["template"]
        assert (shown["name"], shown["displaytext"]) == ("t", "Debian")
        assert (shown["ostypename"], shown["ispublic"]) == ("Debian GNU/Linux 12", False)
        assert shown["passwordenabled"] is True

    def test_a_wrong_label_changes_nothing(self, root):
        template = make_template(name="t")
        refused(root.call("updateTemplate", id=template.uuid, name="u", configdrivelabel="a b"), "Label 'a b'")
        template.refresh_from_db()
        assert template.name == "t"

    def test_is_deleted_by_a_job(self, root):
        template = make_template()
        job = AsyncJob.objects.get(uuid=root.call("deleteTemplate", id=template.uuid).body["jobid"])
        jobs.run(job.pk, job.attempt)
        assert root.call("queryAsyncJobResult", jobid=job.uuid).body["jobresult"] == {"success": True}
        assert not Template.objects.exists()

    def test_one_that_vms_are_of_is_not_deleted(self, root):
        template = make_vm().template
        refused(root.call("deleteTemplate", id=template.uuid), "still in use (VMs: 1)", status=536)

    def test_one_that_a_vm_was_made_of_meanwhile_is_not_deleted(self, root):
        template = make_template()
        job = AsyncJob.objects.get(uuid=root.call("deleteTemplate", id=template.uuid).body["jobid"])
        make_vm(template=template)
        jobs.run(job.pk, job.attempt)
        assert root.call("queryAsyncJobResult", jobid=job.uuid).body["jobresult"]["errorcode"] == 536
        assert Template.objects.filter(pk=template.pk).exists()

    def test_leaves_events(self, root):
        root.call("registerTemplate", **self.WANTED)
        root.call("updateTemplate", id=Template.objects.get().uuid, name="u")
        types = list(Event.objects.order_by("id").values_list("type", flat=True))
        assert types == [EventType.TEMPLATE_CREATE, EventType.TEMPLATE_UPDATE]

    @pytest.mark.parametrize("command", ["updateTemplate", "deleteTemplate"])
    def test_an_end_user_changes_no_template(self, user, command):
        assert user.call(command, id=make_template(user.user.account).uuid).status == 432
