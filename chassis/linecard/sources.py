"""Which of the router's addresses its own packets carry as their source (RFC 1812 4.3.2.4)."""

from __future__ import annotations

from chassis.bus.records import InterfaceRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.decision import Decision, DecisionKind
from chassis.linecard.ports import LineCardPorts


class Sources:
    """Interfaces of the node, to choose a source address by the way out."""

    def __init__(self, ports: LineCardPorts) -> None:
        self._ports = ports
        self._interfaces: dict[tuple[int, str], InterfaceRecord] = {}
        self._of_tunnel: dict[int, int] = {}
        self._any: dict[int, int] = {}

    def apply(self, change: RecordChange) -> None:
        for record in change.deleted:
            if isinstance(record, InterfaceRecord):
                self._interfaces.pop((record.context, record.name), None)
        for record in change.put:
            if isinstance(record, InterfaceRecord):
                self._interfaces[record.context, record.name] = record
        self._of_tunnel = {}
        self._any = {}
        # Loopbacks come first: they are there whatever happens to ports.
        ordered = sorted(
            (i for i in self._interfaces.values() if i.address),
            key=lambda i: (i.kind != "loopback", i.name),
        )
        for interface in ordered:
            if interface.tunnel:
                self._of_tunnel.setdefault(interface.tunnel, interface.address)
            self._any.setdefault(interface.context, interface.address)

    def of(self, context: int, decision: Decision) -> int:
        """The address of the interface by which a decision sends, else one of the context's; 0 if it has none."""
        if decision.kind is DecisionKind.PORT:
            port = self._ports.records.get(decision.port)
            if port is not None and port.address:
                return port.address_towards(decision.address)
        elif decision.kind is DecisionKind.TUNNEL and decision.tunnel in self._of_tunnel:
            return self._of_tunnel[decision.tunnel]
        return self._any.get(context, 0)
