"""Files that somebody names for a process to read: regular ones only, and no more of them than it has use for.

A pipe or a device under the name would hold up whoever opens it, or never end: it is refused before it is read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from chassis.bus.requests import MAX_CONFIGURATION


def open_regular(path: Path, most: int | None = None) -> int:
    """A file open for reading.

    Raises:
        OSError: it can't be opened, is no regular file, or has more than `most` octets; `strerror` says so.
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
    """What is in a file; errors as in `open_regular`."""
    with os.fdopen(open_regular(path, most), "rb") as file:
        return file.read(most)


def read_text(path: Path, most: int = MAX_CONFIGURATION, errors: str = "strict") -> str:
    """The text in a file that is UTF-8, every end of a line as a newline; errors as in `open_regular`, and
    UnicodeDecodeError where it is not and `errors` is strict."""
    with os.fdopen(open_regular(path, most), encoding="utf-8", errors=errors) as file:
        return file.read(most)
