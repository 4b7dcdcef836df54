"""What a provider does as a VM passes through its life.

Every registered element is asked for every VM, and decides for itself: a network whose offering has
no services names no provider, and its VMs need their drive and their address most of all.

Hooks of the first kind are slow, run outside any transaction and must be safe to repeat; those of the
second run inside the transaction that changes the VM's state, and touch the database only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from networks.models import Host, Nic, VirtualMachine


@dataclass(frozen=True)
class Place:
    """A host and the driver that speaks to it."""

    host: Host
    hypervisor: Any


@dataclass(frozen=True)
class AddressChange:
    """A NIC's primary addresses before and after, as text; None where there is none."""

    nic_id: int
    vm_id: int
    ip4_before: str | None
    ip4: str | None
    ip6_before: str | None
    ip6: str | None


class NetworkElement:
    """Base of all elements: does nothing. Named after CloudStack's interface of the same role."""

    # Outside any transaction.

    def prepare(self, vm: VirtualMachine, place: Place) -> None:
        """The VM is defined on its host, powered off, and about to start."""

    def release(self, vm: VirtualMachine, place: Place) -> None:
        """The VM is off: remove what it has on the host."""

    def refresh(self, vm: VirtualMachine, place: Place) -> None:
        """The VM runs, and what its guest is to know has changed: bring it there now, if that can be done."""

    def prepare_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        """Before the switch: the target must have all that the running guest uses."""

    def commit_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        """The VM runs on the target: the source keeps nothing."""

    def roll_back_migration(self, vm: VirtualMachine, source: Place, target: Place) -> None:
        """The VM stayed on the source: the target keeps nothing."""

    # Inside the transaction that changes the VM.

    def started(self, vm: VirtualMachine, now: datetime) -> None:
        pass

    def migrated(self, vm: VirtualMachine, source: Host, target: Host) -> None:
        pass

    def stopped(self, vm: VirtualMachine, now: datetime) -> None:
        pass

    def changed(self, vm: VirtualMachine, now: datetime) -> None:
        """What the guest is to know changes: password, keys, user data, name. A new password is not written yet."""

    def nic_added(self, nic: Nic, now: datetime) -> None:
        """To a VM that was there already: the NICs that a VM is deployed with change nothing for it."""

    def nic_removed(self, nic: Nic, now: datetime) -> None:
        pass

    def pin_changed(self, nic: Nic, now: datetime) -> None:
        """An operator has set the NIC's address by hand, or has taken it from it: its `address_state` tells."""

    def addresses_changed(self, changes: Sequence[AddressChange], now: datetime) -> None:
        """Addresses were learned or have changed: one call for all of a batch."""


_elements: list[NetworkElement] = []


def register(element: NetworkElement) -> None:
    """Called once per element, from its app's AppConfig.ready()."""
    _elements.append(element)


def registered() -> tuple[NetworkElement, ...]:
    return tuple(_elements)
