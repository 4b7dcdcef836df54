"""NICs by the wire: which one is the default, addresses set by hand, and those that users register."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from extdhcp_site.accounts.models import Role
from extdhcp_site.jobs.models import AsyncJob
from networks.models import AddressState, Nic, NicSecondaryIp, VirtualMachine, VmState
from networks.models.networks import AclType
from networks.services import nics
from networks.services.secondary_ips import MOST
from tests.api.client import Reply, Signer, refused
from tests.factories import (
    make_account,
    make_cluster,
    make_domain,
    make_host,
    make_l2_network,
    make_network,
    make_running_vm,
    make_service_offering,
    make_template,
    make_vm,
    make_zone,
)
from tests.life import deploy, finished, run

pytestmark = pytest.mark.django_db


@pytest.fixture
def vm(user) -> VirtualMachine:
    """Stopped, with two NICs on networks with the same addresses."""
    zone = make_zone()
    return make_vm(user.user.account, [make_network(zone), make_network(zone)])


def shown(by: Signer, vm: VirtualMachine) -> list[dict]:
    return by.call("listNics", virtualmachineid=vm.uuid).body["nic"]


class TestDefaultNic:
    def ask(self, by: Signer, vm: VirtualMachine, nic: Nic) -> Reply:
        return by.call("updateDefaultNicForVirtualMachine", virtualmachineid=vm.uuid, nicid=nic.uuid)

    def test_the_new_one_is_the_only_one_and_comes_first(self, user, vm):
        second = vm.nics.get(is_default=False)

        result = finished(user, self.ask(user, vm, second))

        assert [(nic["id"], nic["isdefault"]) for nic in result["virtualmachine"]["nic"]] == [
            (str(second.uuid), True),
            (str(vm.nics.get(device_id=0).uuid), False),
        ]

    def test_a_running_guest_is_told_by_its_drive(self, fake, caller):
        cluster = make_cluster()
        make_host(cluster)
        zone = cluster.pod.zone
        vm = deploy(caller, cluster, networks=[make_network(zone), make_network(zone)])
        drive = fake.discs[str(vm.uuid)]

        run(nics.make_default(vm, vm.nics.get(is_default=False), caller))

        vm.refresh_from_db()
        assert not vm.needs_restart
        assert fake.discs[str(vm.uuid)] != drive

    def test_the_present_one_is_refused(self, user, vm):
        refused(self.ask(user, vm, vm.nics.get(is_default=True)), "is the default NIC already")

    def test_one_of_another_vm_is_refused(self, user, vm):
        refused(self.ask(user, vm, make_vm(user.user.account).nics.get()), "has no such NIC")

    def test_one_on_a_network_that_may_not_be_the_default_is_refused(self, user):
        zone = make_zone()
        vm = make_vm(user.user.account, [make_network(zone), make_network(zone, is_default=False)])
        refused(self.ask(user, vm, vm.nics.get(is_default=False)), "may not be a VM's default network")

    def test_a_vm_on_the_move_is_refused(self, user, vm):
        VirtualMachine.objects.update(state=VmState.STARTING)
        refused(self.ask(user, vm, vm.nics.get(is_default=False)), "is Starting")
        assert vm.nics.get(is_default=True).device_id == 0

    def test_a_nic_added_in_the_first_place_is_no_second_default(self, user, vm, caller):
        self.ask(user, vm, vm.nics.get(is_default=False))
        vm.nics.get(device_id=0).delete()
        run(AsyncJob.objects.get(busy_with=vm.uuid))

        run(nics.add_nic(vm, make_network(vm.zone), caller))

        assert list(vm.nics.values_list("device_id", "is_default").order_by("device_id")) == [(0, False), (1, True)]


class TestScope:
    """Admin guide 6.7.1: a network is for all of a domain, or for one account alone."""

    def deploy(self, by: Signer, *networks, **params: object) -> Reply:
        return by.call(
            "deployVirtualMachine",
            zoneid=networks[0].zone.uuid,
            templateid=make_template().uuid,
            serviceofferingid=make_service_offering().uuid,
            networkids=",".join(str(network.uuid) for network in networks),
            **params,
        )

    @pytest.mark.parametrize("role", [Role.ROOT_ADMIN, Role.DOMAIN_ADMIN])
    def test_another_accounts_network_is_not_even_for_an_admin_who_sees_it(self, user, role):
        network = make_network(account=user.user.account, acl_type=AclType.ACCOUNT)
        admin = Signer.of(make_account(role, user.user.account.domain))
        assert admin.call("listNetworks", id=network.uuid).body["count"] == 1

        refused(self.deploy(admin, network), f"may not use {network}")
        vm = make_vm(admin.user.account, zone=network.zone)
        refused(
            admin.call("addNicToVirtualMachine", virtualmachineid=vm.uuid, networkid=network.uuid),
            f"may not use {network}",
        )

    def test_it_is_for_a_vm_that_the_admin_deploys_for_that_account(self, user):
        account = user.user.account
        network = make_network(account=account, acl_type=AclType.ACCOUNT)
        admin = Signer.of(make_account(Role.ROOT_ADMIN))
        assert self.deploy(admin, network, account=account.name, domainid=account.domain.uuid).status == 200

    def test_a_domains_network_is_for_those_below_it_and_no_others(self, user):
        above = make_network(account=make_account(domain=user.user.account.domain.parent))
        beside = make_network(above.zone, make_account(domain=make_domain()))
        assert self.deploy(user, above).status == 200
        refused(self.deploy(user, beside), "entity does not exist")

    def test_the_first_network_that_may_be_is_the_default_one(self, user):
        zone = make_zone()
        further, default = make_network(zone, is_default=False), make_network(zone)

        reply = self.deploy(user, further, default)

        (vm,) = user.call("listVirtualMachines", id=reply.body["id"]).body["virtualmachine"]
        assert [(nic["networkid"], nic["isdefault"], nic["deviceid"]) for nic in vm["nic"]] == [
            (str(default.uuid), True, "0"),
            (str(further.uuid), False, "1"),
        ]

    def test_a_vm_has_a_default_network(self, user):
        refused(self.deploy(user, make_network(is_default=False)), "at least one network that may be")


class TestAddressByHand:
    """updateVmNicIp: the rules of a pin are tested in test_pinned."""

    def ask(self, by: Signer, nic: Nic, **params: str) -> Reply:
        return by.call("updateVmNicIp", nicid=nic.uuid, **params)

    def test_it_is_the_nics_until_it_is_taken_back(self, user, vm):
        nic = vm.nics.get(is_default=True)

        result = finished(user, self.ask(user, nic, ipaddress="192.0.2.77"))
        assert result["virtualmachine"]["nic"][0]["ipaddress"] == "192.0.2.77"
        assert result["virtualmachine"]["nic"][0]["addressstate"] == "pinned"

        result = finished(user, self.ask(user, nic))
        assert result["virtualmachine"]["nic"][0]["addressstate"] == "last_known"

    def test_what_the_network_cannot_have_leaves_neither_pin_nor_job(self, user, vm):
        nic = vm.nics.get(is_default=True)
        refused(self.ask(user, nic, ipaddress="198.51.100.1"), "outside 192.0.2.0/24")
        assert self.ask(user, nic, ipaddress="192.0.2.77").status == 200

    @pytest.mark.parametrize("state", AddressState.values)
    def test_anothers_address_is_refused_without_a_name_and_stays_theirs(self, user, vm, state):
        """T-REF: of another account's VM a user learns nothing, and takes nothing from it."""
        nic = vm.nics.get(is_default=True)
        others = make_running_vm(networks=[nic.network]).nics.get()
        Nic.objects.filter(pk=others.pk).update(ip4_address="192.0.2.77", address_state=state)

        reply = self.ask(user, nic, ipaddress="192.0.2.77")

        refused(reply, "192.0.2.77 is in use on network")
        assert others.vm.name not in reply.text
        assert others.mac_address not in reply.text
        assert Nic.objects.get(pk=others.pk).ip4_address == "192.0.2.77"

    def test_an_address_that_somebody_registered_is_refused(self, user, vm):
        first, second = vm.nics.all()
        other = make_vm(networks=[first.network]).nics.get()
        NicSecondaryIp.objects.create(nic=other, network=first.network, address="192.0.2.77")
        refused(self.ask(user, first, ipaddress="192.0.2.77"), "in use")
        assert self.ask(user, second, ipaddress="192.0.2.77").status == 200, "another network's address"


