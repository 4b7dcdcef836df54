"""The generated policy matrix: each command by each role, each reference by each relation to its object.

CVE-2026-50222 and a dozen before it (Apache CloudStack): one account's object was used by another
that named it in a parameter of a command about its own. Nothing here is listed by hand: a new
command or parameter is in the matrix as soon as it is registered.
"""

import itertools
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.db.models import Model
from django.test import Client

from extdhcp_site.accounts.models import ApiKey, Role
from extdhcp_site.api import registry
from extdhcp_site.api.answers import Success
from extdhcp_site.api.parameters import (
    Choice,
    Int,
    Map,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    visible,
)
from extdhcp_site.api.registry import EVERYBODY, Command
from extdhcp_site.events.models import Event
from tests import factories
from tests.api.client import Reply, Signer
from tests.api.examples import EXAMPLES, NOT_REFERENCES, OF_CONSTANTS, SAMPLES, Example, expected
from tests.factories import make_account, make_domain

pytestmark = pytest.mark.django_db

REFERENCES = (ObjectField, ObjectListField)


@pytest.fixture(autouse=True)
def numbers_from_one(monkeypatch):
    """The matrix makes so many objects that the factories would run out of VLANs."""
    monkeypatch.setattr(factories, "_numbers", itertools.count(1))


# Who may call what -----------------------------------------------------------------------------------

# Written here a second time on purpose: what a command declares is compared with it.
FOR_ROOT_ADMINS = {
    *("createNetworkOffering", "updateNetworkOffering", "deleteNetworkOffering"),
    *("createServiceOffering", "updateServiceOffering", "deleteServiceOffering"),
    *("registerTemplate", "updateTemplate", "deleteTemplate"),
    *("listPods", "listClusters", "listHosts", "listStoragePools", "migrateVirtualMachine"),
    *("createZone", "createPod", "addCluster", "createStoragePool", "addHost", "updateHost", "deleteHost"),
    *("listEndpoints", "createEndpoint", "updateEndpoint", "deleteEndpoint", "tryEndpoint", "checkEndpoint"),
    *("listConfigurations", "updateConfiguration", "resetConfiguration"),
    *("listAlerts", "listAlertTypes", "acknowledgeAlert", "archiveAlerts", "deleteAlerts"),
    *("rebuildConfigDrive", "verifyConfigDrive", "ejectConfigDrive"),
}
FOR_ADMINS = {
    *("createDomain", "updateDomain", "deleteDomain", "listDomainChildren"),
    *("createAccount", "updateAccount", "disableAccount", "enableAccount", "deleteAccount", "removeSecondFactor"),
    *("createUser", "disableUser", "enableUser", "deleteUser"),
    *("createNetwork", "updateNetwork", "deleteNetwork", "expungeVirtualMachine"),
}


def test_no_command_is_for_more_people_than_it_is_meant_for():
    """CVE-2024-45461, CVE-2025-22829 (CloudStack): plug-ins' commands, that change quotas, anybody could call.

    CVE-2026-59799: a security setting was switched off without the privilege for it.
    """
    assert {command.name for command in registry.commands() if command.roles == {Role.ROOT_ADMIN}} == FOR_ROOT_ADMINS
    assert {command.name for command in registry.commands() if command.roles == registry.ADMINS} == FOR_ADMINS
    others = [command for command in registry.commands() if command.name not in FOR_ROOT_ADMINS | FOR_ADMINS]
    assert all(command.roles == EVERYBODY for command in others)


@pytest.mark.parametrize("command", registry.commands(), ids=lambda command: command.name)
def test_each_command_is_for_its_roles_only(command):
    unknown = Signer.of(make_account()).call("noSuchCommand")
    for role in Role:
        reply = Signer.of(make_account(role)).call(command.name)
        if role in command.roles:
            assert reply.status not in (401, 432, 530), (role, reply)
        else:
            assert (reply.status, reply.key, reply.body) == (432, unknown.key, unknown.body), role


@pytest.mark.parametrize("command", registry.commands(), ids=lambda command: command.name)
def test_no_command_is_for_somebody_unknown(command):
    response = Client().get("/client/api", {"command": command.name, "response": "json"})
    assert response.status_code == 401


@pytest.mark.parametrize("roles", [(), ("admin",), [None]])
def test_a_command_that_does_not_say_who_may_call_it_cannot_be_registered(roles):
    """CVE-2024-45461 and CVE-2025-22829 (CloudStack): commands of plug-ins came without an access check."""
    with pytest.raises(TypeError, match="roles"):
        registry.command(since="1.0", roles=roles)
    with pytest.raises(TypeError):
        registry.command(since="1.0")


# Who may name what -----------------------------------------------------------------------------------


def references(params: type[Params], inside: str = "") -> Iterator[tuple[str, ObjectField]]:
    """Every parameter that names an object, as it is spelt on the wire."""
    for name, field in params.declared().items():
        if isinstance(field, REFERENCES):
            yield inside + name, field
        elif isinstance(field, MapList):
            yield from references(field.entry, f"{name}[0].")


CELLS = [
    pytest.param(command, name, field, id=f"{command.name}-{name}")
    for command in registry.commands()
    for name, field in references(command.params)
]


@pytest.mark.parametrize(("command", "name", "field"), CELLS)
def test_an_object_that_one_may_not_see_answers_like_one_that_does_not_exist(command, name, field):
    check_reference(command, name, field)


