"""From the wire to values: what is read leniently, what is refused, and in which words."""

import base64
import contextlib
from datetime import UTC, datetime

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from extdhcp_site.accounts.models import Account, Role
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    CommaList,
    Date,
    Int,
    Map,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    Uuid,
    Wire,
    pairs_of,
    validate,
)
from extdhcp_site.errors import InvalidParameter
from tests.factories import make_account, make_caller, make_domain

NOBODY = "00000000-0000-4000-8000-000000000000"


class Provider(Params):
    service = Text("service", required=True)
    provider = Text("provider")


class Thing(Params):
    name = Text("name")
    secret = Text("secret", multiline=True, max_length=2000)
    blank = Text("blank", allow_blank=True)
    state = Choice("state", ["Enabled", "Disabled"])
    cpus = Int("cpus")
    forced = Bool("forced")
    start = Bool("start", default=True)
    since = Date("since")
    until = Date("until", end_of_day=True)
    services = CommaList("services")
    details = Map("details")
    providers = MapList("providers", Provider)
    resource = Uuid("resource")


def values_of(*pairs: tuple[str, str], params=Thing, caller=None, **named: str):
    return validate(params, "doThing", Wire.of([*pairs, *named.items()]), caller)


def refusal_of(*pairs: tuple[str, str], **named) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        values_of(*pairs, **named)
    assert caught.value.status == 431
    return caught.value


# Reading ----------------------------------------------------------------------------------------


def test_names_are_read_in_any_case_and_absent_ones_are_none():
    values = values_of(("NAME", "x"), ("cpuS", "3"))
    assert (values["name"], values["cpus"], values["forced"], values["state"]) == ("x", 3, None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False), ("yes", False), ("1", False)],
)
def test_only_true_is_true(text, value):
    """libcloud writes True and False."""
    assert values_of(forced=text)["forced"] is value


@pytest.mark.parametrize("text", ["None", ""])
def test_what_clients_make_of_nothing_is_absent(text):
    """libcloud sends forced=None."""
    assert values_of(forced=text, start=text)["forced"] is None
    assert values_of(forced=text, start=text)["start"] is True


def test_an_empty_value_is_absent_unless_the_parameter_may_be_blank():
    values = values_of(name="", cpus="", blank="")
    assert (values["name"], values["cpus"], values["blank"]) == (None, None, "")


def test_a_choice_is_read_in_any_case_and_kept_as_declared():
    assert values_of(state="enabled")["state"] == "Enabled"


def test_a_bare_end_date_is_the_end_of_its_day():
    values = values_of(since="2026-01-31", until="2026-01-31")
    assert values["since"] == datetime(2026, 1, 31, tzinfo=UTC)
    assert values["until"] == datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert values_of(until="2026-01-31 10:11:12")["until"] == datetime(2026, 1, 31, 10, 11, 12, tzinfo=UTC)


@pytest.mark.parametrize("spelt", ["2026-01-31T10:11:12Z", "2026-01-31 10:11:12+0000", "2026-01-31T12:11:12+02:00"])
def test_a_moment_may_name_its_offset(spelt):
    assert values_of(since=spelt)["since"] == datetime(2026, 1, 31, 10, 11, 12, tzinfo=UTC)


def test_a_list_has_commas():
    assert values_of(services="Dhcp, Dns,,UserData")["services"] == ["Dhcp", "Dns", "UserData"]


def test_a_map_with_all_keys_at_one_index():
    """cs and Ansible put all keys at index 0."""
    values = values_of(("details[0].cpuNumber", "2"), ("details[0].memory", "9"))
    assert values["details"] == {"cpuNumber": "2", "memory": "9"}


def test_a_map_with_one_index_a_key_and_gaps():
    """The Go SDK counts one index a key."""
    values = values_of(("Details[7].memory", "9"), ("details[0].cpuNumber", "2"))
    assert values["details"] == {"cpuNumber": "2", "memory": "9"}


def test_a_list_of_maps_is_ordered_by_index_and_reads_keys_in_any_case():
    values = values_of(
        ("providers[10].service", "b"), ("providers[2].Service", "a"), ("providers[2].PROVIDER", "p"), ("x", "y")
    )
    assert values["providers"] == [{"service": "a", "provider": "p"}, {"service": "b", "provider": None}]


def test_unknown_parameters_are_ignored():
    """cmk and csclient send filter=, Ansible network=<name> inside iptonetworklist, its inventory listItems."""
    values = values_of(("filter", "name"), ("providers[0].service", "a"), ("providers[0].network", "n"), name="x")
    assert values["providers"] == [{"service": "a", "provider": None}]
    assert "filter" not in values


