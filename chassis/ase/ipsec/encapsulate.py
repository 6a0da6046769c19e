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
from chassis.ase.ipsec.causes import Drops, IpsecDropCause, Notice, NoticeKind, add_count
from chassis.ase.ipsec.esp import EspSender
from chassis.ase.ipsec.gcm import GcmSender
from chassis.ase.ipsec.ipcomp import Compressor
from chassis.ase.ipsec.outer_header import Ipv4IdSequences, OuterHeaderWriter
from chassis.ase.ipsec.sa import OutboundSa, SequenceLease
from chassis.ase.ipsec.spd import Classifier, FlowCaches, Rule
from chassis.ase.ipsec.state import SaSlot
from chassis.net.ethernet import HEADROOM, MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_UDP
from chassis.net.udp import UDP_HEADER_LENGTH

_INNER: Final = struct.Struct("!BBHxxH").unpack_from
_SOURCE: Final = struct.Struct("!I").unpack_from
_MIN_LENGTH: Final = HEADROOM + IPV4_HEADER_LENGTH
_ALLOWED: Final = 1


@dataclass(frozen=True, slots=True)
class EncapsulationResult:
    """A protected batch in the layout of `layout`, what was dropped, and what the SA has to say.

    `origins[i]` is the index in the batch given of packet i of the batch returned. `missing` are the
    policy lines that packets matched and that have no SA.
    """

    body: bytearray
    lengths: array[int]
    origins: Sequence[int]
    drops: Drops
    notices: tuple[Notice, ...] = ()
    missing: tuple[int, ...] = ()


