"""SOAP for pyVmomi, with answers that cost a bounded amount of memory and time.

pyVmomi's own adapter trusts whoever answers as localhost, waits for ever, unpacks what was compressed unasked (in
quadratic time), and joins long texts in quadratic time. Of it only the two halves are used that turn calls into XML
and XML into values. Source: pyVmomi 9.1, SoapAdapter.py.
"""

import functools
import http.client
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, NoReturn, cast

from pyVmomi import SoapAdapter, vmodl
from pyVmomi.VmomiSupport import DataObject, Enum, ManagedObject

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
_vmodl: Any = vmodl
_SCALAR_COST = 250  # bytes of a text, number, date or reference, besides its characters, about
_ENDLESS = "The endpoint's answer has an endless text."


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
    reader = _ResponseReader(stub, kind)
    try:
        for block in blocks(response, deadline):
            reader.feed(block)
        return reader.close()
    finally:
        reader.release()


class _ResponseReader(_pyvmomi.SoapResponseDeserializer):  # type: ignore[misc]
    """pyVmomi's, with a parser that refuses what is harmful. One for each answer, which comes in blocks."""

    def __init__(self, stub: SoapStub, kind: type) -> None:
        super().__init__(stub)
        budget = Budget()
        self.deser = _Deserializer(stub, budget)
        self.resultType, self.isFault, self.msg, self.data = kind, False, "", ""
        self._budget = budget
        self._depth = 0
        self._is_answer = False
        self._guarded = XmlParser(
            self.StartElementHandler, self.EndElementHandler, self.CharacterDataHandler, separator=_pyvmomi.NS_SEP
        )
        self.parser = self._guarded.expat
        _pyvmomi.SetHandlers(self.parser, _pyvmomi.GetHandlers(self))

    def feed(self, block: bytes) -> None:
        self._guarded.feed(block)

    def close(self) -> Any:
        self._guarded.close()
        if not self._is_answer:  # of which pyVmomi makes an answer that says nothing
            raise AnswerRefused("The endpoint's answer is not SOAP.")
        result = self.deser.GetResult()
        if self.isFault:
            result = _vmodl.RuntimeFault() if result is None else result
            result.msg = self.msg
        return result

    def release(self) -> None:
        self._guarded.release()

    def StartElementHandler(self, tag: str, attr: Any) -> None:
        self._depth += 1
        self._is_answer |= self._depth == 3 and (tag.endswith("Response") or tag == self.soapFaultTag)
        _check_depth(self._depth)
        super().StartElementHandler(tag, attr)

    def EndElementHandler(self, tag: str) -> None:
        self._depth -= 1
        super().EndElementHandler(tag)

    def CharacterDataHandler(self, data: str) -> None:
        self._budget.charge(len(data))
        super().CharacterDataHandler(data)
        if len(self.data) > TEXT_MAX:
            raise AnswerRefused(_ENDLESS)


@dataclass(frozen=True, slots=True)
class _End:
    """What becomes of an element's value: it is appended to its parent, to a list there, or set there."""

    convert: Callable[["_Deserializer", str], Any] | None  # of a scalar's text
    name: str | None  # the parent's property; None when the parent is a list itself
    is_appended: bool = False


