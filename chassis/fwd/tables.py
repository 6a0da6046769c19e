"""What forwarding of one card rests on: FIB, ports, interfaces and tunnels, from replicated records.

In: changed records, and flags that the card sees itself. Out: decisions (`decider`), the MTU of a port, the
router's own address for what it sends (RFC 1812 4.3.2.4, 5.2.5), and the line card that answers for a local
address.
"""

from __future__ import annotations

from chassis.bus.counters import Counters
from chassis.bus.records import CardStateRecord, InterfaceRecord, PortRecord, TunnelRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.decision import Decider, Decision, DecisionKind
from chassis.fwd.fib import Fib, Usable

DEFAULT_MTU = 1500
"""MTU (octets) of a port of which this card has no record."""

LINE_CARD = "lc "


class ForwardingTables:
    """The forwarding state of one card.

    `up` says to which cards packets may be given; `usable` says it of a next hop. Both are read whenever a
    decision is made: the caller calls `decider.invalidate` when their answers change.
    """

    def __init__(self, up: dict[str, bool], usable: Usable, counters: Counters) -> None:
        self.fib = Fib()
        self.decider = Decider(self.fib, usable, up, counters)
        self.ports: dict[str, PortRecord] = {}
        """All ports of the node."""
        self.tunnels: dict[int, TunnelRecord] = {}
        self._up = up
        self._interfaces: dict[tuple[int, str], InterfaceRecord] = {}
        self._tunnel_addresses: dict[int, int] = {}
        self._router_ids: dict[int, int] = {}

    def apply(self, change: RecordChange) -> None:
        """Apply changed records. Decisions that may rest on them are void."""
        touched = self.fib.apply(change.put, change.deleted)
        for record in change.deleted:
            if isinstance(record, PortRecord):
                self.ports.pop(record.port, None)
            elif isinstance(record, InterfaceRecord):
                self._interfaces.pop((record.context, record.name), None)
            elif isinstance(record, TunnelRecord):
                self.tunnels.pop(record.number, None)
            touched |= isinstance(record, PortRecord | InterfaceRecord | TunnelRecord | CardStateRecord)
        for record in change.put:
            if isinstance(record, PortRecord):
                self.ports[record.port] = record
            elif isinstance(record, InterfaceRecord):
                self._interfaces[record.context, record.name] = record
            elif isinstance(record, TunnelRecord):
                self.tunnels[record.number] = record
            touched |= isinstance(record, PortRecord | InterfaceRecord | TunnelRecord | CardStateRecord)
        if touched:
            self._index_addresses()
            self.decider.invalidate()

    def mtu(self, port: str) -> int:
        """Return the largest packet (octets) that a port takes."""
        record = self.ports.get(port)
        return DEFAULT_MTU if record is None else record.mtu

    def egress_mtu(self, context: int, destination: int) -> int:
        """Return the MTU (octets) of the port by which packets to this destination leave the node now."""
        port = self.decider.to(context, destination).port
        return self.mtu(port) if port else DEFAULT_MTU

    def egress_address(self, context: int, decision: Decision) -> int:
        """Return the router's address on the interface by which a decision sends, else the router ID of the
        context.

        0: the context has no address (RFC 1812 4.3.2.4).
        """
        if decision.kind is DecisionKind.PORT:
            port = self.ports.get(decision.port)
            if port is not None and port.address:
                return port.address_towards(decision.address)
        elif decision.kind is DecisionKind.TUNNEL and decision.tunnel in self._tunnel_addresses:
            return self._tunnel_addresses[decision.tunnel]
        return self._router_ids.get(context, 0)

    def line_card(self, context: int, address: int) -> str:
        """Return the card whose local stack answers for an address: that of its port, else the first usable one.

        Empty: no line card is usable.
        """
        up = self._up
        for port in self.ports.values():
            if port.address == address and port.context == context and up.get(port.card):
                return port.card
        return min([card for card, usable in up.items() if usable and card.startswith(LINE_CARD)], default="")

    def _index_addresses(self) -> None:
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
