"""The tester's process: ports, clock and the operators' socket around the tester's engine."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

import zmq

from chassis.bus import endpoints
from chassis.bus.allocator import keep_large_buffers
from chassis.bus.batch import Batch
from chassis.bus.capture import Captures
from chassis.bus.card_shell import CardRequestError
from chassis.bus.counters import Counters
from chassis.bus.engine import MAX_IDLE_TIMEOUT, Output, Perform, ToOperator, ToWire
from chassis.bus.environment import Environment
from chassis.bus.loop import Loop
from chassis.bus.messages import Attributes, Request
from chassis.bus.operator_loop import OperatorSocket
from chassis.bus.scheduling import PACKET_SLICE, Contention, ask_for_slice
from chassis.ports.shell import PortDrivers
from chassis.tester.engine import TesterEngine

MAX_WAITING = 8192
"""Frames (count) that wait at a port whose wire is full: a source is steady while the lab catches up after a stall
of a tenth of a second."""


class EngineWithPorts(Protocol):
    """What the shell needs of an engine: of a tester, or of a node of peers."""

    def start(self, now: float) -> list[Output]: ...

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]: ...

    def on_congestion(self, port: str, full: bool, now: float) -> None: ...

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]: ...

    def on_operator_command(self, number: int, command: Any, arguments: Any, now: float) -> list[Output]: ...

    def on_timer(self, now: float) -> list[Output]: ...

    def next_timer(self) -> float: ...


class TesterShell:
    """Runs the engine of a tester, or of a node of peers, until SIGTERM."""

    def __init__(self, env: Environment, engine: EngineWithPorts, counters: Counters) -> None:
        self.env = env
        self.loop = Loop(counters, Contention(), MAX_IDLE_TIMEOUT)
        ask_for_slice(PACKET_SLICE)
        keep_large_buffers()
        self.context: zmq.Context[Any] = zmq.Context()
        self.engine = engine
        self.ports = PortDrivers(
            self.context,
            self.loop,
            env.run,
            env.node,
            env.wires,
            counters,
            lambda port, batch, now: self.perform(engine.receive_frames(port, batch, now)),
            lambda port, up, now: self.perform(engine.on_carrier(port, up, now)),
            engine.on_congestion,
            most_waiting=MAX_WAITING,
        )
        self.captures = Captures(self.ports.tap, lambda what: 0)
        self._requests: dict[str, Callable[[Attributes], Attributes]] = {
            "link": lambda arguments: self.ports.link(arguments, time.monotonic()),
            "capture": self.captures.start,
            "capture-stop": self.captures.stop,
        }
        self._operators = OperatorSocket(self.loop, endpoints.operator(env.run, env.node), self._command)

    def run(self) -> int:
        """Run until SIGTERM; return the exit status."""
        signal.signal(signal.SIGTERM, lambda *_: self.loop.stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.perform(self.engine.start(time.monotonic()))
        self.ports.report_carrier(time.monotonic())
        try:
            self.loop.run(self._next_timer, self._on_timer)
        finally:
            self.captures.close()
            self._operators.close()
            self.ports.close()
            self.context.destroy(linger=0)
        return 0

    def perform(self, outputs: list[Output]) -> None:
        """Carry out the outputs of the engine in order."""
        for output in outputs:
            if isinstance(output, ToWire):
                self.ports.transmit(output.port, output.batch, time.monotonic())
            elif isinstance(output, ToOperator):
                self._operators.answer(output.number, output.result, output.error, output.last)
            elif isinstance(output, Perform):
                self._perform_request(output.request)

    def _next_timer(self) -> float:
        return min(self.engine.next_timer(), self.ports.next_timer())

    def _on_timer(self, now: float) -> None:
        self.ports.on_timer(now)
        self.perform(self.engine.on_timer(now))

    def _command(self, number: int, command: str, arguments: dict[str, Any]) -> None:
        self.perform(self.engine.on_operator_command(number, command, arguments, time.monotonic()))

    def _perform_request(self, request: Request) -> None:
        if request.name == "inject":
            self.ports.inject(request.arguments, lambda result, error: self._answer(request.number, result, error))
            return
        try:
            result = self._requests[request.name](request.arguments)
        except (CardRequestError, OSError, ValueError) as error:
            self._operators.answer(request.number, {}, str(error) or type(error).__name__)
        else:
            self._operators.answer(request.number, result)

    def _answer(self, number: int, result: Attributes, error: str) -> None:
        self._operators.answer(number, result, error)


def run(env: Environment) -> int:
    """Run the process of a tester; return its exit status."""
    counters = env.counters()
    engine = TesterEngine(
        env.node,
        boot=env.boot,
        ports=env.ports,
        flows=env.flows,
        settings=dict(env.settings),
        counters=counters,
    )
    return TesterShell(env, engine, counters).run()
