"""Endpoints that lie, point elsewhere or flood us, with the product around the drivers.

What a driver alone does is shown beside it, in tests/networks/hypervisors: URIs that are built (test_kvm_connection),
spellings of hosts, DNS that changes its mind, certificates and slow peers (test_tls), redirects (test_bounded),
bombs and endless answers (test_bounded_hostile), coordinators that are strangers (test_xenserver_session), names of
VMs (test_kvm_xml, test_xenserver_records), odd addresses of guests (test_kvm_addresses, test_xenserver_addresses,
test_vsphere_addresses); what is stored of them is in tests/ipfetch/test_recording.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.test import Client
from django.utils import timezone

from ipfetch import planner
from ipfetch.schedule import Pace
from networks.hypervisors.base import CertificateRefused, HypervisorError, Member, VmRef
from networks.hypervisors.xenserver import XenHost
from networks.hypervisors.xenserver_session import Sessions
from networks.models import Cluster, Endpoint, Host, Nic
from tests.api.client import Signer
from tests.factories import (
    make_account,
    make_cluster,
    make_host,
    make_network,
    make_running_vm,
    make_service_offering,
    make_template,
    make_zone,
)
from tests.ipfetch.passes import MINUTE, run_pass
from tests.networks.hypervisors.factories import soon
from tests.networks.hypervisors.xen_world import address_of, host_of, pool, started
from tests.simulators.xenserver import XenServer, hostile

MARKUP = "<img src=x onerror=alert(1)>"
CONTROL = "\x9b2J\u202e\nok       all is well"


@pytest.fixture
def xen() -> Iterator[XenServer]:
    with pool() as xen:
        yield xen


@pytest.fixture
def cluster() -> Cluster:
    cluster = make_cluster(make_zone())
    Cluster.objects.update(hypervisor="XenServer")
    return cluster


def host_at(xen: XenServer, cluster: Cluster, name: str) -> Host:
    """The pool as an endpoint, and its first host."""
    address = address_of(xen)
    fields = ("host", "port", "username", "password", "ca_certificates")
    endpoint = Endpoint.objects.create(
        name=name, kind="XenServer", transport="test", **{field: getattr(address, field) for field in fields}
    )
    return make_host(cluster, name=name, endpoint=endpoint)


def running_on(host: Host, xen: XenServer, ip: str) -> Nic:
    """The NIC of a VM that runs there, whose guest has an address."""
    vm = make_running_vm(networks=[make_network(host.cluster.pod.zone)], host=host)
    nic = vm.nics.get()
    started(host_of(xen), VmRef(vm.instance_name, str(vm.uuid), (nic.mac_address,)))
    xen.guests.has_addresses(xen.ref("VM", vm.instance_name), nic.mac_address, ip)
    return nic


# What answers ------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "answer", [hostile.gzip_bomb, hostile.endless, hostile.huge_length, hostile.deep, hostile.entities, hostile.not_xml]
)
def test_a_pool_that_floods_us_is_marked_and_another_is_read_all_the_same(xen, cluster, answer):
    with pool() as bad:
        lost = running_on(host_at(bad, cluster, "bad"), bad, "192.0.2.57")
        kept = running_on(host_at(xen, cluster, "good"), xen, "192.0.2.58")
        planner.enter_missing(Pace.now(), timezone.now())
        bad.faults.answer("", answer)
        run_pass(timezone.now() + MINUTE)

    lost.refresh_from_db()
    kept.refresh_from_db()
    assert (lost.ip4_address, kept.ip4_address) == (None, "192.0.2.58")
    assert Endpoint.objects.get(name="bad").last_error
    assert list(Host.objects.order_by("name").values_list("name", "state")) == [("bad", "Down"), ("good", "Up")]


@pytest.mark.django_db
def test_two_vms_with_one_mac_address_keep_their_addresses_apart(xen, cluster):
    """A MAC address is made here and taken from nobody; a copy that an administrator made may have it all the same."""
    host = host_at(xen, cluster, "xen1")
    first, second = running_on(host, xen, "192.0.2.57"), running_on(host, xen, "192.0.2.58")
    for vif in xen.db.where("VIF", MAC=second.mac_address):
        xen.db.set("VIF", vif.ref, MAC=first.mac_address)
    planner.enter_missing(Pace.now(), timezone.now())
    run_pass(timezone.now() + MINUTE)

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.ip4_address, second.ip4_address) == ("192.0.2.57", None)


@pytest.mark.django_db
def test_a_pool_s_own_words_are_text_on_a_terminal_and_on_a_page(xen, cluster, manage, root):
    host = host_at(xen, cluster, "xen1")
    for table in ("pool", "host"):
        for row in xen.db.rows(table):
            xen.db.set(table, row.ref, **{"name_label" if table == "pool" else "hostname": MARKUP + CONTROL})
    told = manage("check_endpoint", "xen1")

    assert "onerror" in told.out
    assert all(letter.isprintable() or letter == "\n" for letter in told.out + told.err)
    assert not any(line.startswith("ok       all") for line in told.out.splitlines())
    Endpoint.objects.update(last_error=MARKUP)
    page = Client()
    page.force_login(root.user)
    for url in (f"/admin/networks/endpoint/{host.endpoint.pk}/change/", "/admin/networks/endpoint/"):
        assert MARKUP not in page.get(url).content.decode()


# Where it leads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stranger", ["127.0.0.9", "169.254.169.254", "evil.invalid", "127.0.0.1@evil.invalid"])
def test_a_coordinator_that_the_pool_did_not_tell_of_gets_no_password(xen, stranger):
    address = replace(address_of(xen), ca_certificates="", fingerprint=xen.fingerprint)
    address = replace(address, members=(Member(xen.addresses[1], "0" * 64),))
    xen.faults.fail_next("session.login_with_password", "HOST_IS_SLAVE", stranger)
    with pytest.raises(CertificateRefused):
        XenHost(address, sessions=Sessions()).host_facts(soon(5))

    assert xen.calls["session.login_with_password"] == 1


@pytest.mark.parametrize("to", ["https://127.0.0.9/import_raw_vdi", "http://169.254.169.254/latest", "//127.0.0.2/x"])
def test_a_drive_is_sent_to_no_other_host_that_a_pool_names(xen, to):
    def redirect(send, _closing):
        send(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode())

    xen.faults.answer("PUT /import_raw_vdi", redirect)
    with pytest.raises(HypervisorError):
        host_of(xen).place("i-2-7-VM-1-ab.iso", b"secret", soon(5))

    assert xen.calls["PUT /import_raw_vdi"] == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "moved",
    [
        {"host": "192.0.2.99"},
        {"port": 4443},
        {"username": "other"},
        {"fingerprint": "ab" * 32},
        {"ca_certificates": ""},
        {"kind": "VMware"},
    ],
)
def test_a_password_and_what_the_pool_told_stay_with_the_address_they_are_of(xen, cluster, moved):
    endpoint = host_at(xen, cluster, "xen1").endpoint
    endpoint.members = [[xen.addresses[1], "a" * 64]]
    endpoint.save()
    for name, value in moved.items():
        setattr(endpoint, name, value)
    endpoint.save()
    endpoint.refresh_from_db()

    assert (endpoint.password, endpoint.members) == (None, [])


# What a user types -------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name",
    [
        "x</name><uuid>1</uuid><name>owned",
        ".",
        "..",
        "-rf",
        "$(id)",
        "x" * 300,
        "\u202etxt",
        "a\nb",
        "=cmd|' /C calc'!A0",
    ],
)
def test_a_vm_s_name_is_a_dns_label_or_refused_at_entry(fake, cluster, name):
    Cluster.objects.update(hypervisor="KVM")
    make_host(cluster)
    zone = cluster.pod.zone
    answer = Signer.of(make_account()).call(
        "deployVirtualMachine",
        zoneid=zone.uuid,
        templateid=make_template().uuid,
        serviceofferingid=make_service_offering().uuid,
        networkids=make_network(zone).uuid,
        name=name,
    )

    assert answer.status == 431, answer
    assert not Nic.objects.exists()
