"""Sessions with a pool: logging in and out, the coordinator, deadlines, tasks, what failures mean, hostile answers."""

import multiprocessing
import socket
import threading
import time
from dataclasses import replace

import pytest

from networks.hypervisors import base, xenserver_session
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    CertificateRefused,
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    HostUnavailable,
    HypervisorError,
    Member,
    NetworkMissing,
    NotFound,
    Refused,
    StorageProblem,
    Transport,
    TryAgainLater,
    heartbeat,
)
from networks.hypervisors.xenserver import XenHost
from networks.hypervisors.xenserver_errors import translate
from networks.hypervisors.xenserver_session import MEMBERS, ORIGINATOR, Session, Sessions
from tests.networks.hypervisors.factories import make_vm, soon
from tests.networks.hypervisors.xen_world import address_of, host_of, pool, started
from tests.simulators.xenserver import hostile


@pytest.fixture
def xen():
    with pool() as xen:
        yield xen


@pytest.fixture
def sessions():
    sessions = Sessions()
    yield sessions
    sessions.close()


def pool_of(xen, sessions, **fields) -> XenHost:
    return XenHost(address_of(xen, **fields), sessions=sessions)


def open_sessions(xen) -> int:
    return len(xen.db.rows("session"))


# Logging in and out ------------------------------------------------------------------------------


def test_one_session_serves_one_call_after_the_other(xen, sessions):
    host = pool_of(xen, sessions)
    for _ in range(5):
        host.host_facts(soon())

    assert xen.calls["session.login_with_password"] == 1


def test_session_names_us_as_its_originator(xen, sessions):
    pool_of(xen, sessions).host_facts(soon())

    assert [row["originator"] for row in xen.db.rows("session")] == [ORIGINATOR]


def test_idle_sessions_are_logged_out_at_the_end(xen, sessions):
    pool_of(xen, sessions).host_facts(soon())
    assert open_sessions(xen) == 1
    sessions.close()

    assert open_sessions(xen) == 0


def test_worker_that_ends_leaves_no_session_behind(xen, sessions):
    pool_of(xen, sessions).host_facts(soon())
    for _ in range(2):
        worker = multiprocessing.get_context("fork").Process(target=lambda: pool_of(xen, sessions).host_facts(soon()))
        worker.start()
        worker.join()

    assert xen.calls["session.login_with_password"] == 3
    assert open_sessions(xen) == 1  # ours


def test_coordinator_that_is_still_booting_is_a_pool_that_cannot_be_reached(xen, sessions):
    xen.faults.fail_next("session.login_with_password", "HOST_STILL_BOOTING")
    with pytest.raises(EndpointUnreachable, match="booting"):
        pool_of(xen, sessions).host_facts(soon())


