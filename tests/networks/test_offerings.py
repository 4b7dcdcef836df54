"""Service offerings and network offerings by the wire."""

import pytest

from extdhcp_site.events.models import Event, EventType
from networks.models import NetworkOffering, ServiceOffering
from tests.api.client import refused
from tests.factories import (
    make_domain,
    make_network,
    make_network_offering,
    make_service_offering,
    make_vm,
)

pytestmark = pytest.mark.django_db


class TestServiceOffering:
    WANTED = {"name": "large", "displaytext": "4 CPUs", "cpunumber": 4, "cpuspeed": 2000, "memory": 4096}

    def test_is_made_shown_and_chosen(self, root, user):
        made = root.call("createServiceOffering", **self.WANTED).body["serviceoffering"]
        assert {name: made[name] for name in self.WANTED} == self.WANTED
        assert user.call("listServiceOfferings", name="large").body["serviceoffering"] == [made]

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"memory": ""}, "Customised service offerings are not in this product"),
            ({"cpunumber": "0"}, "from 1 to 1024"),
            ({"hosttags": "ssd"}, "not in this product"),
            ({"tags": "ssd"}, "not in this product"),
            ({"issystem": "true"}, "System VMs are not in this product"),
            ({"storagetype": "local"}, "storagetype must be shared"),
            ({"name": ""}, "missing parameter name"),
        ],
    )
    def test_what_it_cannot_be_is_refused(self, root, changes, says):
        refused(root.call("createServiceOffering", **{**self.WANTED, **changes}), says)
        assert not ServiceOffering.objects.exists()

    def test_one_for_a_domain_alone_is_refused_and_not_made_for_everybody(self, root):
        refused(root.call("createServiceOffering", **self.WANTED, domainid=make_domain().uuid), "not in this product")
        assert not ServiceOffering.objects.exists()

    def test_is_renamed_but_offers_the_same(self, root):
        offering = make_service_offering(name="small")
        changes = {"name": "tiny", "displaytext": "the least", "memory": "9999"}
        shown = root.call("updateServiceOffering", id=offering.uuid, **changes).body["serviceoffering"]
        assert (shown["name"], shown["displaytext"], shown["memory"]) == ("tiny", "the least", offering.memory_mib)

    def test_a_deleted_one_is_kept_by_its_vms_and_by_nobody_else(self, root):
        unused, used = make_service_offering(), make_vm().service_offering
        for offering in (unused, used):
            assert root.call("deleteServiceOffering", id=offering.uuid).body == {"success": True}
        assert root.call("listServiceOfferings").body == {}
        assert list(ServiceOffering.objects.all()) == [used]

    def test_leaves_events(self, root):
        id = root.call("createServiceOffering", **self.WANTED).body["serviceoffering"]["id"]
        root.call("updateServiceOffering", id=id, name="larger")
        root.call("deleteServiceOffering", id=id)
        assert list(Event.objects.order_by("id").values_list("type", flat=True)) == [
            EventType.SERVICE_OFFERING_CREATE,
            EventType.SERVICE_OFFERING_EDIT,
            EventType.SERVICE_OFFERING_DELETE,
        ]

    @pytest.mark.parametrize("asked", [{"issystem": "true"}, {"iscustomized": "true"}, {"name": "tin"}])
    def test_what_there_is_none_of_is_not_found(self, user, asked):
        make_service_offering(name="tiny")
        assert user.call("listServiceOfferings", **asked).body == {}

    def test_those_that_a_vm_could_change_to(self, user):
        other, vm = make_service_offering(), make_vm(user.user.account)
        (shown,) = user.call("listServiceOfferings", virtualmachineid=vm.uuid).body["serviceoffering"]
        assert shown["id"] == str(other.uuid)


