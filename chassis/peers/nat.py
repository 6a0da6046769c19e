"""The NAT before the peers of one node: several peers share an outer address, each with source ports of its own.

Inside, each peer has an address of 192.168.0.0/16 and the ports of IKE. Outside, `per_address` peers share one
address, and the two ports of each are mapped for ever, whatever the destination. Only UDP passes.
"""

from __future__ import annotations

from typing import Final

from chassis.net.checksum import updated
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_UDP
from chassis.net.udp import IKE_PORT, NAT_PORT, UDP_HEADER_LENGTH

FIRST_INSIDE: Final = (192 << 24) + (168 << 16) + 1
"""Inner address of peer 1; those of the others follow."""

FIRST_PORT: Final = 10_000
"""First mapped port. Each peer has two: an even one for port 500, and the next one for port 4500."""

MAX_PER_ADDRESS: Final = (65_536 - FIRST_PORT) // 2

PORTS: Final = (IKE_PORT, NAT_PORT)


class Nat:
    """The mappings of `count` peers, with inner addresses from `inside` on and outer ones from `first` on."""

    def __init__(self, first: int, count: int, per_address: int, inside: int = FIRST_INSIDE) -> None:
        self._first, self._count, self._per_address, self._inside = first, count, per_address, inside

    def outward(self, packet: bytes) -> bytes | None:
        """Return a packet of a peer as it leaves; None for one that does not pass."""
        start = _udp_start(packet)
        if not start:
            return None
        index = int.from_bytes(packet[12:16], "big") - self._inside
        port = int.from_bytes(packet[start : start + 2], "big")
        if not 0 <= index < self._count or port not in PORTS:
            return None
        place, turn = divmod(index, self._per_address)
        mapped = FIRST_PORT + 2 * turn + PORTS.index(port)
        return _rewritten(packet, 12, self._first + place, start, mapped)

    def inward(self, packet: bytes) -> bytes | None:
        """Return a packet for an outer address as it reaches its peer; None for one that no peer gets."""
        start = _udp_start(packet)
        if not start:
            return None
        place = int.from_bytes(packet[16:20], "big") - self._first
        turn, which = divmod(int.from_bytes(packet[start + 2 : start + 4], "big") - FIRST_PORT, 2)
        index = place * self._per_address + turn
        if place < 0 or not 0 <= turn < self._per_address or index >= self._count:
            return None
        return _rewritten(packet, 16, self._inside + index, start + 2, PORTS[which])


def _udp_start(packet: bytes) -> int:
    """Return where the UDP header of a whole datagram begins; 0 for any other packet."""
    start = 4 * (packet[0] & 15) if packet else 0
    if start < IPV4_HEADER_LENGTH or len(packet) < start + UDP_HEADER_LENGTH or packet[9] != PROTOCOL_UDP:
        return 0
    return 0 if int.from_bytes(packet[6:8], "big") & 0x3FFF else start


def _rewritten(packet: bytes, address_at: int, address: int, port_at: int, port: int) -> bytes:
    """Return a packet with another address and port, checksums updated (RFC 1624); one of UDP that is 0 stays."""
    made = bytearray(packet)
    udp_sum_at = 4 * (packet[0] & 15) + 6
    before, after = packet[address_at : address_at + 4], address.to_bytes(4, "big")
    made[address_at : address_at + 4] = after
    made[10:12] = _adjusted(packet[10:12], before, after)
    ports = packet[port_at : port_at + 2], port.to_bytes(2, "big")
    made[port_at : port_at + 2] = ports[1]
    if any(packet[udp_sum_at : udp_sum_at + 2]):
        found = _adjusted(packet[udp_sum_at : udp_sum_at + 2], before + ports[0], after + ports[1])
        made[udp_sum_at : udp_sum_at + 2] = found if any(found) else b"\xff\xff"
    return bytes(made)


def _adjusted(field: bytes, before: bytes, after: bytes) -> bytes:
    value = int.from_bytes(field, "big")
    for at in range(0, len(before), 2):
        words = before[at : at + 2], after[at : at + 2]
        value = updated(value, *[int.from_bytes(word, "big") for word in words])
    return value.to_bytes(2, "big")
