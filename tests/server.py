"""A whole server in a directory of its own: database, keys, a root admin, and `manage.py serve`.

The demo, the lab and the tests that need real processes all start theirs here. Free of pytest, which
the demo has not, and of Django, whose settings in a test run are others.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN = 90.0


class ServerFailed(RuntimeError):
    """The server did not start; the text says where to look."""


class ApiFailed(RuntimeError):
    """The API answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


@dataclass(frozen=True)
class Client:
    """A signed CloudStack client in a few lines, for where no package may be asked for."""

    endpoint: str
    api_key: str
    secret_key: str

    def __call__(self, command: str, **parameters: object) -> dict[str, Any]:
        """The object under the answer's one key. Raises ApiFailed."""
        fields = {"command": command, "response": "json", "apikey": self.api_key}
        fields |= {name: str(value) for name, value in parameters.items() if value is not None}
        spelt = "&".join(f"{name}={urllib.parse.quote(fields[name], safe='*~')}" for name in sorted(fields)).lower()
        # HMAC-SHA1 is what the protocol says.
        digest = hmac.new(self.secret_key.encode(), spelt.encode(), hashlib.sha1).digest()
        fields["signature"] = base64.b64encode(digest).decode()
        request = urllib.request.Request(self.endpoint, urllib.parse.urlencode(fields).encode())  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own http URL
                (content,) = json.load(answer).values()
        except urllib.error.HTTPError as error:
            (content,) = json.load(error).values()
            raise ApiFailed(error.code, content["errortext"]) from None
        return dict(content)

    def wait_for(self, job_id: str, seconds: float = 300) -> dict[str, Any]:
        """The result of a job. Raises ApiFailed with the job's reason, and TimeoutError."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            job = self("queryAsyncJobResult", jobid=job_id)
            if job["jobstatus"] == 1:
                return dict(job["jobresult"])
            if job["jobstatus"] == 2:
                raise ApiFailed(job["jobresultcode"], job["jobresult"]["errortext"])
            time.sleep(0.3)
        raise TimeoutError(f"Job {job_id} did not end in {seconds:.0f} s.")


class Server:
    """`prepare` makes database and admin, `start` runs it until `stop`.

    `var` is where server.json and logs go; `state` holds database and keys, and is made afresh.
    """

    def __init__(self, state: Path, var: Path, **environment: str) -> None:
        self.state, self.var = state, var
        self.username, self.password = "admin", secrets.token_urlsafe(12)
        self._credentials = state / "credentials.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.environment = {
            "VAR_DIR": str(var),
            "DATABASE_URL": f"sqlite:///{state / 'extdhcp.sqlite3'}",
            "SECRET_KEY_FILE": str(state / "secret_key"),
            "FIELD_ENCRYPTION_KEYS_FILE": str(state / "field_encryption_keys"),
            "DEBUG": "false",
            **environment,
        }

    def prepare(self) -> None:
        """A fresh database with a root admin and an API key for it."""
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(parents=True, mode=0o700)
        _write_private(self.state / "secret_key", secrets.token_urlsafe(50))
        _write_private(self.state / "field_encryption_keys", Fernet.generate_key().decode())
        self.manage("migrate", "--verbosity", "0")
        as_user = {"DJANGO_SUPERUSER_PASSWORD": self.password, "DJANGO_SUPERUSER_EMAIL": ""}
        self.manage("createsuperuser", "--noinput", "--username", self.username, **as_user)
        key = json.loads(self.manage("create_api_key", self.username, "--json"))
        _write_private(self._credentials, json.dumps({"username": self.username, "password": self.password, **key}))

    def start(self) -> None:
        """Returns once it is ready; again after `stop`, at the same port. Raises ServerFailed."""
        log = (self.state / "serve.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--credentials", str(self._credentials), "--port", str(self._port)],
            cwd=ROOT,
            env=self._full_environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        give_up = time.monotonic() + READY_WITHIN
        while not self._is_announced():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise ServerFailed((self.state / "serve.log").read_text()[-2000:])
            time.sleep(0.1)
        self._port = urllib.parse.urlsplit(self.announced["endpoint"]).port or 0

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def manage(self, *arguments: str, **environment: str) -> str:
        """Run a manage.py command beside the server; what it printed."""
        return self.run("manage.py", *arguments, **environment)

    def run(self, *arguments: str, **environment: str) -> str:
        """Run Python in the server's environment; what it printed. Raises CalledProcessError."""
        command = [sys.executable, *arguments]
        full = {**self._full_environment, **environment}
        return subprocess.run(command, cwd=ROOT, env=full, check=True, text=True, stdout=subprocess.PIPE).stdout

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def announced(self) -> dict[str, Any]:
        return dict(json.loads((self.var / "server.json").read_text()))

    @property
    def client(self) -> Client:
        fields = self.announced
        return Client(fields["endpoint"], fields["api_key"], fields["secret_key"])

    @property
    def _full_environment(self) -> dict[str, str]:
        # A test run's own settings are for the process that runs the tests.
        return {**os.environ, "DJANGO_SETTINGS_MODULE": "extdhcp_site.settings", **self.environment}

    def _is_announced(self) -> bool:
        try:
            return bool(self.announced["pid"] == self.pid)
        except (OSError, ValueError):
            return False


def _write_private(path: Path, content: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
