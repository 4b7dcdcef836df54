"""Networks: who may use them (admin guide, 6.7.1), which of them are default ones (6.7.2), and how they are changed."""

from types import SimpleNamespace

import pytest

from extdhcp_site.accounts.models import Domain, Role
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import Network
from tests.api.client import Reply, Signer, refused
from tests.factories import (
    make_account,
    make_domain,
    make_l2_network,
    make_network,
    make_network_offering,
    make_vm,
    make_zone,
)

pytestmark = pytest.mark.django_db


def ids(signer: Signer, **params: object) -> list[str]:
    reply = signer.call("listNetworks", **params)
    assert reply.status == 200, reply
    return [row["id"] for row in reply.body.get("network", [])]


def finds(signer: Signer, network: Network, **params: object) -> bool:
    return str(network.uuid) in ids(signer, **params)


def run(reply: Reply, signer: Signer) -> dict:
    """Run the job that was submitted; its result as the caller reads it."""
    job = AsyncJob.objects.get(uuid=reply.body["jobid"])
    jobs.run(job.pk, job.attempt)
    return signer.call("queryAsyncJobResult", jobid=job.uuid).body


@pytest.fixture
def wanted() -> dict[str, object]:
    return {
        "name": "n",
        "zoneid": make_zone().uuid,
        "networkofferingid": make_network_offering().uuid,
        "vlan": "700",
        "gateway": "198.51.100.1",
        "netmask": "255.255.255.0",
        "startip": "198.51.100.10",
    }


def create(root: Signer, wanted: dict[str, object], **changes: object) -> Network:
    reply = root.call("createNetwork", **{**wanted, **changes})
    assert reply.status == 200, reply
    return Network.objects.get(uuid=reply.body["network"]["id"])


class TestScope:
    """Admin guide, 6.7.1: for all accounts with access to the zone, or for one account."""

    def test_a_network_without_an_owner_is_zone_wide(self, root, user, wanted):
        network = create(root, wanted)
        assert finds(user, network)
        assert (network.acl_type, network.domain) == ("Domain", Domain.root())

    def test_a_network_of_a_domain_is_for_it_and_those_below(self, root, wanted):
        domain = make_domain()
        network = create(root, wanted, acltype="Domain", domainid=domain.uuid)
        assert finds(Signer.of(make_account(domain=domain)), network)
        assert finds(Signer.of(make_account(domain=make_domain(domain))), network)
        assert not finds(Signer.of(make_account(domain=make_domain())), network)
        assert not finds(Signer.of(make_account(domain=make_domain(name=f"{domain.name}-2"))), network)

    def test_a_network_of_an_account_is_for_that_account(self, root, wanted):
        account = make_account(domain=make_domain())
        network = create(root, wanted, account=account.name, domainid=account.domain.uuid)
        assert (network.acl_type, network.account, network.domain) == ("Account", account, account.domain)
        assert finds(Signer.of(account), network)
        assert not finds(Signer.of(make_account(domain=account.domain)), network)

    @pytest.mark.parametrize("command", ["deployVirtualMachine", "addNicToVirtualMachine"])
    def test_nobody_else_gets_onto_an_accounts_network(self, user, command):
        network = make_network(acl_type="Account")
        own = make_vm(user.user.account)
        asked = {
            "deployVirtualMachine": {
                "zoneid": network.zone.uuid,
                "templateid": own.template.uuid,
                "serviceofferingid": own.service_offering.uuid,
                "networkids": network.uuid,
            },
            "addNicToVirtualMachine": {"virtualmachineid": own.uuid, "networkid": network.uuid},
        }
        refused(user.call(command, **asked[command]), f"value={network.uuid} due to incorrect long value format")

    def test_a_zone_wide_network_is_for_those_with_access_to_the_zone(self, root, user, wanted):
        """A private zone's networks are none of others' business (admin guide, 3.2.4)."""
        domain = make_domain()
        zone = make_zone(domain=domain)
        network = create(root, wanted, zoneid=zone.uuid)
        assert finds(Signer.of(make_account(domain=domain)), network)
        assert finds(Signer.of(make_account(domain=make_domain(domain))), network)
        assert not finds(user, network)
        assert finds(root, network)

    def test_an_account_without_access_to_the_zone_gets_no_network_there(self, root, user, wanted):
        zone = make_zone(domain=make_domain())
        account = user.user.account
        owner = {"account": account.name, "domainid": account.domain.uuid}
        refused(root.call("createNetwork", **{**wanted, "zoneid": zone.uuid, **owner}), "has no access to zone")

    def test_a_domain_of_which_nobody_has_access_to_the_zone_gets_no_network_there(self, root, wanted):
        zone = make_zone(domain=make_domain())
        reply = root.call("createNetwork", **{**wanted, "zoneid": zone.uuid, "domainid": make_domain().uuid})
        refused(reply, "Nobody of domain")

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"acltype": "Domain", "account": "somebody"}, "leave account out"),
            ({"acltype": "Account", "domainid": "the root's"}, "name it in account"),
            ({"subdomainaccess": "false"}, "not in this product"),
        ],
    )
    def test_a_scope_that_says_two_things_is_refused(self, root, wanted, asked, says):
        make_account(name="somebody")
        if "domainid" in asked:
            asked = {**asked, "domainid": Domain.root().uuid}
        refused(root.call("createNetwork", **{**wanted, **asked}), says)
        assert not Network.objects.exists()

    def test_a_domain_admin_makes_networks_of_own_domains_only(self, wanted):
        domain = make_domain()
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN, domain))
        offering = make_network_offering(guest_type="L2", specify_vlan=False, specify_ip_ranges=False)
        l2 = {"name": "l2", "zoneid": wanted["zoneid"], "networkofferingid": offering.uuid}
        refused(admin.call("createNetwork", **l2, domainid=make_domain().uuid), "Invalid parameter domainid")
        assert admin.call("createNetwork", **l2, domainid=domain.uuid, acltype="Domain").status == 200

    def test_only_a_root_admin_names_a_vlan(self, wanted):
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN))
        assert admin.call("createNetwork", **wanted).status == 531
        assert admin.call("listNetworks", vlan="700").status == 531


