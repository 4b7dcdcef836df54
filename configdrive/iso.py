"""From files to the bytes of an ISO 9660 image, in memory: no staging directory with secrets on disk.

pycdlib takes milliseconds an image, nearly all of it for names and directories. Drives differ in little
else than contents, so it makes one image a shape, of zeros, which is then filled for each drive.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from io import BytesIO
from itertools import count
from pathlib import PurePosixPath
from threading import Lock
from typing import NamedTuple, Self

from pycdlib import PyCdlib

from configdrive.content import METADATA_DIR, USER_DATA_FILES, DriveError
from configdrive.iso_image import BLOCK, Template, blocks
from networks.volume_label import check_label

# CloudStack's own limit for a finished drive.
MAX_IMAGE_BYTES = 64 * 1024 * 1024

# Joliet names have at most 64 characters; ISO 9660 has at most eight levels (ECMA-119, 6.8.2.1). Joliet
# counts a whole path in 240 bytes, two a character.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MAX_LEVELS = 8
_MAX_PATH_CHARACTERS = 120

_DIRECTORY_MODE = 0o040555
_METADATA_MODE = 0o100444
_PRIVATE_MODE = 0o100400


class InvalidPath(DriveError):
    """A path that has no place on a drive."""


class DriveTooLarge(DriveError):
    """The finished image would be over `MAX_IMAGE_BYTES`."""


def build_iso(files: Mapping[str, bytes], label: str, dated: datetime) -> bytes:
    """Pack `files` (path from the root to content) into an ISO 9660 image; equal input gives equal bytes.

    2048-byte blocks, level 3, Rock Ridge 1.09 and Joliet 3 names, `label` in both descriptors. User
    data is on the disc once, under all its names. Only metadata is readable by all; the rest is root's.
    `dated` (aware; whole seconds of UTC are written) is the version of the content, and every date in
    the image. Safe between threads.
    Raises InvalidLabel, DriveTooLarge, and InvalidPath for a path that is absolute, contains "..", or
    has a name with other characters than letters, digits, ".", "_", "-".
    Sources: ECMA-119, 8.4; config drive spec, "ISO creation".
    """
    shape = Shape.of(files, label)
    template = _templates.get(shape)
    if template is None:
        # Made of zeros: no VM's secret gets into what the next one's image is made of.
        template = Template(plain_image({path: bytes(size * BLOCK) for path, size, _ in shape.files}, shape))
        _templates.keep(shape, template)
    return template.fill(files, dated)


class Shape(NamedTuple):
    """All that decides where things lie in an image, and all of it but contents, lengths and dates.

    `files` are path, number of blocks, and the path whose bytes it shares; in the order of paths, because
    files do not become others by being named in another order.
    """

    label: str
    files: tuple[tuple[str, int, str | None], ...]

    @classmethod
    def of(cls, files: Mapping[str, bytes], label: str) -> Self:
        return cls(label, tuple((path, blocks(len(files[path])), _linked_to(path, files)) for path in sorted(files)))


def plain_image(files: Mapping[str, bytes], shape: Shape) -> bytes:
    """The image as pycdlib makes it, dated by the clock, in the local time zone."""
    check_label(shape.label)
    _check_paths(files)
    directories = _directories(files)
    on_disc = _iso9660_paths(directories, files)
    iso = PyCdlib()
    iso.new(interchange_level=3, vol_ident=shape.label, joliet=3, rock_ridge="1.09")
    for path in directories:
        iso.add_directory(on_disc[path], _name(path), joliet_path=f"/{path}", file_mode=_DIRECTORY_MODE)
    for path, _, original in shape.files:
        if original is None:
            mode = _METADATA_MODE if path.startswith(f"{METADATA_DIR}/") else _PRIVATE_MODE
            content = files[path]
            iso.add_fp(BytesIO(content), len(content), on_disc[path], _name(path), f"/{path}", mode)
    for path, _, original in shape.files:
        if original is not None:
            iso.add_hard_link(iso_old_path=on_disc[original], iso_new_path=on_disc[path], rr_name=_name(path))
            iso.add_hard_link(joliet_old_path=f"/{original}", joliet_new_path=f"/{path}")
    image = BytesIO()
    iso.write_fp(image)
    iso.close()
    if image.tell() > MAX_IMAGE_BYTES:
        raise DriveTooLarge(
            f"The drive would take {image.tell()} bytes of {MAX_IMAGE_BYTES}; shorten the user data, or let "
            "it fetch what it needs."
        )
    return image.getvalue()


class Templates:
    """The templates used last, at most `most` and of `most_bytes` together. Safe between threads."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[Shape, Template] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, shape: Shape) -> Template | None:
        with self._lock:
            if shape in self._kept:
                self._kept.move_to_end(shape)
            return self._kept.get(shape)

    def keep(self, shape: Shape, template: Template) -> None:
        with self._lock:
            if shape in self._kept:  # another thread was faster
                return
            self._kept[shape] = template
            self._bytes += template.size
            while len(self._kept) > self._most or self._bytes > self._most_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.size


