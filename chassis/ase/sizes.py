"""Packets that are too large for what comes next (S-110): cut where they may be, given back where they may not.

What goes by its ports is not cut before it is protected (`chassis.ase.ipsec.whole`): its outer packet is, into
pieces no larger than outer packets of the tunnel are otherwise.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chassis.ase.ipsec.whole import FragmentDecision
from chassis.bus.records import TunnelRecord
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM, HEADROOM_FILL
from chassis.net.fragments import fragment
from chassis.net.ipv4 import DONT_FRAGMENT, IPV4_HEADER_LENGTH, Ipv4

SMALLEST_MTU: Final = 68
"""Every IPv4 link carries that much (RFC 791 section 3.2)."""

UNLIMITED: Final = 65535

_SIZE: Final = struct.Struct("!HxxH").unpack_from


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest inner packet of a tunnel in octets: with DF clear (cut above it), and with DF set (sent back).

    `outer` is the largest piece of the outer packet where the inner one was not to be cut; 0 where the outer one
    will have DF set, so that neither may be.
    """

    cut: int
    keep: int
    outer: int = 0

    @property
    def smallest(self) -> int:
        """A batch whose packets are all this small needs no look at any of them."""
        return min(self.cut, self.keep)


def tunnel_limits(tunnel: TunnelRecord, overhead: int, egress: int) -> Limits:
    """Limits of a tunnel whose packets leave by a port with an MTU of `egress` octets (S-110).

    A packet whose outer header will have DF set must fit the port as it is, whatever the `mtu` line says.
    """
    natural = max(egress - overhead, SMALLEST_MTU)
    asked = tunnel.mtu or natural
    fitting = min(asked, natural)
    if tunnel.df_bit == "set":
        return Limits(fitting, fitting)
    outer = max(min(asked + overhead, egress), SMALLEST_MTU)
    if tunnel.df_bit == "clear":
        return Limits(asked, tunnel.mtu or UNLIMITED, outer)
    return Limits(asked, fitting, outer)


Judge = Callable[[memoryview, int, int], FragmentDecision]
"""`judge(view, start, end)`: whether the too large packet at start:end may be cut."""


@dataclass(slots=True)
class Fitted:
    """A batch made to fit: what may go on, whole packets that may not be cut, and those that make no sense."""

    body: bytearray
    lengths: array[int]
    refused: list[memoryview]
    malformed: int
    made: int
    """Fragments beyond the first of each packet that was cut."""
    whole: int = 0
    """Too large packets that go on as they are, for their outer ones to be cut."""


def fit(body: bytearray | memoryview, lengths: array[int], limits: Limits, judge: Judge | None = None) -> Fitted:
    """Cut or refuse the packets of a batch that are larger than the limits, as far as `judge` lets them be cut."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    out = array("H")
    result = Fitted(bytearray(), out, [], malformed=0, made=0)
    at = 0
    for length in lengths:
        start, at = at + HEADROOM, at + length
        if length < HEADROOM + IPV4_HEADER_LENGTH:
            result.malformed += 1
            continue
        total, flags = _SIZE(view, start + 2)
        dont = flags & DONT_FRAGMENT
        if total <= (limits.keep if dont else limits.cut):
            pieces.append(view[start - HEADROOM : at])
            out.append(length)
            continue
        verdict = FragmentDecision.FRAGMENT if judge is None else judge(view, start, at)
        if verdict is FragmentDecision.DROP:
            pieces.append(view[start - HEADROOM : at])
            out.append(length)
            continue
        if dont or (verdict is FragmentDecision.KEEP_WHOLE and not limits.outer):
            result.refused.append(view[start:at])
            continue
        if verdict is FragmentDecision.KEEP_WHOLE:
            pieces.append(view[start - HEADROOM : at])
            out.append(length)
            result.whole += 1
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
