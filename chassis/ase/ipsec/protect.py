"""Protection of clear packets, a batch at a time (RFC 4301 5.1).

The order of events is: find the packets that can go, take their sequence numbers and store that
they are taken, encipher, authenticate, return. A process killed anywhere in between has used up
numbers, never used one twice.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from chassis.ase.ipsec.ah import AhSender
from chassis.ase.ipsec.causes import Cause, Drops, Notice, NoticeKind
from chassis.ase.ipsec.esp import EspSender
from chassis.ase.ipsec.ipcomp import deflate
from chassis.ase.ipsec.layout import HEADROOM, IPV4_HEADER, LONGEST_IPV4
from chassis.ase.ipsec.sa import LAST_SEQUENCE, Lease, OutboundSa
from chassis.ase.ipsec.state import Slot

_INNER: Final = struct.Struct("!BBHxxH").unpack_from
_SOURCE: Final = struct.Struct("!I").unpack_from
_SHORTEST: Final = HEADROOM + IPV4_HEADER


@dataclass(frozen=True, slots=True)
class Protected:
    """A protected batch in the layout of `layout`, what was dropped, and what the SA has to say.

    `origins[i]` is the index in the batch given of packet i of the batch returned.
    """

    body: bytearray
    lengths: array[int]
    origins: Sequence[int]
    drops: Drops
    notices: tuple[Notice, ...] = ()


class Protector:
    """An outbound SA at work: keyed contexts, the next number, the lease and what has been sent.

    AH and ESP of one SA use the same number for a packet, each in a slot of its own.
    """

    __slots__ = ("_ah", "_alarm", "_bits", "_ended", "_esp", "_longest", "_mask", "_slots", "limit",
                 "next_number", "octets", "packets", "sa")  # fmt: skip

    def __init__(self, sa: OutboundSa, lease: Lease, slots: Sequence[Slot]) -> None:
        """`slots` are those of the SA's protocols, outermost first."""
        self.sa = sa
        ah_octets = 0 if sa.ah is None else sa.ah.header_octets
        self._ah = AhSender(sa.ah, sa.source, sa.destination, sa.esp is not None) if sa.ah else None
        self._esp = EspSender(sa.esp, sa.source, sa.destination, ah_octets) if sa.esp else None
        self._mask, self._bits = sa.df.mask_and_bits
        self._longest = sa.largest_inner(LONGEST_IPV4)
        self._slots = tuple(slots)
        self.next_number = max(1, *(slot.next_number for slot in slots))
        self.limit = 0
        self._alarm = 0
        self._ended = False
        self.packets = 0
        self.octets = 0
        self.renew(lease)

    def renew(self, lease: Lease) -> None:
        """Go on under a new lease. One that joins the present lease extends it without a gap;
        otherwise sending goes on at its first number or the next unused one, whichever is higher.
        """
        if lease.first > self.limit:
            self.next_number = max(self.next_number, lease.first)
        self.limit = lease.limit
        self._alarm = lease.limit - (lease.limit - lease.first) // 2
        self._ended = False

    def take(self, count: int) -> tuple[int, int, tuple[Notice, ...]]:
        """Take up to `count` numbers: (first, how many, notices). They count as used from now on."""
        first = self.next_number
        granted = min(count, max(self.limit - first, 0))
        if granted:
            self.next_number = after = first + granted
            for slot in self._slots:
                slot.store_next(after)
        notices: list[Notice] = []
        if self.next_number >= self._alarm:
            self._alarm = LAST_SEQUENCE + 2
            if self.limit <= LAST_SEQUENCE:
                notices.append(self._notice(NoticeKind.HALF_LEASE))
        if granted < count and not self._ended:
            self._ended = True
            notices.append(self._notice(self._end[0]))
        return first, granted, tuple(notices)

    @property
    def _end(self) -> tuple[NoticeKind, Cause]:
        if self.limit > LAST_SEQUENCE:
            return NoticeKind.SEQUENCE_EXHAUSTED, Cause.SEQUENCE_EXHAUSTED
        return NoticeKind.LEASE_USED, Cause.NO_LEASE

    def _notice(self, kind: NoticeKind) -> Notice:
        return Notice(kind, self.sa.tunnel, self.sa.serial, self.next_number, self.limit)

    def protect(
        self,
        view: memoryview,
        packets: Sequence[tuple[int, int, int]],
        random: Callable[[int], bytes],
        drops: Drops,
    ) -> tuple[bytearray, array[int], list[int], tuple[Notice, ...]]:
        """Protect packets given as (index, start, end); see `protect` for the rest."""
        spans: list[tuple[int, int]] = []
        marks: list[int] = []
        origins: list[int] = []
        mask, bits, longest = self._mask, self._bits, self._longest
        for index, start, end in packets:
            version_length, service, total, flags = _INNER(view, start)
            if version_length >> 4 != 4 or not IPV4_HEADER <= total <= end - start:
                drops.add(Cause.MALFORMED)
            elif total > longest:
                drops.add(Cause.TOO_LONG, 0, _SOURCE(view, start + 12)[0])
            else:
                spans.append((start, start + total))
                marks.append(service << 16 | flags & mask | bits)
                origins.append(index)
        first, granted, notices = self.take(len(spans))
        if granted < len(spans):
            refused = len(spans) - granted
            source = _SOURCE(view, spans[granted][0] + 12)[0]
            drops.add_many(self._end[1], refused, self.sa.protocols[0][1], source)
            del spans[granted:], marks[granted:], origins[granted:]
        nexts: list[int] | None = None
        if self.sa.ip_comp:
            view, spans, nexts = deflate(view, spans, self.sa.cpi)
        if self._esp is not None:
            out, lengths = self._esp.seal(view, spans, marks, first, nexts, random)
        else:
            assert self._ah is not None
            out, lengths = self._ah.enclose(view, spans)
        if self._ah is not None:
            self._ah.sign(out, lengths, marks, first, nexts if self._esp is None else None)
        self.packets += granted
        self.octets += len(out) - HEADROOM * granted
        return out, lengths, origins, notices


def cut(
    body: bytes | bytearray | memoryview, lengths: Sequence[int], drops: Drops
) -> tuple[memoryview, list[tuple[int, int, int]]]:
    """A batch as (index, start, end) of its packets; those without a whole IPv4 header are dropped.

    Lengths that reach beyond the body make the packets there malformed.
    """
    view = memoryview(body)
    packets: list[tuple[int, int, int]] = []
    add = packets.append
    size = len(view)
    offset = 0
    for index, length in enumerate(lengths):
        start = offset + HEADROOM
        offset += length
        if length < _SHORTEST or offset > size:
            drops.add(Cause.MALFORMED)
        else:
            add((index, start, offset))
    return view, packets


def protect(
    sa: Protector,
    body: bytes | bytearray | memoryview,
    lengths: Sequence[int],
    random: Callable[[int], bytes],
) -> Protected:
    """Protect a batch of clear IPv4 packets with one SA.

    `random(n)` gives n unpredictable octets; it is called at most once. The packets keep their
    order. Nothing is raised for what is in the packets.
    """
    drops = Drops()
    view, packets = cut(body, lengths, drops)
    out, out_lengths, origins, notices = sa.protect(view, packets, random, drops)
    return Protected(out, out_lengths, origins, drops, notices)
