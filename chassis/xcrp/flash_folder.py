"""The folder that is a router's flash: its PKI files as they are read, and the files that operators work on.

Each name of a path is opened in the folder before it and never through a link, so that no path leads out of the
flash. A file is replaced atomically and is on disk before it counts as written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chassis.bus import regular_files
from chassis.bus.engine import FlashPath, ToFlash
from chassis.bus.requests import MAX_CONFIGURATION
from chassis.net.pki import new_key
from chassis.xcrp.flash import MAX_FLASH_FILES, MAX_PEM_OCTETS, FlashFile, encrypted_pem
from chassis.xcrp.flash_operations import MAX_FILES, MAX_OCTETS, FlashAnswer, FlashEntry
from chassis.xcrp.flash_paths import PKI, written

NEW: Final = ".new."
"""Begins the names of files that are not complete. No path of an operator names a hidden file."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_folder(folder: Path) -> tuple[FlashFile, ...]:
    """Return the files of a flash folder that belong to PKI stores, in order, unreadable ones with the error."""
    found: list[FlashFile] = []
    try:
        paths = sorted(
            path for path in (folder / "pki").rglob("*") if not path.is_dir() and not path.name.startswith(NEW)
        )
    except OSError as error:
        return (FlashFile("pki", error=error.strerror or str(error)),)
    if not folder.is_dir():
        return (FlashFile(".", error="the folder does not exist"),)
    for path in paths[:MAX_FLASH_FILES]:
        name = path.relative_to(folder).as_posix()
        try:
            # Read one octet more than the limit, so that a larger file is recognised.
            with open(regular_files.open_regular(path), "rb") as file:
                data = file.read(MAX_PEM_OCTETS + 1)
                exposed = bool(os.fstat(file.fileno()).st_mode & 0o077)
        except OSError as error:
            found.append(FlashFile(name, error=error.strerror or str(error)))
        else:
            found.append(FlashFile(name, data, exposed))
    if len(paths) > MAX_FLASH_FILES:
        found.append(FlashFile("pki", error=f"more than {MAX_FLASH_FILES} files: the rest is not read"))
    return tuple(found)


def fill(folder: Path, source: Path | None) -> None:
    """Make a flash of a copy of the files in `source`, once: an existing flash stays as it is.

    Raises:
        OSError: the flash can't be made. It is made the next time.
    """
    if folder.is_dir():
        return
    new = folder.with_name(f"{folder.name}.new")
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    count = octets = 0
    for path in sorted(source.rglob("*")) if source is not None else ():
        copy = new / path.relative_to(source) if source is not None else new
        count += 1
        if path.is_dir() and not path.is_symlink():
            copy.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif path.is_file():
            try:
                data = regular_files.read_bytes(path, MAX_CONFIGURATION)
            except OSError:
                # It counts as missing; the check of the lab has said why.
                continue
            octets += len(data)
            _write(copy, data)
        if count > MAX_FILES or octets > MAX_OCTETS:
            raise OSError(errno.EFBIG, f"a flash has at most {MAX_FILES} files and {MAX_OCTETS >> 20} MiB")
    os.rename(new, folder)
    with _opened(folder.parent) as parent:
        os.fsync(parent)


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, _CREATE, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, _FOLDER)
    try:
        yield handle
    finally:
        os.close(handle)


