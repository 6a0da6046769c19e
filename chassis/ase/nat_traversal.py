"""Datagrams of IKE off and onto the wire, on the ports of IKE and of NAT traversal (RFC 7296 2.23, RFC 3948).

In: packets that the decapsulator punts (UDP, and fragments of any protected packet), and messages of IKE. Out:
datagrams for IKE, reassembled packets to decapsulate or for the router's own stack, and IPv4 packets to send.
Fragments are reassembled first: a later fragment has neither SPI nor ports. Reassembly is limited by
REASSEMBLY_TIMEOUT and MAX_REASSEMBLIES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chassis.ase.counters import AspCounters, AspDropCause
from chassis.ase.ike_messages import IkePacket
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.outer_header import Ipv4IdSequences
from chassis.fwd.reassembly import Reassembler
from chassis.net.errors import DecodeError
from chassis.net.ethernet import MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_UDP, Ipv4
from chassis.net.types import Buffer
from chassis.net.udp import IKE_PORT, NAT_PORT, UDP_HEADER_LENGTH, Udp

NETWORK_CONTROL = 48 << 2
"""Type of service CS6 (RFC 4594 3.2): a negotiation passes where there is too much traffic."""

KEEPALIVE = b"\xff"
"""Payload of a NAT keepalive (RFC 3948 2.3)."""

NON_ESP_MARKER = bytes(4)
"""Stands in place of an SPI before a message of IKE on NAT_PORT (RFC 3948 2.2)."""

Drop = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class ReassembledPacket:
    """A packet that came in fragments: a protected one, or UDP for the router itself."""

    packet: bytes
    is_local: bool = False


class IkeDatagrams:
    """Punted packets, and what IKE sends. `connected`: the IKE process takes datagrams."""

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

    def receive(self, context: int, view: Buffer, now: float) -> IkePacket | ReassembledPacket | None:
        """Return what a UDP packet or a fragment of a protected one holds; None: nothing more is to be done."""
        try:
            packet = Ipv4.parse(view)
        except DecodeError:
            self._drop(IpsecDropCause.MALFORMED, 1)
            return None
        pieces = 1
        if packet.more_fragments or packet.offset:
            whole = self._fragments.add(context, packet, now)
            self._update_waiting()
            if whole is None:
                return None
            packet, pieces = whole
            self._counters.count_consumed(pieces - 1)
        found = self._on_reassembled(context, packet, pieces)
        if isinstance(found, IpsecDropCause | AspDropCause):
            self._drop(found, 1)
            return None
        return found

    def packet_of(self, message: IkePacket) -> bytes | None:
        """Return the packet that carries a message of IKE, DF clear; None for one too long to be sent."""
        addresses: tuple[int, int] | None = (message.local, message.remote)
        data = message.data
        if message.local_port == NAT_PORT:
            if data:
                data = NON_ESP_MARKER + data
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
        """Drop fragments that waited too long."""
        self._fragments.on_timer(now)
        self._update_waiting()

    def next_timer(self) -> float:
        return self._fragments.next_timer()

    def _next_identification(self, source: int, destination: int) -> int:
        """Return an IPv4 ID, from the sequence of ESP in UDP between these ends if they use it (RFC 6864)."""
        shared = self._identifications.find((source, destination, PROTOCOL_UDP))
        if shared is not None:
            return shared.allocate(1)[0]
        self._identification = self._identification + 1 & 0xFFFF
        return self._identification

    def _on_reassembled(
        self, context: int, packet: Ipv4, pieces: int
    ) -> IkePacket | ReassembledPacket | IpsecDropCause | AspDropCause | None:
        if packet.protocol != PROTOCOL_UDP:
            return ReassembledPacket(packet.emit()) if pieces > 1 else IpsecDropCause.MALFORMED
        try:
            udp = Udp.parse(packet.payload)
        except DecodeError:
            return IpsecDropCause.MALFORMED
        data = udp.payload
        if udp.destination_port == NAT_PORT:
            if data == KEEPALIVE:
                self._counters.count_ike_keepalive()
                return None
            if not data.startswith(NON_ESP_MARKER):
                # Whole ESP is not punted, unless it is too short to be ESP.
                return ReassembledPacket(packet.emit()) if pieces > 1 else IpsecDropCause.MALFORMED
            data = data[len(NON_ESP_MARKER) :]
        elif udp.destination_port != IKE_PORT:
            return ReassembledPacket(packet.emit(), is_local=True) if pieces > 1 else IpsecDropCause.NOT_IPSEC
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

    def _update_waiting(self) -> None:
        """Count the fragments that wait and those that were dropped."""
        fragments = self._fragments
        if fragments.lost != self._lost:
            self._drop(IpsecDropCause.FRAGMENT, fragments.lost - self._lost)
            self._lost = fragments.lost
        self._counters.set_waiting_fragments(fragments.waiting)
