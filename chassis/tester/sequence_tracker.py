"""The sequence numbers that a sink received of a flow: what is missing, twice there, or late.

Missing packets are kept as runs, each with the times at which its neighbours were sent and arrived, so the loss
within any period can be computed later. A late packet leaves its run and counts as reordered, not as lost. Times
are in ns of the monotonic clock.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chassis.net.columns import Numbers
from chassis.tester.results import count_evenly

MAX_LOSS_RUNS = 100_000
"""Runs of missing packets that are kept. Of older runs only the number of packets is kept."""


@dataclass(slots=True)
class LossRun:
    """Missing packets `first` to `last`, with the times (ns) at which the packets before and after were sent and
    seen."""

    first: int
    last: int
    sent_before: int
    sent_after: int
    seen_before: int
    seen_after: int

    @property
    def count(self) -> int:
        """Number of packets in the run."""
        return self.last - self.first + 1

    def lost_between(self, begin: int, end: int) -> int:
        """Return how many packets of the run should have arrived in [begin, end) (ns).

        They are assumed to be sent evenly between their neighbours, and to travel as long as those; at the
        beginning of the period as long as the slower neighbour. So a packet that an event destroyed on its way
        counts as the loss of that event.
        """
        before, after = self.seen_before - self.sent_before, self.seen_after - self.sent_after
        begin, end = begin - max(before, after, 0), end - max(before, 0)
        return count_evenly(self.count, self.sent_before, self.sent_after, begin, end)


WINDOW = 1 << 13
"""Newest numbers (count) of packets out of order that are kept one by one, before what is missing makes runs."""

MAX_LEAP = WINDOW // 4
"""Numbers (count) beyond the highest one, at most, that a window takes. Further ones come after a loss."""

MIN_COLUMNS = 8
"""Packets (count) in a row from which on the window takes them; for fewer it is closed."""


class _Window:
    """Which of the newest numbers arrived, from `first` on, and when these packets were sent and seen: rings.

    `count` is how many did. The packet before the first one arrived, too.
    """

    __slots__ = ("_arrived", "_seen", "_seen_before", "_sent", "_sent_before", "count", "first")

    def __init__(self) -> None:
        self._arrived: NDArray[np.bool_] = np.zeros(WINDOW, bool)
        self._sent: Numbers = np.zeros(WINDOW, np.int64)
        self._seen: Numbers = np.zeros(WINDOW, np.int64)
        self.begin(0, 0, 0)

    def begin(self, first: int, sent_before: int, seen_before: int) -> None:
        """Begin anew. The times (ns) are those of the packet before the first."""
        self._arrived.fill(False)
        self.first, self.count = first, 0
        self._sent_before, self._seen_before = sent_before, seen_before

    def fresh(self, numbers: Numbers) -> NDArray[np.bool_] | None:
        """Return which numbers of the window did not arrive before, and are the first of their kind here; None:
        all."""
        arrived = self._arrived[numbers % WINDOW]
        values, first = np.unique(numbers, return_index=True)
        if len(values) == len(numbers) and not arrived.any():
            return None
        found = np.zeros(len(numbers), bool)
        found[first] = True
        found &= ~arrived
        return found

    def add(self, numbers: Numbers, sent: Numbers, seen: int) -> None:
        """Add fresh packets."""
        places = numbers % WINDOW
        self._arrived[places] = True
        self._sent[places] = sent
        self._seen[places] = seen
        self.count += len(numbers)

    def last_arrived(self, until: int) -> int | None:
        """Return the highest number below `until` that arrived; None if there is none in the window."""
        found = np.flatnonzero(self._arrived[np.arange(self.first, until) % WINDOW])
        return self.first + int(found[-1]) if len(found) else None

    def move(self, last: int) -> list[LossRun]:
        """Begin behind `last`, which arrived; return what is missing before it."""
        places = np.arange(self.first, last + 1) % WINDOW
        arrived, sent, seen = self._arrived[places], self._sent[places].tolist(), self._seen[places].tolist()
        found: list[LossRun] = []
        for begin, end in _ranges(~arrived):
            before = (sent[begin - 1], seen[begin - 1]) if begin else (self._sent_before, self._seen_before)
            found.append(
                LossRun(self.first + begin, self.first + end - 1, before[0], sent[end], before[1], seen[end])
            )
        self._arrived[places] = False
        self.count -= int(np.count_nonzero(arrived))
        self.first, self._sent_before, self._seen_before = last + 1, sent[-1], seen[-1]
        return found


def _ranges(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (begin, end) of each range of true flags."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


class SequenceTracker:
    """The sequence numbers that one sink received of one start of a source. Times are in ns."""

    def __init__(self) -> None:
        self.highest = -1
        self.received = 0
        self.duplicated = 0
        self.reordered = 0
        self.first = 0
        """Number of the first packet that arrived."""
        self.first_seen = 0
        self.first_sent = 0
        self.last_seen = 0
        self.last_sent = 0
        """When the packet with the highest number was sent."""
        self.leading = 0
        """Missing packets before the first one that arrived."""
        self._runs: list[LossRun] = []
        self._window: _Window | None = None
        self._opened = False
        """Whether numbers up to the highest one are in the window."""

    @property
    def missing(self) -> int:
        """Packets that did not arrive, of those up to the highest number."""
        return self.highest + 1 - self.received

    @property
    def loss_runs(self) -> list[LossRun]:
        """The missing packets in runs, by their numbers: the latest ones, if there were many."""
        self._close_window()
        return self._runs

    def receive_run(self, first: int, count: int, sent: int, last_sent: int, seen: int) -> None:
        """Count `count` packets, numbered without a gap from `first`, sent from `sent` to `last_sent`, seen at
        `seen`."""
        if self._opened and count >= MIN_COLUMNS:
            times = np.full(count, sent)
            times[-1] = last_sent
            self.receive_columns(np.arange(first, first + count), times, seen)
            return
        self._close_window()
        if first > self.highest:
            if first > self.highest + 1:
                self._add_loss_run(first, sent, seen)
            if not self.received:
                self.first, self.first_seen, self.first_sent = first, seen, sent
            self.highest = first + count - 1
            self.last_sent = last_sent
            self.received += count
        else:
            for sequence in range(first, first + count):
                self.receive(sequence, last_sent, seen)
        self.last_seen = seen

    def receive(self, sequence: int, sent: int, seen: int) -> bool:
        """Count one packet with any number; return False if it is a duplicate."""
        if sequence > self.highest:
            self.receive_run(sequence, 1, sent, sent, seen)
            return True
        self._close_window()
        self.last_seen = seen
        return self._receive_late(sequence, sent)

    def receive_columns(self, numbers: Numbers, sent: Numbers, seen: int) -> None:
        """Count packets with any numbers in the order of their arrival, each sent at its time, all seen at
        `seen`: the same as `receive` does with each, but for times around a loss. They may be late or early; a
        number is kept in the window until nothing is missing before it."""
        top = int(numbers.max())
        if not self.received or top > self.highest + MAX_LEAP or len(numbers) > MAX_LEAP:
            self._close_window()
            for number, time in zip(numbers.tolist(), sent.tolist(), strict=True):
                self.receive(number, time, seen)
            return
        window = self._open_window(top)
        early = numbers < window.first
        if early.any():
            for number, time in zip(numbers[early].tolist(), sent[early].tolist(), strict=True):
                self._receive_late(number, time)
            numbers, sent = numbers[~early], sent[~early]
        fresh = window.fresh(numbers)
        if fresh is not None:
            self.duplicated += len(numbers) - int(np.count_nonzero(fresh))
            numbers, sent = numbers[fresh], sent[fresh]
        self.last_seen = seen
        if len(numbers):
            highest = np.maximum.accumulate(np.append(self.highest, numbers))
            self.reordered += int(np.count_nonzero(numbers < highest[:-1]))
            self.received += len(numbers)
            window.add(numbers, sent, seen)
            if top > self.highest:
                self.highest = top
                self.last_sent = int(sent[numbers.argmax()])
        if window.first + window.count > self.highest:
            self._opened = False

    def lost_between(self, begin: int, end: int) -> int:
        """Return the missing packets that should have arrived in [begin, end), as far as their runs are kept."""
        gaps = self.loss_runs
        lost = 0
        for index in range(len(gaps) - 1, -1, -1):
            gap = gaps[index]
            if gap.seen_after <= begin:
                break
            lost += gap.lost_between(begin, end)
        return lost

    def _open_window(self, top: int) -> _Window:
        """Return the window, with room for the numbers up to `top`."""
        window = self._window
        if window is None:
            window = self._window = _Window()
        if self._opened and top >= window.first + WINDOW:
            last = window.last_arrived(top - WINDOW // 2)
            if last is not None:
                self._add(window.move(last))
            if top >= window.first + WINDOW:
                self._close_window()
        if not self._opened:
            window.begin(self.highest + 1, self.last_sent, self.last_seen)
            self._opened = True
        return window

    def _close_window(self) -> None:
        """Make runs of what is missing in the window."""
        if self._opened:
            assert self._window is not None
            self._opened = False
            if self._window.first <= self.highest:
                self._add(self._window.move(self.highest))

    def _receive_late(self, sequence: int, sent: int) -> bool:
        """Count a packet whose number is before the window; return False if it is a duplicate."""
        if self._fill_loss_run(sequence, sent):
            self.received += 1
            self.reordered += 1
            return True
        self.duplicated += 1
        return False

    def _add_loss_run(self, until: int, sent: int, seen: int) -> None:
        first = self.highest + 1
        if not self.received:
            self.leading = until - first
            # Nothing arrived before: these packets were sent no later than this one.
            self._add([LossRun(first, until - 1, sent - 1, sent, seen, seen)])
        else:
            self._add([LossRun(first, until - 1, self.last_sent, sent, self.last_seen, seen)])

    def _add(self, found: list[LossRun]) -> None:
        self._runs += found
        if len(self._runs) > MAX_LOSS_RUNS:
            del self._runs[: len(self._runs) - MAX_LOSS_RUNS * 9 // 10]

    def _fill_loss_run(self, sequence: int, sent: int) -> bool:
        gaps = self._runs
        index = bisect_right(gaps, sequence, key=lambda gap: gap.first) - 1
        if index < 0:
            return False
        gap = gaps[index]
        if sequence > gap.last:
            return False
        if sequence < self.first:
            self.leading -= 1
        if gap.first == gap.last:
            del gaps[index]
        elif sequence == gap.first:
            gap.first += 1
            gap.sent_before = sent
        elif sequence == gap.last:
            gap.last -= 1
            gap.sent_after = sent
        else:
            rest = LossRun(sequence + 1, gap.last, sent, gap.sent_after, gap.seen_before, gap.seen_after)
            gap.last = sequence - 1
            gap.sent_after = sent
            gaps.insert(index + 1, rest)
        return True
