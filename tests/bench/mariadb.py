"""A private MariaDB server in a directory of its own, with its defaults."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class MariadbMissing(RuntimeError):
    """The server is not installed; the text names the package."""


@contextlib.contextmanager
def private_server(directory: Path) -> Iterator[str]:
    """A fresh server while this is open; gives the DATABASE_URL of an empty database in it. Raises MariadbMissing."""
    daemon = shutil.which("mariadbd", path=_PATH)
    if daemon is None:
        raise MariadbMissing("mariadbd is not installed: Debian and Ubuntu have it in mariadb-server-core.")
    directory.mkdir(mode=0o700)
    data, sock, port = directory / "data", directory / "socket", _free_port()
    as_user = []
    if os.geteuid() == 0:
        # It refuses to run as root, and its own user is there only where it is installed as a service.
        shutil.chown(directory, "nobody")
        as_user = ["--user=nobody"]
    log = (directory / "server.log").open("ab")
    subprocess.run(
        [
            "mariadb-install-db",
            "--no-defaults",
            *as_user,
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
        env={**os.environ, "PATH": _PATH},
        stdout=log,
        stderr=log,
        check=True,
    )
    server = subprocess.Popen(
        [
            daemon,
            "--no-defaults",
            *as_user,
            f"--datadir={data}",
            # Its own: a server that starts deletes the temporary tables of others.
            f"--tmpdir={directory}",
            f"--socket={sock}",
            f"--pid-file={directory / 'pid'}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _create_database(server, sock)
        yield f"mysql://root@127.0.0.1:{port}/extdhcp"
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _create_database(server: subprocess.Popen[bytes], sock: Path) -> None:
    command = ["mariadb", "--no-defaults", f"--socket={sock}", "--user=root", "-e"]
    create = [*command, "CREATE DATABASE extdhcp CHARACTER SET utf8mb4"]
    give_up = time.monotonic() + START_SECONDS
    while (tried := subprocess.run(create, capture_output=True, text=True)).returncode:
        if server.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"The private MariaDB did not start: {tried.stderr.strip()} See {sock.parent}.")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
