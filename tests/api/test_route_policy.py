"""The generated policy matrix of `/api/v1/`: each route by each role, each name of an object by each relation to it.

Nothing here is listed by hand: a route, a filter or a field of a body is in the matrix as soon as it
is registered. Who sees what is written in tests/api/examples.py.
"""

import itertools
from collections.abc import Iterator
from functools import reduce
from types import SimpleNamespace
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_filters import rest_framework as filters
from rest_framework.serializers import Field
from rest_framework.views import APIView

from extdhcp_site.accounts.models import Account, Role
from extdhcp_site.api import resources, routes
from extdhcp_site.api.parameters import (
    Choice,
    CommaList,
    Int,
    Map,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
)
from extdhcp_site.api.registry import EVERYBODY, Command
from ipfetch.models import IpFetch, Observation
from networks.models import Host, ResourceTag
from tests import factories
from tests.api.client import Rest, Signer
from tests.api.examples import EXAMPLES, Example, expected
from tests.api.fuzz import undone
from tests.factories import make_account, make_domain, make_running_vm, make_vm
from tests.ipfetch.test_rest import observe, queue

pytestmark = pytest.mark.django_db

# A stream without an end, and a wait: they have tests of their own, in test_live.py.
NEVER_ENDING = {"events/stream"}
WRITES = [
    pytest.param(route, method, command, id=f"{method} {route}")
    for route, place in resources.places.items()
    for method, command in place.commands.items()
]
VIEWS = [
    pytest.param(route, place, id=route)
    for route, place in resources.places.items()
    if place.view and route not in NEVER_ENDING
]
DETAILS = [
    pytest.param(route, place.view, id=route) for route, place in resources.places.items() if place.action == "retrieve"
]
# Of what is shown, and that no parameter names.
SHOWN = {
    **EXAMPLES,
    IpFetch: Example(lambda account: queue(make_running_vm(account=account).nics.get())),
    Observation: Example(lambda account: observe(make_running_vm(account=account).nics.get())),
    ResourceTag: Example(lambda account: make_vm(account).tags.create(key="role", value="web")),
}


FILTERS = [
    pytest.param(route, place.view, name, found, id=f"{route}-{name}")
    for route, place in resources.places.items()
    if place.action == "list"
    for name, found in place.view.filters().items()
    if isinstance(found, resources.ObjectFilter)
]


def references(params: type[Params], inside: str = "") -> Iterator[tuple[str, Field]]:
    """Every parameter that names an object; inside a list of objects with a dot."""
    for name, field in params.declared().items():
        if isinstance(field, ObjectField | ObjectListField):
            yield inside + name, field
        elif isinstance(field, MapList):
            yield from references(field.entry, f"{name}.")


REFERENCES_OF_WRITES = [
    pytest.param(route, method, command, name, field, id=f"{method} {route}-{name}")
    for route, place in resources.places.items()
    for method, command in place.commands.items()
    for name, field in references(command.params)
]


@pytest.fixture(autouse=True)
def numbers_from_one(monkeypatch):
    """The matrix makes so many objects that the factories would run out of VLANs."""
    monkeypatch.setattr(factories, "_numbers", itertools.count(1))


def clients() -> Iterator[tuple[Role, Rest]]:
    for role in Role:
        yield role, Rest.of(Signer.of(make_account(role)))


def has_body(method: str) -> bool:
    return method.upper() not in routes.WITHOUT_BODY


def filled(route: str, value: str = "") -> str:
    """The path with `value`, or something that is nothing's id, for its names."""
    for name in routes.names_in(route):
        route = route.replace(f"{{{name}}}", value or str(uuid4()))
    return route


# Who may come in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", resources.places)
def test_nobody_unknown_gets_in(route):
    for method in ("get", "post", "put", "patch", "delete", "options", "head"):
        answer = Client().generic(method.upper(), f"/api/v1/{filled(route)}", b"{}", "application/json")
        assert answer.status_code == 401, method
        assert answer["WWW-Authenticate"] == 'Bearer realm="extdhcp"'


@pytest.mark.parametrize("route", resources.places)
def test_what_a_route_does_not_do_is_refused(route):
    place = resources.places[route]
    done = set(place.commands) | ({"get"} if place.view else set())
    rest = Rest.of(Signer.of(make_account(Role.ROOT_ADMIN)))
    for method in {"get", "post", "put", "patch", "delete", "trace", "options"} - done:
        answer = rest.send(method, filled(route), b"{}")
        assert (answer.status_code, answer.json()["errorcode"]) == (405, 405), method


