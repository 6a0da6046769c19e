"""The account of sequence numbers agrees with a plain set of what was sent and what came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.tester.measurements import LatencyHistogram, SequenceTracker, evenly


def test_a_hole_is_missing_until_a_late_packet_fills_it() -> None:
    ledger = SequenceTracker()
    ledger.run(0, 10, 0, 9, 100)
    ledger.run(15, 5, 15, 19, 120)
    assert (ledger.received, ledger.missing, ledger.highest) == (15, 5, 19)
    assert ledger.one(12, 12, 130)
    assert [(gap.first, gap.last) for gap in ledger.gaps] == [(10, 11), (13, 14)]
    assert (ledger.missing, ledger.reordered, ledger.duplicated) == (4, 1, 0)
    assert not ledger.one(12, 12, 131)
    assert ledger.duplicated == 1
    for late in (10, 11, 14, 13):
        assert ledger.one(late, late, 140)
    assert (ledger.gaps, ledger.missing, ledger.reordered) == ([], 0, 5)


def test_packets_before_the_first_arrival_are_leading() -> None:
    ledger = SequenceTracker()
    ledger.run(7, 3, 70, 90, 100)
    assert (ledger.leading, ledger.missing) == (7, 7)
    assert ledger.one(3, 30, 101)
    assert (ledger.leading, ledger.missing) == (6, 6)


def holed(missing: set[int], way: int = 7000) -> SequenceTracker:
    """Packets 0 to 29, sent 100 ns apart and under way for `way` ns, without the missing ones."""
    ledger = SequenceTracker()
    for sequence in range(30):
        if sequence not in missing:
            ledger.one(sequence, sequence * 100, sequence * 100 + way)
    return ledger


def test_loss_within_a_period_is_told_from_the_times_around_a_hole() -> None:
    ledger = holed(set(range(10, 20)))
    assert ledger.lost_between(0, 50_000) == 10
    assert ledger.lost_between(8000, 9000) == 10
    assert ledger.lost_between(8450, 50_000) == 5
    assert ledger.lost_between(0, 8500) == 5
    assert ledger.lost_between(8200, 8500) == 3
    assert ledger.lost_between(9100, 50_000) == 0
    assert ledger.lost_between(0, 7900) == 0


def test_what_was_under_way_at_an_event_is_lost_to_it() -> None:
    # Cut at 10,000 ns: packets 3 to 19 were on the wire then, and the ones after that were sent into nothing.
    ledger = SequenceTracker()
    for sequence in range(3):
        ledger.one(sequence, sequence * 100, sequence * 100 + 9_750)
    ledger.one(200, 20_000, 29_750)
    assert ledger.lost_between(10_000, 1 << 40) == 197
    assert ledger.lost_between(0, 10_000) == 0


@given(st.sets(st.integers(1, 28)), st.integers(-5, 35), st.integers(-5, 35))
def test_periods_agree_with_sets(missing: set[int], begin: int, end: int) -> None:
    ledger = holed(missing)
    expected = sum(begin <= sequence < end for sequence in missing)
    assert ledger.lost_between(begin * 100 + 7000, end * 100 + 7000) == expected


@pytest.mark.parametrize(("begin", "end", "count"), [(0, 10, 4), (0, 5, 2), (5, 10, 2), (10, 20, 0), (2, 4, 1)])
def test_evenly(begin: int, end: int, count: int) -> None:
    # Four events between 0 and 10: at 2, 4, 6 and 8.
    assert evenly(4, 0, 10, begin, end) == count


@given(st.lists(st.integers(0, 60), min_size=1, max_size=120))
def test_the_ledger_agrees_with_sets(arrivals: list[int]) -> None:
    ledger = SequenceTracker()
    seen: set[int] = set()
    highest, duplicated, reordered = -1, 0, 0
    for time, sequence in enumerate(arrivals):
        new = ledger.one(sequence, sequence, 1000 + time)
        assert new == (sequence not in seen)
        duplicated += sequence in seen
        reordered += sequence < highest and sequence not in seen
        highest = max(highest, sequence)
        seen.add(sequence)
    missing = set(range(highest + 1)) - seen
    assert ledger.received == len(seen)
    assert ledger.missing == len(missing) == sum(gap.count for gap in ledger.gaps)
    assert (ledger.duplicated, ledger.reordered) == (duplicated, reordered)
    inner = {sequence for sequence in missing if sequence > arrivals[0]}
    assert ledger.missing - ledger.leading == len(inner)


def test_percentiles_are_right_to_six_per_cent() -> None:
    latency = LatencyHistogram()
    for value in range(1, 100_001):
        latency.add(value, 1)
    report = latency.report()
    assert report["min_ms"] == pytest.approx(1e-6)
    assert report["max_ms"] == pytest.approx(0.1)
    assert report["avg_ms"] == pytest.approx(0.05, rel=1e-4)
    assert report["p50_ms"] == pytest.approx(0.05, rel=0.06)
    assert report["p99_ms"] == pytest.approx(0.099, rel=0.06)


def test_no_packets_have_no_latency() -> None:
    assert LatencyHistogram().report() == {}


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50))
def test_percentiles_lie_between_the_extremes(values: list[int]) -> None:
    latency = LatencyHistogram()
    for value in values:
        latency.add(value, 1)
    assert latency.least == min(values)
    assert latency.most == max(values)
    ordered = sorted(values)
    for share in (0.01, 0.5, 0.99):
        true = ordered[min(max(-int(-share * len(values) // 1), 1), len(values)) - 1]
        assert latency.percentile(share) == pytest.approx(true, rel=0.0626, abs=1)
