"""A NIC's page: what happened since its VM was started, what is wrong now, and what may be done about it."""

import re
from datetime import timedelta
from ipaddress import ip_address

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from configdrive.models import ConfigDrive
from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import throttling
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType
from ipfetch import on_demand
from ipfetch.models import Flag, IpFetch, Observation, Outcome
from networks import timeline
from networks.hypervisors.base import GuestAddress, Source
from networks.models import AddressState, Nic, VirtualMachine
from networks.services import nics
from tests import factories
from tests.console.worlds import client_of, make_event, make_ip_fetch, make_observation, make_root
from tests.fakes import FakeHypervisor, hypervisors

pytestmark = pytest.mark.django_db
XSS = "<script>alert(1)</script>"
State = IpFetch.State


@pytest.fixture
def root():
    return client_of(make_root())


@pytest.fixture
def row():
    """A NIC that waits."""
    return make_ip_fetch(tries=3, retries_left=7)


def page_of(client, nic: Nic, path: str = "") -> str:
    response = client.get(f"/nics/{nic.uuid}/{path}")
    assert response.status_code == 200
    return " ".join(response.text.split())


def buttons(page: str) -> list[str]:
    return re.findall(r'<button type="submit" class="" title="[^"]*">([^<]*)</button>', page)


# What may be done


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        (State.WAITING, ["Try now", "Reset tries", "Pause"]),
        (State.EXHAUSTED, ["Try now", "Reset tries", "Pause"]),
        (State.FOUND, ["Try now", "Reset tries"]),
        (State.PAUSED, ["Resume"]),
    ],
)
def test_the_buttons_are_those_that_fit(root, row, state, offered):
    IpFetch.objects.update(state=state)

    assert buttons(page_of(root, row.nic)) == offered


def test_a_nic_that_is_not_looked_for_has_none(root):
    nic = factories.make_vm().nics.get()

    assert buttons(page_of(root, nic)) == []


def test_a_button_says_and_makes_its_api_call(root, row):
    page = page_of(root, row.nic)
    assert f"cmk fetch nicaddress nicid={row.nic.uuid}" in page

    done = root.post(
        "/do/pauseNicAddress",
        {"nicid": row.nic.uuid, "_then": f"/nics/{row.nic.uuid}/", "_label": "Pause"},
        follow=True,
    )

    assert "Pause: done." in done.text
    row.refresh_from_db()
    assert row.state == State.PAUSED


def test_an_address_is_pinned_and_learned_again(root, row):
    page = root.post(f"/nics/{row.nic.uuid}/", {"ipaddress": "192.0.2.77"}, follow=True)

    assert page.redirect_chain == [(f"/nics/{row.nic.uuid}/", 302)]
    assert "The address is set by hand." in page.text
    row.nic.refresh_from_db()
    assert (row.nic.ip4_address, row.nic.address_state) == ("192.0.2.77", AddressState.PINNED)
    assert buttons(" ".join(page.text.split())) == ["Learn it again", "Try now"]


def test_what_cannot_be_pinned_is_said_beside_the_field(root, row):
    page = root.post(f"/nics/{row.nic.uuid}/", {"ipaddress": "198.51.100.7"})

    assert "198.51.100.7 is outside 192.0.2.0/24" in page.text
    assert 'value="198.51.100.7"' in page.text


def test_a_tenant_does_all_that_with_its_own(row):
    client = client_of(factories.make_user(row.nic.vm.account))

    assert buttons(page_of(client, row.nic)) == ["Try now", "Reset tries", "Pause"]
    assert "Pin the address" in page_of(client, row.nic)


@pytest.mark.parametrize("path", ["", "checks/"])
def test_anothers_nic_is_not_there(row, path):
    client = client_of(factories.make_user())

    assert client.get(f"/nics/{row.nic.uuid}/{path}").status_code == 404
    assert client.get(f"/nics/5b0c1c0e-0000-4000-8000-000000000000/{path}").status_code == 404
    assert client.post(f"/nics/{row.nic.uuid}/", {"ipaddress": "192.0.2.77"}).status_code == 404


def test_hosts_are_not_named_to_tenants(row):
    host = row.nic.vm.host
    IpFetch.objects.update(last_outcome=Outcome.HOST_UNREACHABLE, last_detail=f"{host} refused.")
    make_event(row.nic.vm.account, on=row.nic.vm, for_operator=f"on {host}", state="Completed")
    ConfigDrive.objects.create(vm=row.nic.vm, host=host, name="a.iso", built_at=timezone.now())
    client = client_of(factories.make_user(row.nic.vm.account))

    for path in ("", "checks/"):
        page = page_of(client, row.nic, path)
        assert host.name not in page
        assert host.endpoint.name not in page


def test_what_people_and_guests_typed_is_escaped(root):
    vm = factories.make_running_vm(display_name=XSS)
    row = make_ip_fetch(vm, last_detail=XSS)
    make_event(vm.account, XSS, on=vm)
    events.record(EventType.IP_FETCH, f"NIC 0 of {vm}: {XSS}", account=vm.account, on=vm)
    make_observation(row.nic, source=XSS[:20])

    assert XSS not in page_of(root, row.nic)


# The time line


def entries(nic: Nic, user=None) -> list[tuple[str, str]]:
    caller = Caller.of(user or make_root())
    return [(entry.title, entry.kind.value) for entry in timeline.of(Nic.objects.get(pk=nic.pk), caller)]


