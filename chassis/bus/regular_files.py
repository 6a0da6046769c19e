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
        raise OSError(errno.EINVAL, "is not a regular file: it is not read", str(path))
    if most is not None and status.st_size > most:
        os.close(fd)
        raise OSError(errno.EFBIG, f"has {status.st_size} octets: at most {most} are read", str(path))
    return fd


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a file; raises as `open_regular`."""
    with os.fdopen(open_regular(path, most), "rb") as file:
        return file.read(most)


def read_text(path: Path, most: int = MAX_CONFIGURATION, errors: str = "strict") -> str:
    """Return the text of a UTF-8 file, each line end as a newline. Raises as `open_regular`, and
    UnicodeDecodeError if the file is not UTF-8 and `errors` is strict."""
    with os.fdopen(open_regular(path, most), encoding="utf-8", errors=errors) as file:
        return file.read(most)


SECRET, PLAIN = 0o600, 0o666
"""Modes of new files: only for their owner, or by the umask of the process."""


def check(path: Path) -> None:
    """Raise OSError if `create` would be refused now; change nothing."""
    _look(path)
    fd, name = _beside(path)
    os.close(fd)
    os.unlink(name)


def create(path: Path, mode: int = SECRET) -> int:
    """Make a new empty file, open for reading and writing.

    Raises:
        OSError: the file cannot be made; `strerror` says why.
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
    """Write a new file, completely or not at all. Raises OSError as `create` does."""
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
    """Open an existing file or pipe of this user without following a link.

    Raises:
        OSError: it does not exist, or belongs to another user.
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
    """Return whether the path is a named pipe."""
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
        raise OSError(errno.EINVAL, "is not a regular file: it is not overwritten", str(path))
    if status.st_uid != os.geteuid():
        raise _foreign(path)


def _link(path: Path) -> OSError:
    return OSError(errno.ELOOP, "is a symbolic link, which is not followed: give the file itself", str(path))


def _foreign(path: Path) -> OSError:
    return OSError(errno.EPERM, "belongs to another user: it is not written", str(path))


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
