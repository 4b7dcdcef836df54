"""Calls and files over HTTPS, with a hypervisor that behaves. How one that does not is met: test_bounded_hostile.py."""

import os
import threading
import time
import xmlrpc.client
from functools import partial

import pytest
import XenAPI
from pyVmomi import vim, vmodl

from networks.hypervisors.base import (
    CertificateRefused,
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    NotFound,
    Refused,
    Transport,
)
from networks.hypervisors.bounded import HttpsClient, StatusRefused, within
from networks.hypervisors.bounded_soap import SoapStub
from networks.hypervisors.bounded_xmlrpc import RECORDS, SNAPSHOTS, RpcTransport, keeping
from tests.networks.hypervisors.factories import soon
from tests.networks.hypervisors.hostile import OBJECT, VSPHERE, XEN, call_vsphere, call_xen
from tests.networks.hypervisors.https_servers import (
    HOST,
    Server,
    answering,
    http,
    make_identity,
    request_of,
    serving,
    silent,
)

IDENTITY = make_identity(HOST)
OTHER_HOST = "127.0.0.3"
OTHER = make_identity(OTHER_HOST)


def pinned(server: Server, identity=IDENTITY) -> EndpointAddress:
    return server.address(fingerprint=identity.fingerprint)


def serve(*answers, identity=IDENTITY, host=HOST):
    return serving(answering(*answers), identity.context(), host)


def session_at(server: Server) -> XenAPI.Session:
    return XenAPI.Session("https://endpoint/", transport=RpcTransport(pinned(server)), allow_none=True)


def xen(value: object) -> bytes:
    """What xapi answers for `value`."""
    return http(xmlrpc.client.dumps(({"Status": "Success", "Value": value},), methodresponse=True).encode())


# XML-RPC ------------------------------------------------------------------------------------------

VALUES = {
    "text": "a<b>&é\u2028",
    "empty": "",
    "number": -7,
    "fraction": 0.5,
    "yes": True,
    "no": False,
    "list": ["a", [], {}, ["b"]],
    "map": {"0/ip": "192.0.2.7", "": {"x": {}}},
    "date": xmlrpc.client.DateTime("20260101T00:00:00Z"),
    "bytes": xmlrpc.client.Binary(b"\0\1"),
}


def test_values_come_as_the_library_would_give_them():
    with serve(xen(VALUES)) as server, within(soon()):
        assert session_at(server).xenapi.VM.get_record("OpaqueRef:1") == VALUES


def test_nothing_comes_as_none():
    with serve(http(XEN[0] + b"<nil/>" + XEN[1])) as server, within(soon()):
        assert session_at(server).xenapi.VM.get_record("OpaqueRef:1") is None


def test_of_records_only_the_wanted_fields_are_kept():
    records = {
        "OpaqueRef:1": {"uuid": "u", "VBDs": ["a"], "other_config": {"uuid": "v", "x": "y"}, "platform": {"a": "b"}}
    }
    with serve(xen(records)) as server, within(soon()), keeping({"uuid", "other_config"}, RECORDS):
        kept = session_at(server).xenapi.VM.get_all_records()
    assert kept == {"OpaqueRef:1": {"uuid": "u", "other_config": {"uuid": "v", "x": "y"}}}


def test_of_events_snapshots_only_the_wanted_fields_are_kept():
    event = {"ref": "OpaqueRef:1", "snapshot": {"uuid": "u", "platform": {"uuid": "v"}, "tags": []}}
    batch = {"events": [event, {"ref": "OpaqueRef:2"}], "token": "2"}
    with serve(xen(batch)) as server, within(soon()), keeping({"uuid"}, SNAPSHOTS):
        kept = session_at(server).xenapi.event.from_([], "", 0.0)
    assert kept == {"events": [{"ref": "OpaqueRef:1", "snapshot": {"uuid": "u"}}, {"ref": "OpaqueRef:2"}], "token": "2"}


def test_a_failure_and_a_fault_reach_the_driver():
    failure = xmlrpc.client.dumps(
        ({"Status": "Failure", "ErrorDescription": ["HANDLE_INVALID", "VM"]},), methodresponse=True
    )
    fault = xmlrpc.client.dumps(xmlrpc.client.Fault(1, "bad request"))
    with serve(http(failure.encode()), http(fault.encode())) as server:
        session = session_at(server)
        with within(soon()), pytest.raises(XenAPI.Failure, match="HANDLE_INVALID"):
            session.xenapi.VM.get_record("OpaqueRef:1")
        with within(soon()), pytest.raises(xmlrpc.client.Fault, match="bad request"):
            session.xenapi.VM.get_record("OpaqueRef:1")
        assert server.connections == 1


def test_no_call_goes_without_a_deadline():
    with serve(xen("")) as server, pytest.raises(LookupError):
        session_at(server).xenapi.VM.get_all_records()
    assert server.connections == 0


# SOAP ---------------------------------------------------------------------------------------------


