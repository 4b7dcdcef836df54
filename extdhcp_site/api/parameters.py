"""What a request says: from the wire to the values that a command is given.

A command declares its parameters as a `Params` class. What it did not declare is ignored, because
real clients send more than they should; what would be dangerous to misread is refused.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, UnreadablePostError
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter

Values = dict[str, Any]
Pairs = list[tuple[str, str]]

FORM = "application/x-www-form-urlencoded"
LONGEST_NAME = 255
LONGEST_VALUE_SHOWN = 256
MOST_ITEMS = 500
# Line ends pass here, since keys and certificates have them; `Text` refuses them where they do not belong.
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")
# What JSON can spell and UTF-8 cannot.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL_OR_LINE_END = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A name with one of these would let two requests sign the same text.
_AMBIGUOUS_NAME = re.compile(r"[&=%+#\s\x00-\x1f\x7f]")
_MAP = re.compile(r"(?P<name>[^\[\].]+)\[(?P<index>[0-9]{1,9})\]\.(?P<key>.+)")
_LEADING_ZEROS = re.compile(r"\[0+(?=[0-9])")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OFFSET = re.compile(r"(Z|[+-][0-9]{2}:?[0-9]{2})$")
_INTEGER = re.compile(r"-?[0-9]{1,19}")

# Names of our own columns and of CloudStack's call context. A client that sends one hopes that it
# reaches a model; it is refused unless the command declares it.
INTERNAL_NAMES = frozenset(
    {
        *("accountid", "accountuuid", "attempt", "busywith", "hostuuid", "hypervisoruuid", "instancename"),
        *("instanceuuid", "lasthostid", "ownerid", "pk", "role", "roleid", "takenname", "userid", "uuid"),
        *("ctxaccountid", "ctxdetails", "ctxstarteventid", "ctxuserid"),
    }
)


class MissingParameter(InvalidParameter):
    cs_code = 9999


# The wire --------------------------------------------------------------------------------------


def pairs_of(request: HttpRequest) -> tuple[Pairs, Pairs]:
    """Every name and value of the URL's query and of the form body, as spelt, decoded once."""
    in_url = _decoded(request.META.get("QUERY_STRING", "").encode("latin-1"))
    return in_url, _decoded(_form(request)) if request.method == "POST" else []


def _form(request: HttpRequest) -> bytes:
    try:
        body = request.body
    except RequestDataTooBig:
        raise InvalidParameter(
            f"The body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes. Send less."
        ) from None
    except UnreadablePostError:
        raise InvalidParameter("The body ended early. Send it again.") from None
    if body and request.content_type != FORM:
        raise InvalidParameter(f"A body must be {FORM}.")
    return body


def _decoded(text: bytes) -> Pairs:
    try:
        return parse_qsl(
            text.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=settings.DATA_UPLOAD_MAX_NUMBER_FIELDS,
        )
    except UnicodeDecodeError:
        raise InvalidParameter("Parameters must be UTF-8.") from None
    except ValueError:
        raise InvalidParameter(f"A request has at most {settings.DATA_UPLOAD_MAX_NUMBER_FIELDS} parameters.") from None


@dataclass(frozen=True)
class Wire:
    """A request's parameters: `pairs` as spelt, for the signature; `values` by lower-case name.

    `in_url` are the lower-case names of those that stand in the URL.
    """

    pairs: tuple[tuple[str, str], ...]
    values: dict[str, str]
    maps: dict[str, dict[int, dict[str, str]]]
    in_url: frozenset[str]

    @classmethod
    def of(cls, in_url: Iterable[tuple[str, str]], in_body: Iterable[tuple[str, str]] = ()) -> "Wire":
        """Raises InvalidParameter for a name that comes twice, in whatever case, and for control characters."""
        in_url = tuple(in_url)
        wire = cls((*in_url, *in_body), {}, {}, frozenset(name.lower() for name, _ in in_url))
        seen = set()
        for name, value in wire.pairs:
            _check(name, value)
            meant = _LEADING_ZEROS.sub("[", name.lower())
            if meant in seen:
                raise InvalidParameter(f"Parameter {_cut(name)} is given more than once.")
            seen.add(meant)
            wire._add(name, value)
        if both := wire.values.keys() & wire.maps.keys():
            raise InvalidParameter(f"Parameter {_cut(min(both))} is given more than once.")
        return wire

    def _add(self, name: str, value: str) -> None:
        if found := _MAP.fullmatch(name):
            # Clients number their maps as they like: all keys at 0, one key an index, with gaps.
            entries = self.maps.setdefault(found["name"].lower(), {})
            entries.setdefault(int(found["index"]), {})[found["key"]] = value
        else:
            self.values[name.lower()] = value

    def get(self, name: str) -> str:
        return self.values.get(name, "")

    def named(self) -> dict[str, Any]:
        """Texts, and lists of maps in the order of their index."""
        maps = {name: [entries[index] for index in sorted(entries)] for name, entries in self.maps.items()}
        return {**self.values, **maps}