@pytest.mark.parametrize(("route", "method", "command"), WRITES)
def test_a_command_is_for_its_roles_only(route, method, command):
    for role, rest in clients():
        answer = rest.send(method, filled(route), b'{"no such field": 1}' if has_body(method) else b"")
        if role not in command.roles or (routes.names_in(route) and not has_body(method)):
            assert answer.status_code == 404, role
        else:
            assert answer.status_code == 400, role


def test_no_view_is_for_more_people_than_it_is_meant_for():
    """Written here a second time on purpose: what a view declares is compared with it."""
    of_root = {"configurations", "configurations/{name}", "alerts", "alerts/{id}", "alert-types"}
    of_root |= {f"{list}{one}" for list in ("pods", "clusters", "hosts", "storage-pools") for one in ("", "/{id}")}
    views = {route: place.view for route, place in resources.places.items() if place.view}
    assert {route for route, view in views.items() if view.roles == {Role.ROOT_ADMIN}} == of_root
    assert all(view.roles == EVERYBODY for route, view in views.items() if route not in of_root)


@pytest.mark.parametrize(("route", "place"), VIEWS)
def test_a_view_is_for_its_roles_only(route, place):
    for role, rest in clients():
        answer = rest.get(filled(route))
        is_there = role in place.view.roles and not routes.names_in(route)
        assert answer.status_code == (200 if is_there else 404), role


@pytest.mark.parametrize("roles", [None, frozenset(), ()])
def test_a_view_that_does_not_say_for_whom_it_is_cannot_be_registered(roles):
    made = type("Loose", (resources.CallerView,), {} if roles is None else {"roles": roles})
    with pytest.raises(TypeError, match="roles"):
        resources.path("loose", made)
    with pytest.raises(TypeError, match="CallerView"):
        resources.path("loose", type("Plain", (APIView,), {"roles": EVERYBODY}))
    assert "loose" not in resources.places


def test_every_url_of_the_api_is_a_registered_route():
    """What is not in `places` is not in the matrix: the index and the reports of leases have tests of their own."""
    from extdhcp_site.urls import urlpatterns

    served = {
        str(inner.pattern)
        for pattern in urlpatterns
        if str(pattern.pattern) == "api/v1/"
        for inner in pattern.url_patterns
    }
    known = {route.replace("{", "<str:").replace("}", ">") for route in resources.places}
    assert {spelt.rstrip("/") for spelt in served} == known | {"", "<path:rest>", "leases"}


# Who may see what -------------------------------------------------------------------------------------


def cells(roles: frozenset[Role], model: type[Model]) -> Iterator[tuple[Signer, str, Account, Example]]:
    """A caller of each role, with each relation to an account and an example of what such an account has."""
    assert model in SHOWN, f"Add an example of {model.__name__} to tests/api/examples.py."
    for role in sorted(roles):
        caller = Signer.of(make_account(role, make_domain(make_domain())))
        for relation, account, example in SHOWN[model].cells(caller.caller.account):
            yield caller, f"{role.label}, {relation} {model.__name__}", account, example


@pytest.mark.parametrize(("route", "view"), DETAILS)
def test_an_object_that_one_may_not_see_is_not_there(route, view):
    for caller, cell, account, example in cells(view.roles, view.queryset.model):
        row = example.make(account)
        key = str(reduce(getattr, view.lookup_field.split("__"), row))
        rest, seen = Rest.of(caller), example.seen_by(caller.caller, account)

        shown, none = rest.get(filled(route, key)), rest.get(filled(route))
        listed = rest.get(route.removesuffix("/{id}"), page_size=500).json()["results"]

        assert none.status_code == 404, cell
        assert (shown.status_code == 200) == seen, cell
        assert seen or shown.content == none.content, cell
        assert any(key in (other.get("id"), other.get("jobid")) for other in listed) == seen, cell


@pytest.mark.parametrize(("route", "view", "name", "found"), FILTERS)
def test_a_filter_by_what_one_may_not_see_answers_as_by_nothing(route, view, name, found):
    """A list must not tell, for instance, on which host one's VM is: by whether the filter finds it."""
    model = found.queryset(SimpleNamespace(user=Signer.of(make_account()).user)).model
    for caller, cell, account, example in cells(view.roles, model):
        rest, seen = Rest.of(caller), example.seen_by(caller.caller, account)
        answer = rest.get(route, **{name: example.make(account).uuid})
        none = rest.get(route, **{name: uuid4()})
        assert none.status_code == 400, cell
        assert (answer.status_code == 200) == seen, cell
        assert seen or answer.content == none.content, cell


def test_what_filters_by_an_object_says_which_ones_the_caller_may_name():
    """A filter by another model's column is outside the matrix unless it is an ObjectFilter."""
    for route, place in resources.places.items():
        if place.action == "list":
            for name, found in place.view.filters().items():
                is_reference = isinstance(found, filters.ModelChoiceFilter) or "__" in found.field_name
                assert isinstance(found, resources.ObjectFilter) or not is_reference, f"{route}?{name}"


