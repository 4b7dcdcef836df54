"""What a cloud admin sets up once: `python -m tests.seed demo|lab|shots|clients`, or `python -m tests.seed pool JSON`.

Runs in a process of its own, on the server's database.
"""

import json
import sys
from dataclasses import asdict

import django

django.setup()

from extdhcp_site.accounts.models import Account, Domain, User, create_api_key  # noqa: E402 - models need Django set up
from networks.hypervisors.base import Transport  # noqa: E402
from networks.models import (  # noqa: E402
    Cluster,
    Endpoint,
    Host,
    Network,
    NetworkOffering,
    Nic,
    Pod,
    PrimaryStorage,
    ServiceOffering,
    Template,
    VirtualMachine,
    Zone,
)
from networks.models.infrastructure import AllocationState  # noqa: E402
from networks.models.offerings import TemplateFormat  # noqa: E402

GIB = 1024**3
# More than the largest page, which is 500.
CROWD = 600


def demo() -> None:
    _invented_cloud(memory=3 * GIB)


def shots() -> None:
    """The demo's cloud on a host with room."""
    _invented_cloud(memory=64 * GIB)


def clients() -> None:
    """The demo's cloud with its network, larger, and three users of it, whose keys are printed as JSON."""
    _invented_cloud(memory=64 * GIB)
    ServiceOffering.objects.create(name="Larger Instance", cpus=2, mhz=500, memory_mib=1024)
    ServiceOffering.objects.create(name="Larger than any host", cpus=1, mhz=500, memory_mib=1024 * 1024)
    offering = NetworkOffering.objects.create(
        name="external-dhcp", display_text="No services", state=AllocationState.ENABLED
    )
    for vlan in (100, 200):
        _network(f"corporate-{vlan}", offering, vlan)
    maria, olga, crowd = _user("maria"), _user("olga"), _user("crowd")
    _stopped_vms(crowd.account, CROWD)
    print(json.dumps({user.username: asdict(create_api_key(user)) for user in (maria, olga, crowd)}))


def _invented_cloud(memory: int) -> None:
    cluster = _cluster("demo", storage="default-pool")
    _host(cluster, "kvm-demo", memory=memory, transport=Transport.TEST.value)
    ServiceOffering.objects.create(name="Small Instance", cpus=1, mhz=500, memory_mib=512)
    _template("invented-linux", format=TemplateFormat.KERNEL, kernel="/boot/vmlinuz", initrd="/boot/initrd.img")


def lab() -> None:
    from tests.lab import describe

    lab = describe()
    cluster = _cluster("lab", storage=lab.image_pool)
    for host in lab.hosts:
        _host(cluster, host.name, memory=4 * GIB, transport=Transport.TCP.value, address=str(host.address))
    ServiceOffering.objects.create(name="Tiny", cpus=1, mhz=500, memory_mib=192)
    ServiceOffering.objects.create(name="Small", cpus=2, mhz=500, memory_mib=1024)
    kernel = {
        "format": TemplateFormat.KERNEL,
        "kernel": str(lab.guest.kernel),
        "initrd": str(lab.guest.initrd),
        "command_line": lab.guest_command_line,
    }
    _template("small-linux", **kernel)
    _template("small-linux-needs-drive", **kernel, drive_required=True)
    _template("small-linux-disk", format=TemplateFormat.QCOW2, image=lab.guest.disk.name)
    # Somebody who owns none of the VMs.
    _user("stranger")


def pool(described: str) -> None:
    """A pool or a vCenter with its hosts, as JSON describes them."""
    world = json.loads(described)
    zone = Zone.objects.create(name=world["kind"], dns1="192.0.2.53")
    pod = Pod.objects.create(zone=zone, name="rack-1")
    cluster = Cluster.objects.create(pod=pod, name="cluster", hypervisor=world["kind"])
    PrimaryStorage.objects.create(cluster=cluster, name=world["storage"])
    endpoint = Endpoint.objects.create(name="pool", kind=world["kind"], **world["endpoint"])
    for name in world["hosts"]:
        Host.objects.create(name=name, cluster=cluster, endpoint=endpoint, cpus=4, mhz=2000, memory=2 * GIB)
    ServiceOffering.objects.create(name="Small Instance", cpus=1, mhz=500, memory_mib=512)


def _user(name: str) -> User:
    return User.objects.create_user(name, account=Account.objects.create(name=name, domain=Domain.root()))


def _network(name: str, offering: NetworkOffering, vlan: int) -> None:
    Network.objects.create(
        name=name, display_text=f"VLAN {vlan}", vlan=vlan, cidr="192.168.0.0/16", gateway="192.168.0.1",
        zone=Zone.objects.get(), offering=offering, account=Account.objects.get(name="admin"), domain=Domain.root(),
    )  # fmt: skip


def _stopped_vms(account: Account, count: int) -> None:
    """VMs that were never started, the last of them named `of-many`."""
    names = [*(f"one-of-many-{number}" for number in range(count - 1)), "of-many"]
    vms = VirtualMachine.objects.bulk_create(
        VirtualMachine(
            name=name, taken_name=name, account=account, zone=Zone.objects.get(), hypervisor="KVM",
            service_offering=ServiceOffering.objects.get(name="Small Instance"), template=Template.objects.get(),
        )
        for name in names
    )  # fmt: skip
    network = Network.objects.get(vlan=100)
    Nic.objects.bulk_create(Nic(vm=vm, network=network, device_id=0, is_default=True) for vm in vms)


def _cluster(zone_name: str, storage: str) -> Cluster:
    zone = Zone.objects.create(name=zone_name, dns1="192.0.2.53")
    pod = Pod.objects.create(zone=zone, name="rack-1")
    cluster = Cluster.objects.create(pod=pod, name="kvm", hypervisor="KVM")
    PrimaryStorage.objects.create(cluster=cluster, name=storage)
    return cluster


def _host(cluster: Cluster, name: str, *, memory: int, transport: str, address: str = "") -> None:
    endpoint = Endpoint.objects.create(name=name, transport=transport, host=address)
    Host.objects.create(name=name, cluster=cluster, endpoint=endpoint, cpus=16, mhz=2000, memory=memory)


def _template(name: str, **fields: object) -> None:
    account = Account.objects.get(name="admin")
    Template.objects.create(name=name, account=account, public=True, password_enabled=True, **fields)


if __name__ == "__main__":
    {"demo": demo, "lab": lab, "shots": shots, "clients": clients, "pool": pool}[sys.argv[1]](*sys.argv[2:])
