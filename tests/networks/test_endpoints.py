"""Endpoints by the API: what goes in, what never comes out, what is bound to what, and what trying one tells."""

from unittest import mock

import pytest

from extdhcp_site.events.models import Event
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.hypervisors import base
from networks.models import Cluster, Endpoint, Host
from networks.services import endpoint_checks
from tests.api.client import Signer
from tests.factories import GIB, make_account, make_cluster, make_endpoint, make_host, make_running_vm, make_zone
from tests.fakes import FakeHypervisor, hypervisors

pytestmark = pytest.mark.django_db

KVM = {"name": "kvm-1", "hypervisor": "KVM", "transport": "tls", "host": "kvm-1.example.org"}
XEN = {"name": "pool", "hypervisor": "XenServer", "transport": "tls", "host": "xen.example.org", "username": "root"}
PRINT = "ab" * 32


@pytest.fixture
def anybody() -> Signer:
    return Signer.of(make_account())


class TestCreate:
    def test_is_as_it_was_typed(self, root):
        shown = root.call("createEndpoint", **XEN, password="hunter2", fingerprint=PRINT, port=4443).body["endpoint"]

        stored = Endpoint.objects.get()
        assert (stored.kind, stored.host, stored.port, stored.password) == (
            "XenServer",
            "xen.example.org",
            4443,
            "hunter2",
        )
        assert (shown["haspassword"], shown["fingerprint"], shown["diskaccess"]) == (True, PRINT, "never")

    def test_a_password_never_comes_out_again(self, root):
        replies = [root.call("createEndpoint", **XEN, password="hunter2"), root.call("listEndpoints")]

        assert all("hunter2" not in str(reply.body) for reply in replies)
        assert not Event.objects.filter(description__contains="hunter2").exists()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"host": "qemu:///embed?root=/tmp"},
            {"host": "kvm?command=/bin/sh"},
            {"host": "kvm/../x"},
            {"host": ""},
            {"username": "root@other"},
            {"transport": "local"},
            {"hypervisor": "XenServer", "transport": "ssh"},
            {"hypervisor": "XenServer", "fingerprint": "12:34"},
            {"hypervisor": "XenServer", "cacertificates": "no certificate"},
            {"transport": "test"},
            {"transport": "local", "host": "", "diskaccess": "ssh"},
        ],
    )
    def test_what_cannot_be_an_endpoint_is_refused(self, root, wrong, settings):
        settings.ALLOW_TEST_HYPERVISOR = False

        assert root.call("createEndpoint", **{**KVM, **wrong}).status == 431
        assert not Endpoint.objects.exists()

    def test_a_name_is_taken_once(self, root):
        root.call("createEndpoint", **KVM)

        assert root.call("createEndpoint", **KVM).status == 431

    def test_is_a_root_admins(self, anybody):
        assert anybody.call("createEndpoint", **KVM).status == 432


class TestUpdate:
    @pytest.fixture
    def endpoint(self) -> Endpoint:
        return Endpoint.objects.create(name="pool", kind="XenServer", host="a.example.org", password="hunter2")

    @pytest.mark.parametrize(
        "moved",
        [
            {"host": "b.example.org"},
            {"port": 8443},
            {"username": "other"},
            {"fingerprint": PRINT},
            {"hypervisor": "VMware"},
        ],
    )
    def test_a_password_is_for_the_address_it_was_given_for(self, root, endpoint, moved):
        shown = root.call("updateEndpoint", id=endpoint.uuid, **moved).body["endpoint"]

        endpoint.refresh_from_db()
        assert (endpoint.password, shown["haspassword"]) == (None, False)

    def test_one_that_comes_with_the_new_address_is_kept_even_if_it_is_the_same(self, root, endpoint):
        root.call("updateEndpoint", id=endpoint.uuid, host="b.example.org", password="hunter2")

        endpoint.refresh_from_db()
        assert (endpoint.host, endpoint.password) == ("b.example.org", "hunter2")

    def test_its_hosts_keep_their_hypervisor(self, root, endpoint):
        cluster = make_cluster()
        Cluster.objects.update(hypervisor="XenServer")
        make_host(cluster, endpoint=endpoint)

        assert root.call("updateEndpoint", id=endpoint.uuid, hypervisor="VMware").status == 431
        assert root.call("updateEndpoint", id=endpoint.uuid, hypervisor="XenServer", port=8443).status == 200
        endpoint.refresh_from_db()
        assert (endpoint.kind, endpoint.port) == ("XenServer", 8443)

    def test_another_name_clears_nothing(self, root, endpoint):
        root.call("updateEndpoint", id=endpoint.uuid, name="renamed", diskaccess="ssh")

        endpoint.refresh_from_db()
        assert (endpoint.name, endpoint.password, endpoint.disk_access) == ("renamed", "hunter2", "ssh")

    def test_what_is_given_empty_is_taken_away(self, root, endpoint):
        Endpoint.objects.update(fingerprint=PRINT)

        root.call("updateEndpoint", id=endpoint.uuid, fingerprint="")

        endpoint.refresh_from_db()
        assert endpoint.fingerprint == ""

    def test_a_port_that_is_given_empty_is_the_transports_own_again(self, root, endpoint):
        Endpoint.objects.update(port=8443)

        root.call("updateEndpoint", id=endpoint.uuid, name="renamed")
        kept = Endpoint.objects.get().port
        root.call("updateEndpoint", id=endpoint.uuid, port="")

        assert (kept, Endpoint.objects.get().port) == (8443, None)

    def test_zero_is_no_port(self, root, endpoint):
        assert root.call("updateEndpoint", id=endpoint.uuid, port="0").status == 431

    def test_what_cannot_be_is_refused_and_nothing_changed(self, root, endpoint):
        assert root.call("updateEndpoint", id=endpoint.uuid, host="a b").status == 431

        endpoint.refresh_from_db()
        assert (endpoint.host, endpoint.password) == ("a.example.org", "hunter2")

    def test_the_health_that_was_written_meanwhile_stays(self, root, endpoint):
        def meanwhile(*arguments, **options):
            Endpoint.objects.update(last_error="No answer.")

        with mock.patch("networks.services.infrastructure.events.record", meanwhile):
            root.call("updateEndpoint", id=endpoint.uuid, name="renamed")

        endpoint.refresh_from_db()
        assert (endpoint.name, endpoint.last_error) == ("renamed", "No answer.")