def vsphere(inner: bytes, status: str = "200 OK", **headers: str) -> bytes:
    return http(VSPHERE[0] + inner + VSPHERE[1], status, **headers)


def test_a_property_comes_as_the_library_would_give_it():
    guest_nic = b'<val xsi:type="ArrayOfGuestNicInfo"><GuestNicInfo><macAddress>52:54:00:00:00:01</macAddress>'
    guest_nic += b"<connected>true</connected><deviceConfigId>4000</deviceConfigId></GuestNicInfo></val>"
    with serve(vsphere(OBJECT[0] + guest_nic + OBJECT[1])) as server:
        found = call_vsphere(pinned(server), soon())
    assert found.objects[0].obj._moId == "vm-1"
    assert found.objects[0].propSet[0].val[0].macAddress == "52:54:00:00:00:01"


def test_a_fault_reaches_the_driver():
    fault = VSPHERE[0].split(b"<RetrieveProp")[0] + (
        b"<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>The session</faultstring><detail>"
        b'<NotAuthenticatedFault xmlns="urn:vim25" xsi:type="NotAuthenticated"/></detail></soapenv:Fault>'
        b"</soapenv:Body></soapenv:Envelope>"
    )
    with serve(http(fault, "500 Internal Server Error")) as server, pytest.raises(vim.fault.NotAuthenticated):
        call_vsphere(pinned(server), soon())


def test_a_session_is_kept_and_sent_again_and_nothing_else_that_came_with_it():
    cookie = 'vmware_soap_session="abc/1"; Path=/; HttpOnly; Secure; other=1'
    answers = [vsphere(b"", Set_Cookie=cookie), vsphere(b"")]
    with serve(*answers) as server:
        stub = SoapStub(pinned(server))
        collector = vmodl.query.PropertyCollector("propertyCollector", stub)
        for _ in answers:
            with within(soon()):
                collector.ContinueRetrievePropertiesEx("1")
    assert stub.cookie == 'vmware_soap_session="abc/1"'
    assert server.received.count(b'Cookie: vmware_soap_session="abc/1"\r\n') == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("call", [call_xen, call_vsphere])
def test_this_machine_has_to_prove_itself_too(call, host):
    with serve(xen(""), host="127.0.0.1") as server, pytest.raises(CertificateRefused):
        call(server.address(host=host, fingerprint="ab" * 32), soon())
    assert server.received == b""


def test_pyvmomis_own_connections_are_out_of_reach():
    stub = SoapStub(EndpointAddress(Transport.TLS, "vcenter.example"))
    with pytest.raises(NotImplementedError):
        stub.GetConnection()


# Connections --------------------------------------------------------------------------------------


def test_a_connection_is_used_again():
    with serve(xen("a"), xen("b")) as server:
        session = session_at(server)
        for value in ("a", "b"):
            with within(soon()):
                assert session.xenapi.VM.get_name_label("OpaqueRef:1") == value
        assert server.connections == 1


LAST_WORDS = xen("a").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("answer", [xen("a"), xen("a") + b"HTTP/1.1 200 OK\r\n", LAST_WORDS])
def test_a_connection_that_ended_or_said_too_much_is_not_used_again(answer):
    with serve(answer) as server:
        session = session_at(server)
        for number in (1, 2):
            with within(soon()):
                assert session.xenapi.VM.get_name_label("OpaqueRef:1") == "a"
            connection = session.transport._connections._idle[0] if session.transport._connections._idle else None
            while connection is not None and connection.is_fresh():  # until the server's farewell has come
                time.sleep(0.01)
            assert server.connections == number


def test_threads_have_a_connection_each():
    together = threading.Barrier(3)

    def serve_together(server, connection):
        request_of(server, connection)
        together.wait(10)
        connection.sendall(xen("a"))

    with serving(serve_together, IDENTITY.context()) as server:
        session = session_at(server)
        answers = []

        def call():
            with within(soon()):
                answers.append(session.xenapi.VM.get_name_label("OpaqueRef:1"))

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["a", "a", "a"]


