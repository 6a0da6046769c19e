"""Encapsulation of inner packets in ESP and AH, a batch at a time (RFC 4301 5.1).

In: inner IPv4 packets that an outbound SA was selected for. Out: outer packets, drops by cause, and notices about
sequence numbers and octets. The order is: check the packets, allocate their sequence numbers and store that they
are used, encrypt, add the ICV, return. A process that is killed in between leaves numbers unused, but never uses
one twice.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from chassis.ase.ipsec.ah import AhSender
from chassis.ase.ipsec.causes import Drops, IpsecDropCause, Notice, NoticeKind, add_count
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.esp import EspSender
from chassis.ase.ipsec.ipcomp import Compressor
from chassis.ase.ipsec.joint_sealing import InnerPackets, JointPart
from chassis.ase.ipsec.outbound_table import (
    CEILING,
    DF_BITS,
    DF_MASK,
    IDENTIFICATIONS,
    NO_CEILING,
    OCTETS,
    OCTETS_CEILING,
    PACKETS,
    STATE_WORD,
    USED,
    OutboundTable,
)
from chassis.ase.ipsec.outer_header import Ipv4IdSequences
from chassis.ase.ipsec.sa import OutboundSa, SequenceLease
from chassis.ase.ipsec.spd import Classifier, FlowCaches, Rule
from chassis.ase.ipsec.state import SaSlot
from chassis.fwd.mtu import UNLIMITED
from chassis.net.ethernet import HEADROOM, MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_UDP
from chassis.net.types import Writable

_INNER: Final = struct.Struct("!BBHxxH").unpack_from
_SOURCE: Final = struct.Struct("!I").unpack_from
_MIN_LENGTH: Final = HEADROOM + IPV4_HEADER_LENGTH
_ALLOWED: Final = 1


@dataclass(frozen=True, slots=True)
class EncapsulationResult:
    """Outer packets as a batch, the drops, and the notices of the SAs.

    `origins[i]` is the index in the batch given of packet i of the batch returned. `missing` are the numbers of
    SPD entries that packets matched and that have no SA.
    """

    body: Writable
    lengths: array[int]
    origins: Sequence[int]
    drops: Drops
    notices: tuple[Notice, ...] = ()
    missing: tuple[int, ...] = ()


class Encapsulator:
    """An installed outbound SA: keyed contexts, next sequence number, lease and counters.

    `packets` and `octets` count outer packets; they and `next_number` are in its row of the table. Sequence
    numbers below `limit` may be used. AH and ESP of one SA use the same number for a packet and store it in a slot
    each.
    """

    __slots__ = (
        "_ah",
        "_at",
        "_compressor",
        "_covers",
        "_df_bits",
        "_df_mask",
        "_entry_rules",
        "_esp",
        "_exhausted",
        "_id_sequences",
        "_ipv4_ids",
        "_joins",
        "_low_water",
        "_max_inner",
        "_max_sequence",
        "_octets_threshold",
        "_row",
        "_selectors",
        "_slots",
        "_table",
        "drops",
        "engine",
        "limit",
        "sa",
    )  # fmt: skip

    def __init__(
        self,
        sa: OutboundSa,
        lease: SequenceLease,
        slots: Sequence[SaSlot],
        table: OutboundTable,
        id_sequences: Ipv4IdSequences,
        caches: FlowCaches | None = None,
        engine: CipherEngine = CRYPTOGRAPHY,
    ) -> None:
        """`slots` store the next number of the SA's protocols, outermost first; a negotiated SA has none.
        `table`, `id_sequences`, `caches` and `engine` are shared by all SAs of the ASP."""
        self._table = table
        self._row = table.allocate()
        self._at = table.width * self._row
        self.engine = engine
        self._id_sequences = id_sequences
        self._max_sequence = sa.max_sequence
        self._slots = tuple(slots)
        self.next_number = max([1, *(slot.next_number for slot in slots)])
        self.limit = 0
        self._octets_threshold = sa.lifetime.soft or sa.lifetime.hard
        self._low_water = 0
        self._exhausted = False
        self.update_sa(sa)
        self.drops: dict[IpsecDropCause, int] = {}
        self._selectors = Classifier([(rule, _ALLOWED) for rule in sa.selectors], 1 - _ALLOWED, caches)
        self._entry_rules: tuple[Rule, ...] | None = ()
        self._covers = not sa.selectors
        self.renew_lease(lease)

    def __del__(self) -> None:
        self._table.free(self._row)

    @property
    def next_number(self) -> int:
        """The next sequence number."""
        return self._table.get(self._row, USED) + 1

    @next_number.setter
    def next_number(self, number: int) -> None:
        self._table.set(self._row, USED, number - 1)

    @property
    def packets(self) -> int:
        """Outer packets sent."""
        return self._table.get(self._row, PACKETS)

    @property
    def octets(self) -> int:
        """Octets of the outer packets sent."""
        return self._table.get(self._row, OCTETS)

    def _set_ceilings(self) -> None:
        """Set up to where packets need nothing but ESP and no notice. Call it after a change of what decides."""
        table, row = self._table, self._row
        ceiling = min(self._low_water - 1, self.limit, NO_CEILING) if self._joins else 0
        table.set(row, CEILING, max(ceiling, 0))
        table.set(row, OCTETS_CEILING, self._octets_threshold or NO_CEILING)

    def update_sa(self, sa: OutboundSa) -> None:
        """Use another peer address or DF policy. SPIs, keys and sequence numbers must be the same."""
        self.sa = sa
        esp, ah = sa.esp, sa.ah
        self._ah = AhSender(ah, sa.source, sa.destination, esp is not None, sa.esn) if ah else None
        self._esp: EspSender | None = None
        """Made with the first packet: of many tunnels few send at a time, and keyed contexts are large."""
        protocol, spi = sa.protocols[0]
        ends = (sa.source, sa.destination, PROTOCOL_UDP if sa.udp else protocol)
        self._ipv4_ids = self._id_sequences.get_or_create(ends)
        self._ipv4_ids.add_sa(spi, self.next_number)
        self._compressor = Compressor(sa.cpi) if sa.ip_comp else None
        self._df_mask, self._df_bits = sa.df.mask_and_bits
        self._max_inner = sa.max_inner(MAX_BATCHED_IPV4_LENGTH)
        self._joins = esp is not None and ah is None and not sa.ip_comp
        """Whether ESP is all that is done with packets."""
        self._set_ceilings()

    def _make_esp(self) -> EspSender:
        sa = self.sa
        esp = sa.esp
        assert esp is not None
        ah_octets = sa.ah.header_octets if sa.ah else 0
        sender = self._esp = EspSender(esp, sa.source, sa.destination, ah_octets, sa.esn, sa.udp, self.engine)
        if self._joins:
            table, row = self._table, self._row
            table.set_sender(row, sender)
            table.set(row, STATE_WORD, self._slots[0].next_word if self._slots else 0)
            table.set(row, IDENTIFICATIONS, self._ipv4_ids.row)
            table.set(row, DF_MASK, self._df_mask)
            table.set(row, DF_BITS, self._df_bits)
        return sender

    def joint_row(self, most: int) -> tuple[int, EspSender, int] | None:
        """Return the row in the table, the sender, and the octets of the longest inner packet that needs nothing
        but ESP, if an outer packet may have `most` octets. None: packets need more than ESP."""
        if not self._joins:
            return None
        sender = self._esp or self._make_esp()
        return self._row, sender, min(self._max_inner, sender.longest_inner(most))

    def renew_lease(self, lease: SequenceLease) -> None:
        """Continue with a new lease of sequence numbers.

        A lease that begins at or below the present limit extends it without a gap. Otherwise the next number is
        `lease.first` or the next unused number, whichever is higher.
        """
        if lease.first > self.limit:
            self.next_number = max(self.next_number, lease.first)
        self.limit = lease.limit
        # Request the next lease at half of this one; rekey a negotiated SA at seven eighths.
        self._low_water = lease.limit - (lease.limit - lease.first) // (8 if self.sa.negotiated else 2)
        self._exhausted = False
        self._set_ceilings()

    def covers(self, rules: tuple[Rule, ...] | None) -> bool:
        """Whether the SA's selectors match all packets of an SPD entry with these rules."""
        if rules is not self._entry_rules:
            self._entry_rules = rules
            self._covers = not self.sa.selectors or rules == self.sa.selectors
        return self._covers

    def select_by_sa(
        self, view: memoryview, packets: Sequence[tuple[int, int, int]]
    ) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Split packets, (index, start, end), into those that this SA's selectors match and the others."""
        mine: list[tuple[int, int, int]] = []
        others: list[tuple[int, int, int]] = []
        value = self._selectors.value
        for packet in packets:
            (mine if value(view, packet[1], packet[2]) == _ALLOWED else others).append(packet)
        return mine, others

    def allocate(self, count: int) -> tuple[int, int, tuple[Notice, ...]]:
        """Allocate up to `count` sequence numbers; return (first, how many, notices).

        The numbers are stored as used before this returns, so no restart can use one again.
        """
        cells, at = self._table.cells, self._at
        first: int = cells[at + USED] + 1
        granted = min(count, max(self.limit - first, 0))
        if granted:
            after = first + granted
            cells[at + USED] = after - 1
            for slot in self._slots:
                slot.store_next(after)
        notices: list[Notice] = []
        if first + granted >= self._low_water:
            self._low_water = self._max_sequence + 2
            self._set_ceilings()
            if self.limit <= self._max_sequence:
                notices.append(self._notice(NoticeKind.LEASE_HALF_USED))
            elif self.sa.negotiated:
                notices.append(self._notice(NoticeKind.SEQUENCE_LOW))
        if granted < count and not self._exhausted:
            self._exhausted = True
            notices.append(self._notice(self._exhaustion[0]))
        return first, granted, tuple(notices)

    def take_joint(self, inner: InnerPackets, begin: int, end: int, most: int = UNLIMITED) -> JointPart | None:
        """Allocate the numbers of ordinary packets for `seal_together`, and store them as used.

        None, with nothing done, where there is more to do: AH, compression, a packet to be dropped, a notice, or
        an outer packet of more than `most` octets. `encapsulate` does that.
        """
        packets = end - begin
        cells, at = self._table.cells, self._at
        first: int = cells[at + USED] + 1
        after = first + packets
        if after > cells[at + CEILING] or first >> 32 != after >> 32:
            return None
        sender = self._esp or self._make_esp()
        stride = inner.columns.stride
        longest = stride - HEADROOM if stride else inner.longest(begin, end)
        length = sender.outer_length(longest) - HEADROOM
        if longest > self._max_inner or length > most:
            return None
        octets: int = cells[at + OCTETS]
        octets += length * packets if stride else inner.outer_octets(sender, begin, end)
        if octets >= cells[at + OCTETS_CEILING]:
            return None
        cells[at + USED] = after - 1
        for slot in self._slots:
            slot.store_next(after)
        cells[at + PACKETS] += packets
        cells[at + OCTETS] = octets
        identification = self._ipv4_ids.allocate_first(packets)
        return JointPart(sender, packets, first, identification, self._df_mask, self._df_bits)

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
        """Encapsulate packets given as (index, start, end); return (body, lengths, origins, notices). The body is
        complete after the engine's `flush`.

        `random(n)` returns n unpredictable octets; it is called at most twice. Dropped packets are counted in
        `drops` and in `self.drops`.
        """
        spans: list[tuple[int, int]] = []
        marks: list[int] = []
        origins: list[int] = []
        add_span, add_mark, add_origin = spans.append, marks.append, origins.append
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
                add_span((start, start + total))
                add_mark(service << 16 | flags & mask | bits)
                add_origin(index)
        first, granted, notices = self.allocate(len(spans))
        if granted < len(spans):
            refused = len(spans) - granted
            source = _SOURCE(view, spans[granted][0] + 12)[0]
            add_count(self.drops, self._exhaustion[1], refused)
            drops.add_many(self._exhaustion[1], refused, self.sa.protocols[0][1], source)
            del spans[granted:], marks[granted:], origins[granted:]
        if not granted:
            # After the last number of an SA `first` is none.
            return bytearray(), array("H"), [], notices
        next_headers: list[int] | None = None
        if self._compressor is not None:
            view, spans, next_headers = self._compressor.compress(view, spans)
        # All numbers of one `_build` have the same high 32 bits, which it authenticates as one constant.
        low = (1 << 32) - (first & 0xFFFFFFFF)
        if granted <= low:
            out, lengths = self._build(view, spans, marks, first, next_headers, random)
        else:
            rest = None if next_headers is None else next_headers[low:]
            out, lengths = self._build(
                view, spans[:low], marks[:low], first, next_headers and next_headers[:low], random
            )
            self.engine.flush()
            others = self._build(view, spans[low:], marks[low:], first + low, rest, random)
            self.engine.flush()
            out += others[0]
            lengths += others[1]
        cells, at = self._table.cells, self._at
        cells[at + PACKETS] += granted
        octets: int = cells[at + OCTETS] + len(out) - HEADROOM * granted
        cells[at + OCTETS] = octets
        if self._octets_threshold and octets >= self._octets_threshold:
            notices += self._lifetime_notice()
        return out, lengths, origins, notices

    def _build(
        self,
        view: memoryview,
        spans: Sequence[tuple[int, int]],
        marks: Sequence[int],
        first: int,
        next_headers: Sequence[int] | None,
        random: Callable[[int], bytes],
    ) -> tuple[bytearray, array[int]]:
        """Return outer packets (body, lengths) for the inner packets at `spans`, with numbers from `first` on."""
        identifications = self._ipv4_ids.allocate(len(spans))
        if self.sa.esp is not None:
            sender = self._esp or self._make_esp()
            out, lengths = sender.encrypt(view, spans, marks, identifications, first, next_headers, random)
        else:
            assert self._ah is not None
            out, lengths = self._ah.make_room(view, spans)
        if self._ah is not None:
            self.engine.flush()
            ah_next_headers = next_headers if self.sa.esp is None else None
            self._ah.add_icv(out, lengths, marks, identifications, first, ah_next_headers)
        return out, lengths

    def _lifetime_notice(self) -> tuple[Notice, ...]:
        """Return the notice for the octets sent (RFC 4301 4.4.2.1). They count whole outer packets, which is at
        least the octets that the algorithms processed."""
        hard = self.sa.lifetime.hard
        if hard and self.octets >= hard:
            self._octets_threshold = 0
            self._set_ceilings()
            return (self._notice(NoticeKind.HARD_OCTETS),)
        self._octets_threshold = hard
        self._set_ceilings()
        return (self._notice(NoticeKind.SOFT_OCTETS),)


