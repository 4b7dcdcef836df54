"""Requests at the same moment, each in a thread and a transaction of its own: together they pass no limit either.

CVE-2025-69233: limits were checked first and counted afterwards, so that many requests at once went past them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connections

from networks.models import NicSecondaryIp, ResourceTag, VirtualMachine
from networks.services.secondary_ips import MOST
from networks.services.tags import MOST_TAGS
from tests.api.client import Reply, Signer
from tests.factories import make_account, make_domain, make_vm

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

AT_ONCE = 4


@pytest.fixture
def user(transactional_db) -> Signer:
    return Signer.of(make_account(domain=make_domain()))


@pytest.fixture
def vm(user) -> VirtualMachine:
    return make_vm(user.caller.account)


def statuses(ask: Callable[[int], Reply]) -> list[int]:
    """Of `ask(0)`, `ask(1)` ... asked at once, in order of size."""
    barrier = Barrier(AT_ONCE)

    def one(number: int) -> int:
        try:
            barrier.wait()
            return ask(number).status
        finally:
            connections.close_all()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return sorted(threads.map(one, range(AT_ONCE)))


def test_a_nic_is_given_its_last_secondary_address_once(user, vm):
    nic = vm.nics.get()
    for last in range(MOST - 1):
        NicSecondaryIp.objects.create(nic=nic, network=nic.network, address=f"192.0.2.{100 + last}")

    answered = statuses(lambda n: user.call("addIpToNic", nicid=nic.uuid, ipaddress=f"192.0.2.{150 + n}"))

    assert answered == [200] + [431] * (AT_ONCE - 1)
    assert nic.secondary_ips.count() == MOST


def test_an_object_is_given_its_last_tag_once(user, vm):
    ResourceTag.objects.bulk_create(ResourceTag(vm=vm, key=f"k{n}") for n in range(MOST_TAGS - 1))
    on = {"resourcetype": "UserVm", "resourceids": vm.uuid}

    answered = statuses(lambda n: user.call("createTags", ("tags[0].key", f"new{n}"), ("tags[0].value", "v"), **on))

    assert answered == [200] + [431] * (AT_ONCE - 1)
    assert vm.tags.count() == MOST_TAGS
