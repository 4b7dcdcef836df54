"""TLS to a hypervisor's API: to the right machine, or not at all; within a deadline, however slow the other end is.

There is no way to switch the check off, and none for this machine itself. Nothing but the handshake is sent before
the endpoint's certificate was found to be the one that its `EndpointAddress` names.
"""

import contextlib
import hashlib
import hmac
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from cryptography import x509

from networks.hypervisors.base import (
    CertificateRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    HypervisorError,
    Refused,
    Transport,
)
from networks.hypervisors.hosts import resolve, uri_host

DEFAULT_PORT = 443
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Certificate:
    """What an endpoint shows of itself, unproven. `fingerprint`: SHA-256, 64 hexadecimal digits, lower case."""

    pem: str
    fingerprint: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    self_signed: bool


class TlsSocket(ssl.SSLSocket):
    """A socket whose every wait ends at `deadline` (monotonic clock), even when a byte comes every second."""

    deadline: float = 0.0

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(_left(self.deadline))
        return super().recv_into(*arguments, **options)

    def send(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(_left(self.deadline))
        return super().send(*arguments, **options)


def check_address(address: EndpointAddress) -> None:
    """Raises Refused for a transport, host, port, certificate or fingerprint that cannot be one. Asks nobody."""
    if address.transport not in (Transport.TLS, Transport.TEST):
        raise Refused("This kind of hypervisor is reached by TLS only.")
    uri_host(address.host)
    if address.port is not None and not 1 <= address.port <= 65535:
        raise Refused("The port is not between 1 and 65535.")
    _context(address)


def connect(address: EndpointAddress, deadline: float) -> TlsSocket:
    """A connection to the endpoint, whose certificate is the one to be trusted.

    Raises CertificateRefused (nothing was sent), Refused (an address that may not be connected to),
    EndpointUnreachable, DeadlineExceeded.
    """
    context = _context(address)
    try:
        connection = _handshake(context, address, deadline)
    except ssl.SSLCertVerificationError as error:
        # OpenSSL's words for it: expired, wrong name, not signed by whom we trust ... They quote no certificate.
        raise CertificateRefused(
            f"The endpoint's certificate is not to be trusted: {error.verify_message.rstrip('.')}."
            f"{_offered(address, deadline)}"
        ) from error
    if address.fingerprint:
        offered = hashlib.sha256(_certificate(connection)).hexdigest()
        if not hmac.compare_digest(offered, address.fingerprint):
            connection.close()
            raise CertificateRefused(
                "The endpoint's certificate is another than the one to be trusted. "
                f"Its SHA-256 fingerprint is {offered}."
            )
    return connection


def fetch_certificate(address: EndpointAddress, deadline: float) -> Certificate:
    """The certificate that the endpoint shows, whoever signed it, for an administrator to compare and accept.

    Nothing is sent to the endpoint. Raises Refused, EndpointUnreachable, DeadlineExceeded.
    """
    with _handshake(_unverified(), address, deadline) as connection:
        der = _certificate(connection)
    try:
        return _described(der)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise EndpointUnreachable("The endpoint's certificate cannot be read.") from error


def _context(address: EndpointAddress) -> ssl.SSLContext:
    if address.fingerprint:
        if not _FINGERPRINT.fullmatch(address.fingerprint):
            raise Refused("The fingerprint is not a SHA-256: 64 hexadecimal digits.")
        return _unverified()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not address.ca_certificates:
        context.load_default_certs()
        return context
    if "PRIVATE KEY" in address.ca_certificates:
        # As a host's own file holds both. What is stored here is shown to administrators.
        raise Refused("The CA certificates hold a private key: give the certificates alone.")
    # A pool's own certificate, or a CA below the root, may be what is trusted: the chain need not go further.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=address.ca_certificates)
    except (ssl.SSLError, TypeError, ValueError) as error:
        raise Refused("The CA certificates are not certificates in PEM form.") from error
    return context


def _unverified() -> ssl.SSLContext:
    """For `connect`, which compares the fingerprint, and for what an administrator is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _handshake(context: ssl.SSLContext, address: EndpointAddress, deadline: float) -> TlsSocket:
    with _as_ours():
        plain = _tcp(address, deadline)
        try:
            context.sslsocket_class = TlsSocket
            plain.settimeout(_left(deadline))  # the handshake as a whole ends by then, not each of its reads
            connection = cast(TlsSocket, context.wrap_socket(plain, server_hostname=uri_host(address.host).strip("[]")))
        except BaseException:
            plain.close()
            raise
    connection.deadline = deadline
    return connection


def _tcp(address: EndpointAddress, deadline: float) -> socket.socket:
    check_address(address)
    port = address.port or DEFAULT_PORT
    addresses = resolve(address.host, port, deadline, loopback=address.transport is Transport.TEST)
    for remaining, found in zip(range(len(addresses), 0, -1), addresses, strict=True):
        try:
            connection = socket.create_connection((found, port), _left(deadline) / remaining)
        except OSError:
            if remaining == 1:
                raise
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise EndpointUnreachable("The host's name has no address.")


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError:
        raise
    except TimeoutError as error:
        raise DeadlineExceeded("The endpoint did not answer in time.") from error
    except ssl.SSLError as error:
        raise EndpointUnreachable("The endpoint does not speak TLS 1.2 or newer on this port.") from error
    except ConnectionRefusedError as error:
        raise EndpointUnreachable("Nothing listens at the endpoint's host and port.") from error
    except OSError as error:
        raise EndpointUnreachable("The endpoint cannot be connected to.") from error


def _left(deadline: float) -> float:
    """Seconds until the deadline. Raises TimeoutError when it has passed: a time-out of 0 would mean not to wait."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _certificate(connection: TlsSocket) -> bytes:
    der = connection.getpeercert(binary_form=True)
    assert der is not None, "a TLS server always has a certificate"
    return der


def _offered(address: EndpointAddress, deadline: float) -> str:
    """The fingerprint of what was refused: OpenSSL gives no certificate of a handshake that failed."""
    try:
        return f" Its SHA-256 fingerprint is {fetch_certificate(address, deadline).fingerprint}."
    except HypervisorError:
        return ""


def _described(der: bytes) -> Certificate:
    certificate = x509.load_der_x509_certificate(der)
    return Certificate(
        pem=ssl.DER_cert_to_PEM_cert(der),
        fingerprint=hashlib.sha256(der).hexdigest(),
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        self_signed=certificate.subject == certificate.issuer,
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    )
