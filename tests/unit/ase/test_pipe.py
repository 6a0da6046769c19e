"""The pipe between an ASP's processes: what cannot be carried, and what that costs."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike_messages import (
    FromIke,
    IkeHeartbeat,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeRequest,
    MessageDropped,
    SaDelete,
    ToIke,
)
from chassis.ase.ike_process import MAX_LOGGED_CHARS, Pipe, PipeClosed
from chassis.bus.codec import DEEPEST, carrier
from chassis.bus.messages import LogRecord

ENCODE_TO, DECODE_TO = carrier(ToIke)
ENCODE_FROM, DECODE_FROM = carrier(FromIke)
GOOD = SaDelete(5, 1, "expired")


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    """(the data engine's end, IKE's end)."""
    ours, its = socket.socketpair()
    pipes = Pipe(ours, ENCODE_TO, DECODE_FROM), Pipe(its, ENCODE_FROM, DECODE_TO)
    yield pipes
    for pipe in pipes:
        pipe.close()


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"deep": value}


def raw(pipe: Pipe, data: bytes) -> None:
    pipe.socket.send(struct.pack("!I", len(data)) + data)


@pytest.mark.parametrize(
    "reply",
    [
        IkeReply(9, {"who": "lone \ud800 surrogate"}),
        IkeReply(9, {"count": 1 << 64}),
        IkeReply(9, {"what": [object()]}),  # type: ignore[dict-item]
        IkeReply(9, {"long": b"x" * (1 << 24)}),
    ],
)
def test_an_answer_that_cannot_be_packed_is_said(ends: tuple[Pipe, Pipe], reply: IkeReply) -> None:
    data, ike = ends
    left = ike.send(reply)
    assert left is not None
    assert left.number == 9
    assert left.text.startswith("IkeReply: ")
    assert left.text.isprintable()
    engine = IkeEngine("asp 1/1", random=random.Random(1).randbytes)
    for message in engine.on_message_dropped(left.text, left.number, 1.0):
        assert ike.send(message) is None
    said, answer = data.receive()
    assert isinstance(said, IkeLog)
    assert said.record.severity == "error"
    assert isinstance(answer, IkeReply)
    assert (answer.number, answer.result) == (9, {})
    assert "dropped: IkeReply" in answer.error


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (IkeReply(9, deep(DEEPEST + 2)), 9),
        (IkeReply(9, {7: "a number for a name"}), 9),  # type: ignore[dict-item]
        (IkeReply(9, {}, 5), 9),  # type: ignore[arg-type]
        (IkeReply("nine", {}), 0),  # type: ignore[arg-type]
        (IkeHeartbeat(0.0, deep(DEEPEST + 2)), 0),
        (IkeLog(LogRecord(0.0, "error", "ike", "", "text", {"none": 1, 2: 3})), 0),  # type: ignore[dict-item]
        (IkePacket(1, 2, 3, 4, 5, "text"), 0),  # type: ignore[arg-type]
    ],
)
def test_what_may_be_missing_is_left_out(ends: tuple[Pipe, Pipe], message: Any, number: int) -> None:
    data, ike = ends
    for one in (GOOD, message, GOOD):
        assert ike.send(one) is None
    first, left, last = data.receive()
    assert first == last == GOOD
    assert isinstance(left, MessageDropped)
    assert left.number == number
    assert left.text.startswith(type(message).__name__)
    assert len(left.text) <= 4 * MAX_LOGGED_CHARS


def test_a_command_that_cannot_be_read_is_answered(ends: tuple[Pipe, Pipe]) -> None:
    data, ike = ends
    assert data.send(IkeRequest(4, "sas", deep(DEEPEST + 2))) is None
    (left,) = ike.receive()
    assert isinstance(left, MessageDropped)
    assert left.number == 4


@pytest.mark.parametrize(("frame", "why"), [
    (msgpack.packb(["SaDelete", [5, "one", "expired"]]), "SaDelete: "),
    (msgpack.packb(["SaDelete", [5, 1]]), "SaDelete: "),
    (msgpack.packb(["SaOfLaterVersion", [5]]), "no such type"),
    (msgpack.packb({"no": "message"}), "pair was expected"),
    (b"\xc1", "message"),
    (b"", "message"),
])  # fmt: skip
def test_what_may_not_be_missing_ends_it_and_says_why(ends: tuple[Pipe, Pipe], frame: bytes, why: str) -> None:
    data, ike = ends
    raw(ike, frame)
    with pytest.raises(PipeClosed, match=why):
        data.receive()


def test_a_pair_that_cannot_be_packed_ends_it(ends: tuple[Pipe, Pipe]) -> None:
    with pytest.raises(PipeClosed, match="SaDelete"):
        ends[1].send(SaDelete(1 << 64, 1, ""))


def test_any_octets_in_a_frame_are_a_message_or_left_out_or_the_end() -> None:
    rng = random.Random(4)
    result: Any = {"a": ["x", 1], "c": {"d": 2}}
    right = [
        ENCODE_FROM(one)
        for one in (GOOD, IkeReply(9, result), IkeHeartbeat(0.5, {"x": 1}), IkePacket(1, 2, 3, 4, 5, b"p"))
    ]
    seen = {"left out": 0, "ended": 0, "carried": 0}
    for _ in range(3000):
        data = bytearray(rng.choice(right))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        ours, its = socket.socketpair()
        pipe = Pipe(ours, ENCODE_TO, DECODE_FROM)
        its.send(struct.pack("!I", len(data)) + data)
        try:
            (message,) = pipe.receive()
            seen["left out" if isinstance(message, MessageDropped) else "carried"] += 1
        except PipeClosed:
            seen["ended"] += 1
        finally:
            pipe.close()
            its.close()
    assert all(count > 100 for count in seen.values()), seen
