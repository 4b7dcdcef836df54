"""SOAP for pyVmomi, with answers that cost a bounded amount of memory and time.

pyVmomi's own adapter trusts whoever answers as localhost, waits for ever, unpacks what was compressed unasked (in
quadratic time), and joins long texts in quadratic time. Of it only the two halves are used that turn calls into XML
and XML into values. Source: pyVmomi 9.1, SoapAdapter.py.
"""

import functools
import http.client
import sys
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any, NoReturn

from pyVmomi import SoapAdapter
from pyVmomi.VmomiSupport import Array, DataObject

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
from networks.hypervisors.hosts import uri_host
from networks.hypervisors.tls import DEFAULT_PORT

_pyvmomi: Any = SoapAdapter  # it is typed, but its functions are not
_SCALAR_COST = 250  # bytes of a text, number, date or reference, besides its characters, about


class SoapStub(_pyvmomi.SoapStubAdapter):  # type: ignore[misc]
    """What managed objects send their calls through, by any number of threads, each within `bounded.within`.

    Raises the faults of vim and vmodl, and what `Connections.ask` does.
    """

    def __init__(self, address: EndpointAddress, version: str | None = None) -> None:
        port = address.port or DEFAULT_PORT
        super().__init__(host=uri_host(address.host), port=port, version=version, acceptCompressedResponses=False)
        self._connections = Connections(address)

    def InvokeMethod(self, mo: Any, info: Any, args: Any) -> Any:
        deadline = current_deadline()
        request = self.SerializeRequest(mo, info, args)
        headers = {"Content-Type": "text/xml; charset=UTF-8", "SOAPAction": self.versionId}
        if self.cookie:
            headers["Cookie"] = self.cookie
        with self._connections.ask("POST", self.path, request, headers, deadline) as response:
            if response.status not in (200, 500):
                raise EndpointUnreachable(f"The endpoint does not answer calls (HTTP status {response.status}).")
            with reading():
                self._keep_cookie(response.getheader("Set-Cookie") or "")
                result = _deserialized(self, response, info.result, deadline)
        if response.status == 200:
            return result
        if not isinstance(result, Exception):
            raise AnswerRefused("The endpoint's answer is neither a result nor a fault.")
        raise result

    def GetConnection(self) -> NoReturn:
        raise NotImplementedError("pyVmomi's own connections are not those of a SoapStub")

    def DropConnections(self) -> None:
        self._connections.close()

    def _keep_cookie(self, text: str) -> None:
        try:
            session = SimpleCookie(text).get(_pyvmomi.COOKIE_NAME)
        except CookieError as error:
            raise AnswerRefused("The endpoint's session has no proper name.") from error
        if session is not None:
            self.SetSessionId(session.value)


def _deserialized(stub: SoapStub, response: http.client.HTTPResponse, kind: type, deadline: float) -> Any:
    budget = Budget()
    reader = _pyvmomi.SoapResponseDeserializer(stub)
    reader.deser = _Deserializer(stub, budget)
    source = _Guarded(blocks(response, deadline), budget)
    result = reader.Deserialize(source, kind)
    source.close()
    return result


