"""VMs by the wire: what lists find and show, other sizes, fresh starts, and the end."""

import base64

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from extdhcp_site.accounts.models import Role
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import Nic, VirtualMachine, VmState, Volume
from networks.models.offerings import TemplateFormat
from networks.models.vms import VolumeState
from networks.services import lifecycle, vms
from tests.api.client import Signer, refused
from tests.configdrive.drives import contents
from tests.factories import (
    make_account,
    make_cluster,
    make_domain,
    make_host,
    make_network,
    make_running_vm,
    make_service_offering,
    make_template,
    make_vm,
    make_zone,
)
from tests.life import deploy, finished, run

pytestmark = pytest.mark.django_db

USER_DATA = base64.b64encode(b"#cloud-config\n").decode()


@pytest.fixture
def vm(user) -> VirtualMachine:
    return make_vm(user.user.account)


def listed(by: Signer, **params: object) -> list[dict]:
    reply = by.call("listVirtualMachines", **params)
    assert reply.status == 200, reply
    return reply.body.get("virtualmachine", [])


def names(by: Signer, **params: object) -> set[str]:
    return {vm["name"] for vm in listed(by, **params)}


class TestFilters:
    @pytest.mark.parametrize("keyword", ["web", "WEB", "sho"])
    def test_keyword_is_part_of_either_name_in_any_case(self, user, keyword):
        make_vm(user.user.account, name="Web-1", display_name="The Shop")
        make_vm(user.user.account, name="db-1", display_name="Data")
        assert names(user, keyword=keyword) == {"Web-1"}

    def test_keyword_may_be_a_name_on_the_hypervisor_for_who_sees_it(self, user, root, vm):
        make_vm(user.user.account)
        asked = {"keyword": vm.instance_name, "listall": "true"}
        assert names(root, **asked) == {vm.name}
        assert names(user, **asked) == set()

    def test_wildcards_of_the_database_are_characters_like_others(self, user, vm):
        assert names(user, keyword="%") == names(user, name="_") == set()

    def test_by_ids(self, user, vm):
        other = make_vm(user.user.account)
        make_vm(user.user.account)
        assert names(user, ids=f"{vm.uuid},{other.uuid}") == {vm.name, other.name}

    def test_by_state(self, user, vm):
        running = make_running_vm(account=user.user.account)
        assert names(user, state="running") == {running.name}

    def test_by_zone_network_offering_template_and_hypervisor(self, user, vm):
        make_vm(user.user.account)
        for name, row in {
            "zoneid": vm.zone,
            "networkid": vm.nics.get().network,
            "serviceofferingid": vm.service_offering,
            "templateid": vm.template,
        }.items():
            assert names(user, **{name: row.uuid}) == {vm.name}, name
        assert names(user, hypervisor="vmware") == set()

    def test_by_host_cluster_pod_and_storage_for_root_admins(self, user, root, vm):
        running = make_running_vm(account=user.user.account)
        cluster = running.host.cluster
        storage = cluster.storage.get()
        Volume.objects.filter(vm=running).update(storage=storage)
        for name, row in {
            "hostid": running.host,
            "clusterid": cluster,
            "podid": cluster.pod,
            "storageid": storage,
        }.items():
            assert names(root, listall="true", **{name: row.uuid}) == {running.name}, name
            refused(user.call("listVirtualMachines", **{name: row.uuid}), "entity does not exist")

    def test_by_key_pair(self, user, vm):
        VirtualMachine.objects.filter(pk=vm.pk).update(
            ssh_keys=[
                {"name": "ops", "public_key": "ssh-ed25519 AAAA x"},
                {"name": 'my "best"', "public_key": 'ssh-ed25519 AAAA "name": "other"'},
            ]
        )
        make_vm(user.user.account)
        assert names(user, keypair="ops") == names(user, keypair='my "best"') == {vm.name}
        for other in ("op", "other", "ssh-ed25519", "name", '"'):
            assert names(user, keypair=other) == set(), other

    @pytest.mark.parametrize(
        ("params", "found"),
        [
            ({"haenable": "true"}, False),
            ({"haenable": "false"}, True),
            ({"displayvm": "true"}, True),
            ({"displayvm": "false"}, False),
        ],
    )
    def test_what_every_vm_here_is_finds_all_or_nothing(self, user, vm, params, found):
        assert names(user, **params) == ({vm.name} if found else set())

    def test_account_and_domain_with_those_below(self, root, user, vm):
        account, domain = user.user.account, user.user.account.domain
        below = make_vm(make_account(domain=make_domain(domain)))
        assert names(root, account=account.name, domainid=domain.uuid) == {vm.name}
        assert names(root, domainid=domain.uuid) == {vm.name}
        assert names(root, domainid=domain.uuid, isrecursive="true") == {vm.name, below.name}
        assert names(root) == set()
        assert names(root, listall="true", projectid="-1") >= {vm.name, below.name}