def test_pool_that_is_gone_does_not_hold_up_the_end(xen, sessions, monkeypatch):
    monkeypatch.setattr(xenserver_session, "LOGOUT_SECONDS", 0.5)
    host = pool_of(xen, sessions)
    xen.faults.delay(0.1, "host.get_all_records")
    threads = [threading.Thread(target=host.host_facts, args=(soon(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    xen.faults.hang("session.logout")
    begun = time.monotonic()
    sessions.close()

    assert time.monotonic() - begun < 1.5


def test_session_that_a_lost_connection_may_have_spoilt_is_ended(xen, sessions):
    host = pool_of(xen, sessions)
    xen.faults.answer("host.get_all_records", hostile.hang_up)
    with pytest.raises(EndpointUnreachable):
        host.host_facts(soon())

    wait_until(lambda: open_sessions(xen) == 0)


def test_sessions_that_rested_long_are_logged_out(xen, sessions, monkeypatch):
    pool_of(xen, sessions).host_facts(soon())
    monkeypatch.setattr(xenserver_session, "IDLE_SECONDS", -1.0)
    pool_of(xen, sessions).host_facts(soon())

    wait_until(lambda: open_sessions(xen) == 1)


def test_each_thread_has_a_session_of_its_own_and_few_are_kept(xen, sessions):
    host = pool_of(xen, sessions)
    xen.faults.delay(0.2, "host.get_all_records")
    threads = [threading.Thread(target=host.host_facts, args=(soon(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert xen.calls["session.login_with_password"] == 8
    assert open_sessions(xen) == xenserver_session.IDLE_MAX


def test_ended_session_is_opened_again(xen, sessions):
    host = pool_of(xen, sessions)
    host.host_facts(soon())
    xen.expire_sessions()
    host.host_facts(soon())

    assert xen.calls["session.login_with_password"] == 2


def test_pool_that_was_restarted_is_spoken_to_again(xen, sessions):
    host = pool_of(xen, sessions)
    host.host_facts(soon())
    xen.restart()
    host.host_facts(soon())


@pytest.mark.parametrize("fields", [{"password": "wrong"}, {"username": "nobody"}, {"password": ""}])
def test_wrong_credentials_are_told_as_such(xen, sessions, fields):
    with pytest.raises(CredentialsRefused, match="user or the password"):
        pool_of(xen, sessions, **fields).host_facts(soon())


def test_password_that_was_changed_meanwhile_is_told_as_such(xen, sessions):
    host = pool_of(xen, sessions)
    host.host_facts(soon())
    xen.sessions.users["root"] = ("another", "pool-admin")
    xen.expire_sessions()
    with pytest.raises(CredentialsRefused):
        host.host_facts(soon())


def test_role_that_may_not_do_it_is_told_as_such(xen, sessions):
    xen.sessions.users["reader"] = ("pw", "read-only")
    vm = started(host_of(xen))
    reader = XenHost(address_of(xen, username="reader", password="pw"), "xen1", sessions)
    assert reader.power_state(vm, soon())

    with pytest.raises(CredentialsRefused, match="role"):
        reader.reboot(vm, soon())


def test_text_of_a_failure_holds_nothing_of_the_pool_s(xen, sessions):
    xen.faults.fail_next("host.get_all_records", "SECRET<img>", "root:hunter2")
    with pytest.raises(Refused) as refused:
        pool_of(xen, sessions).host_facts(soon())

    assert "hunter2" not in str(refused.value)
    assert "<img>" not in str(refused.value)


# The coordinator ---------------------------------------------------------------------------------


def test_member_leads_to_its_coordinator(xen, sessions):
    host = pool_of(xen, sessions, host=xen.addresses[1])

    assert host.host_facts(soon()).hostname == "pool"


def test_member_that_leads_to_a_stranger_is_not_followed_without_a_certificate_authority(xen, sessions):
    member = xen.certificates[xen.ref("host", "xen2")].fingerprint
    host = pool_of(xen, sessions, host=xen.addresses[1], ca_certificates="", fingerprint=member)
    with pytest.raises(CertificateRefused, match="coordinator"):
        host.host_facts(soon())

    assert xen.calls["session.login_with_password"] == 1  # the member's, none other


def test_coordinator_is_followed_when_it_is_known_from_the_pool(xen, sessions):
    member = xen.certificates[xen.ref("host", "xen2")].fingerprint
    address = address_of(xen, host=xen.addresses[1], ca_certificates="", fingerprint=member)
    MEMBERS.learn(address, xen.addresses[0], xen.fingerprint)

    assert XenHost(address, sessions=sessions).host_facts(soon()).hostname == "pool"


@pytest.mark.parametrize("stranger", ["127.0.0.9", "evil.invalid", "x y", "", "https://evil/", "169.254.169.254"])
def test_coordinator_that_cannot_be_one_ends_it(xen, sessions, stranger):
    for _ in range(2):
        xen.faults.fail_next("session.login_with_password", "HOST_IS_SLAVE", stranger)
    with pytest.raises((EndpointUnreachable, AskTheOperator, Refused)):
        pool_of(xen, sessions).host_facts(soon(5))

    assert xen.calls["session.login_with_password"] == 1


def test_hosts_that_send_us_round_in_circles_are_left(xen, sessions):
    for _ in range(10):
        xen.faults.fail_next("session.login_with_password", "HOST_IS_SLAVE", xen.host)
    with pytest.raises(EndpointUnreachable, match="coordinator"):
        pool_of(xen, sessions).host_facts(soon())

    assert xen.calls["session.login_with_password"] == 3


def test_pool_that_changed_its_coordinator_is_followed(xen, sessions):
    host = pool_of(xen, sessions, host=xen.addresses[1])
    host.host_facts(soon())
    xen.faults.fail_next("host.get_all_records", "HOST_IS_SLAVE", xen.addresses[0])

    assert host.host_facts(soon()).hostname == "pool"


def test_fail_over_is_followed_without_a_word(xen):
    host = host_of(xen, "xen2")
    vm = started(host)
    xen.change_master("xen2")

    assert host.power_state(vm, soon())
    host.stop(vm, soon(), grace=0)
    assert vm.uuid not in host_of(xen, "").running_vms(soon())


def test_fail_over_to_a_member_that_is_known_by_the_pool_alone(xen):
    """Its fingerprint was told by the coordinator, when a file went to it."""
    host = host_of(xen, "xen2", ca_certificates="", fingerprint=xen.fingerprint)
    host.place("i-2-7-VM-1-ab.iso", b"content", soon())
    xen.change_master("xen2")

    assert host.read("i-2-7-VM-1-ab.iso", soon()) == b"content"


@pytest.fixture(params=["certificate authority", "fingerprint"])
def told(request, xen, sessions) -> EndpointAddress:
    """The endpoint's address with what the pool told of its members."""
    address = address_of(xen)
    if request.param == "fingerprint":
        address = replace(address, ca_certificates="", fingerprint=xen.fingerprint)
    return replace(address, members=XenHost(address, sessions=sessions).members(soon()))


def test_members_are_told_with_their_certificates(xen, sessions):
    assert set(pool_of(xen, sessions).members(soon())) == {
        Member(row.text("address"), xen.certificates[row.ref].fingerprint) for row in xen.db.rows("host")
    }


def test_member_that_is_off_is_left_out(xen, sessions):
    xen.switch_off("xen2")

    assert [member.host for member in pool_of(xen, sessions).members(soon())] == [xen.host]


def test_fail_over_is_followed_by_a_process_that_knows_the_members_from_their_endpoint_alone(xen, told):
    xen.change_master("xen2")

    assert XenHost(told, sessions=Sessions()).host_facts(soon()).hostname == "pool"


def test_pool_whose_coordinator_is_dead_is_reached_through_a_member(xen, told):
    xen.change_master("xen2")
    xen.switch_off("xen1")
    sessions = Sessions()
    with XenHost(told, sessions=sessions)._session(soon()) as session:
        assert session.pool()
    sessions.close()
    before = xen.calls["session.login_with_password"]
    XenHost(told, sessions=sessions).members(soon())

    assert xen.calls["session.login_with_password"] == before + 1  # it asks where it was answered last


def test_coordinator_that_is_silent_leaves_time_for_the_members(xen, told):
    xen.change_master("xen2")
    xen.switch_off("xen1")
    with socket.create_server((xen.host, xen.port)):
        assert XenHost(told, sessions=Sessions()).host_facts(soon(4)).hostname == "pool"


def test_pool_of_which_nobody_answers_is_unreachable(xen, told):
    for host in ("xen1", "xen2"):
        xen.switch_off(host)
    with pytest.raises(EndpointUnreachable):
        XenHost(told, sessions=Sessions()).host_facts(soon())


def test_machine_that_took_a_member_s_address_gets_no_password(xen, told):
    xen.change_master("xen2")
    xen.switch_off("xen1")
    xen.change_certificate()
    before = xen.calls["session.login_with_password"]
    with pytest.raises(CertificateRefused):
        XenHost(told, sessions=Sessions()).host_facts(soon())

    assert xen.calls["session.login_with_password"] == before


def test_coordinator_with_another_certificate_is_refused_though_there_are_members(xen, told):
    xen.change_certificate()
    with pytest.raises(CertificateRefused):
        XenHost(told, sessions=Sessions()).host_facts(soon())


def test_coordinator_that_is_not_there_yet_does_not_spoil_what_comes_after(xen, sessions):
    host = pool_of(xen, sessions)
    host.host_facts(soon())
    xen.faults.fail_next("host.get_all_records", "HOST_IS_SLAVE", xen.addresses[0])
    xen.faults.answer("session.login_with_password", hostile.hang_up)
    with pytest.raises(EndpointUnreachable):
        host.host_facts(soon())
    xen.faults.calm()

    assert host.host_facts(soon()).hostname == "pool"


def test_certificate_that_changed_is_refused(xen, sessions):
    host = pool_of(xen, sessions)
    host.host_facts(soon())
    xen.change_certificate()
    xen.restart()
    with pytest.raises(CertificateRefused):
        host.host_facts(soon())


def test_member_whose_certificate_is_not_the_one_that_the_pool_tells_gets_no_file(xen):
    xen.certificates[xen.ref("host", "xen2")] = xen.certificates[xen.ref("host", "xen1")]
    with pytest.raises(CertificateRefused):
        host_of(xen, "xen2").place("i-2-7-VM-1-ab.iso", b"secret", soon())

    assert xen.calls["PUT /import_raw_vdi"] == 0


def test_member_whose_certificate_was_renewed_gets_its_files(xen):
    host = host_of(xen, "xen2", ca_certificates="", fingerprint=xen.fingerprint)
    host.place("i-2-7-VM-1-ab.iso", b"secret", soon())
    xen.change_certificate()
    host = host_of(xen, "xen2", ca_certificates="", fingerprint=xen.fingerprint)
    host.place("i-2-7-VM-1-ab.iso", b"secret", soon())


# Deadlines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["session.login_with_password", "host.get_all_records"])
def test_silent_pool_does_not_hold_us_up(xen, sessions, call):
    xen.faults.hang(call)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        pool_of(xen, sessions).host_facts(soon(1))

    assert time.monotonic() - begun < 2


def test_session_in_which_a_call_is_stuck_is_not_used_again(xen, sessions):
    host = pool_of(xen, sessions)
    xen.faults.hang("host.get_all_records")
    with pytest.raises(DeadlineExceeded):
        host.host_facts(soon(1))
    xen.faults.calm()
    host.host_facts(soon())

    wait_until(lambda: open_sessions(xen) == 1)


def test_nothing_more_is_asked_in_a_session_with_a_stuck_call(xen, sessions):
    xen.faults.hang("pool.get_all_records")
    with Session(address_of(xen), soon(), sessions) as session:
        with pytest.raises(DeadlineExceeded):
            session.call("pool.get_all_records", until=soon(0.5))
        with pytest.raises(EndpointUnreachable, match="stuck"):
            session.call("host.get_all_records")


def test_call_whose_waiter_was_given_up_leaves_its_session(xen, sessions, monkeypatch):
    monkeypatch.setattr(base, "HEARTBEAT_SECONDS", 0.05)
    xen.faults.delay(2, "pool.get_all_records")

    def given_up():
        raise RuntimeError("taken over")

    with Session(address_of(xen), soon(), sessions) as session, pytest.raises(RuntimeError), heartbeat(given_up):
        session.call("pool.get_all_records")

    wait_until(lambda: open_sessions(xen) == 0)


def test_deadline_that_has_passed_asks_nobody(xen, sessions):
    with pytest.raises(DeadlineExceeded):
        pool_of(xen, sessions).host_facts(soon(-1))

    assert not xen.calls


def test_port_where_nobody_listens(sessions):
    address = EndpointAddress(Transport.TEST, "127.0.0.1", 1, "root", "x", fingerprint="00" * 32)
    with pytest.raises(EndpointUnreachable):
        XenHost(address, sessions=sessions).host_facts(soon())


# Tasks -------------------------------------------------------------------------------------------


@pytest.fixture
def session(xen, sessions):
    with Session(address_of(xen), soon(), sessions) as session:
        yield session


def test_long_call_gives_what_it_made(xen, session):
    vdi = xen.db.where("VDI", SR=xen.ref("SR", "primary"))[0].ref

    made = session.run("VDI.copy", vdi, xen.ref("SR", "primary"))

    assert xen.db.get("VDI", made)


def test_long_call_fails_as_a_short_one(session):
    with pytest.raises(NotFound):
        session.run("VM.destroy", "OpaqueRef:gone")


def test_long_call_that_does_not_end_is_cancelled(xen, session):
    xen.pace["copy"] = 60
    vdi = xen.db.where("VDI", SR=xen.ref("SR", "primary"))[0].ref
    begun = time.monotonic()
    with pytest.raises(Busy, match="cancelled"):
        session.run("VDI.copy", vdi, xen.ref("SR", "primary"), until=soon(0.5))

    assert time.monotonic() - begun < 5
    assert xen.calls["task.cancel"] == 1


def test_who_waits_is_known_to_be_alive(xen, session):
    xen.pace["copy"] = 0.5
    vdi = xen.db.where("VDI", SR=xen.ref("SR", "primary"))[0].ref
    beats = []
    with heartbeat(lambda: beats.append(1)):
        session.run("VDI.copy", vdi, xen.ref("SR", "primary"))

    assert beats


def test_waiter_that_was_given_up_leaves_its_session(xen, sessions):
    xen.pace["copy"] = 30
    vdi = xen.db.where("VDI", SR=xen.ref("SR", "primary"))[0].ref

    def given_up():
        raise RuntimeError("taken over")

    with pytest.raises(RuntimeError), heartbeat(given_up), Session(address_of(xen), soon(), sessions) as session:
        session.run("VDI.copy", vdi, xen.ref("SR", "primary"))


def test_task_that_somebody_cancelled(xen, session):
    xen.pace["copy"] = 30
    vdi = xen.db.where("VDI", SR=xen.ref("SR", "primary"))[0].ref
    task = session.call("Async.VDI.copy", vdi, xen.ref("SR", "primary"))
    session.call("task.cancel", task)
    with pytest.raises(TryAgainLater, match="cancelled"):
        session.wait_for(task)


def test_pool_whose_hosts_do_not_agree(xen, session):
    for _ in range(2):
        xen.faults.fail_next("pool.get_all_records", "HOST_IS_SLAVE", xen.addresses[0])
    with pytest.raises(EndpointUnreachable, match="agree"):
        session.pool()


def test_ended_tasks_are_forgotten(xen, session):
    with pytest.raises(NotFound):
        session.run("VM.destroy", "OpaqueRef:gone")

    assert not xen.db.rows("task")


# What failures mean ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        (["SESSION_AUTHENTICATION_FAILED", "root", "x"], CredentialsRefused),
        (["HOST_OFFLINE", "x"], HostUnavailable),
        (["HOST_DISABLED", "x"], HostUnavailable),
        (["HOST_IS_SLAVE"], TryAgainLater),
        (["OTHER_OPERATION_IN_PROGRESS", "VM", "x"], Busy),
        (["VBD_TRAY_LOCKED", "x"], Busy),
        (["HANDLE_INVALID", "VM", "x"], NotFound),
        (["VM_REQUIRES_NETWORK", "x", "y"], NetworkMissing),
        (["SR_BACKEND_FAILURE_44", "", "no space", ""], StorageProblem),
        (["SR_BACKEND_FAILURE_999", "", "?", ""], StorageProblem),
        (["HOST_NOT_ENOUGH_FREE_MEMORY", "1", "0"], AskTheOperator),
        (["LICENCE_RESTRICTION", "x"], Refused),
        (["SOMETHING_NEW", "x"], Refused),
        ([], Refused),
    ],
)
def test_failure_is_named_for_what_to_do_next(details, kind):
    assert type(translate(details)) is kind


@pytest.mark.parametrize("error_info", [[], "x", None, {}])
def test_task_that_does_not_say_why_it_failed(error_info):
    assert isinstance(xenserver_session._told(error_info), EndpointUnreachable)


@pytest.mark.parametrize("pem", ["", 7, None, "-----BEGIN CERTIFICATE-----\n\u2603\n-----END CERTIFICATE-----"])
def test_certificate_that_is_none(pem):
    with pytest.raises(EndpointUnreachable):
        xenserver_session._fingerprint(pem)


@pytest.mark.parametrize("code", ["", "x" * 1000, "<b>", "\x1b[31m", "a b"])
def test_code_that_is_none_is_not_repeated(code):
    assert str(translate([code])) == "The pool refused the operation. (XenAPI failure)"


# Hostile answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        hostile.endless,
        hostile.huge_length,
        hostile.deep,
        hostile.entities,
        hostile.trickle,
        hostile.hang_up,
        hostile.not_xml,
        hostile.server_error,
        hostile.no_status,
        hostile.a_number,
    ],
)
@pytest.mark.parametrize("call", ["session.login_with_password", "host.get_all_records", "VM.get_all_records_where"])
def test_hostile_answer_costs_its_deadline_at_most(xen, sessions, call, answer):
    xen.faults.answer(call, answer)
    host = XenHost(address_of(xen), "xen1", sessions)
    begun = time.monotonic()
    with pytest.raises(HypervisorError):
        ask(host, call)

    assert time.monotonic() - begun < 3


def ask(host: XenHost, call: str) -> None:
    if call.startswith("VM."):
        host.list_vms(soon(1))
    else:
        host.host_facts(soon(1))


@pytest.mark.parametrize(
    "odd",
    [
        {"uuid": "x" * 100},
        {"name_label": "a\x7fb"},
        {"other_config": {"extdhcp-uuid": "not a uuid"}},
    ],
)
def test_odd_records_harm_nobody(xen, odd):
    host = host_of(xen)
    vm = started(host)
    xen.db.create("VM", **({"name_label": "odd", "power_state": "Running", "resident_on": xen.master.ref} | odd))

    assert vm.uuid in host.running_vms(soon())
    assert vm in [record.vm for record in host.list_vms(soon())]


def test_vm_that_is_deleted_while_it_is_looked_for(xen):
    host = host_of(xen)
    vm = started(host)
    ref = xen.ref("VM", vm.name)
    xen.faults.before("VM.get_record", lambda: xen.delete_vm(ref))

    assert host.power_state(vm, soon()) is None


def test_vm_that_is_deleted_while_it_is_stopped(xen):
    host = host_of(xen)
    vm = started(host)
    ref = xen.ref("VM", vm.name)
    xen.faults.before("Async.VM.hard_shutdown", lambda: xen.delete_vm(ref))
    host.stop(vm, soon(), grace=0)

    assert host.power_state(make_vm(), soon()) is None


def wait_until(true, seconds: float = 5) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_address_that_cannot_be_one_is_refused_before_anything_is_asked(xen):
    with pytest.raises(Refused):
        XenHost(replace(address_of(xen), host="xen.example.net/../"))
