"""Datagrams of IKE off the wire and onto it, and encapsulated packets that came in pieces.

Datagrams of IKE take no part in any tunnel, of whichever mode: IKE makes the tunnels, so they go by the ASP's own
routes, straight to the egress port. A packet in pieces, whose or which it is nobody knows from a piece, is put
together first, within bounds of time and room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chassis.ase.counters import AspCounters, AspDropCause
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.outer_header import Ipv4IdSequences
from chassis.ase.link import IkePacket
from chassis.fwd.reassembly import Reassembler
from chassis.net.errors import DecodeError
from chassis.net.ethernet import MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_UDP, Ipv4
from chassis.net.types import Buffer
from chassis.net.udp import IKE_PORT, NAT_PORT, UDP_HEADER_LENGTH, Udp

NETWORK_CONTROL = 48 << 2
"""The type of service of what keeps a network alive, CS6 (RFC 4594 3.2): a negotiation passes where traffic is too
much."""

KEEPALIVE = b"\xff"
MARKER = bytes(4)
"""What stands where an SPI would, before a message of IKE on the port for traffic through NAT (RFC 3948 2.2)."""

Drop = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A whole protected packet that had come in pieces."""

    packet: bytes


class Datagrams:
    """What the packet engine put aside, and what IKE sends. `connected`: there is an IKE to give datagrams to."""

    def __init__(
        self,
        counters: AspCounters,
        drop: Drop,
        random: Callable[[int], bytes],
        identifications: Ipv4IdSequences,
    ) -> None:
        self.connected = False
        self._counters = counters
        self._drop = drop
        self._fragments = Reassembler()
        self._lost = 0
        self._identifications = identifications
        self._identification = int.from_bytes(random(2), "big")

    def arrived(self, context: int, view: Buffer, now: float) -> IkePacket | Sealed | None:
        """A packet that is UDP, or a piece of a protected one; None where there is nothing more to do with it."""
        try:
            packet = Ipv4.parse(view)
        except DecodeError:
            self._drop(IpsecDropCause.MALFORMED, 1)
            return None
        pieces = 1
        if packet.more_fragments or packet.offset:
            whole = self._fragments.add(context, packet, now)
            self._settle()
            if whole is None:
                return None
            packet, pieces = whole
            self._counters.count_consumed(pieces - 1)
        found = self._found(context, packet, pieces)
        if isinstance(found, IpsecDropCause | AspDropCause):
            self._drop(found, 1)
            return None
        return found

    def datagram(self, message: IkePacket) -> bytes | None:
        """The packet that carries a message of IKE, DF clear; None for one too long to be sent."""
        addresses: tuple[int, int] | None = (message.local, message.remote)
        data = message.data
        if message.local_port == NAT_PORT:
            if data:
                data = MARKER + data
            else:
                data, addresses = KEEPALIVE, None
        if IPV4_HEADER_LENGTH + UDP_HEADER_LENGTH + len(data) > MAX_BATCHED_IPV4_LENGTH:
            return None
        return Ipv4(
            message.local,
            message.remote,
            PROTOCOL_UDP,
            Udp(message.local_port, message.remote_port, data).emit(addresses),
            tos=NETWORK_CONTROL,
            identification=self._next_identification(message.local, message.remote),
        ).emit()

    def on_timer(self, now: float) -> None:
        """Give up pieces that waited too long."""
        self._fragments.on_timer(now)
        self._settle()

    def next_timer(self) -> float:
        return self._fragments.next_timer()

    def _next_identification(self, source: int, destination: int) -> int:
        """Between ends that have ESP in UDP (RFC 3948) it is from the sequence of those packets."""
        shared = self._identifications.find((source, destination, PROTOCOL_UDP))
        if shared is not None:
            return shared.allocate(1)[0]
        self._identification = self._identification + 1 & 0xFFFF
        return self._identification

    def _found(
        self, context: int, packet: Ipv4, pieces: int
    ) -> IkePacket | Sealed | IpsecDropCause | AspDropCause | None:
        if packet.protocol != PROTOCOL_UDP:
            return Sealed(packet.emit()) if pieces > 1 else IpsecDropCause.MALFORMED
        try:
            udp = Udp.parse(packet.payload)
        except DecodeError:
            return IpsecDropCause.MALFORMED
        data = udp.payload
        if udp.destination_port == NAT_PORT:
            if data == KEEPALIVE:
                self._counters.count_ike_keepalive()
                return None
            if not data.startswith(MARKER):
                # ESP that came whole is not put aside, unless it is too short to be any.
                return Sealed(packet.emit()) if pieces > 1 else IpsecDropCause.MALFORMED
            data = data[len(MARKER) :]
        elif udp.destination_port != IKE_PORT:
            return IpsecDropCause.NOT_IPSEC
        try:
            Udp.parse(packet.payload, (packet.source, packet.destination))
        except DecodeError:
            return IpsecDropCause.MALFORMED
        if not data:
            return IpsecDropCause.MALFORMED
        if not self.connected:
            self._counters.count_ike_dropped()
            return AspDropCause.NO_IKE
        self._counters.count_ike_in()
        return IkePacket(context, packet.destination, udp.destination_port, packet.source, udp.source_port, data)

    def _settle(self) -> None:
        """Bring the balance up to date with what waits and what was given up."""
        fragments = self._fragments
        if fragments.lost != self._lost:
            self._drop(IpsecDropCause.FRAGMENT, fragments.lost - self._lost)
            self._lost = fragments.lost
        self._counters.set_waiting_fragments(fragments.waiting)
