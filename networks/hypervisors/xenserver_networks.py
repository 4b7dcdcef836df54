"""A pool's networks: the one that carries guest networks, and a network for each VLAN on it; and the NICs on them.

Sources: XenAPI reference, classes network, PIF, VLAN and VIF. A PIF is a host's interface (or bond, or VLAN) on a
network; a pool's hosts have theirs on the same networks.
"""

import contextlib
import time

from networks.hypervisors import xenserver_records as records
from networks.hypervisors.base import (
    Busy,
    HypervisorError,
    NetworkMissing,
    NetworkRef,
    NicSpec,
    NicState,
    NotFound,
    PowerState,
    Refused,
)
from networks.hypervisors.bounded_xmlrpc import RECORDS, keeping
from networks.hypervisors.xenserver_records import Vm
from networks.hypervisors.xenserver_session import Session

MADE_FOR = "Guest networks of a VLAN. Made by extdhcp, and used by all hosts of the pool."
NO_VLAN = "-1"
LETTING_GO_SECONDS = 30.0  # a guest that lets go of a NIC at all does so in one or two

_PIF = frozenset({"network", "VLAN", "device", "VLAN_master_of"})


# Networks ---------------------------------------------------------------------------------------


def find(session: Session, host: str, network: NetworkRef) -> str:
    """The network on which guests of this host are on `network`. Raises NetworkMissing."""
    found = _find(session, host, network)
    if found is None:
        raise NetworkMissing(f"The pool has no network for VLAN {network.vlan} on {network.label} yet.")
    return found


def ensure(session: Session, host: str, network: NetworkRef) -> None:
    """As `find`, but a VLAN's network is made, for the whole pool, when it lacks."""
    if _find(session, host, network) is not None:
        return
    pif = _carrier(session, host, network)[0]
    made = str(session.call("network.create", _new_network(f"{network.label}-vlan{network.vlan}")))
    try:
        session.call("pool.create_VLAN_from_PIF", pif, made, str(network.vlan))
    except HypervisorError as error:
        with contextlib.suppress(HypervisorError):
            session.call("network.destroy", made)
        # Another process may have been faster.
        if not isinstance(error, Busy) or _find(session, host, network) is None:
            raise


def _new_network(name: str) -> dict[str, object]:
    return {
        "name_label": name,
        "name_description": MADE_FOR,
        "MTU": "1500",
        "other_config": {records.OURS: "vlan"},
        "tags": [],
    }


def _find(session: Session, host: str, network: NetworkRef) -> str | None:
    pif, carrier, tag = _carrier(session, host, network)
    if network.vlan is None or tag == str(network.vlan):
        return carrier
    for vlan in session.where("VLAN", "tagged_PIF", pif).values():
        if vlan.get("tag") == str(network.vlan):
            return records.ref(session.record("PIF", records.ref(vlan, "untagged_PIF")), "network")
    return None


def _carrier(session: Session, host: str, network: NetworkRef) -> tuple[str, str, str]:
    """The host's PIF on the network that is named, that network, and its VLAN (NO_VLAN for none)."""
    label = records.label(network.label, "The network's label")
    named = session.named_refs("network", label)
    with keeping(_PIF, depth=RECORDS):
        pifs = session.where("PIF", "host", host)
    found = [(ref, pif) for ref, pif in pifs.items() if records.ref(pif, "network") in named]
    if not named:
        raise NetworkMissing(
            f"The pool has no network {label}: give this name to the network that carries the guests' traffic."
        )
    if not found:
        raise NetworkMissing(f"The host has no interface on network {label}: connect it there.")
    if len(found) > 1:
        raise NetworkMissing(f"The host is on several networks of the name {label}: give each its own.")
    ref, pif = found[0]
    tag = records.text(pif, "VLAN")
    if tag not in (NO_VLAN, str(network.vlan)):
        raise NetworkMissing(f"Network {label} is VLAN {tag} itself, and can carry no other.")
    return ref, records.ref(pif, "network"), tag


# NICs -------------------------------------------------------------------------------------------


def create(session: Session, vm: str, network: str, mac: str, device: str) -> str:
    """A VIF of a VM; it is in the guest once it is plugged, or at the next start."""
    return records.reference(
        session.call(
            "VIF.create",
            {
                "VM": vm,
                "network": network,
                "device": device,
                "MAC": records.mac_address(mac),
                "MTU": "1500",
                "other_config": {},
                "qos_algorithm_type": "",
                "qos_algorithm_params": {},
            },
        )
    )


def plug(session: Session, vm: Vm, host: str, nic: NicSpec) -> None:
    """Give the VM a NIC with this MAC; done already is success."""
    found = _with_mac(session, vm, nic.mac)
    if found is None:
        places = session.call("VM.get_allowed_VIF_devices", vm.ref)
        if not isinstance(places, list) or not places:
            raise Refused("The VM has as many NICs as it can.")
        ref, attached = create(session, vm.ref, find(session, host, nic.network), nic.mac, str(places[0])), False
    else:
        ref, attached = found[0], records.flag(found[1], "currently_attached")
    if vm.power is PowerState.OFF or attached:
        return
    try:
        session.run("VIF.plug", ref)
    except HypervisorError:
        if _attached(session, ref):  # somebody was faster
            return
        if found is None:
            with contextlib.suppress(HypervisorError):
                session.call("VIF.destroy", ref)
        raise


def unplug(session: Session, vm: Vm, mac: str) -> None:
    """Take the NIC with this MAC from the VM; gone already is success. Raises Busy when the guest holds on to it."""
    found = _with_mac(session, vm, mac)
    if found is None:
        return
    ref, vif = found
    if records.flag(vif, "currently_attached"):
        try:
            session.run("VIF.unplug", ref, until=min(session.deadline, time.monotonic() + LETTING_GO_SECONDS))
        except HypervisorError:
            if _attached(session, ref):
                raise
    with contextlib.suppress(NotFound):
        session.call("VIF.destroy", ref)


def state(session: Session, vm: Vm, host: str, nic: NicSpec) -> NicState:
    found = _with_mac(session, vm, nic.mac)
    if found is None:
        return NicState.ABSENT
    vif = found[1]
    try:
        expected = find(session, host, nic.network)
    except NetworkMissing:
        return NicState.ELSEWHERE
    if records.ref(vif, "network") != expected:
        return NicState.ELSEWHERE
    if vm.power is not PowerState.OFF and not records.flag(vif, "currently_attached"):
        return NicState.ABSENT
    return NicState.LINK_DOWN if vif.get("locking_mode") == "disabled" else NicState.PLUGGED


def macs(session: Session) -> dict[str, tuple[str, ...]]:
    """The MAC addresses of all VMs of the pool, by the VMs' references."""
    with keeping({"VM", "MAC"}, depth=RECORDS):
        vifs = records.records(session.call("VIF.get_all_records"))
    found: dict[str, tuple[str, ...]] = {}
    for vif in vifs.values():
        ref = records.ref(vif, "VM")
        found[ref] = (*found.get(ref, ()), records.mac(vif))
    return found


def _with_mac(session: Session, vm: Vm, mac: str) -> tuple[str, records.Record] | None:
    wanted = records.mac_address(mac)
    for ref, vif in session.where("VIF", "VM", vm.ref).items():
        if records.mac(vif) == wanted:
            return ref, vif
    return None


def _attached(session: Session, vif: str) -> bool:
    found = session.find("VIF", vif)
    return found is not None and records.flag(found, "currently_attached")
