"""Fragmenting an IPv4 packet (RFC 791 3.2, RFC 1812 4.2.2.7)."""

from __future__ import annotations

from dataclasses import replace

from chassis.net.ipv4 import IPV4_HEADER_LENGTH, Ipv4

_END = 0
_NO_OPERATION = 1
_COPIED = 0x80


def copied_options(options: bytes) -> bytes:
    """The options that every fragment carries, not just the first (copied flag set), padded.

    A malformed list ends where it stops making sense: a router passes on what it understood.
    """
    kept = bytearray()
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == _END:
            break
        if kind == _NO_OPERATION:
            at += 1
            continue
        if at + 1 >= len(options):
            break
        length = options[at + 1]
        if length < 2 or at + length > len(options):
            break
        if kind & _COPIED:
            kept += options[at : at + length]
        at += length
    kept += bytes(-len(kept) % 4)
    return bytes(kept)


def fragment(packet: Ipv4, mtu: int) -> list[Ipv4]:
    """The packet in pieces of at most `mtu` bytes each, in order; the packet itself if it fits.

    The caller has looked at the DF bit. Raises ValueError when not even 8 bytes of payload fit
    beside the header (an MTU below 68 is no IPv4 link).
    """
    payload = packet.payload
    if IPV4_HEADER_LENGTH + len(packet.options) + len(payload) <= mtu:
        return [packet]
    later = copied_options(packet.options)
    pieces: list[Ipv4] = []
    options = packet.options
    at = 0
    while at < len(payload):
        room = (mtu - IPV4_HEADER_LENGTH - len(options)) & ~7
        if room < 8:
            raise ValueError(f"no fragment fits an MTU of {mtu}")
        rest = len(payload) - at
        # The last piece need not be a multiple of eight bytes, so it may use the whole MTU.
        if IPV4_HEADER_LENGTH + len(options) + rest <= mtu:
            room = rest
        pieces.append(
            replace(
                packet,
                payload=payload[at : at + room],
                offset=packet.offset + at,
                more_fragments=packet.more_fragments or at + room < len(payload),
                options=options,
            )
        )
        at += room
        options = later
    return pieces