class Encapsulator:
    """An outbound SA at work: keyed contexts, the next number, the lease and what has been sent.

    AH and ESP of one SA use the same number for a packet, each in a slot of its own.
    """

    __slots__ = (
        "_ah",
        "_compressor",
        "_covers",
        "_df_bits",
        "_df_mask",
        "_entry_rules",
        "_esp",
        "_exhausted",
        "_id_sequences",
        "_ipv4_ids",
        "_low_water",
        "_max_inner",
        "_max_sequence",
        "_octets_threshold",
        "_outer",
        "_selectors",
        "_slots",
        "drops",
        "limit",
        "next_number",
        "octets",
        "packets",
        "sa",
    )  # fmt: skip

    def __init__(
        self,
        sa: OutboundSa,
        lease: SequenceLease,
        slots: Sequence[SaSlot],
        id_sequences: Ipv4IdSequences,
        caches: FlowCaches | None = None,
    ) -> None:
        """`slots` are those of the SA's protocols, outermost first; a fleeting one has none. `identifications` and
        `memory` are those of all SAs beside it."""
        self._esp: EspSender | GcmSender | None
        self._id_sequences = id_sequences
        self._max_sequence = sa.max_sequence
        self._slots = tuple(slots)
        self.next_number = max([1, *(slot.next_number for slot in slots)])
        self.update_sa(sa)
        self.limit = 0
        self._octets_threshold = sa.lifetime.soft or sa.lifetime.hard
        self._low_water = 0
        self._exhausted = False
        self.packets = 0
        self.octets = 0
        self.drops: dict[IpsecDropCause, int] = {}
        self._selectors = Classifier([(rule, _ALLOWED) for rule in sa.selectors], 1 - _ALLOWED, caches)
        self._entry_rules: tuple[Rule, ...] | None = ()
        self._covers = not sa.selectors
        self.renew_lease(lease)

    def update_sa(self, sa: OutboundSa) -> None:
        """The peer is elsewhere now, or the rule for DF is another: what the wire names the SA by stays, and so
        do its keys and numbers."""
        self.sa = sa
        esp, ah = sa.esp, sa.ah
        self._ah = AhSender(ah, sa.source, sa.destination, esp is not None, sa.esn) if ah else None
        room = UDP_HEADER_LENGTH if sa.udp else ah.header_octets if ah else 0
        self._outer = None
        if esp is None:
            self._esp = None
        elif esp.cipher_algorithm.combined:
            self._esp = GcmSender(esp, room, sa.esn)
        else:
            self._esp = EspSender(esp, sa.source, sa.destination, room, sa.esn)
        if sa.udp is not None or (ah is None and isinstance(self._esp, GcmSender)):
            self._outer = OuterHeaderWriter(sa.source, sa.destination, sa.udp)
        protocol, spi = sa.protocols[0]
        ends = (sa.source, sa.destination, PROTOCOL_UDP if sa.udp else protocol)
        self._ipv4_ids = self._id_sequences.get_or_create(ends)
        self._ipv4_ids.add_sa(spi, self.next_number)
        self._compressor = Compressor(sa.cpi) if sa.ip_comp else None
        self._df_mask, self._df_bits = sa.df.mask_and_bits
        self._max_inner = sa.max_inner(MAX_BATCHED_IPV4_LENGTH)

    def renew_lease(self, lease: SequenceLease) -> None:
        """Go on under a new lease. One that joins the present lease extends it without a gap;
        otherwise sending goes on at its first number or the next unused one, whichever is higher.
        """
        if lease.first > self.limit:
            self.next_number = max(self.next_number, lease.first)
        self.limit = lease.limit
        # A lease is asked to be extended at its half; a negotiated SA gets a successor at seven eighths.
        self._low_water = lease.limit - (lease.limit - lease.first) // (8 if self.sa.negotiated else 2)
        self._exhausted = False

    def covers(self, rules: tuple[Rule, ...] | None) -> bool:
        """Whether all that a policy line with these rules sends may go by this SA."""
        if rules is not self._entry_rules:
            self._entry_rules = rules
            self._covers = not self.sa.selectors or rules == self.sa.selectors
        return self._covers

    def select_by_sa(
        self, view: memoryview, packets: Sequence[tuple[int, int, int]]
    ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Packets, as (index, start, end), that may go by this SA, and the others."""
        mine: list[tuple[int, int, int]] = []
        others: list[tuple[int, int, int]] = []
        value = self._selectors.value
        for packet in packets:
            (mine if value(view, packet[1], packet[2]) == _ALLOWED else others).append(packet)
        return mine, others

    def allocate(self, count: int) -> tuple[int, int, tuple[Notice, ...]]:
        """Take up to `count` numbers: (first, how many, notices). They count as used from now on."""
        first = self.next_number
        granted = min(count, max(self.limit - first, 0))
        if granted:
            self.next_number = after = first + granted
            for slot in self._slots:
                slot.store_next(after)
        notices: list[Notice] = []
        if self.next_number >= self._low_water:
            self._low_water = self._max_sequence + 2
            if self.limit <= self._max_sequence:
                notices.append(self._notice(NoticeKind.LEASE_HALF_USED))
            elif self.sa.negotiated:
                notices.append(self._notice(NoticeKind.SEQUENCE_LOW))
        if granted < count and not self._exhausted:
            self._exhausted = True
            notices.append(self._notice(self._exhaustion[0]))
        return first, granted, tuple(notices)

    @property
    def _exhaustion(self) -> tuple[NoticeKind, IpsecDropCause]:
        if self.limit > self._max_sequence:
            return NoticeKind.SEQUENCE_EXHAUSTED, IpsecDropCause.SEQUENCE_EXHAUSTED
        return NoticeKind.LEASE_EXHAUSTED, IpsecDropCause.NO_LEASE

    def _notice(self, kind: NoticeKind) -> Notice:
        return Notice(kind, self.sa.tunnel, self.sa.serial, self.next_number, self.limit)

    def encapsulate(
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
        mask, bits, longest = self._df_mask, self._df_bits, self._max_inner
        for index, start, end in packets:
            version_length, service, total, flags = _INNER(view, start)
            if version_length >> 4 != 4 or not IPV4_HEADER_LENGTH <= total <= end - start:
                drops.add(IpsecDropCause.MALFORMED)
                add_count(self.drops, IpsecDropCause.MALFORMED)
            elif total > longest:
                drops.add(IpsecDropCause.TOO_LONG, 0, _SOURCE(view, start + 12)[0])
                add_count(self.drops, IpsecDropCause.TOO_LONG)
            else:
                spans.append((start, start + total))
                marks.append(service << 16 | flags & mask | bits)
                origins.append(index)
        first, granted, notices = self.allocate(len(spans))
        if granted < len(spans):
            refused = len(spans) - granted
            source = _SOURCE(view, spans[granted][0] + 12)[0]
            add_count(self.drops, self._exhaustion[1], refused)
            drops.add_many(self._exhaustion[1], refused, self.sa.protocols[0][1], source)
            del spans[granted:], marks[granted:], origins[granted:]
        nexts: list[int] | None = None
        if self._compressor is not None:
            view, spans, nexts = self._compressor.compress(view, spans)
        # Numbers of one call have one high half, so that it is authenticated as one constant.
        low = (1 << 32) - (first & 0xFFFFFFFF)
        if granted <= low:
            out, lengths = self._build(view, spans, marks, first, nexts, random)
        else:
            rest = None if nexts is None else nexts[low:]
            out, lengths = self._build(view, spans[:low], marks[:low], first, nexts and nexts[:low], random)
            others = self._build(view, spans[low:], marks[low:], first + low, rest, random)
            out += others[0]
            lengths += others[1]
        self.packets += granted
        self.octets += len(out) - HEADROOM * granted
        if self._octets_threshold and self.octets >= self._octets_threshold:
            notices += self._lifetime_notice()
        return out, lengths, origins, notices

    def _build(
        self,
        view: memoryview,
        spans: Sequence[tuple[int, int]],
        marks: Sequence[int],
        first: int,
        nexts: Sequence[int] | None,
        random: Callable[[int], bytes],
    ) -> tuple[bytearray, array[int]]:
        """Packets on the wire, from what goes in and the numbers that were taken for it."""
        identifications = self._ipv4_ids.allocate(len(spans))
        if self._esp is not None:
            out, lengths = self._esp.encrypt(view, spans, marks, identifications, first, nexts, random)
        else:
            assert self._ah is not None
            out, lengths = self._ah.make_room(view, spans)
        if self._ah is not None:
            following = nexts if self._esp is None else None
            self._ah.add_icv(out, lengths, marks, identifications, first, following)
        elif self._outer is not None:
            self._outer.write(out, lengths, marks, identifications)
        return out, lengths

    def _lifetime_notice(self) -> tuple[Notice, ...]:
        """What is due now that the SA has carried as much as it has, counted as whole outer packets: at least
        the octets that the algorithms were applied to (RFC 4301 4.4.2.1)."""
        hard = self.sa.lifetime.hard
        if hard and self.octets >= hard:
            self._octets_threshold = 0
            return (self._notice(NoticeKind.HARD_OCTETS),)
        self._octets_threshold = hard
        return (self._notice(NoticeKind.SOFT_OCTETS),)


def split_batch(
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
        if length < _MIN_LENGTH or offset > size:
            drops.add(IpsecDropCause.MALFORMED)
        else:
            add((index, start, offset))
    return view, packets


def encapsulate(
    sa: Encapsulator,
    body: bytes | bytearray | memoryview,
    lengths: Sequence[int],
    random: Callable[[int], bytes],
) -> EncapsulationResult:
    """Protect a batch of clear IPv4 packets with one SA.

    `random(n)` gives n unpredictable octets; it is called at most once. The packets keep their
    order. Nothing is raised for what is in the packets.
    """
    drops = Drops()
    view, packets = split_batch(body, lengths, drops)
    out, out_lengths, origins, notices = sa.encapsulate(view, packets, random, drops)
    return EncapsulationResult(out, out_lengths, origins, drops, notices)
