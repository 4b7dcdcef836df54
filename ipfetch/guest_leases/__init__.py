"""The lease files of DHCP clients, as they lie on a guest's disk: pure functions over bytes that the guest wrote.

One module for each client; `archive` takes apart what brings several files with their names and
times, and `choice` says which of the leases are a NIC's own.
"""

from collections.abc import Callable, Iterable, Mapping

from ipfetch.guest_leases import archive, dhclient, dhcpcd, network_manager, wicked, windows
from ipfetch.guest_leases.choice import Ambiguous, DiskNic, choose
from ipfetch.guest_leases.values import FileOnDisk, GuestLease
from networks.hypervisors.base import GuestClient, LeaseFile

__all__ = ["Ambiguous", "DiskNic", "FileOnDisk", "GuestLease", "choose", "leases_of"]

# Each gives the leases of one file, or none for a file that is not one of its client's.
_PARSERS: Mapping[GuestClient, Callable[[FileOnDisk], list[GuestLease]]] = {
    GuestClient.DHCLIENT: dhclient.leases,
    GuestClient.NETWORK_MANAGER: network_manager.leases,
    GuestClient.DHCPCD: dhcpcd.leases,
    GuestClient.WICKED: wicked.leases,
    GuestClient.WINDOWS: windows.leases,
}
MOST_LEASES = 256


def leases_of(files: Iterable[LeaseFile]) -> list[GuestLease]:
    """All leases in `files`, at most MOST_LEASES; a file that cannot be read has none."""
    found: list[GuestLease] = []
    for file in files:
        for member in archive.files(file.content):
            found += _PARSERS[_client(file.client, member)](member)
            if len(found) >= MOST_LEASES:
                return found[:MOST_LEASES]
    return found


def _client(client: GuestClient, member: FileOnDisk) -> GuestClient:
    """NetworkManager can use dhclient, whose files then lie beside its own: dhclient-UUID-eth0.lease."""
    if client is GuestClient.NETWORK_MANAGER and member.name.startswith("dhclient"):
        return GuestClient.DHCLIENT
    return client
