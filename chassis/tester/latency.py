"""What a sink measures of a flow beside its sequence numbers: latency. Times are in ns of the monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from chassis.net.columns import Numbers, runs

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