class _Deserializer(_pyvmomi.SoapDeserializer):  # type: ignore[misc]
    """Counts what the values cost: an empty element can become an object of a hundred properties.

    pyVmomi finds out for every element what it stands for, and whether it may stand there. That is remembered here for
    the rest of the answer: in one of a thousand VMs it takes most of the time.
    """

    def __init__(self, stub: SoapStub, budget: Budget) -> None:
        super().__init__(stub)
        self._budget = budget
        self._begun: dict[object, tuple[Any, Callable[[], Any] | None, int]] = {}
        self._ended: dict[object, _End] = {}

    def StartElementHandler(self, tag: str, attr: Any) -> None:
        stack = self.stack
        key = self._place(tag, attr)
        begun = self._begun.get(key)
        if begun is None:
            _check_depth(len(stack))
            super().StartElementHandler(tag, attr)
            made = stack[-1]
            kind: Any = type(made) if isinstance(made, DataObject | list) else made  # a scalar waits for its text
            begun = kind, _maker(kind), _cost(kind)
            if key is not None:
                self._begun[key] = begun
        else:
            self.data, self.serverGuid = "", None
            kind, make, _ = begun
            stack.append(kind if make is None else make())
        self._budget.charge(begun[2])

    def _place(self, tag: str, attr: Any) -> object:
        """All that says what an element stands for; None where it is not worth while."""
        if not self.stack:
            return None
        if not attr:
            return type(self.stack[-1]), tag
        reference = attr.get("type", "")
        if ":" in reference or "serverGuid" in attr:
            return None
        named = attr.get(_pyvmomi.XSI_TYPE)
        return type(self.stack[-1]), tag, reference, self.GetNSAndWsdlname(named) if named else None

    def EndElementHandler(self, tag: str) -> None:
        stack = self.stack
        if len(stack) < 2:  # the answer itself
            super().EndElementHandler(tag)
            return
        value, parent = stack[-1], stack[-2]
        key = type(parent), tag, value if isinstance(value, type) else type(value)
        known = self._ended.get(key)
        # An empty list may stand where a full one may not.
        if known is None or (not value and isinstance(value, list)):
            super().EndElementHandler(tag)
            if known is None:
                self._remember_end(key, parent, value)
            return
        stack.pop()
        if known.convert is not None:
            value = known.convert(self, self.data)
        if known.name is None:
            parent.append(value)
        elif known.is_appended:
            parent.__dict__[known.name].append(value)
        else:
            parent.__dict__[known.name] = value

    def _remember_end(self, key: Any, parent: Any, value: Any) -> None:
        """What pyVmomi has just done with a value, if it does it with all of its kind."""
        convert = _converter(value) if isinstance(value, type) else None
        if isinstance(value, _pyvmomi.LocalizedMethodFault) or (isinstance(value, type) and convert is None):
            return
        if isinstance(parent, list):
            self._ended[key] = _End(convert, None)
        elif isinstance(parent, DataObject) and value != []:
            info = parent._GetPropertyInfo(self.SplitTag(key[1])[1])
            self._ended[key] = _End(convert, info.name, not isinstance(value, list) and issubclass(info.type, list))

    def CharacterDataHandler(self, data: str) -> None:
        self._budget.charge(len(data))
        self.data += data
        if len(self.data) > TEXT_MAX:
            raise AnswerRefused(_ENDLESS)


def _check_depth(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise AnswerRefused("The endpoint's answer is nested too deeply.")


@functools.cache
def _converter(kind: Any) -> Callable[[_Deserializer, str], Any] | None:
    """What makes a value of an element's text; None leaves it to pyVmomi."""
    if issubclass(kind, ManagedObject):
        return lambda reader, text: kind(text, reader.stub, reader.serverGuid)
    if issubclass(kind, Enum):
        return lambda reader, text: _named(kind, text)
    return (lambda reader, text: kind(text)) if issubclass(kind, int | str) and kind is not bool else None


def _named(kind: Any, text: str) -> Any:
    found = getattr(kind, text)
    if not isinstance(found, kind):
        raise TypeError(text)
    return found


@functools.cache
def _maker(kind: Any) -> Callable[[], Any] | None:
    """Makes one as `kind()` does; None for what is no container."""
    if not issubclass(kind, DataObject | list):
        return None
    if not issubclass(kind, DataObject) or issubclass(kind, Exception):
        return cast(Callable[[], Any], kind)
    # What a new object has: values that all may share, and the kinds of its lists.
    properties = vars(kind())
    plain = {name: value for name, value in properties.items() if not isinstance(value, list)}
    lists = tuple((name, type(value)) for name, value in properties.items() if isinstance(value, list))

    def make() -> Any:
        made = kind.__new__(kind)
        own = made.__dict__
        own.update(plain)
        for name, of_kind in lists:
            own[name] = of_kind()
        return made

    return make


@functools.cache
def _cost(kind: type[Any]) -> int:
    """Bytes of a new value of this kind: an object has its empty lists, a scalar has characters besides."""
    if not issubclass(kind, DataObject | list):
        return _SCALAR_COST
    made = kind()
    properties = vars(made) if isinstance(made, DataObject) else {}
    lists = sum(sys.getsizeof(value) for value in properties.values() if isinstance(value, list))
    return sys.getsizeof(made) + sys.getsizeof(properties) + lists + _SCALAR_COST
