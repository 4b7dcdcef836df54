"""How a call finds what answers it: messages registered with `@message`, and those that every class has.

A message that takes its time is a generator: what stands before its `yield` is checked at once, then the database is
let go of while the work takes as long as `Work` says, and what follows the `yield` is the effect. `Async.` before the
name of any message makes a task of it.
"""

import inspect
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xmlrpc.client import DateTime

from . import expressions, wire
from .classes import CLASSES, NULL, Field
from .database import Database, Row, new_uuid
from .errors import XenError

if TYPE_CHECKING:
    from .simulator import XenServer


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@dataclass
class Call:
    """One call under way: by whom, and the task that it is, if it is asynchronous."""

    xen: "XenServer"
    session: str
    task: str = field(default_factory=lambda: f"OpaqueRef:{new_uuid()}")
    cancelled: Callable[[float], bool] = field(default=_sleep)

    @property
    def db(self) -> Database:
        return self.xen.db


@dataclass(frozen=True)
class Work:
    """What an object is busy with: meanwhile every other operation on a VM, device or disk is refused.

    It takes `seconds`, or, where that is None, what `XenServer.pace` has for the operation.
    """

    class_name: str
    ref: str
    operation: str
    seconds: float | None = None


Steps = Generator[Work, None, Any]


@dataclass(frozen=True)
class Message:
    name: str
    kinds: tuple[str, ...]
    optional: int
    answer: Callable[..., Any]


MESSAGES: dict[str, Message] = {}


def message(name: str, *kinds: str, optional: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what answers `name`. `kinds` are its parameters' after the session: a class, or a kind of value.

    The last `optional` ones may be left out.
    """

    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        MESSAGES[name] = Message(name, kinds, optional, answer)
        return answer

    return register


def run(call: Call, name: str, parameters: Sequence[object]) -> object:
    """Answer one message. Raises XenError."""
    found = MESSAGES.get(name) or _of_every_class(name)
    values = _arguments(call, found, parameters)
    if not inspect.isgeneratorfunction(found.answer):
        with call.db.lock:
            return found.answer(call, *values)
    return _work(call, found.answer(call, *values))


def check(call: Call, name: str, parameters: Sequence[object]) -> None:
    """What is refused at once, even of an asynchronous call: an unknown name, a wrong number of parameters."""
    found = MESSAGES.get(name) or _of_every_class(name)
    _check_count(found, parameters)


def _work(call: Call, steps: Steps) -> object:
    try:
        with call.db.lock:
            work = next(steps)
            _begin(call, work)
        seconds = call.xen.pace.get(work.operation, 0.0) if work.seconds is None else work.seconds
        is_cancelled = seconds > 0 and call.cancelled(seconds)
        with call.db.lock:
            _end(call, work)
            if is_cancelled:
                raise XenError("TASK_CANCELLED", call.task)
            next(steps)
    except StopIteration as end:
        return end.value
    raise AssertionError("a message yields once")


# xapi has callers of these wait for each other, and refuses none.
_SHARED = ("SR", "host")
# Cutting the power of a VM does not wait for a guest that takes its time.
_AT_ONCE = {"hard_shutdown": ("clean_shutdown", "clean_reboot", "hard_reboot", "shutdown")}
_SIDE_BY_SIDE = {"clone": ("clone", "copy"), "copy": ("clone", "copy")}


def _begin(call: Call, work: Work) -> None:
    operations = call.db.get(work.class_name, work.ref).mapping("current_operations")
    for other in operations.values():
        allowed = (_AT_ONCE | (_SIDE_BY_SIDE if work.class_name == "VM" else {})).get(work.operation, ())
        if work.class_name not in _SHARED and other not in allowed:
            raise XenError("OTHER_OPERATION_IN_PROGRESS", work.class_name, work.ref, other)
    call.db.set(work.class_name, work.ref, current_operations={**operations, call.task: work.operation})


def _end(call: Call, work: Work) -> None:
    row = call.db.find(work.class_name, work.ref)
    if row is not None:
        operations = row.mapping("current_operations")
        left = {task: operation for task, operation in operations.items() if task != call.task}
        call.db.set(work.class_name, work.ref, current_operations=left)


# Parameters -----------------------------------------------------------------------------------


def _check_count(found: Message, parameters: Sequence[object]) -> None:
    most = len(found.kinds)
    if not most - found.optional <= len(parameters) <= most:
        # The session is counted too.
        raise XenError("MESSAGE_PARAMETER_COUNT_MISMATCH", found.name, most + 1, len(parameters) + 1)


def _arguments(call: Call, found: Message, parameters: Sequence[object]) -> list[object]:
    _check_count(found, parameters)
    return [_argument(call, kind, value) for kind, value in zip(found.kinds, parameters, strict=False)]


def _argument(call: Call, kind: str, value: object) -> object:
    if kind in CLASSES:
        if not isinstance(value, str):
            raise XenError("FIELD_TYPE_ERROR", kind)
        call.db.get(kind, value)
        return value
    return native(kind, value, kind)


def native(kind: str, value: object, label: str) -> object:
    """A value off the wire as Python has it. Raises FIELD_TYPE_ERROR, also for `<int>` where xapi writes a string."""
    match kind, value:
        case ("int", str()) if re.fullmatch(r"-?\d{1,19}", value):
            return int(value)
        case ("float", float() | int()) if not isinstance(value, bool):
            return float(value)
        case ("bool", bool()) | ("string" | "ref", str()):
            return value
        case ("datetime", DateTime()):
            return wire.parse_date(value)
        case ("set", list()) if all(isinstance(one, str) for one in value):
            return tuple(value)
        case ("map", dict()) if all(isinstance(one, str) for one in value.values()):
            return dict(value)
        case ("record", dict()):
            return value
    raise XenError("FIELD_TYPE_ERROR", label)


def native_set(value: object) -> tuple[str, ...]:
    found = native("set", value, "set")
    assert isinstance(found, tuple)
    return found


def native_float(value: object) -> float:
    return float(str(native("float", value, "float")))


def from_record(class_name: str, record: Mapping[str, object]) -> dict[str, object]:
    """The values of a constructor's record. Raises FIELD_TYPE_ERROR for what is lacking or of a wrong type."""
    fields = CLASSES[class_name]
    for one in fields.values():
        if one.required and one.name not in record:
            raise XenError("FIELD_TYPE_ERROR", one.name)
    return {name: native(fields[name].kind, value, name) for name, value in record.items() if name in fields}


# What every class has ----------------------------------------------------------------------------


def _of_every_class(name: str) -> Message:
    class_name, _, verb = name.partition(".")
    if class_name in CLASSES:
        for make in (_whole_class, _one_field):
            found = make(name, class_name, verb)
            if found is not None:
                return found
    raise XenError("MESSAGE_METHOD_UNKNOWN", name)


def message_names() -> list[str]:
    """Of everything that is answered."""
    names = list(MESSAGES)
    for class_name, fields in CLASSES.items():
        verbs = [
            "get_all",
            "get_all_records",
            "get_all_records_where",
            "get_record",
            "get_by_uuid",
            "get_by_name_label",
        ]
        for field_name in fields:
            verbs += [f"{verb}_{field_name}" for verb in ("get", "set", "add", "add_to", "remove", "remove_from")]
        for verb in verbs:
            name = f"{class_name}.{verb}"
            if _whole_class(name, class_name, verb) or _one_field(name, class_name, verb):
                names.append(name)
    return names


def _whole_class(name: str, class_name: str, verb: str) -> Message | None:
    def records(rows: list[Row]) -> wire.Fragment:
        return wire.records((row.ref, row.record()) for row in rows)

    def where(call: Call, expression: str) -> wire.Fragment:
        matches = expressions.compile(class_name, expression)
        return records([row for row in call.db.rows(class_name) if matches(row.values)])

    answers: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
        "get_all": ((), lambda call: [row.ref for row in call.db.rows(class_name)]),
        "get_all_records": ((), lambda call: records(call.db.rows(class_name))),
        "get_all_records_where": (("string",), where),
        "get_record": ((class_name,), lambda call, ref: wire.Fragment(call.db.get(class_name, ref).record())),
        "get_by_uuid": (("string",), lambda call, wanted: call.db.by_uuid(class_name, wanted).ref),
    }
    if "name_label" in CLASSES[class_name]:
        answers["get_by_name_label"] = (
            ("string",),
            lambda call, label: [row.ref for row in call.db.where(class_name, name_label=label)],
        )
    if verb not in answers or (class_name in ("session", "task") and verb == "get_all_records_where"):
        return None
    kinds, answer = answers[verb]
    return Message(name, kinds, 0, answer)


