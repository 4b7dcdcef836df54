"""Somebody else's object, named in a command about one's own: who knows an id has no right by that.

Each parameter of each command is in the matrices of tests/api/test_policy.py and test_route_policy.py; here are the
stories of those before us, from end to end, and the ways past the matrices: names, searches, words in a text.
"""

import base64
import json
from uuid import uuid4

import pytest
from django.test import Client

from extdhcp_site.accounts.models import Role, User
from extdhcp_site.events import models as events
from extdhcp_site.jobs.models import AsyncJob
from ipfetch.models import create_lease_token
from networks.models import Network, Nic, SshKeyPair, VirtualMachine
from networks.models.networks import AclType
from tests.api.client import Rest, Signer, refused
from tests.api.test_keys import LINE
from tests.factories import (
    make_account,
    make_cluster,
    make_domain,
    make_host,
    make_network,
    make_network_offering,
    make_running_vm,
    make_service_offering,
    make_template,
    make_user,
    make_vm,
    make_zone,
)

pytestmark = pytest.mark.django_db

SECRET = base64.b64encode(b"#!/bin/sh\n# the victim's own\n").decode()
PERSON = {"password": "correct horse battery", "firstname": "E", "lastname": "E", "email": "e@example.com"}


@pytest.fixture(params=[Role.USER, Role.DOMAIN_ADMIN], ids=str)
def stranger(request, db) -> Signer:
    """Of a domain beside the victim's."""
    return Signer.of(make_account(request.param, make_domain()))


@pytest.fixture
def victim(db) -> Signer:
    return Signer.of(make_account(domain=make_domain()))


@pytest.fixture
def theirs(victim) -> VirtualMachine:
    return make_vm(victim.user.account, user_data=SECRET, name="crown-jewels")


def like_nothing(caller: Signer, command: str, parameter: str, uuid: object, **params: object) -> None:
    """The answer is, but for the id, the one for an object that never was."""
    answer = caller.call(command, **{parameter: uuid}, **params)
    never = uuid4()
    nothing = caller.call(command, **{parameter: never}, **params)
    assert answer.status == nothing.status == 431, answer
    assert json.dumps(answer.body).replace(str(uuid), str(never)) == json.dumps(nothing.body)


def deploy(caller: Signer, network: Network, **params: object):
    wanted = {
        "zoneid": network.zone.uuid,
        "templateid": make_template().uuid,
        "serviceofferingid": make_service_offering().uuid,
        "networkids": network.uuid,
        **params,
    }
    return caller.call("deployVirtualMachine", **wanted)


@pytest.mark.parametrize(
    ("command", "parameter", "params"),
    [
        ("getVirtualMachineUserData", "virtualmachineid", {}),
        ("listVirtualMachines", "id", {"userdata": "true", "listall": "true"}),
        ("updateVirtualMachine", "id", {"userdata": "aGk="}),
        ("resetUserDataForVirtualMachine", "id", {"userdata": "aGk="}),
    ],
)
def test_anothers_user_data(stranger, theirs, command, parameter, params):
    """CVE-2026-50222 (CloudStack): deploy, update and reset took, and showed, other tenants' user data; here their VM
    answers as one that does not exist, and keeps what it has.
    """
    like_nothing(stranger, command, parameter, theirs.uuid, **params)
    theirs.refresh_from_db()
    assert theirs.user_data == SECRET


@pytest.mark.parametrize("command", ["deployVirtualMachine", "updateVirtualMachine", "resetUserDataForVirtualMachine"])
def test_user_data_is_not_named_by_an_id(user, command):
    """CVE-2026-50222 (CloudStack): `userdataid` named another tenant's; here user data has no id at all."""
    vm, network = make_vm(user.user.account), make_network()
    params = {"userdataid": uuid4(), "id": vm.uuid}
    answer = deploy(user, network, **params) if command.startswith("deploy") else user.call(command, **params)
    refused(answer, "not in this product")


def test_anothers_disk_is_no_backup_to_restore_from(stranger, theirs):
    """CVE-2025-66171, CVE-2025-66172 (CloudStack): own VMs were made of other accounts' backups; here a VM is restored
    of its own template only, and of nobody else's VM.
    """
    own = make_vm(stranger.user.account)
    private = make_template(theirs.account, public=False)
    like_nothing(stranger, "restoreVirtualMachine", "templateid", private.uuid, virtualmachineid=own.uuid)
    refused(stranger.call("restoreVirtualMachine", virtualmachineid=own.uuid, templateid=make_template().uuid))
    like_nothing(stranger, "restoreVirtualMachine", "virtualmachineid", theirs.uuid)
    assert not AsyncJob.objects.exists()


