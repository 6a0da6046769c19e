"""What a line card does with packets itself: frames in, ports out, its local stack, and batches to other cards.

In: frames of a port, and batches of other cards. Out: frames, batches for other cards, and what ARP and the local
stack send. Lookup and everything that every card does alike is in `chassis.fwd.forwarder`.
"""

from __future__ import annotations

from chassis.bus.batch import Batch
from chassis.bus.card import CardBase
from chassis.bus.engine import Output, ToFabric
from chassis.fwd.classify import look_up
from chassis.fwd.decided import DecidedPackets
from chassis.fwd.decision import ARP
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import Forwarder, Origin
from chassis.fwd.tables import ForwardingTables
from chassis.linecard.counters import PacketCounters
from chassis.linecard.datagrams import RouterDatagrams
from chassis.linecard.egress import UNKNOWN_ORIGIN, Egress
from chassis.linecard.local_stack import LocalStack
from chassis.linecard.ping import PingSessions
from chassis.linecard.ports import LineCardPort, LineCardPorts
from chassis.net.ethernet import HEADROOM


class LineCardDelivery:
    """The data path of one line card; the `Delivery` of its forwarder."""

    def __init__(self, card: CardBase, ports: LineCardPorts, packets: PacketCounters) -> None:
        self.tables = ForwardingTables(card.card, card.up, ports.is_up, card.counters)
        self.forwarder = Forwarder(card.card, self.tables, self, card.counters)
        self.egress = Egress(card, self.forwarder, packets)
        self.arp = self.egress.arp
        self.pings = PingSessions(card.card, self.forwarder, self.tables)
        self.datagrams = RouterDatagrams(card, self.forwarder, self.tables, packets)
        self.local_stack = LocalStack(card, self.forwarder, self.pings, self.datagrams, packets)
        self._card = card
        self._ports = ports
        self._packets = packets

    def receive_frames(self, port: LineCardPort, batch: Batch, now: float) -> list[Output]:
        """Act on frames that came in by a port."""
        decider, record, origin = self.tables.decider, port.record, port.origin
        out: list[Output] = []
        groups = look_up(decider, record.context, batch.body, batch.lengths, mac=record.mac or b"\0" * 6)
        if isinstance(groups, DecidedPackets):
            return self.forwarder.execute_decided(groups, batch, origin, now)
        for group in groups:
            if group[0] is ARP:
                _, body, lengths = group
                out += self._receive_arp(port, Batch(batch.step, body, lengths, marks=batch.marks), now)
                groups = [other for other in groups if other is not group]
                break
        return out + self.forwarder.execute_groups(groups, batch, origin, now)

    def transmit(self, batch: Batch, now: float) -> list[Output]:
        """Send packets out of ports of this card; another card chose the ports and the next hops."""
        return self._transmit(batch, UNKNOWN_ORIGIN, now)

    # Delivery

    def to_port(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        if card == self._card.card:
            return self._transmit(batch, origin, now)
        return self._to_card(card, self._remarked(batch, origin))

    def to_tunnel(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        return self._to_card(card, self._remarked(batch, origin))

    def to_decapsulation(self, card: str, batch: Batch, origin: Origin, now: float) -> list[Output]:
        return self._to_card(card, batch)

    def to_local_stack(self, batch: Batch, origin: Origin, now: float) -> list[Output]:
        return self.local_stack.deliver(batch, now)

    def dropped(self, cause: DropCause, packets: int, origin: Origin) -> None:
        self._card.drop(cause, packets)

    # inside

    def _transmit(self, batch: Batch, origin: Origin, now: float) -> list[Output]:
        if batch.hops:
            return self.egress.transmit_runs(self._ports.own, batch, origin, now)
        return self.egress.transmit(self._ports.own.get(batch.port), batch, origin, now)

    def _to_card(self, card: str, batch: Batch) -> list[Output]:
        return [ToFabric(card, self._card.set_sender(batch))]

    def _remarked(self, batch: Batch, origin: Origin) -> Batch:
        """Give packets that came in by a port its mark, which chooses queues (guide 8.5); no packet is changed."""
        port = self._ports.own.get(origin.port)
        if port is not None and port.mark:
            batch.descriptors = port.mark * len(batch.lengths)
        return batch

    def _receive_arp(self, port: LineCardPort, batch: Batch, now: float) -> list[Output]:
        out: list[Output] = []
        for packet in batch.packets():
            answer = self.arp.receive(port, packet[HEADROOM:], now)
            if answer is None:
                self._card.drop(DropCause.ARP)
            else:
                self._packets.values[self._packets.delivered] += 1
                out += answer
        return out
