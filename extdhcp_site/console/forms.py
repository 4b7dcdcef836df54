"""A command's parameters as a form: the API validates it, and what it objects to stands beside its field.

form = CommandForm("createNetwork", request, caller, [Ask("name"), Ask("zoneid"), Ask("vlan", "VLAN")])
if answer := form.submit():
    return redirect("network", answer["network"]["id"])
return render(request, "networks/new_network.html", {"form": form})

In the template `{% include "console/form.html" %}`, or its fields one by one: `{% include "console/field.html" with
field=form.fields.name %}`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.http import HttpRequest
from rest_framework.serializers import Field as Parameter
from rest_framework.serializers import empty

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import registry
from extdhcp_site.api.parameters import Bool, Choice, Date, Int, ObjectField, ObjectListField, Text
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Call
from extdhcp_site.errors import ApiError, UnknownCommand

# More objects than these are not offered: the form takes the id of one.
MOST_CHOICES = 500

Choices = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Ask:
    """One parameter that the form asks for. What is left out is what the command declares of it.

    `kind` is one of text, password, textarea, number, datetime-local, select, checks (several of a few) and checkbox.
    `in_base64`: typed as text, sent as base64. `more`: it stands behind "More".
    `empties`: what is left empty is sent too, for it takes away what was there.
    """

    name: str
    label: str = ""
    help: str | None = None
    kind: str = ""
    choices: Choices | None = None
    value: str = ""
    required: bool | None = None
    more: bool = False
    placeholder: str = ""
    in_base64: bool = False
    empties: bool = False


@dataclass(frozen=True)
class Field:
    """A parameter as the template shows it."""

    name: str
    label: str
    help: str
    kind: str
    choices: Choices
    value: str
    required: bool
    more: bool
    placeholder: str
    in_base64: bool
    error: str = ""

    @property
    def chosen(self) -> list[str]:
        return self.value.split(",")


class CommandForm:
    """`values` are parameters that go along without being asked for."""

    def __init__(
        self,
        command: str,
        request: HttpRequest,
        caller: Caller,
        asks: Sequence[Ask],
        values: Mapping[str, str] | None = None,
    ) -> None:
        found = registry.find(command)
        if found is None or caller.role not in found.roles:
            raise UnknownCommand(f"{command} is not available to you.")
        self.command, self._caller, self._request = found, caller, request
        self._asks, self.values = {ask.name: ask for ask in asks}, dict(values or {})
        self.error = ""
        self.fields = {ask.name: self._field(ask) for ask in asks}

    @property
    def is_sent(self) -> bool:
        return self._request.method == "POST"

    @property
    def wanted(self) -> list[Field]:
        return [field for field in self.fields.values() if not field.more]

    @property
    def more(self) -> list[Field]:
        return [field for field in self.fields.values() if field.more]

    @property
    def has_more_wrong(self) -> bool:
        return any(field.error for field in self.more)

    @property
    def words(self) -> str:
        """CloudMonkey's words for the command, for the script that shows the call as the form is filled in."""
        return commands.words_of(self.command.name)

    @property
    def call(self) -> Call:
        typed_blindly = {field.name for field in self.fields.values() if field.kind == "password"}
        return Call(self.command.name, self.sends(), commands.SECRET | typed_blindly)

    def sends(self) -> dict[str, str]:
        """The parameters, as texts of the wire; those that are left empty only where that takes something away."""
        asks = self._asks
        typed = {
            name: _in_base64(field.value) if field.in_base64 else field.value
            for name, field in self.fields.items()
            if field.value or (asks[name].empties and self.is_sent)
        }
        return {**self.values, **typed}

    def submit(self) -> dict[str, Any] | None:
        """What the command answers; None if nothing was sent yet, or it was refused: then the form says why."""
        if not self.is_sent:
            return None
        try:
            return commands.run(self.command.name, self._caller, self.sends().items())[1]
        except ApiError as refusal:
            self.refuse(refusal)
            return None

    def refuse(self, refusal: ApiError) -> None:
        wrong = {name: text for name, text in getattr(refusal, "problems", {}).items() if name in self.fields}
        for name, text in wrong.items():
            self.fields[name] = replace(self.fields[name], error=text)
        if not wrong:
            self.error = commands.words(refusal, self._caller)

    def _field(self, ask: Ask) -> Field:
        parameter = self.command.params.declared()[ask.name]
        kind = ask.kind or _kind_of(ask.name, parameter)
        choices = ask.choices if ask.choices is not None else self._choices(parameter)
        if kind == "select" and choices is None:
            kind = "text"
        return Field(
            ask.name,
            ask.label or ask.name,
            str(parameter.help_text or "") if ask.help is None else ask.help,
            kind,
            choices or (),
            self._typed(ask.name, kind) if self.is_sent else ask.value or _default_of(parameter),
            parameter.required if ask.required is None else ask.required,
            ask.more,
            ask.placeholder,
            ask.in_base64,
        )

    def _typed(self, name: str, kind: str) -> str:
        values = self._request.POST.getlist(name)
        if kind == "checkbox":
            return "true" if values else "false"
        return ",".join(value for value in values if value)

    def _choices(self, parameter: Parameter) -> Choices | None:
        match parameter:
            case Choice():
                return [(word, word) for word in parameter.words.values()]
            case ObjectField() | ObjectListField():
                rows = parameter.queryset_for(self._caller)[: MOST_CHOICES + 1]
                choices = [(str(getattr(row, parameter.by)), str(row)) for row in rows]
                return choices if len(choices) <= MOST_CHOICES else None
        return None


def _in_base64(text: str) -> str:
    # A browser ends each line with two characters: a script's first line would name no program.
    return base64.b64encode(text.replace("\r\n", "\n").encode()).decode()


def _kind_of(name: str, parameter: Parameter) -> str:
    match parameter:
        case Text(multiline=True):
            return "textarea"
        case Int():
            return "number"
        case Bool():
            return "checkbox"
        case Date():
            return "datetime-local"
        case Choice() | ObjectField():
            return "select"
        case ObjectListField():
            return "checks"
    return "password" if name in commands.SECRET else "text"


def _default_of(parameter: Parameter) -> str:
    if parameter.default in (empty, None):
        return ""
    return str(parameter.default).lower() if isinstance(parameter.default, bool) else str(parameter.default)
