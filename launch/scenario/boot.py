"""Boot a lab for a scenario or a test, in new folders under `/tmp`, and end it.

Input: a lab file and changes of its values. Output: a `BootedLab` with a client. The lab shares nothing with labs
of users, not even the name; its run and state folders are deleted at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.bus import counters
from launch import folder_ownership
from launch.client.lab_client import LabClient, LabTimeout, SocketAsker
from launch.folder_ownership import Claim, FolderError
from launch.lab import parser
from launch.lab.model import Lab
from launch.lab.scenario import Scenario, read_scenario
from launch.lab.yaml_source import LabError, Reporter
from launch.run_folders import LAUNCHER_SOCKET
from launch.scenario.launcher_run import LauncherRun

BOOT_TIMEOUT = 75.0
"""Time (s) in which every card must be up; longer than a launcher itself waits, which says what is missing."""

CHANGES = "changes.json"
"""Name of the file, in a lab's folder, with the values that replace the lab file's own."""

EVENTS = "events.jsonl"
"""Name of the file, among the kept ones, with the events of the launcher and the controllers, one a line."""

_KEPT = (".log", ".json", ".pcapng", ".yaml", ".cfg")

END_TIMEOUT = 60.0
"""Time (s) in which a lab must end after SIGTERM."""

PLACE = Path("/tmp")
"""Parent of the labs' folders: short, because a socket's path is limited."""

SCENARIO = "scenario"
"""Kind of these folders, see `launch.folder_ownership`."""


class BootError(Exception):
    """The lab could not be started; the text says why."""


def load(path: Path, changes: Mapping[str, Any] | None = None) -> tuple[Lab, Scenario]:
    """Read a lab, with `changes` as in `launch.lab.parser.load`, and its checked scenario.

    Raises:
        LabError: the lab or the scenario has errors.
    """
    lab, _ = parser.load(path, changes)
    reporter = Reporter(str(path))
    scenario = read_scenario(lab, reporter)
    if reporter.failed:
        raise LabError(reporter.diagnostics)
    return lab, scenario


def check(lab: Lab) -> tuple[Any, ...]:
    """Return the diagnostics of a lab's scenario, for `chassis-launch check`."""
    reporter = Reporter(str(lab.file))
    read_scenario(lab, reporter)
    return tuple(reporter.diagnostics)


@dataclass
class BootedLab:
    """A booted lab of real processes. `folder` has all its files except the lab file."""

    lab: Lab
    scenario: Scenario
    folder: Path
    client: LabClient
    ask: SocketAsker
    boot_ms: float
    environment: Mapping[str, str]
    claim: Claim

    @property
    def run(self) -> Path:
        return self.folder / "r" / self.lab.name

    def keep(self, target: Path) -> Path:
        """Copy logs, events, counters and captures to `target` for people. Return the folder."""
        target.mkdir(parents=True, exist_ok=True)
        (target / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in self.client.events()))
        for source in (self.run, self.folder):
            if source.is_dir():
                for file in source.iterdir():
                    if file.suffix == ".counters":
                        # Copy only the used length, because a copy of a sparse file would fill its holes.
                        (target / file.name).write_bytes(counters.used(file))
                    elif file.is_file() and file.suffix in _KEPT:
                        shutil.copy2(file, target / file.name)
        return target

    def close(self) -> None:
        """End every process of the lab and delete its folders."""
        self.ask.close()
        try:
            _Launching(("destroy", self.lab.name), self.environment).wait(END_TIMEOUT)
        finally:
            self.claim.remove()


class _Launching:
    """A run of `chassis-launch`.

    Raises:
        BootError: from its methods, if the run fails or takes too long; the text has the run's output.
    """

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._name = f"chassis-launch {' '.join(arguments)}"
        self._run: LauncherRun | None = LauncherRun(arguments, environment)

    def ended(self) -> bool:
        """Return whether the run has ended. Raise BootError if it failed."""
        if self._run is None:
            return True
        status = self._run.wait(0.0)
        if status is None:
            return False
        self._finish(self._run, status)
        return True

    def wait(self, within: float) -> None:
        if self._run is None:
            return
        status = self._run.wait(within)
        if status is None:
            self._run.close()
            raise BootError(f"{self._name}: not done within {within:g} s")
        self._finish(self._run, status)

    def _finish(self, run: LauncherRun, status: int) -> None:
        said = run.output().strip()
        run.close()
        self._run = None
        if status:
            raise BootError(f"{self._name}: status {status}: {said}")


def boot(
    path: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    flows: Mapping[str, Mapping[str, Any]] | None = None,
    nodes: Mapping[str, Mapping[str, Any]] | None = None,
    within: float = BOOT_TIMEOUT,
    ready: bool = True,
) -> BootedLab:
    """Start a lab and wait until its cards are up (unless `ready` is false).

    `settings`, and values of `flows` and `nodes`, replace the file's own.

    Raises:
        LabError: the file is wrong.
            BootError: the lab did not start in time; the text has the launcher's output and the processes' logs.
    """
    # Remove the folders of killed test runs, whose labs have ended.
    folder_ownership.sweep(PLACE, SCENARIO, "ch*-*")
    folder = Path(tempfile.mkdtemp(prefix=f"ch{os.getpid()}-", dir=PLACE))
    try:
        claim = Claim(folder, SCENARIO)
    except FolderError as error:
        raise BootError(str(error)) from None
    try:
        arguments: tuple[str, ...] = (str(path), "--detach", "--with-pid", str(os.getpid()))
        topology = {"nodes": nodes} if nodes else {}
        given = (("settings", settings), ("flows", flows), ("topology", topology))
        changes = {name: values for name, values in given if values}
        if changes:
            (folder / CHANGES).write_text(json.dumps(changes, indent=1))
            arguments += ("--changes", str(folder / CHANGES))
        lab, scenario = load(path, changes)
        environment = {
            **os.environ,
            "CHASSIS_RUN": str(folder / "r"),
            "CHASSIS_STATE": str(folder / "s"),
        }
    except BaseException:
        claim.remove()
        raise
    run = folder / "r" / lab.name
    ask = SocketAsker(run)
    booted = BootedLab(lab, scenario, folder, LabClient(lab, ask, run), ask, 0.0, environment, claim)
    began = time.monotonic()
    try:
        # The lab ends with this process, also if it is killed.
        started = _Launching(arguments, environment)
        if ready:
            started.wait(within)
            booted.client.wait_until("cards up", within)
        else:
            booted.client.wait_until(lambda: (run / LAUNCHER_SOCKET).exists() or started.ended(), within)
    except (BootError, LabTimeout) as error:
        said = logs(run)
        with contextlib.suppress(BootError):
            booted.close()
        raise BootError(f"{error}\n{said}") from None
    booted.boot_ms = booted.client.boot_ms = (time.monotonic() - began) * 1e3
    booted.client.folder = folder
    return booted


def logs(run: Path, max_characters: int = 2000) -> str:
    """Return the ends of the processes' logs, each under its file's name; `max_characters` of each."""
    parts = []
    for path in sorted(run.glob("*.log")):
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace").strip()
            if text:
                parts.append(f"--- {path.name}\n{text[-max_characters:]}")
    return "\n".join(parts)
