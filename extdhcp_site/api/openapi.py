"""The OpenAPI document of `/api/v1/`, out of what commands, answers and view sets declare."""

import types
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, get_args, get_origin, get_type_hints

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, force_instance
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiRequest, OpenApiResponse
from rest_framework import serializers

from extdhcp_site.api import routes
from extdhcp_site.api.answers import Answer, Computed, Constant, Moment, Success
from extdhcp_site.api.parameters import (
    MOST_ITEMS,
    Bool,
    Choice,
    CommaList,
    Date,
    Int,
    Map,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    Uuid,
)
from extdhcp_site.api.registry import AsyncCommand, Command, commands
from extdhcp_site.api.resources import CallerView
from extdhcp_site.api.rest import BearerAuthentication

JSON = "application/json"
_UUID = {"type": "string", "format": "uuid"}
_KINDS: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}:\d{2}.*)?$"


# Parameters -------------------------------------------------------------------------------------------


def schema_of(field: serializers.Field) -> dict[str, Any]:
    """The JSON schema of a parameter's value in a body."""
    return {**_type_of(field), "description": str(field.help_text)}


def _type_of(field: serializers.Field) -> dict[str, Any]:
    match field:
        case Text():
            shortest = 0 if field.allow_blank else 1
            return {"type": "string", "minLength": shortest, "maxLength": field.max_length}
        case Choice():
            return {"type": "string", "enum": list(field.words.values())}
        case Int():
            return {"type": "integer", "minimum": field.least, "maximum": field.most}
        case Bool():
            return {"type": "boolean"}
        case Date():
            return {"type": "string", "pattern": _DATE}
        case Uuid():
            return _UUID
        case ObjectField():
            return _UUID if field.by == "uuid" else {"type": "string"}
        case ObjectListField():
            return {
                "type": "array",
                "items": _UUID if field.by == "uuid" else {"type": "string"},
                "maxItems": MOST_ITEMS,
            }
        case CommaList():
            return {
                "type": "array",
                "items": {"type": "string", "pattern": "^[^,]*[^,\\s][^,]*$"},
                "maxItems": MOST_ITEMS,
            }
        case Map():
            return {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": MOST_ITEMS}
        case MapList():
            return {"type": "array", "items": object_of(field.entry), "maxItems": field.most}
        case _:
            raise TypeError(f"{type(field).__name__} has no JSON schema. Add it here.")


def object_of(params: type[Params], without: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON schema of a body with all of `params` but those that stand elsewhere."""
    fields = {name: field for name, field in params.declared().items() if name not in without}
    required = [name for name, field in fields.items() if field.required]
    return {
        "type": "object",
        "properties": {name: schema_of(field) for name, field in fields.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


# Answers ----------------------------------------------------------------------------------------------


class Problem(serializers.Serializer):
    """What went wrong."""

    detail = serializers.CharField(help_text="What is wrong, and what to do.")
    errorcode = serializers.IntegerField(help_text="CloudStack's error code, or the HTTP status where it has none.")


class Failed(serializers.Serializer):
    """Why a job failed."""

    errorcode = serializers.IntegerField(help_text="CloudStack's error code.")
    errortext = serializers.CharField(help_text="What is wrong, and what to do.")


class Accepted(serializers.Serializer):
    """A job was submitted; `Location` is where it shows how far it has come."""

    jobid = serializers.UUIDField(help_text="The job.")
    id = serializers.UUIDField(help_text="The object that it makes, if it makes one.", required=False)


def schema_of_hint(hint: Any) -> dict[str, Any]:
    """The JSON schema of what a method is annotated to return; a None is left out of answers."""
    match get_origin(hint) or hint:
        case types.UnionType:
            return schema_of_hint(next(kind for kind in get_args(hint) if kind is not types.NoneType))
        case kind if kind is list:
            return {"type": "array", "items": schema_of_hint(next(iter(get_args(hint)), Any))}
        case kind if kind in _KINDS:
            return {"type": _KINDS[kind]}
        case kind:
            raise TypeError(f"{kind} has no JSON schema. Name what the field's objects hold.")


class ConstantInSchema(OpenApiSerializerFieldExtension):
    target_class = Constant

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        match self.target.value:
            case []:
                return {"type": "array", "items": {"type": "string"}, "maxItems": 0}
            case {}:
                return {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 0}
            case value:
                return {"type": _KINDS[type(value)], "const": value}


class ComputedInSchema(OpenApiSerializerFieldExtension):
    target_class = Computed

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        if self.target.entries:
            return {"type": "array", "items": auto_schema.resolve_serializer(self.target.entries, direction).ref}
        method = getattr(self.target.parent, f"get_{self.target.field_name}")
        return schema_of_hint(get_type_hints(method).get("return"))


class JobResultInSchema(OpenApiSerializerFieldExtension):
    target_class = "extdhcp_site.jobs.api.JobResult"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        """What commands that submit jobs answer, and why a job failed."""
        found = {command.word(): command.answer_class() for command in commands() if issubclass(command, AsyncCommand)}
        objects = {word: auto_schema.resolve_serializer(found[word], direction).ref for word in found if word}
        success = auto_schema.resolve_serializer(Success, direction).ref
        failed = auto_schema.resolve_serializer(Failed, direction).ref
        shapes = [
            {"type": "object", "properties": {word: shown}, "required": [word]}
            for word, shown in sorted(objects.items())
        ]
        component = ResolvedComponent(
            "JobResult", ResolvedComponent.SCHEMA, {"anyOf": [*shapes, success, failed]}, type(self.target)
        )
        auto_schema.registry.register_on_missing(component)
        return component.ref


class MomentInSchema(OpenApiSerializerFieldExtension):
    target_class = Moment

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        # Not RFC 3339, whose zone has a colon.
        return {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}[+-]\d{4}$"}


class BearerInSchema(OpenApiAuthenticationExtension):
    target_class = BearerAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "Of one user; made by create_api_key."}


# Examples ---------------------------------------------------------------------------------------------

_SOME_ID = "5c8a6d0e-6c0b-4f0b-9a52-2f1f6a0f6d11"
_SOME_MOMENT = "2026-01-31T10:11:12+0000"
_SAMPLES: dict[str, Any] = {
    "account": "acme",
    "addresssource": "agent",
    "addressstate": "confirmed",
    "cidr": "192.0.2.0/24",
    "description": "VM web-1 was started.",
    "displayname": "Web server",
    "displaytext": "for web servers",
    "domain": "ROOT",
    "endip": "192.0.2.199",
    "fingerprint": "43:51:43:a1:b5:fc:8b:b7:0a:3a:a9:b1:0f:66:73:a8",
    "format": "QCOW2",
    "gateway": "192.0.2.1",
    "guestiptype": "Shared",
    "hypervisor": "KVM",
    "ipaddress": "192.0.2.120",
    "keypair": "laptop",
    "macaddress": "06:4d:83:65:4d:c9",
    "name": "web-1",
    "netmask": "255.255.255.0",
    "password": "Str4nge-and-long",
    "publickey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb6 me@laptop",
    "startip": "192.0.2.100",
    "traffictype": "Guest",
    "url": "debian-12.qcow2",
    "userdata": "I2Nsb3VkLWNvbmZpZwo=",
    "username": "ann",
    "vlan": "100",
}
# Whose fields a first example does not need.
_ASIDE = frozenset({"account", "domainid", "projectid"})


def sample_request(params: type[Params], without: Sequence[str] = ()) -> dict[str, Any]:
    """What is required, and what has a telling value."""
    return {
        name: _sample_of(name, field)
        for name, field in params.declared().items()
        if name not in without and (field.required or (isinstance(field, Text) and _is_telling(name, field)))
    }


def _is_telling(name: str, field: serializers.Field) -> bool:
    return name in _SAMPLES and name not in _ASIDE and not str(field.help_text).startswith("Not ")


def _sample_of(name: str, field: serializers.Field) -> Any:
    match field:
        case Choice():
            return next(iter(field.words.values()))
        case Int():
            return max(field.least, 1)
        case Bool():
            return True
        case ObjectListField():
            return [_SOME_ID]
        case CommaList():
            return ["laptop"]
        case Map():
            return {}
        case MapList():
            return [sample_request(field.entry)]
        case ObjectField() | Uuid():
            return _SOME_ID
        case _:
            return _SAMPLES.get(name, "text")


def sample_answer(answer: type[Answer]) -> dict[str, Any]:
    """An object with those of its fields that have a telling value."""
    shown = {name: _sample_shown(name, field) for name, field in answer._declared_fields.items()}
    return {name: value for name, value in shown.items() if value is not None}


def _sample_shown(name: str, field: serializers.Field) -> Any:
    match field:
        case Constant():
            return field.value
        case Moment():
            return _SOME_MOMENT
        case serializers.BooleanField():
            return True
        case serializers.IntegerField():
            return 1
        case _ if name.endswith("id"):
            return _SOME_ID
        case _:
            return _SAMPLES.get(name)


# The document -----------------------------------------------------------------------------------------

_DESCRIPTIONS = {
    400: "A parameter is wrong, or there is no such parameter.",
    401: "No token, or one that is not valid.",
    403: "Not permitted to the caller, or without the CSRF token that a session needs.",
    404: "There is no such object, or it is not the caller's to see, or the caller's role may not do this.",
    409: "The object is busy, in use, or there is no room.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many requests; see Retry-After.",
    503: "What is needed for it cannot be reached now.",
}
_OF_READING = (400, 401, 404, 429)
_OF_CHANGING = (400, 401, 403, 404, 409, 429, 503)
_OF_A_BODY = (413, 415)


class Schema(AutoSchema):
    """How one operation is documented. What a view says with @extend_schema goes before."""

    @property
    def command(self) -> type[Command] | None:
        return self.view.command_of(self.method) if isinstance(self.view, routes.RunsCommands) else None

    def get_operation_id(self) -> str:
        return self.command.name if self.command else super().get_operation_id()

    def get_tags(self) -> list[str]:
        return super().get_tags() or ["index"]

    def get_description(self) -> str:
        if not self.command:
            return super().get_description()
        roles = ", ".join(role.label.lower() + "s" for role in sorted(self.command.roles))
        return f"{self.command.description()}\n\nFor {roles}. The same as `{self.command.name}` of CloudStack's API."

    def get_override_parameters(self) -> list[OpenApiParameter]:
        if not self.command:
            return [_in_path("id", "The object's id.", _UUID)] if "{id}" in self.path else []
        fields = self.command.params.declared()
        in_path = [_in_path(name, str(fields[name].help_text), _type_of(fields[name])) for name in self._in_path()]
        return in_path + [
            OpenApiParameter(
                name, _type_of(fields[name]), required=fields[name].required, description=fields[name].help_text
            )
            for name in routes.in_query(self.view.route, self.method, self.command)
        ]

    def _in_path(self) -> list[str]:
        return sorted(routes.names_in(self.view.route))

    def get_request_serializer(self) -> Any:
        if not self.command:
            return super().get_request_serializer()
        body = object_of(self.command.params, self._in_path())
        example = OpenApiExample("A request", sample_request(self.command.params, self._in_path()), request_only=True)
        return {JSON: OpenApiRequest(body, examples=[example])}

    def _get_request_body(self, direction: str = "request") -> Any:
        body = super()._get_request_body(direction)
        if body and self.command:
            body["required"] = bool(body["content"][JSON]["schema"].get("required"))
        return body

    def get_serializer_name(self, serializer: serializers.Serializer, direction: str) -> str:
        return super().get_serializer_name(serializer, direction).removesuffix("Answer")

    def _map_basic_serializer(self, serializer: Any, direction: str) -> dict[str, Any]:
        schema = super()._map_basic_serializer(serializer, direction)
        if isinstance(force_instance(serializer), Answer):
            # What its class says is for programmers.
            schema.pop("description", None)
        return schema

    def _map_response_type_hint(self, method: Callable) -> dict[str, Any]:
        return schema_of_hint(get_type_hints(method).get("return"))

    def get_response_serializers(self) -> dict[int, Any]:
        if not self.command:
            shown = dict[str, str] if isinstance(self.view, routes.Index) else super().get_response_serializers()
            example = [OpenApiExample("An object", sample_answer(type(shown)))] if isinstance(shown, Answer) else []
            return {200: OpenApiResponse(shown, "What was asked for.", example)}
        return {routes.success_of(self.view.route, self.method, self.command): self._success(self.command)}

    def _get_response_bodies(self, direction: str = "response") -> dict[str, Any]:
        bodies = super()._get_response_bodies(direction)
        if isinstance(self.view, CallerView):
            said = (int(status) for status in bodies if int(status) >= HTTPStatus.BAD_REQUEST)
            for status, problem in _problems({*self._refusals(), *said}).items():
                # What the view itself says of a status is kept.
                documented = self._get_response_for_code(problem, str(status))
                bodies[str(status)] = {**documented, **bodies.get(str(status), {})}
        return bodies

    def _get_filter_parameters(self) -> list[dict[str, Any]]:
        found = super()._get_filter_parameters()
        for parameter in found:
            parameter.setdefault("description", f"Only those with this {parameter['name'].replace('_', ' ')}.")
        return found

    def _refusals(self) -> tuple[int, ...]:
        if self.method == "GET":
            return _OF_READING
        return _OF_CHANGING if self.method in routes.WITHOUT_BODY else _OF_CHANGING + _OF_A_BODY

    def _success(self, command: type[Command]) -> OpenApiResponse:
        if issubclass(command, AsyncCommand):
            value = {"jobid": _SOME_ID, **({"id": _SOME_ID} if command.creates else {})}
            return OpenApiResponse(Accepted, "A job was submitted.", [OpenApiExample("A job", value)])
        answer = command.answer_class()
        return OpenApiResponse(answer, "Done.", [OpenApiExample("The object", sample_answer(answer))])


def _in_path(name: str, description: str, schema: dict[str, Any]) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.PATH, required=True, description=description)


def _problems(statuses: Iterable[int]) -> dict[int, OpenApiResponse]:
    return {
        status: OpenApiResponse(
            Problem, _DESCRIPTIONS.get(status, ""), [OpenApiExample("A problem", {"detail": "…", "errorcode": status})]
        )
        for status in sorted(statuses)
    }


def each_path_once(endpoints: list[tuple[str, ...]], **_: Any) -> list[tuple[str, ...]]:
    """A preprocessing hook: of two spellings the one without a slash at the end."""
    paths = {path for path, *_ in endpoints}
    return [endpoint for endpoint in endpoints if endpoint[0] == (bare := endpoint[0].rstrip("/")) or bare not in paths]
