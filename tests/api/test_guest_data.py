"""What a guest is to know, changed by the wire: envelopes as CloudStack's, who reads a password, who may name what."""

import base64

import pytest

from extdhcp_site.accounts.models import Role, create_api_key
from extdhcp_site.api import registry
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.hypervisors.base import AgentAbsent
from networks.models import Nic, SshKeyPair, VirtualMachine, VmState
from networks.models.networks import AclType
from tests.api.client import Reply, Signer, refused
from tests.factories import (
    make_account,
    make_cluster,
    make_domain,
    make_host,
    make_network,
    make_template,
    make_user,
    make_vm,
)
from tests.fakes import FakeHypervisor, hypervisors
from tests.life import deploy

pytestmark = pytest.mark.django_db

USER_DATA = base64.b64encode(b"#!/bin/sh\necho hello\n").decode()
IN_A_URL = 4096
# Each new command, and whether its answer is a job's id: as in CloudStack.
ASYNC = {
    "resetPasswordForVirtualMachine": True,
    "resetSSHKeyForVirtualMachine": True,
    "addNicToVirtualMachine": True,
    "removeNicFromVirtualMachine": True,
    "resetUserDataForVirtualMachine": False,
    "updateVirtualMachine": False,
    "recoverVirtualMachine": False,
    "getVirtualMachineUserData": False,
}


@pytest.fixture
def fake():
    fake = FakeHypervisor()
    with hypervisors(fake):
        yield fake


@pytest.fixture
def owner() -> Signer:
    return Signer.of(make_account(domain=make_domain()))


@pytest.fixture
def stranger() -> Signer:
    return Signer.of(make_account())


@pytest.fixture
def cluster():
    cluster = make_cluster()
    make_host(cluster)
    return cluster


@pytest.fixture
def vm(fake, owner, cluster) -> VirtualMachine:
    """Running, with a drive; its network is its owner's alone."""
    network = make_network(cluster.pod.zone, owner.user.account)
    return deploy(owner.caller, cluster, template=make_template(password_enabled=True), networks=[network])


@pytest.fixture
def stopped(vm) -> VirtualMachine:
    VirtualMachine.objects.update(state=VmState.STOPPED)
    vm.refresh_from_db()
    return vm


def work() -> None:
    for job in AsyncJob.objects.filter(status=Status.PENDING):
        jobs.run(job.pk, job.attempt)


def result(signer: Signer, reply: Reply) -> dict:
    """What a client that polls the job gets in the end."""
    work()
    body = signer.call("queryAsyncJobResult", jobid=reply.body["jobid"]).body
    assert body["jobstatus"] == 1, body
    return body["jobresult"]["virtualmachine"]


def make_pair(account, name: str) -> SshKeyPair:
    return SshKeyPair.objects.create(account=account, name=name, public_key=f"ssh-ed25519 AAAA {name}", fingerprint="")


