"""A simulated lab whose tunnels a test moves from one ASP to another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from chassis.sim.lab import Run
from chassis.sim.world import Violation
from launch.simulate import model
from tests.support import CONFIGS

LAB = CONFIGS / "simulate" / "lab.yaml"
TEXT = (LAB.parent / "b.cfg").read_text()
PACKETS = 150


class Moving:
    """A lab without faults of its own: traffic, commits at `b`, replays of all that was on the wires."""

    def __init__(self, lab: Path = LAB) -> None:
        self.run = Run(model(lab), 1)
        self.world = self.run.world
        self.b = next(node for node in self.run.nodes if node.model.name == "b")
        self.run.boot()
        self.wait(3.0)
        self.traffic(5)
        self.traffic()
        self.run.remember_up()

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        answers: list[tuple[dict[str, Any], str]] = []
        self.b.operate(command, arguments, lambda result, error: answers.append((result, error)))
        self.wait(0.2)
        [(result, error)] = answers
        assert not error
        return result

    def traffic(self, count: int = PACKETS) -> None:
        """Packets of every flow, at least one of which arrives."""
        before = len(self.run.checks.traffic.delivered)
        for tester in self.run.testers:
            for flow in tester.model.flows:
                tester.burst(flow, 20_000.0, count)
        self.wait(1.0)
        assert len(self.run.checks.traffic.delivered) > before

    def apply(self, text: str) -> None:
        assert self.ask("apply", text=text, file="moved.cfg")["applied"]
        self.wait(2.0)

    def replay(self) -> str:
        """Everything on the wires between the routers once more; the rule that this breaks."""
        assert sum(end.replay(1000.0) for end in self.run.between) > PACKETS
        try:
            self.wait(2.0)
        except Violation as violation:
            return f"{violation.rule}: {violation.what}"
        return ""

    def homes(self) -> set[str]:
        return {str(tunnel["asp"]) for tunnel in self.ask("status")["tunnels"]}


def changed_lab(folder: Path, lab: Path, **changes: tuple[str, str]) -> Path:
    """Return a copy of a lab in which text is another in the configurations of these nodes."""
    shutil.copytree(lab.parent, folder)
    for node, (old, new) in changes.items():
        path = folder / f"{node}.cfg"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
    return folder / lab.name
