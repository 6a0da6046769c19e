"""The batch: what messages of the fabric and of wires are."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from itertools import pairwise

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.bus.batch import (
    MAX_KNOWN_WAYS,
    MIN_COLUMN,
    Batch,
    Step,
    _known_ways,
    decode,
    decode_frames,
    encode_header,
    pack,
)
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM

packets = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=20)


@settings(deadline=None)
@given(packets, st.sampled_from(Step), st.integers(0, 2**32 - 1), st.data())
def test_what_was_encoded_is_decoded(payloads: list[bytes], step: Step, number: int, data: st.DataObject) -> None:
    body, lengths = pack(payloads, HEADROOM)
    marks = tuple((index, index + 100) for index in sorted(data.draw(st.sets(st.integers(0, len(payloads) - 1)))))
    descriptors = data.draw(st.sampled_from((b"", bytes(number * 7 % 64 for number in range(len(payloads))))))
    batch = Batch(step, body, lengths, "lc 3", 7, "3/1", 2, number, 9, "3/11", number, descriptors, marks)
    batch.stamp = number + 1
    again = decode(encode_header(batch, number), body)
    # The stamp is the sender's, never that of the hop before.
    assert again.stamp == number
    batch.stamp = number
    assert all(getattr(again, name) == getattr(batch, name) for name in Batch.__slots__)
    assert [bytes(packet[HEADROOM:]) for packet in again.packets()] == payloads
    one_frame = decode(bytearray(encode_header(batch, number) + body))
    assert all(getattr(one_frame, name) == getattr(batch, name) for name in Batch.__slots__)


@settings(deadline=None)
@given(packets, st.data())
def test_runs_are_decoded_and_split(payloads: list[bytes], data: st.DataObject) -> None:
    body, lengths = pack(payloads, HEADROOM)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(payloads)))) | {len(payloads)})
    runs = tuple(
        (cut - before, number, number * 3) for number, (before, cut) in enumerate(pairwise([0, *cuts]), 1)
    )
    descriptors = data.draw(st.sampled_from((b"", bytes(range(len(payloads))))))
    batch = Batch(Step.ENCAPSULATE, body, lengths, "lc 3", 7, "3/1", descriptors=descriptors, runs=runs)
    again = decode(encode_header(batch) + bytes(body))
    assert again.runs == runs
    parts = again.split_runs()
    assert [(len(part), part.tunnel, part.circuit) for part in parts] == list(runs)
    assert [bytes(packet[HEADROOM:]) for part in parts for packet in part.packets()] == payloads
    assert b"".join(part.descriptors for part in parts) == descriptors
    assert {(part.card, part.epoch, part.ingress, part.runs) for part in parts} == {("lc 3", 7, "3/1", ())}


@settings(deadline=None)
@given(packets, st.data())
def test_runs_of_next_hops_are_decoded_and_split(payloads: list[bytes], data: st.DataObject) -> None:
    body, lengths = pack(payloads, HEADROOM)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(payloads)))) | {len(payloads)})
    hops = tuple(
        (cut - before, data.draw(st.sampled_from(["3/1", "3/11", ""])), data.draw(st.integers(0, 2**32 - 1)))
        for before, cut in pairwise([0, *cuts])
    )
    descriptors = data.draw(st.sampled_from((b"", bytes(range(len(payloads))))))
    batch = Batch(Step.EGRESS, body, lengths, "asp 1/1", 7, "3/1", 2, descriptors=descriptors, hops=hops)
    again = decode(encode_header(batch) + bytes(body))
    assert all(getattr(again, name) == getattr(batch, name) for name in Batch.__slots__)
    parts = again.split_runs()
    assert [(len(part), part.port, part.address) for part in parts] == list(hops)
    assert [bytes(packet[HEADROOM:]) for part in parts for packet in part.packets()] == payloads
    assert b"".join(part.descriptors for part in parts) == descriptors
    assert {(part.context, part.tunnel, part.circuit, part.hops) for part in parts} == {(2, 0, 0, ())}


@settings(deadline=None)
@given(packets, st.data())
def test_splitting_off_traced_packets_keeps_packets_and_order(payloads: list[bytes], data: st.DataObject) -> None:
    body, lengths = pack(payloads, HEADROOM)
    marked = data.draw(st.sets(st.integers(0, len(payloads) - 1)))
    batch = Batch(Step.INGRESS, body, lengths, marks=tuple((index, index) for index in sorted(marked)))
    parts = batch.split_marked()
    assert [bytes(packet[HEADROOM:]) for part in parts for packet in part.packets()] == payloads
    assert sorted(number for part in parts for _, number in part.marks) == sorted(marked)
    for part in parts:
        if part.marks:
            assert len(part) == 1
            assert bytes(next(part.packets())[HEADROOM:]) == payloads[part.marks[0][1]]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_decode_or_raise_the_one_error(header: bytes, body: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(header, bytearray(body))


GOOD = ("lc 3", 1, 1, "3/1", 0, 0, 0, "", 0)


def header(
    way: object = GOOD,
    lengths: Sequence[int] = (20,),
    marks: Sequence[tuple[int, int]] = (),
    descriptors: bytes = b"",
    counts: tuple[int, int] | None = None,
    runs: Sequence[tuple[int, int, int]] = (),
) -> bytes:
    """`counts`: packets and marks that the header says it has, where those are not what it has."""
    packed = msgpack.packb(way)
    packets, marked = counts or (len(lengths), len(marks))
    return b"".join(
        [
            struct.pack("<HHHHHQ", len(packed), packets, marked, len(descriptors), len(runs), 0),
            packed,
            struct.pack(f"<{len(lengths)}H", *lengths),
            descriptors,
            *(struct.pack("<HQ", *mark) for mark in marks),
            *(struct.pack("<HII", *run) for run in runs),
        ]
    )


def other(index: int, value: object) -> list[object]:
    way: list[object] = list(GOOD)
    way[index] = value
    return way


@pytest.mark.parametrize("wrong", [
    b"",
    header()[:7],
    header()[:-1],
    header() + b"\0",
    header(other(0, 1)),
    header(other(1, "x")),
    header(other(1, -1)),
    header(other(2, 99)),
    header(GOOD[:8]),
    header(5),
    header(b"\xc1"),
    header(descriptors=b"\0\0"),
    header(marks=[(1, 5)]),
    header(lengths=[21]),
    header(lengths=[10, 10]),
    header(lengths=[]),
    header(counts=(0, 0)),
    header(counts=(2, 0)),
    header(counts=(1, 1)),
    header(runs=[(2, 1, 0)]),
    header(runs=[(1, 1, 0), (0, 2, 0)]),
    header(runs=[(1, 1, 0), (1, 2, 0)]),
    header(runs=[(1, 1, 0)], marks=[(0, 7)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, ("3/1",), 0)),
    header(("lc 3", 1, 6, "", 0, 0, 0, ("3/1",), 0), runs=[(1, 1, 9)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, ("3/1", "3/2"), 0), runs=[(1, 2**32 - 1, 9)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, ("3/1",), 0), runs=[(2, 0, 9)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, ("3/1",), 0), runs=[(1, 0, 9)], marks=[(0, 7)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, (), 0), runs=[(1, 0, 9)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, ("3/1", 7), 0), runs=[(1, 0, 9)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, (("3/1",),), 0), runs=[(1, 0, 9)]),
    header(("lc 3", 1, 6, "", 0, 0, 0, 7, 0), runs=[(1, 0, 9)]),
    header(("lc 3", 1, 2, "", 0, 0, 0, ("3/1",), 0), runs=[(1, 0, 9)]),
])  # fmt: skip
def test_a_wrong_header_is_refused(wrong: bytes) -> None:
    assert len(decode(header(), bytearray(20))) == 1
    assert len(decode(header() + bytes(20))) == 1
    with pytest.raises(DecodeError):
        decode(wrong, bytearray(20))
    with pytest.raises(DecodeError):
        decode(wrong + bytes(18))


@pytest.mark.parametrize("count", [MIN_COLUMN - 1, MIN_COLUMN, 256, 2000])
def test_lengths_of_large_batches_are_looked_at(count: int) -> None:
    lengths = [HEADROOM + (index * 37) % 1400 for index in range(count)]
    lengths[count // 2] = 0xFFFF
    octets = sum(lengths)
    assert list(decode(header(lengths=lengths), bytearray(octets)).lengths) == lengths
    for wrong in (octets - 1, octets + 1, octets & 0xFFFF):
        with pytest.raises(DecodeError):
            decode(header(lengths=lengths), bytearray(wrong))
    lengths[-1] = HEADROOM - 1
    with pytest.raises(DecodeError):
        decode(header(lengths=lengths), bytearray(sum(lengths)))


def test_ways_are_remembered_up_to_a_limit() -> None:
    for number in range(MAX_KNOWN_WAYS + 2):
        assert decode(header(other(5, number)), bytearray(20)).tunnel == number
    assert len(_known_ways) <= MAX_KNOWN_WAYS


def test_batches_of_one_message_are_decoded_whatever_their_frames() -> None:
    made = [
        Batch(step, *pack([bytes([number]) * 50], HEADROOM), "lc 3", 7, runs=((1, number, 0),))
        for number, step in enumerate((Step.ENCAPSULATE, Step.CIRCUIT_OUT, Step.CIRCUIT_IN))
    ]
    for two in range(8):
        frames: list[bytes | bytearray] = []
        for number, batch in enumerate(made):
            octets = encode_header(batch)
            frames += [octets, batch.body] if two >> number & 1 else [octets + batch.body]
        views = [memoryview(bytearray(frame)) for frame in frames]
        assert [(one.step, one.body, one.runs) for one in decode_frames(views)] == [
            (batch.step, batch.body, batch.runs) for batch in made
        ]
        for wrong in (views[:-1] if two & 4 else [*views, views[0][:-1]], [*views, memoryview(b"")]):
            with pytest.raises(DecodeError):
                decode_frames(wrong)
