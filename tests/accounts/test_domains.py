"""The commands that make, change and remove domains."""

import pytest

from extdhcp_site.accounts.models import Account, Domain
from extdhcp_site.accounts.services import domains as services
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from tests.accounts.conftest import result_of
from tests.api.client import Signer
from tests.factories import make_account, make_domain, make_network

pytestmark = pytest.mark.django_db


def names(reply) -> set[str]:
    assert reply.status == 200, reply
    return {domain["name"] for domain in reply.body.get("domain", [])}


def test_a_domain_is_made_below_another(root, domain):
    made = root.call("createDomain", name="emea", parentdomainid=domain.uuid, networkdomain="emea.example.com").body[
        "domain"
    ]

    assert made == {
        "id": str(Domain.objects.get(name="emea").uuid),
        "name": "emea",
        "path": "ROOT/sales/emea",
        "level": 2,
        "parentdomainid": str(domain.uuid),
        "parentdomainname": "sales",
        "haschild": False,
        "networkdomain": "emea.example.com",
        "state": "Active",
    }
    assert Event.objects.get().type == EventType.DOMAIN_CREATE


def test_a_domain_admins_domain_is_below_their_own(admin):
    assert admin.call("createDomain", name="emea").body["domain"]["path"] == "ROOT/sales/emea"


@pytest.mark.parametrize("name", ["sales", "SALES", "a/b", "/", "x" * 101, " "])
def test_a_name_that_cannot_be_is_refused(root, domain, name):
    assert root.call("createDomain", name=name).status == 431
    assert Domain.objects.count() == 2


@pytest.mark.parametrize("suffix", ["-x.com", "a..b", "a_b.com", "x" * 64 + ".com", "a b", "a." * 126 + "ab"])
def test_a_suffix_that_is_no_dns_name_is_refused(root, suffix):
    assert root.call("createDomain", name="emea", networkdomain=suffix).status == 431


def test_a_path_that_is_too_long_is_refused(root):
    deep = make_domain(make_domain(name="x" * 100), name="x" * 100)
    assert "Too deep" in root.call("createDomain", name="x" * 60, parentdomainid=deep.uuid).text


@pytest.mark.parametrize(
    ("who", "asked", "seen"),
    [
        ("root", {}, {"ROOT"}),
        ("root", {"listall": "true"}, {"ROOT", "sales", "emea"}),
        ("root", {"name": "emea"}, {"emea"}),
        ("root", {"listall": "true", "level": 1}, {"sales"}),
        ("root", {"listall": "true", "keyword": "a"}, {"sales", "emea"}),
        ("admin", {"listall": "true"}, {"sales", "emea"}),
        ("admin", {"name": "ROOT"}, set()),
        ("user", {"listall": "true"}, {"sales"}),
    ],
)
def test_domains_are_listed(request, domain, who, asked, seen):
    make_domain(domain, name="emea")
    assert names(request.getfixturevalue(who).call("listDomains", **asked)) == seen


def test_children_are_listed(root, domain):
    make_domain(make_domain(domain, name="emea"), name="north")

    assert names(root.call("listDomainChildren", id=domain.uuid)) == {"emea"}
    assert names(root.call("listDomainChildren", id=domain.uuid, isrecursive="true")) == {"emea", "north"}
    [only] = root.call("listDomainChildren", id=domain.uuid).body["domain"]
    assert only["haschild"] is True


def test_a_domain_is_never_renamed(root, domain):
    refused = root.call("updateDomain", id=domain.uuid, name="purchases")

    assert refused.status == 431
    assert "never renamed" in refused.text
    assert root.call("updateDomain", id=domain.uuid, name="sales").status == 200


def test_a_domains_suffix_changes(root, domain):
    changed = root.call("updateDomain", id=domain.uuid, networkdomain="sales.example.com").body["domain"]
    assert changed["networkdomain"] == "sales.example.com"


@pytest.mark.parametrize(
    ("fill", "what"),
    [
        (lambda domain: make_domain(domain), "1 domain"),
        (lambda domain: make_account(domain=domain), "1 account"),
        (lambda domain: make_network(domain=domain), "1 network"),
    ],
)
def test_a_domain_in_which_something_is_stays(root, domain, fill, what):
    fill(domain)

    refused = root.call("deleteDomain", id=domain.uuid)

    assert refused.status == 536
    assert f"still has {what}" in refused.text


def test_what_comes_into_a_domain_while_its_job_waits_keeps_it(root, domain):
    reply = root.call("deleteDomain", id=domain.uuid)
    make_account(domain=domain)

    assert result_of(root, reply)["errorcode"] == 536
    assert Domain.objects.live().filter(pk=domain.pk).exists()


def test_root_stays(root):
    assert root.call("deleteDomain", id=Domain.root().uuid).status == 431


def test_a_deleted_domain_is_gone(root, domain):
    assert result_of(root, root.call("deleteDomain", id=domain.uuid)) == {"success": True}
    assert names(root.call("listDomains", listall="true")) == {"ROOT"}
    assert root.call("deleteDomain", id=domain.uuid).status == 431


def test_a_name_may_come_and_go(root, domain):
    result_of(root, root.call("deleteDomain", id=domain.uuid))
    again = root.call("createDomain", name="sales").body["domain"]["id"]
    assert result_of(root, root.call("deleteDomain", id=again)) == {"success": True}


def test_a_domains_job_may_run_twice(root, domain):
    root.call("deleteDomain", id=domain.uuid)
    job = AsyncJob.objects.get()
    for _ in range(2):
        jobs._handlers["deleteDomain"][0](job)
    assert Domain.objects.live().count() == 1


def test_whoever_takes_a_deleted_domains_name_inherits_nothing(root, domain):
    """CVE-2025-66467: what was kept under a name came to whoever took the name next."""
    former = make_account(domain=domain)
    events.record(EventType.VM_CREATE, "former", account=former)
    Account.objects.filter(pk=former.pk).update(state=Account.State.REMOVED)
    result_of(root, root.call("deleteDomain", id=domain.uuid))

    made = root.call("createDomain", name="sales").body["domain"]
    admin = make_account(2, Domain.objects.get(uuid=made["id"]))

    assert made["id"] != str(domain.uuid)
    assert Signer.of(admin).call("listEvents", listall="true").body == {}
    assert names(Signer.of(admin).call("listDomains", listall="true")) == {"sales"}


def test_a_removed_child_is_listed_no_more(root, domain):
    gone = make_domain(domain, name="emea")
    result_of(root, root.call("deleteDomain", id=gone.uuid))
    for recursive in ("true", "false"):
        assert root.call("listDomainChildren", id=domain.uuid, isrecursive=recursive).body == {}


def test_a_domain_that_was_removed_meanwhile_is_not_changed(root, domain):
    result_of(root, root.call("deleteDomain", id=domain.uuid))
    with pytest.raises(InvalidParameter, match="deleted meanwhile"):
        services.update(domain, None, "late.example.com", root.caller)
    domain.refresh_from_db()
    assert domain.network_domain == ""