def split_batch(
    body: bytes | bytearray | memoryview, lengths: Sequence[int], drops: Drops
) -> tuple[memoryview, list[tuple[int, int, int]]]:
    """Return a view of the body and (index, start, end) of its packets.

    Drop packets without a whole IPv4 header, and packets whose length reaches beyond the body.
    """
    view = memoryview(body)
    size = len(view)
    if len(lengths) == 1 and _MIN_LENGTH <= lengths[0] <= size:
        return view, [(0, HEADROOM, lengths[0])]
    if lengths and min(lengths) >= _MIN_LENGTH and sum(lengths) <= size:
        ends = list(accumulate(lengths))
        starts = [end - length + HEADROOM for end, length in zip(ends, lengths, strict=True)]
        return view, list(zip(range(len(ends)), starts, ends, strict=True))
    packets: list[tuple[int, int, int]] = []
    add = packets.append
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
    """Encapsulate a batch of inner IPv4 packets with one SA, in order.

    `lengths` are octets, headroom included. `random(n)` returns n unpredictable octets. Nothing is raised for the
    content of packets: a packet that fails a check is counted in `drops` of the result.
    """
    drops = Drops()
    view, packets = split_batch(body, lengths, drops)
    out, out_lengths, origins, notices = sa.encapsulate(view, packets, random, drops)
    sa.engine.flush()
    return EncapsulationResult(out, out_lengths, origins, drops, notices)
