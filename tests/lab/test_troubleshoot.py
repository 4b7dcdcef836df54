"""`troubleshoot` on a real host, with a real guest and a real lease: when all is well, and when not."""

import json
import subprocess

import pytest

from tests.lab.cloud import BOOT, Cloud
from tests.lab.system import wait_for

pytestmark = pytest.mark.lab

Answers = dict[str, tuple[bool | None, str]]


@pytest.fixture(scope="module")
def vm(cloud: Cloud) -> dict:
    vm = cloud.deploy("asked", cloud.lab.hosts[0], cloud.network)
    cloud.address(vm["id"])
    return vm


def ask(cloud: Cloud, vm: dict) -> Answers:
    """What is said about the VM's NIC, by the checks' names."""
    mac = vm["nic"][0]["macaddress"]
    try:
        printed = cloud.server.manage("troubleshoot", mac, "--json")
    except subprocess.CalledProcessError as failed:  # status 1: something is wrong
        printed = failed.stdout
    return {check["name"].replace(mac, "MAC"): (check["passed"], check["text"]) for check in json.loads(printed)}


def test_all_is_well(cloud: Cloud, vm):
    address = cloud.address(vm["id"])
    said = ask(cloud, vm)

    assert [name for name, (passed, _) in said.items() if passed is False] == []
    assert said["agent"] == (True, "connected")
    assert said["NIC MAC"] == (True, f"plugged into {cloud.lab.network.bridge}")
    assert said["guest's answer for MAC"] == (True, address)
    assert said["address of MAC"][1].startswith(f"{address}, confirmed, told by agent")
    assert said["range of MAC"][0] is True
    assert said["agent about MAC"][1].startswith(f"{address}, confirmed")


def test_a_link_that_somebody_has_cut(cloud: Cloud, vm):
    host, mac = cloud.lab.hosts[0], vm["nic"][0]["macaddress"]
    host.virsh("domif-setlink", vm["instancename"], mac, "down")
    try:
        passed, text = ask(cloud, vm)["NIC MAC"]
    finally:
        host.virsh("domif-setlink", vm["instancename"], mac, "up")

    assert passed is False
    # The advice is the command that mends it.
    assert text.endswith(f"virsh domif-setlink {vm['instancename']} {mac} up")


def test_an_agent_that_hangs(cloud: Cloud, vm):
    # Later: it has to answer this call.
    stop = "(sleep 1; kill -STOP $(pidof qemu-ga)) >/dev/null 2>&1 &"
    cloud.lab.hosts[0].guest_run(vm["instancename"], "/bin/sh", "-c", stop)

    def silent() -> Answers | None:
        said = ask(cloud, vm)
        return said if "stopped answering" in said["guest's answer for MAC"][1] else None

    said = wait_for("the agent's silence", silent, 60)

    assert said["agent"] == (True, "connected")
    assert "Look at the VM's console" in said["guest's answer for MAC"][1]
    # Its address is known, so that nothing is wrong with it.
    assert said["guest's answer for MAC"][0] is None
    assert said["address of MAC"][0] is True


def test_a_guest_that_gets_no_lease(cloud: Cloud):
    vm = cloud.deploy("leaseless", cloud.lab.hosts[0], cloud.silent_network)

    def agent_is_there() -> bool:
        return ask(cloud, vm)["agent"][0] is True

    wait_for("its agent", agent_is_there, BOOT)
    said = ask(cloud, vm)

    assert said["guest's answer for MAC"][0] is False
    assert "this NIC has no address" in said["guest's answer for MAC"][1]
    assert "Check the VLAN" in said["guest's answer for MAC"][1]
    assert said["address of MAC"][1].startswith("none.")
    assert "waiting" in said["queue of MAC"][1]
