"""Network offerings and service offerings: checked whole before anything is written."""

from collections.abc import Mapping

from django.db import transaction

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter, NotInThisProduct, ResourceInUse
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.uniqueness import unless_taken
from networks.models import GuestType, NetworkOffering, OfferedService, Provider, Service, ServiceOffering
from networks.models.infrastructure import AllocationState


def create_offering(
    *,
    name: str,
    display_text: str,
    guest_type: str,
    services: Mapping[str, str],
    specify_vlan: bool,
    specify_ip_ranges: bool,
    enable: bool,
    max_connections: int | None = None,
    by: Caller,
) -> NetworkOffering:
    """`services` maps a service to its provider; an empty one is legal, and is the point."""
    _check_guest_type(guest_type)
    for service, provider in services.items():
        _check_service(service, provider)
    if guest_type == GuestType.SHARED and not specify_vlan:
        raise InvalidParameter("A Shared network lies on a VLAN of its own: say specifyvlan=true.")
    with transaction.atomic():
        with unless_taken(_taken(name)):
            offering = NetworkOffering.objects.create(
                name=name,
                display_text=display_text,
                guest_type=guest_type,
                specify_vlan=specify_vlan,
                specify_ip_ranges=specify_ip_ranges,
                max_connections=max_connections,
                state=AllocationState.ENABLED if enable else AllocationState.DISABLED,
            )
        OfferedService.objects.bulk_create(
            OfferedService(offering=offering, service=service, provider=provider)
            for service, provider in services.items()
        )
        _record(EventType.NETWORK_OFFERING_CREATE, f"Network offering {name} created", offering, by)
    return offering


def update_offering(
    offering: NetworkOffering,
    *,
    by: Caller,
    name: str = "",
    display_text: str = "",
    state: str = "",
    max_connections: int | None = None,
) -> NetworkOffering:
    if state and state not in AllocationState.values:
        raise InvalidParameter(f"state must be {' or '.join(AllocationState.values)}.")
    offering.name = name or offering.name
    offering.display_text = display_text or offering.display_text
    offering.state = state or offering.state
    if max_connections is not None:
        offering.max_connections = max_connections
    with transaction.atomic():
        with unless_taken(_taken(name)):
            offering.save(update_fields=["name", "display_text", "state", "max_connections"])
        _record(EventType.NETWORK_OFFERING_EDIT, f"Network offering {offering} is {offering.state}", offering, by)
    return offering


def _taken(name: str) -> InvalidParameter:
    return InvalidParameter(f"There is a network offering named {name} already.")


def delete_offering(offering: NetworkOffering, by: Caller) -> None:
    refuse_if_used(f"Network offering {offering}", offering.networks.count(), "networks")
    with transaction.atomic():
        _record(EventType.NETWORK_OFFERING_DELETE, f"Network offering {offering} deleted", offering, by)
        offering.delete()


def create_service_offering(
    *, name: str, display_text: str, cpus: int, mhz: int, memory_mib: int, by: Caller
) -> ServiceOffering:
    with transaction.atomic():
        offering = ServiceOffering.objects.create(
            name=name, display_text=display_text or name, cpus=cpus, mhz=mhz, memory_mib=memory_mib
        )
        _record(EventType.SERVICE_OFFERING_CREATE, f"Service offering {name} created", offering, by)
    return offering


def rename_service_offering(offering: ServiceOffering, by: Caller, **names: str) -> ServiceOffering:
    """Change `name` and `display_text`; what an offering offers never changes (admin guide, 4)."""
    with transaction.atomic():
        ServiceOffering.objects.filter(pk=offering.pk).update(**names)
        offering.refresh_from_db()
        _record(EventType.SERVICE_OFFERING_EDIT, f"Service offering {offering} renamed", offering, by)
    return offering


def delete_service_offering(offering: ServiceOffering, by: Caller) -> None:
    """Nobody can choose it any more; VMs that have it keep it."""
    with transaction.atomic():
        _record(EventType.SERVICE_OFFERING_DELETE, f"Service offering {offering} deleted", offering, by)
        offering.delete()


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


def refuse_if_used(what: str, users: int, of: str) -> None:
    if users:
        raise ResourceInUse(f"{what} is still in use ({of}: {users}). Remove them first.")


def _record(type: EventType, text: str, offering: NetworkOffering | ServiceOffering, by: Caller) -> None:
    events.record(type, text, account=by.account, on=offering, by=by)
