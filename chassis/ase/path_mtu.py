"""ICMP errors for outer packets that were too large for a link on the way (RFC 4301 8.2, RFC 1191).

Such a packet had DF set, and is lost. Its tunnel takes the smaller link for its egress port from then on: the next
packet of that size goes back to its sender with the MTU that is left for it, or is cut before it is protected. A
message proves no more than that somebody has seen a packet of ours: no MTU below a floor is believed, and none for
long. A router that names no MTU, or less than the floor, is one for which the packet was too large all the same:
unheard, every packet of that size would be lost.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from chassis.ase.counters import AspCounters, AspDropCause
from chassis.ase.drop_log import FACILITY
from chassis.ase.host import DataPathHost
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.sadb import OutboundKey, Sadb
from chassis.ase.tunnels import AspTunnel
from chassis.bus.engine import Output, ToController
from chassis.bus.messages import LogRecord, Value
from chassis.bus.records import TunnelRecord
from chassis.fwd.mtu import MIN_IPV4_MTU, UNLIMITED, MtuLimits
from chassis.fwd.rate import TokenBucket
from chassis.fwd.tables import ForwardingTables
from chassis.net.address import format_address
from chassis.net.errors import DecodeError
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import DONT_FRAGMENT, IPV4_HEADER_LENGTH, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_UDP, Ipv4
from chassis.net.types import Buffer

LEAST: Final = 576
"""The smallest MTU in octets that is believed: every host takes a packet of that size (RFC 791 3.1)."""

PLATEAUS: Final = (32000, 17914, 8166, 4352, 2002, 1492, 1006)
"""MTUs that links have (RFC 1191 7.1), those above the least: what to try when a router names none."""

LIFETIME: Final = 600.0
"""Seconds until a smaller MTU is forgotten: by then the way may be another (RFC 1191 6.3)."""

LOG_RATE, LOG_BURST = 1.0, 5.0
"""Log lines of one ASP in a second, and at once."""

_QUOTED: Final = struct.Struct("!B5xHxBxxII").unpack_from
_WORDS: Final = struct.Struct("!II").unpack_from
_TOTAL: Final = struct.Struct("!H").unpack_from
_SPI: Final = struct.Struct("!I").unpack_from


@dataclass(frozen=True, slots=True)
class _Found:
    """An MTU on the way to `destination`, good until `ends`."""

    destination: int
    mtu: int
    ends: float


def tunnel_mtu(tunnel: TunnelRecord, overhead: int, egress: int) -> MtuLimits:
    """Return the MTU of a tunnel whose outer packets may have `egress` octets (S-110).

    `overhead` (octets) is what encapsulation adds at most. A packet whose outer header will have DF set must fit
    the port as it is, whatever the `mtu` line says.
    """
    natural = max(egress - overhead, MIN_IPV4_MTU)
    asked = tunnel.mtu or natural
    fitting = min(asked, natural)
    if tunnel.df_bit == "set":
        return MtuLimits(fitting, fitting)
    outer = max(min(asked + overhead, egress), MIN_IPV4_MTU)
    if tunnel.df_bit == "clear":
        return MtuLimits(asked, tunnel.mtu or UNLIMITED, outer)
    return MtuLimits(asked, fitting, outer)


class PathMtus:
    """The MTUs of the ways to the peers of one ASP's tunnels."""

    def __init__(
        self,
        host: DataPathHost,
        sadb: Sadb,
        states: Mapping[int, AspTunnel],
        tables: ForwardingTables,
        counters: AspCounters,
    ) -> None:
        self._host = host
        self._sadb = sadb
        self._states = states
        self._tables = tables
        self._counters = counters
        self._found: dict[int, _Found] = {}
        """By tunnel, the first to end first."""
        self._lines = TokenBucket(LOG_RATE, LOG_BURST)

    def egress(self, state: AspTunnel) -> int:
        """The largest outer packet that gets from here to the tunnel's peer, as far as is known."""
        record, peer = state.record, state.peer
        mtu = self._tables.egress_mtu(record.outer_context, peer)
        found = self._found.get(record.number)
        return mtu if found is None or found.destination != peer else min(mtu, found.mtu)

    def heard(self, context: int, view: Buffer, now: float) -> list[Output]:
        """An ICMP "fragmentation needed" to an address of ours in this context."""
        try:
            packet = Ipv4.parse(view)
            message = Icmp.parse(packet.payload)
        except DecodeError:
            self._host.drop(IpsecDropCause.MALFORMED)
            return []
        sender = _sender(context, packet.destination, message.payload)
        state = None if sender is None else self._of(sender)
        if state is None:
            self._host.drop(AspDropCause.PATH_MTU)
            return []
        known = self.egress(state)
        # A packet that was larger than we send any is no word on what a link may carry.
        size = min(_TOTAL(message.payload, 2)[0], known)
        mtu = max(message.mtu or _plateau(size), LEAST)
        if mtu >= known:
            self._host.drop(AspDropCause.PATH_MTU)
            return []
        self._counters.count_path_mtu()
        number = state.record.number
        self._found.pop(number, None)
        self._found[number] = _Found(state.peer, mtu, now + LIFETIME)
        state.egress = None
        if not self._lines.consume(now):
            return []
        values: dict[str, Value] = {
            "card": self._host.card,
            "tunnel": state.record.name,
            "mtu": mtu,
            "router": format_address(packet.source),
        }
        text = "A link on the way to the peer is smaller than the egress port."
        return [ToController(LogRecord(now, "notice", FACILITY, "path-mtu", text, values))]

    def _of(self, sender: OutboundKey) -> AspTunnel | None:
        """The tunnel of an SA that sends to where the tunnel's peer is now."""
        encapsulator = self._sadb.find_outbound(sender)
        if encapsulator is None:
            return None
        state = self._states.get(encapsulator.sa.tunnel)
        return state if state is not None and state.peer == encapsulator.sa.destination else None

    def on_timer(self, now: float) -> None:
        """Forget what is too old."""
        while self._found and now >= self.next_timer():
            number = next(iter(self._found))
            del self._found[number]
            state = self._states.get(number)
            if state is not None:
                state.egress = None

    def next_timer(self) -> float:
        for found in self._found.values():
            return found.ends
        return inf


def _plateau(size: int) -> int:
    """What a link may carry for which a packet of this size was too large (RFC 1191 5); 0: less than the least."""
    return next((plateau for plateau in PLATEAUS if plateau < size), 0)


def _sender(context: int, source: int, quoted: bytes) -> OutboundKey | None:
    """How a packet that is quoted, at least eight octets of what follows its header, names its SA; None for one
    that cannot be ours, or that nobody had to cut."""
    if len(quoted) < IPV4_HEADER_LENGTH:
        return None
    version_length, flags, protocol, its_source, destination = _QUOTED(quoted)
    at = (version_length & 15) * 4
    if version_length >> 4 != 4 or at < IPV4_HEADER_LENGTH or len(quoted) < at + 8:
        return None
    if not flags & DONT_FRAGMENT or its_source != source:
        return None
    first, second = _WORDS(quoted, at)
    if protocol == PROTOCOL_ESP:
        return context, source, destination, 0, PROTOCOL_ESP, first
    if protocol == PROTOCOL_AH:
        return context, source, destination, 0, PROTOCOL_AH, second
    if protocol == PROTOCOL_UDP and len(quoted) >= at + 12:
        return context, source, destination, first & 0xFFFF, PROTOCOL_ESP, _SPI(quoted, at + 8)[0]
    return None
