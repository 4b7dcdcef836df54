"""To whom we speak, and what nobody gets us to say to another."""

import ast
import contextlib
import socket
import ssl
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from networks.hypervisors import hosts
from networks.hypervisors.base import (
    CertificateRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    Refused,
    Transport,
)
from networks.hypervisors.tls import check_address, connect, fetch_certificate
from tests.networks.hypervisors.factories import soon
from tests.networks.hypervisors.https_servers import HOST, drip, make_identity, recording, serving, silent

CA = make_identity("Our CA", is_ca=True)
IDENTITY = make_identity(HOST, "vcenter.example", signer=CA)
DRIVERS = Path(hosts.__file__).parent


@pytest.fixture
def server():
    with serving(recording, IDENTITY.context()) as server:
        yield server


# Whom to trust ----------------------------------------------------------------------------------


def test_an_endpoint_is_known_by_its_ca(server):
    with connect(server.address(ca_certificates=CA.pem), soon()) as connection:
        assert connection.version() == "TLSv1.3"


def test_an_endpoint_is_known_by_its_fingerprint_whatever_its_name_signer_and_dates():
    identity = make_identity("another.example", days=-1)
    with serving(recording, identity.context()) as server:
        connect(server.address(fingerprint=identity.fingerprint), soon()).close()


def test_an_endpoint_is_known_by_its_own_certificate(server):
    connect(server.address(ca_certificates=IDENTITY.pem), soon()).close()


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        (make_identity("192.0.2.9", signer=CA), "IP address mismatch"),
        (make_identity("other.example", signer=CA), "mismatch"),
        (make_identity(HOST, signer=CA, days=-1), "expired"),
        (make_identity(HOST), "self-signed"),
        (make_identity(HOST, signer=make_identity("Another CA", is_ca=True)), "unable to get local issuer"),
    ],
    ids=["another address", "another name", "expired", "self-signed", "another CA"],
)
def test_a_wrong_certificate_is_refused_and_its_fingerprint_told(identity, why):
    with serving(recording, identity.context()) as server, pytest.raises(CertificateRefused, match=why) as refused:
        connect(server.address(ca_certificates=CA.pem), soon())
    assert identity.fingerprint in str(refused.value)
    assert server.received == b""


