"""A served process with as many streams as one account may have: all else is answered as before, and it stops soon."""

import contextlib
import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from extdhcp_site.turns import AT_A_TIME
from tests.server import Server

CLIENTS = 60  # more than the threads there are for requests
STREAM = "/api/v1/events/stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("live")
    server = Server(place / "state", place / "var", LIVE_CLIENTS=str(2 * CLIENTS), WEB_CONCURRENCY="1")
    server.prepare()
    server.start()
    yield server
    server.stop()


Stream = tuple[http.client.HTTPConnection, http.client.HTTPResponse]


@pytest.fixture(scope="module")
def streams(server) -> Iterator[list[Stream]]:
    """As many as one account may have, each with its first line read."""
    opened = [listen(server) for _ in range(CLIENTS)]
    for _, response in opened:
        assert response.readline() == b"retry: 3000\n"
    yield opened
    for connection, _ in opened:
        connection.close()


def bearer(server: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.announced['token']}"}


def listen(server: Server) -> Stream:
    connection = http.client.HTTPConnection(urlsplit(server.announced["console"]).netloc, timeout=20)
    connection.request("GET", STREAM, headers=bearer(server))
    return connection, connection.getresponse()


def web_process(server: Server) -> int:
    """gunicorn's one worker."""
    for pid in children(server.pid):
        if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes():
            [worker] = children(pid)
            return worker
    raise AssertionError("gunicorn does not run.")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def database_connections(server: Server) -> int:
    targets = []
    for file in Path(f"/proc/{web_process(server)}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            targets.append(file.readlink().name)
    return targets.count("extdhcp.sqlite3")


def test_one_more_is_refused_with_a_word_when_to_come_again(server, streams):
    connection, response = listen(server)
    assert (response.status, response.getheader("Retry-After")) == (503, "5")
    connection.close()


def test_everybody_else_is_answered_as_before(server, streams):
    times = []
    for _ in range(20):
        begun = time.monotonic()
        server.client("listCapabilities")
        times.append(time.monotonic() - begun)
    # What would hang would hang for as long as the streams stay.
    assert sorted(times)[10] < 1


def test_streams_hold_no_database_connections(server, streams):
    # More than the one that asks for them: SQLite keeps what was closed for the next, while another is open.
    assert 1 <= database_connections(server) <= 1 + AT_A_TIME < CLIENTS


def test_all_are_told(server, streams):
    server.client("updateConfiguration", name="default.page.size", value="400")
    for _, response in streams:
        while not (line := response.readline()).startswith(b"data: "):
            pass
        assert b"CONFIGURATION.VALUE.EDIT" in line


def test_whoever_hangs_up_makes_room(server, streams):
    connection, _ = streams.pop()
    connection.close()

    give_up = time.monotonic() + 10
    another = listen(server)
    while another[1].status == 503 and time.monotonic() < give_up:
        time.sleep(0.5)
        another = listen(server)
    streams.append(another)
    assert another[1].status == 200


def test_it_stops_soon_with_its_streams_open(server, streams):
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 12
