"""What clients insist on of VMs, NICs, volumes and tags: each test names who breaks."""

import re
from datetime import datetime

import pytest

from extdhcp_site.api import registry
from extdhcp_site.api.registry import AsyncCommand
from extdhcp_site.jobs.models import AsyncJob
from networks.models import AddressState, Network, Nic, VirtualMachine, VmState, Volume
from tests.api.client import Signer, refused
from tests.factories import (
    make_cluster,
    make_host,
    make_l2_network,
    make_network,
    make_running_vm,
    make_service_offering,
    make_template,
    make_vm,
    make_zone,
)
from tests.life import finished

pytestmark = pytest.mark.django_db

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# libcloud/compute/drivers/cloudstack.py, NODE_STATE_MAP: list_nodes() of any other word is a KeyError.
LIBCLOUD_STATES = {"Running", "Starting", "Stopping", "Stopped", "Migrating", "Destroyed", "Expunging", "Error"}


@pytest.fixture
def vm(user) -> VirtualMachine:
    """On two networks, both addresses learned, with all that a VM can have."""
    zone = make_zone()
    vm = make_running_vm(
        account=user.user.account,
        networks=[make_network(zone), make_network(zone)],
        template=make_template(guest_os_type="Debian GNU/Linux 12"),
        ssh_keys=[{"name": "ops", "public_key": "ssh-ed25519 AAAA"}, {"name": "dev", "public_key": "ssh-ed25519 B"}],
    )
    for nic in vm.nics.all():
        Nic.objects.filter(pk=nic.pk).update(
            ip4_address=f"192.0.2.{100 + nic.device_id}",
            ip6_address=f"2001:db8::{nic.device_id + 1}",
            address_state=AddressState.CONFIRMED,
            secondary_addresses=["192.0.2.150"],
        )
    vm.tags.create(key="role", value="db")
    Volume.objects.filter(vm=vm).update(size=2**31)
    return vm


def shown(by: Signer, vm: VirtualMachine) -> dict:
    (answer,) = by.call("listVirtualMachines", id=vm.uuid).body["virtualmachine"]
    return answer


def nics(by: Signer, vm: VirtualMachine) -> list[dict]:
    return by.call("listNics", virtualmachineid=vm.uuid).body["nic"]


# VMs ------------------------------------------------------------------------------------------------


def test_libcloud_list_nodes_reads_these_keys_without_asking(user, vm):
    assert {"id", "name", "state", "nic"} <= shown(user, vm).keys()


def test_libcloud_list_nodes_knows_every_state(user):
    assert set(VmState.values) <= LIBCLOUD_STATES


def test_libcloud_reads_the_key_pair_under_its_old_name(user, vm):
    assert shown(user, vm)["keypair"] == "ops,dev"


def test_ansible_matches_by_displayname_where_the_name_does_not(user):
    """3.x: a row without the key is a KeyError, and the whole list with it."""
    vm = make_vm(user.user.account, display_name="")
    assert shown(user, vm)["displayname"] == vm.name


def test_a_vm_that_is_deployed_between_two_pages_moves_no_other(user, vm):
    """Ansible fails over an object that comes twice; `cs` would count it twice."""
    first = user.call("listVirtualMachines", page=1, pagesize=1).body["virtualmachine"]
    other = make_vm(user.user.account)
    second = user.call("listVirtualMachines", page=2, pagesize=1).body["virtualmachine"]
    assert [row["id"] for row in first + second] == [str(vm.uuid), str(other.uuid)]


def test_ansible_finds_a_vm_by_keyword_in_pages_of_five_hundred(user, vm):
    found = user.call("listVirtualMachines", keyword=vm.name.upper(), page=1, pagesize=500).body
    assert (found["count"], found["virtualmachine"][0]["id"]) == (1, str(vm.uuid))


def test_ansible_has_no_tags_where_the_key_is_missing(user, vm):
    bare = make_vm(user.user.account)
    assert shown(user, bare)["tags"] == []
    (tag,) = shown(user, vm)["tags"]
    assert (tag["key"], tag["value"]) == ("role", "db")


def test_ansible_takes_a_missing_service_offering_for_a_change(user, vm):
    assert shown(user, vm)["serviceofferingid"] == str(vm.service_offering.uuid)


def test_ansible_compares_the_os_type_with_one_of_list_os_types(user, vm):
    known = {row["id"] for row in user.call("listOsTypes").body["ostype"]}
    assert shown(user, vm)["ostypeid"] in known


