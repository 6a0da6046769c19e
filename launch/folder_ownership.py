"""Folders of this project: made with a marker file, locked while in use, removed only if marked and not locked.

Input: a path and a kind ("run" or "state"). Output: a claimed or removed folder. The holder of a folder, and a
process that removes it, locks the marker exclusively (flock); a process that only checks takes a shared lock for a
moment. The kernel releases a lock when its process ends. Folders without the marker are never changed or removed,
and links are never followed.
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
"""Time (s) to wait for a folder that another process checks or removes."""

LOCK_POLL_INTERVAL = 0.002

MADE_BY = "made by chassis: what is in this folder is deleted with it\n"


class FolderError(Exception):
    """A folder cannot be used; the text says why and what to do."""


class Held(FolderError):
    """Another process holds the folder; `pid` is its process id, 0 if unknown."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"{path} is in use by process {pid or 'unknown'}")
        self.pid = pid


class _Again(Exception):
    """The folder was removed during the attempt: try again."""


def marker(kind: str) -> str:
    """Return the name of the marker file for a kind of folder."""
    return f".chassis-{kind}"


def root(path: Path) -> Path:
    """Return a folder that may contain folders of this project. Create it if it does not exist.

    Raises:
        FolderError: the folder cannot be created, or another user could replace its contents.
    """
    ours = (os.geteuid(), 0)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        named, status = path.lstat(), path.stat()
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror}") from None
    if named.st_uid not in ours or status.st_uid not in ours:
        raise FolderError(f"{path} belongs to another user; set CHASSIS_RUN and CHASSIS_STATE to folders of yours")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise FolderError(f"{path} is writable for all users: its mode is {stat.S_IMODE(status.st_mode):o}")
    return path


class Claim:
    """A folder of this project that this process holds until `close` or `remove`.

    `kind` is its purpose and part of the marker's name. Create the folder if it does not exist; an existing one
    must be empty or have the marker. With `clean` remove what a former holder left in it.

    Raises:
        Held: another process holds it.
        FolderError: it belongs to another user, or was not made by chassis.
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
                # A file that cannot be removed (a program of a Linux node may have made it so) does no harm here.
                with contextlib.suppress(OSError):
                    _empty(self._folder, self._marker)
        except OSError as error:
            self.close()
            raise FolderError(f"{path}: {error.strerror}") from None

    def close(self) -> None:
        """Release the folder without removing it."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                # A process that removes the folder later must not be taken for this one.
                os.ftruncate(self._lock, 0)
            os.close(self._folder)
            os.close(self._lock)
            self._folder = self._lock = -1

    def remove(self) -> None:
        """Remove the folder and release it. Files that cannot be removed stay."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                _removed(self.path, self._folder, self._marker)
            self.close()


def holder(path: Path, kind: str) -> int | None:
    """Return the process id that holds a folder; None if the folder is not held or not of this project."""
    try:
        with _opened(path) as folder, _marked(folder, marker(kind)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # A process that removes the folder holds it too; the stored process id is then of an ended
                # process.
                pid = _pid(lock)
                return pid if _lives(pid) else None
    except (OSError, FolderError):
        pass
    return None


def check_private(path: Path) -> None:
    """Check that only the owner can read or change a folder.

    Raises:
        FolderError: its mode is not 700.
    """
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & 0o077:
        raise FolderError(
            f"{path} is accessible to other users: its mode is {mode:o}; expected 700 (chmod 700 {path})"
        )


def is_ours(path: Path, kind: str) -> bool:
    """Return whether a folder belongs to this user and has the marker."""
    try:
        with _opened(path) as folder, _marked(folder, marker(kind)):
            return True
    except (OSError, FolderError):
        return False


def remove_idle(path: Path, kind: str) -> bool:
    """Remove a folder of this project that is not held. Return whether it existed.

    Raises:
        Held: another process holds it.
        FolderError: it was not made by chassis, or cannot be removed.
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
    """Remove the folders in `parent` that match the pattern, are of this project and not held. Return their
    names."""
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


# private


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = _open(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    """Open a folder of this user; do not follow a link.

    Raises:
        FileNotFoundError: it does not exist.
        FolderError: it is not a folder, or belongs to another user.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except NotADirectoryError:
        raise FolderError(f"{path} is not a folder, or is a link") from None
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror}") from None
    if os.fstat(fd).st_uid != os.geteuid():
        os.close(fd)
        raise FolderError(f"{path} belongs to another user; set CHASSIS_RUN and CHASSIS_STATE to folders of yours")
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
    """Open the folder and its marker, locked, and check that both are still in place."""
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
    """Open the marker; create it in an empty folder."""
    with contextlib.suppress(FileNotFoundError):
        return _open_marker(folder, name, 0)
    there = os.listdir(folder)
    if there and name not in there and _same(path, folder):
        raise FolderError(_not_ours(path, name))
    try:
        return _open_marker(folder, name, os.O_CREAT)
    except FileNotFoundError:
        # Another process is removing the folder.
        raise _Again from None


def _not_ours(path: Path, name: str) -> str:
    return (
        f"{path} was not made by chassis: it has no file {name}. Nothing in it is changed. Give another place or "
        f"name; for a lab's folder of an earlier version create that file (touch {path / name})"
    )


def _wait_for(path: Path, lock: int, deadline: float) -> None:
    """Lock a marker exclusively; wait while other processes only check it.

    Raises:
        Held: another process holds the folder.
    """
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        pid = 0
        try:
            # A process that only checks has a shared lock, so a shared lock is possible.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(lock, fcntl.LOCK_UN)
        except BlockingIOError:
            pid = _pid(lock)
        if _lives(pid) or time.monotonic() > deadline:
            raise Held(path, pid)
        time.sleep(LOCK_POLL_INTERVAL)


def _pid(lock: int) -> int:
    """Return the process id in a marker; a process that removes a folder does not write its own."""
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
    """Remove a folder whose marker is locked. Remove the marker last, so that a rest is still marked."""
    _empty(folder, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    path.rmdir()


def _empty(folder: int, name: str) -> None:
    """Remove everything in a folder except its marker. Remove links, not what they point to.

    Raises:
        OSError: a file cannot be removed; the others are removed.
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
