"""Sessions with the vCenter simulator: who is let in, who is trusted, and what becomes of a session."""

import contextlib
import dataclasses
import multiprocessing
import os
import socket
import threading
import time

import pytest

from networks.hypervisors import vsphere_session
from networks.hypervisors.base import (
    CertificateRefused,
    CredentialsRefused,
    EndpointAddress,
    EndpointUnreachable,
    Refused,
    Transport,
)
from networks.hypervisors.bounded import within
from networks.hypervisors.tls import fetch_certificate
from networks.hypervisors.vsphere import VsphereHost
from networks.hypervisors.vsphere_session import SESSIONS, Session
from tests.lab.system import wait_for
from tests.networks.hypervisors.factories import soon
from tests.simulators.vcenter.starting import vcenter_for_tests


@pytest.fixture(scope="module")
def vcenter():
    with vcenter_for_tests() as vcenter:
        yield vcenter


@pytest.fixture
def everywhere(vcenter):
    SESSIONS.close()
    vcenter.forget_calls()
    yield VsphereHost(vcenter.address)
    SESSIONS.close()


def with_changed(vcenter, **fields) -> VsphereHost:
    return VsphereHost(dataclasses.replace(vcenter.address, **fields))


def terminate(vcenter, session: Session) -> None:
    """What happens after half an hour without a call, and when an administrator wants it."""
    key = session._cookie()["Cookie"].partition("=")[2].strip('"')
    with within(soon()):
        administrator = Session(vcenter.address)
        administrator.do(administrator.content.sessionManager.TerminateSession, [key])
        administrator.close()


def current(host: VsphereHost) -> Session:
    return host._ask(soon(), lambda session: session)


# Who is let in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"password": "Wr0ng-s3cret"}, {"username": "nobody"}, {"password": ""}])
def test_wrong_user_or_password_is_refused(vcenter, fields):
    with pytest.raises(CredentialsRefused, match="refuses the user or the password") as refusal:
        with_changed(vcenter, **fields).running_vms(soon())

    assert "Wr0ng" not in repr(refusal.value)


def test_certificate_of_another_authority_is_refused(vcenter):
    with vcenter_for_tests(vms=1) as another:
        trusting_another = with_changed(vcenter, ca_certificates=another.address.ca_certificates)

        with pytest.raises(CertificateRefused):
            trusting_another.running_vms(soon())


def test_certificate_is_checked_also_on_this_machine(vcenter):
    with pytest.raises(CertificateRefused):
        with_changed(vcenter, ca_certificates="").running_vms(soon())


def test_certificate_known_by_its_fingerprint_is_enough(vcenter):
    fingerprint = fetch_certificate(vcenter.address, soon()).fingerprint
    known = {"ca_certificates": "", "fingerprint": fingerprint}

    assert with_changed(vcenter, **known).running_vms(soon())


def test_certificate_that_has_changed_is_refused_though_we_were_in(vcenter):
    fingerprint = fetch_certificate(vcenter.address, soon()).fingerprint
    with vcenter_for_tests(listen="127.0.0.3:0", vms=1) as another:
        pinned = dataclasses.replace(another.address, ca_certificates="", fingerprint=fingerprint)

        with pytest.raises(CertificateRefused):
            VsphereHost(pinned).running_vms(soon())


def test_nothing_was_sent_to_who_is_not_trusted(vcenter, everywhere):
    with pytest.raises(CertificateRefused):
        with_changed(vcenter, ca_certificates="").running_vms(soon())

    assert vcenter.calls() == {}


@pytest.mark.parametrize("host", ["", "a b", "user@vcenter", "vcenter/sdk", "127.1", "-x", "x" * 300])
def test_address_that_cannot_be_one_is_refused(host):
    with pytest.raises(Refused):
        VsphereHost(EndpointAddress(Transport.TLS, host=host, username="u", password="p"))


# Endpoints that do not answer -------------------------------------------------------------------


def test_silent_endpoint_costs_its_deadline_from_the_first_request(vcenter):
    with contextlib.closing(socket.create_server(("127.0.0.2", 0))) as silent:
        host = with_changed(vcenter, port=silent.getsockname()[1])
        begun = time.monotonic()

        with pytest.raises(EndpointUnreachable):
            host.running_vms(soon(1))

        assert time.monotonic() - begun < 5