def _check(name: str, value: str) -> None:
    if not name or len(name) > LONGEST_NAME or _AMBIGUOUS_NAME.search(name):
        raise InvalidParameter(
            f"A parameter's name has at most {LONGEST_NAME} characters, none of them a space or one of &=%+#."
        )
    if _CONTROL.search(value):
        raise InvalidParameter(f"The value of parameter {_cut(name)} contains control characters.")


def _cut(text: str) -> str:
    return text[:LONGEST_VALUE_SHOWN]


# What a command declares -------------------------------------------------------------------------


class Params(serializers.Serializer):
    """A command's parameters. Field names are the wire's, in lower case; the context has `caller`."""

    @property
    def caller(self) -> Caller:
        return self.context["caller"]

    @classmethod
    def declared(cls) -> dict[str, serializers.Field]:
        """The declared fields by name."""
        return cls._declared_fields

    def get_fields(self) -> dict[str, serializers.Field]:
        """Those that this request needs: some commands declare dozens, and each would be copied for it."""
        return {
            name: copy.deepcopy(field)
            for name, field in self.declared().items()
            if name in self.initial_data or field.required or field.default is not serializers.empty
        }


class _Declared:
    """What all our fields share: the help comes first, and most parameters are optional."""

    wire_type = "string"
    # The texts that stand for nothing: such a parameter is absent.
    nothing: tuple[str, ...] = ("",)

    def __init__(self, help_text: str, *, nothing: tuple[str, ...] | None = None, **options: Any) -> None:
        options.setdefault("required", False)
        self.nothing = self.nothing if nothing is None else nothing
        super().__init__(help_text=help_text, **options)

    def spelt(self, value: Any) -> Any:
        """A JSON value as it is spelt on the wire. Raises ValidationError for one of another type."""
        return _spelt_text(value)


def _spelt_text(value: Any) -> str:
    if not isinstance(value, str):
        raise serializers.ValidationError("must be a text.")
    if _CONTROL.search(value) or _LONE_SURROGATE.search(value):
        raise serializers.ValidationError("contains control characters.")
    return value


def _spelt_list(value: Any) -> str:
    if not isinstance(value, list) or len(value) > MOST_ITEMS:
        raise serializers.ValidationError(f"must be a list of at most {MOST_ITEMS} texts.")
    items = [_spelt_text(item) for item in value]
    if any("," in item or not item.strip() for item in items):
        raise serializers.ValidationError("has an item that is empty or contains a comma.")
    return ",".join(items)


class Text(_Declared, serializers.CharField):
    """A text of one line, of at most 255 characters; `multiline` allows line ends.

    `max_in_url` is how many characters it may have when it stands in the URL rather than in the body of a POST.
    """

    def __init__(
        self, help_text: str, *, multiline: bool = False, max_in_url: int | None = None, **options: Any
    ) -> None:
        self.multiline, self.max_in_url = multiline, max_in_url
        # A blank in a password is part of it.
        options = {"max_length": 255, "trim_whitespace": False, **options}
        super().__init__(help_text, **options)
        if self.allow_blank:
            self.nothing = ()

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not self.multiline and _CONTROL_OR_LINE_END.search(data):
            raise serializers.ValidationError("must be one line without control characters.")
        if self.max_in_url is not None and self.field_name in self.context["in_url"] and len(data) > self.max_in_url:
            raise serializers.ValidationError(
                f"has {len(data)} characters; in a URL it may have {self.max_in_url}. "
                "Send the request by POST, with its parameters in the body."
            )
        return super().to_internal_value(data)


