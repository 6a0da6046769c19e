"""The poll loop is fair: a source that always has something to do keeps no other from its turn."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import zmq

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.loop import Loop
from chassis.ports.wire import Wire

DEADLINE = 20.0
BATCHES = 20


def run(loop: Loop, story: Iterator[None]) -> None:
    """Run a loop; between two of its turns the story goes on, to its end."""
    loop.run(lambda: -inf, lambda now: loop.stop() if next(story, "over") == "over" else None)


def always_ready(loop: Loop, callback: Callable[[float], None]) -> Callable[[], None]:
    """Add a descriptor that is readable and stays so; what lets go of it."""
    reading, writing = os.pipe()
    os.write(writing, b"x")
    loop.add(reading, callback)

    def close() -> None:
        loop.remove(reading)
        os.close(reading)
        os.close(writing)

    return close


def test_each_source_is_first_in_its_turn() -> None:
    loop = Loop()
    order: list[int] = []
    opened = [always_ready(loop, lambda now, number=number: order.append(number)) for number in range(3)]
    try:
        run(loop, iter([None] * 5))
    finally:
        for close in opened:
            close()
    rounds = [order[at : at + 3] for at in range(0, 18, 3)]
    assert all(sorted(one) == [0, 1, 2] for one in rounds)
    assert sorted(one[0] for one in rounds) == [0, 0, 1, 1, 2, 2]


def test_a_wire_is_read_beside_a_source_that_takes_all_the_time_there_is() -> None:
    loop = Loop()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    body, lengths = pack([bytes(64)], 0)
    got: list[Batch] = []

    def busy(now: float) -> None:
        while loop.may_go_on():
            pass

    # A Unix socket's path is short.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lf") as folder:

        def wire(node: str, far: str) -> Wire:
            return Wire(
                context,
                loop,
                Path(folder),
                node,
                "1",
                WireSpec("wire", far, "1"),
                Counters(),
                lambda port, batch, now: got.append(batch),
                lambda port, up, now: None,
            )

        close = always_ready(loop, busy)
        a, b = wire("a", "b"), wire("b", "a")

        def story() -> Iterator[None]:
            end = time.monotonic() + DEADLINE
            while not (a.carrier and b.carrier) and time.monotonic() < end:
                yield
            for _ in range(BATCHES):
                a.send(Batch(Step.IN, bytearray(body), lengths[:]), time.monotonic())
            for _ in range(2 * BATCHES):
                yield

        try:
            run(loop, story())
        finally:
            close()
            a.close()
            b.close()
            context.destroy(linger=0)
    assert sum(len(batch) for batch in got) == BATCHES