class TestEnvelopes:
    """cloudmonkey, cs and the SDKs take the object, or the job's id, from exactly here."""

    @pytest.mark.parametrize(
        ("command", "params"),
        [
            ("resetPasswordForVirtualMachine", {}),
            ("resetSSHKeyForVirtualMachine", {"keypair": "laptop"}),
        ],
    )
    def test_of_what_is_a_job(self, vm, owner, command, params):
        make_pair(owner.user.account, "laptop")
        reply = owner.call(command, id=vm.uuid, **params)
        assert (reply.status, reply.key, set(reply.body)) == (200, f"{command.lower()}response", {"jobid"})
        assert result(owner, reply)["id"] == str(vm.uuid)

    def test_of_nics(self, vm, owner, cluster):
        network = make_network(cluster.pod.zone, owner.user.account)
        reply = owner.call("addNicToVirtualMachine", virtualmachineid=vm.uuid, networkid=network.uuid)
        assert (reply.key, set(reply.body)) == ("addnictovirtualmachineresponse", {"jobid"})
        shown = result(owner, reply)
        assert [nic["networkid"] for nic in shown["nic"]][1:] == [str(network.uuid)]

        reply = owner.call("removeNicFromVirtualMachine", virtualmachineid=vm.uuid, nicid=shown["nic"][1]["id"])
        assert (reply.key, set(reply.body)) == ("removenicfromvirtualmachineresponse", {"jobid"})
        assert [nic["isdefault"] for nic in result(owner, reply)["nic"]] == [True]

    @pytest.mark.parametrize(
        ("command", "state", "params"),
        [
            ("resetUserDataForVirtualMachine", VmState.STOPPED, {"userdata": USER_DATA}),
            ("updateVirtualMachine", VmState.STOPPED, {"displayname": "Web", "name": "web-9"}),
            ("recoverVirtualMachine", VmState.DESTROYED, {}),
        ],
    )
    def test_of_what_is_done_at_once(self, owner, command, state, params):
        vm = make_vm(owner.user.account, state=state)
        reply = owner.call(command, id=vm.uuid, **params)
        assert (reply.status, reply.key, set(reply.body)) == (200, f"{command.lower()}response", {"virtualmachine"})
        assert (reply.body["virtualmachine"]["id"], reply.body["virtualmachine"]["state"]) == (str(vm.uuid), "Stopped")
        assert "password" not in reply.body["virtualmachine"]

    def test_list_apis_says_the_same(self, root):
        shown = {api["name"]: api["isasync"] for api in root.call("listApis").body["api"]}
        assert {name: shown[name] for name in shown if name in ASYNC} == ASYNC


class TestResetPassword:
    def test_its_submitter_reads_it_and_nobody_else(self, vm, owner, root):
        user = make_user(owner.user.account)
        colleague = Signer(user, create_api_key(user))
        domain_admin = Signer.of(make_account(Role.DOMAIN_ADMIN, owner.user.account.domain))
        reply = owner.call("resetPasswordForVirtualMachine", id=vm.uuid)

        password = result(owner, reply)["password"]

        assert len(password) == 16
        assert password.isalnum()
        for other in (colleague, domain_admin, root):
            body = other.call("queryAsyncJobResult", jobid=reply.body["jobid"]).body
            assert "password" not in body["jobresult"]["virtualmachine"]
        assert "password" not in owner.call("listVirtualMachines", id=vm.uuid).body["virtualmachine"][0]

    def test_an_admins_reset_is_the_admins_to_read(self, vm, owner, root):
        reply = root.call("resetPasswordForVirtualMachine", id=vm.uuid, password="fr0mRoot")
        assert result(root, reply)["password"] == "fr0mRoot"
        body = owner.call("queryAsyncJobResult", jobid=reply.body["jobid"]).body
        assert "password" not in body["jobresult"]["virtualmachine"]

    def test_how_it_is_delivered_stands_beside_it(self, vm, owner, fake):
        reply = owner.call("resetPasswordForVirtualMachine", id=vm.uuid, password="s3cretWord")
        shown = result(owner, reply)
        assert (shown["password"], shown["passworddelivery"]) == ("s3cretWord", "on the drive, for the next reboot")

        reply = owner.call("resetPasswordForVirtualMachine", id=vm.uuid, password="s3cretWord", guestuser="debian")
        assert result(owner, reply)["passworddelivery"] == "by the guest agent"
        assert fake.passwords == {(str(vm.uuid), "debian"): "s3cretWord"}

        fake.failing["set_password"] = AgentAbsent("none")
        reply = owner.call("resetPasswordForVirtualMachine", id=vm.uuid, password="s3cretWord", guestuser="debian")
        assert result(owner, reply)["passworddelivery"] == "on the drive, for the next reboot"

    def test_a_stopped_vm_needs_no_user_data_service_on_its_network(self, stopped, owner):
        """Where CloudStack answers 530."""
        assert not stopped.nics.get().network.offering.services.exists()
        shown = result(owner, owner.call("resetPasswordForVirtualMachine", id=stopped.uuid))
        assert shown["passworddelivery"] == "at the next start"

    def test_the_agent_of_a_stopped_vm_cannot_be_asked(self, stopped, owner):
        refused(
            owner.call("resetPasswordForVirtualMachine", id=stopped.uuid, guestuser="root"),
            "is Stopped",
            "only while it is Running",
        )
        assert not AsyncJob.objects.filter(command="resetPasswordForVirtualMachine").exists()

    @pytest.mark.parametrize(
        ("params", "says"),
        [
            ({"password": "x" * 129}, "password"),
            ({"password": "é"}, "printable ASCII"),
            ({"password": "RANDOM"}, "a meaning of its own"),
            ({"password": "$6$salt$hash"}, "a hash"),
            ({"guestuser": "root;reboot"}, "guestuser: a user's name"),
        ],
    )
    def test_bad_input_changes_nothing(self, vm, owner, params, says):
        before = VirtualMachine.objects.get().password
        refused(owner.call("resetPasswordForVirtualMachine", id=vm.uuid, **params), says)
        assert VirtualMachine.objects.get().password == before

    def test_a_second_one_is_told_to_wait(self, vm, owner):
        owner.call("resetPasswordForVirtualMachine", id=vm.uuid)
        refused(owner.call("resetPasswordForVirtualMachine", id=vm.uuid), "is busy with", status=536)

    @pytest.mark.parametrize("state", [VmState.STARTING, VmState.MIGRATING, VmState.ERROR, VmState.DESTROYED])
    def test_in_any_other_state_it_is_refused(self, owner, state):
        vm = make_vm(owner.user.account, state=state, template=make_template(password_enabled=True))
        refused(owner.call("resetPasswordForVirtualMachine", id=vm.uuid), f"is {state}", "Running or Stopped")
        vm.refresh_from_db()
        assert vm.password is None


