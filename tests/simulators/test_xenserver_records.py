"""How the simulated pool spells its objects, and what it answers to what it does not know."""

import time
import xmlrpc.client

import pytest

from tests.simulators.xen_client import fails
from tests.simulators.xenserver.classes import CLASSES

NULL = "OpaqueRef:NULL"


@pytest.mark.parametrize("class_name", sorted(CLASSES))
def test_records_have_every_field_of_their_class(api, vm, class_name):
    api.VM.start(vm, False, False)
    for record in getattr(api, class_name).get_all_records().values():
        assert set(record) == set(CLASSES[class_name])


def test_whole_numbers_are_strings_and_dates_are_dates(api, vm):
    record = api.VM.get_record(vm)
    assert record["memory_static_max"] == str(1024**3)
    assert record["domid"] == "-1"
    assert isinstance(record["snapshot_time"], xmlrpc.client.DateTime)
    assert record["is_a_template"] is False
    assert record["HVM_shadow_multiplier"] == 1.0
    assert (record["guest_metrics"], record["resident_on"]) == (NULL, NULL)


def test_every_field_has_a_getter(api, vm):
    record = api.VM.get_record(vm)
    for name in ("name_label", "VIFs", "platform", "memory_dynamic_max", "snapshot_time"):
        assert getattr(api.VM, f"get_{name}")(vm) == record[name]


def test_writable_field_is_set_and_its_map_added_to(api, vm):
    api.VM.set_name_description(vm, "ours & <theirs>")
    api.VM.add_to_other_config(vm, "extdhcp", "1")
    assert api.VM.get_name_description(vm) == "ours & <theirs>"
    assert api.VM.get_other_config(vm)["extdhcp"] == "1"
    api.VM.remove_from_other_config(vm, "extdhcp")
    assert "extdhcp" not in api.VM.get_other_config(vm)


def test_key_of_a_map_is_added_once(api, vm):
    api.VM.add_to_other_config(vm, "extdhcp", "1")
    with fails("MAP_DUPLICATE_KEY", "VM", "other_config", vm, "extdhcp"):
        api.VM.add_to_other_config(vm, "extdhcp", "2")


def test_set_takes_a_member_once(api, vm):
    api.VM.add_tags(vm, "ours")
    api.VM.add_tags(vm, "ours")
    assert api.VM.get_tags(vm) == ["ours"]
    api.VM.remove_tags(vm, "ours")
    assert api.VM.get_tags(vm) == []


def test_what_the_server_alone_writes_has_no_setter(api, vm):
    with fails("MESSAGE_METHOD_UNKNOWN", "VM.set_power_state"):
        api.VM.set_power_state(vm, "Running")


def test_unknown_message_and_wrong_number_of_parameters_are_refused(api, vm):
    with fails("MESSAGE_METHOD_UNKNOWN", "VM.levitate"):
        api.VM.levitate(vm)
    with fails("MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start"):
        api.VM.start(vm)


def test_reference_that_is_gone_null_or_of_another_class_is_invalid(api, vm):
    vif = api.VM.get_VIFs(vm)[0]
    for ref in ("OpaqueRef:gone", NULL, vif):
        with fails("HANDLE_INVALID", "VM", ref):
            api.VM.get_record(ref)


def test_objects_are_found_by_uuid_and_by_name(api, vm):
    assert api.VM.get_by_uuid(api.VM.get_uuid(vm)) == vm
    assert api.VM.get_by_name_label("web") == [vm]
    assert api.VM.get_by_name_label("no such") == []
    with fails("UUID_INVALID", "VM", "no such"):
        api.VM.get_by_uuid("no such")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('field "name__label" = "web"', True),
        ("field 'name__label' = 'web'", True),
        ('field "is_a_template" = "true"', False),
        ('not (field "is_a_template" = "true") and field "power_state" = "Halted"', True),
        ('field "power_state" = "Running" or field "name__label" = "web"', True),
        ('field "memory__static_max" = "1073741824"', True),
        ("true", True),
        ("not true", False),
    ],
)
def test_records_are_filtered_by_an_expression_over_columns(api, vm, expression, found):
    assert (vm in api.VM.get_all_records_where(expression)) is found


@pytest.mark.parametrize("expression", ["", 'field "name_label" = "web"', 'field "uuid" =', "field uuid = web", "("])
def test_expression_that_xapi_cannot_evaluate_is_refused(api, vm, expression):
    with fails("INTERNAL_ERROR"):
        api.VM.get_all_records_where(expression)


def test_number_that_is_not_a_string_is_refused(api, vm):
    with fails("FIELD_TYPE_ERROR"):
        api.VM.set_memory(vm, 1024**3)


def test_both_ends_of_a_reference_are_kept_in_step(api, vm):
    vif = api.VM.get_VIFs(vm)[0]
    network = api.VIF.get_network(vif)
    assert vif in api.network.get_VIFs(network)
    api.VIF.destroy(vif)
    assert api.VM.get_VIFs(vm) == []
    assert vif not in api.network.get_VIFs(network)


def test_thousands_of_vms_are_made_at_once(xen, api):
    started = time.monotonic()
    refs = xen.add_vms(1000)
    assert time.monotonic() - started < 10
    metrics = api.VM_guest_metrics.get_all_records()
    vifs = {vif["VM"]: vif for vif in api.VIF.get_all_records().values()}
    assert len({vif["MAC"] for vif in vifs.values()}) == 1000
    records = api.VM.get_all_records_where('field "power_state" = "Running" and field "is_control_domain" = "false"')
    assert set(records) == set(refs)
    addresses = {metrics[record["guest_metrics"]]["networks"]["0/ip"] for record in records.values()}
    assert len(addresses) == 1000
