"""The cloud's commands by the wire: bad input is refused with what to do, and nothing is half-made."""

from types import SimpleNamespace

import pytest

from extdhcp_site.jobs.models import AsyncJob
from networks.models import (
    AddressState,
    Network,
    NetworkOffering,
    Nic,
    SshKeyPair,
    Template,
    VirtualMachine,
    VmState,
)
from tests.api.client import Signer, refused
from tests.factories import (
    make_account,
    make_cluster,
    make_host,
    make_l2_network,
    make_network,
    make_network_offering,
    make_running_vm,
    make_service_offering,
    make_template,
    make_vm,
    make_zone,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account())


@pytest.fixture
def world() -> SimpleNamespace:
    zone = make_zone()
    return SimpleNamespace(
        zone=zone,
        host=make_host(make_cluster(zone)),
        template=make_template(),
        size=make_service_offering(),
        offering=make_network_offering(),
        network=make_network(zone),
    )


class TestNetworkOffering:
    WANTED = {"name": "o", "displaytext": "o", "guestiptype": "Shared", "traffictype": "Guest"}

    def test_without_services_is_legal_and_begins_disabled(self, root):
        offering = root.call("createNetworkOffering", **self.WANTED).body["networkoffering"]
        assert (offering["service"], offering["state"]) == ([], "Disabled")

    def test_user_data_may_name_the_config_drive(self, root):
        provider = {"serviceproviderlist[0].service": "UserData", "serviceproviderlist[0].provider": "ConfigDrive"}
        reply = root.call("createNetworkOffering", **self.WANTED, supportedservices="UserData", **provider)
        (service,) = reply.body["networkoffering"]["service"]
        assert (service["name"], service["provider"]) == ("UserData", [{"name": "ConfigDrive"}])

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"guestiptype": "Isolated"}, "Isolated networks are not in this product"),
            ({"supportedservices": "Lb"}, "The service Lb is not in this product"),
            ({"supportedservices": "Dhcp"}, "DHCP and DNS are external"),
            (
                {"serviceproviderlist[0].service": "Dhcp", "serviceproviderlist[0].provider": "VirtualRouter"},
                "VirtualRouter is not in this product",
            ),
            ({"guestiptype": "Sharde"}, "Shared or L2"),
            ({"traffictype": "Public"}, "traffictype must be Guest"),
        ],
    )
    def test_what_is_not_here_is_refused_and_says_so(self, root, changed, says):
        refused(root.call("createNetworkOffering", **{**self.WANTED, **changed}), says)
        assert not NetworkOffering.objects.exists()

    def test_a_shared_one_names_its_vlan_and_range_unless_told_otherwise(self, root):
        offering = root.call("createNetworkOffering", **self.WANTED).body["networkoffering"]
        assert (offering["specifyvlan"], offering["specifyipranges"]) == (True, True)

    def test_a_shared_one_without_a_vlan_is_refused(self, root):
        # Two such networks would be one broadcast domain for two accounts.
        refused(root.call("createNetworkOffering", specifyvlan="false", **self.WANTED), "specifyvlan=true")

    def test_a_name_is_taken_once(self, root):
        root.call("createNetworkOffering", **self.WANTED)
        refused(root.call("createNetworkOffering", **self.WANTED), "named o already")

    def test_one_in_use_is_not_deleted(self, root, world):
        network = make_network(world.zone, offering=world.offering)
        refused(root.call("deleteNetworkOffering", id=network.offering.uuid), "still in use (networks: 1)", status=536)