class TestKeys:
    def test_one_or_several(self, vm, owner):
        for name in "abc":
            make_pair(owner.user.account, name)
        shown = result(owner, owner.call("resetSSHKeyForVirtualMachine", id=vm.uuid, keypair="a"))
        assert shown["keypairs"] == "a"
        shown = result(owner, owner.call("resetSSHKeyForVirtualMachine", id=vm.uuid, keypairs="b,c", keypair="b"))
        assert shown["keypairs"] == "b,c"

    def test_none_is_refused(self, vm, owner):
        refused(owner.call("resetSSHKeyForVirtualMachine", id=vm.uuid), "Name a key pair")

    def test_an_admin_names_the_owners_pairs_and_not_its_own(self, vm, owner, root):
        make_pair(root.user.account, "roots")
        make_pair(owner.user.account, "owners")
        refused(root.call("resetSSHKeyForVirtualMachine", id=vm.uuid, keypair="roots"), "does not exist")
        shown = result(root, root.call("resetSSHKeyForVirtualMachine", id=vm.uuid, keypair="owners"))
        assert shown["keypairs"] == "owners"

    def test_anothers_pair_answers_like_one_that_is_not_there(self, vm, owner, stranger):
        make_pair(stranger.user.account, "theirs")
        theirs = owner.call("resetSSHKeyForVirtualMachine", id=vm.uuid, keypair="theirs")
        nothing = owner.call("resetSSHKeyForVirtualMachine", id=vm.uuid, keypair="nobodys")
        refused(theirs, "does not exist")
        assert theirs.text.replace("theirs", "nobodys") == nothing.text

    def test_a_pair_deleted_later_stays_on_the_vm(self, vm, owner):
        make_pair(owner.user.account, "a")
        result(owner, owner.call("resetSSHKeyForVirtualMachine", id=vm.uuid, keypair="a"))
        owner.call("deleteSSHKeyPair", name="a")
        (shown,) = owner.call("listVirtualMachines", id=vm.uuid).body["virtualmachine"]
        assert shown["keypairs"] == "a"


