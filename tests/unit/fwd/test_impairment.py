"""The faults of a wire: each does what its name says, is counted, and is repeatable from its seed."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.bus.batch import MAX_PACKETS, Batch, Step, pack
from chassis.net.units import parse_probability, parse_rate, parse_seconds
from chassis.ports.impairment import MAX_REORDER_DELAY, Impairment


def batch(first: int, count: int, size: int = 86, marks: tuple[tuple[int, int], ...] = ()) -> Batch:
    body, lengths = pack(
        [number.to_bytes(4, "big") + bytes(size - 4) for number in range(first, first + count)], 14
    )
    return Batch(Step.INGRESS, body, lengths, marks=marks)


def numbers(batches: list[Batch]) -> list[int]:
    return [int.from_bytes(packet[14:18], "big") for one in batches for packet in one.packets()]


def test_nothing_set_passes_the_batch_itself() -> None:
    wire = Impairment(1)
    one = batch(0, 5)
    out = wire.enqueue(one, 1.0)
    assert len(out) == 1
    assert out[0] is one
    assert wire.next_timer() == inf
    assert wire.dequeue(2.0) == []


def test_down_loses_everything_and_what_is_on_the_wire() -> None:
    wire = Impairment(1)
    wire.set(delay="10ms")
    assert wire.enqueue(batch(0, 3), 0.0) == []
    wire.set(down=True)
    assert wire.enqueue(batch(3, 4), 0.001) == []
    assert wire.dequeue(1.0) == []
    assert wire.counts["down"] == 7
    wire.set(clear=True)
    one = batch(7, 1)
    assert wire.enqueue(one, 1.0)[0] is one


def test_loss_is_seeded_and_counted() -> None:
    def run(seed: int) -> list[int]:
        wire = Impairment(seed)
        wire.set(loss="10%")
        got = []
        for first in range(0, 2000, 50):
            got += numbers(wire.enqueue(batch(first, 50), first / 1000))
        assert len(got) + wire.counts["loss"] == 2000
        assert got == sorted(got)
        return got

    assert run(7) == run(7)
    assert run(7) != run(8)
    assert 1700 < len(run(7)) < 1900


def test_delay_keeps_order_and_time() -> None:
    wire = Impairment(1)
    wire.set(delay=0.02)
    assert wire.enqueue(batch(0, 3), 1.0) == []
    assert wire.enqueue(batch(3, 2), 1.005) == []
    assert wire.next_timer() == pytest.approx(1.02)
    assert numbers(wire.dequeue(1.0201)) == [0, 1, 2]
    assert wire.next_timer() == pytest.approx(1.025)
    assert numbers(wire.dequeue(1.03)) == [3, 4]
    assert wire.next_timer() == inf


def test_a_batch_offered_after_the_faults_end_waits_for_those_under_way() -> None:
    wire = Impairment(1)
    wire.set(delay="20ms")
    wire.enqueue(batch(0, 2), 0.0)
    wire.set(clear=True)
    assert numbers(wire.enqueue(batch(2, 2), 0.005)) == []
    assert numbers(wire.dequeue(0.021)) == [0, 1, 2, 3]
    last = batch(4, 1)
    assert wire.enqueue(last, 0.03)[0] is last


def test_jitter_spreads_but_never_reorders() -> None:
    wire = Impairment(3)
    wire.set(delay="20ms", jitter="5ms")
    arrivals: list[tuple[float, int]] = []
    for tick in range(200):
        now = tick / 1000
        ready = wire.enqueue(batch(tick, 1), now) if tick < 100 else wire.dequeue(now)
        arrivals += [(now, number) for number in numbers(ready)]
    assert [number for _, number in arrivals] == list(range(100))
    delays = [now - number / 1000 for now, number in arrivals]
    assert min(delays) >= 0.015
    assert max(delays) <= 0.0261
    assert len({round(delay, 3) for delay in delays}) > 3


def test_a_reordered_packet_is_passed_by_a_later_one() -> None:
    wire = Impairment(5)
    wire.set(reorder="20%")
    got = []
    for first in range(0, 400, 4):
        got += numbers(wire.enqueue(batch(first, 4), first / 1000))
    got += numbers(wire.dequeue(10.0))
    assert sorted(got) == list(range(400))
    late = sum(1 for before, after in pairwise(got) if after < before)
    assert 0 < late <= wire.counts["reorder"]


def test_a_held_packet_goes_when_nothing_passes_it() -> None:
    wire = Impairment(1)
    wire.set(reorder=1)
    assert wire.enqueue(batch(0, 1), 2.0) == []
    assert wire.next_timer() == pytest.approx(2.0 + MAX_REORDER_DELAY)
    assert numbers(wire.dequeue(wire.next_timer())) == [0]
    assert wire.next_timer() == inf


def test_duplicates_are_whole_and_counted() -> None:
    wire = Impairment(2)
    wire.set(duplicate=1.0)
    assert numbers(wire.enqueue(batch(0, 3), 0.0)) == [0, 0, 1, 1, 2, 2]
    assert wire.counts["duplicate"] == 3


def test_a_rate_spaces_packets_and_drops_the_tail() -> None:
    wire = Impairment(1)
    wire.set(rate="800k")  # 100 bytes a millisecond
    assert wire.enqueue(batch(0, 10), 0.0) == []
    assert wire.next_timer() == pytest.approx(0.001)
    assert numbers(wire.dequeue(0.0055)) == [0, 1, 2, 3, 4]
    assert numbers(wire.dequeue(0.0101)) == [5, 6, 7, 8, 9]
    for first in range(10, 1010, 50):
        wire.enqueue(batch(first, 50), 0.02)
    got = numbers(wire.dequeue(10.0))
    assert got == list(range(10, 10 + len(got)))
    assert len(got) + wire.counts["queue"] == 1000
    assert wire.counts["queue"] > 500


def test_marks_stay_with_their_packets() -> None:
    wire = Impairment(4)
    wire.set(loss="30%", delay="1ms")
    marks = tuple((index, 100 + index) for index in range(0, 200, 10))
    wire.enqueue(batch(0, 200, marks=marks), 0.0)
    seen = 0
    for one in wire.dequeue(1.0):
        packets = list(one.packets())
        for index, number in one.marks:
            assert int.from_bytes(packets[index][14:18], "big") == number - 100
            seen += 1
    assert 5 < seen < 20


def test_what_comes_out_at_once_is_in_batches_of_legal_size() -> None:
    wire = Impairment(1)
    wire.set(delay="5ms")
    for first in range(0, 600, 100):
        wire.enqueue(batch(first, 100), 0.0)
    out = wire.dequeue(0.01)
    assert [len(one) for one in out] == [MAX_PACKETS, MAX_PACKETS, 88]
    assert numbers(out) == list(range(600))


def test_a_sender_may_use_its_buffer_again() -> None:
    wire = Impairment(1)
    wire.set(delay="5ms")
    one = batch(7, 1)
    wire.enqueue(one, 0.0)
    one.body[14:18] = b"\xff\xff\xff\xff"
    assert numbers(wire.dequeue(0.01)) == [7]


@given(
    st.integers(0, 2**32),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 0.05),
    st.lists(st.integers(1, 20), max_size=20),
)
def test_every_packet_comes_out_or_is_counted(
    seed: int, loss: float, duplicate: float, reorder: float, delay: float, sizes: list[int]
) -> None:
    wire = Impairment(seed)
    wire.set(loss=loss, duplicate=duplicate, reorder=reorder, delay=delay, jitter=delay / 2)
    offered = out = 0
    for step, size in enumerate(sizes):
        out += sum(map(len, wire.enqueue(batch(offered, size), step / 100)))
        offered += size
    end = len(sizes) / 100
    while wire.next_timer() < inf:
        end = max(end, wire.next_timer())
        out += sum(map(len, wire.dequeue(end)))
    counts = wire.counts
    assert out + counts["loss"] + counts["queue"] >= offered
    if not duplicate:
        assert out == offered - counts["loss"] - counts["queue"]


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), (0.5, 0.5), ("0.25", 0.25), (1, 1.0)])
def test_chances(text: object, value: float) -> None:
    assert parse_probability(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("20ms", 0.02), ("1.5s", 1.5), ("300us", 0.0003), (2, 2.0)])
def test_times(text: object, value: float) -> None:
    assert parse_seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("100M", 1e8), ("64k", 64000), ("1.5Gbit", 1.5e9), (9600, 9600)])
def test_rates(text: object, value: float) -> None:
    assert parse_rate(text) == pytest.approx(value)


@pytest.mark.parametrize("settings", [
    {"loss": "2"},
    {"loss": True},
    {"delay": "-1ms"},
    {"delay": "soon"},
    {"rate": "fast"},
    {"rate": "10kk"},
    {"rate": "inf"},
    {"colour": 1},
    {"down": "yes"},
    {"seed": "x"},
])  # fmt: skip
def test_a_wrong_setting_changes_nothing(settings: dict[str, object]) -> None:
    wire = Impairment(1)
    wire.set(loss=0.5)
    with pytest.raises(ValueError):
        wire.set(delay=1, **settings) if "delay" not in settings else wire.set(**settings)
    assert wire.settings() == {"loss": 0.5}
