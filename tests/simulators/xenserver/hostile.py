"""Answers that no honest xapi gives: each writes to the connection until it is done, or nobody listens any more."""

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache

Send = Callable[[bytes], None]
Hostile = Callable[[Send, threading.Event], None]

_START = b'<?xml version="1.0"?><methodResponse><params><param>'
_END = b"</param></params></methodResponse>"
BOMB_BYTES = 400 * 1024 * 1024
_BLOCK = 4 * 1024 * 1024
DEPTH = 200_000


def _head(length: int | None, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/xml", "Connection: close", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _whole(send: Send, body: bytes, *headers: str) -> None:
    send(_head(len(body), *headers) + body)


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """Made of one compressed block again and again: to pack 400 MB takes seconds."""
    block, start, end = b"A" * _BLOCK, _START + b"<value>", b"</value>" + _END
    packed = [_packed(start), _packed(block) * (BOMB_BYTES // _BLOCK), _packed(end, zlib.Z_FINISH)]
    checksum = zlib.crc32(start)
    for _ in range(BOMB_BYTES // _BLOCK):
        checksum = zlib.crc32(block, checksum)
    checksum = zlib.crc32(end, checksum)
    length = len(start) + BOMB_BYTES + len(end)
    head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return head + b"".join(packed) + struct.pack("<II", checksum, length)


def _packed(data: bytes, ending: int = zlib.Z_FULL_FLUSH) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush(ending)


def gzip_bomb(send: Send, closing: threading.Event) -> None:
    """400 KB that unpack to 400 MB."""
    _whole(send, _bomb(), "Content-Encoding: gzip")


def endless(send: Send, closing: threading.Event) -> None:
    """A body without end and without a length."""
    send(_head(None) + _START + b"<value>")
    while not closing.is_set():
        send(b"A" * 65536)


def huge_length(send: Send, closing: threading.Event) -> None:
    """10^12 bytes are promised, and a few come."""
    send(_head(10**12) + _START)
    closing.wait()


def deep(send: Send, closing: threading.Event) -> None:
    """Arrays in arrays."""
    inside = b"<value><array><data>" * DEPTH + b"</data></array></value>" * DEPTH
    _whole(send, _START + inside + _END)


def entities(send: Send, closing: threading.Event) -> None:
    """Entities of entities."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    start = f'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY e0 "{"A" * 1000}">{levels}]><methodResponse><params><param>'
    _whole(send, start.encode() + b"<value>&e9;</value>" + _END)


def trickle(send: Send, closing: threading.Event) -> None:
    """A byte a second, for ever."""
    send(_head(10**6))
    for byte in _forever(_START):
        send(byte)
        if closing.wait(1.0):
            return


def _forever(text: bytes) -> Iterator[bytes]:
    yield from (text[n : n + 1] for n in range(len(text)))
    while True:
        yield b" "


def silence(send: Send, closing: threading.Event) -> None:
    """Not a word, for ever."""
    closing.wait()


def hang_up(send: Send, closing: threading.Event) -> None:
    """The connection is closed without an answer."""


def not_xml(send: Send, closing: threading.Event) -> None:
    _whole(send, b"<html><body>Bad gateway")


def server_error(send: Send, closing: threading.Event) -> None:
    send(b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")


def no_status(send: Send, closing: threading.Event) -> None:
    """An answer without the envelope."""
    _whole(send, _START + b"<value><struct></struct></value>" + _END)


def a_number(send: Send, closing: threading.Event) -> None:
    """The envelope, and in it what nobody asked for."""
    inside = (
        "<member><name>Status</name><value>Success</value></member><member><name>Value</name><value>7</value></member>"
    )
    _whole(send, _START + f"<value><struct>{inside}</struct></value>".encode() + _END)
