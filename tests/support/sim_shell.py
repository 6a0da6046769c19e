"""A lab in the simulator whose routers have operators, and whose testers send what a test asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from chassis.sim.lab import LabModel, Run
from chassis.tester.results import combine
from launch.simulate import model
from tests.support.cli import CliRig

RATE = 200.0
"""Packets a second of a burst."""

WALL = 1_119_854_000.0
"""Added to the simulated clock for the time of sessions (s)."""


class SimShell:
    """A booted lab: nothing fails in it unless a test makes it fail."""

    def __init__(
        self, lab: Path, seed: int = 1, change: Callable[[LabModel], LabModel] = lambda made: made
    ) -> None:
        """`change` returns the lab with what a test changes of it."""
        self.run = Run(change(model(lab)), seed)
        self.routers = {node.model.name: node for node in self.run.nodes}
        self.testers = {tester.model.name: tester for tester in self.run.testers}
        self.run.boot()

    def pass_time(self, seconds: float) -> None:
        self.run.world.run(self.run.world.now + seconds)

    def wait_until(self, holds: Callable[[], Any], within: float = 30.0) -> None:
        """Let time pass until something holds; so many simulated seconds at most."""
        end = self.run.world.now + within
        while not holds():
            assert self.run.world.now < end
            self.pass_time(0.1)

    def ask(self, node: str, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a router; LookupError with the text of a refusal."""
        answers: list[tuple[dict[str, Any], str]] = []
        router = self.routers[node]
        self.wait_until(lambda: router.operate(command, dict(arguments), lambda *answer: answers.append(answer)))
        self.wait_until(lambda: answers)
        result, error = answers[0]
        if error:
            raise LookupError(error)
        return result

    def tunnels_up(self) -> bool:
        """Whether every tunnel of every router is up."""
        rows = [row for node in self.routers for row in self.ask(node, "tunnels", {})["tunnels"]]
        return all(row["up"] for row in rows)

    def show(self, node: str, line: str, context: str = "local") -> str:
        """What one command prints."""
        rig = CliRig(partial(self.ask, node), context=context, wall_offset=WALL)
        rig.now = self.run.world.now
        return rig.run(line)

    def data(self, node: str, line: str, context: str = "local") -> Any:
        return json.loads(self.show(node, f"{line} | json", context))

    def send(self, count: int) -> None:
        """Send a burst of every flow, and wait until it has arrived."""
        for tester in self.testers.values():
            for flow in tester.model.flows:
                tester.burst(flow, RATE, count)
        self.pass_time(count / RATE + 2.0)

    def flows(self) -> dict[str, dict[str, Any]]:
        """What the testers counted of each flow, at both ends."""
        reports = [self._report(tester) for tester in self.testers.values()]
        found: dict[str, dict[str, Any]] = {}
        for name in {name for report in reports for name in report}:
            ends = [report.get(name, {}) for report in reports]
            source = next((end["source"] for end in ends if end.get("source")), None)
            sink = next((end["sink"] for end in ends if end.get("sink")), None)
            found[name] = combine(source, sink, auto=False)
        return found

    def _report(self, tester: Any) -> dict[str, Any]:
        (answer,) = tester.engine.on_operator_command(1 << 20, "flows", {}, self.run.world.now)
        flows: dict[str, Any] = answer.result["flows"]
        return flows
