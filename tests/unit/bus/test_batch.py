"""The batch: the fabric's and the wire's one message."""

from __future__ import annotations

import contextlib
from array import array

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.bus.batch import Batch, Step, decode, encode_header, pack
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


GOOD = ["lc 3", 1, 1, "3/1", 0, 0, 0, "", 0, b"", [], array("H", [20]).tobytes(), 0]


@pytest.mark.parametrize(("index", "value"), [
    (0, 1),
    (1, "x"),
    (1, -1),
    (2, 99),
    (9, b"\0\0"),
    (9, [0]),
    (10, [[1, 5]]),
    (10, [[0]]),
    (10, 5),
    (11, b"\x01"),
    (11, array("H", [21]).tobytes()),
    (11, array("H", [10, 10]).tobytes()),
    (11, b""),
    (12, -1),
    (12, b""),
    (12, 1.5),
])  # fmt: skip
def test_a_wrong_field_is_refused(index: int, value: object) -> None:
    assert len(decode(msgpack.packb(GOOD), bytearray(20))) == 1
    wrong = list(GOOD)
    wrong[index] = value
    with pytest.raises(DecodeError):
        decode(msgpack.packb(wrong), bytearray(20))
