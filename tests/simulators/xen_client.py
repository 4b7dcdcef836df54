"""How tests talk to a simulated Xen pool: the real XenAPI library, with TLS verified and a time-out."""

import contextlib
import http.client
import ssl
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import XenAPI

from tests.simulators.xenserver import XenServer

TIMEOUT = 10.0
QOS: dict[str, object] = {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}


class Transport(xmlrpc.client.SafeTransport):
    def make_connection(self, host: Any) -> http.client.HTTPSConnection:
        connection = super().make_connection(host)
        connection.timeout = TIMEOUT
        return connection


def trusting(pem: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem)


@dataclass
class Client:
    """A session, logged in; `api` is its `xenapi`."""

    xen: XenServer
    session: XenAPI.Session

    @classmethod
    def of(cls, xen: XenServer, username: str = "", password: str = "", originator: str = "tests") -> "Client":
        session = unauthenticated(xen, xen.url)
        session.login_with_password(username or xen.username, password or xen.password, "1.0", originator)
        return cls(xen, session)

    @property
    def api(self) -> Any:
        return self.session.xenapi

    def run(self, name: str, *parameters: object) -> dict[str, Any]:
        """Call a message as a task, and wait for it; the task's record."""
        target = self.api.Async
        for part in name.split("."):
            target = getattr(target, part)
        return self.finished(target(*parameters))

    def finished(self, task: str) -> dict[str, Any]:
        give_up = time.monotonic() + TIMEOUT
        while self.api.task.get_status(task) == "pending":
            assert time.monotonic() < give_up, "the task does not end"
            time.sleep(0.01)
        return self.api.task.get_record(task)  # type: ignore[no-any-return]

    def events(self, classes: list[str], token: str = "", timeout: float = 5.0) -> dict[str, Any]:
        return getattr(self.api.event, "from")(classes, token, timeout)  # type: ignore[no-any-return]

    def request(
        self, method: str, path: str, body: object = None, url: str = "", headers: Mapping[str, str] = {}, **query: str
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url or self.xen.url)
        context = trusting(self.xen.ca_certificates)
        connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=TIMEOUT, context=context)
        query = {"session_id": self.session.handle} | query
        connection.request(method, f"{path}?{urlencode(query)}", body, dict(headers))  # type: ignore[arg-type]
        return connection.getresponse()

    def put(self, vdi: str, content: bytes, **more: Any) -> http.client.HTTPResponse:
        return self.request("PUT", "/import_raw_vdi", content, vdi=vdi, format="raw", **more)

    def disc_record(self, sr: str, name: str, size: int = 2048) -> dict[str, object]:
        record = {"name_label": name, "SR": sr, "virtual_size": str(size), "type": "user", "sharable": False}
        return record | {"read_only": False, "other_config": {}, "sm_config": {"path": name}}

    def new_disc(self, sr: str, name: str, size: int = 2048) -> str:
        return self.api.VDI.create(self.disc_record(sr, name, size))  # type: ignore[no-any-return]

    def disc(self, sr: str, name: str, content: bytes) -> str:
        """A disc with this content, stored."""
        vdi = self.new_disc(sr, name, len(content))
        task = self.api.task.create("import", "")
        assert self.put(vdi, content, task_id=task).status == 200
        assert self.finished(task)["status"] == "success"
        return vdi

    def drive(self, vm: str, device: str = "autodetect") -> str:
        """An empty CD drive."""
        record = {"VM": vm, "VDI": "OpaqueRef:NULL", "userdevice": device, "bootable": False, "mode": "RO"}
        return self.api.VBD.create(record | {"type": "CD", "unpluggable": True, "empty": True} | QOS)  # type: ignore[no-any-return]


def unauthenticated(xen: XenServer, url: str) -> XenAPI.Session:
    return XenAPI.Session(url, transport=Transport(context=trusting(xen.ca_certificates)))


@contextlib.contextmanager
def fails(*details: str) -> Iterator[None]:
    """The call inside fails with these: the code, and as many of its parameters as are given."""
    with pytest.raises(XenAPI.Failure) as failure:
        yield
    assert failure.value.details[: len(details)] == list(details)
