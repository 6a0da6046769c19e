"""ICMP errors: which are owed for a dropped packet, their rate limit, their octets (RFC 1812 4.3.2, RFC 1191)."""

from __future__ import annotations

from collections.abc import Callable

from chassis.bus.counters import Counters
from chassis.fwd.drop_causes import DropCause
from chassis.net import icmp
from chassis.net.address import is_multicast, is_unicast_host
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, OFFSET_MASK, PROTOCOL_ICMP, Ipv4
from chassis.net.rate import TokenBucket
from chassis.net.types import Buffer

ICMP_ERROR_RATE = 1000.0
"""Errors of a kind (1/s) that a card sends at most: they must never cost more than forwarding does."""

ICMP_ERROR_BURST = 200.0
"""Errors of a kind (count) that may leave at once."""

SENT = "icmp errors sent"
RATE_LIMITED = "icmp errors rate limited"
"""Counters of a card: errors sent, and errors that were owed and not sent because of `ICMP_ERROR_RATE`."""

QUOTED = 576 - IPV4_HEADER_LENGTH - icmp.ICMP_HEADER_LENGTH
"""Octets of the packet in an error, at most: the whole error stays within 576 octets (RFC 1812 4.3.2.3)."""

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
"""Causes for which an error is owed, with its type and code.

None is owed for a tunnel whose ASP failed: the route stays, and a spare or the restarted ASP takes over."""


Source = Callable[[int], int]
"""`source(sender)`: the router's own address for an error to this address; 0 for no error."""


def may_send_error(packet: Buffer) -> bool:
    """Return whether an error about this IPv4 packet may be sent at all (RFC 1812 4.3.2.7).

    Never about an ICMP error, about a fragment that is not the first, or about a packet to or from an address that
    is not one host's. The caller has checked the packet's header.
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
    # An ICMP message that ends before its type may be an error.
    return len(packet) > header and packet[header] not in icmp.ERROR_TYPES


def error_packet(cause: DropCause, packet: Buffer, source: int, mtu: int = 0) -> bytes:
    """Return the ICMP error for a dropped packet, from our address `source`.

    `cause` is one of `ERRORS`. `mtu` (octets) is that of the next hop, for `TOO_LONG`.
    """
    kind, code = ERRORS[cause]
    message = icmp.Icmp(kind, code, mtu if cause is DropCause.TOO_LONG else 0, bytes(packet[:QUOTED]))
    return Ipv4(
        source=source,
        destination=int.from_bytes(packet[12:16], "big"),
        protocol=PROTOCOL_ICMP,
        payload=message.emit(),
        ttl=ERROR_TTL,
        tos=INTERNETWORK_CONTROL,
    ).emit()


class IcmpErrors:
    """Makes the ICMP errors of one card, as many as its rate limit allows, and counts them.

    "Fragmentation needed" has a limit of its own: without it a sender's large packets are lost for ever, so
    packets to nowhere, of which anyone can send any number, must not use it up.
    """

    def __init__(self, counters: Counters) -> None:
        self._values = counters.values
        self._sent = counters.slot(SENT)
        self._rate_limited = counters.slot(RATE_LIMITED)
        self._too_long = TokenBucket(ICMP_ERROR_RATE, ICMP_ERROR_BURST)
        self._others = TokenBucket(ICMP_ERROR_RATE, ICMP_ERROR_BURST)

    def make(self, cause: DropCause, packet: Buffer, source: Source, now: float, mtu: int = 0) -> bytes | None:
        """Return the ICMP error that is owed for dropping an IPv4 packet; None if none is, or too many are.

        The rate limit comes before the error is made: a flood of undeliverable packets costs as little as it can.
        """
        if cause not in ERRORS or not may_send_error(packet):
            return None
        address = source(int.from_bytes(packet[12:16], "big"))
        if not address:
            return None
        if not (self._too_long if cause is DropCause.TOO_LONG else self._others).consume(now):
            self._values[self._rate_limited] += 1
            return None
        self._values[self._sent] += 1
        return error_packet(cause, packet, address, mtu)
