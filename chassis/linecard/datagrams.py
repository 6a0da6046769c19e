"""UDP of the router's own services, such as lines for a syslog server (RFC 768, RFC 1122 4.1).

Out: datagrams that the controller gives. They leave as the router's own packets do, by the route of their context,
into a tunnel too. In: those for a port to which a service of the router listens go to the controller. Both are
limited, so that neither a stranger nor a service can take a card's or the controller's time.
"""

from __future__ import annotations

from chassis.bus.card import CardBase
from chassis.bus.engine import Output, ToController
from chassis.bus.messages import MAX_DATAGRAM, MAX_DATAGRAMS, Datagram, Datagrams
from chassis.bus.records import UdpPeer, UdpPortRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import Forwarder
from chassis.fwd.tables import ForwardingTables
from chassis.linecard.counters import PacketCounters
from chassis.net.address import is_unicast_host
from chassis.net.errors import DecodeError
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4
from chassis.net.rate import TokenBucket
from chassis.net.udp import UDP_HEADER_LENGTH, Udp

TTL = 64

RECEIVE_RATE = 1000.0
RECEIVE_BURST = 300.0
"""Datagrams (1/s, count) that one card gives the controller at most; others are dropped, by `LOCAL_RATE`."""

SEND_RATE = 5000.0
SEND_BURST = 1000.0
"""Datagrams (1/s, count) that one card sends at most for the controller."""

_MOST_ADDRESS = 0xFFFFFFFF
_MOST_PORT = 0xFFFF


class RouterDatagrams:
    """Datagrams of the router's services on one line card."""

    def __init__(
        self, card: CardBase, forwarder: Forwarder, tables: ForwardingTables, packets: PacketCounters
    ) -> None:
        self._card = card
        self._forwarder = forwarder
        self._tables = tables
        self._packets = packets
        self._ports: dict[int, frozenset[UdpPeer]] = {}
        """Open ports, and who may send to them; empty: anybody."""
        self._received: list[Datagram] = []
        self._receive_limit = TokenBucket(RECEIVE_RATE, RECEIVE_BURST)
        self._send_limit = TokenBucket(SEND_RATE, SEND_BURST)
        self._identification = 0

    def apply(self, change: RecordChange) -> None:
        """Open and close ports by changed records."""
        for record in change.deleted:
            if isinstance(record, UdpPortRecord):
                self._ports.pop(record.port, None)
        for record in change.put:
            if isinstance(record, UdpPortRecord):
                self._ports[record.port] = frozenset(record.peers)

    def send(self, message: Datagrams, now: float) -> list[Output]:
        """Send datagrams of the controller; each is sent, or dropped and counted."""
        if len(message.datagrams) > MAX_DATAGRAMS or not all(map(_is_sendable, message.datagrams)):
            why = f"{len(message.datagrams)} datagrams were not sent: too many, or one is not valid"
            return [self._card.log(now, "error", "bus", why)]
        out: list[Output] = []
        for datagram in message.datagrams:
            source = datagram.source or self._source(datagram)
            if not source:
                self._drop_own(DropCause.LOCAL_SOURCE)
            elif not self._send_limit.consume(now):
                self._drop_own(DropCause.LOCAL_RATE)
            else:
                out += self._send(datagram, source, now)
        return out

    def receive(self, context: int, packet: Ipv4, now: float) -> DropCause | None:
        """Take a whole packet of UDP to an address of the router, for `taken`. Return why it is to be dropped, or
        None."""
        octets = packet.payload
        if len(octets) < UDP_HEADER_LENGTH:
            return DropCause.LOCAL_PORT
        source_port, port = int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:4], "big")
        peers = self._ports.get(port)
        # As with a connected socket, for others the port is closed.
        if peers is None or (peers and UdpPeer(context, packet.source, source_port) not in peers):
            return DropCause.LOCAL_PORT
        try:
            udp = Udp.parse(octets, (packet.source, packet.destination))
        except DecodeError:
            return DropCause.LOCAL_DATAGRAM
        if len(udp.payload) > MAX_DATAGRAM:
            return DropCause.LOCAL_DATAGRAM
        if not self._card.admitted:
            return DropCause.LOCAL_CONTROLLER
        if not self._receive_limit.consume(now):
            return DropCause.LOCAL_RATE
        self._received.append(Datagram(context, packet.source, packet.destination, source_port, port, udp.payload))
        return None

    def taken(self) -> list[Output]:
        """Give the controller what was received since the last call."""
        received, self._received = self._received, []
        return [
            ToController(Datagrams(tuple(received[at : at + MAX_DATAGRAMS])))
            for at in range(0, len(received), MAX_DATAGRAMS)
        ]

    def _source(self, datagram: Datagram) -> int:
        context, decider = datagram.context, self._tables.decider
        return self._tables.egress_address(context, decider.decide_destination(context, datagram.destination))

    def _send(self, datagram: Datagram, source: int, now: float) -> list[Output]:
        self._identification = (self._identification + 1) & 0xFFFF
        udp = Udp(datagram.source_port, datagram.destination_port, datagram.payload)
        packet = Ipv4(
            source=source,
            destination=datagram.destination,
            protocol=PROTOCOL_UDP,
            payload=udp.emit((source, datagram.destination)),
            ttl=TTL,
            identification=self._identification,
        )
        return self._forwarder.originate(datagram.context, packet.emit(), now)

    def _drop_own(self, cause: DropCause) -> None:
        """Drop a datagram of the router before it is a packet."""
        self._packets.values[self._packets.originated] += 1
        self._card.drop(cause)


def _is_sendable(datagram: Datagram) -> bool:
    return (
        0 <= datagram.source <= _MOST_ADDRESS
        and 0 <= datagram.destination <= _MOST_ADDRESS
        and is_unicast_host(datagram.destination)
        and 0 < datagram.source_port <= _MOST_PORT
        and 0 < datagram.destination_port <= _MOST_PORT
        and len(datagram.payload) <= MAX_DATAGRAM
    )
