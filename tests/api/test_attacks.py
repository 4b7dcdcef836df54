"""What somebody tries who has no right to: against the signature, the parameters, the session and the log-in page.

A test names the CVE that it is about. Floods are in test_throttling.py, sessions in test_sessions.py,
what each caller may see in test_policy.py and test_owners.py.
"""

import base64
import hashlib
import hmac
import unicodedata
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Role
from networks.models import SshKeyPair, VirtualMachine
from tests.api.client import ENDPOINT, Signer, as_cs_signs, sign
from tests.factories import make_account, make_user, make_vm

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"
REFUSED = "unable to verify user credentials and/or request signature"


def signed(signer: Signer, *pairs: tuple[str, str]) -> list[tuple[str, str]]:
    every = [*pairs, ("response", "json"), ("apiKey", signer.keys.api_key)]
    return [*every, ("signature", sign(signer.keys.secret_key, as_cs_signs(every)))]


def get(pairs) -> object:
    return Client().get(f"{ENDPOINT}?{urlencode(list(pairs))}")


# The signature ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        ("command", "deleteSSHKeyPair"),
        ("COMMAND", "deleteSSHKeyPair"),
        ("name", "theirs"),
        ("Name", "theirs"),
        ("signature", "AAAA"),
        ("apikey", "x"),
        ("response", "xml"),
    ],
    ids=lambda pair: f"{pair[0]}={pair[1]}",
)
@pytest.mark.parametrize("where", ["before", "after", "in the body"])
def test_a_doubled_parameter_is_refused_wherever_it_stands(user, caplog, more, where):
    """Neither the first nor the last wins, and the log does not repeat what was sent."""
    pairs = signed(user, ("command", "createSSHKeyPair"), ("name", "mine"))
    if where == "in the body":
        response = Client().post(f"{ENDPOINT}?{urlencode(pairs)}", urlencode([more]), content_type=FORM)
    else:
        response = get([more, *pairs] if where == "before" else [*pairs, more])

    assert response.status_code == 431
    assert not SshKeyPair.objects.exists()
    assert pairs[-1][1] not in caplog.text


def test_parameters_in_another_order_are_the_same_request(user):
    pairs = signed(user, ("command", "listApis"), ("name", "listZones"))
    assert get(pairs).content == get(reversed(pairs)).content


@pytest.mark.parametrize(
    "value", ["a&b", "a=b", "a+b", "a b", "%20", "%", "*", "~", "a%2Bb", "é", "e\u0301", "日本", "[x]"]
)
def test_a_signed_value_arrives_as_it_was(user, value):
    """One canonical form, whatever stands in the value."""
    account = user.user.account
    Account.objects.filter(pk=account.pk).update(name=value)
    assert get(signed(user, ("command", "listAccounts"), ("name", value))).json()["listaccountsresponse"]["count"] == 1


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("a b", "a%20b"),
        ("a+b", "a b"),
        ("a%20b", "a b"),
        ("é", "e\u0301"),
        (unicodedata.normalize("NFD", "Å"), "Å"),
        ("a&name2=b", "a"),
        ("*", "%2A"),
        ("~", "%7E"),
    ],
)
def test_a_signature_is_good_for_one_value_only(user, said, sent):
    """No second request has the same signature."""
    pairs = dict(signed(user, ("command", "listAccounts"), ("name", said)))
    assert get({**pairs, "name": sent}.items()).status_code == 401


def test_how_the_wire_encodes_does_not_matter(user):
    """cs sends + and %2A and signs %20 and *; hexadecimal digits have two cases."""
    pairs = signed(user, ("command", "listAccounts"), ("name", "a *é"))
    plain = urlencode(pairs)
    for spelt in (plain, plain.replace("+", "%20"), plain.replace("%C3%A9", "%c3%a9")):
        assert Client().get(f"{ENDPOINT}?{spelt}").status_code == 200


@pytest.mark.parametrize(
    ("version", "expires"),
    [
        ("3", -1),
        ("3", 60 * 25),
        ("3", None),
        ("", -1),
        ("", 60 * 25),
        ("4", -1),
        ("3", "yesterday"),
        ("3", "2026-01-01T00:00:00-0500"),
        ("3", "9999-12-31T23:59:59Z"),
        ("3", "0000-00-00T00:00:00Z"),
    ],
)
def test_a_request_out_of_its_time_is_refused(user, version, expires):
    """Past, far ahead, missing, malformed, in another zone; also without the version that asks for it."""
    if isinstance(expires, int):
        expires = (timezone.now() + timedelta(minutes=expires)).strftime("%Y-%m-%dT%H:%M:%S+0000")
    pairs = [("command", "listApis"), ("signatureVersion", version)]
    answer = get(signed(user, *pairs, *([("expires", expires)] if expires else [])))
    assert (answer.status_code, answer.json()["listapisresponse"]["errortext"]) == (401, REFUSED)


