"""`/api/v1/events/stream`: what happens, as it happens, as Server-Sent Events (WHATWG HTML, 9.2)."""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import live, resources
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.events.answers import EventAnswer
from extdhcp_site.events.models import Event

# Proxies end a connection that says nothing for a minute or so.
SILENT_FOR = 15.0
TOLD_AT_ONCE = 500
# Numbers are given before a transaction ends: a lower one may appear after a higher one.
LATE = 100

MISSED = b"event: missed\ndata: {}\n\n"
COME_AGAIN = b"retry: 3000\n\n"
NOTHING = b":\n\n"


@dataclass(frozen=True)
class Told:
    """How far a stream has come: the highest number, and which of the last ones up to it were there."""

    highest: int
    seen: frozenset[int]

    @classmethod
    def up_to(cls, highest: int) -> "Told":
        there = Event.objects.filter(pk__gt=highest - LATE, pk__lte=highest)
        return cls(highest, frozenset(there.values_list("pk", flat=True)))

    def and_then(self, numbers: frozenset[int]) -> "Told":
        highest = max(numbers, default=self.highest)
        return Told(highest, frozenset(pk for pk in self.seen | numbers if pk > highest - LATE))


K = TypeVar("K", bound=Hashable)
Listener = live.Waiter[Told, Event]


def look(listeners: Sequence[Listener]) -> dict[Listener, list[Event]]:
    """What each has not been told of and may see.

    A query for each number that some have come to, the same for all but those that catch up, and one for each
    account with news.
    """
    news: dict[Listener, list[Event]] = {}
    for highest, together in _by(listeners, lambda listener: listener.about.highest).items():
        after = Event.objects.filter(pk__gt=highest - LATE).order_by("pk")
        numbers = frozenset(after.values_list("pk", flat=True)[: LATE + TOLD_AT_ONCE])
        unknown = frozenset().union(*(numbers - listener.about.seen for listener in together))
        if not unknown:
            continue
        for caller, theirs in _by(together, lambda listener: listener.caller).items():
            rows = Event.objects.visible_to(caller).filter(pk__in=unknown).order_by("pk")
            shown = list(rows.select_related("account__domain"))
            news |= {listener: [row for row in shown if row.pk not in listener.about.seen] for listener in theirs}
        for listener in together:
            listener.about = listener.about.and_then(numbers)
    return {listener: events for listener, events in news.items() if events}


def _by(listeners: Iterable[Listener], key: Callable[[Listener], K]) -> dict[K, list[Listener]]:
    grouped: dict[K, list[Listener]] = defaultdict(list)
    for listener in listeners:
        grouped[key(listener)].append(listener)
    return grouped


class Stream:
    """What the response is made of; it leaves when the response is closed, also when nobody has read of it."""

    def __init__(self, listener: Listener, opening: bytes) -> None:
        self._listener, self._opening = listener, opening

    def __iter__(self) -> Iterator[bytes]:
        yield COME_AGAIN + self._opening
        while True:
            try:
                found = self._listener.news(SILENT_FOR)
            except AuthenticationFailed:
                return  # to be told so when it comes again
            yield b"".join(_line(event, self._listener.caller) for event in found) or NOTHING

    def close(self) -> None:
        self._listener.leave()


def _line(event: Event, caller: Caller) -> bytes:
    shown = EventAnswer(event, context={"caller": caller}).data
    return f"event: changed\nid: {event.uuid}\ndata: {json.dumps(shown)}\n\n".encode()


class AsItIs(BaseContentNegotiation):
    """Whatever a client says that it accepts: the stream is one thing, and a problem is JSON."""

    def select_parser(self, request: Request, parsers: list[Any]) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: list[BaseRenderer], format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class EventStream(resources.CallerView):
    """Events as they happen, for as long as the client stays, as Server-Sent Events.

    Each is an `event: changed` with the event's id and, as JSON, the fields of `/events/{id}`. A client that comes
    again with `Last-Event-ID` is told what it has missed; `event: missed` says that this is not known any more.
    The stream ends when its key or log-in does.
    """

    roles = EVERYBODY
    content_negotiation_class = AsItIs
    # Without HEAD, which would never end.
    http_method_names = ["get"]

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "Last-Event-ID", OpenApiTypes.UUID, OpenApiParameter.HEADER, description="The last event that came."
            )
        ],
        responses={
            (200, "text/event-stream"): OpenApiTypes.STR,
            503: OpenApiResponse(description="Too many clients wait. `Retry-After` says when to come again."),
        },
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        caller = self.caller
        assert caller
        last = request.headers.get("Last-Event-ID", "")
        known = _number_of(last, caller)
        listener = live.room.enter(request, caller, look, Told.up_to(_newest() if known is None else known))
        missed = bool(last) and known is None
        # nginx would keep it back until a buffer is full.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        content = Stream(listener, MISSED if missed else b"")
        return StreamingHttpResponse(content, content_type="text/event-stream", headers=headers)


def _newest() -> int:
    return Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def _number_of(uuid: str, caller: Caller) -> int | None:
    try:
        asked = UUID(uuid)
    except ValueError:
        return None
    return Event.objects.visible_to(caller).filter(uuid=asked).values_list("pk", flat=True).first()
