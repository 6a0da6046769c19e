"""Rewriting headers of a whole batch in place, by columns or packet by packet."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chassis.net.columns import Columns, cell, common_length
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import decrement_ttl
from chassis.net.types import Writable

MIN_PACKETS = 64
"""Packets (count) of a batch from which on columns are faster than a loop that only looks at and changes headers.

With warm caches that is so from about 20 packets of one length on, and 45 of several. Between the batches of a lab
other processes use the core: numpy costs 20 to 30 us more a batch then, and it is so from 60 to 75 packets on.
"""

_MIN_SLICED = 4
"""Packets (count) of one length from which on a slice of their octets is faster than a loop."""

_LESS_ONE = bytes((value - 1) & 0xFF for value in range(256))
_MORE_ONE = bytes((value + 1) & 0xFF for value in range(256))
_TTL_AT = HEADROOM + 8
_CARRY = (0xFE, 0xFF)
"""High octets of checksums that may carry, or give 0xFFFF, when they grow by one."""

_pack_link = struct.Struct(f"{HEADROOM}s").pack_into


def decrement_ttls(body: Writable, lengths: array[int]) -> None:
    """Decrement the TTL of every packet of a batch, and update the checksums (RFC 1624).

    All packets have a TTL above zero and a right checksum.
    """
    length = common_length(lengths) if len(lengths) >= _MIN_SLICED else 0
    if length:
        _decrement(body, _TTL_AT, length)
    elif len(lengths) >= MIN_PACKETS:
        table = Columns(body, lengths)
        fields = bytearray(table.extract(_TTL_AT, 4))
        _decrement(fields, 0, 4)
        table.overlay(_TTL_AT, 4, fields)
    else:
        at = HEADROOM
        for length in lengths:
            decrement_ttl(body, at)
            at += length


def _decrement(octets: Writable, at: int, stride: int) -> None:
    """Do as `ipv4.decrement_ttl` with a TTL, protocol and checksum at `at`, and those each `stride` octets on."""
    ttls, high = bytes(octets[at::stride]), bytes(octets[at + 2 :: stride])
    octets[at::stride] = ttls.translate(_LESS_ONE)
    # The checksum grows by 0x0100.
    octets[at + 2 :: stride] = high.translate(_MORE_ONE)
    for octet in _CARRY:
        index = high.find(octet)
        while index >= 0:
            first = at + index * stride + 2
            value = (octet << 8 | octets[first + 1]) + 0x0100
            if value >= 0xFFFF:
                value = (value + 1) & 0xFFFF
                octets[first], octets[first + 1] = value >> 8, value & 0xFF
            index = high.find(octet, index + 1)


def _by_columns(lengths: array[int]) -> bool:
    """Return whether columns are faster than a loop that only writes to each packet."""
    count = len(lengths)
    return count >= MIN_PACKETS and (count >= 2 * MIN_PACKETS or common_length(lengths) != 0)


def write_link_headers(body: Writable, lengths: array[int], header: bytes) -> None:
    """Write the same Ethernet header (14 octets) before every packet of a batch."""
    if _by_columns(lengths):
        Columns(body, lengths).overlay(0, HEADROOM, header)
        return
    pack = _pack_link
    at = 0
    for length in lengths:
        pack(body, at, header)
        at += length


def write_link_headers_of_runs(
    body: Writable, lengths: array[int], packets: list[int] | NDArray[Any], headers: Sequence[bytes]
) -> None:
    """Write Ethernet headers (14 octets) before the packets of a batch: `packets` says how many packets in a row
    have each of the headers."""
    if _by_columns(lengths):
        links = np.frombuffer(b"".join(headers), cell(HEADROOM))
        if len(links) < len(lengths):
            links = links.repeat(packets)
        Columns(body, lengths).overlay(0, HEADROOM, links.data)
        return
    pack = _pack_link
    at = index = 0
    counts: list[int] = packets if isinstance(packets, list) else packets.tolist()
    for count, header in zip(counts, headers, strict=True):
        for length in lengths[index : index + count]:
            pack(body, at, header)
            at += length
        index += count
