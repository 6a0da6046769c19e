"""The line card's process: the card's shell, and its ports."""

from __future__ import annotations

import os
import time
from math import inf

from chassis.bus.capture import Capture
from chassis.bus.card_shell import CardShell
from chassis.bus.engine import Perform, ToController, ToWire
from chassis.bus.environment import Environment
from chassis.bus.messages import Reply
from chassis.linecard.engine import LineCardEngine
from chassis.ports.shell import PortDrivers


class LineCardShell(CardShell):
    """The shell of a card, with ports. A process that may have been replaced transmits nothing."""

    has_ports = True

    def __init__(self, env: Environment) -> None:
        counters = env.counters()
        self.line_card = LineCardEngine(env.card, pid=os.getpid(), boot=env.boot, counters=counters)
        super().__init__(env, self.line_card, counters)
        engine = self.line_card
        self.ports = PortDrivers(
            self.context,
            self.loop,
            env.run,
            env.node,
            env.wires,
            counters,
            lambda port, batch, now: self.perform(engine.receive_frames(port, batch, now)),
            lambda port, up, now: self.perform(engine.on_carrier(port, up, now)),
            may_send=self._may_send,
            congestion=self.congestion,
            hold=float(env.settings.get("ingress-hold", 0.0)),
        )
        self.handlers[ToWire] = self._to_wire
        self.requests["link"] = lambda arguments: self.ports.link(arguments, time.monotonic())
        self.handlers[Perform] = self._perform_request
        self._alive = time.monotonic()
        self._ports_due = -inf
        """When a port has something to do."""

    def run(self) -> int:
        self.ports.report_carrier(time.monotonic())
        return super().run()

    def next_timer(self) -> float:
        self._alive = time.monotonic()
        if not self.only_beat:
            self._ports_due = self.ports.next_timer()
        return min(super().next_timer(), self._ports_due)

    def on_timer(self, now: float) -> None:
        self._alive = now
        if self._ports_due <= now:
            self.ports.on_timer(now)
        super().on_timer(now)

    def tap(self, what: str, capture: Capture | None) -> None:
        if what.startswith("port "):
            self.ports.tap(what, capture)
        else:
            super().tap(what, capture)

    def close(self) -> None:
        self.ports.close()
        super().close()

    def _perform_request(self, output: Perform) -> None:
        request = output.request
        if request.name == "inject":
            self.ports.inject(
                request.arguments,
                lambda result, error: self.perform([ToController(Reply(request.number, result, error))]),
            )
        else:
            self._run_request(request)

    def _to_wire(self, output: ToWire) -> None:
        if self._may_send():
            self.ports.transmit(output.port, output.batch, time.monotonic())
        else:
            self.counters.add(f"port {output.port} drop fenced", len(output.batch))

    def _may_send(self) -> bool:
        # A process can be stopped between two turns of its loop, which would notice it too late.
        return not self.line_card.fenced and time.monotonic() - self._alive < self.line_card.fence_timeout


def run(env: Environment) -> int:
    """Run the process of a line card until it is told to end."""
    return LineCardShell(env).run()
