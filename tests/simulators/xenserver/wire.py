"""Values as xapi writes them in XML-RPC: strings bare, whole numbers as strings.

Records are the bulk of what is answered, so each row keeps its own text until it changes (see database.py).
"""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from xml.sax.saxutils import escape
from xmlrpc.client import DateTime

from .classes import CLASSES
from .errors import XenError


def value_xml(value: object) -> str:
    """`value` as a `<value>` element. A `Fragment` goes in as it is."""
    if isinstance(value, Fragment):
        return value.text
    if isinstance(value, str):
        return f"<value>{escape(value)}</value>"
    if isinstance(value, bool):
        return f"<value><boolean>{value:d}</boolean></value>"
    if isinstance(value, int):
        return f"<value>{value}</value>"
    if isinstance(value, float):
        return f"<value><double>{value}</double></value>"
    if isinstance(value, datetime):
        return f"<value><dateTime.iso8601>{value:%Y%m%dT%H:%M:%SZ}</dateTime.iso8601></value>"
    if isinstance(value, Mapping):
        return struct_xml((key, value_xml(item)) for key, item in value.items())
    if value is None:
        return "<value></value>"
    assert isinstance(value, Iterable), value
    return f"<value><array><data>{''.join(map(value_xml, value))}</data></array></value>"


def struct_xml(members: Iterable[tuple[str, str]]) -> str:
    inside = "".join([f"<member><name>{escape(name)}</name>{xml}</member>" for name, xml in members])
    return f"<value><struct>{inside}</struct></value>"


class Fragment:
    """A `<value>` element that has been written already, in parts: they are put together once, when they are sent."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Number(Fragment):
    """A whole number as `<int>`: the counts of `event.from` alone go over the wire like that."""

    def __init__(self, number: int) -> None:
        super().__init__(f"<value><int>{number}</int></value>")


def success(value: object) -> bytes:
    return _response("Success", "Value", value)


def failure(description: list[str]) -> bytes:
    return _response("Failure", "ErrorDescription", description)


def _response(status: str, name: str, value: object) -> bytes:
    parts = value.parts if isinstance(value, Fragment) else [value_xml(value)]
    start = '<?xml version="1.0"?><methodResponse><params><param><value><struct>'
    start += f"<member><name>Status</name><value>{status}</value></member><member><name>{name}</name>"
    return "".join([start, *parts, "</member></struct></value></param></params></methodResponse>"]).encode()


_MEMBERS = {
    class_name: [
        (field.name, field.default, f"<member><name>{field.name}</name>{value_xml(field.default)}</member>")
        for field in fields.values()
    ]
    for class_name, fields in CLASSES.items()
}


def records(named: Iterable[tuple[str, str]]) -> Fragment:
    """A map of references to the texts of their records."""
    parts = ["<value><struct>"]
    for ref, xml in named:
        parts += ("<member><name>", ref, "</name>", xml, "</member>")
    return Fragment(*parts, "</struct></value>")


def record_xml(class_name: str, values: Mapping[str, object]) -> str:
    """A whole record; what a field is at first has its text ready."""
    members = []
    for name, default, text in _MEMBERS[class_name]:
        value = values[name]
        members.append(text if value is default else f"<member><name>{name}</name>{value_xml(value)}</member>")
    return f"<value><struct>{''.join(members)}</struct></value>"


def parse_date(value: DateTime) -> datetime:
    """Raises FIELD_TYPE_ERROR."""
    for form in ("%Y%m%dT%H:%M:%SZ", "%Y%m%dT%H:%M:%S"):
        with contextlib.suppress(ValueError):
            return datetime.strptime(value.value, form).replace(tzinfo=UTC)
    raise XenError("FIELD_TYPE_ERROR", "datetime")
