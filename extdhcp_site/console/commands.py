"""What the console changes, it changes by the API's commands: the same checks, permissions and words."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import parameters, registry, throttling
from extdhcp_site.api.carrying_out import carry_out
from extdhcp_site.api.parameters import Pairs, Wire
from extdhcp_site.api.registry import Command
from extdhcp_site.errors import ApiError

# Never shown in a call, since calls are copied and mailed.
SECRET = frozenset({"password", "currentpassword", "privatekey", "secretkey"})
HIDDEN = "…"
_VERB = re.compile("[a-z]+")


@dataclass(frozen=True)
class Call:
    """A command with its parameters as texts, as somebody would type it in CloudMonkey; `secret` are not shown."""

    command: str
    values: Mapping[str, str]
    secret: frozenset[str] = SECRET

    @property
    def cmk(self) -> str:
        shown = {name: HIDDEN if name in self.secret else text for name, text in self.values.items()}
        return " ".join([words_of(self.command), *(f"{name}={shlex.quote(text)}" for name, text in shown.items())])


def words_of(command: str) -> str:
    """CloudMonkey's spelling: `deployVirtualMachine` is `cmk deploy virtualmachine`."""
    verb = _VERB.match(command)
    return f"cmk {verb[0]} {command[verb.end() :].lower()}".rstrip() if verb else f"cmk {command}"


@dataclass(frozen=True)
class Action:
    """A button: a command with all its parameters.

    `sure`: what is said, and must be confirmed, before; it names the object and what becomes of it.
    `show`: the answer is shown on a page of its own, once, for what cannot be seen again.
    """

    command: str
    label: str
    values: Mapping[str, str]
    sure: str = ""
    is_destructive: bool = False
    show: bool = False
    # Goes to this page afterwards, where the object is gone from the one with the button.
    then: str = ""
    call: Call = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "call", Call(self.command, self.values))

    @property
    def key(self) -> str:
        """Tells it from every other on a page: a question that is open must not become another's when rows change."""
        return hashlib.sha256(json.dumps([self.command, *sorted(self.values.items())]).encode()).hexdigest()[:16]


def permitted(caller: Caller, actions: Iterable[Action]) -> list[Action]:
    """Those whose commands are there for the caller's role."""
    return [action for action in actions if may(caller, action.command)]


def may(caller: Caller, command: str) -> bool:
    found = registry.find(command)
    return found is not None and caller.role in found.roles


def run(name: str, caller: Caller, values: Iterable[tuple[str, str]]) -> tuple[type[Command], dict[str, Any]]:
    """The command and what it answers. Raises ApiError."""
    throttling.admit(caller.account.pk)
    command = registry.permitted(registry.find(name), caller)
    wire = Wire.of((), values)
    return command, carry_out(command, caller, lambda: parameters.validate(command.params, command.name, wire, caller))


def sent(form: QueryDict) -> Pairs:
    """The parameters in a form's body: what begins with _ is for the console, and several values are one list."""
    return [
        (name, ",".join(values))
        for name, values in form.lists()
        if name != "csrfmiddlewaretoken" and not name.startswith("_")
    ]


def words(refusal: ApiError, caller: Caller) -> str:
    return f"{refusal.text} {refusal.for_operator}".strip() if caller.is_root else refusal.text
