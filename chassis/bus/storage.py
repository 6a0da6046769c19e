"""State files: written completely and on disk, or not changed.

All state that must outlive its process is written here. The functions repeat partial writes (a nearly full disk)
until all octets are written, and raise `OSError` if the data is not on disk.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

PRIVATE = 0o600
"""Mode of state files: their owner only, because they may contain keys."""


def replace(path: Path, data: bytes) -> None:
    """Replace a file atomically: after a crash at any moment its content is the old or the new one.

    Raises:
        OSError: the new content is not on disk, and the old file is unchanged.
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
        # The incomplete file takes room that the next try may need.
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    _sync_folder(path.parent)


def append(path: Path, lines: bytes) -> None:
    """Append lines to a journal.

    If the write fails, cut the file back. A crash or a failed cut may leave a line without its end; end it first,
    so that the new lines do not become a part of it.

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


def write_unsynced(path: Path, data: bytes, *, whole: bool) -> None:
    """Append to a file, or replace it if `whole`, without waiting for the disk. A failed append is cut back.

    Raises:
        OSError: the data is not in the file.
    """
    target = path.with_name(path.name + ".tmp") if whole else path
    flags = os.O_TRUNC if whole else os.O_APPEND
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, PRIVATE)
    try:
        size = os.fstat(fd).st_size
        try:
            _write_all(fd, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise
        if whole:
            target.replace(path)
    except OSError:
        if whole:
            with contextlib.suppress(OSError):
                target.unlink()
        raise
    finally:
        os.close(fd)


def map_file(path: Path, size: int, room: int | None = None) -> tuple[memoryview, bool]:
    """Map a file of `size` octets, shared and writable; return the mapping and whether the file is new. Only its
    owner may read it.

    All of it is allocated, because a store into a hole on a full disk ends the process (SIGBUS). With `room`, only
    so many octets are allocated; call `allocate` before a use of the rest.

    Raises:
        OSError: the disk is full.
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
                # A file without its full size is not in use yet: the next start treats it as new.
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, 0)
            raise
        return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED)), fresh
    finally:
        os.close(fd)


def allocate(path: Path, room: int) -> bool:
    """Allocate the first `room` octets of a mapped file; return False if the disk is full."""
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
    """Write the names in a folder to disk (fsync)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
