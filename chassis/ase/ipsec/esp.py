"""ESP in tunnel mode, a batch at a time (RFC 4303, RFC 3602 section 3).

One CBC context lives as long as its SA. The sender starts every packet with a fresh random block, whose ciphertext
is the IV of the packet; so one call encrypts the packets of a batch. The receiver decrypts the IVs and ciphertexts
of a batch with one call and skips the first block of each packet, which has no meaning.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Final, TypeAlias

from chassis.ase.ipsec.algorithms import IcvFunction, Octets
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.outer_header import OUTER_TTL, header_base_sum
from chassis.ase.ipsec.replay import Verdict, accept_batch, bits_behind, infer_esn
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH, Esp
from chassis.ase.ipsec.state import WindowStore
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_ESP, PROTOCOL_IPIP

Item: TypeAlias = tuple[int, int, int, int, int, int]
"""A received packet: index in the batch, offset of its outer IPv4 header, offset of the ESP or AH header, end,
outer type of service, sequence number. Offsets are octets in the body of the batch."""

Span: TypeAlias = tuple[Item, int, int, int]
"""A received packet and its payload: (item, start, end, protocol of the payload)."""

DropItem: TypeAlias = Callable[[IpsecDropCause, Item, int], None]
"""`drop(cause, item, spi)` counts a dropped packet."""

VERDICT_CAUSES: Final = {
    Verdict.OUTSIDE_WINDOW: IpsecDropCause.OUTSIDE_WINDOW,
    Verdict.REPLAYED: IpsecDropCause.REPLAYED,
}

_OUTER_ESP: Final = struct.Struct("!HHHHHHIIII").pack_into
_ESP: Final = struct.Struct("!II").pack_into

_PADDING: Final = bytes(range(1, 256))
_PADDINGS: Final = [_PADDING[:octets] for octets in range(256)]
TRAILERS: Final = [_PADDING[:octets] + bytes((octets, PROTOCOL_IPIP)) for octets in range(256)]
"""ESP trailers after an IPv4 packet, by the octets of padding (RFC 4303 2.4)."""
_HIGH: Final = struct.Struct("!I").pack
_VERSION_LENGTH: Final = 0x4500
_TTL_PROTOCOL: Final = OUTER_TTL << 8 | PROTOCOL_ESP


def icv_with_esn(icv: IcvFunction, number: int) -> IcvFunction:
    """Return the ICV function for packets whose extended number has the same high 32 bits as `number`.

    The high half is authenticated at the end of the packet but not sent (RFC 4303 2.8, 3.3.2.1, RFC 4302
    3.3.3.3.2.2).
    """
    high = _HIGH(number >> 32)

    def extended(data: Octets, head: Octets | None = None) -> bytes:
        return icv(high, data if head is None else b"".join((head, data)))

    return extended


def payload_span(item: Item, clear: memoryview, start: int, after: int) -> Span | None:
    """Return the span of the payload in decrypted octets whose ESP trailer ends at `after`; None if the padding is
    wrong."""
    padding = clear[after - 2]
    end = after - ESP_TRAILER_LENGTH - padding
    if end < start or clear[end : after - ESP_TRAILER_LENGTH] != _PADDINGS[padding]:
        return None
    return item, start, end, clear[after - 1]


def _set_next_headers(clear: bytes, sizes: Sequence[int], next_headers: Sequence[int] | None) -> bytes:
    """Return the payloads with the next header of each trailer replaced by `next_headers` (None: all stay
    IPv4)."""
    if next_headers is None:
        return clear
    octets = bytearray(clear)
    end = 0
    for size, next_header in zip(sizes, next_headers, strict=True):
        end += size
        octets[end - 1] = next_header
    return bytes(octets)


class EspSender:
    """Outbound ESP of one SA: keyed contexts and the constant parts of the headers.

    `_lead` is the octets between the start of a packet's room and its ESP header: link header, outer IPv4 header
    and `room` octets for AH or UDP. The outer header is written here only if `room` is 0.
    """

    __slots__ = ("_base_sum", "_block", "_destination", "_encryptor", "_esn", "_icv", "_icv_octets",
                 "_iv_octets", "_lead", "_outer", "_source", "_spi")  # fmt: skip

    def __init__(self, esp: Esp, source: int, destination: int, room: int, esn: bool) -> None:
        cipher = esp.cipher_algorithm
        integrity = esp.integrity_algorithm
        self._spi = esp.spi
        self._encryptor = cipher.encryptor(esp.cipher_key)
        self._block = cipher.block_octets
        self._iv_octets = cipher.iv_octets
        self._icv = integrity.keyed(esp.integrity_key) if integrity else None
        self._icv_octets = esp.icv_octets
        self._source = source
        self._destination = destination
        self._esn = esn
        self._outer = not room
        self._lead = HEADROOM + IPV4_HEADER_LENGTH + room
        self._base_sum = header_base_sum(source, destination, PROTOCOL_ESP)

    def _ciphertext(
        self,
        view: memoryview,
        spans: Sequence[tuple[int, int]],
        next_headers: Sequence[int] | None,
        random: Callable[[int], bytes],
    ) -> tuple[memoryview, list[int]]:
        """Return IV and ciphertext of every packet, end to end, and the octets of each."""
        block, iv_octets, trailers = self._block, self._iv_octets, TRAILERS
        pieces: list[bytes | memoryview] = []
        sizes: list[int] = []
        add_size = sizes.append
        if self._encryptor is None:
            for start, end in spans:
                trailer = trailers[(start - end - ESP_TRAILER_LENGTH) % block]
                pieces += (view[start:end], trailer)
                add_size(end - start + len(trailer))
            return memoryview(_set_next_headers(b"".join(pieces), sizes, next_headers)), sizes
        blocks = memoryview(random(iv_octets * len(spans)))
        at = 0
        for start, end in spans:
            trailer = trailers[(start - end - ESP_TRAILER_LENGTH) % block]
            pieces += (blocks[at : at + iv_octets], view[start:end], trailer)
            at += iv_octets
            add_size(iv_octets + end - start + len(trailer))
        return memoryview(self._encryptor.update(_set_next_headers(b"".join(pieces), sizes, next_headers))), sizes

    def encrypt(
        self,
        view: memoryview,
        spans: Sequence[tuple[int, int]],
        marks: Sequence[int],
        identifications: Sequence[int],
        first: int,
        next_headers: Sequence[int] | None,
        random: Callable[[int], bytes],
    ) -> tuple[bytearray, array[int]]:
        """Encapsulate the packets at `spans` of `view` with sequence numbers from `first` on, all with the same
        high half.

        `marks` holds the outer type of service << 16 | outer flags of each packet, `identifications` those of the
        outer headers if they are written here, `next_headers` the next headers (None: all IPv4). `random(n)`
        returns n unpredictable octets. Returns a batch with room for the link header, the outer header and AH or
        UDP.
        """
        ciphertext, sizes = self._ciphertext(view, spans, next_headers, random)
        lead, icv, icv_octets, with_outer = self._lead, self._icv, self._icv_octets, self._outer
        if self._esn:
            icv = None if icv is None else icv_with_esn(icv, first)
            first &= 0xFFFFFFFF
        base_sum, spi, source, destination = self._base_sum, self._spi, self._source, self._destination
        fixed = lead + ESP_HEADER_LENGTH + icv_octets
        out = bytearray(len(ciphertext) + fixed * len(sizes))
        window = memoryview(out)
        lengths = array("H", [size + fixed for size in sizes])
        at = taken = 0
        numbers = range(first, first + len(sizes))
        for number, identification, size, mark in zip(numbers, identifications, sizes, marks, strict=True):
            head = at + lead
            if with_outer:
                octets = size + fixed - HEADROOM
                flags = mark & 0xFFFF
                total = base_sum + (mark >> 16) + octets + identification + flags
                total = (total & 0xFFFF) + (total >> 16)
                _OUTER_ESP(
                    out, at + HEADROOM, _VERSION_LENGTH | mark >> 16, octets, identification, flags,
                    _TTL_PROTOCOL, ~(total + (total >> 16)) & 0xFFFF, source, destination, spi, number,
                )  # fmt: skip
            else:
                _ESP(out, head, spi, number)
            end = head + ESP_HEADER_LENGTH + size
            window[head + ESP_HEADER_LENGTH : end] = ciphertext[taken : taken + size]
            taken += size
            at = end + icv_octets
            if icv is not None:
                window[end:at] = icv(window[head:end])
        return out, lengths


class EspReceiver:
    """Inbound ESP of one SA: keyed contexts, and the replay window if there is integrity."""

    __slots__ = (
        "_bitmap",
        "_bits_behind",
        "_block",
        "_decryptor",
        "_esn",
        "_icv",
        "_icv_octets",
        "_iv_octets",
        "_slot",
        "_window",
        "edge",
        "spi",
    )  # fmt: skip

    def __init__(self, esp: Esp, window: int, slot: WindowStore, esn: bool) -> None:
        cipher = esp.cipher_algorithm
        integrity = esp.integrity_algorithm
        self.spi = esp.spi
        self._decryptor = cipher.decryptor(esp.cipher_key)
        self._block = cipher.block_octets
        self._iv_octets = cipher.iv_octets
        self._icv = integrity.keyed(esp.integrity_key) if integrity else None
        self._icv_octets = esp.icv_octets
        self._esn = esn
        self._window = window
        self._slot = slot
        edge, bitmap = slot.window()
        self.edge = edge
        self._bitmap = bitmap & ((1 << window) - 1)
        self._bits_behind = bits_behind(window)

    def _authenticate(self, view: memoryview, items: list[Item], drop: DropItem) -> list[Item]:
        """Return the items with a fresh number and a right ICV. The window is stored before this returns."""
        icv = self._icv
        if icv is None:
            return items
        icv_octets = self._icv_octets
        numbers = self._extended_numbers(items)

        def authentic(index: int) -> bool:
            item = items[index]
            edge = item[3] - icv_octets
            return compare_digest(icv(view[item[2] : edge]), view[edge : item[3]])

        def authentic_extended(index: int) -> bool:
            item = items[index]
            edge = item[3] - icv_octets
            value = icv(_HIGH(numbers[index] >> 32 & 0xFFFFFFFF), view[item[2] : edge])
            return compare_digest(value, view[edge : item[3]])

        accepted = self._check_replay(items, numbers, authentic_extended if self._esn else authentic, drop)
        return items if len(accepted) == len(items) else [items[index] for index in accepted]

    def _well_formed(self, items: list[Item], drop: DropItem) -> list[Item]:
        """Return the items that are long enough and whose ciphertext is whole blocks; drop the others."""
        block, fixed = self._block, ESP_HEADER_LENGTH + self._iv_octets + self._icv_octets
        whole: list[Item] = []
        for item in items:
            size = item[3] - item[2] - fixed
            if size < block or size % block:
                drop(IpsecDropCause.MALFORMED, item, self.spi)
            else:
                whole.append(item)
        return whole

    def _extended_numbers(self, items: list[Item]) -> list[int]:
        """Return the sequence numbers of packets, with the inferred high halves if the SA uses ESN.

        All are inferred from the window's edge before the batch. Only a gap of nearly 2^32 numbers within one
        batch would give another result.
        """
        if not self._esn:
            return [item[5] for item in items]
        edge, window = self.edge, self._window
        return [infer_esn(edge, window, item[5]) for item in items]

    def _check_replay(
        self, items: list[Item], numbers: list[int], authentic: Callable[[int], bool], drop: DropItem
    ) -> list[int]:
        """Return the indices of fresh and authentic items. The window is stored before this returns."""
        edge, bitmap, accepted, refused = accept_batch(self.edge, self._bitmap, self._window, numbers, authentic)
        for index, verdict in refused:
            drop(VERDICT_CAUSES.get(verdict, IpsecDropCause.ESP_AUTHENTICATION), items[index], self.spi)
        if accepted:
            self._slot.store_window(edge, bitmap | self._bits_behind)
            self.edge, self._bitmap = edge, bitmap
        return accepted

    def decrypt(self, view: memoryview, items: list[Item], drop: DropItem) -> tuple[memoryview, list[Span]]:
        """Verify and decrypt packets whose ESP header is at item[2].

        Returns the buffer of the clear octets and the payload spans in it. A span may be longer than the packet in
        it (RFC 4303 2.7). Dropped packets go to `drop`.
        """
        iv_octets, spi = self._iv_octets, self.spi
        accepted = self._authenticate(view, self._well_formed(items, drop), drop)
        icv_octets = self._icv_octets
        clear = view
        if self._decryptor is not None and accepted:
            joined = b"".join([view[item[2] + ESP_HEADER_LENGTH : item[3] - icv_octets] for item in accepted])
            clear = memoryview(self._decryptor.update(joined))
        spans: list[Span] = []
        after = 0
        paddings = _PADDINGS
        for item in accepted:
            if clear is view:
                start = item[2] + ESP_HEADER_LENGTH
                after = item[3] - icv_octets
            else:
                start = after + iv_octets
                after += item[3] - item[2] - ESP_HEADER_LENGTH - icv_octets
            padding = clear[after - 2]
            end = after - ESP_TRAILER_LENGTH - padding
            if end < start or clear[end : after - ESP_TRAILER_LENGTH] != paddings[padding]:
                drop(IpsecDropCause.MALFORMED, item, spi)
            else:
                spans.append((item, start, end, clear[after - 1]))
        return clear, spans
