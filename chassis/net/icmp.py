"""ICMP for IPv4 (RFC 792): echo, and the errors of a router (RFC 1812, RFC 1191)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chassis.net.checksum import checksum, is_intact
from chassis.net.errors import DecodeError
from chassis.net.types import Buffer

ECHO_REPLY = 0
UNREACHABLE = 3
SOURCE_QUENCH = 4
REDIRECT = 5
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12

ERROR_TYPES = frozenset((UNREACHABLE, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM))
"""Types of ICMP errors; no ICMP error is sent about one of them (RFC 1812 4.3.2.7)."""

NET_UNREACHABLE = 0
HOST_UNREACHABLE = 1
PROTOCOL_UNREACHABLE = 2
PORT_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4
ADMINISTRATIVELY_PROHIBITED = 13

TTL_EXCEEDED_IN_TRANSIT = 0

ICMP_HEADER_LENGTH = 8

_HEADER = struct.Struct("!BBHI")


@dataclass(frozen=True, slots=True)
class Icmp:
    """One message; `rest` is the second 32-bit word of its header."""

    type: int
    code: int
    rest: int
    payload: bytes

    @property
    def identifier(self) -> int:
        """Return the identifier of an echo message."""
        return self.rest >> 16

    @property
    def sequence(self) -> int:
        """Return the sequence number of an echo message."""
        return self.rest & 0xFFFF

    @property
    def mtu(self) -> int:
        """Return the MTU (octets) of the next hop in "fragmentation needed" (RFC 1191 4); old routers send 0."""
        return self.rest & 0xFFFF

    @classmethod
    def parse(cls, view: Buffer) -> Icmp:
        """Decode a message.

        Raises:
            DecodeError: the message is truncated, or its checksum is wrong.
        """
        if len(view) < ICMP_HEADER_LENGTH:
            raise DecodeError("icmp", f"truncated header: {len(view)} bytes", len(view))
        if not is_intact(view):
            raise DecodeError("icmp", "checksum", 2)
        kind, code, _, rest = _HEADER.unpack_from(view)
        return cls(kind, code, rest, bytes(view[ICMP_HEADER_LENGTH:]))

    def emit(self) -> bytes:
        bare = _HEADER.pack(self.type, self.code, 0, self.rest) + self.payload
        return _HEADER.pack(self.type, self.code, checksum(bare), self.rest) + self.payload


def echo_request(identifier: int, sequence: int, payload: bytes) -> Icmp:
    return Icmp(ECHO_REQUEST, 0, identifier << 16 | sequence, payload)


def echo_reply(request: Icmp) -> Icmp:
    """Return the reply to an echo request: the same identifier, sequence number and data."""
    return Icmp(ECHO_REPLY, 0, request.rest, request.payload)


def unreachable(code: int, quoted: bytes, mtu: int = 0) -> Icmp:
    """Return a destination unreachable; `mtu` (octets) is for code 4 only."""
    return Icmp(UNREACHABLE, code, mtu, quoted)


def time_exceeded(quoted: bytes) -> Icmp:
    """Return a time exceeded: TTL exceeded in transit."""
    return Icmp(TIME_EXCEEDED, TTL_EXCEEDED_IN_TRANSIT, 0, quoted)