class TestDefault:
    """Admin guide, 6.7.2: additional networks are default or non-default ones."""

    def test_a_network_may_be_a_vms_default_one_unless_told_otherwise(self, root, wanted):
        assert create(root, wanted).is_default
        assert not create(root, wanted, name="other", vlan="701", isdefault="false").is_default

    def test_it_is_shown_and_asked_for(self, root, user):
        default, other = make_network(), make_network(is_default=False)
        assert (ids(user, isdefault="true"), ids(user, isdefault="false")) == ([str(default.uuid)], [str(other.uuid)])
        (shown,) = user.call("listNetworks", id=other.uuid).body["network"]
        assert shown["isdefault"] is False


class TestCreate:
    def test_a_range_of_one_address(self, root, wanted):
        """Ansible: endip is startip where it is not given; so is it here."""
        network = create(root, wanted)
        assert (network.start_ip, network.end_ip) == ("198.51.100.10", "198.51.100.10")

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({"ip6cidr": "2001:db8::/64"}, "IPv6 ranges of networks are not in this product"),
            ({"startipv6": "2001:db8::2"}, "IPv6 ranges of networks are not in this product"),
            ({"isolatedpvlan": "5"}, "Private VLANs are not in this product"),
            ({"vpcid": "x"}, "VPCs are not in this product"),
            ({"networkdomain": "-x"}, "networkdomain must be a DNS domain"),
            ({"networkdomain": "a..b"}, "networkdomain must be a DNS domain"),
            ({"networkdomain": "x" * 64}, "networkdomain must be a DNS domain"),
        ],
    )
    def test_what_is_not_here_is_refused(self, root, wanted, asked, says):
        refused(root.call("createNetwork", **{**wanted, **asked}), says)
        assert not Network.objects.exists()


