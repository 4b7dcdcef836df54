"""How many queries lists and deploys take, whatever their size; and that columns and objects are shown alike."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from extdhcp_site.api import paging
from networks.api.vm_answers import NicAnswer, VmAnswer
from networks.models import Nic, NicSecondaryIp, ResourceTag, VirtualMachine, VmState
from tests.api.client import Reply
from tests.factories import make_network, make_service_offering, make_template, make_vm, make_zone

pytestmark = pytest.mark.django_db


def make_fleet(user, vms: int) -> list[VirtualMachine]:
    """VMs with two NICs each, running and not, with all that may be there and may not."""
    zone = make_zone()
    networks = [make_network(zone, vlan=vlan) for vlan in (None, 7)]
    made = [
        make_vm(user.user.account, networks, state=state, display_name=name, ssh_keys=keys)
        for state, name, keys in [(VmState.RUNNING, "", [{"name": "a"}, {"name": "b"}]), (VmState.STOPPED, "x", [])]
        for _ in range(vms // 2)
    ]
    for nic in Nic.objects.filter(is_default=True):
        NicSecondaryIp.objects.create(nic=nic, network=nic.network, address=f"192.0.2.{nic.pk % 250}")
        Nic.objects.filter(pk=nic.pk).update(
            ip4_address="192.0.2.7", secondary_addresses=["192.0.2.8"], address_seen_at=timezone.now()
        )
        ResourceTag.objects.create(vm=nic.vm, key="role", value="")
    return made


def asked(call, *arguments, **params) -> tuple[int, Reply]:
    """How many queries there are after the one that finds the key, and the answer."""
    with CaptureQueriesContext(connection) as captured:
        reply = call(*arguments, **params)
    sql = [query["sql"] for query in captured.captured_queries]
    return len(sql) - 1 - max(n for n, text in enumerate(sql) if "accounts_apikey" in text), reply


@pytest.mark.parametrize("vms", [2, 12])
def test_a_page_of_vms_takes_six_queries_however_many_there_are(user, vms):
    make_fleet(user, vms)
    user.call("listZones")

    queries, reply = asked(user.call, "listVirtualMachines", page=1, pagesize=vms)

    assert len(reply.body["virtualmachine"]) == vms
    assert queries == 6  # the page's size, its rows, their number, the VMs, their NICs, their tags


@pytest.mark.parametrize("vms", [2, 12])
def test_one_vm_takes_four_queries_however_many_there_are(user, vms):
    vm = make_fleet(user, vms)[0]
    user.call("listZones")

    queries, reply = asked(user.call, "listVirtualMachines", id=vm.uuid)

    assert reply.body["count"] == 1
    assert queries == 4  # the VM that is meant, what is shown of it, its NICs, its tags


@pytest.mark.parametrize("vms", [2, 12])
def test_the_nics_of_one_vm_take_at_most_four_queries_however_many_there_are(user, vms):
    vm = make_fleet(user, vms)[0]
    user.call("listZones")

    queries, reply = asked(user.call, "listNics", virtualmachineid=vm.uuid)

    assert reply.body["count"] == 2
    assert queries == 4  # the VM, the page's size, its rows, the NICs


@pytest.mark.parametrize("caller", ["root", "user"])
@pytest.mark.parametrize(("answer", "model"), [(VmAnswer, VirtualMachine), (NicAnswer, Nic)])
def test_an_object_is_shown_as_its_columns_are(request, user, caller, answer, model):
    make_fleet(user, 4)
    caller = request.getfixturevalue(caller).caller
    rows = model.objects.for_listing().order_by("pk")

    from_columns = [shown for _, shown in answer.select(rows, caller)]

    assert len(from_columns) >= 4
    assert from_columns == list(answer(rows, many=True, context={"caller": caller}).data)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 20])
def test_pages_together_are_the_whole_list_in_order(user, size):
    """The second half of a list is read from its end."""
    wanted = [str(vm.uuid) for vm in make_fleet(user, 10)]
    pages = [
        user.call("listVirtualMachines", page=page, pagesize=size).body
        for page in range(1, -(-len(wanted) // size) + 1)
    ]
    assert [vm["id"] for body in pages for vm in body["virtualmachine"]] == wanted
    assert {body["count"] for body in pages} == {10}


def test_a_page_after_the_last_has_no_rows(user):
    make_fleet(user, 4)
    assert user.call("listVirtualMachines", page=3, pagesize=2).body == {"count": 4}


def test_a_second_page_of_one_vm_has_no_rows(user):
    """Who pages until nothing comes would else never end."""
    vm = make_fleet(user, 2)[0]
    assert user.call("listVirtualMachines", id=vm.uuid, page=2, pagesize=1).body == {"count": 1}


def test_the_last_page_skips_no_more_rows_than_the_first(user):
    rows = VirtualMachine.objects.order_by("-id")
    make_fleet(user, 10)
    with CaptureQueriesContext(connection) as captured:
        paging.cut(rows, {"page": 5, "pagesize": 2})
    assert "OFFSET" not in captured.captured_queries[-1]["sql"]


# Deploys --------------------------------------------------------------------------------------------

STATEMENT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE)(?:.*? FROM| INTO)? [`\"](\w+)", re.DOTALL)


def statements_of_a_deploy(user, networks) -> list[str]:
    """What a deploy asks and writes, by table, after the query that finds the key; savepoints left out."""
    zone = networks[0].zone
    params = {
        "zoneid": zone.uuid,
        "templateid": make_template().uuid,
        "serviceofferingid": make_service_offering().uuid,
        "networkids": ",".join(str(network.uuid) for network in networks),
    }
    user.call("listZones")
    with CaptureQueriesContext(connection) as captured:
        user.call("deployVirtualMachine", **params)
    found = [STATEMENT.match(query["sql"]) for query in captured.captured_queries]
    statements = [f"{match[1]} {match[2]}" for match in found if match]
    return statements[statements.index("SELECT accounts_apikey") + 1 :]


@pytest.mark.parametrize("count", [1, 3])
def test_a_deploy_asks_for_each_thing_once_and_writes_each_once(user, count):
    zone = make_zone()
    networks = [make_network(zone, vlan=vlan) for vlan in range(1, count + 1)]

    assert statements_of_a_deploy(user, networks) == [
        "SELECT networks_zone",
        "SELECT networks_template",
        "SELECT networks_serviceoffering",
        "SELECT networks_network",
        "INSERT networks_virtualmachine",
        "SELECT accounts_account",  # whether it was removed meanwhile
        "INSERT networks_volume",
        "INSERT networks_nic",
        "INSERT jobs_asyncjob",
        "INSERT events_event",
        "INSERT django_q_ormq",
    ]
