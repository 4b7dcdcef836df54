"""`POST /api/v1/leases/`: who may report, what is a report, and what it changes."""

import io
import json
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError, ValidationError

from ipfetch import planner, recording, webhook
from ipfetch.models import IpFetch, LeaseToken, Observation, create_lease_token
from ipfetch.schedule import Pace
from networks.hypervisors.base import GuestAddress, Source
from networks.models import AddressState, Network, Nic
from tests.console.worlds import client_of, make_root
from tests.factories import make_api_key, make_l2_network, make_network, make_running_vm, make_vm

pytestmark = pytest.mark.django_db
URL = "/api/v1/leases/"
IP = "192.0.2.120"


@pytest.fixture
def nic() -> Nic:
    """Of a running VM, waiting for its address."""
    return waiting_nic()


@pytest.fixture
def token(nic) -> str:
    return create_lease_token(nic.network, "dhcp-1")


@pytest.fixture(autouse=True)
def no_rate(monkeypatch):
    """Tests are quick."""
    monkeypatch.setattr(webhook, "MOST_A_SECOND", 10**9)


def waiting_nic(**fields) -> Nic:
    nic = make_running_vm(**fields).nics.get()
    planner.enter_missing(Pace.now(), timezone.now())
    return nic


def a_report(nic: Nic | None = None, /, **changes) -> dict[str, object]:
    return {"event": "add", "mac": nic.mac_address if nic else "06:00:00:00:00:01", "ip": IP, **changes}


def post(token: str, body: object, content_type: str = "application/json", **headers):
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if token:
        headers = {"Authorization": f"Bearer {token}", **headers}
    return client.post(URL, content, content_type=content_type, headers=headers)


def known(nic: Nic) -> tuple[str | None, str, str]:
    nic.refresh_from_db()
    return nic.ip4_address, nic.address_state, nic.address_source


NOTHING = (None, AddressState.UNKNOWN, "")
LEARNED = (IP, AddressState.CONFIRMED, "webhook")