class TestRegisteredAddresses:
    def add(self, by: Signer, nic: Nic, ip: str) -> Reply:
        return by.call("addIpToNic", nicid=nic.uuid, ipaddress=ip)

    @pytest.mark.parametrize("ip", ["192.0.2.77", "2001:db8::7"])
    def test_the_jobs_result_is_what_ansible_reads(self, user, vm, ip):
        nic = vm.nics.get(is_default=True)
        reply = self.add(user, nic, ip)
        assert finished(user, reply) == {
            "nicsecondaryip": {
                "id": reply.body["id"],
                "ipaddress": ip,
                "nicid": str(nic.uuid),
                "networkid": str(nic.network.uuid),
                "virtualmachineid": str(vm.uuid),
            }
        }

    def test_lists_show_them_by_their_ids_and_those_learned_beside_them(self, user, vm):
        nic = vm.nics.get(is_default=True)
        Nic.objects.filter(pk=nic.pk).update(secondary_addresses=["192.0.2.77", "192.0.2.90"])
        ids = {ip: self.add(user, nic, ip).body["id"] for ip in ("192.0.2.78", "192.0.2.77")}

        first, second = shown(user, vm)

        assert first["secondaryip"][:2] == [{"id": ids[ip], "ipaddress": ip} for ip in ("192.0.2.77", "192.0.2.78")]
        assert [entry["ipaddress"] for entry in first["secondaryip"][2:]] == ["192.0.2.90"]
        assert second["secondaryip"] == []

    def test_one_is_taken_away_by_its_id(self, user, vm):
        reply = self.add(user, vm.nics.get(is_default=True), "192.0.2.77")
        finished(user, reply)

        assert finished(user, user.call("removeIpFromNic", id=reply.body["id"])) == {"success": True}

        assert shown(user, vm)[0]["secondaryip"] == []

    def test_one_that_was_learned_is_not_ours_to_take(self, user, vm):
        Nic.objects.filter(vm=vm).update(secondary_addresses=["192.0.2.90"])
        learned = shown(user, vm)[0]["secondaryip"][0]["id"]
        refused(user.call("removeIpFromNic", id=learned), "entity does not exist")

    @pytest.mark.parametrize(
        ("ip", "says"),
        [
            ("", "Name the address in ipaddress"),
            ("198.51.100.1", "outside 192.0.2.0/24"),
            ("192.0.2.1", "gateway"),
            ("192.0.2.255", "first or the last"),
            ("fe80::1", "of a kind"),
            ("::1", "of a kind"),
            ("ff02::1", "of a kind"),
            ("::ffff:192.0.2.77", "of a kind"),
            ("2001:db8::7%eth0", "of a kind"),
            ("2001:db8:::7", "no IP address"),
            ("192.0.2.7x", "no IPv4 address"),
        ],
    )
    def test_what_no_guest_of_the_network_can_have_is_refused(self, user, vm, ip, says):
        refused(self.add(user, vm.nics.get(is_default=True), ip), says)
        assert not NicSecondaryIp.objects.exists()

    def test_where_no_cidr_is_known_any_address_of_a_guest_is_taken(self, user):
        nic = make_vm(user.user.account, [make_l2_network()]).nics.get()
        assert self.add(user, nic, "198.51.100.1").status == 200

    def test_another_nics_address_is_refused_without_its_name(self, user, vm):
        nic = vm.nics.get(is_default=True)
        other = make_vm(networks=[nic.network]).nics.get()
        Nic.objects.filter(pk=other.pk).update(ip4_address="192.0.2.77")
        NicSecondaryIp.objects.create(nic=other, network=nic.network, address="192.0.2.78")
        for ip in ("192.0.2.77", "192.0.2.78"):
            reply = self.add(user, nic, ip)
            refused(reply, f"{ip} is in use on network {nic.network}.")
            assert other.vm.name not in reply.text

    def test_another_network_has_addresses_of_its_own(self, user, vm):
        assert [self.add(user, nic, "192.0.2.77").status for nic in vm.nics.all()] == [200, 200]

    def test_there_is_an_end_to_them(self, user, vm):
        nic = vm.nics.get(is_default=True)
        for number in range(MOST):
            assert self.add(user, nic, f"192.0.2.{100 + number}").status == 200
        refused(self.add(user, nic, "192.0.2.200"), f"at most {MOST}")

    def test_they_go_with_their_nic(self, user, vm, caller):
        nic = vm.nics.get(is_default=False)
        self.add(user, nic, "192.0.2.77")
        run(nics.remove_nic(vm, nic, caller))
        assert not NicSecondaryIp.objects.exists()

    def test_a_destroyed_vm_gets_none(self, user, vm):
        VirtualMachine.objects.update(state=VmState.DESTROYED)
        refused(self.add(user, vm.nics.get(is_default=True), "192.0.2.77"), "is Destroyed")


def test_listing_nics_takes_the_same_queries_however_many_addresses_they_have(user, vm):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            shown(user, vm)
        return len(captured)

    queries()  # the first request of an hour notes that its key was used
    before = queries()
    for nic in vm.nics.all():
        for last in range(100, 105):
            NicSecondaryIp.objects.create(nic=nic, network=nic.network, address=f"192.0.2.{last}")
    assert queries() == before
