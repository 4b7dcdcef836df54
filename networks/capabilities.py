"""What each kind of hypervisor can do here, as its driver says by the protocols that it serves."""

from networks.hypervisors import base
from networks.hypervisors.drivers import driver
from networks.models import HypervisorType

WORDS: dict[type, str] = {
    base.Inventory: "Hosts and VMs are seen",
    base.NetworkOperations: "Guest networks are checked, or made",
    base.Volumes: "ROOT volumes are made from templates",
    base.VmOperations: "VMs are deployed, started, stopped, migrated live; NICs come and go while they run",
    base.MediaStore: "Config drives are brought, inserted, ejected and removed",
    base.AddressReader: "Addresses are asked of the guest's agent or tools",
    base.EventSource: "Addresses, starts, stops and migrations are heard of as they happen",
    base.NicInspector: "Troubleshooting sees whether a NIC is plugged into its network",
    base.RightsReader: "`check_endpoint` says what the user may not do",
    base.StorageReader: "`check_endpoint` says whether storage is shared as it is told here",
    base.StorageMeter: "Operators are told when primary storage runs full",
    base.PoolReader: "A pool whose coordinator is dead is reached through its other hosts",
    base.NeighbourReader: "The host's ARP table hints at addresses",
    base.DiskReader: "Leases are read from guests' disks",
    base.GuestAgent: "A password is set at once in a running guest",
}


# No driver asks anybody when it is made.
_ANY = base.EndpointAddress(base.Transport.TLS, host="hypervisor.example.org")


def of_kind(kind: str) -> list[tuple[str, bool]]:
    """What this kind of hypervisor can do here, and what it cannot."""
    one = driver(kind, _ANY)
    return [(words.replace("`", ""), isinstance(one, protocol)) for protocol, words in WORDS.items()]


def capability_table() -> str:
    """In Markdown."""
    drivers = [driver(kind, _ANY) for kind in HypervisorType.values]
    rows = [["", *HypervisorType.labels], ["---"] * (len(drivers) + 1)]
    rows += [
        [words, *("yes" if isinstance(one, protocol) else "no" for one in drivers)] for protocol, words in WORDS.items()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
