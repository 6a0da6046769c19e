"""IP payload compression in tunnel mode with DEFLATE (RFC 3173, RFC 2394).

The whole inner packet is compressed and carried behind a four-octet header inside ESP or AH. A packet that would
not shrink is sent without compression and without that header (RFC 3173 2.2), so a receiver accepts both. The CPI
is 2 (well-known) unless the ends negotiated others.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from chassis.ase.ipsec.algorithms import Octets
from chassis.net.ethernet import MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import PROTOCOL_IPCOMP, PROTOCOL_IPIP

CPI_DEFLATE: Final = 2
MAX_CPI: Final = 0xFFFF
HEADER_OCTETS: Final = 4

_HEADER: Final = struct.Struct("!BBH")
_WINDOW_BITS: Final = -11
"""A raw stream with a history of 2,048 octets, which common kernels can decompress."""

_MEMORY_LEVEL: Final = 4
_MIN_COMPRESSED_LENGTH: Final = 90
"""Octets. Shorter packets hardly ever shrink (RFC 2394 section 2.2)."""

_MAX_FAILURES: Final = 8
"""Packets in a row that did not shrink, after which a pause begins."""

_FIRST_PAUSE: Final = 16
_MAX_PAUSE: Final = 256
"""Packets in a pause: the first one, and the most that doubling makes of it."""


class Compressor:
    """Compression for one outbound SA.

    After packets that did not shrink, some packets are sent without an attempt; the pause doubles with each
    further failure. An attempt costs several times what encryption costs (RFC 3173 2.2 proposes such a pause).
    """

    __slots__ = ("_failures", "_header", "_pause", "_skip")

    def __init__(self, cpi: int) -> None:
        self._header = _HEADER.pack(PROTOCOL_IPIP, 0, cpi)
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._skip = 0

    def compress(
        self, view: memoryview, spans: Sequence[tuple[int, int]]
    ) -> tuple[memoryview, list[tuple[int, int]], list[int]]:
        """Compress the packets at `spans`; return the new buffer, their spans in it, and the next header of
        each."""
        pieces: list[bytes | memoryview] = []
        places: list[tuple[int, int]] = []
        next_headers: list[int] = []
        at = 0
        for start, end in spans:
            packet: bytes | memoryview = view[start:end]
            next_header = PROTOCOL_IPIP
            if end - start >= _MIN_COMPRESSED_LENGTH:
                if self._skip:
                    self._skip -= 1
                else:
                    stream = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
                    small = b"".join((self._header, stream.compress(packet), stream.flush()))
                    if len(small) < end - start:
                        packet, next_header = small, PROTOCOL_IPCOMP
                        self._failures, self._pause = 0, _FIRST_PAUSE
                    else:
                        self._count_failure()
            pieces.append(packet)
            places.append((at, at + len(packet)))
            at += len(packet)
            next_headers.append(next_header)
        return memoryview(b"".join(pieces)), places, next_headers

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            self._skip = self._pause
            self._pause = min(2 * self._pause, _MAX_PAUSE)


def decompress(data: Octets, cpi: int) -> bytes | None:
    """Return the packet behind an IPComp header, or None if the data is not one whole packet under this CPI.

    The result is never longer than an IPv4 packet can be.
    """
    if len(data) < HEADER_OCTETS:
        return None
    next_header, _, seen = _HEADER.unpack_from(data)
    if next_header != PROTOCOL_IPIP or seen != cpi:
        return None
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        packet = stream.decompress(data[HEADER_OCTETS:], MAX_BATCHED_IPV4_LENGTH)
    except zlib.error:
        return None
    return packet if stream.eof else None
