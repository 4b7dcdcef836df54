"""What the simulated pool tells by itself."""

import threading
import time

import pytest

from tests.simulators.xen_client import Client, fails


def told(answer):
    return [(event["operation"], event["class"], event["ref"]) for event in answer["events"]]


def test_empty_token_gives_everything_as_new(client, vm):
    answer = client.events(["vm"])
    assert ("add", "vm", vm) in told(answer)
    assert {event["operation"] for event in answer["events"]} == {"add"}
    assert len(answer["events"]) == len(client.api.VM.get_all()) == answer["valid_ref_counts"]["vm"]


def test_later_calls_give_what_changed(client, vm):
    token = client.events(["vm"])["token"]
    client.api.VM.set_name_description(vm, "changed")
    answer = client.events(["vm"], token)
    assert told(answer) == [("mod", "vm", vm)]
    snapshot = answer["events"][0]["snapshot"]
    assert snapshot == client.api.VM.get_record(vm)
    assert snapshot["name_description"] == "changed"
    assert told(client.events(["vm"], answer["token"], 0.0)) == []


def test_old_object_that_changes_is_told_too(xen, client, vm):
    template = xen.ref("VM", "debian-12")
    token = client.events(["vm"])["token"]
    client.api.VM.set_name_description(template, "changed")
    assert told(client.events(["vm"], token)) == [("mod", "vm", template)]


def test_value_that_stays_as_it_was_is_no_event(client, vm):
    token = client.events(["vm"])["token"]
    client.api.VM.set_name_label(vm, "web")
    assert told(client.events(["vm"], token, 0.0)) == []


def test_deleted_object_is_told_without_a_snapshot(client, vm):
    token = client.events(["vm"])["token"]
    client.api.VM.destroy(vm)
    [event] = client.events([f"vm/{vm}"], token)["events"]
    assert (event["operation"], event["ref"], "snapshot" in event) == ("del", vm, False)


def test_what_came_and_went_is_not_told(client, vm):
    token = client.events(["vm"])["token"]
    client.api.VM.destroy(client.api.VM.clone(client.api.VM.get_by_name_label("web")[0], "short"))
    answer = client.events(["vm"], token, 0.0)
    assert {ref for _, _, ref in told(answer)} <= {vm}


def test_classes_and_objects_not_asked_for_are_left_out(client, vm):
    [vif] = client.api.VM.get_VIFs(vm)
    token = client.events(["*"])["token"]
    client.api.VIF.add_to_other_config(vif, "extdhcp", "1")
    client.api.VM.set_name_description(vm, "changed")
    assert told(client.events(["vif"], token)) == [("mod", "vif", vif)]
    assert told(client.events([f"vm/{vm}"], token)) == [("mod", "vm", vm)]
    assert told(client.events(["vm/OpaqueRef:other"], token, 0.0)) == []
    assert {ref for _, _, ref in told(client.events(["*"], token))} == {vif, vm}


def test_call_waits_for_the_first_change_and_what_comes_with_it(xen, client, vm):
    client.api.VM.start(vm, False, False)
    token = client.events(["vm_guest_metrics", "vm"])["token"]
    threading.Timer(0.2, lambda: xen.guests.report(vm, {"0/ip": "192.0.2.7"})).start()
    started = time.monotonic()
    answer = client.events(["vm_guest_metrics", "vm"], token)
    assert 0.1 < time.monotonic() - started < 3
    assert [event["class"] for event in answer["events"]] == ["vm_guest_metrics", "vm"]
    assert answer["events"][0]["snapshot"]["networks"] == {"0/ip": "192.0.2.7"}


def test_call_is_back_in_time_when_nothing_changes(client):
    token = client.events(["vm"])["token"]
    started = time.monotonic()
    answer = client.events(["vm"], token, 0.3)
    assert 0.2 < time.monotonic() - started < 3
    assert (answer["events"], answer["token"]) == ([], token)


def test_token_is_that_of_the_last_change_of_what_was_asked_for(client, vm):
    before = client.events(["pool"])["token"]
    client.api.VM.set_name_description(vm, "changed")
    assert client.events(["pool"])["token"] == before
    [pool] = client.api.pool.get_all()
    now = client.api.event.inject("pool", pool)
    assert now > before
    assert told(client.events(["vm", "pool"], now)) == [("mod", "pool", pool)]


@pytest.mark.parametrize("token", ["nonsense", "1", "1,2,3", "-1,0"])
def test_token_of_no_meaning_is_refused(client, token):
    with fails("EVENT_FROM_TOKEN_PARSE_FAILURE", token):
        client.events(["vm"], token)


def test_subscription_of_no_meaning_is_refused(client):
    with fails("EVENT_SUBSCRIPTION_PARSE_FAILURE", "vm/x/y"):
        client.events(["vm/x/y"])


def test_waiting_call_ends_with_its_session(xen):
    client = Client.of(xen)
    # Without a password to log in with again, the library tells.
    client.session.last_login_method = None
    token = client.events(["vm"])["token"]
    threading.Timer(0.2, xen.expire_sessions).start()
    started = time.monotonic()
    with pytest.raises(Exception, match="log in"):
        client.events(["vm"], token, 8.0)
    assert time.monotonic() - started < 3