@pytest.mark.parametrize("parameter", ["hostid", "clusterid", "podid"])
def test_a_place_that_one_does_not_see(stranger, parameter):
    """CVE-2026-62440 (CloudStack): a cluster was used that its caller had no access to; here users see no places."""
    host = make_host()
    place = {"hostid": host, "clusterid": host.cluster, "podid": host.cluster.pod}[parameter]
    own = make_vm(stranger.user.account, zone=host.cluster.pod.zone)
    like_nothing(stranger, "startVirtualMachine", parameter, place.uuid, id=own.uuid)
    assert not AsyncJob.objects.exists()


def test_a_lease_token_tells_and_changes_nothing_of_another_network(victim):
    """CVE-2026-65613 (CloudStack): webhook deliveries of others were listed and sent again by their id; here a token
    is of one network, and a NIC of another answers like one that there is not.
    """
    nic = make_running_vm(account=victim.user.account).nics.get()
    token = create_lease_token(make_network(), "their own DHCP server")

    def report(mac: str):
        body = {"event": "add", "mac": mac, "ip": "192.0.2.130"}
        headers = {"authorization": f"Bearer {token}"}
        return Client().post("/api/v1/leases/", json.dumps(body), content_type="application/json", headers=headers)

    known, unknown = report(nic.mac_address), report("06:00:00:00:00:01")

    assert (known.status_code, known.content) == (unknown.status_code, unknown.content) == (202, b'{"accepted":true}')
    nic.refresh_from_db()
    assert nic.ip4_address is None


@pytest.mark.parametrize("projectid", [uuid4(), "1", "0"])
def test_projects_and_their_roles(user, projectid):
    """CVE-2026-66722 (CloudStack): roles of other projects were used; here naming any project is refused."""
    refused(deploy(user, make_network(), projectid=projectid), "not in this product")
    assert not VirtualMachine.objects.exists()


@pytest.mark.parametrize("command", ["createTags", "deleteTags"])
def test_an_annotation_by_who_knows_the_uuid(stranger, theirs, command):
    """CVE-2025-22828, CVE-2026-66797 (CloudStack): whoever knew a UUID annotated it; the check was made and its result
    ignored; here tags go on what one answers for only.
    """
    theirs.tags.create(key="role", value="db")
    entry = {"resourcetype": "UserVm", "tags[0].key": "role", "tags[0].value": "db"}
    like_nothing(stranger, command, "resourceids", theirs.uuid, **entry)
    assert [str(tag) for tag in theirs.tags.all()] == ["role=db"]


@pytest.mark.parametrize("command", ["updateUser", "registerUserKeys", "getUserKeys"])
def test_a_user_by_id(stranger, victim, command):
    """CVE-2016-6813 (CloudStack): registerUserKeys reset anybody's keys. CVE-2026-113610, CVE-2021-36383 (Xen
    Orchestra): user.set took any id; here somebody else answers as nobody.
    """
    like_nothing(stranger, command, "id", victim.user.uuid, password="another long password")
    assert victim.call("listZones").status == 200
    assert User.objects.get(pk=victim.user.pk).check_password("a long password")


@pytest.mark.parametrize("acl_type", AclType)
def test_ones_own_vm_in_anothers_network(stranger, victim, acl_type):
    """OSSA-2012-001 (Nova): a request made by hand went around the tenant; here what it names is looked for among
    what the caller may see.
    """
    network = make_network(account=victim.user.account, domain=victim.user.account.domain, acl_type=acl_type)
    like_nothing(
        stranger, "deployVirtualMachine", "networkids", network.uuid, zoneid=network.zone.uuid,
        templateid=make_template().uuid, serviceofferingid=make_service_offering().uuid,
    )  # fmt: skip
    own = make_vm(stranger.user.account, zone=network.zone)
    like_nothing(stranger, "addNicToVirtualMachine", "networkid", network.uuid, virtualmachineid=own.uuid)
    assert not Nic.objects.filter(network=network).exists()


