"""What tests of the queue share: a NIC that waits, and one pass with what the readers do after it."""

from datetime import datetime, timedelta
from ipaddress import ip_address

from django.utils import timezone
from django_q.models import OrmQ

from extdhcp_site.configuration.models import Setting
from ipfetch import batches, planner
from ipfetch.models import IpFetch
from ipfetch.schedule import Pace
from networks.hypervisors.base import GuestAddress, Source
from networks.models import Nic
from tests.factories import make_network, make_running_vm

MINUTE = timedelta(minutes=1)


def set_to(name: str, value: object) -> None:
    Setting.objects.update_or_create(name=name, defaults={"value": str(value)})


def exact_mode(interval: int = 180, retries: int = 10) -> None:
    set_to("externaldhcp.vmip.early.retry", "false")
    set_to("externaldhcp.vmip.retrieval.interval", interval)
    set_to("externaldhcp.vmip.max.retry", retries)


def address(nic: Nic, ip: str, source: Source = Source.GUEST_AGENT) -> GuestAddress:
    return GuestAddress(nic.mac_address, ip_address(ip), source)


def whole_pass(now: datetime) -> None:
    planner.reconcile(Pace.now(), now)
    planner.plan(now)


def run_pass(now: datetime) -> None:
    """One pass, and what the addresses worker does with the batches that it queued."""
    OrmQ.objects.all().delete()
    whole_pass(now)
    for batch in queued_batches():
        batches.read(*batch)


def queued_batches() -> list[batches.Batch]:
    """What the tasks in the queue are to read, the first first."""
    read = [each.task["args"] for each in OrmQ.objects.order_by("pk") if each.task["func"].endswith("read_batches")]
    return [batch for of_one_task in read for batch in of_one_task]


def waiting_nic(**network) -> Nic:
    vm = make_running_vm(networks=[make_network(**network)])
    planner.enter_missing(Pace.now(), timezone.now())
    return vm.nics.get()


def row_of(nic: Nic) -> IpFetch:
    return IpFetch.objects.get(nic=nic)
