"""`chassisctl perf`: from two samples to what a packet, a batch and a hop cost."""

from __future__ import annotations

import os
import threading

import pytest

from chassis.bus.counters import Counters
from chassis.bus.hops import ReceivedBatches, SentBatches, stamp_now
from launch.client.perf import Sample, performance
from launch.client.process_times import IO, MAIN, ProcessTimes, Times, process_times
from launch.ctl.perf_command import view

CARD = ("a", "lc 3")
SINK = ("t2", "tester")


def sample(at: float, counters: Counters, arrived: int, cpu: float, pid: int = 7) -> Sample:
    threads = {MAIN: Times(cpu, cpu, 0.0, cpu / 2, int(100 * cpu), 5), IO: Times(cpu / 4)}
    return Sample(
        # The tester is read half a second later.
        {CARD: at, SINK: at + 0.5},
        {CARD: dict(counters.items()), SINK: {"flow f received": arrived, "flow f sent": 7}},
        {CARD: ProcessTimes(pid, threads), SINK: ProcessTimes(8, {MAIN: Times(1.0)})},
    )


def test_each_process_and_hop_has_its_rates_and_costs() -> None:
    counters = Counters()
    received, sent = ReceivedBatches(counters, "fabric"), SentBatches(counters, "fabric to asp 1/1")
    received.count(5, 5, 5)
    before = sample(10.0, counters, 100, 1.0)
    for _ in range(10):
        received.woken()
        received.count(20, 10, 400)
        received.waited(stamp_now() - 3000, "asp 1/1")
        sent.count(400)
    after = sample(12.0, counters, 4100, 2.0)
    found = performance(before, after)
    assert found.arrived == 2000
    card = found.processes[0]
    assert (card.main, card.io, card.waited, card.voluntary) == (0.5, 0.125, 0.25, 50)
    assert card.passes() == (2000, 100)
    (fabric, to_asp) = card.hops
    assert (fabric.name, fabric.way, fabric.batches, fabric.packets) == ("fabric", "in", 100, 2000)
    assert (fabric.handled, fabric.wakeups) == (50, 5)
    assert (to_asp.name, to_asp.way, to_asp.batches, to_asp.packets) == ("fabric to asp 1/1", "out", 5, 2000)
    (waits,) = [fabric.waits[sender] for sender in ("asp 1/1",)]
    assert waits.samples == 10
    assert 3000 <= waits.mean <= waits.most
    assert waits.p99 >= 4096
    row = found.to_json()["processes"][0]
    assert (row["cpu_us_packet"], row["cpu_us_batch"], row["cpu_us_arrived"]) == (312.5, 6250.0, 312.5)
    assert len(view(found).renderables) == 3


def test_a_process_that_began_meanwhile_is_named_and_not_measured() -> None:
    counters = Counters()
    found = performance(sample(1.0, counters, 0, 1.0, pid=7), sample(2.0, counters, 0, 0.1, pid=9))
    assert found.ended == ("a lc 3",)
    assert [process.card for process in found.processes] == ["tester"]


def test_one_node_is_measured_against_what_arrived_in_the_lab() -> None:
    counters = Counters()
    found = performance(sample(1.0, counters, 0, 1.0), sample(2.0, counters, 100, 1.5), "a")
    assert [process.node for process in found.processes] == ["a"]
    assert found.to_json()["cpu_us_arrived"] == pytest.approx(1e6 * 0.625 / 100)


def test_the_times_of_a_process_are_told_by_thread() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        before = process_times(os.getpid())
        while (process_times(os.getpid()).threads[MAIN] - before.threads[MAIN]).cpu < 0.02:
            pass
        assert set(before.threads) == {MAIN, "other"}
    finally:
        done.set()
        other.join()
    assert not process_times(1 << 22).threads
