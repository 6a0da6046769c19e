"""Ports of a line card: what the controller wants of them, whether their wire stands, who is at its other end.

A port is up when it is enabled (not shut down, bound to an interface) and has carrier.
"""

from __future__ import annotations

from chassis.bus import records
from chassis.bus.messages import PortEvent
from chassis.bus.replication import RecordChange
from chassis.linecard.neighbours import Neighbour
from chassis.linecard.room import Room
from chassis.net.address import MASKS
from chassis.net.ethernet import HEADROOM

SPEED = 1000
"""Speed that a port reports, in Mbit/s: its wire has none of its own."""


class LineCardPort:
    """One port of this card. `limit` is the longest frame that its MTU allows, in bytes."""

    __slots__ = ("addresses", "carrier", "limit", "neighbours", "record", "room", "up")

    def __init__(self, record: records.PortRecord, carrier: bool) -> None:
        self.neighbours: dict[int, Neighbour] = {}
        self.room = Room()
        self.carrier = carrier
        self.take(record)

    def take(self, record: records.PortRecord) -> None:
        self.record = record
        self.addresses = frozenset(address for address, _ in record.networks)
        self.limit = record.mtu + HEADROOM
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
        """Whether an address is in a network of the port's interface."""
        return any((own ^ address) & MASKS[length] == 0 for own, length in self.record.networks)

    def event(self) -> PortEvent:
        """What the controller is told about the port's state."""
        reason = ""
        if not self.up:
            reason = "no carrier" if self.record.enabled else "shutdown"
        return PortEvent(self.name, self.up, reason, SPEED, self.mac)


class LineCardPorts:
    """The ports of this card by name, and the records of all ports of the node."""

    def __init__(self, card: str) -> None:
        self.own: dict[str, LineCardPort] = {}
        self.records: dict[str, records.PortRecord] = {}
        self._card = card
        self._carrier: dict[str, bool] = {}

    def apply(self, change: RecordChange) -> tuple[list[LineCardPort], list[LineCardPort]]:
        """Take records of ports.

        Returns the ports of this card whose state or identity is new, and those whose neighbours are void
        because the port went down, is gone, or has another address now.
        """
        fresh: list[LineCardPort] = []
        void: list[LineCardPort] = []
        for record in change.deleted:
            if isinstance(record, records.PortRecord):
                self.records.pop(record.port, None)
                gone = self.own.pop(record.port, None)
                if gone is not None:
                    gone.up = False
                    void.append(gone)
        for record in change.put:
            if not isinstance(record, records.PortRecord):
                continue
            self.records[record.port] = record
            port = self.own.get(record.port)
            if record.card != self._card:
                if port is not None:
                    del self.own[record.port]
                    port.up = False
                    void.append(port)
            elif port is None:
                self.own[record.port] = port = LineCardPort(record, self._carrier.get(record.port, False))
                fresh.append(port)
            else:
                before, was_up = port.record, port.up
                port.take(record)
                moved = _identity(before) != _identity(record)
                if port.up != was_up or moved:
                    fresh.append(port)
                if moved or (was_up and not port.up):
                    void.append(port)
        return fresh, void

    def carrier(self, name: str, up: bool) -> LineCardPort | None:
        """Note carrier of a port; the port, if that changed its state."""
        self._carrier[name] = up
        port = self.own.get(name)
        if port is None or port.carrier == up:
            return None
        before = port.up
        port.carrier = up
        port.take(port.record)
        return port if port.up != before else None


def _identity(record: records.PortRecord) -> tuple[int, tuple[tuple[int, int], ...], bytes]:
    return (record.context, record.networks, record.mac)
