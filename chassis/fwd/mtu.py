"""Fit a batch to an MTU: fragment the packets that may be, give back those with DF set (RFC 791 2.3, RFC 1191 4).

In: the packets of a batch and what the way can carry. Out: a batch that fits, and the packets for which an ICMP
"fragmentation needed" is owed. Ports and tunnels use the same function (S-110). For a tunnel a `FragmentPolicy`
decides which packets may be fragmented before they are encapsulated (RFC 4301 7).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from chassis.bus.batch import TraceMark
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM, HEADROOM_FILL
from chassis.net.fragments import fragment
from chassis.net.ipv4 import DONT_FRAGMENT, IPV4_HEADER_LENGTH, Ipv4

MIN_IPV4_MTU: Final = 68
"""Octets that every IPv4 link carries (RFC 791 3.2)."""

UNLIMITED: Final = 65535
"""An MTU (octets) that no IPv4 packet exceeds."""

_TOTAL_AND_FLAGS: Final = struct.Struct("!HxxH").unpack_from


@dataclass(frozen=True, slots=True)
class MtuLimits:
    """Largest packet in octets: `df_clear` for one that may be fragmented, `df_set` for one that may not.

    `outer_fragment` is the largest fragment of the outer packet of a packet that must be encapsulated whole. It is
    0 where the outer packet will have DF set, so that neither of the two may be fragmented.
    """

    df_clear: int
    df_set: int
    outer_fragment: int = 0

    @property
    def smallest(self) -> int:
        """A batch whose packets are all this small fits as it is."""
        return min(self.df_clear, self.df_set)


class FragmentDecision(Enum):
    """What becomes of a packet that is too large for its tunnel."""

    FRAGMENT = auto()
    KEEP_WHOLE = auto()
    """Its ports select its SA: it is encapsulated whole or not at all."""
    DROP = auto()
    """No SPD entry or no SA takes it: it goes on as it is, to be dropped for that."""


FragmentPolicy = Callable[[memoryview, int, int], FragmentDecision]
"""`policy(view, start, end)`: whether the too large packet at start:end may be fragmented."""


@dataclass(slots=True)
class FitResult:
    """A batch that fits, and what was taken out of it."""

    body: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("H"))
    marks: tuple[TraceMark, ...] = ()
    """The marks of the batch; one of a packet that was fragmented is on its first fragment."""
    too_long: list[memoryview] = field(default_factory=list)
    """Packets, without headroom, that may not be fragmented."""
    malformed: int = 0
    """Packets too short for a header, or too large with one that is wrong: they are left out."""
    fragments: int = 0
    """Fragments beyond the first of each packet that was fragmented."""
    whole: int = 0
    """Too large packets that are kept whole: their outer packets are fragmented."""


def fit_to_mtu(
    body: bytearray | memoryview,
    lengths: array[int],
    limits: MtuLimits,
    marks: tuple[TraceMark, ...] = (),
    policy: FragmentPolicy | None = None,
) -> FitResult:
    """Fragment or take out the packets of a batch that are larger than `limits`.

    Without a `policy` every packet with DF clear may be fragmented. Callers skip this where no packet is larger
    than `limits.smallest`: it copies the batch.
    """
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    result = FitResult()
    out = result.lengths
    numbers = dict(marks)
    at = 0
    for index, length in enumerate(lengths):
        start, at = at + HEADROOM, at + length
        if length < HEADROOM + IPV4_HEADER_LENGTH:
            result.malformed += 1
            continue
        total, flags = _TOTAL_AND_FLAGS(view, start + 2)
        if total > at - start:
            # Nobody gets an error about a packet that is not whole.
            result.malformed += 1
            continue
        df = flags & DONT_FRAGMENT
        first = len(out)
        if total <= (limits.df_set if df else limits.df_clear):
            pieces.append(view[start - HEADROOM : at])
            out.append(length)
        else:
            decision = FragmentDecision.FRAGMENT if policy is None else policy(view, start, at)
            whole = decision is FragmentDecision.KEEP_WHOLE
            if decision is not FragmentDecision.DROP and (df or (whole and not limits.outer_fragment)):
                result.too_long.append(view[start:at])
                continue
            if decision is not FragmentDecision.FRAGMENT:
                pieces.append(view[start - HEADROOM : at])
                out.append(length)
                result.whole += whole
            else:
                try:
                    fragments = fragment(Ipv4.parse(view[start:at], padding=True), limits.df_clear)
                except (DecodeError, ValueError):
                    result.malformed += 1
                    continue
                for piece in fragments:
                    packet = piece.emit()
                    pieces += (HEADROOM_FILL, packet)
                    out.append(HEADROOM + len(packet))
                result.fragments += len(fragments) - 1
        if numbers and index in numbers:
            result.marks += ((first, numbers[index]),)
    result.body = bytearray().join(pieces)
    return result
