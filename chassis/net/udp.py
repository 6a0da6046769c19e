"""UDP over IPv4 (RFC 768)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chassis.net.checksum import checksum, is_intact, pseudo_header_sum
from chassis.net.errors import DecodeError
from chassis.net.ipv4 import PROTOCOL_UDP
from chassis.net.types import Buffer

UDP_HEADER_LENGTH = 8

IKE_PORT = 500
NAT_PORT = 4500
"""Port of IKE and of ESP in UDP through a NAT (RFC 3948)."""

_HEADER = struct.Struct("!HHHH")


@dataclass(frozen=True, slots=True)
class Udp:
    """One datagram."""

    source_port: int
    destination_port: int
    payload: bytes

    @classmethod
    def parse(cls, view: Buffer, addresses: tuple[int, int] | None = None) -> Udp:
        """Decode a datagram. Given (source, destination) addresses, check the checksum; 0 means no checksum.

        Raises:
            DecodeError: the datagram is truncated, or its checksum is wrong.
        """
        size = len(view)
        if size < UDP_HEADER_LENGTH:
            raise DecodeError("udp", f"truncated header: {size} bytes", size)
        source_port, destination_port, length, value = _HEADER.unpack_from(view)
        if length != size:
            raise DecodeError("udp", f"length {length}, but {size} bytes are there", 4)
        if value and addresses and not is_intact(view, pseudo_header_sum(*addresses, PROTOCOL_UDP, length)):
            raise DecodeError("udp", "checksum", 6)
        return cls(source_port, destination_port, bytes(view[UDP_HEADER_LENGTH:]))

    def emit(self, addresses: tuple[int, int] | None = None) -> bytes:
        """Return the encoded datagram; without (source, destination) addresses its checksum is 0."""
        length = UDP_HEADER_LENGTH + len(self.payload)
        bare = _HEADER.pack(self.source_port, self.destination_port, length, 0) + self.payload
        if addresses is None:
            return bare
        value = checksum(bare, pseudo_header_sum(*addresses, PROTOCOL_UDP, length)) or 0xFFFF
        return _HEADER.pack(self.source_port, self.destination_port, length, value) + self.payload
