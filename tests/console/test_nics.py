"""The list of NICs: what it opens on, why addresses are missing, how it is narrowed, and who sees what."""

import csv
import html
import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.configuration.models import Setting
from ipfetch.console.nics import REASONS, missing
from ipfetch.console.words import words_for
from ipfetch.models import Flag, IpFetch, Outcome
from networks.models import AddressState, Nic, VirtualMachine
from tests import factories
from tests.console.worlds import client_of, make_ip_fetch, make_observation, make_root

pytestmark = pytest.mark.django_db
XSS = "<script>alert(1)</script>"
State = IpFetch.State


@pytest.fixture
def root():
    return client_of(make_root())


def found(vm: VirtualMachine | None = None, address: str = "192.0.2.131", **fields) -> IpFetch:
    now = timezone.now()
    known = {"state": State.FOUND, "next_attempt_at": None, "last_outcome": Outcome.FOUND, "found_at": now}
    row = make_ip_fetch(vm, **{**known, **fields})
    confirmed = {"address_state": AddressState.CONFIRMED, "address_source": "agent", "address_seen_at": now}
    Nic.objects.filter(pk=row.nic_id).update(ip4_address=address, **confirmed)
    return row


def page_of(client, **query) -> str:
    return " ".join(client.get("/nics/", query).text.split())


def names(client, **query) -> list[str]:
    """The VMs' names, in the order of the list."""
    response = client.get("/nics/", {**query, "export": "csv"})
    assert response.status_code == 200, response.text
    return [row["VM"] for row in csv.DictReader(b"".join(response.streaming_content).decode().splitlines())]


def test_it_opens_on_those_not_found(root):
    found(factories.make_running_vm(name="known"))
    factories.make_vm(name="asleep")
    for state in (State.WAITING, State.EXHAUSTED, State.PAUSED):
        make_ip_fetch(factories.make_running_vm(name=f"is-{state}"), state=state)

    assert sorted(names(root)) == ["is-exhausted", "is-paused", "is-waiting"]
    assert sorted(names(root, state="all")) == ["asleep", "is-exhausted", "is-paused", "is-waiting", "known"]
    assert names(root, state="found") == ["known"]
    assert names(root, state="off") == ["asleep"]
    assert names(root, state="paused") == ["is-paused"]


def test_on_a_good_day_it_says_so(root):
    found()

    assert "Every NIC that is to have an address has one." in page_of(root)


def test_by_reason_and_of_each_the_oldest_first(root):
    now = timezone.now()
    for name, outcome, minutes in (
        ("no-agent-young", Outcome.AGENT_ABSENT, 1),
        ("no-address", Outcome.NONE_YET, 90),
        ("no-agent-old", Outcome.AGENT_ABSENT, 60),
        ("no-host", Outcome.HOST_UNREACHABLE, 1),
        ("new", "", 1),
    ):
        row = make_ip_fetch(factories.make_running_vm(name=name), last_outcome=outcome)
        IpFetch.objects.filter(pk=row.pk).update(entered_at=now - timedelta(minutes=minutes))

    assert names(root) == ["no-host", "no-agent-old", "no-agent-young", "no-address", "new"]
    page = page_of(root)
    headings = ["The host does not answer</th>", "No guest agent answers in the VM</th>", "Not tried yet</th>"]
    assert [page.count(heading) for heading in headings] == [1, 1, 1]


@pytest.mark.parametrize("outcome", REASONS)
def test_each_outcome_in_words_with_what_to_do(root, outcome):
    make_ip_fetch(last_outcome=outcome, retries_left=7, tries=3)

    page = html.unescape(page_of(root))

    assert f"<b>{outcome.label}.</b> {outcome.advice.removeprefix(outcome.label + '. ')}" in page
    assert "Next try now · 7 tries left · 3 made" in page


def test_what_works_is_said_too(root):
    vm = factories.make_running_vm(host=factories.make_host(name="kvm-2"))
    make_ip_fetch(vm, entered_at=timezone.now() - timedelta(minutes=4))
    four_minutes_ago = timezone.now() - timedelta(minutes=4, seconds=1)
    VirtualMachine.objects.update(state_since=four_minutes_ago, guest_seen_at=timezone.now() - timedelta(seconds=20))

    page = page_of(root)

    assert "Running on kvm-2 for 4 min" in page
    assert "Its guest has booted, and was seen 20 s ago." in page


def test_the_next_try_is_counted_down_to(root):
    make_ip_fetch(next_attempt_at=timezone.now() + timedelta(seconds=42.9))

    assert 'class="countdown"' in page_of(root)
    assert "in 42 s</time>" in page_of(root)


