"""What clients insist on of zones, templates, offerings and networks: each test names who breaks."""

import re
from uuid import UUID, uuid4

import pytest

from extdhcp_site.api import registry
from extdhcp_site.api.registry import AsyncCommand
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import Network, NetworkOffering, ServiceOffering, Template, Zone
from tests.api.client import Signer
from tests.factories import (
    make_cluster,
    make_l2_network,
    make_network,
    make_network_offering,
    make_service_offering,
    make_template,
    make_zone,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def zone() -> Zone:
    return make_cluster(make_zone(dns1="192.0.2.53")).pod.zone


@pytest.fixture
def template() -> Template:
    return make_template(size=2**31, guest_os_type="Debian GNU/Linux 12")


@pytest.fixture
def size() -> ServiceOffering:
    return make_service_offering()


@pytest.fixture
def offering() -> NetworkOffering:
    return make_network_offering({"UserData": "ConfigDrive"})


@pytest.fixture
def network(zone, offering) -> Network:
    return make_network(zone, offering=offering)


# What clients list before they deploy: the command, the key of the list, what they send with it.
LISTS = {
    "listZones": ("zone", {}),
    "listTemplates": ("template", {"templatefilter": "executable"}),
    "listServiceOfferings": ("serviceoffering", {}),
    "listNetworkOfferings": ("networkoffering", {}),
    "listNetworks": ("network", {}),
}
every_list = pytest.mark.parametrize("command", LISTS)


@pytest.fixture
def world(zone, template, size, offering, network) -> dict[str, object]:
    return {
        "listZones": zone,
        "listTemplates": template,
        "listServiceOfferings": size,
        "listNetworkOfferings": offering,
        "listNetworks": network,
    }


def rows(signer: Signer, command: str, **asked: object) -> list[dict]:
    key, always = LISTS[command]
    reply = signer.call(command, **always, **asked)
    assert reply.status == 200, reply
    return reply.body.get(key, [])


# Lists in general


@every_list
def test_libcloud_reads_these_keys_of_each_row_without_asking_whether_they_are_there(user, world, command):
    """KeyError: list_locations, list_images, list_sizes, ex_list_network_offerings, ex_list_networks."""
    needed = {
        "listZones": {"id", "name"},
        "listTemplates": {"id", "name", "hypervisor", "format", "ostypename", "displaytext"},
        "listServiceOfferings": {"id", "name", "cpunumber", "memory"},
        "listNetworkOfferings": {"name", "displaytext", "guestiptype", "id", "serviceofferingid", "forvpc"},
        "listNetworks": {"displaytext", "name", "networkofferingid", "id", "zoneid"},
    }
    for row in rows(user, command):
        assert needed[command] <= row.keys()


@every_list
def test_ids_are_uuids_in_lower_case(user, world, command):
    """Terraform tells ids from names by that; cmk's completion needs text."""
    for row in rows(user, command):
        assert row["id"] == str(UUID(row["id"]))
        assert isinstance(row["name"], str)


@every_list
def test_terraform_and_the_go_sdk_find_by_name_and_then_by_id(user, world, command):
    """GetXByName lists by name, then by id, and takes what it is given: both need a count of exactly 1."""
    make_zone()
    make_template()
    make_service_offering()
    make_network()
    wanted = world[command]
    for asked in ({"name": wanted.name}, {"id": wanted.uuid}, {"id": wanted.uuid, "projectid": "-1"}):
        key, always = LISTS[command]
        body = user.call(command, **always, **asked).body
        assert (body["count"], body[key][0]["id"]) == (1, str(wanted.uuid))


@every_list
def test_a_part_of_a_name_is_not_the_name(user, world, command):
    """The Go SDK takes the only entry without comparing; Ansible's network_offering takes the first."""
    assert user.call(command, **LISTS[command][1], name=world[command].name[:-1]).body == {}


@every_list
def test_libcloud_sends_booleans_capitalised_and_none(user, world, command):
    assert user.call(command, **LISTS[command][1], listall="True", isrecursive="None").body["count"] >= 1


@pytest.mark.parametrize("command", [command for command in LISTS if command != "listZones"])
def test_terraform_parses_when_it_was_made_in_one_layout(user, world, command):
    """2006-01-02T15:04:05-0700: its data sources choose the newest."""
    for row in rows(user, command):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000", row["created"])


@every_list
def test_ansible_asks_each_list_in_pages_of_five_hundred(user, world, command):
    key, always = LISTS[command]
    body = user.call(command, **always, page=1, pagesize=500).body
    assert body["count"] == len(body[key])


# The Go SDK decodes into typed fields; one of another type fails the whole call.
GO_TYPES = {
    "listZones": {str: {"networktype", "allocationstate", "dns1"}, bool: {"securitygroupsenabled"}, list: {"tags"}},
    "listTemplates": {
        str: {"format", "ostypename", "hypervisor", "account", "templatetype", "status", "ostypeid"},
        int: {"size"},
        bool: {"ispublic", "isready", "passwordenabled", "isfeatured", "crosszones", "isextractable"},
        list: {"tags"},
    },
    "listServiceOfferings": {
        str: {"displaytext", "storagetype"},
        int: {"cpunumber", "cpuspeed", "memory"},
        bool: {"iscustomized", "issystem", "offerha", "defaultuse", "isvolatile", "limitcpuuse"},
    },
    "listNetworkOfferings": {
        str: {"state", "guestiptype", "traffictype", "availability", "tags", "serviceofferingid"},
        int: {"networkrate"},
        bool: {"forvpc", "specifyvlan", "specifyipranges", "conservemode", "isdefault", "ispersistent"},
        list: {"service"},
    },
    "listNetworks": {
        str: {"state", "type", "traffictype", "acltype", "cidr", "gateway", "netmask", "vlan", "broadcasturi"},
        bool: {"canusefordeploy", "issystem", "ispersistent", "restartrequired", "specifyipranges", "subdomainaccess"},
        list: {"tags", "service"},
    },
}


@every_list
def test_the_go_sdk_finds_each_field_of_the_type_that_it_decodes_into(root, world, command):
    (row,) = rows(root, command, id=world[command].uuid)
    for kind, names in GO_TYPES[command].items():
        assert {name: type(row[name]) for name in names} == dict.fromkeys(names, kind)


# Zones, templates, service offerings


def test_terraform_sends_networks_only_to_an_advanced_zone(user, zone):
    assert rows(user, "listZones")[0]["networktype"] == "Advanced"


def test_libcloud_list_locations_and_list_sizes_need_one_to_be_visible(user, zone, size):
    """KeyError where the answer is {}."""
    assert user.call("listZones").body["zone"]
    assert user.call("listServiceOfferings").body["serviceoffering"]


def test_ansible_asks_for_hypervisors_where_a_template_does_not_tell(user, zone, template):
    assert rows(user, "listTemplates", zoneid=zone.uuid, isrecursive="true")[0]["hypervisor"] == "KVM"
    assert user.call("listHypervisors").body["hypervisor"][0]["name"] == "KVM"


def test_terraform_finds_one_service_offering_by_name_and_zone(user, zone, size):
    make_service_offering()
    assert len(rows(user, "listServiceOfferings", name=size.name, zoneid=zone.uuid)) == 1


# Networks and their offerings


def test_ansible_skips_a_network_that_has_a_vpc_or_an_acl(user, network):
    (row,) = rows(user, "listNetworks")
    assert not {"vpcid", "aclid", "projectid", "project"} & row.keys()


def test_a_network_always_has_tags(user, network):
    """Ansible sets tags only where the key is there; Terraform ranges over it."""
    assert rows(user, "listNetworks")[0]["tags"] == []


def test_ansible_restarts_a_network_in_these_states_only(user, network):
    assert rows(user, "listNetworks")[0]["state"].lower() in ("implemented", "setup")


def test_terraform_reads_the_providers_of_services(user, offering):
    (row,) = rows(user, "listNetworkOfferings")
    assert [(service["name"], service["provider"][0]["name"]) for service in row["service"]] == [
        ("UserData", "ConfigDrive")
    ]


def test_terraform_asks_an_offering_whether_to_send_a_range(user, network):
    """And sends gateway and netmask of the subnet in any case, also for an L2 network."""
    assert rows(user, "listNetworkOfferings")[0]["specifyipranges"] is True


def test_a_network_without_a_subnet_has_no_nulls_in_it(user):
    make_l2_network()
    raw = user.raw(("command", "listNetworks"), ("response", "json")).content
    assert b"null" not in raw


@pytest.mark.parametrize(
    ("command", "waits"),
    [
        ("createNetwork", False),
        ("createNetworkOffering", False),
        ("updateNetworkOffering", False),
        ("deleteNetworkOffering", False),
        ("createServiceOffering", False),
        ("updateServiceOffering", False),
        ("deleteServiceOffering", False),
        ("registerTemplate", False),
        ("updateTemplate", False),
        ("updateNetwork", True),
        ("restartNetwork", True),
        ("deleteNetwork", True),
        ("deleteTemplate", True),
    ],
)
def test_ansible_and_the_go_sdk_know_beforehand_which_commands_are_jobs(command, waits):
    """One that is a job where they expect the object, or the other way round, fails them."""
    assert issubclass(registry.find(command), AsyncCommand) is waits


# What Ansible's network_offering sends, by 3.3: capitalised booleans, a stray state, a policy that nobody gave.
ANSIBLE_OFFERING = {
    "state": "enabled",
    "displaytext": "no services of ours",
    "guestiptype": "Shared",
    "name": "corporate",
    "supportedservices": "UserData",
    "traffictype": "Guest",
    "egressdefaultpolicy": "false",
    "serviceproviderlist[0].service": "UserData",
    "serviceproviderlist[0].provider": "ConfigDrive",
    "specifyipranges": "true",
    "specifyvlan": "true",
}


def test_ansible_makes_an_offering_enables_it_and_finds_nothing_to_change(root):
    made = root.call("createNetworkOffering", **ANSIBLE_OFFERING).body["networkoffering"]
    assert made["state"] == "Disabled"
    wanted = {"state": "Enabled", "displaytext": ANSIBLE_OFFERING["displaytext"], "name": "corporate"}
    root.call("updateNetworkOffering", id=made["id"], **wanted)
    (found,) = rows(root, "listNetworkOfferings", name="corporate")
    assert {name: found[name] for name in wanted} == wanted
    # It turns it into a list where it is there.
    assert found["tags"] == ""


def test_ansible_finds_the_connections_that_it_asked_for(root):
    """It takes a missing number for another one."""
    made = root.call("createNetworkOffering", **ANSIBLE_OFFERING, maxconnections=4096).body["networkoffering"]
    assert made["maxconnections"] == 4096
    altered = root.call("updateNetworkOffering", id=made["id"], maxconnections=8192).body["networkoffering"]
    assert altered["maxconnections"] == 8192
    assert root.call("updateNetworkOffering", id=made["id"], displaytext="x").body["networkoffering"] == {
        **altered,
        "displaytext": "x",
    }


def test_ansible_makes_a_network_and_finds_nothing_to_change(root, zone, offering):
    wanted = {"name": "vlan-300", "displaytext": "VLAN 300", "networkofferingid": str(offering.uuid)}
    wanted["networkdomain"] = "example.com"
    where = {"zoneid": zone.uuid, "startip": "192.0.2.10", "endip": "192.0.2.10"}
    subnet = {"netmask": "255.255.255.0", "gateway": "192.0.2.1", "vlan": "300"}
    root.call("createNetwork", **wanted, **where, **subnet)
    (found,) = rows(root, "listNetworks", zoneid=zone.uuid, page=1, pagesize=500)
    assert {name: found[name] for name in wanted} == wanted
    assert root.call("listPublicIpAddresses", associatednetworkid=found["id"], page=1, pagesize=500).body == {}


def test_terraform_makes_a_network_of_its_subnet(root, zone, offering):
    """Gateway, netmask and range are computed from the CIDR; POST, with a project that is not there."""
    asked = {"name": "n", "displaytext": "n", "zoneid": zone.uuid, "networkofferingid": offering.uuid, "vlan": "300"}
    subnet = {"gateway": "10.1.0.1", "netmask": "255.255.0.0", "startip": "10.1.0.2", "endip": "10.1.255.254"}
    made = root.call("createNetwork", method="post", **asked, **subnet).body["network"]
    assert (made["cidr"], made["networkofferingname"], made["zonename"]) == ("10.1.0.0/16", offering.name, zone.name)


def test_terraform_takes_an_unknown_id_for_already_gone(root):
    id = uuid4()
    for command in ("deleteNetwork", "deleteNetworkOffering", "deleteTemplate", "deleteServiceOffering"):
        reply = root.call(command, method="post", id=id)
        wanted = f"Invalid parameter id value={id} due to incorrect long value format, or entity does not exist"
        assert reply.status == 431
        assert wanted in reply.text


def test_ansible_and_terraform_read_a_changed_network_under_its_key(root, network):
    """Ansible loops for ever where a finished job has no jobresult."""
    job = AsyncJob.objects.get(uuid=root.call("updateNetwork", id=network.uuid, displaytext="x").body["jobid"])
    jobs.run(job.pk, job.attempt)
    ended = root.call("queryAsyncJobResult", jobid=job.uuid).body
    assert (ended["jobstatus"], ended["jobresultcode"]) == (1, 0)
    assert ended["jobresult"].keys() == {"network"}
    assert ended["jobresult"]["network"]["displaytext"] == "x"


def test_the_go_sdk_reads_success_as_a_boolean(root, network, offering):
    offering = make_network_offering()
    assert root.call("deleteNetworkOffering", id=offering.uuid).body == {"success": True}
    job = AsyncJob.objects.get(uuid=root.call("deleteNetwork", id=network.uuid, forced="None").body["jobid"])
    jobs.run(job.pk, job.attempt)
    assert root.call("queryAsyncJobResult", jobid=job.uuid).body["jobresult"] == {"success": True}


# What is not there


@pytest.mark.parametrize("command", ["listPublicIpAddresses", "listPortForwardingRules", "listIpForwardingRules"])
def test_libcloud_list_nodes_asks_for_these_each_time(user, command):
    """A 432 fails the call, {"count": 0} a KeyError."""
    assert user.call(command).body == {}
    assert user.call(command, listall="True").body == {}


@pytest.mark.parametrize("command", ["listIsos", "listUserData", "listDiskOfferings", "listVPCs", "listProjects"])
def test_ansible_looks_for_these_in_pages(user, command):
    """KeyError and IndexError where an empty list has a count or a list."""
    assert user.call(command, page=1, pagesize=500, isofilter="executable").body == {}
