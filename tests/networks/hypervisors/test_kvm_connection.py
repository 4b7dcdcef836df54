import os
import sys
import threading
import time
from urllib.parse import urlsplit

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks.hypervisors import kvm_connection
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    HypervisorError,
    NetworkMissing,
    NotFound,
    Refused,
    StorageProblem,
    Transport,
)
from networks.hypervisors.kvm_connection import ConnectionPool, Session, libvirt_uri, translate
from tests.networks.hypervisors.factories import IN_PROCESS, soon

REMOTE = EndpointAddress(Transport.TCP, host="192.0.2.7")

# URIs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        (EndpointAddress(Transport.LOCAL), "qemu:///system"),
        (EndpointAddress(Transport.TLS, "kvm1.example.com"), "qemu+tls://kvm1.example.com/system"),
        (EndpointAddress(Transport.TCP, "192.0.2.7", 16000, "ops"), "qemu+tcp://ops@192.0.2.7:16000/system"),
        (EndpointAddress(Transport.TCP, "2001:db8::7"), "qemu+tcp://[2001:db8::7]/system"),
        (EndpointAddress(Transport.SSH, "kvm1", username="root"), "qemu+ssh://root@kvm1/system?no_tty=1"),
        (EndpointAddress(Transport.TEST), "test:///default"),
        (
            EndpointAddress(Transport.TEST, test_socket="/srv/x/libvirt-sock"),
            "test+unix:///default?socket=/srv/x/libvirt-sock",
        ),
    ],
)
def test_uri_is_built_from_fields(address, uri):
    assert libvirt_uri(address) == uri


@pytest.mark.parametrize(
    "host",
    [
        "", "-oProxyCommand=x", "a@b", "a/b", "a?command=/x", "a#b", "%63", "a b", "a\n", "a:1", "a;command=/x", "a..b",
        "a.", ".a", "a-",
        "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "1.2.3", "①②⑦.0.0.1", "bücher.example",
        "fe80::1%lo", "[::1]", "x" * 64, "a." * 127 + "b",
    ],
)  # fmt: skip
def test_host_that_is_none_is_refused(host):
    with pytest.raises(Refused):
        libvirt_uri(EndpointAddress(Transport.SSH, host))


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "-l"}, {"username": "a@b"}, {"username": "a:b"}, {"username": "a?"}, {"port": 0}, {"port": 65536},
        {"test_socket": "/x"},
    ],
)  # fmt: skip
def test_other_fields_that_are_none_are_refused(fields):
    with pytest.raises(Refused):
        libvirt_uri(EndpointAddress(Transport.TCP, **({"host": "192.0.2.7"} | fields)))


@pytest.mark.parametrize(
    "path", ["x", "/", "/a/../b", "/a?command=/x", "/a&b", "/a%2e", "/a b", "//a", "/" + "a" * 107]
)
def test_socket_path_that_is_none_is_refused(path):
    with pytest.raises(Refused):
        libvirt_uri(EndpointAddress(Transport.TEST, test_socket=path))


@pytest.mark.parametrize("transport", [Transport.LOCAL, Transport.TEST])
def test_local_transports_have_no_host(transport):
    with pytest.raises(Refused):
        libvirt_uri(EndpointAddress(transport, host="192.0.2.7"))


@given(
    transport=st.sampled_from(Transport),
    host=st.text() | st.from_regex(r"[a-z0-9.?/%@:#&;=-]+"),
    port=st.none() | st.integers(),
    username=st.text() | st.just(""),
    test_socket=st.text() | st.just(""),
)
def test_no_field_reaches_beyond_its_place(transport, host, port, username, test_socket):
    try:
        uri = libvirt_uri(EndpointAddress(transport, host, port, username, test_socket=test_socket))
    except Refused:
        return
    parts = urlsplit(uri)
    assert parts.scheme in {"qemu", "qemu+tls", "qemu+tcp", "qemu+ssh", "test", "test+unix"}
    assert parts.path in {"/system", "/default"}
    assert parts.query in {"", "no_tty=1", f"socket={test_socket}"}
    assert (parts.fragment, parts.username or "") == ("", username)
    assert parts.port == port


# Errors -----------------------------------------------------------------------------------------


def make_error(code, *, domain=libvirt.VIR_FROM_QEMU, text="root:x:0:0 of /etc/shadow", errno=0):
    error = libvirt.libvirtError(text)
    error.args = (text,)  # else the words of this thread's last real error
    error.err = (code, domain, text, libvirt.VIR_ERR_ERROR, None, None, None, errno, -1)
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, NotFound),
        (libvirt.VIR_ERR_NO_STORAGE_VOL, NotFound),
        (libvirt.VIR_ERR_NO_STORAGE_POOL, StorageProblem),
        (libvirt.VIR_ERR_NO_NETWORK, NetworkMissing),
        (libvirt.VIR_ERR_RPC, EndpointUnreachable),
        (libvirt.VIR_ERR_AUTH_FAILED, CredentialsRefused),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, Busy),
        (libvirt.VIR_ERR_NO_SUPPORT, Refused),
        (libvirt.VIR_ERR_INTERNAL_ERROR, AskTheOperator),
        (99999, AskTheOperator),
    ],
)
def test_error_is_named_for_what_the_caller_does_next_and_keeps_only_the_number(code, kind):
    error = translate(make_error(code))

    assert type(error) is kind
    assert f"(libvirt error {code})" in str(error)
    assert "shadow" not in str(error)


