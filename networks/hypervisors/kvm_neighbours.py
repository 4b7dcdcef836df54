"""The neighbour (ARP) table of a libvirt host, asked VM by VM."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import libvirt

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    DeadlineExceeded,
    EndpointUnreachable,
    GuestAddress,
    HypervisorError,
    Source,
    VmRef,
)
from networks.hypervisors.kvm_addresses import guest_addresses
from networks.hypervisors.kvm_connection import Session

# The host asks its kernel and no guest.
ANSWER_SECONDS = 10.0


def neighbours(session: Session, vms: Sequence[VmRef]) -> Iterator[tuple[VmRef, tuple[GuestAddress, ...]]]:
    """What the host's table has for each VM; one that does not run, or cannot be asked about, yields nothing.

    Nothing more is yielded once the session's deadline has passed. Raises EndpointUnreachable.
    """
    for vm in vms:
        until = time.monotonic() + ANSWER_SECONDS
        try:
            found = _of_vm(session, vm, until)
        except DeadlineExceeded:
            if time.monotonic() < until:
                return
            raise
        except EndpointUnreachable:
            raise
        except HypervisorError:
            continue
        yield vm, found


def _of_vm(session: Session, vm: VmRef, until: float) -> tuple[GuestAddress, ...]:
    domain = session.do(session.connection.lookupByUUIDString, kvm_xml.vm_uuid(vm.uuid), until=until)
    table = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP
    answer = session.do(domain.interfaceAddresses, table, 0, until=until)
    found = guest_addresses(answer, vm.macs, Source.NEIGHBOUR)
    # libvirt does not know the prefix, and says 0.
    return tuple(replace(address, prefix=address.prefix or None) for address in found if address.mac in vm.macs)
