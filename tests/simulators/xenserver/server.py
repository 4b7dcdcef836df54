"""HTTP/1.1 over TLS, a thread a connection: XML-RPC by POST, raw disks by PUT and GET."""

import contextlib
import socket
import socketserver
import ssl
import xml.parsers.expat
import xmlrpc.client
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import transfers
from .certificate import Certificate
from .hostile import Hostile

if TYPE_CHECKING:
    from .simulator import XenServer

HANDSHAKE_SECONDS = 10.0
MOST_BYTES_OF_A_CALL = 16 * 1024 * 1024
_DRAIN_SECONDS = 2.0
_CHUNK = 65536


class Listener(socketserver.ThreadingTCPServer):
    """The address of one host of the pool."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, xen: "XenServer", host: str, address: tuple[str, int]) -> None:
        self.xen = xen
        self.host = host
        self._connections: set[socket.socket] = set()
        super().__init__(address, Handler)

    def present(self, certificate: Certificate) -> None:
        """Show this certificate from now on; whoever is connected has to come again."""
        self._context = certificate.context()
        self.drop_connections()

    def drop_connections(self) -> None:
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        try:
            if self.xen.faults.tls_is_silent:
                self.xen.closing.wait()
                return
            request.settimeout(HANDSHAKE_SECONDS)
            with self._context.wrap_socket(request, server_side=True) as secured:
                self._connections.add(secured)
                secured.settimeout(None)
                Handler(secured, client_address, self)
        except (OSError, ssl.SSLError):
            pass  # whoever called has gone, or does not trust us
        finally:
            self._connections = {one for one in list(self._connections) if one.fileno() != -1 and one is not request}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "xapi/26.2"
    disable_nagle_algorithm = True
    server: Listener

    def setup(self) -> None:
        super().setup()
        self.xen = self.server.xen

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: a request's line may hold a session."""

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if self._path not in ("/", "/RPC2") or length > MOST_BYTES_OF_A_CALL:
            self.refuse(404)
            return
        try:
            parameters, name = xmlrpc.client.loads(self.rfile.read(length))
        except (xml.parsers.expat.ExpatError, xmlrpc.client.Error, ValueError, TypeError):
            self.refuse(500)
            return
        hostile = self._begin(str(name))
        if hostile is not None:
            self._answer_with(hostile)
            return
        body = self.xen.answer(self.server.host, str(name), list(parameters))
        self._send(f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        self._send(body)

    def do_PUT(self) -> None:
        self._transfer("/import_raw_vdi", transfers.take)

    def do_GET(self) -> None:
        self._transfer("/export_raw_vdi", transfers.give)

    def _transfer(self, path: str, transfer: Any) -> None:
        self.close_connection = True
        if self._path != path:
            self.refuse(404)
            return
        hostile = self._begin(f"{self.command} {path}")
        if hostile is not None:
            self._answer_with(hostile)
            return
        transfer(self.xen, self.server.host, self)

    @property
    def _path(self) -> str:
        return urlsplit(self.path).path

    def _begin(self, name: str) -> Hostile | None:
        self.xen.faults.count(name)
        seconds = self.xen.faults.seconds(name)
        if seconds:
            self.xen.closing.wait(seconds)
        return self.xen.faults.hostile(name)

    def _answer_with(self, hostile: Hostile) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            hostile(self._send, self.xen.closing)

    def refuse(self, status: int, *headers: str) -> None:
        """An answer without a body, and the end of the connection."""
        self.close_connection = True
        words = self.responses[status][0]
        lines = [f"HTTP/1.1 {status} {words}", *headers, "Content-Length: 0", "Connection: close"]
        self._send(("\r\n".join(lines) + "\r\n\r\n").encode())
        if self.command == "PUT":
            self.drain()

    def drain(self) -> None:
        """Let in what is on its way: who is still sending when the connection ends may never see the answer."""
        self.connection.settimeout(_DRAIN_SECONDS)
        with contextlib.suppress(OSError):
            while self.rfile.read1(_CHUNK):
                pass

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
