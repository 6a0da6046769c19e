"""Ethernet II frames, without the frame check sequence."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chassis.net.errors import DecodeError
from chassis.net.types import Buffer

HEADROOM = 14
"""Length (octets) of an Ethernet II header, and of the headroom before every packet of a batch."""

HEADROOM_FILL = bytes(HEADROOM)

MAX_BATCHED_IPV4_LENGTH = 0xFFFF - HEADROOM
"""Length (octets) of the longest IPv4 packet in a batch: the 16-bit lengths of a batch include the headroom."""

MINIMUM_FRAME = 60
"""Length (octets) to which a shorter frame is padded when it is sent; 64 with the check sequence."""

MAXIMUM_PAYLOAD = 1500

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806

_HEADER = struct.Struct("!6s6sH")


@dataclass(frozen=True, slots=True)
class Ethernet:
    """A frame. MAC addresses are six octets; the payload includes any padding."""

    destination: bytes
    source: bytes
    ethertype: int
    payload: bytes

    @classmethod
    def parse(cls, view: Buffer) -> Ethernet:
        """Decode a frame.

        Raises:
            DecodeError: the frame is truncated, or has an 802.3 length field.
        """
        if len(view) < HEADROOM:
            raise DecodeError("ethernet", f"truncated header: {len(view)} bytes", len(view))
        destination, source, ethertype = _HEADER.unpack_from(view)
        if ethertype < 0x0600:
            raise DecodeError("ethernet", f"{ethertype} is a length, not an EtherType", 12)
        return cls(destination, source, ethertype, bytes(view[HEADROOM:]))

    def emit(self) -> bytes:
        return _HEADER.pack(self.destination, self.source, self.ethertype) + self.payload


def header(destination: bytes, source: bytes, ethertype: int = ETHERTYPE_IPV4) -> bytes:
    """Return the 14-octet header that an egress port writes before a packet."""
    return _HEADER.pack(destination, source, ethertype)


def padded(frame: bytes) -> bytes:
    """Return the encoded frame, padded to MINIMUM_FRAME if it is shorter."""
    return frame if len(frame) >= MINIMUM_FRAME else frame + bytes(MINIMUM_FRAME - len(frame))
