"""Sealing of a batch as a table: packets of one or of many outbound SAs, all with the same ESP layout.

In: inner packets in the order of their SAs, each SA with the numbers that its packets have. Out: the outer packets
in the same order, the same octets as `EspSender.encrypt` makes. What is more than sealing (AH, compression, drops,
notices of an SA) is done elsewhere.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.cipher_engine import TRAILERS, SealedRuns, Unsealed
from chassis.ase.ipsec.esp import EspSender
from chassis.ase.ipsec.sa import ESP_TRAILER_LENGTH
from chassis.ase.ipsec.spd import Classifier
from chassis.net.columns import Bytes, Columns, Numbers, by_value, longest
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH
from chassis.net.types import Writable

MIN_JOINT: Final = 24
"""Packets of one SA from which on a table is faster than a loop; of many SAs it is with fewer."""

MIN_GROUP: Final = 40
"""Packets of each length, on average, from which on those of one length are copied together."""

MAX_SINGLE: Final = 4
"""Packets of an SA in a row, at most, that are cheaper sealed one by one where sizes differ."""

_SELECTED_OCTETS: Final = IPV4_HEADER_LENGTH + 4
_SELECTED: Final = np.array([0, 6, 7, 9, *range(12, _SELECTED_OCTETS)])
"""Octets of a packet that the rules of a classifier can see: header length, fragment, protocol, addresses and
ports."""

_WIDE: Final = np.dtype(np.uint64)
_SHARED: Final = np.uint64(int.from_bytes(b"\xff\xff\xff\xff\0\0\xff\xff", sys.byteorder))
"""The first eight octets of an IPv4 header without the identification."""
_FIELDS: Final = struct.Struct("!BBHxxH").unpack_from

_IDENTIFICATIONS: Final = 0xFFFF
_SERVICE_AT: Final = HEADROOM + 1
_TOTAL_AT: Final = HEADROOM + 2
_IDENTIFICATION_AT: Final = HEADROOM + 4
_FLAGS_AT: Final = HEADROOM + 6
_CHECKSUM_AT: Final = HEADROOM + 10
_UDP_LENGTH_AT: Final = HEADROOM + IPV4_HEADER_LENGTH + 4
_NUMBER_OCTETS: Final = 4


class JointPart(NamedTuple):
    """Packets in a row that are of one SA: how many, their first sequence number and identification. The outer
    flags are `inner & df_mask | df_bits`."""

    sender: EspSender
    packets: int
    first: int
    identification: int
    df_mask: int
    df_bits: int


class JointParts:
    """The packets of a batch in parts, each of one SA: what `seal_together` is given.

    `sender` is that of the first part. `templates` are the heads of each part's packets without numbers. The other
    fields are a number for each part; or one, of a batch that is one part.
    """

    __slots__ = ("base_sums", "df_bits", "df_masks", "identifications", "runs", "sender", "templates")

    def __init__(
        self,
        sender: EspSender,
        runs: SealedRuns,
        identifications: Numbers | int,
        base_sums: Numbers | int,
        df_masks: Numbers | int,
        df_bits: Numbers | int,
        templates: Bytes,
    ) -> None:
        self.sender, self.runs, self.identifications = sender, runs, identifications
        self.base_sums, self.df_masks, self.df_bits, self.templates = base_sums, df_masks, df_bits, templates

    @classmethod
    def one(cls, part: JointPart) -> JointParts:
        """Return a batch that is one part."""
        sender = part.sender
        words = np.frombuffer(sender.sealer.words, np.uint64).reshape(1, -1)
        runs = SealedRuns((sender.sealer,), None, (part.first,), words)
        template = np.frombuffer(sender.heads.template, np.uint8)
        heads = sender.heads
        return cls(sender, runs, part.identification, heads.base_sum, part.df_mask, part.df_bits, template)

    @classmethod
    def of(cls, parts: Sequence[JointPart]) -> JointParts:
        """Return a batch of these parts."""
        if len(parts) == 1:
            return cls.one(parts[0])
        sender = parts[0].sender
        sealers = [part.sender.sealer for part in parts]
        rows = np.array(
            [
                (part.packets, part.identification, part.sender.heads.base_sum, part.df_mask, part.df_bits)
                for part in parts
            ]
        )
        firsts = [part.first for part in parts]
        words = np.frombuffer(b"".join([sealer.words for sealer in sealers]), np.uint64).reshape(len(parts), -1)
        templates = np.frombuffer(b"".join([part.sender.heads.template for part in parts]), np.uint8)
        packets, identifications, sums, masks, bits = rows.T
        runs = SealedRuns(sealers, packets, firsts, words)
        return cls(sender, runs, identifications, sums, masks, bits, templates.reshape(len(parts), -1))


class InnerPackets:
    """The inner packets of a batch, and whether they are ordinary ones.

    `columns` are the packets with headroom. `service` and `flags` are the type of service and the flags of each
    packet, or of all.
    """

    __slots__ = ("_changed", "_lengths", "_ordinary", "columns", "flags", "service")

    def __init__(self, body: bytes | Writable, lengths: array[int]) -> None:
        """The lengths must fill the body, and no packet may be shorter than an IPv4 header."""
        columns = self.columns = Columns(body, lengths)
        self._lengths = lengths
        self._ordinary: NDArray[np.bool_] | bool
        self._changed: NDArray[np.bool_] | None = None
        self.service: Numbers | int
        self.flags: Numbers | int
        if columns.stride:
            heads = np.ndarray((columns.count,), _WIDE, body, HEADROOM, (columns.stride,))
            if not ((heads ^ heads[0]) & _SHARED).any():
                version, self.service, total, self.flags = _FIELDS(body, HEADROOM)
                self._ordinary = version >> 4 == 4 and total + HEADROOM == columns.stride
                return
        octets = columns.read(HEADROOM, 8)
        words = octets.view(">u2")
        ordinary = (octets[:, 0] >> 4 == 4) & (words[:, 1] == columns.lengths - HEADROOM)
        self._ordinary = True if ordinary.all() else ordinary
        self.service = octets[:, 1].astype(np.int64)
        self.flags = words[:, 3].astype(np.int64)

    def ordinary_runs(self, begins: Numbers) -> NDArray[np.bool_] | bool:
        """Whether the packets from each of `begins` to the next are IPv4 packets that fill their lengths."""
        if isinstance(self._ordinary, bool):
            return self._ordinary
        found: NDArray[np.bool_] = np.logical_and.reduceat(self._ordinary, begins)
        return found

    def select(self, packets: Numbers) -> InnerPackets:
        """Return a copy of some packets, which are ordinary ones."""
        found = InnerPackets.__new__(InnerPackets)
        body, lengths = self.columns.copied(packets)
        found.columns, found._lengths = Columns(body, lengths), lengths
        found._ordinary, found._changed = True, None
        found.service = self.service if isinstance(self.service, int) else self.service[packets]
        found.flags = self.flags if isinstance(self.flags, int) else self.flags[packets]
        return found

    def are_ordinary(self, begin: int, end: int) -> bool:
        """Whether these are IPv4 packets that fill their lengths."""
        if isinstance(self._ordinary, bool):
            return self._ordinary
        return bool(self._ordinary[begin] if end - begin == 1 else self._ordinary[begin:end].all())

    def value(self, classifier: Classifier, begin: int, end: int) -> int | None:
        """Return the value that these packets have in common; None if they have different ones."""
        if classifier.constant is not None:
            return classifier.constant
        columns = self.columns
        if self._changed is None:
            if (columns.stride or int(columns.lengths.min())) < HEADROOM + _SELECTED_OCTETS:
                return None
            selected = columns.read(HEADROOM, _SELECTED_OCTETS)[:, _SELECTED]
            self._changed = (selected[1:] != selected[:-1]).any(axis=1)
        view = columns.octets.data
        found: int | None = None
        for index in (begin, *(np.flatnonzero(self._changed[begin : end - 1]) + begin + 1).tolist()):
            start = int(columns.starts[index])
            value = classifier.value(view, start + HEADROOM, start + int(columns.lengths[index]))
            if found is not None and value != found:
                return None
            found = value
        return found

    def longest(self, begin: int, end: int) -> int:
        """Return the octets of the longest of these packets."""
        return (self.columns.stride or longest(self._lengths[begin:end])) - HEADROOM

    def outer_octets(self, sender: EspSender, begin: int, end: int) -> int:
        """Return the octets of the outer packets of these, without headroom."""
        if self.columns.stride:
            return (sender.outer_length(self.columns.stride - HEADROOM) - HEADROOM) * (end - begin)
        if end - begin == 1:
            return sender.outer_length(self._lengths[begin] - HEADROOM) - HEADROOM
        sizes = _sizes(self.columns.lengths[begin:end], sender)
        return int(sizes.sum()) + (sender.fixed - HEADROOM) * (end - begin)


def _sizes(lengths: Numbers, sender: EspSender) -> Numbers:
    """Return the octets of payload and trailer of packets with these lengths, headroom included."""
    return lengths + (ESP_TRAILER_LENGTH + sender.block - 1 - HEADROOM) & -sender.block


def seal_together(
    inner: InnerPackets, parts: JointParts, drawn: bytes, flush: Callable[[], None]
) -> tuple[Writable, array[int]]:
    """Return the outer packets, and their lengths with headroom.

    The packets are ordinary ones. `drawn` are the octets of randomness of all packets, in order. `flush` is the
    engine's.
    """
    sender, columns, runs = parts.sender, inner.columns, parts.runs
    layout, head = sender.layout, len(sender.heads.template)
    start = head + layout.iv_octets
    if columns.stride:
        octets = columns.stride - HEADROOM
        length = sender.outer_length(octets)
        outer = array("H", [length]) * columns.count
        table = np.empty((columns.count, length), np.uint8)
        body = table.reshape(-1).data
        out = Columns(body, outer)
        _write_heads(out, inner, length - HEADROOM, parts)
        size = length - sender.fixed
        table[:, start : start + octets] = columns.octets.reshape(columns.count, columns.stride)[:, HEADROOM:]
        table[:, start + octets : start + size] = _trailer(size - octets)
        sender.sealer.seal_all(Unsealed(out, head, layout.iv_octets, size, (), runs, drawn))
        flush()
        return body, outer
    sizes = _sizes(columns.lengths, sender)
    lengths = sizes + sender.fixed
    outer = array("H", lengths.astype(np.uint16).tobytes())
    groups = by_value(columns.lengths, columns.count // MIN_GROUP)
    if groups is None:
        heads = Columns(bytearray(head * columns.count), array("H", [head]) * columns.count)
        _write_heads(heads, inner, lengths - HEADROOM, parts)
        pieces = _pieces(columns, heads, sizes, sender, runs, drawn)
        flush()
        return bytearray().join(pieces), outer
    octets_out = np.empty(int(lengths.sum()), np.uint8)
    out = Columns(octets_out.data, outer)
    _write_heads(out, inner, lengths - HEADROOM, parts)
    for length, packets in groups:
        octets, size = length - HEADROOM, int(sizes[packets[0]])
        places = out.starts[packets] + start
        out.put(places, columns.take(columns.starts[packets] + HEADROOM, octets))
        out.put(places + octets, np.broadcast_to(_trailer(size - octets), (len(packets), size - octets)))
    by_size = by_value(sizes, columns.count)
    assert by_size is not None
    sender.sealer.seal_all(Unsealed(out, head, layout.iv_octets, sizes, by_size, runs, drawn))
    flush()
    return octets_out.data, outer


def _trailer(octets: int) -> Bytes:
    """Return an ESP trailer of so many octets."""
    return np.frombuffer(TRAILERS[octets - ESP_TRAILER_LENGTH], np.uint8)


def _write_heads(out: Columns, inner: InnerPackets, octets: Numbers | int, parts: JointParts) -> None:
    """Write room for the link header, outer header, UDP header and ESP header of every packet. `octets` are those
    of the outer packet."""
    runs, templates = parts.runs, parts.templates
    sums, masks, bits = parts.base_sums, parts.df_masks, parts.df_bits
    counts, firsts = runs.packets, runs.firsts
    numbers: Numbers
    identifications: Numbers
    if counts is None:
        out.write(0, templates)
        places = np.arange(out.count)
        numbers = places + (int(firsts[0]) & 0xFFFFFFFF)
        identifications = places + parts.identifications
    else:
        if not isinstance(firsts, np.ndarray):
            firsts = np.array([first & 0xFFFFFFFF for first in firsts])
        numbers, identifications = firsts, np.asarray(parts.identifications)
        if len(counts) < out.count:
            which = np.repeat(np.arange(len(counts)), counts)
            templates = templates[which]
            sums, masks, bits = [np.asarray(each)[which] for each in (sums, masks, bits)]
            within = np.arange(out.count) - (np.add.accumulate(counts) - counts)[which]
            numbers = within + numbers[which]
            identifications = within + identifications[which]
        out.write(0, templates)
        numbers = numbers & 0xFFFFFFFF
    service, flags = inner.service, inner.flags & masks | bits
    identifications = identifications & _IDENTIFICATIONS
    _write(out, _SERVICE_AT, 1, service)
    _write(out, _TOTAL_AT, 2, octets)
    _write(out, _FLAGS_AT, 2, flags)
    out.write_numbers(_IDENTIFICATION_AT, 2, identifications)
    # The complement of a sum in ones' complement arithmetic (RFC 1071) is its negative modulo 65535.
    out.write_numbers(_CHECKSUM_AT, 2, -(identifications + (service + octets + flags + sums)) % 0xFFFF)
    if parts.sender.heads.udp:
        _write(out, _UDP_LENGTH_AT, 2, octets - IPV4_HEADER_LENGTH)
    out.write_numbers(templates.shape[-1] - _NUMBER_OCTETS, _NUMBER_OCTETS, numbers)


def _write(out: Columns, at: int, octets: int, values: Numbers | int) -> None:
    """Write a number of each packet, or one for all."""
    if isinstance(values, int):
        out.write(at, np.frombuffer(values.to_bytes(octets, "big"), np.uint8))
    else:
        out.write_numbers(at, octets, values)


def _pieces(
    columns: Columns, heads: Columns, sizes: Numbers, sender: EspSender, runs: SealedRuns, drawn: bytes
) -> list[bytes | bytearray]:
    """Seal packets of different lengths; what is returned is complete after the engine's `flush`."""
    view = columns.octets.data
    head, octets = heads.stride, heads.octets.tobytes()
    iv_octets = sender.layout.iv_octets
    ends = (columns.starts + columns.lengths).tolist()
    spans = list(zip((columns.starts + HEADROOM).tolist(), ends, strict=True))
    whole = sizes.tolist()
    pieces: list[bytes | bytearray] = []
    row = at = 0
    for sealer, packets, first in runs.each(columns.count):
        after = at + sealer.random_octets * packets
        own = drawn[at:after]
        at = after
        ivs = sealer.ivs(first, packets, lambda _, own=own: own)  # type: ignore[misc]
        stop = row + packets
        tops = [octets[place : place + head] for place in range(row * head, stop * head, head)]
        if sealer.iv_in_head and iv_octets:
            tops = [top + iv for top, iv in zip(tops, ivs, strict=True)]
        suffix = sealer.suffix(first)
        tails = [
            TRAILERS[size - (end - start) - ESP_TRAILER_LENGTH] + suffix
            for (start, end), size in zip(spans[row:stop], whole[row:stop], strict=True)
        ]
        if packets <= MAX_SINGLE:
            for index in range(packets):
                start, end = spans[row + index]
                pieces.append(
                    sealer.seal_one(
                        tops[index], view[start:end], tails[index], whole[row + index], ivs[index], first + index
                    )
                )
        else:
            pieces.append(sealer.seal(view, spans[row:stop], tops, tails, whole[row:stop], ivs, first))
        row = stop
    return pieces
