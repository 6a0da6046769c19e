"""The local stack: what a line card answers itself for the router's own addresses."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from chassis.bus.batch import Batch, Mark, Step
from chassis.bus.card import CardBase
from chassis.bus.engine import Output, ToFabric
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.reassembly import Reassembler
from chassis.linecard.counters import Balance
from chassis.linecard.egress import Dropped
from chassis.linecard.ping import Pings, card_of
from chassis.net import icmp
from chassis.net.address import is_unicast_host
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import PROTOCOL_ICMP, PROTOCOL_UDP, Ipv4
from chassis.net.types import Writable

TTL = 64
"""TTL of the router's own packets."""

Originate = Callable[[int, bytes, float, "list[Output]"], None]


class LocalStack:
    """ICMP echo and messages about our own echo requests. Anything else has no service here.

    Fragments wait for the rest of their packet, and count as waiting meanwhile.
    """

    def __init__(
        self, card: CardBase, pings: Pings, originate: Originate, dropped: Dropped, balance: Balance
    ) -> None:
        self._card = card
        self._pings = pings
        self._originate = originate
        self._dropped = dropped
        self._balance = balance
        self._fragments = Reassembler()
        self._identification = 0

    @property
    def waiting(self) -> int:
        """Fragments that are held."""
        return self._fragments.waiting

    def on_timer(self, now: float) -> None:
        self._fragments.on_timer(now)
        self._count_lost()

    def next_timer(self) -> float:
        return self._fragments.next_timer()

    def deliver(
        self,
        context: int,
        body: Writable,
        lengths: array[int],
        marks: tuple[Mark, ...],
        now: float,
        out: list[Output],
    ) -> None:
        """Packets to an address of the router in this context; their IPv4 headers were checked."""
        if marks:
            step = f"{self._card.card.removeprefix('lc ')} local"
            self._card.stamp(Batch(Step.LOCAL, body, lengths, marks=marks), step, now)
        view = memoryview(body)
        at = 0
        for length in lengths:
            self._packet(context, view[at : at + length], now, out)
            at += length

    def _packet(self, context: int, frame: memoryview, now: float, out: list[Output]) -> None:
        try:
            packet = Ipv4.parse(frame[HEADROOM:], padding=True)
        except DecodeError:
            self._card.drop(DropCause.LOCAL_MESSAGE)
            return
        if packet.more_fragments or packet.offset:
            whole = self._fragments.add(context, packet, now)
            self._count_lost()
            if whole is None:
                return
            packet, count = whole
            self._balance.values[self._balance.made] += 1
            self._balance.values[self._balance.consumed] += count
            frame = memoryview(bytes(HEADROOM) + packet.emit())
        if packet.protocol == PROTOCOL_ICMP:
            self._icmp(context, packet, frame, now, out)
        else:
            cause = DropCause.LOCAL_PORT if packet.protocol == PROTOCOL_UDP else DropCause.LOCAL_PROTOCOL
            self._dropped(cause, frame, array("H", (len(frame),)), context, now, out)

    def _icmp(self, context: int, packet: Ipv4, frame: memoryview, now: float, out: list[Output]) -> None:
        try:
            message = Icmp.parse(packet.payload)
        except DecodeError:
            self._card.drop(DropCause.LOCAL_MESSAGE)
            return
        if message.type == icmp.ECHO_REQUEST and is_unicast_host(packet.source):
            self._consume()
            self._answer(context, packet, message, now, out)
        elif message.type == icmp.ECHO_REPLY:
            self._mine_or_pass(context, message.identifier, frame, out, now, packet, message)
        elif message.type in icmp.ERROR_TYPES and (quoted := _quoted_echo(message)) is not None:
            self._mine_or_pass(context, quoted.identifier, frame, out, now, packet, message, quoted)
        else:
            self._consume()

    def _answer(self, context: int, packet: Ipv4, message: Icmp, now: float, out: list[Output]) -> None:
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
        self._originate(context, reply.emit(), now, out)

    def _mine_or_pass(
        self,
        context: int,
        identifier: int,
        frame: memoryview,
        out: list[Output],
        now: float,
        packet: Ipv4,
        message: Icmp,
        quoted: Icmp | None = None,
    ) -> None:
        """An answer belongs to the card that asked: its slot is in the identifier, since an answer may come in
        by any card."""
        asker = card_of(identifier)
        if asker == self._card.card:
            self._consume()
            if quoted is None:
                self._pings.replied(packet, message, now, out)
            else:
                self._pings.refused(packet, message, quoted, now)
        elif self._card.up.get(asker, False):
            batch = Batch(Step.LOCAL, bytearray(frame), array("H", (len(frame),)), context=context)
            out.append(ToFabric(asker, self._card.sending(batch)))
        else:
            self._consume()

    def _count_lost(self) -> None:
        if self._fragments.lost:
            self._card.drop(DropCause.LOCAL_FRAGMENT, self._fragments.lost)
            self._fragments.lost = 0

    def _consume(self) -> None:
        self._balance.values[self._balance.consumed] += 1


def _quoted_echo(message: Icmp) -> Icmp | None:
    """The echo request that an ICMP error quotes at least the header of, or None."""
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
