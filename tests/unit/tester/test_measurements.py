"""The account of sequence numbers agrees with a plain set of what was sent and what came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.tester.measurements import LatencyHistogram, SequenceTracker, count_evenly


def test_a_hole_is_missing_until_a_late_packet_fills_it() -> None:
    tracker = SequenceTracker()
    tracker.receive_run(0, 10, 0, 9, 100)
    tracker.receive_run(15, 5, 15, 19, 120)
    assert (tracker.received, tracker.missing, tracker.highest) == (15, 5, 19)
    assert tracker.receive(12, 12, 130)
    assert [(gap.first, gap.last) for gap in tracker.loss_runs] == [(10, 11), (13, 14)]
    assert (tracker.missing, tracker.reordered, tracker.duplicated) == (4, 1, 0)
    assert not tracker.receive(12, 12, 131)
    assert tracker.duplicated == 1
    for late in (10, 11, 14, 13):
        assert tracker.receive(late, late, 140)
    assert (tracker.loss_runs, tracker.missing, tracker.reordered) == ([], 0, 5)


def test_packets_before_the_first_arrival_are_leading() -> None:
    tracker = SequenceTracker()
    tracker.receive_run(7, 3, 70, 90, 100)
    assert (tracker.leading, tracker.missing) == (7, 7)
    assert tracker.receive(3, 30, 101)
    assert (tracker.leading, tracker.missing) == (6, 6)


def holed(missing: set[int], way: int = 7000) -> SequenceTracker:
    """Packets 0 to 29, sent 100 ns apart and under way for `way` ns, without the missing ones."""
    tracker = SequenceTracker()
    for sequence in range(30):
        if sequence not in missing:
            tracker.receive(sequence, sequence * 100, sequence * 100 + way)
    return tracker


def test_loss_within_a_period_is_told_from_the_times_around_a_hole() -> None:
    tracker = holed(set(range(10, 20)))
    assert tracker.lost_between(0, 50_000) == 10
    assert tracker.lost_between(8000, 9000) == 10
    assert tracker.lost_between(8450, 50_000) == 5
    assert tracker.lost_between(0, 8500) == 5
    assert tracker.lost_between(8200, 8500) == 3
    assert tracker.lost_between(9100, 50_000) == 0
    assert tracker.lost_between(0, 7900) == 0


def test_what_was_under_way_at_an_event_is_lost_to_it() -> None:
    # Cut at 10,000 ns: packets 3 to 19 were on the wire then, and the ones after that were sent into nothing.
    tracker = SequenceTracker()
    for sequence in range(3):
        tracker.receive(sequence, sequence * 100, sequence * 100 + 9_750)
    tracker.receive(200, 20_000, 29_750)
    assert tracker.lost_between(10_000, 1 << 40) == 197
    assert tracker.lost_between(0, 10_000) == 0


@given(st.sets(st.integers(1, 28)), st.integers(-5, 35), st.integers(-5, 35))
def test_periods_agree_with_sets(missing: set[int], begin: int, end: int) -> None:
    tracker = holed(missing)
    expected = sum(begin <= sequence < end for sequence in missing)
    assert tracker.lost_between(begin * 100 + 7000, end * 100 + 7000) == expected


@pytest.mark.parametrize(("begin", "end", "count"), [(0, 10, 4), (0, 5, 2), (5, 10, 2), (10, 20, 0), (2, 4, 1)])
def test_evenly(begin: int, end: int, count: int) -> None:
    # Four events between 0 and 10: at 2, 4, 6 and 8.
    assert count_evenly(4, 0, 10, begin, end) == count


@given(st.lists(st.integers(0, 60), min_size=1, max_size=120))
def test_the_ledger_agrees_with_sets(arrivals: list[int]) -> None:
    tracker = SequenceTracker()
    seen: set[int] = set()
    highest, duplicated, reordered = -1, 0, 0
    for time, sequence in enumerate(arrivals):
        new = tracker.receive(sequence, sequence, 1000 + time)
        assert new == (sequence not in seen)
        duplicated += sequence in seen
        reordered += sequence < highest and sequence not in seen
        highest = max(highest, sequence)
        seen.add(sequence)
    missing = set(range(highest + 1)) - seen
    assert tracker.received == len(seen)
    assert tracker.missing == len(missing) == sum(gap.count for gap in tracker.loss_runs)
    assert (tracker.duplicated, tracker.reordered) == (duplicated, reordered)
    inner = {sequence for sequence in missing if sequence > arrivals[0]}
    assert tracker.missing - tracker.leading == len(inner)


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