def test_a_request_may_be_sent_again_until_it_expires_and_not_later(user, monkeypatch):
    """There is no nonce in CloudStack's protocol, so `expires` is what limits a replay."""
    until = timezone.now() + timedelta(minutes=10)
    pairs = signed(
        user, ("command", "listApis"), ("signatureVersion", "3"), ("expires", until.strftime("%Y-%m-%dT%H:%M:%S+0000"))
    )
    assert [get(pairs).status_code for _ in range(2)] == [200, 200]
    monkeypatch.setattr(timezone, "now", lambda: until + timedelta(seconds=1))
    assert get(pairs).status_code == 401


def _sha256(signer: Signer, text: str) -> str:
    return base64.b64encode(hmac.digest(signer.keys.secret_key.encode(), text.encode(), hashlib.sha256)).decode()


@pytest.mark.parametrize(
    "forge",
    [
        lambda signer, text: "",
        lambda signer, text: sign(signer.keys.secret_key, text)[:-1],
        lambda signer, text: sign(signer.keys.secret_key, text)[:10],
        lambda signer, text: f"{sign(signer.keys.secret_key, text)}\u00e9",
        lambda signer, text: f" {sign(signer.keys.secret_key, text)}",
        lambda signer, text: f"{sign(signer.keys.secret_key, text)}====",
        lambda signer, text: sign(signer.keys.secret_key, text).swapcase(),
        lambda signer, text: sign(signer.keys.secret_key, text.upper()),
        _sha256,
        lambda signer, text: sign("", text),
        lambda signer, text: sign(signer.keys.api_key, text),
        lambda signer, text: sign(signer.keys.token, text),
        lambda signer, text: sign(signer.keys.secret_key, ""),
        lambda signer, text: "x" * 1_000_000,
    ],
)
def test_a_forged_signature_is_refused(user, forge):
    pairs = [("command", "listApis"), ("response", "json"), ("apiKey", user.keys.api_key)]
    pairs.append(("signature", forge(user, as_cs_signs(pairs))))
    answer = Client().post(ENDPOINT, urlencode(pairs), content_type=FORM)
    assert (answer.status_code, answer.json()["listapisresponse"]["errortext"]) == (401, REFUSED)


@pytest.mark.parametrize(
    "key", ["\0", "x\0", "x\n", "{}", "[]", "null", "true", "0", "%00", " ", "x" * 1_000_000, "é" * 86]
)
def test_what_is_no_key_lets_nobody_in(user, key):
    """VSA-2026-062 (Xen Orchestra): an empty object, taken for a token, matched a stored one."""
    pairs = [("command", "listApis"), ("response", "json"), ("apiKey", key), ("signature", "AAAA")]
    assert Client().post(ENDPOINT, urlencode(pairs), content_type=FORM).status_code in (401, 431)


@pytest.mark.parametrize("name", ["apikey[]", "apikey[0].key", "apikey.key", "apikey[$ne]"])
def test_a_key_in_another_shape_lets_nobody_in(user, name):
    pairs = [("command", "listApis"), ("response", "json"), (name, user.keys.api_key)]
    pairs.append(("signature", sign(user.keys.secret_key, as_cs_signs(pairs))))
    assert get(pairs).status_code in (401, 431)


# Parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pairs",
    [
        [("name", "x" * 4_000_000)],
        [(f"p{number}", "x") for number in range(10_000)],
        [("ids", "," * 1_000_000)],
        [("ids", ",".join(["7c1ff9ab-0000-4000-8000-000000000000"] * 501))],
        [("page", "-1"), ("pagesize", "10")],
        [("page", "1"), ("pagesize", "1000000000")],
        [("page", "9" * 4301), ("pagesize", "10")],
        [("page", "1"), ("pagesize", "\u0661")],
        [("id", "9" * 4301)],
        [("tags[999999999].key", "x" * 100_000)],
        [("x" * 256, "x")],
    ],
    ids=lambda pairs: f"{len(pairs)} {pairs[0][0][:20]}={pairs[0][1][:8]}",
)
def test_too_much_is_refused(user, pairs):
    """int() of 4301 digits raises; a list is bounded before it is asked of the database."""
    answer = Client().post(
        ENDPOINT, urlencode(signed(user, ("command", "listVirtualMachines"), *pairs)), content_type=FORM
    )
    assert answer.status_code == 431


@pytest.mark.parametrize("name", ["callback", "jsonp", "jsoncallback"])
def test_no_answer_is_a_script(user, name):
    answer = get(signed(user, ("command", "listApis"), (name, "alert")))
    assert answer["Content-Type"] == "application/json; charset=UTF-8"
    assert answer.content.startswith(b"{")


