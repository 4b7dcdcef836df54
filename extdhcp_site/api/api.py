"""What the API says about itself: listApis, listCapabilities."""

from collections.abc import Callable
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import registry
from extdhcp_site.api.answers import CLOUDSTACK_VERSION, Answer, Constant, inner_answer
from extdhcp_site.api.parameters import Params, Text, Values
from extdhcp_site.api.registry import EVERYBODY, Command, command
from extdhcp_site.api.throttling import ENABLED, INTERVAL, MAX
from extdhcp_site.configuration.models import PAGE_SIZE, values_of

_TYPES = {
    serializers.BooleanField: "boolean",
    serializers.IntegerField: "integer",
    serializers.FloatField: "float",
    serializers.DateTimeField: "date",
    serializers.UUIDField: "uuid",
    serializers.ListField: "list",
    serializers.ListSerializer: "list",
    serializers.DictField: "map",
    serializers.Serializer: "responseobject",
}
_PYTHON_TYPES = {bool: "boolean", int: "integer", float: "float", list: "list", dict: "map"}


class ParameterAnswer(Answer):
    name = serializers.CharField(help_text="The parameter's name.")
    description = serializers.CharField(help_text="What it is for.")
    type = serializers.CharField(help_text="string, integer, boolean, uuid, date, list or map.")
    required = serializers.BooleanField(help_text="Whether the command fails without it.")
    length = serializers.IntegerField(help_text="Most characters.")


class ApiAnswer(Answer):
    name = serializers.CharField(help_text="The command's name.")
    description = serializers.CharField(help_text="What it does.")
    since = serializers.CharField(help_text="The version in which it came.")
    isasync = serializers.BooleanField(help_text="Whether it answers with a job to poll.")
    related = serializers.CharField(help_text="Always empty.")
    params = ParameterAnswer(many=True, help_text="What it takes.")
    response = serializers.ListField(help_text="What an answer's object holds.")


class ListApisParams(Params):
    name = Text("Shows this command only.")


@command(since="1.0", roles=EVERYBODY)
class ListApis(Command):
    """List the commands that the caller may use."""

    params = ListApisParams
    answer = ("api", ApiAnswer)

    def run(self, caller: Caller, params: Values) -> list[dict[str, Any]]:
        wanted = (params["name"] or "").lower()
        return [
            described(found)
            for found in registry.commands()
            if caller.role in found.roles and wanted in ("", found.name.lower())
        ]

    def respond(self, caller: Caller, params: Values) -> dict[str, Any]:
        # Never paged: cmk can call nothing that its first look at the list left out.
        found = self.run(caller, params)
        return {"count": len(found), **self.show(found, caller, many=True)} if found else {}


def described(found: type[Command]) -> dict[str, Any]:
    return {
        "name": found.name,
        "description": found.description(),
        "since": found.since,
        "isasync": found.is_async,
        "related": "",
        "params": [_parameter(name, field) for name, field in found.params.declared().items()],
        "response": _response(found.answer_class()),
    }


def _parameter(name: str, field: serializers.Field) -> dict[str, Any]:
    return {
        "name": name,
        "description": str(field.help_text or ""),
        "type": getattr(field, "wire_type", "string"),
        "required": field.required,
        "length": getattr(field, "max_length", None),
    }


def _response(answer: type[Answer]) -> list[dict[str, Any]]:
    return [_field(answer, name, field) for name, field in answer._declared_fields.items()]


def _field(answer: type[Answer], name: str, field: serializers.Field) -> dict[str, Any]:
    shown = {"name": name, "description": str(field.help_text or ""), "type": _type(answer, name, field)}
    if inner := inner_answer(field):
        shown["response"] = _response(inner)
    return shown


def _type(answer: type[Answer], name: str, field: serializers.Field) -> str:
    if isinstance(field, Constant):
        return _PYTHON_TYPES.get(type(field.value), "string")
    if isinstance(field, serializers.SerializerMethodField):
        return _returned(getattr(answer, field.method_name or f"get_{name}"))
    return next((word for kind, word in _TYPES.items() if isinstance(field, kind)), "string")


def _returned(method: Callable) -> str:
    """The word for what a method is annotated to return, None aside."""
    hint = get_type_hints(method).get("return")
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
    return next((_PYTHON_TYPES[kind] for kind in kinds if kind in _PYTHON_TYPES), "string")


class CapabilityAnswer(Answer):
    cloudstackversion = serializers.CharField(help_text="The CloudStack release whose API this is.")
    securitygroupsenabled = serializers.BooleanField(help_text="False: security groups are not in this product.")
    dynamicrolesenabled = serializers.BooleanField(help_text="False: the three roles are fixed.")
    userpublictemplateenabled = serializers.BooleanField(help_text="Whether users may make templates public.")
    supportELB = serializers.CharField(help_text="false: load balancing is not in this product.")
    projectinviterequired = serializers.BooleanField(help_text="False: projects are not in this product.")
    allowusercreateprojects = serializers.BooleanField(help_text="False: projects are not in this product.")
    regionsecondaryenabled = serializers.BooleanField(help_text="False: secondary storage is not in this product.")
    kvmsnapshotenabled = serializers.BooleanField(help_text="False: snapshots are not in this product.")
    allowuserviewdestroyedvm = serializers.BooleanField(help_text="Whether users see destroyed VMs.")
    defaultuipagesize = serializers.IntegerField(help_text="default.page.size.")
    apilimitinterval = serializers.IntegerField(
        help_text="Seconds in which an account may make apilimitmax calls; absent where there is no limit."
    )
    apilimitmax = serializers.IntegerField(help_text="See apilimitinterval.")


@command(since="1.0", roles=EVERYBODY)
class ListCapabilities(Command):
    """List what this server can do."""

    answer = ("capability", CapabilityAnswer)

    def run(self, caller: Caller, params: Values) -> dict[str, Any]:
        return {
            "cloudstackversion": CLOUDSTACK_VERSION,
            "securitygroupsenabled": False,
            "dynamicrolesenabled": False,
            "userpublictemplateenabled": False,
            "supportELB": "false",
            "projectinviterequired": False,
            "allowusercreateprojects": False,
            "regionsecondaryenabled": False,
            "kvmsnapshotenabled": False,
            "allowuserviewdestroyedvm": False,
            "defaultuipagesize": PAGE_SIZE.get(),
            **_call_limit(),
        }


def _call_limit() -> dict[str, int]:
    enabled, seconds, calls = values_of(ENABLED, INTERVAL, MAX)
    return {"apilimitinterval": seconds, "apilimitmax": calls} if enabled else {}
