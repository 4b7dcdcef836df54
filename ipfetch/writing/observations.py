"""Observations: what each source says at present, and what it has said before."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from extdhcp_site.bulk import Keys, insert_all
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType, Level
from ipfetch.addresses import UNCONFIRMED, Sighting, can_be_leased
from ipfetch.models import Confidence, Flag, Observation
from ipfetch.writing.bulk import update_each
from ipfetch.writing.targets import Held, Target, event_of
from networks.hypervisors.base import GuestAddress, Source

MOST_KEPT = 64

Place = tuple[int, str]  # a network, and an address there


@dataclass(frozen=True)
class Observed:
    """What is said at present by NIC, what is new of it, and what had been flagged as a conflict, by key."""

    said: dict[int, list[Sighting]]
    appeared: set[Place]
    flagged: dict[int, Place]


def observe(held: Sequence[Held], now: datetime) -> Observed:
    """Write what was seen and what has ended."""
    by_nic = {one.target.nic_id: one for one in held}
    known: dict[tuple[int, str, str], int] = {}
    history: dict[int, list[int]] = defaultdict(list)  # keys of what has ended, the first seen first
    present: dict[int, dict[tuple[str, str], Sighting]] = {nic_id: {} for nic_id in by_nic}
    stored = Observation.objects.filter(nic__among=Keys(by_nic)).order_by("pk")
    ends: dict[int, datetime | None] = {}
    flagged: dict[int, Place] = {}
    for pk, nic_id, source, address, flag, last_seen_at, ended_at, expires_at in stored.values_list(
        "pk", "nic_id", "source", "address", "flag", "last_seen_at", "ended_at", "expires_at"
    ):
        ends[pk] = expires_at
        known[nic_id, source, address] = pk
        if ended_at is None:
            present[nic_id][source, address] = Sighting(ip_address(address), Source(source), last_seen_at)
            if flag == Flag.CONFLICT:
                flagged[pk] = by_nic[nic_id].target.network_id, address
        else:
            history[nic_id].append(pk)
    again, new, ended, alerts = [], [], [], []
    renewed: dict[int, tuple[datetime | None]] = {}
    appeared: set[Place] = set()
    for nic_id, one in by_nic.items():
        told = {(reading.source.value, str(reading.ip)): reading for reading in one.finding.reported}
        before = list(present[nic_id].values())
        for key, former in list(present[nic_id].items()):
            if key not in told and (former.source, former.ip.version) in one.finding.heard:
                ended.append(known[nic_id, *key])
                flagged.pop(ended[-1], None)
                del present[nic_id][key]
        for key, reading in told.items():
            if key not in present[nic_id] and _can_conflict(one.target, reading):
                appeared.add((one.target.network_id, str(reading.ip)))
            present[nic_id][key] = Sighting(reading.ip, reading.source, now)
            if (nic_id, *key) in known:
                again.append(known[nic_id, *key])
                if ends[again[-1]] != reading.expires:
                    renewed[again[-1]] = (reading.expires,)
            else:
                new.append(_observation(one.target, reading, now))
                if new[-1].flag == Flag.OUTSIDE and all(can_be_leased(one.target.facts, each.ip) for each in before):
                    alerts.append(_outside(one.target, reading))
                    before.append(present[nic_id][key])  # one alert is enough
    if again:
        Observation.objects.filter(pk__among=Keys(again)).update(last_seen_at=now, ended_at=None)
    if ended:
        Observation.objects.filter(pk__in=ended).end(now)
    update_each(Observation, renewed, ["expires_at"])
    insert_all(new)
    events.record_all(alerts)
    # A guest that shows new addresses at every read would fill the table.
    if forgotten := [pk for pks in history.values() for pk in pks[:-MOST_KEPT] if pk not in again]:
        Observation.objects.filter(pk__in=forgotten).delete()
    return Observed({nic_id: list(sightings.values()) for nic_id, sightings in present.items()}, appeared, flagged)


def _can_conflict(target: Target, reading: GuestAddress) -> bool:
    return reading.source not in UNCONFIRMED and can_be_leased(target.facts, reading.ip)


def confidence(reading: GuestAddress) -> Confidence:
    return Confidence.UNCONFIRMED if reading.source in UNCONFIRMED else Confidence.CONFIRMED


def _outside(target: Target, reading: GuestAddress) -> Event:
    text = f"it has ip addr {reading.ip}, which is outside {target.cidr or 'its network'}"
    return event_of(target, EventType.IP_OUTSIDE, text, level=Level.WARN)


def _observation(target: Target, reading: GuestAddress, now: datetime) -> Observation:
    return Observation(
        nic_id=target.nic_id,
        address=str(reading.ip),
        family=reading.ip.version,
        prefix=reading.prefix,
        source=reading.source.value,
        confidence=confidence(reading),
        flag="" if can_be_leased(target.facts, reading.ip) else Flag.OUTSIDE,
        first_seen_at=now,
        last_seen_at=now,
        expires_at=reading.expires,
    )
