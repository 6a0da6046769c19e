"""A simulated tester: the real engine, which is never killed, with its flows sent in bursts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chassis.bus.engine import Output, Perform, ToOperator, ToWire
from chassis.sim.process import Process
from chassis.sim.wires import WireEnd
from chassis.sim.world import Simulation


@dataclass(frozen=True, slots=True)
class TesterModel:
    """A tester: the function that makes its engine, its ports, the names of the flows that it sends."""

    name: str
    make: Callable[[], Any]
    ports: tuple[str, ...]
    flows: tuple[str, ...]


class TesterProcess(Process):
    """The process of a tester."""

    def __init__(self, world: Simulation, model: TesterModel) -> None:
        super().__init__(world, model.name, "tester", 1, 999)
        self.model = model
        self.ends: dict[str, WireEnd] = {}
        self._commands = 0
        self.handlers |= {ToWire: self._to_wire, ToOperator: self._on_answer, Perform: lambda output: None}

    def start(self) -> None:
        for end in self.ends.values():
            end.attach(self)
        self.begin(self.model.make())

    def burst(self, flow: str, rate: float, count: int) -> None:
        """Send `count` packets of a flow at `rate` (1/s)."""
        self._commands += 1
        arguments = {"flow": flow, "rate": rate, "count": count}
        outputs: list[Output] = self.engine.on_operator_command(self._commands, "start", arguments, self.world.now)
        self.finish_call(outputs)

    def _on_answer(self, output: ToOperator) -> None:
        if output.error:
            raise self.world.violation("flows run", f"{self.name}: {output.error}")

    def _to_wire(self, output: ToWire) -> None:
        end = self.ends.get(output.port)
        if end is not None:
            end.send(output.batch)
