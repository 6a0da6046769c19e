"""A fabric connection to a card that takes nothing drops by class, counts what it dropped, and then catches up."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from math import inf
from pathlib import Path

import zmq

from chassis.bus.batch import MAX_PACKETS, Batch, Step, pack
from chassis.bus.connection import receive_waiting, send_batches
from chassis.bus.counters import Counters
from chassis.bus.fabric import Fabric
from chassis.bus.hops import MAX_SENDERS, MAX_WAIT, PREFIX, ReceivedBatches, SentBatches, stamp_now
from chassis.bus.loop import Loop
from chassis.bus.sender import MAX_BACKLOG_PACKETS
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import Ipv4

DEADLINE = 20.0
VALUES = (48, 40, 24, 8)
"""A DSCP of each class."""
SIZE = 32
BATCHES = 1_000


def batch(number: int) -> Batch:
    """Packets of all four classes in turn, as many of each."""
    packets = [
        Ipv4(1, 2, 17, (number * SIZE + at).to_bytes(4, "big"), tos=VALUES[at % 4] << 2).emit()
        for at in range(SIZE)
    ]
    body, lengths = pack(packets, HEADROOM)
    return Batch(Step.ENCAPSULATE, body, lengths, card="lc 3", epoch=1, ingress="3/1", tunnel=1)


def tell(loop: Loop, story: Iterator[None]) -> None:
    """Run a loop; between two of its turns the story goes on, to its end."""
    end = time.monotonic() + DEADLINE

    def go_on(now: float) -> None:
        if next(story, "over") == "over" or now > end:
            loop.stop()

    loop.run(lambda: -inf, go_on)


def test_a_full_connection_drops_by_class_and_catches_up() -> None:
    loop, counters, up, got = Loop(), Counters(), set[str](), list[Batch]()
    ended: list[bool] = []
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    # A Unix socket's path is short.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ff") as folder:

        def card(name: str) -> Fabric:
            return Fabric(
                context,
                loop,
                Path(folder),
                "a",
                name,
                1,
                counters if name == "lc 3" else Counters(),
                lambda batch, now: got.append(batch),
                lambda card, boot, up_now, now: up.add(card),
            )

        def story() -> Iterator[None]:
            sender.connect("asp 1/1", 1)
            while "asp 1/1" not in up:
                yield
            # Nobody takes anything for as long as this takes.
            for number in range(BATCHES):
                sender.send("asp 1/1", batch(number))
            lost = counters.get("drop fabric full to asp 1/1")
            while sum(map(len, got)) < BATCHES * SIZE - lost:
                yield
            ended.append(True)

        sender, _ = card("lc 3"), card("asp 1/1")
        try:
            tell(loop, story())
        finally:
            context.destroy(linger=0)
    assert ended
    dropped = [counters.get(f"fabric full class {number}") for number in range(4)]
    assert sum(dropped) == counters.get("drop fabric full to asp 1/1") > MAX_BACKLOG_PACKETS
    # What waited of a lower class made room, and none of it was left when a higher one lost something.
    assert dropped == sorted(dropped)
    assert dropped[0] < dropped[3]
    packets = [bytes(packet[HEADROOM:]) for one in got for packet in one.packets()]
    numbers = [int.from_bytes(packet[20:24], "big") for packet in packets]
    assert numbers == sorted(set(numbers)), "a class decides what is dropped, never what goes first"
    arrived = Counter(VALUES.index(packet[1] >> 2) for packet in packets)
    assert [arrived[number] + dropped[number] for number in range(4)] == [BATCHES * SIZE // 4] * 4


def test_what_waits_for_a_card_that_ends_is_counted() -> None:
    loop, counters, up = Loop(), Counters(), list[bool]()
    ended: list[bool] = []
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ff") as folder:

        def card(name: str, counters: Counters) -> Fabric:
            return Fabric(
                context,
                loop,
                Path(folder),
                "a",
                name,
                1,
                counters,
                lambda batch, now: None,
                lambda card, boot, up_now, now: up.append(up_now),
            )

        def story() -> Iterator[None]:
            sender.connect("asp 1/1", 1)
            while up != [True]:
                yield
            for number in range(BATCHES):
                sender.send("asp 1/1", batch(number))
            receiver.close()
            while up != [True, False]:
                yield
            sender.send("asp 1/1", batch(BATCHES))
            ended.append(True)

        sender, receiver = card("lc 3", counters), card("asp 1/1", Counters())
        try:
            tell(loop, story())
        finally:
            context.destroy(linger=0)
    assert ended
    names = ("fabric sent", "drop fabric full to asp 1/1", "drop no connection to asp 1/1")
    counts = [counters.get(name) for name in names]
    assert sum(counts) == (BATCHES + 1) * SIZE
    assert counts[2] >= SIZE


def test_the_end_of_what_was_read_together_is_told() -> None:
    loop, up, sent = Loop(), list[bool](), 0
    read: list[list[Batch]] = [[]]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ff") as folder:

        def card(name: str) -> Fabric:
            return Fabric(
                context,
                loop,
                Path(folder),
                "a",
                name,
                1,
                Counters(),
                lambda batch, now: read[-1].append(batch),
                lambda card, boot, up_now, now: up.append(up_now),
                on_read=lambda: read.append([]),
            )

        def story() -> Iterator[None]:
            nonlocal sent
            sender.connect("asp 1/1", 1)
            while not up:
                yield
            while not any(len(batches) > 1 for batches in read):
                # Packets of different steps are never one batch.
                for step in (Step.CIRCUIT_OUT, Step.EGRESS):
                    one = batch(sent)
                    one.step, sent = step, sent + 1
                    sender.send("asp 1/1", one)
                yield
            while sum(map(len, read)) < sent:
                yield

        sender, receiver = card("lc 3"), card("asp 1/1")
        try:
            tell(loop, story())
        finally:
            for one in (sender, receiver):
                one.close()
            context.destroy(linger=0)
    assert max(map(len, read)) > 1
    assert not read[-1]


def test_what_is_no_batch_is_told_and_ends_no_reading_before_what_waits_behind_it() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    told: list[bool] = []
    counters = Counters()
    sent, received = SentBatches(counters, "fabric to asp 1/1"), ReceivedBatches(counters, "fabric")
    found: list[tuple[int, list[Batch]]] = []
    try:
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        pull.bind("inproc://here")
        push.connect("inproc://here")
        for _ in range(MAX_PACKETS + 1):
            push.send(b"none", zmq.DONTWAIT)
        assert send_batches(push, [batch(0)], sent)
        assert send_batches(push, [batch(1)], sent)
        while (taken := receive_waiting(pull, lambda: told.append(True), received))[0]:
            found.append(taken)
        pull.close(0)
        push.close(0)
    finally:
        context.destroy(linger=0)
    assert len(told) == MAX_PACKETS + 1
    # Whoever reads until nothing waits is not stopped by a turn that brought no batch.
    assert [(messages, [len(one) for one in batches]) for messages, batches in found] == [
        (MAX_PACKETS, []),
        (3, [2 * SIZE]),
    ]
    counted = {name.removeprefix(PREFIX): count for name, count in counters.items()}
    waits = [counted.pop(name) for name in list(counted) if " from lc 3 wait" in name]
    # One of the two batches is sampled: the sum of its queueing time, and its order.
    assert len(waits) == 2
    assert 0 <= waits[0] < 1e6 * DEADLINE
    assert waits[1] == 1
    assert counted == {
        "fabric to asp 1/1 batches sent": 2,
        "fabric to asp 1/1 packets sent": 2 * SIZE,
        "fabric wake-ups": 0,
        "fabric batches received": 2,
        "fabric batches handled": 1,
        "fabric packets received": 2 * SIZE,
    }


def test_a_stamp_of_another_clock_is_no_queueing_time() -> None:
    counters = Counters()
    received = ReceivedBatches(counters, "port 3/1")
    before = dict(counters.items())
    received.waited(stamp_now() + 10_000_000)
    received.waited(stamp_now() - MAX_WAIT - 1)
    assert dict(counters.items()) == before
    received.waited(stamp_now() - 1000)
    assert counters.get(f"{PREFIX}port 3/1 wait us") >= 1000


def test_senders_without_end_take_no_counters_without_end() -> None:
    counters = Counters()
    received = ReceivedBatches(counters, "fabric")
    for number in range(10 * MAX_SENDERS):
        received.waited(stamp_now(), f"lc {number}")
    assert len([name for name, _ in counters.items() if name.endswith("wait us")]) == MAX_SENDERS + 1
