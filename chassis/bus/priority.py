"""Traffic classes of packets: 0 the highest, 3 the lowest (guide 8.5, table 3; S-040).

The priority queues of an SA and the drops of a full fabric connection use the same four classes. The class of a
packet comes from its DSCP, or from the priority descriptor (PD) that the ingress line card gave it.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Final

from chassis.net.ethernet import HEADROOM

CLASS_COUNT: Final = 4

LOWEST_CLASS: Final = CLASS_COUNT - 1

_SERVICE: Final = HEADROOM + 1
"""Offset (octets) of a packet's type of service (DSCP and ECN) from the beginning of its headroom."""


def class_of(value: int) -> int:
    """Return the class of a six-bit DSCP or PD value: two class selectors per class, a higher value is more
    urgent."""
    return LOWEST_CLASS - (value >> 4)


_OF_SERVICE: Final = bytes(class_of(service >> 2) for service in range(256))
_OF_DESCRIPTOR: Final = bytes(class_of(value & 0x3F) for value in range(256))


def classes_of(body: bytearray | memoryview, lengths: array[int], descriptors: bytes = b"") -> bytes:
    """Return the class of each packet of a batch.

    `descriptors`, if not empty, are the packets' PD values, which override their DSCP. A packet without a complete
    IPv4 header gets an arbitrary class; it is dropped later.
    """
    if descriptors:
        return descriptors.translate(_OF_DESCRIPTOR)
    first = lengths[0]
    if first > _SERVICE and lengths.count(first) == len(lengths):
        # Packets of one size: their octets are at equal distances, so one slice reads them all.
        return bytes(memoryview(body)[_SERVICE::first]).translate(_OF_SERVICE)
    last = len(body) - 1
    starts = accumulate(lengths, initial=_SERVICE)
    return bytes([_OF_SERVICE[body[min(at, last)]] for at, _ in zip(starts, lengths, strict=False)])


def alike(body: bytearray | memoryview, lengths: array[int], descriptors: bytes = b"") -> bytes:
    """Return one class for all packets: for a queue that drops the latest packets first."""
    return bytes([LOWEST_CLASS]) * len(lengths)
