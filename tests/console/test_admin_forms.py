"""What a person makes and changes in the admin keeps the same rules as the API."""

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from extdhcp_site.accounts.models import Account, ApiKey, Domain, User
from extdhcp_site.configuration.models import PAGE_SIZE, Setting
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs.models import AsyncJob
from ipfetch.models import AddressChain
from networks.models import Endpoint, Host, Network, NetworkOffering, ServiceOffering, Template, VirtualMachine, Zone
from tests import factories
from tests.console.worlds import client_of, make_root

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return client_of(make_root())


def add(client, model, **data):
    return client.post(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add"), data)


def change(client, row, key=None, **data):
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return client.post(reverse(name, args=[key or row.pk]), data, follow=True)


def act(client, action, *rows, **data):
    model = type(rows[0])
    page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return client.post(page, {"action": action, "_selected_action": [row.pk for row in rows], **data}, follow=True)


def complaint(response) -> str:
    """All that the form objects to; the page must be the form again."""
    assert response.status_code == 200
    form = response.context["adminform"].form
    return " ".join(text for texts in form.errors.values() for text in texts)


def wanted_network(**fields):
    return {
        "name": "n",
        "zone": factories.make_zone().pk,
        "offering": factories.make_network_offering().pk,
        "vlan": "100",
        "gateway": "192.0.2.1",
        "netmask": "255.255.255.0",
        "start_ip": "192.0.2.10",
        "end_ip": "192.0.2.99",
        "account": factories.make_account().pk,
        "acl_type": "Domain",
        **fields,
    }


# Networks


def test_a_network_is_made_by_the_service(client):
    assert add(client, Network, **wanted_network()).status_code == 302

    network = Network.objects.get()
    assert (network.cidr, network.domain) == ("192.0.2.0/24", network.account.domain)
    assert Event.objects.filter(type=EventType.NETWORK_CREATE, resource_uuid=network.uuid).exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"end_ip": "198.51.100.9"}, "outside 192.0.2.0/24"),
        ({"start_ip": "192.0.2.99", "end_ip": "192.0.2.10"}, "comes after"),
        ({"end_ip": "", "start_ip": ""}, "Give startip"),
        ({"netmask": "255.0.255.0"}, "netmask must be"),
        ({"netmask": ""}, "go together"),
        ({"gateway": "nonsense"}, "valid IPv4"),
        ({"vlan": ""}, "needs a vlan"),
        ({"vlan": "4095"}, "less than or equal to 4094"),
        ({"start_ip": ""}, "needs its beginning"),
        ({"account": "0"}, "Select a valid choice"),
        ({"name": ""}, "required"),
    ],
)
def test_a_bad_network_is_refused_on_its_form(client, wrong, says):
    assert says in complaint(add(client, Network, **wanted_network(**wrong)))
    assert not Network.objects.exists()


def test_a_taken_vlan_or_name_is_refused_on_the_form(client):
    other = factories.make_network(vlan=7, name="taken")

    assert "Another network of the zone is on this VLAN" in complaint(
        add(client, Network, **wanted_network(zone=other.zone_id, vlan="7"))
    )
    assert "Zone and Name" in complaint(add(client, Network, **wanted_network(zone=other.zone_id, name="taken")))


def test_a_disabled_offering_cannot_be_chosen(client):
    offering = factories.make_network_offering(state="Disabled")

    assert "Select a valid choice" in complaint(add(client, Network, **wanted_network(offering=offering.pk)))


def test_of_a_network_only_the_words_change(client):
    network = factories.make_network(vlan=7)

    change(client, network, name="renamed", display_text="new", network_domain="", vlan="8", cidr="10.0.0.0/8")

    network.refresh_from_db()
    assert (network.name, network.display_text, network.vlan, network.cidr) == ("renamed", "new", 7, "192.0.2.0/24")


def test_renaming_a_network_to_a_taken_name_is_refused_on_the_form(client):
    network = factories.make_network()
    factories.make_network(zone=network.zone, name="taken")

    assert "already exists" in complaint(change(client, network, name="taken"))


def test_a_used_network_is_not_deleted(client):
    network = factories.make_vm().nics.get().network

    page = act(client, "remove", network, confirmed="yes")

    assert "still in use (NICs: 1)" in page.text
    assert not AsyncJob.objects.exists()


def test_an_unused_network_is_deleted_by_a_job_after_a_question(client):
    network = factories.make_network(name="unneeded")

    assert "unneeded" in act(client, "remove", network).text
    assert not AsyncJob.objects.exists()

    act(client, "remove", network, confirmed="yes")
    assert AsyncJob.objects.get().command == "deleteNetwork"


