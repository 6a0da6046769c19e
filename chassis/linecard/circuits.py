"""Circuits of tunnels on this card, and their counters."""

from __future__ import annotations

from array import array

from chassis.bus import records
from chassis.bus.counters import Counters
from chassis.bus.replication import RecordChange
from chassis.net.ethernet import HEADROOM


class Circuit:
    """The circuit of a tunnel. Its counters take their slots with the first packet in each direction."""

    __slots__ = ("_counters", "_in", "_out", "record")

    def __init__(self, record: records.CircuitRecord, counters: Counters) -> None:
        self.record = record
        self._counters = counters
        self._in: tuple[int, int] | None = None
        self._out: tuple[int, int] | None = None

    def count_in(self, lengths: array[int]) -> None:
        """Count packets that came out of the tunnel."""
        if self._in is None:
            self._in = self._slots("in")
        self._count(self._in, lengths)

    def count_out(self, lengths: array[int]) -> None:
        """Count outer packets of the tunnel that leave."""
        if self._out is None:
            self._out = self._slots("out")
        self._count(self._out, lengths)

    def totals(self) -> dict[str, int]:
        """Return packets and octets of both directions since the counter file was new."""
        name = f"circuit {self.record.number}"
        return {
            f"{title}_{way}": self._counters.get(f"{name} {what} {way}")
            for way in ("in", "out")
            for title, what in (("packets", "packets"), ("octets", "bytes"))
        }

    def release(self) -> None:
        """Give back the slots of a circuit that is no more."""
        self._in = self._out = None
        for direction in ("in", "out"):
            for what in ("packets", "bytes"):
                self._counters.release(f"circuit {self.record.number} {what} {direction}")

    def _slots(self, direction: str) -> tuple[int, int]:
        name = f"circuit {self.record.number}"
        return (
            self._counters.slot(f"{name} packets {direction}", numbered=True),
            self._counters.slot(f"{name} bytes {direction}", numbered=True),
        )

    def _count(self, slots: tuple[int, int], lengths: array[int]) -> None:
        values = self._counters.values
        packets = len(lengths)
        values[slots[0]] += packets
        values[slots[1]] += sum(lengths) - HEADROOM * packets


class Circuits:
    """The tunnel circuits of this card by number."""

    def __init__(self, card: str, counters: Counters) -> None:
        self.own: dict[int, Circuit] = {}
        self._card = card
        self._counters = counters

    def apply(self, change: RecordChange) -> None:
        for record in change.deleted:
            if isinstance(record, records.CircuitRecord):
                gone = self.own.pop(record.number, None)
                if gone is not None and record.temporary:
                    gone.release()
        for record in change.put:
            if not isinstance(record, records.CircuitRecord):
                continue
            if record.card != self._card or record.kind != "tunnel":
                self.own.pop(record.number, None)
            elif (known := self.own.get(record.number)) is not None:
                known.record = record
            else:
                self.own[record.number] = Circuit(record, self._counters)
