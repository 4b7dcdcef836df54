"""What a cloud admin sets up once, for the demo and for the lab: `python -m tests.seed demo|lab`.

Runs in a process of its own, on the server's database.
"""

import sys

import django

django.setup()

from extdhcp_site.accounts.models import Account, Domain, User  # noqa: E402 - models need Django set up
from networks.hypervisors.base import Transport  # noqa: E402
from networks.models import Cluster, Endpoint, Host, Pod, PrimaryStorage, ServiceOffering, Template, Zone  # noqa: E402
from networks.models.offerings import TemplateFormat  # noqa: E402

GIB = 1024**3


def demo() -> None:
    cluster = _cluster("demo", storage="default-pool")
    _host(cluster, "kvm-demo", memory=3 * GIB, transport=Transport.TEST.value)
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
    User.objects.create_user("stranger", account=Account.objects.create(name="strangers", domain=Domain.root()))


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
    {"demo": demo, "lab": lab}[sys.argv[1]]()
