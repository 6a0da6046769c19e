"""Ethernet II frames, without the frame check sequence."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chassis.net.errors import DecodeError
from chassis.net.types import Buffer

HEADROOM = 14
"""Bytes of an Ethernet II header, and the room before every packet of a batch for it."""

HEADROOM_FILL = bytes(HEADROOM)

MAX_BATCHED_IPV4_LENGTH = 0xFFFF - HEADROOM
"""Octets of the longest IPv4 packet that a batch can carry: its 16-bit lengths count the headroom."""

MINIMUM_FRAME = 60
"""A shorter frame is padded to this before it goes out (64 with the check sequence)."""

MAXIMUM_PAYLOAD = 1500

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806

_HEADER = struct.Struct("!6s6sH")


@dataclass(frozen=True, slots=True)
class Ethernet:
    """A frame. MAC addresses are six bytes; the payload holds padding, if any was sent."""

    destination: bytes
    source: bytes
    ethertype: int
    payload: bytes

    @classmethod
    def parse(cls, view: Buffer) -> Ethernet:
        """Raises DecodeError for a short frame and for 802.3 length fields."""
        if len(view) < HEADROOM:
            raise DecodeError("ethernet", f"{len(view)} bytes are no frame", len(view))
        destination, source, ethertype = _HEADER.unpack_from(view)
        if ethertype < 0x0600:
            raise DecodeError("ethernet", f"{ethertype} is a length, not an EtherType", 12)
        return cls(destination, source, ethertype, bytes(view[HEADROOM:]))

    def emit(self) -> bytes:
        return _HEADER.pack(self.destination, self.source, self.ethertype) + self.payload


def header(destination: bytes, source: bytes, ethertype: int = ETHERTYPE_IPV4) -> bytes:
    """The 14 bytes that an egress port writes before a packet."""
    return _HEADER.pack(destination, source, ethertype)


def padded(frame: bytes) -> bytes:
    """The frame, no shorter than Ethernet allows."""
    return frame if len(frame) >= MINIMUM_FRAME else frame + bytes(MINIMUM_FRAME - len(frame))
