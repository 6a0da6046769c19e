"""Where a lab lives on disk: its run folder while it runs, and its nodes' state folders, which outlive it.

The run folder holds sockets, logs, counters and `lab.json`; it is short because a Unix socket's path is, belongs
to its owner alone, and is removed when the lab ends. What a killed launcher left behind is swept by the next
start of any lab.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.bus.endpoints import MAX_PATH, compact

LAUNCHER_SOCKET = "launcher.sock"
LAB_FILE = "lab.json"
LOCK_FILE = "lock"
BOOTS_FILE = "boots.json"

SOCKET_NAME = len(".asp14-2.999999")
"""Longest that a socket's name in the run folder has beside its node's name."""


class FolderError(Exception):
    """A folder cannot be used; the text says why and what to do."""


def run_root() -> Path:
    """`$CHASSIS_RUN`, or `$XDG_RUNTIME_DIR/chassis`, or `/tmp/chassis-UID`."""
    if named := os.environ.get("CHASSIS_RUN"):
        return Path(named).absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "chassis"
    return Path(tempfile.gettempdir()) / f"chassis-{os.getuid()}"


def state_root() -> Path:
    """`$CHASSIS_STATE`, or `$XDG_STATE_HOME/chassis`, or `~/.local/state/chassis`."""
    if named := os.environ.get("CHASSIS_STATE"):
        return Path(named).absolute()
    if named := os.environ.get("XDG_STATE_HOME"):
        return Path(named) / "chassis"
    return Path.home() / ".local" / "state" / "chassis"


def private_folder(path: Path) -> Path:
    """The folder, made if need be, readable by its owner only.

    Raises:
        FolderError: it cannot be made, or it belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if status.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
            raise FolderError(f"{path} is somebody else's; set CHASSIS_RUN and CHASSIS_STATE to folders of yours")
        if status.st_mode & 0o777 != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror}") from None
    return path


def write_private(path: Path, text: str) -> None:
    """Replace a file whole; it is readable by its owner only. A killed process leaves the old one or the new."""
    new = path.with_name(f"{path.name}.tmp")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    new.replace(path)


@dataclass(frozen=True, slots=True)
class Running:
    """A lab that runs: its name, its run folder and what its `lab.json` says."""

    name: str
    run: Path
    facts: Mapping[str, Any]

    @property
    def socket(self) -> Path:
        return self.run / LAUNCHER_SOCKET


def running() -> list[Running]:
    """The labs that run now, by name."""
    root = run_root()
    labs = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if _locked(folder):
            with contextlib.suppress(OSError, ValueError):
                facts = json.loads((folder / LAB_FILE).read_text())
                labs.append(Running(folder.name, folder, facts))
    return labs


def _locked(folder: Path) -> bool:
    """Whether a living launcher holds the folder: its lock ends with it, however it ends."""
    try:
        fd = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def sweep(root: Path) -> list[str]:
    """Remove the run folders of launchers that are gone; returns their names."""
    swept = []
    for folder in _owned(root):
        if (folder / LOCK_FILE).exists() and not _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder.name)
    return swept


def _owned(root: Path) -> Iterator[Path]:
    if root.is_dir():
        for folder in root.iterdir():
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                yield folder


class Folders:
    """The folders of one lab that is about to run. Holds the run folder's lock until `close`.

    Raises:
        FolderError: a lab of that name runs already, or a path is too long, or a folder cannot be used.
    """

    def __init__(self, lab: str, nodes: Iterable[str]) -> None:
        nodes = list(nodes)
        root = private_folder(run_root())
        self.run = root / lab
        self.state = private_folder(state_root()) / lab
        longest = max(len(LAUNCHER_SOCKET), max(map(len, nodes), default=0) + SOCKET_NAME)
        over = len(str(self.run).encode()) + 1 + longest - MAX_PATH
        if over > 0:
            raise FolderError(
                f"{self.run} is {over} bytes too long for the sockets in it; set CHASSIS_RUN to a shorter folder"
            )
        sweep(root)
        private_folder(self.run)
        self._lock = os.open(self.run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise FolderError(
                f"a lab {lab!r} runs already; end it with 'chassis-launch destroy {lab}' or give another --name"
            ) from None
        private_folder(self.state)
        for node in nodes:
            self.node_state(node)
        self._boots: dict[str, dict[str, int]] = {}

    def node_state(self, node: str) -> Path:
        return private_folder(self.state / node)

    def next_boot(self, node: str, card: str) -> int:
        """The number of a card's coming start, on disk before the card is."""
        path = self.state / node / BOOTS_FILE
        boots = self._boots.get(node)
        if boots is None:
            boots = self._boots[node] = {}
            with contextlib.suppress(FileNotFoundError):
                boots.update(json.loads(path.read_text()))
        boots[card] = boots.get(card, 0) + 1
        write_private(path, json.dumps(boots, indent=1))
        return boots[card]

    def log_file(self, node: str, card: str) -> Path:
        return self.run / f"{node}.{compact(card)}.log"

    def log_ends(self, lines: int = 5) -> list[str]:
        """The last lines of every log that has any, each under its file's name."""
        ends: list[str] = []
        for path in sorted(self.run.glob("*.log")):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            if text:
                ends += [f"{path.name}:", *(f"    {line}" for line in text)]
        return ends

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        write_private(self.run / LAB_FILE, json.dumps(facts, indent=1))

    def close(self) -> None:
        """Remove the run folder; the state folders stay."""
        if self._lock >= 0:
            shutil.rmtree(self.run, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def is_fresh(lab: str, node: str) -> bool:
    """Whether nothing is held of a node: its start-up file will be read (S-113)."""
    folder = state_root() / lab / node
    return not folder.is_dir() or not any(folder.iterdir())


def delete_state(lab: str) -> bool:
    """Delete a lab's state folders; whether there were any."""
    folder = state_root() / lab
    if not folder.is_dir() or folder.is_symlink():
        return False
    shutil.rmtree(folder)
    return True
