"""Reads files that somebody else writes, inside one directory and nowhere else."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 64 * 1024 * 1024
_WORDS = {
    errno.ENOENT: "It is not there.",
    errno.ENOTDIR: "It is not there.",
    errno.EACCES: "This server may not read it.",
    errno.EPERM: "This server may not read it.",
    errno.ELOOP: "It is a symbolic link, which is not followed.",
    errno.ENXIO: "It is not a regular file.",
}


class Unreadable(Exception):
    """The text says why, for an administrator."""


@dataclass(frozen=True)
class FileState:
    """What changes when a file's content does."""

    device: int
    inode: int
    mtime_ns: int
    size: int


@dataclass(frozen=True)
class OpenFile:
    descriptor: int
    state: FileState

    def read_end(self) -> bytes:
        """The last MOST_BYTES of the file: of what is appended to, the end counts. May be less by now."""
        offset = max(self.state.size - MOST_BYTES, 0)
        chunks = []
        while offset < self.state.size:
            chunk = os.pread(self.descriptor, self.state.size - offset, offset)
            if not chunk:
                break
            chunks.append(chunk)
            offset += len(chunk)
        return b"".join(chunks)


@dataclass(frozen=True)
class Content:
    """A file's last MOST_BYTES, and its state before they were read."""

    end: bytes
    state: FileState


@contextmanager
def opened(directory: Path, path: str) -> Iterator[OpenFile]:
    """The regular file at `path` below `directory`, without following a symbolic link below it.

    Raises Unreadable, also for what goes wrong while it is open.
    """
    try:
        descriptor = _open_below(directory, path)
        try:
            yield OpenFile(descriptor, _state(descriptor))
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise Unreadable(
            _WORDS.get(number or 0) or f"It cannot be read: {os.strerror(number or errno.EINVAL)}."
        ) from error


def content_unless(known: FileState | None, directory: Path, path: str) -> Content | None:
    """What is in the file now; None while its state is the `known` one. Raises Unreadable."""
    with opened(directory, path) as file:
        return None if file.state == known else Content(file.read_end(), file.state)


def _open_below(directory: Path, path: str) -> int:
    *parents, name = path.split("/")
    if not all(part not in ("", ".", "..") for part in (*parents, name)):
        raise Unreadable("Its path is not a plain one.")
    inside = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            # Each step by itself: the flag speaks of the last one only.
            deeper = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
            os.close(inside)
            inside = deeper
        # A FIFO that nobody writes to would keep us waiting.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=inside)
    finally:
        os.close(inside)


def _state(descriptor: int) -> FileState:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("It is not a regular file.")
    return FileState(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
