"""A walk over listApis: every command with whatever its parameters could be made of, and some that they could not.

Whatever comes is answered in words: no 5xx of ours, nothing half made, no secret shown.
"""

import json
from xml.etree import ElementTree

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from extdhcp_site.api import registry
from extdhcp_site.api.api import described
from tests.api.fuzz import IDS, NO_ID, Cloud, ids_for, make_cloud, rows, undone

pytestmark = pytest.mark.django_db

# What CloudStack's own codes say was refused or cannot be done now; anything else from 500 on is a fault of ours.
REFUSALS = {401, 405, 429, 431, 432, 531, 533, 534, 535, 536}
EXAMPLES = 25

# Injections by SQL, path, header, template and shell; numbers and texts at their ends; Unicode of all kinds.
NASTY = [
    *("' OR 1=1 --", '"; DROP TABLE accounts_user; --', "1) UNION SELECT secret FROM accounts_apikey --"),
    *("%", "_", "\\", "../../../../etc/passwd", "/etc/shadow", "..%2f..%2f", "file:///etc/passwd", "C:\\win.ini"),
    *("a\r\nX-Injected: 1", "a\nb", "%0d%0aSet-Cookie: a=b", "\x00", "a\x00b", "\x1b[31m", "\x7f", "\x85", "\u2028"),
    *("{{7*7}}", "${jndi:ldap://x}", "$(id)", "`id`", "%s%n%x", "<script>alert(1)</script>", "&#x0;", "]]>"),
    "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>",
    *("{}", "[]", "null", "None", "true", "NaN", "-0", "1e999", "0", "-1", "2147483648", "9223372036854775808"),
    *("9" * 4301, "0x10", "1_000", "\u0661", "\u00b2", "1.5", "x" * 5000, "a" * 64, "," * 600),
    *("é", "e\u0301", "\u202egnp.exe", "\U0001f4a9", "\ufeff", "\uffff", "\u0131", "ß", "\u212a"),
    *("2026-01-31", "2026-02-30", "0000-00-00", "9999-12-31 23:59:59", "2026-01-31T10:11:12+0000", "\u0662026-01-01"),
    *(" ", "\t", "a b", "-", ".", "localhost", "a.b", "-rf"),
    *("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.0/24", "fe80::1%lo"),
]
ANY_TEXT = st.one_of(st.sampled_from(NASTY), st.text(max_size=40), st.text(st.characters(codec="utf-8"), max_size=300))
POWERS = st.sampled_from([0, 1, 2, 2])
NOT_DECLARED = ["state", "pk", "accountid", "details[0].x", "a[0]", "x[-1].y", "ids[0].id", "signature", "apikey"]
AN_ID = st.one_of(st.sampled_from(IDS), st.sampled_from([NO_ID, "1", "x", NO_ID.upper(), f"{{{NO_ID}}}"]))
OF_TYPE = {
    "uuid": AN_ID,
    "boolean": st.sampled_from(["true", "false", "TRUE", "None", "yes"]),
    "integer": st.integers(-(2**70), 2**70).map(str) | st.integers(-1, 1000).map(str),
    "date": st.dates().map(str) | st.datetimes().map(str),
    "list": st.lists(AN_ID | ANY_TEXT, max_size=5).map(",".join),
    "string": ANY_TEXT,
}


@st.composite
def requests_of(draw, found, ids) -> list[tuple[str, str]]:
    """Pairs of names and values for a command: what is required mostly, all else sometimes, and what it has not."""
    pairs = []
    for parameter in found["params"]:
        if not draw(st.integers(0, 9 if parameter["required"] else 2)) and not parameter["required"]:
            continue
        if parameter["required"] and draw(st.integers(0, 9)) == 0:
            continue
        pairs += draw(_spelt(parameter, ids.get(parameter["name"])))
    extra = st.tuples(
        st.sampled_from(["state", "pk", "accountid", "details[0].x", "a[0]", "x[-1].y", "ids[0].id"]), ANY_TEXT
    )
    pairs += draw(st.lists(extra | st.tuples(ANY_TEXT, ANY_TEXT), max_size=1))
    if pairs and draw(st.integers(0, 9)) == 0:
        pairs.append(draw(st.sampled_from(pairs)))
    return pairs


def _spelt(parameter, ids) -> st.SearchStrategy[list[tuple[str, str]]]:
    name = st.sampled_from([parameter["name"]] * 4 + [parameter["name"].upper(), parameter["name"].title()])
    if parameter["type"] == "map":
        keys = st.sampled_from(["networkid", "ip", "key", "value", "service", "provider", "kernel", "KEY"]) | ANY_TEXT
        spelt = st.tuples(name, st.integers(0, 3), keys).map(lambda parts: f"{parts[0]}[{parts[1]}].{parts[2]}")
        return st.lists(st.tuples(spelt, AN_ID | ANY_TEXT), max_size=4)
    right = st.sampled_from(ids) if ids else OF_TYPE[parameter["type"]]
    value = st.one_of(right, right, right, right, AN_ID, ANY_TEXT)
    return st.tuples(name, value).map(lambda pair: [pair])


@pytest.fixture(scope="module")
def cloud(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), transaction.atomic():
        yield make_cloud()
        transaction.set_rollback(True)


@pytest.mark.parametrize("command", [pytest.param(command, id=command.name) for command in registry.commands()])
def test_whatever_comes_is_answered_in_words(command, cloud):
    ids = ids_for(command.params, cloud.callers[-1].caller)

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    @given(
        requests_of(described(command), ids),
        st.sampled_from([0, 1, 2, 2]),
        st.sampled_from(["get", "post"]),
        st.booleans(),
    )
    def walk(pairs, power, method, as_json):
        check(cloud, power, command.name, pairs, method, as_json)

    walk()


def check(cloud: Cloud, power: int, name: str, pairs: list[tuple[str, str]], method: str, as_json: bool) -> None:
    with undone():
        before = rows()
        answer = cloud.callers[power].raw(
            ("command", name), *([("response", "json")] if as_json else []), *pairs, method=method
        )
        assert answer.status_code == 200 or answer.status_code in REFUSALS, answer.content
        text = answer.content.decode()
        _is_one_answer(answer, text, as_json)
        if answer.status_code != 200:
            assert rows() == before, f"refused with {answer.status_code}, and something was made"
        assert not cloud.leaks(text)
        for header, value in answer.headers.items():
            assert value.isprintable(), header


def _is_one_answer(answer, text: str, as_json: bool) -> None:
    if as_json:
        [body] = json.loads(text).values()
    else:
        body = {child.tag: child.text for child in ElementTree.fromstring(text)}
    if answer.status_code != 200:
        assert str(body["errorcode"]) == str(answer.status_code)
        assert body["errortext"]
