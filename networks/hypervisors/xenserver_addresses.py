"""What a guest's agent says of its interfaces, joined to the VM's NICs. The guest is not trusted.

XenServer keeps what it says in VM_guest_metrics.networks, by interface number and without MAC addresses:

    agents of today   attr/vif/<VIF device>/ipv4/<n>   ->  "<device>/ipv4/<n>", "<device>/ipv6/<n>" and "<device>/ip"
    older agents      attr/<interface's name>/ip       ->  "<number in the name>/ip", "<number in the name>/ipv6/<n>"

The older ones' number is the guest's own: ens3 gives "3/ip", whichever VIF that is.
Source: xen-api, xapi_guest_agent.ml.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

from networks.hypervisors.base import GuestAddress, Outcome, Reading, Source
from networks.hypervisors.guest_addresses import MAX_ADDRESSES, usable

_KEY = re.compile(r"([0-9]{1,5})/(ip|ipv4/[0-9]{1,5}|ipv6/[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Vif:
    """A VM's NIC: `vm` is a reference, `device` its number there, `mac` lower case."""

    vm: str
    device: str
    mac: str


@dataclass(frozen=True, slots=True)
class Guest:
    """What the pool has from a guest's agent. `live`: it has written lately."""

    networks: tuple[tuple[str, str], ...]
    present: bool
    live: bool


def guest(networks: Mapping[str, str], drivers: Mapping[str, str], system: Mapping[str, str], live: bool) -> Guest:
    """The fields of a VM_guest_metrics record; of `networks` only so much as is looked at.

    The pool writes a version of the drivers of its own ("micro": "-1") where the agent told none.
    """
    kept = tuple(islice(((key, value) for key, value in networks.items() if _KEY.fullmatch(key)), MAX_ADDRESSES))
    return Guest(kept, bool(kept or system or "major" in drivers), live)


def reading(guest: Guest | None, vifs: Sequence[Vif]) -> Reading:
    """One running VM's reading."""
    if guest is None or not guest.present:
        return Reading(problem=Outcome.AGENT_ABSENT, detail="The guest runs no XenServer tools, or not yet.")
    if not guest.live:
        return Reading(problem=Outcome.AGENT_SILENT, detail="The guest's tools have written nothing for minutes.")
    told = _by_device(guest.networks)
    matched, left = _matched(told, vifs)
    if left and not matched:
        return Reading(problem=Outcome.AMBIGUOUS, detail="The guest's tools do not say which NIC has which address.")
    return Reading(tuple(islice(matched, MAX_ADDRESSES)))


def _matched(told: "dict[str, _Told]", vifs: Sequence[Vif]) -> tuple[list[GuestAddress], bool]:
    """The addresses by NIC, and whether some could not be given to one."""
    found: list[GuestAddress] = []
    macs = {vif.device: vif.mac for vif in vifs}
    for device, one in told.items():
        if device in macs:
            # The only NIC has the number, or the agent gives the numbers of the VIFs.
            found += _addresses(macs[device], one, unsure=one.by_name and len(vifs) > 1)
    silent = [vif for vif in vifs if vif.device not in told]
    strange = [one for device, one in told.items() if device not in macs and any(one.ips)]
    if strange and len(silent) == 1:
        for one in strange:
            found += _addresses(silent[0].mac, one, unsure=True)
        return found, False
    return found, bool(strange)


def _addresses(mac: str, told: "_Told", *, unsure: bool) -> list[GuestAddress]:
    source = Source.UNSURE_AGENT if unsure else Source.GUEST_AGENT
    return [GuestAddress(mac, ip, source) for ip in told.ips]


@dataclass
class _Told:
    """An interface number's addresses. `by_name`: the number may be from the interface's name in the guest."""

    ips: list[IPv4Address | IPv6Address]
    by_name: bool = True


def _by_device(networks: Sequence[tuple[str, str]]) -> dict[str, _Told]:
    told: dict[str, _Told] = {}
    for device, kind, ip in _usable(networks):
        one = told.setdefault(device, _Told([]))
        if ip not in one.ips:
            one.ips.append(ip)
        # Only the agents of today have these; one such key, and the pool has left out what an older one wrote.
        if kind.startswith("ipv4/"):
            one.by_name = False
    if any(not one.by_name for one in told.values()):
        for one in told.values():
            one.by_name = False
    return told


def _usable(networks: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, IPv4Address | IPv6Address]]:
    for key, value in networks:
        match, ip = _KEY.fullmatch(key), usable(value)
        if match and ip is not None:
            yield match[1], match[2], ip