@pytest.mark.parametrize(("route", "method", "command", "name", "field"), REFERENCES_OF_WRITES)
def test_a_command_names_what_one_may_see_and_nothing_else(route, method, command, name, field):
    """CVE-2026-50222 and a dozen before it (Apache CloudStack): see test_policy."""
    for caller, cell, account, example in cells(command.roles, model_of(field)):
        seen_by = expected(example, command.name, name)
        row = example.make(account)
        value = str(getattr(row, field.by))
        nothing = str(uuid4()) if field.by == "uuid" else "no-such-name"

        with undone():
            answer = send(caller, route, method, command, name, value)
        none = send(caller, route, method, command, name, nothing)

        assert none.status_code == (404 if name in routes.names_in(route) else 400), (cell, none.content)
        assert (answer.content != none.content) == seen_by(caller.caller, account), (cell, answer.content)
        assert answer.status_code < 500 or answer.status_code == 503, cell


def model_of(field: Field) -> type[Model]:
    return field.queryset_for(Signer.of(make_account()).caller).model


def send(caller: Signer, route: str, method: str, command: type[Command], name: str, value: str):
    """Everything that is required, and `value` for the name in question, each where it belongs."""
    fields = command.params.declared()
    values = {
        needed: sample(field, caller)
        for needed, field in fields.items()
        if needed != name and (field.required or needed in routes.names_in(route))
    }
    if "." in name:
        outer, inner = name.split(".")
        values[outer] = [{**required_of(fields[outer].entry, caller, inner), inner: value}]
    else:
        values[name] = [value] if isinstance(fields[name], ObjectListField) and has_body(method) else value
    for named in routes.names_in(route):
        route = route.replace(f"{{{named}}}", values.pop(named))
    if not has_body(method):
        return Rest.of(caller).send(method, f"{route}?{urlencode(values)}")
    return Rest.of(caller).send(method, route, values)


def required_of(params: type[Params], caller: Signer, but: str) -> dict[str, object]:
    return {name: sample(field, caller) for name, field in params.declared().items() if field.required and name != but}


def sample(field: Field, caller: Signer) -> object:
    match field:
        case ObjectField() | ObjectListField():
            key = str(getattr(EXAMPLES[model_of(field)].make(caller.caller.account), field.by))
            return [key] if isinstance(field, ObjectListField) else key
        case Choice():
            return next(iter(field.words.values()))
        case Int():
            return max(field.least, 1)
        case CommaList():
            return ["x"]
        case Map():
            return {}
        case MapList():
            return [required_of(field.entry, caller, "")]
        case _:
            return "x"


@pytest.mark.parametrize(("route", "view"), DETAILS)
def test_a_list_takes_the_same_queries_however_long(route, view):
    account = make_account(Role.ROOT_ADMIN)
    rest = Rest.of(Signer.of(account))
    asked = []
    for _ in range(3):
        for _ in range(2):
            SHOWN[view.queryset.model].make(make_account(domain=make_domain()))
        with CaptureQueriesContext(connection) as queries:
            assert rest.get(route.removesuffix("/{id}")).status_code == 200
        asked.append(len(queries))
    # The first call notes that the token was used, and learns the settings.
    assert asked[1] == asked[2] <= asked[0]


# That the matrix itself would notice -------------------------------------------------------------------


def test_a_view_that_shows_everything_is_noticed(monkeypatch):
    monkeypatch.setattr(resources.VisibleViewSet, "get_queryset", lambda view: view.queryset.all())
    with pytest.raises(AssertionError, match="another account's"):
        test_an_object_that_one_may_not_see_is_not_there("vms/{id}", resources.places["vms/{id}"].view)


def test_a_view_for_everybody_is_noticed(monkeypatch):
    monkeypatch.setattr(resources.CallerView, "check_role", lambda view: None)
    with pytest.raises(AssertionError):
        test_a_view_is_for_its_roles_only("hosts", resources.places["hosts"])


def test_a_command_for_everybody_is_noticed(monkeypatch):
    monkeypatch.setattr(routes.RunsCommands, "check_role", lambda view: None)
    with pytest.raises(AssertionError):
        test_a_command_is_for_its_roles_only("networks", "post", resources.places["networks"].commands["post"])


def test_a_filter_by_what_one_may_not_see_is_noticed(monkeypatch):
    view = resources.places["vms"].view
    monkeypatch.setattr(view.filters()["host"], "queryset", lambda request: Host.objects.all())
    with pytest.raises(AssertionError):
        test_a_filter_by_what_one_may_not_see_answers_as_by_nothing("vms", view, "host", view.filters()["host"])
