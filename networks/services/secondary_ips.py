"""Addresses that users register for a NIC: nothing is assigned by it, but nobody else registers or is given them here.

They are written while the request is answered; the job that is submitted with it has nothing left to do.
"""

from ipaddress import AddressValueError, IPv6Address

from django.db import transaction
from django.db.models import Q

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken
from networks.models import Network, Nic, NicSecondaryIp, VmState
from networks.services.nics import leasable

# CloudStack's default of vm.network.nic.max.secondary.ipaddresses.
MOST = 10


def add(nic: Nic, address: str, by: Caller) -> AsyncJob:
    """Register `address`, IPv4 or IPv6, for `nic`. Raises InvalidParameter for one that its guest cannot have."""
    if nic.vm.state in (VmState.DESTROYED, VmState.EXPUNGING):
        raise InvalidParameter(f"{nic.vm} is {nic.vm.state}.")
    ip = str(_ip6(address) if ":" in address else leasable(nic.network, address))
    with transaction.atomic():
        # Who adds one beside this waits here, and counts it then.
        Nic.objects.select_for_update().get(pk=nic.pk)
        if Nic.objects.filter(Q(ip4_address=ip) | Q(ip6_address=ip), network=nic.network_id).exists():
            raise _in_use(ip, nic.network)
        if nic.secondary_ips.count() >= MOST:
            raise InvalidParameter(f"A NIC has at most {MOST} secondary addresses. Remove one first.")
        with unless_taken(_in_use(ip, nic.network)):
            row = NicSecondaryIp.objects.create(nic=nic, network=nic.network, address=ip)
        return jobs.submit("addIpToNic", row, account=nic.vm.account, by=by)


def remove(row: NicSecondaryIp, by: Caller) -> AsyncJob:
    with transaction.atomic():
        job = jobs.submit("removeIpFromNic", row, account=row.nic.vm.account, by=by)
        NicSecondaryIp.objects.filter(pk=row.pk).delete()
    return job


@jobs.handler("addIpToNic", EventType.SECONDARY_IP_ASSIGN)
def _added(job: AsyncJob) -> None:
    """It was written with the job."""


@jobs.handler("removeIpFromNic", EventType.SECONDARY_IP_UNASSIGN)
def _removed(job: AsyncJob) -> None:
    """It went with the job's submission."""


def _in_use(ip: str, network: Network) -> InvalidParameter:
    return InvalidParameter(f"{ip} is in use on network {network}.")


def _ip6(text: str) -> IPv6Address:
    try:
        ip = IPv6Address(text)
    except AddressValueError:
        raise InvalidParameter("ipaddress: that is no IP address.") from None
    if ip.is_link_local or ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.ipv4_mapped or ip.scope_id:
        raise InvalidParameter(f"{ip} is of a kind that no NIC is given.")
    return ip
