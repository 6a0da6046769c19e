"""A wire whose far end takes nothing: frames wait at the port, then go in order; what is too much is counted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
import zmq

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.loop import Loop
from chassis.bus.sender import MAX_BACKLOG_PACKETS
from chassis.ports.wire import Wire

DEADLINE = 20.0
SIZE = 8
"""Frames of a batch."""
MORE = 10 * MAX_BACKLOG_PACKETS // SIZE
"""Batches that are more than all queues of a wire and its port can hold."""


def batch(number: int) -> Batch:
    frames = [bytes(14) + (number * SIZE + at).to_bytes(4, "big") + bytes(22) for at in range(SIZE)]
    body, lengths = pack(frames, 0)
    # What a node knew of a frame is no concern of a wire: frames of two tunnels can be one batch.
    return Batch(Step.EGRESS, body, lengths, card="lc 3", epoch=2, tunnel=number, circuit=number, port="1")


class Rig:
    """Two ends of a wire in one loop. Whatever the story does between two of its yields, nobody reads."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.loop = Loop()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.counters = Counters()
        self.got: list[Batch] = []
        self.congestion: list[bool] = []
        self.may_send = True
        self.end = time.monotonic() + DEADLINE

    def near(self) -> Wire:
        return Wire(
            self.context,
            self.loop,
            self.folder,
            "a",
            "1",
            WireSpec("wire", "b", "1"),
            self.counters,
            lambda port, batch, now: None,
            lambda port, up, now: None,
            lambda port, full, now: self.congestion.append(full),
            lambda: self.may_send,
        )

    def far(self) -> Wire:
        return Wire(
            self.context,
            self.loop,
            self.folder,
            "b",
            "1",
            WireSpec("wire", "a", "1"),
            Counters(),
            lambda port, batch, now: self.got.append(batch),
            lambda port, up, now: None,
        )

    def until(self, condition: Any) -> Iterator[None]:
        while not condition():
            assert time.monotonic() < self.end, "never came true"
            yield

    def tell(self, story: Iterator[None]) -> None:
        self.loop.run(lambda: -inf, lambda now: self.loop.stop() if next(story, "over") == "over" else None)

    def full(self, near: Wire, far: Wire) -> Iterator[None]:
        """Once the wire stands, more is sent than it and its port can hold."""
        yield from self.until(lambda: near.carrier and far.carrier)
        for number in range(MORE):
            near.transmit(batch(number), time.monotonic())

    def counted(self) -> int:
        """Frames that went or were lost, for whatever cause."""
        return sum(self.counters.get(f"port 1 {name}") for name in ("frames sent", "drop not sent", "drop fenced"))

    def arrived(self) -> list[int]:
        return [int.from_bytes(frame[14:18], "big") for one in self.got for frame in one.packets()]


@pytest.fixture
def rig() -> Iterator[Rig]:
    # A Unix socket's path is short.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="wf") as folder:
        made = Rig(folder)
        yield made
        made.context.destroy(linger=0)


def test_a_full_wire_keeps_what_a_port_can_hold_and_counts_what_is_lost(rig: Rig) -> None:
    near, far = rig.near(), rig.far()

    def story() -> Iterator[None]:
        yield from rig.full(near, far)
        lost = rig.counters.get("port 1 drop not sent")
        assert rig.congestion == [True]
        yield from rig.until(lambda: rig.congestion == [True, False])
        yield from rig.until(lambda: len(rig.arrived()) == MORE * SIZE - lost)

    rig.tell(story())
    arrived = rig.arrived()
    assert len(arrived) == rig.counters.get("port 1 frames sent") > MAX_BACKLOG_PACKETS
    # The last to come are lost: those that arrived are the first ones, without a gap.
    assert arrived == list(range(len(arrived)))
    assert rig.counters.get("port 1 drop not sent") == MORE * SIZE - len(arrived)
    # It waited joined: a far end that was busy has less to do than it would have had.
    assert max(len(one.lengths) for one in rig.got) > 8 * SIZE
    assert {(one.tunnel, one.circuit, one.card, one.epoch) for one in rig.got} == {(0, 0, "", 0)}


def test_a_far_end_that_comes_back_gets_nothing_from_before(rig: Rig) -> None:
    near, far = rig.near(), rig.far()

    def story() -> Iterator[None]:
        yield from rig.full(near, far)
        far.close()
        yield from rig.until(lambda: not near.carrier)
        assert rig.congestion == [True, False]
        again = rig.far()
        yield from rig.until(lambda: near.carrier and again.carrier)
        near.transmit(batch(0), time.monotonic())
        yield from rig.until(lambda: rig.got)

    rig.tell(story())
    assert rig.arrived() == list(range(SIZE))
    assert rig.counted() == (MORE + 1) * SIZE


def test_a_wire_that_is_taken_down_loses_what_waits_for_it(rig: Rig) -> None:
    near, far = rig.near(), rig.far()

    def story() -> Iterator[None]:
        yield from rig.full(near, far)
        sent = rig.counters.get("port 1 frames sent")
        near.set_impairment({"down": True}, time.monotonic())
        assert rig.congestion == [True, False]
        yield from rig.until(lambda: len(rig.arrived()) == sent)
        near.set_impairment({"clear": True}, time.monotonic())
        near.transmit(batch(MORE), time.monotonic())
        yield from rig.until(lambda: len(rig.arrived()) == sent + SIZE)

    rig.tell(story())
    assert rig.arrived()[-SIZE:] == list(range(MORE * SIZE, (MORE + 1) * SIZE))
    assert rig.counted() == (MORE + 1) * SIZE


def test_who_may_have_been_replaced_sends_nothing_of_what_waited(rig: Rig) -> None:
    near, far = rig.near(), rig.far()

    def story() -> Iterator[None]:
        yield from rig.full(near, far)
        rig.may_send = False
        yield from rig.until(lambda: rig.congestion == [True, False])
        sent = rig.counters.get("port 1 frames sent")
        yield from rig.until(lambda: len(rig.arrived()) == sent)

    rig.tell(story())
    assert rig.counters.get("port 1 drop fenced") == MAX_BACKLOG_PACKETS
    assert rig.counted() == MORE * SIZE