def test_an_administrator_gives_an_account_nothing_that_it_could_not_take(root, victim):
    """What one may see oneself, one hands to nobody who may not: neither a template nor a zone nor a network."""
    account, network = victim.user.account, make_network()
    owner = {"account": account.name, "domainid": account.domain.uuid}
    hidden = make_zone(domain=make_domain())
    for given in (
        {"network": network, "templateid": make_template(public=False).uuid},
        {"network": make_network(hidden)},
        {"network": make_network(account=make_account(domain=make_domain()))},
        {"network": make_network(acl_type=AclType.ACCOUNT)},
    ):
        refused(deploy(root, **given, **owner), f"Account {account.name} may not use")
    assert not VirtualMachine.objects.exists()
    assert deploy(root, network, **owner).status == 200

    vm = VirtualMachine.objects.get()
    elsewhere = make_network(vm.zone, make_account(domain=make_domain()))
    refused(root.call("addNicToVirtualMachine", virtualmachineid=vm.uuid, networkid=elsewhere.uuid), "may not use")


def test_a_domain_admins_network_is_for_their_own_domain(domain_admin):
    """Of the root domain it would be for everybody of the zone."""
    answer = domain_admin.call(
        "createNetwork",
        name="office",
        zoneid=make_zone().uuid,
        networkofferingid=make_network_offering(specify_vlan=False).uuid,
        gateway="192.0.2.1",
        netmask="255.255.255.0",
        startip="192.0.2.5",
        endip="192.0.2.9",
    )
    assert answer.status == 200, answer
    assert Network.objects.get().domain == domain_admin.user.account.domain


def test_a_key_pair_of_the_same_name(user, victim):
    for owner, comment in ((user, "mine"), (victim, "theirs")):
        SshKeyPair.objects.create(account=owner.user.account, name="laptop", public_key=f"{LINE} {comment}")
    SshKeyPair.objects.create(account=victim.user.account, name="only-theirs", public_key=LINE)
    network = make_network()

    assert deploy(user, network, keypair="laptop").status == 200
    assert VirtualMachine.objects.get().ssh_keys == [{"name": "laptop", "public_key": f"{LINE} mine"}]
    answers = [deploy(user, network, keypair=name).text for name in ("only-theirs", "nobodys")]
    assert answers[0].replace("only-theirs", "nobodys") == answers[1]


@pytest.mark.parametrize("name", ["macaddress", "customid", "uuid", "hypervisoruuid", "instancename", "internalname"])
def test_nobody_chooses_which_guest_is_driven(user, name):
    """CVE-2026-25199 (CloudStack): what a user wrote decided which of a hypervisor's VMs was driven; here a VM is known
    to its host by ids that are made here, and what a deploy says of them is refused or reaches nothing.
    """
    victim = make_running_vm()
    value = victim.nics.get().mac_address if name == "macaddress" else victim.uuid
    deploy(user, make_network(), **{name: value})
    for vm in VirtualMachine.objects.exclude(pk=victim.pk):
        assert vm.uuid != victim.uuid
        assert vm.instance_name != victim.instance_name
        assert vm.nics.get().mac_address != victim.nics.get().mac_address


def test_an_address_of_anothers_guest(user, victim):
    """A guest claims what is another's by registering or pinning it: refused, and the other's name is not told."""
    network = make_network()
    other = make_running_vm(account=victim.user.account, networks=[network], name="crown-jewels").nics.get()
    Nic.objects.filter(pk=other.pk).update(ip4_address="192.0.2.130", address_state="confirmed")
    own = make_vm(user.user.account, networks=[network]).nics.get()
    for command in ("updateVmNicIp", "addIpToNic"):
        answer = user.call(command, nicid=own.uuid, ipaddress="192.0.2.130")
        refused(answer, "in use")
        assert "crown-jewels" not in answer.text
        assert other.mac_address not in answer.text
    other.refresh_from_db()
    assert other.ip4_address == "192.0.2.130"