def test_deleting_an_offering_leaves_an_event(client):
    offering = factories.make_network_offering()

    act(client, "delete_selected", offering, post="yes")

    assert not NetworkOffering.objects.exists()
    assert Event.objects.filter(type=EventType.NETWORK_OFFERING_DELETE).exists()


# Offerings


def test_an_offering_with_a_config_drive_is_made_by_the_service(client):
    wanted = {"name": "o", "display_text": "d", "state": "Enabled", "guest_type": "Shared", "user_data": "ConfigDrive"}
    assert add(client, NetworkOffering, **wanted, specify_vlan="on").status_code == 302

    offering = NetworkOffering.objects.get()
    assert [str(service) for service in offering.services.all()] == ["UserData by ConfigDrive"]
    assert (offering.specify_vlan, offering.specify_ip_ranges) == (True, False)
    assert Event.objects.filter(type=EventType.NETWORK_OFFERING_CREATE).exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"guest_type": "Isolated"}, "Select a valid choice"),
        ({"user_data": "VirtualRouter"}, "Select a valid choice"),
        ({"name": "taken"}, "already exists"),
        ({"display_text": ""}, "required"),
    ],
)
def test_a_bad_offering_is_refused_on_its_form(client, wrong, says):
    factories.make_network_offering(name="taken")
    wanted = {"name": "o", "display_text": "d", "state": "Enabled", "guest_type": "Shared", "user_data": "", **wrong}

    assert says in complaint(add(client, NetworkOffering, **wanted))
    assert NetworkOffering.objects.count() == 1


def test_an_offering_keeps_its_kind_and_its_services(client):
    offering = factories.make_network_offering({"UserData": "ConfigDrive"})
    services = {"services-TOTAL_FORMS": "0", "services-INITIAL_FORMS": "0"}

    change(client, offering, name="new", display_text="d", state="Disabled", guest_type="L2", **services)

    offering.refresh_from_db()
    assert (offering.name, offering.state, offering.guest_type) == ("new", "Disabled", "Shared")
    assert offering.services.count() == 1


def test_a_service_offering_is_added_and_never_changed(client):
    assert add(client, ServiceOffering, name="s", cpus="1", mhz="500", memory_mib="512").status_code == 302
    offering = ServiceOffering.objects.get()

    assert change(client, offering, name="other", cpus="2", mhz="1", memory_mib="1").status_code == 403


def test_a_service_offering_of_nothing_is_refused_on_its_form(client):
    assert complaint(add(client, ServiceOffering, name="s", cpus="0", mhz="500", memory_mib="512"))


def test_a_deleted_service_offering_lives_on_while_a_vm_uses_it(client):
    offering = factories.make_vm().service_offering

    client.post(reverse("admin:networks_serviceoffering_delete", args=[offering.pk]), {"post": "yes"})

    offering.refresh_from_db()
    assert offering.removed_at


# Templates


def wanted_template(**fields):
    return {
        "name": "t",
        "account": factories.make_account().pk,
        "hypervisor": "KVM",
        "os_family": "Linux",
        "format": "QCOW2",
        "image": "debian.qcow2",
        "size": "0",
        **fields,
    }


def test_a_template_is_registered_by_the_service(client):
    assert add(client, Template, **wanted_template()).status_code == 302
    assert Event.objects.filter(type=EventType.TEMPLATE_CREATE).exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"image": "../etc/passwd"}, "without a path"),
        ({"image": ""}, "needs it"),
        ({"kernel": "/boot/vmlinuz"}, "leave it empty"),
        ({"format": "KERNEL", "image": "", "kernel": "vmlinuz", "initrd": "/boot/initrd"}, "absolute path"),
        ({"format": "KERNEL", "image": ""}, "needs it"),
        ({"format": "ISO"}, "Select a valid choice"),
    ],
)
def test_a_bad_template_is_refused_on_its_form(client, wrong, says):
    assert says in complaint(add(client, Template, **wanted_template(**wrong)))
    assert not Template.objects.exists()


def test_what_a_template_boots_never_changes(client):
    template = factories.make_template()

    change(client, template, name="new", os_family="Windows", kernel="/other")

    template.refresh_from_db()
    assert (template.name, template.os_family, template.kernel) == ("new", "Windows", "/boot/vmlinuz")


# Infrastructure


@pytest.mark.parametrize("pattern", ["cloudbr", "{vlan}", "br{vlan};x", "../{vlan}"])
def test_a_bad_bridge_pattern_is_refused_on_the_form(client, pattern):
    response = add(client, Zone, name="z", allocation_state="Enabled", bridge_pattern=pattern)

    assert "cloudbr{vlan}" in complaint(response)


def wanted_endpoint(**fields):
    return {"name": "e", "kind": "KVM", "transport": "tls", "host": "kvm.example.org", "username": "u", **fields}