class TestUserData:
    @pytest.mark.parametrize("command", ["resetUserDataForVirtualMachine", "updateVirtualMachine"])
    def test_what_is_set_is_read_back(self, vm, owner, command):
        owner.call(command, id=vm.uuid, userdata=USER_DATA)
        reply = owner.call("getVirtualMachineUserData", virtualmachineid=vm.uuid)
        assert (reply.key, reply.body) == (
            "getvirtualmachineuserdataresponse",
            {"virtualmachineuserdata": {"virtualmachineid": str(vm.uuid), "userdata": USER_DATA}},
        )

    @pytest.mark.parametrize("command", ["resetUserDataForVirtualMachine", "updateVirtualMachine"])
    def test_an_empty_one_takes_it_away(self, stopped, owner, command):
        owner.call(command, id=stopped.uuid, userdata=USER_DATA)
        owner.call(command, id=stopped.uuid, userdata="")
        body = owner.call("getVirtualMachineUserData", virtualmachineid=stopped.uuid).body
        assert body["virtualmachineuserdata"] == {"virtualmachineid": str(stopped.uuid)}

    def test_only_an_empty_one_takes_it_away(self, stopped, owner):
        owner.call("updateVirtualMachine", id=stopped.uuid, userdata=USER_DATA)
        refused(owner.call("resetUserDataForVirtualMachine", id=stopped.uuid), "userdata")
        assert VirtualMachine.objects.get().user_data == USER_DATA

    @pytest.mark.parametrize("command", ["resetUserDataForVirtualMachine", "updateVirtualMachine"])
    @pytest.mark.parametrize("beside", [{}, {"userdata": ""}, {"userdata": USER_DATA}])
    def test_that_is_registered_under_a_name_is_not_in_this_product(self, stopped, owner, command, beside):
        owner.call("updateVirtualMachine", id=stopped.uuid, userdata=USER_DATA)
        reply = owner.call(command, id=stopped.uuid, userdataid="7a1f0a9e-0000-4000-8000-000000000000", **beside)
        refused(reply, "userdataid", "not in this product")
        assert VirtualMachine.objects.get().user_data == USER_DATA

    def test_nor_at_a_deploy(self, vm, owner):
        made_like = {"zoneid": vm.zone.uuid, "templateid": vm.template.uuid, "networkids": vm.nics.get().network.uuid}
        made_like["serviceofferingid"] = vm.service_offering.uuid
        refused(owner.call("deployVirtualMachine", userdataid="x", **made_like), "userdataid", "not in this product")
        assert owner.call("deployVirtualMachine", **made_like).status == 200
        assert VirtualMachine.objects.count() == 2

    def test_other_changes_leave_it(self, stopped, owner):
        owner.call("updateVirtualMachine", id=stopped.uuid, userdata=USER_DATA)
        owner.call("updateVirtualMachine", id=stopped.uuid, displayname="Web")
        assert VirtualMachine.objects.get().user_data == USER_DATA

    @pytest.mark.parametrize("command", ["resetUserDataForVirtualMachine", "updateVirtualMachine"])
    def test_a_url_carries_4096_characters_and_a_body_more(self, vm, owner, command):
        fits, longer = "QUJD" * (IN_A_URL // 4), "QUJD" * (IN_A_URL // 4 + 1)
        assert owner.call(command, id=vm.uuid, userdata=fits).status == 200
        work()
        refused(owner.call(command, id=vm.uuid, userdata=longer), "4096", "POST")
        assert VirtualMachine.objects.get().user_data == fits
        assert owner.call(command, id=vm.uuid, userdata=longer, method="post").status == 200
        assert VirtualMachine.objects.get().user_data == longer

    @pytest.mark.parametrize("command", ["resetUserDataForVirtualMachine", "updateVirtualMachine"])
    @pytest.mark.parametrize(
        ("userdata", "says"),
        [("QUJ", "base64"), ("%%%", "base64"), ("QUJD\nQUJD", "base64"), ("QUJD" * 9000, "vm.userdata.max.length")],
    )
    def test_bad_input_changes_nothing(self, vm, owner, command, userdata, says):
        refused(owner.call(command, id=vm.uuid, userdata=userdata, method="post"), says)
        assert VirtualMachine.objects.get().user_data is None
        assert not AsyncJob.objects.filter(command="refreshVirtualMachine").exists()

    def test_another_accounts_cannot_be_read(self, vm, owner, stranger):
        owner.call("updateVirtualMachine", id=vm.uuid, userdata=USER_DATA)
        refused(
            stranger.call("getVirtualMachineUserData", virtualmachineid=vm.uuid),
            f"Invalid parameter virtualmachineid value={vm.uuid}",
        )


class TestUpdate:
    def test_a_running_vm_keeps_its_name(self, vm, owner):
        refused(owner.call("updateVirtualMachine", id=vm.uuid, name="other"), "is Running", "Stopped")
        assert owner.call("updateVirtualMachine", id=vm.uuid, displayname="Other").status == 200

    def test_nothing_of_a_refused_update_is_kept(self, vm, owner):
        refused(owner.call("updateVirtualMachine", id=vm.uuid, name="other", userdata=USER_DATA, displayname="Other"))
        vm = VirtualMachine.objects.get()
        assert (vm.user_data, vm.display_name == "Other") == (None, False)
        assert not AsyncJob.objects.filter(command="refreshVirtualMachine").exists()
        assert not Event.objects.filter(type=EventType.VM_UPDATE).exists()

    @pytest.mark.parametrize("name", ["a_b", "-a", "<b>", "x" * 64])
    def test_a_name_that_is_no_host_name_is_refused(self, stopped, owner, name):
        refused(owner.call("updateVirtualMachine", id=stopped.uuid, name=name), "name")

    def test_a_taken_name_is_refused(self, stopped, owner):
        make_vm(owner.user.account, name="taken")
        refused(owner.call("updateVirtualMachine", id=stopped.uuid, name="TAKEN"), "Choose another name")

    def test_the_drives_switch(self, vm, owner, fake):
        shown = owner.call("updateVirtualMachine", id=vm.uuid, configdrive="never").body["virtualmachine"]
        assert shown["configdrive"] == "Never"
        work()
        assert fake.media == {}
        refused(owner.call("updateVirtualMachine", id=vm.uuid, configdrive="Sometimes"), "configdrive")


class TestNics:
    @pytest.fixture
    def network(self, cluster, owner):
        return make_network(cluster.pod.zone, owner.user.account)

    def test_one_of_another_vm_is_refused_and_stays(self, vm, owner, cluster):
        other = make_vm(owner.user.account, networks=[make_network(cluster.pod.zone) for _ in range(2)])
        nic = other.nics.get(is_default=False)
        reply = owner.call("removeNicFromVirtualMachine", virtualmachineid=vm.uuid, nicid=nic.uuid)
        refused(reply, "has no such NIC")
        assert Nic.objects.filter(pk=nic.pk).exists()

    def test_the_default_one_stays(self, vm, owner):
        nic = vm.nics.get()
        refused(owner.call("removeNicFromVirtualMachine", virtualmachineid=vm.uuid, nicid=nic.uuid), "default")

    def test_an_admin_adds_none_on_a_network_that_the_owner_may_not_use(self, vm, owner, cluster):
        domain = owner.user.account.domain
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN, domain))
        theirs = make_network(cluster.pod.zone, make_account(domain=domain), acl_type=AclType.ACCOUNT)
        wanted = {"virtualmachineid": vm.uuid, "networkid": theirs.uuid}

        refused(admin.call("addNicToVirtualMachine", **wanted), "may not use")
        refused(owner.call("addNicToVirtualMachine", **wanted), f"Invalid parameter networkid value={theirs.uuid}")
        assert vm.nics.count() == 1

    @pytest.mark.parametrize("name", ["ipaddress", "macaddress"])
    def test_addresses_are_not_the_callers_to_choose(self, vm, owner, network, name):
        wanted = {"virtualmachineid": vm.uuid, "networkid": network.uuid, name: "x"}
        refused(owner.call("addNicToVirtualMachine", **wanted), "Leave ipaddress and macaddress out")

    def test_a_network_of_another_zone_is_refused(self, vm, owner):
        elsewhere = make_network(account=owner.user.account)
        wanted = {"virtualmachineid": vm.uuid, "networkid": elsewhere.uuid}
        refused(owner.call("addNicToVirtualMachine", **wanted), "is not in zone")

    def test_a_network_is_joined_once(self, vm, owner):
        wanted = {"virtualmachineid": vm.uuid, "networkid": vm.nics.get().network.uuid}
        refused(owner.call("addNicToVirtualMachine", **wanted), "already")
        assert not AsyncJob.objects.filter(command="addNicToVirtualMachine").exists()

    def test_a_ninth_is_refused(self, vm, owner, cluster):
        for network in (make_network(cluster.pod.zone, owner.user.account) for _ in range(7)):
            Nic.objects.create(vm=vm, network=network, device_id=vm.nics.count(), is_default=False)
        ninth = make_network(cluster.pod.zone, owner.user.account)
        refused(owner.call("addNicToVirtualMachine", virtualmachineid=vm.uuid, networkid=ninth.uuid), "at most 8")