class TestUpdate:
    @pytest.fixture
    def network(self) -> Network:
        return make_network(name="office", network_domain="old.example")

    def test_its_job_shows_the_network_as_it_is_then(self, root, network):
        changes = {"name": "lab", "displaytext": "the lab's", "networkdomain": "lab.example.com", "isdefault": "false"}
        reply = root.call("updateNetwork", id=network.uuid, **changes)
        assert reply.body.keys() == {"jobid"}
        ended = run(reply, root)
        assert ended["jobstatus"] == 1
        shown = ended["jobresult"]["network"]
        assert {name: shown[name] for name in changes} == {**changes, "isdefault": False}

    def test_what_is_not_given_stays(self, root, network):
        run(root.call("updateNetwork", id=network.uuid, displaytext="the office's"), root)
        network.refresh_from_db()
        assert (network.name, network.network_domain, network.is_default) == ("office", "old.example", True)

    def test_an_empty_domain_takes_it_away(self, root, network):
        run(root.call("updateNetwork", id=network.uuid, networkdomain=""), root)
        network.refresh_from_db()
        assert network.network_domain == ""

    def test_terraform_calls_it_with_nothing_to_change(self, root, network):
        assert run(root.call("updateNetwork", id=network.uuid), root)["jobstatus"] == 1

    def test_its_own_name_is_no_change(self, root, network):
        assert run(root.call("updateNetwork", id=network.uuid, name="office"), root)["jobstatus"] == 1

    def test_a_compatible_offering_is_taken(self, root, network):
        offering = make_network_offering({"UserData": "ConfigDrive"})
        run(root.call("updateNetwork", id=network.uuid, networkofferingid=offering.uuid), root)
        network.refresh_from_db()
        assert network.offering == offering

    def test_the_range_follows_the_dhcp_servers(self, root, network):
        run(root.call("updateNetwork", id=network.uuid, startip="192.0.2.20", endip="192.0.2.30"), root)
        network.refresh_from_db()
        assert (network.start_ip, network.end_ip) == ("192.0.2.20", "192.0.2.30")

    def test_one_end_of_the_range_leaves_the_other(self, root, network):
        end = network.end_ip
        run(root.call("updateNetwork", id=network.uuid, startip="192.0.2.20"), root)
        network.refresh_from_db()
        assert (network.start_ip, network.end_ip) == ("192.0.2.20", end)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"name": "taken"}, "has a network named taken already"),
            ({"networkdomain": "not a domain"}, "networkdomain must be a DNS domain"),
            ({"startip": "198.51.100.1"}, "outside 192.0.2.0/24"),
            ({"startip": "192.0.2.9", "endip": "192.0.2.8"}, "comes after endip"),
            ({"guestvmcidr": "192.0.2.0/25"}, "not in this product"),
        ],
    )
    def test_bad_input_is_refused_and_no_job_is_made(self, root, network, changes, says):
        make_network(network.zone, name="taken")
        refused(root.call("updateNetwork", id=network.uuid, **changes), says)
        assert not AsyncJob.objects.exists()

    @pytest.mark.parametrize(
        ("offering", "says"),
        [
            ({"guest_type": "L2"}, "it needs one that is Shared and names its VLAN"),
            ({"specify_vlan": False}, "it needs one that is Shared and names its VLAN"),
            ({"state": "Disabled"}, "Choose one that is Enabled"),
        ],
    )
    def test_another_kind_of_offering_is_refused(self, root, network, offering, says):
        other = make_network_offering(**offering)
        refused(root.call("updateNetwork", id=network.uuid, networkofferingid=other.uuid), says)

    def test_a_network_without_a_subnet_has_no_range(self, root):
        refused(root.call("updateNetwork", id=make_l2_network().uuid, startip="192.0.2.9"), "has no subnet")

    def test_a_name_that_is_taken_by_then_fails_the_job(self, root, network):
        reply = root.call("updateNetwork", id=network.uuid, name="lab")
        make_network(network.zone, name="lab")
        ended = run(reply, root)
        assert (ended["jobstatus"], ended["jobresult"]["errorcode"]) == (2, 431)

    def test_a_network_that_is_gone_by_then_fails_the_job(self, root, network):
        reply = root.call("updateNetwork", id=network.uuid, name="lab")
        network.delete()
        assert run(reply, root)["jobresult"]["errortext"] == "The network was deleted in the meantime."

    def test_leaves_events_of_its_own_type(self, root, network):
        run(root.call("updateNetwork", id=network.uuid, name="lab"), root)
        assert set(Event.objects.values_list("type", flat=True)) == {EventType.NETWORK_UPDATE}

    def test_an_end_user_changes_no_network(self, user):
        own = make_network(account=user.user.account, acl_type="Account")
        assert user.call("updateNetwork", id=own.uuid, name="x").status == 432

    def test_a_domain_admin_does_not_change_what_is_only_shared_with_the_domain(self):
        admin = Signer.of(make_account(Role.DOMAIN_ADMIN, make_domain()))
        zone_wide = make_network()
        assert finds(admin, zone_wide)
        refused(admin.call("updateNetwork", id=zone_wide.uuid, name="x"), "entity does not exist")


