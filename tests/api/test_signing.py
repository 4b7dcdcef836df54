"""Request signatures: published ones, every real client's spelling, and what must not match."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extdhcp_site.api.signing import Expired, canonical_forms, check_expiry, matches, sign

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

# The programmer guide's own example keys.
GUIDE_KEY = "plgWJfZK4gyS3mOMTVmjUVg-X-jlWlnfaUJ9GAbBbf9EdM-kAYMmAiLqzzq1ElZLYq_u38zCm0bewzGUdP66mg"
GUIDE_SECRET = "VDaACYb0LV9eNjTetIOElcVQkvJck_J_QljX_FcHRj87ZKiy0z0ty0ZsYBkoXkY9b7eq1EhwJaw7FF3akA3KBQ"

VECTORS = [
    (
        GUIDE_SECRET,
        [("apiKey", GUIDE_KEY), ("command", "listUsers"), ("response", "json")],
        "TTpdDq/7j/J58XCRHomKoQXEQds=",
    ),
    (
        "bar",
        [("apiKey", "foo"), ("command", "listVirtualMachines"), ("listall", "true"), ("response", "json")],
        "B0d6hBsZTcFVCiioSxzwKA9Pke8=",
    ),
    (
        "SKEY",
        [
            ("apiKey", "AKEY"),
            ("command", "listNics"),
            ("response", "json"),
            ("virtualmachineid", "11111111-2222-3333-4444-555555555555"),
        ],
        "Gw6DDtyUxMAF2Opg+zKIscfw+/c=",
    ),
    (
        "SKEY",
        [
            ("apiKey", "AKEY"),
            ("command", "updateVirtualMachine"),
            ("displayname", "Web Server 01 (prod) *~+/=&é"),
            ("id", "1"),
            ("response", "json"),
        ],
        "ga8B8eIBC5Fvckj/givYBOPPpFQ=",
    ),
    (
        "SKEY",
        [
            ("apiKey", "AKEY"),
            ("command", "listVirtualMachines"),
            ("expires", "2030-01-01T00:00:00+0000"),
            ("page", "1"),
            ("pagesize", "20"),
            ("response", "json"),
            ("signatureVersion", "3"),
            ("tags[0].key", "role"),
            ("tags[0].value", "db"),
        ],
        "p8CWC0vxgvt9X9+M0bbRDTawY7Q=",
    ),
]


@pytest.mark.parametrize(("secret", "pairs", "signature"), VECTORS)
def test_published_signatures_match(secret, pairs, signature):
    assert matches(secret, pairs, signature)
    assert matches(secret, [*reversed(pairs), ("signature", signature)], signature)


def _joined(pairs, safe, sort_key):
    return "&".join(f"{k}={quote(v, safe=safe)}" for k, v in sorted(pairs, key=sort_key)).lower()


def _cs(pairs):
    """cs, cmk and the Go SDK: names sorted as spelt, `*` and `~` literal."""
    return _joined(pairs, "*", lambda pair: pair[0])


def _libcloud(pairs):
    """libcloud: names sorted in lower case, brackets literal too."""
    return _joined(pairs, "*[]", lambda pair: pair[0].lower())


def _csclient(pairs):
    """csclient: RFC 3986, sorted by the whole text of name and value."""
    return "&".join(sorted(f"{k}={quote(v, safe='')}" for k, v in pairs)).lower()


def _java(pairs):
    """The documented client: java.net.URLEncoder, names sorted in lower case."""
    spelt = [(name, quote(value, safe="*").replace("~", "%7E")) for name, value in pairs]
    return "&".join(f"{k}={v}" for k, v in sorted(spelt, key=lambda pair: pair[0].lower())).lower()


CLIENTS = [_cs, _libcloud, _csclient, _java]
names = st.sampled_from(["command", "ID", "id2", "Page", "page2", "details[0].cpuNumber", "details[0].cpulimit", "a"])
requests = st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"])), min_size=1).map(
    lambda values: list(values.items())
)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
@given(pairs=requests)
def test_every_clients_spelling_matches(client, pairs):
    assert matches("secret", pairs, sign("secret", client(pairs)))


@given(one=requests, other=requests)
def test_no_two_requests_share_a_signature_unless_they_differ_in_letter_case_only(one, other):
    shared = set(canonical_forms(one)) & set(canonical_forms(other))
    assert not shared or _folded(one) == _folded(other)


def _folded(pairs):
    # As the bytes are signed: an encoded byte has no case, a letter of ASCII has.
    def lower(text: str) -> bytes:
        return bytes(ord(chr(b).lower()) if b < 128 else b for b in text.encode())

    return sorted((name.lower(), lower(value)) for name, value in pairs)


@pytest.mark.parametrize(
    "wrong", ["", "x", "B0d6hBsZTcFVCiioSxzwKA9Pke8", "B0d6hBsZTcFVCiioSxzwKA9Pke8= ", "é", "=" * 999]
)
def test_a_wrong_signature_does_not_match(wrong):
    assert not matches("bar", VECTORS[1][1], wrong)


def test_another_secret_does_not_match():
    assert not matches("baz", *VECTORS[1][1:])


@pytest.mark.parametrize("expires", ["2026-01-01T12:10:00+0000", "2026-01-01T12:10:00Z", "2026-01-02T12:00:00+00:00"])
def test_both_spellings_of_expires_are_read(expires):
    """cs and csclient write +0000, the Go SDK writes Z."""
    check_expiry("3", expires, NOON)


@pytest.mark.parametrize(
    "expires",
    [
        pytest.param("", id="missing"),
        pytest.param("2026-01-01T11:59:59+0000", id="past"),
        pytest.param("2026-01-01T12:00:00+0000", id="now"),
        pytest.param("2026-01-02T12:00:01+0000", id="more than a day ahead"),
        pytest.param("2026-01-01T12:10:00-0500", id="not UTC"),
        pytest.param("2026-13-01T12:10:00Z", id="no such month"),
        pytest.param("2026-01-01 12:10:00", id="no zone"),
        pytest.param("٢٠٢٦-01-01T12:10:00Z", id="digits that are not ASCII"),
        pytest.param("tomorrow", id="word"),
    ],
)
def test_a_bad_expires_is_refused(expires):
    with pytest.raises(Expired):
        check_expiry("3", expires, NOON)


def test_expires_counts_without_its_version_too():
    with pytest.raises(Expired):
        check_expiry("", "2026-01-01T11:00:00Z", NOON)


def test_no_expires_is_needed_without_version_three():
    """libcloud and cmk send none."""
    check_expiry("", "", NOON)
    check_expiry("2", "", NOON + timedelta(days=1))