def check_reference(command: type[Command], name: str, field: ObjectField) -> None:
    for role in sorted(command.roles):
        caller = Signer.of(make_account(role, make_domain(make_domain())))
        model = field.queryset_for(caller.caller).model
        assert model in EXAMPLES, f"Add an example of {model.__name__} to tests/api/examples.py."
        example = EXAMPLES[model]
        nothing = _key_of_nothing(field)
        never_was = _shape(_call(command, caller, name, nothing), nothing)
        assert never_was[0] == 431
        for relation, account, kind in example.cells(caller.caller.account):
            row = kind.make(account)
            # The call before may have shut its own caller out.
            ApiKey.objects.filter(user=caller.user).update(disabled_at=None)
            seen_by = expected(kind, command.name, name)
            value = str(getattr(row, field.by))
            shape = _shape(_call(command, caller, name, value), value)
            cell = f"{role.label} names {relation} {model.__name__} in {command.name} {name}"
            assert (shape != never_was) == seen_by(caller.caller, account), f"{cell}: {shape}"
            assert shape[0] != 530, cell
        ApiKey.objects.filter(user=caller.user).update(disabled_at=None)
        deleted = str(getattr(example.deleted(), field.by))
        assert _shape(_call(command, caller, name, deleted), deleted) == never_was, f"{role}: a deleted {model}"


def _call(command: type[Command], caller: Signer, name: str, value: str) -> Reply:
    return caller.call(command.name, *_required(command, caller, name), (name, value))


def _required(command: type[Command], caller: Signer, but: str) -> Iterator[tuple[str, str]]:
    """Values for all that the command requires, so that it comes to look at the one in question."""
    given = SAMPLES.get((command.name, but), {})
    yield from given.items()
    inside = but.split(".")[0] + "." if "." in but else ""
    fields = dict(command.params.declared())
    if inside and isinstance(outer := fields[but.split("[")[0]], MapList):
        fields |= {inside + name: field for name, field in outer.entry.declared().items()}
    for name, field in fields.items():
        if field.required and name != but and name not in given:
            yield name, _sample(field, caller)


def _sample(field, caller: Signer) -> str:
    if isinstance(field, REFERENCES):
        own: Model = EXAMPLES[field.queryset_for(caller.caller).model].make(caller.caller.account)
        return str(getattr(own, field.by))
    if isinstance(field, Choice):
        return next(iter(field.words.values()))
    return str(max(field.least, 1)) if isinstance(field, Int) else "x"


def _key_of_nothing(field: ObjectField) -> str:
    return str(uuid4()) if field.by == "uuid" else "no-such-name"


def _shape(reply: Reply, value: str) -> tuple:
    """What the caller learns, the value itself aside."""
    body = reply.body if reply.status != 200 else {}
    return reply.status, reply.key, body.get("cserrorcode"), body.get("errortext", "").replace(value, "<id>")


COMMANDS = [pytest.param(command, id=command.name) for command in registry.commands()]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_named_like_a_reference_is_one(command):
    """A uuid that a command looks up by itself is outside the matrix."""
    fields = command.params.declared().items()
    looks_up_itself = {
        name
        for name, field in fields
        if name.endswith(("id", "ids"))
        and not isinstance(field, REFERENCES)
        and (command.name, name) not in OF_CONSTANTS
    }
    assert looks_up_itself <= NOT_REFERENCES


NASTY = [
    "x",
    "-1",
    "0",
    "true",
    ",",
    "[]",
    "é\u202e",
    "%s%n",
    "../..",
    "9" * 40,
    "x" * 5000,
    str(uuid4()),
    "' OR 1=1 --",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_value_of_a_parameter_breaks_a_command(command):
    root = Signer.of(make_account(Role.ROOT_ADMIN))
    for name, field in command.params.declared().items():
        spelt = f"{name}[0].x" if isinstance(field, Map | MapList) else name
        for value in NASTY:
            reply = _call(command, root, spelt, value)
            assert reply.status < 500 or reply.status in (531, 533, 534, 535, 536), (spelt, value[:50], reply)


# That the matrix itself would notice --------------------------------------------------------------------


def _declare(queryset_for, roles=EVERYBODY) -> type[Command]:
    class UseEventParams(Params):
        name = Text("required, and of no interest", required=True)
        id = ObjectField("an event", queryset_for, required=True)

    @registry.command(since="1.0", roles=roles)
    class UseEvent(Command):
        """Do something with an event."""

        params = UseEventParams
        answer = Success

        def run(self, caller, params):
            return f"{params['id'].pk}"

    return UseEvent


def test_a_right_command_passes(own_commands):
    command = _declare(visible(Event))
    check_reference(command, "id", command.params.declared()["id"])


def test_a_leak_is_noticed(own_commands):
    command = _declare(lambda caller: Event.objects.all())
    with pytest.raises(AssertionError, match="another account's"):
        check_reference(command, "id", command.params.declared()["id"])


def test_what_is_refused_to_its_owner_is_noticed(own_commands):
    command = _declare(lambda caller: Event.objects.none())
    with pytest.raises(AssertionError, match="its own"):
        check_reference(command, "id", command.params.declared()["id"])


def test_a_model_without_an_example_is_noticed(own_commands, monkeypatch):
    monkeypatch.delitem(EXAMPLES, Event)
    command = _declare(visible(Event))
    with pytest.raises(AssertionError, match=r"examples\.py"):
        check_reference(command, "id", command.params.declared()["id"])


def test_a_wrong_expectation_is_noticed(own_commands, monkeypatch):
    monkeypatch.setitem(EXAMPLES, Event, Example(EXAMPLES[Event].make, lambda caller, account: True))
    command = _declare(visible(Event))
    with pytest.raises(AssertionError):
        check_reference(command, "id", command.params.declared()["id"])
