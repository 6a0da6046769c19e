"""The queue of a sender for a connection whose own queue is full: coalesced, bounded, and dropped by class.

In: batches that the sender could not send. Out: the same packets in the same order, less those that were dropped.
A class decides which packets are dropped, not which are sent first: packets of an SA have sequence numbers
already.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import compress

from chassis.bus.batch import Batch
from chassis.bus.coalesce import AnyRun, coalesce
from chassis.bus.priority import classes_of_batch
from chassis.model.qos import CLASS_COUNT, LOWEST_CLASS

Classify = Callable[[Batch], bytes]
"""Returns the class of each packet of a batch."""


def selected(batch: Batch, keep: Sequence[int]) -> Batch:
    """Return a copy of a batch with only the packets whose octet in `keep` is not 0, in order."""
    numbers = list(compress(range(len(keep)), keep))
    places = {number: place for place, number in enumerate(numbers)}
    return replace(
        batch,
        body=bytearray().join(compress(batch.packets(), keep)),
        lengths=array("H", compress(batch.lengths, keep)),
        descriptors=bytes(compress(batch.descriptors, keep)),
        marks=tuple([(places[index], number) for index, number in batch.marks if index in places]),
        runs=tuple(_selected_runs(batch.runs, keep)),
        hops=tuple(_selected_runs(batch.hops, keep)),
    )


def _selected_runs(runs: Sequence[AnyRun], keep: Sequence[int]) -> Iterator[AnyRun]:
    """Return the runs of the packets that are kept."""
    first = 0
    for packets, one, other in runs:
        kept = packets - bytes(map(bool, keep[first : first + packets])).count(0)
        if kept:
            yield kept, one, other
        first += packets


class Backlog:
    """Batches in order, `most` packets at most. `classify` returns the class of each packet, 0 the highest."""

    __slots__ = ("_batches", "_classes", "_classify", "_counts", "_most", "packets")

    def __init__(self, most: int, classify: Classify = classes_of_batch) -> None:
        self._most = most
        self._classify = classify
        self._batches: deque[Batch] = deque()
        self._classes: deque[bytes] = deque()
        """Class (0 to 3) of each packet, by batch; empty for a batch of which nobody had to know them yet."""
        self._counts = [0] * CLASS_COUNT
        """Packets of each class, of the batches whose classes are known."""
        self.packets = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def first(self) -> Batch:
        """Return the first batch."""
        return self._batches[0]

    def dequeue(self) -> None:
        """Remove the first batch."""
        batch = self._batches.popleft()
        if classes := self._classes.popleft():
            self._count(classes, -1)
        self.packets -= len(batch.lengths)

    def enqueue(self, batch: Batch) -> list[int]:
        """Add a batch. Return the number of dropped packets of each class, of this batch or of earlier ones.

        If there are too many packets, drop packets of the lowest class first, and of a class the latest first.
        """
        classes = b""
        packets = len(batch.lengths)
        excess = self.packets + packets - self._most
        dropped = [0] * CLASS_COUNT
        if excess > 0:
            classes = self._classify(batch)
            self._classify_waiting()
            own = [0] * CLASS_COUNT
            for number in range(LOWEST_CLASS, -1, -1):
                own[number] = min(classes.count(number), excess)
                excess -= own[number]
                others = min(self._counts[number], excess)
                if others:
                    self._evict(number, others)
                    excess -= others
                dropped[number] = own[number] + others
                if not excess:
                    break
            if any(own):
                keep = _without(classes, own)
                if not any(keep):
                    return dropped
                batch = selected(batch, keep)
                classes = bytes(compress(classes, keep))
                packets = len(classes)
            self._count(classes, 1)
        elif self._batches and self._classes[-1]:
            # The two may become one batch, of which all classes are known.
            classes = self._classify(batch)
            self._count(classes, 1)
        self.packets += packets
        if self._batches and coalesce(self._batches[-1], batch):
            self._classes[-1] += classes
        else:
            self._batches.append(batch)
            self._classes.append(classes)
        return dropped

    def _classify_waiting(self) -> None:
        """Find the classes of all batches that wait."""
        for place, known in enumerate(self._classes):
            if not known:
                self._classes[place] = classes = self._classify(self._batches[place])
                self._count(classes, 1)

    def _count(self, classes: bytes, sign: int) -> None:
        for number in range(CLASS_COUNT):
            self._counts[number] += sign * classes.count(number)

    def _evict(self, number: int, count: int) -> None:
        """Drop the last `count` packets of a class, which has at least as many."""
        self._counts[number] -= count
        self.packets -= count
        for place in range(len(self._batches) - 1, -1, -1):
            classes = self._classes[place]
            here = min(classes.count(number), count)
            if not here:
                continue
            keep = _without(classes, [here if one == number else 0 for one in range(CLASS_COUNT)])
            if any(keep):
                self._batches[place] = selected(self._batches[place], keep)
                self._classes[place] = bytes(compress(classes, keep))
            else:
                del self._batches[place], self._classes[place]
            count -= here
            if not count:
                return


def _without(classes: bytes, dropped: Sequence[int]) -> bytearray:
    """Return an octet for each packet: 0 for the last `dropped[class]` packets of each class, 1 for the others."""
    keep = bytearray(b"\1") * len(classes)
    for number, count in enumerate(dropped):
        at = len(classes)
        for _ in range(count):
            at = classes.rindex(number, 0, at)
            keep[at] = 0
    return keep
