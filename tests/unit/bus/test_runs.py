"""Tables of runs: the same as tuples, one by one, on the bus, and where they are joined."""

from __future__ import annotations

from itertools import chain
from random import Random

import numpy as np

from chassis.bus.batch import Batch, HopRun, Run, Step, decode, encode_header, pack
from chassis.bus.coalesce import coalesced, joined_runs
from chassis.bus.runs import (
    MIN_ROWS,
    Hops,
    Runs,
    hop_table,
    joined_hop_table,
    joined_run_table,
    run_table,
)
from chassis.net.ethernet import HEADROOM

PORTS = ("3/1", "3/11", "")


def some_runs(random: Random, most: int = 60) -> tuple[Run, ...]:
    return tuple(
        (random.randrange(1, 4), random.randrange(3), random.choice((0, 7, 2**32 - 1)))
        for _ in range(random.randrange(1, most))
    )


def some_hops(random: Random, most: int = 60) -> tuple[HopRun, ...]:
    ports = random.sample(PORTS, random.randrange(1, 4))
    return tuple((packets, random.choice(ports), number) for packets, _, number in some_runs(random, most))


def batch(runs: tuple[Run, ...] | tuple[HopRun, ...], step: Step) -> Batch:
    body, lengths = pack([bytes([number & 255]) for number in range(sum([run[0] for run in runs]))], HEADROOM)
    made = Batch(step, body, lengths, "asp 1/1", 3)
    if step is Step.EGRESS:
        made.hops = runs  # type: ignore[assignment]
    else:
        made.runs = runs  # type: ignore[assignment]
    return made


def test_a_table_is_its_tuples() -> None:
    runs = ((2, 5, 0), (1, 6, 2**32 - 1), (3, 5, 0))
    table = Runs.of([2, 1, 3], [5, 6, 5], [0, 2**32 - 1, 0])
    assert table == runs == table
    assert (tuple(table), len(table), table[1], table[1:], bool(table)) == (runs, 3, runs[1], runs[1:], True)
    assert (hash(table), repr(table), table == run_table(runs)) == (hash(runs), repr(runs), True)
    assert table != runs[:2]
    assert [type(value) for value in table[0]] == [int, int, int]
    assert Runs.of(np.array([2, 1]), 5, 0) == ((2, 5, 0), (1, 5, 0))
    hops = ((2, "3/1", 9), (1, "3/11", 8), (1, "3/1", 9))
    assert Hops.of([2, 1, 1], ["3/1", "3/11", "3/1"], [9, 8, 9]) == hops == hop_table(hops)
    assert Hops.of([2, 1], ["3/1"], [9, 8]) == ((2, "3/1", 9), (1, "3/1", 8))
    assert hop_table(hops).ports == ("3/1", "3/11")


def test_tables_and_tuples_are_the_same_octets() -> None:
    for seed in range(60):
        random = Random(seed)
        runs, hops = some_runs(random), some_hops(random)
        given = batch(runs, Step.CIRCUIT_IN)
        octets = encode_header(given)
        given.runs = run_table(runs)
        assert encode_header(given) == octets
        again = decode(octets, given.body)
        assert again.runs == runs
        assert isinstance(again.runs, Runs) == (len(runs) >= MIN_ROWS)
        given = batch(hops, Step.EGRESS)
        octets = encode_header(given)
        given.hops = hop_table(hops)
        assert encode_header(given) == octets
        again = decode(octets, given.body)
        assert again.hops == hops
        assert isinstance(again.hops, Hops) == (len(hops) >= MIN_ROWS)
        assert [(len(one), one.port, one.address) for one in again.split_runs()] == list(hops)


def test_tables_are_joined_as_tuples_are() -> None:
    for seed in range(60):
        random = Random(seed)
        runs = [some_runs(random, 30) for _ in range(random.randrange(1, 4))]
        hops = [some_hops(random, 30) for _ in range(random.randrange(1, 4))]
        assert joined_run_table([run_table(one) if random.random() < 0.5 else one for one in runs]) == joined_runs(
            chain.from_iterable(runs)
        )
        assert joined_hop_table([hop_table(one) if random.random() < 0.5 else one for one in hops]) == joined_runs(
            chain.from_iterable(hops)
        )


def test_batches_with_tables_are_coalesced() -> None:
    for seed in range(30):
        random = Random(seed)
        runs, hops = [some_runs(random, 25) for _ in range(3)], [some_hops(random, 25) for _ in range(3)]
        for step, given in ((Step.CIRCUIT_IN, runs), (Step.EGRESS, hops)):
            sent = [batch(one, step) for one in given]
            (whole,) = coalesced([decode(encode_header(one), one.body) for one in sent])
            joined = joined_runs(chain.from_iterable(given))  # type: ignore[arg-type]
            assert (whole.runs or whole.hops) == joined
            assert sum(map(len, whole.split_runs())) == sum(map(len, sent))