class TestNetwork:
    @pytest.fixture
    def wanted(self, world):
        return {
            "name": "n",
            "displaytext": "n",
            "zoneid": world.zone.uuid,
            "networkofferingid": world.offering.uuid,
            "vlan": "700",
            "gateway": "198.51.100.1",
            "netmask": "255.255.255.0",
            "startip": "198.51.100.10",
            "endip": "198.51.100.20",
        }

    def test_mirrors_the_external_servers_range(self, root, wanted):
        network = root.call("createNetwork", **wanted).body["network"]
        assert (network["cidr"], network["vlan"], network["service"]) == ("198.51.100.0/24", "700", [])
        assert (network["startip"], network["endip"]) == ("198.51.100.10", "198.51.100.20")

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"endip": "198.51.101.20"}, "outside 198.51.100.0/24"),
            ({"startip": "198.51.100.30"}, "comes after endip"),
            ({"startip": "", "endip": ""}, "Give startip and endip"),
            ({"netmask": "255.0.255.0"}, "netmask"),
            ({"gateway": "198.51.100"}, "gateway must be an IPv4 address"),
            ({"gateway": ""}, "gateway and netmask go together"),
            ({"vlan": "4095"}, "from 1 to 4094"),
            ({"vlan": "-1"}, "from 1 to 4094"),
            ({"vlan": "\uff11\uff10\uff10"}, "from 1 to 4094"),
            ({"vlan": ""}, "needs a vlan"),
            ({"name": ""}, "missing parameter name"),
            ({"zoneid": "no-uuid"}, "Invalid parameter zoneid value=no-uuid due to incorrect long value format"),
        ],
    )
    def test_bad_input_is_refused(self, root, wanted, changed, says):
        before = Network.objects.count()
        refused(root.call("createNetwork", **{**wanted, **changed}), says)
        assert Network.objects.count() == before

    def test_an_overlapping_vlan_is_refused(self, root, wanted):
        root.call("createNetwork", **wanted)
        refused(root.call("createNetwork", **{**wanted, "name": "other"}), "VLAN 700 belongs to network n")

    def test_a_second_network_without_a_vlan_is_refused(self, root, world):
        offering = make_network_offering(guest_type="L2", specify_vlan=False, specify_ip_ranges=False)
        wanted = {"displaytext": "l2", "zoneid": world.zone.uuid, "networkofferingid": offering.uuid}
        assert root.call("createNetwork", name="first", **wanted).status == 200
        refused(root.call("createNetwork", name="second", **wanted), "the same broadcast domain")

    def test_a_duplicate_name_is_refused(self, root, wanted):
        root.call("createNetwork", **wanted)
        refused(root.call("createNetwork", **{**wanted, "vlan": "701"}), "a network named n already")

    def test_a_disabled_offering_is_refused(self, root, wanted):
        disabled = make_network_offering(state="Disabled")
        reply = root.call("createNetwork", **{**wanted, "networkofferingid": disabled.uuid})
        refused(reply, "is disabled", "updateNetworkOffering")

    def test_restart_is_the_specs_dummy(self, root, world):
        assert "jobid" in root.call("restartNetwork", id=world.network.uuid).body

    def test_one_with_nics_is_not_deleted(self, root, world):
        make_vm(networks=[world.network])
        refused(root.call("deleteNetwork", id=world.network.uuid), "still in use (NICs: 1)", status=536)

    def test_a_user_sees_neither_vlan_nor_others_account_networks(self, user, world):
        make_network(world.zone, acl_type="Account")
        (shown,) = user.call("listNetworks").body["network"]
        assert shown["id"] == str(world.network.uuid)
        assert not {"vlan", "broadcasturi"} & shown.keys()


class TestDeploy:
    @pytest.fixture
    def wanted(self, world):
        return {
            "zoneid": world.zone.uuid,
            "templateid": world.template.uuid,
            "serviceofferingid": world.size.uuid,
            "networkids": world.network.uuid,
            "name": "web-1",
        }

    def test_answers_with_the_job_and_the_vm(self, user, wanted):
        reply = user.call("deployVirtualMachine", **wanted)
        vm = VirtualMachine.objects.get(uuid=reply.body["id"])
        assert AsyncJob.objects.get(uuid=reply.body["jobid"]).instance_uuid == vm.uuid
        assert (vm.state, vm.account) == (VmState.STARTING, user.user.account)

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"templateid": "7f4d2a0e-0000-4000-8000-000000000000"}, "Invalid parameter templateid"),
            ({"networkids": ""}, "at least one network"),
            ({"name": "web_1"}, "letters, digits and hyphens"),
            ({"name": "-web"}, "letters, digits and hyphens"),
            ({"name": "<b>x</b>"}, "letters, digits and hyphens"),
            ({"userdata": "not base64!"}, "base64"),
            ({"userdata": "QUJD" * 9000}, "vm.userdata.max.length allows 32768"),
            ({"keypair": "nobody's"}, "does not exist"),
            ({"password": "secret-password"}, "not password enabled"),
            ({"ipaddress": "192.0.2.7"}, "external DHCP server gives the address"),
            ({"diskofferingid": "x"}, "Volumes beyond ROOT are not in this product"),
            ({"extraconfig": "<x/>"}, "not in this product"),
            ({"hypervisor": "VMware"}, "is for KVM"),
        ],
    )
    def test_bad_input_is_refused_and_nothing_is_made(self, user, wanted, changed, says):
        reply = user.call("deployVirtualMachine", method="post", **{**wanted, **changed})
        refused(reply, says)
        assert not VirtualMachine.objects.exists()
        assert not AsyncJob.objects.exists()
        assert not Nic.objects.exists()

    def test_another_accounts_key_pair_of_the_same_name_is_not_taken(self, user, wanted):
        pair = {"name": "laptop", "public_key": "ssh-ed25519 AAAA somebody"}
        SshKeyPair.objects.create(account=make_account(), **pair)
        refused(user.call("deployVirtualMachine", keypair="laptop", **wanted), "does not exist")

    def test_a_network_of_another_zone_is_refused(self, user, wanted):
        elsewhere = make_network()
        reply = user.call("deployVirtualMachine", **{**wanted, "networkids": elsewhere.uuid})
        refused(reply, "is not in zone")

    def test_a_duplicate_name_is_refused(self, user, wanted):
        user.call("deployVirtualMachine", **wanted)
        refused(user.call("deployVirtualMachine", **{**wanted, "name": "WEB-1"}), "Choose another name")
        assert VirtualMachine.objects.count() == 1

    def test_a_user_cannot_choose_a_host(self, user, wanted, world):
        reply = user.call("deployVirtualMachine", hostid=world.host.uuid, **wanted)
        refused(reply, f"Invalid parameter hostid value={world.host.uuid}")

    def test_several_networks_give_nics_in_order_the_first_as_default(self, user, wanted, world):
        second = make_l2_network(zone=world.zone)
        both = f"{world.network.uuid},{second.uuid}"
        vm_id = user.call("deployVirtualMachine", **{**wanted, "networkids": both}).body["id"]
        nics = user.call("listNics", virtualmachineid=vm_id).body["nic"]
        assert [(nic["networkid"], nic["isdefault"]) for nic in nics] == [
            (str(world.network.uuid), True),
            (str(second.uuid), False),
        ]


