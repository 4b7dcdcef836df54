"""The OpenAPI document: complete, without a warning, and true: what Schemathesis makes of it is answered as it says."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from rest_framework.serializers import BaseSerializer
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from extdhcp_site.api import openapi, registry, resources
from extdhcp_site.api.answers import Answer
from extdhcp_site.api.document import rendered
from extdhcp_site.api.parameters import MapList, Params
from tests.api.fuzz import IDS, NO_ID, Cloud, ids_for, ids_of, make_cloud, rows, undone

pytestmark = pytest.mark.django_db

METHODS = {"get", "post", "patch", "delete"}
# They end when the client goes, or after the wait that it asked for.
WAITING = ("/api/v1/events/stream", "/api/v1/nics/{id}/address")
EXAMPLES = 16


@cache
def document() -> dict:
    return SchemaGenerator().get_schema(request=None, public=True)


def operations() -> list[tuple[str, str, dict]]:
    return [
        (path, method, operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]


# Complete -----------------------------------------------------------------------------------------------


def test_it_is_made_without_a_warning(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with GENERATOR_STATS.silence():
            validate_schema(SchemaGenerator().get_schema(request=None, public=True))
        assert not GENERATOR_STATS
    assert document()["openapi"].startswith("3.1")


def test_it_says_null_in_the_words_of_its_version():
    def words(part: object) -> Iterator[str]:
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
            yield from words(inner)
        yield from part if isinstance(part, dict) else []

    assert "nullable" not in set(words(document()))


def test_it_is_made_once(client, admin_user):
    client.force_login(admin_user)
    first = client.get("/api/schema/")
    made = rendered.cache_info().misses
    again = client.get("/api/schema/")
    assert (again.content, rendered.cache_info().misses) == (first.content, made)
    assert again["Content-Type"] == "application/vnd.oai.openapi; charset=utf-8"


def test_every_route_is_in_it():
    routes = {
        (f"/api/v1/{route}", method)
        for route, place in resources.places.items()
        for method in [*place.commands, *(["get"] if place.view else [])]
    }
    assert routes <= {(path, method) for path, method, _ in operations()}


@pytest.mark.parametrize("part", ["description", "operationId", "responses", "security", "tags"])
def test_every_operation_says(part):
    assert [(path, method) for path, method, operation in operations() if not operation.get(part)] == []


def test_operations_have_names_of_their_own():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))


def test_every_parameter_and_field_of_a_body_is_described():
    lacking = []
    for path, method, operation in operations():
        lacking += [(path, found["name"]) for found in operation.get("parameters", []) if not _is_described(found)]
        for media in operation.get("requestBody", {}).get("content", {}).values():
            lacking += [
                (path, name)
                for name, field in media["schema"].get("properties", {}).items()
                if not field.get("description")
            ]
            assert "$ref" in media["schema"] or media["examples"], (path, method)
    assert lacking == []


def _is_described(parameter: dict) -> bool:
    # What the library itself adds: the pages' parameters.
    return bool(parameter.get("description")) or parameter["name"] in ("cursor", "page_size")


def test_every_refusal_is_a_problem():
    for path, method, operation in operations():
        if path.startswith("/api/v1/leases"):
            continue
        for status, answer in operation["responses"].items():
            if int(status) >= HTTPStatus.BAD_REQUEST:
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (path, method, status)
        assert "401" in operation["responses"], (path, method)


def fields_within(schema: dict, at: str) -> Iterator[tuple[str, dict]]:
    """Every field of what is shown, and every object in a list, with where it stands."""
    for name, field in schema.get("properties", {}).items():
        yield f"{at}.{name}", field
        yield from fields_within(field, f"{at}.{name}")
    for inner in [schema["items"]] if "items" in schema else schema.get("anyOf", []):
        yield f"{at}[]", inner
        yield from fields_within(inner, f"{at}[]")


def test_every_field_of_an_answer_has_a_type_and_an_object_its_fields():
    lacking = []
    for name, schema in document()["components"]["schemas"].items():
        for at, field in fields_within(schema, name):
            is_plain = field.get("type", "object") != "object"
            if not (
                is_plain or {"$ref", "allOf", "anyOf", "oneOf", "properties", "additionalProperties"} & field.keys()
            ):
                lacking.append(at)
    assert lacking == []
    assert document()["components"]["schemas"]["Vm"]["properties"]["nic"]["items"] == {
        "$ref": "#/components/schemas/Nic"
    }


def test_every_field_of_an_answer_is_described():
    lacking = [
        at
        for name, schema in document()["components"]["schemas"].items()
        # What the library makes of pages, and JobResult, whose fields are whole objects.
        if not (name.startswith("Paginated") or name == "JobResult")
        for at, field in fields_within(schema, name)
        if not (at.endswith("[]") or field.get("description"))
    ]
    assert lacking == []


COMMANDS = [pytest.param(command, id=command.name) for command in registry.commands()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_has_a_help_text(command):
    """From it come listApis, the reference page and the OpenAPI document."""
    assert _without_help(command.params) == []
    assert _without_help(command.answer_class()) == []


def _without_help(serializer: type[BaseSerializer]) -> list[str]:
    lacking = []
    for name, field in serializer._declared_fields.items():
        if not field.help_text:
            lacking.append(f"{serializer.__name__}.{name}")
        inner = field.entry if isinstance(field, MapList) else type(getattr(field, "child", field))
        if issubclass(inner, Params | Answer):
            lacking += _without_help(inner)
    return lacking


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_has_a_json_schema(command):
    openapi.object_of(command.params)


@pytest.mark.parametrize("view", [place.view for place in resources.places.values() if place.action == "list"])
def test_every_field_of_a_list_has_a_help_text(view):
    assert _without_help(view(action="list", detail=False).get_serializer_class()) == []
    assert _without_help(view(action="retrieve", detail=True).get_serializer_class()) == []


# For people ---------------------------------------------------------------------------------------------


def test_its_page_has_nothing_that_the_content_security_policy_forbids(client, admin_user):
    client.force_login(admin_user)
    page = client.get("/api/docs/")
    text = page.content.decode()
    assert "<style" not in text
    assert " style=" not in text
    assert text.count("<script") == text.count("<script src=") == 3
    policy = page["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert client.get("/api/docs/", {"script": ""})["Content-Type"].startswith("application/javascript")


# True ---------------------------------------------------------------------------------------------------


def with_ids(schema: object, ids: dict[str, list[str]], name: str = "") -> object:
    """`schema` with ids of the cloud where there is a uuid: made up ones lead nowhere."""
    if isinstance(schema, list):
        return [with_ids(item, ids, name) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "uuid":
        return {"type": "string", "enum": ids.get(name, [*IDS, NO_ID])}
    named = schema.get("name", name) if "in" in schema else name
    return {
        key: {inner: with_ids(value, ids, inner) for inner, value in part.items()}
        if key == "properties"
        else with_ids(part, ids, named)
        for key, part in schema.items()
    }


def ids_at(path: str, method: str, cloud: Cloud) -> dict[str, list[str]]:
    place = resources.places.get(path.removeprefix("/api/v1/"))
    if place is None:
        return {}
    if method in place.commands:
        return ids_for(place.commands[method].params, cloud.callers[-1].caller)
    return {"id": ids_of(place.view.queryset.model)} if place.action == "retrieve" else {}


def fuzzed(path: str, method: str, mode: GenerationMode, cloud: Cloud) -> SearchStrategy[schemathesis.Case]:
    ids = ids_at(path, method, cloud)
    if mode == GenerationMode.POSITIVE:
        # So that all of a request leads to something, and it comes to the command itself.
        ids = {name: known[:1] for name, known in ids.items()}
    operation = with_ids(document()["paths"][path][method], ids)
    schema = schemathesis.openapi.from_dict({**document(), "paths": {path: {method: operation}}})
    schema.app = get_wsgi_application()
    return schema[path][method].as_strategy(mode)


OPERATIONS = [
    pytest.param(path, method, id=f"{method} {path}") for path, method, _ in operations() if path not in WAITING
]


@pytest.fixture(scope="module")
def cloud(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), transaction.atomic(), kept_connection():
        yield make_cloud()
        transaction.set_rollback(True)


@contextmanager
def kept_connection() -> Iterator[None]:
    """As Django's own test client: a request does not end the transaction that it is part of."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_is_sent_is_answered_as_it_says(path, method, mode, cloud):
    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    @given(fuzzed(path, method, mode, cloud), st.sampled_from([0, 1, 2, 2]))
    def send(case, power):
        check(cloud, case, power)

    send()


def check(cloud: Cloud, case: schemathesis.Case, power: int) -> None:
    with undone():
        before = rows()
        answer = case.call(headers={"Authorization": f"Bearer {cloud.callers[power].keys.token}"})
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            assert rows() == before, "refused, and something was made"
        assert not cloud.leaks(answer.text)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
