"""Which SA the packets of a batch are for: by destination, protocol and SPI (RFC 4301 4.1).

`split_by_sa` reads the outer headers of a batch without a loop over the packets. It takes ordinary packets only:
whole ones without IPv4 options, with ESP behind the outer header or behind UDP (RFC 3948). All others are for
`items_by_sa`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.causes import Drops, IpsecDropCause, UnknownSa
from chassis.ase.ipsec.outer_header import FRAGMENTATION_NEEDED, IPSEC_PROTOCOLS
from chassis.ase.ipsec.received import Item, PacketColumns
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH
from chassis.net.columns import Bytes, Columns, Numbers
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import (
    FRAGMENT_MASK,
    IPV4_HEADER_LENGTH,
    PROTOCOL_AH,
    PROTOCOL_ESP,
    PROTOCOL_ICMP,
    PROTOCOL_UDP,
)
from chassis.net.udp import IKE_PORT, NAT_PORT, UDP_HEADER_LENGTH

InboundKey: TypeAlias = tuple[int, int, int]
"""(destination, protocol, SPI) within one context."""

Punted: TypeAlias = tuple[int, memoryview]
"""A punted packet: index in the batch, packet."""

Sa = TypeVar("Sa")

_OUTER: Final = struct.Struct("!BBHxxHxBxxIIIII").unpack_from
_THREE: Final = struct.Struct("!III").unpack_from
_TWO: Final = struct.Struct("!II").unpack_from
_HEAD: Final = struct.Struct("!2xH12xII").unpack_from
"""Length and destination of a packet, and the SPI behind a header without options."""
_UDP: Final = struct.Struct("!4xH2xI").unpack_from
"""Length of a datagram, and the SPI in it."""
_NUMBER: Final = np.dtype(">u4")
_PORT: Final = struct.Struct("!H").unpack_from
_MIN_LENGTH: Final = HEADROOM + IPV4_HEADER_LENGTH + 12
"""Shortest packet that can be ESP or AH: the three words after the outer header hold SPI and sequence number."""
_NO_OPTIONS: Final = 0x45
"""Version and header length of an IPv4 packet without options."""

MIN_COLUMNS: Final = 16
"""Packets (count) of an SA in a batch from which on columns are faster than a loop, if all have one length."""
MIN_MIXED: Final = 48
"""The same, if they have several lengths."""
MIN_JOINT: Final = 32
"""Packets (count) of several SAs in a batch from which on columns are faster than a loop."""

_MIN_ESP: Final = 12
"""Octets behind the outer header that every packet of IPsec has."""

_SAMPLE: Final = 8
"""Packets (count) that are looked at first."""

_PLAIN, _IN_UDP = IPV4_HEADER_LENGTH, IPV4_HEADER_LENGTH + UDP_HEADER_LENGTH
"""Octets before the ESP header."""


class InboundSas(dict[InboundKey, Sa]):
    """The inbound SAs of one context. `esp` are those with ESP outermost, by destination << 32 | SPI."""

    __slots__ = ("esp",)

    def __init__(self) -> None:
        super().__init__()
        self.esp: dict[int, Sa] = {}

    def __setitem__(self, key: InboundKey, sa: Sa) -> None:
        super().__setitem__(key, sa)
        destination, protocol, spi = key
        if protocol == PROTOCOL_ESP:
            self.esp[destination << 32 | spi] = sa

    def __delitem__(self, key: InboundKey) -> None:
        super().__delitem__(key)
        destination, protocol, spi = key
        if protocol == PROTOCOL_ESP:
            del self.esp[destination << 32 | spi]


class OuterColumns(NamedTuple):
    """The outer headers of a batch of several SAs.

    `before` are the octets between the beginnings of the outer header and of the ESP header. Of each packet:
    `keys`, destination << 32 | SPI; `totals`, octets of the outer packet; `services`, the outer type of service;
    `numbers`, the sequence number as sent; `ports`, the UDP source port (None: without UDP); `sources`. `right`
    are the indices of the ordinary packets: only theirs have a meaning.
    """

    view: memoryview
    columns: Columns
    before: int
    keys: NDArray[np.uint64]
    totals: Numbers
    services: Bytes
    numbers: Numbers
    right: Numbers
    sources: NDArray[np.uint32]
    ports: NDArray[np.uint16] | None

    def packets(self, rows: Numbers) -> PacketColumns:
        """Return some of the packets, in this order."""
        services, before = self.services[rows].tobytes(), self.before
        packets = PacketColumns(self.view, rows.tolist(), before, services, self.numbers[rows])
        packets.lay(self.columns.starts[rows] + (HEADROOM + before), self.totals[rows] - before)
        return packets


@dataclass(frozen=True, slots=True)
class _Form:
    """What ordinary packets have in the `words` first 32-bit words of a packet, which end with SPI and number.

    `before` are the octets before the ESP header. `fixed` is the same in all packets, where `mask` has ones.
    `same` has ones where packets of one SA are the same, `same_length` where those of one length are too. All
    words are in the machine's byte order.
    """

    before: int
    words: int
    fixed: NDArray[np.uint32]
    mask: NDArray[np.uint32]
    same: NDArray[np.uint32]
    same_length: NDArray[np.uint32]

    @classmethod
    def of(cls, before: int, protocol: int) -> _Form:
        udp = before == _IN_UDP
        fixed = struct.pack("!BBHHHBBHII", 0x45, 0, 0, 0, 0, 0, protocol, 0, 0, 0)
        mask = struct.pack("!BBHHHBBHII", 0xFF, 0, 0, 0, FRAGMENT_MASK, 0, 0xFF, 0, 0, 0)
        same = mask[:16] + b"\xff" * 4
        same_length = mask[:2] + b"\xff\xff" + same[4:]
        if udp:
            fixed += struct.pack("!HHHH", 0, NAT_PORT, 0, 0)
            mask += struct.pack("!HHHH", 0, 0xFFFF, 0, 0)
            same += struct.pack("!HHHH", 0, 0xFFFF, 0, 0)
            same_length += struct.pack("!HHHH", 0, 0xFFFF, 0xFFFF, 0)
        fixed, mask = fixed + bytes(8), mask + bytes(8)
        tail = b"\xff" * 4 + bytes(4)
        rows = (fixed, mask, same + tail, same_length + tail)
        arrays = [np.frombuffer(row, np.uint32) for row in rows]
        return cls(before, len(arrays[0]), *arrays)

    def one_sa(self, same: NDArray[np.uint32]) -> bool:
        """Whether packets are ordinary and of one SA; `same` are their words where packets of one SA are the
        same."""
        octets = same.tobytes()
        header = octets[: 4 * self.words]
        return (
            octets == header * len(same)
            and header[0] == _NO_OPTIONS
            and not (header[6] << 8 | header[7]) & FRAGMENT_MASK
            and (self.before == _PLAIN or header[22] << 8 | header[23] == NAT_PORT)
        )


_FORMS: Final = {PROTOCOL_ESP: _Form.of(_PLAIN, PROTOCOL_ESP), PROTOCOL_UDP: _Form.of(_IN_UDP, PROTOCOL_UDP)}


def split_by_sa(
    inbound: Container[InboundKey], body: Octets, lengths: Sequence[int]
) -> tuple[InboundKey, PacketColumns] | OuterColumns | None:
    """Return the packets of a batch if all are of one SA of `inbound`, or the outer headers if they are of
    several; None if the packets are to be looked at one by one.

    `lengths` are octets, headroom included.
    """
    if len(lengths) < MIN_COLUMNS or not isinstance(lengths, array) or len(body) < HEADROOM + IPV4_HEADER_LENGTH:
        return None
    form = _FORMS.get(body[HEADROOM + 9])
    if form is None:
        return None
    columns = Columns(body, lengths)
    # Whether the first packets are of several SAs tells whether those of the batch are.
    at, stride = HEADROOM + form.before + 3, columns.stride
    spis: set[int]
    if stride:
        least, size = stride, stride * columns.count
        spis = set(body[at : at + _SAMPLE * stride : stride])
    else:
        least, size = int(np.minimum.reduce(columns.lengths)), int(columns.starts[-1]) + lengths[-1]
        spis = set()
        for length in lengths[:_SAMPLE]:
            spis.update(body[at : at + 1])
            at += length
    enough = MIN_JOINT if len(spis) > 1 else MIN_COLUMNS if stride else MIN_MIXED
    if columns.count < enough or size != len(body) or least < HEADROOM + _IN_UDP + ESP_HEADER_LENGTH:
        return None
    view = memoryview(body)
    if stride:
        words = np.ndarray((columns.count, form.words), np.uint32, body, HEADROOM, (stride, 4))
        if form.one_sa(words & form.same_length):
            return _even(inbound, view, columns, form)
    rows = columns.read(HEADROOM, 4 * form.words)
    if not stride and form.one_sa(rows.view(np.uint32) & form.same):
        return _one_sa(inbound, view, columns, form, rows)
    return _several(view, columns, form, rows)


def _even(
    inbound: Container[InboundKey], view: memoryview, columns: Columns, form: _Form
) -> tuple[InboundKey, PacketColumns] | None:
    """The packets are all of one SA and have one length, also by their headers."""
    before, count, stride = form.before, columns.count, columns.stride
    total, destination, spi = _HEAD(view, HEADROOM)
    if before == _IN_UDP:
        udp_length, spi = _UDP(view, HEADROOM + IPV4_HEADER_LENGTH)
        if udp_length != total - IPV4_HEADER_LENGTH or not spi:
            return None
    key = (destination, PROTOCOL_ESP, spi)
    if key not in inbound or not before + _MIN_ESP <= total <= stride - HEADROOM:
        return None
    numbers = np.ndarray((count,), _NUMBER, view, HEADROOM + before + 4, (stride,)).astype(np.int64)
    found = PacketColumns(view, range(count), before, bytes(view[HEADROOM + 1 :: stride]), numbers)
    found.lay_even(HEADROOM + before, stride, total - before)
    return key, found


def _one_sa(
    inbound: Container[InboundKey], view: memoryview, columns: Columns, form: _Form, rows: Bytes
) -> tuple[InboundKey, PacketColumns] | OuterColumns | None:
    """The packets are all of one SA, and have several lengths."""
    before = form.before
    _, destination, spi = _HEAD(view, HEADROOM)
    if before == _IN_UDP:
        _, spi = _UDP(view, HEADROOM + IPV4_HEADER_LENGTH)
    key = (destination, PROTOCOL_ESP, spi)
    if not spi or key not in inbound:
        return None
    numbers = rows.view(_NUMBER)[:, form.words - 1].astype(np.int64)
    found = PacketColumns(view, range(columns.count), before, rows[:, 1].tobytes(), numbers)
    halves = rows.view(">u2")
    totals = halves[:, 1].astype(np.int64)
    whole = before == _PLAIN and totals.tobytes() == (columns.lengths - HEADROOM).tobytes()
    if not whole and bool(_misfits(columns, totals, before, halves).any()):
        return _several(view, columns, form, rows)
    found.lay(columns.starts + (HEADROOM + before), totals - before)
    return key, found


def _several(view: memoryview, columns: Columns, form: _Form, rows: Bytes) -> OuterColumns:
    """The packets are of several SAs, or some are not ordinary ones."""
    words, halves, numbers = rows.view(np.uint32), rows.view(">u2"), rows.view(_NUMBER)
    before = form.before
    odd = np.bitwise_or.reduce((words ^ form.fixed) & form.mask, axis=1) != 0
    totals = halves[:, 1].astype(np.int64)
    odd |= _misfits(columns, totals, before, halves)
    spis = numbers[:, form.words - 2].astype(np.uint64)
    if before == _IN_UDP:
        odd |= spis == 0
    keys = numbers[:, 4].astype(np.uint64) << np.uint64(32) | spis
    right = (~odd).nonzero()[0]
    sequence = numbers[:, form.words - 1].astype(np.int64)
    ports = halves[:, 10] if before == _IN_UDP else None
    return OuterColumns(view, columns, before, keys, totals, rows[:, 1], sequence, right, numbers[:, 3], ports)


def _misfits(columns: Columns, totals: Numbers, before: int, halves: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Return which packets are too short or too long for what their headers say."""
    wrong: NDArray[np.bool_] = totals > columns.lengths - HEADROOM
    wrong |= totals < before + _MIN_ESP
    if before == _IN_UDP:
        wrong |= halves[:, 12] != totals - IPV4_HEADER_LENGTH
    return wrong