class TestStates:
    @pytest.mark.parametrize(
        ("command", "state", "needs"),
        [
            ("startVirtualMachine", VmState.RUNNING, "Stopped"),
            ("stopVirtualMachine", VmState.STOPPED, "Running"),
            ("rebootVirtualMachine", VmState.STOPPED, "Running"),
            ("destroyVirtualMachine", VmState.DESTROYED, "Running or Stopped or Error"),
        ],
    )
    def test_a_vm_in_the_wrong_state_is_named_with_the_right_one(self, root, command, state, needs):
        vm = make_vm(state=state)
        refused(root.call(command, id=vm.uuid), f"is {state}", f"needs it {needs}")
        assert not AsyncJob.objects.exists()

    def test_a_user_may_not_expunge_at_once(self, user):
        vm = make_vm(user.user.account)
        refused(user.call("destroyVirtualMachine", id=vm.uuid, expunge="true"), "Only an administrator", status=531)

    def test_a_vm_is_not_migrated_to_another_cluster(self, root):
        vm = make_running_vm()
        other = make_host(make_cluster(vm.zone))
        reply = root.call("migrateVirtualMachine", virtualmachineid=vm.uuid, hostid=other.uuid)
        refused(reply, "in another cluster")


class TestLists:
    def test_a_learned_address_stands_in_vm_and_nic_and_an_unknown_one_nowhere(self, user):
        vm = make_running_vm(account=user.user.account)
        assert "ipaddress" not in user.call("listNics", virtualmachineid=vm.uuid).body["nic"][0]
        Nic.objects.update(ip4_address="192.0.2.7", address_state=AddressState.CONFIRMED)

        (shown,) = user.call("listVirtualMachines", id=vm.uuid).body["virtualmachine"]

        assert shown["ipaddress"] == shown["nic"][0]["ipaddress"] == "192.0.2.7"

    def test_a_user_is_not_told_the_host(self, user):
        make_running_vm(account=user.user.account)
        (shown,) = user.call("listVirtualMachines").body["virtualmachine"]
        assert not {"hostid", "hostname", "instancename"} & shown.keys()
        refused(user.call("listHosts"), status=432)

    def test_a_pending_job_stands_at_its_vm(self, root):
        vm = make_running_vm(account=root.user.account)
        job = root.call("stopVirtualMachine", id=vm.uuid).body["jobid"]
        (shown,) = root.call("listVirtualMachines", id=vm.uuid).body["virtualmachine"]
        assert (shown["jobid"], shown["jobstatus"], shown["state"]) == (job, 0, "Stopping")

    @pytest.mark.parametrize("command", ["listVirtualMachines", "listVolumes", "listNetworks", "listHosts"])
    def test_a_list_takes_as_many_queries_for_thirty_rows_as_for_three(
        self, root, command, django_assert_max_num_queries
    ):
        zone = make_zone()
        host = make_host(make_cluster(zone), memory=2**40, cpus=500)
        network = make_network(zone)

        def grow(count: int) -> None:
            for _ in range(count):
                make_running_vm(networks=[network], host=host)
                make_network(zone)
                make_host(host.cluster)

        grow(3)
        with django_assert_max_num_queries(40) as few:
            root.call(command, listall="true")
        grow(27)
        with django_assert_max_num_queries(len(few)):
            assert root.call(command, listall="true").body["count"] >= 30

    def test_an_iso_is_no_template(self, root, world):
        reply = root.call("registerTemplate", name="x", format="ISO", hypervisor="KVM", url="debian.iso")
        refused(reply, "VMs made from an ISO are not in this product")

    @pytest.mark.parametrize("path", ["boot/vmlinuz", "/boot/../etc/shadow", "/boot/vm\nlinuz"])
    def test_a_kernel_is_an_absolute_path_without_tricks(self, root, path):
        details = {"details[0].kernel": path, "details[0].initrd": "/boot/initrd"}
        before = Template.objects.count()
        reply = root.call("registerTemplate", name="x", format="KERNEL", hypervisor="KVM", **details)
        refused(reply)
        assert Template.objects.count() == before

    def test_a_deleted_service_offering_lives_on_while_a_vm_uses_it(self, root):
        vm = make_vm(root.user.account)
        vm.service_offering.delete()
        (shown,) = root.call("listVirtualMachines", id=vm.uuid).body["virtualmachine"]
        assert shown["serviceofferingname"] == vm.service_offering.name
        assert root.call("listServiceOfferings", id=vm.service_offering.uuid).status == 431