class TestRecover:
    def test_only_what_is_destroyed(self, stopped, owner):
        refused(owner.call("recoverVirtualMachine", id=stopped.uuid), "is not Destroyed")

    def test_not_under_a_name_that_was_taken_meanwhile(self, owner):
        gone = make_vm(owner.user.account, name="web", state=VmState.DESTROYED)
        VirtualMachine.objects.update(taken_name=None)
        make_vm(owner.user.account, name="web")
        refused(owner.call("recoverVirtualMachine", id=gone.uuid), "is named web")


def id_parameter(command: str) -> str:
    return "virtualmachineid" if "virtualmachineid" in registry.find(command).params.declared() else "id"


class TestTheWire:
    @pytest.mark.parametrize("command", ASYNC)
    def test_a_doubled_parameter_is_refused(self, vm, owner, command):
        name = id_parameter(command)
        for again in (name, name.upper()):
            reply = owner.call(command, (name, str(vm.uuid)), (again, str(vm.uuid)))
            refused(reply, f"Parameter {again} is given more than once")
        assert AsyncJob.objects.filter(status=Status.PENDING).count() == 0

    @pytest.mark.parametrize("command", ASYNC)
    @pytest.mark.parametrize("name", ["instancename", "uuid", "accountid", "password__contains", "vm__account"])
    def test_an_internal_parameter_is_refused(self, vm, owner, command, name):
        refused(
            owner.call(command, (id_parameter(command), str(vm.uuid)), (name, "x")), f"Parameter {name} cannot be set"
        )

    @pytest.mark.parametrize("command", ASYNC)
    def test_a_missing_vm_is_named(self, owner, command):
        field = registry.find(command).params.declared()[id_parameter(command)]
        refused(owner.call(command), "missing parameter")
        assert field.required


