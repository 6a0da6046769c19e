"""The ASP's own forwarding: what its records say about routes, ports, interfaces and usable next hops.

Decisions are made and remembered by `chassis.fwd`; here is what they rest on, and when they end.
"""

from __future__ import annotations

from collections.abc import Mapping

from chassis.bus.counters import Counters
from chassis.bus.records import CardStateRecord, InterfaceRecord, NextHop, PortRecord, TunnelRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.decision import Decider
from chassis.fwd.fib import Fib

DEFAULT_MTU = 1500
"""MTU of a port that this card was not told of."""

LINE_CARD = "lc "


class Routes:
    """The forwarding state of one ASP."""

    def __init__(
        self, card: str, up: dict[str, bool], tunnels: Mapping[int, TunnelRecord], counters: Counters
    ) -> None:
        """`up` says to which cards packets may be given, `tunnels` holds all tunnels of the node that are known;
        both are read whenever a decision is made, so whoever changes them calls `decider.invalidate`."""
        self._card = card
        self._up = up
        self._tunnels = tunnels
        self._ports: dict[str, PortRecord] = {}
        self._interfaces: dict[tuple[int, str], InterfaceRecord] = {}
        self._sources: dict[tuple[int, int, str], int] = {}
        self.decider = Decider(Fib(), self._usable, up, counters)

    def apply(self, change: RecordChange) -> None:
        """Take changed records; decisions that may rest on them end."""
        touched = self.decider.fib.apply(change.put, change.deleted)
        for record in change.deleted:
            if isinstance(record, PortRecord):
                self._ports.pop(record.port, None)
            elif isinstance(record, InterfaceRecord):
                self._interfaces.pop((record.context, record.name), None)
            touched |= isinstance(record, PortRecord | InterfaceRecord | TunnelRecord | CardStateRecord)
        for record in change.put:
            if isinstance(record, PortRecord):
                self._ports[record.port] = record
            elif isinstance(record, InterfaceRecord):
                self._interfaces[record.context, record.name] = record
            touched |= isinstance(record, PortRecord | InterfaceRecord | TunnelRecord | CardStateRecord)
        if touched:
            self._sources = {}
            self.decider.invalidate()

    def mtu(self, port: str) -> int:
        """Largest packet that a port takes, in octets."""
        record = self._ports.get(port)
        return DEFAULT_MTU if record is None else record.mtu

    def egress_mtu(self, context: int, destination: int) -> int:
        """MTU of the port by which packets to this destination leave the node at the moment."""
        port = self.decider.to(context, destination).port
        return self.mtu(port) if port else DEFAULT_MTU

    def source(self, context: int, tunnel: int = 0, port: str = "") -> int:
        """The router's own address for an error about a packet that came in by a tunnel or port; 0 for none.

        Without an address of its own there it is the lowest one of the context (RFC 1812 4.3.2.4).
        """
        key = (context, tunnel, port)
        found = self._sources.get(key)
        if found is None:
            found = self._sources[key] = self._find_source(context, tunnel, port)
        return found

    def line_card(self, context: int, address: int) -> str:
        """The card whose local stack answers for an address: that of its port, else the first one usable."""
        up = self._up
        for port in self._ports.values():
            if port.address == address and port.context == context and up.get(port.card):
                return port.card
        return min([card for card, usable in up.items() if usable and card.startswith(LINE_CARD)], default="")

    def _find_source(self, context: int, tunnel: int, port: str) -> int:
        lowest = 0
        for (number, _), interface in self._interfaces.items():
            if number != context or not interface.address:
                continue
            if (tunnel and interface.tunnel == tunnel) or (port and interface.port == port):
                return interface.address
            if not lowest or interface.address < lowest:
                lowest = interface.address
        return lowest

    def _usable(self, hop: NextHop) -> bool:
        up = self._up
        if hop.kind == "port":
            port = self._ports.get(hop.port)
            return up.get(hop.card, False) and (port is None or port.enabled)
        tunnel = self._tunnels.get(hop.tunnel)
        if tunnel is None or not tunnel.up:
            return False
        if tunnel.asp != self._card and not up.get(tunnel.asp):
            return False
        return tunnel.economical or (tunnel.circuit != 0 and up.get(tunnel.home, False))
