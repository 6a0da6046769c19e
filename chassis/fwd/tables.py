"""What forwarding of one card rests on: FIB, ports, interfaces and tunnels, from replicated records.

In: changed records, and flags that the card sees itself. Out: decisions (`decider`), the MTU of a port, the
router's own address for what it sends (RFC 1812 4.3.2.4, 5.2.5), and the line card that answers for a local
address.
"""

from __future__ import annotations

from collections.abc import Callable

from chassis.bus.counters import Counters
from chassis.bus.records import CardStateRecord, InterfaceRecord, NextHop, PortRecord, TunnelHopRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.decision import Decider, Decision, DecisionKind
from chassis.fwd.fib import Fib

DEFAULT_MTU = 1500
"""MTU (octets) of a port of which this card has no record."""

LINE_CARD = "lc "


class ForwardingTables:
    """The forwarding state of one card.

    `up` says to which other cards packets may be given, `port_up` which ports of this card may send. Both are read
    whenever a decision is made: the caller calls `decider.invalidate` when their answers change.
    """

    def __init__(self, card: str, up: dict[str, bool], port_up: Callable[[str], bool], counters: Counters) -> None:
        self.fib = Fib()
        self.decider = Decider(self.fib, self.usable, up, counters)
        self.ports: dict[str, PortRecord] = {}
        """All ports of the node."""
        self.tunnels: dict[int, TunnelHopRecord] = {}
        self._card, self._up, self._port_up = card, up, port_up
        self._interfaces: dict[tuple[int, str], InterfaceRecord] = {}
        self._tunnel_addresses: dict[int, int] = {}
        self._router_ids: dict[int, int] = {}
        self._indexed = True
        """Whether these two are those of all interfaces. Thousands of them come in many changes."""

    def apply(self, change: RecordChange) -> None:
        """Apply changed records. Decisions that may rest on them are void."""
        touched = self.fib.apply(change.put, change.deleted)
        addresses = False
        for record in change.deleted:
            if isinstance(record, TunnelHopRecord):
                self.tunnels.pop(record.number, None)
            elif isinstance(record, PortRecord):
                self.ports.pop(record.port, None)
            elif isinstance(record, InterfaceRecord):
                self._interfaces.pop((record.context, record.name), None)
                addresses = True
            elif not isinstance(record, CardStateRecord):
                continue
            touched = True
        for record in change.put:
            if isinstance(record, TunnelHopRecord):
                self.tunnels[record.number] = record
            elif isinstance(record, PortRecord):
                self.ports[record.port] = record
            elif isinstance(record, InterfaceRecord):
                self._interfaces[record.context, record.name] = record
                addresses = True
            elif not isinstance(record, CardStateRecord):
                continue
            touched = True
        if addresses:
            self._indexed = False
        if touched:
            self.decider.invalidate()

    def usable(self, hop: NextHop) -> bool:
        """Return whether a port or a tunnel may be given packets now, by what this card sees itself.

        A port of this card needs its carrier; another one its card, and to be enabled. A tunnel needs its ASP and
        the controller's word that its conditions are met; a circuit-based one also the card that holds its
        circuit. A port or tunnel of which there is no record is not usable.
        """
        if hop.kind == "port":
            if hop.card == self._card:
                return self._port_up(hop.port)
            port = self.ports.get(hop.port)
            return port is not None and port.enabled and self._up.get(hop.card, False)
        tunnel = self.tunnels.get(hop.tunnel)
        if tunnel is None or not tunnel.up or not self._is_up(tunnel.asp):
            return False
        return tunnel.economical or self._is_up(tunnel.home)

    def mtu(self, port: str) -> int:
        """Return the largest packet (octets) that a port takes."""
        record = self.ports.get(port)
        return DEFAULT_MTU if record is None else record.mtu

    def egress_mtu(self, context: int, destination: int) -> int:
        """Return the MTU (octets) of the port by which packets to this destination leave the node now."""
        port = self.decider.decide_destination(context, destination).port
        return self.mtu(port) if port else DEFAULT_MTU

    def egress_address(self, context: int, decision: Decision) -> int:
        """Return the router's address on the interface by which a decision sends, else the router ID of the
        context.

        0: the context has no address (RFC 1812 4.3.2.4).
        """
        if not self._indexed:
            self._index_addresses()
        if decision.kind is DecisionKind.PORT:
            port = self.ports.get(decision.port)
            if port is not None and port.address:
                return port.address_towards(decision.address)
        elif decision.kind is DecisionKind.TUNNEL:
            address = self._tunnel_addresses.get(decision.tunnel) or self._borrowed(decision.tunnel)
            if address:
                return address
        return self._router_ids.get(context, 0)

    def _borrowed(self, number: int) -> int:
        """Return the address that the interface of an on-demand peer's tunnel borrows; 0 for other tunnels."""
        tunnel = self.tunnels.get(number)
        if tunnel is None:
            return 0
        interface = self._interfaces.get((tunnel.context, tunnel.interface))
        return 0 if interface is None else interface.address

    def line_card(self, context: int, address: int) -> str:
        """Return the card whose local stack answers for an address: that of its port, else the first usable one.

        Empty: no line card is usable.
        """
        up = self._up
        for port in self.ports.values():
            if port.address == address and port.context == context and up.get(port.card):
                return port.card
        return min([card for card, usable in up.items() if usable and card.startswith(LINE_CARD)], default="")

    def _is_up(self, card: str) -> bool:
        return card == self._card or self._up.get(card, False)

    def _index_addresses(self) -> None:
        self._indexed = True
        self._tunnel_addresses, self._router_ids = {}, {}
        # The router ID is a loopback's address where there is one: it does not depend on any port (RFC 1812
        # 5.2.5).
        ordered = sorted(
            (i for i in self._interfaces.values() if i.address),
            key=lambda i: (i.kind != "loopback", i.name),
        )
        for interface in ordered:
            if interface.tunnel:
                self._tunnel_addresses.setdefault(interface.tunnel, interface.address)
            self._router_ids.setdefault(interface.context, interface.address)
