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

from chassis.bus import endpoints
from chassis.bus.batch import Batch, Step
from chassis.bus.connection import connect, connection_events, receive_waiting, receiver
from chassis.bus.counters import Counters
from chassis.bus.credit import Credit
from chassis.bus.environment import WireSpec
from chassis.bus.hops import ReceivedBatches, SentBatches
from chassis.bus.loop import RETRY_INTERVAL, Loop
from chassis.bus.priority import classes_of_frames
from chassis.bus.sender import MAX_BACKLOG_PACKETS, Congestion, Sender
from chassis.ports.driver import OnCarrier, OnCongestion, OnFrames, PortDriver

MAX_WIRE_BATCHES = 128
"""Batches (count) that a wire holds at either end, at most."""


class Wire(PortDriver):
    """A wire to a port of another process of the lab.

    `may_send` is called before packets that waited are sent: a process that may have been replaced sends nothing.
    `on_congestion` is called when packets begin to wait at the port, and when none waits any longer. While
    `congestion`, the process's, holds the port back, nothing is read, so that the far end's frames wait there: as
    with a pause frame (IEEE 802.3 annex 31B), but for milliseconds at most.
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
        congestion: Congestion | None = None,
        most_waiting: int = MAX_BACKLOG_PACKETS,
    ) -> None:
        super().__init__(port, counters, on_frames, on_carrier, far.seed)
        self._loop, self._hold = loop, hold
        self._on_congestion, self._may_send = on_congestion, may_send
        self._congestion = Congestion() if congestion is None else congestion
        self._received_hop = ReceivedBatches(counters, f"port {port}")
        self._pull = receiver(context, endpoints.wire(run, node, port), MAX_WIRE_BATCHES)
        self._push, self._monitor = connect(
            context, zmq.PUSH, endpoints.wire(run, far.node, far.port), MAX_WIRE_BATCHES
        )
        # The far end counts the frames that it takes from the wire, whatever it then does with them.
        cards = [f"lc {far.port.partition('/')[0]}"] if "/" in far.port else ["tester", "peers"]
        files = [run / f"{far.node}.{endpoints.compact(card)}.counters" for card in cards]
        self._sender = Sender(
            loop,
            self._push,
            SentBatches(counters, f"port {port}"),
            Credit(files if far.pause else (), f"port {far.port} frames received"),
            self._congestion,
            lambda batch: self._count_sent(batch, len(batch.lengths)),
            lambda now: on_congestion(port, False, now),
            self._may_send_waiting,
            classes_of_frames,
            most_waiting,
        )
        loop.add(self._pull, self._on_readable)
        loop.add(self._monitor, self._on_connection_event)

    def close(self) -> None:
        self._loop.remove(self._pull)
        self._loop.remove(self._monitor)
        self._sender.drop()
        self._sender.credit.close()
        self._push.disable_monitor()
        for socket in (self._monitor, self._push, self._pull):
            socket.close(0)

    def _write(self, batch: Batch) -> None:
        # A frame carries nothing of what its node knew about it, so frames of all kinds can share a batch.
        batch = Batch(Step.INGRESS, batch.body, batch.lengths, marks=batch.marks)
        free, now = not self._sender.waiting, time.monotonic()
        dropped = self._sender.send(batch, now)
        if free and self._sender.waiting:
            self._on_congestion(self.port, True, now)
        if dropped:
            self._count_not_sent(sum(dropped))

    def _may_send_waiting(self, now: float) -> bool:
        if self._may_send():
            return True
        self._drop_backlog(f"port {self.port} drop fenced", now)
        return False

    def _drop_waiting(self, now: float) -> None:
        self._drop_backlog(f"port {self.port} drop not sent", now)

    def _drop_backlog(self, cause: str, now: float) -> None:
        """Drop what waits."""
        if dropped := self._sender.drop():
            self._counters.add(cause, dropped)
            self._on_congestion(self.port, False, now)

    def _on_readable(self, now: float) -> None:
        self._received_hop.woken()
        read, held = 0, self._congestion.holds(now, self._sender)
        while not held and (messages := self._read_batches(not read)):
            read += messages
            if not self._loop.may_continue():
                break
            held = self._congestion.holds(now, self._sender)
        if held:
            # What is read now would be dropped further on.
            self._loop.rest(self._pull, now + RETRY_INTERVAL)
        elif read and self._hold and self._loop.crowded:
            self._loop.rest(self._pull, now + self._hold)

    def _read_batches(self, ready: bool) -> int:
        messages, batches = receive_waiting(self._pull, self._count_undecodable, self._received_hop, ready=ready)
        for batch in batches:
            self._receive(batch, time.monotonic())
        return messages

    def _count_undecodable(self) -> None:
        self._counters.add(f"port {self.port} drop undecodable")

    def _on_connection_event(self, now: float) -> None:
        before = self.carrier
        for connected in connection_events(self._monitor):
            self._connected = connected
            if connected:
                self._sender.credit.connected()
            else:
                # A far end that returns receives nothing from before.
                self._drop_waiting(now)
            if self.carrier != before:
                before = self.carrier
                self._on_carrier(self.port, before, now)
