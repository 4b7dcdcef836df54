"""Networks, VLANs and physical interfaces.

Not modelled: bonds, tunnels, private networks of an SDN controller, IP configuration of the hosts themselves.
"""

from collections.abc import Mapping

from .calls import Call, from_record, message
from .database import Row
from .errors import XenError


@message("network.create", "record")
def create(call: Call, record: Mapping[str, object]) -> str:
    values = from_record("network", record)
    names = ("name_label", "name_description", "MTU", "other_config", "tags", "bridge", "managed")
    given = {name: values[name] for name in names if name in values}
    given["bridge"] = given.get("bridge") or call.xen.next_bridge()
    return call.db.create("network", **given)


@message("network.destroy", "network")
def destroy(call: Call, network: str) -> None:
    row = call.db.get("network", network)
    for field, code in (("VIFs", "NETWORK_CONTAINS_VIF"), ("PIFs", "NETWORK_CONTAINS_PIF")):
        if row[field]:
            raise XenError(code, row[field])
    call.db.delete("network", network)


@message("VLAN.create", "PIF", "int", "network")
def create_vlan(call: Call, pif: str, tag: int, network: str) -> str:
    """The tagged interface `pif` of one host carries VLAN `tag`; guests of that host join it through `network`."""
    row = call.db.get("PIF", pif)
    _check(call, row, tag, network)
    return _add(call, row, tag, network)


@message("pool.create_VLAN_from_PIF", "PIF", "network", "int")
def create_vlan_everywhere(call: Call, pif: str, network: str, tag: int) -> list[str]:
    """On the interface of that name of every host. Answers with the new interfaces, one a host."""
    device = call.db.get("PIF", pif)["device"]
    return _create_on_all(call, str(device), network, tag)


@message("pool.create_VLAN", "string", "network", "int")
def create_vlan_by_device(call: Call, device: str, network: str, tag: int) -> list[str]:
    return _create_on_all(call, device, network, tag)


def _create_on_all(call: Call, device: str, network: str, tag: int) -> list[str]:
    interfaces = call.db.where("PIF", device=device, physical=True)
    for interface in interfaces:
        _check(call, interface, tag, network)
    vlans = [_add(call, interface, tag, network) for interface in interfaces]
    return [call.db.get("VLAN", vlan).text("untagged_PIF") for vlan in vlans]


def _check(call: Call, pif: Row, tag: int, network: str) -> None:
    if not 0 <= tag <= 4094:
        raise XenError("VLAN_TAG_INVALID", tag)
    if pif["VLAN"] != -1:
        raise XenError("PIF_IS_VLAN", pif.ref)
    on_host = call.db.where("PIF", host=pif["host"])
    for other in on_host:
        if other["network"] == network:
            raise XenError("NETWORK_ALREADY_CONNECTED", pif["host"], other.ref)
        if (other["device"], other["VLAN"]) == (pif["device"], tag):
            raise XenError("PIF_VLAN_EXISTS", pif.ref)


def _add(call: Call, pif: Row, tag: int, network: str) -> str:
    untagged = call.db.create(
        "PIF", device=pif["device"], host=pif["host"], network=network, MAC=pif["MAC"], MTU=pif["MTU"], VLAN=tag
    )
    vlan = call.db.create("VLAN", tagged_PIF=pif.ref, untagged_PIF=untagged, tag=tag)
    call.db.set("PIF", untagged, VLAN_master_of=vlan)
    return vlan


@message("VLAN.destroy", "VLAN")
def destroy_vlan(call: Call, vlan: str) -> None:
    untagged = call.db.get("VLAN", vlan).text("untagged_PIF")
    pif = call.db.get("PIF", untagged)
    for vif in call.db.get("network", pif["network"]).refs("VIFs"):
        row = call.db.get("VIF", vif)
        if row["currently_attached"] and call.db.get("VM", row["VM"])["resident_on"] == pif["host"]:
            raise XenError("VIF_IN_USE", pif["network"], vif)
    call.db.delete("PIF", untagged)
    call.db.delete("VLAN", vlan)


@message("PIF.plug", "PIF")
def plug(call: Call, pif: str) -> None:
    call.db.set("PIF", pif, currently_attached=True)


@message("PIF.unplug", "PIF")
def unplug(call: Call, pif: str) -> None:
    call.db.set("PIF", pif, currently_attached=False)


@message("PIF.scan", "host")
def scan(call: Call, host: str) -> None:
    """No interface comes up that was not there."""
