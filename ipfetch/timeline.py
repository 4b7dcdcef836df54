"""What is told of the search for a NIC's address: the queue, what each source said, and what came of it.

Tries are counted, not kept: the last one is known in full, of those before it how many there were.
"""

from collections.abc import Iterator
from datetime import datetime

from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.events.models import Event, EventType, Level
from ipfetch import explanations
from ipfetch.models import Flag, IpFetch, Observation, Outcome
from networks.models import Nic
from networks.timeline import MOST_EVENTS, Entry, Kind

TYPES = (EventType.IP_FETCH, EventType.IP_CHANGE, EventType.IP_CONFLICT, EventType.IP_OUTSIDE)
State = IpFetch.State


def of_the_search(nic: Nic, caller: Caller, since: datetime) -> Iterator[Entry]:
    row = IpFetch.objects.filter(nic=nic).first()
    if row:
        yield Entry(row.entered_at, "Its address is looked for", kind=Kind.NOTE)
        yield from _tries(row, caller)
    for observation in Observation.objects.filter(nic=nic):
        if observation.ended_at is None or observation.ended_at >= since:
            yield from _of_observation(observation, since)
    # Events are of VMs: those of its other NICs begin with another number.
    events = Event.objects.about(nic.vm).filter(created_at__gte=since, type__in=TYPES)
    own = events.filter(description__startswith=f"NIC {nic.device_id} of ")
    yield from (_of_event(event, caller) for event in own[:MOST_EVENTS])


def _tries(row: IpFetch, caller: Caller) -> Iterator[Entry]:
    if row.last_attempt_at is None:
        return
    if row.claimed_until and row.claimed_until > timezone.now():
        yield Entry(row.last_attempt_at, f"Try {row.tries} under way" if row.tries else "Try under way", kind=Kind.NEXT)
        return
    outcome = row.last_outcome
    if outcome in ("", Outcome.FOUND):
        return
    detail = explanations.detail_for(caller, row)
    if row.state == State.FOUND:
        yield Entry(
            row.last_attempt_at, "Looked at again, not seen", f"{row.explanation} {detail}".strip(), Kind.DOUBTFUL
        )
        return
    earlier = f"The {row.tries - 1} before it brought none either." if row.tries > 1 else ""
    words = " ".join(filter(None, [row.explanation, earlier, detail]))
    yield Entry(row.last_attempt_at, f"Try {row.tries}: no address", words, Kind.FAILED)


def _of_observation(row: Observation, since: datetime) -> Iterator[Entry]:
    flagged = {
        Flag.CONFLICT: " Another NIC of the network has it too.",
        Flag.OUTSIDE: " It is no address for guests of the network, and not taken.",
    }.get(Flag(row.flag), "") if row.flag else ""  # fmt: skip
    kind = Kind.DOUBTFUL if row.flag or row.confidence != "confirmed" else Kind.DONE
    lease = f" Its lease ends at {row.expires_at:%Y-%m-%d %H:%M:%S} UTC." if row.expires_at else ""
    first = max(row.first_seen_at, since)
    again = f" Last at {row.last_seen_at:%H:%M:%S} UTC." if row.last_seen_at > first else ""
    yield Entry(
        first, f"{row.address} by {row.source}", f"{row.get_confidence_display()}.{flagged}{lease}{again}", kind
    )
    if row.ended_at:
        yield Entry(row.ended_at, f"{row.address} by {row.source} no longer", "It is not told any more.", Kind.NOTE)


def _of_event(event: Event, caller: Caller) -> Entry:
    _, _, words = event.text_for(caller).partition(": ")
    said = f"{words[:1].upper()}{words[1:]}"
    kind = {Level.ERROR: Kind.FAILED, Level.WARN: Kind.DOUBTFUL}.get(Level(event.level), Kind.DONE)
    if event.type == EventType.IP_FETCH and event.username != "system":
        return Entry(event.created_at, said, f"By {event.username}.", Kind.NOTE)
    by = "" if event.username == "system" else f" (by {event.username})"
    title = {
        EventType.IP_FETCH: "Address known" if event.level == Level.INFO else "Given up",
        EventType.IP_CHANGE: "Address changed",
        EventType.IP_CONFLICT: "Conflict",
        EventType.IP_OUTSIDE: "Outside the network",
    }[EventType(event.type)]
    return Entry(event.created_at, title, f"{said}{by}", kind)
