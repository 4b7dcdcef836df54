"""The commands that there are: each declared once, with who may call it.

@command(since="1.0", roles=EVERYBODY)
class ListNics(ListCommand):
    \"\"\"List the NICs of a virtual machine.\"\"\"

    params = ListNicsParams
    answer = ("nic", NicAnswer)

    def rows(self, caller, params):
        return Nic.objects.visible_to(caller).filter(vm=params["virtualmachineid"])
"""

from collections.abc import Callable, Collection, Sequence
from inspect import getdoc
from typing import Any, ClassVar, TypeVar

from django.db.models import QuerySet

from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.api import paging
from extdhcp_site.api.answers import Answer, Success
from extdhcp_site.api.columns import Among, ColumnAnswer
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Params, Values
from extdhcp_site.errors import NotInThisProduct, UnknownCommand
from extdhcp_site.jobs.models import AsyncJob

EVERYBODY = frozenset(Role)
ADMINS = frozenset({Role.ROOT_ADMIN, Role.DOMAIN_ADMIN})
ROOT_ADMIN = frozenset({Role.ROOT_ADMIN})


class Command:
    """A command that answers at once.

    `answer` is the word for the object and its Answer class, or an Answer class alone when its
    fields stand directly in the envelope; `Success` is for commands that show no object.
    """

    params: ClassVar[type[Params]] = Params
    answer: ClassVar[tuple[str, type[Answer]] | type[Answer]]
    is_async: ClassVar[bool] = False
    # What @command writes.
    name: ClassVar[str]
    since: ClassVar[str]
    roles: ClassVar[frozenset[Role]]

    def run(self, caller: Caller, params: Values) -> Any:
        """Do it; the result is what `answer` shows. An absent parameter is None in `params`."""
        raise NotImplementedError

    def respond(self, caller: Caller, params: Values) -> dict[str, Any]:
        """What stands in the envelope."""
        return self.show(self.run(caller, params), caller)

    def show(self, result: Any, caller: Caller, *, many: bool = False) -> dict[str, Any]:
        # Not `.data`: it would show a result of None as a form's initial values.
        shown = self.answer_class()(many=many, context={"caller": caller}).to_representation(result)
        return shown if self.word() is None else {self.word(): shown}

    @classmethod
    def answer_class(cls) -> type[Answer]:
        return cls.answer[1] if isinstance(cls.answer, tuple) else cls.answer

    @classmethod
    def word(cls) -> str | None:
        return cls.answer[0] if isinstance(cls.answer, tuple) else None

    @classmethod
    def description(cls) -> str:
        return " ".join((getdoc(cls) or "").split("\n\n")[0].split())


class ListCommand(Command):
    """A command that lists: paged, with the total over all pages."""

    params: ClassVar[type[Params]] = ListParams

    def rows(self, caller: Caller, params: Values) -> QuerySet | Sequence:
        """All that matches, out of what the caller may see."""
        raise NotImplementedError

    def respond(self, caller: Caller, params: Values) -> dict[str, Any]:
        total, shown = self._page(self.rows(caller, params), caller, params)
        self.complete(shown, caller, params)
        if not total:
            # Not even a count: Ansible takes the key's presence for rows.
            return {}
        return {"count": total, **({self.word(): shown} if shown else {})}

    def complete(self, shown: list[dict[str, Any]], caller: Caller, params: Values) -> None:
        """Change what is shown on a page by what this request says of it."""

    def _page(self, rows: QuerySet | Sequence, caller: Caller, params: Values) -> tuple[int, list[dict[str, Any]]]:
        """How many rows there are, and what is shown of those on the page."""
        answer = self.answer_class()
        if not isinstance(rows, QuerySet) or not issubclass(answer, ColumnAnswer):
            total, found = paging.cut(rows, params)
            return total, answer(many=True, context={"caller": caller}).to_representation(found)
        if paging.names_one(params):
            found = answer.select(rows, caller)
            return len(found), [shown for _, shown in found]
        # First the rows' numbers, alone: only the page's rows are then joined to what else is shown.
        total, numbers = paging.cut(rows.values_list("pk", flat=True), params)
        by_number = dict(answer.select(rows.order_by().filter(Among("pk", numbers)), caller)) if numbers else {}
        return total, [by_number[number] for number in numbers if number in by_number]


class AsyncCommand(Command):
    """A command that submits a job; `answer` describes the job's result. `creates`: the answer has its id too."""

    is_async: ClassVar[bool] = True
    creates: ClassVar[bool] = False

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        raise NotImplementedError

    def respond(self, caller: Caller, params: Values) -> dict[str, Any]:
        job = self.submit(caller, params)
        made = {"id": str(job.instance_uuid)} if self.creates else {}
        return {**made, "jobid": str(job.uuid)}


# The registry ---------------------------------------------------------------------------------------

C = TypeVar("C", bound=type[Command])
_commands: dict[str, type[Command]] = {}


def command(*, since: str, roles: Collection[Role], name: str = "") -> Callable[[C], C]:
    """Register a command under its class's name, `ListNics` as `listNics`.

    Raises TypeError for one that does not say who may call it, what it does and what it answers.
    """
    if not roles or not all(isinstance(role, Role) for role in roles):
        raise TypeError("roles: name who may call the command, for instance EVERYBODY.")

    def register(cls: C) -> C:
        cls.name = name or cls.__name__[0].lower() + cls.__name__[1:]
        cls.since, cls.roles = since, frozenset(roles)
        if not cls.__dict__.get("__doc__"):
            raise TypeError(f"{cls.__name__} needs a docstring: listApis shows it.")
        if not (issubclass(cls, Command) and issubclass(cls.params, Params) and hasattr(cls, "answer")):
            raise TypeError(f"{cls.__name__} must be a Command with params and an answer.")
        if not issubclass(cls.answer_class(), Answer):
            raise TypeError(f"{cls.__name__}.answer must be an Answer.")
        if cls.name.lower() in _commands:
            raise TypeError(f"There is a command named {cls.name} already.")
        _commands[cls.name.lower()] = cls
        return cls

    return register


class LeftOut(Command):
    """A command of CloudStack's that this product leaves out on purpose."""

    answer = Success
    what: ClassVar[str]

    def run(self, caller: Caller, params: Values) -> Any:
        raise NotInThisProduct(self.what)


_left_out: dict[str, type[Command]] = {}


def leave_out(what: str, *names: str) -> None:
    """Refuse these commands with what is not in this product, as in "Snapshots are". They stand in no list."""
    for name in names:
        members = {"what": what, "name": name, "roles": EVERYBODY}
        _left_out[name.lower()] = type(name, (LeftOut,), members)


def commands() -> list[type[Command]]:
    """Those that there are; not those that are left out on purpose, although `find` knows them."""
    return sorted(_commands.values(), key=lambda cls: cls.name)


def find(name: str) -> type[Command] | None:
    return _commands.get(name.lower()) or _left_out.get(name.lower())


def permitted(found: type[Command] | None, caller: Caller) -> type[Command]:
    """Raises UnknownCommand, alike for what does not exist and for what the role may not call."""
    if found is None or caller.role not in found.roles:
        raise UnknownCommand("The given command does not exist or is not available to you. See listApis.")
    return found


__all__ = [
    "ADMINS",
    "EVERYBODY",
    "ROOT_ADMIN",
    "AsyncCommand",
    "Command",
    "ListCommand",
    "Success",
    "command",
    "leave_out",
]
