"""The bench's database of a pool's VMs, and the passes over them: `python -m tests.bench.pools_world STEP FILE`.

Runs in processes of its own, on the database of what is measured. FILE is the JSON of a World. What a step finds out
it prints as JSON.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import django

django.setup()

from django.utils import timezone  # noqa: E402 - models need Django set up
from django.utils.module_loading import import_string  # noqa: E402
from django_q.brokers import get_broker  # noqa: E402
from django_q.signing import SignedPackage  # noqa: E402

from extdhcp_site.accounts.models import Account, Domain  # noqa: E402
from extdhcp_site.events.models import Event, EventType  # noqa: E402
from extdhcp_site.jobs import collector  # noqa: E402
from extdhcp_site.jobs.tasks import ADDRESSES  # noqa: E402
from ipfetch import batches, planner  # noqa: E402
from ipfetch.models import IpFetch, Observation  # noqa: E402
from ipfetch.schedule import Pace  # noqa: E402
from networks.models import (  # noqa: E402
    AddressState,
    Cluster,
    Endpoint,
    Host,
    Network,
    NetworkOffering,
    Nic,
    Pod,
    ServiceOffering,
    Template,
    VirtualMachine,
    VmState,
    Zone,
)
from networks.models.infrastructure import AllocationState  # noqa: E402
from tests.bench.pools_library import World  # noqa: E402

# All that the simulators' guests may have.
CIDR, GATEWAY = "10.0.0.0/8", "10.255.255.254"
PASS_WITHIN = 300.0


def make(world: World) -> None:
    """One host, for all endpoints are alike to what is measured, and on it the VMs with one NIC each."""
    account = Account.objects.create(name="tenant", domain=Domain.root())
    zone = Zone.objects.create(name="zone")
    cluster = Cluster.objects.create(
        pod=Pod.objects.create(zone=zone, name="pod"), name="cluster", hypervisor=world.kind
    )
    address = world.address
    endpoint = Endpoint.objects.create(
        name="pool", kind=world.kind, transport=address.transport.value, host=address.host, port=address.port,
        username=address.username, password=address.password, ca_certificates=address.ca_certificates,
    )  # fmt: skip
    host = Host.objects.create(cluster=cluster, endpoint=endpoint, name="host")
    offering = NetworkOffering.objects.create(name="external", display_text="x", state=AllocationState.ENABLED)
    network = Network.objects.create(
        name="corporate", vlan=100, cidr=CIDR, gateway=GATEWAY, zone=zone, offering=offering, account=account,
        domain=account.domain,
    )  # fmt: skip
    size = ServiceOffering.objects.create(name="Small", memory_mib=512)
    template = Template.objects.create(name="linux", account=account, public=True, image="linux")
    vms = [
        VirtualMachine(
            uuid=guest.uuid, name=f"vm-{number}", taken_name=f"vm-{number}", account=account, zone=zone,
            hypervisor=world.kind, service_offering=size, template=template, host=host, state=VmState.RUNNING,
            ever_started=True,
        )
        for number, guest in enumerate(world.guests)
    ]  # fmt: skip
    VirtualMachine.objects.bulk_create(vms)
    Nic.objects.bulk_create(
        Nic(vm=vm, network=network, device_id=0, is_default=True, mac_address=guest.mac)
        for vm, guest in zip(vms, world.guests, strict=True)
    )


def passes(world: World) -> None:
    """Two passes, in a process like a worker's: nothing was known before the first, and nothing has changed before
    the second.

    Prints what each took, and waits for a line before it goes on: somebody counts the calls in between.
    """
    collector.spare()
    _forget()
    for number in (1, 2):
        took = _pass()
        _check(world, passes=number)
        print(json.dumps(took), flush=True)
        sys.stdin.readline()


def _forget() -> None:
    for model in (Event, Observation, IpFetch):
        model.objects.all().delete()
    Nic.objects.update(
        ip4_address=None,
        address_state=AddressState.UNKNOWN,
        address_source="",
        address_seen_at=None,
    )
    planner.enter_missing(Pace.now(), timezone.now())


def _pass() -> dict[str, float]:
    """Plan and read until nobody is due, as the watcher and a worker do it beside each other."""
    now = timezone.now()
    IpFetch.objects.update(next_attempt_at=now, scheduled_at=now)
    due, held = IpFetch.objects.filter(next_attempt_at__lte=now), IpFetch.objects.exclude(claimed_until=None)
    broker = get_broker(ADDRESSES)
    began, cpu = time.perf_counter(), time.process_time()
    while due.exists() or held.exists():
        assert time.perf_counter() - began < PASS_WITHIN, "The pass does not end."
        planner.plan(now)
        for task_id, payload in broker.dequeue():
            task = SignedPackage.loads(payload)
            import_string(task["func"])(*task["args"])
            broker.acknowledge(task_id)
        batches._slots.wait_until_free(PASS_WITHIN)
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}


def _check(world: World, passes: int) -> None:
    """Exits with what differs from the rows that the passes must leave."""
    vm_of = {guest.uuid: guest for guest in world.guests}
    assert len(vm_of) == len(world.guests)
    found = [(guest.mac, guest.ip) for guest in world.guests]
    _compare(
        "NICs",
        Nic.objects.values_list("mac_address", "ip4_address", "address_state", "address_source"),
        [(*each, AddressState.CONFIRMED, "agent") for each in found],
    )
    _compare("observations", Observation.objects.current().values_list("nic__mac_address", "address"), found)
    _compare(
        "events",
        Event.objects.values_list("type", "resource_uuid"),
        [(EventType.IP_FETCH, guest.uuid) for guest in world.guests],
    )
    _compare(
        "places in the queue",
        IpFetch.objects.values_list("nic__mac_address", "state", "last_outcome", "attempt", "claimed_until"),
        [(mac, IpFetch.State.FOUND, "found", passes, None) for mac, _ in found],
    )


def _compare(what: str, rows: Iterable[tuple[Any, ...]], expected: Iterable[tuple[Any, ...]]) -> None:
    there, wanted = (sorted(tuple(map(str, row)) for row in some) for some in (rows, expected))
    if there != wanted:
        odd = sorted(set(there) ^ set(wanted))
        sys.exit(f"The pass left wrong {what}: {len(there)} instead of {len(wanted)}, {len(odd)} differ: {odd[:3]}")


STEPS: dict[str, Callable[[World], None]] = {"make": make, "passes": passes}


if __name__ == "__main__":
    STEPS[sys.argv[1]](World.read(Path(sys.argv[2])))
