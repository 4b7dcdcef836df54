"""What one request has found may have gone by the time that it writes: another does the other thing in between."""

from collections.abc import Callable

import pytest

from extdhcp_site.accounts.models import Account, Domain, Role, User
from extdhcp_site.api import parameters
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import Network, Nic, SshKeyPair, Template, VirtualMachine
from networks.services.nics import drop_nic
from tests.api.client import Signer, refused
from tests.factories import (
    make_account,
    make_domain,
    make_network,
    make_network_offering,
    make_service_offering,
    make_template,
    make_user,
    make_vm,
    make_zone,
)

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

RANGE = {
    "vlan": 77,
    "gateway": "192.0.2.1",
    "netmask": "255.255.255.0",
    "startip": "192.0.2.5",
    "endip": "192.0.2.9",
}
PERSON = {
    "username": "eve",
    "password": "correct horse battery",
    "firstname": "E",
    "lastname": "E",
    "email": "e@example.com",
}


@pytest.fixture
def root(transactional_db) -> Signer:
    return Signer.of(make_account(Role.ROOT_ADMIN))


@pytest.fixture
def user(transactional_db) -> Signer:
    return Signer.of(make_account(domain=make_domain()))


@pytest.fixture
def meanwhile(monkeypatch) -> Callable[[Callable[[], object]], None]:
    """`meanwhile(act)`: `act` is done once, right after the next request's parameters were found good."""
    acts: list[Callable[[], object]] = []
    validate = parameters.validate

    def validate_then_act(*args, **kwargs):
        values = validate(*args, **kwargs)
        if acts:
            acts.pop()()
        return values

    monkeypatch.setattr(parameters, "validate", validate_then_act)
    return acts.append


def done(signer: Signer, command: str, **params: object) -> None:
    answer = signer.call(command, **params)
    assert answer.status == 200, answer.body
    for job in AsyncJob.objects.pending():
        jobs.run(job.pk, job.attempt)


def deploy(signer: Signer, **given: object):
    network = given.pop("network", None) or make_network()
    wanted = {
        "zoneid": network.zone.uuid,
        "networkids": network.uuid,
        "templateid": make_template().uuid,
        "serviceofferingid": make_service_offering().uuid,
        **given,
    }
    return signer.call("deployVirtualMachine", **wanted)


class TestAnOwnerThatIsDeleted:
    @pytest.fixture(autouse=True)
    def _deleted(self, root, user, meanwhile) -> None:
        meanwhile(lambda: done(root, "deleteAccount", id=user.caller.account.uuid))

    def test_gets_no_vm(self, user):
        refused(deploy(user), "has been deleted meanwhile")
        assert not VirtualMachine.objects.exists()

    def test_gets_no_key_pair(self, user):
        refused(user.call("createSSHKeyPair", name="x"), "has been deleted meanwhile")
        assert not SshKeyPair.objects.exists()

    def test_gets_no_user(self, root, user):
        account = user.caller.account
        answer = root.call("createUser", **PERSON, account=account.name, domainid=account.domain.uuid, method="post")
        refused(answer, "has been deleted meanwhile")
        assert not User.objects.filter(username="eve").exists()

    def test_gets_no_network(self, root, user):
        account, offering = user.caller.account, make_network_offering()
        of = {"account": account.name, "domainid": account.domain.uuid, "acltype": "account"}
        answer = root.call(
            "createNetwork", name="n", zoneid=make_zone().uuid, networkofferingid=offering.uuid, **of, **RANGE
        )
        refused(answer, "has been deleted meanwhile")
        assert not Network.objects.exists()

    def test_gets_no_template(self, root, user):
        account = user.caller.account
        wanted = {"name": "t", "format": "QCOW2", "hypervisor": "KVM", "url": "t.qcow2"}
        answer = root.call("registerTemplate", **wanted, account=account.name, domainid=account.domain.uuid)
        refused(answer, "has been deleted meanwhile")
        assert not Template.objects.exists()

    def test_gets_no_name(self, root, user):
        """Its row would hold the name for ever, and nobody could be called so again."""
        account = user.caller.account
        refused(root.call("updateAccount", id=account.uuid, newname="acme"), "has been deleted meanwhile")
        assert not Account.objects.filter(name="acme").exists()


class TestADomainThatIsDeleted:
    @pytest.fixture
    def domain(self, root, meanwhile) -> Domain:
        domain = make_domain()
        meanwhile(lambda: done(root, "deleteDomain", id=domain.uuid))
        return domain

    def test_gets_no_account(self, root, domain):
        answer = root.call("createAccount", account="q", domainid=domain.uuid, **PERSON, method="post")
        refused(answer, "has been deleted meanwhile")
        assert not Account.objects.filter(name="q").exists()

    def test_gets_no_domain_below_it(self, root, domain):
        """It would belong to whoever makes a domain of the same name next."""
        refused(root.call("createDomain", name="kid", parentdomainid=domain.uuid), "has been deleted meanwhile")
        assert not Domain.objects.filter(name="kid").exists()


