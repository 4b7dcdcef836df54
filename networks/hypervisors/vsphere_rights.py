"""What a user may not do in vSphere of what the driver does. Source: vSphere Security, "Defined Privileges"."""

from collections.abc import Iterable, Sequence
from typing import Any

from networks.hypervisors.vsphere_session import Session
from networks.hypervisors.vsphere_types import vim

_ON_VMS = (
    "VirtualMachine.Config.AddRemoveDevice",
    "VirtualMachine.Config.AdvancedConfig",
    "VirtualMachine.Config.Annotation",
    "VirtualMachine.Config.CPUCount",
    "VirtualMachine.Config.DiskExtend",
    "VirtualMachine.Config.EditDevice",
    "VirtualMachine.Config.Memory",
    "VirtualMachine.Config.Rename",
    "VirtualMachine.Config.Settings",
    "VirtualMachine.Interact.AnswerQuestion",
    "VirtualMachine.Interact.DeviceConnection",
    "VirtualMachine.Interact.PowerOff",
    "VirtualMachine.Interact.PowerOn",
    "VirtualMachine.Interact.Reset",
    "VirtualMachine.Interact.SetCDMedia",
    "VirtualMachine.Inventory.CreateFromExisting",
    "VirtualMachine.Inventory.Delete",
    "VirtualMachine.Provisioning.DeployTemplate",
)
_ON_HOSTS = ("Resource.AssignVMToPool", "Resource.ColdMigrate", "Resource.HotMigrate")
_ON_DATASTORES = ("Datastore.AllocateSpace", "Datastore.Browse", "Datastore.FileManagement")
_ON_NETWORKS = ("Network.Assign",)


def missing(session: Session, datacenter: Any = None) -> tuple[str, ...]:
    """Privileges that are lacking in a datacenter, or in any of all; those on datastores and networks, on each of them.

    Raises CredentialsRefused for a user who may not even look.
    """
    datacenters = (
        [datacenter] if datacenter is not None else [dc.ref for dc in session.find_all(vim.Datacenter, "name")]
    )
    lacking: set[str] = set()
    for each in session.read_all(datacenters, "vmFolder", "hostFolder", "datastore", "network"):
        facts = each.properties
        lacking |= _lacking(session, [facts["vmFolder"]], _ON_VMS)
        lacking |= _lacking(session, [facts["hostFolder"]], _ON_HOSTS)
        lacking |= _lacking(session, facts.get("datastore") or [], _ON_DATASTORES)
        lacking |= _lacking(session, facts.get("network") or [], _ON_NETWORKS)
    return tuple(sorted(lacking))


def _lacking(session: Session, entities: Sequence[Any], privileges: Iterable[str]) -> set[str]:
    """Those that are granted on none of the entities."""
    lacking = set(privileges)
    if entities:
        ask = session.content.authorizationManager.HasPrivilegeOnEntities
        for answer in session.do(ask, list(entities), session.key, sorted(lacking)):
            lacking -= {each.privId for each in answer.privAvailability if each.isGranted}
    return lacking
