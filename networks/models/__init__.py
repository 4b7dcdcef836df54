"""The cloud: zones and hosts, offerings, networks, VMs and their NICs."""

from networks.models.infrastructure import Cluster, Endpoint, Host, HypervisorType, Pod, PrimaryStorage, Zone
from networks.models.networks import Network
from networks.models.offerings import (
    DriveReader,
    GuestType,
    NetworkOffering,
    OfferedService,
    Provider,
    Service,
    ServiceOffering,
    Template,
)
from networks.models.vms import AddressState, ConfigDriveUse, Nic, SshKeyPair, VirtualMachine, VmState, Volume

__all__ = [
    "AddressState",
    "Cluster",
    "ConfigDriveUse",
    "DriveReader",
    "Endpoint",
    "GuestType",
    "Host",
    "HypervisorType",
    "Network",
    "NetworkOffering",
    "Nic",
    "OfferedService",
    "Pod",
    "PrimaryStorage",
    "Provider",
    "Service",
    "ServiceOffering",
    "SshKeyPair",
    "Template",
    "VirtualMachine",
    "VmState",
    "Volume",
    "Zone",
]