def test_a_deleted_user_gets_neither_name_nor_password_back(root, meanwhile):
    gone = make_user(make_account(domain=make_domain()))
    meanwhile(lambda: done(root, "deleteUser", id=gone.uuid))

    answer = root.call("updateUser", id=gone.uuid, username="carol", password="correct horse battery", method="post")

    refused(answer, "has been deleted meanwhile")
    gone.refresh_from_db()
    assert (gone.username != "carol", gone.has_usable_password()) == (True, False)


# An object that went is told of as one that was never there.


@pytest.mark.parametrize("what", ["network", "template", "serviceoffering"])
def test_a_deploy_from_what_is_deleted(root, user, meanwhile, what):
    network = make_network()
    ids = {
        "network": network.uuid,
        "template": make_template().uuid,
        "serviceoffering": make_service_offering().uuid,
    }
    command = {"network": "deleteNetwork", "template": "deleteTemplate", "serviceoffering": "deleteServiceOffering"}
    meanwhile(lambda: done(root, command[what], id=ids[what]))

    answer = deploy(user, network=network, templateid=ids["template"], serviceofferingid=ids["serviceoffering"])

    refused(answer, str(ids[what]))
    assert not VirtualMachine.objects.exists()


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("createTags", {"resourcetype": "UserVm", "resourceids": "{vm}", "tags[0].key": "a", "tags[0].value": "b"}),
        ("startVirtualMachine", {"id": "{vm}"}),
        ("addNicToVirtualMachine", {"virtualmachineid": "{vm}", "networkid": "{other}"}),
        ("resetUserDataForVirtualMachine", {"id": "{vm}", "userdata": "aGk="}),
        ("updateVirtualMachine", {"id": "{vm}", "displayname": "x"}),
        ("changeServiceForVirtualMachine", {"id": "{vm}", "serviceofferingid": "{offering}"}),
        ("removeNicFromVirtualMachine", {"virtualmachineid": "{vm}", "nicid": "{nic}"}),
        ("migrateVirtualMachine", {"virtualmachineid": "{vm}"}),
        ("resetPasswordForVirtualMachine", {"id": "{vm}"}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_vm_that_is_expunged(root, meanwhile, command, params):
    vm, other = _vm_of_two_nics()
    ids = {"vm": vm.uuid, "nic": vm.nics.get(device_id=1).uuid, "other": other.uuid}
    ids["offering"] = make_service_offering().uuid
    meanwhile(VirtualMachine.objects.get(pk=vm.pk).delete)

    refused(root.call(command, **{name: value.format(**ids) for name, value in params.items()}), str(vm.uuid))


@pytest.mark.parametrize(
    ("command", "params"),
    [
        ("addIpToNic", {"ipaddress": "192.0.2.77"}),
        ("updateVmNicIp", {"ipaddress": "192.0.2.78"}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_nic_whose_vm_is_expunged(root, meanwhile, command, params):
    vm, _ = _vm_of_two_nics()
    nic = vm.nics.get(device_id=1)
    meanwhile(VirtualMachine.objects.get(pk=vm.pk).delete)

    refused(root.call(command, nicid=nic.uuid, **params), str(nic.uuid))


def test_a_nic_that_is_removed_becomes_no_default(root, meanwhile):
    vm, _ = _vm_of_two_nics()
    nic = vm.nics.filter(is_default=False).first()
    meanwhile(lambda: drop_nic(Nic.objects.get(pk=nic.pk)))

    answer = root.call("updateDefaultNicForVirtualMachine", virtualmachineid=vm.uuid, nicid=nic.uuid)

    refused(answer, str(nic.uuid))


def test_a_network_of_an_offering_that_is_deleted(root, meanwhile):
    offering = make_network_offering()
    meanwhile(lambda: done(root, "deleteNetworkOffering", id=offering.uuid))

    answer = root.call("createNetwork", name="n", zoneid=make_zone().uuid, networkofferingid=offering.uuid, **RANGE)

    refused(answer, str(offering.uuid))


def _vm_of_two_nics() -> tuple[VirtualMachine, Network]:
    """And another network of its zone."""
    zone = make_zone()
    networks = [make_network(zone), make_network(zone)]
    return make_vm(networks=networks, template=make_template(password_enabled=True)), make_network(zone)
