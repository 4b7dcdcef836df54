"""Networks: checked whole before anything is written."""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from extdhcp_site.accounts.models import Account, Caller, Domain
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import GuestType, Network, NetworkOffering, Zone
from networks.models.infrastructure import AllocationState
from networks.models.networks import AclType
from networks.services.offerings import refuse_if_used


@dataclass(frozen=True)
class WantedNetwork:
    """What somebody wants created; addresses as text, checked here. The owner is `account`."""

    name: str
    zone: Zone
    offering: NetworkOffering
    account: Account
    display_text: str = ""
    acl_type: str = ""
    domain: Domain | None = None
    vlan: str = ""
    gateway: str = ""
    netmask: str = ""
    start_ip: str = ""
    end_ip: str = ""
    network_domain: str = ""


@dataclass(frozen=True)
class _Addresses:
    cidr: str = ""
    gateway: str | None = None
    start_ip: str | None = None
    end_ip: str | None = None


def create_network(wanted: WantedNetwork, by: Caller) -> Network:
    """Write a network. It touches no host: a host's bridge is checked when a VM goes there."""
    offering = wanted.offering
    if offering.state != AllocationState.ENABLED:
        raise InvalidParameter(
            f"Network offering {offering} is disabled. Enable it: updateNetworkOffering state=Enabled."
        )
    acl_type = wanted.acl_type or (AclType.DOMAIN if offering.guest_type == GuestType.SHARED else AclType.ACCOUNT)
    if acl_type not in AclType.values:
        raise InvalidParameter(f"acltype must be {' or '.join(AclType.values)}.")
    vlan = _vlan(wanted)
    addresses = _addresses(wanted)
    with transaction.atomic():
        _check_overlaps(wanted, vlan)
        try:
            with transaction.atomic():
                network = Network.objects.create(
                    name=wanted.name,
                    display_text=wanted.display_text or wanted.name,
                    zone=wanted.zone,
                    offering=offering,
                    account=wanted.account,
                    acl_type=acl_type,
                    domain=wanted.domain or wanted.account.domain,
                    vlan=vlan,
                    cidr=addresses.cidr,
                    gateway=addresses.gateway,
                    start_ip=addresses.start_ip,
                    end_ip=addresses.end_ip,
                    network_domain=wanted.network_domain,
                )
        except IntegrityError:
            _check_overlaps(wanted, vlan)
            raise
        events.record(EventType.NETWORK_CREATE, f"Network {network} created", account=wanted.account, on=network, by=by)
    return network


def restart_network(network: Network, by: Caller) -> AsyncJob:
    with transaction.atomic():
        return jobs.submit("restartNetwork", network, account=network.account, by=by)


@jobs.handler("restartNetwork", EventType.NETWORK_RESTART)
def _restart(job: AsyncJob) -> None:
    """The spec's dummy: there is no router and no rule to set up again ("Network life cycle")."""


def delete_network(network: Network, by: Caller) -> AsyncJob:
    refuse_if_used(f"Network {network}", network.nics.count(), "NICs")
    with transaction.atomic():
        return jobs.submit("deleteNetwork", network, account=network.account, by=by)


@jobs.handler("deleteNetwork", EventType.NETWORK_DELETE)
def _delete(job: AsyncJob) -> None:
    network = Network.objects.filter(uuid=job.instance_uuid).first()
    if network is None:
        return  # a former attempt came to its end
    try:
        with transaction.atomic():
            network.delete()
    except ProtectedError:
        refuse_if_used(f"Network {network}", network.nics.count(), "NICs")
        raise


def _vlan(wanted: WantedNetwork) -> int | None:
    text = wanted.vlan.removeprefix("vlan://")
    if not wanted.offering.specify_vlan:
        if text:
            raise InvalidParameter(f"Network offering {wanted.offering} does not let you specify a VLAN.")
        return None
    if not text:
        raise InvalidParameter(f"Network offering {wanted.offering} needs a vlan from 1 to 4094.")
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= 4094):
        raise InvalidParameter("vlan must be a number from 1 to 4094.")
    return int(text)


def _addresses(wanted: WantedNetwork) -> _Addresses:
    given = [wanted.gateway, wanted.netmask, wanted.start_ip, wanted.end_ip]
    if not any(given):
        if wanted.offering.guest_type == GuestType.L2:
            return _Addresses()
        raise InvalidParameter(
            "A Shared network needs gateway, netmask, startip and endip, as the DHCP server has them."
        )
    if not (wanted.gateway and wanted.netmask):
        raise InvalidParameter("gateway and netmask go together.")
    gateway = _address("gateway", wanted.gateway)
    try:
        network = IPv4Network(f"{gateway}/{wanted.netmask}", strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise InvalidParameter("netmask must be a netmask such as 255.255.255.0.") from None
    if not (wanted.start_ip or wanted.end_ip):
        if wanted.offering.specify_ip_ranges and wanted.offering.guest_type == GuestType.SHARED:
            raise InvalidParameter("Give startip and endip: the range that the external DHCP server hands out.")
        return _Addresses(str(network), str(gateway))
    start = _address("startip", wanted.start_ip)
    end = _address("endip", wanted.end_ip or wanted.start_ip)
    if start not in network or end not in network:
        raise InvalidParameter(f"The range {start} to {end} is outside {network}, which gateway and netmask give.")
    if start > end:
        raise InvalidParameter(f"startip {start} comes after endip {end}.")
    return _Addresses(str(network), str(gateway), str(start), str(end))


def _address(name: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise InvalidParameter(f"{name} must be an IPv4 address.") from None


def _check_overlaps(wanted: WantedNetwork, vlan: int | None) -> None:
    in_zone = Network.objects.filter(zone=wanted.zone)
    if vlan is not None and (other := in_zone.filter(vlan=vlan).first()):
        raise InvalidParameter(f"VLAN {vlan} belongs to network {other} of zone {wanted.zone}. Choose another.")
    if vlan is None and (other := in_zone.filter(vlan=None).first()):
        raise InvalidParameter(
            f"Network {other} of zone {wanted.zone} has no VLAN; a second one would be the same broadcast domain."
        )
    if in_zone.filter(name=wanted.name).exists():
        raise InvalidParameter(f"Zone {wanted.zone} has a network named {wanted.name} already.")
