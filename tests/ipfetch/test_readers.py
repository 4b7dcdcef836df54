"""The threads that read batches: they wait for the next one with their connection, and none waits for another."""

import threading

import pytest
from django.db import connection
from django.utils import timezone

from extdhcp_site.connections import keep_connections
from ipfetch import batches, planner
from ipfetch.models import IpFetch
from tests.ipfetch.passes import MINUTE, address, waiting_nic
from tests.lab.system import wait_for

# They see what is committed.
pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def readers(monkeypatch):
    """Readers of this test's own, in a process that keeps connections; their threads end with the test."""
    for name in ("CONN_MAX_AGE", "CONN_HEALTH_CHECKS"):
        monkeypatch.setitem(connection.settings_dict, name, connection.settings_dict[name])
    keep_connections()
    readers = batches._Readers()
    monkeypatch.setattr(batches, "_readers", readers)
    yield readers
    gone = threading.Barrier(readers._idle + 1)
    for _ in range(readers._idle):
        readers.run(lambda: (connection.close(), gone.wait(10)))
    gone.wait(10)


def run(readers, work) -> None:
    """Run something in a reader, and wait until that one is idle again."""
    before = readers._idle
    readers.run(work)
    wait_for("an idle reader", lambda: readers._idle >= max(before, 1), 10)


def test_the_next_batch_has_the_thread_and_the_connection_of_the_last(readers):
    used = []

    def work() -> None:
        batches.close_old_connections()
        connection.ensure_connection()
        used.append((threading.get_ident(), connection.connection))

    run(readers, work)
    run(readers, work)

    assert used[0] == used[1]


def test_a_reader_that_hangs_holds_up_no_other(readers):
    hangs, done = threading.Event(), threading.Event()
    readers.run(lambda: hangs.wait(10))

    readers.run(done.set)

    assert done.wait(5)
    hangs.set()
    wait_for("both readers", lambda: readers._idle == 2, 10)


def test_a_batch_after_one_that_failed_is_read_all_the_same(readers, fake, monkeypatch):
    nic = waiting_nic()
    fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
    planner.plan(timezone.now() + MINUTE)
    row = IpFetch.objects.get(nic=nic)
    with monkeypatch.context() as broken:
        broken.setattr(batches, "read", lambda *args: 1 / 0)
        run(readers, lambda: batches._read_in_thread(nic.vm.host.endpoint_id, [(row.pk, row.attempt)], 0))

    run(readers, lambda: batches._read_in_thread(nic.vm.host.endpoint_id, [(row.pk, row.attempt)], 0))

    nic.refresh_from_db()
    assert nic.ip4_address == "192.0.2.120"


def test_a_connection_that_the_server_has_ended_is_replaced_before_the_next_batch(readers, fake):
    nic = waiting_nic()
    fake.answers(nic.vm.on_host, address(nic, "192.0.2.120"))
    planner.plan(timezone.now() + MINUTE)
    row = IpFetch.objects.get(nic=nic)

    def end_it() -> None:
        connection.ensure_connection()
        connection.connection.close()
        # What a MariaDB server's connection says once it is gone; SQLite's never goes.
        connection.is_usable = lambda: False

    run(readers, end_it)

    run(readers, lambda: batches._read_in_thread(nic.vm.host.endpoint_id, [(row.pk, row.attempt)], 0))

    nic.refresh_from_db()
    assert nic.ip4_address == "192.0.2.120"
