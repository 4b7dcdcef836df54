"""A pool's networks: one for each guest network, of its name, made for a VLAN when it lacks; and the NICs on them.

Sources: XenAPI reference, classes network, PIF, VLAN and VIF. A PIF is a host's interface (or bond, or VLAN) on a
network; a pool's hosts have theirs on the same networks.
"""

import contextlib
import time
from dataclasses import dataclass

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
CARRIER = "cloud-guest"  # the network whose interfaces carry the guests' VLANs
NO_VLAN = "-1"
LETTING_GO_SECONDS = 30.0  # a guest that lets go of a NIC at all does so in one or two

_PIF_FIELDS = frozenset({"network", "VLAN"})


@dataclass(frozen=True)
class _Pif:
    """A host's interface on a network, and its VLAN; NO_VLAN for none."""

    ref: str
    network: str
    tag: str


# Networks ---------------------------------------------------------------------------------------


def find(session: Session, host: str, network: NetworkRef) -> str:
    """The pool's network for `network`, which the host is on. Raises NetworkMissing."""
    found = _find(session, host, network)
    if found is None:
        raise NetworkMissing(f"The pool has no network {network.label} yet.")
    return found


def is_there(session: Session, host: str, network: NetworkRef) -> bool:
    """False when `ensure` has it to make. Raises NetworkMissing where it cannot."""
    if _find(session, host, network) is not None:
        return True
    _carrier_for(session, host, network)
    return False


def _carrier_for(session: Session, host: str, network: NetworkRef) -> str:
    """The host's interface on which a network that lacks is made. Raises NetworkMissing."""
    if network.vlan is None:
        raise NetworkMissing(f"The pool has no network {network.label}: make one of this name, on the guests' VLAN.")
    pif = _carrier(session, host)
    if pif is None:
        raise NetworkMissing(
            f"The pool has no network {network.label}, nor one named {CARRIER} that the host is on: make the former, "
            f"or give the name {CARRIER} to the network that is to carry the guests' VLANs."
        )
    return pif


def ensure(session: Session, host: str, network: NetworkRef) -> None:
    """As `find`, but a VLAN's network is made, for the whole pool, when it lacks."""
    if _find(session, host, network) is not None:
        return
    pif = _carrier_for(session, host, network)
    made = _unfinished(session, network.label) or records.reference(
        session.call("network.create", _new_network(network.label))
    )
    try:
        session.call("pool.create_VLAN_from_PIF", pif, made, str(network.vlan))
    except HypervisorError as error:
        with contextlib.suppress(HypervisorError):
            session.call("network.destroy", made)
        # Another process may have been faster: it has made the VLAN, or taken its unfinished network away.
        if not isinstance(error, Busy | NotFound):
            raise
        if _find(session, host, network) is None:
            raise Busy(f"Network {network.label} was just being made.") from error


def _new_network(name: str) -> dict[str, object]:
    return {
        "name_label": name,
        "name_description": MADE_FOR,
        "MTU": "1500",
        "other_config": {records.OURS: records.VLAN},
        "tags": [],
    }


def _unfinished(session: Session, label: str) -> str | None:
    """One of ours without its VLAN: who was to make that has died, or is about to."""
    return min((ref for ref, one in session.named("network", label).items() if _is_unfinished(one)), default=None)


def _is_unfinished(network: records.Record) -> bool:
    return not network.get("PIFs") and records.strings(network, "other_config").get(records.OURS) == records.VLAN


def _find(session: Session, host: str, network: NetworkRef) -> str | None:
    """By its name, else by its VLAN, which may have been given another name."""
    label = records.label(network.label, "The network's name")
    if named := {ref: one for ref, one in session.named("network", label).items() if not _is_unfinished(one)}:
        return _named(named, _pifs(session, host), network)
    pif = None if network.vlan is None else _carrier(session, host)
    if pif is None:
        return None
    for vlan in session.where("VLAN", "tagged_PIF", pif).values():
        if vlan.get("tag") == str(network.vlan):
            return records.ref(session.record("PIF", records.ref(vlan, "untagged_PIF")), "network")
    return None


def _named(named: dict[str, records.Record], pifs: list[_Pif], network: NetworkRef) -> str:
    """The one of these networks of one name that the host is on; one without any interface is inside of each host."""
    tags = {pif.network: pif.tag for pif in pifs if pif.network in named}
    found = list(tags) or [ref for ref, one in named.items() if not one.get("PIFs")]
    if found and not tags and network.vlan is not None:
        raise NetworkMissing(
            f"Network {network.label} has no interface in the pool, and so nothing of VLAN {network.vlan}: give it one "
            "of that VLAN, or another name."
        )
    if not found:
        raise NetworkMissing(f"The host has no interface on network {network.label}: connect it there.")
    if len(found) > 1:
        raise NetworkMissing(f"The pool has several networks of the name {network.label}: give each its own.")
    # An interface without a tag may be on the VLAN by the switch's doing.
    tag = tags.get(found[0], NO_VLAN)
    if tag not in (NO_VLAN, str(network.vlan)):
        raise NetworkMissing(f"Network {network.label} is on VLAN {tag} in the pool, and not on {network.vlan}.")
    return found[0]


def _carrier(session: Session, host: str) -> str | None:
    """The host's interface on the network that carries the guests' VLANs."""
    named = session.named_refs("network", CARRIER)
    found = [pif.ref for pif in _pifs(session, host) if pif.network in named and pif.tag == NO_VLAN]
    return found[0] if len(found) == 1 else None


def _pifs(session: Session, host: str) -> list[_Pif]:
    with keeping(_PIF_FIELDS, depth=RECORDS):
        pifs = session.where("PIF", "host", host)
    return [_Pif(ref, records.ref(pif, "network"), records.text(pif, "VLAN")) for ref, pif in pifs.items()]


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
        vifs = session.vifs()
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
