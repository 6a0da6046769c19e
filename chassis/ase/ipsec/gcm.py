"""ESP with AES-GCM, which encrypts and authenticates at once (RFC 4106).

The key of the SA ends in four octets of salt. The nonce of a packet is the salt and the eight octets of IV that
travel with the packet. A repeated nonce under one key breaks secrecy and integrity. The IV is therefore the 64-bit
sequence number (RFC 4106 3.1 allows a counter): it is allocated before encryption and is never used twice.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.esp import TRAILERS, DropItem, EspReceiver, Item, Span, payload_span
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH, Esp
from chassis.ase.ipsec.state import WindowStore
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH

SALT: Final = 4
IV: Final = 8

_HEADER: Final = struct.Struct("!IIQ")
_EXTENDED: Final = struct.Struct("!IQ").pack
"""SPI and extended number: the additional authenticated data (RFC 4106 section 5)."""


class GcmSender:
    """Outbound AES-GCM ESP of one SA. `room` octets after the outer IPv4 header are left for the caller."""

    __slots__ = ("_block", "_cipher", "_esn", "_icv_octets", "_lead", "_salt", "_spi")

    def __init__(self, esp: Esp, room: int, esn: bool) -> None:
        self._cipher = AESGCM(esp.cipher_key[:-SALT])
        self._salt = esp.cipher_key[-SALT:]
        self._spi = esp.spi
        self._esn = esn
        self._block = esp.cipher_algorithm.block_octets
        self._icv_octets = esp.icv_octets
        self._lead = HEADROOM + IPV4_HEADER_LENGTH + room

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
        """As `EspSender.encrypt`, without outer headers. `random` is not used."""
        encrypt, salt, block, spi, esn = self._cipher.encrypt, self._salt, self._block, self._spi, self._esn
        room = bytes(self._lead)
        pieces: list[bytes] = []
        lengths = array("H")
        fixed = self._lead + ESP_HEADER_LENGTH + IV + self._icv_octets
        for number, (start, end) in enumerate(spans, first):
            trailer = TRAILERS[(start - end - ESP_TRAILER_LENGTH) % block]
            if next_headers is not None:
                trailer = trailer[:-1] + bytes((next_headers[number - first],))
            clear = b"".join((view[start:end], trailer))
            header = _HEADER.pack(spi, number & 0xFFFFFFFF, number)
            known = _EXTENDED(spi, number) if esn else header[:ESP_HEADER_LENGTH]
            pieces += (room, header, encrypt(salt + header[ESP_HEADER_LENGTH:], clear, known))
            lengths.append(fixed + len(clear))
        return bytearray().join(pieces), lengths


class GcmReceiver(EspReceiver):
    """Inbound AES-GCM ESP of one SA."""

    __slots__ = ("_cipher", "_salt")

    def __init__(self, esp: Esp, window: int, slot: WindowStore, esn: bool) -> None:
        super().__init__(esp, window, slot, esn)
        self._cipher = AESGCM(esp.cipher_key[:-SALT])
        self._salt = esp.cipher_key[-SALT:]

    def decrypt(self, view: memoryview, items: list[Item], drop: DropItem) -> tuple[memoryview, list[Span]]:
        """As `EspReceiver.decrypt`. The payload of a packet that is not authentic is never read."""
        decrypt, salt, esn, spi = self._cipher.decrypt, self._salt, self._esn, self.spi
        whole = self._well_formed(items, drop)
        numbers = self._extended_numbers(whole)
        clear: dict[int, bytes] = {}

        def authentic(index: int) -> bool:
            _, _, at, end, _, _ = whole[index]
            known = _EXTENDED(spi, numbers[index]) if esn else view[at : at + ESP_HEADER_LENGTH]
            start = at + ESP_HEADER_LENGTH + IV
            nonce = b"".join((salt, view[at + ESP_HEADER_LENGTH : start]))
            try:
                clear[index] = decrypt(nonce, view[start:end], known)
            except InvalidTag:
                return False
            return True

        spans: list[Span] = []
        pieces: list[bytes] = []
        after = 0
        for index in self._check_replay(whole, numbers, authentic, drop):
            piece = clear[index]
            span = payload_span(whole[index], memoryview(piece), 0, len(piece))
            if span is None:
                drop(IpsecDropCause.MALFORMED, whole[index], spi)
                continue
            item, start, end, next_header = span
            spans.append((item, after + start, after + end, next_header))
            pieces.append(piece)
            after += len(piece)
        return memoryview(b"".join(pieces)), spans