def test_query_and_form_body_are_one_request():
    request = RequestFactory().post(
        "/client/api?a=1+2", "b=%C3%A9%2B&c=", content_type="application/x-www-form-urlencoded"
    )
    in_url, in_body = pairs_of(request)
    assert (in_url, in_body) == ([("a", "1 2")], [("b", "é+"), ("c", "")])
    assert Wire.of(in_url, in_body).values == {"a": "1 2", "b": "é+", "c": ""}


def test_a_long_text_may_be_limited_in_a_url_without_being_limited_in_a_body():
    class Boot(Params):
        script = Text("script", max_in_url=4, multiline=True)

    def asked(*, in_url: str = "", in_body: str = "") -> str | None:
        wire = Wire.of([("Script", in_url)] if in_url else [], [("script", in_body)] if in_body else [])
        return validate(Boot, "doThing", wire, None)["script"]

    assert (asked(in_url="1234"), asked(in_body="1234567")) == ("1234", "1234567")
    with pytest.raises(InvalidParameter, match=r"script: has 5 characters; in a URL it may have 4. .*POST"):
        asked(in_url="12345")


# Refusing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pairs",
    [
        [("id", "a"), ("id", "b")],
        [("id", "a"), ("ID", "a")],
        [("details[0].a", "1"), ("details[0].a", "2")],
        [("details[0].a", "1"), ("details[00].A", "2")],
        [("details", "1"), ("details[0].a", "2")],
        [("signature", "a"), ("Signature", "b")],
    ],
)
def test_a_doubled_parameter_is_refused(pairs):
    assert "more than once" in refusal_of(*pairs).text


@pytest.mark.parametrize("character", [chr(code) for code in (0, 1, 8, 9, 11, 12, 27, 31, 127)])
def test_control_characters_are_refused_in_every_value(character):
    error = refusal_of(("whatever", f"a{character}b"))
    assert "control characters" in error.text
    assert character not in error.text


def test_line_ends_pass_only_where_they_are_declared():
    assert values_of(secret="a\r\nb")["secret"] == "a\r\nb"
    refusal_of(name="a\nb")
    refusal_of(name="a\u2028b")


@pytest.mark.parametrize("name", ["", "a&b", "a=b", "a%b", "a b", "a\x00", "a+b", "n" * 256])
def test_a_name_that_makes_signatures_ambiguous_is_refused(name):
    refusal_of((name, "1"))


@pytest.mark.parametrize(
    "name", ["hypervisoruuid", "instanceName", "accountId", "hostuuid", "ctxUserId", "pk", "vm__account", "role"]
)
def test_internal_names_are_refused(name):
    assert "cannot be set" in refusal_of((name, "1")).text
    assert "cannot be set" in refusal_of((f"{name}[0].x", "1")).text


def test_an_internal_name_may_be_declared():
    class Declared(Params):
        userid = Uuid("the user")

    assert values_of(("userid", NOBODY), params=Declared)["userid"]


@pytest.mark.parametrize(
    "named",
    [
        {"cpus": "x"},
        {"cpus": "-1"},
        {"cpus": "1.5"},
        {"cpus": "2147483648"},
        {"cpus": "9" * 4301},
        {"cpus": "1_0"},
        {"cpus": "\u0661"},
        {"state": "Unknown"},
        {"since": "yesterday"},
        {"since": "2026-02-30"},
        {"since": "2026-01-31 10:11:12 or so"},
        {"since": "0001-01-01 00:00:00+0100"},
        {"name": "x" * 256},
        {"services": "," * 1_000_000},
        {"details": "a"},
        {"providers": "a"},
        {"resource": "1"},
    ],
    ids=lambda named: str(named)[:30],
)
def test_a_bad_value_is_refused_with_the_parameters_name(named):
    error = refusal_of(**named)
    assert error.text.startswith("Unable to execute API command dothing due to invalid value. ")
    assert f"Parameter {next(iter(named))}: " in error.text
    assert len(error.text) < 512


def test_a_bad_value_is_not_repeated():
    """It may be a password."""
    assert "hunter2" not in refusal_of(secret="hunter2" * 400).text


def test_a_missing_parameter_is_named_first():
    class Required(Params):
        cpus = Int("cpus")
        zoneid = Text("zone", required=True)

    error = refusal_of(cpus="x", params=Required)
    assert error.text == "Unable to execute API command dothing due to missing parameter zoneid"
    assert error.cs_code == 9999


def test_what_is_missing_inside_a_list_of_maps_is_named():
    assert refusal_of(("providers[0].provider", "p")).text.endswith("missing parameter providers.service")


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/xml", "multipart/form-data; boundary=x", "text/plain"]
)
def test_a_body_that_is_no_form_is_refused(content_type):
    request = RequestFactory().post("/client/api", b'{"command": "listZones"}', content_type=content_type)
    with pytest.raises(InvalidParameter, match="form"):
        pairs_of(request)


