"""Where things are in a vSphere inventory: hosts, their datacenter, datastores and networks, and templates.

Names come as an administrator writes them. `escaped` names are the inventory's own.
"""

from dataclasses import dataclass
from typing import Any

from networks.hypervisors.base import (
    RENAMED,
    HostUnavailable,
    NetworkMissing,
    NetworkRef,
    NotFound,
    Refused,
    StorageProblem,
)
from networks.hypervisors.vsphere_names import displayed, escaped, given_name
from networks.hypervisors.vsphere_session import Found, Session
from networks.hypervisors.vsphere_types import vim

PLACE_SECONDS = 300.0  # how long a host is believed to stay where it is in the inventory
_DEPTH = 50  # folders in folders, at most


@dataclass(frozen=True)
class Place:
    """One host. `datacenter_path` is what the HTTPS access to files calls its datacenter."""

    host: Any
    name: str
    pool: Any
    datacenter: Any
    datacenter_path: str
    vm_folder: Any

    @property
    def identifier(self) -> str:
        return str(self.host._moId)


def place(session: Session, name: str) -> Place:
    """The host that is called so; without a name, the only one. Raises HostUnavailable, NotFound, Refused."""
    return session.remembered(("host", name), lambda: _find_place(session, name), PLACE_SECONDS)


def place_of(session: Session, identifier: str) -> Place:
    """The host that a VM is registered on."""
    return session.remembered(
        ("host of", identifier), lambda: _place(session, _host(session, identifier)), PLACE_SECONDS
    )


def _find_place(session: Session, name: str) -> Place:
    hosts = session.find_all(vim.HostSystem, "name", "parent")
    if name:
        given_name(name, "The host's name")
        hosts = [host for host in hosts if displayed(host.properties["name"]) == name]
    if not hosts and name:
        raise HostUnavailable(f"vSphere has no host {name}: {RENAMED}")
    if not hosts:
        raise NotFound("vSphere has no host.")
    if len(hosts) > 1 and name:
        raise HostUnavailable(f"vSphere has {len(hosts)} hosts of the name {name}: give each its own.")
    if len(hosts) > 1:
        raise Refused("This can only be done on one host, and none was named.")
    return _place(session, hosts[0])


def _host(session: Session, identifier: str) -> Found:
    host = session.object(vim.HostSystem, identifier)
    return Found(host, session.read(host, "name", "parent"))


def _place(session: Session, host: Found) -> Place:
    compute = host.properties["parent"]
    pool = session.read(compute, "resourcePool")["resourcePool"]
    datacenter, names = _datacenter_of(session, compute)
    folder = session.read(datacenter, "vmFolder")["vmFolder"]
    return Place(host.ref, displayed(host.properties["name"]), pool, datacenter, "/".join(names), folder)


def _datacenter_of(session: Session, ref: Any) -> tuple[Any, list[str]]:
    """The datacenter above `ref`, and the escaped names from the root folder down to it."""
    datacenter, names = None, list[str]()
    for _ in range(_DEPTH):
        if ref is None or ref == session.content.rootFolder:
            break
        found = session.read(ref, "name", "parent")
        if isinstance(ref, vim.Datacenter):
            datacenter = ref
        if datacenter is not None:
            names.insert(0, found["name"])
        ref = found["parent"]
    if datacenter is None:
        raise NotFound("The host is in no datacenter that this user sees.")
    return datacenter, names


def check_usable(session: Session, there: Place) -> None:
    """Raises HostUnavailable while no VM can be put on the host."""
    facts = session.read(there.host, "runtime.connectionState", "runtime.inMaintenanceMode")
    if facts["runtime.connectionState"] != "connected":
        raise HostUnavailable(f"Host {there.name} is off, or vCenter has lost it.")
    if facts["runtime.inMaintenanceMode"]:
        raise HostUnavailable(f"Host {there.name} is in maintenance mode.")


# Datastores -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Datastore:
    """A datastore that a host mounts; `total` and `free` in bytes. Without a vCenter nobody knows of further hosts."""

    ref: Any
    name: str
    kind: str
    browser: Any
    total: int
    free: int
    is_shared: bool


