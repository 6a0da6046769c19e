"""Folders of our own: each is made here, known by a marker, held by a lock, and removed only when both say so.

The marker is a file that nobody else makes, and it is locked by whoever works with the folder: alone (flock,
exclusive) by the one who holds or removes it, shared for a moment by those who only ask whether it is held. A lock
ends with its process, however that one ends. A folder without our marker is never changed and never removed, and
no link is followed on the way to one or in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_TIMEOUT = 5.0
"""Seconds for which a folder is waited for that somebody only looks at or removes."""

LOCK_POLL_INTERVAL = 0.002

MADE_BY = "made by chassis: what is in this folder is deleted with it\n"


class FolderError(Exception):
    """A folder cannot be used; the text says why and what to do."""


class Held(FolderError):
    """Another process holds the folder; `pid` is its number, 0 where that is not known."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"{path} is in use by process {pid or 'unknown'}")
        self.pid = pid


class _Again(Exception):
    """The folder was removed while it was looked at."""


def marker(kind: str) -> str:
    """The name of the file that says that a folder is ours, by what the folder is for."""
    return f".chassis-{kind}"


def root(path: Path) -> Path:
    """A folder in which we may have folders of our own; made if need be, and otherwise left as it is.

    Raises:
        FolderError: it cannot be made, or somebody else could exchange what is in it.
    """
    ours = (os.geteuid(), 0)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        named, status = path.lstat(), path.stat()
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror}") from None
    if named.st_uid not in ours or status.st_uid not in ours:
        raise FolderError(f"{path} is somebody else's; set CHASSIS_RUN and CHASSIS_STATE to folders of yours")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise FolderError(f"{path} may be changed by anybody: its mode is {stat.S_IMODE(status.st_mode):o}")
    return path


class Claim:
    """A folder of our own that this process holds until `close` or `remove`.

    `kind` is what it is for, and part of the marker's name. It is made if it is not there; one that is there must
    be empty or have the marker. With `clean` whatever a former holder left in it is removed.

    Raises:
        Held: another process holds it.
        FolderError: it is somebody else's, or was not made by us.
    """

    def __init__(self, path: Path, kind: str, *, clean: bool = False) -> None:
        self.path = path
        self._marker = marker(kind)
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                self._folder, self._lock = _taken(path, self._marker, deadline)
                break
            except _Again:
                continue
            except OSError as error:
                raise FolderError(f"{path}: {error.strerror}") from None
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n{MADE_BY}".encode(), 0)
            os.fchmod(self._folder, 0o700)
            if clean:
                # What can't be removed (a program of a Linux node may have made it so) is in nobody's way.
                with contextlib.suppress(OSError):
                    _empty(self._folder, self._marker)
        except OSError as error:
            self.close()
            raise FolderError(f"{path}: {error.strerror}") from None

    def close(self) -> None:
        """Let go of the folder, which stays."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                # Whoever removes it later must not be taken for this process.
                os.ftruncate(self._lock, 0)
            os.close(self._folder)
            os.close(self._lock)
            self._folder = self._lock = -1

    def remove(self) -> None:
        """Remove the folder and let go of it; what cannot be removed stays."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                _removed(self.path, self._folder, self._marker)
            self.close()


