"""The controller of a running lab is killed (SIGKILL) in ten moments of commits: the old or the new configuration,
whole, and what was acknowledged is kept."""

from __future__ import annotations

import json
import os
import select
import signal
from random import Random
from typing import Any

import pytest

from chassis.bus import endpoints
from chassis.bus.operator import OperatorClient, OperatorError
from launch.client.lab_client import LabClient
from launch.pytest_plugin import LabFactory
from tests.support import CONFIGS

pytestmark = pytest.mark.multiprocess

LAB = """
name: kills
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg, settings: {restart-delay: 20ms}}
"""
TUNNELS = ("circuit", "economical")
MOMENTS = 10
LONGEST = 0.02
"""Latest moment (s) after the request, where the answer is not waited for."""
PATIENCE = 60.0


class Committing:
    def __init__(self, lab: LabClient) -> None:
        self.lab = lab
        self.draw = Random(20)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return dict(self.lab.ask("a", command, arguments))

    def pid(self) -> int:
        rows = self.lab.ask("", "ps", {})["processes"]
        [pid] = [row["pid"] for row in rows if (row["node"], row["card"]) == ("a", "xcrp")]
        return int(pid)

    def mtu(self) -> int:
        """The MTU of both tunnels; 0 without one."""
        lines = [line.strip() for line in self.ask("config")["text"].splitlines()]
        mtus = [int(line.split()[1]) for line in lines if line.startswith("mtu ")]
        assert mtus in ([], [mtus[0]] * len(TUNNELS) if mtus else []), "half a commit is in force"
        return mtus[0] if mtus else 0

    def killed(self, mtu: int, confirm: int, seconds: float) -> dict[str, Any] | None:
        """Commit, and kill the controller when it has answered or these seconds are over; the answer, if any."""
        lines = "".join(f"tunnel ipsec {name}\nmtu {mtu}\n" for name in TUNNELS)
        arguments = {"lines": lines, "user": "ann", "confirm": confirm}
        pid = self.pid()
        assert self.lab.run is not None
        with OperatorClient(endpoints.operator(self.lab.run, "a"), 10.0) as client:
            line = json.dumps({"id": 1, "command": "commit", "arguments": arguments}).encode() + b"\n"
            client.connection.sendall(line)
            select.select([client.connection], [], [], seconds)
            os.kill(pid, signal.SIGKILL)
            told = b""
            try:
                while data := client.connection.recv(65536):
                    told += data
            except ConnectionError:
                pass
        self.lab.wait_until(lambda: self.pid() != pid and self.back(), within=60)
        return dict(json.loads(told)) if told.endswith(b"\n") else None

    def back(self) -> bool:
        try:
            return all(card["usable"] for card in self.ask("status")["cards"])
        except OperatorError:
            return False


def test_killed_at_commits(lab_factory: LabFactory) -> None:
    lab = lab_factory.text(LAB, {"a.cfg": (CONFIGS / "manual-keys" / "a.cfg").read_text()})
    router = Committing(lab)
    mtu, answered = 0, 0
    for moment in range(MOMENTS):
        new, confirm = 1300 + moment, 5 * (moment % 2)
        version = router.ask("identity")["version"]
        seconds = LONGEST * router.draw.random() if moment % 3 else PATIENCE
        answer = router.killed(new, confirm, seconds)
        found, commits = router.mtu(), router.ask("commits")
        assert found in (mtu, new)
        assert commits["version"] == version + (found == new)
        if answer is not None:
            answered += 1
            assert answer["result"]["applied"]
            assert answer["result"]["version"] == commits["version"]
            assert found == new, "an acknowledged commit is lost"
        assert bool(commits["open"]) == (confirm > 0 and found == new)
        if commits["open"]:
            assert commits["open"]["number"] == commits["version"]
            assert 0 < commits["open"]["seconds"] <= 60 * confirm
            assert router.ask("commit", lines="", user="ann")["confirmed"] == commits["version"]
        mtu = found
    assert answered > MOMENTS // 3
