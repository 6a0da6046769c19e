"""The local stack: what a line card answers for the router's own addresses (RFC 1122 3.2.2, RFC 1812 4.3).

In: packets to an address of the router. Out: echo replies, ICMP errors, answers to another card's echo requests,
for that card, and datagrams for the controller.
"""

from __future__ import annotations

from array import array

from chassis.bus.batch import Batch, Step
from chassis.bus.card import CardBase
from chassis.bus.engine import Output, ToFabric
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import Forwarder
from chassis.fwd.reassembly import Reassembler
from chassis.linecard.counters import PacketCounters
from chassis.linecard.datagrams import RouterDatagrams
from chassis.linecard.egress import UNKNOWN_ORIGIN
from chassis.linecard.ping import PingSessions, card_of
from chassis.net import icmp
from chassis.net.address import is_unicast_host
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM, HEADROOM_FILL
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import PROTOCOL_ICMP, PROTOCOL_UDP, Ipv4

TTL = 64
"""TTL of the router's own packets."""


class LocalStack:
    """ICMP echo, messages about our own echo requests, and datagrams of the router's services. Fragments wait for
    the rest of their packet."""

    def __init__(
        self,
        card: CardBase,
        forwarder: Forwarder,
        pings: PingSessions,
        datagrams: RouterDatagrams,
        packets: PacketCounters,
    ) -> None:
        self._card = card
        self._forwarder = forwarder
        self._pings = pings
        self._datagrams = datagrams
        self._packets = packets
        self._fragments = Reassembler()
        self._waiting = 0
        """Fragments that are counted as waiting."""
        self._identification = 0

    def on_timer(self, now: float) -> None:
        self._fragments.on_timer(now)
        self._count_fragments()

    def next_timer(self) -> float:
        """Return the time of the next call of `on_timer`, or infinity."""
        return self._fragments.next_timer()

    def deliver(self, batch: Batch, now: float) -> list[Output]:
        """Act on packets to an address of the router in their context; their IPv4 headers were checked."""
        if batch.marks:
            self._card.add_stamp(batch, f"{self._card.card.removeprefix('lc ')} local", now)
        out: list[Output] = []
        for packet in batch.packets():
            out += self._deliver(batch.context, packet, now)
        return out + self._datagrams.taken()

    def _deliver(self, context: int, frame: memoryview, now: float) -> list[Output]:
        try:
            packet = Ipv4.parse(frame[HEADROOM:], padding=True)
        except DecodeError:
            self._card.drop(DropCause.LOCAL_MESSAGE)
            return []
        if packet.more_fragments or packet.offset:
            whole = self._fragments.add(context, packet, now)
            self._count_fragments()
            if whole is None:
                return []
            packet, count = whole
            values = self._packets.values
            values[self._packets.originated] += 1
            values[self._packets.delivered] += count
            frame = memoryview(HEADROOM_FILL + packet.emit())
        if packet.protocol == PROTOCOL_ICMP:
            return self._receive_icmp(context, packet, frame, now)
        cause: DropCause | None = DropCause.LOCAL_PROTOCOL
        if packet.protocol == PROTOCOL_UDP:
            cause = self._datagrams.receive(context, packet, now)
        if cause is None:
            self._count_delivered()
            return []
        batch = Batch(Step.LOCAL, bytearray(frame), array("H", (len(frame),)), context=context)
        return self._forwarder.drop(cause, batch, UNKNOWN_ORIGIN, now)

    def _receive_icmp(self, context: int, packet: Ipv4, frame: memoryview, now: float) -> list[Output]:
        try:
            message = Icmp.parse(packet.payload)
        except DecodeError:
            self._card.drop(DropCause.LOCAL_MESSAGE)
            return []
        if message.type == icmp.ECHO_REQUEST and is_unicast_host(packet.source):
            self._count_delivered()
            return self._reply(context, packet, message, now)
        if message.type == icmp.ECHO_REPLY:
            return self._deliver_or_relay(context, message.identifier, frame, now, packet, message)
        if message.type in icmp.ERROR_TYPES and (quoted := _quoted_echo(message)) is not None:
            return self._deliver_or_relay(context, quoted.identifier, frame, now, packet, message, quoted)
        self._count_delivered()
        return []

    def _reply(self, context: int, packet: Ipv4, message: Icmp, now: float) -> list[Output]:
        self._identification = (self._identification + 1) & 0xFFFF
        reply = Ipv4(
            source=packet.destination,
            destination=packet.source,
            protocol=PROTOCOL_ICMP,
            payload=icmp.echo_reply(message).emit(),
            ttl=TTL,
            tos=packet.tos,
            identification=self._identification,
        )
        return self._forwarder.originate(context, reply.emit(), now)

    def _deliver_or_relay(
        self,
        context: int,
        identifier: int,
        frame: memoryview,
        now: float,
        packet: Ipv4,
        message: Icmp,
        quoted: Icmp | None = None,
    ) -> list[Output]:
        """Give an answer to the card that asked: its slot is in the identifier, and the answer may come in by any
        card."""
        asker = card_of(identifier)
        if asker == self._card.card:
            self._count_delivered()
            if quoted is None:
                return self._pings.on_reply(packet, message, now)
            return self._pings.on_error(packet, message, quoted, now)
        elif self._card.up.get(asker, False):
            batch = Batch(Step.LOCAL, bytearray(frame), array("H", (len(frame),)), context=context)
            return [ToFabric(asker, self._card.set_sender(batch))]
        else:
            self._count_delivered()
        return []

    def _count_fragments(self) -> None:
        fragments = self._fragments
        if fragments.lost:
            self._card.drop(DropCause.LOCAL_FRAGMENT, fragments.lost)
            fragments.lost = 0
        self._packets.add_waiting(fragments.waiting - self._waiting)
        self._waiting = fragments.waiting

    def _count_delivered(self) -> None:
        self._packets.values[self._packets.delivered] += 1


def _quoted_echo(message: Icmp) -> Icmp | None:
    """Return the echo request of which an ICMP error quotes the header; None if it quotes something else."""
    quoted = message.payload
    if len(quoted) < 20:
        return None
    header = (quoted[0] & 15) * 4
    if (
        len(quoted) < header + icmp.ICMP_HEADER_LENGTH
        or quoted[9] != PROTOCOL_ICMP
        or quoted[header] != icmp.ECHO_REQUEST
    ):
        return None
    return Icmp(icmp.ECHO_REQUEST, 0, int.from_bytes(quoted[header + 4 : header + 8], "big"), b"")
