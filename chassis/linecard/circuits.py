"""Circuits of tunnels on this card, and their counters."""

from __future__ import annotations

from typing import Final

from chassis.bus import records
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.replication import RecordChange
from chassis.fwd.forwarder import Origin
from chassis.net.columns import common_length
from chassis.net.ethernet import HEADROOM

INSTANCE: Final = "instance circuit"
"""What `circuit` is called in the counters of the circuit of an instance of an on-demand tunnel."""


class Circuit:
    """The circuit of a tunnel. Its counters take their slots with the first packet in each direction.

    `inward` and `outward` are the origins of packets that came out of the tunnel, and of its outer packets.
    """

    __slots__ = ("_counters", "_in", "_out", "inward", "outward", "record")

    def __init__(self, record: records.CircuitRecord, counters: Counters) -> None:
        self.apply_record(record)
        self._counters = counters
        self._in: tuple[int, int] | None = None
        self._out: tuple[int, int] | None = None

    def apply_record(self, record: records.CircuitRecord) -> None:
        self.record = record
        self.inward = Origin(transit=True, tunnel=record.tunnel)
        self.outward = Origin(transit=False, tunnel=record.tunnel)

    def count_in(self, packets: int, octets: int) -> None:
        """Count packets, and their octets without headroom, that came out of the tunnel."""
        if self._in is None:
            self._in = self._slots("in")
        self._count(self._in, packets, octets)

    def count_out(self, packets: int, octets: int) -> None:
        """Count outer packets of the tunnel, and their octets without headroom, that leave."""
        if self._out is None:
            self._out = self._slots("out")
        self._count(self._out, packets, octets)

    @property
    def _name(self) -> str:
        return f"{INSTANCE if self.record.temporary else 'circuit'} {self.record.number}"

    def totals(self) -> dict[str, int]:
        """Return packets and octets of both directions since the counter file was new."""
        name = self._name
        return {
            f"{title}_{way}": self._counters.get(f"{name} {what} {way}")
            for way in ("in", "out")
            for title, what in (("packets", "packets"), ("octets", "bytes"))
        }

    def release(self) -> None:
        """Give back the slots of the circuit of an instance, which is no longer here."""
        self._in = self._out = None
        for direction in ("in", "out"):
            for what in ("packets", "bytes"):
                self._counters.release(f"{self._name} {what} {direction}")

    def _slots(self, direction: str) -> tuple[int, int]:
        name = self._name
        return (
            self._counters.slot(f"{name} packets {direction}", numbered=True),
            self._counters.slot(f"{name} bytes {direction}", numbered=True),
        )

    def _count(self, slots: tuple[int, int], packets: int, octets: int) -> None:
        values = self._counters.values
        values[slots[0]] += packets
        values[slots[1]] += octets


class Circuits:
    """The tunnel circuits of this card by number.

    The counters of a circuit stay in the file, unless it is that of an instance of an on-demand tunnel: these come
    and go, and the file would fill.
    """

    def __init__(self, card: str, counters: Counters) -> None:
        self.own: dict[int, Circuit] = {}
        self._card = card
        self._counters = counters
        self._first = True

    def apply(self, change: RecordChange) -> None:
        """Apply changed records; the first change, of several slices or one, is a snapshot."""
        for record in change.deleted:
            if isinstance(record, records.CircuitRecord):
                self._remove(record.number)
        for record in change.put:
            if not isinstance(record, records.CircuitRecord):
                continue
            if record.card != self._card or record.kind != "tunnel":
                self._remove(record.number)
            elif (known := self.own.get(record.number)) is not None:
                known.apply_record(record)
            else:
                self.own[record.number] = Circuit(record, self._counters)
        if self._first and not change.more:
            # Instances that ended, or went to another card, while no process of this card ran.
            self._first = False
            self._counters.release_numbered(INSTANCE, self.own)

    def count_runs(self, batch: Batch) -> None:
        """Count the packets of a batch with runs, whose circuits are all on this card."""
        inward, lengths = batch.step is Step.CIRCUIT_IN, batch.lengths
        common = common_length(lengths)
        first = 0
        for packets, _, number in batch.runs:
            octets = common * packets if common else sum(lengths[first : first + packets])
            circuit = self.own[number]
            (circuit.count_in if inward else circuit.count_out)(packets, octets - HEADROOM * packets)
            first += packets

    def _remove(self, number: int) -> None:
        gone = self.own.pop(number, None)
        if gone is not None and gone.record.temporary:
            gone.release()
