"""Files that a user names for a process to read or to write: regular files only.

Reading: a pipe or a device is refused before it is read, because it could block the process or never end; so is a
file that is too large. Writing: the file is always a new one. A file of ours under the name is replaced, so that
a process that has the old one open sees nothing of what is written; a symbolic link, another user's file and
anything else that is not a regular file are refused and not changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from chassis.bus.requests import MAX_CONFIGURATION


def open_regular(path: Path, most: int | None = None) -> int:
    """Open a file for reading.

    Raises:
        OSError: it cannot be opened, is not a regular file, or has more than `most` octets; `strerror` says which.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no regular file: it is not read", str(path))
    if most is not None and status.st_size > most:
        os.close(fd)
        raise OSError(errno.EFBIG, f"has {status.st_size} octets: at most {most} are read", str(path))
    return fd


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a file; raises as `open_regular`."""
    with os.fdopen(open_regular(path, most), "rb") as file:
        return file.read(most)


def read_text(path: Path, most: int = MAX_CONFIGURATION, errors: str = "strict") -> str:
    """The text in a file that is UTF-8, every end of a line as a newline; errors as in `open_regular`, and
    UnicodeDecodeError where it is not and `errors` is strict."""
    with os.fdopen(open_regular(path, most), encoding="utf-8", errors=errors) as file:
        return file.read(most)


SECRET, PLAIN = 0o600, 0o666
"""Modes of new files: for their owner alone, or as the process's umask says."""


def check(path: Path) -> None:
    """OSError where `create` would be refused now; nothing is changed."""
    _look(path)
    fd, name = _beside(path)
    os.close(fd)
    os.unlink(name)


def create(path: Path, mode: int = SECRET) -> int:
    """A new empty file under this name, open for reading and writing.

    Raises:
        OSError: it can't be made; `strerror` says why.
    """
    fd, name = _made(path, mode)
    try:
        os.rename(name, path)
    except OSError:
        os.close(fd)
        os.unlink(name)
        raise
    return fd


def write(path: Path, data: bytes, mode: int = SECRET) -> None:
    """A new file with this in it, whole or not at all. Raises OSError as `create` does."""
    fd, name = _made(path, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(name, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def reopen(path: Path, flags: int) -> int:
    """A file or pipe of ours that stands, opened without following a link.

    Raises:
        OSError: there is none, or it is somebody else's.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link(path) from None
        raise
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        os.close(fd)
        raise _foreign(path)
    return fd


def is_pipe(path: Path) -> bool:
    """Whether a named pipe stands there."""
    try:
        return stat.S_ISFIFO(path.lstat().st_mode)
    except OSError:
        return False


def _look(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise _link(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file: it is not written over", str(path))
    if status.st_uid != os.geteuid():
        raise _foreign(path)


def _link(path: Path) -> OSError:
    return OSError(errno.ELOOP, "is a symbolic link, which is not followed: give the file itself", str(path))


def _foreign(path: Path) -> OSError:
    return OSError(errno.EPERM, "is somebody else's: it is not written", str(path))


def _beside(path: Path) -> tuple[int, str]:
    return tempfile.mkstemp(prefix=".chassis-", dir=path.parent)


def _made(path: Path, mode: int) -> tuple[int, str]:
    _look(path)
    fd, name = _beside(path)
    if mode != SECRET:
        mask = os.umask(0o077)
        os.umask(mask)
        os.fchmod(fd, mode & ~mask)
    return fd, name
