"""Columns of batches: what they read and write is what a loop over the packets reads and writes."""

from __future__ import annotations

from array import array
from random import Random

import numpy as np
import pytest

from chassis.net.columns import Columns, runs

SAME, MIXED = [60] * 20, [60, 61, 1514, 60, 99, 35]


def _body(lengths: list[int]) -> tuple[bytearray, array[int], list[int]]:
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return bytearray(Random(1).randbytes(sum(lengths))), array("H", lengths), starts


@pytest.mark.parametrize("sizes", [SAME, MIXED, [40]])
@pytest.mark.parametrize("viewed", [False, True])
def test_reads_and_writes_what_a_loop_does(sizes: list[int], viewed: bool) -> None:
    body, lengths, starts = _body(sizes)
    expected = bytearray(body)
    columns = Columns(memoryview(body) if viewed else body, lengths)
    assert columns.stride == (sizes[0] if len(set(sizes)) == 1 else 0)
    assert columns.lengths.tolist() == sizes
    assert columns.starts.tolist() == starts
    assert [row.tobytes() for row in columns.read(14, 20)] == [body[at + 14 : at + 34] for at in starts]
    for octets in (1, 2, 4):
        wanted = [int.from_bytes(body[at + 9 : at + 9 + octets], "big") for at in starts]
        assert columns.numbers(9, octets).tolist() == wanted
        columns.write_numbers(9, octets, np.arange(len(sizes)) * 7)
        for index, at in enumerate(starts):
            expected[at + 9 : at + 9 + octets] = (index * 7).to_bytes(octets, "big")
    columns.write(0, np.frombuffer(b"one for all", np.uint8))
    columns.write(20, np.frombuffer(bytes(range(2 * len(sizes))), np.uint8).reshape(-1, 2))
    for index, at in enumerate(starts):
        expected[at : at + 11] = b"one for all"
        expected[at + 20 : at + 22] = bytes((2 * index, 2 * index + 1))
    assert body == expected


def test_reading_keeps_the_body_as_it_is() -> None:
    body, lengths, _ = _body(SAME)
    before = bytes(body)
    Columns(body, lengths).read(0, 14)[:] = 0
    assert body == before
    assert Columns(before, lengths).read(0, 60).tobytes() == before


def test_runs() -> None:
    assert runs(np.array([], bool)) == [(0, 1)]
    assert runs(np.array([False, False, False])) == [(0, 4)]
    assert runs(np.array([True, False, True])) == [(0, 1), (1, 3), (3, 4)]
