"""Fragmentation of IPv4 packets (RFC 791 3.2, RFC 1812 4.2.2.7)."""

from __future__ import annotations

from dataclasses import replace

from chassis.net.ipv4 import IPV4_HEADER_LENGTH, Ipv4

_END = 0
_NO_OPERATION = 1
_COPIED = 0x80


def copied_options(options: bytes) -> bytes:
    """Return the options that every fragment carries (copied flag set), padded to 4 octets.

    Of a malformed list, only the options before the error are used.
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
    """Return the packet in fragments of at most `mtu` octets each, in order; the packet itself if it fits.

    Check the DF bit first.

    Raises:
        ValueError: the MTU has no room for 8 octets of payload after the header (IPv4 requires an MTU of 68).
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
        # The length of the last fragment need not be a multiple of 8, so it may use the whole MTU.
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
