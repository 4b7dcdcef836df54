"""What a user may not do in vSphere of what the driver does. Source: vSphere Security, "Defined Privileges"."""

from collections.abc import Iterable, Sequence
from typing import Any

from networks.hypervisors.base import CredentialsRefused
from networks.hypervisors.vsphere_session import Properties, Session
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
    """Privileges that are lacking in a datacenter, or in each of all. Raises CredentialsRefused for who sees none."""
    datacenters = (
        [datacenter] if datacenter is not None else [dc.ref for dc in session.find_all(vim.Datacenter, "name")]
    )
    found = session.read_all(datacenters, "vmFolder", "hostFolder", "datastore", "network")
    if not found:
        raise CredentialsRefused("The user sees no datacenter in vSphere: give it a role there.")
    return tuple(sorted(set.intersection(*(_lacking_in(session, each.properties) for each in found))))


def _lacking_in(session: Session, datacenter: Properties) -> set[str]:
    return (
        _lacking(session, _seen(datacenter, "vmFolder"), _ON_VMS)
        | _lacking(session, _seen(datacenter, "hostFolder"), _ON_HOSTS)
        | _lacking(session, datacenter.get("datastore") or [], _ON_DATASTORES)
        | _lacking(session, datacenter.get("network") or [], _ON_NETWORKS)
    )


def _seen(datacenter: Properties, path: str) -> list[Any]:
    """What the user does not see is not there."""
    return [datacenter[path]] if path in datacenter else []


def _lacking(session: Session, entities: Sequence[Any], privileges: Iterable[str]) -> set[str]:
    """Those that are granted on none of the entities."""
    lacking = set(privileges)
    if entities:
        ask = session.content.authorizationManager.HasPrivilegeOnEntities
        for answer in session.do(ask, list(entities), session.key, sorted(lacking)):
            lacking -= {each.privId for each in answer.privAvailability if each.isGranted}
    return lacking