class Choice(_Declared, serializers.Field):
    """One of a few words, in whatever case; the value is the word as declared."""

    def __init__(self, help_text: str, choices: Iterable[str], **options: Any) -> None:
        self.words = {str(word).lower(): str(word) for word in choices}
        super().__init__(help_text, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str) or data.lower() not in self.words:
            raise serializers.ValidationError(f"must be one of {', '.join(self.words.values())}.")
        return self.words[data.lower()]


class Int(_Declared, serializers.Field):
    """A whole number, by default from 0 to 2147483647."""

    wire_type = "integer"

    def __init__(self, help_text: str, *, least: int = 0, most: int = 2_147_483_647, **options: Any) -> None:
        self.least, self.most = least, most
        super().__init__(help_text, **options)

    def to_internal_value(self, data: Any) -> int:
        number = int(data) if isinstance(data, str) and _INTEGER.fullmatch(data) else None
        if number is None or not self.least <= number <= self.most:
            raise serializers.ValidationError(f"must be a whole number from {self.least} to {self.most}.")
        return number

    def spelt(self, value: Any) -> str:
        # In Python a bool is an int. More digits than these are refused before they cost anything.
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**63:
            raise serializers.ValidationError(f"must be a whole number from {self.least} to {self.most}.")
        return str(value)


class Bool(_Declared, serializers.Field):
    """`true` in any case is true, all else is false; libcloud's `None` is as good as absent."""

    wire_type = "boolean"
    nothing = ("", "None")

    def to_internal_value(self, data: Any) -> bool:
        return isinstance(data, str) and data.lower() == "true"

    def spelt(self, value: Any) -> str:
        if not isinstance(value, bool):
            raise serializers.ValidationError("must be true or false.")
        return "true" if value else "false"


class Date(_Declared, serializers.Field):
    """`yyyy-MM-dd` or `yyyy-MM-dd HH:mm:ss`, in UTC unless an offset follows. A bare day is its end if `end_of_day`."""

    wire_type = "date"

    def __init__(self, help_text: str, *, end_of_day: bool = False, **options: Any) -> None:
        self.bare_time = time.max if end_of_day else time.min
        super().__init__(help_text, **options)

    def to_internal_value(self, data: Any) -> datetime:
        try:
            if len(data) == len("yyyy-MM-dd"):
                return datetime.combine(datetime.strptime(data, "%Y-%m-%d"), self.bare_time, UTC)
            in_utc = data if _OFFSET.search(data) else f"{data}Z"
            return datetime.strptime(in_utc.replace("T", " "), "%Y-%m-%d %H:%M:%S%z").astimezone(UTC)
        except (AttributeError, OverflowError, TypeError, ValueError):
            raise serializers.ValidationError("must be yyyy-MM-dd or yyyy-MM-dd HH:mm:ss.") from None


class CommaList(_Declared, serializers.Field):
    """Texts with commas between them."""

    wire_type = "list"

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, str) or data.count(",") >= MOST_ITEMS or _CONTROL_OR_LINE_END.search(data):
            raise serializers.ValidationError(f"must be a list of at most {MOST_ITEMS} items with commas between them.")
        return [item.strip() for item in data.split(",") if item.strip()]

    def spelt(self, value: Any) -> str:
        return _spelt_list(value)


class Map(_Declared, serializers.Field):
    """`name[0].key=value&name[1].key2=value2`: one dictionary, its keys as spelt."""

    wire_type = "map"

    def to_internal_value(self, data: Any) -> dict[str, str]:
        merged: dict[str, str] = {}
        for entry in _entries(data, MOST_ITEMS):
            if merged.keys() & entry.keys():
                raise serializers.ValidationError("has a key that is given more than once.")
            merged |= entry
        return merged

    def spelt(self, value: Any) -> list[dict[str, str]]:
        if not isinstance(value, dict) or len(value) > MOST_ITEMS:
            raise serializers.ValidationError(f"must be an object of at most {MOST_ITEMS} texts.")
        return [{_spelt_text(key): _spelt_text(text) for key, text in value.items()}]


