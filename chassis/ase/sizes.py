"""Packets that are too large for what comes next (S-110): cut where they may be, given back where they may not."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import Final

from chassis.ase.ipsec.layout import DONT_FRAGMENT, HEADROOM, HEADROOM_FILL, IPV4_HEADER
from chassis.bus.records import Tunnel
from chassis.net.errors import DecodeError
from chassis.net.fragments import fragment
from chassis.net.ipv4 import Ipv4

SMALLEST_MTU: Final = 68
"""Every IPv4 link carries that much (RFC 791 section 3.2)."""

UNLIMITED: Final = 65535

_SIZE: Final = struct.Struct("!HxxH").unpack_from


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest inner packet of a tunnel in octets: with DF clear (cut above it), and with DF set (sent back)."""

    cut: int
    keep: int

    @property
    def smallest(self) -> int:
        """A batch whose packets are all this small needs no look at any of them."""
        return min(self.cut, self.keep)


def tunnel_limits(tunnel: Tunnel, overhead: int, egress: int) -> Limits:
    """Limits of a tunnel whose packets leave by a port with an MTU of `egress` octets (S-110).

    A packet whose outer header will have DF set must fit the port as it is, whatever the `mtu` line says.
    """
    natural = max(egress - overhead, SMALLEST_MTU)
    asked = tunnel.mtu or natural
    fitting = min(asked, natural)
    if tunnel.df_bit == "clear":
        return Limits(asked, tunnel.mtu or UNLIMITED)
    return Limits(fitting if tunnel.df_bit == "set" else asked, fitting)


@dataclass(slots=True)
class Fitted:
    """A batch made to fit: what may go on, whole packets that DF forbids to cut, and those that make no sense."""

    body: bytearray
    lengths: array[int]
    refused: list[memoryview]
    malformed: int
    made: int
    """Fragments beyond the first of each packet that was cut."""


def fit(body: bytearray | memoryview, lengths: array[int], limits: Limits) -> Fitted:
    """Cut or refuse the packets of a batch that are larger than the limits."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    out = array("H")
    result = Fitted(bytearray(), out, [], 0, 0)
    at = 0
    for length in lengths:
        start, at = at + HEADROOM, at + length
        if length < HEADROOM + IPV4_HEADER:
            result.malformed += 1
            continue
        total, flags = _SIZE(view, start + 2)
        dont = flags & DONT_FRAGMENT
        if total <= (limits.keep if dont else limits.cut):
            pieces.append(view[start - HEADROOM : at])
            out.append(length)
            continue
        if dont:
            result.refused.append(view[start:at])
            continue
        try:
            fragments = fragment(Ipv4.parse(view[start:at], padding=True), limits.cut)
        except (DecodeError, ValueError):
            result.malformed += 1
            continue
        for piece in fragments:
            packet = piece.emit()
            pieces += (HEADROOM_FILL, packet)
            out.append(HEADROOM + len(packet))
        result.made += len(fragments) - 1
    result.body = bytearray().join(pieces)
    return result
