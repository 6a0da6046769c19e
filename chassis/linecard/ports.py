"""Ports of a line card: what the controller wants of them, and whether their wires have carrier.

A port is up when it is enabled (not shut down, bound to an interface) and has carrier.
"""

from __future__ import annotations

from chassis.bus.messages import PortEvent
from chassis.bus.records import PortRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.forwarder import Origin
from chassis.net.address import MASKS
from chassis.net.ethernet import HEADROOM

SPEED = 1000
"""Speed (Mbit/s) that a port reports: its wire has none of its own."""


class LineCardPort:
    """One port of this card. `limit` is the longest frame (octets) that its MTU allows; `mark` is the priority
    descriptor of a packet that comes in, one octet, or none. `origin` is that of a packet that comes in."""

    __slots__ = ("addresses", "carrier", "limit", "mark", "origin", "record", "up")

    def __init__(self, record: PortRecord, carrier: bool) -> None:
        self.carrier = carrier
        self.apply_record(record)

    def apply_record(self, record: PortRecord) -> None:
        self.record = record
        self.addresses = frozenset(address for address, _ in record.networks)
        self.limit = record.mtu + HEADROOM
        self.origin = Origin(transit=True, port=record.port)
        self.mark = bytes([record.descriptor]) if record.descriptor >= 0 else b""
        self.up = record.enabled and self.carrier

    @property
    def name(self) -> str:
        return self.record.port

    @property
    def context(self) -> int:
        return self.record.context

    @property
    def mac(self) -> bytes:
        return self.record.mac

    @property
    def address(self) -> int:
        return self.record.address

    def is_on_link(self, address: int) -> bool:
        """Return whether an address is in a network of the port's interface."""
        return any((own ^ address) & MASKS[length] == 0 for own, length in self.record.networks)

    def event(self) -> PortEvent:
        """Return the report of the port's state to the controller."""
        reason = ""
        if not self.up:
            reason = "no carrier" if self.record.enabled else "shutdown"
        return PortEvent(self.name, self.up, reason, SPEED, self.mac)


class LineCardPorts:
    """The ports of this card, by name."""

    def __init__(self, card: str) -> None:
        self.own: dict[str, LineCardPort] = {}
        self._card = card
        self._carrier: dict[str, bool] = {}

    def is_up(self, name: str) -> bool:
        """Return whether this card has the port, and packets may leave by it."""
        port = self.own.get(name)
        return port is not None and port.up

    def apply(self, change: RecordChange) -> tuple[list[LineCardPort], list[LineCardPort]]:
        """Apply changed records of ports.

        Returns the ports of this card whose state or identity is new, and those whose neighbours are void because
        the port went down, was removed, or has another identity now.
        """
        new: list[LineCardPort] = []
        void: list[LineCardPort] = []
        for record in change.deleted:
            if isinstance(record, PortRecord):
                self._remove(record.port, void)
        for record in change.put:
            if not isinstance(record, PortRecord):
                continue
            port = self.own.get(record.port)
            if record.card != self._card:
                self._remove(record.port, void)
            elif port is None:
                self.own[record.port] = port = LineCardPort(record, self._carrier.get(record.port, False))
                new.append(port)
            else:
                before, was_up = port.record, port.up
                port.apply_record(record)
                moved = _identity(before) != _identity(record)
                if port.up != was_up or moved:
                    new.append(port)
                if moved or (was_up and not port.up):
                    void.append(port)
        return new, void

    def on_carrier(self, name: str, up: bool) -> LineCardPort | None:
        """Store the carrier of a port; return the port if that changed its state."""
        self._carrier[name] = up
        port = self.own.get(name)
        if port is None or port.carrier == up:
            return None
        before = port.up
        port.carrier = up
        port.apply_record(port.record)
        return port if port.up != before else None

    def _remove(self, name: str, void: list[LineCardPort]) -> None:
        port = self.own.pop(name, None)
        if port is not None:
            port.up = False
            void.append(port)


def _identity(record: PortRecord) -> tuple[int, tuple[tuple[int, int], ...], bytes]:
    return (record.context, record.networks, record.mac)
