"""NICs of a VM that exists: added and removed, while it runs or is stopped; and their address, set by hand."""

from datetime import datetime
from ipaddress import AddressValueError, IPv4Address

from django.db import transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.deadlocks import repeated
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken
from networks import elements
from networks.elements import AddressChange
from networks.hypervisors.base import Source
from networks.models import AddressState, Network, Nic, NicSecondaryIp, VirtualMachine, VmState
from networks.services.guest_data import AT_REST
from networks.services.submission import must_tell, submit

MOST_NICS = 8


def add_nic(vm: VirtualMachine, network: Network, by: Caller) -> AsyncJob:
    """Write the NIC, and submit the job that plugs it into a running VM."""
    if network.zone_id != vm.zone_id:
        raise InvalidParameter(f"Network {network} is not in zone {vm.zone}.")
    with transaction.atomic():
        job = submit("addNicToVirtualMachine", vm, by, AT_REST, network=network.pk)
        taken = set(vm.nics.values_list("device_id", flat=True))
        if len(taken) >= MOST_NICS:
            raise InvalidParameter(f"A VM has at most {MOST_NICS} NICs.")
        device = next(number for number in range(MOST_NICS) if number not in taken)
        write_nic(vm, network, device, plugged=vm.state != VmState.RUNNING)
        must_tell(vm)
    return job


def remove_nic(vm: VirtualMachine, nic: Nic, by: Caller) -> AsyncJob:
    if nic.vm_id != vm.pk:
        raise InvalidParameter(f"{vm} has no such NIC.")
    if nic.is_default:
        raise InvalidParameter("The default NIC stays: its address is the VM's.")
    with transaction.atomic():
        job = submit("removeNicFromVirtualMachine", vm, by, AT_REST, nic=nic.pk)
        must_tell(vm)
    return job


def make_default(vm: VirtualMachine, nic: Nic, by: Caller) -> AsyncJob:
    """Make another NIC the VM's default one: its address is the VM's then."""
    if nic.vm_id != vm.pk:
        raise InvalidParameter(f"{vm} has no such NIC.")
    if not nic.network.is_default:
        raise InvalidParameter(f"Network {nic.network} may not be a VM's default network.")
    with transaction.atomic():
        job = submit("updateDefaultNicForVirtualMachine", vm, by, AT_REST)
        if not Nic.objects.filter(pk=nic.pk, is_default=False).update(is_default=True):
            nic.refresh_from_db(fields=["is_default"])  # unless it was removed meanwhile
            raise InvalidParameter(f"{nic} is the default NIC already.")
        Nic.objects.filter(vm=vm).exclude(pk=nic.pk).update(is_default=False)
        now = timezone.now()
        for element in elements.registered():
            element.changed(vm, now)
        must_tell(vm)
    return job


def write_nic(vm: VirtualMachine, network: Network, device: int, *, plugged: bool = True) -> Nic:
    """In a transaction."""
    with unless_taken(InvalidParameter(f"{vm} has a NIC on network {network} already.")):
        nic = Nic.objects.create(vm=vm, network=network, device_id=device, plugged=plugged)
    now = timezone.now()
    for element in elements.registered():
        element.nic_added(nic, now)
    return nic


def drop_nic(nic: Nic) -> None:
    """Nothing of the VM holds it any more."""
    now = timezone.now()
    with transaction.atomic():
        for element in elements.registered():
            element.nic_removed(nic, now)
        nic.delete()


# An address set by hand -------------------------------------------------------------------------


def pin(nic: Nic, address: str | None, by: Caller, *, although_held: bool = False) -> None:
    """Set a NIC's IPv4 address by hand: nothing that is learned overwrites it. None lets it be learned again.

    Raises InvalidParameter for an address that the network's DHCP server cannot give, and, unless `although_held`,
    for one that another NIC of the network has.
    """
    ip = str(leasable(nic.network, address)) if address else None

    def write() -> None:
        with transaction.atomic():
            _set(nic, ip, by, although_held)

    repeated(write)


def update_address(nic: Nic, address: str | None, by: Caller) -> AsyncJob:
    """As `pin`, with a job that has nothing left to do."""
    ip = str(leasable(nic.network, address)) if address else None

    def write() -> AsyncJob:
        with transaction.atomic():
            job = submit("updateVmNicIp", nic.vm, by, AT_REST)
            _set(nic, ip, by, although_held=False)
            return job

    return repeated(write)