class TestWhatAReportDoes:
    @pytest.mark.parametrize("event", ["add", "old"])
    def test_a_lease_is_the_nics_address_at_once(self, nic, token, event):
        response = post(token, a_report(nic, event=event, hostname="web-1", expires=_in(hours=1)))

        assert (response.status_code, response.json()) == (202, {"accepted": True})
        assert known(nic) == LEARNED
        assert IpFetch.objects.get(nic=nic).state == IpFetch.State.FOUND
        assert nic.observations.get().source == "webhook"

    def test_the_body_as_dnsmasq_script_sends_it(self, nic, token):
        """What the DHCP server does not know is empty, null, or 0 for never."""
        assert post(token, a_report(nic, hostname="", expires=0)).status_code == 202
        assert post(token, a_report(nic, hostname=None, expires=None)).status_code == 202
        assert known(nic) == LEARNED

    @pytest.mark.parametrize("spell", [str.upper, lambda mac: mac.replace(":", "-")])
    def test_a_mac_address_may_be_spelt_otherwise(self, nic, token, spell):
        post(token, a_report(nic, mac=spell(nic.mac_address)))
        assert known(nic) == LEARNED

    def test_a_mac_address_without_leading_zeros(self, token, nic):
        """As dhcpd's binary-to-ascii writes it."""
        Nic.objects.filter(pk=nic.pk).update(mac_address="06:0a:00:00:01:10")
        post(token, a_report(mac="6:a:0:0:1:10"))
        assert known(nic) == LEARNED

    def test_a_replay_changes_nothing(self, nic, token):
        for _ in range(3):
            assert post(token, a_report(nic)).status_code == 202
        assert known(nic) == LEARNED
        assert nic.observations.count() == 1

    def test_an_address_that_is_gone_becomes_the_last_known_one(self, nic, token):
        post(token, a_report(nic))
        for _ in range(2):
            assert post(token, a_report(nic, event="del", expires=1)).status_code == 202
        assert known(nic) == (IP, AddressState.LAST_KNOWN, "webhook")
        assert nic.observations.get().ended_at is not None

    def test_another_address_that_is_gone_changes_nothing(self, nic, token):
        post(token, a_report(nic))
        post(token, a_report(nic, event="del", ip="192.0.2.121"))
        assert known(nic) == LEARNED

    def test_a_new_lease_is_followed(self, nic, token):
        post(token, a_report(nic, ip="192.0.2.121"))
        post(token, a_report(nic, event="del", ip="192.0.2.121"))
        post(token, a_report(nic))
        assert known(nic) == LEARNED

    def test_a_report_that_comes_late_does_not_take_the_newer_ones_place(self, nic, token):
        """The scripts run one beside the other, and curl tries again."""
        post(token, a_report(nic, expires=_in(hours=2)))
        assert post(token, a_report(nic, event="old", ip="192.0.2.121", expires=_in(hours=1))).status_code == 202
        assert known(nic) == LEARNED

    def test_a_lease_that_ends_later_is_the_newer_one(self, nic, token):
        post(token, a_report(nic, ip="192.0.2.121", expires=_in(hours=1)))
        post(token, a_report(nic, expires=_in(hours=2)))
        assert known(nic) == LEARNED

    def test_what_says_no_end_is_the_newer_one(self, nic, token):
        post(token, a_report(nic, ip="192.0.2.121", expires=_in(hours=1)))
        post(token, a_report(nic))
        assert known(nic) == LEARNED

    def test_families_are_apart(self, nic, token):
        post(token, a_report(nic, ip="2001:db8::17", expires=_in(hours=2)))
        post(token, a_report(nic, expires=_in(hours=1)))
        assert known(nic) == LEARNED

    def test_a_lease_that_has_ended_leaves_the_last_known_address(self, nic, token):
        post(token, a_report(nic, expires=_in(hours=1)))
        self.later(hours=1.9)
        assert known(nic) == LEARNED
        self.later(hours=2.1)
        assert known(nic) == (IP, AddressState.LAST_KNOWN, "webhook")

    def test_a_renewal_puts_the_end_off(self, nic, token):
        post(token, a_report(nic, expires=_in(hours=1)))
        post(token, a_report(nic, event="old", expires=_in(hours=2)))
        self.later(hours=2.1)
        assert known(nic) == LEARNED

    @pytest.mark.parametrize("expires", [{}, {"expires": None}, {"expires": 0}])
    def test_a_lease_that_says_no_end_has_none(self, nic, token, expires):
        post(token, a_report(nic, expires=_in(hours=1)))
        post(token, a_report(nic, **expires))
        self.later(hours=24 * 365)
        assert known(nic) == LEARNED

    def later(self, **duration: float) -> None:
        recording.withdraw_ended(timezone.now() + timedelta(**duration))

    def test_ipv6_leases_are_taken_too(self, nic, token):
        post(token, a_report(nic, ip="2001:DB8::0:17"))
        nic.refresh_from_db()
        assert nic.ip6_address == "2001:db8::17"

    def test_a_network_without_a_cidr_takes_any_address(self):
        nic = waiting_nic(networks=[make_l2_network()])
        post(create_lease_token(nic.network, "x"), a_report(nic, ip="203.0.113.7"))
        assert known(nic)[0] == "203.0.113.7"

    def test_what_the_guest_itself_has_said_is_never_overridden(self, nic, token):
        """It is asked again at once instead."""
        now = timezone.now()
        own = GuestAddress(nic.mac_address, ip_address("192.0.2.50"), Source.GUEST_AGENT)
        recording.report(Source.GUEST_AGENT, {nic.pk: [own]}, now)
        later = IpFetch.objects.get(nic=nic).next_attempt_at
        assert later is None or later > now

        assert post(token, a_report(nic)).status_code == 202
        assert known(nic) == ("192.0.2.50", AddressState.CONFIRMED, "agent")
        assert IpFetch.objects.get(nic=nic).next_attempt_at <= timezone.now()
        assert post(token, a_report(nic, event="del")).status_code == 202
        assert known(nic) == ("192.0.2.50", AddressState.CONFIRMED, "agent")


