"""What the simulated pool does wrong when it is told to."""

import http.client
import ssl
import subprocess
import sys
import time
import xml.parsers.expat
import xmlrpc.client

import pytest

from tests.simulators.xen_client import TIMEOUT, Client, fails, trusting, unauthenticated
from tests.simulators.xenserver import hostile


def raw(xen, seconds=TIMEOUT):
    """The head and body of an answer to a call, as far as they come within `seconds`."""
    connection = http.client.HTTPSConnection(xen.host, xen.port, timeout=seconds, context=trusting(xen.ca_certificates))
    body = xmlrpc.client.dumps(("x",), "host.get_all")
    connection.request("POST", "/RPC2", body)
    return connection.getresponse()


def test_calls_are_counted_by_name(xen, client):
    xen.calls.clear()
    client.api.host.get_all()
    client.api.host.get_all()
    client.run("SR.scan", client.api.SR.get_all()[0])
    assert xen.calls["host.get_all"] == 2
    assert xen.calls["Async.SR.scan"] == 1


@pytest.mark.parametrize("name", ["host.get_all", ""])
def test_calls_are_delayed(xen, api, name):
    xen.faults.delay(0.2, name)
    started = time.monotonic()
    api.host.get_all()
    assert time.monotonic() - started >= 0.2


def test_next_call_fails_as_told_and_the_one_after_does_not(xen, api):
    xen.faults.fail_next("host.get_all", "HOST_OFFLINE", "OpaqueRef:x")
    with fails("HOST_OFFLINE", "OpaqueRef:x"):
        api.host.get_all()
    assert len(api.host.get_all()) == 2


def test_import_fails_as_told(xen, client):
    vdi = client.new_disc(xen.add_iso_sr("isos"), "one.iso")
    xen.faults.fail_next("PUT /import_raw_vdi", "VDI_IO_ERROR", "Device I/O errors")
    task = client.api.task.create("import", "")
    assert client.put(vdi, bytes(2048), task_id=task).status == 500
    assert client.finished(task)["error_info"] == ["VDI_IO_ERROR", "Device I/O errors"]


def test_vm_is_deleted_during_a_read(xen, api, vm):
    xen.faults.before("VM_guest_metrics.get_all_records", lambda: xen.delete_vm(vm))
    assert vm in api.VM.get_all_records()
    api.VM_guest_metrics.get_all_records()
    with fails("HANDLE_INVALID", "VM", vm):
        api.VM.get_record(vm)


def test_call_that_hangs_lasts_until_the_clients_patience_ends(xen):
    client = Client.of(xen)
    xen.faults.hang("host.get_all")
    with pytest.raises(TimeoutError):
        raw(xen, 0.3).read()
    xen.faults.calm()
    assert len(client.api.host.get_all()) == 2


def test_connection_on_which_tls_never_begins(xen):
    xen.faults.tls_is_silent = True
    with pytest.raises(TimeoutError):
        raw(xen, 0.3)


def test_gzip_bomb_unpacks_to_far_more_than_was_sent(xen):
    xen.faults.answer("host.get_all", hostile.gzip_bomb)
    answer = raw(xen)
    assert answer.getheader("Content-Encoding") == "gzip"
    assert len(answer.read()) < 1024**2 < hostile.BOMB_BYTES


def test_endless_body_goes_on(xen):
    xen.faults.answer("host.get_all", hostile.endless)
    answer = raw(xen)
    assert answer.getheader("Content-Length") is None
    assert len(answer.read(10 * 1024**2)) == 10 * 1024**2


def test_deep_answer_is_deep(xen):
    xen.faults.answer("host.get_all", hostile.deep)
    assert raw(xen).read().count(b"<array>") == hostile.DEPTH


def test_entities_are_refused_by_the_parser(xen):
    xen.faults.answer("session.login_with_password", hostile.entities)
    with pytest.raises(xml.parsers.expat.ExpatError):
        Client.of(xen)


@pytest.mark.parametrize("fault", [hostile.trickle, hostile.huge_length])
def test_answer_that_never_ends_comes_to_none(xen, fault):
    xen.faults.answer("host.get_all", fault)
    answer = raw(xen, 0.3)
    with pytest.raises(TimeoutError):
        answer.read(10**6)


def test_answer_that_is_none(xen):
    session = unauthenticated(xen, xen.url)
    for fault, error in (
        (hostile.hang_up, (http.client.HTTPException, ConnectionError, ssl.SSLError)),
        (hostile.not_xml, xml.parsers.expat.ExpatError),
        (hostile.server_error, xmlrpc.client.ProtocolError),
        (hostile.no_status, TypeError),  # the library trips over its own words
    ):
        xen.faults.answer("session.login_with_password", fault)
        with pytest.raises(error):
            session.login_with_password(xen.username, xen.password, "1.0", "tests")


def test_answer_of_another_type_than_was_asked_for(xen, api):
    xen.faults.answer("host.get_all", hostile.a_number)
    assert api.host.get_all() == "7"


def test_pool_runs_by_hand():
    command = [sys.executable, "-m", "tests.simulators.xenserver", "--vms", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        process.terminate()
        assert process.wait(TIMEOUT) == 0
    told = dict(line.split() for line in lines[:4])
    assert told["URL"].startswith("https://127.0.0.1:")
    assert len(told["fingerprint"]) == 64
