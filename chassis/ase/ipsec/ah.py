"""AH in tunnel mode, a batch at a time (RFC 4302).

The ICV covers the outer header with its mutable fields zero, the AH header with a zero ICV, and the payload: the
inner packet, or ESP.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from hmac import compare_digest
from typing import Final

from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.esp import DropItem, Span, icv_with_esn, refusal
from chassis.ase.ipsec.outer_header import OUTER_TTL, header_base_sum
from chassis.ase.ipsec.received import Item
from chassis.ase.ipsec.replay import accept_batch, bits_behind, infer_esn
from chassis.ase.ipsec.sa import AH_FIXED_LENGTH, Ah
from chassis.ase.ipsec.state import WindowStore
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_IPIP

_OUTER_AH: Final = struct.Struct("!HHHHHHIIBBxxII").pack_into
_MUTABLE: Final = struct.Struct("!HHHHBBH").pack_into

_END_OF_OPTIONS, _NO_OPERATION = 0, 1
_IMMUTABLE_OPTIONS: Final = frozenset((130, 133, 134, 148, 149))
"""Security, extended security, commercial security, router alert, multi-destination delivery."""


def authenticated_header(view: memoryview, start: int, at: int, header_octets: int) -> bytes:
    """Return the outer header at `start` and the AH header at `at` as the ICV covers them (RFC 4302 3.3.3.1,
    appendix A1)."""
    head = bytearray(view[start : at + header_octets])
    options = at - start
    head[1] = 0
    head[6:9] = b"\0\0\0"
    head[10:12] = b"\0\0"
    place = IPV4_HEADER_LENGTH
    while place < options and head[place] != _END_OF_OPTIONS:
        if head[place] == _NO_OPERATION:
            place += 1
            continue
        octets = head[place + 1] if place + 1 < options else 0
        stop = min(place + octets, options) if octets >= 2 else options
        if head[place] not in _IMMUTABLE_OPTIONS:
            head[place:stop] = bytes(stop - place)
        place = stop
    head[options + AH_FIXED_LENGTH :] = bytes(header_octets - AH_FIXED_LENGTH)
    return bytes(head)


class AhSender:
    """Outbound AH of one SA: writes the outer header, AH and, without ESP, the inner packets."""

    __slots__ = ("_base_sum", "_destination", "_esn", "_icv", "_next", "_octets", "_source", "_spi")

    def __init__(self, ah: Ah, source: int, destination: int, with_esp: bool, esn: bool) -> None:
        self._esn = esn
        self._spi = ah.spi
        self._icv = ah.integrity_algorithm.keyed(ah.key).icv
        self._octets = ah.header_octets
        self._next = PROTOCOL_ESP if with_esp else PROTOCOL_IPIP
        self._source = source
        self._destination = destination
        self._base_sum = header_base_sum(source, destination, PROTOCOL_AH)

    def make_room(self, view: memoryview, spans: Sequence[tuple[int, int]]) -> tuple[bytearray, array[int]]:
        """Return the inner packets as a batch with room for link header, outer header and AH before each."""
        room = bytes(HEADROOM + IPV4_HEADER_LENGTH + self._octets)
        pieces: list[bytes | memoryview] = []
        for start, end in spans:
            pieces += (room, view[start:end])
        lengths = array("H", [end - start + len(room) for start, end in spans])
        return bytearray().join(pieces), lengths

    def add_icv(
        self,
        out: bytearray,
        lengths: Sequence[int],
        marks: Sequence[int],
        identifications: Sequence[int],
        first: int,
        next_headers: Sequence[int] | None,
    ) -> None:
        """Write the outer header and AH of every packet of a batch in place.

        `next_headers` holds the protocol behind AH in each packet; None is the SA's usual one. The numbers from
        `first` on have the same high half. `marks` and `identifications` as for `EspSender.encrypt`.
        """
        window = memoryview(out)
        icv, base_sum, octets = self._icv, self._base_sum, self._octets
        if self._esn:
            icv = icv_with_esn(icv, first)
            first &= 0xFFFFFFFF
        words = octets // 4 - 2
        offset = 0
        protocols = next_headers if next_headers is not None else [self._next] * len(lengths)
        numbers = range(first, first + len(lengths))
        rows = zip(numbers, identifications, lengths, marks, protocols, strict=True)
        for number, identification, length, mark, protocol in rows:
            start = offset + HEADROOM
            offset += length
            size = length - HEADROOM
            _OUTER_AH(
                out, start, 0x4500, size, identification, 0, PROTOCOL_AH, 0, self._source,
                self._destination, protocol, words, self._spi, number,
            )  # fmt: skip
            value = icv(window[start:offset])
            place = start + IPV4_HEADER_LENGTH + AH_FIXED_LENGTH
            window[place : place + len(value)] = value
            flags = mark & 0xFFFF
            total = base_sum + (mark >> 16) + size + identification + flags
            total = (total & 0xFFFF) + (total >> 16)
            _MUTABLE(
                out, start, 0x4500 | mark >> 16, size, identification, flags, OUTER_TTL, PROTOCOL_AH,
                ~(total + (total >> 16)) & 0xFFFF,
            )  # fmt: skip


class AhReceiver:
    """Inbound AH of one SA and its replay window."""

    __slots__ = ("_bitmap", "_bits_behind", "_edge", "_esn", "_icv", "_octets", "_slot", "_window", "spi")

    def __init__(self, ah: Ah, window: int, slot: WindowStore, esn: bool) -> None:
        self.spi = ah.spi
        self._esn = esn
        self._icv = ah.integrity_algorithm.keyed(ah.key).icv
        self._octets = ah.header_octets
        self._window = window
        self._slot = slot
        edge, bitmap = slot.window()
        self._edge = edge
        self._bitmap = bitmap & ((1 << window) - 1)
        self._bits_behind = bits_behind(window)

    def verify_icv(self, view: memoryview, items: list[Item], drop: DropItem) -> list[Span]:
        """Verify packets whose AH header is at item[2]; return the spans behind AH.

        The window is stored before this returns. Dropped packets go to `drop`.
        """
        octets, spi, icv = self._octets, self.spi, self._icv
        words = octets // 4 - 2
        whole: list[Item] = []
        for item in items:
            if item[3] - item[2] < octets or view[item[2] + 1] != words:
                drop(IpsecDropCause.MALFORMED, item, spi)
            else:
                whole.append(item)

        def authentic(index: int) -> bool:
            _, start, at, end, _, _ = whole[index]
            value = icv(view[at + octets : end], authenticated_header(view, start, at, octets))
            return compare_digest(value, view[at + AH_FIXED_LENGTH : at + octets])

        def authentic_extended(index: int) -> bool:
            _, start, at, end, _, _ = whole[index]
            head = authenticated_header(view, start, at, octets)
            value = icv_with_esn(icv, numbers[index])(view[at + octets : end], head)
            return compare_digest(value, view[at + AH_FIXED_LENGTH : at + octets])

        if self._esn:
            # Infer all from the window's edge before the batch, as `EspReceiver` does.
            numbers = [infer_esn(self._edge, self._window, item[5]) for item in whole]
        else:
            numbers = [item[5] for item in whole]
        edge, bitmap, accepted, refused = accept_batch(
            self._edge, self._bitmap, self._window, numbers, authentic_extended if self._esn else authentic
        )
        for index, verdict in refused:
            cause = refusal(verdict, numbers[index], self._esn, IpsecDropCause.AH_AUTHENTICATION)
            drop(cause, whole[index], spi)
        if accepted:
            self._slot.store_window(edge, bitmap | self._bits_behind)
            self._edge, self._bitmap = edge, bitmap
        taken = [whole[index] for index in accepted]
        return [(item, item[2] + octets, item[3], view[item[2]]) for item in taken]
