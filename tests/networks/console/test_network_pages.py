"""Pages of networks, offerings, hosts and endpoints: who sees what; they cost the same for one and for many."""

import itertools
import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from extdhcp_site.accounts.models import Role
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.hypervisors import base
from networks.models import Endpoint, Host, Network, NetworkOffering
from tests import factories
from tests.console.worlds import client_of, make_root
from tests.fakes import FakeHypervisor, hypervisors

pytestmark = pytest.mark.django_db

XSS = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch):
    monkeypatch.setattr(factories, "_numbers", itertools.count(1))


@pytest.fixture
def root() -> Client:
    return client_of(make_root())


@pytest.fixture
def tenant() -> Client:
    return client_of(factories.make_user())


def text(client: Client, path: str, **query) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, path
    return " ".join(answer.text.split())


def queries(client: Client, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        text(client, path)
    return len(captured)


LISTS = {
    "/networks/": factories.make_network,
    "/offerings/": factories.make_network_offering,
    "/hosts/": factories.make_host,
    "/endpoints/": factories.make_endpoint,
    "/places/": factories.make_cluster,
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_costs_the_same_for_many(root, path):
    LISTS[path]()
    few = queries(root, path)
    for _ in range(7):
        LISTS[path]()

    assert queries(root, path) == few


@pytest.mark.parametrize("path", LISTS)
def test_what_was_typed_is_escaped(root, path):
    made = LISTS[path]()
    type(made).objects.filter(pk=made.pk).update(name=XSS)

    page = text(root, path)

    assert escape(XSS) in page
    assert XSS not in page


@pytest.mark.parametrize("path", ["/hosts/", "/endpoints/", "/endpoints/new/", "/hosts/new/", "/places/"])
def test_what_is_a_root_admins_is_not_there_for_others(tenant, path):
    assert tenant.get(path).status_code == 404


class TestNetworks:
    @pytest.fixture
    def network(self) -> Network:
        zone = factories.make_zone(dns1="192.0.2.53")
        return factories.make_network(zone, name="corporate", vlan=100, network_domain="lab.example.org")

    def test_says_what_the_server_must_have(self, root, network):
        page = text(root, f"/networks/{network.uuid}/")

        for line in (
            "dhcp-range=set:vlan100,192.0.2.100,192.0.2.199,255.255.255.0,12h",
            "dhcp-option=tag:vlan100,option:router,192.0.2.1",
            "subnet 192.0.2.0 netmask 255.255.255.0 {",
            "range 192.0.2.100 192.0.2.199;",
            "-ScopeId 192.0.2.0 -Router 192.0.2.1 -DnsServer 192.0.2.53 -DnsDomain &#x27;lab.example.org&#x27;",
        ):
            assert line in page

    def test_its_numbers_lead_to_its_nics(self, root, network):
        factories.make_running_vm(networks=[network])
        factories.make_vm(networks=[network], state="Destroyed")

        page = text(root, f"/networks/{network.uuid}/")

        assert f'<a href="/nics/?network={network.uuid}">1</a>' in page
        assert "1 addresses are known" not in page

    @pytest.mark.parametrize(("who", "order"), [("root", ["c", "b", "a"]), ("tenant", ["a", "b", "c"])])
    def test_only_who_sees_vlans_orders_by_them(self, request, who, order):
        zone = factories.make_zone()
        for name, vlan in (("a", 300), ("b", 200), ("c", 100)):
            factories.make_network(zone, name=name, vlan=vlan)

        reply = request.getfixturevalue(who).get("/networks/?sort=seen_vlan&export=json")

        assert [row["Name"] for row in json.loads(reply.getvalue())] == order

    def test_no_order_tells_a_tenant_of_vlans(self, tenant):
        assert tenant.get("/networks/?sort=vlan").status_code == 400

    def test_a_tenant_sees_a_shared_one_without_vlan_and_others_nics(self, network):
        account = factories.make_account()
        factories.make_running_vm(networks=[network])
        factories.make_running_vm(networks=[network], account=account)
        client = client_of(factories.make_user(account))

        page = text(client, f"/networks/{network.uuid}/")

        assert "vlan100" not in page
        assert f'<a href="/nics/?network={network.uuid}">1</a>' in page
        assert "Use of the range" not in page
        assert "not shown" in text(client, "/networks/")
        assert "deleteNetwork" not in page

    def test_anothers_own_is_not_found(self, tenant):
        other = factories.make_network(acl_type="Account")

        assert tenant.get(f"/networks/{other.uuid}/").status_code == 404
        assert other.name not in text(tenant, "/networks/")

    def test_is_changed_by_a_job(self, root, network):
        form = {"name": "renamed", "startip": "192.0.2.100", "endip": "192.0.2.150", "networkdomain": ""}

        assert root.post(f"/networks/{network.uuid}/edit/", form).status_code == 302
        job = AsyncJob.objects.get()
        jobs.run(job.pk, job.attempt)

        network.refresh_from_db()
        assert (network.name, network.end_ip, network.network_domain) == ("renamed", "192.0.2.150", "")

    def test_a_quote_in_a_name_ends_no_word_of_powershell(self, root, network):
        Network.objects.update(name="it's\u2019")

        assert "-Name &#x27;it&#x27;&#x27;s\u2019\u2019&#x27; -StartRange" in text(root, f"/networks/{network.uuid}/")


class TestNetworkWizard:
    def test_an_offering_and_its_network_in_two_steps(self, root):
        zone = factories.make_zone()
        offering = {"name": "External", "displaytext": "External DHCP", "guestiptype": "Shared"}
        then = root.post("/networks/new/", offering)["Location"]
        made = NetworkOffering.objects.get()
        assert then == f"/networks/new/?offering={made.uuid}"
        assert [str(service) for service in made.services.all()] == ["UserData by ConfigDrive"]

        network = {"name": "corporate", "zoneid": zone.uuid, "vlan": "100", "gateway": "192.0.2.1"}
        network |= {"netmask": "255.255.255.0", "startip": "192.0.2.100", "endip": "192.0.2.199"}
        then = root.post(then, network)["Location"]

        page = text(root, then)
        assert "The network is there." in page
        assert "dhcp-range=set:vlan100,192.0.2.100,192.0.2.199" in page

    def test_an_offering_without_services(self, root):
        form = {"name": "Bare", "displaytext": "None", "guestiptype": "L2"}

        root.post("/networks/new/?services=none", form)

        assert not NetworkOffering.objects.get().services.exists()

    def test_what_the_api_refuses_stands_beside_its_field(self, root):
        offering = factories.make_network_offering()
        form = {"name": "corporate", "zoneid": factories.make_zone().uuid, "vlan": "5000", "gateway": "192.0.2.1"}

        page = root.post(f"/networks/new/?offering={offering.uuid}", form)

        assert page.status_code == 200
        assert "vlan must be a number from 1 to 4094." in page.text
        assert 'value="5000"' in page.text

    @pytest.mark.parametrize("uuid", ["x", "00000000-0000-0000-0000-000000000000", XSS])
    def test_an_offering_that_is_none_leads_back(self, root, uuid):
        assert root.get("/networks/new/", {"offering": uuid})["Location"] == "/networks/new/"

    def test_is_for_admins(self, tenant):
        assert tenant.get("/networks/new/").status_code == 404

    def test_a_domain_admin_chooses_and_names_no_vlan(self):
        client = client_of(factories.make_user(factories.make_account(Role.DOMAIN_ADMIN, factories.make_domain())))
        offering = factories.make_network_offering(guest_type="L2", specify_vlan=False)

        assert offering.name in text(client, "/networks/new/")
        assert "field-vlan" not in text(client, "/networks/new/", offering=offering.uuid)


class TestEndpointWizard:
    FORM = {"name": "kvm-1", "hypervisor": "KVM", "transport": "tcp", "host": "kvm-1.example.org", "username": "root"}

    def test_tried_stored_and_its_host_added(self, root):
        cluster = factories.make_cluster()
        with hypervisors(FakeHypervisor()):
            trial = root.post("/endpoints/new/", {**self.FORM, "_try": "1"}, headers={"HX-Request": "true"}).text
            assert "Works" in trial
            assert "<html" not in trial
            assert not Endpoint.objects.exists()

            then = root.post("/endpoints/new/", {**self.FORM, "password": "hunter2"})["Location"]
            endpoint = Endpoint.objects.get()
            assert then == f"/hosts/new/?endpoint={endpoint.uuid}"
            assert endpoint.password == "hunter2"

            then = root.post(then, {"name": "kvm-1", "clusterid": cluster.uuid})["Location"]

        host = Host.objects.get()
        assert then == f"/hosts/{host.uuid}/"
        assert host.memory == 16 * factories.GIB
        assert "8 CPUs of 2000 MHz" in text(root, then)

    def test_a_trial_that_fails_says_why_and_repeats_no_password(self, root):
        fake = FakeHypervisor(failing={"host_facts": base.CredentialsRefused("The host refuses the user.")})
        with hypervisors(fake):
            page = root.post("/endpoints/new/", {**self.FORM, "password": "hunter2", "_try": "1"}).text

        assert "The host refuses the user." in page
        assert "hunter2" not in page

    def test_what_cannot_be_an_address_is_told(self, root):
        page = root.post("/endpoints/new/", {**self.FORM, "host": "a/b?c", "_try": "1"}).text

        assert "neither a DNS name nor an IP address" in page

    def test_a_form_that_is_refused_comes_back_without_the_password(self, root):
        page = root.post("/endpoints/new/", {**self.FORM, "host": "a b", "password": "hunter2"}).text

        assert "neither a DNS name" in page
        assert "hunter2" not in page

    def test_what_a_host_calls_itself_is_escaped(self, root):
        fake = FakeHypervisor()
        fake.host_facts = lambda deadline: base.HostFacts(XSS, XSS, 1, 1, 1)
        with hypervisors(fake):
            page = root.post("/endpoints/new/", {**self.FORM, "_try": "1"}).text

        assert escape(XSS) in page
        assert XSS not in page

    def test_without_a_cluster_of_its_kind_that_comes_first(self, root):
        endpoint = factories.make_endpoint(kind="XenServer")
        factories.make_cluster()

        assert "First a cluster" in text(root, "/hosts/new/", endpoint=endpoint.uuid)

    @pytest.mark.parametrize(
        ("kind", "form"), [("zone", {"name": "here", "bridgepattern": "br{vlan}"}), ("pod", None), ("cluster", None)]
    )
    def test_places_are_made(self, root, kind, form):
        zone = factories.make_zone()
        if kind == "pod":
            form = {"name": "rack-9", "zoneid": zone.uuid}
        if kind == "cluster":
            form = {"clustername": "kvm-9", "podid": zone.pods.create(name="rack-1").uuid, "hypervisor": "KVM"}

        assert root.post(f"/places/new/{kind}/", form)["Location"] == "/places/"
        assert (form.get("name") or form["clustername"]) in text(root, "/places/")


class TestEndpointPage:
    def test_its_health_and_its_circuit(self, root):
        trouble = {"last_error": "No answer.", "failures": 4, "stuck_calls": 2}
        endpoint = factories.make_endpoint(**trouble, retry_at=timezone.now() + timedelta(seconds=42))

        page = text(root, f"/endpoints/{endpoint.uuid}/")

        for shown in (
            "No answer.",
            "Open</span> Addresses are asked for again in 4",
            "given up, and not come back yet",
        ):
            assert shown in page

    def test_the_checks_of_its_last_job(self, root):
        endpoint = factories.make_host().endpoint
        with hypervisors(FakeHypervisor()):
            root.post("/do/checkEndpoint", {"id": endpoint.uuid})
            job = AsyncJob.objects.get()
            assert "At work" in text(root, f"/endpoints/{endpoint.uuid}/")
            jobs.run(job.pk, job.attempt)

        assert "fake, version 1" in text(root, f"/endpoints/{endpoint.uuid}/")

    def test_a_password_is_never_shown(self, root):
        endpoint = factories.make_endpoint(password="hunter2", kind="XenServer", transport="tls", host="x.example")

        for path in (f"/endpoints/{endpoint.uuid}/", f"/endpoints/{endpoint.uuid}/edit/", "/endpoints/"):
            page = text(root, path)
            assert "hunter2" not in page
        assert "password stored" in text(root, f"/endpoints/{endpoint.uuid}/")

    def test_another_address_clears_the_password(self, root):
        endpoint = factories.make_endpoint(password="hunter2", kind="XenServer", transport="tls", host="a.example")
        form = {"name": "pool", "hypervisor": "XenServer", "transport": "tls", "host": "b.example", "username": ""}

        assert root.post(f"/endpoints/{endpoint.uuid}/edit/", form).status_code == 302

        endpoint.refresh_from_db()
        assert (endpoint.host, endpoint.password) == ("b.example", None)

    def test_its_trust_is_taken_away_when_it_is_left_empty(self, root):
        endpoint = factories.make_endpoint(
            kind="XenServer", transport="tls", host="a.example", fingerprint="ab" * 32, username="root"
        )
        form = {"name": endpoint.name, "hypervisor": "XenServer", "transport": "tls", "host": "a.example"}

        root.post(f"/endpoints/{endpoint.uuid}/edit/", {**form, "username": "root", "fingerprint": ""})

        endpoint.refresh_from_db()
        assert endpoint.fingerprint == ""


class TestHostPage:
    def test_how_full_it_is(self, root):
        host = factories.make_running_vm(service_offering=factories.make_service_offering(memory_mib=4096)).host

        page = text(root, f"/hosts/{host.uuid}/")

        assert "4.0 GiB of 16.0 GiB (25 %)" in page
        assert f'<a href="/vms/?host={host.uuid}">1</a>' in page

    def test_why_it_is_down(self, root):
        host = factories.make_host(state="Down", endpoint=factories.make_endpoint(last_error="No route to it."))

        page = text(root, f"/hosts/{host.uuid}/")

        assert "No route to it." in page
        assert "do not come here while it is down" in page

    def test_is_disabled_and_changed(self, root):
        host = factories.make_host()

        root.post("/do/updateHost", {"id": host.uuid, "allocationstate": "Disable"})
        root.post(f"/hosts/{host.uuid}/", {"memory": "2048", "cpunumber": "4", "cpuspeed": "1000"})

        host.refresh_from_db()
        assert (host.resource_state, host.memory, host.cpus) == ("Disabled", 2 * factories.GIB, 4)
