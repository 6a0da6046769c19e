"""The window against a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.ase.ipsec.replay import Verdict, accept_batch, accept_run, advance, check, valid_window

WINDOWS = (32, 64, 128, 1024)


class Model:
    """RFC 4303 3.4.3 said with a set."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.seen: set[int] = set()

    def verdict(self, number: int) -> Verdict:
        edge = max(self.seen, default=0)
        if number == 0 or number <= edge - self.window:
            return Verdict.OUTSIDE_WINDOW
        return Verdict.REPLAYED if number in self.seen else Verdict.FRESH

    def take(self, number: int, good: bool) -> Verdict:
        verdict = self.verdict(number)
        if verdict is not Verdict.FRESH:
            return verdict
        if not good:
            return Verdict.FORGED
        self.seen.add(number)
        return verdict


jumps = st.one_of(
    st.integers(-3, 3), st.sampled_from([-1024, -128, -64, -63, -65, -32, -31, -33, 31, 32, 33, 63, 64, 65]),
    st.integers(-1100, 1100),
)  # fmt: skip


@st.composite
def walks(draw: st.DrawFn) -> list[tuple[int, bool]]:
    at = draw(st.sampled_from([0, 1, 50, 5000, 2**32 - 1200]))
    steps = []
    for jump in draw(st.lists(jumps, max_size=60)):
        number = min(max(at + jump, 0), 2**32 - 1)
        steps.append((number, draw(st.integers(0, 9)) > 0))
        at = max(at, number) if jump > 0 else at
    return steps


@pytest.mark.behaviour("B-113")
@given(st.sampled_from(WINDOWS), walks(), st.integers(1, 20))
def test_batches_agree_with_the_model(window: int, steps: list[tuple[int, bool]], cut: int) -> None:
    model = Model(window)
    edge = bitmap = 0
    for start in range(0, len(steps), cut):
        part = steps[start : start + cut]
        expected = [model.take(number, good) for number, good in part]
        edge, bitmap, accepted, refused = accept_batch(
            edge, bitmap, window, [number for number, _ in part], lambda index, part=part: part[index][1]
        )
        assert accepted == [index for index, verdict in enumerate(expected) if verdict is Verdict.FRESH]
        assert refused == [
            (index, verdict) for index, verdict in enumerate(expected) if verdict is not Verdict.FRESH
        ]
        assert edge == max(model.seen, default=0)
        assert bitmap < 1 << window
        assert {edge - bit for bit in range(window) if bitmap >> bit & 1} == {
            number for number in model.seen if number > edge - window
        }


@given(st.sampled_from(WINDOWS), st.integers(0, 3000), st.integers(-3, 1200), st.integers(1, 1200))
def test_a_run_is_taken_as_its_packets_are(window: int, edge: int, ahead: int, count: int) -> None:
    bitmap = (1 << window) // 3
    numbers = [*range(max(edge + ahead, 0), max(edge + ahead, 0) + count)]
    one_by_one = accept_batch(edge, bitmap, window, numbers, lambda index: True)
    run = accept_run(edge, bitmap, window, numbers)
    assert run == (one_by_one[:2] if numbers[0] > edge else None)
    assert accept_run(edge, bitmap, window, [*numbers, numbers[-1] + 2]) is None
    assert accept_run(edge, bitmap, window, [*numbers, numbers[0], numbers[-1] + 2]) is None


@pytest.mark.parametrize("window", WINDOWS)
def test_exact_edges(window: int) -> None:
    edge, bitmap = advance(0, 0, window, 5000)
    assert (edge, bitmap) == (5000, 1)
    assert check(edge, bitmap, window, 5000) is Verdict.REPLAYED
    assert check(edge, bitmap, window, 5000 - window + 1) is Verdict.FRESH
    assert check(edge, bitmap, window, 5000 - window) is Verdict.OUTSIDE_WINDOW
    edge, bitmap = advance(edge, bitmap, window, 5000 - window + 1)
    assert check(edge, bitmap, window, 5000 - window + 1) is Verdict.REPLAYED
    edge, bitmap = advance(edge, bitmap, window, 5001)
    assert check(edge, bitmap, window, 5001 - window) is Verdict.OUTSIDE_WINDOW
    jumped, seen = advance(edge, bitmap, window, 5001 + window - 1)
    assert check(jumped, seen, window, 5001) is Verdict.REPLAYED
    assert check(jumped, seen, window, 5002) is Verdict.FRESH
    assert advance(edge, bitmap, window, 5001 + window) == (5001 + window, 1)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_long_run_keeps_the_bitmap_in_its_window(window: int) -> None:
    edge, bitmap, accepted, refused = accept_batch(0, 0, window, range(1, 3001), lambda index: True)
    assert (edge, bitmap) == (3000, (1 << window) - 1)
    assert len(accepted) == 3000
    assert refused == []


def test_number_zero_is_never_fresh() -> None:
    assert check(0, 0, 64, 0) is Verdict.OUTSIDE_WINDOW
    assert check(10, 0, 64, 0) is Verdict.OUTSIDE_WINDOW


def test_authenticity_is_asked_only_of_fresh_numbers() -> None:
    asked: list[int] = []

    def authentic(index: int) -> bool:
        asked.append(index)
        return True

    _, _, accepted, refused = accept_batch(100, 1, 32, [100, 101, 101, 60, 99], authentic)
    assert asked == [1, 4]
    assert accepted == [1, 4]
    assert refused == [(0, Verdict.REPLAYED), (2, Verdict.REPLAYED), (3, Verdict.OUTSIDE_WINDOW)]


def test_windows_that_can_be_configured() -> None:
    assert [window for window in range(1100) if valid_window(window)] == list(range(32, 1025, 32))
