"""The shell of a card: sockets, files and the clock around a pure engine.

The shells of the line card and of the ASP extend this one with their own devices.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Any

import zmq

from chassis.bus import codec, endpoints
from chassis.bus.allocator import keep_large_buffers
from chassis.bus.arguments import fault
from chassis.bus.batch import Batch
from chassis.bus.capture import Capture, Captures
from chassis.bus.coalesce import coalesced
from chassis.bus.connection import connect, connection_events, send_frames
from chassis.bus.counters import Counters
from chassis.bus.engine import (
    CardEngine,
    Connect,
    Disconnect,
    Exit,
    Output,
    Perform,
    ToController,
    ToFabric,
    ToWire,
)
from chassis.bus.environment import Environment
from chassis.bus.fabric import Fabric
from chassis.bus.loop import Loop
from chassis.bus.messages import Attributes, FromCard, Reply, Request, ToCardMessage
from chassis.bus.scheduling import PACKET_SLICE, Contention, ask_for_slice
from chassis.bus.sender import Congestion
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM

CONTROL_QUEUE = 10_000
"""High-water mark of the control connection, and most messages that wait in the process itself (count)."""

MAX_FRAMES = 64
"""Most control messages that are the frames of one (count)."""


class CardRequestError(Exception):
    """A request cannot be carried out; the text goes into the reply."""


class CardShell:
    """Runs one engine until it stops.

    Outputs are carried out in the order in which the engine gave them. A subclass adds handlers of further
    outputs to `handlers` and of further requests to `requests`.
    """

    has_ports = False
    """Whether packets leave the node here: then the fabric is read whatever waits to leave."""

    def __init__(self, env: Environment, engine: CardEngine, counters: Counters) -> None:
        self.env, self.engine, self.counters = env, engine, counters
        engine.aligned = True
        self.loop = Loop(counters, Contention())
        # Set this before threads start, because they inherit it.
        ask_for_slice(PACKET_SLICE)
        keep_large_buffers()
        self.context: zmq.Context[Any] = zmq.Context()
        self.congestion = Congestion()
        self._outputs: list[Output] = []
        """What the batches gave that were read together: their packets may leave together too."""
        self.fabric = Fabric(
            self.context,
            self.loop,
            env.run,
            env.node,
            env.card,
            env.boot,
            counters,
            lambda batch, now: self._outputs.extend(engine.receive_batch(batch, now)),
            lambda card, boot, up, now: self.perform(engine.on_fabric_peer(card, boot, up, now)),
            self.congestion,
            on_read=self._perform_read,
            held=not self.has_ports,
        )
        self.captures = Captures(self.tap, self.headroom)
        self.handlers: dict[type, Callable[[Any], None]] = {
            ToController: lambda output: self._to_controller(output.message),
            ToFabric: lambda output: self.fabric.send(output.card, output.batch),
            _Together: lambda output: self.fabric.send(output.card, *output.batches),
            Connect: lambda output: self.fabric.connect(output.card, output.boot),
            Disconnect: lambda output: self.fabric.disconnect(output.card),
            Perform: lambda output: self._run_request(output.request),
            Exit: self._exit,
        }
        self.requests: dict[str, Callable[[Attributes], Attributes]] = {
            "capture": self.captures.start,
            "capture-stop": self.captures.stop,
        }
        self._pending: deque[bytes] = deque()
        self._unsent = False
        """Whether something was appended to `_pending` that was not tried to be sent."""
        self.only_beat = False
        """Whether a heartbeat is all that was done since `next_timer` was called."""
        self._due = -inf
        """Time that `next_timer` returned last."""
        self._parts_due: float | None = None
        """The engine's, if it was not called since."""
        self._control, self._monitor = connect(
            self.context, zmq.DEALER, endpoints.control(env.run, env.node), CONTROL_QUEUE
        )
        self.loop.add(self._control, self._on_controller_message)
        self.loop.add(self._monitor, self._on_connection_event)
        self.loop.on_stall = self._on_stall

    def run(self) -> int:
        """Run until the engine exits or SIGTERM; return the exit status."""
        signal.signal(signal.SIGTERM, lambda *_: self.loop.stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.perform(self.engine.start(time.monotonic()))
        try:
            self.loop.run(self.next_timer, self.on_timer)
        finally:
            self.close()
        return 0

    def next_timer(self) -> float:
        if self._parts_due is None:
            self._parts_due = self.engine.parts_due()
        self._due = min(self.engine.own_due(), self._parts_due)
        self.only_beat = False
        return self._due

    def on_timer(self, now: float) -> None:
        if self._pending:
            self._flush()
        if self._due == self.engine.beat_at <= now:
            # Most wake-ups of an idle card are for this alone.
            self.only_beat = True
            data = codec.encode(self.engine.heartbeat(now))
            if self._pending or not send_frames(self._control, (data,)):
                self._enqueue(data)
        else:
            self.perform(self.engine.on_timer(now))

    def perform(self, outputs: list[Output]) -> None:
        """Carry out what a call of the engine returned."""
        self._parts_due = None
        handlers = self.handlers
        for output in _coalesced(outputs) if len(outputs) > 1 else outputs:
            handlers[type(output)](output)
        if self._unsent:
            self._flush()

    def _perform_read(self) -> None:
        outputs, self._outputs = self._outputs, []
        if outputs:
            self.perform(outputs)

    def close(self) -> None:
        self.captures.close()
        self.context.destroy(linger=0)

    def tap(self, what: str, capture: Capture | None) -> None:
        """Set the capture of the point `what`, or end it (None).

        Raises:
            CardRequestError: the card does not have this point.
        """
        if what != "fabric":
            raise CardRequestError(f"{self.env.card} has no {what!r} to capture; it has 'fabric'")
        self.fabric.tap = None
        if capture is not None:
            kept = capture
            self.fabric.tap = lambda way, card, batch: kept.write(
                f"{self.env.node} {self.env.card} {way} {card} {batch.step.name.lower()}", batch
            )

    def headroom(self, what: str) -> int:
        """Return the octets before the first header of packets that are captured at a point."""
        return HEADROOM if what == "fabric" else 0

    def _exit(self, output: Exit) -> None:
        print(f"{self.env.card} ends: {output.reason}", file=sys.stderr)
        self.loop.stop()

    def _on_stall(self, seconds: float, now: float) -> None:
        self.perform(self.engine.on_stall(seconds, now))
        if self.engine.fenced:
            # Drop the batches that waited during the stall before the controller's welcome is handled.
            self.fabric.drain()

    def _to_controller(self, message: FromCard) -> None:
        try:
            data = codec.encode(message)
        except codec.EncodeError as error:
            self.counters.add("drop unencodable message")
            print(f"not sent: {error}", file=sys.stderr)
            if not isinstance(message, Reply):
                return
            data = codec.encode(Reply(message.number, {}, f"the answer can't be sent: {error}", message.last))
        self._enqueue(data)

    def _enqueue(self, data: bytes) -> None:
        """Send an encoded message with the next `_flush`."""
        self._pending.append(data)
        while len(self._pending) > CONTROL_QUEUE:
            self._pending.popleft()
            self.counters.add("drop control message")
        self._unsent = True

    def _flush(self) -> None:
        """Send what is pending, several messages as the frames of one."""
        self._unsent = False
        pending = self._pending
        while pending:
            frames = list(islice(pending, MAX_FRAMES))
            if not send_frames(self._control, frames):
                return
            for _ in frames:
                pending.popleft()

    def _on_connection_event(self, now: float) -> None:
        for up in connection_events(self._monitor):
            self._pending.clear()
            self.perform(self.engine.on_connected(now) if up else self.engine.on_disconnected(now))

    def _on_controller_message(self, now: float) -> None:
        # One at a time: packets have their turn between the parts of a large snapshot.
        try:
            data = self._control.recv(zmq.DONTWAIT)
        except zmq.Again:
            return
        try:
            message = codec.decode(data)
        except DecodeError:
            self.counters.add("drop undecodable message")
            return
        if isinstance(message, ToCardMessage):
            self.perform(self.engine.receive(message, now))
        else:
            self.counters.add("drop undecodable message")

    def _run_request(self, request: Request) -> None:
        handler = self.requests.get(request.name)
        try:
            if handler is None:
                raise CardRequestError(f"{self.env.card} does not know {request.name!r}")
            reply = Reply(request.number, handler(request.arguments))
        except (CardRequestError, OSError, ValueError) as error:
            reply = Reply(request.number, {}, str(error) or type(error).__name__)
        except Exception as error:
            # A bug of this program: report it to the operator, and continue.
            reply = Reply(request.number, {}, f"{request.name}: {fault(error)}")
            print(reply.error, file=sys.stderr)
        self._to_controller(reply)


@dataclass(slots=True)
class _Together:
    """Batches for another card that cannot be one, in their order: one message, so that it reads them at once."""

    card: str
    batches: list[Batch]


def _coalesced(outputs: list[Output]) -> list[Output | _Together]:
    """Return the outputs with one batch in place of several for a card or a port, where they may be one.

    Batches pass no output of another kind.
    """
    result: list[Output | _Together] = []
    fabric: dict[str, list[Batch]] = {}
    wires: dict[str, list[Batch]] = {}

    def release() -> None:
        for card, batches in fabric.items():
            joined = coalesced(batches)
            result.append(ToFabric(card, joined[0]) if len(joined) == 1 else _Together(card, joined))
        for port, batches in wires.items():
            result.extend([ToWire(port, batch) for batch in coalesced(batches)])
        fabric.clear()
        wires.clear()

    for output in outputs:
        if isinstance(output, ToFabric):
            fabric.setdefault(output.card, []).append(output.batch)
        elif isinstance(output, ToWire):
            wires.setdefault(output.port, []).append(output.batch)
        else:
            release()
            result.append(output)
    release()
    return result