def holder(path: Path, kind: str) -> int | None:
    """The process that holds a folder of ours; None where nobody does, or it is no folder of ours."""
    try:
        with _opened(path) as folder, _marked(folder, marker(kind)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # Whoever removes it holds it too, and then its number is of one that is gone.
                pid = _pid(lock)
                return pid if _lives(pid) else None
    except (OSError, FolderError):
        pass
    return None


def check_private(path: Path) -> None:
    """FolderError where others than its owner may look into a folder of ours or change it."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & 0o077:
        raise FolderError(f"{path} is open to others: its mode is {mode:o} and must be 700 (chmod 700 {path})")


def is_ours(path: Path, kind: str) -> bool:
    """Whether we made this folder: it is a folder of our user's with our marker."""
    try:
        with _opened(path) as folder, _marked(folder, marker(kind)):
            return True
    except (OSError, FolderError):
        return False


def remove_idle(path: Path, kind: str) -> bool:
    """Remove a folder of ours that nobody holds; whether it was there.

    Raises:
        Held: somebody holds it.
        FolderError: it is not ours, or cannot be removed.
    """
    if not os.path.lexists(path):
        return False
    name = marker(kind)
    with _opened(path) as folder:
        try:
            lock = _open_marker(folder, name, 0)
        except OSError:
            raise FolderError(_not_ours(path, name)) from None
        try:
            _wait_for(path, lock, time.monotonic() + LOCK_TIMEOUT)
            if not _same(path, folder):
                return False
            _removed(path, folder, name)
        except OSError as error:
            raise FolderError(f"{path}: {error.strerror}") from None
        finally:
            os.close(lock)
    return True


def sweep(parent: Path, kind: str, pattern: str = "*") -> list[str]:
    """Remove the folders of ours, of such names, in a folder that nobody holds; their names."""
    swept = []
    name = marker(kind)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for path in sorted(parent.glob(pattern)):
            with contextlib.suppress(OSError, FolderError), _opened(path) as folder, _marked(folder, name) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(path, folder):
                    _removed(path, folder, name)
                    swept.append(path.name)
    return swept


# inside


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = _open(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    """A folder of our user's, itself and not what a link leads to.

    Raises:
        FileNotFoundError: there is none.
        FolderError: it is something else, or somebody else's.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except NotADirectoryError:
        raise FolderError(f"{path} is a link or no folder") from None
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror}") from None
    if os.fstat(fd).st_uid != os.geteuid():
        os.close(fd)
        raise FolderError(f"{path} is somebody else's; set CHASSIS_RUN and CHASSIS_STATE to folders of yours")
    return fd


@contextlib.contextmanager
def _marked(folder: int, name: str) -> Iterator[int]:
    fd = _open_marker(folder, name, 0)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_marker(folder: int, name: str, flags: int) -> int:
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600, dir_fd=folder)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise FileNotFoundError(name)
    return fd


def _taken(path: Path, name: str, deadline: float) -> tuple[int, int]:
    """The folder and its marker, locked, both still in their place."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        folder = _open(path)
    except FileNotFoundError:
        raise _Again from None
    lock = -1
    try:
        lock = _own_marker(path, folder, name)
        _wait_for(path, lock, deadline)
        if not _same(path, folder) or not _same_marker(folder, name, lock):
            raise _Again
    except BaseException:
        os.close(folder)
        if lock >= 0:
            os.close(lock)
        raise
    return folder, lock


def _own_marker(path: Path, folder: int, name: str) -> int:
    """The marker, which is made in an empty folder."""
    with contextlib.suppress(FileNotFoundError):
        return _open_marker(folder, name, 0)
    there = os.listdir(folder)
    if there and name not in there and _same(path, folder):
        raise FolderError(_not_ours(path, name))
    try:
        return _open_marker(folder, name, os.O_CREAT)
    except FileNotFoundError:
        # It is being removed.
        raise _Again from None


def _not_ours(path: Path, name: str) -> str:
    return (
        f"{path} was not made by chassis: it has no file {name}, so nothing in it is touched; give another place "
        f"or name, or, if it is a lab's folder of an earlier version, make that file (touch {path / name})"
    )


def _wait_for(path: Path, lock: int, deadline: float) -> None:
    """Lock a marker alone; Held where somebody holds its folder and does not only look at it."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        pid = 0
        try:
            # Those who only look let us in beside them.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(lock, fcntl.LOCK_UN)
        except BlockingIOError:
            pid = _pid(lock)
        if _lives(pid) or time.monotonic() > deadline:
            raise Held(path, pid)
        time.sleep(LOCK_POLL_INTERVAL)


def _pid(lock: int) -> int:
    """Whom a marker names; whoever removes a folder has not put itself there."""
    word = os.pread(lock, 32, 0).split(b"\n")[0]
    return int(word) if word.isdigit() else 0


def _lives(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


def _same(path: Path, folder: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(folder))
    except OSError:
        return False


def _same_marker(folder: int, name: str, lock: int) -> bool:
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(lock))
    except OSError:
        return False


def _removed(path: Path, folder: int, name: str) -> None:
    """Remove a folder whose marker is locked; the marker goes last, so that what is left stays known as ours."""
    _empty(folder, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    path.rmdir()


def _empty(folder: int, name: str) -> None:
    """Remove everything in a folder but its marker; links are removed, and what they lead to stays.

    Raises:
        OSError: something can't be removed; the others are.
    """
    failed: OSError | None = None
    for entry in os.listdir(folder):
        if entry == name:
            continue
        try:
            status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(entry, dir_fd=folder)
            else:
                os.unlink(entry, dir_fd=folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