SEARCHED = [
    ("listVirtualMachines", {"keyword": "crown-jewels"}),
    ("listVirtualMachines", {"name": "crown-jewels"}),
    ("listVolumes", {"keyword": "crown-jewels"}),
    ("listNetworks", {"keyword": "crown-jewels"}),
    ("listSSHKeyPairs", {"keyword": "crown-jewels"}),
    ("listSSHKeyPairs", {"name": "crown-jewels"}),
    ("listTags", {"keyword": "crown-jewels"}),
    ("listTags", {"key": "crown-jewels"}),
    ("listTemplates", {"keyword": "crown-jewels", "templatefilter": "all"}),
    ("listEvents", {"keyword": "crown-jewels"}),
    ("listUsers", {"keyword": "crown-jewels"}),
    ("listAccounts", {"keyword": "crown-jewels"}),
    ("listDomains", {"keyword": "crown-jewels"}),
    ("listZones", {"keyword": "crown-jewels"}),
]


@pytest.mark.parametrize(("command", "asked"), SEARCHED, ids=lambda given: given if isinstance(given, str) else "")
def test_a_search_finds_nothing_of_others(stranger, root, command, asked):
    """GHSA-32w2-6gm2-7766 (NetBox): a search, an export, a related object passed over who may see what."""
    domain = make_domain(name="crown-jewels")
    account = make_account(domain=domain, name="crown-jewels")
    make_user(account, username="crown-jewels")
    network = make_network(make_zone(name="crown-jewels", domain=domain), account, name="crown-jewels")
    vm = make_vm(account, networks=[network], name="crown-jewels")
    vm.tags.create(key="crown-jewels", value="crown-jewels")
    make_template(account, public=False, name="crown-jewels")
    SshKeyPair.objects.create(account=account, name="crown-jewels", public_key=LINE)
    events.record(events.EventType.VM_CREATE, "crown-jewels", account=account, on=vm)

    assert stranger.call(command, listall="true", **asked).body == {}
    assert root.call(command, listall="true", **asked).body["count"] == 1


@pytest.mark.parametrize(
    ("route", "asked"),
    [
        ("vms", {"name": "crown-jewels"}),
        ("nics", {"ip4_address": "192.0.2.130"}),
        ("ssh-key-pairs", {"name": "crown-jewels"}),
        ("users", {"username": "crown-jewels"}),
        ("events", {"type": "VM.CREATE"}),
    ],
)
def test_a_filter_of_rest_finds_nothing_of_others(stranger, root, route, asked):
    """GHSA-32w2-6gm2-7766 (NetBox), by REST."""
    account = make_account(domain=make_domain())
    make_user(account, username="crown-jewels")
    vm = make_vm(account, name="crown-jewels")
    vm.nics.update(ip4_address="192.0.2.130")
    SshKeyPair.objects.create(account=account, name="crown-jewels", public_key=LINE)
    events.record(events.EventType.VM_CREATE, "crown-jewels", account=account, on=vm)

    assert Rest.of(stranger).get(route, **asked).json()["results"] == []
    assert len(Rest.of(root).get(route, **asked).json()["results"]) == 1


def test_nothing_of_a_guest_is_served_to_who_guesses_its_id(theirs):
    """CVE-2013-6419 (Nova): metadata of another tenant's guest by its id; here what is served without a log-in holds
    nothing of any guest.
    """
    for path in (f"/guest/{theirs.uuid}", f"/guest/{theirs.name}", "/guest/meta_data.json", "/guest/user_data"):
        answer = Client().get(path)
        assert answer.status_code == 404
        assert SECRET not in answer.text


@pytest.mark.parametrize("role", [Role.ROOT_ADMIN, Role.DOMAIN_ADMIN])
def test_a_key_makes_nobody_more_powerful_than_itself(user, domain_admin, role):
    """OSSA-2026-005 (Keystone): a restricted credential made an unrestricted one. CVE-2025-47713 (CloudStack)."""
    type = {"accounttype": int(role)}
    assert user.call("createAccount", username="eve", **PERSON, **type).status == 432
    assert user.call("createUser", username="eve", account=user.user.account.name, **PERSON).status == 432
    if role == Role.ROOT_ADMIN:
        assert domain_admin.call("createAccount", username="eve", **PERSON, **type).status == 531
        body = {"username": "eve", **PERSON, **type}
        assert Rest.of(domain_admin).post("accounts", body).status_code == 403
    assert not User.objects.filter(username="eve").exists()


def test_a_cluster_is_not_told_by_a_zone_that_one_does_not_see(stranger):
    zone = make_zone(domain=make_domain())
    make_cluster(zone)
    assert stranger.call("listHypervisors").body == {}
