"""Whose things a list shows: listall, isrecursive, account, domainid, projectid; and pages."""

import contextlib
import itertools

import pytest
from django.db import IntegrityError, transaction

from extdhcp_site.accounts.models import Account, Domain, Role
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from tests.api.client import Signer
from tests.factories import make_account, make_domain

pytestmark = pytest.mark.django_db


@pytest.fixture
def accounts() -> dict[str, Account]:
    """ROOT/a with a domain admin and two users, ROOT/a/b and ROOT/ab with a user each, a root admin; an event each."""
    a = make_domain(name="a")
    made = {
        "admin": make_account(Role.DOMAIN_ADMIN, a, name="admin"),
        "ann": make_account(domain=a, name="ann"),
        "bob": make_account(domain=a, name="bob"),
        "below": make_account(domain=make_domain(a, name="b"), name="below"),
        "beside": make_account(domain=make_domain(name="ab"), name="beside"),
        "root": make_account(Role.ROOT_ADMIN, Domain.root(), name="root"),
        "root in a": make_account(Role.ROOT_ADMIN, a, name="boss"),
    }
    for name, account in made.items():
        events.record(EventType.VM_CREATE, name, account=account)
    return made


def shown(reply) -> set[str]:
    assert reply.status == 200, reply
    return {event["description"] for event in reply.body.get("event", [])}


SUBTREE = {"admin", "ann", "bob", "below"}
EVERYTHING = {*SUBTREE, "beside", "root", "root in a"}


@pytest.mark.parametrize(
    ("who", "params", "expected"),
    [
        ("ann", {}, {"ann"}),
        ("ann", {"listall": "true"}, {"ann"}),
        ("ann", {"listall": "true", "isrecursive": "true", "projectid": "-1"}, {"ann"}),
        ("ann", {"account": "ann"}, {"ann"}),
        ("admin", {}, {"admin"}),
        ("admin", {"listall": "false"}, {"admin"}),
        ("admin", {"listall": "true"}, SUBTREE),
        ("admin", {"account": "bob"}, {"bob"}),
        ("root", {}, {"root"}),
        ("root", {"isrecursive": "true"}, {"root"}),
        ("root", {"listall": "True"}, EVERYTHING),
        ("root", {"listall": "true", "isrecursive": "true", "projectid": "-1"}, EVERYTHING),
    ],
)
def test_whose_events_are_listed(accounts, who, params, expected):
    """Admins see others' things with listall only, as in CloudStack; libcloud and Ansible count on it."""
    assert shown(Signer.of(accounts[who]).call("listEvents", **params)) == expected


@pytest.mark.parametrize(
    ("who", "domain", "params", "expected"),
    [
        ("ann", "ann", {}, {"ann"}),
        ("ann", "ann", {"isrecursive": "true", "listall": "true"}, {"ann"}),
        ("admin", "ann", {}, {"admin", "ann", "bob"}),
        ("admin", "ann", {"isrecursive": "true"}, SUBTREE),
        ("admin", "below", {"account": "below"}, {"below"}),
        ("root", "ann", {}, {"admin", "ann", "bob", "root in a"}),
        ("root", "ann", {"isrecursive": "true"}, SUBTREE | {"root in a"}),
        ("root", "beside", {}, {"beside"}),
        ("root", "root", {"isrecursive": "true"}, EVERYTHING),
    ],
)
def test_whose_events_are_listed_by_domain(accounts, who, domain, params, expected):
    domainid = accounts[domain].domain.uuid
    assert shown(Signer.of(accounts[who]).call("listEvents", domainid=domainid, **params)) == expected


