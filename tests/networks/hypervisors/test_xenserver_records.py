"""XenAPI's records as values: a pool's answer is not trusted."""

import pytest

from networks.hypervisors import xenserver_records as records
from networks.hypervisors.base import PowerState, Refused
from networks.hypervisors.bounded import AnswerRefused

REF = "OpaqueRef:1b7d9cc4-6a0b-4f2a-b8b9-0e5d3ad0a111"
OURS = "11111111-0000-4000-8000-000000000001"


def of_vm(**fields):
    return {
        "uuid": "22222222-0000-4000-8000-000000000002",
        "name_label": "i-2-3-VM",
        "power_state": "Running",
        "resident_on": REF,
        "affinity": records.NULL,
        "guest_metrics": records.NULL,
        "other_config": {},
        "is_a_template": False,
        "is_control_domain": False,
        "VIFs": [],
        "VBDs": [],
    } | fields


def test_our_vm_is_known_by_our_uuid():
    config = {records.OUR_UUID: OURS.upper(), records.OUR_SELF: of_vm()["uuid"]}
    vm = records.vm(REF, of_vm(other_config=config))

    assert (vm.uuid, vm.ours) == (OURS, True)


def test_copy_of_our_vm_is_known_by_its_own():
    vm = records.vm(REF, of_vm(other_config={records.OUR_UUID: OURS, records.OUR_SELF: "another"}))

    assert (vm.uuid, vm.ours) == (of_vm()["uuid"], False)


@pytest.mark.parametrize("mark", ["is_a_template", "is_control_domain"])
def test_what_only_looks_like_a_vm_is_none(mark):
    assert records.vm(REF, of_vm(**{mark: True})) is None


@pytest.mark.parametrize(
    ("told", "power"),
    [
        ("Running", PowerState.RUNNING),
        ("Halted", PowerState.OFF),
        ("Paused", PowerState.PAUSED),
        ("Suspended", PowerState.PAUSED),
    ],
)
def test_power_states(told, power):
    assert records.vm(REF, of_vm(power_state=told)).power is power


@pytest.mark.parametrize(
    "odd",
    [
        {"uuid": 7},
        {"uuid": None},
        {"name_label": ["x"]},
        {"is_a_template": "false"},
        {"other_config": []},
        {"other_config": "x"},
        {"VIFs": "OpaqueRef:x"},
        {"VIFs": ["x"]},
        {"VIFs": [{}]},
        {"guest_metrics": "<img>"},
        {"resident_on": ""},
    ],
)
def test_field_of_another_type_is_an_odd_answer(odd):
    with pytest.raises(AnswerRefused):
        records.vm(REF, of_vm(**odd))


def test_missing_field_is_an_odd_answer():
    with pytest.raises(AnswerRefused, match="power_state"):
        records.vm(REF, {name: value for name, value in of_vm().items() if name != "power_state"})


@pytest.mark.parametrize("value", ["x", "", "1.5", 7, None, "9" * 30, "0x10", "\uff11"])
def test_what_is_no_number_of_xenapi_s(value):
    with pytest.raises(AnswerRefused):
        records.number({"size": value}, "size")


@pytest.mark.parametrize("value", [7, None, [], "x"])
def test_what_is_no_table_of_records(value):
    with pytest.raises(AnswerRefused):
        records.records(value)


def test_odd_answer_is_not_repeated_at_length():
    with pytest.raises(AnswerRefused) as refused:
        records.text({}, "x" * 10_000)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("value", ['x" or "a"="a', "", "OpaqueRef:", 'OpaqueRef:x"'])
def test_nothing_but_references_gets_into_an_expression(value):
    with pytest.raises(AnswerRefused):
        records.where("VM", value)


@pytest.mark.parametrize("name", ["i-2-3-VM", "a.b_c"])
def test_names_of_vms(name):
    assert records.vm_name(name) == name


@pytest.mark.parametrize("name", ["a\nb", "", "-a", "a b", "ü", "x" * 101])
def test_what_is_no_name_of_a_vm(name):
    with pytest.raises(Refused):
        records.vm_name(name)


@pytest.mark.parametrize("name", ["", "a\x00", "a\nb", "x" * 300])
def test_what_is_no_label(name):
    with pytest.raises(Refused):
        records.label(name, "The name")


@pytest.mark.parametrize("name", ["Pool-wide network associated with eth0", 'odd "name" <&>', "Größe ☃"])
def test_labels_that_administrators_give(name):
    assert records.label(name, "The name") == name
