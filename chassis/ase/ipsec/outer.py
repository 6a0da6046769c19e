"""Outer headers that are written apart from what follows them: IP alone, or IP and UDP (RFC 3948).

The everyday case, ESP of its own, writes its outer header together with its own (`esp`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from chassis.ase.ipsec.layout import OUTER_TTL, constant_sum
from chassis.ase.ipsec.sa import UdpPorts
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_ESP, PROTOCOL_UDP

_IP: Final = struct.Struct("!HHHHHHII").pack_into
_UDP: Final = struct.Struct("!HHHH").pack_into


class OuterSender:
    """Outer headers of one outbound SA without AH."""

    __slots__ = ("_base_sum", "_destination", "_source", "_ttl_protocol", "_udp")

    def __init__(self, source: int, destination: int, udp: UdpPorts | None) -> None:
        protocol = PROTOCOL_ESP if udp is None else PROTOCOL_UDP
        self._source = source
        self._destination = destination
        self._udp = udp
        self._ttl_protocol = OUTER_TTL << 8 | protocol
        self._base_sum = constant_sum(source, destination, protocol)

    def write(
        self, out: bytearray, lengths: Sequence[int], marks: Sequence[int], identifications: Sequence[int]
    ) -> None:
        """Write the headers of every packet of a batch into the room before its ESP header.

        `marks` holds each packet's outer type of service shifted by 16, with its outer flags. The UDP
        checksum is zero: ESP has a better one, and a NAT need not mend it (RFC 3948 2.1).
        """
        base_sum, ttl_protocol, udp = self._base_sum, self._ttl_protocol, self._udp
        at = HEADROOM
        for identification, length, mark in zip(identifications, lengths, marks, strict=True):
            octets = length - HEADROOM
            flags = mark & 0xFFFF
            total = base_sum + (mark >> 16) + octets + identification + flags
            total = (total & 0xFFFF) + (total >> 16)
            _IP(
                out, at, 0x4500 | mark >> 16, octets, identification, flags, ttl_protocol,
                ~(total + (total >> 16)) & 0xFFFF, self._source, self._destination,
            )  # fmt: skip
            if udp is not None:
                _UDP(out, at + IPV4_HEADER_LENGTH, udp.source, udp.destination, octets - IPV4_HEADER_LENGTH, 0)
            at += length
