"""Small worlds for tests: each function names only what a test is about."""

import itertools

from extdhcp_site.accounts.models import Account, Caller, Domain, NewApiKey, Role, User, create_api_key
from networks.hypervisors.base import Transport
from networks.models import (
    Cluster,
    Endpoint,
    GuestType,
    Host,
    Network,
    NetworkOffering,
    Nic,
    OfferedService,
    Pod,
    PrimaryStorage,
    ServiceOffering,
    Template,
    VirtualMachine,
    VmState,
    Volume,
    Zone,
)
from networks.models.infrastructure import AllocationState
from networks.models.offerings import TemplateFormat
from networks.services import capacity

_numbers = itertools.count(1)
GIB = 1024**3


def _name(kind: str) -> str:
    return f"{kind}-{next(_numbers)}"


def make_domain(parent: Domain | None = None, **fields) -> Domain:
    return Domain.objects.create(parent=parent or Domain.root(), **{"name": _name("domain"), **fields})


def make_account(role: Role = Role.USER, domain: Domain | None = None, **fields) -> Account:
    return Account.objects.create(role=role, domain=domain or Domain.root(), **{"name": _name("account"), **fields})


def make_user(account: Account | None = None, **fields) -> User:
    return User.objects.create_user(
        account=account or make_account(), **{"username": _name("user"), "password": "a long password", **fields}
    )


def make_caller(role: Role = Role.USER, domain: Domain | None = None) -> Caller:
    return Caller.of(make_user(make_account(role, domain)))


def make_api_key(user: User | None = None) -> NewApiKey:
    return create_api_key(user or make_user())


def make_zone(**fields) -> Zone:
    return Zone.objects.create(**{"name": _name("zone"), **fields})


def make_endpoint(**fields) -> Endpoint:
    return Endpoint.objects.create(**{"name": _name("endpoint"), "transport": Transport.TEST, **fields})


def make_cluster(zone: Zone | None = None) -> Cluster:
    pod = Pod.objects.create(zone=zone or make_zone(), name=_name("pod"))
    cluster = Cluster.objects.create(pod=pod, name=_name("cluster"), hypervisor="KVM")
    PrimaryStorage.objects.create(cluster=cluster, name="default-pool")
    return cluster


def make_host(cluster: Cluster | None = None, **fields) -> Host:
    fields = {"name": _name("host"), "cpus": 8, "mhz": 2000, "memory": 16 * GIB, **fields}
    return Host.objects.create(
        cluster=cluster or make_cluster(), endpoint=fields.pop("endpoint", None) or make_endpoint(), **fields
    )


def make_service_offering(**fields) -> ServiceOffering:
    return ServiceOffering.objects.create(**{"name": _name("offering"), "memory_mib": 512, **fields})


def make_template(account: Account | None = None, **fields) -> Template:
    fields = {"name": _name("template"), "public": True, "format": TemplateFormat.KERNEL, **fields}
    if fields["format"] == TemplateFormat.KERNEL:
        fields = {"kernel": "/boot/vmlinuz", "initrd": "/boot/initrd", **fields}
    return Template.objects.create(account=account or make_account(), **fields)


def make_network_offering(services: dict[str, str] | None = None, **fields) -> NetworkOffering:
    fields = {"name": _name("network-offering"), "display_text": "x", "state": AllocationState.ENABLED, **fields}
    offering = NetworkOffering.objects.create(**fields)
    for service, provider in (services or {}).items():
        OfferedService.objects.create(offering=offering, service=service, provider=provider)
    return offering


def make_network(zone: Zone | None = None, account: Account | None = None, **fields) -> Network:
    account = account or make_account()
    fields = {
        "name": _name("network"),
        "vlan": next(_numbers) % 4000 + 1,
        "domain": account.domain,
        "cidr": "192.0.2.0/24",
        "gateway": "192.0.2.1",
        "start_ip": "192.0.2.100",
        "end_ip": "192.0.2.199",
        **fields,
    }
    return Network.objects.create(
        zone=zone or make_zone(),
        account=account,
        offering=fields.pop("offering", None) or make_network_offering(),
        **fields,
    )


def make_l2_network(**fields) -> Network:
    blank = {"cidr": "", "gateway": None, "start_ip": None, "end_ip": None}
    return make_network(offering=make_network_offering(guest_type=GuestType.L2), **{**blank, **fields})


def make_vm(account: Account | None = None, networks: list[Network] | None = None, **fields) -> VirtualMachine:
    """A stopped VM, or in whatever state is given; a running one is on a host."""
    zone = fields.pop("zone", None) or (networks[0].zone if networks else make_zone())
    fields = {"name": _name("vm"), "hypervisor": "KVM", "state": VmState.STOPPED, **fields}
    if fields["state"] in (VmState.RUNNING, VmState.MIGRATING) and "host" not in fields:
        fields["host"] = make_host(make_cluster(zone))
    vm = VirtualMachine.objects.create(
        account=account or make_account(),
        zone=zone,
        service_offering=fields.pop("service_offering", None) or make_service_offering(),
        template=fields.pop("template", None) or make_template(),
        taken_name=fields["name"].lower(),
        **fields,
    )
    if vm.host:
        assert capacity.reserve(vm.host, vm), "the factory's host is too small for the factory's VM"
    Volume.objects.create(vm=vm)
    for device, network in enumerate(networks or [make_network(zone)]):
        Nic.objects.create(vm=vm, network=network, device_id=device, is_default=device == 0)
    return vm


def make_running_vm(**fields) -> VirtualMachine:
    return make_vm(state=VmState.RUNNING, **fields)
