"""A wire: a port's link to another port of the lab, as a pair of one-way connections.

Its faults (`chassis.fwd.impair`) are made by the sending end, so that each direction has its own; taking a wire
down takes it down in both directions at this end.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import zmq

from chassis.bus import endpoints, fabric
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.loop import Loop
from chassis.net.errors import DecodeError
from chassis.ports.driver import OnCarrier, OnFrames, PortDriver

QUEUE = 128
"""High-water mark of a wire, in batches, at either end."""


class Wire(PortDriver):
    """A wire to a port of another process of the lab."""

    def __init__(
        self,
        context: zmq.Context[Any],
        loop: Loop,
        run: Path,
        node: str,
        port: str,
        far: WireSpec,
        counters: Counters,
        on_frames: OnFrames,
        on_carrier: OnCarrier,
    ) -> None:
        super().__init__(port, counters, on_frames, on_carrier, far.seed)
        self._loop = loop
        self._pull = fabric.receiver(context, endpoints.wire(run, node, port), QUEUE)
        self._push, self._monitor = fabric.connect(
            context, zmq.PUSH, endpoints.wire(run, far.node, far.port), QUEUE
        )
        loop.add(self._pull, self._readable)
        loop.add(self._monitor, self._event)

    def close(self) -> None:
        self._loop.remove(self._pull)
        self._loop.remove(self._monitor)
        self._push.disable_monitor()
        for socket in (self._monitor, self._push, self._pull):
            socket.close(0)

    def _put(self, batch: Batch) -> int:
        batch.card, batch.epoch, batch.step, batch.ingress = "", 0, Step.IN, ""
        return len(batch.lengths) if fabric.send(self._push, batch) else 0

    def _readable(self, now: float) -> None:
        while self._take() and self._loop.may_go_on():
            pass

    def _take(self) -> bool:
        try:
            batch = fabric.receive(self._pull)
        except DecodeError:
            self._counters.add(f"port {self.port} drop undecodable")
            return True
        if batch is None:
            return False
        self._receive(batch, time.monotonic())
        return True

    def _event(self, now: float) -> None:
        before = self.carrier
        for connected in fabric.connection_events(self._monitor):
            self._connected = connected
            if self.carrier != before:
                before = self.carrier
                self._on_carrier(self.port, before, now)