class TestDestroyedOnes:
    @pytest.fixture(autouse=True)
    def destroyed(self, vm):
        VirtualMachine.objects.filter(pk=vm.pk).update(state=VmState.DESTROYED)

    def test_a_user_does_not_see_them(self, user, vm):
        """Ansible would recover one that it finds, Terraform take it for there: CloudStack hides them too."""
        assert listed(user) == listed(user, id=vm.uuid) == listed(user, state="Present") == []

    def test_unless_asked_for_by_their_state(self, user, vm):
        assert names(user, state="Destroyed") == {vm.name}

    def test_an_admin_does(self, root, user, vm):
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN, user.user.account.domain))
        assert names(root, id=vm.uuid) == names(admin, listall="true") == {vm.name}
        assert names(root, listall="true", state="Present") == set()


class TestDetails:
    def test_min_leaves_out_all_parts_but_the_keys_that_clients_insist_on(self, user, vm):
        (shown,) = listed(user, id=vm.uuid, details="min")
        assert (shown["nic"], shown["tags"], shown["securitygroup"]) == ([], [], [])
        assert {"id", "name", "state", "cpunumber", "memory"} <= shown.keys()
        assert not {"templateid", "serviceofferingid", "ipaddress", "rootdeviceid"} & shown.keys()

    def test_what_is_asked_for_is_there(self, user, vm):
        (shown,) = listed(user, id=vm.uuid, details="nics,tmpl")
        assert len(shown["nic"]) == 1
        assert "templateid" in shown
        assert "serviceofferingid" not in shown

    def test_all_is_as_if_nothing_were_asked(self, user, vm):
        assert listed(user, details="all,nics") == listed(user)

    def test_another_word_is_refused(self, user):
        refused(user.call("listVirtualMachines", details="everything"), "must be words out of all, nics")


class TestUserData:
    @pytest.fixture
    def vm(self, user):
        return make_vm(user.user.account, user_data=USER_DATA)

    def test_its_owner_reads_it_who_asks_for_it(self, user, vm):
        assert listed(user, userdata="true")[0]["userdata"] == USER_DATA
        assert "userdata" not in listed(user)[0]

    @pytest.mark.parametrize("role", [Role.ROOT_ADMIN, Role.DOMAIN_ADMIN])
    def test_an_admin_does_not(self, user, vm, role):
        admin = Signer.of(make_account(role, user.user.account.domain))
        assert "userdata" not in listed(admin, id=vm.uuid, userdata="true")[0]

    def test_a_vm_without_has_none(self, user):
        make_vm(user.user.account)
        assert "userdata" not in listed(user, userdata="true")[0]