class TestWhoseNicItIs:
    def test_a_nic_of_another_network_answers_like_one_that_does_not_exist(self, nic, token):
        other = waiting_nic()
        answers = [post(token, a_report(mac=mac)) for mac in (nic.mac_address, other.mac_address, "06:0:0:0:0:1")]

        assert len({(answer.status_code, answer.content, str(sorted(answer.items()))) for answer in answers}) == 1
        assert known(other) == NOTHING
        assert not Observation.objects.filter(nic=other).exists()

    def test_no_more_is_done_for_a_nic_of_another_network(self, token, django_assert_num_queries):
        other = waiting_nic()
        for mac in ("06:00:00:00:00:01", other.mac_address):
            post(token, a_report(mac=mac))  # the token's use is noted once
            with django_assert_num_queries(2):
                post(token, a_report(mac=mac))

    def test_a_stopped_vm_gets_no_address(self, token, nic):
        stopped = make_vm(networks=[nic.network]).nics.get()
        assert post(token, a_report(stopped)).status_code == 202
        assert known(stopped) == NOTHING


class TestWhoMayReport:
    @pytest.mark.parametrize("wrong", ["", "x", "x" * 64, "{}", "null", "x" * 100_000, "é", "' OR 1=1 --", "[]"])
    def test_without_a_token_nothing_is_taken(self, nic, token, wrong):
        response = post(wrong, a_report(nic))
        assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="extdhcp leases"')
        assert known(nic) == NOTHING

    @pytest.mark.parametrize("wrong", ["x" * 63, "x" * 65, "x" * 63 + ".", "{}"])
    def test_what_is_no_token_is_not_looked_up(self, wrong, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert post(wrong, a_report()).status_code == 401

    @pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "A", str.swapcase, lambda t: t[1:] + t[:1]])
    def test_a_token_that_is_almost_right_is_wrong(self, nic, token, change):
        assert post(change(token), a_report(nic)).status_code == 401

    def test_the_stored_hash_is_no_token(self, token):
        assert post(LeaseToken.objects.get().token_hash, a_report()).status_code == 401

    def test_a_disabled_token_lets_nobody_in(self, nic, token):
        LeaseToken.objects.update(disabled_at=timezone.now())
        assert post(token, a_report(nic)).status_code == 401

    def test_an_api_keys_token_does_not_work_here(self, nic):
        user = make_root()
        keys = make_api_key(user)
        for secret in (keys.token, keys.api_key, keys.secret_key):
            assert post(secret, a_report(nic)).status_code == 401

    def test_a_session_does_not_work_here(self, nic):
        assert client_of(make_root()).post(URL, a_report(nic), content_type="application/json").status_code == 401

    def test_a_lease_token_works_nowhere_else(self, token):
        for path in ("vms/", "nics/", "events/", ""):
            response = Client().get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == 401
        assert (
            Client().get("/client/api", {"command": "listNics", "apikey": token, "signature": "x"}).status_code == 401
        )

    @pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
    def test_there_is_nothing_but_posting(self, token, method):
        call = getattr(Client(), method)
        assert call(URL).status_code == 401
        assert call(URL, headers={"Authorization": f"Bearer {token}"}).status_code == 405

    def test_a_token_in_the_url_or_the_body_is_none(self, nic, token):
        client = Client()
        assert client.post(f"{URL}?token={token}", a_report(nic), content_type="application/json").status_code == 401
        assert post("", a_report(nic, token=token)).status_code == 401

    def test_its_use_is_noted_once_a_minute(self, nic, token, monkeypatch):
        noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
        noted = []
        for second in (0, 59, 61):
            monkeypatch.setattr(webhook.timezone, "now", lambda second=second: noon + timedelta(seconds=second))
            post(token, a_report(nic))
            noted.append(LeaseToken.objects.get().last_used_at)
        assert noted == [noon, noon, noon + timedelta(seconds=61)]