_templates = Templates(most=64, most_bytes=16 * 1024 * 1024)


def _check_paths(files: Iterable[str]) -> None:
    directories = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    for path in files:
        parts = path.split("/")
        if not all(map(_NAME.fullmatch, parts)):
            raise InvalidPath(
                f"Path {path[:80]!r}: write it from the root without a first '/', each name 1 to 64 "
                "characters of A-Z, a-z, 0-9, '.', '_' and '-', not beginning with '.' or '-'."
            )
        if len(parts) > _MAX_LEVELS or len(path) > _MAX_PATH_CHARACTERS:
            raise InvalidPath(
                f"Path {path[:80]!r}: use at most {_MAX_LEVELS} levels and {_MAX_PATH_CHARACTERS} characters."
            )
        if path in directories:
            raise InvalidPath(f"Path {path!r} is a file and a directory of other files; rename one of them.")


def _directories(files: Iterable[str]) -> list[str]:
    """Every directory that `files` need, parents first; not the root."""
    parents = {parent for path in files for parent in PurePosixPath(path).parents}
    return sorted(str(parent) for parent in parents if parent.name)


def _linked_to(path: str, files: Mapping[str, bytes]) -> str | None:
    """The file whose bytes on the disc `path` shares, if it is a second name of user data."""
    if path not in USER_DATA_FILES:
        return None
    # Only these: files that are equal by chance may have to differ in their modes.
    original = next(name for name in USER_DATA_FILES if files.get(name) == files[path])
    return None if original == path else original


def _iso9660_paths(directories: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """The plain ISO 9660 path of each path, parents before children.

    For readers without Rock Ridge and Joliet, which show "availability_zone.txt" for
    AVAILABILITY_ZONE.TXT;1: a name that maps back to itself goes before one that does not.
    """
    result = {"": ""}
    taken: set[str] = set()
    for path in directories:
        result[path] = _free(result[_parent(path)], _directory_names(_name(path)), taken)
    for path in sorted(files, key=lambda path: ("-" in path or path != path.lower(), path)):
        result[path] = _free(result[_parent(path)], _file_names(_name(path)), taken)
    return result


def _free(parent: str, names: Iterable[str], taken: set[str]) -> str:
    chosen = next(path for name in names if (path := f"{parent}/{name}") not in taken)
    taken.add(chosen)
    return chosen


def _directory_names(name: str) -> Iterable[str]:
    plain = _d_characters(name)[:28]
    yield plain
    for number in count():
        yield f"{plain}{number:03}"


def _file_names(name: str) -> Iterable[str]:
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    extension = _d_characters(extension)[:8]
    # Name and extension have 30 characters together (ECMA-119, 7.5.1), three of them kept for a number.
    stem = _d_characters(stem)[: 27 - len(extension)]
    yield f"{stem}.{extension};1"
    for number in count():
        yield f"{stem}{number:03}.{extension};1"


def _d_characters(name: str) -> str:
    """`name` in the only characters that plain ISO 9660 has (ECMA-119, 7.4.1)."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
