"""IPv4 packets (RFC 791): decoding, encoding, and changes of headers in place."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chassis.net.checksum import checksum, is_intact
from chassis.net.errors import DecodeError
from chassis.net.types import Buffer, Writable

IPV4_HEADER_LENGTH = 20
"""Length (octets) of a header without options."""

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
"""Mask of the more-fragments flag and the fragment offset: the masked word is not 0 in a fragment."""

_HEADER = struct.Struct("!BBHHHBBHII")
_TTL = struct.Struct("!BBH")
_WORD = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Ipv4:
    """One IPv4 packet.

    `offset` is the fragment offset in octets (a multiple of 8); `options` are padded to a multiple of 4 octets.
    `emit` computes the checksum, and `parse` checks it.
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
        """Decode a packet. Set `padding` for a packet from a frame, which may have octets after the total length.

        Raises:
            DecodeError: the octets are not one valid packet.
        """
        size = len(view)
        if size < IPV4_HEADER_LENGTH:
            raise DecodeError("ipv4", f"truncated header: {size} bytes", size)
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
        """Return the encoded packet with its checksum."""
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
    """Return a 20-octet header with its checksum. `length` (octets) is that of the whole packet, `flags` is the
    16-bit word of flags and fragment offset."""
    packet = bytearray(
        _HEADER.pack(0x45, tos, length, identification, flags, ttl, protocol, 0, source, destination)
    )
    _WORD.pack_into(packet, 10, checksum(packet))
    return bytes(packet)


def decrement_ttl(packet: Writable, start: int = 0) -> None:
    """Decrement the TTL of the packet at `start` and update its checksum in place. The TTL must be above 0.

    The TTL is the high octet of its word, so the checksum grows by 0x0100 with end-around carry (RFC 1624). A sum
    of 0xFFFF is written as 0, as a full computation gives it.
    """
    ttl, protocol, value = _TTL.unpack_from(packet, start + 8)
    value += 0x0100
    if value >= 0xFFFF:
        value = (value + 1) & 0xFFFF
    _TTL.pack_into(packet, start + 8, ttl - 1, protocol, value)
