"""Starts a lab for a scenario or a test: in folders of its own, under `/tmp`, and ends it again.

A lab that is started here shares nothing with one that a user runs, not even the name: its run and state folders
are made anew and deleted at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
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

BOOT_TIMEOUT = 30.0
"""Seconds in which every card must be up."""

CHANGES = "changes.json"
"""Name of the file, in a lab's folder, of what is in place of the lab file's own values."""

EVENTS = "events.jsonl"
"""Name of the file, of what is kept of a lab, of what its launcher and its controllers noted, an event a line."""

_KEPT = (".log", ".json", ".pcapng", ".yaml", ".cfg")

END_TIMEOUT = 15.0
"""Seconds in which a lab must be gone after it was told to end."""

PLACE = Path("/tmp")
"""Where each lab has its folder: short, as a socket's path must be."""

SCENARIO = "scenario"
"""What such a folder is for, see `launch.folder_ownership`."""

_LAUNCHER = (sys.executable, "-c", "from launch.main import main; main()")


class BootError(Exception):
    """The lab could not be started; the text says why."""


def load(path: Path, changes: Mapping[str, Any] | None = None) -> tuple[Lab, Scenario]:
    """A lab, with `changes` as `launch.labparser.load` takes them, and its scenario, checked. Raises LabError with
    everything that is wrong in either."""
    lab, _ = parser.load(path, changes)
    reporter = Reporter(str(path))
    scenario = read_scenario(lab, reporter)
    if reporter.failed:
        raise LabError(reporter.diagnostics)
    return lab, scenario


def check(lab: Lab) -> tuple[Any, ...]:
    """What is wrong with a lab's scenario, as diagnostics, for `chassis-launch check`."""
    reporter = Reporter(str(lab.file))
    read_scenario(lab, reporter)
    return tuple(reporter.diagnostics)


@dataclass
class BootedLab:
    """A lab of real processes that was started here. `folder` holds everything of it but the lab file."""

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
        """Copy logs, events, counters and captures for people to look at; where they are."""
        target.mkdir(parents=True, exist_ok=True)
        (target / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in self.client.events()))
        for source in (self.run, self.folder):
            if source.is_dir():
                for file in source.iterdir():
                    if file.suffix == ".counters":
                        # As long as what is in use: a copy has no holes.
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
    """A run of `chassis-launch`. BootError where it fails or takes too long, with what it said."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._name = f"chassis-launch {' '.join(arguments)}"
        self._process = subprocess.Popen(
            (*_LAUNCHER, *arguments),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def ended(self) -> bool:
        """Whether it ended already; BootError where it failed."""
        if self._process.poll() is None:
            return False
        self.wait(1.0)
        return True

    def wait(self, within: float) -> None:
        try:
            output, _ = self._process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise BootError(f"{self._name}: not done within {within:g} s") from None
        if self._process.returncode:
            said = output.decode(errors="replace").strip()
            raise BootError(f"{self._name}: status {self._process.returncode}: {said}")


def boot(
    path: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    flows: Mapping[str, Mapping[str, Any]] | None = None,
    within: float = BOOT_TIMEOUT,
    ready: bool = True,
) -> BootedLab:
    """Start a lab and wait until its cards are up (unless `ready` is false).

    `settings` and values of `flows` are in place of the file's own.

    Raises:
        LabError: the file is wrong.
        BootError: it did not start, or not in time; the text has the launcher's words and the processes' logs.
    """
    # What killed test runs left: their labs ended with them, their folders did not.
    folder_ownership.sweep(PLACE, SCENARIO, "ch*-*")
    folder = Path(tempfile.mkdtemp(prefix=f"ch{os.getpid()}-", dir=PLACE))
    try:
        claim = Claim(folder, SCENARIO)
    except FolderError as error:
        raise BootError(str(error)) from None
    try:
        arguments: tuple[str, ...] = (str(path), "--detach", "--with-pid", str(os.getpid()))
        changes = {name: values for name, values in (("settings", settings), ("flows", flows)) if values}
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
        # The lab ends with this process, however that one ends.
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


def logs(run: Path, most: int = 2000) -> str:
    """The ends of the processes' logs, each under its file's name."""
    parts = []
    for path in sorted(run.glob("*.log")):
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace").strip()
            if text:
                parts.append(f"--- {path.name}\n{text[-most:]}")
    return "\n".join(parts)
