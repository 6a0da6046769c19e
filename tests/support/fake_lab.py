"""A lab that is none: testers' engines in memory, routers that are tables, and a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any

from chassis.bus.batch import Batch
from chassis.bus.engine import Output, ToOperator, ToWire
from chassis.bus.operator import OperatorError
from chassis.tester.engine import TesterEngine as Engine
from launch.client.lab_client import LabClient
from launch.lab.model import Lab
from launch.lab.parser import load
from launch.lab.yaml_source import Marked, Reporter, read

LAB = """\
name: two
topology:
  nodes:
    a: {{kind: smartedge, config: a.cfg}}
    b: {{kind: smartedge, config: b.cfg}}
    t1: {{kind: tester, ports: {{"1": {{address: 10.0.0.1/24}}}}}}
    t2: {{kind: tester, ports: {{"1": {{address: 10.0.0.2/24}}}}}}
  links:
    - endpoints: ["t1:1", "a:3/1"]
    - endpoints: ["a:3/11", "b:3/12"]
    - endpoints: ["b:3/1", "t2:1"]
flows:
  forward: {{from: "t1:1", to: "t2:1", rate: 1000, trace: 50ms, start: manual}}
{more}
"""


def write_lab(folder: Path, more: str = "") -> Path:
    """The lab's file, with a scenario or expectations added as they stand."""
    for name in ("a.cfg", "b.cfg"):
        (folder / name).write_text("context local\n")
    path = folder / "lab.yaml"
    path.write_text(LAB.format(more=more))
    return path


def marked(path: Path) -> Marked:
    return read(path, Reporter(str(path)))


class FakeLab:
    """Both testers are real engines; the two routers answer `status` from tables and pass packets unchanged.

    `loses` says whether packets are lost at a time. Of what the ASPs stamped routers know nothing before they ask
    them (`slow`), and never where an ASP is given up (`given_up`, by router, with what it says then).
    """

    def __init__(self, path: Path) -> None:
        self.lab: Lab = load(path)[0]
        self.now = 1000.0
        self.loses: Callable[[float], bool] = lambda now: False
        self.said: list[tuple[str, str, dict[str, Any]]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.asp = {"a": "asp 1/1", "b": "asp 1/1"}
        self.tunnels: dict[str, list[dict[str, Any]]] = {
            node: [{"name": "t1", "up": False, "reason": "no route", "asp": self.asp[node], "home": "lc 3"}]
            for node in ("a", "b")
        }
        self.cards = {
            node: [
                {"card": card, "usable": True, "state": "up", "boot": 1, "epoch": 1}
                for card in ("lc 3", "asp 1/1", "asp 1/2")
            ]
            for node in ("a", "b")
        }
        flows = {name: flow.plain() for name, flow in self.lab.flows.items()}
        self.engines = {
            tester.name: Engine(tester.name, ports={p: v.plain() for p, v in tester.ports.items()}, flows=flows)
            for tester in self.lab.testers()
        }
        self.stamps: dict[str, dict[int, list[dict[str, Any]]]] = {"a": {}, "b": {}}
        self.slow = False
        self.given_up: dict[str, dict[str, Any]] = {}
        self.client = LabClient(self.lab, self.ask, clock=lambda: self.now, pause=self.pass_time)
        for name, engine in self.engines.items():
            self._do(name, engine.on_carrier("1", True, self.now))
        for name, engine in self.engines.items():
            self._do(name, engine.start(self.now))

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something so many seconds from now."""
        self.later.append((self.now + seconds, action))
        self.later.sort(key=lambda entry: entry[0])

    def tunnel(self, node: str, up: bool) -> None:
        self.tunnels[node][0]["up"] = up
        self.tunnels[node][0]["reason"] = "" if up else "no route"

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            wakes = [engine.next_timer() for engine in self.engines.values()]
            next_timer = min([*wakes, self.later[0][0] if self.later else inf])
            if next_timer > end:
                break
            self.now = max(self.now, next_timer)
            while self.later and self.later[0][0] <= self.now:
                self.later.pop(0)[1]()
            for name, engine in self.engines.items():
                if engine.next_timer() <= self.now:
                    self._do(name, engine.on_timer(self.now))
        self.now = end

    def ask(self, node: str, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.said.append((node, command, dict(arguments)))
        if node in self.engines:
            if command == "link":
                return {}
            outputs = self.engines[node].on_operator_command(1, command, dict(arguments), self.now)
            self._do(node, outputs)
            answer = next(output for output in outputs if isinstance(output, ToOperator))
            if answer.error:
                raise OperatorError(answer.error)
            return dict(answer.result)
        if command == "events":
            return {"events": [{"time": self.now - 0.5, "text": f"something at {node or 'the launcher'}"}]}
        if command == "traces":
            return self._traces(node, bool(arguments.get("settled")))
        if command == "status":
            return {"cards": self.cards[node], "tunnels": self.tunnels[node], "ports": []}
        if command == "apply":
            wrong = "wrong" in arguments["text"]
            return {"applied": not wrong, "diagnostics": [{"message": "no such command"}] if wrong else []}
        return {}

    def _traces(self, node: str, settled: bool) -> dict[str, Any]:
        known = not self.slow or (settled and node not in self.given_up)
        traces = [
            {"number": number, "stamps": [one for one in stamps if known or one["step"].endswith((" in", " out"))]}
            for number, stamps in self.stamps[node].items()
        ]
        return {"traces": traces, **(self.given_up.get(node, {}) if settled else {})}

    def _do(self, node: str, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, ToWire):
                self._carry("t2" if node == "t1" else "t1", output.batch)

    def _carry(self, to: str, batch: Batch) -> None:
        if bytes(batch.body[12:14]) == b"\x08\x00":
            if self.loses(self.now):
                return
            way = ("a", "b") if to == "t2" else ("b", "a")
            for _, number in batch.marks:
                for order, (node, does) in enumerate(zip(way, ("encapsulate", "decapsulate"), strict=True)):
                    asp = self.asp[node].removeprefix("asp ")
                    steps = (f"3/1{order} in", f"{asp} {does}", f"3/1{1 - order} out")
                    # The ASP's clock was read before the line card's: it looks as if it had come first.
                    self.stamps[node][number] = [
                        {"step": step, "time": self.now + (order + 1) * 1e-5 + late * 1e-6}
                        for step, late in zip(steps, (1, 0, 2), strict=True)
                    ]
            self._do(to, self.engines[to].receive_frames("1", batch, self.now + 1e-4))
            return
        self._do(to, self.engines[to].receive_frames("1", batch, self.now))
