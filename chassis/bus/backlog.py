"""The queue of a sender for a connection whose own queue is full: coalesced, bounded, and dropped by class.

Nothing here changes the order of packets: a class decides what is dropped, never what goes first. That is the
business of an SA's queues; what left them has its sequence number.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress

from chassis.bus.batch import Batch
from chassis.bus.coalesce import coalesce
from chassis.bus.priority import CLASS_COUNT, LOWEST_CLASS, classes_of

Classify = Callable[[bytearray | memoryview, "array[int]", bytes], bytes]
"""The class of each packet of a batch: of its body, its lengths and its descriptors."""


def selected(batch: Batch, keep: Sequence[int]) -> Batch:
    """The packets of a batch whose place in `keep` is not 0, in their order, in a body of their own."""
    numbers = list(compress(range(len(keep)), keep))
    places = {number: place for place, number in enumerate(numbers)}
    return replace(
        batch,
        body=bytearray().join(compress(batch.packets(), keep)),
        lengths=array("H", compress(batch.lengths, keep)),
        descriptors=bytes(compress(batch.descriptors, keep)),
        marks=tuple([(places[index], number) for index, number in batch.marks if index in places]),
    )


class Backlog:
    """Batches in their order, `most` packets at most. `classify` says which packets are dropped before others."""

    __slots__ = ("_batches", "_classes", "_classify", "_counts", "_most", "packets")

    def __init__(self, most: int, classify: Classify = classes_of) -> None:
        self._most = most
        self._classify = classify
        self._batches: deque[Batch] = deque()
        self._classes: deque[bytes] = deque()
        """The class of each packet of each batch."""
        self._counts = [0] * CLASS_COUNT
        self.packets = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def first(self) -> Batch:
        """The first batch."""
        return self._batches[0]

    def dequeue(self) -> None:
        """Remove the first batch."""
        batch = self._batches.popleft()
        self._count(self._classes.popleft(), -1)
        self.packets -= len(batch.lengths)

    def enqueue(self, batch: Batch) -> list[int]:
        """Add a batch; how many packets of each class were dropped for it, its own or those that waited.

        Where there are too many the lowest class loses first, and in a class the packets that came last: what
        waits of a lower class makes room for a higher one.
        """
        classes = self._classify(batch.body, batch.lengths, batch.descriptors)
        excess = self.packets + len(classes) - self._most
        dropped = [0] * CLASS_COUNT
        if excess > 0:
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
        self._count(classes, 1)
        self.packets += len(classes)
        if self._batches and coalesce(self._batches[-1], batch):
            self._classes[-1] += classes
        else:
            self._batches.append(batch)
            self._classes.append(classes)
        return dropped

    def _count(self, classes: bytes, sign: int) -> None:
        for number in range(CLASS_COUNT):
            self._counts[number] += sign * classes.count(number)

    def _evict(self, number: int, count: int) -> None:
        """Drop the last `count` packets of a class; so many there are."""
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
    """1 for each packet but the last so many of each class."""
    keep = bytearray(b"\1") * len(classes)
    for number, count in enumerate(dropped):
        at = len(classes)
        for _ in range(count):
            at = classes.rindex(number, 0, at)
            keep[at] = 0
    return keep
