"""Lists: narrowed by filters that are a URL, paged here, exported as they are shown.

VMS = ListOf(
    "vms",
    "Virtual machines",
    rows=lambda caller: VirtualMachine.objects.visible_to(caller).order_by("name", "pk"),
    columns=[Column("Name", lambda vm: vm.name, "networks/vm_name.html", sort="name"), Column("State", ...)],
    filters=[Filter("state", "State", lambda vms, state, caller: vms.filter(state=state), VmState.choices)],
    nothing="No VM matches.",
)

@page("vms/", name="vms", roles=EVERYBODY, menu=Menu("VMs", order=10))
def vms(request, caller):
    return VMS.respond(request, caller)
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone

from extdhcp_site.accounts.models import Caller

PER_PAGE = 50
# Counted no further than this: "1000+".
COUNTED = 1000
EXPORTED_AT_ONCE = 500
_PAGE = re.compile("[1-9][0-9]{0,6}")
# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# What else a list's URL may say. `fragment`: the rows alone, for a page that is open; `shown`: the rows it shows.
_OWN = frozenset({"page", "sort", "export", "fragment", "shown"})

R = TypeVar("R")
Choices = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Column(Generic[R]):
    """`text` is what an export says, and what the cell shows if there is no `template`, which is given `row`.

    `sort`: the field by which the list can be ordered. `code`: in a fixed width. `short`: the cell is not broken.
    """

    title: str
    text: Callable[[R], object]
    template: str = ""
    sort: str = ""
    short: bool = False
    code: bool = False


@dataclass(frozen=True)
class Filter:
    """One that has `choices` is a selection, others are a text. `narrow` is given the rows, the text, and the caller.

    A `hidden` one is not offered, but links lead to it: it is shown while it narrows.
    `default` is what holds while the URL says nothing; such a one offers no "any".
    """

    name: str
    title: str
    narrow: Callable[[QuerySet, str, Caller], QuerySet]
    choices: Choices | Callable[[Caller], Choices] | None = None
    hidden: bool = False
    placeholder: str = ""
    default: str = ""

    def choices_for(self, caller: Caller) -> Choices | None:
        return self.choices(caller) if callable(self.choices) else self.choices


@dataclass(frozen=True)
class ShownFilter:
    name: str
    title: str
    value: str
    choices: Choices | None
    placeholder: str
    default: str


@dataclass(frozen=True)
class Cell(Generic[R]):
    column: Column[R]
    row: R

    @property
    def text(self) -> object:
        return self.column.text(self.row)


@dataclass(frozen=True)
class Row(Generic[R]):
    key: UUID
    it: R
    cells: list[Cell[R]]


@dataclass(frozen=True)
class Group(Generic[R]):
    title: str
    rows: list[Row[R]]


class WrongFilter(Exception):
    """The URL says what this list does not know."""


def _as_they_are(rows: QuerySet, caller: Caller) -> Iterable[Any]:
    return rows


def _itself(row: Any) -> Any:
    return row


@dataclass(frozen=True)
class ListOf(Generic[R]):
    """`rows`: all that the caller may see, ordered. `complete`: makes of a few of them what the columns are given.

    `model_of` gives their model, where they are not it themselves.
    `group`: the heading under which a row stands; `rows` must be ordered by it first.
    `template` extends console/list.html.
    """

    name: str
    title: str
    rows: Callable[[Caller], QuerySet]
    columns: Sequence[Column[R]]
    filters: Sequence[Filter] = ()
    complete: Callable[[QuerySet, Caller], Iterable[R]] = _as_they_are
    model_of: Callable[[R], Any] = _itself
    group: Callable[[R], str] | None = None
    template: str = "console/list.html"
    nothing: str = "Nothing matches."

    def respond(self, request: HttpRequest, caller: Caller, **context: object) -> HttpResponseBase:
        try:
            rows = self._narrowed(request, caller)
        except WrongFilter as wrong:
            return render(request, "console/wrong_filter.html", {"list": self, "error": str(wrong)}, status=400)
        match request.GET.get("export"):
            case "csv":
                return self._csv(rows, caller)
            case "json":
                return self._json(rows, caller)
        if "fragment" in request.GET:
            return render(request, "console/rows.html", self._again(request, rows, caller))
        return render(request, self.template, {**self._page(request, rows, caller), **context})

    # Narrowing ----------------------------------------------------------------------------------------

    def _narrowed(self, request: HttpRequest, caller: Caller) -> QuerySet:
        asked, known = request.GET, {each.name: each for each in self.filters}
        # A misspelt filter would otherwise show everything.
        if unknown := sorted(set(asked) - known.keys() - _OWN):
            raise WrongFilter(f"This list has no filter {unknown[0][:50]}.")
        rows = self.rows(caller)
        for name, by in known.items():
            if value := asked.get(name) or by.default:
                rows = self._narrow(rows, by, value, caller)
        if sort := asked.get("sort"):
            if sort.removeprefix("-") not in {column.sort for column in self.columns if column.sort}:
                raise WrongFilter("This list cannot be ordered like that.")
            rows = rows.order_by(sort, "pk")
        return rows

    def _narrow(self, rows: QuerySet, by: Filter, value: str, caller: Caller) -> QuerySet:
        choices = by.choices_for(caller)
        if "\0" in value or (choices is not None and value not in {key for key, _ in choices}):
            raise WrongFilter(f"{by.title} cannot be {value[:50]!r}.")
        try:
            return by.narrow(rows, value, caller)
        except ValueError as error:
            raise WrongFilter(f"{by.title}: {error}") from None

    # Showing ------------------------------------------------------------------------------------------

    def _page(self, request: HttpRequest, rows: QuerySet, caller: Caller) -> dict[str, object]:
        number = _page_number(request)
        first = (number - 1) * PER_PAGE
        found = list(rows.values_list("pk", flat=True)[first : first + PER_PAGE + 1])
        counted = rows.order_by()[: COUNTED + 1].count() if number > 1 or len(found) > PER_PAGE else len(found)
        shown = self._rows(rows, found[:PER_PAGE], caller)
        narrowed = {each.name: request.GET.get(each.name) or each.default for each in self.filters}
        return {
            "list": self,
            "groups": self._groups(shown),
            "total": f"{COUNTED}+" if counted > COUNTED else str(counted),
            "is_one": counted == 1,
            "filters": self._shown_filters(narrowed, caller),
            "is_narrowed": self._is_narrowed(request),
            "said": self._said(request),
            "heads": [_Head.of(column, request) for column in self.columns],
            "page": number,
            "previous": _url(request, page=number - 1 if number > 2 else None) if number > 1 else "",
            "next": _url(request, page=number + 1) if len(found) > PER_PAGE else "",
            "as_csv": _url(request, export="csv", page=None),
            "as_json": _url(request, export="json", page=None),
            "here": request.get_full_path(),
            "fragment": _url(request, fragment="rows", shown=",".join(str(row.key) for row in shown)),
        }

    def _again(self, request: HttpRequest, rows: QuerySet, caller: Caller) -> dict[str, object]:
        """The rows that an open page shows, as they are now, and how many now stand before or among them."""
        keys = [UUID(key) for key in request.GET.get("shown", "").split(",") if _is_uuid(key)][:PER_PAGE]
        numbers = dict(self.rows(caller).filter(uuid__in=keys).values_list("uuid", "pk"))
        shown = self._rows(self.rows(caller), [numbers[key] for key in keys if key in numbers], caller)
        on_first = set(rows.values_list("pk", flat=True)[:PER_PAGE]) if _page_number(request) == 1 else set()
        return {
            "list": self,
            "groups": self._groups(shown),
            "news": len(on_first - set(numbers.values())),
            "said": self._said(request),
            "here": _url(request, fragment=None, shown=None),
            "fragment": request.get_full_path(),
        }

    def _rows(self, rows: QuerySet, numbers: Sequence[int], caller: Caller) -> list[Row[R]]:
        """These rows, in this order; only they are joined to what else is shown.

        By their numbers alone, which are of what the caller may see: asked for the account as well, SQLite would
        walk all that it has.
        """
        found = self.complete(rows.model._default_manager.order_by().filter(pk__in=numbers), caller) if numbers else []
        made = {self.model_of(it).pk: self._row(it) for it in found}
        return [made[number] for number in numbers if number in made]

    def _row(self, it: R) -> Row[R]:
        return Row(self.model_of(it).uuid, it, [Cell(column, it) for column in self.columns])

    def _is_narrowed(self, request: HttpRequest) -> bool:
        return any(request.GET.get(each.name, each.default) != each.default for each in self.filters)

    def _said(self, request: HttpRequest) -> str:
        """What stands there while there are no rows."""
        return "Nothing matches." if self._is_narrowed(request) else self.nothing

    def _groups(self, rows: Sequence[Row[R]]) -> list[Group[R]]:
        group = self.group
        if group is None:
            return [Group("", list(rows))] if rows else []
        return [Group(title, list(together)) for title, together in groupby(rows, key=lambda row: group(row.it))]

    def _shown_filters(self, values: dict[str, str], caller: Caller) -> list[ShownFilter]:
        return [
            ShownFilter(
                each.name, each.title, values[each.name], each.choices_for(caller), each.placeholder, each.default
            )
            for each in self.filters
            if values[each.name] or not each.hidden
        ]

    # Exporting ----------------------------------------------------------------------------------------

    def _csv(self, rows: QuerySet, caller: Caller) -> StreamingHttpResponse:
        writer = csv.writer(_Echo())
        lines = ([_plain(cell.text) for cell in row.cells] for row in self._all(rows, caller))
        content = (writer.writerow(line) for line in _first([column.title for column in self.columns], lines))
        return self._download(content, "csv", "text/csv; charset=utf-8")

    def _json(self, rows: QuerySet, caller: Caller) -> StreamingHttpResponse:
        def content() -> Iterator[str]:
            separator = "["
            for row in self._all(rows, caller):
                yield separator + json.dumps({cell.column.title: str(cell.text) for cell in row.cells})
                separator = ",\n"
            yield "]" if separator != "[" else "[]"

        return self._download(content(), "json", "application/json")

    def _all(self, rows: QuerySet, caller: Caller) -> Iterator[Row[R]]:
        numbers = list(rows.values_list("pk", flat=True))
        for at in range(0, len(numbers), EXPORTED_AT_ONCE):
            yield from self._rows(rows, numbers[at : at + EXPORTED_AT_ONCE], caller)

    def _download(self, content: Iterable[str], ending: str, kind: str) -> StreamingHttpResponse:
        name = f"{self.name}-{timezone.now():%Y%m%d-%H%M%S}.{ending}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingHttpResponse(content, content_type=kind, headers=headers)


@dataclass(frozen=True)
class _Head:
    """A column's heading; a click on it orders the list, another the other way round."""

    title: str
    url: str
    direction: str

    @classmethod
    def of(cls, column: Column, request: HttpRequest) -> "_Head":
        if not column.sort:
            return cls(column.title, "", "")
        now = request.GET.get("sort", "")
        direction = {column.sort: "ascending", f"-{column.sort}": "descending"}.get(now, "")
        then = f"-{column.sort}" if direction == "ascending" else column.sort
        return cls(column.title, _url(request, sort=then, page=None), direction)


class _Echo:
    def write(self, line: str) -> str:
        return line


def _first(head: list[str], lines: Iterable[list[str]]) -> Iterator[list[str]]:
    yield head
    yield from lines


def _plain(value: object) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _page_number(request: HttpRequest) -> int:
    asked = request.GET.get("page", "1")
    return int(asked) if _PAGE.fullmatch(asked) else 1


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _url(request: HttpRequest, **changes: object) -> str:
    """This page's URL with other values; None takes one away."""
    query = {**request.GET.dict(), **changes}
    kept = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{request.path}?{urlencode(kept)}" if kept else request.path
