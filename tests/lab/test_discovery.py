"""Addresses are found in time whatever else hangs, follow the DHCP server, and need no person afterwards.

The tests stand in an order in which few guests boot. What is to be found in time gets its lease when something else
has just begun to hang.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.lab.cloud import BOOT, Cloud
from tests.lab.hosts import Host
from tests.lab.system import wait_for

pytestmark = pytest.mark.lab

IN_TIME = 5  # seconds, from the lease. An agent that hangs is waited for 4 s at each try, a host 12 s.
FOLLOWS = 15  # seconds: a guest that was read between two leases, without any, is asked again after five
INTERVAL, TRIES = "externaldhcp.vmip.retrieval.interval", "externaldhcp.vmip.max.retry"
REFRESH, EARLY = "externaldhcp.vmip.refresh.interval", "externaldhcp.vmip.early.retry"

Vm = dict[str, Any]


def lease_of(cloud: Cloud, vm: Vm) -> IPv4Address:
    return wait_for("the lease", lambda: cloud.lab.dhcp.leases().get(mac_of(vm)), BOOT)


def mac_of(vm: Vm) -> str:
    return str(vm["nic"][0]["macaddress"])


def is_found_in_time(cloud: Cloud, vm: Vm) -> bool:
    leased = lease_of(cloud, vm)
    return cloud.address(vm["id"], IN_TIME) == str(leased)


def row_of(cloud: Cloud, vm: Vm, *columns: str) -> tuple:
    """The queue's row of the VM's only NIC."""
    names = ", ".join(f"f.{column}" for column in columns)
    (row,) = cloud.sql(
        f"SELECT {names} FROM ipfetch_ipfetch f JOIN networks_nic n ON n.id = f.nic_id "  # noqa: S608
        "JOIN networks_virtualmachine v ON v.id = n.vm_id WHERE v.uuid = ?",
        vm["id"].replace("-", ""),
    )
    return row


def in_guest(cloud: Cloud, vm: Vm, script: str) -> str:
    host = next(host for host in cloud.lab.hosts if host.name == cloud.vm(vm["id"])["hostname"])
    return host.guest_run(vm["instancename"], "/bin/sh", "-c", script)


@pytest.fixture(scope="module")
def waiting(cloud: Cloud) -> Iterator[Vm]:
    """It has an agent, is asked again and again, and never gets an address: no DHCP server is on its network."""
    with cloud.configured({INTERVAL: 5, TRIES: 1000}):
        vm = cloud.deploy("waiting", cloud.lab.hosts[0], cloud.silent_network)
        wait_for("its agent to answer", lambda: row_of(cloud, vm, "last_outcome") == ("none_yet",), BOOT)
        yield vm


@pytest.fixture(scope="module")
def hung(cloud: Cloud, waiting: Vm) -> Vm:
    """The same guest from when its agent was frozen."""
    in_guest(cloud, waiting, "(sleep 1; kill -STOP $(pidof qemu-ga)) >/dev/null 2>&1 &")
    wait_for("its silence", lambda: row_of(cloud, waiting, "last_outcome") == ("agent_silent",), 60)
    return waiting


@pytest.fixture(scope="module")
def found(cloud: Cloud, waiting: Vm) -> Vm:
    """Its neighbour on the same host, which gets no lease yet."""
    return without_lease(cloud, cloud.lab.hosts[0], "found")


def without_lease(cloud: Cloud, host: Host, name: str) -> Vm:
    """A VM whose guest asks for an address, and is ignored by the DHCP server."""
    vm = cloud.deploy(name, host, cloud.network)
    cloud.lab.dhcp.know(mac_of(vm), "ignore")
    return vm


def test_an_interval_changed_while_running_takes_effect_at_the_next_pass(cloud: Cloud, waiting: Vm):
    # Exactly the spec's loop: no early try and no push come between.
    with cloud.configured({EARLY: "false", INTERVAL: 600}):
        wait_for("a wait of ten minutes", lambda: seconds_to_next_try(cloud, waiting) > 500, 60)
        (before,) = row_of(cloud, waiting, "attempt")

        cloud.api.updateConfiguration(name=INTERVAL, value=2)

        wait_for("the next try", lambda: row_of(cloud, waiting, "attempt") > (before,), IN_TIME)


def seconds_to_next_try(cloud: Cloud, vm: Vm) -> float:
    (at,) = row_of(cloud, vm, "next_attempt_at")
    return (datetime.fromisoformat(at).replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()


def test_a_frozen_agent_costs_its_neighbour_nothing(cloud: Cloud, found: Vm, hung: Vm):
    asks(cloud, found)
    (attempt,) = row_of(cloud, hung, "attempt")
    wait_for("the next try at it to begin", lambda: row_of(cloud, hung, "attempt") > (attempt,), 60)

    cloud.lab.dhcp.forget(mac_of(found))

    assert is_found_in_time(cloud, found)
    assert row_of(cloud, hung, "state", "last_outcome") == ("waiting", "agent_silent")


def asks(cloud: Cloud, *vms: Vm) -> None:
    wait_for("the guests to ask", lambda: {mac_of(vm) for vm in vms} <= cloud.lab.dhcp.discovered(), BOOT)


def test_the_dhcp_server_gives_a_new_address_and_it_follows(cloud: Cloud, found: Vm):
    dhcp, new = cloud.lab.dhcp, cloud.lab.network.cidr[50]
    former = cloud.address(found["id"], BOOT)
    with cloud.configured({REFRESH: 2}):
        dhcp.know(mac_of(found), str(new))
        # Its client asks to renew the old lease, is refused, and asks anew.
        in_guest(cloud, found, "kill -USR1 $(pidof udhcpc)")
        wait_for("the new lease", lambda: dhcp.leases().get(mac_of(found)) == new, 60)

        wait_for("the new address", lambda: cloud.nic(found["id"]).get("ipaddress") == str(new), FOLLOWS)

    events = cloud.api.listEvents(type="EXTERNAL.DHCP.VM.IP.CHANGE", resourceid=found["id"])["event"]
    assert [(event["level"], former in event["description"], str(new) in event["description"]) for event in events] == [
        ("INFO", True, True)
    ]
    dhcp.forget(mac_of(found))


def test_a_frozen_host_delays_no_other_and_is_made_up_for_when_it_is_back(cloud: Cloud, waiting: Vm):
    """The NIC on the frozen host waits longer than all its tries would have lasted."""
    here, there = cloud.lab.hosts
    tries, interval = 3, 2
    with cloud.configured({INTERVAL: 180, TRIES: tries}):  # none of its tries is spent while it boots
        cut_off = without_lease(cloud, there, "cut-off")
        reachable = without_lease(cloud, here, "reachable")
        asks(cloud, cut_off, reachable)
    with cloud.configured({INTERVAL: interval}):
        with there.frozen():
            frozen_at = time.monotonic()
            wait_for("a try at it", lambda: row_of(cloud, cut_off, "claimed_until") != (None,), 60)
            cloud.lab.dhcp.forget(mac_of(cut_off), mac_of(reachable))
            assert is_found_in_time(cloud, reachable)

            leased = lease_of(cloud, cut_off)
            wait_for("all tries to be over", lambda: time.monotonic() - frozen_at > 4 * tries * interval, 60)
            wait_for("a reason", lambda: row_of(cloud, cut_off, "last_outcome") == ("host_unreachable",), 60)
            assert "ipaddress" not in cloud.nic(cut_off["id"])

        assert cloud.address(cut_off["id"], 60) == str(leased)