class TestResults:
    @pytest.mark.parametrize("command", ["restartNetwork", "deleteNetwork"])
    def test_restarting_and_deleting_show_no_network(self, root, command):
        """Go SDK: success is a boolean there."""
        ended = run(root.call(command, id=make_network().uuid, cleanup="true"), root)
        assert ended["jobresult"] == {"success": True}

    def test_restart_changes_nothing(self, root):
        network = make_network()
        before = Network.objects.filter(pk=network.pk).values().get()
        run(root.call("restartNetwork", id=network.uuid), root)
        assert Network.objects.filter(pk=network.pk).values().get() == before


class TestFilters:
    @pytest.fixture
    def two(self) -> SimpleNamespace:
        return SimpleNamespace(
            one=make_network(name="one", display_text="the first", vlan=11),
            other=make_network(
                name="other",
                vlan=12,
                acl_type="Account",
                offering=make_network_offering({"UserData": "ConfigDrive"}, specify_ip_ranges=False),
            ),
        )

    @pytest.mark.parametrize(
        "asked",
        [
            {"name": "one"},
            {"keyword": "FIRST"},
            {"keyword": "On"},
            {"acltype": "domain"},
            {"specifyipranges": "true"},
            {"vlan": "11"},
            {"vlan": "vlan://11"},
        ],
    )
    def test_each_filters(self, root, two, asked):
        assert ids(root, **asked) == [str(two.one.uuid)]

    @pytest.mark.parametrize("of", ["zone", "offering"])
    def test_what_a_network_is_of_filters(self, root, two, of):
        name = {"zone": "zoneid", "offering": "networkofferingid"}[of]
        assert ids(root, **{name: getattr(two.one, of).uuid}) == [str(two.one.uuid)]

    def test_the_services_of_its_offering_filter(self, root, two):
        assert ids(root, supportedservices="UserData,userdata") == [str(two.other.uuid)]

    def test_services_that_no_offering_can_have_find_nothing(self, root, two):
        """However many are named: as a join each, the database would refuse them."""
        assert ids(root, supportedservices=",".join(f"service{number}" for number in range(100))) == []

    @pytest.mark.parametrize(
        "asked",
        [
            {"canusefordeploy": "false"},
            {"issystem": "true"},
            {"restartrequired": "true"},
            {"forvpc": "true"},
            {"vpcid": "x"},
            {"traffictype": "Public"},
            {"type": "Isolated"},
            {"vlan": "4095"},
            {"vlan": "x"},
        ],
    )
    def test_what_there_is_none_of_is_not_found(self, root, two, asked):
        assert root.call("listNetworks", **asked).body == {}

    def test_an_owner_has_its_own_and_what_is_shared_with_it(self, root):
        """Ansible with account and domain looks for a shared network like that, too."""
        domain = make_domain()
        account = make_account(domain=domain)
        own = make_network(account=account, acl_type="Account")
        zone_wide = make_network()
        make_network(acl_type="Account")
        make_network(domain=make_domain())
        assert set(ids(root, account=account.name, domainid=domain.uuid)) == {str(own.uuid), str(zone_wide.uuid)}

    def test_a_domain_has_those_below_it_when_asked(self, root):
        domain = make_domain()
        below = make_network(domain=make_domain(domain))
        assert not finds(root, below, domainid=domain.uuid)
        assert finds(root, below, domainid=domain.uuid, isrecursive="true")

    def test_naming_an_owner_never_widens_what_one_sees(self, user):
        hidden = make_network(acl_type="Account", account=make_account(domain=user.user.account.domain))
        asked = {"domainid": user.user.account.domain.uuid, "isrecursive": "true", "listall": "true"}
        assert not finds(user, hidden, **asked)

    def test_tags_filter(self, root, two):
        tag = {"tags[0].key": "role", "tags[0].value": "db"}
        run(root.call("createTags", resourceids=two.one.uuid, resourcetype="Network", **tag), root)
        assert ids(root, **tag) == [str(two.one.uuid)]
        assert root.call("listNetworks", **tag).body["network"][0]["tags"][0]["value"] == "db"
