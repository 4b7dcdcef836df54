"""What `/api/v1/` shows of observations and of the queue, and to whom."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from extdhcp_site.accounts.models import Role
from ipfetch.explanations import ON_DISK
from ipfetch.models import Confidence, Flag, IpFetch, Observation, Outcome
from networks.models import Nic
from tests.api.client import Signer
from tests.factories import make_account, make_running_vm

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def get(path: str, signer: Signer, **params):
    return Client().get(f"/api/v1/{path}", params, headers={"Authorization": f"Bearer {signer.keys.token}"})


def results(path: str, signer: Signer, **params) -> list[dict]:
    answer = get(path, signer, **params)
    assert answer.status_code == 200, answer.json()
    return answer.json()["results"]


@pytest.fixture
def user():
    return Signer.of(make_account())


@pytest.fixture
def root():
    return Signer.of(make_account(Role.ROOT_ADMIN))


def nic_of(signer: Signer) -> Nic:
    return make_running_vm(account=signer.user.account).nics.get()


def observe(nic: Nic, address: str = "192.0.2.7", **fields) -> Observation:
    seen = {"source": "agent", "confidence": Confidence.CONFIRMED, "first_seen_at": NOON, "last_seen_at": NOON}
    return Observation.objects.create(nic=nic, address=address, **{"family": 4, **seen, **fields})


def queue(nic: Nic, **fields) -> IpFetch:
    return IpFetch.objects.create(
        nic=nic, **{"retries_left": 10, "next_attempt_at": NOON, "entered_at": NOON, **fields}
    )


class TestObservations:
    def test_one_is_shown_with_all_that_is_known(self, user):
        nic = nic_of(user)
        row = observe(nic, prefix=24, flag=Flag.CONFLICT, ended_at=NOON + timedelta(hours=1))

        assert get(f"observations/{row.uuid}/", user).json() == {
            "id": str(row.uuid),
            "nicid": str(nic.uuid),
            "macaddress": nic.mac_address,
            "networkid": str(nic.network.uuid),
            "virtualmachineid": str(nic.vm.uuid),
            "ipaddress": "192.0.2.7",
            "family": 4,
            "prefix": 24,
            "source": "agent",
            "confidence": "confirmed",
            "flag": "conflict",
            "firstseen": "2026-03-01T12:00:00+0000",
            "lastseen": "2026-03-01T12:00:00+0000",
            "ended": "2026-03-01T13:00:00+0000",
        }

    def test_what_is_not_so_is_absent(self, user):
        observe(nic_of(user))
        assert not {"prefix", "flag", "ended"} & set(results("observations/", user)[0])

    @pytest.mark.parametrize(
        ("asked", "shown"),
        [
            ({"source": "arp"}, {"192.0.2.8"}),
            ({"flag": "outside"}, {"198.51.100.1"}),
            ({"current": "true"}, {"192.0.2.8", "198.51.100.1"}),
            ({"current": "false"}, {"192.0.2.9"}),
            ({}, {"192.0.2.8", "198.51.100.1", "192.0.2.9"}),
        ],
    )
    def test_filters(self, user, asked, shown):
        nic = nic_of(user)
        observe(nic, "192.0.2.8", source="arp", confidence=Confidence.UNCONFIRMED)
        observe(nic, "198.51.100.1", flag=Flag.OUTSIDE)
        observe(nic, "192.0.2.9", ended_at=NOON)

        assert {row["ipaddress"] for row in results("observations/", user, **asked)} == shown

    def test_of_one_nic_or_vm(self, user):
        nic, other = nic_of(user), nic_of(user)
        observe(nic, "192.0.2.8")
        observe(other, "192.0.2.9")

        for asked in ({"nic": nic.uuid}, {"vm": nic.vm.uuid}):
            assert [row["ipaddress"] for row in results("observations/", user, **asked)] == ["192.0.2.8"]

    @pytest.mark.parametrize("asked", [{"nic": "x"}, {"source": "gossip"}, {"flag": "odd"}, {"ended": "true"}])
    def test_a_filter_that_makes_no_sense_is_refused(self, user, asked):
        assert get("observations/", user, **asked).status_code == 400

    def test_others_are_not_seen(self, user, root):
        row = observe(nic_of(Signer.of(make_account())))

        assert results("observations/", user) == []
        assert get(f"observations/{row.uuid}/", user).status_code == 404
        assert len(results("observations/", root)) == 1


class TestQueue:
    def test_a_waiting_nic_is_explained(self, user):
        nic = nic_of(user)
        queue(nic, tries=3, last_attempt_at=NOON, last_outcome=Outcome.AGENT_ABSENT)

        assert get(f"ip-fetches/{nic.uuid}/", user).json() == {
            "id": str(nic.uuid),
            "macaddress": nic.mac_address,
            "networkid": str(nic.network.uuid),
            "virtualmachineid": str(nic.vm.uuid),
            "state": "waiting",
            "tries": 3,
            "retriesleft": 10,
            "nextattempt": "2026-03-01T12:00:00+0000",
            "lastattempt": "2026-03-01T12:00:00+0000",
            "lastoutcome": "agent_absent",
            "why": "No guest agent answers in the VM. "
            "Install and start qemu-guest-agent (XenServer, VMware: its tools) in the template.",
            "entered": "2026-03-01T12:00:00+0000",
        }

    def test_a_found_one_needs_no_explanation(self, user):
        queue(nic_of(user), state="found", last_outcome=Outcome.FOUND, last_source="lease", found_at=NOON)
        [row] = results("ip-fetches/", user)
        assert (row["source"], row["found"], "why" in row) == ("lease", "2026-03-01T12:00:00+0000", False)

    def test_what_a_host_said_is_for_root_admins(self, user, root):
        queue(nic_of(user), last_outcome=Outcome.HOST_UNREACHABLE, last_detail="Connection to kvm-7 was refused.")

        assert "detail" not in results("ip-fetches/", user)[0]
        assert results("ip-fetches/", root)[0]["detail"] == "Connection to kvm-7 was refused."

    def test_so_is_what_it_said_of_the_guests_disk(self, user, root):
        queue(nic_of(user), last_outcome=Outcome.NONE_YET, last_detail=f"{ON_DISK} Nobody listens at kvm-7.")

        assert "detail" not in results("ip-fetches/", user)[0]
        assert "kvm-7" in results("ip-fetches/", root)[0]["detail"]

    def test_what_is_said_of_the_guests_own_address_is_for_its_owner(self, user):
        queue(nic_of(user), last_outcome=Outcome.NONE_YET, last_detail="It has 198.51.100.1, which is outside.")
        assert results("ip-fetches/", user)[0]["detail"] == "It has 198.51.100.1, which is outside."

    def test_filters(self, user):
        waiting, found = nic_of(user), nic_of(user)
        queue(waiting, last_outcome=Outcome.AGENT_ABSENT)
        queue(found, state="found", last_outcome=Outcome.FOUND)

        for nic, asked in (
            (found, {"nic": found.uuid}),
            (waiting, {"vm": waiting.vm.uuid}),
            (found, {"state": "found"}),
            (waiting, {"last_outcome": "agent_absent"}),
        ):
            assert [row["id"] for row in results("ip-fetches/", user, **asked)] == [str(nic.uuid)]

    def test_others_are_not_seen(self, user):
        nic = nic_of(Signer.of(make_account()))
        queue(nic)

        assert results("ip-fetches/", user) == []
        assert get(f"ip-fetches/{nic.uuid}/", user).status_code == 404

    def test_a_nic_that_is_not_in_the_queue(self, user):
        assert get(f"ip-fetches/{nic_of(user).uuid}/", user).status_code == 404


@pytest.mark.parametrize("path", ["observations/", "ip-fetches/", "nics/"])
def test_a_list_takes_the_same_number_of_queries_for_one_nic_and_for_five(user, path):
    def add() -> None:
        nic = nic_of(user)
        observe(nic)
        queue(nic)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            results(path, user)
        return len(captured)

    add()
    # The first call notes that the token was used.
    results(path, user)
    few = queries()
    for _ in range(4):
        add()

    assert len(results(path, user)) == 5
    assert queries() == few


def test_a_nic_lists_its_other_addresses_with_ids_that_stay(user):
    nic = nic_of(user)
    Nic.objects.update(ip4_address="192.0.2.7", secondary_addresses=["192.0.2.8", "2001:db8::8"])

    first, again = (results("nics/", user)[0]["secondaryip"] for _ in range(2))

    assert [other["ipaddress"] for other in first] == ["192.0.2.8", "2001:db8::8"]
    assert len({other["id"] for other in first} | {str(nic.uuid)}) == 3
    assert first == again


def test_a_nic_without_others_has_an_empty_list(user):
    nic_of(user)
    assert results("nics/", user)[0]["secondaryip"] == []


def test_the_schema_tells_the_filters(root):
    browser = Client()
    browser.force_login(root.user)
    paths = browser.get("/api/schema/", {"format": "json"}).json()["paths"]

    named = {parameter["name"] for parameter in paths["/api/v1/observations"]["get"]["parameters"]}
    assert named >= {"nic", "vm", "source", "flag", "current"}
    assert "/api/v1/ip-fetches/{id}" in paths
