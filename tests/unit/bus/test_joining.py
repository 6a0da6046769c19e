"""Batches that wait together are joined where they go the same way, and every way keeps its order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.bus.batch import MAX_PACKETS, Batch, Step, pack
from chassis.bus.coalesce import COALESCE_KEYS, RUN_KEYS, coalesced
from chassis.net.ethernet import HEADROOM

WAY: dict[str, Any] = {
    "step": Step.EGRESS, "card": "lc 4", "epoch": 9, "ingress": "3/1", "context": 7, "tunnel": 8, "circuit": 6,
    "port": "4/2", "address": 5,
}  # fmt: skip
"""Another value of everything that batches which are joined must have in common."""


def batch(numbers: range, **fields: Any) -> Batch:
    body, lengths = pack([number.to_bytes(4, "big") for number in numbers], HEADROOM)
    return Batch(**{"step": Step.ENCAPSULATE, "body": body, "lengths": lengths, "tunnel": 1, **fields})


def numbers(one: Batch) -> list[int]:
    return [int.from_bytes(packet[HEADROOM:], "big") for packet in one.packets()]


def test_what_goes_the_same_way_is_one_batch() -> None:
    made = coalesced([batch(range(3)), batch(range(3, 4)), batch(range(4, 9))])
    assert [numbers(one) for one in made] == [list(range(9))]


@pytest.mark.parametrize(
    ("step", "name"),
    [(step, key) for step in Step for key in COALESCE_KEYS if key not in RUN_KEYS.get(step, ())],
)
def test_what_goes_another_way_is_not(step: Step, name: str) -> None:
    value = Step.LOCAL if name == "step" and step is WAY["step"] else WAY[name]
    other = batch(range(5, 6), **{"step": step, name: value})
    made = coalesced([batch(range(2), step=step), other, batch(range(2, 4), step=step)])
    assert [numbers(one) for one in made] == [[0, 1, 2, 3], [5]]
    assert getattr(made[1], name) == value


def test_batches_with_descriptors_are_joined_with_their_like() -> None:
    made = coalesced(
        [batch(range(1), descriptors=b"\1"), batch(range(1, 2)), batch(range(2, 4), descriptors=b"\2\3"),
            batch(range(4, 5))],
    )  # fmt: skip
    assert [(numbers(one), one.descriptors) for one in made] == [([0, 2, 3], b"\1\2\3"), ([1, 4], b"")]


def test_tunnels_and_circuits_are_runs_of_one_batch_between_cards() -> None:
    made = coalesced(
        [
            batch(range(2)),
            batch(range(2, 3), tunnel=2),
            batch(range(3, 5), tunnel=2),
            batch(range(5, 6), tunnel=2, circuit=7),
            batch(range(6, 7)),
        ]
    )
    (one,) = made
    assert numbers(one) == list(range(7))
    assert one.runs == ((2, 1, 0), (3, 2, 0), (1, 2, 7), (1, 1, 0))
    parts = one.split_runs()
    assert [(numbers(part), part.tunnel, part.circuit) for part in parts] == [
        ([0, 1], 1, 0), ([2, 3, 4], 2, 0), ([5], 2, 7), ([6], 1, 0),
    ]  # fmt: skip
    # What has runs takes more of them, and a receiver's batches of several senders' batches too.
    (again,) = coalesced([one, batch(range(7, 8)), batch(range(8, 9), tunnel=3)])
    assert again.runs == ((2, 1, 0), (3, 2, 0), (1, 2, 7), (2, 1, 0), (1, 3, 0))
    assert numbers(again) == list(range(9))


def test_next_hops_are_runs_of_one_batch_between_cards() -> None:
    made = coalesced([
        batch(range(2), step=Step.EGRESS, tunnel=0, port="4/2", address=9),
        batch(range(2, 3), step=Step.EGRESS, tunnel=0, port="4/2", address=8, descriptors=b"\1"),
        batch(range(3, 4), step=Step.EGRESS, tunnel=0, port="4/1", address=8),
        batch(range(4, 5), step=Step.EGRESS, tunnel=0, port="4/1", address=8),
        batch(range(5, 6), step=Step.EGRESS, tunnel=0, port="4/2", address=9),
    ])  # fmt: skip
    assert [numbers(one) for one in made] == [[0, 1, 3, 4, 5], [2]]
    assert [one.hops for one in made] == [((2, "4/2", 9), (2, "4/1", 8), (1, "4/2", 9)), ()]
    assert [(one.runs, one.port, one.address) for one in made] == [((), "", 0), ((), "4/2", 8)]
    parts = made[0].split_runs()
    assert [(numbers(part), part.port, part.address, part.hops) for part in parts] == [
        ([0, 1], "4/2", 9, ()), ([3, 4], "4/1", 8, ()), ([5], "4/2", 9, ()),
    ]  # fmt: skip
    (again,) = coalesced([made[0], batch(range(6, 7), step=Step.EGRESS, tunnel=0, port="4/2", address=9)])
    assert again.hops == ((2, "4/2", 9), (2, "4/1", 8), (2, "4/2", 9))


def test_frames_of_a_port_have_no_runs() -> None:
    made = coalesced([batch(range(at, at + 1), step=Step.EGRESS, tunnel=0, port="4/2") for at in range(3)])
    assert [(one.port, one.hops, numbers(one)) for one in made] == [("4/2", (), [0, 1, 2])]


def test_each_packet_of_a_batch_may_be_a_run() -> None:
    made = coalesced([batch(range(at, at + 1), tunnel=at) for at in range(MAX_PACKETS + 3)])
    assert [len(one.runs) for one in made] == [MAX_PACKETS, 3]
    assert [number for one in made for number in numbers(one)] == list(range(MAX_PACKETS + 3))


def test_nothing_gets_before_a_traced_batch() -> None:
    traced = batch(range(2, 3), marks=((0, 77),))
    made = coalesced([batch(range(2)), traced, batch(range(3, 4)), batch(range(4, 6))])
    assert [numbers(one) for one in made] == [[0, 1], [2], [3, 4, 5]]
    assert [one.marks for one in made] == [(), ((0, 77),), ()]


def test_a_joined_batch_has_an_end() -> None:
    small = MAX_PACKETS // 4 - 1
    made = coalesced([batch(range(at * small, (at + 1) * small)) for at in range(9)])
    assert max(len(one) for one in made) <= MAX_PACKETS
    assert len(made) == 3
    assert [number for one in made for number in numbers(one)] == list(range(9 * small))
    body, lengths = pack([bytes(60_000)] * 4, HEADROOM)
    large = [Batch(Step.ENCAPSULATE, body[:], lengths, tunnel=1) for _ in range(2)]
    assert [len(one) for one in coalesced(large)] == [4, 4], "few large packets are a large batch too"


def test_bodies_that_somebody_looks_into_stay_as_they_are() -> None:
    first, second = batch(range(1)), batch(range(1, 2))
    second = replace(second, body=memoryview(second.body))
    looking = memoryview(first.body)
    (one,) = coalesced([first, second])
    assert numbers(one) == [0, 1]
    assert len(looking) == HEADROOM + 4


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 80), st.integers(0, 2), st.booleans()), max_size=20),
    st.sampled_from([Step.ENCAPSULATE, Step.EGRESS]),
)
def test_every_packet_is_there_once_and_in_its_order(given_: list[tuple[int, int, bool]], step: Step) -> None:
    batches, at = [], 0
    for count, number, traced in given_:
        count = 1 if traced else count
        marks = ((0, at),) if traced else ()
        way = {"port": "4/2", "address": number, "tunnel": 0} if step is Step.EGRESS else {"tunnel": number}
        batches.append(batch(range(at, at + count), step=step, marks=marks, **way))
        at += count
    before: dict[tuple[int, int], list[int]] = defaultdict(list)
    for one in batches:
        before[one.tunnel, one.address] += numbers(one)
    after: dict[tuple[int, int], list[int]] = defaultdict(list)
    for one in coalesced(batches):
        for part in one.split_runs():
            after[part.tunnel, part.address] += numbers(part)
        assert len(one.body) == sum(one.lengths)
        assert not one.marks or one.marks == ((0, numbers(one)[0]),)
    assert after == before