def items_by_sa(
    inbound: Mapping[InboundKey, Sa],
    view: memoryview,
    rows: Iterable[tuple[int, int]],
    offset: int,
    drops: Drops,
    punted: list[Punted],
    pending: dict[Sa, list[Item]],
) -> None:
    """Add packets, (index, length) from `offset` on, to those of their SAs. Punt fragments, packets for IKE and
    ICMP "fragmentation needed"; drop all others."""
    add: Callable[[Item], None] | None = None
    last: InboundKey | None = None
    size = len(view)
    for index, length in rows:
        start = offset + HEADROOM
        offset += length
        if length < _MIN_LENGTH or offset > size:
            short = _short_packet(view, start, min(offset, size))
            if short is None:
                drops.add(IpsecDropCause.MALFORMED)
            else:
                punted.append((index, short))
            continue
        version_length, service, total, flags, protocol, source, destination, one, two, three = _OUTER(view, start)
        at = start + IPV4_HEADER_LENGTH
        end = start + total
        if (
            protocol == PROTOCOL_ESP
            and version_length == _NO_OPTIONS
            and not flags & FRAGMENT_MASK
            and at + 12 <= end <= offset
        ):
            spi, number = one, two
        else:
            if version_length != 0x45:
                at = start + (version_length & 15) * 4
                if version_length >> 4 != 4 or at < start + IPV4_HEADER_LENGTH or at + 12 > offset:
                    drops.add(IpsecDropCause.MALFORMED, 0, source)
                    continue
                one, two, three = _THREE(view, at)
            if end > offset or end < at + 12:
                short = _short_packet(view, start, offset)
                if short is None:
                    drops.add(IpsecDropCause.MALFORMED, 0, source)
                else:
                    punted.append((index, short))
                continue
            if flags & FRAGMENT_MASK:
                if protocol in IPSEC_PROTOCOLS:
                    punted.append((index, view[start:end]))
                else:
                    drops.add(IpsecDropCause.NOT_IPSEC, 0, source)
                continue
            if protocol == PROTOCOL_ESP:
                spi, number = one, two
            elif protocol == PROTOCOL_AH:
                spi, number = two, three
            elif protocol == PROTOCOL_UDP:
                port = one & 0xFFFF
                if port == IKE_PORT or (
                    port == NAT_PORT and (not three or end < at + UDP_HEADER_LENGTH + ESP_HEADER_LENGTH)
                ):
                    # On port 4500 a zero SPI marks a message of IKE (RFC 3948 2.2).
                    punted.append((index, view[start:end]))
                    continue
                if port != NAT_PORT:
                    drops.add(IpsecDropCause.NOT_IPSEC, 0, source)
                    continue
                if two >> 16 != end - at:
                    drops.add(IpsecDropCause.MALFORMED, 0, source)
                    continue
                at += UDP_HEADER_LENGTH
                protocol = PROTOCOL_ESP
                spi, number = _TWO(view, at)
            elif protocol == PROTOCOL_ICMP and one >> 16 == FRAGMENTATION_NEEDED:
                punted.append((index, view[start:end]))
                continue
            else:
                drops.add(IpsecDropCause.NOT_IPSEC, 0, source)
                continue
        key = (destination, protocol, spi)
        if key != last:
            sa = inbound.get(key)
            last = key
            if sa is None:
                add = None
            else:
                add = pending.setdefault(sa, []).append
        if add is None:
            drops.add(IpsecDropCause.NO_INBOUND_SA, spi, source, number)
            if drops.unknown is None:
                udp_port = _PORT(view, at - UDP_HEADER_LENGTH)[0] if view[start + 9] == PROTOCOL_UDP else 0
                drops.unknown = UnknownSa(source, destination, protocol, spi, udp_port)
        else:
            add((index, start, at, end, service, number))


def _short_packet(view: memoryview, start: int, stop: int) -> memoryview | None:
    """Return a packet too short for ESP if it must be punted: a UDP datagram (a NAT keepalive has one octet,
    RFC 3948 2.3) or the last fragment of a packet. Otherwise None."""
    if stop - start < IPV4_HEADER_LENGTH or view[start] >> 4 != 4 or view[start + 9] not in IPSEC_PROTOCOLS:
        return None
    if view[start + 9] != PROTOCOL_UDP and not (view[start + 6] << 8 | view[start + 7]) & FRAGMENT_MASK:
        return None
    end = start + (view[start + 2] << 8 | view[start + 3])
    return view[start:end] if start + IPV4_HEADER_LENGTH < end <= stop else None
