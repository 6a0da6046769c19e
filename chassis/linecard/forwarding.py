"""The way of packets through a line card: decision by decision, from whatever door they came in by."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from chassis.bus.batch import Batch, Mark, Step
from chassis.bus.card import CardBase
from chassis.bus.engine import Output, ToFabric
from chassis.bus.records import NextHop, TunnelRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.classify import classify
from chassis.fwd.decision import Decider, Decision, DecisionKind
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.fib import Fib
from chassis.fwd.icmp_errors import ERRORS, SUPPRESSED, ErrorLimit, error, is_owed
from chassis.fwd.rewrite import decrement_ttls
from chassis.linecard.counters import Balance
from chassis.linecard.egress import Egress
from chassis.linecard.local import LocalStack
from chassis.linecard.neighbours import Neighbour, Neighbours, Waiting
from chassis.linecard.ping import Pings
from chassis.linecard.ports import LineCardPort, LineCardPorts
from chassis.linecard.sources import Sources
from chassis.net.ethernet import HEADROOM
from chassis.net.types import Buffer, Writable

Remark = Callable[[str, Writable, "array[int]"], bytes]
"""`remark(port, body, lengths)`: the six-bit priority descriptors of packets that came in by a port and are to be
forwarded, an octet each, or none at all. They choose queues (guide 8.5); the packets stay as they are."""


class Forwarding:
    """What a line card does with packets. Every method appends to `out` what is to be sent."""

    def __init__(self, card: CardBase, ports: LineCardPorts, balance: Balance) -> None:
        self.fib = Fib()
        self.decider = Decider(self.fib, self.usable, card.up, card.counters)
        self.neighbours = Neighbours(self._resolved, self._give_up, card.counters)
        self.sources = Sources(ports)
        self.egress = Egress(card, self.neighbours, self.dropped, balance)
        self.pings = Pings(card.card, self.originate, self._source_to)
        self.local = LocalStack(card, self.pings, self.originate, self.dropped, balance)
        self.remark: Remark | None = None
        """QoS remarking of what comes in; no command of the guide asks for any."""
        self._card = card
        self._ports = ports
        self._balance = balance
        self._tunnels: dict[int, TunnelRecord] = {}
        self._errors = ErrorLimit()
        self._suppressed = card.counters.slot(SUPPRESSED)

    def apply(self, change: RecordChange) -> None:
        """Take records; decisions made before are void."""
        self.fib.apply(change.put, change.deleted)
        self.sources.apply(change)
        for record in change.deleted:
            if isinstance(record, TunnelRecord):
                self._tunnels.pop(record.number, None)
        for record in change.put:
            if isinstance(record, TunnelRecord):
                self._tunnels[record.number] = record
        self.decider.invalidate()

    def usable(self, hop: NextHop) -> bool:
        """Whether a next hop may be given packets now, by flags that this card sees itself.

        A port needs its card, or its own carrier here. A tunnel needs its ASP and the controller's word that
        its conditions are met; a circuit-based one also the card that holds its circuit.
        """
        card = self._card
        if hop.kind == "port":
            if hop.card == card.card:
                port = self._ports.own.get(hop.port)
                return port is not None and port.up
            return card.up.get(hop.card, False)
        if not card.up.get(hop.card, False):
            return False
        tunnel = self._tunnels.get(hop.tunnel)
        if tunnel is None:
            return True
        if not tunnel.up:
            return False
        if tunnel.economical:
            return True
        return bool(tunnel.circuit) and (tunnel.home == card.card or card.up.get(tunnel.home, False))

    # doors

    def from_port(self, port: LineCardPort, batch: Batch, now: float, out: list[Output]) -> None:
        """Frames came in by a port."""
        groups = classify(
            self.decider, port.record.context, batch.body, batch.lengths, mac=port.record.mac or b"\0" * 6
        )
        for decision, body, lengths in groups:
            self._go(decision, body, lengths, batch, True, now, out, port)

    def forward(self, batch: Batch, transit: bool, now: float, out: list[Output]) -> None:
        """Packets without a link header are looked up in the context of their batch.

        `transit`: their TTL counts; else they are the router's own, encapsulated packets among them.
        """
        groups = classify(self.decider, batch.context, batch.body, batch.lengths, transit=transit)
        for decision, body, lengths in groups:
            self._go(decision, body, lengths, batch, transit, now, out, None)

    def send_out(self, batch: Batch, now: float, out: list[Output]) -> None:
        """Another card chose port and next hop: resolve and send, nothing else."""
        port = self._ports.own.get(batch.port)
        if port is None or not batch.address:
            cause = DropCause.NO_PORT if port is None else DropCause.NO_NEXT_HOP
            self.dropped(cause, batch.body, batch.lengths, batch.context, now, out)
            return
        self.egress.send(port, batch.address, batch.body, batch.lengths, batch.marks, batch.context, now, out)

    def originate(
        self, context: int, packet: bytes, now: float, out: list[Output], marks: tuple[Mark, ...] = ()
    ) -> None:
        """Send a packet of the router's own; its TTL is not touched."""
        self._balance.values[self._balance.made] += 1
        body = bytearray(HEADROOM) + packet
        lengths = array("H", (len(body),))
        self.forward(Batch(Step.LOCAL, body, lengths, context=context, marks=marks), False, now, out)

    # what becomes of packets

    def _go(
        self,
        decision: Decision,
        body: Writable,
        lengths: array[int],
        batch: Batch,
        transit: bool,
        now: float,
        out: list[Output],
        port: LineCardPort | None,
    ) -> None:
        kind = decision.kind
        context = batch.context
        if kind >= DecisionKind.PORT:
            if transit:
                decrement_ttls(body, lengths)
            descriptors = b""
            if self.remark is not None and port is not None:
                descriptors = self.remark(port.record.port, body, lengths)
            if kind is DecisionKind.TUNNEL:
                if batch.tunnel == decision.tunnel and batch.step is Step.CIRCUIT_OUT:
                    # The way to the tunnel's peer leads into the tunnel itself.
                    self.dropped(DropCause.LOOP, body, lengths, context, now, out)
                    return
                self._give(
                    decision.card,
                    Batch(
                        Step.PROTECT,
                        body,
                        lengths,
                        ingress=batch.ingress,
                        context=context,
                        tunnel=decision.tunnel,
                        descriptors=descriptors,
                        marks=batch.marks,
                    ),
                    out,
                )
            elif decision.card == self._card.card:
                own = self._ports.own[decision.port]
                self.egress.send(own, decision.address, body, lengths, batch.marks, context, now, out)
            else:
                self._give(
                    decision.card,
                    Batch(
                        Step.OUT,
                        body,
                        lengths,
                        ingress=batch.ingress,
                        context=context,
                        port=decision.port,
                        address=decision.address,
                        descriptors=descriptors,
                        marks=batch.marks,
                    ),
                    out,
                )
        elif kind is DecisionKind.OPEN:
            self._give(
                decision.card,
                Batch(Step.OPEN, body, lengths, ingress=batch.ingress, context=context, marks=batch.marks),
                out,
            )
        elif kind is DecisionKind.DROP:
            assert decision.cause is not None
            self.dropped(decision.cause, body, lengths, context, now, out)
        elif kind is DecisionKind.LOCAL:
            self.local.deliver(context, body, lengths, batch.marks, now, out)
        elif port is not None:
            self._arp(port, body, lengths, now, out)

    def dropped(
        self,
        cause: DropCause,
        body: Buffer,
        lengths: array[int],
        context: int,
        now: float,
        out: list[Output],
        mtu: int = 0,
    ) -> None:
        """Count packets as dropped, and tell their senders where a router owes it."""
        self._card.drop(cause, len(lengths))
        if cause not in ERRORS:
            return
        view = memoryview(body)
        at = 0
        for length in lengths:
            self._tell(cause, view[at + HEADROOM : at + length], context, mtu, now, out)
            at += length

    # inside

    def _give(self, card: str, batch: Batch, out: list[Output]) -> None:
        batch.card, batch.epoch = self._card.card, self._card.epoch
        out.append(ToFabric(card, batch))

    def _arp(self, port: LineCardPort, body: Writable, lengths: array[int], now: float, out: list[Output]) -> None:
        view = memoryview(body)
        values, consumed = self._balance.values, self._balance.consumed
        at = 0
        for length in lengths:
            if self.neighbours.hear(port, view[at + HEADROOM : at + length], now, out):
                values[consumed] += 1
            else:
                self._card.drop(DropCause.ARP)
            at += length

    def _tell(
        self, cause: DropCause, packet: memoryview, context: int, mtu: int, now: float, out: list[Output]
    ) -> None:
        if not is_owed(packet):
            return
        sender = int.from_bytes(packet[12:16], "big")
        # The router's own packets are not worth a message to itself.
        if self.fib.local(context, sender) is not None:
            return
        source = self._source_to(context, sender)
        if not source:
            return
        # Asked before the message is made: a flood of what cannot be delivered costs as little as it can.
        if not self._errors.take(cause, now):
            self._card.counters.values[self._suppressed] += 1
            return
        about = error(cause, packet, source, mtu=mtu)
        if about is not None:
            self.originate(context, about, now, out)

    def _source_to(self, context: int, destination: int) -> int:
        return self.sources.of(context, self.decider.to(context, destination))

    def _resolved(self, neighbour: Neighbour, waiting: list[Waiting], now: float, out: list[Output]) -> None:
        self.egress.flush(neighbour, waiting, now, out)

    def _give_up(self, cause: DropCause, waiting: list[Waiting], now: float, out: list[Output]) -> None:
        for packet, _, context in waiting:
            self.dropped(cause, packet, array("H", (len(packet),)), context, now, out)