class TestTemplates:
    WANTED = {"name": "t", "displaytext": "t", "format": "QCOW2", "hypervisor": "KVM", "url": "debian.qcow2"}

    def test_what_reads_the_drive_its_label_and_whether_it_is_required(self, root):
        wanted = {"drivereader": "Cloud-Init", "configdrivelabel": "CONFIG-2", "configdriverequired": "true"}
        made = root.call("registerTemplate", **self.WANTED, **wanted).body["template"]
        (made,) = made if isinstance(made, list) else [made]
        (listed,) = root.call("listTemplates", templatefilter="all", id=made["id"]).body["template"]
        for shown in (made, listed):
            assert (shown["drivereader"], shown["configdrivelabel"], shown["configdriverequired"]) == (
                "cloud-init",
                "CONFIG-2",
                True,
            )

    def test_none_of_it_is_the_default(self, root):
        root.call("registerTemplate", **self.WANTED)
        (listed,) = root.call("listTemplates", templatefilter="all", name="t").body["template"]
        assert listed["configdriverequired"] is False
        assert not {"drivereader", "configdrivelabel"} & {name for name, value in listed.items() if value}

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"configdrivelabel": "seventeen-letters"}, "configdrivelabel"),
            ({"configdrivelabel": "é"}, "Label 'é'"),
            ({"configdrivelabel": "cidata"}, "cidata"),
            ({"configdrivelabel": "a b"}, "Label 'a b'"),
            ({"drivereader": "windows-update"}, "drivereader"),
        ],
    )
    def test_bad_input_is_refused(self, root, changes, says):
        refused(root.call("registerTemplate", **self.WANTED, **changes), says)
        assert "template" not in root.call("listTemplates", templatefilter="all", name="t").body
