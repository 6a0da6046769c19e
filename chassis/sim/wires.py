"""Wires between ports of simulated nodes, with impairments and a buffer for replays."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from chassis.bus.batch import Batch, Step
from chassis.ports.impairment import Impairment
from chassis.sim.connection import SimConnection
from chassis.sim.process import FRAMES, Process
from chassis.sim.world import Simulation

MAX_QUEUED_BATCHES = 256
"""Most batches under way on a wire (count): the two queues of 128 of the real one."""

RECONNECT_INTERVAL = 0.02
"""Time between attempts to connect to a stopped process (s)."""

MAX_REPLAY_BATCHES = 4000
"""Most batches that an end keeps for a replay (count)."""

INJECT_BATCH_FRAMES = 32
"""Frames that a replay gives to a port at a time (count)."""

Tap = Callable[["WireEnd", Batch], None]


class WireEnd:
    """One end of a wire: a port of a node. `process` is the process that drives the port now."""

    def __init__(self, world: Simulation, node: str, port: str, seed: int) -> None:
        self.world = world
        self.node = node
        self.port = port
        self.far: WireEnd = self
        self.process: Process | None = None
        self.tap: Tap | None = None
        self.replay_buffer: deque[tuple[float, bytes, array[int]]] | None = None
        """The last frames that this end sent, None if they are not kept."""
        self.impairment = Impairment(seed)
        self._connection: SimConnection | None = None
        self._due_at = inf

    def __str__(self) -> str:
        return f"{self.node}:{self.port}"

    # start and end of the processes at both ends

    def attach(self, process: Process) -> None:
        """A process that drives this port has started: connect both directions."""
        self.process = process
        process.on_death.append(self._on_process_died)
        for near, far in ((self, self.far), (self.far, self)):
            if near.process is not None and far.process is not None:
                self.world.after(self.world.delay() + RECONNECT_INTERVAL * self.world.chance(), near._connect)

    def _connect(self, _: Any) -> None:
        near, far = self.process, self.far.process
        if near is None or far is None or (self._connection is not None and self._connection.to is far):
            return
        if near.stopped or far.stopped:
            self.world.after(RECONNECT_INTERVAL, self._connect)
            return
        self._connection = SimConnection(
            self.world, f"wire {self} to {self.far}", far, self.far._on_arrived, FRAMES, MAX_QUEUED_BATCHES
        )
        if not self.impairment.down:
            near.notify_engine(self._carrier, (near, True))

    def _on_process_died(self, process: Process) -> None:
        if self._connection is not None:
            self._connection.cut()
            self._connection = None
        self.process = None
        far = self.far
        if far.process is not None and far._connection is not None:
            far._connection = None
            if not far.impairment.down:
                far.process.notify_engine(far._carrier, (far.process, False))

    def _carrier(self, item: tuple[Process, bool]) -> list[Any]:
        process, up = item
        outputs: list[Any] = process.engine.on_carrier(self.port, up, self.world.now)
        return outputs

    # frames

    def send(self, batch: Batch) -> None:
        """Send frames over the wire."""
        batch.card, batch.epoch, batch.step, batch.ingress = "", 0, Step.INGRESS, ""
        if self._connection is None:
            return
        # The checks and the replay get what the port sent, without impairments.
        if self.tap is not None:
            self.tap(self, batch)
        if self.replay_buffer is not None:
            self.replay_buffer.append((self.world.now, bytes(batch.body), batch.lengths))
        for ready in self.impairment.enqueue(batch, self.world.now):
            self._deliver(ready)
        self._rearm()

    def impair(self, **settings: Any) -> None:
        """Set this end's impairments; see `chassis.ports.impairment`."""
        before = self.impairment.down
        self.impairment.set(**settings)
        down = self.impairment.down
        self.world.log_event(f"wire at {self}: {dict(self.impairment.settings()) or 'no faults'}")
        if down != before and self.process is not None and self._connection is not None:
            self.process.notify_engine(self._carrier, (self.process, not down))
        self._rearm()

    def replay(self, seconds: float) -> int:
        """Deliver the frames of the last `seconds` to the far end once more; return how many."""
        far, count = self.far.process, 0
        if far is None or self.replay_buffer is None:
            return 0
        again = SimConnection(self.world, f"replay to {self.far}", far, self.far._on_arrived, FRAMES, 1 << 30)
        for at, body, lengths in list(self.replay_buffer):
            if at >= self.world.now - seconds:
                again.send(Batch(Step.INGRESS, bytearray(body), lengths[:]))
                count += len(lengths)
        self.world.log_event(f"{count} frames of the last {seconds:.1f} s from {self} are replayed")
        return count

    def _rearm(self) -> None:
        next_timer = self.impairment.next_timer()
        if next_timer < self._due_at:
            self._due_at = next_timer
            self.world.at(next_timer, self._on_due, next_timer)

    def _on_due(self, when: float) -> None:
        if when != self._due_at:
            return
        self._due_at = inf
        # The sending process drives the wire: while it is stopped nothing leaves, and its frames are lost with it.
        if self.process is not None and not self.process.stopped:
            for batch in self.impairment.dequeue(self.world.now):
                self._deliver(batch)
        self._rearm_later()

    def _rearm_later(self) -> None:
        next_timer = self.impairment.next_timer()
        if next_timer < inf:
            self._due_at = max(next_timer, self.world.now + 0.001)
            self.world.at(self._due_at, self._on_due, self._due_at)

    def _deliver(self, batch: Batch) -> None:
        if self._connection is not None and not self.impairment.down:
            self._connection.send(batch)

    def _on_arrived(self, batch: Batch) -> None:
        if self.process is not None and not self.impairment.down:
            self.process.finish_call(self.process.engine.receive_frames(self.port, batch, self.world.now))


def link(world: Simulation, one: tuple[str, str], other: tuple[str, str], seed: int) -> tuple[WireEnd, WireEnd]:
    """Make a wire between two (node, port); return its ends."""
    near, far = WireEnd(world, *one, seed * 2), WireEnd(world, *other, seed * 2 + 1)
    near.far, far.far = far, near
    return near, far