def _one_field(name: str, class_name: str, verb: str) -> Message | None:
    verb, _, rest = verb.partition("_")
    rest = rest.removeprefix({"add": "to_", "remove": "from_"}.get(verb, ""))
    one = CLASSES[class_name].get(rest)
    # A set has add_X and remove_X, a map add_to_X and remove_from_X.
    keyed = name.endswith((f".add_to_{rest}", f".remove_from_{rest}"))
    if one is None or (verb != "get" and not one.writable) or (keyed and one.kind != "map"):
        return None
    answers: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
        "get": ((), lambda call, ref: call.db.get(class_name, ref)[one.name]),
        "set": ((one.kind,), lambda call, ref, value: call.db.set(class_name, ref, **{one.name: value})),
    }
    if one.kind == "map":
        answers |= {
            "add": (("string", "string"), _add_to(class_name, one)),
            "remove": (("string",), _drop(class_name, one)),
        }
    elif one.kind == "set":
        answers |= {"add": (("string",), _add(class_name, one)), "remove": (("string",), _drop(class_name, one))}
    if verb not in answers:
        return None
    kinds, answer = answers[verb]
    return Message(name, (class_name, *kinds), 0, answer)


def _add_to(class_name: str, one: Field) -> Callable[..., None]:
    def add(call: Call, ref: str, key: str, value: str) -> None:
        present = call.db.get(class_name, ref).mapping(one.name)
        if key in present:
            raise XenError("MAP_DUPLICATE_KEY", class_name, one.name, ref, key)
        call.db.set(class_name, ref, **{one.name: {**present, key: value}})

    return add


def _add(class_name: str, one: Field) -> Callable[..., None]:
    def add(call: Call, ref: str, value: str) -> None:
        present = call.db.get(class_name, ref).refs(one.name)
        if value not in present:
            call.db.set(class_name, ref, **{one.name: (*present, value)})

    return add


def _drop(class_name: str, one: Field) -> Callable[..., None]:
    """What is not there is dropped without a word."""

    def drop(call: Call, ref: str, key: str) -> None:
        row = call.db.get(class_name, ref)
        left: object
        if one.kind == "map":
            left = {name: value for name, value in row.mapping(one.name).items() if name != key}
        else:
            present = row.refs(one.name)
            left = tuple(value for value in present if value != key)
        call.db.set(class_name, ref, **{one.name: left})

    return drop


def ref_or_null(call: Call, class_name: str, ref: object) -> str:
    """A reference inside a record, which may be null."""
    if ref != NULL:
        call.db.get(class_name, ref)
    return str(ref)
