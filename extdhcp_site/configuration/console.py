"""The settings: what each decides, what it is now, who changed it when; changed in place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import ROOT_ADMIN
from extdhcp_site.configuration.models import Definition, SecretSetting, Setting, definitions, switch
from extdhcp_site.console.commands import Action, Call, permitted
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.events.models import Event, EventType

MOST_CHANGES = 10


@dataclass(frozen=True)
class Row:
    """A setting as the page shows it; `value` is empty for a secret one. `typed` and `error`: what was refused."""

    definition: Definition
    value: str
    is_set: bool
    changed_at: datetime | None
    changed_by: str
    actions: list[Action]
    typed: str
    error: str = ""

    @property
    def kind(self) -> str:
        if self.definition.secret:
            return "password"
        return "switch" if self.definition.parse is switch else "text"

    @property
    def call(self) -> Call:
        value = "…" if self.definition.secret else self.typed
        return Call("updateConfiguration", {"name": self.definition.name, "value": value})


@dataclass(frozen=True)
class Group:
    title: str
    rows: list[Row]


@page("settings/", name="settings", roles=ROOT_ADMIN, menu=Menu("Settings", order=90), posts=True)
def settings(request: HttpRequest, caller: Caller) -> HttpResponse:
    form = _form(request, caller)
    if form.submit() is not None:
        name = request.POST.get("name", "")
        messages.success(request, f"{name} is changed. It counts at once.")
        return redirect(f"{request.get_full_path()}#{name}")
    word = request.GET.get("q", "")
    changes = Event.objects.visible_to(caller).filter(type=EventType.CONFIGURATION_EDIT)[:MOST_CHANGES]
    context = {"groups": _groups(_rows(word, caller, form)), "word": word, "changes": changes}
    return render(request, "configuration/settings.html", {**context, "here": request.get_full_path()})


def _form(request: HttpRequest, caller: Caller) -> CommandForm:
    return CommandForm("updateConfiguration", request, caller, [Ask("name"), Ask("value")])


def _rows(word: str, caller: Caller, form: CommandForm) -> list[Row]:
    stored: dict[str, Setting | SecretSetting] = {row.name: row for row in Setting.objects.all()}
    stored |= {row.name: row for row in SecretSetting.objects.defer("value")}
    found = [each for each in definitions() if word.lower() in f"{each.name} {each.help} {each.group}".lower()]
    return [_row(each, stored.get(each.name), caller, form) for each in found]


def _row(it: Definition, stored: Setting | SecretSetting | None, caller: Caller, form: CommandForm) -> Row:
    value = stored.value if isinstance(stored, Setting) else "" if it.secret else it.default
    typed, error = value, ""
    if form.is_sent and form.fields["name"].value == it.name:
        typed, error = form.fields["value"].value, form.error or form.fields["value"].error
    back = Action("resetConfiguration", "Use the default", {"name": it.name})
    return Row(
        it,
        value,
        stored is not None,
        stored.changed_at if stored else None,
        (stored.changed_by if stored else "") or "the installation",
        permitted(caller, [back] if stored else []),
        "" if it.secret else typed,
        error,
    )


def _groups(rows: Sequence[Row]) -> list[Group]:
    together = groupby(sorted(rows, key=lambda row: (row.definition.group, row.definition.name)), _group)
    return [Group(title, list(them)) for title, them in together]


def _group(row: Row) -> str:
    return row.definition.group
