"""Where a lab lives on disk: its run folder while it runs, and its nodes' state folders, which outlive it.

The run folder holds sockets, logs, counters and `lab.json`; it is short because a Unix socket's path is, belongs
to its owner alone, and is removed when the lab ends. What a killed launcher left behind is swept by the next
start of any lab. Both folders are made, held and removed as `launch.folder_ownership` says.
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
"""Octets of the launcher's log that a crash leaves."""
LAB_FILE = "lab.json"
BOOTS_FILE = "boots.json"

SOCKET_NAME = len(".asp14-2.999999")
"""Longest that a socket's name in the run folder has beside its node's name."""


RUN, STATE = "run", "state"
"""What a folder of ours is for."""


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


def write_private(path: Path, text: str) -> None:
    """Replace a file whole; it is readable by its owner only. A killed process leaves the old one or the new."""
    storage.replace(path, text.encode())


@dataclass(frozen=True, slots=True)
class Running:
    """A lab that runs: its name, its run folder and what its `lab.json` says."""

    name: str
    run: Path
    facts: Mapping[str, Any]

    @property
    def socket(self) -> Path:
        return self.run / LAUNCHER_SOCKET

    def lives(self) -> bool:
        """Whether it still runs."""
        return folder_ownership.holder(self.run, RUN) is not None


def running() -> list[Running]:
    """The labs that run now, by name.

    Raises:
        FolderError: somebody else could pretend to be a lab there.
    """
    parent = run_root()
    labs = []
    for folder in sorted(folder_ownership.root(parent).iterdir()) if parent.is_dir() else ():
        if folder_ownership.holder(folder, RUN) is not None:
            # It may end at any moment.
            with contextlib.suppress(OSError, ValueError):
                folder_ownership.check_private(folder)
                facts = json.loads((folder / LAB_FILE).read_text())
                labs.append(Running(folder.name, folder, facts))
    return labs


def sweep(parent: Path) -> list[str]:
    """Remove the run folders of launchers that are gone; returns their names."""
    return folder_ownership.sweep(parent, RUN)


class Folders:
    """The folders of one lab that is about to run, held until `close`.

    Raises:
        FolderError: a lab of that name runs already, or a path is too long, or a folder cannot be used.
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
                f"a lab {lab!r} runs already; end it with 'chassis-launch destroy {lab}' or give another --name"
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
        """The folder of one node's state."""
        path = self.state / node
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            if path.is_symlink():
                raise FolderError(f"{path} is a link: a node's state is in the lab's own folder")
        except OSError as error:
            raise FolderError(f"{path}: {error.strerror}") from None
        return path

    def next_boot(self, node: str, card: str) -> int:
        """The number of a card's coming start, on disk before the card is.

        Raises:
            OSError: it can't be written.
            FolderError: the numbers that there were can't be read.
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
                    f"{path} can't be read ({type(error).__name__}): no start can be numbered"
                ) from None
            self._boots[node] = boots
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

    def keep_log(self, text: str) -> Path | None:
        """Keep what the launcher said, and this, where it outlives the run folder; where it is kept."""
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
        """Remove the run folder; the state stays unless it is to be deleted."""
        self._run.remove()
        if delete_state:
            self._state.remove()
        self._state.close()


def node_state(lab: str, node: str) -> Path:
    """Where the state of a lab's node is, or would be."""
    return state_root() / lab / node


def is_fresh(lab: str, node: str) -> bool:
    """Whether nothing is held of a node: its start-up file will be read (S-113)."""
    folder = node_state(lab, node)
    return not folder.is_dir() or not any(folder.iterdir())


def has_state(lab: str) -> bool:
    """Whether there is state of a lab, made by us."""
    return folder_ownership.is_ours(state_root() / lab, STATE)


def delete_state(lab: str) -> bool:
    """Delete a lab's state; whether there was any.

    Raises:
        FolderError: a launcher runs with it, or the folder was not made by us.
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
