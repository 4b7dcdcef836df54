"""Real TLS servers on loopback that answer what a test likes, and certificates for them."""

import contextlib
import datetime
import hashlib
import ipaddress
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from networks.hypervisors.base import EndpointAddress, Transport

HOST = "127.0.0.2"  # not 127.0.0.1, which pyVmomi would trust


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, in PEM form."""

    pem: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest()

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(self.pem + _key_pem(self.key))
            file.flush()
            context.load_cert_chain(file.name)
        return context


def make_identity(*names: str, signer: Identity | None = None, is_ca: bool = False, days: int = 30) -> Identity:
    """A certificate for DNS names and IP addresses, signed by itself or by `signer`; ended when `days` is negative."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    issuer = x509.load_pem_x509_certificate(signer.pem.encode()).subject if signer else subject
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(signer.key if signer else key, hashes.SHA256())
    )
    return Identity(certificate.public_bytes(serialization.Encoding.PEM).decode(), key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@dataclass
class Server:
    """What listens at `host` and `port`; `received` is what came from clients, in the clear."""

    host: str
    port: int
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0
    ending: threading.Event = field(default_factory=threading.Event)

    def address(self, **fields) -> EndpointAddress:
        return EndpointAddress(**{"transport": Transport.TEST, "host": self.host, "port": self.port} | fields)


Serve = Callable[[Server, socket.socket], None]


@contextlib.contextmanager
def serving(serve: Serve, context: ssl.SSLContext | None, host: str = HOST) -> Iterator[Server]:
    """Runs `serve` with each connection, after its TLS handshake; without `context` before any."""
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    server = Server(host, listener.getsockname()[1])

    def run(plain: socket.socket) -> None:
        # A client may leave whenever it likes, and most of these do.
        with contextlib.suppress(OSError), plain:
            connection = context.wrap_socket(plain, server_side=True) if context else plain
            with connection:
                serve(server, connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _peer = listener.accept()
                server.connections += 1
                threading.Thread(target=run, args=(plain,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        server.ending.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def silent(server: Server, _connection: socket.socket) -> None:
    server.ending.wait()


def recording(server: Server, connection: socket.socket) -> None:
    """Keeps what comes, and says nothing."""
    while piece := connection.recv(65536):
        server.received += piece


def drip(server: Server, connection: socket.socket, content: bytes) -> None:
    """A byte every twentieth of a second."""
    for number in range(len(content)):
        connection.sendall(content[number : number + 1])
        if server.ending.wait(0.05):
            return


def request_of(server: Server, connection: socket.socket) -> str | None:
    """Reads one HTTP request with its body, and gives its first line; None when the client has left."""
    content = b""
    while b"\r\n\r\n" not in content:
        piece = connection.recv(65536)
        if not piece:
            return None
        content += piece
    head, _, body = content.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            return None
        body += piece
    server.received += head + b"\r\n\r\n" + body
    return head.split(b"\r\n")[0].decode()


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def answering(*answers: bytes | Iterator[bytes]) -> Serve:
    """Answers one request after another, then hangs up."""

    def serve(server: Server, connection: socket.socket) -> None:
        for answer in answers:
            if request_of(server, connection) is None:
                return
            for piece in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(piece)

    return serve