def test_the_inventory_plugin_wants_a_nic_list_and_the_default_one_first(user, vm):
    first, second = shown(user, vm)["nic"]
    assert (first["ipaddress"], first["isdefault"]) == ("192.0.2.100", True)
    assert (second["ipaddress"], second["isdefault"]) == ("192.0.2.101", False)


def test_terraform_panics_without_a_first_nic(user, vm):
    """After a deploy it takes nic[0] of the job's result, address or none."""
    assert shown(user, vm)["nic"][0]["id"]


def test_terraform_parses_when_it_was_made_in_one_layout(user, vm):
    created = shown(user, vm)["created"]
    assert datetime.strptime(created, "%Y-%m-%dT%H:%M:%S%z")
    assert created.endswith("+0000")


def test_terraform_tells_ids_from_names_by_their_form(user, vm):
    answer = shown(user, vm)
    for name in ("id", "zoneid", "templateid", "serviceofferingid", "domainid"):
        assert UUID.fullmatch(answer[name]), name


GO_VM = {
    **dict.fromkeys(("id", "name", "displayname", "state", "account", "domain", "domainid", "created"), str),
    **dict.fromkeys(("zoneid", "zonename", "templateid", "templatename", "templatedisplaytext", "keypairs"), str),
    **dict.fromkeys(("serviceofferingid", "serviceofferingname", "hypervisor", "ostypeid", "ipaddress"), str),
    **dict.fromkeys(("rootdevicetype", "instancename", "hostid", "hostname"), str),
    **dict.fromkeys(("cpunumber", "cpuspeed", "memory", "rootdeviceid"), int),
    **dict.fromkeys(("haenable", "passwordenabled", "displayvm", "isdynamicallyscalable"), bool),
    **dict.fromkeys(("nic", "tags", "securitygroup", "affinitygroup"), list),
    "details": dict,
}
GO_NIC = {
    **dict.fromkeys(("id", "networkid", "networkname", "ipaddress", "ip6address", "macaddress"), str),
    **dict.fromkeys(("netmask", "gateway", "type", "traffictype", "deviceid", "virtualmachineid"), str),
    **dict.fromkeys(("broadcasturi", "isolationuri"), str),
    **dict.fromkeys(("secondaryip", "extradhcpoption"), list),
    "isdefault": bool,
}
GO_VOLUME = {
    **dict.fromkeys(("id", "name", "type", "state", "virtualmachineid", "vmname", "created", "zoneid"), str),
    "size": int,
    "deviceid": int,
}


@pytest.mark.parametrize("name", GO_VM)
def test_the_go_sdk_decodes_each_field_of_a_vm_into_its_type(root, vm, name):
    """One field of another type fails the whole call, and Terraform's plan with it."""
    assert type(shown(root, vm)[name]) is GO_VM[name]


@pytest.mark.parametrize("name", GO_NIC)
def test_the_go_sdk_decodes_each_field_of_a_nic_into_its_type(root, vm, name):
    in_vm, listed = shown(root, vm)["nic"][0], nics(root, vm)[0]
    assert type(in_vm[name]) is type(listed[name]) is GO_NIC[name]


@pytest.mark.parametrize("name", GO_VOLUME)
def test_the_go_sdk_decodes_each_field_of_a_volume_into_its_type(user, vm, name):
    (volume,) = user.call("listVolumes", virtualmachineid=vm.uuid).body["volume"]
    assert type(volume[name]) is GO_VOLUME[name]


def test_cmk_prints_no_null_of_a_vm_that_has_nothing_yet(root):
    """It crashes on one at the top of an answer; libcloud's guards ask for the key alone."""
    vm = make_vm(networks=[make_l2_network()])
    answer = shown(root, vm)
    assert None not in answer.values()
    assert None not in answer["nic"][0].values()


def test_libcloud_skips_a_nic_without_an_address_only_if_the_key_is_missing(user):
    vm = make_vm(user.user.account)
    assert "ipaddress" not in shown(user, vm)["nic"][0]
    assert "ipaddress" not in shown(user, vm)


# NICs -----------------------------------------------------------------------------------------------


def test_libcloud_ex_list_nics_reads_these_keys_without_asking(user, vm):
    wanted = {"id", "networkid", "netmask", "gateway", "ipaddress", "isdefault", "macaddress"}
    assert all(wanted <= nic.keys() for nic in nics(user, vm))


def test_libcloud_tells_private_from_public_by_an_ipv4_address(user):
    """A guest that has an IPv6 address alone has no `ipaddress`: libcloud splits it at its dots."""
    vm = make_vm(user.user.account)
    Nic.objects.update(ip6_address="2001:db8::7")
    (nic,) = shown(user, vm)["nic"]
    assert (nic.get("ipaddress"), nic["ip6address"]) == (None, "2001:db8::7")


