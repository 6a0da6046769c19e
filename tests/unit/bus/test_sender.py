"""A sender keeps what its far end has not taken, and holds its process's ports back for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
import zmq

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.connection import receive
from chassis.bus.counters import Counters
from chassis.bus.credit import LOOK_UP_INTERVAL, MAX_PACKETS_UNDER_WAY, Credit
from chassis.bus.environment import map_counters
from chassis.bus.hops import SentBatches
from chassis.bus.loop import Loop
from chassis.bus.sender import MAX_BACKLOG_PACKETS, MAX_STANDSTILL, Congestion, Sender
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import Ipv4

NAME = "fabric taken from lc 3"
DEADLINE = 20.0
SIZE = 32


def batch(number: int = 0) -> Batch:
    packets = [Ipv4(1, 2, 17, (number * SIZE + at).to_bytes(4, "big")).emit() for at in range(SIZE)]
    body, lengths = pack(packets, HEADROOM)
    return Batch(Step.ENCAPSULATE, body, lengths, card="lc 3", epoch=1, ingress="3/1", tunnel=1)


def test_credit_is_what_was_sent_less_what_was_taken_on_this_connection(tmp_path: Path) -> None:
    far = map_counters(tmp_path / "far")
    far.add(NAME, 77)
    credit = Credit((tmp_path / "none", tmp_path / "far"), NAME, 100)
    credit.connected()
    assert credit.under_way == 0
    credit.count(90)
    assert credit.under_way == 90
    assert credit.allows(10)
    assert not credit.allows(11)
    far.add(NAME, 60)
    assert credit.under_way == 30
    # A batch larger than the limit goes alone.
    assert not credit.allows(1000)
    far.add(NAME, 30)
    assert credit.allows(1000)
    credit.count(1000)
    credit.connected()
    assert credit.under_way == 0, "what was sent to the process before is not under way to this one"
    credit.close()


def test_without_a_counter_there_is_no_limit_until_it_is_found(tmp_path: Path) -> None:
    far = map_counters(tmp_path / "far")
    credit = Credit((tmp_path / "far",), NAME, 100)
    credit.connected()
    for _ in range(LOOK_UP_INTERVAL - 1):
        credit.count(10)
        assert credit.allows(10)
    far.add(NAME, 5)
    credit.count(10)
    assert credit.under_way == 0
    credit.count(95)
    assert credit.under_way == 95
    assert not credit.allows(10)
    far.add(NAME, 50)
    assert credit.under_way == 45
    credit.close()


@pytest.mark.parametrize("content", [b"", b"text", bytes(4096)])
def test_a_file_that_has_no_counters_gives_no_limit(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "far").write_bytes(content)
    credit = Credit((tmp_path / "far",), NAME, 1)
    credit.connected()
    credit.count(1000)
    assert credit.allows(1000)


class Rig:
    """A sender, and a far end that takes packets when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.pull, push = self.context.socket(zmq.PULL), self.context.socket(zmq.PUSH)
        self.pull.bind("inproc://far")
        push.connect("inproc://far")
        self.far = map_counters(folder / "far")
        self.far.add(NAME, 0)
        self.congestion = Congestion()
        self.relieved: list[float] = []
        self.may_send = True
        self.sent = 0
        credit = Credit((folder / "far",), NAME)
        credit.connected()
        self.sender = Sender(
            self.loop,
            push,
            SentBatches(Counters(), "fabric to asp 1/1"),
            credit,
            self.congestion,
            self._on_sent,
            self.relieved.append,
            lambda now: self.may_send,
        )

    def _on_sent(self, sent: Batch) -> None:
        self.sent += len(sent.lengths)

    def take(self) -> list[bytes]:
        """Take the batches of the next message, if one has come."""
        taken = receive(self.pull)
        for one in taken:
            self.far.add(NAME, len(one.lengths))
        return [bytes(packet[HEADROOM + 20 :]) for one in taken for packet in one.packets()]

    def until(self, condition: Callable[[], bool]) -> Iterator[None]:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end
            yield

    def tell(self, story: Iterator[None]) -> None:
        self.loop.run(lambda: -inf, lambda now: self.loop.stop() if next(story, "over") == "over" else None)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.sender.credit.close()
    made.context.destroy(linger=0)


def test_what_is_under_way_is_limited_and_the_rest_follows_in_order(rig: Rig) -> None:
    batches = (MAX_PACKETS_UNDER_WAY + MAX_BACKLOG_PACKETS) // SIZE
    dropped = sum(sum(rig.sender.send(batch(number), 1.0)) for number in range(batches))
    assert (rig.sent, rig.sender.waiting, dropped) == (MAX_PACKETS_UNDER_WAY, MAX_BACKLOG_PACKETS, 0)
    assert sum(rig.sender.send(batch(), 1.0)) == SIZE
    found: list[bytes] = []

    def story() -> Iterator[None]:
        end = time.monotonic() + DEADLINE
        while len(found) < batches * SIZE:
            assert time.monotonic() < end
            found.extend(rig.take())
            yield

    rig.tell(story())
    assert found == [number.to_bytes(4, "big") for number in range(batches * SIZE)]
    assert len(rig.relieved) == 1


def test_ports_are_held_while_packets_wait_and_the_far_end_takes_some(rig: Rig) -> None:
    for number in range(MAX_PACKETS_UNDER_WAY // SIZE):
        rig.sender.send(batch(number), 1.0)
    assert not rig.congestion.holds(1.0)
    rig.sender.send(batch(), 1.0)
    assert rig.congestion.holds(1.0)
    # The connection's own port is not held: its far end may be held back by this one.
    assert not rig.congestion.holds(1.0, rig.sender)
    # A far end that takes nothing holds nobody for long.
    assert not rig.congestion.holds(1.0 + 2 * MAX_STANDSTILL)

    def story() -> Iterator[None]:
        yield from rig.until(lambda: bool(rig.take()))
        yield from rig.until(lambda: bool(rig.relieved))

    rig.tell(story())
    assert not rig.congestion.holds(rig.relieved[0])


def test_what_is_dropped_holds_nothing(rig: Rig) -> None:
    for number in range(MAX_PACKETS_UNDER_WAY // SIZE + 2):
        rig.sender.send(batch(number), 1.0)
    assert rig.sender.drop() == 2 * SIZE
    assert rig.sender.drop() == rig.sender.waiting == 0
    assert not rig.congestion.holds(1.0)
    assert rig.sent == MAX_PACKETS_UNDER_WAY
