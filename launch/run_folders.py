"""Folders of a lab: its run folder while it runs, and its nodes' state folders, which remain (S-113).

Input: the names of a lab and its nodes. Output: paths that this process holds. The run folder has sockets, logs,
counters and `lab.json`; its path is short because a Unix socket's path is limited, only its owner can read it, and
it is removed when the lab ends. The next start of any lab removes run folders of killed launchers. Both kinds of
folders are made, held and removed by `launch.folder_ownership`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.bus import storage
from chassis.bus.endpoints import MAX_PATH, compact
from launch import folder_ownership
from launch.folder_ownership import Claim, Held
from launch.folder_ownership import FolderError as FolderError

LAUNCHER_SOCKET = "launcher.sock"
LAUNCHER_LOG = "launcher.log"
MAX_LOG_OCTETS = 1 << 20
"""Largest rest (octets) of the launcher's log that is kept after a crash."""
LAB_FILE = "lab.json"
BOOTS_FILE = "boots.json"

SOCKET_NAME = len(".asp14-2.999999")
"""Octets that a socket's name in the run folder needs beside its node's name, at most."""


RUN, STATE = "run", "state"
"""Kinds of folders, see `launch.folder_ownership`."""


def run_root() -> Path:
    """Return `$CHASSIS_RUN`, or `$XDG_RUNTIME_DIR/chassis`, or `/tmp/chassis-UID`."""
    if named := os.environ.get("CHASSIS_RUN"):
        return Path(named).absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "chassis"
    return Path(tempfile.gettempdir()) / f"chassis-{os.getuid()}"