def _set(nic: Nic, ip: str | None, by: Caller, although_held: bool) -> None:
    # The VM first, as those do who write what is learned.
    vm = VirtualMachine.objects.select_for_update().get(pk=nic.vm_id)
    if vm.state in (VmState.DESTROYED, VmState.EXPUNGING):
        raise InvalidParameter(f"{vm} is {vm.state}.")
    locked = Nic.objects.select_for_update().get(pk=nic.pk)
    locked.vm = vm
    now = timezone.now()
    if ip is None:
        _unpin(locked, by, now)
    else:
        _pin(locked, ip, by, now, although_held)


def leasable(network: Network, text: str) -> IPv4Address:
    """Raises InvalidParameter for what no guest of the network can have."""
    try:
        ip = IPv4Address(text)
    except AddressValueError:
        raise InvalidParameter("ipaddress: that is no IPv4 address.") from None
    if ip.is_link_local or ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        raise InvalidParameter(f"{ip} is of a kind that no DHCP server gives.")
    if str(ip) == network.gateway:
        raise InvalidParameter(f"{ip} is the gateway of network {network}.")
    cidr = network.ip4_network
    if cidr is None:
        return ip
    if ip not in cidr:
        raise InvalidParameter(f"{ip} is outside {cidr}, which is network {network}.")
    if cidr.prefixlen < 31 and ip in (cidr.network_address, cidr.broadcast_address):
        raise InvalidParameter(f"{ip} is the first or the last address of {cidr}, which no guest can have.")
    return ip


def _pin(nic: Nic, ip: str, by: Caller, now: datetime, although_held: bool) -> None:
    before = nic.ip4_address
    if nic.address_state == AddressState.PINNED and before == ip:
        return
    others = Nic.objects.filter(network=nic.network_id, ip4_address=ip).exclude(pk=nic.pk)
    if others.exclude(pk__in=Nic.objects.visible_to(by).values("pk")).exists():
        # Of another account's VM not even the name is told, and nothing is taken from it.
        raise InvalidParameter(f"{ip} is in use on network {nic.network}.")
    if NicSecondaryIp.objects.filter(network=nic.network_id, address=ip).exclude(nic=nic).exists():
        raise InvalidParameter(f"{ip} is in use on network {nic.network}: as another NIC's secondary address.")
    held = others.filter(address_state__in=[AddressState.CONFIRMED, AddressState.PINNED])
    holders = ", ".join(f"{other} ({other.mac_address})" for other in held.select_related("vm"))
    if holders and not although_held:
        raise InvalidParameter(f"{ip} is held by {holders}.")
    nic.ip4_address = ip
    nic.address_state = AddressState.PINNED
    nic.address_source = Source.OPERATOR
    nic.address_seen_at = nic.address_seen_at if before == ip else None
    nic.secondary_addresses = [other for other in nic.secondary_addresses if other != ip]
    nic.save(update_fields=["ip4_address", "address_state", "address_source", "address_seen_at", "secondary_addresses"])
    changes = [_change(nic, before, ip)] if before != ip else []
    # As when the address is learned: who was not sure of it loses it.
    unsure = others.filter(address_state__in=[AddressState.LAST_KNOWN, AddressState.UNCONFIRMED])
    former = list(unsure.select_for_update())
    unsure.filter(pk__in=[other.pk for other in former]).update(
        ip4_address=None, address_state=AddressState.UNKNOWN, address_source=""
    )
    changes += [_change(other, ip, None) for other in former]
    _tell(nic, changes, now)
    for other in former:
        other.address_state = AddressState.UNKNOWN
        _tell(other, [], now)
    events.record(
        EventType.IP_CHANGE,
        f"{nic}: ip addr {ip} was set by hand, before: {before or 'none'}",
        account=nic.vm.account,
        on=nic.vm,
        by=by,
        level=Level.WARN if holders else Level.INFO,
        for_operator=f"(Of others, {holders} has it.)" if holders else "",
    )


def _unpin(nic: Nic, by: Caller, now: datetime) -> None:
    if nic.address_state != AddressState.PINNED:
        return
    nic.address_state = AddressState.LAST_KNOWN if nic.ip4_address else AddressState.UNKNOWN
    nic.save(update_fields=["address_state"])
    _tell(nic, [], now)
    events.record(
        EventType.IP_CHANGE,
        f"{nic}: ip addr {nic.ip4_address} is not set by hand any more, and is asked for again",
        account=nic.vm.account,
        on=nic.vm,
        by=by,
    )


def _change(nic: Nic, before: str | None, after: str | None) -> AddressChange:
    return AddressChange(nic.pk, nic.vm_id, before, after, nic.ip6_address, nic.ip6_address)


def _tell(nic: Nic, changes: list[AddressChange], now: datetime) -> None:
    for element in elements.registered():
        element.pin_changed(nic, now)
        if changes:
            element.addresses_changed(changes, now)