class TestHowMuch:
    def test_more_reports_in_a_second_than_allowed_are_told_to_wait(self, nic, token, monkeypatch):
        monkeypatch.setattr(webhook, "MOST_A_SECOND", 3)
        monkeypatch.setattr(webhook.time, "time", lambda: 1000.5)
        other = create_lease_token(nic.network, "another")

        assert [post(token, a_report()).status_code for _ in range(3)] == [202] * 3
        refused = post(token, a_report())
        assert (refused.status_code, refused["Retry-After"]) == (429, "1")
        assert post(other, a_report()).status_code == 202
        monkeypatch.setattr(webhook.time, "time", lambda: 1001.0)
        assert post(token, a_report()).status_code == 202

    def test_a_cache_that_keeps_nothing_refuses_nobody(self, token, settings):
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
        assert post(token, a_report()).status_code == 202

    def test_a_large_body_is_refused(self, nic, token):
        padded = json.dumps(a_report(nic)).encode()
        assert post(token, padded.ljust(4096)).status_code == 202
        assert post(token, padded.ljust(4097)).status_code == 413
        assert post(token, b" " * 10_000_000).status_code == 413

    @pytest.mark.parametrize(
        "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
    )
    def test_only_json_is_read(self, nic, token, media_type):
        assert post(token, a_report(nic), content_type=media_type).status_code == 415


BAD_BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"add"',
    b"1e999",
    b"{}",
    b"\xff\xfe{\x00}\x00",
    json.dumps(a_report()).encode("utf-16"),
    json.dumps(a_report()).encode("utf-8-sig"),
    json.dumps(a_report()).encode().replace(b'"add"', b'"\xff"'),
    b'{"event": "add", "event": "del", "mac": "06:00:00:00:00:01", "ip": "192.0.2.120"}',
    b'{"event": "add", "mac": "06:00:00:00:00:01", "ip": "192.0.2.120", "expires": NaN}',
    b'{"event": "add", "mac": "06:00:00:00:00:01", "ip": "192.0.2.120", "expires": ' + b"9" * 3900 + b"9.5}",
    b"[" * 4000,
    b'{"a":' * 800,
]
BAD_FIELDS = [
    *({"event": event} for event in ("", "ADD", "init", "tftp", "\ud800", None, 1, True, ["add"], {})),
    *({"mac": mac} for mac in ("", "x", "06:00:00:00:00", "06:00:00:00:00:01:02", "06:00:00-00:00:01", 1, None, [])),
    *(
        {"mac": mac}
        for mac in ("06:00:00:00:00:0g", "060000000001", "\u06606:00:00:00:00:01", "06:00:00:00:00:01\n", True)
    ),
    *({"ip": ip} for ip in ("", "192.0.2", "192.0.2.007", "192.0.2.1/24", "fe80::1%eth0", 3221225985, None, [], {})),
    *({"ip": ip} for ip in ("192.0.2.1\n", "\u066192.0.2.1", "x" * 4000)),
    *({"hostname": hostname} for hostname in (1, True, [], {}, "x" * 256, "a\0b", "\ud800")),
    *({"expires": expires} for expires in ("", "1795282753", "tomorrow", "2026-11-21T17:30:00.5", True, 1.5, [], {})),
    *({name: "x"} for name in ("expire", "network", "nic", "id", "\ud800", "x" * 3000)),
]
IMPOSSIBLE = [
    *({"ip": ip} for ip in ("198.51.100.7", "192.0.2.1", "192.0.2.0", "192.0.2.255", "0.0.0.0", "255.255.255.255")),
    *({"ip": ip} for ip in ("169.254.7.7", "127.0.0.1", "224.0.0.1", "240.0.0.1", "fe80::1", "::1", "ff02::1", "::")),
    {"ip": "::ffff:192.0.2.120"},
    *({"expires": expires} for expires in (1, -1, -(2**63), 2**40, 2**63, 10**300)),
    *(
        {"expires": expires}
        for expires in ("2001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59")
    ),
]


