"""One server for all clients, and their programs, which all run at once while the tests wait for theirs."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients.environments import ClientMissing
from tests.clients.programs import Keys, Outcome, Program
from tests.server import Client, Server
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

# They mostly wait, for jobs and for addresses.
AT_ONCE = 6


class Programs:
    """What the clients' programs printed, by program; each is run once."""

    def __init__(self, server: Server, keys: dict[str, Keys], directory: Path) -> None:
        self.server, self.keys = server, keys
        self._directory = directory
        self._running: dict[Program, Future[Outcome]] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def begin(self, program: Program) -> Future[Outcome]:
        if program not in self._running:
            endpoint = self.server.announced["endpoint"]
            keys = self.keys[program.user]
            self._running[program] = self._pool.submit(program.run, endpoint, keys, self._directory)
        return self._running[program]

    def client_of(self, user: str) -> Client:
        """A client of ours, to see what theirs did."""
        return Client(self.server.announced["endpoint"], self.keys[user].api_key, self.keys[user].secret_key)

    def end(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    directory = tmp_path_factory.mktemp("c")
    libvirtd = PrivateLibvirtd(directory / "v")
    try:
        libvirtd.start()
    except LibvirtdMissing as missing:
        unable(str(missing))
    server = Server(
        directory / "state",
        directory / "var",
        LIBVIRT_TEST_SOCKET=libvirtd.socket,
        ALLOW_TEST_HYPERVISOR="true",
        JOB_WORKERS="3",
    )
    try:
        server.prepare()
        keys = {name: Keys(**pair) for name, pair in json.loads(server.run("-m", "tests.seed", "clients")).items()}
        server.start()
        fields = server.announced
        keys["admin"] = Keys(fields["api_key"], fields["secret_key"], fields["token"])
        keys["nobody"] = Keys(keys["maria"].api_key, "not-her-secret-key", "not-a-token")
        programs = Programs(server, keys, directory)
        for item in request.session.items:
            for mark in item.iter_markers("program"):
                programs.begin(mark.args[0])
        yield programs
        programs.end()
    finally:
        server.stop()
        libvirtd.stop()


@pytest.fixture
def outcome(request: pytest.FixtureRequest, programs: Programs) -> Outcome:
    """What became of the program that the test's mark names."""
    mark = request.node.get_closest_marker("program")
    try:
        return programs.begin(mark.args[0]).result()
    except ClientMissing as missing:
        unable(str(missing))


def unable(reason: str) -> None:
    """A machine of CI must have every client: there, a skipped one would be a hole nobody sees."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