def test_an_endpoint_that_is_left_alone_puts_the_next_try_off(root):
    row = make_ip_fetch(next_attempt_at=timezone.now())
    endpoint = row.nic.vm.host.endpoint
    endpoint.retry_at = timezone.now() + timedelta(seconds=42.9)
    endpoint.save()

    assert "in 42 s</time>" in page_of(root)
    Setting.objects.create(name="externaldhcp.vmip.early.retry", value="false")
    assert "Next try now" in page_of(root)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (State.EXHAUSTED, "14 tries made, none left. A start or reboot of the VM begins anew."),
        (State.PAUSED, "Nobody asks for it until somebody resumes that, or the VM starts anew."),
    ],
)
def test_one_that_is_not_asked_any_more_says_what_begins_anew(root, state, says):
    make_ip_fetch(state=state, next_attempt_at=None, retries_left=0, tries=14)

    assert says in page_of(root)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"state": "Stopped"}, "The address is asked for once the VM runs."),
        ({"state": "Error", "error_text": "No host has room for it."}, "No host has room for it."),
        ({"state": "Running"}, "It joins the queue within a minute."),
    ],
)
def test_one_that_is_not_in_the_queue_says_why(root, fields, says):
    factories.make_vm(**fields)

    assert says in page_of(root, state="all")


def test_no_cell_is_empty(root):
    make_ip_fetch(last_outcome="")
    found()
    factories.make_vm()

    assert not re.search(r"<td[^>]*>\s*</td>", root.get("/nics/", {"state": "all"}).text)


def test_an_address_that_is_known_with_who_told_it_and_how_long_it_took(root):
    found(entered_at=timezone.now() - timedelta(seconds=65.5))

    page = page_of(root, state="found")

    assert "<code>192.0.2.131</code>" in page
    assert "agent, seen 0 s ago <small>took 1 min 5 s</small>" in page
    assert 'data-copy="192.0.2.131"' in page


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (AddressState.UNCONFIRMED, "Unconfirmed"),
        (AddressState.PINNED, "Set by hand"),
        (AddressState.LAST_KNOWN, "Last known"),
    ],
)
def test_how_far_an_address_can_be_believed(root, state, says):
    row = found()
    assert says not in page_of(root, state="found")

    Nic.objects.filter(pk=row.nic_id).update(address_state=state)

    assert says in page_of(root, state="found")


def test_a_conflict_and_an_address_of_elsewhere_are_shown(root):
    nic = found().nic
    Nic.objects.update(secondary_addresses=["192.0.2.140", "2001:db8::1"])
    make_observation(nic, address="192.0.2.131", flag=Flag.CONFLICT)
    make_observation(nic, address="198.51.100.9", flag=Flag.OUTSIDE)
    make_observation(nic, address="198.51.100.10", flag=Flag.OUTSIDE, ended_at=timezone.now())

    page = page_of(root, state="found")

    assert "Another NIC of the network has <code>192.0.2.131</code> too." in page
    assert "<code>198.51.100.9</code> is no address for guests of 192.0.2.0/24." in page
    assert "also <code>192.0.2.140</code>, <code>2001:db8::1</code>" in page
    assert "198.51.100.10" not in page


def test_what_the_outcome_tells_is_not_told_twice(root):
    detail = "It has 198.51.100.9, which is outside 192.0.2.0/24."
    row = make_ip_fetch(last_outcome=Outcome.NONE_YET, last_detail=detail)
    make_observation(row.nic, address="198.51.100.9", flag=Flag.OUTSIDE)

    assert page_of(root).count("198.51.100.9") == 1


def test_a_known_address_that_was_not_seen_again_says_so(root):
    found(last_outcome=Outcome.AGENT_SILENT)

    says = "Not seen when it was looked at last: The guest agent stopped answering."
    assert says in page_of(root, state="found")


def test_vms_pages_say_the_same(root):
    waits = make_ip_fetch(last_outcome=Outcome.NONE_YET, retries_left=7, tries=3).nic
    doubtful = found().nic
    Nic.objects.filter(pk=doubtful.pk).update(address_state=AddressState.UNCONFIRMED)
    sure = found().nic

    said = words_for(Caller.of(make_root()), [waits, doubtful, sure])

    assert said[waits.pk].kind == "waiting"
    assert said[waits.pk].text.startswith("The guest has no address yet. Check the VLAN")
    assert said[doubtful.pk].word == "Unconfirmed"
    assert sure.pk not in said


def test_destroyed_vms_are_in_no_view(root):
    factories.make_vm(name="gone", state="Destroyed")

    assert names(root, state="all") == []


