"""Outer IPv4 headers, their UDP headers (RFC 3948), and the sequences of their identifications (RFC 6864).

`EspHeads` makes the outer headers of ESP. AH writes its own (`ah`).

A receiver reassembles fragments by source, destination, protocol and identification (RFC 791 3.2), not by SPI.
All SAs between the same ends therefore share one sequence of identifications (RFC 6864 section 4): otherwise two
fragmented packets could have the same identification at the same time, and one lost fragment would cost both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

from chassis.ase.ipsec.cell_table import CellTable
from chassis.ase.ipsec.sa import UdpPorts
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_UDP

IPSEC_PROTOCOLS: Final = frozenset((PROTOCOL_UDP, PROTOCOL_ESP, PROTOCOL_AH))
"""Protocols of encapsulated packets and of IKE: ESP, AH, and UDP for both (RFC 3948)."""

FRAGMENTATION_NEEDED: Final = 3 << 8 | 4
"""ICMP type and code for a packet that DF forbids to fragment (RFC 792)."""

OUTER_TTL: Final = 64


def ipv4_checksum(words: Iterable[int]) -> int:
    """Return the Internet checksum (RFC 1071) of 16-bit words."""
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def header_base_sum(source: int, destination: int, protocol: int) -> int:
    """Return the sum of the outer header's words that are constant for an SA.

    They are version, header length, TTL, protocol and both addresses. The caller adds the type of service, total
    length, identification and flags.
    """
    return (
        0x4500
        + (OUTER_TTL << 8 | protocol)
        + (source >> 16)
        + (source & 0xFFFF)
        + (destination >> 16)
        + (destination & 0xFFFF)
    )


_LINK: Final = f"!{HEADROOM}x"
_IPV4: Final = "HHHIH"


@lru_cache(maxsize=64)
def _layout(text: str) -> struct.Struct:
    """Return the layout of heads, which SAs share: there are few, and tens of thousands of SAs."""
    return struct.Struct(text)


class EspHeads:
    """Makes the head of every packet of one outbound ESP: room for the link header, outer header, UDP header (RFC
    3948), ESP header, IV.

    With AH before ESP, `ah_octets` of its header, the outer header is left zero too: AH authenticates and writes
    it. `octets` is the length of a head.
    """

    __slots__ = ("_bundled", "_ends", "_pack", "_spi", "_ttl_protocol", "base_sum", "octets", "template", "udp")

    def __init__(
        self, spi: int, source: int, destination: int, udp: UdpPorts | None, ah_octets: int, iv_octets: int
    ) -> None:
        """`iv_octets` is the length of the IVs that `make` is given."""
        protocol = PROTOCOL_ESP if udp is None else PROTOCOL_UDP
        self._bundled = ah_octets > 0
        self.udp = udp is not None
        """Whether there is a UDP header."""
        self._ttl_protocol = OUTER_TTL << 8 | protocol
        self.base_sum = header_base_sum(source, destination, protocol)
        """Sum of the words of the outer header that all packets have in common."""
        self._spi = struct.pack("!I", spi)
        self._ends = struct.pack("!II", source, destination)
        if self._bundled:
            layout = f"!{HEADROOM + IPV4_HEADER_LENGTH + ah_octets}x4sI{iv_octets}s"
        elif udp is None:
            self._ends += self._spi
            layout = f"{_LINK}{_IPV4}12sI{iv_octets}s"
        else:
            self._ends += struct.pack("!HH", udp.source, udp.destination)
            layout = f"{_LINK}{_IPV4}12sHxx4sI{iv_octets}s"
        head = _layout(layout)
        self._pack = head.pack
        self.octets = head.size
        self.template = b""
        """The head, without IV, of a packet whose variable fields are zero. There is none with AH before ESP."""
        if not self._bundled:
            more = () if udp is None else (0, self._spi)
            empty: bytes = head.pack(0x4500, 0, 0, self._ttl_protocol, 0, self._ends, *more, 0, bytes(iv_octets))
            self.template = empty[: head.size - iv_octets]

    def make(
        self,
        lengths: Sequence[int],
        marks: Sequence[int],
        identifications: Sequence[int],
        first: int,
        ivs: Sequence[bytes],
    ) -> list[bytes]:
        """Return the heads of a batch of packets with sequence numbers (32 bits) from `first` on.

        `lengths` are octets, headroom included. `marks` holds the outer type of service << 16 | outer flags of
        each packet. The UDP checksum is zero, which a NAT need not change (RFC 3948 2.1).
        """
        pack, base_sum, ends, udp = self._pack, self.base_sum, self._ends, self.udp
        numbers = range(first, first + len(lengths))
        if self._bundled:
            spi = self._spi
            return [pack(spi, number, iv) for number, iv in zip(numbers, ivs, strict=True)]
        heads: list[bytes] = []
        add = heads.append
        known = -1
        service = flags = base = 0
        rows = zip(lengths, marks, identifications, numbers, ivs, strict=True)
        for length, mark, identification, number, iv in rows:
            if mark != known:
                known = mark
                service = 0x4500 | mark >> 16
                flags = (mark & 0xFFFF) << 16 | self._ttl_protocol
                base = base_sum + (mark >> 16) + (mark & 0xFFFF) - HEADROOM
            # The complement of a sum in ones' complement arithmetic (RFC 1071) is its negative modulo 65535.
            checksum = -(base + length + identification) % 0xFFFF
            octets = length - HEADROOM
            if udp:
                payload = octets - IPV4_HEADER_LENGTH
                add(pack(service, octets, identification, flags, checksum, ends, payload, self._spi, number, iv))
            else:
                add(pack(service, octets, identification, flags, checksum, ends, number, iv))
        return heads


Ends: TypeAlias = tuple[int, int, int]
"""(source, destination, protocol) of outer headers."""

ID_COUNT: Final = 1 << 16
NEXT_ID, ID_IN_USE = range(2)
"""Of a sequence: the next identification; whether one was allocated."""
_ID_CELLS: Final = 2


class Ipv4IdSequence:
    """The identifications of one source, destination and protocol.

    The first value is derived from the SPIs and sequence numbers of the SAs. A restarted process that continues
    with the same SAs therefore continues here too, and a rekeyed SA does not repeat recent identifications.
    `row` is its row in the table of all sequences.
    """

    __slots__ = ("__weakref__", "_at", "_table", "row")

    def __init__(self, table: CellTable | None = None) -> None:
        """`table` has the `NEXT_ID` and `ID_IN_USE` of each sequence; None makes one of its own."""
        self._table = CellTable(_ID_CELLS) if table is None else table
        self.row = self._table.allocate()
        self._at = _ID_CELLS * self.row

    def __del__(self) -> None:
        self._table.free(self.row)

    def add_sa(self, spi: int, number: int) -> None:
        """Add an SA whose next sequence number is `number`. A sequence in use does not move."""
        cells, at = self._table.cells, self._at
        if not cells[at + ID_IN_USE]:
            cells[at + NEXT_ID] = (cells[at + NEXT_ID] + spi + number) % ID_COUNT

    def allocate(self, count: int) -> Sequence[int]:
        """Return the next `count` identifications, 0 to 65535."""
        cells, at = self._table.cells, self._at
        first: int = cells[at + NEXT_ID]
        after = first + count
        cells[at + NEXT_ID] = after % ID_COUNT
        cells[at + ID_IN_USE] = 1
        if after <= ID_COUNT:
            return range(first, after)
        return [number % ID_COUNT for number in range(first, after)]

    def allocate_first(self, count: int) -> int:
        """Allocate `count` identifications; return the first. The others follow it, modulo 65536."""
        cells, at = self._table.cells, self._at
        first: int = cells[at + NEXT_ID]
        cells[at + NEXT_ID] = (first + count) % ID_COUNT
        cells[at + ID_IN_USE] = 1
        return first


class Ipv4IdSequences:
    """The sequences in use. A sequence is removed with the last SA that uses it."""

    __slots__ = ("_sequences", "table")

    def __init__(self) -> None:
        self._sequences: WeakValueDictionary[Ends, Ipv4IdSequence] = WeakValueDictionary()
        self.table = CellTable(_ID_CELLS)
        """`NEXT_ID` and `ID_IN_USE` of each sequence."""

    def get_or_create(self, ends: Ends) -> Ipv4IdSequence:
        """Return the sequence for these ends. The SA must keep the reference."""
        sequence = self._sequences.get(ends)
        if sequence is None:
            sequence = self._sequences[ends] = Ipv4IdSequence(self.table)
        return sequence

    def find(self, ends: Ends) -> Ipv4IdSequence | None:
        """Return the sequence for these ends; None if no SA uses it."""
        return self._sequences.get(ends)
