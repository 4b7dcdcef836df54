"""The main job on XenServer and VMware, as on KVM: by CloudStack's own client, on a server with its workers.

The tests stand in the order in which a VM goes through its life.
"""

from typing import Any

import pytest

from tests.configdrive.drives import contents
from tests.pools.conftest import USER_DATA, Cloud

# Each stands on what the one before it did, so they are not shared out among processes.
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def vm(cloud: Cloud) -> dict[str, Any]:
    """A VM on the first host, which the tests below walk through its life."""
    return cloud.deploy("walk", cloud.world.hosts[0])


def the_drive(cloud: Cloud) -> dict[str, bytes]:
    (image,) = cloud.world.drives()
    return contents(image, "rr")


def test_check_endpoint_finds_all_in_order(cloud: Cloud):
    assert "FAILED" not in cloud.server.manage("check_endpoint", "pool")


def test_the_vm_runs_on_the_host_that_was_named(cloud: Cloud, vm):
    assert (vm["state"], vm["hostname"]) == ("Running", cloud.world.hosts[0])
    assert cloud.world.vms() == [vm["instancename"]]


def test_its_drive_lies_in_the_storage_with_what_the_guest_is_to_know(cloud: Cloud, vm):
    files = the_drive(cloud)
    assert files["cloudstack/userdata/user_data.txt"] == USER_DATA
    assert files["cloudstack/metadata/local_hostname.txt"].decode() == "walk"
    assert files["cloudstack/password/vm_password.txt"].decode() == vm["password"]


def test_the_address_that_the_guest_reports_is_shown(cloud: Cloud, vm):
    cloud.world.guest_has(vm, "192.0.2.57")
    assert cloud.address(vm["id"]) == "192.0.2.57"
    (nic,) = cloud.api.listNics(virtualmachineid=vm["id"])["nic"]
    assert (nic["addressstate"], nic["addresssource"]) == ("confirmed", "agent")


def test_nothing_is_wrong_with_it(cloud: Cloud, vm):
    assert "FAILED" not in cloud.server.manage("troubleshoot", vm["id"])


def test_it_migrates_live_with_its_drive(cloud: Cloud, vm):
    before = cloud.world.drives()
    there = cloud.world.hosts[1]
    moved = cloud.api.migrateVirtualMachine(virtualmachineid=vm["id"], hostid=cloud.host_id(there), fetch_result=True)[
        "virtualmachine"
    ]
    assert (moved["state"], moved["hostname"]) == ("Running", there)
    assert cloud.world.drives() == before


def test_after_a_stop_its_drive_is_gone_and_its_address_is_the_last_known(cloud: Cloud, vm):
    cloud.api.stopVirtualMachine(id=vm["id"], fetch_result=True)
    assert cloud.world.drives() == []
    (nic,) = cloud.api.listNics(virtualmachineid=vm["id"])["nic"]
    assert nic["addressstate"] == "last_known"


def test_a_password_that_was_reset_is_on_its_next_drive(cloud: Cloud, vm):
    reset = cloud.api.resetPasswordForVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]
    cloud.api.startVirtualMachine(id=vm["id"], fetch_result=True)
    assert the_drive(cloud)["cloudstack/password/vm_password.txt"].decode() == reset["password"] != vm["password"]


def test_a_destroyed_vm_comes_back_with_its_volume(cloud: Cloud, vm):
    cloud.api.destroyVirtualMachine(id=vm["id"], fetch_result=True)
    assert cloud.world.drives() == []
    cloud.api.recoverVirtualMachine(id=vm["id"])
    started = cloud.api.startVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]
    assert started["state"] == "Running"
    assert cloud.world.vms() == [vm["instancename"]]


def test_a_vm_destroyed_for_good_leaves_nothing(cloud: Cloud, vm):
    cloud.api.destroyVirtualMachine(id=vm["id"], expunge=True, fetch_result=True)
    assert (cloud.world.vms(), cloud.world.drives()) == ([], [])
    assert cloud.world.volumes() == []