def test_any_error_on_a_lost_connection_is_the_endpoints():
    assert type(translate(make_error(libvirt.VIR_ERR_INTERNAL_ERROR), connected=False)) is EndpointUnreachable
    error = make_error(libvirt.VIR_ERR_SYSTEM_ERROR, domain=libvirt.VIR_FROM_RPC)
    assert type(translate(error)) is EndpointUnreachable


def test_system_error_of_the_storage_driver_is_a_storage_problem():
    error = make_error(libvirt.VIR_ERR_SYSTEM_ERROR, domain=libvirt.VIR_FROM_STORAGE)
    assert type(translate(error)) is StorageProblem


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (make_error(libvirt.VIR_ERR_SYSTEM_ERROR, text="No route to host"), EndpointUnreachable),
        (make_error(libvirt.VIR_ERR_INTERNAL_ERROR), EndpointUnreachable),
        (make_error(libvirt.VIR_ERR_SYSTEM_ERROR, text="Cannot read CA certificate '/x'"), CredentialsRefused),
        (make_error(libvirt.VIR_ERR_SYSTEM_ERROR, errno=13), CredentialsRefused),
        (make_error(libvirt.VIR_ERR_AUTH_FAILED), CredentialsRefused),
    ],
)
def test_failure_to_open_is_unreachable_or_refused(error, kind):
    def opener(_address):
        raise error

    with pytest.raises(HypervisorError) as caught:
        ConnectionPool(opener).acquire(REMOTE, soon())

    assert type(caught.value) is kind


# The pool ---------------------------------------------------------------------------------------


class FakeConnection:
    def __init__(self):
        self._o = object()
        self.alive = True
        self.pings = 0

    def isAlive(self):
        return self.alive

    def getLibVersion(self):
        self.pings += 1


def make_pool():
    return ConnectionPool(lambda _address: FakeConnection())


def test_connection_is_used_again_after_its_release():
    pool = make_pool()
    first = pool.acquire(REMOTE, soon())
    pool.release(REMOTE, first)

    assert pool.acquire(REMOTE, soon()) is first
    assert pool.acquire(REMOTE, soon()) is not first  # in use: never by two at a time


def test_connections_of_other_addresses_and_credentials_are_apart():
    pool = make_pool()
    first = pool.acquire(REMOTE, soon())
    pool.release(REMOTE, first)
    with_password = EndpointAddress(Transport.TCP, host="192.0.2.7", username="ops", password="hunter2")

    assert pool.acquire(with_password, soon()) is not first
    assert "hunter2" not in repr(with_password)


def test_dead_connection_is_replaced():
    pool = make_pool()
    first = pool.acquire(REMOTE, soon())
    pool.release(REMOTE, first)
    first.alive = False

    assert pool.acquire(REMOTE, soon()) is not first


def test_rested_connection_is_asked_whether_it_lives(monkeypatch):
    monkeypatch.setattr(kvm_connection, "PING_AFTER_SECONDS", 0)
    pool = make_pool()
    first = pool.acquire(REMOTE, soon())
    pool.release(REMOTE, first)

    assert pool.acquire(REMOTE, soon()).pings == 1


def test_endpoint_that_does_not_open_costs_the_deadline_and_nobody_else():
    release = threading.Event()
    pool = ConnectionPool(lambda address: release.wait(30) if address == REMOTE else FakeConnection())

    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        pool.acquire(REMOTE, soon(0.1))
    pool.acquire(EndpointAddress(Transport.TCP, host="192.0.2.8"), soon(0.5))

    assert time.monotonic() - begun < 1
    release.set()


def test_connection_with_a_stuck_call_is_never_used_again():
    pool, release = make_pool(), threading.Event()
    with Session(pool, REMOTE, soon(0.1)) as session:
        with pytest.raises(DeadlineExceeded):
            session.do(release.wait, 30)
        with pytest.raises(EndpointUnreachable, match="stuck"):
            session.do(session.connection.isAlive)

    assert pool.acquire(REMOTE, soon()) is not session.connection
    release.set()


def test_forked_child_opens_its_own_and_leaves_the_parents_alone():
    pool = make_pool()
    parents = pool.acquire(REMOTE, soon())
    pool.release(REMOTE, parents)

    pid = os.fork()
    if pid == 0:
        childs = pool.acquire(REMOTE, soon())
        # Without `_o`, libvirt-python does not close when the object goes.
        os._exit(0 if childs is not parents and parents._o is None else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert parents._o is not None
    assert pool.acquire(REMOTE, soon()) is parents


def test_libvirt_prints_nothing_of_its_own(capfd):
    with Session(kvm_connection.CONNECTIONS, IN_PROCESS, soon()) as session, pytest.raises(NotFound):
        session.do(session.connection.lookupByName, "nobody")

    sys.stderr.flush()
    assert capfd.readouterr().err == ""