def test_ansible_instance_nic_takes_the_first_entry_for_the_network_that_it_asked_for(user, vm):
    second = vm.nics.get(is_default=False)
    found = user.call("listNics", virtualmachineid=vm.uuid, networkid=second.network.uuid).body
    assert [nic["id"] for nic in found["nic"]] == [str(second.uuid)]


def test_ansible_instance_nic_takes_an_empty_list_with_a_count_for_a_nic(user, vm):
    elsewhere = make_network(vm.zone)
    assert user.call("listNics", virtualmachineid=vm.uuid, networkid=elsewhere.uuid).body == {}


@pytest.mark.parametrize("running", [True, False])
def test_ansible_instance_nic_reads_the_nics_of_the_vm_that_a_job_gives(fake, user, running):
    cluster = make_cluster()
    make_host(cluster)
    zone = cluster.pod.zone
    vm = make_vm(user.user.account, [make_network(zone)])
    if running:
        finished(user, user.call("startVirtualMachine", id=vm.uuid))
    network = make_network(zone)

    added = finished(user, user.call("addNicToVirtualMachine", virtualmachineid=vm.uuid, networkid=network.uuid))
    assert str(network.uuid) in {nic["networkid"] for nic in added["virtualmachine"]["nic"]}

    nic = vm.nics.get(network=network)
    removed = finished(user, user.call("removeNicFromVirtualMachine", virtualmachineid=vm.uuid, nicid=nic.uuid))
    assert str(network.uuid) not in {nic["networkid"] for nic in removed["virtualmachine"]["nic"]}


def test_ansible_instance_nic_sets_an_address_and_finds_it_in_the_result(user, vm):
    nic = vm.nics.get(is_default=True)
    result = finished(user, user.call("updateVmNicIp", nicid=nic.uuid, ipaddress="192.0.2.120"))
    assert result["virtualmachine"]["nic"][0]["ipaddress"] == "192.0.2.120"


def test_ansible_instance_nic_secondaryip_reads_this_key_of_the_result(user, vm):
    nic = vm.nics.get(is_default=True)
    result = finished(user, user.call("addIpToNic", nicid=nic.uuid, ipaddress="192.0.2.120"))
    entries = {entry["ipaddress"]: entry["id"] for entry in nics(user, vm)[0]["secondaryip"]}
    assert entries["192.0.2.120"] == result["nicsecondaryip"]["id"]


# Volumes --------------------------------------------------------------------------------------------


def test_ansible_instance_info_reads_these_keys_of_each_volume(user, vm):
    (volume,) = user.call("listVolumes", virtualmachineid=vm.uuid, page=1, pagesize=500).body["volume"]
    assert (volume["type"], volume["size"]) == ("ROOT", 2**31)
    assert volume["name"]


def test_ansible_wants_one_root_volume(user, vm):
    assert user.call("listVolumes", virtualmachineid=vm.uuid, type="ROOT").body["count"] == 1
    assert user.call("listVolumes", virtualmachineid=vm.uuid, type="DATADISK").body == {}


def test_libcloud_list_volumes_reads_these_keys_without_asking(user, vm):
    (volume,) = user.call("listVolumes").body["volume"]
    assert {"id", "name", "size", "state"} <= volume.keys()


def test_a_volume_is_found_by_the_name_that_it_shows(user, vm):
    make_vm(user.user.account)
    name = user.call("listVolumes", virtualmachineid=vm.uuid).body["volume"][0]["name"]
    assert user.call("listVolumes", name=name).body["count"] == 1


# Jobs and answers at once -----------------------------------------------------------------------------

WAITS = (
    *("deployVirtualMachine", "startVirtualMachine", "stopVirtualMachine", "rebootVirtualMachine"),
    *("destroyVirtualMachine", "expungeVirtualMachine", "restoreVirtualMachine", "scaleVirtualMachine"),
    *("migrateVirtualMachine", "resetPasswordForVirtualMachine", "resetSSHKeyForVirtualMachine"),
    *("addNicToVirtualMachine", "removeNicFromVirtualMachine", "updateDefaultNicForVirtualMachine"),
    *("updateVmNicIp", "addIpToNic", "removeIpFromNic", "createTags", "deleteTags"),
)
AT_ONCE = (
    *("updateVirtualMachine", "changeServiceForVirtualMachine", "recoverVirtualMachine"),
    *("createSSHKeyPair", "registerSSHKeyPair", "deleteSSHKeyPair", "resetUserDataForVirtualMachine"),
)