class TestWhatIsNoReport:
    @pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
    def test_bodies(self, token, body):
        response = post(token, body)
        assert response.status_code == 400, response.content
        assert response.json()

    @pytest.mark.parametrize("changes", BAD_FIELDS, ids=lambda changes: ascii(changes)[:30])
    def test_fields(self, nic, token, changes):
        response = post(token, a_report(nic, **changes))
        assert response.status_code == 400, response.content
        assert known(nic) == NOTHING

    @pytest.mark.parametrize("missing", ["event", "mac", "ip"])
    def test_what_is_missing_is_named(self, token, missing):
        report = a_report()
        del report[missing]
        assert post(token, report).json()["detail"] == f"{missing}: This field is required."

    @pytest.mark.parametrize("changes", IMPOSSIBLE, ids=lambda changes: ascii(changes)[:40])
    def test_leases_that_cannot_be(self, nic, token, changes):
        response = post(token, a_report(nic, **changes))
        assert response.status_code == 422, response.content
        assert response.json()["detail"].startswith(next(iter(changes)))
        assert known(nic) == NOTHING

    @pytest.mark.parametrize("hours", [-0.9, 0, 1, 24 * 365 * 100])
    def test_leases_that_can_be(self, nic, token, hours):
        """Also when the DHCP server's clock is almost an hour behind."""
        assert post(token, a_report(nic, expires=_in(hours=hours))).status_code == 202
        assert (
            post(token, a_report(nic, expires=(timezone.now() + timedelta(hours=hours)).isoformat())).status_code == 202
        )
        assert known(nic) == LEARNED


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
        st.sampled_from([IP, "fe80::1", "add", "06:00:00:00:00:01", "2026-11-21T17:30:00Z"]), st.datetimes().map(str),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
reports = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["event", "mac", "ip", "hostname", "expires", "x"], values)
) | st.fixed_dictionaries(
    {"event": st.just("add"), "mac": st.just("06:00:00:00:00:01"), "ip": st.ip_addresses().map(str)},
    optional={"hostname": values, "expires": values | st.datetimes(timezones=st.timezones()).map(str)},
)


class TestAnything:
    @given(body=st.one_of(st.binary(max_size=200), reports.map(lambda report: json.dumps(report).encode())))
    def test_any_body_is_a_report_or_refused_in_words(self, body):
        network = Network(cidr="192.0.2.0/24", gateway="192.0.2.1")
        try:
            report = webhook.ReportSerializer(data=webhook.parse_object(body))
            report.is_valid(raise_exception=True)
            found = report.validated_data
            lease = GuestAddress(found["mac"], found["ip"], Source.WEBHOOK, expires=found.get("expires"))
            webhook.check_lease(lease, network, timezone.now())
        except (ParseError, ValidationError, webhook.Impossible) as refusal:
            json.dumps(refusal.detail, ensure_ascii=False).encode()
        else:
            assert found["event"] in ("add", "old", "del")
            assert lease.ip.version == 6 or lease.ip in network.ip4_network


