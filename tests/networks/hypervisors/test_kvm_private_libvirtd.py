"""The driver against a private libvirtd: state that processes share, and a host that freezes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from networks.hypervisors import kvm_connection
from networks.hypervisors.base import (
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    MediaFile,
    PowerState,
    Transport,
    abandoned_calls,
)
from networks.hypervisors.kvm import KvmHost
from tests.networks.hypervisors.factories import make_spec, make_vm, soon
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    try:
        with PrivateLibvirtd(tmp_path_factory.mktemp("libvirtd")) as daemon:
            yield daemon
    except LibvirtdMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def own(tmp_path):
    """A daemon that the test may kill."""
    try:
        with PrivateLibvirtd(tmp_path / "d") as daemon:
            yield daemon
    except LibvirtdMissing as error:
        pytest.skip(str(error))


def host_of(daemon):
    return KvmHost(EndpointAddress(Transport.TEST, test_socket=daemon.socket))


def pid_of(daemon):
    return int(daemon.pid_file.read_text())


OTHER_PROCESS = """
import sys, time
from networks.hypervisors.base import EndpointAddress, Transport
from networks.hypervisors.kvm import KvmHost
host = KvmHost(EndpointAddress(Transport.TEST, test_socket=sys.argv[1]))
print(*[record.vm.name for record in host.list_vms(time.monotonic() + 20)])
"""


def test_other_process_sees_the_same_vms(shared):
    vm = make_vm()
    host_of(shared).define(make_spec(vm), soon())
    host_of(shared).start(vm, soon())

    command = [sys.executable, "-c", OTHER_PROCESS, shared.socket]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert vm.name in seen.stdout.split()
    assert seen.stderr == ""


def test_vms_outlive_their_makers_connections(shared, monkeypatch):
    vm = make_vm()
    host = KvmHost(host_of(shared).address, kvm_connection.ConnectionPool())
    host.define(make_spec(vm), soon())
    host.start(vm, soon())
    del host

    assert host_of(shared).power_state(vm, soon()) is PowerState.RUNNING


def test_iso_and_addresses_through_the_daemon(shared):
    vm, host = make_vm(), host_of(shared)
    host.define(make_spec(vm), soon())
    media = host.place("i-2-3-VM-1-ab12.iso", b"x" * 2048, soon())
    host.insert(vm, media, soon())
    host.start(vm, soon())

    ((_vm, reading),) = host.read_addresses([vm], soon())

    assert [address.mac for address in reading.addresses] == list(vm.macs)
    assert MediaFile(media.name, 2048) in host.list_media(soon())


def test_forked_child_and_its_parent_both_go_on(shared):
    host = host_of(shared)
    host.list_vms(soon())

    pid = os.fork()
    if pid == 0:
        try:
            host.list_vms(soon())
            os._exit(0)
        except BaseException:
            os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    host.list_vms(soon())


def test_daemon_that_was_restarted_is_connected_to_again(own):
    host = host_of(own)
    host.list_vms(soon())
    own.stop()
    with pytest.raises(EndpointUnreachable):
        host.list_vms(soon())

    own.start()

    assert host.list_vms(soon())


def test_frozen_daemon_costs_its_deadline_and_works_again_when_it_thaws(own):
    host, before = host_of(own), abandoned_calls()
    host.list_vms(soon())
    os.kill(pid_of(own), signal.SIGSTOP)
    try:
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                host.list_vms(soon(0.3))
        assert abandoned_calls() > before
    finally:
        os.kill(pid_of(own), signal.SIGCONT)

    assert host.list_vms(soon())


def test_daemon_left_over_by_a_killed_run_is_ended(own):
    left_over = pid_of(own)

    with PrivateLibvirtd(own.directory) as successor:
        assert pid_of(successor) != left_over
        assert host_of(successor).list_vms(soon())


def test_daemon_is_not_the_machines_own(shared):
    """Unprivileged, it keeps its files under its own directory."""
    status = Path(f"/proc/{pid_of(shared)}/status").read_text()

    assert "Uid:\t0\t" not in status
    assert (shared.directory / "libvirt-home").is_dir()


def test_directory_whose_path_no_socket_can_have(tmp_path):
    try:
        with PrivateLibvirtd(tmp_path / ("deep " * 20)) as daemon:
            assert host_of(daemon).list_vms(soon())
            socket = Path(daemon.socket)
    except LibvirtdMissing as error:
        pytest.skip(str(error))
    assert not socket.parent.exists()
