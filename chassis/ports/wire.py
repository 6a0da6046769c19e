"""A wire: a port's link to another port of the lab, as a pair of one-way connections.

What the far end does not take at once waits at the port, as in the transmit queue of a real one, coalesced into
larger batches. If too much waits, the latest packets are dropped.

The sending end applies its faults (`chassis.ports.impairment`), so that each direction has its own. Taking a wire
down takes it down in both directions at this end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from chassis.bus import endpoints, fabric
from chassis.bus.backlog import Backlog
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.hops import ReceivedBatches, SentBatches
from chassis.bus.loop import Loop
from chassis.bus.priority import alike
from chassis.ports.driver import OnCarrier, OnCongestion, OnFrames, PortDriver

MAX_WIRE_BATCHES = 128
"""Batches (count) that a wire holds at either end, at most."""

MAX_BACKLOG_PACKETS = 2048
"""Packets (count) that wait at a port whose wire is full, at most."""


class Wire(PortDriver):
    """A wire to a port of another process of the lab.

    `may_send` is called before packets that waited are sent: a process that may have been replaced sends nothing.
    `on_congestion` is called when packets begin to wait at the port, and when none waits any longer.
    """

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
        on_congestion: OnCongestion = lambda port, full, now: None,
        may_send: Callable[[], bool] = lambda: True,
        hold: float = 0.0,
    ) -> None:
        super().__init__(port, counters, on_frames, on_carrier, far.seed)
        self._loop, self._hold = loop, hold
        self._on_congestion, self._may_send = on_congestion, may_send
        self._backlog = Backlog(MAX_BACKLOG_PACKETS, alike)
        self._sent_hop = SentBatches(counters, f"port {port}")
        self._received_hop = ReceivedBatches(counters, f"port {port}")
        self._pull = fabric.receiver(context, endpoints.wire(run, node, port), MAX_WIRE_BATCHES)
        self._push, self._monitor = fabric.connect(
            context, zmq.PUSH, endpoints.wire(run, far.node, far.port), MAX_WIRE_BATCHES
        )
        loop.add(self._pull, self._on_readable)
        loop.add(self._monitor, self._on_connection_event)

    def close(self) -> None:
        self._loop.remove(self._push)
        self._loop.remove(self._pull)
        self._loop.remove(self._monitor)
        self._push.disable_monitor()
        for socket in (self._monitor, self._push, self._pull):
            socket.close(0)

    def _write(self, batch: Batch) -> None:
        # A frame carries nothing of what its node knew about it, so frames of all kinds can share a batch.
        batch = Batch(Step.INGRESS, batch.body, batch.lengths, marks=batch.marks)
        if not self._backlog:
            if fabric.send(self._push, batch, self._sent_hop):
                self._count_sent(batch, len(batch.lengths))
                return
            self._loop.add(self._push, self._send_backlog, zmq.POLLOUT)
            self._on_congestion(self.port, True, time.monotonic())
        self._count_not_sent(sum(self._backlog.enqueue(batch)))

    def _send_backlog(self, now: float) -> None:
        while self._backlog:
            if not self._may_send():
                self._drop_backlog(f"port {self.port} drop fenced", now)
                return
            batch = self._backlog.first
            if not fabric.send(self._push, batch, self._sent_hop):
                return
            self._backlog.dequeue()
            self._count_sent(batch, len(batch.lengths))
        self._on_backlog_empty(now)

    def _drop_waiting(self, now: float) -> None:
        self._drop_backlog(f"port {self.port} drop not sent", now)

    def _drop_backlog(self, cause: str, now: float) -> None:
        """Drop what waits."""
        if self._backlog:
            self._counters.add(cause, self._backlog.packets)
            self._backlog = Backlog(MAX_BACKLOG_PACKETS, alike)
            self._on_backlog_empty(now)

    def _on_backlog_empty(self, now: float) -> None:
        self._loop.remove(self._push)
        self._on_congestion(self.port, False, now)

    def _on_readable(self, now: float) -> None:
        self._received_hop.woken()
        while self._read_batches() and self._loop.may_continue():
            pass
        if self._hold and self._loop.crowded:
            self._loop.rest(self._pull, now + self._hold)

    def _read_batches(self) -> int:
        messages, batches = fabric.receive_waiting(
            self._pull, lambda: self._counters.add(f"port {self.port} drop undecodable"), self._received_hop
        )
        for batch in batches:
            self._receive(batch, time.monotonic())
        return messages

    def _on_connection_event(self, now: float) -> None:
        before = self.carrier
        for connected in fabric.connection_events(self._monitor):
            self._connected = connected
            if not connected:
                # A far end that returns receives nothing from before.
                self._drop_waiting(now)
            if self.carrier != before:
                before = self.carrier
                self._on_carrier(self.port, before, now)
