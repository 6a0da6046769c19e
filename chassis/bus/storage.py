"""Files of state: written whole and on disk, or left as they were.

Everything that must outlive a process goes through here. A write may take less than it was given (a nearly full
disk), so each loops until all is written; what a function has not put on disk it reports as an `OSError`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

PRIVATE = 0o600
"""Mode of every file of state: it may hold keys."""


def replace(path: Path, data: bytes) -> None:
    """Replace a file whole: after a crash at any moment it is the old one or the new one.

    Raises:
        OSError: the new one is not on disk, and the old one still stands.
    """
    new = path.with_name(path.name + ".tmp")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        new.replace(path)
    except OSError:
        # What was written of it takes room that the next try may need.
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    _sync_folder(path.parent)


def append(path: Path, lines: bytes) -> None:
    """Append lines to a journal.

    An append that fails is cut back. A line without an end, which a crash or a failed cut left, is ended first, so
    that it can't swallow a line that is acknowledged.

    Raises:
        OSError: the lines are not on disk.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        os.lseek(fd, size, os.SEEK_SET)
        try:
            _write_all(fd, b"\n" + lines if torn else lines)
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
                os.fsync(fd)
            raise
    finally:
        os.close(fd)
    if size == 0:
        _sync_folder(path.parent)


def map_file(path: Path, size: int, room: int | None = None) -> tuple[memoryview, bool]:
    """A file of this size, mapped shared and writable, and whether it is new. Only its owner may read it.

    All of it is allocated: a store into a page that a full disk has no room for would end the process (SIGBUS).
    With `room`, only so many octets are, and the caller has the rest allocated (`allocate`) before it is used.

    Raises:
        OSError: there is no room for it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fresh = os.fstat(fd).st_size == 0
        try:
            os.posix_fallocate(fd, 0, size if room is None else room)
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
        except OSError:
            if fresh:
                # A file without its whole length holds nothing yet: the next start finds it new.
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, 0)
            raise
        return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED)), fresh
    finally:
        os.close(fd)


def allocate(path: Path, room: int) -> bool:
    """Have the first `room` octets of a mapped file on disk; whether there is room for them."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.posix_fallocate(fd, 0, room)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