@pytest.mark.parametrize("character", ["\0", "\x01", "\x08", "\x1b", "\x7f"])
@pytest.mark.parametrize("response", ["json", "xml"])
def test_what_xml_cannot_hold_never_comes_in(user, character, response):
    vm = make_vm(user.user.account)
    pairs = [("command", "updateVirtualMachine"), ("id", str(vm.uuid)), ("displayname", f"a{character}b")]
    every = [*pairs, ("response", response), ("apiKey", user.keys.api_key)]
    answer = get([*every, ("signature", sign(user.keys.secret_key, as_cs_signs(every)))])
    assert answer.status_code == 431
    assert VirtualMachine.objects.get().display_name == vm.display_name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hypervisoruuid", "x"),
        ("instancename", "i-1-1-VM"),
        ("accountid", "1"),
        ("hostuuid", "x"),
        ("account__name", "x"),
        ("pk", "1"),
        ("uuid", "x"),
        ("ctxUserId", "1"),
        ("role", "1"),
    ],
)
def test_an_internal_name_is_refused(user, name, value):
    """CVE-2026-25199 (Apache CloudStack): a detail that users could set chose which VM was driven.

    CVE-2026-46448 (OpenStack): the API took what is the scheduler's alone. Here such a name is refused.
    """
    vm = make_vm(user.user.account)
    before = VirtualMachine.objects.values().get()
    answer = user.call("updateVirtualMachine", (name, value), id=vm.uuid, displayname="new")
    assert answer.status == 431
    assert VirtualMachine.objects.values().get() == before


@pytest.mark.parametrize("name", ["state", "details[0].x", "is_superuser", "isstaff", "state_since", "owner"])
def test_what_a_command_does_not_take_reaches_nothing(user, name):
    """Real clients send more than they should, so it is ignored, not refused."""
    vm = make_vm(user.user.account)
    before = VirtualMachine.objects.values().get()
    assert user.call("updateVirtualMachine", (name, "Running"), id=vm.uuid).status in (200, 431)
    assert VirtualMachine.objects.values().get() == before


# The pages for people -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "https://evil.example",
        "javascript:x",
    ],
)
def test_logging_in_leads_to_this_server_only(client, target):
    """OSSA-2021-002 (OpenStack Nova): an open redirect."""
    user = make_user()
    form = {"username": user.username, "password": "a long password", "next": target}
    assert client.post("/login/", form)["Location"] == "/"


@pytest.mark.parametrize("target", ["/x\r\nSet-Cookie: a=b", "/\0", f"/{'x' * 16_384}"])
def test_a_hostile_target_splits_no_header(client, target):
    user = make_user()
    answer = client.post("/login/", {"username": user.username, "password": "a long password", "next": target})
    assert "a" not in answer.cookies
    assert answer.get("Location", "/").isprintable()


@pytest.mark.parametrize("name", ["a\u2028b", "é\u202e", "x" * 600])
def test_the_header_that_describes_an_error_is_one_short_line(user, name):
    answer = user.raw(("command", "listZones"), ("response", "json"), ("id", name))
    assert answer.status_code == 431
    assert answer["X-Description"].isascii()
    assert answer["X-Description"].isprintable()
    assert len(answer["X-Description"]) <= 512


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_X_FORWARDED_USER": "admin", "REMOTE_USER": "admin"},
        {"HTTP_X_FORWARDED_HOST": "evil.example"},
        {"HTTP_X_FORWARDED_PROTO": "https"},
        {"HTTP_X_ORIGINAL_URL": "/admin/", "HTTP_X_REWRITE_URL": "/admin/"},
        {"HTTP_X_HTTP_METHOD_OVERRIDE": "DELETE"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_header_gives_no_rights(headers):
    """Django CVE-2026-3902: also spelt with underscores, which WSGI cannot tell apart."""
    answer = Client().get(ENDPOINT, {"command": "listZones", "response": "json"}, **headers)
    assert answer.status_code == 401
    page = Client().get("/", **headers)
    assert page["Location"] == "/login/?next=/"


@pytest.mark.parametrize(
    "path", ["/", "/login/", "/admin/", ENDPOINT, "/api/v1/vms", "/api/docs/", "/healthz", "/nothing"]
)
def test_every_answer_guards_itself(path):
    """No framing, no guessing of types, no inline script, nothing kept."""
    root = make_user(make_account(Role.ROOT_ADMIN), is_staff=True, is_superuser=True)
    for client in (Client(), Client()):
        answer = client.get(path, {"command": "listZones"} if path == ENDPOINT else None)
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
        assert "unsafe-inline" not in answer["Content-Security-Policy"]
        assert "no-store" in answer["Cache-Control"]
        client.force_login(root)
