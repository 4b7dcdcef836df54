"""HTTPS to a hypervisor's API whose answers cost a bounded amount of memory and time, whatever it sends.

Compressed answers are not asked for, and refused; redirects are followed only to hosts that the caller names; HTTP
proxies of the environment are not used. Sources: RFC 9110, RFC 9112; what http.client leaves open is said below.
"""

import contextlib
import contextvars
import http.client
import io
import os
import select
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit
from xml.parsers import expat

from networks.hypervisors.base import (
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    EndpointUnreachable,
    HypervisorError,
    NotFound,
    Refused,
)
from networks.hypervisors.hosts import uri_host
from networks.hypervisors.tls import DEFAULT_PORT, TlsSocket, check_address, connect

BLOCK = 64 * 1024
MIB = 1024 * 1024
MEMORY_MAX = 56 * MIB  # bytes of Python objects that one answer may become: 64 MiB with what reads it
FILE_MAX = 32 * MIB
WIRE_MAX = 128 * MIB  # bytes of one answer, most of which is not kept
TOKEN_MAX = 2 * BLOCK  # bytes of one tag, comment ...: expat keeps an unfinished one, and reads it anew with each block
TEXT_MAX = MIB  # characters between two tags
DEPTH_MAX = 100  # elements inside each other
IDLE_MAX, IDLE_SECONDS = 4, 60.0


class AnswerRefused(EndpointUnreachable):
    """The endpoint answers what none of its kind would: too much, too deep, or not what was asked for."""


class StatusRefused(Refused):
    """The endpoint refuses with an HTTP status that has no meaning of its own here."""

    def __init__(self, status: int) -> None:
        super().__init__(f"The endpoint refuses with HTTP status {status}.")
        self.status = status


# Deadlines --------------------------------------------------------------------------------------

_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline")


@contextlib.contextmanager
def within(deadline: float) -> Iterator[None]:
    """For libraries that cannot be given one: what they ask while this is open is answered by `deadline`, or fails."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def current_deadline() -> float:
    """That of the innermost open `within`. Raises LookupError when there is none: no call goes without."""
    return _deadline.get()


# Connections ------------------------------------------------------------------------------------


class _Stream(io.BufferedReader):
    """What http.client reads from. It would read all there is for a chunk whose size is said to be -1."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise http.client.HTTPException("an answer without a size")
        return super().read(size)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = _Stream(self.fp.detach())


class _Connection(http.client.HTTPConnection):
    default_port = DEFAULT_PORT
    auto_open = 0  # http.client would open a connection of its own, to whomever
    response_class = _Response
    sock: TlsSocket | None

    def __init__(self, address: EndpointAddress, deadline: float) -> None:
        super().__init__(uri_host(address.host), address.port or DEFAULT_PORT)
        self.sock = connect(address, deadline)
        self.process = os.getpid()
        self.idle_since = 0.0

    def is_fresh(self) -> bool:
        """Whether it may be used again: ours, and nothing has come that nobody asked for, such as its end."""
        if self.sock is None or self.process != os.getpid() or time.monotonic() - self.idle_since > IDLE_SECONDS:
            return False
        poll = select.poll()  # select.select knows the first 1,024 files only
        poll.register(self.sock, select.POLLIN)
        return not self.sock.pending() and not poll.poll(0)


