"""Percentiles of latency from a histogram of fixed size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.tester.latency import LatencyHistogram


def test_percentiles_are_right_to_six_per_cent() -> None:
    latency = LatencyHistogram()
    for value in range(1, 100_001):
        latency.add(value, 1)
    report = latency.statistics()
    assert report["min_ms"] == pytest.approx(1e-6)
    assert report["max_ms"] == pytest.approx(0.1)
    assert report["avg_ms"] == pytest.approx(0.05, rel=1e-4)
    assert report["p50_ms"] == pytest.approx(0.05, rel=0.06)
    assert report["p99_ms"] == pytest.approx(0.099, rel=0.06)


def test_no_packets_have_no_latency() -> None:
    assert LatencyHistogram().statistics() == {}


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50))
def test_percentiles_lie_between_the_extremes(values: list[int]) -> None:
    latency = LatencyHistogram()
    for value in values:
        latency.add(value, 1)
    assert latency.min == min(values)
    assert latency.max == max(values)
    ordered = sorted(values)
    for share in (0.01, 0.5, 0.99):
        true = ordered[min(max(-int(-share * len(values) // 1), 1), len(values)) - 1]
        assert latency.percentile(share) == pytest.approx(true, rel=0.0626, abs=1)
