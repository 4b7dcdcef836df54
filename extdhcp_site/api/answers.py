"""What an answer looks like: the envelope, in JSON and XML, from the same values.

Clients break on details here: see the tests, which name the client for each.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import orjson
from django.http import HttpResponse
from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import ApiError, NotAuthenticated

# The API level that clients may expect of us.
CLOUDSTACK_VERSION = "4.19.0.0"
LONGEST_DESCRIPTION = 512
# XML 1.0, section 2.2: what is not a Char.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XML_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class Answer(serializers.Serializer):
    """An object as clients see it. Each field has a `help_text`; what is None is left out.

    `for_root` names the fields that only root admins see. The context has `caller`, None only for
    the generator of the schema.
    """

    for_root: tuple[str, ...] = ()

    @property
    def caller(self) -> Caller | None:
        return self.context["caller"]

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        if self.for_root and self.caller and not self.caller.is_root:
            for name in self.for_root:
                del fields[name]
        for field in fields.values():
            # A `source` that passes through None leaves the field out.
            field.required = False
        return fields

    def to_representation(self, instance: Any) -> dict[str, Any]:
        shown = super().to_representation(instance)
        return {name: value for name, value in shown.items() if value is not None}


class IdField(serializers.UUIDField):
    """A uuid in lower case, by default the object's own."""

    def __init__(self, help_text: str, source: str = "uuid", **options: Any) -> None:
        super().__init__(help_text=help_text, source=source, **options)


class Moment(serializers.DateTimeField):
    """2025-01-31T10:11:12+0000, and nothing else: Terraform parses this layout."""

    def __init__(self, **options: Any) -> None:
        super().__init__(format="%Y-%m-%dT%H:%M:%S%z", default_timezone=UTC, **options)

    def to_representation(self, value: datetime) -> str:
        return f"{value.astimezone(UTC).isoformat(timespec='seconds')[:19]}+0000"


class Computed(serializers.SerializerMethodField):
    """A field `x` that the answer's `get_x` makes, from the object; in a ColumnAnswer from these `columns`.

    `entries` is what each of its objects holds, when it makes a list of some.
    """

    def __init__(self, *columns: str, entries: type[Answer] | None = None, **options: Any) -> None:
        self.columns, self.entries = columns, entries
        super().__init__(**options)


def inner_answer(field: serializers.Field) -> type[Answer] | None:
    """What each object in a field holds; None for a field of plain values."""
    if isinstance(field, Computed):
        return field.entries
    inner = getattr(field, "child", field)
    return type(inner) if isinstance(inner, Answer) else None


class Constant(serializers.Field):
    """A field that clients insist on and that has one value in this product."""

    def __init__(self, value: Any, help_text: str, **options: Any) -> None:
        self.value = value
        super().__init__(help_text=help_text, source="*", **options)

    def to_representation(self, value: Any) -> Any:
        return self.value


class Success(Answer):
    """The answer of a command that shows no object; `run` may return a text to go with it."""

    success = serializers.BooleanField(help_text="True.")
    displaytext = serializers.CharField(help_text="What was done.")

    def to_representation(self, instance: str | None) -> dict[str, Any]:
        return {"success": True, **({"displaytext": instance} if instance else {})}


# Envelope -----------------------------------------------------------------------------------------


def respond(key: str, body: Mapping[str, Any], *, as_json: bool, status: int = 200) -> HttpResponse:
    """`body` under the one top-level key that clients look for."""
    if as_json:
        content, content_type = to_json(key, body), "application/json; charset=UTF-8"
    else:
        content, content_type = to_xml(key, body), "text/xml; charset=UTF-8"
    return HttpResponse(content, content_type=content_type, status=status, headers={"Cache-Control": "no-store"})


def error_body(error: ApiError, text: str) -> dict[str, Any]:
    body = {"uuidList": [], "errorcode": error.status, "cserrorcode": error.cs_code, "errortext": text}
    if isinstance(error, NotAuthenticated):
        # As CloudStack: what is answered before a command runs has no internal code.
        del body["cserrorcode"]
    return body


def description_header(text: str) -> str:
    """`text` as it may stand in X-Description: printable ASCII of at most 512 bytes."""
    return "".join(c for c in text if " " <= c <= "~")[:LONGEST_DESCRIPTION]


def to_json(key: str, body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps({key: body})
    except orjson.JSONEncodeError:
        # What neither UTF-8 nor 64 bits can hold has its spelling in JSON.
        return json.dumps({key: body}, separators=(",", ":"), allow_nan=False).encode()


def to_xml(key: str, body: Mapping[str, Any]) -> bytes:
    """Lists are elements of the same name, one after the other; an empty one is nothing."""
    root = ElementTree.Element(key, {"cloud-stack-version": CLOUDSTACK_VERSION})
    _fill(root, body)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)


def _fill(element: ElementTree.Element, value: Any) -> None:
    match value:
        case Mapping():
            for name, inner in value.items():
                for item in inner if isinstance(inner, list | tuple) else [inner]:
                    _fill(_child(element, str(name)), item)
        case None:
            pass
        case bool():
            element.text = "true" if value else "false"
        case _:
            element.text = _NOT_XML.sub("", str(value))


def _child(element: ElementTree.Element, name: str) -> ElementTree.Element:
    # The names inside a map are users' own, and the library writes any text as a tag.
    if _XML_NAME.fullmatch(name):
        return ElementTree.SubElement(element, name)
    return ElementTree.SubElement(element, "entry", {"key": _NOT_XML.sub("", name)})