def test_a_password_is_written_and_kept(client):
    add(client, Endpoint, **wanted_endpoint(new_password="hunter2"))
    endpoint = Endpoint.objects.get()
    assert endpoint.password == "hunter2"

    page = change(client, endpoint, **wanted_endpoint(name="renamed"))

    endpoint.refresh_from_db()
    assert (endpoint.name, endpoint.password) == ("renamed", "hunter2")
    assert "hunter2" not in page.text


@pytest.mark.parametrize("moved", [{"host": "new.example.org"}, {"fingerprint": "ab" * 32, "kind": "XenServer"}])
def test_a_new_address_or_trust_clears_the_password_and_says_so(client, moved):
    """OSSA-2026-010: credentials went to an address that whoever could change it had chosen."""
    endpoint = Endpoint.objects.create(**wanted_endpoint(), password="hunter2")

    page = change(client, endpoint, **wanted_endpoint(**moved))

    endpoint.refresh_from_db()
    assert endpoint.password is None
    assert "was cleared" in page.text


def test_libvirt_takes_no_certificate_of_ours(client):
    assert "leave CA certificates" in complaint(add(client, Endpoint, **wanted_endpoint(fingerprint="ab" * 32)))


def test_a_password_given_with_the_new_address_is_kept(client):
    endpoint = Endpoint.objects.create(**wanted_endpoint(), password="hunter2")

    change(client, endpoint, **wanted_endpoint(host="new.example.org", new_password="hunter2"))

    endpoint.refresh_from_db()
    assert endpoint.password == "hunter2"


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": ""},
        {"host": "evil/?command=x"},
        {"transport": "local"},
        {"port": "70000"},
        {"username": "u@x"},
        {"kind": "XenServer", "transport": "ssh"},
        {"kind": "XenServer", "ca_certificates": "none"},
        {"kind": "VMware", "fingerprint": "ab:cd"},
    ],
)
def test_an_endpoint_that_cannot_be_reached_is_refused_on_its_form(client, wrong):
    assert complaint(add(client, Endpoint, **wanted_endpoint(**wrong)))
    assert not Endpoint.objects.exists()


def wanted_host(host, **fields):
    kept = {"name": host.name, "endpoint": host.endpoint_id, "resource_state": "Enabled", "cpus": 1, "mhz": 1}
    return {**kept, "memory": host.memory, **fields}


def test_a_host_keeps_what_its_vms_hold(client):
    host = factories.make_host(reserved_memory=factories.GIB)

    assert "VMs hold" in complaint(change(client, host, **wanted_host(host, memory="5")))


def test_a_host_that_holds_more_than_it_has_can_be_disabled(client):
    host = factories.make_host(memory=factories.GIB, reserved_memory=2 * factories.GIB)

    change(client, host, **wanted_host(host, resource_state="Disabled"))

    host.refresh_from_db()
    assert host.resource_state == "Disabled"


def test_a_host_is_reached_by_an_endpoint_of_its_clusters_kind(client):
    host = factories.make_host()
    xen = factories.make_endpoint(kind="XenServer")

    assert "is for KVM" in complaint(change(client, host, **wanted_host(host, endpoint=xen.pk)))


def test_saving_a_host_leaves_what_the_system_writes_meanwhile(client, monkeypatch):
    host = factories.make_host()
    validate = Host.validate_constraints

    def reserve_meanwhile(self, exclude=None):
        Host.objects.filter(pk=host.pk).update(reserved_memory=7)
        validate(self, exclude)

    monkeypatch.setattr(Host, "validate_constraints", reserve_meanwhile)
    change(client, host, **wanted_host(host, mhz=2222))

    host.refresh_from_db()
    assert (host.mhz, host.reserved_memory) == (2222, 7)


# Accounts


def test_a_domain_is_added_below_another(client):
    parent = factories.make_domain(name="a")

    assert add(client, Domain, name="b", parent=parent.pk).status_code == 302
    assert Domain.objects.get(name="b").path == "ROOT/a/b/"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "x/y"}, "contain a slash"),
        ({"parent": ""}, "required"),
        ({"name": "taken"}, "already"),
        ({"name": ""}, "required"),
    ],
)
def test_a_bad_domain_is_refused_on_its_form(client, wrong, says):
    factories.make_domain(name="taken")

    assert says in complaint(add(client, Domain, **{"name": "d", "parent": Domain.root().pk, **wrong}))


def test_an_accounts_name_is_once_in_its_domain(client):
    account = factories.make_account(name="one")
    factories.make_account(name="two")

    assert "already" in complaint(change(client, account, name="two", role="0"))
    assert "already" in complaint(add(client, Account, name="two", role="0", domain=Domain.root().pk))


