"""A NIC's addresses as they were chosen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from extdhcp_site.bulk import Keys
from ipfetch.addresses import UNCONFIRMED, Sighting
from ipfetch.models import IpFetch
from ipfetch.schedule import Pace
from ipfetch.writing.bulk import update_each
from ipfetch.writing.observations import Place
from ipfetch.writing.targets import Held
from networks import elements
from networks.elements import AddressChange
from networks.models import AddressState, Nic


def write_nics(held: Sequence[Held], pace: Pace, now: datetime) -> list[Held]:
    """Write the choices; those whose primary address is another than before. What is not chosen anew stays."""
    chosen = [one for one in held if (one.choice.source and one.finding.reported) or one.has_lost]
    wanted = {one: _wanted(one, now) for one in chosen}
    # Most have what they had: for all of these it is one statement.
    same = [one for one in chosen if wanted[one].is_as_before(one)]
    seen = [one.target.nic_id for one in same if wanted[one].seen_at == now]
    if seen:
        Nic.objects.filter(pk__among=Keys(seen)).update(address_seen_at=now)
    other = [one for one in chosen if not wanted[one].is_as_before(one)]
    update_each(Nic, {one.target.nic_id: wanted[one].row for one in other}, _Wanted.FIELDS)
    moved = [one for one in other if (wanted[one].ip4, wanted[one].ip6) != (one.ip4, one.ip6)]
    changes = [_address_change(one, wanted[one]) for one in moved]
    changes += _take_from_former_holders([one for one in other if one.choice.ip4], pace, now)
    if changes:
        for element in elements.registered():
            element.addresses_changed(changes, now)
    return moved


@dataclass(frozen=True)
class _Wanted:
    """A NIC's columns as they are to be."""

    ip4: str | None
    ip6: str | None
    state: str
    source: str
    secondary: list[str]
    seen_at: datetime | None

    FIELDS: ClassVar = [
        "ip4_address", "ip6_address", "address_state", "address_source", "secondary_addresses", "address_seen_at",
    ]  # fmt: skip

    @property
    def row(self) -> tuple[object, ...]:
        return self.ip4, self.ip6, self.state, self.source, self.secondary, self.seen_at

    def is_as_before(self, one: Held) -> bool:
        return (one.ip4, one.ip6, one.address_state, one.address_source, one.secondary) == self.row[:-1]


def _wanted(one: Held, now: datetime) -> _Wanted:
    """The NIC with its address as chosen. State and source are those of the IPv4 address, where there is one: an IPv6
    address says nothing of it. What an operator has set wins, whatever is seen."""
    ip4, ip6 = one.choice.ip4, one.choice.ip6
    secondary = list(one.choice.secondary)
    if one.address_state == AddressState.PINNED and ip4 and str(ip4.ip) != one.ip4:
        secondary.insert(0, str(ip4.ip))
    # What is only overheard or was written down takes no confirmed address's place.
    weaker = ip4 is None or (ip4.source in UNCONFIRMED and one.address_state == AddressState.CONFIRMED)
    keeps = one.address_state == AddressState.PINNED or (weaker and one.ip4 is not None)
    told = None if keeps else ip4 or ip6
    seen = ip4 or ip6 if one.address_state == AddressState.PINNED else told
    return _Wanted(
        ip4=one.ip4 if keeps or ip4 is None else str(ip4.ip),
        ip6=str(ip6.ip) if ip6 else None if (one.address_source, 6) in one.finding.heard else one.ip6,
        state=AddressState.LAST_KNOWN if one.has_lost_ip4 else one.address_state if told is None else _state_of(told),
        source=one.address_source if told is None else told.source.value,
        secondary=[address for address in secondary if address != one.ip4] if keeps else secondary,
        seen_at=now if seen and seen.last_seen == now else one.seen_at,
    )


def _state_of(sighting: Sighting) -> AddressState:
    return AddressState.UNCONFIRMED if sighting.source in UNCONFIRMED else AddressState.CONFIRMED


def _address_change(one: Held, wanted: _Wanted) -> AddressChange:
    one.change = AddressChange(one.target.nic_id, one.target.vm_id, one.ip4, wanted.ip4, one.ip6, wanted.ip6)
    return one.change


def _take_from_former_holders(held: Sequence[Held], pace: Pace, now: datetime) -> list[AddressChange]:
    """An address that a NIC is confirmed to hold is nobody's last known or unconfirmed one any more.

    Who had it on somebody's word waits for one of its own again.
    """
    taken = {
        (one.target.network_id, str(one.choice.ip4.ip))
        for one in held
        if one.choice.ip4 and one.choice.ip4.source not in UNCONFIRMED and one.address_state != AddressState.PINNED
    }
    mine = {one.target.nic_id for one in held}
    suspects = [
        pk
        for pk, _, network_id, address, _, state in with_addresses(taken)
        if (network_id, address) in taken and state in _LESSER and pk not in mine
    ]
    if not suspects:
        return []
    # Asked again under their locks: one may have been given another address since.
    still = Nic.objects.filter(pk__in=suspects, ip4_address__in={address for _, address in taken})
    lost = list(
        still.filter(address_state__in=_LESSER)
        .select_for_update()
        .order_by("pk")
        .values_list("pk", "vm_id", "ip4_address", "ip6_address")
    )
    nic_ids = [pk for pk, *_ in lost]
    unknown = {"ip4_address": None, "address_state": AddressState.UNKNOWN, "address_source": ""}
    Nic.objects.filter(pk__in=nic_ids).update(**unknown)
    IpFetch.objects.filter(nic__in=nic_ids, state=IpFetch.State.FOUND).begin_anew(pace, now)
    return [AddressChange(pk, vm_id, address, None, ip6, ip6) for pk, vm_id, address, ip6 in lost]


_LESSER = (AddressState.LAST_KNOWN, AddressState.UNCONFIRMED)


def with_addresses(places: Iterable[Place]) -> list[tuple]:
    """NICs of any network with one of these addresses: a database without statistics of its tables would take
    the network's index, and walk all of its NICs."""
    wanted = {address for _, address in places}
    columns = ("pk", "vm_id", "network_id", "ip4_address", "ip6_address", "address_state")
    return list(Nic.objects.filter(ip4_address__in=wanted).order_by().values_list(*columns)) if wanted else []