def test_one_with_hosts_is_not_deleted(root):
    host = make_host()

    assert root.call("deleteEndpoint", id=host.endpoint.uuid).status == 536
    host.delete()
    assert root.call("deleteEndpoint", id=host.endpoint.uuid).body["success"]


def test_the_list_tells_who_answers(root):
    make_endpoint(name="sick", last_error="No answer.", failures=4)

    (shown,) = root.call("listEndpoints", keyword="ick").body["endpoint"]

    assert (shown["lasterror"], shown["failures"], shown["haspassword"]) == ("No answer.", 4, False)


class TestTry:
    def test_one_that_lets_us_in(self, root):
        with hypervisors(FakeHypervisor()):
            trial = root.call("tryEndpoint", **{**KVM, "transport": "tcp"}).body["endpointtrial"]

        assert (trial["connected"], trial["hostname"], trial["memorytotal"]) == (True, "fake", 16 * GIB)
        assert [check["passed"] for check in trial["check"]] == ["yes"] * len(trial["check"])
        assert {each["supported"] for each in trial["capability"]} == {True, False}
        assert not Endpoint.objects.exists()

    def test_one_that_does_not_says_why(self, root):
        fake = FakeHypervisor(failing={"host_facts": base.CredentialsRefused("The host refuses the user.")})
        with hypervisors(fake):
            trial = root.call("tryEndpoint", **KVM, password="hunter2").body["endpointtrial"]

        assert (trial["connected"], trial["check"]) == (
            False,
            [{"name": "connection", "passed": "no", "text": "The host refuses the user."}],
        )

    def test_what_is_stored_goes_nowhere_else(self, root):
        endpoint = make_endpoint(password="hunter2")

        reply = root.call("tryEndpoint", id=endpoint.uuid, host="evil.example.org")

        assert (reply.status, "nothing else" in reply.body["errortext"]) == (431, True)

    def test_what_is_stored_is_tried_as_it_is(self, root):
        endpoint = make_endpoint(transport="tcp", host="kvm-1.example.org", password="hunter2", username="root")
        asked = []
        fake = FakeHypervisor()
        with mock.patch("networks.services.places.driver", lambda kind, address, host: asked.append(address) or fake):
            root.call("tryEndpoint", id=endpoint.uuid)

        assert [(address.host, address.password) for address in asked] == [("kvm-1.example.org", "hunter2")]

    @pytest.mark.parametrize("host", ["169.254.169.254", "127.0.0.1", "0x7f000001", "metadata@evil", "[::1]"])
    def test_no_address_that_is_no_hypervisors_is_connected_to(self, root, host):
        """CVE-2024-29007 and others (CloudStack): a server that connects wherever somebody types."""
        with mock.patch("socket.create_connection") as connected:
            reply = root.call("tryEndpoint", **{**XEN, "host": host})

        assert not connected.called
        assert reply.status == 431 or not reply.body["endpointtrial"]["connected"]

    def test_a_few_at_a_time(self, root):
        held = [endpoint_checks._tries.acquire(blocking=False) for _ in range(endpoint_checks.MOST_TRIES)]
        try:
            assert root.call("tryEndpoint", **KVM).status == 534
        finally:
            for _ in held:
                endpoint_checks._tries.release()

    def test_is_a_root_admins(self, anybody):
        assert anybody.call("tryEndpoint", **KVM).status == 432


def test_the_checks_are_a_jobs_result(root):
    host = make_host()
    with hypervisors(FakeHypervisor()):
        job = AsyncJob.objects.get(uuid=root.call("checkEndpoint", id=host.endpoint.uuid).body["jobid"])
        jobs.run(job.pk, job.attempt)

    result = root.call("queryAsyncJobResult", jobid=job.uuid).body["jobresult"]["endpoint"]
    assert result["check"][0] == {"name": "connection", "passed": "yes", "text": "fake, version 1"}
    assert result["name"] == host.endpoint.name


