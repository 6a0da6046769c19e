"""Traffic classes of packets: 0 the highest, 3 the lowest (guide 8.5, table 3; S-040).

The same four everywhere: they are the priority queues of an SA, and what a full queue of the fabric drops goes by
them. A packet's class is that of its DSCP, or of the priority descriptor (PD) that the ingress line card gave it.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Final

from chassis.net.ethernet import HEADROOM

CLASS_COUNT: Final = 4

LOWEST_CLASS: Final = CLASS_COUNT - 1

_SERVICE: Final = HEADROOM + 1
"""Where the type of service (DSCP and ECN) of a packet in a batch stands, from the beginning of its headroom."""


def class_of(value: int) -> int:
    """The class of a six-bit DSCP or PD value: two class selectors each, the higher value the higher class."""
    return LOWEST_CLASS - (value >> 4)


_OF_SERVICE: Final = bytes(class_of(service >> 2) for service in range(256))
_OF_DESCRIPTOR: Final = bytes(class_of(value & 0x3F) for value in range(256))


def classes_of(body: bytearray | memoryview, lengths: array[int], descriptors: bytes = b"") -> bytes:
    """The class of each packet of a batch, whose packets have their headroom before them.

    `descriptors`, where there are any, are the packets' PD values, which go before their DSCP. A packet without a
    whole IPv4 header has a class too: any, since nothing will come of it.
    """
    if descriptors:
        return descriptors.translate(_OF_DESCRIPTOR)
    first = lengths[0]
    if first > _SERVICE and lengths.count(first) == len(lengths):
        # Packets of one size: their octets stand at equal distances, and no packet needs a look of its own.
        return bytes(memoryview(body)[_SERVICE::first]).translate(_OF_SERVICE)
    last = len(body) - 1
    starts = accumulate(lengths, initial=_SERVICE)
    return bytes([_OF_SERVICE[body[min(at, last)]] for at, _ in zip(starts, lengths, strict=False)])


def alike(body: bytearray | memoryview, lengths: array[int], descriptors: bytes = b"") -> bytes:
    """All packets in one class: for a queue that looks into none of them, where the last to come goes first."""
    return bytes([LOWEST_CLASS]) * len(lengths)