class Connections:
    """This process's idle connections to one endpoint. For any number of threads; each has one for itself."""

    def __init__(self, address: EndpointAddress) -> None:
        """Raises Refused for an address that cannot be one."""
        check_address(address)
        self._address = address
        self._idle: list[_Connection] = []  # without a lock, which a fork might copy locked: append and pop are atomic

    @contextlib.contextmanager
    def ask(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer, of which the status and headers have come. `target`: path and query, quoted.

        Never repeated: who loses the connection does not know what was done. Raises CertificateRefused,
        EndpointUnreachable, AnswerRefused, DeadlineExceeded, also for what fails in the `with`.
        """
        connection = self._take() or _Connection(self._address, deadline)
        assert connection.sock is not None
        connection.sock.deadline = deadline
        try:
            with _as_ours():
                yield (response := _answer(connection, method, target, body, headers))
        except BaseException:
            connection.close()
            raise
        if response.isclosed() and not response.will_close and connection.sock is not None:
            self._give(connection)
        else:
            response.close()
            connection.close()

    def close(self) -> None:
        while (connection := self._pop()) is not None:
            connection.close()

    def _take(self) -> _Connection | None:
        while (connection := self._pop()) is not None:
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    def _give(self, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        if len(self._idle) < IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.close()

    def _pop(self) -> _Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


def _answer(
    connection: _Connection, method: str, target: str, body: bytes, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    # Who refuses a file says so and hangs up before it has read all: the answer is there nevertheless.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        connection.request(method, target, body, {"User-Agent": "extdhcp", **headers})
    return connection.getresponse()


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise DeadlineExceeded("The endpoint did not answer in time.") from error
    except OSError as error:
        raise EndpointUnreachable("The connection to the endpoint was lost.") from error
    except http.client.HTTPException as error:
        raise AnswerRefused("The endpoint does not answer as HTTP servers do.") from error


def blocks(response: http.client.HTTPResponse, deadline: float, most: int = WIRE_MAX) -> Iterator[bytes]:
    """The answer's body, in blocks of at most 64 KiB. Raises AnswerRefused, DeadlineExceeded."""
    if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
        raise AnswerRefused("The endpoint compresses its answer, which it was not asked to do.")
    if (response.length or 0) > most:
        raise AnswerRefused("The endpoint's answer is too big.")
    total = 0
    while block := response.read(BLOCK):
        if time.monotonic() > deadline:
            raise DeadlineExceeded("The endpoint's answer takes too long.")
        total += len(block)
        if total > most:
            raise AnswerRefused("The endpoint's answer is too big.")
        yield block
    if response.length:
        raise AnswerRefused("The endpoint's answer breaks off.")


# XML --------------------------------------------------------------------------------------------


class Budget:
    """How much memory an answer may still cost, in bytes."""

    def __init__(self, most: int = MEMORY_MAX) -> None:
        self._left = most

    def charge(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise AnswerRefused("The endpoint's answer is too big.")


_HANDLERS = (
    "StartElementHandler",
    "EndElementHandler",
    "CharacterDataHandler",
    "StartNamespaceDeclHandler",
    "EndNamespaceDeclHandler",
)


class XmlParser:
    """Feeds expat with an answer's blocks: UTF-8, no DTD and so no entities, no processing instructions, no long tags.

    How deep and how much is up to the handlers.
    """

    def __init__(
        self,
        start: Callable[[str, dict[str, str]], object],
        end: Callable[[str], object],
        text: Callable[[str], object],
        separator: str | None = None,
    ) -> None:
        """With a `separator`, tags are told with their namespace before it."""
        self.expat = expat.ParserCreate("utf-8", separator)
        self.expat.buffer_text = True
        self.expat.buffer_size = BLOCK
        self.expat.StartElementHandler = start
        self.expat.EndElementHandler = end
        self.expat.CharacterDataHandler = text
        self.expat.StartDoctypeDeclHandler = _refuse_markup
        self.expat.ProcessingInstructionHandler = _refuse_markup
        self._fed = 0

    def feed(self, block: bytes) -> None:
        self.expat.Parse(block, False)
        self._fed += len(block)
        if self._fed - self.expat.CurrentByteIndex > TOKEN_MAX:
            raise AnswerRefused("The endpoint's answer has an endless tag.")

    def close(self) -> None:
        self.expat.Parse(b"", True)

    def release(self) -> None:
        """Forget the handlers. They know the parser as it knows them: an answer would stay, however it ended, until
        the garbage collector comes.
        """
        for handler in _HANDLERS:
            setattr(self.expat, handler, None)


def _refuse_markup(*_arguments: object) -> NoReturn:
    raise AnswerRefused("The endpoint's answer has a DTD or processing instructions.")


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """While this is open, whatever a foreign answer breaks in a parser is an AnswerRefused."""
    try:
        yield
    except (HypervisorError, OSError, http.client.HTTPException):
        raise
    except Exception as error:
        raise AnswerRefused("The endpoint's answer cannot be read.") from error


# Files ------------------------------------------------------------------------------------------

Pairs = Mapping[str, str]


class HttpsClient:
    """Files to and from an endpoint. For any number of threads.

    `path` and `query` are as they are meant, unquoted. `headers` may hold a session's cookie. A redirect is followed
    once, to a host in `elsewhere` (as the endpoint spells it: how that one is reached and known), with the same path,
    query and headers; any other is refused.

    Raises CertificateRefused, CredentialsRefused (401, 403), NotFound (404), StatusRefused, EndpointUnreachable.
    """

    def __init__(self, address: EndpointAddress) -> None:
        self._connections = Connections(address)

    def put(
        self,
        path: str,
        content: bytes,
        deadline: float,
        *,
        query: Pairs | None = None,
        headers: Pairs | None = None,
        elsewhere: Mapping[str, EndpointAddress] | None = None,
    ) -> None:
        target = _target(path, query or {})
        headers = {"Content-Type": "application/octet-stream", **(headers or {})}
        self._exchange("PUT", target, content, headers, deadline, elsewhere or {}, BLOCK)

    def get(
        self,
        path: str,
        deadline: float,
        *,
        query: Pairs | None = None,
        headers: Pairs | None = None,
        elsewhere: Mapping[str, EndpointAddress] | None = None,
        most: int = FILE_MAX,
    ) -> bytes:
        """At most `most` bytes; AnswerRefused for more."""
        return self._exchange("GET", _target(path, query or {}), b"", headers or {}, deadline, elsewhere or {}, most)

    def close(self) -> None:
        self._connections.close()

    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes,
        headers: Pairs,
        deadline: float,
        elsewhere: Mapping[str, EndpointAddress],
        most: int,
    ) -> bytes:
        with self._connections.ask(method, target, body, headers, deadline) as response:
            if response.status in (301, 302, 303, 307, 308):
                other = _allowed(response.getheader("Location") or "", elsewhere)
            else:
                _check_status(response.status)
                content = io.BytesIO()  # which is not copied at the end
                content.writelines(blocks(response, deadline, most))
                return content.getvalue()
        client = HttpsClient(other)
        try:
            return client._exchange(method, target, body, headers, deadline, {}, most)
        finally:
            client.close()


def _target(path: str, query: Pairs) -> str:
    parameters = urlencode(query, quote_via=quote)
    return quote(path) + (f"?{parameters}" if parameters else "")


def _allowed(location: str, elsewhere: Mapping[str, EndpointAddress]) -> EndpointAddress:
    try:
        parts = urlsplit(location)
        host = parts.hostname or "" if parts.scheme == "https" else ""
    except ValueError:
        host = ""
    if host not in elsewhere:
        raise Refused("The endpoint sends us to another host, which is not one of its own.")
    return elsewhere[host]


def _check_status(status: int) -> None:
    if status in (401, 403):
        raise CredentialsRefused(f"The endpoint does not let this user do that (HTTP status {status}).")
    if status == 404:
        raise NotFound("The endpoint has no such file or folder.")
    if status in (429, 502, 503, 504):
        raise EndpointUnreachable(f"The endpoint cannot answer now (HTTP status {status}).")
    if not 200 <= status < 300:
        raise StatusRefused(status)