def state_root() -> Path:
    """Return `$CHASSIS_STATE`, or `$XDG_STATE_HOME/chassis`, or `~/.local/state/chassis`."""
    if named := os.environ.get("CHASSIS_STATE"):
        return Path(named).absolute()
    if named := os.environ.get("XDG_STATE_HOME"):
        return Path(named) / "chassis"
    return Path.home() / ".local" / "state" / "chassis"


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it. A killed process leaves the old or the new file."""
    storage.replace(path, text.encode())


@dataclass(frozen=True, slots=True)
class Running:
    """A running lab: its name, its run folder and the contents of its `lab.json`."""

    name: str
    run: Path
    facts: Mapping[str, Any]

    @property
    def socket(self) -> Path:
        return self.run / LAUNCHER_SOCKET

    def lives(self) -> bool:
        """Return whether the lab still runs."""
        return folder_ownership.holder(self.run, RUN) is not None


def running() -> list[Running]:
    """Return the running labs, by name.

    Raises:
        FolderError: another user could replace the folder.
    """
    parent = run_root()
    labs = []
    for folder in sorted(folder_ownership.root(parent).iterdir()) if parent.is_dir() else ():
        if folder_ownership.holder(folder, RUN) is not None:
            # A lab may end at any moment.
            with contextlib.suppress(OSError, ValueError):
                folder_ownership.check_private(folder)
                facts = json.loads((folder / LAB_FILE).read_text())
                labs.append(Running(folder.name, folder, facts))
    return labs


def sweep(parent: Path) -> list[str]:
    """Remove the run folders of launchers that have ended. Return their names."""
    return folder_ownership.sweep(parent, RUN)


class Folders:
    """The folders of one lab, held until `close`.

    Raises:
        FolderError: a lab of that name already runs, a path is too long, or a folder cannot be used.
    """

    def __init__(self, lab: str, nodes: Iterable[str]) -> None:
        nodes = list(nodes)
        self.run = run_root() / lab
        self.state = state_root() / lab
        longest = max(len(LAUNCHER_SOCKET), max(map(len, nodes), default=0) + SOCKET_NAME)
        over = len(str(self.run).encode()) + 1 + longest - MAX_PATH
        if over > 0:
            raise FolderError(
                f"{self.run} is {over} bytes too long for the sockets in it; set CHASSIS_RUN to a shorter folder"
            )
        sweep(folder_ownership.root(run_root()))
        folder_ownership.root(state_root())
        try:
            self._run = Claim(self.run, RUN, clean=True)
        except Held as error:
            raise FolderError(
                f"a lab {lab!r} already runs; end it with 'chassis-launch destroy {lab}' or give another --name"
                f" (its launcher is process {error.pid})"
            ) from None
        try:
            self._state = Claim(self.state, STATE)
        except FolderError as error:
            self._run.remove()
            if isinstance(error, Held):
                raise FolderError(_state_in_use(self.state, error.pid)) from None
            raise
        try:
            for node in nodes:
                self.node_state(node)
        except FolderError:
            self.close()
            raise
        self._boots: dict[str, dict[str, int]] = {}

    def node_state(self, node: str) -> Path:
        """Return the folder of one node's state."""
        path = self.state / node
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            if path.is_symlink():
                raise FolderError(f"{path} is a link: a node's state is in the lab's own folder")
        except OSError as error:
            raise FolderError(f"{path}: {error.strerror}") from None
        return path

    def next_boot(self, node: str, card: str) -> int:
        """Return the number of a card's next start. Write it to disk before the start.

        Raises:
            OSError: the number cannot be written.
            FolderError: the earlier numbers cannot be read.
        """
        path = self.state / node / BOOTS_FILE
        boots = self._boots.get(node)
        if boots is None:
            boots = {}
            try:
                found = json.loads(path.read_text())
                boots.update((str(name), int(number)) for name, number in found.items())
            except FileNotFoundError:
                pass
            except (ValueError, TypeError, AttributeError) as error:
                raise FolderError(
                    f"{path} cannot be read ({type(error).__name__}); cannot number the next start"
                ) from None
            self._boots[node] = boots
        boots[card] = boots.get(card, 0) + 1
        write_private(path, json.dumps(boots, indent=1))
        return boots[card]

    def log_file(self, node: str, card: str) -> Path:
        return self.run / f"{node}.{compact(card)}.log"

    def log_ends(self, lines: int = 5) -> list[str]:
        """Return the last lines of every non-empty log, each under its file's name."""
        ends: list[str] = []
        for path in sorted(self.run.glob("*.log")):
            text = path.read_text(errors="replace").splitlines()[-lines:]
            if text:
                ends += [f"{path.name}:", *(f"    {line}" for line in text)]
        return ends

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write what others read of the running lab. It is not needed after a crash of the machine."""
        storage.write_unsynced(self.run / LAB_FILE, json.dumps(facts, indent=1).encode(), whole=True)

    def keep_log(self, text: str) -> Path | None:
        """Keep the launcher's log and this text outside the run folder. Return the file, or None."""
        said = b""
        with contextlib.suppress(OSError):
            said = (self.run / LAUNCHER_LOG).read_bytes()[-MAX_LOG_OCTETS:]
        path = self.state / LAUNCHER_LOG
        try:
            storage.replace(path, said + text.encode(errors="replace"))
        except OSError:
            return None
        return path

    def close(self, *, delete_state: bool = False) -> None:
        """Remove the run folder; keep the state unless `delete_state`."""
        self._run.remove()
        if delete_state:
            self._state.remove()
        self._state.close()


def node_state(lab: str, node: str) -> Path:
    """Return the path of the state of a lab's node, whether or not it exists."""
    return state_root() / lab / node


def is_fresh(lab: str, node: str) -> bool:
    """Return whether a node has no stored state, so that its start-up file will be read (S-113)."""
    folder = node_state(lab, node)
    return not folder.is_dir() or not any(folder.iterdir())


def has_state(lab: str) -> bool:
    """Return whether there is state of a lab that chassis made."""
    return folder_ownership.is_ours(state_root() / lab, STATE)


def delete_state(lab: str) -> bool:
    """Delete a lab's state. Return whether there was any.

    Raises:
        FolderError: a launcher uses it, or the folder was not made by chassis.
    """
    folder = state_root() / lab
    try:
        return folder_ownership.remove_idle(folder, STATE)
    except Held as error:
        raise FolderError(_state_in_use(folder, error.pid)) from None


def _state_in_use(folder: Path, pid: int) -> str:
    return (
        f"{folder} is the state of a lab that runs (process {pid}) with another run folder: end it with the "
        "CHASSIS_RUN that it was started with, or set CHASSIS_STATE to another folder"
    )
