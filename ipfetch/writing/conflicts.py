"""Addresses that several NICs of one network are said to have."""

from collections import defaultdict
from collections.abc import Collection

from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from ipfetch.models import Confidence, Flag, Observation
from ipfetch.writing.nics import with_addresses
from ipfetch.writing.observations import Observed, Place
from networks.models import AddressState, Nic


def settle_conflicts(observed: Observed) -> None:
    """Flag and tell of addresses that several NICs of one network are said to have; unflag what is settled."""
    suspects = {*observed.appeared, *observed.flagged.values()}
    holders = _holders(suspects)
    contested = {place: holders[place] for place in suspects if len(holders[place]) > 1}
    if settled := [pk for pk, place in observed.flagged.items() if place not in contested]:
        Observation.objects.filter(pk__in=settled).update(flag="")
    for (_, address), nic_ids in contested.items():
        _tell_of_conflict(nic_ids, address)


def _holders(places: Collection[Place]) -> dict[Place, set[int]]:
    """The NICs that are said to have an address, and those that an operator gave it to."""
    holders: dict[Place, set[int]] = defaultdict(set)
    if not places:
        return holders
    said = Observation.objects.current().filter(address__in={address for _, address in places})
    for nic_id, network_id, address, confidence in said.order_by().values_list(
        "nic_id", "nic__network_id", "address", "confidence"
    ):
        if confidence == Confidence.CONFIRMED:
            holders[network_id, address].add(nic_id)
    for pk, _, network_id, address, _, state in with_addresses(places):
        if state == AddressState.PINNED:
            holders[network_id, address].add(pk)
    return holders


def _tell_of_conflict(nic_ids: Collection[int], address: str) -> None:
    unflagged = Observation.objects.current().filter(nic__in=nic_ids, address=address).exclude(flag=Flag.CONFLICT)
    newly = set(unflagged.values_list("nic_id", flat=True))
    unflagged.update(flag=Flag.CONFLICT)
    nics = list(Nic.objects.filter(pk__in=nic_ids).select_related("vm"))
    names = ", ".join(f"{nic} ({nic.mac_address})" for nic in nics)
    events.record_all(
        [
            events.unsaved(
                EventType.IP_CONFLICT,
                f"{nic}: another NIC of the network has ip addr {address} too",
                account_id=nic.vm.account_id,
                on=nic.vm,
                level=Level.WARN,
                for_operator=f"({names})",
            )
            for nic in nics
            if nic.pk in newly
        ]
    )
