"""Outer IPv4 headers, their UDP headers (RFC 3948), and the sequences of their identifications (RFC 6864).

ESP without UDP encapsulation writes its outer header itself (`esp`), and so does AH (`ah`); `OuterSender` writes
those of UDP-encapsulated ESP and of AES-GCM.

A receiver reassembles fragments by source, destination, protocol and identification (RFC 791 3.2), not by SPI.
All SAs between the same ends therefore share one sequence of identifications (RFC 6864 section 4): otherwise two
fragmented packets could have the same identification at the same time, and one lost fragment would cost both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

from chassis.ase.ipsec.sa import UdpPorts
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_UDP

IPSEC_PROTOCOLS: Final = frozenset((PROTOCOL_UDP, PROTOCOL_ESP, PROTOCOL_AH))
"""Protocols of encapsulated packets and of IKE: ESP, AH, and UDP for both (RFC 3948)."""

FRAGMENTATION_NEEDED: Final = 3 << 8 | 4
"""ICMP type and code for a packet that DF forbids to fragment (RFC 792)."""

OUTER_TTL: Final = 64


def ipv4_checksum(words: Iterable[int]) -> int:
    """Return the Internet checksum (RFC 1071) of 16-bit words."""
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def header_base_sum(source: int, destination: int, protocol: int) -> int:
    """Return the sum of the outer header's words that are constant for an SA.

    They are version, header length, TTL, protocol and both addresses. The caller adds the type of service, total
    length, identification and flags.
    """
    return (
        0x4500
        + (OUTER_TTL << 8 | protocol)
        + (source >> 16)
        + (source & 0xFFFF)
        + (destination >> 16)
        + (destination & 0xFFFF)
    )


_IP: Final = struct.Struct("!HHHHHHII").pack_into
_UDP: Final = struct.Struct("!HHHH").pack_into


class OuterHeaderWriter:
    """Writes the outer headers of one outbound SA without AH."""

    __slots__ = ("_base_sum", "_destination", "_source", "_ttl_protocol", "_udp")

    def __init__(self, source: int, destination: int, udp: UdpPorts | None) -> None:
        protocol = PROTOCOL_ESP if udp is None else PROTOCOL_UDP
        self._source = source
        self._destination = destination
        self._udp = udp
        self._ttl_protocol = OUTER_TTL << 8 | protocol
        self._base_sum = header_base_sum(source, destination, protocol)

    def write(
        self, out: bytearray, lengths: Sequence[int], marks: Sequence[int], identifications: Sequence[int]
    ) -> None:
        """Write the outer header of every packet of a batch into the room before its ESP header.

        `lengths` are octets, headroom included. `marks` holds the outer type of service << 16 | outer flags of
        each packet. The UDP checksum is zero, which a NAT need not change (RFC 3948 2.1).
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


Ends: TypeAlias = tuple[int, int, int]
"""(source, destination, protocol) of outer headers."""

_ID_COUNT: Final = 1 << 16


class Ipv4IdSequence:
    """The identifications of one source, destination and protocol.

    The first value is derived from the SPIs and sequence numbers of the SAs. A restarted process that continues
    with the same SAs therefore continues here too, and a rekeyed SA does not repeat recent identifications.
    """

    __slots__ = ("__weakref__", "_in_use", "_next")

    def __init__(self) -> None:
        self._next = 0
        self._in_use = False

    def add_sa(self, spi: int, number: int) -> None:
        """Add an SA whose next sequence number is `number`. A sequence in use does not move."""
        if not self._in_use:
            self._next = (self._next + spi + number) % _ID_COUNT

    def allocate(self, count: int) -> Sequence[int]:
        """Return the next `count` identifications, 0 to 65535."""
        first, after = self._next, self._next + count
        self._next = after % _ID_COUNT
        self._in_use = True
        if after <= _ID_COUNT:
            return range(first, after)
        return [number % _ID_COUNT for number in range(first, after)]


class Ipv4IdSequences:
    """The sequences in use. A sequence is removed with the last SA that uses it."""

    __slots__ = ("_sequences",)

    def __init__(self) -> None:
        self._sequences: WeakValueDictionary[Ends, Ipv4IdSequence] = WeakValueDictionary()

    def get_or_create(self, ends: Ends) -> Ipv4IdSequence:
        """Return the sequence for these ends. The SA must keep the reference."""
        sequence = self._sequences.get(ends)
        if sequence is None:
            sequence = self._sequences[ends] = Ipv4IdSequence()
        return sequence

    def find(self, ends: Ends) -> Ipv4IdSequence | None:
        """Return the sequence for these ends; None if no SA uses it."""
        return self._sequences.get(ends)
