"""A fleet for the API: 100,000 VMs with 1.2 NICs each, and what its pages cost: `python -m tests.bench.api_world STEP`.

Runs in a process of its own, on the database of what is measured. What a step finds out it prints as JSON.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import quote, urlencode

import django

django.setup()

from django.db import connection  # noqa: E402 - models need Django set up
from django.db.models import Count  # noqa: E402
from django.test import RequestFactory  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402
from django_q.models import OrmQ  # noqa: E402

from extdhcp_site.accounts.models import Account, Domain, NewApiKey, User, create_api_key  # noqa: E402
from extdhcp_site.api.signing import sign  # noqa: E402
from extdhcp_site.api.views import client_api  # noqa: E402
from extdhcp_site.console.management.commands import serve  # noqa: E402
from extdhcp_site.jobs.models import AsyncJob  # noqa: E402
from networks.models import (  # noqa: E402
    AddressState,
    Cluster,
    Endpoint,
    Host,
    Network,
    NetworkOffering,
    Nic,
    Pod,
    ResourceTag,
    ServiceOffering,
    Template,
    VirtualMachine,
    VmState,
    Zone,
)
from networks.models.infrastructure import AllocationState  # noqa: E402
from tests.bench import api_floor as floor  # noqa: E402

VMS = int(os.environ.get("BENCH_VMS", "100000"))
ACCOUNTS = 100
HOSTS = 500
NETWORKS = 50
CHUNK = 5000
GIB = 1024**3
DEPLOYED = "deployed-"
USER_DATA = "I2Nsb3VkLWNvbmZpZwo=" * 100


def make() -> None:
    """VMs of many accounts, most of them running; each fifth has a second NIC, each tenth a tag and user data."""
    zone = Zone.objects.create(name="zone")
    cluster = Cluster.objects.create(pod=Pod.objects.create(zone=zone, name="pod"), name="cluster", hypervisor="KVM")
    endpoint = Endpoint.objects.create(name="endpoint", host="endpoint.example")
    hosts = [
        Host.objects.create(cluster=cluster, endpoint=endpoint, name=f"host-{n}", cpus=64, memory=256 * GIB)
        for n in range(HOSTS)
    ]
    accounts = [Account.objects.create(name=f"tenant-{n}", domain=Domain.root()) for n in range(ACCOUNTS)]
    offering = NetworkOffering.objects.create(name="external", display_text="x", state=AllocationState.ENABLED)
    networks = [
        Network.objects.create(
            name=f"network-{n}", vlan=100 + n, cidr=f"10.{n}.0.0/16", gateway=f"10.{n}.0.1", zone=zone,
            offering=offering, account=accounts[0], domain=Domain.root(),
        )
        for n in range(NETWORKS)
    ]  # fmt: skip
    sizes = [ServiceOffering.objects.create(name=f"Size {n}", memory_mib=512 << n) for n in range(5)]
    templates = [
        Template.objects.create(name=f"linux-{n}", account=accounts[0], public=True, image="linux.qcow2")
        for n in range(10)
    ]
    now = timezone.now()
    for numbers in _chunks():
        vms = [
            VirtualMachine(
                name=f"vm-{n}",
                taken_name=f"vm-{n}",
                display_name=f"Machine {n}",
                account=accounts[n % ACCOUNTS],
                zone=zone,
                hypervisor="KVM",
                service_offering=sizes[n % len(sizes)],
                template=templates[n % len(templates)],
                host=hosts[n % HOSTS] if n % 10 else None,
                state=VmState.RUNNING if n % 10 else VmState.STOPPED,
                ever_started=True,
                user_data=None if n % 10 else USER_DATA,
            )
            for n in numbers
        ]
        VirtualMachine.objects.bulk_create(vms)
        Nic.objects.bulk_create(
            Nic(
                vm=vm,
                network=networks[(n + device) % NETWORKS],
                device_id=device,
                is_default=device == 0,
                ip4_address=f"10.{(n + device) % NETWORKS}.{n // 256 % 256}.{n % 256}",
                address_state=AddressState.CONFIRMED,
                address_source="agent",
                address_seen_at=now,
            )
            for n, vm in zip(numbers, vms, strict=True)
            for device in range(1 if n % 5 else 2)
        )
        ResourceTag.objects.bulk_create(
            ResourceTag(vm=vm, key="role", value="web") for n, vm in zip(numbers, vms, strict=True) if n % 10 == 0
        )
    if connection.vendor == "mysql":
        # Its statistics follow by themselves, some time after so many rows came at once.
        tables = ",".join(model._meta.db_table for model in (VirtualMachine, Nic, Network, NetworkOffering, Host))
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE TABLE {tables}")


def _chunks() -> Iterator[range]:
    for first in range(0, VMS, CHUNK):
        yield range(first, min(first + CHUNK, VMS))


# Pages ----------------------------------------------------------------------------------------------

PAGE = 500
WARM_UP = 2


def pages(rounds: str) -> dict[str, float]:
    """Pages in this process, from the request's text to the answer's: medians over rounds, each interleaved."""
    key = create_api_key(User.objects.get(is_superuser=True))
    vm = VirtualMachine.objects.latest("pk")
    last = -(-VirtualMachine.objects.count() // PAGE)
    fleet = {"command": "listVirtualMachines", "listall": "true", "pagesize": str(PAGE)}
    cursor = floor.cursor_of(connection)
    seconds: dict[str, list[float]] = {"floor": [], "first": [], "last": []}
    for number in range(WARM_UP + int(rounds)):
        took = {
            "floor": _seconds(lambda: floor.page(cursor, connection.vendor, PAGE)),
            "first": _seconds(_asking(key, fleet | {"page": "1"})),
            "last": _seconds(_asking(key, fleet | {"page": str(last)})),
        }
        for what in seconds if number >= WARM_UP else ():
            seconds[what].append(took[what])
    return {
        "page_over_sql": _median_ratio(seconds["first"], seconds["floor"]),
        "last_over_first": _median_ratio(seconds["last"], seconds["first"]),
        "page_ms": 1000 * median(seconds["first"]),
        "page_queries": _queries(_asking(key, fleet | {"page": "1"})),
        "list_one_queries": _queries(_asking(key, {"command": "listVirtualMachines", "id": str(vm.uuid)})),
        "listnics_queries": _queries(_asking(key, {"command": "listNics", "virtualmachineid": str(vm.uuid)})),
    }


def _asking(key: NewApiKey, params: dict[str, str]) -> Callable[[], None]:
    """What asks the view, with the request made and signed already."""
    request = RequestFactory().get(f"/client/api?{signed(key, params)}")

    def ask() -> None:
        answer = client_api(request)
        assert b'"count":' in answer.content, answer.content[:500]

    return ask


def signed(key: NewApiKey, params: dict[str, str]) -> str:
    """The query string of a request that asks for JSON."""
    every = sorted({**params, "response": "json", "apikey": key.api_key}.items())
    spelt = "&".join(f"{name}={quote(value, safe='*')}" for name, value in every).lower()
    return urlencode([*every, ("signature", sign(key.secret_key, spelt))])


def _seconds(act: Callable[[], object]) -> float:
    began = perf_counter()
    act()
    return perf_counter() - began


def _median_ratio(above: list[float], below: list[float]) -> float:
    return median(a / b for a, b in zip(above, below, strict=True))


def _queries(ask: Callable[[], None]) -> float:
    """How many there are after the one that finds the caller's key."""
    with CaptureQueriesContext(connection) as captured:
        ask()
    asked = [query["sql"] for query in captured.captured_queries]
    return float(len(asked) - 1 - max(n for n, sql in enumerate(asked) if "accounts_apikey" in sql))


