"""Who is let in to the simulated pool, and for how long."""

import hashlib
import ssl

import pytest
import XenAPI

from tests.simulators.xen_client import Client, Transport, fails, trusting, unauthenticated


def test_certificate_that_nobody_vouches_for_is_refused_by_default(xen):
    session = XenAPI.Session(xen.url)
    with pytest.raises(ssl.SSLCertVerificationError):
        session.login_with_password(xen.username, xen.password, "1.0", "tests")


def test_fingerprint_is_that_of_the_certificate_shown(xen):
    pem = ssl.get_server_certificate((xen.host, xen.port))
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() == xen.fingerprint


def test_changed_certificate_is_no_longer_trusted(xen):
    before = trusting(xen.ca_certificates)
    xen.change_certificate()
    session = XenAPI.Session(xen.url, transport=Transport(context=before))
    with pytest.raises(ssl.SSLCertVerificationError):
        session.login_with_password(xen.username, xen.password, "1.0", "tests")


def test_each_host_has_a_certificate_of_its_own_that_the_master_tells(xen, api):
    shown = ssl.get_server_certificate((xen.addresses[1], xen.port))
    member = next(host for host in api.host.get_all() if api.host.get_address(host) == xen.addresses[1])
    assert api.host.get_server_certificate(member) == shown
    assert xen.certificates[member].fingerprint != xen.fingerprint


def test_wrong_password_is_refused(xen):
    session = unauthenticated(xen, xen.url)
    with fails("SESSION_AUTHENTICATION_FAILED", xen.username):
        session.login_with_password(xen.username, "wrong", "1.0", "tests")


def test_member_names_the_master(xen):
    session = unauthenticated(xen, xen.member_url)
    with fails("HOST_IS_SLAVE", xen.host):
        session.login_with_password(xen.username, xen.password, "1.0", "tests")


def test_library_logs_in_again_after_its_session_has_expired(xen, client):
    before = client.session.handle
    xen.expire_sessions()
    assert len(client.api.host.get_all()) == 2
    assert client.session.handle != before


def test_session_is_gone_after_log_out(xen, client):
    handle = client.session.handle
    client.api.session.logout()
    assert xen.db.find("session", handle) is None


def test_restart_ends_sessions_and_keeps_vms(xen, client, vm):
    client.api.VM.start(vm, False, False)
    xen.restart()
    again = Client.of(xen)
    assert again.api.VM.get_power_state(vm) == "Running"


def test_member_takes_over_and_the_old_master_names_it(xen, client, vm):
    xen.change_master("xen2")
    with fails("HOST_IS_SLAVE", xen.addresses[1]):
        unauthenticated(xen, xen.url).login_with_password(xen.username, xen.password, "1.0", "tests")
    session = unauthenticated(xen, xen.member_url)
    session.login_with_password(xen.username, xen.password, "1.0", "tests")
    assert session.xenapi.VM.get_name_label(vm) == "web"


def test_originator_pushes_out_its_own_oldest_session_only(xen):
    xen.sessions.limit = 2
    other = Client.of(xen, originator="somebody else")
    ours = [Client.of(xen) for _ in range(3)]
    alive = {row.ref for row in xen.db.rows("session")}
    assert alive == {other.session.handle, ours[1].session.handle, ours[2].session.handle}


def test_root_is_told_to_be_the_superuser_and_others_what_they_may(xen, api):
    session = xen.db.rows("session")[0].ref
    assert api.session.get_is_local_superuser(session) is True
    xen.sessions.users["other"] = ("secret", "vm-admin")
    other = Client.of(xen, "other", "secret")
    assert other.api.session.get_is_local_superuser(other.session.handle) is False
    allowed = other.api.session.get_rbac_permissions(other.session.handle)
    assert {"vm.start", "vm.get_record", "vdi.create", "http/put_import_raw_vdi", "event.from"} <= set(allowed)
    assert not {"sr.create", "pool.create_vlan_from_pif", "network.create"} & set(allowed)


@pytest.mark.parametrize(("role", "refused"), [("read-only", "VM.start"), ("vm-operator", "VM.clone")])
def test_role_refuses_what_it_does_not_hold(xen, vm, role, refused):
    xen.sessions.users["other"] = ("secret", role)
    api = Client.of(xen, "other", "secret").api
    assert api.VM.get_power_state(vm) == "Halted"
    with fails("RBAC_PERMISSION_DENIED", refused.lower()):
        api.VM.clone(vm, "copy") if refused == "VM.clone" else api.VM.start(vm, False, False)