def test_a_forked_child_leaves_its_parents_connections_alone():
    with serve(xen("a"), xen("b")) as server:
        session = session_at(server)
        with within(soon()):
            session.xenapi.VM.get_name_label("OpaqueRef:1")
        child = os.fork()
        if child == 0:
            with within(soon()):
                os._exit(0 if session.xenapi.VM.get_name_label("OpaqueRef:1") == "a" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with within(soon()):
            assert session.xenapi.VM.get_name_label("OpaqueRef:1") == "b"


def test_what_was_lost_is_not_asked_again():
    """A VM would be started twice."""

    def hang_up(server, connection):
        request_of(server, connection)

    with serving(hang_up, IDENTITY.context()) as server, within(soon()):
        with pytest.raises(EndpointUnreachable):
            session_at(server).xenapi.VM.start("OpaqueRef:1", False, False)
        assert server.connections == 1


# Files ----------------------------------------------------------------------------------------------

CONTENT = os.urandom(300_000)


def test_a_file_is_put_as_it_is():
    with serve(http(b"", "201 Created")) as server:
        HttpsClient(pinned(server)).put(
            "/folder/a b/ü#1.iso", CONTENT, soon(), query={"dsName": "a&b c"}, headers={"Cookie": "session=1"}
        )
    head, _, body = bytes(server.received).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"PUT /folder/a%20b/%C3%BC%231.iso?dsName=a%26b%20c HTTP/1.1"
    assert {b"Content-Length: 300000", b"Cookie: session=1", b"Accept-Encoding: identity"} <= set(lines)
    assert body == CONTENT


def test_a_file_is_got_as_it_is():
    with serve(http(CONTENT)) as server:
        assert HttpsClient(pinned(server)).get("/file", soon()) == CONTENT


def test_a_file_that_is_bigger_than_wanted_is_refused():
    with serve(http(CONTENT)) as server, pytest.raises(EndpointUnreachable, match="too big"):
        HttpsClient(pinned(server)).get("/file", soon(), most=299_999)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("401 Unauthorized", CredentialsRefused),
        ("403 Forbidden", CredentialsRefused),
        ("404 Not Found", NotFound),
        ("500 Internal Server Error", StatusRefused),
        ("503 Service Unavailable", EndpointUnreachable),
        ("204 No Content", None),
    ],
)
def test_a_status_has_a_meaning(status, error):
    with serve(http(b"secret words of the host", status) if error else f"HTTP/1.1 {status}\r\n\r\n".encode()) as server:
        put = partial(HttpsClient(pinned(server)).put, "/file", CONTENT, soon(), headers={"Cookie": "secret"})
        if error is None:
            put()
            return
        with pytest.raises(error) as raised:
            put()
    assert "secret" not in str(raised.value)


def test_who_refuses_before_all_was_sent_is_heard():
    def refuse(server, connection):
        connection.recv(100)
        connection.sendall(http(b"", "403 Forbidden"))
        server.ending.wait(0.2)  # while what it does not read piles up

    with serving(refuse, IDENTITY.context()) as server, pytest.raises(CredentialsRefused):
        HttpsClient(pinned(server)).put("/file", bytes(20_000_000), soon())


def test_who_takes_nothing_in_is_given_up_at_the_deadline():
    with serving(silent, IDENTITY.context()) as server, pytest.raises(DeadlineExceeded):
        HttpsClient(pinned(server)).put("/file", bytes(20_000_000), soon(0.5))


other_serving = partial(serve, identity=OTHER, host=OTHER_HOST)


def redirect(location: str) -> bytes:
    return http(b"", "302 Found", Location=location)


def test_a_redirect_to_a_host_of_the_endpoint_is_followed_with_that_hosts_trust():
    with other_serving(http(b"")) as other, serve(redirect(f"https://{OTHER_HOST}/elsewhere")) as server:
        elsewhere = {OTHER_HOST: pinned(other, OTHER)}
        HttpsClient(pinned(server)).put("/file", CONTENT, soon(), query={"a": "b"}, elsewhere=elsewhere)
    assert other.received.startswith(b"PUT /file?a=b HTTP/1.1\r\n")
    assert other.received.endswith(CONTENT)


def test_a_redirect_to_one_that_is_not_who_it_should_be_gets_nothing():
    with other_serving(http(b"")) as other, serve(redirect(f"https://{OTHER_HOST}/")) as server:
        elsewhere = {OTHER_HOST: pinned(other, IDENTITY)}
        with pytest.raises(CertificateRefused):
            HttpsClient(pinned(server)).put("/file", CONTENT, soon(), elsewhere=elsewhere)
    assert other.received == b""


OTHER_LOCATIONS = [
    *["https://127.0.0.9/", "https://169.254.169.254/", "/elsewhere", "", "https://[", "//x"],
    *[f"http://{OTHER_HOST}/", f"https://{OTHER_HOST}@192.0.2.1/", f"https://{OTHER_HOST}.example/"],
]


@pytest.mark.parametrize("location", OTHER_LOCATIONS)
def test_a_redirect_to_any_other_host_is_refused(location):
    elsewhere = {OTHER_HOST: EndpointAddress(Transport.TEST, OTHER_HOST)}
    with serve(redirect(location)) as server, pytest.raises(Refused, match="another host"):
        HttpsClient(pinned(server)).put("/file", CONTENT, soon(), elsewhere=elsewhere)


def test_a_second_redirect_is_refused():
    with other_serving(redirect(f"https://{HOST}/")) as other, serve(redirect(f"https://{OTHER_HOST}/")) as server:
        elsewhere = {OTHER_HOST: pinned(other, OTHER), HOST: pinned(server)}
        with pytest.raises(Refused, match="another host"):
            HttpsClient(pinned(server)).get("/file", soon(), elsewhere=elsewhere)


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.9:1")
    with serve(http(CONTENT), xen("")) as server:
        client = HttpsClient(pinned(server))
        assert client.get("/file", soon()) == CONTENT
