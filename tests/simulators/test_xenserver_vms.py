"""The life of a VM in the simulated pool."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.simulators.xen_client import Client, fails
from tests.simulators.xenserver import XenServer

NULL = "OpaqueRef:NULL"
GIB = 1024**3


def host_named(api, name):
    return api.host.get_by_name_label(name)[0]


def test_clone_of_a_template_has_its_own_disk_and_is_a_template(xen, api):
    template = xen.ref("VM", "debian-12")
    clone = api.VM.clone(template, "one")
    disks = {
        vm: [vbd["VDI"] for vbd in api.VBD.get_all_records().values() if vbd["VM"] == vm and vbd["type"] == "Disk"]
        for vm in (template, clone)
    }
    assert disks[template] != disks[clone]
    assert api.VM.get_is_a_template(clone) is True
    assert api.VM.get_uuid(clone) != api.VM.get_uuid(template)


def test_template_is_not_started(xen, api):
    template = xen.ref("VM", "debian-12")
    with fails("VM_IS_TEMPLATE", template):
        api.VM.start(template, False, False)


def test_vm_is_created_from_a_record_and_chooses_neither_uuid_nor_state(xen, api):
    record = api.VM.get_record(xen.ref("VM", "debian-12"))
    record |= {"name_label": "made", "is_a_template": False, "power_state": "Running", "affinity": NULL}
    vm = api.VM.create(record)
    made = api.VM.get_record(vm)
    assert made["uuid"] != record["uuid"]
    assert (made["power_state"], made["name_label"], made["VBDs"]) == ("Halted", "made", [])
    assert made["platform"] == record["platform"]


def test_constructor_wants_every_required_field(xen, api):
    record = api.VM.get_record(xen.ref("VM", "debian-12"))
    del record["PV_args"]
    with fails("FIELD_TYPE_ERROR", "PV_args"):
        api.VM.create(record)


def test_started_vm_runs_on_a_host_with_its_devices(api, vm):
    api.VM.start(vm, False, False)
    record = api.VM.get_record(vm)
    assert record["power_state"] == "Running"
    assert vm in api.host.get_resident_VMs(record["resident_on"])
    assert int(record["domid"]) > 0
    assert all(api.VBD.get_currently_attached(vbd) for vbd in record["VBDs"])
    assert all(api.VIF.get_currently_attached(vif) for vif in record["VIFs"])


def test_vm_is_started_on_a_host(api, vm):
    host = host_named(api, "xen2")
    api.VM.start_on(vm, host, False, False)
    assert api.VM.get_resident_on(vm) == host


def test_started_vm_is_not_started_again(api, vm):
    api.VM.start(vm, False, False)
    with fails("VM_BAD_POWER_STATE", vm, "halted", "running"):
        api.VM.start(vm, False, False)


def test_halted_vm_is_not_shut_down(api, vm):
    with fails("VM_BAD_POWER_STATE", vm):
        api.VM.hard_shutdown(vm)


def test_running_vm_is_not_destroyed(api, vm):
    api.VM.start(vm, False, False)
    with fails("VM_BAD_POWER_STATE", vm, "halted", "running"):
        api.VM.destroy(vm)


def test_destroyed_vm_leaves_its_disk_and_nothing_else(api, vm):
    record = api.VM.get_record(vm)
    disk = next(vdi for vbd in record["VBDs"] if (vdi := api.VBD.get_VDI(vbd)) != NULL)
    api.VM.destroy(vm)
    assert api.VDI.get_VBDs(disk) == []
    for class_name, refs in (("VBD", record["VBDs"]), ("VIF", record["VIFs"]), ("VM", [vm])):
        assert not set(refs) & set(getattr(api, class_name).get_all())


def test_host_without_memory_is_refused_and_none_left_is_said(api, vm):
    api.VM.set_memory(vm, str(400 * GIB))
    with fails("HOST_NOT_ENOUGH_FREE_MEMORY", str(400 * GIB)):
        api.VM.start_on(vm, host_named(api, "xen1"), False, False)
    with fails("NO_HOSTS_AVAILABLE"):
        api.VM.start(vm, False, False)


def test_disabled_host_is_refused(api, vm):
    host = host_named(api, "xen1")
    api.host.disable(host)
    with fails("HOST_DISABLED", host):
        api.VM.start_on(vm, host, False, False)


def test_running_vms_take_memory_from_their_host(api, vm):
    host = host_named(api, "xen1")
    before = int(api.host.compute_free_memory(host))
    api.VM.start_on(vm, host, False, False)
    assert before - int(api.host.compute_free_memory(host)) == GIB


def test_clean_shut_down_ends_a_guest_that_obeys(api, vm):
    api.VM.start(vm, False, False)
    api.VM.clean_shutdown(vm)
    record = api.VM.get_record(vm)
    assert (record["power_state"], record["resident_on"], record["domid"]) == ("Halted", NULL, "-1")


def test_guest_that_does_not_obey_is_waited_for_and_then_cut(xen, api, vm):
    api.VM.start(vm, False, False)
    xen.guests.ignores_shutdown(vm)
    with fails("VM_SHUTDOWN_TIMEOUT", vm):
        api.VM.clean_shutdown(vm)
    api.VM.hard_shutdown(vm)
    assert api.VM.get_power_state(vm) == "Halted"


def test_power_is_cut_while_a_guest_takes_its_time(xen, client, vm):
    client.api.VM.start(vm, False, False)
    xen.guests.ignores_shutdown(vm)
    xen.guests.shutdown_seconds = 30.0
    client.api.Async.VM.clean_shutdown(vm)
    client.api.VM.hard_shutdown(vm)
    assert client.api.VM.get_power_state(vm) == "Halted"


def test_guest_without_drivers_is_neither_asked_nor_moved(xen, api, vm):
    api.VM.start_on(vm, host_named(api, "xen1"), False, False)
    xen.guests.without_drivers(vm)
    with fails("VM_LACKS_FEATURE", vm):
        api.VM.clean_shutdown(vm)
    with fails("VM_LACKS_FEATURE", vm):
        api.VM.pool_migrate(vm, host_named(api, "xen2"), {"live": "true"})


def test_reboot_is_a_new_domain_on_the_same_host(api, vm):
    api.VM.start(vm, False, False)
    before = api.VM.get_record(vm)
    api.VM.hard_reboot(vm)
    after = api.VM.get_record(vm)
    assert after["domid"] != before["domid"]
    assert (after["power_state"], after["resident_on"]) == ("Running", before["resident_on"])


def test_suspended_vm_goes_on_where_it_is_told(api, vm):
    api.VM.start(vm, False, False)
    api.VM.suspend(vm)
    assert api.VM.get_resident_on(vm) == NULL
    api.VM.resume_on(vm, host_named(api, "xen2"), False, False)
    assert (api.VM.get_power_state(vm), api.VM.get_resident_on(vm)) == ("Running", host_named(api, "xen2"))


def test_migration_moves_a_running_vm(api, vm):
    api.VM.start_on(vm, host_named(api, "xen1"), False, False)
    api.VM.pool_migrate(vm, host_named(api, "xen2"), {"live": "true"})
    assert api.VM.get_resident_on(vm) == host_named(api, "xen2")


def test_halted_vm_is_not_migrated(api, vm):
    with fails("VM_BAD_POWER_STATE", vm):
        api.VM.pool_migrate(vm, host_named(api, "xen2"), {"live": "true"})


def test_network_that_a_host_is_not_on_keeps_vms_away(xen, api, vm):
    host = host_named(api, "xen2")
    [pif] = [ref for ref, pif in api.PIF.get_all_records().items() if pif["host"] == host]
    api.PIF.unplug(pif)
    with fails("VM_REQUIRES_NETWORK", vm):
        api.VM.start_on(vm, host, False, False)
    assert api.VM.get_possible_hosts(vm) == [host_named(api, "xen1")]


# Tasks


def test_asynchronous_call_is_a_task_that_succeeds(xen, client, vm):
    xen.pace["clone"] = 0.2
    task = client.api.Async.VM.clone(vm, "later")
    assert client.api.task.get_status(task) == "pending"
    record = client.finished(task)
    [made] = client.api.VM.get_by_name_label("later")
    assert (record["status"], record["result"]) == ("success", f"<value>{made}</value>")


def test_task_that_fails_says_why(client, vm):
    record = client.run("VM.hard_shutdown", vm)
    assert record["status"] == "failure"
    assert record["error_info"][:2] == ["VM_BAD_POWER_STATE", vm]


def test_busy_vm_refuses_another_operation(xen, client, vm):
    xen.pace["start"] = 0.5
    task = client.api.Async.VM.start(vm, False, False)
    wait_for(lambda: client.api.VM.get_current_operations(vm) == {task: "start"})
    with fails("OTHER_OPERATION_IN_PROGRESS", "VM", vm, "start"):
        client.api.VM.clone(vm, "meanwhile")
    assert client.finished(task)["status"] == "success"
    assert client.api.VM.get_current_operations(vm) == {}


def test_cancelled_task_has_no_effect(xen, client, vm):
    xen.pace["start"] = 30.0
    task = client.api.Async.VM.start(vm, False, False)
    wait_for(lambda: client.api.VM.get_current_operations(vm))
    client.api.task.cancel(task)
    assert client.finished(task)["status"] == "cancelled"
    assert client.api.VM.get_power_state(vm) == "Halted"


def test_destroyed_task_is_gone(client, vm):
    task = client.api.task.create("ours", "")
    client.api.task.destroy(task)
    with fails("HANDLE_INVALID", "task", task):
        client.api.task.get_status(task)


def wait_for(condition, seconds=5.0):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


# Guests


@pytest.fixture
def running(api, vm):
    api.VM.start(vm, False, False)
    return vm


def networks(api, vm):
    return api.VM_guest_metrics.get_networks(api.VM.get_guest_metrics(vm))


def test_guest_says_nothing_at_first(api, running):
    assert api.VM.get_guest_metrics(running) == NULL


def test_todays_agent_reports_by_device_number(xen, api, running):
    xen.guests.has_addresses(running, "02:00:00:00:00:07", "192.0.2.7", "192.0.2.8", "2001:db8::7")
    assert networks(api, running) == {
        "0/ip": "192.0.2.7",
        "0/ipv4/0": "192.0.2.7",
        "0/ipv4/1": "192.0.2.8",
        "0/ipv6/0": "2001:db8::7",
    }


def test_changed_address_replaces_what_this_nic_had_and_no_others(xen, api, running):
    xen.guests.report(running, {"0/ip": "192.0.2.1", "0/ipv4/0": "192.0.2.1", "1/ip": "198.51.100.1"})
    xen.guests.has_addresses(running, "02:00:00:00:00:07", "192.0.2.7")
    assert networks(api, running) == {"0/ip": "192.0.2.7", "0/ipv4/0": "192.0.2.7", "1/ip": "198.51.100.1"}


def test_agent_that_takes_its_address_back_reports_none(xen, api, running):
    xen.guests.has_addresses(running, "02:00:00:00:00:07", "192.0.2.7")
    xen.guests.has_addresses(running, "02:00:00:00:00:07")
    assert networks(api, running) == {}


def test_old_agent_reports_by_the_number_in_the_guests_own_name(xen, api, running):
    xen.guests.has_interfaces(running, {"ens3": "192.0.2.7", "enp0s3": "192.0.2.8", "enX0": "192.0.2.9"})
    assert networks(api, running) == {"3/ip": "192.0.2.7"}


@pytest.mark.parametrize("restart", ["reboot", "stop and start"])
def test_each_boot_has_metrics_of_its_own(xen, api, running, restart):
    before = xen.guests.report(running, {"0/ip": "192.0.2.7"})
    if restart == "reboot":
        api.VM.hard_reboot(running)
    else:
        api.VM.hard_shutdown(running)
        api.VM.start(running, False, False)
    assert api.VM.get_guest_metrics(running) == NULL
    with fails("HANDLE_INVALID", "VM_guest_metrics", before):
        api.VM_guest_metrics.get_record(before)
    assert xen.guests.report(running, {}) != before


def test_dead_agent_leaves_what_it_said(xen, api, running):
    metrics = xen.guests.report(running, {"0/ip": "192.0.2.7"})
    xen.guests.falls_silent(running)
    record = api.VM_guest_metrics.get_record(metrics)
    assert (record["live"], record["networks"]) == (False, {"0/ip": "192.0.2.7"})


def test_guests_report_by_themselves_when_told_to(xen, api, vm):
    xen.guests.automatic(0.05, "192.0.2.0/24")
    api.VM.start(vm, False, False)
    wait_for(lambda: api.VM.get_guest_metrics(vm) != NULL)
    assert networks(api, vm)["0/ip"].startswith("192.0.2.")


def test_pool_of_one_host_says_what_is_in_the_way():
    with XenServer(hosts=1) as xen:
        api = Client.of(xen).api
        vm = api.VM.clone(xen.ref("VM", "debian-12"), "one")
        api.VM.set_is_a_template(vm, False)
        host = host_named(api, "xen1")
        api.host.disable(host)
        with fails("HOST_DISABLED", host):
            api.VM.start(vm, False, False)


def test_several_callers_at_once_do_not_meet(xen):
    template = xen.ref("VM", "debian-12")

    def live(number):
        api = Client.of(xen).api
        for turn in range(3):
            vm = api.VM.clone(template, f"vm-{number}-{turn}")
            api.VM.set_is_a_template(vm, False)
            api.VM.start(vm, False, False)
            assert vm in api.VM.get_all_records()
            api.VM.hard_shutdown(vm)
            api.VM.destroy(vm)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(live, range(8)))
    names = {row["name_label"] for row in xen.db.rows("VM") if not row["is_control_domain"]}
    assert names == {"debian-12"}