def test_endpoint_that_is_not_there_is_unreachable(vcenter):
    with contextlib.closing(socket.create_server(("127.0.0.2", 0))) as gone:
        port = gone.getsockname()[1]

    with pytest.raises(EndpointUnreachable):
        with_changed(vcenter, port=port).running_vms(soon())


def test_call_whose_deadline_has_passed_is_not_begun(vcenter, everywhere):
    with pytest.raises(EndpointUnreachable):
        everywhere.running_vms(soon(-1))

    assert vcenter.calls() == {}


# What becomes of a session ----------------------------------------------------------------------


def test_one_session_serves_many_calls_and_threads(vcenter, everywhere):
    threads = [threading.Thread(target=everywhere.host_facts, args=(soon(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everywhere.running_vms(soon())

    assert vcenter.calls()["Login"] == 1


def test_session_that_vcenter_forgot_is_renewed_once(vcenter, everywhere):
    before = everywhere.running_vms(soon())
    terminate(vcenter, current(everywhere))
    vcenter.forget_calls()

    assert everywhere.running_vms(soon()) == before
    assert vcenter.calls()["Login"] == 1


def test_session_forgotten_before_a_file_is_sent_is_renewed(vcenter, everywhere):
    host = VsphereHost(vcenter.address, vcenter.hosts()[0])
    media = host.place("i-2-3-VM-1-ab12.iso", b"x", soon(), storage="LocalDS_0")
    terminate(vcenter, current(everywhere))

    assert host.read(media.name, soon(), storage="LocalDS_0") == b"x"
    host.remove(media.name, soon(), storage="LocalDS_0")


def test_session_cannot_be_renewed_without_end(vcenter, everywhere, monkeypatch):
    everywhere.running_vms(soon())
    asked = []

    def forgotten(session):
        asked.append(session)
        terminate(vcenter, session)
        session.find_all(vsphere_session.vim.VirtualMachine, "name")

    with pytest.raises(CredentialsRefused):
        everywhere._ask(soon(), forgotten)

    assert len(asked) == 2


def test_properties_without_a_session_are_no_empty_inventory(vcenter, everywhere):
    """Asked for properties without a session, vCenter does not refuse: it leaves them out."""
    session = current(everywhere)
    host = session.object(vsphere_session.vim.HostSystem, place_of(everywhere))
    terminate(vcenter, session)

    with within(soon()), pytest.raises(CredentialsRefused):
        session.read(host, "name")


def place_of(everywhere: VsphereHost) -> str:
    (found, *_) = everywhere._ask(soon(), lambda session: session.find_all(vsphere_session.vim.HostSystem, "name"))
    return found.ref._moId


def test_session_is_logged_out_in_the_end(vcenter, everywhere):
    everywhere.running_vms(soon())

    SESSIONS.close()

    assert vcenter.calls()["Logout"] == 1


def test_session_that_nobody_uses_is_logged_out(vcenter, everywhere, monkeypatch):
    everywhere.running_vms(soon())
    monkeypatch.setattr(vsphere_session, "IDLE_SECONDS", -1.0)

    everywhere.running_vms(soon())

    wait_for("the log-out", lambda: vcenter.calls().get("Logout") == 1, 20)
    assert vcenter.calls()["Login"] == 2


def test_forked_worker_has_a_session_of_its_own_and_logs_out(vcenter, everywhere):
    before = everywhere.running_vms(soon())
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    worker = context.Process(target=lambda: answers.put((os.getpid(), everywhere.running_vms(soon()))))
    worker.start()
    worker.join(30)

    assert answers.get() == (worker.pid, before)
    assert (vcenter.calls()["Login"], vcenter.calls()["Logout"]) == (2, 1)
    assert everywhere.running_vms(soon()) == before
    assert vcenter.calls()["Login"] == 2


def test_session_tells_nobody_its_secrets(vcenter, everywhere):
    session = current(everywhere)

    for told in (repr(session), repr(everywhere), repr(session.address)):
        assert vcenter.address.password not in told
        assert session._cookie()["Cookie"].partition("=")[2].strip('"') not in told