class TestOtherSize:
    @pytest.mark.parametrize("command", ["changeServiceForVirtualMachine", "scaleVirtualMachine"])
    def test_a_stopped_vm_has_it_at_once(self, user, vm, command):
        bigger = make_service_offering(cpus=4)
        reply = user.call(command, id=vm.uuid, serviceofferingid=bigger.uuid)
        assert reply.status == 200
        (shown,) = listed(user, id=vm.uuid)
        assert (shown["serviceofferingid"], shown["cpunumber"]) == (str(bigger.uuid), 4)
        assert Event.objects.filter(type=EventType.VM_UPGRADE).exists()

    def test_the_one_answers_with_the_vm_and_the_other_with_a_job_that_succeeds(self, user, vm):
        size = {"id": vm.uuid, "serviceofferingid": make_service_offering().uuid}
        assert user.call("changeServiceForVirtualMachine", **size).body["virtualmachine"]["id"] == str(vm.uuid)
        assert finished(user, user.call("scaleVirtualMachine", **size)) == {"success": True}

    @pytest.mark.parametrize("command", ["changeServiceForVirtualMachine", "scaleVirtualMachine"])
    def test_a_running_one_keeps_what_it_has_reserved(self, user, command):
        vm = make_running_vm(account=user.user.account)
        reply = user.call(command, id=vm.uuid, serviceofferingid=make_service_offering().uuid)
        refused(reply, f"is Running; {command} needs it Stopped")
        assert VirtualMachine.objects.get().service_offering == vm.service_offering
        assert not AsyncJob.objects.exists()

    def test_sizes_of_ones_own_are_refused(self, user, vm):
        size = {"id": vm.uuid, "serviceofferingid": make_service_offering().uuid, "details[0].cpuNumber": "9"}
        refused(user.call("changeServiceForVirtualMachine", **size), "not in this product")


class TestFreshStart:
    @pytest.fixture
    def cluster(self):
        cluster = make_cluster()
        make_host(cluster)
        return cluster

    @pytest.fixture
    def vm(self, fake, caller, cluster):
        template = make_template(format=TemplateFormat.QCOW2, image="debian.qcow2", password_enabled=True)
        return deploy(caller, cluster, template=template)

    def test_a_stopped_vm_has_no_root_volume_until_its_next_start(self, fake, caller, vm):
        run(vms.stop(vm, caller))
        vm.refresh_from_db()

        run(vms.restore(vm, caller))

        volume = Volume.objects.get(vm=vm)
        assert fake.volumes == set()
        assert (volume.state, volume.storage) == (VolumeState.ALLOCATED, None)
        vm.refresh_from_db()
        assert vm.state == VmState.STOPPED
        run(vms.start(vm, caller))
        assert len(fake.volumes) == 1

    def test_a_running_vm_runs_again_with_a_new_volume_and_a_new_password_on_its_drive(self, fake, caller, vm):
        fake.calls.clear()

        job = run(vms.restore(vm, caller))

        vm.refresh_from_db()
        assert vm.state == VmState.RUNNING
        steps = [call for call in fake.calls if call in ("stop", "delete_root", "ensure_root", "start")]
        assert steps == ["stop", "delete_root", "ensure_root", "start"]
        name = fake.discs[str(vm.uuid)].rpartition("/")[2]
        files = [store[name] for store in (fake.media, *fake.stored.values()) if name in store]
        told = contents(files[0], "rr")["cloudstack/password/vm_password.txt"].decode()
        assert told == job.secrets["password"]

    def test_killed_anywhere_and_run_again_it_comes_to_the_same_end(self, fake, caller, vm):
        job = vms.restore(vm, caller)
        for attempt, method in enumerate(("stop", "delete_root", "ensure_root", "start"), start=1):
            fake.failing[method] = SystemExit()
            with pytest.raises(SystemExit):
                jobs.run(job.pk, attempt)
            fake.failing.clear()
            AsyncJob.objects.filter(pk=job.pk).update(attempt=attempt + 1, heartbeat_at=None)
        jobs.run(job.pk, 5)

        vm.refresh_from_db()
        assert (vm.state, len(fake.volumes)) == (VmState.RUNNING, 1)

    def test_another_template_is_refused(self, user, vm):
        vm.account = user.user.account
        vm.save()
        reply = user.call("restoreVirtualMachine", virtualmachineid=vm.uuid, templateid=make_template().uuid)
        refused(reply, "not in this product")
        assert not AsyncJob.objects.filter(command="restoreVirtualMachine").exists()


