"""Networks: checked whole before anything is written."""

from dataclasses import asdict, dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from extdhcp_site.accounts.models import Account, Caller, Domain, Role
from extdhcp_site.accounts.services.domains import check_network_domain
from extdhcp_site.accounts.services.removal import refuse_if_removed
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
    is_default: bool = True


@dataclass(frozen=True)
class Changes:
    """What somebody wants changed of a network; None leaves it as it is. `offering` is a row's number."""

    name: str | None = None
    display_text: str | None = None
    network_domain: str | None = None
    offering: int | None = None
    start_ip: str | None = None
    end_ip: str | None = None
    is_default: bool | None = None


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
    domain = wanted.account.domain if acl_type == AclType.ACCOUNT else wanted.domain or wanted.account.domain
    _check_access(wanted, acl_type, domain)
    check_network_domain(wanted.network_domain)
    vlan = _vlan(wanted)
    addresses = _addresses(wanted)
    with transaction.atomic():
        # One at a time in a zone: no constraint guards that only one network has no VLAN.
        Zone.objects.select_for_update().get(pk=wanted.zone.pk)
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
                    domain=domain,
                    is_default=wanted.is_default,
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
        refuse_if_removed(wanted.account)
        refuse_if_removed(domain)
        events.record(EventType.NETWORK_CREATE, f"Network {network} created", account=wanted.account, on=network, by=by)
    return network


def update_network(network: Network, changes: Changes, by: Caller) -> AsyncJob:
    """Submit the job that changes a network, once it is clear that it could. Raises InvalidParameter."""
    _columns(network, changes)
    with transaction.atomic():
        return jobs.submit("updateNetwork", network, account=network.account, by=by, **asdict(changes))


@jobs.handler("updateNetwork", EventType.NETWORK_UPDATE)
def _update(job: AsyncJob) -> None:
    network = Network.objects.select_related("zone", "offering").filter(uuid=job.instance_uuid).first()
    if network is None:
        raise InvalidParameter("The network was deleted in the meantime.")
    columns = _columns(network, Changes(**job.arguments))
    try:
        with transaction.atomic():
            Network.objects.filter(pk=network.pk).update(**columns)
    except IntegrityError:
        _check_name(network.zone, columns["name"])
        raise


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


def _columns(network: Network, changes: Changes) -> dict[str, object]:
    """The columns that `changes` writes. Raises InvalidParameter."""
    columns = {name: value for name, value in asdict(changes).items() if value is not None}
    if changes.name is not None and changes.name != network.name:
        _check_name(network.zone, changes.name)
    check_network_domain(changes.network_domain or "")
    if offering := columns.pop("offering", None):
        columns["offering"] = _compatible(network, NetworkOffering.objects.filter(pk=offering).first())
    if changes.start_ip or changes.end_ip:
        if network.ip4_network is None:
            raise InvalidParameter(f"Network {network} has no subnet that a range could be in.")
        start = changes.start_ip or network.start_ip or ""
        end = changes.end_ip or network.end_ip or start
        columns["start_ip"], columns["end_ip"] = _range(network.ip4_network, start, end)
    return columns


def _compatible(network: Network, offering: NetworkOffering | None) -> NetworkOffering:
    """A network keeps its kind and its VLAN; what changes are the services that are promised."""
    now = network.offering
    if offering is None or offering.state != AllocationState.ENABLED:
        raise InvalidParameter("The network offering is disabled or deleted. Choose one that is Enabled.")
    if (offering.guest_type, offering.specify_vlan) != (now.guest_type, now.specify_vlan):
        vlan = "names its VLAN" if now.specify_vlan else "does not name a VLAN"
        raise InvalidParameter(
            f"Network {network} cannot change to offering {offering}: "
            f"it needs one that is {now.guest_type} and {vlan}, as its present one."
        )
    return offering


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
    return _Addresses(str(network), str(gateway), *_range(network, wanted.start_ip, wanted.end_ip or wanted.start_ip))


def _range(network: IPv4Network, start_ip: str, end_ip: str) -> tuple[str, str]:
    start, end = _address("startip", start_ip), _address("endip", end_ip)
    if start not in network or end not in network:
        raise InvalidParameter(f"The range {start} to {end} is outside {network}, which gateway and netmask give.")
    if start > end:
        raise InvalidParameter(f"startip {start} comes after endip {end}.")
    return str(start), str(end)


def _address(name: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise InvalidParameter(f"{name} must be an IPv4 address.") from None


def _check_access(wanted: WantedNetwork, acl_type: str, domain: Domain) -> None:
    """Whoever is given a network has access to its zone: its account, or somebody of its domain."""
    if wanted.zone.domain is None:
        return
    zone_path = wanted.zone.domain.path
    sees = domain.path.startswith(zone_path)
    if acl_type == AclType.ACCOUNT and not (sees or wanted.account.role == Role.ROOT_ADMIN):
        raise InvalidParameter(f"Account {wanted.account} has no access to zone {wanted.zone}.")
    if acl_type == AclType.DOMAIN and not (sees or zone_path.startswith(domain.path)):
        raise InvalidParameter(f"Nobody of domain {domain} has access to zone {wanted.zone}.")


def _check_name(zone: Zone, name: str) -> None:
    if Network.objects.filter(zone=zone, name=name).exists():
        raise InvalidParameter(f"Zone {zone} has a network named {name} already.")


def _check_overlaps(wanted: WantedNetwork, vlan: int | None) -> None:
    in_zone = Network.objects.filter(zone=wanted.zone)
    if vlan is not None and (other := in_zone.filter(vlan=vlan).first()):
        raise InvalidParameter(f"VLAN {vlan} belongs to network {other} of zone {wanted.zone}. Choose another.")
    if vlan is None and (other := in_zone.filter(vlan=None).first()):
        raise InvalidParameter(
            f"A network of zone {wanted.zone} has no VLAN; a second one would be the same broadcast domain.",
            for_operator=f"It is {other}.",
        )
    _check_name(wanted.zone, wanted.name)