def test_the_machines_cas_are_trusted_when_none_is_given(server, tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_text(CA.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    connect(server.address(), soon()).close()


def test_the_machines_cas_are_not_asked_when_some_are_given(server, tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_text(CA.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(CertificateRefused):
        connect(server.address(ca_certificates=make_identity("Another CA", is_ca=True).pem), soon())


def test_another_certificate_than_the_pinned_one_is_refused_before_a_byte_is_sent(server):
    with pytest.raises(CertificateRefused, match=IDENTITY.fingerprint):
        connect(server.address(fingerprint="ab" * 32), soon())
    assert server.received == b""


def test_a_pinned_certificate_counts_alone_even_if_the_ca_has_signed_the_offered_one(server):
    with pytest.raises(CertificateRefused):
        connect(server.address(fingerprint="ab" * 32, ca_certificates=CA.pem), soon())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_is_not_trusted_for_being_this_machine(host):
    context = make_identity("other.example").context()
    with (
        serving(recording, context, "::1" if ":" in host else "127.0.0.1") as server,
        pytest.raises(CertificateRefused),
    ):
        connect(server.address(host=host, ca_certificates=CA.pem), soon())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
def test_a_server_without_tls_1_2_is_refused():
    context = IDENTITY.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    with serving(recording, context) as server, pytest.raises(EndpointUnreachable, match=r"TLS 1\.2"):
        connect(server.address(fingerprint=IDENTITY.fingerprint), soon())


# Time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "serve", [silent, partial(drip, content=b"\x16\x03\x03\x10\x00" * 1000)], ids=["silent", "slow"]
)
@pytest.mark.parametrize("ask", [connect, fetch_certificate])
def test_a_handshake_ends_at_the_deadline(serve, ask):
    with serving(serve, None) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            ask(server.address(fingerprint="ab" * 32), soon(0.5))
    assert time.monotonic() - began < 2


def test_a_slow_answer_ends_at_the_deadline():
    with serving(partial(drip, content=b"x" * 1000), IDENTITY.context()) as server:
        connection = connect(server.address(fingerprint=IDENTITY.fingerprint), soon())
        connection.deadline = soon(0.5)
        began = time.monotonic()
        with connection, connection.makefile("rb") as stream, pytest.raises(TimeoutError):
            stream.read(1000)
    assert time.monotonic() - began < 2


def test_what_takes_nothing_in_ends_at_the_deadline():
    with serving(silent, IDENTITY.context()) as server:
        connection = connect(server.address(fingerprint=IDENTITY.fingerprint), soon())
        connection.deadline = soon(0.5)
        began = time.monotonic()
        with connection, pytest.raises(TimeoutError):
            connection.sendall(bytes(50_000_000))
    assert time.monotonic() - began < 5


def test_a_slow_resolver_ends_at_the_deadline(monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(hosts.socket, "getaddrinfo", lambda *_, **__: asked.wait(5))
    with pytest.raises(DeadlineExceeded):
        connect(EndpointAddress(Transport.TLS, "vcenter.example"), soon(0.2))
    asked.set()


def test_nothing_is_begun_after_the_deadline(server):
    with pytest.raises(DeadlineExceeded):
        connect(server.address(ca_certificates=CA.pem), soon(-1))
    assert server.connections == 0


@pytest.mark.parametrize("content", [b"HTTP/1.1 200 OK\r\n\r\n", b"", b"\x16\x03\x03" + bytes(500)])
def test_what_speaks_no_tls_is_unreachable(content):
    def speak(_server, connection):
        connection.sendall(content)

    with serving(speak, None) as server, pytest.raises(EndpointUnreachable):
        connect(server.address(fingerprint="ab" * 32), soon())


def test_where_nothing_listens_is_unreachable(server):
    with pytest.raises(EndpointUnreachable, match="Nothing listens"):
        connect(server.address(host="127.0.0.77", fingerprint="ab" * 32), soon())


# What an administrator is shown -----------------------------------------------------------------


def test_a_certificate_is_shown_for_an_administrator_to_compare(server):
    shown = fetch_certificate(server.address(), soon())
    assert (shown.pem, shown.fingerprint) == (IDENTITY.pem, IDENTITY.fingerprint)
    assert (shown.subject, shown.issuer, shown.self_signed) == (f"CN={HOST}", "CN=Our CA", False)
    assert shown.names == ("vcenter.example", HOST)
    assert shown.not_before < shown.not_after
    assert server.received == b""


# Where to -----------------------------------------------------------------------------------------


ODD_HOSTS = [
    *[
        "",
        "-oProxyCommand=x",
        "a@b",
        "a/b",
        "a?b",
        "a#b",
        "a%62",
        "a b",
        "a\r\nb",
        "a:443",
        "a..b",
        "localhost\0.example",
    ],
    *["127.1", "0x7f000001", "0x7f.1", "2130706433", "0177.0.0.1", "0", "①②⑦.0.0.1", "1.2.3.4.", "host.1"],
    *["[::1]", "fe80::1%lo", "::ffff:127.0.0.1%1", "ex\N{CYRILLIC SMALL LETTER A}mple.test", "a" * 64],
    ".".join(["a" * 60] * 5),
]
NO_HYPERVISORS = [
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "100.100.100.200",
    "fd00:ec2::254",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:1::1",
]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.2.1",
    "fd00::1",
    "2001:db8::1",
    "64:ff9b::c000:201",
]


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_a_host_in_an_odd_spelling_is_refused(host):
    with pytest.raises(Refused):
        check_address(EndpointAddress(Transport.TLS, host))


@pytest.mark.parametrize("address", NO_HYPERVISORS)
def test_an_address_that_cannot_be_a_hypervisors_is_refused(address):
    with pytest.raises(Refused):
        connect(EndpointAddress(Transport.TLS, address, 9), soon())


@pytest.mark.parametrize("address", PRIVATE)
def test_a_hypervisor_may_be_in_a_private_network(address):
    assert hosts.resolve(address, 443, soon(), loopback=False) == [address]


@pytest.mark.parametrize("address", ["0.0.0.0", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_tests_reach_loopback_and_nothing_else_that_is_refused(address):
    with pytest.raises(Refused):
        hosts.resolve(address, 443, soon(), loopback=True)


def answers_of_dns(monkeypatch, addresses):
    ask = socket.getaddrinfo

    def answer(host, port, *arguments, **options):
        named = addresses if host == "vcenter.example" else [host]
        return [entry for address in named for entry in ask(address, port, *arguments, **options)]

    monkeypatch.setattr(hosts.socket, "getaddrinfo", answer)


def test_what_a_name_leads_to_is_checked_all_of_it(monkeypatch):
    answers_of_dns(monkeypatch, ["192.0.2.1", "169.254.169.254"])
    with pytest.raises(Refused, match=r"169\.254"):
        connect(EndpointAddress(Transport.TLS, "vcenter.example"), soon())


def test_the_connection_goes_to_the_address_that_was_checked(server, monkeypatch):
    """And not to what the DNS says when it is asked again."""
    addresses = [HOST]
    answers_of_dns(monkeypatch, addresses)
    check = hosts._check
    monkeypatch.setattr(hosts, "_check", lambda *found: (check(*found), addresses.__setitem__(0, "127.0.0.77")))
    address = server.address(host="vcenter.example", ca_certificates=CA.pem)
    with connect(address, soon()) as connection:
        assert connection.getpeername()[0] == HOST


def test_a_silent_address_of_a_name_leaves_time_for_the_next(server, monkeypatch):
    answers_of_dns(monkeypatch, ["127.0.0.77", HOST])
    with socket.create_server(("127.0.0.77", server.port), backlog=0), contextlib.ExitStack() as stack:
        for _ in range(3):  # as many as its queue takes; it answers nobody else
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.77", server.port))
        connect(server.address(host="vcenter.example", ca_certificates=CA.pem), soon(4)).close()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"transport": Transport.TCP}, "TLS only"),
        ({"transport": Transport.LOCAL}, "TLS only"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"fingerprint": "AB" * 32}, "SHA-256"),
        ({"fingerprint": "ab" * 20}, "SHA-256"),
        ({"ca_certificates": "no PEM"}, "PEM"),
        ({"ca_certificates": "é"}, "PEM"),
        ({"ca_certificates": CA.pem + "-----BEGIN PRIVATE KEY-----\nAAAA\n"}, "private key"),
        ({"ca_certificates": "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n" + CA.pem}, "private key"),
        ({"ca_certificates": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "PEM"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(fields, why):
    with pytest.raises(Refused, match=why):
        check_address(EndpointAddress(**{"transport": Transport.TLS, "host": "vcenter.example"} | fields))


# No way around -------------------------------------------------------------------------------------

# Who may import what connects, and who may name what switches checks off.
CONNECTORS = {
    "ssl": {"tls.py", "bounded.py"},
    "socket": {"tls.py", "hosts.py"},
    "http.client": {"bounded.py", "bounded_soap.py"},
    "pyVim": set(),
    "urllib.request": set(),
    "requests": set(),
    "urllib3": set(),
    "ftplib": set(),
    "asyncio": set(),
    "pyVmomi.SoapAdapter": {"bounded_soap.py"},
}
SWITCHES = {
    "CERT_NONE": {"tls.py"},
    "CERT_OPTIONAL": set(),
    "check_hostname": {"tls.py"},
    "_create_unverified_context": set(),
    "ignore_ssl": set(),
    "disableSslCertValidation": set(),
    "SmartConnect": set(),
    "SoapStubAdapter": {"bounded_soap.py"},
    "SafeTransport": set(),
    "HTTPSConnection": set(),
    "create_connection": {"tls.py"},
    "ServerProxy": set(),
}


def ways_around(source, file):
    """What a module names or imports that only others may."""
    tree = ast.parse(source)
    imported = [
        (name, known) for name in imports_of(tree) for known in CONNECTORS if f"{name}.".startswith(f"{known}.")
    ]
    found = {name for name, known in imported if file not in CONNECTORS[known]}
    return found | {name for name in names_of(tree) if file not in SWITCHES.get(name, {file})}


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names_of(tree):
    for node in ast.walk(tree):
        for attribute in ("id", "attr", "arg", "name"):
            if isinstance(name := getattr(node, attribute, None), str):
                yield name


@pytest.mark.parametrize("path", sorted(DRIVERS.glob("*.py")), ids=lambda path: path.name)
def test_no_driver_opens_a_connection_of_its_own(path):
    assert ways_around(path.read_text(), path.name) == set()


@pytest.mark.parametrize(
    "line",
    [
        "import ssl",
        "from http import client",
        "import http.client as h",
        "from pyVim.connect import SmartConnect",
        "XenAPI.Session(uri, ignore_ssl=True)",
        "context.verify_mode = other.CERT_NONE",
        "from pyVmomi import SoapAdapter",
    ],
)
def test_a_driver_that_did_would_be_found(line):
    assert ways_around(line, "vsphere.py")
