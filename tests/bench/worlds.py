"""The bench's world, NICs of running VMs on many endpoints: `python -m tests.bench.worlds STEP`.

Runs in processes of its own, on the database and with the settings of what is measured. What a step
finds out it prints as JSON.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import django

django.setup()

from django.db.models import F, Min  # noqa: E402 - models need Django set up
from django.utils import timezone  # noqa: E402

from extdhcp_site.accounts.models import Account, Domain  # noqa: E402
from extdhcp_site.events.models import Event, EventType, Level  # noqa: E402
from ipfetch.models import IpFetch, Observation  # noqa: E402
from ipfetch.schedule import Pace  # noqa: E402
from networks.hypervisors.base import Transport  # noqa: E402
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
from tests.bench import zero_latency as guests  # noqa: E402

NICS = guests.HOSTS * guests.VMS_A_HOST
HOSTS_A_CLUSTER = 16
CHUNK = 5000
GIB = 1024**3
# Longer than any target: what takes so long has no figure.
PASS_WITHIN = 900.0
POLL_SECONDS = 0.2


def make() -> None:
    """The hosts, and on each its VMs with one NIC, all on one network."""
    account = Account.objects.create(name="tenant", domain=Domain.root())
    zone = Zone.objects.create(name="zone")
    _make_hosts(Pod.objects.create(zone=zone, name="pod"))
    offering = NetworkOffering.objects.create(name="external", display_text="x", state=AllocationState.ENABLED)
    network = Network.objects.create(
        name="corporate", vlan=100, cidr=str(guests.CIDR), gateway=str(guests.CIDR[1]), zone=zone, offering=offering,
        account=account, domain=account.domain,
    )  # fmt: skip
    size = ServiceOffering.objects.create(name="Small", memory_mib=512)
    template = Template.objects.create(name="linux", account=account, public=True, image="linux.qcow2")
    for numbers in _chunks():
        VirtualMachine.objects.bulk_create(
            VirtualMachine(
                pk=number + 1,
                uuid=guests.uuid_of(number),
                name=f"vm-{number}",
                taken_name=f"vm-{number}",
                account=account,
                zone=zone,
                hypervisor="KVM",
                service_offering=size,
                template=template,
                host_id=number // guests.VMS_A_HOST + 1,
                state=VmState.RUNNING,
                ever_started=True,
            )
            for number in numbers
        )
        Nic.objects.bulk_create(
            Nic(
                pk=number + 1,
                vm_id=number + 1,
                network=network,
                device_id=0,
                is_default=True,
                mac_address=guests.mac_of(number),
            )
            for number in numbers
        )


def _make_hosts(pod: Pod) -> None:
    numbers = range(guests.HOSTS)
    of_pod = range(-(-guests.HOSTS // HOSTS_A_CLUSTER))
    Cluster.objects.bulk_create(Cluster(pk=n + 1, pod=pod, name=f"cluster-{n}", hypervisor="KVM") for n in of_pod)
    Endpoint.objects.bulk_create(
        Endpoint(pk=n + 1, name=guests.host_name(n), host=guests.host_name(n), transport=Transport.TLS) for n in numbers
    )
    Host.objects.bulk_create(
        Host(
            pk=n + 1,
            cluster_id=n // HOSTS_A_CLUSTER + 1,
            endpoint_id=n + 1,
            name=guests.host_name(n),
            cpus=64,
            mhz=2000,
            memory=256 * GIB,
        )
        for n in numbers
    )


def _chunks() -> Iterator[range]:
    for first in range(0, NICS, CHUNK):
        yield range(first, min(first + CHUNK, NICS))


def wait() -> None:
    """Every NIC waits and is due, as after some minutes in vain; those of a host are not due one after the other."""
    for model in (Event, Observation, IpFetch):
        model.objects.all().delete()
    Nic.objects.update(
        ip4_address=None,
        ip6_address=None,
        address_state=AddressState.UNKNOWN,
        address_source="",
        address_seen_at=None,
        secondary_addresses=[],
    )
    pace, now = Pace.now(), timezone.now()
    for numbers in _chunks():
        IpFetch.objects.bulk_create(
            IpFetch(
                nic_id=number + 1,
                retries_left=pace.max_retry,
                tries=pace.first_that_counts,
                next_attempt_at=now - timedelta(seconds=60 * ((number * 7919) % NICS) / NICS),
                entered_at=now,
            )
            for number in numbers
        )


def follow() -> dict[str, float]:
    """Wait until every NIC was tried once, from now on. Seconds from the beginning of the first pass to the end."""
    began, give_up = timezone.now(), time.monotonic() + PASS_WITHIN
    # Both have an index; what has been claimed is due later.
    due = IpFetch.objects.filter(state=IpFetch.State.WAITING, next_attempt_at__lte=began)
    held = IpFetch.objects.exclude(claimed_until=None)
    while due.exists() or held.exists():
        if time.monotonic() > give_up:
            sys.exit(f"After {PASS_WITHIN:.0f} s, {due.count()} NICs have not been claimed, and {held.count()} are.")
        time.sleep(POLL_SECONDS)
    ended = timezone.now()
    first = IpFetch.objects.aggregate(first=Min("last_attempt_at"))["first"]
    return {"seconds": (ended - first).total_seconds(), "batches": _batches()}


def _batches() -> float:
    # Each claim of a batch bears the moment of the pass, and an endpoint has one batch at a time.
    passes = IpFetch.objects.values("last_attempt_at", "nic__vm__host__endpoint").order_by().distinct()
    return float(passes.count())


def check(found_percent: str) -> None:
    """Exits with what differs from the rows that one pass must leave."""
    found = {number for number in range(NICS) if number % 100 < int(found_percent)}
    wrong: list[str] = []

    def compare(what: str, rows: Any, expected: Any) -> None:
        difference = Counter(rows)
        difference.subtract(Counter(expected))
        odd = {key: count for key, count in difference.items() if count}
        if odd:
            wrong.append(f"{what}: {len(odd)} differ, such as {list(odd.items())[:3]} (more than expected, or fewer).")

    with_address = Nic.objects.exclude(ip4_address=None)
    addresses = [(number + 1, str(guests.address_of(number))) for number in found]
    compare(
        "NICs",
        with_address.values_list("pk", "ip4_address", "address_state", "address_source"),
        [(*address, AddressState.CONFIRMED, "agent") for address in addresses],
    )
    compare("observations", Observation.objects.values_list("nic_id", "address"), addresses)
    events = Event.objects.order_by().values_list("type", "level", "resource_name", "description")
    compare(
        "events",
        [(type_, level, name, "got fetched successfully" in text) for type_, level, name, text in events],
        [(EventType.IP_FETCH, Level.INFO, f"vm-{number}", True) for number in found],
    )
    # A pass that outlasts the interval begins again; and whoever waits is asked once more, at no cost, when the
    # watcher has come to hear his host.
    pace = Pace.now()
    rows = IpFetch.objects.annotate(sum=F("tries") + F("retries_left"))
    compare(
        "places in the queue",
        rows.filter(retries_left__lt=pace.max_retry).values_list("nic_id", "state", "last_outcome", "sum"),
        [
            (
                number + 1,
                *(("found", "found") if number in found else ("waiting", "none_yet")),
                pace.first_that_counts + pace.max_retry,
            )
            for number in range(NICS)
        ],
    )
    if wrong:
        sys.exit("The pass left wrong rows. " + " ".join(wrong))


def refreshed(seconds: str) -> dict[str, float]:
    """How many NICs were seen in the last so many seconds, and by how much the latest of all is overdue."""
    now = timezone.now()
    next_one = IpFetch.objects.aggregate(at=Min("next_attempt_at"))["at"]
    seen = Nic.objects.filter(address_seen_at__gt=now - timedelta(seconds=float(seconds))).count()
    return {"late_seconds": (now - next_one).total_seconds(), "seen": seen}


STEPS: dict[str, Callable[..., Any]] = {step.__name__: step for step in (make, wait, follow, check, refreshed)}


if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