@pytest.mark.parametrize(
    ("name", "waits"),
    [*((name, True) for name in WAITS), *((name, False) for name in AT_ONCE)],
    ids=lambda value: value,
)
def test_ansible_and_the_go_sdk_know_beforehand_which_commands_are_jobs(name, waits):
    found = registry.find(name)
    assert found
    assert issubclass(found, AsyncCommand) == waits


def test_terraform_reads_success_of_tags_as_a_boolean(user, vm):
    """And spells the kind its own way."""
    asked = {"resourceids": vm.uuid, "resourcetype": "userVm", "tags[0].key": "stage", "tags[0].value": "test"}
    assert finished(user, user.call("createTags", method="post", **asked)) == {"success": True}
    assert finished(user, user.call("deleteTags", method="post", **asked)) == {"success": True}


def test_ansible_reads_the_tags_that_it_has_put_on(user, vm):
    found = user.call("listTags", resourceid=vm.uuid, resourcetype="UserVm").body["tag"]
    assert [(tag["key"], tag["value"]) for tag in found] == [("role", "db")]


def test_ansible_changes_a_stopped_vms_size_at_once_and_reads_the_vm(user):
    vm = make_vm(user.user.account)
    bigger = make_service_offering(cpus=4)
    reply = user.call("changeServiceForVirtualMachine", id=vm.uuid, serviceofferingid=bigger.uuid)
    assert reply.body["virtualmachine"]["serviceofferingid"] == str(bigger.uuid)
    assert not AsyncJob.objects.exists()


def test_ansible_recovers_a_destroyed_vm_that_it_finds(user):
    vm = make_vm(user.user.account, state=VmState.DESTROYED)
    VirtualMachine.objects.update(taken_name=None)
    assert user.call("recoverVirtualMachine", id=vm.uuid).body["virtualmachine"]["state"] == "Stopped"


def test_terraform_takes_a_vm_for_gone_that_is_not_listed_any_more(user, vm):
    VirtualMachine.objects.update(state=VmState.DESTROYED)
    assert user.call("listVirtualMachines", id=vm.uuid, projectid="-1").body == {}


def test_libcloud_deploys_with_start_vm_and_booleans_of_its_own_spelling(user):
    network: Network = make_network()
    reply = user.call(
        "deployVirtualMachine",
        zoneid=network.zone.uuid,
        templateid=make_template().uuid,
        serviceofferingid=make_service_offering().uuid,
        networkids=network.uuid,
        startvm="False",
        displayname="x",
    )
    assert shown(user, VirtualMachine.objects.get(uuid=reply.body["id"]))["state"] == "Stopped"


def test_ansible_names_the_network_beside_its_id_in_a_list_of_networks(user):
    """iptonetworklist[0].network=<name>: a key that nobody declared is ignored."""
    network = make_network()
    reply = user.call(
        "deployVirtualMachine",
        zoneid=network.zone.uuid,
        templateid=make_template().uuid,
        serviceofferingid=make_service_offering().uuid,
        **{"iptonetworklist[3].networkid": network.uuid, "iptonetworklist[3].network": network.name},
    )
    assert reply.status == 200, reply


def test_ansible_finds_the_group_that_it_asked_for(user, vm):
    """`instance` compares it on each run, and takes a missing one for another one."""
    assert "group" not in shown(user, vm)
    user.call("updateVirtualMachine", id=vm.uuid, group="shop")
    assert shown(user, vm)["group"] == "shop"
    (without,) = user.call("listVirtualMachines", id=vm.uuid, details="nics").body["virtualmachine"]
    assert "group" not in without


def test_ansible_may_say_again_which_system_a_vm_has(user, vm):
    """And no other: it would be told that it was changed, each time."""
    own = shown(user, vm)["ostypeid"]
    assert user.call("updateVirtualMachine", id=vm.uuid, ostypeid=own).status == 200
    others = next(row["id"] for row in user.call("listOsTypes").body["ostype"] if row["id"] != own)
    refused(user.call("updateVirtualMachine", id=vm.uuid, ostypeid=others), "ostypeid", "not in this product")


@pytest.mark.parametrize("command", ["updateVirtualMachine", "resetUserDataForVirtualMachine"])
def test_ansible_is_told_that_values_for_registered_user_data_have_no_place(user, vm, command):
    reply = user.call(command, id=vm.uuid, userdata="", **{"userdatadetails[0].port": "80"})
    refused(reply, "userdatadetails", "not in this product")
