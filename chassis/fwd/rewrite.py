"""Rewriting headers of a whole batch in place.

Where all packets of a batch have one length, the same byte of every header is a slice with a stride, and one
`translate` in C does for the batch what a loop would do packet by packet.
"""

from __future__ import annotations

import struct
from array import array

from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import decrement_ttl
from chassis.net.types import Writable

_LESS_ONE = bytes((value - 1) & 0xFF for value in range(256))
_MORE_ONE = bytes((value + 1) & 0xFF for value in range(256))
_TTL_AT = HEADROOM + 8
_CHECKSUM_AT = HEADROOM + 10

_pack_link = struct.Struct(f"{HEADROOM}s").pack_into


def decrement_ttls(body: Writable, lengths: array[int]) -> None:
    """Decrement the TTL of every packet of a batch, and update the checksums (RFC 1624).

    All packets have a TTL above zero and a right checksum. The checksum grows by 0x0100, so its high byte
    goes up by one; packets in which that carries (or gives 0xFFFF, see `ipv4.decrement_ttl`) are done alone.
    """
    first = lengths[0]
    if lengths.count(first) == len(lengths):
        high = bytes(body[_CHECKSUM_AT::first])
        if max(high) < 0xFE:
            body[_TTL_AT::first] = bytes(body[_TTL_AT::first]).translate(_LESS_ONE)
            body[_CHECKSUM_AT::first] = high.translate(_MORE_ONE)
            return
    at = HEADROOM
    for length in lengths:
        decrement_ttl(body, at)
        at += length


def write_link_headers(body: Writable, lengths: array[int], header: bytes) -> None:
    """Write the same Ethernet header (14 octets) before every packet of a batch."""
    pack = _pack_link
    at = 0
    for length in lengths:
        pack(body, at, header)
        at += length