class _Deserializer(_pyvmomi.SoapDeserializer):  # type: ignore[misc]
    """Counts what the values cost: an empty element can become an object of a hundred properties.

    pyVmomi finds out for every element what it stands for, and whether it may stand there. That is remembered here for
    the rest of the answer: in one of a thousand VMs it takes half of the time.
    """

    def __init__(self, stub: SoapStub, budget: Budget) -> None:
        super().__init__(stub)
        self._budget = budget
        self._begun: dict[object, Any] = {}
        self._ended: dict[object, tuple[str, bool]] = {}

    def StartElementHandler(self, tag: str, attr: Any) -> None:
        key = self._place(tag, attr)
        kind: Any = self._begun.get(key)
        if kind is None:
            super().StartElementHandler(tag, attr)
            made = self.stack[-1]
            kind = type(made) if isinstance(made, DataObject | list) else made  # a scalar waits for its text
            if key is not None:
                self._begun[key] = kind
        else:
            self.data, self.serverGuid = "", None
            self.stack.append(_new(kind) if _is_container(kind) else kind)
        self._budget.charge(_cost(kind) if _is_container(kind) else _SCALAR_COST)

    def _place(self, tag: str, attr: Any) -> object:
        """All that says what an element stands for; None where it is not worth while."""
        reference = attr.get("type", "")
        if not self.stack or ":" in reference or "serverGuid" in attr:
            return None
        named = attr.get(_pyvmomi.XSI_TYPE)
        return type(self.stack[-1]), tag, reference, self.GetNSAndWsdlname(named) if named else None

    def EndElementHandler(self, tag: str) -> None:
        value, parent = self.stack[-1] if self.stack else None, self.stack[-2] if len(self.stack) > 1 else None
        if value is str:
            value = self.data
        elif not isinstance(value, DataObject | Array) or isinstance(value, _pyvmomi.LocalizedMethodFault):
            parent = None
        # An empty list may stand where a full one may not.
        if not isinstance(parent, DataObject) or (isinstance(value, list) and not value):
            super().EndElementHandler(tag)
            return
        key = type(parent), tag, type(value)
        known = self._ended.get(key)
        if known is None:
            super().EndElementHandler(tag)
            info = parent._GetPropertyInfo(self.SplitTag(tag)[1])
            self._ended[key] = info.name, not isinstance(value, list) and issubclass(info.type, list)
            return
        self.stack.pop()
        name, is_appended = known
        if is_appended:
            vars(parent)[name].append(value)
        else:
            vars(parent)[name] = value


@functools.cache
def _is_container(kind: Any) -> bool:
    return issubclass(kind, DataObject | list)


def _new(kind: Any) -> Any:
    """As `kind()` makes it."""
    if not issubclass(kind, DataObject) or issubclass(kind, Exception):
        return kind()
    made = kind.__new__(kind)
    plain, lists = _properties(kind)
    vars(made).update(plain)
    for name, of_kind in lists:
        vars(made)[name] = of_kind()
    return made


@functools.cache
def _properties(kind: Any) -> tuple[dict[str, Any], tuple[tuple[str, type], ...]]:
    """What a new object has: values that all may share, and the kinds of its lists."""
    properties = vars(kind())
    lists = tuple((name, type(value)) for name, value in properties.items() if isinstance(value, list))
    return {name: value for name, value in properties.items() if not isinstance(value, list)}, lists


@functools.cache
def _cost(kind: type[Any]) -> int:
    """Bytes of a new object of this kind with its empty lists."""
    made = kind()
    properties = vars(made) if isinstance(made, DataObject) else {}
    lists = sum(sys.getsizeof(value) for value in properties.values() if isinstance(value, list))
    return sys.getsizeof(made) + sys.getsizeof(properties) + lists + _SCALAR_COST


class _Guarded:
    """A file of what has been found to be harmless: pyVmomi's parser refuses nothing."""

    def __init__(self, source: Iterator[bytes], budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._parser = XmlParser(self._start, self._end, self._text)
        self._depth = 0
        self._length = 0
        self._is_answer = False
        self._block = b""
        self._offset = 0

    def read(self, size: int) -> bytes:
        if self._offset == len(self._block):
            self._block, self._offset = next(self._source, b""), 0
            self._parser.feed(self._block)
        piece = self._block[self._offset : self._offset + size]
        self._offset += len(piece)
        return piece

    def close(self) -> None:
        self._parser.close()
        if not self._is_answer:  # of which pyVmomi makes an answer that says nothing
            raise AnswerRefused("The endpoint's answer is not SOAP.")

    def _start(self, tag: str, _attributes: object) -> None:
        self._length = 0
        self._depth += 1
        self._is_answer |= self._depth == 3 and tag.endswith(("Response", ":Fault"))
        if self._depth > DEPTH_MAX:
            raise AnswerRefused("The endpoint's answer is nested too deeply.")

    def _end(self, _tag: str) -> None:
        self._depth -= 1

    def _text(self, text: str) -> None:
        self._budget.charge(len(text))
        self._length += len(text)
        if self._length > TEXT_MAX:
            raise AnswerRefused("The endpoint's answer has an endless text.")