class TestTokens:
    def made(self, *words: str) -> dict[str, str]:
        out = io.StringIO()
        call_command("create_lease_token", *words, "--json", stdout=out, stderr=io.StringIO())
        return json.loads(out.getvalue())

    def test_the_command_shows_a_token_that_works(self, nic):
        made = self.made(nic.network.name, "--name", "dhcp-1")
        assert (made["networkid"], made["name"]) == (str(nic.network.uuid), "dhcp-1")
        assert post(made["token"], a_report(nic)).status_code == 202
        assert known(nic) == LEARNED

    def test_without_json_it_stands_alone_on_stdout(self, nic, capsys):
        call_command("create_lease_token", str(nic.network.uuid))
        word, token = capsys.readouterr().out.split()
        assert word == "token"
        assert post(token, a_report(nic)).status_code == 202

    def test_a_name_that_two_networks_have_is_asked_back(self):
        first = make_network(name="office")
        make_network(name="office")
        with pytest.raises(CommandError, match="Several zones"):
            self.made("office")
        assert self.made(str(first.uuid))["networkid"] == str(first.uuid)

    @pytest.mark.parametrize("words", [["nowhere"], ["7c1ff9ab-0000-4000-8000-000000000000"]])
    def test_a_network_that_there_is_not(self, words):
        with pytest.raises(CommandError, match="There is no network"):
            self.made(*words)
        assert not LeaseToken.objects.exists()

    @pytest.mark.parametrize("name", ["", "x" * 101])
    def test_a_name_has_a_length(self, nic, name):
        with pytest.raises(CommandError, match="1 to 100"):
            self.made(nic.network.name, "--name", name)

    def test_the_admin_shows_a_new_token_once(self, nic):
        client = client_of(make_root())
        page = client.post(
            reverse("admin:ipfetch_leasetoken_add"), {"network": nic.network.pk, "name": "<b>dhcp</b>"}, follow=True
        )
        token = page.context["token"]
        assert page.text.count(token) == 1
        assert "<b>dhcp</b>" not in page.text
        assert "no-store" in page["Cache-Control"]
        assert not any(token in cookie.value for cookie in client.cookies.values())
        assert post(token, a_report(nic)).status_code == 202
        row = LeaseToken.objects.get()
        for name, args in (("change", [row.pk]), ("changelist", []), ("history", [row.pk])):
            shown = client.get(reverse(f"admin:ipfetch_leasetoken_{name}", args=args)).text
            assert token not in shown
            assert row.token_hash not in shown

    def test_the_admin_changes_its_name_and_nothing_else(self, nic, token):
        row, other = LeaseToken.objects.get(), make_network()
        client = client_of(make_root())
        page = reverse("admin:ipfetch_leasetoken_change", args=[row.pk])
        client.post(page, {"name": "renamed", "network": other.pk, "token_hash": "x", "disabled_at": ""})
        row.refresh_from_db()
        assert (row.name, row.network) == ("renamed", nic.network)
        assert post(token, a_report(nic)).status_code == 202

    def test_the_admin_disables_it(self, nic, token):
        client = client_of(make_root())
        row = LeaseToken.objects.get()
        client.post(reverse("admin:ipfetch_leasetoken_changelist"), {"action": "disable", "_selected_action": row.pk})
        assert post(token, a_report(nic)).status_code == 401

    def test_a_network_takes_its_tokens_along(self, token, nic):
        nic.vm.delete()
        nic.network.delete()
        assert post(token, a_report()).status_code == 401


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_the_script_of_the_documents_reports(live_server, tmp_path):
    """As dnsmasq runs it. The same was seen with dnsmasq 2.90 and ISC dhcpd 4.4.3 themselves."""
    page = (Path(__file__).parents[2] / "docs" / "leases.md").read_text()
    [script] = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", page, re.DOTALL)
    nic = waiting_nic()
    configuration = tmp_path / "report-lease.conf"
    token = create_lease_token(nic.network, "dhcp-1")
    configuration.write_text(f'url = "{live_server.url}{URL}"\nheader = "Authorization: Bearer {token}"\n')

    def run(*arguments: str, **environment: str) -> None:
        environment = {"PATH": os.environ["PATH"], "REPORT_LEASE_CONF": str(configuration), **environment}
        subprocess.run(["sh", "-euc", script, "report-lease", *arguments], env=environment, check=True, timeout=30)

    run("tftp", "0", "192.0.2.7", "file")
    run("add", nic.mac_address, IP, "web-1", DNSMASQ_LEASE_EXPIRES=str(_in(hours=1)))
    assert known(nic) == LEARNED
    run("add", "00:01:00:01:32", "2001:db8::17", DNSMASQ_LEASE_EXPIRES="0", DNSMASQ_MAC=nic.mac_address)
    nic.refresh_from_db()
    assert nic.ip6_address == "2001:db8::17"
    run("del", nic.mac_address, IP, DNSMASQ_LEASE_EXPIRES="1")
    assert known(nic)[1] == AddressState.LAST_KNOWN


def test_it_stands_in_the_openapi_document():
    browser = client_of(make_root())
    schema = browser.get("/api/schema/", {"format": "json"}).json()
    described = schema["paths"][URL]["post"]
    assert described["security"] == [{"leaseToken": []}]
    content = described["requestBody"]["content"]["application/json"]
    assert content["examples"]
    fields = schema["components"]["schemas"]["Report"]
    assert fields["required"] == ["event", "ip", "mac"]
    assert set(described["responses"]) == {"202", "400", "401", "413", "415", "422", "429"}


def _in(**duration: float) -> int:
    return int((timezone.now() + timedelta(**duration)).timestamp())
