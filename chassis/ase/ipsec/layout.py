"""Layout of a batch of packets, and the IPv4 header fields that the engine reads and writes.

A batch is one contiguous buffer and a sequence of lengths. Every packet is preceded by HEADROOM
octets of room for a link header, and its length counts them: the IPv4 header of packet i begins
HEADROOM octets after the end of packet i-1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from chassis.net.ipv4 import PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_UDP

IPSEC_PROTOCOLS: Final = frozenset((PROTOCOL_UDP, PROTOCOL_ESP, PROTOCOL_AH))
"""What protected packets, and the messages that negotiate them, come as."""

FRAGMENTATION_NEEDED: Final = 3 << 8 | 4
"""Type and code of the ICMP message about a packet that DF forbids to cut (RFC 792)."""

OUTER_TTL: Final = 64


def ipv4_checksum(words: Iterable[int]) -> int:
    """Internet checksum (RFC 1071) of 16-bit words."""
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def constant_sum(source: int, destination: int, protocol: int) -> int:
    """Sum of the words of an outer header that never change within an SA.

    Version, header length, TTL, protocol and both addresses; the caller adds the type of
    service, the total length, the identification and the flags.
    """
    return (
        0x4500
        + (OUTER_TTL << 8 | protocol)
        + (source >> 16)
        + (source & 0xFFFF)
        + (destination >> 16)
        + (destination & 0xFFFF)
    )
