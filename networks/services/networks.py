"""Network offerings, networks and templates: checked whole before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from extdhcp_site.accounts.models import Account, Caller, Domain
from extdhcp_site.errors import InvalidParameter, NotInThisProduct, ResourceInUse
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import (
    GuestType,
    Network,
    NetworkOffering,
    OfferedService,
    Provider,
    Service,
    Template,
    Zone,
)
from networks.models.infrastructure import AllocationState
from networks.models.networks import AclType
from networks.models.offerings import OsFamily, TemplateFormat


def create_offering(
    *,
    name: str,
    display_text: str,
    guest_type: str,
    services: Mapping[str, str],
    specify_vlan: bool,
    specify_ip_ranges: bool,
    enable: bool,
    by: Caller,
) -> NetworkOffering:
    """`services` maps a service to its provider; an empty one is legal, and is the point."""
    _check_guest_type(guest_type)
    for service, provider in services.items():
        _check_service(service, provider)
    if guest_type == GuestType.SHARED and not specify_vlan:
        raise InvalidParameter("A Shared network lies on a VLAN of its own: say specifyvlan=true.")
    with transaction.atomic():
        try:
            with transaction.atomic():
                offering = NetworkOffering.objects.create(
                    name=name,
                    display_text=display_text,
                    guest_type=guest_type,
                    specify_vlan=specify_vlan,
                    specify_ip_ranges=specify_ip_ranges,
                    state=AllocationState.ENABLED if enable else AllocationState.DISABLED,
                )
        except IntegrityError:
            raise InvalidParameter(f"There is a network offering named {name} already.") from None
        OfferedService.objects.bulk_create(
            OfferedService(offering=offering, service=service, provider=provider)
            for service, provider in services.items()
        )
        _record(EventType.NETWORK_OFFERING_CREATE, f"Network offering {name} created", offering, by)
    return offering


def update_offering(
    offering: NetworkOffering, *, by: Caller, name: str = "", display_text: str = "", state: str = ""
) -> NetworkOffering:
    if state and state not in AllocationState.values:
        raise InvalidParameter(f"state must be {' or '.join(AllocationState.values)}.")
    offering.name = name or offering.name
    offering.display_text = display_text or offering.display_text
    offering.state = state or offering.state
    with transaction.atomic():
        try:
            with transaction.atomic():
                offering.save(update_fields=["name", "display_text", "state"])
        except IntegrityError:
            raise InvalidParameter(f"There is a network offering named {name} already.") from None
        _record(EventType.NETWORK_OFFERING_EDIT, f"Network offering {offering} is {offering.state}", offering, by)
    return offering


def delete_offering(offering: NetworkOffering, by: Caller) -> None:
    _refuse_if_used(f"Network offering {offering}", offering.networks.count(), "networks")
    with transaction.atomic():
        _record(EventType.NETWORK_OFFERING_DELETE, f"Network offering {offering} deleted", offering, by)
        offering.delete()


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
        _record(EventType.NETWORK_CREATE, f"Network {network} created", network, by, wanted.account)
    return network


def restart_network(network: Network, by: Caller) -> AsyncJob:
    with transaction.atomic():
        return jobs.submit("restartNetwork", network, account=network.account, by=by)


@jobs.handler("restartNetwork", EventType.NETWORK_RESTART)
def _restart(job: AsyncJob) -> None:
    """The spec's dummy: there is no router and no rule to set up again ("Network life cycle")."""


def delete_network(network: Network, by: Caller) -> AsyncJob:
    _refuse_if_used(f"Network {network}", network.nics.count(), "NICs")
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
        _refuse_if_used(f"Network {network}", network.nics.count(), "NICs")
        raise


def register_template(template: Template, by: Caller) -> Template:
    """Register what lies on the hosts already. Paths and names are checked: they end up in guests' definitions."""
    if template.format not in TemplateFormat.values:
        raise InvalidParameter(
            f"format must be one of {', '.join(TemplateFormat.values)}. (VMs made from an ISO are not in this product.)"
        )
    if template.os_family not in OsFamily.values:
        raise InvalidParameter(f"OS family must be {' or '.join(OsFamily.values)}.")
    if template.format == TemplateFormat.KERNEL:
        for what, path in (("kernel", template.kernel), ("initrd", template.initrd)):
            if not path.startswith("/") or ".." in path.split("/") or not path.isascii() or not path.isprintable():
                raise InvalidParameter(f"{what} must be an absolute path on the host, without '..'.")
    elif not template.image or "/" in template.image or not template.image.isascii() or template.image.startswith("."):
        raise InvalidParameter("url must name an image in the primary storage, without a path, as in debian-12.qcow2.")
    with transaction.atomic():
        template.save()
        events.record(
            EventType.TEMPLATE_CREATE, f"Template {template} registered", account=template.account, on=template, by=by
        )
    return template


def _check_guest_type(guest_type: str) -> None:
    if guest_type == GuestType.ISOLATED:
        raise NotInThisProduct("Isolated networks are")
    if guest_type not in GuestType.values:
        raise InvalidParameter("guestiptype must be Shared or L2.")


def _check_service(service: str, provider: str) -> None:
    if service not in Service.values:
        raise NotInThisProduct(f"The service {service[:40]} is")
    if provider == Provider.VIRTUAL_ROUTER:
        raise NotInThisProduct("The provider VirtualRouter is")
    if service != Service.USER_DATA or provider != Provider.CONFIG_DRIVE:
        raise InvalidParameter(
            f"{provider[:40] or 'Nobody'} cannot provide {service}. Leave the service out: DHCP and DNS are external. "
            "UserData may name the provider ConfigDrive."
        )


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


def _record(type: EventType, text: str, on, by: Caller, account: Account | None = None) -> None:
    events.record(type, text, account=account or by.account, on=on, by=by)


def _refuse_if_used(what: str, users: int, of: str) -> None:
    if users:
        raise ResourceInUse(f"{what} is still in use ({of}: {users}). Remove them first.")