class TestPlaces:
    def test_from_a_zone_to_a_host(self, root):
        zone = root.call("createZone", name="here", dns1="192.0.2.53").body["zone"]
        pod = root.call("createPod", name="rack-1", zoneid=zone["id"]).body["pod"]
        cluster = root.call("addCluster", clustername="kvm", podid=pod["id"], hypervisor="KVM").body["cluster"]
        pool = root.call("createStoragePool", name="default", clusterid=cluster["id"], scope="HOST").body["storagepool"]
        endpoint = make_endpoint(transport="tcp", host="kvm-1.example.org")
        with hypervisors(FakeHypervisor()):
            host = root.call("addHost", name="kvm-1", clusterid=cluster["id"], endpointid=endpoint.uuid).body["host"]

        assert (zone["dns1"], pool["scope"], host["zonename"]) == ("192.0.2.53", "HOST", "here")
        assert (host["cpunumber"], host["cpuspeed"], host["memorytotal"]) == (8, 2000, 16 * GIB)

    @pytest.mark.parametrize(
        ("name", "value"), [("dns1", "nowhere"), ("bridgepattern", "bridge"), ("configdrivelabel", "a/b")]
    )
    def test_what_a_zone_cannot_have_is_refused(self, root, name, value):
        reply = root.call("createZone", **{"name": "here", name: value})

        assert (reply.status, name in reply.body["errortext"]) == (431, True)

    def test_names_are_taken_once(self, root):
        zone = make_zone()

        assert root.call("createZone", name=zone.name).status == 431

    @pytest.mark.parametrize(("command", "holder"), [("addHost", "clusterid"), ("createStoragePool", "clusterid")])
    def test_a_url_is_not_overlooked(self, root, command, holder):
        asked = {"name": "x", holder: make_cluster().uuid, "endpointid": make_endpoint().uuid}

        assert root.call(command, **asked, url="nfs://x/y").status == 431


class TestHosts:
    def add(self, root, **changes):
        wanted = {"name": "kvm-1", "cpunumber": 4, "cpuspeed": 2000, "memory": 1024}
        wanted |= {"clusterid": make_cluster().uuid, "endpointid": make_endpoint().uuid}
        return root.call("addHost", **{**wanted, **changes})

    def test_one_whose_size_is_given_is_not_asked(self, root):
        with hypervisors(FakeHypervisor(failing={"host_facts": base.EndpointUnreachable("No.")})):
            host = self.add(root).body["host"]

        assert host["memorytotal"] == GIB

    def test_one_that_cannot_be_asked_must_be_given(self, root):
        with hypervisors(FakeHypervisor(failing={"host_facts": base.EndpointUnreachable("No answer.")})):
            reply = self.add(root, memory="")

        assert (reply.status, "No answer." in reply.body["errortext"]) == (534, True)
        assert not Host.objects.exists()

    def test_its_endpoint_is_of_the_clusters_kind(self, root):
        assert self.add(root, endpointid=make_endpoint(kind="XenServer").uuid).status == 431

    def test_a_libvirt_endpoint_is_one_host(self, root):
        assert self.add(root, endpointid=make_host().endpoint.uuid).status == 431

    @pytest.mark.parametrize("meanwhile", ["added", "changed", "removed"])
    def test_what_is_done_while_it_is_asked_counts(self, root, meanwhile):
        endpoint, cluster = make_endpoint(), make_cluster()
        rows = Endpoint.objects.filter(pk=endpoint.pk)

        class Slow(FakeHypervisor):
            def host_facts(self, deadline: float) -> base.HostFacts:
                match meanwhile:
                    case "added":
                        make_host(cluster, endpoint=endpoint, name="first")
                    case "changed":
                        rows.update(kind="VMware")
                    case "removed":
                        rows.delete()
                return super().host_facts(deadline)

        with hypervisors(Slow()):
            assert self.add(root, clusterid=cluster.uuid, endpointid=endpoint.uuid, memory="").status == 431
        assert not Host.objects.exclude(name="first").exists()

    def test_is_disabled_and_enabled(self, root):
        host = make_host()

        assert (
            root.call("updateHost", id=host.uuid, allocationstate="Disable").body["host"]["resourcestate"] == "Disabled"
        )
        assert (
            root.call("updateHost", id=host.uuid, allocationstate="Enable").body["host"]["resourcestate"] == "Enabled"
        )

    def test_no_less_may_be_promised_than_its_vms_hold(self, root):
        host = make_running_vm().host

        reply = root.call("updateHost", id=host.uuid, memory=100)

        assert (reply.status, "512 MiB" in reply.body["errortext"]) == (431, True)

    def test_one_with_vms_is_not_deleted(self, root):
        assert root.call("deleteHost", id=make_running_vm().host.uuid).status == 536
        assert root.call("deleteHost", id=make_host().uuid).body["success"]