def test_it_begins_with_the_last_start(row):
    vm, now = row.nic.vm, timezone.now()
    VirtualMachine.objects.update(state_since=now - timedelta(minutes=1))
    for minutes, type, state in (
        (60, EventType.VM_CREATE, "Scheduled"),
        (30, EventType.VM_STOP, "Completed"),
        (2, EventType.VM_START, "Scheduled"),
        (1.5, EventType.VM_START, "Started"),
        (1, EventType.VM_START, "Completed"),
    ):
        event = events.record(type, "x", account=vm.account, on=vm, state=state)
        Event.objects.filter(pk=event.pk).update(created_at=now - timedelta(minutes=minutes))

    titles = [title for title, _ in entries(row.nic)]

    assert titles[:3] in (["Start asked for", "Start done", "Runs"], ["Start asked for", "Runs", "Start done"])
    assert "Stop done" not in titles


def test_a_failed_start_is_told(row):
    vm = row.nic.vm
    make_event(vm.account, "startVirtualMachine failed: No room.", on=vm, state="Completed", level="ERROR")

    assert ("Start failed", "error") in entries(row.nic)


def test_the_drive_stands_in_it(row):
    now = timezone.now()
    drive = {"name": "a.iso", "size": 124_000, "built_at": now - timedelta(hours=1), "booted_at": now}
    ConfigDrive.objects.create(vm=row.nic.vm, host=row.nic.vm.host, **drive)

    titles = [title for title, _ in entries(row.nic)]

    assert titles[0] == "Config drive built"
    assert "Powered on with the config drive in its CD-ROM" in titles


def test_the_last_try_with_its_outcome(root, row):
    IpFetch.objects.update(last_attempt_at=timezone.now())

    assert ("Try 3: no address", "error") in entries(row.nic)
    page = page_of(root, row.nic)
    assert "No guest agent answers in the VM." in page
    assert "The 2 before it brought none either." in page


def test_a_try_that_is_under_way(row):
    now = timezone.now()
    IpFetch.objects.update(last_attempt_at=now, claimed_until=now + timedelta(minutes=1))

    assert ("Try 3 under way", "waiting") in entries(row.nic)


def test_what_each_source_said(row):
    now = timezone.now()
    make_observation(row.nic, "192.0.2.131")
    make_observation(row.nic, "192.0.2.132", source="lease", flag=Flag.CONFLICT)
    make_observation(row.nic, "192.0.2.133", source="arp", confidence="unconfirmed", ended_at=now + timedelta(hours=1))
    make_observation(row.nic, "192.0.2.134", source="webhook", ended_at=now - timedelta(days=1))
    VirtualMachine.objects.update(state_since=now - timedelta(hours=1))

    told = entries(row.nic)

    assert ("192.0.2.131 by agent", "found") in told
    assert ("192.0.2.132 by lease", "warn") in told
    assert ("192.0.2.133 by arp no longer", "off") in told
    assert "192.0.2.134" not in str(told)


def test_what_happened_to_its_address_and_to_no_other_nics(row):
    vm = row.nic.vm
    for number, text in ((0, "ip addr 192.0.2.7 got fetched successfully"), (1, "ip addr changed")):
        events.record(EventType.IP_FETCH, f"NIC {number} of {vm}: {text}", account=vm.account, on=vm)
    VirtualMachine.objects.update(state_since=timezone.now() - timedelta(hours=1))

    assert [title for title, _ in entries(row.nic)].count("Address known") == 1


def test_who_asked_is_told(row):
    on_demand.pause(row.nic, Caller.of(make_root()))

    assert ("Ip addr fetch was paused", "off") in entries(row.nic)


def test_the_next_try_is_the_end_of_it(root, row):
    IpFetch.objects.update(next_attempt_at=timezone.now() + timedelta(seconds=42.9))

    page = page_of(root, row.nic)

    assert page.rindex("Next try</b>") > page.rindex('class="timeline"')
    assert "in 42 s</time>" in page


def test_the_page_takes_a_fixed_number_of_queries(root, row):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            root.get(f"/nics/{row.nic.uuid}/")
        return len(captured)

    def more(times: int) -> None:
        for number in range(times):
            make_observation(row.nic, f"192.0.2.{100 + Observation.objects.count() + number}")
            make_event(row.nic.vm.account, on=row.nic.vm)

    more(1)
    few = queries()
    more(10)

    assert queries() == few


# The live checks


def test_the_page_waits_for_no_hypervisor(root, row, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a page has asked a hypervisor")

    monkeypatch.setattr("networks.services.places.hypervisor_at", never)

    assert f'hx-get="/nics/{row.nic.uuid}/checks/"' in page_of(root, row.nic)


def test_what_is_wrong_is_asked_of_the_host(root, row):
    vm, fake = row.nic.vm, FakeHypervisor()
    fake.answers(vm.on_host, GuestAddress(row.nic.mac_address, ip_address("192.0.2.131"), Source.GUEST_AGENT))
    with hypervisors(fake):
        page = page_of(root, row.nic, "checks/")

    # The guest's answer is green, and what the host says of the VM is red.
    assert '<span class="chip found">All right</span></td><td data-label="What was found">192.0.2.131' in page
    assert f"{vm.host} does not know {vm.instance_name}" in page


def test_a_fragment_is_the_table_alone(root, row):
    response = root.get(f"/nics/{row.nic.uuid}/checks/", headers={"HX-Request": "true"})

    assert "<html" not in response.text
    assert "Check again" in response.text


def test_whoever_asks_too_often_is_told(root, row, monkeypatch):
    def refuse(*args):
        raise throttling.TooManyRequests("Too many calls.")

    monkeypatch.setattr(throttling, "admit", refuse)

    assert "Too many calls." in page_of(root, row.nic, "checks/")


def test_a_pinned_address_can_be_learned_again(root, row):
    nics.pin(row.nic, "192.0.2.77", Caller.of(make_root()))

    root.post("/do/updateVmNicIp", {"nicid": row.nic.uuid})

    row.nic.refresh_from_db()
    assert row.nic.address_state == AddressState.LAST_KNOWN