class MapList(_Declared, serializers.Field):
    """`name[0].a=1&name[0].b=2&name[1].a=3`: a list of what `entry`, a Params class, makes of each, `most` at most."""

    wire_type = "map"

    def __init__(self, help_text: str, entry: type[Params], *, most: int = MOST_ITEMS, **options: Any) -> None:
        self.entry, self.most = entry, most
        super().__init__(help_text, **options)

    def to_internal_value(self, data: Any) -> list[Values]:
        return [self._validated(entry) for entry in _entries(data, self.most)]

    def _validated(self, entry: dict[str, str]) -> Values:
        lowered = {key.lower(): value for key, value in entry.items()}
        serializer = self.entry(data=_present(self.entry, lowered), context=self.context)
        serializer.is_valid(raise_exception=True)
        return _complete(serializer)

    def spelt(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or len(value) > self.most or not all(isinstance(entry, dict) for entry in value):
            raise serializers.ValidationError(f"must be a list of at most {self.most} objects.")
        return [_spelt(self.entry, entry) for entry in value]


def _entries(data: Any, most: int) -> list[dict[str, str]]:
    if not isinstance(data, list):
        raise serializers.ValidationError("must be spelt as name[0].key=value.")
    if len(data) > most:
        raise serializers.ValidationError(f"has {len(data)} entries, where {most} are the most.")
    return data


class Uuid(_Declared, serializers.Field):
    """A uuid that need not belong to anything that still exists."""

    wire_type = "uuid"

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str) or not _UUID.fullmatch(data):
            raise serializers.ValidationError("must be a uuid.")
        return UUID(data)


# References: the one place where a request turns into an object ------------------------------------

QuerySetFor = Callable[[Caller], QuerySet]
NO_SUCH_OBJECT = "no_such_object"
MISSING = ("required", "null", "blank")


def visible(model: type[Model]) -> QuerySetFor:
    """The objects that a list would show to the caller."""
    return lambda caller: model._default_manager.visible_to(caller)


class _Reference(_Declared):
    wire_type = "uuid"

    def __init__(self, help_text: str, queryset_for: QuerySetFor, *, by: str = "uuid", **options: Any) -> None:
        self.queryset_for, self.by = queryset_for, by
        super().__init__(help_text, **options)

    def found(self, spelt: list[str]) -> list[Model]:
        """The objects in the order asked for.

        One that belongs to somebody else, was deleted or never was: the same query, the same answer.
        """
        keys = [self._key(text) for text in spelt]
        rows = self.queryset_for(self.context["caller"]).filter(**{f"{self.by}__in": [key for key in keys if key]})
        known = {getattr(row, self.by): row for row in rows.order_by()}
        for text, key in zip(spelt, keys, strict=True):
            if key not in known:
                raise serializers.ValidationError(self._no_such_object(text), code=NO_SUCH_OBJECT)
        return [known[key] for key in keys]

    def _key(self, text: str) -> UUID | str | None:
        if self.by != "uuid":
            return text
        return UUID(text) if _UUID.fullmatch(text) else None

    def _no_such_object(self, text: str) -> str:
        # Word for word: the Go SDK and Terraform take this for "already gone".
        return (
            f"Invalid parameter {self.field_name} value={_cut(text)} due to incorrect long value format, "
            "or entity does not exist or due to incorrect parameter annotation for the field in api cmd class."
        )


class ObjectField(_Reference, serializers.Field):
    """An object by its uuid (or `by` another column), out of those that `queryset_for(caller)` holds."""

    def to_internal_value(self, data: Any) -> Model:
        return self.found([data if isinstance(data, str) else ""])[0]


class ObjectListField(_Reference, serializers.Field):
    """Objects by their uuids with commas between them."""

    wire_type = "list"

    def to_internal_value(self, data: Any) -> list[Model]:
        return self.found(CommaList("").to_internal_value(data))

    def spelt(self, value: Any) -> str:
        return _spelt_list(value)


# From the wire to values ---------------------------------------------------------------------------


def validate(params: type[Params], command: str, wire: Wire, caller: Caller) -> Values:
    """The declared parameters' values, None for an absent one. Raises InvalidParameter in CloudStack's words."""
    named = wire.named()
    _refuse_internal(named, params)
    serializer = params(data=_present(params, named), context={"caller": caller, "in_url": wire.in_url})
    if not serializer.is_valid():
        raise _in_cloudstacks_words(command, serializer.errors)
    return _complete(serializer)


