"""Circuits of tunnels on this card, and their counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chassis.bus import records
from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.replication import RecordChange
from chassis.bus.runs import Run, Runs
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
        self._count(self._in or self.slots(inward=True), packets, octets)

    def count_out(self, packets: int, octets: int) -> None:
        """Count outer packets of the tunnel, and their octets without headroom, that leave."""
        self._count(self._out or self.slots(inward=False), packets, octets)

    def slots(self, *, inward: bool) -> tuple[int, int]:
        """Return the slots of packets and octets of a direction."""
        if inward:
            if self._in is None:
                self._in = self._new_slots("in")
            return self._in
        if self._out is None:
            self._out = self._new_slots("out")
        return self._out

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

    def _new_slots(self, direction: str) -> tuple[int, int]:
        name = self._name
        return (
            self._counters.slot(f"{name} packets {direction}", numbered=True),
            self._counters.slot(f"{name} bytes {direction}", numbered=True),
        )

    def _count(self, slots: tuple[int, int], packets: int, octets: int) -> None:
        values = self._counters.values
        values[slots[0]] += packets
        values[slots[1]] += octets


_NO_ROWS: Final[NDArray[np.intp]] = np.zeros(0, np.intp)


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
        self._numbers: NDArray[np.uint32] = np.zeros(0, np.uint32)
        """The numbers of the circuits, sorted."""
        self._slots: NDArray[np.int64] = np.zeros((2, 0, 2), np.int64)
        """Slots by direction (out, in), circuit and what is counted (packets, octets); 0 if not taken yet."""
        self._values: NDArray[np.uint64] | None = None
        """The counters, once runs are counted."""

    def apply(self, change: RecordChange) -> None:
        """Apply changed records; the first change, of several slices or one, is a snapshot."""
        for record in change.deleted:
            if isinstance(record, records.CircuitRecord):
                self._remove(record.number)
        new: list[int] = []
        for record in change.put:
            if not isinstance(record, records.CircuitRecord):
                continue
            if record.card != self._card or record.kind != "tunnel":
                self._remove(record.number)
            elif (known := self.own.get(record.number)) is not None:
                known.apply_record(record)
            else:
                self.own[record.number] = Circuit(record, self._counters)
                new.append(record.number)
        if new:
            new.sort()
            rows = self._numbers.searchsorted(new)
            self._numbers, self._slots = (
                np.insert(self._numbers, rows, new),
                np.insert(self._slots, rows, 0, axis=1),
            )
        if self._first and not change.more:
            # Instances that ended, or went to another card, while no process of this card ran.
            self._first = False
            self._counters.release_numbered(INSTANCE, self.own)

    def rows(self, runs: Sequence[Run]) -> NDArray[np.intp] | None:
        """Return the rows of the circuits of runs for `count_runs`, none for a few runs; None: one of them is not
        here."""
        if type(runs) is not Runs:
            return _NO_ROWS if all(number in self.own for _, _, number in runs) else None
        numbers = self._numbers
        circuits = runs.circuits.copy()
        rows = numbers.searchsorted(circuits)
        # Cheaper than comparisons by numpy.
        if int(np.maximum.reduce(rows)) == len(numbers) or numbers[rows].tobytes() != circuits.tobytes():
            return None
        return rows

    def count_runs(self, batch: Batch, rows: NDArray[np.intp]) -> None:
        """Count the packets of a batch with runs, whose circuits have these rows (`rows`)."""
        inward, runs = batch.step is Step.CIRCUIT_IN, batch.runs
        common = common_length(batch.lengths)
        if type(runs) is not Runs:
            first = 0
            for count, _, number in runs:
                octets = common * count if common else sum(batch.lengths[first : first + count])
                circuit = self.own[number]
                (circuit.count_in if inward else circuit.count_out)(count, octets - HEADROOM * count)
                first += count
            return
        table = self._slots[int(inward)]
        slots = table[rows]
        if np.count_nonzero(slots) < slots.size:
            for place in (slots[:, 0] == 0).nonzero()[0].tolist():
                circuit = self.own[int(runs.circuits[place])]
                table[rows[place]] = circuit.slots(inward=inward)
            slots = table[rows]
        counted: NDArray[np.uint64] = np.empty(slots.shape, np.uint64)
        counted[:, 0] = packets = runs.packets
        if common:
            counted[:, 1] = counted[:, 0] * np.uint64(common - HEADROOM)
        else:
            ends = np.add.accumulate(packets, dtype=np.intp)
            lengths = np.frombuffer(batch.lengths, np.uint16)
            counted[:, 1] = np.add.reduceat(lengths, ends - packets, dtype=np.intp) - HEADROOM * packets
        if self._values is None:
            self._values = np.frombuffer(self._counters.values, np.uint64)
        # A circuit may have several runs.
        np.add.at(self._values, slots.ravel(), counted.ravel())

    def _remove(self, number: int) -> None:
        gone = self.own.pop(number, None)
        if gone is None:
            return
        row = self._numbers.searchsorted(number)
        self._numbers, self._slots = np.delete(self._numbers, row), np.delete(self._slots, row, axis=1)
        if gone.record.temporary:
            gone.release()
