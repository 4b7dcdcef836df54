"""`event.from`: what changed since a token, waiting for the first change if nothing did.

Not modelled: the older `event.register` and `event.next`, and messages (alerts). Every deletion is remembered, where
xapi forgets old ones.
Source: ocaml/xapi/xapi_event.ml, https://github.com/xapi-project/xen-api
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .calls import Call, message, native_float, native_set
from .classes import CLASSES
from .database import Row
from .errors import XenError
from .wire import Fragment, Number, struct_xml, value_xml

if TYPE_CHECKING:
    from .simulator import XenServer

# After the first change xapi waits this long for what comes with it.
BATCHING_SECONDS = 0.05


@dataclass(frozen=True)
class Subscription:
    """A class, or one object of it; "" is all."""

    class_name: str
    ref: str = ""

    @classmethod
    def parse(cls, text: object) -> "Subscription":
        match str(text).split("/"):
            case ["*"]:
                return cls("")
            case [class_name]:
                return cls(class_name.lower())
            case [class_name, ref]:
                return cls(class_name.lower(), ref)
        raise XenError("EVENT_SUBSCRIPTION_PARSE_FAILURE", text)

    def wants(self, class_name: str, ref: str) -> bool:
        return self.class_name in ("", class_name.lower()) and self.ref in ("", ref)

    def wants_some_of(self, class_name: str) -> bool:
        return self.class_name in ("", class_name.lower())


def since(token: object) -> int:
    """The generation in a token. Raises EVENT_FROM_TOKEN_PARSE_FAILURE."""
    if token == "":
        return 0
    found = re.fullmatch(r"(\d{1,20}),(\d{1,20})", str(token))
    if found is None:
        raise XenError("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    return int(found[1])


def events_from(call: Call, parameters: Sequence[object]) -> Fragment:
    """Answer `event.from(classes, token, timeout)`; it waits, so it does not run under the database's lock."""
    if len(parameters) != 3:
        raise XenError("MESSAGE_PARAMETER_COUNT_MISMATCH", "event.from", 4, len(parameters) + 1)
    classes, token, timeout = parameters
    wanted = [Subscription.parse(one) for one in native_set(classes)]
    generation = since(token)
    give_up = time.monotonic() + native_float(timeout)
    while True:
        with call.db.lock:
            call.xen.sessions.check(call.session)
            events, reached = _events(call.xen, wanted, generation)
            left = give_up - time.monotonic()
            if events or left <= 0:
                return _answer(call.xen, events, reached)
            generation = reached
            seen = call.db.generation
            call.db.wait(_moved_on(call.xen, seen), left)
        time.sleep(min(BATCHING_SECONDS, max(0.0, give_up - time.monotonic())))


def _moved_on(xen: "XenServer", seen: int) -> Callable[[], bool]:
    return lambda: xen.db.generation > seen or xen.is_closing


def _events(xen: "XenServer", wanted: Sequence[Subscription], generation: int) -> tuple[list[tuple[int, str]], int]:
    """Events later than `generation`, and the generation of the last row of those asked for that changed.

    That one is the next token's: it is not the database's, which may be far ahead of it.
    """
    events = []
    reached = generation
    for class_name in CLASSES:
        if not any(one.wants_some_of(class_name) for one in wanted):
            continue
        for row in xen.db.changed_since(class_name, generation):
            if any(one.wants(class_name, row.ref) for one in wanted):
                reached = max(reached, row.modified)
                events.append((row.modified, _change(row, generation)))
    for deletion in reversed(xen.db.deletions):
        if deletion.generation <= generation:
            break
        if any(one.wants(deletion.class_name, deletion.ref) for one in wanted):
            reached = max(reached, deletion.generation)
            # What came and went in between was never there for this caller.
            if deletion.created <= generation:
                gone = _event(deletion.generation, deletion.class_name, "del", deletion.ref)
                events.append((deletion.generation, gone))
    return sorted(events), reached


def _change(row: Row, generation: int) -> str:
    operation = "add" if row.created > generation else "mod"
    return _event(row.modified, row.class_name, operation, row.ref, ("snapshot", row.record()))


def _event(generation: int, class_name: str, operation: str, ref: str, *more: tuple[str, str]) -> str:
    members = {
        "id": str(generation),
        "timestamp": "0.0",
        "class": class_name.lower(),
        "operation": operation,
        "ref": ref,
    }
    return struct_xml([*((name, value_xml(value)) for name, value in members.items()), *more])


def _answer(xen: "XenServer", events: list[tuple[int, str]], reached: int) -> Fragment:
    counts = {class_name.lower(): Number(xen.db.count(class_name)) for class_name in CLASSES}
    parts = ["<value><struct><member><name>events</name><value><array><data>"]
    parts += [text for _, text in events]
    parts += ["</data></array></value></member><member><name>valid_ref_counts</name>", value_xml(counts)]
    parts += ["</member><member><name>token</name>", value_xml(_token(reached)), "</member></struct></value>"]
    return Fragment(*parts)


def _token(generation: int) -> str:
    return f"{generation:020d},{0:020d}"


@message("event.inject", "string", "string")
def inject(call: Call, class_name: str, ref: str) -> str:
    """An event for an object in which nothing changed; the token of the moment before it."""
    before = call.db.generation
    real = {name.lower(): name for name in CLASSES}.get(class_name.lower())
    if real is None:
        raise XenError("INTERNAL_ERROR", f"Db_exn.DBCache_NotFound(missing table, {class_name}, )")
    call.db.touch(real, ref)
    return _token(before)
