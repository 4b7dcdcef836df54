"""The settings, for root admins."""

from collections.abc import Iterable
from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import resources, routes
from extdhcp_site.api.answers import Answer
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import NO_SUCH_OBJECT, Params, Text, Values
from extdhcp_site.api.registry import ROOT_ADMIN, Command, ListCommand, command
from extdhcp_site.configuration.models import Definition, Setting, definitions, reset_value, set_value, switch


class ConfigurationAnswer(Answer):
    name = serializers.CharField(help_text="The setting's name.")
    value = serializers.CharField(help_text="Its value now, always as text. A secret one has none here.")
    defaultvalue = serializers.CharField(help_text="What it is when nobody sets it.")
    description = serializers.CharField(help_text="What it decides.")
    category = serializers.CharField(help_text="The kind of setting.")
    group = serializers.CharField(help_text="What it is about.")
    unit = serializers.CharField(help_text="What a number counts. Our own.")
    type = serializers.CharField(help_text="Boolean, Number or String.")
    isdynamic = serializers.BooleanField(help_text="True: a change counts at once.")


def _shown(definition: Definition, stored: dict[str, str]) -> dict[str, Any]:
    return {
        "name": definition.name,
        "value": None if definition.secret else stored.get(definition.name, definition.default),
        "defaultvalue": definition.default,
        "description": definition.help,
        "category": definition.category,
        "group": definition.group,
        "unit": definition.unit or None,
        "type": _type(definition),
        "isdynamic": True,
    }


def _type(definition: Definition) -> str:
    if definition.parse is switch:
        return "Boolean"
    return "Number" if definition.default.isdecimal() else "String"


class ListConfigurationsParams(ListParams):
    name = Text("Shows this setting only.")
    category = Text("Shows this category only.")


@command(since="1.0", roles=ROOT_ADMIN)
class ListConfigurations(ListCommand):
    """List the settings with their values."""

    params = ListConfigurationsParams
    answer = ("configuration", ConfigurationAnswer)

    def rows(self, caller: Caller, params: Values) -> list[dict[str, Any]]:
        return _all_shown(definition for definition in definitions() if _asked_for(definition, params))


def _all_shown(wanted: Iterable[Definition]) -> list[dict[str, Any]]:
    stored = dict(Setting.objects.values_list("name", "value"))
    return [_shown(definition, stored) for definition in wanted]


def _asked_for(definition: Definition, params: Values) -> bool:
    return (
        params["name"] in (None, definition.name)
        and (params["category"] or definition.category).lower() == definition.category.lower()
        and (params["keyword"] or "").lower() in f"{definition.name} {definition.help}".lower()
    )


class NamedParams(Params):
    name = Text("The setting's name.", required=True)

    def validate_name(self, name: str) -> str:
        if not any(definition.name == name for definition in definitions()):
            text = f"There is no setting named {name[:100]}. listConfigurations shows all names."
            raise serializers.ValidationError(text, code=NO_SUCH_OBJECT)
        return name


class UpdateConfigurationParams(NamedParams):
    value = Text("Its new value.", max_length=4096, allow_blank=True)


@command(since="1.0", roles=ROOT_ADMIN)
class UpdateConfiguration(Command):
    """Change a setting; it counts at once."""

    params = UpdateConfigurationParams
    answer = ("configuration", ConfigurationAnswer)

    def run(self, caller: Caller, params: Values) -> dict[str, Any]:
        value = (params["value"] or "").strip()
        return _shown(set_value(params["name"], value, caller), {params["name"]: value})


@command(since="1.2", roles=ROOT_ADMIN)
class ResetConfiguration(Command):
    """Give a setting its default again; it counts at once."""

    params = NamedParams
    answer = ("configuration", ConfigurationAnswer)

    def run(self, caller: Caller, params: Values) -> dict[str, Any]:
        return _shown(reset_value(params["name"], caller), {})


class SettingViewSet(resources.ConstantViewSet):
    """Settings with their values. For root admins."""

    roles = ROOT_ADMIN
    serializer_class = ConfigurationAnswer

    def rows(self) -> list[dict[str, Any]]:
        return _all_shown(definitions())


class SettingView(resources.CallerView):
    """One setting."""

    roles = ROOT_ADMIN

    @extend_schema(
        parameters=[OpenApiParameter("name", str, OpenApiParameter.PATH, description="The setting's name.")],
        responses=ConfigurationAnswer,
    )
    def get(self, request: Request, name: str) -> Response:
        for shown in _all_shown(definition for definition in definitions() if definition.name == name):
            return Response(shown)
        raise Http404


resources.register_constants("configurations", SettingViewSet)
resources.path("configurations/{name}", SettingView)
routes.patch("configurations/{name}", UpdateConfiguration)
routes.post("configurations/{name}/actions/reset", ResetConfiguration)