@pytest.mark.parametrize(
    ("who", "named"),
    [
        ("ann", "bob"),
        ("ann", "admin"),
        ("ann", "below"),
        ("admin", "beside"),
        ("admin", "root in a"),
        ("admin", "root"),
    ],
)
def test_an_account_that_one_may_not_see_answers_like_one_that_does_not_exist(accounts, who, named):
    caller = Signer.of(accounts[who])
    account = accounts[named]
    for params in ({}, {"domainid": account.domain.uuid}):
        invisible = caller.call("listEvents", account=account.name, **params)
        nobody = caller.call("listEvents", account="nobody", **params)
        assert invisible.status == nobody.status == 431
        assert invisible.text.replace(account.name, "nobody") == nobody.text


def test_an_event_is_found_by_id_without_listall(accounts):
    event = events.Event.objects.get(description="beside")
    assert shown(Signer.of(accounts["root"]).call("listEvents", id=event.uuid)) == {"beside"}


def test_no_combination_shows_a_caller_more_than_policy_allows(accounts):
    """CVE-2013-4317, 2024-42222, 2025-30675 and others: a list's filters showed what its caller may not see."""
    allowed = {"ann": {"ann"}, "admin": SUBTREE, "root": EVERYTHING, "root in a": EVERYTHING}
    choices = {
        "listall": [None, "true"],
        "isrecursive": [None, "true"],
        "projectid": [None, "-1"],
        "account": [None, "ann", "beside", "boss"],
        "domainid": [None, *{account.domain.uuid for account in accounts.values()}],
        "keyword": [None, "e"],
    }
    for who, visible in allowed.items():
        caller = Signer.of(accounts[who])
        for combination in itertools.product(*choices.values()):
            params = {name: value for name, value in zip(choices, combination, strict=True) if value is not None}
            reply = caller.call("listEvents", **params)
            assert reply.status in (200, 431)
            assert {e["description"] for e in reply.body.get("event", [])} <= visible, (who, params)


def test_a_domain_spelt_alike_but_for_case_is_another_domain(domain_admin):
    domain = domain_admin.user.account.domain
    with contextlib.suppress(IntegrityError), transaction.atomic():
        namesake = make_account(domain=make_domain(domain.parent, name=domain.name.upper()))
        events.record(EventType.VM_CREATE, "theirs", account=namesake)
    assert shown(domain_admin.call("listEvents", listall="true")) == set()


@pytest.mark.parametrize("projectid", ["0", "7c1ff9ab-0000-4000-8000-000000000000", "-2"])
def test_projects_are_not_in_this_product(user, projectid):
    reply = user.call("listEvents", projectid=projectid)
    assert reply.status == 431
    assert "not in this product" in reply.text


@pytest.mark.parametrize(
    "params",
    [
        {"page": 1},
        {"pagesize": 10},
        {"page": 1, "pagesize": -1},
        {"page": 0, "pagesize": 10},
        {"page": -1, "pagesize": 10},
        {"page": 1, "pagesize": 0},
        {"page": 1, "pagesize": 501},
        {"page": 1, "pagesize": 10**9},
        {"page": "9" * 30, "pagesize": 10},
        {"page": "x", "pagesize": 10},
    ],
    ids=str,
)
def test_pages_that_make_no_sense_are_refused(user, params):
    assert user.call("listEvents", **params).status == 431


def test_the_largest_page_number_is_only_past_the_end(user):
    events.record(EventType.VM_CREATE, "x", account=user.user.account)
    assert user.call("listEvents", page=2_147_483_647, pagesize=500).body == {"count": 1}


def test_without_paging_the_first_rows_come(user, root):
    """libcloud, cmk, the Go SDK and half of Ansible never page: 500 rows unless an admin says otherwise."""
    for _ in range(3):
        events.record(EventType.VM_CREATE, "x", account=user.user.account)
    assert root.call("updateConfiguration", name="default.page.size", value=2).status == 200
    for params in ({}, {"pagesize": -1}):
        body = user.call("listEvents", **params).body
        assert (body["count"], len(body["event"])) == (3, 2)
    assert user.call("listEvents", page=1, pagesize=3).status == 431