class TestNetworkOffering:
    WANTED = {"name": "o", "displaytext": "o", "guestiptype": "Shared", "traffictype": "Guest"}
    USER_DATA = {"serviceproviderlist[0].service": "userdata", "serviceproviderlist[0].provider": "configdrive"}

    def test_takes_all_that_clients_send_beside(self, root):
        """Ansible sends a stray state and a policy, Terraform a rate: none of it narrows anything here."""
        beside = {
            "state": "enabled",
            "availability": "Optional",
            "conservemode": "True",
            "egressdefaultpolicy": "False",
            "ispersistent": "False",
            "keepaliveenabled": "false",
            "maxconnections": "300",
            "networkrate": "200",
            "forvpc": "False",
            "details[0].x": "y",
            "servicecapabilitylist": "x",
            "domainid": "public",
            "zoneid": "all",
            "networkmode": "NATTED",
        }
        made = root.call("createNetworkOffering", **self.WANTED, **beside).body["networkoffering"]
        assert made["state"] == "Disabled"

    def test_words_are_taken_in_any_case(self, root):
        wanted = {**self.WANTED, "guestiptype": "shared", "traffictype": "GUEST"}
        made = root.call("createNetworkOffering", **wanted, supportedservices="USERDATA", **self.USER_DATA).body
        made = made["networkoffering"]
        assert made["guestiptype"] == "Shared"
        assert made["service"] == [{"name": "UserData", "provider": [{"name": "ConfigDrive"}], "capability": []}]

    @pytest.mark.parametrize("command", ["createNetworkOffering", "updateNetworkOffering"])
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"availability": "Required"}, "availability must be Optional"),
            ({"tags": "ssd"}, "not in this product"),
            ({"domainid": "the caller's"}, "not in this product"),
        ],
    )
    def test_what_would_narrow_it_is_refused_and_not_overlooked(self, root, command, changes, says):
        offering = make_network_offering()
        if "domainid" in changes:
            changes = {"domainid": make_domain().uuid}
        wanted = self.WANTED if command == "createNetworkOffering" else {"id": offering.uuid, "name": "o"}
        refused(root.call(command, **{**wanted, **changes}), says)
        assert not NetworkOffering.objects.filter(name="o").exists()

    def test_one_for_vpcs_is_refused(self, root):
        refused(root.call("createNetworkOffering", **self.WANTED, forvpc="true"), "VPCs are not in this product")

    def test_is_enabled_right_after_it_was_made(self, root, user):
        """Ansible: the state is spelt Enabled and Disabled."""
        id = root.call("createNetworkOffering", **self.WANTED).body["networkoffering"]["id"]
        assert user.call("listNetworkOfferings").body == {}
        shown = root.call("updateNetworkOffering", id=id, state="Enabled", displaytext="p", maxconnections=3).body
        assert (shown["networkoffering"]["state"], shown["networkoffering"]["displaytext"]) == ("Enabled", "p")
        assert user.call("listNetworkOfferings").body["count"] == 1

    @pytest.mark.parametrize(
        "asked",
        [
            {"name": "one"},
            {"keyword": "ON"},
            {"displaytext": "the first"},
            {"guestiptype": "shared"},
            {"state": "enabled"},
            {"specifyvlan": "true"},
            {"specifyipranges": "true"},
            {"supportedservices": "userdata"},
        ],
    )
    def test_each_filters(self, root, asked):
        one = make_network_offering({"UserData": "ConfigDrive"}, name="one", display_text="the first")
        make_network_offering(
            name="two", guest_type="L2", state="Disabled", specify_vlan=False, specify_ip_ranges=False
        )
        (shown,) = root.call("listNetworkOfferings", **asked).body["networkoffering"]
        assert shown["id"] == str(one.uuid)

    @pytest.mark.parametrize(
        "asked",
        [
            {"availability": "Required"},
            {"isdefault": "true"},
            {"istagged": "true"},
            {"forvpc": "true"},
            {"traffictype": "Public"},
            {"supportedservices": "Lb"},
            {"guestiptype": "Isolated"},
        ],
    )
    def test_what_there_is_none_of_is_not_found(self, root, asked):
        make_network_offering({"UserData": "ConfigDrive"})
        assert root.call("listNetworkOfferings", **asked).body == {}

    def test_those_that_a_network_could_change_to(self, root):
        network = make_network()
        other = make_network_offering()
        make_network_offering(guest_type="L2")
        make_network_offering(state="Disabled")
        (shown,) = root.call("listNetworkOfferings", networkid=network.uuid).body["networkoffering"]
        assert shown["id"] == str(other.uuid)
