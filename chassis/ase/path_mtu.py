"""Path MTU of tunnels, and ICMP errors about outer packets that were too large (RFC 4301 8.2, RFC 1191).

An outer packet with DF set that was too large for a link is lost. From then on its tunnel uses the MTU of that
link in place of its egress port's: the next packet of that size is fragmented before encapsulation, or its sender
gets an ICMP error. An ICMP error only proves that its sender has seen one of our packets: an MTU below
MIN_PATH_MTU is not believed, and none for longer than PATH_MTU_TIMEOUT. A router that reports no MTU, or a lower
one, still could not send the packet: without an estimate every packet of that size would be lost.
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
from chassis.fwd.tables import ForwardingTables
from chassis.net.address import format_address
from chassis.net.errors import DecodeError
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import DONT_FRAGMENT, IPV4_HEADER_LENGTH, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_UDP, Ipv4
from chassis.net.rate import TokenBucket
from chassis.net.types import Buffer

MIN_PATH_MTU: Final = 576
"""Smallest MTU (octets) that is believed: every host takes a packet of that size (RFC 791 3.1)."""

PLATEAUS: Final = (32000, 17914, 8166, 4352, 2002, 1492, 1006)
"""MTUs (octets) of links (RFC 1191 7.1) above MIN_PATH_MTU: the estimates when a router reports none."""

PATH_MTU_TIMEOUT: Final = 600.0
"""Time (s) until a smaller MTU is forgotten: the path may have changed (RFC 1191 6.3)."""

LOG_RATE, LOG_BURST = 1.0, 5.0
"""Log lines of one ASP (1/s), and at once (count)."""

_QUOTED: Final = struct.Struct("!B5xHxBxxII").unpack_from
_WORDS: Final = struct.Struct("!II").unpack_from
_TOTAL: Final = struct.Struct("!H").unpack_from
_SPI: Final = struct.Struct("!I").unpack_from


@dataclass(frozen=True, slots=True)
class _PathMtu:
    """An MTU (octets) on the path to `destination`, valid until `ends`."""

    destination: int
    mtu: int
    ends: float


def tunnel_mtu(tunnel: TunnelRecord, overhead: int, egress: int) -> MtuLimits:
    """Return the MTU of a tunnel whose outer packets may have `egress` octets (S-110).

    `overhead` (octets) is what encapsulation adds at most. A packet whose outer header will have DF set must fit
    the port as it is, whatever the `mtu` line says.
    """
    natural = max(egress - overhead, MIN_IPV4_MTU)
    asked = tunnel.config.mtu or natural
    fitting = min(asked, natural)
    if tunnel.config.df_bit == "set":
        return MtuLimits(fitting, fitting)
    outer = max(min(asked + overhead, egress), MIN_IPV4_MTU)
    if tunnel.config.df_bit == "clear":
        return MtuLimits(asked, tunnel.config.mtu or UNLIMITED, outer)
    return MtuLimits(asked, fitting, outer)


class PathMtus:
    """The path MTUs of one ASP's tunnels."""

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
        self._by_tunnel: dict[int, _PathMtu] = {}
        """By tunnel number, the first to end first."""
        self._log_limit = TokenBucket(LOG_RATE, LOG_BURST)

    def egress(self, state: AspTunnel) -> int:
        """Return the largest outer packet (octets) that reaches the tunnel's peer, as far as is known."""
        record, peer = state.record, state.peer
        mtu = self._tables.egress_mtu(record.outer_context, peer)
        found = self._by_tunnel.get(record.number)
        return mtu if found is None or found.destination != peer else min(mtu, found.mtu)

    def receive(self, context: int, view: Buffer, now: float) -> list[Output]:
        """Act on an ICMP "fragmentation needed" to an address of ours in this context."""
        try:
            packet = Ipv4.parse(view)
            message = Icmp.parse(packet.payload)
        except DecodeError:
            self._host.drop(IpsecDropCause.MALFORMED)
            return []
        sender = _outbound_key(context, packet.destination, message.payload)
        state = None if sender is None else self._find_tunnel(sender)
        if state is None:
            self._host.drop(AspDropCause.PATH_MTU)
            return []
        known = self.egress(state)
        # A packet larger than any that we send says nothing about a link.
        size = min(_TOTAL(message.payload, 2)[0], known)
        mtu = max(message.mtu or _plateau(size), MIN_PATH_MTU)
        if mtu >= known:
            self._host.drop(AspDropCause.PATH_MTU)
            return []
        self._counters.count_path_mtu()
        number = state.record.number
        self._by_tunnel.pop(number, None)
        self._by_tunnel[number] = _PathMtu(state.peer, mtu, now + PATH_MTU_TIMEOUT)
        state.egress = None
        self._sadb.table.forget(number)
        if not self._log_limit.consume(now):
            return []
        values: dict[str, Value] = {
            "card": self._host.card,
            "tunnel": state.record.config.name,
            "mtu": mtu,
            "router": format_address(packet.source),
        }
        text = "A link on the way to the peer is smaller than the egress port."
        return [ToController(LogRecord(now, "notice", FACILITY, "path-mtu", text, values))]

    def _find_tunnel(self, sender: OutboundKey) -> AspTunnel | None:
        """Return the tunnel of an SA that sends to the present address of the tunnel's peer."""
        encapsulator = self._sadb.find_outbound(sender)
        if encapsulator is None:
            return None
        state = self._states.get(encapsulator.sa.tunnel)
        return state if state is not None and state.peer == encapsulator.sa.destination else None

    def on_timer(self, now: float) -> None:
        """Remove path MTUs that are too old."""
        while self._by_tunnel and now >= self.next_timer():
            number = next(iter(self._by_tunnel))
            del self._by_tunnel[number]
            self._sadb.table.forget(number)
            state = self._states.get(number)
            if state is not None:
                state.egress = None

    def next_timer(self) -> float:
        for found in self._by_tunnel.values():
            return found.ends
        return inf


def _plateau(size: int) -> int:
    """Return the estimated MTU of a link for which this size (octets) was too large (RFC 1191 5); 0: below all."""
    return next((plateau for plateau in PLATEAUS if plateau < size), 0)


def _outbound_key(context: int, source: int, quoted: bytes) -> OutboundKey | None:
    """Return the key of the SA of a quoted packet: its header and eight octets or more.

    None: it can't be ours, or had DF clear.
    """
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