def test_a_user_is_added_to_an_account(client):
    account = factories.make_account()
    password = {"usable_password": "true", "password1": "kae1Ohnoopha", "password2": "kae1Ohnoopha"}

    assert add(client, User, username="new", account=account.pk, **password).status_code == 302
    assert User.objects.get(username="new").account == account


def test_a_user_without_an_account_or_a_good_password_is_refused_on_the_form(client):
    response = add(client, User, username="new", usable_password="true", password1="short", password2="short")

    assert set(response.context["adminform"].form.errors) == {"account", "password2"}


def test_only_a_superuser_gives_out_power():
    user = make_root(is_superuser=False)
    user.user_permissions.set(Permission.objects.filter(codename__in=["change_user", "view_user"]))
    client = client_of(user)

    change(client, user, username=user.username, is_active="on", is_staff="on", is_superuser="on")

    user.refresh_from_db()
    assert not user.is_superuser
    assert change(client, make_root(), username="taken-over").status_code == 403


def test_a_disabled_api_key_lets_nobody_in(client):
    factories.make_api_key()

    act(client, "disable", ApiKey.objects.get())

    assert not ApiKey.objects.usable().exists()


# Settings


def test_a_setting_is_changed_by_its_name(client):
    response = client.post("/admin/configuration/setting/default.page.size/change/", {"value": "25"})

    assert response.status_code == 302
    assert PAGE_SIZE.get() == 25
    assert Event.objects.filter(type=EventType.CONFIGURATION_EDIT).exists()
    assert "25" in client.get("/admin/configuration/setting/").text


def test_a_bad_value_is_refused_on_the_form(client):
    response = client.post("/admin/configuration/setting/default.page.size/change/", {"value": "many"})

    assert "must be a whole number" in complaint(response)
    assert not Setting.objects.filter(name="default.page.size").exists()


def test_a_setting_that_is_not_defined_has_no_page(client):
    assert client.get("/admin/configuration/setting/no.such/change/", follow=True).redirect_chain


# VMs


def test_a_vm_is_stopped_by_a_job(client):
    vm = factories.make_running_vm()

    page = act(client, "stop", vm)

    assert AsyncJob.objects.get().command == "stopVirtualMachine"
    assert "1 job submitted" in page.text


def test_a_vm_that_cannot_is_named_and_the_others_go_on(client):
    stopped, running = factories.make_vm(name="Asleep"), factories.make_running_vm()

    page = act(client, "stop", stopped, running)

    assert "Asleep is Stopped" in page.text
    assert VirtualMachine.objects.get(pk=running.pk).state == "Stopping"


def test_destroying_asks_first(client):
    vm = factories.make_running_vm(name="doomed")

    page = act(client, "destroy", vm)
    assert "doomed" in page.text
    assert not AsyncJob.objects.exists()

    act(client, "destroy", vm, confirmed="yes")
    assert AsyncJob.objects.get().command == "destroyVirtualMachine"


def test_looking_at_vms_does_not_let_one_destroy_them():
    user = make_root(is_superuser=False)
    user.user_permissions.set(Permission.objects.filter(codename="view_virtualmachine"))

    act(client_of(user), "destroy", factories.make_running_vm(), confirmed="yes")

    assert not AsyncJob.objects.exists()


# Address discovery


def test_a_zones_order_of_sources_is_kept(client):
    zone = factories.make_zone()
    given = {"zone": zone.pk, "hypervisor": "KVM", "os_family": "Linux", "sources": "lease, agent"}
    assert add(client, AddressChain, **given).status_code == 302

    chain = AddressChain.objects.get()
    change(client, chain, sources="disk,agent", zone=factories.make_zone().pk, os_family="Windows")

    chain.refresh_from_db()
    assert [source.value for source in chain.ordered] == ["disk", "agent"]
    assert (chain.zone, chain.os_family) == (zone, "Linux")


@pytest.mark.parametrize("sources", ["", "gossip", "agent, agent", "agent lease", "webhook", "AGENT", "<b>", ","])
def test_an_order_that_is_none_is_refused(client, sources):
    given = {"zone": factories.make_zone().pk, "hypervisor": "KVM", "os_family": "Linux", "sources": sources}

    said = complaint(add(client, AddressChain, **given))

    assert "Some of agent, lease, arp, disk, each once" in said or "required" in said
    assert not AddressChain.objects.exists()


def test_a_kind_of_guest_has_one_order(client):
    zone = factories.make_zone()
    given = {"zone": zone.pk, "hypervisor": "KVM", "os_family": "Linux", "sources": "agent"}
    add(client, AddressChain, **given)

    assert "already exists" in complaint(add(client, AddressChain, **given))
