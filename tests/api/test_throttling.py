"""Who asks too much, and who is wrong too often."""

import pytest
from django.test import Client, RequestFactory

from extdhcp_site.api import throttling
from extdhcp_site.api.throttling import Buckets, Failures, peer_of
from extdhcp_site.environment import ip_network
from extdhcp_site.errors import TooManyRequests
from tests.api.client import ENDPOINT, Signer, as_cs_signs, reply_of, send
from tests.api.client import sign as signature_of

pytestmark = pytest.mark.django_db


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def strict(root, settings) -> None:
    """Two calls in a thousand seconds."""
    settings.WEB_PROCESSES = 1
    for name, value in (("api.throttling.interval", 1000), ("api.throttling.max", 2)):
        assert root.call("updateConfiguration", name=name, value=value).status == 200
    throttling.read_limits()
    yield
    throttling._limits = throttling.Limits(True, 10, 6000)


def test_an_account_that_asks_too_much_is_told_when_to_come_back(strict, user):
    """Rule 4: 429, as CloudStack says it."""
    answers = [user.raw(("command", "listApis"), ("response", "json")) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2]["Retry-After"] == "500"
    told = reply_of(answers[2])
    assert (told.key, told.body["cserrorcode"]) == ("listapisresponse", 4545)


def test_a_second_key_of_the_account_gives_no_second_limit(strict, user):
    other = Signer.of(user.user.account)
    statuses = [signer.call("listApis").status for signer in (user, other, user, other)]
    assert statuses == [200, 200, 429, 429]


def test_another_account_is_not_concerned(strict, user, domain_admin):
    for _ in range(3):
        user.call("listApis")
    assert domain_admin.call("listApis").status == 200


def test_rest_counts_for_the_same_limit(strict, user):
    token = {"authorization": f"Bearer {user.keys.token}"}
    answers = [Client().get("/api/v1/vms", headers=token, follow=True) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2]["Retry-After"] == "500"
    assert user.call("listApis").status == 429


def test_the_limit_can_be_switched_off(strict, root, user, settings):
    throttling.forget()
    assert root.call("updateConfiguration", name="api.throttling.enabled", value="false").status == 200
    throttling.read_limits()
    assert {user.call("listApis").status for _ in range(5)} == {200}


def test_a_changed_limit_is_noticed_when_a_keys_use_is_noted(root, user):
    root.call("updateConfiguration", name="api.throttling.max", value=7)
    user.call("listApis")
    assert throttling._limits.most == 7
    throttling._limits = throttling.Limits(True, 10, 6000)


def test_tokens_come_back_with_time():
    clock = Clock()
    buckets = Buckets(clock)
    assert [buckets.take("key", 2, 0.5) for _ in range(3)] == [0, 0, 2]
    clock.now += 2
    assert [buckets.take("key", 2, 0.5) for _ in range(2)] == [0, 2]
    clock.now += 1000
    assert [buckets.take("key", 2, 0.5) for _ in range(3)] == [0, 0, 2]


def test_a_flood_of_names_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(throttling, "MOST_KEYS", 10)
    buckets = Buckets()
    for number in range(100):
        buckets.take(number, 1, 1)
    assert len(buckets._levels) == 10


def test_each_process_allows_its_share(settings):
    settings.WEB_PROCESSES = 4
    failures = Failures("no", each=8, peer=100, seconds=60)
    failures.spend("ann", "192.0.2.1")
    failures.spend("ann", "192.0.2.1")
    with pytest.raises(TooManyRequests):
        failures.spend("ann", "192.0.2.1")


# Wrong signatures ---------------------------------------------------------------------------------


def wrong(key: str, peer: str = "192.0.2.1"):
    given = {"command": "listApis", "response": "json", "apiKey": key, "signature": "AAAA"}
    return Client(REMOTE_ADDR=peer).get(ENDPOINT, given)


def test_a_flood_of_wrong_signatures_for_one_key_is_slowed(user):
    answers = [wrong(user.keys.api_key) for _ in range(60)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert int(answers[-1]["Retry-After"]) >= 1


def test_a_flood_of_many_keys_from_one_address_is_slowed(db, settings):
    settings.WEB_PROCESSES = 10
    statuses = [wrong(f"key-{number}").status_code for number in range(110)]
    assert (statuses[0], statuses[-1]) == (401, 429)


@pytest.mark.parametrize("peer", ["192.0.2.1", "198.51.100.7"])
def test_nobody_is_locked_out_by_a_flood_with_their_key(user, peer):
    """Neither from elsewhere nor from behind the same proxy."""
    for _ in range(60):
        wrong(user.keys.api_key)
    pairs = [("command", "listApis"), ("response", "json"), ("apiKey", user.keys.api_key)]
    signed = {**dict(pairs), "signature": signature_of(user.keys.secret_key, as_cs_signs(pairs))}
    assert Client(REMOTE_ADDR=peer).get(ENDPOINT, signed).status_code == 200


def test_who_is_refused_too_often_is_refused_elsewhere_as_before(user):
    for _ in range(60):
        wrong(user.keys.api_key)
    assert wrong(user.keys.api_key, "198.51.100.7").status_code == 401


def test_a_request_without_anything_counts_too(settings):
    settings.WEB_PROCESSES = 100
    statuses = [send([("command", "listApis"), ("response", "json")]).status_code for _ in range(5)]
    assert (statuses[0], statuses[-1]) == (401, 429)


# Who is at the other end --------------------------------------------------------------------------


def request(peer: str, *forwarded: str, **others: str):
    headers = {"HTTP_X_FORWARDED_FOR": ", ".join(forwarded)} if forwarded else {}
    return RequestFactory().get("/", REMOTE_ADDR=peer, **headers, **others)


@pytest.mark.parametrize("forwarded", [[], ["203.0.113.9"], ["203.0.113.9", "127.0.0.1", "203.0.113.8"]])
def test_nobody_says_who_they_are_unless_we_trust_them(forwarded):
    """CVE-2024-29006 (Apache CloudStack): X-Forwarded-For was believed by default."""
    asked = request("192.0.2.1", *forwarded, HTTP_X_REAL_IP="203.0.113.7", HTTP_FORWARDED="for=203.0.113.7")
    assert peer_of(asked) == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "peer"),
    [
        ([], "10.0.0.1"),
        (["203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        (["203.0.113.8", "203.0.113.9", "10.0.0.2"], "203.0.113.9"),
    ],
)
def test_a_trusted_proxy_is_believed_what_it_saw_itself(settings, forwarded, peer):
    """What stands left of the last foreign address was written by the client."""
    settings.TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]
    assert peer_of(request("10.0.0.1", *forwarded)) == peer


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("nonsense" * 20, ("nonsense" * 20)[:45]),
    ],
)
def test_one_customers_addresses_are_one_peer(address, peer):
    assert peer_of(request(address)) == peer