@dataclass(frozen=True)
class Json:
    """What a REST request says: a body's fields, names in the path, and texts of the query, all by parameter."""

    body: Mapping[str, Any]
    in_path: Mapping[str, str]
    in_url: Mapping[str, str]


def validate_json(params: type[Params], json: Json, caller: Caller) -> Values:
    """As `validate`, for a REST request; there a field that is not declared, or of another JSON type, is refused.

    Raises Http404 for a name in the path that leads to nothing the caller may see, and InvalidParameter.
    """
    try:
        data = {**_spelt(params, json.body), **_spelt_query(params, json.in_url)}
        if repeated := data.keys() & json.in_path.keys():
            raise InvalidParameter(f"{min(repeated)}: stands in the path already.")
        serializer = params(data={**data, **json.in_path}, context={"caller": caller, "in_url": frozenset(json.in_url)})
        serializer.is_valid(raise_exception=True)
    except serializers.ValidationError as error:
        found = list(problems(error.detail))
        if any(name in json.in_path for name, _ in found):
            raise Http404 from None
        raise InvalidParameter(_in_words(found)) from None
    return _complete(serializer)


def _spelt(params: type[Params], values: Mapping[str, Any]) -> dict[str, Any]:
    """The wire's spelling of JSON values, all of which must be declared."""
    spelt, wrong = {}, {}
    for name, value in values.items():
        try:
            spelt[name] = _field_of(params, name).spelt(value)
        except serializers.ValidationError as error:
            wrong[_cut(name)] = error.detail
    if wrong:
        raise serializers.ValidationError(wrong)
    return spelt


def _spelt_query(params: type[Params], texts: Mapping[str, str]) -> dict[str, Any]:
    """A query's texts, which must be declared and spell what their fields hold."""
    for name, text in texts.items():
        field = _field_of(params, name)
        if isinstance(field, Bool) and text not in ("true", "false"):
            raise serializers.ValidationError({name: ["must be true or false."]})
        _spelt_text(text)
    return dict(texts)


def _field_of(params: type[Params], name: str) -> _Declared:
    if name not in params.declared():
        raise serializers.ValidationError("is not a field of this request.")
    return params.declared()[name]


def _refuse_internal(named: Iterable[str], params: type[Params]) -> None:
    for name in named:
        if (name in INTERNAL_NAMES or "__" in name) and name not in params.declared():
            raise InvalidParameter(f"Parameter {_cut(name)} cannot be set.")


def _present(params: type[Params], named: dict[str, Any]) -> dict[str, Any]:
    """Those declared, without those whose value stands for nothing."""
    return {
        name: named[name]
        for name, field in params.declared().items()
        if name in named and named[name] not in getattr(field, "nothing", ("",))
    }


def _complete(serializer: Params) -> Values:
    return {**dict.fromkeys(serializer.declared()), **serializer.validated_data}


def _in_cloudstacks_words(command: str, errors: Any) -> InvalidParameter:
    found = list(problems(errors))
    by_name = {name: _plainly(problem) for name, problem in reversed(found)}
    opening = f"Unable to execute API command {command.lower()} due to"
    for name, problem in found:
        if problem.code in MISSING:
            return MissingParameter(f"{opening} missing parameter {name}", problems=by_name)
    name, problem = found[0]
    text = str(problem) if problem.code == NO_SUCH_OBJECT else f"Parameter {name}: {problem}"
    return InvalidParameter(f"{opening} invalid value. {text}", problems=by_name)


def _in_words(found: Iterable[tuple[str, ErrorDetail]]) -> str:
    return " ".join(f"{name}: {_plainly(problem)}" for name, problem in found)


def _plainly(problem: ErrorDetail) -> str:
    return "There is no such object." if problem.code == NO_SUCH_OBJECT else str(problem)


def problems(errors: Any, name: str = "") -> Iterable[tuple[str, ErrorDetail]]:
    """Each problem that a serializer found, with its parameter's name."""
    if isinstance(errors, ErrorDetail):
        yield name, errors
    elif isinstance(errors, dict):
        for key, inner in errors.items():
            yield from problems(inner, f"{name}.{key}" if name else key)
    else:
        for inner in errors:
            yield from problems(inner, name)
