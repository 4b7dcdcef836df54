"""XML-RPC for XenAPI.Session, with answers that cost a bounded amount of memory and time.

Source: xmlrpc.com/spec; xmlrpc.client, whose values these are. It parses 10,000 VM records of 80 fields in a quarter of
a minute and a gigabyte, so a caller says which fields it wants.
"""

import contextlib
import contextvars
import sys
import xmlrpc.client
from collections.abc import Callable, Iterator, Set
from typing import Any, cast

from networks.hypervisors.base import EndpointAddress, EndpointUnreachable
from networks.hypervisors.bounded import (
    DEPTH_MAX,
    TEXT_MAX,
    AnswerRefused,
    Budget,
    Connections,
    XmlParser,
    blocks,
    current_deadline,
    reading,
)

# How many structs deep a record is, in the answers that have many.
RECORDS = 3  # {"Value": {reference: record}}
SNAPSHOTS = 4  # {"Value": {"events": [{"snapshot": record}]}}

_kept: contextvars.ContextVar[tuple[Set[str], int]] = contextvars.ContextVar("kept", default=(frozenset(), 0))


@contextlib.contextmanager
def keeping(fields: Set[str], depth: int) -> Iterator[None]:
    """While this is open, structs at `depth` (RECORDS or SNAPSHOTS) keep these members only; the rest is skipped."""
    token = _kept.set((fields, depth))
    try:
        yield
    finally:
        _kept.reset(token)


class RpcTransport(xmlrpc.client.Transport):
    """What XenAPI.Session sends its calls through, by any number of threads, each within `bounded.within`.

    Raises xmlrpc.client.Fault, and what `Connections.ask` does.
    """

    def __init__(self, address: EndpointAddress) -> None:
        super().__init__()
        self._connections = Connections(address)

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        """The answer's values, as ServerProxy wants them. `host` is not used: the address is."""
        deadline = current_deadline()
        headers = {"Content-Type": "text/xml"}
        with self._connections.ask("POST", handler, request_body, headers, deadline) as response:
            if response.status != 200:
                raise EndpointUnreachable(f"The endpoint does not answer calls (HTTP status {response.status}).")
            answer = _Answer(*_kept.get())
            try:
                with reading():
                    for block in blocks(response, deadline):
                        answer.feed(block)
                    result = answer.close()
            finally:
                answer.release()
        if isinstance(result, xmlrpc.client.Fault):
            raise result
        return (result,)

    def close(self) -> None:
        self._connections.close()


def _boolean(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _nil(_text: str) -> None:
    return None


def _binary(text: str) -> xmlrpc.client.Binary:
    value = xmlrpc.client.Binary()
    value.decode(text.encode("ascii"))
    return value


_SCALARS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "int": int,
    "i4": int,
    "i8": int,
    "double": float,
    "boolean": _boolean,
    "nil": _nil,
    "dateTime.iso8601": xmlrpc.client.DateTime,
    "base64": _binary,
}
_FRAMES = {"methodResponse", "params", "param", "fault", "data", "member"}
# What a member of a dict and an element of a list cost besides their values, about.
_MEMBER_COST, _ELEMENT_COST = 80, 25


class _Answer:
    """Builds the values of one answer, and only those that are kept."""

    def __init__(self, fields: Set[str], depth: int) -> None:
        self._fields, self._record_depth = fields, depth
        self._budget = Budget()
        self._parser = XmlParser(self._start, self._end, self._text)
        self._depth = 0
        self._structs = 0
        self._containers: list[Any] = [[]]
        self._names: list[str] = []
        self._known_names: dict[str, str] = {}
        self._pieces: list[str] = []
        self._length = 0
        self._value: Any = None
        self._has_type = False
        self._is_fault = False
        self._skipped = 0

    def feed(self, block: bytes) -> None:
        self._parser.feed(block)

    def release(self) -> None:
        self._parser.release()

    def close(self) -> dict[str, Any] | xmlrpc.client.Fault:
        """The result, checked for what XenAPI takes for granted."""
        self._parser.close()
        (result,) = self._containers[0]
        if self._is_fault:
            return xmlrpc.client.Fault(int(result["faultCode"]), str(result["faultString"]))
        if result["Status"] != "Success":
            assert all(isinstance(word, str) for word in [result["ErrorDescription"][0], *result["ErrorDescription"]])
        elif "Value" not in result:
            raise AnswerRefused("The endpoint's answer has no value.")
        return cast(dict[str, Any], result)

    def _start(self, tag: str, _attributes: object) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise AnswerRefused("The endpoint's answer is nested too deeply.")
        self._pieces, self._length = [], 0
        if tag == "value":
            self._has_type = False
        elif tag == "struct":
            self._open({})
            self._structs += 1
        elif tag == "array":
            self._open([])
        elif tag == "fault":
            self._is_fault = True
        elif tag != "name" and tag not in _SCALARS and tag not in _FRAMES:
            raise AnswerRefused("The endpoint's answer is not XML-RPC.")

    def _open(self, container: dict[str, Any] | list[Any]) -> None:
        self._budget.charge(sys.getsizeof(container))
        self._containers.append(container)

    def _text(self, text: str) -> None:
        self._length += len(text)
        if self._length > TEXT_MAX:
            raise AnswerRefused("The endpoint's answer has an endless text.")
        self._pieces.append(text)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if tag == "value":
            self._store(self._value if self._has_type else "".join(self._pieces))
            self._has_type = True
        elif tag == "name":
            self._begin_member("".join(self._pieces))
        elif tag == "member":
            self._names.pop()
        elif tag == "struct" or tag == "array":
            self._structs -= tag == "struct"
            self._value, self._has_type = self._containers.pop(), True
        elif convert := _SCALARS.get(tag):
            self._value, self._has_type = convert("".join(self._pieces)), True

    def _store(self, value: Any) -> None:
        container = self._containers[-1]
        if isinstance(container, list):
            self._budget.charge(sys.getsizeof(value) + _ELEMENT_COST)
            container.append(value)
        else:
            self._budget.charge(sys.getsizeof(value) + _MEMBER_COST)
            container[self._names[-1]] = value

    def _begin_member(self, name: str) -> None:
        if name not in self._known_names:
            self._budget.charge(sys.getsizeof(name) + _MEMBER_COST)
        self._names.append(self._known_names.setdefault(name, name))
        if len(self._names) > DEPTH_MAX:
            raise AnswerRefused("The endpoint's answer is not XML-RPC.")
        if self._structs == self._record_depth and name not in self._fields:
            self._skipped = self._depth
            parser = self._parser.expat
            parser.StartElementHandler, parser.EndElementHandler = self._skip_start, self._skip_end
            parser.CharacterDataHandler = None

    def _skip_start(self, _tag: str, _attributes: object) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise AnswerRefused("The endpoint's answer is nested too deeply.")

    def _skip_end(self, _tag: str) -> None:
        self._depth -= 1
        if self._depth < self._skipped:
            parser = self._parser.expat
            parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
            parser.CharacterDataHandler = self._text
            self._names.pop()
