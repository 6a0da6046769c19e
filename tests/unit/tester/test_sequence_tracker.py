"""The account of sequence numbers agrees with a plain set of what was sent and what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.tester import sequence_tracker
from chassis.tester.results import count_evenly
from chassis.tester.sequence_tracker import SequenceTracker


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


def state(tracker: SequenceTracker) -> dict[str, Any]:
    names = ("highest", "received", "missing", "duplicated", "reordered", "first", "first_seen", "first_sent")
    numbers = {name: getattr(tracker, name) for name in (*names, "last_seen", "last_sent", "leading")}
    gaps = [(gap.first, gap.last, gap.sent_before, gap.sent_after) for gap in tracker.loss_runs]
    return {**numbers, "gaps": gaps}


@given(st.lists(st.lists(st.integers(0, 80), min_size=1, max_size=24), min_size=1, max_size=30), st.booleans())
def test_batches_count_as_their_packets_do(batches: list[list[int]], drifting: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # A small window moves often.
        patch.setattr(sequence_tracker, "WINDOW", 64)
        patch.setattr(sequence_tracker, "MAX_LEAP", 32)
        together, apart = SequenceTracker(), SequenceTracker()
        for index, batch in enumerate(batches):
            numbers = [number + 15 * index * drifting for number in batch]
            together.receive_columns(np.array(numbers), np.array(numbers) * 10, 10_000 + index)
            for number in numbers:
                apart.receive(number, number * 10, 10_000 + index)
            if index % 7 == 6:
                assert state(together) == state(apart)
        assert state(together) == state(apart)


@given(st.permutations(range(40)), st.sets(st.integers(1, 38)), st.integers(1, 12))
def test_loss_in_batches_out_of_order_has_the_times_of_its_neighbours(
    order: list[int], missing: set[int], size: int
) -> None:
    tracker = SequenceTracker()
    tracker.receive_run(0, 8, 0, 700, 7700)
    arriving = [8 + number for number in order if number not in missing]
    for at in range(0, len(arriving), size):
        numbers = np.array(arriving[at : at + size])
        tracker.receive_columns(numbers, numbers * 100, 7000 + 100 * (8 + at))
    tracker.receive_run(48, 8, 4800, 5500, 12_500)
    for gap in tracker.loss_runs:
        assert (gap.sent_before, gap.sent_after) == (100 * (gap.first - 1), 100 * (gap.last + 1))
        assert set(range(gap.first - 8, gap.last - 7)) <= missing
    assert sum(gap.count for gap in tracker.loss_runs) == tracker.missing == len(missing)
