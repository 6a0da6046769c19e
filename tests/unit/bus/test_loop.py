"""The poll loop is fair: a source that always has something to do keeps no other from its turn."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path

import zmq

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.counters import Counters
from chassis.bus.engine import STALL_TIMEOUT
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


def test_what_falls_due_while_sources_are_read_is_done_in_the_same_turn() -> None:
    loop = Loop()
    turns: list[float] = []
    due = time.monotonic() + 0.005

    def read(now: float) -> None:
        turns.append(now)
        while time.monotonic() < due + 0.005:
            pass

    def on_timer(now: float) -> None:
        assert now >= due
        loop.stop()

    close = always_ready(loop, read)
    try:
        loop.run(lambda: due, on_timer)
    finally:
        close()
    assert len(turns) == 1


def test_a_source_that_rests_is_read_when_its_time_has_come_and_not_before() -> None:
    loop = Loop()
    read: list[float] = []
    others: list[float] = []
    rest = 0.02

    def reading(now: float) -> None:
        read.append(now)
        if len(read) == 3:
            loop.stop()
        loop.rest(pipe, now + rest)

    pipe, writing = os.pipe()
    os.write(writing, b"x")
    loop.add(pipe, reading)
    close = always_ready(loop, others.append)
    try:
        loop.run(lambda: inf, lambda now: None)
        assert all(later - before >= rest for before, later in pairwise(read))
        assert len(others) > 3
        # One that rests can be removed, and is not called any more.
        loop.remove(pipe)
        close()
    finally:
        os.close(pipe)
        os.close(writing)
    called = len(read)
    due = time.monotonic() + 2 * rest
    loop = Loop()
    loop.run(lambda: due, lambda now: loop.stop())
    assert len(read) == called


def test_one_that_rests_may_remove_another() -> None:
    loop = Loop()
    called: list[int] = []
    opened: list[Callable[[], None]] = []

    def reading(number: int, now: float) -> None:
        called.append(number)
        if len(called) > 2:
            opened[1 - number]()
            loop.stop()
        loop.rest(pipes[number], now + 0.001)

    pipes: list[int] = []
    for number in range(2):
        reader, writer = os.pipe()
        os.write(writer, b"x")
        os.close(writer)
        pipes.append(reader)
        loop.add(reader, partial(reading, number))
        opened.append(partial(loop.remove, reader))
    loop.run(lambda: inf, lambda now: None)
    assert sorted(called[:2]) == [0, 1]
    assert len(called) == 3, "one that was removed is not called"
    for reader in pipes:
        os.close(reader)


def test_a_signal_ends_a_long_wait() -> None:
    loop = Loop(longest_wait=10 * DEADLINE)
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    began = time.monotonic()
    try:
        sender.start()
        loop.run(lambda: inf, lambda now: None)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < DEADLINE
    assert signal.set_wakeup_fd(-1) == -1


def test_who_stood_still_while_a_source_was_read_is_told_before_the_timer_is_seen_to_and_once() -> None:
    loop = Loop()
    told: list[float | str] = []
    stalls = [10 * STALL_TIMEOUT]

    def read(now: float) -> None:
        end = time.monotonic() + (stalls.pop() if stalls else 0.0)
        while time.monotonic() < end:
            pass

    def on_timer(now: float) -> None:
        told.append("timer")
        if told.count("timer") == 3:
            loop.stop()

    loop.on_stall = lambda seconds, now: told.append(seconds)
    close = always_ready(loop, read)
    try:
        loop.run(lambda: -inf, on_timer)
    finally:
        close()
    assert isinstance(told[0], float)
    # A busy machine may make it stand still for a moment once more.
    assert len([seconds for seconds in told if isinstance(seconds, float) and seconds >= 10 * STALL_TIMEOUT]) == 1


def test_a_wire_is_read_beside_a_source_that_takes_all_the_time_there_is() -> None:
    loop = Loop()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    body, lengths = pack([bytes(64)], 0)
    got: list[Batch] = []

    def busy(now: float) -> None:
        while loop.may_continue():
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
                a.transmit(Batch(Step.INGRESS, bytearray(body), lengths[:]), time.monotonic())
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