def test_filters(root):
    web = factories.make_running_vm(name="web-1", host=factories.make_host())
    row = make_ip_fetch(web, last_outcome=Outcome.NONE_YET)
    db = found(factories.make_running_vm(name="db-1"), "192.0.2.140").nic
    nic, host = row.nic, web.host

    for query, expected in (
        ({"outcome": "none_yet"}, ["web-1"]),
        ({"outcome": "agent_absent"}, []),
        ({"outcome": "none"}, []),
        ({"left": "10-"}, ["web-1"]),
        ({"waited": "under-1-min"}, ["web-1"]),
        ({"took": "under-10-s"}, ["db-1"]),
        ({"network": nic.network.uuid}, ["web-1"]),
        ({"zone": web.zone.uuid}, ["web-1"]),
        ({"vm": db.vm.uuid}, ["db-1"]),
        ({"host": host.uuid}, ["web-1"]),
        ({"endpoint": host.endpoint.uuid}, ["web-1"]),
        ({"source": "agent"}, ["db-1"]),
        ({"text": "WEB"}, ["web-1"]),
        ({"text": "192.0.2.140"}, ["db-1"]),
        ({"text": nic.mac_address.upper()}, ["web-1"]),
        ({"text": nic.mac_address[-8:].replace(":", "-")}, ["web-1"]),
    ):
        assert names(root, state="all", **query) == expected, query


@pytest.mark.parametrize("query", [{"state": "lost"}, {"network": XSS}, {"vm": "7"}, {"outcome": "x"}, {"colour": "x"}])
def test_a_filter_that_is_none_is_refused(root, query):
    response = root.get("/nics/", query)

    assert response.status_code == 400
    assert XSS not in response.text


def test_hosts_are_no_filter_for_tenants():
    row = make_ip_fetch()
    client = client_of(factories.make_user(row.nic.vm.account))

    for name in ("host", "endpoint"):
        assert client.get("/nics/", {name: row.nic.vm.host.uuid}).status_code == 400


def test_an_export_says_in_words_what_is_missing(root):
    make_ip_fetch(last_outcome=Outcome.NONE_YET, retries_left=1, tries=3)

    response = root.get("/nics/", {"export": "csv"})
    (row,) = csv.DictReader(b"".join(response.streaming_content).decode().splitlines())

    assert "The guest has no address yet. Check the VLAN" in row["Address"]
    assert "Next try now, 1 try left · 3 made." in row["Address"]
    assert row["Told by"].startswith("nobody yet, looked for ")


def test_a_tenant_sees_its_own_only():
    own, other = factories.make_account(), factories.make_account()
    for account in (own, other):
        make_ip_fetch(
            factories.make_running_vm(account=account, name=f"vm-of-{account.name}"),
            last_outcome=Outcome.HOST_UNREACHABLE,
            last_detail="kvm-7 refused.",
        )
    user = factories.make_user(own)

    page = page_of(client_of(user))

    assert f"vm-of-{own.name}" in page
    assert other.name not in page
    assert "kvm-7" not in page
    assert VirtualMachine.objects.filter(account=own).get().host.name not in page
    assert missing(Caller.of(user)) == 1


def test_a_domain_admin_sees_the_domain():
    domain = factories.make_domain()
    make_ip_fetch(factories.make_running_vm(account=factories.make_account(domain=domain), name="inside"))
    make_ip_fetch(factories.make_running_vm(name="outside"))

    assert names(client_of(factories.make_user(factories.make_account(Role.DOMAIN_ADMIN, domain)))) == ["inside"]


def test_the_menu_says_how_many_are_missing(root):
    make_ip_fetch()
    make_ip_fetch(state=State.EXHAUSTED)
    found()

    assert 'NICs <span class="count">2</span>' in page_of(root)


def test_what_people_and_guests_typed_is_escaped(root):
    make_ip_fetch(factories.make_running_vm(display_name=XSS), last_detail=XSS)
    make_observation(found().nic, address="198.51.100.9", flag=Flag.OUTSIDE)
    Nic.objects.update(secondary_addresses=[XSS], address_source=XSS[:20])

    assert XSS not in root.get("/nics/", {"state": "all"}).text


@pytest.mark.parametrize("state", ["missing", "all"])
def test_the_list_takes_a_fixed_number_of_queries(root, state):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            root.get("/nics/", {"state": state})
        return len(captured)

    def more(times: int) -> None:
        for _ in range(times):
            make_observation(found().nic, flag=Flag.CONFLICT)
            make_ip_fetch()
            factories.make_vm()

    more(1)
    few = queries()
    more(10)

    assert queries() == few
