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
from networks.models.tags import ResourceTag
from networks.models.vms import (
    AddressState,
    ConfigDriveUse,
    Nic,
    NicSecondaryIp,
    SshKeyPair,
    VirtualMachine,
    VmState,
    Volume,
)

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
    "NicSecondaryIp",
    "OfferedService",
    "Pod",
    "PrimaryStorage",
    "Provider",
    "ResourceTag",
    "Service",
    "ServiceOffering",
    "SshKeyPair",
    "Template",
    "VirtualMachine",
    "VmState",
    "Volume",
    "Zone",
]
