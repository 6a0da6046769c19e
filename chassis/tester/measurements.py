"""What a sink measures of a flow: sequence numbers and latency.

Missing packets are kept as runs, each with the times at which its neighbours were sent and arrived, so the loss
within any period can be computed later. A late packet leaves its run and counts as reordered, not as lost. Times
are in ns of the monotonic clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chassis.net.columns import Numbers, runs
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


class SequenceTracker:
    """The sequence numbers that one sink received of one start of a source. Times are in ns."""

    def __init__(self) -> None:
        self.highest = -1
        self.received = 0
        self.missing = 0
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
        self.loss_runs: list[LossRun] = []
        self.dropped_runs_count = 0
        """Missing packets of runs that are no longer kept."""

    def receive_run(self, first: int, count: int, sent: int, last_sent: int, seen: int) -> None:
        """Count `count` packets, numbered without a gap from `first`, sent from `sent` to `last_sent`, seen at
        `seen`."""
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
        self.last_seen = seen
        if self._fill_loss_run(sequence, sent):
            self.received += 1
            self.reordered += 1
            return True
        self.duplicated += 1
        return False

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

    def _add_loss_run(self, until: int, sent: int, seen: int) -> None:
        first = self.highest + 1
        if not self.received:
            self.leading = until - first
            # Nothing arrived before: these packets were sent no later than this one.
            self.loss_runs.append(LossRun(first, until - 1, sent - 1, sent, seen, seen))
        else:
            self.loss_runs.append(LossRun(first, until - 1, self.last_sent, sent, self.last_seen, seen))
        self.missing += until - first
        if len(self.loss_runs) > MAX_LOSS_RUNS:
            old = self.loss_runs[: MAX_LOSS_RUNS // 10]
            self.dropped_runs_count += sum(gap.count for gap in old)
            del self.loss_runs[: MAX_LOSS_RUNS // 10]

    def _fill_loss_run(self, sequence: int, sent: int) -> bool:
        gaps = self.loss_runs
        index = bisect_right(gaps, sequence, key=lambda gap: gap.first) - 1
        if index < 0:
            return False
        gap = gaps[index]
        if sequence > gap.last:
            return False
        self.missing -= 1
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


MAX_LOOP_GROUPS = 24
"""Runs of equal latencies (count) that are counted one by one; of more the histogram is made by columns."""

SUB_BITS = 4
"""Each power of two of the histogram has 16 parts, so a value read from it is exact to 6 %."""


class LatencyHistogram:
    """Latency of packets (ns): minimum, maximum, mean, and percentiles from a histogram of fixed size."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.min = 0
        self.max = 0
        self._parts = [0] * (64 << SUB_BITS)

    def add(self, nanoseconds: int, count: int) -> None:
        """Count `count` packets with this latency."""
        value = max(nanoseconds, 0)
        if not self.count or value < self.min:
            self.min = value
        if value > self.max:
            self.max = value
        self.count += count
        self.total += value * count
        shift = max(value.bit_length() - SUB_BITS - 1, 0)
        self._parts[(shift << SUB_BITS) + (value >> shift)] += count

    def add_each(self, nanoseconds: Numbers) -> None:
        """Count a packet with each of these latencies; packets that were sent together have the same one."""
        groups = runs(nanoseconds[1:] != nanoseconds[:-1])
        values = np.maximum(nanoseconds, 0)
        low, high = int(values.min()), int(values.max())
        # A float tells the number of bits of larger numbers wrong.
        if len(groups) <= MAX_LOOP_GROUPS or high >= 1 << 53:
            for begin, end in groups:
                self.add(int(nanoseconds[begin]), end - begin)
            return
        self.min = min(self.min, low) if self.count else low
        self.max = max(self.max, high)
        self.count += len(values)
        self.total += sum(values.tolist())
        shifts = np.maximum(np.frexp(values.astype(np.float64))[1] - SUB_BITS - 1, 0)
        counts = np.bincount((shifts << SUB_BITS) + (values >> shifts))
        for index in np.flatnonzero(counts).tolist():
            self._parts[index] += int(counts[index])

    def plain(self) -> dict[str, Any]:
        """Return the counts as plain values, for `merge`."""
        parts = [value for index, count in enumerate(self._parts) if count for value in (index, count)]
        return {"count": self.count, "total": self.total, "min": self.min, "max": self.max, "parts": parts}

    def merge(self, plain: Mapping[str, Any]) -> None:
        """Add the counts of another histogram, as `plain` returns them."""
        if not plain["count"]:
            return
        self.min = min(self.min, plain["min"]) if self.count else plain["min"]
        self.max = max(self.max, plain["max"])
        self.count += plain["count"]
        self.total += plain["total"]
        for index, count in zip(plain["parts"][::2], plain["parts"][1::2], strict=True):
            self._parts[index] += count

    def percentile(self, share: float) -> int:
        """Return the latency (ns) that `share` (0 to 1) of the packets did not exceed; 0 without packets."""
        wanted, seen = self.count * share, 0
        for index, count in enumerate(self._parts):
            seen += count
            if count and seen >= wanted:
                shift = max((index >> SUB_BITS) - 1, 0)
                value = (index - (shift << SUB_BITS)) << shift
                return min(max(value + (1 << shift >> 1), self.min), self.max)
        return 0

    def statistics(self) -> dict[str, float]:
        """Return the values in milliseconds; empty without packets."""
        if not self.count:
            return {}
        return {
            "min_ms": self.min / 1e6,
            "avg_ms": self.total / self.count / 1e6,
            "max_ms": self.max / 1e6,
            "p50_ms": self.percentile(0.5) / 1e6,
            "p99_ms": self.percentile(0.99) / 1e6,
        }
