"""IPv4 (RFC 791): the packet as a value, and rewriting of headers in place."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chassis.net.checksum import checksum, is_intact
from chassis.net.errors import DecodeError
from chassis.net.types import Buffer, Writable

IPV4_HEADER_LENGTH = 20
"""Bytes of a header without options."""

MAX_IPV4_LENGTH = 65535

PROTOCOL_ICMP = 1
PROTOCOL_IPIP = 4
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ESP = 50
PROTOCOL_AH = 51
PROTOCOL_NONE = 59
"""IPv6-NoNxt, the protocol of a dummy packet (RFC 4303 2.6)."""
PROTOCOL_IPCOMP = 108

DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
OFFSET_MASK = 0x1FFF
FRAGMENT_MASK = MORE_FRAGMENTS | OFFSET_MASK
"""More-fragments flag and fragment offset: not zero in any fragment."""

_HEADER = struct.Struct("!BBHHHBBHII")
_TTL = struct.Struct("!BBH")
_WORD = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Ipv4:
    """One IPv4 packet.

    `offset` is the fragment offset in bytes (a multiple of 8); `options` are padded to
    a multiple of 4 bytes. The checksum is made by `emit` and checked by `parse`.
    """

    source: int
    destination: int
    protocol: int
    payload: bytes
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    offset: int = 0
    options: bytes = b""

    @classmethod
    def parse(cls, view: Buffer, *, padding: bool = False) -> Ipv4:
        """Raises DecodeError. Bytes beyond the total length are refused unless `padding`
        says that the packet came in a frame that may hold some."""
        size = len(view)
        if size < IPV4_HEADER_LENGTH:
            raise DecodeError("ipv4", f"{size} bytes are no header", size)
        first, tos, total, identification, fragment, ttl, protocol, _, source, destination = _HEADER.unpack_from(
            view
        )
        if first >> 4 != 4:
            raise DecodeError("ipv4", f"version {first >> 4}", 0)
        header = (first & 15) * 4
        if header < IPV4_HEADER_LENGTH or header > total:
            raise DecodeError("ipv4", f"header length {header}", 0)
        if total > size:
            raise DecodeError("ipv4", f"total length {total}, but {size} bytes are there", 2)
        if total < size and not padding:
            raise DecodeError("ipv4", f"{size - total} bytes beyond the total length", total)
        if not is_intact(view[:header]):
            raise DecodeError("ipv4", "header checksum", 10)
        if fragment & 0x8000:
            raise DecodeError("ipv4", "reserved flag set", 6)
        offset = (fragment & OFFSET_MASK) * 8
        if offset + total - header > MAX_IPV4_LENGTH:
            raise DecodeError("ipv4", f"fragment ends at {offset + total - header}", 6)
        return cls(
            source,
            destination,
            protocol,
            bytes(view[header:total]),
            ttl,
            tos,
            identification,
            bool(fragment & DONT_FRAGMENT),
            bool(fragment & MORE_FRAGMENTS),
            offset,
            bytes(view[IPV4_HEADER_LENGTH:header]),
        )

    def emit(self) -> bytes:
        """The packet on the wire, checksum filled in."""
        header = IPV4_HEADER_LENGTH + len(self.options)
        fragment = (
            self.offset >> 3
            | (DONT_FRAGMENT if self.dont_fragment else 0)
            | (MORE_FRAGMENTS if self.more_fragments else 0)
        )
        packet = bytearray(
            _HEADER.pack(
                0x40 | header >> 2,
                self.tos,
                header + len(self.payload),
                self.identification,
                fragment,
                self.ttl,
                self.protocol,
                0,
                self.source,
                self.destination,
            )
        )
        packet += self.options
        _WORD.pack_into(packet, 10, checksum(packet))
        packet += self.payload
        return bytes(packet)


def header_bytes(
    source: int,
    destination: int,
    protocol: int,
    length: int,
    *,
    ttl: int,
    tos: int,
    identification: int,
    flags: int,
) -> bytes:
    """A 20-byte header with its checksum; `length` is that of the whole packet in bytes and
    `flags` the 16-bit word of flags and fragment offset."""
    packet = bytearray(
        _HEADER.pack(0x45, tos, length, identification, flags, ttl, protocol, 0, source, destination)
    )
    _WORD.pack_into(packet, 10, checksum(packet))
    return bytes(packet)


def decrement_ttl(packet: Writable, start: int = 0) -> None:
    """Takes one off the TTL of the packet at `start` and updates its checksum in place.

    The TTL is the high byte of its word, so the checksum grows by 0x0100 with end-around carry
    (RFC 1624); a sum of 0xFFFF is written as zero, the form that a whole computation gives.
    The caller has checked that the TTL is above zero.
    """
    ttl, protocol, value = _TTL.unpack_from(packet, start + 8)
    value += 0x0100
    if value >= 0xFFFF:
        value = (value + 1) & 0xFFFF
    _TTL.pack_into(packet, start + 8, ttl - 1, protocol, value)
