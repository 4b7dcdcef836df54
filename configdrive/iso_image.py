"""A finished ISO 9660 image as bytes: where its dates and lengths lie, and the same image with other contents.

Sources: ECMA-119, 8.4 (volume descriptors) and 9.1 (directory records); Joliet specification; SUSP 1.12, 4;
RRIP 1.12, 4.1.6 (TF).
"""

import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

BLOCK = 2048

_SYSTEM_AREA = 16 * BLOCK
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_ROOT_RECORD = 156
# Creation, modification, effective. Expiration, between the last two, stays "not specified".
_VOLUME_DATES = (813, 830, 864)
_PADDING = bytes(BLOCK)
_LENGTH = struct.Struct("<I")
_LENGTH_BIG_ENDIAN = struct.Struct(">I")


class UnknownLayout(Exception):
    """An image whose blocks are not: descriptors and directories, then file after file, then its end."""


class _Record(NamedTuple):
    """One directory record; `at` is its offset in the image."""

    at: int
    extent: int
    length: int
    is_directory: bool
    name: bytes


class _Slot(NamedTuple):
    """The place of one file's bytes: whose, how many blocks, and the offsets of the fields that say its length."""

    path: str
    blocks: int
    lengths: list[int]


class Template:
    """An image without the contents of its files, to be filled any number of times.

    Of `image` only what lies before the first file is kept, so what one filling holds cannot get into
    another. Every file of the image must have its bytes in blocks of its own, or share them all.
    Raises UnknownLayout.
    """

    def __init__(self, image: bytes) -> None:
        primary, joliet = _descriptors(image)
        records = [*_tree(image, primary), *_tree(image, joliet)]
        self._volume_dates = [start + offset for start in (primary, joliet) for offset in _VOLUME_DATES]
        self._dates = [record.at + 18 for record in records]
        self._dates += [at for record in _tree(image, primary) for at in _rock_ridge_dates(image, record)]
        self._slots = _slots(image, joliet, records)
        first = min(self._slots, default=len(image) // BLOCK)
        self._head = image[: first * BLOCK]
        _check_layout(self._slots, first, len(image))
        self.size = len(self._head) + 40 * (len(self._dates) + 2 * len(self._slots))

    def fill(self, files: Mapping[str, bytes], dated: datetime) -> bytes:
        """The image with the contents of `files`, every date in it being `dated`.

        `files` has the paths of the image, each with a content of as many blocks as it had there. `dated`
        is aware, from the years 1900 to 2155; what is below a second is cut off.
        """
        head = bytearray(self._head)
        volume_date, date = _dates(dated)
        for at in self._volume_dates:
            head[at : at + 17] = volume_date
        for at in self._dates:
            head[at : at + 7] = date
        parts: list[bytes | bytearray] = [head]
        for slot in self._slots.values():
            content = files[slot.path]
            length = _LENGTH.pack(len(content)) + _LENGTH_BIG_ENDIAN.pack(len(content))
            for at in slot.lengths:
                head[at : at + 8] = length
            parts += content, _PADDING[: -len(content) % BLOCK]
        return b"".join(parts)


def blocks(length: int) -> int:
    """How many blocks so many bytes take."""
    return -(-length // BLOCK)


def _dates(dated: datetime) -> tuple[bytes, bytes]:
    """`dated` as volume descriptors have it, and as directory records and Rock Ridge do."""
    if dated.tzinfo is None:
        raise ValueError("The date of an image must be aware: a naive one would depend on the local time zone.")
    utc = dated.astimezone(UTC)
    # The last byte of both is the distance from UTC.
    record = bytes((utc.year - 1900, utc.month, utc.day, utc.hour, utc.minute, utc.second, 0))
    return utc.strftime("%Y%m%d%H%M%S00").encode() + b"\0", record


def _descriptors(image: bytes) -> list[int]:
    """The offsets of the primary and the Joliet volume descriptor."""
    found, at = [], _SYSTEM_AREA
    while image[at] != _TERMINATOR:
        if image[at] in (_PRIMARY, _SUPPLEMENTARY):
            found.append(at)
        at += BLOCK
    return found


def _record(image: bytes, at: int) -> _Record:
    (extent,) = _LENGTH.unpack_from(image, at + 2)
    (length,) = _LENGTH.unpack_from(image, at + 10)
    name = image[at + 33 : at + 33 + image[at + 32]]
    return _Record(at, extent, length, bool(image[at + 25] & 2), name)


def _tree(image: bytes, descriptor: int) -> Iterator[_Record]:
    """Every record under a volume descriptor: the root's own, then each directory's with its "." and ".."."""
    root = _record(image, descriptor + _ROOT_RECORD)
    yield root
    for _, record in _walk(image, root):
        yield record


def _walk(image: bytes, directory: _Record, path: bytes = b"") -> Iterator[tuple[bytes, _Record]]:
    """The records in and below a directory, with their paths if the names are Joliet's, in UTF-16."""
    for record in _children(image, directory):
        if record.name in (b"\0", b"\1"):  # "." and ".."
            yield path, record
            continue
        child = path + b"\0/" + record.name if path else record.name
        yield child, record
        if record.is_directory:
            yield from _walk(image, record, child)


def _children(image: bytes, directory: _Record) -> Iterator[_Record]:
    start = directory.extent * BLOCK
    for block in range(start, start + directory.length, BLOCK):
        at = block
        # No record crosses the end of a block; zeros fill the rest.
        while at < block + BLOCK and image[at]:
            yield _record(image, at)
            at += image[at]


def _rock_ridge_dates(image: bytes, record: _Record) -> Iterator[int]:
    """The offsets of the dates in a record's TF entry, which pycdlib writes in the short form.

    It is always in the record itself: names of 64 characters leave room enough that nothing needed for
    a file goes to a continuation area.
    """
    name = len(record.name)
    at, end = record.at + 33 + name + (name + 1) % 2, record.at + image[record.at]
    while end - at >= 4:
        if image[at : at + 2] == b"TF":
            how_many = (image[at + 4] & 0x7F).bit_count()
            yield from range(at + 5, at + 5 + 7 * how_many, 7)
        at += image[at + 2]


def _slots(image: bytes, joliet: int, records: list[_Record]) -> dict[int, _Slot]:
    """First block to slot, in the order of the blocks. A file without bytes has none."""
    slots: dict[int, _Slot] = {}
    for path, record in _walk(image, _record(image, joliet + _ROOT_RECORD)):
        if record.length and not record.is_directory:
            slots.setdefault(record.extent, _Slot(path.decode("utf-16-be"), blocks(record.length), []))
    for record in records:
        if record.length and not record.is_directory:
            slots[record.extent].lengths.append(record.at + 10)
    return dict(sorted(slots.items()))


def _check_layout(slots: Mapping[int, _Slot], first: int, size: int) -> None:
    expected = first
    for extent, slot in slots.items():
        if extent != expected:
            raise UnknownLayout(f"{slot.path} begins at block {extent}, not {expected}.")
        expected += slot.blocks
    if expected * BLOCK != size:
        raise UnknownLayout(f"The image has {size} bytes, not {expected * BLOCK}.")
