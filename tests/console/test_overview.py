"""The console's first page: who sees which addresses, and what stands where one is missing."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.configuration.models import Setting
from extdhcp_site.events.models import Level
from ipfetch.models import Flag, IpFetch, Outcome
from networks.models import AddressState, Nic, VirtualMachine
from networks.services.places import record_health
from tests import factories
from tests.console.worlds import client_of, make_event, make_ip_fetch, make_observation, make_root

pytestmark = pytest.mark.django_db
XSS = "<script>alert(1)</script>"
INLINE_SCRIPT = re.compile(r"<script(?![^>]* src=)")


@pytest.fixture
def root():
    return client_of(make_root())


def found(vm: VirtualMachine, address: str = "192.0.2.131", **fields) -> IpFetch:
    now = timezone.now()
    row = make_ip_fetch(
        vm, state=IpFetch.State.FOUND, next_attempt_at=None, last_outcome=Outcome.FOUND, found_at=now, **fields
    )
    confirmed = {"address_state": AddressState.CONFIRMED, "address_source": "agent", "address_seen_at": now}
    Nic.objects.filter(pk=row.nic_id).update(ip4_address=address, **confirmed)
    return row


def test_a_visitor_logs_in_first(client):
    assert client.get("/", follow=True).redirect_chain[-1][0] == "/login/?next=/"


def test_log_in_and_out(client):
    user = factories.make_user()

    assert client.post("/login/", {"username": user.username, "password": "a long password"})["Location"] == "/"
    assert client.get("/").status_code == 200
    client.post("/logout/")
    assert client.get("/").status_code == 302


def test_a_disabled_account_does_not_log_in(client):
    user = factories.make_user(factories.make_account(state="disabled"))

    page = client.post("/login/", {"username": user.username, "password": "a long password"})

    # The same words as for a wrong password: nobody learns which accounts there are.
    assert "Please enter a correct username and password" in page.text
    assert client_of(user).get("/").status_code == 302


def test_logging_in_leads_to_this_server_only(client):
    user = factories.make_user()
    form = {"username": user.username, "password": "a long password", "next": "https://evil.example.org/"}

    assert client.post("/login/", form)["Location"] == "/"


def test_a_missing_address_is_explained(root):
    make_ip_fetch(
        last_outcome=Outcome.AGENT_ABSENT,
        retries_left=7,
        tries=3,
        next_attempt_at=timezone.now() + timedelta(seconds=42.9),
    )

    page = " ".join(root.get("/").text.split())

    assert "No guest agent answers in the VM.</b> Install and start qemu-guest-agent (XenServer, VMware: " in page
    assert "in 42 s</time> · 7 tries left · 3 made" in page


def test_a_given_up_nic_says_what_begins_anew(root):
    make_ip_fetch(state=IpFetch.State.EXHAUSTED, next_attempt_at=None, retries_left=0, tries=14)

    assert "14 tries made, none left. A start or reboot of the VM begins anew." in root.get("/").text


def test_a_found_address_has_its_source_and_how_long_it_took(root):
    found(factories.make_running_vm(), entered_at=timezone.now() - timedelta(seconds=65.5))

    page = root.get("/").text

    for shown in ("192.0.2.131", "agent", "1 min 5 s"):
        assert shown in page


def test_an_address_of_a_stopped_vm_is_the_last_known(root):
    vm = factories.make_vm()
    vm.nics.update(ip4_address="192.0.2.140", address_state=AddressState.LAST_KNOWN)

    page = root.get("/").text

    assert "192.0.2.140" in page
    assert "Last known" in page
    assert "asked for once the VM runs" in page


@pytest.mark.parametrize(
    ("state", "says"), [(AddressState.UNCONFIRMED, "Unconfirmed"), (AddressState.PINNED, "Set by hand")]
)
def test_how_far_an_address_can_be_believed(root, state, says):
    row = found(factories.make_running_vm())
    assert says not in root.get("/").text

    Nic.objects.filter(pk=row.nic_id).update(address_state=state)

    assert says in root.get("/").text


def test_the_other_addresses_of_a_nic(root):
    row = found(factories.make_running_vm())
    Nic.objects.filter(pk=row.nic_id).update(secondary_addresses=["192.0.2.140", "2001:db8::1"])

    assert "also <code>192.0.2.140</code>, <code>2001:db8::1</code>" in root.get("/").text


def test_a_conflict_and_an_address_of_elsewhere_are_shown(root):
    nic = found(factories.make_running_vm()).nic
    make_observation(nic, address="192.0.2.131", flag=Flag.CONFLICT)
    make_observation(nic, address="198.51.100.9", flag=Flag.OUTSIDE)

    page = root.get("/").text

    assert "Another NIC of the network has <code>192.0.2.131</code> too." in page
    assert "<code>198.51.100.9</code> is no address for guests of 192.0.2.0/24." in page


def test_what_has_ended_is_not(root):
    nic = found(factories.make_running_vm()).nic
    make_observation(nic, address="198.51.100.9", flag=Flag.OUTSIDE, ended_at=timezone.now())

    assert "198.51.100.9" not in root.get("/").text


def test_what_the_outcome_tells_is_not_told_twice(root):
    row = make_ip_fetch(
        last_outcome=Outcome.NONE_YET, last_detail="It has 198.51.100.9, which is outside 192.0.2.0/24."
    )
    make_observation(row.nic, address="198.51.100.9", flag=Flag.OUTSIDE)

    assert root.get("/").text.count("198.51.100.9") == 1


def test_a_known_address_that_was_not_seen_again_says_so(root):
    found(factories.make_running_vm())
    IpFetch.objects.update(last_outcome=Outcome.AGENT_SILENT)

    assert "Not seen when it was looked at last: The guest agent stopped answering." in root.get("/").text


def test_the_next_try_is_not_before_the_breaker_of_its_endpoint(root):
    row = make_ip_fetch(next_attempt_at=timezone.now())
    endpoint = row.nic.vm.host.endpoint
    endpoint.retry_at = timezone.now() + timedelta(seconds=42.9)
    endpoint.save()

    assert "42 s</time>" in root.get("/").text


def test_in_exact_mode_it_is(root):
    Setting.objects.create(name="externaldhcp.vmip.early.retry", value="false")
    row = make_ip_fetch(next_attempt_at=timezone.now())
    endpoint = row.nic.vm.host.endpoint
    endpoint.retry_at = timezone.now() + timedelta(seconds=42.9)
    endpoint.save()

    assert "Next try now" in root.get("/").text


def test_a_failed_vm_says_why(root):
    factories.make_vm(state="Error", error_text="No host has room for it.")

    assert "No host has room for it." in root.get("/").text


def test_not_found_first_and_of_these_the_oldest(root):
    now = timezone.now()
    found(factories.make_running_vm(name="known"), entered_at=now - timedelta(hours=9))
    make_ip_fetch(factories.make_running_vm(name="young"), entered_at=now)
    make_ip_fetch(factories.make_running_vm(name="old"), entered_at=now - timedelta(hours=1))
    factories.make_vm(name="asleep")

    page = root.get("/").text
    places = [page.index(f">{name}</a>") for name in ("old", "young", "known", "asleep")]

    assert places == sorted(places)


def test_a_number_links_to_the_rows_behind_it(root):
    found(factories.make_running_vm(name="known"))
    make_ip_fetch(factories.make_running_vm(name="unknown"))

    page = root.get("/", {"state": "found"}).text

    assert ">known</a>" in page
    assert ">unknown</a>" not in page
    assert '?state=found#addresses" aria-current="true"><b>1</b> Found' in page


def test_a_state_that_is_none_shows_all(root):
    make_ip_fetch(factories.make_running_vm(name="unknown"))

    assert ">unknown</a>" in root.get("/", {"state": XSS}).text


def test_destroyed_vms_are_gone_from_the_page(root):
    factories.make_vm(name="gone", state="Destroyed")

    assert "gone" not in root.get("/").text


def test_a_tenant_sees_its_own_only():
    own, other = factories.make_account(), factories.make_account()
    for account in (own, other):
        vm = factories.make_running_vm(account=account, name=f"vm-of-{account.name}")
        make_ip_fetch(vm)
        make_event(account, f"event of {account.name}", for_operator="on host-secret")

    page = client_of(factories.make_user(own)).get("/").text

    assert f"vm-of-{own.name}" in page
    assert f"event of {own.name}" in page
    assert other.name not in page
    assert "host-secret" not in page
    assert 'id="hosts"' not in page
    assert "/admin/" not in page
    assert "<b>1</b> All NICs" in page


def test_a_tenant_is_not_told_what_a_host_said():
    account = factories.make_account()
    vm = factories.make_running_vm(account=account)
    make_ip_fetch(vm, last_outcome=Outcome.HOST_UNREACHABLE, last_detail="Connection to kvm-7 was refused.")

    assert "kvm-7" not in client_of(factories.make_user(account)).get("/").text
    assert "kvm-7" in client_of(make_root()).get("/").text


def test_a_domain_admin_sees_the_domain():
    domain = factories.make_domain()
    factories.make_vm(account=factories.make_account(domain=domain), name="inside")
    factories.make_vm(name="outside")
    page = client_of(factories.make_user(factories.make_account(Role.DOMAIN_ADMIN, domain))).get("/").text

    assert "inside" in page
    assert "outside" not in page


def test_a_host_in_trouble_is_shown_first(root):
    factories.make_host(name="fine", endpoint=factories.make_endpoint(last_ok_at=timezone.now()))
    factories.make_host(name="silent", endpoint=factories.make_endpoint(last_error="No route to it."))

    page = root.get("/").text

    assert "No route to it." in page
    assert page.index(">silent</a>") < page.index(">fine</a>")


def test_an_endpoint_that_is_left_alone_and_calls_that_are_stuck(root):
    trouble = {"last_error": "No answer.", "failures": 4, "stuck_calls": 2}
    retry_at = timezone.now() + timedelta(seconds=42.9)
    factories.make_host(endpoint=factories.make_endpoint(**trouble, retry_at=retry_at))

    page = " ".join(root.get("/").text.split())

    assert "4 failures in a row · addresses are asked for again in 42 s" in page
    assert "2 calls do not come back." in page


def test_alerts_are_among_the_last_events(root):
    """The third failure in a row, as whoever asked the endpoint reports it."""
    endpoint = factories.make_host().endpoint
    for _ in range(3):
        record_health(endpoint, "No answer.")

    page = root.get("/").text

    assert f"{endpoint} does not answer: No answer." in page
    assert "ALERT.COMPUTE.HOST" in page


def test_what_people_and_guests_typed_is_escaped(root):
    vm = factories.make_running_vm(display_name=XSS)
    make_ip_fetch(vm, last_detail=XSS)
    make_event(text=XSS, level=Level.ERROR)
    Nic.objects.update(secondary_addresses=[XSS], address_source=XSS[:20])
    factories.make_host(endpoint=factories.make_endpoint(last_error=XSS))

    page = root.get("/").text

    assert XSS not in page
    assert not INLINE_SCRIPT.search(page)


def test_the_page_takes_a_fixed_number_of_queries(root):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            root.get("/")
        return len(captured)

    def more(times: int) -> None:
        for _ in range(times):
            make_observation(found(factories.make_running_vm()).nic, flag=Flag.CONFLICT)
            make_ip_fetch()
            factories.make_vm()
            make_event()

    more(2)
    few = queries()
    more(10)

    assert queries() == few


def test_no_page_may_be_kept(root):
    assert root.get("/")["Cache-Control"] == "no-store"


def test_pages_bring_no_inline_script_or_style(root, client):
    make_ip_fetch()
    for page in (root.get("/").text, client.get("/login/").text):
        assert "style=" not in page
        assert not INLINE_SCRIPT.search(page)
