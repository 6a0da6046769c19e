"""The model of the bus and of processes: what may happen to a message, and what may not."""

from __future__ import annotations

import sys
from random import Random
from typing import Any

import pytest

from chassis.bus.engine import Append, Persist, ToFabric
from chassis.sim.connection import SimConnection
from chassis.sim.failpoints import OutputFailpoint, TornWriteFailpoint
from chassis.sim.process import CONTROL, FABRIC, Die, Halt, Process
from chassis.sim.world import START_TIME, Simulation, Violation


class Idle:
    """An engine that has nothing to do, and remembers how late it was told it was."""

    def __init__(self, next_timer: float = float("inf")) -> None:
        self.lateness: list[float] = []
        self.at = next_timer
        self.timers: list[float] = []

    def start(self, now: float) -> list[Any]:
        return []

    def on_stall(self, seconds: float, now: float) -> list[Any]:
        self.lateness.append(seconds)
        return []

    def on_timer(self, now: float) -> list[Any]:
        self.timers.append(now)
        self.at = now + 1.0
        return []

    def next_timer(self) -> float:
        return self.at


def process(world: Simulation, next_timer: float = float("inf")) -> Process:
    made = Process(world, "a", "asp 1/1", 1, 100)
    made.begin(Idle(next_timer))
    return made


def test_a_connection_keeps_its_order_and_two_overtake_each_other() -> None:
    world = Simulation(1)
    seen: list[tuple[str, int]] = []
    receiver = process(world)
    one = SimConnection(world, "one", receiver, lambda item: seen.append(("one", item)), FABRIC, 1000)
    two = SimConnection(world, "two", receiver, lambda item: seen.append(("two", item)), FABRIC, 1000)
    for number in range(200):
        one.send(number)
        two.send(number)
    world.run(START_TIME + 10)
    assert [number for name, number in seen if name == "one"] == list(range(200))
    assert [number for name, number in seen if name == "two"] == list(range(200))
    assert seen != sorted(seen, key=lambda entry: (entry[1], entry[0]))


def test_nothing_for_the_dead_arrives_and_what_a_dead_sender_sent_arrives_up_to_a_cut() -> None:
    cuts = set()
    for seed in range(40):
        world = Simulation(seed)
        seen: list[int] = []
        receiver = process(world)
        connection = SimConnection(world, "c", receiver, seen.append, FABRIC, 1000)
        for number in range(50):
            connection.send(number)
        connection.cut()
        assert not connection.send(50)
        world.run(START_TIME + 10)
        assert seen == list(range(len(seen)))
        cuts.add(len(seen))
    assert len(cuts) > 5
    world = Simulation(1)
    receiver = process(world)
    connection = SimConnection(world, "c", receiver, seen.append, FABRIC, 1000)
    seen.clear()
    connection.send(1)
    receiver.kill()
    world.run(START_TIME + 10)
    assert seen == []


def test_a_full_queue_refuses() -> None:
    world = Simulation(1)
    receiver = process(world)
    receiver.stop()
    connection = SimConnection(world, "c", receiver, lambda item: None, FABRIC, 3)
    assert [connection.send(number) for number in range(5)] == [True, True, True, False, False]
    world.run(START_TIME + 1)
    assert not connection.send(5)
    receiver.resume()
    assert connection.send(6)


def test_a_stopped_process_learns_of_it_first_then_takes_batches_then_messages() -> None:
    world = Simulation(3)
    receiver = process(world, START_TIME + 0.1)
    engine = receiver.engine
    seen: list[str] = []
    control = SimConnection(world, "c", receiver, lambda item: seen.append("message"), CONTROL, 10)
    fabric = SimConnection(
        world, "f", receiver, lambda item: seen.append(f"batch {len(engine.lateness)}"), FABRIC, 10
    )
    receiver.stop()
    control.send(1)
    fabric.send(1)
    world.run(START_TIME + 0.6)
    assert seen == []
    assert engine.timers == []
    receiver.resume()
    assert seen == ["batch 1", "message"]
    assert 0.6 <= engine.lateness[0] <= 0.7
    world.run(START_TIME + 0.7)
    assert engine.timers == [pytest.approx(START_TIME + 0.6)]


def test_a_short_stop_is_not_noticed() -> None:
    world = Simulation(3)
    receiver = process(world)
    receiver.stop()
    world.run(START_TIME + 0.04)
    receiver.resume()
    assert receiver.engine.lateness == []


def test_an_engine_that_spins_is_found() -> None:
    world = Simulation(1)
    made = Process(world, "a", "asp 1/1", 1, 100)
    engine = Idle(START_TIME)
    engine.on_timer = lambda now: []  # type: ignore[method-assign]
    made.begin(engine)
    with pytest.raises(Violation, match="without end"):
        world.run(START_TIME + 1)


class Writes:
    """An engine that persists two files in one call, or writes to memory."""

    def __init__(self, memory: memoryview | None = None) -> None:
        self.memory = memory

    def receive(self, message: str, now: float) -> list[Any]:
        return [Persist("one", b"1"), Append("two", b"22222222"), Persist("three", b"3")]

    def on_timer(self, now: float) -> list[Any]:
        return []

    def receive_batch(self, batch: Any, now: float) -> list[Any]:
        return write(self.memory)


def write(memory: Any) -> list[Any]:
    memory[0:8] = b"\1" * 8
    memory[8:32] = b"\2" * 24
    memory[32:40] = b"\3" * 8
    return [ToFabric("lc 3", None)]  # type: ignore[arg-type]


def test_an_end_falls_between_outputs_and_may_cut_a_write_to_a_file_short() -> None:
    lengths = set()
    for seed in range(60):
        chance = Random(seed).random
        doomed = OutputFailpoint(Writes(), 1, chance=chance)
        assert doomed.on_timer(0.0) == []
        first, *rest = doomed.receive("x", 0.0)
        assert first == Persist("one", b"1")
        assert rest[-1] == Die()
        lengths.add(len(rest[0].data) if len(rest) == 2 else -1)
    assert lengths == {-1, *range(8)}
    stopped = OutputFailpoint(Writes(), 2, halt=0.7, chance=Random(1).random).receive("x", 0.0)
    assert stopped[-1] == Halt(0.7, (Persist("three", b"3"),))


def test_an_end_falls_between_writes_and_may_tear_one() -> None:
    seen = set()
    usual = sys.gettrace()
    for seed in range(300):
        memory = memoryview(bytearray(40))
        random = Random(seed)
        torn = TornWriteFailpoint(Writes(memory), __file__, memory, random.randint(1, 8), random)
        outputs = torn.receive_batch(None, 0.0)
        written = bytes(memory)
        if outputs == [Die()]:
            seen.add(written)
        else:
            assert written == b"\1" * 8 + b"\2" * 24 + b"\3" * 8
    assert sys.gettrace() is usual
    one, two, three = b"\1" * 8, b"\2" * 8, b"\3" * 8
    nothing = bytes(8)
    assert seen >= {
        bytes(40),
        one + nothing * 4,
        one + two + nothing * 3,
        one + two * 2 + nothing * 2,
        one + two * 3 + nothing,
        one + two * 3 + three,
    }
