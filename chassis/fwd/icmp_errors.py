"""Which ICMP errors a router owes, and what they look like (RFC 1812 4.3.2, RFC 1191)."""

from __future__ import annotations

from chassis.fwd.drop_causes import DropCause
from chassis.fwd.rate import TokenBucket
from chassis.net import icmp
from chassis.net.address import is_multicast, is_unicast_host
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, OFFSET_MASK, PROTOCOL_ICMP, Ipv4
from chassis.net.types import Buffer

RATE = 1000.0
"""Errors of a kind that a card sends in a second at most; they must never cost more than forwarding does."""

BURST = 200.0
"""Errors of a kind that may leave at once."""

SUPPRESSED = "icmp errors rate limited"
"""A card's counter of errors that were owed, and not sent because of `RATE`."""

QUOTED = 576 - IPV4_HEADER_LENGTH - icmp.ICMP_HEADER_LENGTH
"""Most bytes of the packet in an error: the whole error stays within 576 bytes (RFC 1812 4.3.2.3)."""

INTERNETWORK_CONTROL = 0xC0
"""Type of service of an error: precedence 6 (RFC 1812 4.3.2.5)."""

ERROR_TTL = 64

ERRORS: dict[DropCause, tuple[int, int]] = {
    DropCause.TTL: (icmp.TIME_EXCEEDED, icmp.TTL_EXCEEDED_IN_TRANSIT),
    DropCause.NO_ROUTE: (icmp.UNREACHABLE, icmp.NET_UNREACHABLE),
    DropCause.NEXT_HOP_DOWN: (icmp.UNREACHABLE, icmp.NET_UNREACHABLE),
    DropCause.NEIGHBOUR: (icmp.UNREACHABLE, icmp.HOST_UNREACHABLE),
    DropCause.TOO_LONG: (icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED),
    DropCause.LOCAL_PROTOCOL: (icmp.UNREACHABLE, icmp.PROTOCOL_UNREACHABLE),
    DropCause.LOCAL_PORT: (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE),
}
"""Causes of which the sender of the packet is told, with type and code. All others are silent.

A tunnel whose ASP just died is silent too: its route stands, and a spare or the restart takes over."""


def is_owed(packet: Buffer) -> bool:
    """Whether an error about this IPv4 packet may be sent at all (RFC 1812 4.3.2.7).

    Never about an ICMP error, about a fragment that is not the first, to or about an address that is not
    one host's. The packet's header was checked before.
    """
    if len(packet) < IPV4_HEADER_LENGTH:
        return False
    if (packet[6] << 8 | packet[7]) & OFFSET_MASK:
        return False
    source = int.from_bytes(packet[12:16], "big")
    destination = int.from_bytes(packet[16:20], "big")
    if not is_unicast_host(source) or is_multicast(destination) or destination == 0xFFFFFFFF:
        return False
    if packet[9] != PROTOCOL_ICMP:
        return True
    header = (packet[0] & 15) * 4
    # An ICMP message that ends before its type could be an error as well as not.
    return len(packet) > header and packet[header] not in icmp.ERROR_TYPES


def error(cause: DropCause, packet: Buffer, source: int, *, mtu: int = 0) -> bytes | None:
    """The error packet owed for dropping this one, from our address `source`; None if none is owed.

    `mtu` is that of the next hop, for `TOO_LONG`.
    """
    wanted = ERRORS.get(cause)
    if wanted is None or not source or not is_owed(packet):
        return None
    kind, code = wanted
    message = icmp.Icmp(kind, code, mtu if cause is DropCause.TOO_LONG else 0, bytes(packet[:QUOTED]))
    return Ipv4(
        source=source,
        destination=int.from_bytes(packet[12:16], "big"),
        protocol=PROTOCOL_ICMP,
        payload=message.emit(),
        ttl=ERROR_TTL,
        tos=INTERNETWORK_CONTROL,
    ).emit()


class ErrorLimit:
    """How many errors leave. "Fragmentation needed" has a rate of its own: without it a sender's large packets are
    lost for ever, so packets to nowhere, of which anyone can send any number, must not use it up."""

    __slots__ = ("_others", "_too_long")

    def __init__(self) -> None:
        self._too_long = TokenBucket(RATE, BURST)
        self._others = TokenBucket(RATE, BURST)

    def take(self, cause: DropCause, now: float) -> bool:
        """Whether one more error for this cause may leave now."""
        return (self._too_long if cause is DropCause.TOO_LONG else self._others).take(now)