# Deploys ----------------------------------------------------------------------------------------------


def web(port: str) -> list[str]:
    """The command with which `manage.py serve` starts the web server."""
    return serve._commands("127.0.0.1", int(port))["web"]


def deploys(count: str) -> list[str]:
    """Signed requests, each for another VM of one tenant's."""
    tenant = Account.objects.get(name="tenant-1")
    key = create_api_key(User.objects.create_user("tenant", account=tenant, password=None))
    params = {
        "command": "deployVirtualMachine",
        "zoneid": str(Zone.objects.get().uuid),
        "templateid": str(Template.objects.get(name="linux-1").uuid),
        "serviceofferingid": str(ServiceOffering.objects.get(name="Size 1").uuid),
        "networkids": str(Network.objects.get(name="network-1").uuid),
    }
    return [signed(key, params | {"name": f"{DEPLOYED}{number}"}) for number in range(int(count))]


def deployed() -> dict[str, str]:
    """By VM its job, of those that `deploys` asked for. Exits if a VM is not whole, or in the queue but once."""
    vms = VirtualMachine.objects.filter(name__startswith=DEPLOYED)
    jobs = dict(AsyncJob.objects.filter(instance_uuid__in=vms.values("uuid")).values_list("instance_uuid", "uuid"))
    whole = vms.annotate(count=Count("nics")).filter(count=1, root_volume__isnull=False).count()
    counts = {
        "VMs": vms.count(),
        "names": vms.values("name").distinct().count(),
        "whole VMs": whole,
        "VMs with a job": len(jobs),
        "jobs": AsyncJob.objects.count(),
        "queued tasks": OrmQ.objects.count(),
    }
    if len(set(counts.values())) != 1:
        sys.exit(f"The deploys left {counts}.")
    return {str(vm): str(job) for vm, job in jobs.items()}


STEPS: dict[str, Callable[..., Any]] = {step.__name__: step for step in (make, pages, web, deploys, deployed)}


if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