class FlashFolder:
    """Carries out the operations of `ToFlash` in a folder that only its owner can write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remove_unfinished(self) -> None:
        """Remove what a controller that was killed had not completed."""
        with contextlib.suppress(OSError):
            for path in self.folder.rglob(f"{NEW}*"):
                path.unlink()

    def perform(self, asked: ToFlash) -> FlashAnswer:
        """Do an operation. Errors of the file system do not raise; they are in the answer."""
        try:
            match asked.operation:
                case "list":
                    return FlashAnswer(entries=self._list(asked.path))
                case "read":
                    return FlashAnswer(data=self._read(asked.path))
                case "delete":
                    self._delete(asked.path)
                    return FlashAnswer()
                case "store":
                    return FlashAnswer(store=read_folder(self.folder))
                case "key-pair":
                    return self._make_key_pair(asked)
                case "copy":
                    data = self._read(asked.path)
                    return self._write(asked.target, data, asked.overwrite)
            return self._write(asked.path, asked.data, asked.overwrite)
        except FileNotFoundError as error:
            return FlashAnswer(_why(asked, error), missing=True)
        except OSError as error:
            return FlashAnswer(_why(asked, error))

    @contextlib.contextmanager
    def _within(self, path: FlashPath) -> Iterator[int]:
        """A handle of the folder at a path."""
        handle = os.open(self.folder, _FOLDER)
        try:
            for name in path:
                inner = os.open(name, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _list(self, path: FlashPath) -> tuple[FlashEntry, ...]:
        if path:
            # A file is listed by its own name.
            with self._within(path[:-1]) as parent:
                status = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    return (_entry(path[-1], status),)
        found: list[FlashEntry] = []
        with self._within(path) as folder:
            for name in sorted(os.listdir(folder))[:MAX_FILES]:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not name.startswith(".") and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                    found.append(_entry(name, status))
        return tuple(found)

    def _read(self, path: FlashPath) -> bytes:
        with self._within(path[:-1]) as folder:
            handle = os.open(path[-1], _FILE, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                status = os.fstat(handle)
                _require_file(status.st_mode)
                if status.st_size > MAX_CONFIGURATION:
                    raise OSError(errno.EFBIG, f"has more than {MAX_CONFIGURATION} octets")
                return file.read(MAX_CONFIGURATION)

    def _write(self, path: FlashPath, data: bytes, overwrite: bool) -> FlashAnswer:
        new = NEW + path[-1]
        if path[0] == PKI:
            self._make_folders(path)
        with self._within(path[:-1]) as folder:
            try:
                _require_file(os.stat(path[-1], dir_fd=folder, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                pass
            else:
                if not overwrite:
                    return FlashAnswer(exists=True)
            self._require_room(len(data))
            with contextlib.suppress(FileNotFoundError):
                # A controller that was killed may have left it.
                os.unlink(new, dir_fd=folder)
            try:
                handle = os.open(new, _CREATE, 0o600, dir_fd=folder)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(handle)
                os.rename(new, path[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
            os.fsync(folder)
        return FlashAnswer()

    def _make_key_pair(self, asked: ToFlash) -> FlashAnswer:
        key = new_key(asked.bits)
        return self._write(asked.path, encrypted_pem(key, asked.data), False)

    def _make_folders(self, path: FlashPath) -> None:
        """Make the folders of a PKI store."""
        for length in range(1, len(path)):
            with self._within(path[: length - 1]) as parent, contextlib.suppress(FileExistsError):
                os.mkdir(path[length - 1], 0o700, dir_fd=parent)

    def _require_room(self, octets: int) -> None:
        count = used = 0
        for folder, folders, files in os.walk(self.folder):
            count += len(folders) + len(files)
            for name in files:
                with contextlib.suppress(OSError):
                    used += os.lstat(os.path.join(folder, name)).st_size
        if count >= MAX_FILES or used + octets > MAX_OCTETS:
            raise OSError(errno.ENOSPC, f"the flash is full: it has {count} files and {used} octets")

    def _delete(self, path: FlashPath) -> None:
        with self._within(path[:-1]) as folder:
            _require_file(os.stat(path[-1], dir_fd=folder, follow_symlinks=False).st_mode)
            os.unlink(path[-1], dir_fd=folder)
            os.fsync(folder)


def _entry(name: str, status: os.stat_result) -> FlashEntry:
    folder = stat.S_ISDIR(status.st_mode)
    return FlashEntry(name, 0 if folder else status.st_size, status.st_mtime, folder)


def _require_file(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "Is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file")


def _why(asked: ToFlash, error: OSError) -> str:
    """Why an operation failed, without the path of the folder on this machine."""
    path = asked.target if asked.operation == "copy" and error.errno == errno.ENOSPC else asked.path
    why = "is a link" if error.errno in (errno.ELOOP, errno.EMLINK) else error.strerror or type(error).__name__
    verb = "write" if error.errno == errno.ENOSPC else "open"
    return f"Can't {verb} {written(path)}: {why}"
