"""Lists of what is not in this product, which clients ask for all the same."""

import pytest

from extdhcp_site.api import registry
from networks.api.empty import LISTS
from tests.api.client import Signer
from tests.factories import make_account

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account())


@pytest.mark.parametrize("empty", LISTS, ids=lambda empty: empty.name)
def test_an_empty_list_is_an_empty_object_with_or_without_pages_and_filters(user, empty):
    for asked in ({}, {"page": 1, "pagesize": 500}, {"listall": "true", "zoneid": "x", "projectid": "-1"}):
        reply = user.call(empty.name, **asked)
        assert (reply.status, reply.key, reply.body) == (200, f"{empty.name.lower()}response", {})


def test_an_empty_list_is_paged_by_the_same_rules_as_any(user):
    assert user.call("listPublicIpAddresses", page=1).status == 431


def test_an_empty_list_tells_an_account_that_is_not_the_callers_like_any(user):
    assert user.call("listPublicIpAddresses", account=make_account().name).status == 431


def test_each_says_who_asks_for_it():
    description = registry.find("listpublicipaddresses").description()
    assert description.startswith("List the public IP addresses: always none")
    assert description.endswith("Libcloud, Ansible, Terraform ask.")
