"""Run the whole server: web, both task queues and the watcher, until Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from extdhcp_site.environment import BASE_DIR, VAR_DIR, write_private
from extdhcp_site.processes import die_with_parent

SERVER_JSON = VAR_DIR / "server.json"
SERVER_ENV = VAR_DIR / "server.env"
# What a command typed in another terminal needs to meet the same server.
SHARED_ENVIRONMENT = (
    "DATABASE_URL",
    "SECRET_KEY_FILE",
    "FIELD_ENCRYPTION_KEYS_FILE",
    "LIBVIRT_TEST_SOCKET",
    "ALLOW_TEST_HYPERVISOR",
    "DEBUG",
)
READY_WITHIN = 60.0
STOP_WITHIN = 15.0
# More than are worked on at a time (see turns.py), so that one who sends slowly holds up nobody.
THREADS_FOR_REQUESTS = 50


class Command(BaseCommand):
    help = "Run the whole server until Ctrl-C: web (gunicorn), both task queues, and the watcher."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on (default: %(default)s).")
        parser.add_argument("--port", type=int, default=0, help="Port (default: a free one).")
        parser.add_argument("--credentials", type=Path, help="JSON file whose fields are added to var/server.json.")

    def handle(self, *args: Any, **options: Any) -> None:
        port = _port_to_listen_on(options["host"], options["port"])
        url = f"http://{_from_here(options['host'])}:{port}"
        _refuse_a_second_server()
        call_command("collectstatic", interactive=False, verbosity=0)
        # The children are other processes; none may inherit this one's connection.
        connections.close_all()
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        write_private(SERVER_ENV, _shared_environment())
        children = [Child(name, command) for name, command in _commands(options["host"], port).items()]
        try:
            for child in children:
                child.start()
            self._wait_until_ready(options["host"], port, children, stop)
            if not stop.is_set():
                _announce(url, options["credentials"])
                self.stderr.write(f"Serving at {url}/  (Ctrl-C stops)")
            while not stop.wait(1.0):
                for child in children:
                    if child.ended():
                        self.stderr.write(f"{child.name} ended with status {child.status}; starting it again.")
                        child.start()
        finally:
            SERVER_JSON.unlink(missing_ok=True)
            SERVER_ENV.unlink(missing_ok=True)
            for child in children:
                child.ask_to_stop()
            for child in children:
                child.wait()

    def _wait_until_ready(self, host: str, port: int, children: list["Child"], stop: threading.Event) -> None:
        give_up = time.monotonic() + READY_WITHIN
        while not stop.is_set() and not _is_ready(host, port):
            if time.monotonic() > give_up or any(child.ended() for child in children):
                raise CommandError(f"The server did not become ready. Its logs are in {VAR_DIR / 'log'}.")
            stop.wait(0.2)


class Child:
    """One of the server's processes, in a session of its own: Ctrl-C in the terminal reaches the parent alone,

    because a task cluster whose members are all signalled at once never ends.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        self.name, self._command = name, command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = VAR_DIR / "log" / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "Q_CLUSTER_NAME": self.name} if self.name == "addresses" else None
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=BASE_DIR,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def status(self) -> int | None:
        return self._process.returncode if self._process else None

    def ask_to_stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _commands(host: str, port: int) -> dict[str, list[str]]:
    manage = [sys.executable, str(BASE_DIR / "manage.py")]
    gunicorn = [sys.executable, "-m", "gunicorn", "extdhcp_site.wsgi", "--bind", f"{host}:{port}"]
    gunicorn += ["--worker-class", "gthread", "--workers", str(settings.WEB_PROCESSES)]
    gunicorn += ["--threads", str(settings.LIVE_CLIENTS + THREADS_FOR_REQUESTS)]
    # User data travels in the request line of clients that only know GET.
    gunicorn += ["--limit-request-line", "8190"]
    # A stream would hold up the end for as long as its client stays.
    gunicorn += ["--graceful-timeout", "3", "--log-level", "warning"]
    # Clients poll their jobs every 2 to 15 s on one connection: closed just then, it would fail them.
    gunicorn += ["--keep-alive", "75"]
    return {
        "web": gunicorn,
        "jobs": [*manage, "qcluster"],
        "addresses": [*manage, "qcluster"],
        "watcher": [*manage, "watch_hypervisors"],
    }


def _port_to_listen_on(host: str, wanted: int) -> int:
    """`wanted`, or a free one for 0. Asked for before gunicorn is: somebody else's server would answer for ours."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, wanted))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise CommandError(f"Cannot listen on {host}:{wanted}: {error.strerror}.") from None


def _from_here(host: str) -> str:
    """Under which address this machine reaches what listens on `host`."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not listened on


def _is_ready(host: str, port: int) -> bool:
    """Whether the server answers, asked by a name that it is allowed to answer to."""
    allowed = next((name.lstrip(".") for name in settings.ALLOWED_HOSTS if name != "*"), "localhost")
    request = urllib.request.Request(f"http://{_from_here(host)}:{port}/readyz", headers={"Host": allowed})
    try:
        with urllib.request.urlopen(request, timeout=2) as response:  # noqa: S310 - our own http URL
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _refuse_a_second_server() -> None:
    if not SERVER_JSON.exists():
        return
    try:
        os.kill(json.loads(SERVER_JSON.read_text())["pid"], 0)
    except (OSError, ValueError, KeyError):
        return  # it died without tidying up
    raise CommandError(f"A server is running already: see {SERVER_JSON}. Stop it first.")


def _announce(url: str, credentials: Path | None) -> None:
    fields = {"endpoint": f"{url}/client/api", "console": f"{url}/", "pid": os.getpid()}
    if credentials:
        fields |= json.loads(credentials.read_text())
    write_private(SERVER_JSON, json.dumps(fields, indent=2) + "\n")


def _shared_environment() -> str:
    pairs = {name: os.environ[name] for name in SHARED_ENVIRONMENT if os.environ.get(name)}
    pairs.setdefault("DEBUG", str(settings.DEBUG).lower())
    return f"# pid {os.getpid()}\n" + "".join(f"{name}={value}\n" for name, value in pairs.items())
