"""What operators are alerted of in address discovery: NICs given up, passes that are late, VMs that are off."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from django.db.models import Count, Min
from django.utils import timezone

from extdhcp_site.alerts.models import Kind
from extdhcp_site.alerts.services import Domain, Problem
from extdhcp_site.alerts.watches import Watch
from extdhcp_site.events.models import Subject
from ipfetch.configuration import EARLY_RETRY
from ipfetch.models import IpFetch, Outcome
from networks.models.vms import VmState

# The loop runs each minute by itself; whoever is due so long has been passed over.
LATE_AFTER = timedelta(minutes=3)
PASSES = Subject("AddressDiscovery", UUID("2f0f3c0e-5b4a-4c55-9a63-5d0b3a1d9b10"), "Address discovery")


def given_up() -> Iterator[Problem]:
    """One for each network, however many of its NICs: they have one cause, most likely."""
    exhausted = IpFetch.objects.filter(state=IpFetch.State.EXHAUSTED).order_by()
    columns = ("nic__network__uuid", "nic__network__name")
    for uuid, name, count in exhausted.values_list(*columns).annotate(Count("pk")):
        nics = "1 NIC" if count == 1 else f"{count} NICs"
        yield Problem(
            Kind.ADDRESSES,
            Subject("Network", uuid, name),
            f"{nics} of network {name} got no address and {'was' if count == 1 else 'were'} given up.",
            "Check the VLAN, that the DHCP server has free addresses, and the guest agent of the first NIC listed.",
            f"/nics/?network={uuid}&state={IpFetch.State.EXHAUSTED}",
        )


def late_passes() -> Iterator[Problem]:
    """NICs that should have been asked, at endpoints that answer."""
    now = timezone.now()
    late = IpFetch.objects.waiting().due(now - LATE_AFTER).filter(nic__vm__state=VmState.RUNNING)
    if EARLY_RETRY.get():
        late = late.filter(nic__vm__host__endpoint__failures=0)
    found = late.order_by().aggregate(count=Count("pk"), since=Min("next_attempt_at"))
    if count := found["count"]:
        wait = "1 NIC waits" if count == 1 else f"{count} NICs wait"
        yield Problem(
            Kind.PASSES,
            PASSES,
            f"{wait} to be asked, the first since {found['since']:%Y-%m-%d %H:%M:%S} UTC.",
            "See that the workers of the addresses queue run. If so, raise externaldhcp.vmipFetch.threadPool.max.",
            "/nics/?state=waiting",
        )


def off_vms() -> Iterator[Problem]:
    """VMs that are to run, and do not, as their hosts say: somebody shut them down behind our back, or they crashed."""
    off = IpFetch.objects.filter(last_outcome=Outcome.NOT_RUNNING, nic__vm__state=VmState.RUNNING)
    columns = ("nic__vm__uuid", "nic__vm__name", "nic__vm__account_id")
    for uuid, name, account_id in off.order_by().values_list(*columns).distinct():
        yield Problem(
            Kind.VM,
            Subject("VirtualMachine", uuid, name),
            f"{name} is to run, and does not.",
            "Stop it, then start it. If it goes off again, look at its console as it boots.",
            f"/vms/{uuid}/",
            account_id=account_id,
        )


WATCHES = [
    Watch(Domain(frozenset({Kind.ADDRESSES}), "Network"), given_up),
    Watch(Domain(frozenset({Kind.PASSES}), PASSES.kind), late_passes),
    Watch(Domain(frozenset({Kind.VM}), "VirtualMachine"), off_vms),
]
