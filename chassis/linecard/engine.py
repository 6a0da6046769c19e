"""The line card's engine: which door a message or a packet goes to."""

from __future__ import annotations

from dataclasses import replace

from chassis.bus import requests
from chassis.bus.batch import Batch, Step
from chassis.bus.card import CardBase
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToController, ToFabric, ToWire
from chassis.bus.messages import Hello, Reply, Request, ToCardMessage, Value, Welcome
from chassis.bus.records import ContextRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.drop_causes import DropCause
from chassis.linecard.circuits import Circuit, Circuits
from chassis.linecard.counters import Balance
from chassis.linecard.forwarding import Forwarding
from chassis.linecard.ports import LineCardPort, LineCardPorts
from chassis.linecard.trace import Tracer
from chassis.net.address import format_address, format_mac


class LineCardEngine(CardBase):
    """One line card.

    What it does with packets, by the step of their batch: frames of a port are looked up in the context of
    the port's interface; `CIRCUIT_OUT` and `CIRCUIT_IN` are counted by the tunnel's circuit and looked up in
    the batch's context; `OUT` is sent to the next hop that another card chose; `LOCAL` is for the router
    itself. Requests: `ping`, `trace`, `neighbours`.
    """

    kind = "linecard"
    specs = requests.LINE_CARD

    def __init__(self, card: str, *, pid: int, boot: int, counters: Counters | None = None) -> None:
        super().__init__(card, pid=pid, boot=boot, counters=counters)
        self.slot = card.removeprefix("lc ")
        self.balance = Balance(self.counters)
        self.ports = LineCardPorts(card)
        self.circuits = Circuits(card, self.counters)
        self.forwarding = Forwarding(self, self.ports, self.balance)
        self.tracer = Tracer()
        self.contexts: dict[int, str] = {}

    # control

    def held(self, hello: Hello) -> Hello:
        return replace(hello, ports=tuple(sorted(p.name for p in self.ports.own.values() if p.up)))

    def receive(self, message: ToCardMessage, now: float) -> list[Output]:
        out = super().receive(message, now)
        if isinstance(message, Welcome):
            # The controller may be a new one, which knows of no port yet.
            out += [ToController(port.event()) for port in self.ports.own.values()]
        return self._release(out)

    def changed(self, change: RecordChange, now: float) -> list[Output]:
        out: list[Output] = []
        for record in change.deleted:
            if isinstance(record, ContextRecord):
                self.contexts.pop(record.number, None)
        for record in change.put:
            if isinstance(record, ContextRecord):
                self.contexts[record.number] = record.name
        self.circuits.apply(change)
        fresh, void = self.ports.apply(change)
        self.forwarding.apply(change)
        for port in void:
            self.forwarding.neighbours.lose(port, now, out)
        for port in fresh:
            self._port_is_new(port, out)
        return out

    def cards_changed(self, now: float) -> list[Output]:
        self.forwarding.decider.invalidate()
        return []

    def request(self, request: Request, now: float) -> list[Output] | None:
        out: list[Output] = []
        if request.name == "ping":
            self.forwarding.pings.start(request, self._context(request), now, out)
        elif request.name == "trace":
            self.tracer.arm(request.arguments)
            out.append(ToController(Reply(request.number, {})))
        elif request.name == "neighbours":
            out.append(ToController(Reply(request.number, {"neighbours": self._neighbours()})))
        else:
            return None
        return out

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """The wire of a port gained or lost its far end."""
        changed = self.ports.carrier(port, up)
        if changed is None:
            return []
        out: list[Output] = []
        self.forwarding.decider.invalidate()
        if not changed.up:
            self.forwarding.neighbours.lose(changed, now, out)
        self._port_is_new(changed, out)
        return self._release(out)

    # packets

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Frames that came in by a port."""
        count = len(batch.lengths)
        self.balance.values[self.balance.from_wire] += count
        if self.fenced:
            self.drop(DropCause.FENCED, count)
            return []
        own = self.ports.own.get(port)
        if own is None or not own.up:
            self.drop(DropCause.PORT_DOWN, count)
            return []
        out: list[Output] = []
        if self.tracer.armed:
            self.tracer.mark(port, batch)
        batch.step, batch.ingress, batch.context = Step.IN, port, own.record.context
        if not batch.marks:
            self.forwarding.from_port(own, batch, now, out)
            return self._release(out)
        for part in batch.split_marked():
            self.stamp(part, f"{port} in", now)
            self.forwarding.from_port(own, part, now, out)
        return self._release(out)

    def receive_batch(self, batch: Batch, now: float) -> list[Output]:
        """A batch from another card."""
        self.balance.values[self.balance.from_fabric] += len(batch.lengths)
        if not self.accepts(batch):
            return []
        out: list[Output] = []
        for part in batch.split_marked() if batch.marks else (batch,):
            self._step(part, now, out)
        return self._release(out)

    # time

    def on_timer(self, now: float) -> list[Output]:
        out = super().on_timer(now)
        self.forwarding.neighbours.on_timer(now, out)
        self.forwarding.pings.on_timer(now, out)
        self.forwarding.local.on_timer(now)
        return self._release(out)

    def next_timer(self) -> float:
        forwarding = self.forwarding
        return min(
            super().next_timer(),
            forwarding.neighbours.next_timer(),
            forwarding.pings.next_timer(),
            forwarding.local.next_timer(),
        )

    # inside

    def _step(self, batch: Batch, now: float, out: list[Output]) -> None:
        step = batch.step
        if step is Step.OUT:
            self.forwarding.send_out(batch, now, out)
        elif step is Step.CIRCUIT_OUT or step is Step.CIRCUIT_IN:
            circuit = self.circuits.own.get(batch.circuit)
            if circuit is None:
                self.drop(DropCause.NO_CIRCUIT, len(batch.lengths))
            else:
                self._by_circuit(circuit, batch, now, out)
        elif step is Step.LOCAL:
            self.forwarding.local.deliver(batch.context, batch.body, batch.lengths, batch.marks, now, out)
        else:
            self.drop(DropCause.WRONG_STEP, len(batch.lengths))

    def _by_circuit(self, circuit: Circuit, batch: Batch, now: float, out: list[Output]) -> None:
        if batch.marks:
            self.stamp(batch, f"{self.slot} circuit {batch.circuit}", now)
        inward = batch.step is Step.CIRCUIT_IN
        if inward:
            circuit.count_in(batch.lengths)
        else:
            circuit.count_out(batch.lengths)
            batch.tunnel = circuit.record.tunnel
        self.forwarding.forward(batch, inward, now, out)

    def _port_is_new(self, port: LineCardPort, out: list[Output]) -> None:
        out.append(ToController(port.event()))
        if port.up:
            self.forwarding.neighbours.announce(port, out)

    def _context(self, request: Request) -> int:
        """The context that a request names, or gives the number of."""
        wanted = request.arguments["context"]
        for number, name in self.contexts.items():
            if wanted in (name, number):
                return number
        raise ValueError(f"no context {wanted!r}")

    def _neighbours(self) -> list[dict[str, Value]]:
        return [
            {
                "port": port.name,
                "address": format_address(neighbour.address),
                "mac": format_mac(neighbour.mac),
                "state": neighbour.state.value,
            }
            for port in self.ports.own.values()
            for neighbour in port.neighbours.values()
        ]

    def _release(self, out: list[Output]) -> list[Output]:
        """What leaves, counted; packets of a fenced card do not."""
        balance, values = self.balance, self.balance.values
        neighbours = self.forwarding.neighbours
        if neighbours.made:
            values[balance.made] += neighbours.made
            neighbours.made = 0
        values[balance.waiting] = neighbours.waiting + self.forwarding.local.waiting
        if self.fenced:
            kept: list[Output] = []
            for output in out:
                if isinstance(output, ToWire | ToFabric):
                    self.drop(DropCause.FENCED, len(output.batch.lengths))
                else:
                    kept.append(output)
            return kept
        for output in out:
            kind = type(output)
            if kind is ToFabric:
                values[balance.to_fabric] += len(output.batch.lengths)  # type: ignore[union-attr]
            elif kind is ToWire:
                values[balance.to_wire] += len(output.batch.lengths)  # type: ignore[union-attr]
        return out