def datastore(session: Session, there: Place, name: str) -> Datastore:
    """Raises StorageProblem for one that the host does not mount, or cannot use now."""
    given_name(name, "The datastore's name")
    for found in session.read_all(session.read(there.host, "datastore")["datastore"] or [], "summary", "browser"):
        summary = found.properties["summary"]
        if displayed(summary.name) != name:
            continue
        if not summary.accessible or (summary.maintenanceMode or "normal") != "normal":
            raise StorageProblem(f"Datastore {name} is not accessible on host {there.name}.")
        return Datastore(
            found.ref,
            summary.name,
            summary.type,
            found.properties["browser"],
            summary.capacity,
            summary.freeSpace,
            is_shared=session.is_vcenter and summary.multipleHostAccess is not False,
        )
    raise StorageProblem(f"Host {there.name} mounts no datastore {name}: mount it there.")


# Networks ---------------------------------------------------------------------------------------


def network(session: Session, there: Place, wanted: NetworkRef) -> Any:
    """The port group (or opaque network) with this label on the host. Raises NetworkMissing."""
    given_name(wanted.label, "The network's label")
    for found in _networks(session, there):
        if displayed(found.properties["name"]) == wanted.label:
            return found.ref
    raise NetworkMissing(
        f"Port group {wanted.label} is not there on host {there.name}: create it, and give it its VLAN."
    )


def _networks(session: Session, there: Place) -> list[Found]:
    return session.read_all(session.read(there.host, "network")["network"] or [], "name", kind=vim.ManagedEntity)


def check_vlan(session: Session, there: Place, wanted: NetworkRef, found: Any) -> None:
    """Raises NetworkMissing when the port group carries another VLAN, as far as vSphere says which."""
    if wanted.vlan is None:
        return
    vlan = _distributed_vlan(session, found) if _is_distributed(found) else _standard_vlan(session, there, wanted.label)
    if vlan is not None and vlan != wanted.vlan:
        raise NetworkMissing(
            f"Port group {wanted.label} on host {there.name} carries VLAN {vlan}, not {wanted.vlan}: mend one of them."
        )


def _is_distributed(found: Any) -> bool:
    return isinstance(found, vim.dvs.DistributedVirtualPortgroup)


def _distributed_vlan(session: Session, found: Any) -> int | None:
    """None for a trunk or a private VLAN."""
    policy = session.read(found, "config.defaultPortConfig")["config.defaultPortConfig"]
    vlan = getattr(policy, "vlan", None)
    return vlan.vlanId if isinstance(vlan, vim.dvs.VmwareDistributedVirtualSwitch.VlanIdSpec) else None


def _standard_vlan(session: Session, there: Place, label: str) -> int | None:
    for group in session.read(there.host, "config.network.portgroup")["config.network.portgroup"] or []:
        if displayed(group.spec.name) == label:
            return int(group.spec.vlanId)
    return None


def backing(session: Session, found: Any) -> Any:
    """What connects a NIC to a network."""
    card = vim.vm.device.VirtualEthernetCard
    if _is_distributed(found):
        facts = session.read(found, "key", "config.distributedVirtualSwitch")
        switch = session.read(facts["config.distributedVirtualSwitch"], "uuid")["uuid"]
        port = vim.dvs.PortConnection(switchUuid=switch, portgroupKey=facts["key"])
        return card.DistributedVirtualPortBackingInfo(port=port)
    if isinstance(found, vim.OpaqueNetwork):
        summary = session.read(found, "summary")["summary"]
        return card.OpaqueNetworkBackingInfo(
            opaqueNetworkId=summary.opaqueNetworkId, opaqueNetworkType=summary.opaqueNetworkType
        )
    return card.NetworkBackingInfo(deviceName=session.read(found, "name")["name"], network=found)


# Templates --------------------------------------------------------------------------------------


def template(session: Session, there: Place, image: str) -> Any:
    """The template that is called so, in the host's datacenter. Raises NotFound."""
    given_name(image, "The template's name")
    child = session.do(session.content.searchIndex.FindChild, there.vm_folder, escaped(image))
    candidates = [child] if isinstance(child, vim.VirtualMachine) else _named(session, there, image)
    found = session.read_all(candidates, "config.template")
    for each in found:
        if each.properties.get("config.template"):
            return each.ref
    if found:
        raise NotFound(f"{image} is a VM in vSphere, and no template: turn it into one.")
    raise NotFound(f"The datacenter of host {there.name} has no template {image}.")


def _named(session: Session, there: Place, name: str) -> list[Any]:
    everything = session.find_all(vim.VirtualMachine, "name", under=there.datacenter)
    return [found.ref for found in everything if displayed(found.properties.get("name", "")) == name]
