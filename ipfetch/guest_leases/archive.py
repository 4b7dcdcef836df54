"""A tar archive of a few small files, as the driver brings them: it keeps their names and times apart.

tarfile of the standard library reads far more than this (links, sparse files, headers that go on for
ever), and has been made to loop by hostile archives; here a header is 512 bytes, and only plain files count.
Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

import re
from collections.abc import Iterator

from ipfetch.guest_leases.values import FILE_MAX_BYTES, FileOnDisk, moment

BLOCK = 512
MOST_FILES = 256
_OCTAL = re.compile(rb" *([0-7]{1,12})[ \0]*")
_PLAIN_FILE = (b"0", b"\0")


def files(content: bytes) -> Iterator[FileOnDisk]:
    """The plain files of an archive; content that is no archive is itself the one file.

    A file that the archive's end cuts off is left out, and so is one too large to be a lease file.
    """
    if content[257:262] != b"ustar":
        yield FileOnDisk(content[:FILE_MAX_BYTES])
        return
    at = 0
    for _ in range(MOST_FILES):
        header = content[at : at + BLOCK]
        size = _octal(header[124:136])
        if len(header) < BLOCK or header[257:262] != b"ustar" or size is None or not _checksum_holds(header):
            return
        at += BLOCK
        body = content[at : at + size]
        if header[156:157] in _PLAIN_FILE and len(body) == size <= FILE_MAX_BYTES:
            yield FileOnDisk(body, _name(header), moment(_octal(header[136:148])))
        at += -(-size // BLOCK) * BLOCK


def _octal(field: bytes) -> int | None:
    match = _OCTAL.fullmatch(field)
    return int(match[1], 8) if match else None


def _checksum_holds(header: bytes) -> bool:
    return _octal(header[148:156]) == sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def _name(header: bytes) -> str:
    path = header[:100].split(b"\0", 1)[0]
    return path.rpartition(b"/")[2].decode("ascii", errors="replace")
