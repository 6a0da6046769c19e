"""The engine of a line card: messages of the controller, frames of its ports, and batches of other cards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chassis.bus import requests
from chassis.bus.batch import Batch, Step
from chassis.bus.card import CardBase
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToController, ToFabric, ToWire
from chassis.bus.messages import Datagrams, Hello, Reply, Request, ToCardMessage, Value, Welcome
from chassis.bus.records import ContextRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import Origin
from chassis.linecard.arp import NeighbourState
from chassis.linecard.circuits import Circuit, Circuits
from chassis.linecard.counters import PacketCounters, port_counters
from chassis.linecard.delivery import LineCardDelivery
from chassis.linecard.ports import LineCardPort, LineCardPorts
from chassis.linecard.trace import Tracer
from chassis.net.address import format_address, format_mac
from chassis.net.ethernet import HEADROOM

# Members of an enumeration, looked up once: each look-up takes as long as a function call.
_INGRESS, _EGRESS, _LOCAL = Step.INGRESS, Step.EGRESS, Step.LOCAL
_CIRCUIT_OUT, _CIRCUIT_IN = Step.CIRCUIT_OUT, Step.CIRCUIT_IN

_INWARD, _OUTWARD = Origin(transit=True), Origin(transit=False)
"""Origins of packets out of several tunnels, and of outer packets of several."""


class LineCardEngine(CardBase):
    """One line card.

    Frames of a port are looked up in the context of the port's interface. By the step of a batch of another card,
    `CIRCUIT_OUT` and `CIRCUIT_IN` are counted by the tunnel's circuit and looked up in its context; `EGRESS`
    is sent to the next hop that another card chose; `LOCAL` is for the router itself. Requests: `ping`, `trace`,
    `neighbours`, `counters`.
    """

    kind = "linecard"
    specs = requests.LINE_CARD

    def __init__(self, card: str, *, pid: int, boot: int, counters: Counters | None = None) -> None:
        super().__init__(card, pid=pid, boot=boot, counters=counters)
        self.slot = card.removeprefix("lc ")
        self.packets = PacketCounters(self.counters)
        self.ports = LineCardPorts(card)
        self.circuits = Circuits(card, self.counters)
        self.delivery = LineCardDelivery(self, self.ports, self.packets)
        self.tracer = Tracer()
        self.contexts: dict[int, str] = {}

    # control

    def hello_state(self, hello: Hello) -> Hello:
        return replace(hello, ports=tuple(sorted(p.name for p in self.ports.own.values() if p.up)))

    def receive(self, message: ToCardMessage, now: float) -> list[Output]:
        out = super().receive(message, now)
        if isinstance(message, Welcome):
            # A new controller does not know the state of any port.
            out += [ToController(port.event()) for port in self.ports.own.values()]
        return self._release(out)

    def on_records_changed(self, change: RecordChange, now: float) -> list[Output]:
        out: list[Output] = []
        for record in change.deleted:
            if isinstance(record, ContextRecord):
                self.contexts.pop(record.number, None)
        for record in change.put:
            if isinstance(record, ContextRecord):
                self.contexts[record.number] = record.name
        self.circuits.apply(change)
        new, void = self.ports.apply(change)
        self.delivery.tables.apply(change)
        self.delivery.datagrams.apply(change)
        for port in void:
            out += self.delivery.arp.on_port_down(port, now)
        for port in new:
            out += self._report_port(port)
        return out

    def on_cards_changed(self, now: float) -> list[Output]:
        self.delivery.tables.decider.invalidate()
        return []

    def on_datagrams(self, message: Datagrams, now: float) -> list[Output]:
        return self.delivery.datagrams.send(message, now)

    def on_request(self, request: Request, now: float) -> list[Output] | None:
        if request.name == "ping":
            return self.delivery.pings.start(request, self._context(request), now)
        if request.name == "trace":
            self.tracer.arm(request.arguments)
            return [ToController(Reply(request.number, {}))]
        if request.name == "neighbours":
            return [ToController(Reply(request.number, {"neighbours": self._neighbours(now)}))]
        if request.name == "clear-arp":
            return self._clear_neighbours(request, now)
        if request.name == "counters":
            return [ToController(Reply(request.number, self._counted(request)))]
        return None

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """Act on the carrier of a port."""
        changed = self.ports.on_carrier(port, up)
        if changed is None:
            return []
        self.delivery.tables.decider.invalidate()
        out = [] if changed.up else self.delivery.arp.on_port_down(changed, now)
        return self._release(out + self._report_port(changed))

    # packets

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Act on frames that came in by a port."""
        count = len(batch.lengths)
        self.packets.values[self.packets.from_wire] += count
        if self.fenced:
            self.drop(DropCause.FENCED, count)
            return []
        own = self.ports.own.get(port)
        if own is None or not own.up:
            self.drop(DropCause.PORT_DOWN, count)
            return []
        if self.tracer.armed:
            self.tracer.mark_packets(port, batch)
        batch.step, batch.ingress, batch.context = _INGRESS, port, own.record.context
        if not batch.marks:
            return self._release(self.delivery.receive_frames(own, batch, now))
        out: list[Output] = []
        for part in batch.split_marked():
            self.add_stamp(part, f"{port} in", now)
            out += self.delivery.receive_frames(own, part, now)
        return self._release(out)

    def receive_batch(self, batch: Batch, now: float) -> list[Output]:
        """Act on a batch from another card."""
        self.packets.values[self.packets.from_fabric] += len(batch.lengths)
        if not self.is_current_sender(batch):
            return []
        if not batch.marks and not batch.runs:
            return self._release(self._step(batch, now))
        if batch.runs and (batch.step is _CIRCUIT_OUT or batch.step is _CIRCUIT_IN):
            return self._release(self._by_circuits(batch, now))
        out: list[Output] = []
        for part in batch.split_runs() if batch.runs else batch.split_marked():
            out += self._step(part, now)
        return self._release(out)

    # time

    def on_timer(self, now: float) -> list[Output]:
        out = super().on_timer(now)
        out += self.delivery.arp.on_timer(now)
        out += self.delivery.pings.on_timer(now)
        self.delivery.local_stack.on_timer(now)
        return self._release(out)

    def parts_due(self) -> float:
        delivery = self.delivery
        return min(
            delivery.arp.next_timer(),
            delivery.pings.next_timer(),
            delivery.local_stack.next_timer(),
        )

    # inside

    def _step(self, batch: Batch, now: float) -> list[Output]:
        step = batch.step
        if step is _EGRESS:
            return self.delivery.transmit(batch, now)
        if step is _CIRCUIT_OUT or step is _CIRCUIT_IN:
            circuit = self.circuits.own.get(batch.circuit)
            if circuit is not None:
                return self._by_circuit(circuit, batch, now)
            self.drop(DropCause.NO_CIRCUIT, len(batch.lengths))
            return []
        if step is _LOCAL:
            return self.delivery.local_stack.deliver(batch, now)
        self.drop(DropCause.WRONG_STEP, len(batch.lengths))
        return []

    def _by_circuit(self, circuit: Circuit, batch: Batch, now: float) -> list[Output]:
        if batch.marks:
            self.add_stamp(batch, f"{self.slot} circuit {batch.circuit}", now)
        packets = len(batch.lengths)
        octets = len(batch.body) - HEADROOM * packets
        if batch.step is _CIRCUIT_IN:
            circuit.count_in(packets, octets)
            return self.delivery.forwarder.forward(batch, circuit.inward, now)
        circuit.count_out(packets, octets)
        return self.delivery.forwarder.forward(batch, circuit.outward, now)

    def _by_circuits(self, batch: Batch, now: float) -> list[Output]:
        """Look packets of several circuits up together, unless that makes a difference.

        It makes none to what came out of tunnels: only a tunnel's own outer packets may not go into it again.
        """
        forwarder = self.delivery.forwarder
        sent: list[Output] | None = None
        rows = self.circuits.rows(batch.runs)
        if rows is not None:
            if batch.step is _CIRCUIT_IN:
                sent = forwarder.forward(batch, _INWARD, now)
            else:
                sent = forwarder.forward_together(batch, _OUTWARD, now)
        if sent is None or rows is None:
            return [output for part in batch.split_runs() for output in self._step(part, now)]
        self.circuits.count_runs(batch, rows)
        return sent

    def _report_port(self, port: LineCardPort) -> list[Output]:
        out: list[Output] = [ToController(port.event())]
        return out + self.delivery.arp.send_gratuitous(port) if port.up else out

    def _context(self, request: Request) -> int:
        """Return the number of the context that a request gives by name or number.

        Raises:
            ValueError: there is no such context.
        """
        wanted = request.arguments["context"]
        for number, name in self.contexts.items():
            if wanted in (name, number):
                return number
        raise ValueError(f"no context {wanted!r}")

    def _counted(self, request: Request) -> dict[str, Any]:
        """Return what was counted at ports, and of circuits, by name and by number."""
        asked: dict[str, Any] = request.arguments
        counted = [
            circuit for number, circuit in self.circuits.own.items() if asked["first"] <= number <= asked["last"]
        ]
        return {
            "ports": port_counters(self.counters, self.ports.own if asked["ports"] else ()),
            "circuits": {str(circuit.record.number): circuit.totals() for circuit in counted},
        }

    def _neighbours(self, now: float) -> list[dict[str, Value]]:
        """Return the neighbours of all ports; `ttl` is the time after which each is asked for again (s)."""
        return [
            {
                "port": port.name,
                "address": format_address(neighbour.address),
                "mac": format_mac(neighbour.mac),
                "state": neighbour.state.value,
                "ttl": int(neighbour.due - now) if neighbour.state is NeighbourState.REACHABLE else 0,
            }
            for port in self.ports.own.values()
            for neighbour in self.delivery.arp.neighbours(port).values()
        ]

    def _clear_neighbours(self, request: Request, now: float) -> list[Output]:
        """Forget the neighbours of a context, or one address of them."""
        asked: dict[str, Any] = dict(request.arguments)
        cleared, out = 0, list[Output]()
        for port in self.ports.own.values():
            if port.context == asked["context"]:
                known, outputs = self.delivery.arp.clear(port, asked.get("address"), now)
                cleared += known
                out += outputs
        return self._release([*out, ToController(Reply(request.number, {"cleared": cleared}))])

    def _release(self, out: list[Output]) -> list[Output]:
        """Count what leaves; packets of a fenced card are dropped instead."""
        packets, values = self.packets, self.packets.values
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
                values[packets.to_fabric] += len(output.batch.lengths)  # type: ignore[union-attr]
            elif kind is ToWire:
                values[packets.to_wire] += len(output.batch.lengths)  # type: ignore[union-attr]
        return out
