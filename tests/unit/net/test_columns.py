"""Columns of batches: what they read and write is what a loop over the packets reads and writes."""

from __future__ import annotations

from array import array
from random import Random

import numpy as np
import pytest

from chassis.net.columns import Columns, common_length, longest, runs

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
    assert columns.words(14, 9).tobytes() == b"".join(
        body[at + word : at + word + 2] for word in range(14, 32, 2) for at in starts
    )
    assert [bytes(cell) for cell in columns.cells(3, 11).tolist()] == [body[at + 3 : at + 14] for at in starts]
    for octets in (1, 2, 4):
        wanted = [int.from_bytes(body[at + 9 : at + 9 + octets], "big") for at in starts]
        assert columns.numbers(9, octets).tolist() == wanted
        columns.write_numbers(9, octets, np.arange(len(sizes)) * 7)
        for index, at in enumerate(starts):
            expected[at + 9 : at + 9 + octets] = (index * 7).to_bytes(octets, "big")
    columns.overlay(16, 3, bytes(range(3 * len(sizes))))
    columns.overlay(30, 5, b"equal")
    for index, at in enumerate(starts):
        expected[at + 16 : at + 19] = bytes(range(3 * index, 3 * index + 3))
        expected[at + 30 : at + 35] = b"equal"
    assert columns.extract(16, 3) == bytes(range(3 * len(sizes)))
    assert columns.extract(9, 9) == b"".join(expected[at + 9 : at + 18] for at in starts)
    table = columns.beginnings(34)
    assert table.stride == 34
    assert table.extract(0, 34) == b"".join(expected[at : at + 34] for at in starts)
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


def test_common_and_longest_lengths() -> None:
    for sizes in (SAME, MIXED, [40], MIXED * 9):
        lengths = array("H", sizes)
        assert common_length(lengths) == (sizes[0] if len(set(sizes)) == 1 else 0)
        assert longest(lengths) == max(sizes)
    assert common_length(array("H")) == 0


def test_runs() -> None:
    assert runs(np.array([], bool)) == [(0, 1)]
    assert runs(np.array([False, False, False])) == [(0, 4)]
    assert runs(np.array([True, False, True])) == [(0, 1), (1, 3), (3, 4)]