@pytest.mark.parametrize("query", ["a=%ff", "a=%c3", "%ff=a", "a=%ed%a0%80"])
def test_what_is_not_utf8_is_refused(query):
    """Decoding it with replacement characters would give two requests one signature."""
    with pytest.raises(InvalidParameter, match="UTF-8"):
        pairs_of(RequestFactory().get(f"/client/api?{query}"))


def test_too_much_is_refused():
    with pytest.raises(InvalidParameter, match="1000"):
        pairs_of(RequestFactory().get("/client/api?" + "&".join(f"a{n}=" for n in range(1001))))
    big = RequestFactory().post(
        "/client/api", b"a=" + b"x" * 3_000_000, content_type="application/x-www-form-urlencoded"
    )
    with pytest.raises(InvalidParameter, match="larger"):
        pairs_of(big)


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(st.sampled_from(list(Thing.declared())), text))
def test_whatever_comes_is_read_or_refused(named):
    with contextlib.suppress(InvalidParameter):
        values_of(*named.items())


# Objects -----------------------------------------------------------------------------------------


class Moves(Params):
    id = ObjectField("account", lambda caller: Account.objects.filter(domain=caller.account.domain))
    ids = ObjectListField("accounts", lambda caller: Account.objects.filter(domain=caller.account.domain))
    name = ObjectField("account", lambda caller: Account.objects.filter(domain=caller.account.domain), by="name")


@pytest.mark.django_db
def test_a_reference_becomes_an_object():
    caller = make_caller()
    other = make_account()

    values = values_of(
        params=Moves,
        caller=caller,
        id=str(other.uuid).upper(),
        ids=f"{other.uuid},{caller.account.uuid}",
        name=other.name,
    )

    assert (values["id"], values["ids"], values["name"]) == (other, [other, caller.account], other)


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["id", "ids"])
def test_somebody_elses_a_deleted_one_and_none_at_all_answer_alike(name):
    """The Go SDK and Terraform look for exactly these words."""
    caller = make_caller()
    elsewhere = make_account(domain=make_domain())
    deleted = make_account()
    deleted_uuid = deleted.uuid
    number = caller.account.pk
    deleted.delete()

    for value in [str(elsewhere.uuid), str(deleted_uuid), NOBODY, str(number), "x", f"{{{caller.account.uuid}}}"]:
        error = refusal_of(params=Moves, caller=caller, **{name: value})
        wanted = f"Invalid parameter {name} value={value} due to incorrect long value format, or entity does not exist"
        assert wanted in error.text
        assert error.cs_code == 4350


@pytest.mark.django_db
def test_a_value_is_cut_where_it_is_repeated():
    error = refusal_of(params=Moves, caller=make_caller(), id="x" * 5000)
    assert f"value={'x' * 256} due" in error.text


class TwoMoves(Params):
    moves = MapList("moves", Moves, most=2)


@pytest.mark.django_db
def test_more_entries_than_a_parameter_takes_cost_no_query(django_assert_num_queries):
    asked = [(f"moves[{number}].id", NOBODY) for number in range(3)]
    with django_assert_num_queries(0):
        error = refusal_of(*asked, params=TwoMoves)
    assert "Parameter moves: has 3 entries, where 2 are the most." in error.text


@pytest.mark.django_db
def test_many_references_take_one_query(django_assert_num_queries):
    caller = make_caller()
    accounts = [make_account() for _ in range(5)]
    with django_assert_num_queries(1):
        values_of(params=Moves, caller=caller, ids=",".join(str(account.uuid) for account in accounts))


@pytest.mark.django_db
def test_internal_names_and_doubled_ones_are_refused_over_http(user):
    assert user.call("listApis", accountid="1").status == 431
    doubled = user.call("listApis", ("name", "a"), ("Name", "b"))
    assert (doubled.status, doubled.key) == (431, "errorresponse")


@pytest.mark.django_db
def test_long_values_by_get_and_post(root):
    """Ansible and libcloud put base64 user data into the URL."""
    long = base64.b64encode(b"x" * 24000).decode()
    assert root.call("listApis", whatever=long).status == 200
    assert root.call("listApis", whatever=long, method="post").status == 200


@pytest.mark.django_db
@pytest.mark.parametrize("role", Role)
def test_unknown_parameters_stay_in_the_signature(role):
    """cmk signs its filter= too."""
    from tests.api.client import Signer

    assert Signer.of(make_account(role)).call("listApis", filter="name,isasync").status == 200