class TestTheEnd:
    def test_an_admin_expunges_what_was_destroyed(self, root, vm):
        VirtualMachine.objects.update(state=VmState.DESTROYED)
        reply = root.call("expungeVirtualMachine", id=vm.uuid)
        assert finished(root, reply) == {"success": True}
        assert not VirtualMachine.objects.exists()
        assert not Nic.objects.exists()

    def test_one_destroyed_for_good_is_still_an_object(self, root, vm):
        """Terraform's library fails on anything else: after the VM is gone."""
        reply = root.call("destroyVirtualMachine", id=vm.uuid, expunge="true")
        assert finished(root, reply) == {"virtualmachine": {"id": str(vm.uuid), "state": "Expunging"}}
        assert not VirtualMachine.objects.exists()

    def test_one_that_was_not_is_refused(self, root, vm):
        refused(root.call("expungeVirtualMachine", id=vm.uuid), "is Stopped; expungeVirtualMachine needs it Destroyed")

    def test_a_user_waits_for_the_delay(self, user, vm):
        assert user.call("expungeVirtualMachine", id=vm.uuid).status == 432

    def test_the_housekeeper_may_have_been_there_before(self, root, vm):
        VirtualMachine.objects.update(state=VmState.DESTROYED)
        job = AsyncJob.objects.get(uuid=root.call("expungeVirtualMachine", id=vm.uuid).body["jobid"])
        lifecycle.expunge(VirtualMachine.objects.get())
        assert run(job).error_code is None


class TestWhereItStarts:
    @pytest.mark.parametrize("name", ["clusterid", "podid"])
    def test_a_root_admin_names_a_cluster_or_a_pod(self, fake, root, name):
        zone = make_zone()
        hosts = [make_host(make_cluster(zone)) for _ in range(3)]
        for host in hosts:
            vm = make_vm(root.user.account, [make_network(zone)])
            named = {"clusterid": host.cluster, "podid": host.cluster.pod}[name]
            finished(root, root.call("startVirtualMachine", id=vm.uuid, **{name: named.uuid}))
            vm.refresh_from_db()
            assert vm.host == host

    def test_where_there_is_no_room_it_does_not_go_elsewhere(self, fake, root):
        zone = make_zone()
        make_host(make_cluster(zone))
        vm = make_vm(root.user.account, [make_network(zone)])
        empty = make_host(make_cluster(), memory=1).cluster
        result = finished(root, root.call("startVirtualMachine", id=vm.uuid, clusterid=empty.uuid))
        assert result["errorcode"] == 533


class TestWhatIsNotHere:
    @pytest.mark.parametrize(
        "params",
        [
            {"details[0].cpuNumber": "4"},
            {"rootdisksize": "20"},
            {"securitygroupnames": "default"},
            {"securitygroupids": "x"},
            {"affinitygroupnames": "apart"},
            {"affinitygroupids": "x"},
            {"diskofferingid": "x"},
            {"extraconfig": "x"},
        ],
    )
    def test_a_deploy_that_would_be_less_than_was_asked_for_is_refused(self, user, params):
        """CVE-2024-29008 among them: what a caller says of a VM's definition reaches no host."""
        network = make_network()
        reply = user.call(
            "deployVirtualMachine",
            zoneid=network.zone.uuid,
            templateid=make_template().uuid,
            serviceofferingid=make_service_offering().uuid,
            networkids=network.uuid,
            **params,
        )
        refused(reply, "not in this product")
        assert not VirtualMachine.objects.exists()

    def test_so_is_an_update(self, user, vm):
        refused(user.call("updateVirtualMachine", id=vm.uuid, **{"details[0].x": "y"}), "not in this product")


def test_a_list_takes_the_same_queries_however_many_vms_nics_and_tags_there_are(user):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert listed(user, page=1, pagesize=50)
        return len(captured)

    zone = make_zone()
    networks = [make_network(zone), make_network(zone)]
    make_vm(user.user.account, networks[:1])
    queries()  # the first request of an hour notes that its key was used
    before = queries()
    for number in range(5):
        vm = make_vm(user.user.account, networks)
        vm.tags.create(key=f"k{number}", value="v")
    assert queries() == before


def test_an_update_that_changes_nothing_leaves_no_event(user, vm):
    """Terraform says again what it said before."""
    assert user.call("updateVirtualMachine", id=vm.uuid, name=vm.name).status == 200
    assert not Event.objects.filter(type=EventType.VM_UPDATE).exists()
