"""A launcher of stand-in processes, in folders of its own, and waiting without sleeping."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chassis.bus import endpoints
from chassis.bus.operator import OperatorClient, OperatorError
from launch.run_folders import LAB_FILE, LAUNCHER_SOCKET

DEADLINE = 60.0

LAB = """\
name: s
settings: {restart-delay: DELAY}
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
    b: {kind: smartedge, config: a.cfg}
  links:
    - endpoints: ["a:3/1", "b:3/2"]
"""


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition's result is true, and return it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if value := condition():
            return value
        select.select([], [], [], 0.01)
    raise AssertionError(f"not within {DEADLINE:g} s: {what}")


def lives(pid: int) -> bool:
    """Whether a process is there and is not only waiting to be taken in by its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class FakeLauncher:
    """A launcher that runs as a program, with stand-ins for its processes."""

    def __init__(self, folder: Path, delay: str) -> None:
        self.folder = folder
        self.lab = folder / "lab.yaml"
        self.lab.write_text(LAB.replace("DELAY", delay))
        (folder / "a.cfg").write_text("context local\n")
        self.environment = {**os.environ, "CHASSIS_RUN": str(folder / "r"), "CHASSIS_STATE": str(folder / "s")}
        self.run = folder / "r" / "s"
        self.state = folder / "s" / "s"
        self.process: subprocess.Popen[str]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_launcher", self.lab],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        # The stand-in of a controller calls a card usable before its process has begun to run.
        cards = [self.run / f"{node}.{card}.told" for node in "ab" for card in ("lc3", "asp1-1")]
        eventually(lambda: all(file.exists() for file in cards), "every card runs")

    def call(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        with OperatorClient(self.run / LAUNCHER_SOCKET, DEADLINE) as client:
            return client.call(command, **arguments)

    def controller(self, node: str, command: str, /, **arguments: Any) -> dict[str, Any]:
        with OperatorClient(endpoints.operator(self.run, node), DEADLINE) as client:
            return client.call(command, **arguments)

    def row(self, node: str, card: str) -> dict[str, Any]:
        rows = self.call("ps")["processes"]
        return next((row for row in rows if (row["node"], row["card"]) == (node, card)), {})

    def running(self, node: str, card: str, boot: int) -> dict[str, Any]:
        """The card's row once this start of it runs."""

        def there() -> dict[str, Any] | None:
            row = self.row(node, card)
            return row if row.get("state") == "running" and row["boot"] == boot else None

        found: dict[str, Any] = eventually(there, f"{node} {card} boot {boot}")
        return found

    def heard(self, node: str) -> list[dict[str, Any]]:
        """What the launcher told a controller; nothing while that one is away."""
        try:
            told: list[dict[str, Any]] = self.controller(node, "heard")["heard"]
        except OperatorError:
            return []
        return told

    def pids(self) -> list[int]:
        return [row["pid"] for row in self.call("ps")["processes"] if row["pid"]]

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.run / LAB_FILE).read_text())
        return facts

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()
