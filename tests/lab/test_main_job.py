"""The main job on real hosts, with CloudStack's own `cs` client: issue by issue what a person would do.

The tests stand in the order in which a VM goes through its life, on guests that boot once.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from cs import CloudStackApiException

from tests.lab.cloud import BOOT, USER_DATA, Cloud
from tests.lab.system import wait_for

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def vms(cloud: Cloud) -> list[dict[str, Any]]:
    """Two running VMs, one a host, which the tests below walk through their life."""
    return [cloud.deploy(f"walk-{number}", host, cloud.network) for number, host in enumerate(cloud.lab.hosts, start=1)]


def test_each_vm_runs_on_the_host_that_was_named(cloud: Cloud, vms):
    for vm, host in zip(vms, cloud.lab.hosts, strict=True):
        assert (vm["state"], vm["hostname"]) == ("Running", host.name)
        assert cloud.domains_of(host) == [vm["instancename"]]


def test_list_nics_shows_exactly_the_leased_address(cloud: Cloud, vms):
    for vm in vms:
        shown = cloud.address(vm["id"])
        leased = cloud.lab.dhcp.leases()[vm["nic"][0]["macaddress"]]
        assert shown == str(leased) == cloud.vm(vm["id"])["ipaddress"]


def test_the_guests_console_shows_the_drives_files_and_the_lease(cloud: Cloud, vms):
    for vm, host in zip(vms, cloud.lab.hosts, strict=True):
        console = cloud.console(host, vm["instancename"])
        nic = vm["nic"][0]
        assert "LAB-DRIVE-BEGIN /dev/sr" in console
        for path in (
            "cloudstack/metadata/local_hostname.txt",
            "cloudstack/metadata/availability_zone.txt",
            f"cloudstack/userdata/user_data.txt {len(USER_DATA)}",
            "cloudstack/password/vm_password.txt 16",
            "openstack/latest/meta_data.json",
        ):
            assert f"LAB-FILE {path}" in console
        assert f"\n{vm['name']}" in console
        assert f"LAB-LEASE eth0 {nic['macaddress']} {cloud.address(vm['id'])}" in console


def test_the_password_of_the_job_result_is_the_one_on_the_drive(cloud: Cloud, vms):
    vm, host = vms[0], cloud.lab.hosts[0]
    on_the_drive = host.guest_run(vm["instancename"], "/bin/cat", "/mnt/config/cloudstack/password/vm_password.txt")
    assert vm["password"] == on_the_drive
    assert "password" not in cloud.vm(vm["id"])


def test_one_info_event_tells_of_the_address(cloud: Cloud, vms):
    for vm in vms:
        events = cloud.api.listEvents(type="EXTERNAL.DHCP.VM.IP.FETCH", resourceid=vm["id"])["event"]
        assert [(event["level"], cloud.address(vm["id"]) in event["description"]) for event in events] == [
            ("INFO", True)
        ]
        assert "got fetched successfully" in events[0]["description"]


def test_the_file_on_the_host_is_the_owners_alone(cloud: Cloud, vms):
    for host in cloud.lab.hosts:
        (drive,) = host.config_drives.iterdir()
        assert drive.stat().st_mode & 0o777 == 0o600


def test_check_endpoint_finds_a_host_in_order(cloud: Cloud, vms):
    printed = cloud.server.manage("check_endpoint", "kvm-1")
    assert "FAILED" not in printed
    assert "network vlan100 on kvm-1: cloudbr100" in printed


def test_a_live_migration_takes_the_drive_along_and_leaves_nothing(cloud: Cloud, vms):
    vm, (source, target) = vms[0], cloud.lab.hosts
    instance, drives = vm["instancename"], cloud.drives_of(source)
    before = source.guest_run(instance, "/bin/reread")
    address = cloud.address(vm["id"])

    cloud.api.migrateVirtualMachine(virtualmachineid=vm["id"], hostid=cloud.host_id(target), fetch_result=True)

    assert cloud.vm(vm["id"])["hostname"] == target.name
    assert target.guest_run(instance, "/bin/reread") == before
    assert (cloud.drives_of(source), cloud.domains_of(source)) == ([], [])
    assert set(drives) < set(cloud.drives_of(target))
    assert cloud.nic(vm["id"])["ipaddress"] == address


def test_a_reboot_keeps_the_drive_and_finds_the_address_again(cloud: Cloud, vms):
    vm, host = vms[0], cloud.lab.hosts[1]
    drives = cloud.drives_of(host)

    cloud.api.rebootVirtualMachine(id=vm["id"], fetch_result=True)

    assert cloud.drives_of(host) == drives
    wait_for("the address to be found again", lambda: cloud.queue(vm["id"]) == [("found", 10)], BOOT)


def test_a_stop_takes_the_nic_out_of_the_queue_and_the_iso_off_the_host(cloud: Cloud, vms):
    vm, host = vms[1], cloud.lab.hosts[1]
    (drive,) = [name for name in cloud.drives_of(host) if name.startswith(f"{vm['instancename']}-")]
    assert cloud.queue(vm["id"])

    stopped = cloud.api.stopVirtualMachine(id=vm["id"], fetch_result=True)["virtualmachine"]

    assert stopped["state"] == "Stopped"
    assert "LAB-POWEROFF" in cloud.console(host, vm["instancename"])
    assert cloud.queue(vm["id"]) == []
    assert drive not in cloud.drives_of(host)
    assert vm["instancename"] not in cloud.domains_of(host)


def test_a_start_builds_a_new_iso_and_learns_the_address_anew(cloud: Cloud, vms):
    vm = vms[1]
    former = {name for host in cloud.lab.hosts for name in cloud.drives_of(host)}

    cloud.api.startVirtualMachine(id=vm["id"], fetch_result=True)

    host = next(host for host in cloud.lab.hosts if host.name == cloud.vm(vm["id"])["hostname"])
    (drive,) = [name for name in cloud.drives_of(host) if name.startswith(f"{vm['instancename']}-2-")]
    assert drive not in former
    wait_for("the address", lambda: cloud.queue(vm["id"]) == [("found", 10)], BOOT)
    assert cloud.address(vm["id"]) == str(cloud.lab.dhcp.leases()[vm["nic"][0]["macaddress"]])


def test_destroy_with_expunge_leaves_nothing_on_host_or_queue(cloud: Cloud, vms):
    for vm in vms:
        cloud.api.destroyVirtualMachine(id=vm["id"], expunge=True, fetch_result=True)

    assert [cloud.drives_of(host) + cloud.domains_of(host) for host in cloud.lab.hosts] == [[], []]
    assert cloud.sql("SELECT count(*) FROM ipfetch_ipfetch") == [(0,)]
    assert cloud.api.listVirtualMachines(listall=True) == {}


def test_a_guest_from_an_image_has_a_root_overlay_that_expunge_removes(cloud: Cloud):
    images = set(cloud.lab.images.iterdir())
    vm = cloud.deploy("from-disk", cloud.lab.hosts[0], cloud.network, template="small-linux-disk")
    cloud.address(vm["id"])
    (overlay,) = set(cloud.lab.images.iterdir()) - images
    assert overlay.name.startswith("ROOT-")

    cloud.api.destroyVirtualMachine(id=vm["id"], fetch_result=True)
    assert overlay.exists()
    cloud.api.destroyVirtualMachine(id=vm["id"], expunge=True, fetch_result=True)

    assert set(cloud.lab.images.iterdir()) == images


# The spec's loop to its end, where no DHCP server answers: tries fall, one ERROR event, and a later start begins anew.


@pytest.fixture(scope="module")
def silent(cloud: Cloud) -> Iterator[dict[str, Any]]:
    settings = {
        "externaldhcp.vmip.retrieval.interval": 3,
        "externaldhcp.vmip.max.retry": 4,
        "externaldhcp.vmip.early.retry": "false",
    }
    for name, value in settings.items():
        cloud.api.updateConfiguration(name=name, value=value)
    vm = cloud.deploy("silent", cloud.lab.hosts[0], cloud.silent_network)
    yield vm
    cloud.api.destroyVirtualMachine(id=vm["id"], expunge=True, fetch_result=True)
    for name, value in zip(settings, (180, 10, "true"), strict=True):
        cloud.api.updateConfiguration(name=name, value=value)


def test_tries_fall_until_it_is_given_up(cloud: Cloud, silent):
    seen = set()

    def exhausted() -> bool:
        ((state, left),) = cloud.queue(silent["id"])
        seen.add(left)
        return state == "exhausted"

    wait_for("the last try", exhausted, BOOT)
    assert seen >= {0, 1, 2}


def test_there_is_no_address_and_one_error_event(cloud: Cloud, silent):
    assert "ipaddress" not in cloud.nic(silent["id"])
    assert "ipaddress" not in cloud.vm(silent["id"])
    events = cloud.api.listEvents(type="EXTERNAL.DHCP.VM.IP.FETCH", resourceid=silent["id"])["event"]
    assert [event["level"] for event in events] == ["ERROR"]


def test_a_later_start_begins_anew(cloud: Cloud, silent):
    cloud.api.stopVirtualMachine(id=silent["id"], forced=True, fetch_result=True)
    cloud.api.updateConfiguration(name="externaldhcp.vmip.retrieval.interval", value=600)

    cloud.api.startVirtualMachine(id=silent["id"], fetch_result=True)

    assert cloud.queue(silent["id"]) == [("waiting", 4)]


def test_a_host_that_died_leaves_the_vm_in_error_with_the_reason(cloud: Cloud):
    dead = cloud.lab.hosts[1]
    dead.unplug()
    try:
        with pytest.raises(CloudStackApiException) as refused:
            cloud.deploy("unlucky", dead, cloud.network)
    finally:
        dead.plug_in()

    vm = cloud.api.listVirtualMachines(name="unlucky")["virtualmachine"][0]
    assert "The hypervisor did not answer" in str(refused.value.error)
    assert vm["state"] == "Error"
    assert "did not answer" in vm["errortext"]
    assert cloud.queue(vm["id"]) == []
    assert cloud.api.listHosts(name=dead.name)["host"][0]["memoryallocated"] == 0
