"""ARP for IPv4 over Ethernet (RFC 826)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chassis.net.errors import DecodeError
from chassis.net.types import Buffer

REQUEST = 1
REPLY = 2
LENGTH = 28

_PACKET = struct.Struct("!HHBBH6sI6sI")


@dataclass(frozen=True, slots=True)
class Arp:
    """One ARP packet. MAC addresses are six octets, protocol addresses 32-bit numbers."""

    operation: int
    sender_mac: bytes
    sender_address: int
    target_mac: bytes
    target_address: int

    @classmethod
    def parse(cls, view: Buffer) -> Arp:
        """Decode a packet; octets after it are Ethernet padding.

        Raises:
            DecodeError: the octets are not a request or reply for IPv4 over Ethernet.
        """
        if len(view) < LENGTH:
            raise DecodeError("arp", f"truncated packet: {len(view)} bytes, expected {LENGTH}", len(view))
        hardware, protocol, hardware_length, protocol_length, operation, smac, sip, tmac, tip = (
            _PACKET.unpack_from(view)
        )
        if hardware != 1 or hardware_length != 6:
            raise DecodeError("arp", f"hardware type {hardware}, length {hardware_length}: not Ethernet", 0)
        if protocol != 0x0800 or protocol_length != 4:
            raise DecodeError("arp", f"protocol {protocol:#06x}, length {protocol_length}: not IPv4", 2)
        if operation not in (REQUEST, REPLY):
            raise DecodeError("arp", f"operation {operation} is neither request nor reply", 6)
        return cls(operation, smac, sip, tmac, tip)

    def emit(self) -> bytes:
        return _PACKET.pack(
            1,
            0x0800,
            6,
            4,
            self.operation,
            self.sender_mac,
            self.sender_address,
            self.target_mac,
            self.target_address,
        )
