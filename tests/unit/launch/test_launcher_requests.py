"""Thousands of generated requests for a launcher: each is answered, nothing is raised, no process is started."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chassis.bus.requests import LAUNCHER
from launch.lab import model
from launch.lab.model import Lab, LinuxNode, RouterNode
from launch.run_folders import Folders
from launch.supervisor.processes import ProcessSlot
from launch.supervisor.supervisor import Supervisor
from tests.support import odd

LAB = Lab(
    "odd",
    Path("odd.yaml"),
    {"a": RouterNode("a", Path("a.cfg")), "t1": model.TesterNode("t1", {}), "h": LinuxNode("h")},
)


class Launcher(Supervisor):
    """A supervisor without processes: what it answers is kept, what it has carried out is only told."""

    def __init__(self, folder: Path) -> None:
        folders = SimpleNamespace(run=folder, state=folder, write_facts=lambda facts: None)
        super().__init__(LAB, cast(Folders, folders), {}, {"a": ()}, {"a": ("", "a.cfg")})
        self.answers: dict[int, tuple[Mapping[str, Any], str]] = {}
        self.sent: list[bytes] = []
        for node, card in (("a", "xcrp"), ("a", "lc 3"), ("t1", "tester")):
            self.processes.slots[node, card] = ProcessSlot(node, card, card, boot=1, state="running")
        self._linux = {"h": {"pid": 1, "ready": True, "error": ""}}
        self._server = cast(Any, SimpleNamespace(answer=self.answer))
        self._ground_channel = cast(Any, SimpleNamespace(send=self.tell))

    def answer(self, number: int, result: Mapping[str, Any], error: str = "", last: bool = True) -> bool:
        json.dumps(result)
        self.answers[number] = (result, error)
        return True

    def tell(self, **values: Any) -> None:
        self.sent.append(json.dumps(values, allow_nan=False).encode())

    def ask(self, command: Any, arguments: Any) -> str:
        number = len(self.answers) + 1
        self._command(number, command, arguments)
        return self.answers[number][1] if number in self.answers else ""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    made = Launcher(tmp_path)
    yield made
    for fd in made._wakeup:
        os.close(fd)


@pytest.mark.parametrize(("command", "arguments"), [
    ("exec", {"node": []}),
    ("exec", {"node": "h", "command": "true", "timeout": 10**400}),
    ("exec", {"node": "h", "command": "true\0"}),
    ("exec", {"node": "h", "command": "\ud800"}),
    ("events", {"since": 10**400}),
    ("kill", {"node": {}, "card": []}),
    ("destroy", {"keep_state": "no"}),
])  # fmt: skip
def test_odd_arguments_are_refused(launcher: Launcher, command: str, arguments: dict[str, Any]) -> None:
    error = odd.survived(launcher.ask, command, arguments)
    assert "argument" in error
    assert launcher.sent == []
    assert not launcher._delete_state


def test_a_fault_of_the_launcher_is_an_answer_and_an_event(launcher: Launcher) -> None:
    launcher._linux = cast(Any, None)
    error = odd.survived(launcher.ask, "ps", {})
    assert error.startswith("ps: internal error: AttributeError at supervisor.py:")
    assert launcher._events[-1]["what"] == "fault"
    assert launcher.ask("events", {}) == ""


def test_the_table_names_every_command(launcher: Launcher) -> None:
    assert launcher._commands.keys() == LAUNCHER.keys()


@pytest.mark.parametrize("seed", range(2))
def test_generated_requests(launcher: Launcher, seed: int) -> None:
    for name, arguments in odd.requests(LAUNCHER, 1000, seed, odd.RAW):
        for slot in launcher.processes.slots.values():
            slot.state = "running"
        about = (name, arguments)
        before = len(launcher.answers) + len(launcher.sent)
        error = odd.survived(launcher.ask, name, arguments, about=about)
        assert "internal error" not in error, about
        assert len(launcher.answers) + len(launcher.sent) == before + 1, about
