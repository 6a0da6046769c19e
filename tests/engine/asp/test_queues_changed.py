"""Queues of an ASP through changes: rates, policies, SAs and epochs that end; and what is measured of them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.ase import queues
from chassis.bus.batch import Step
from chassis.bus.messages import TraceStamps
from chassis.bus.records import ContextRecord
from tests.support.asp import CIRCUIT, ECONOMICAL, INNER, OUTER, batch_of, records, route, tunnel_hop
from tests.support.asp_negotiated import Side, install, join, static
from tests.support.asp_queues import AT_ONCE, RATE, busy, clear, numbers, opened, pace, run, seen, side, table


def test_without_a_rate_nothing_waits_or_is_counted() -> None:
    one = Side(records(queues=4))
    for dscp in (0, 56):
        sent = one.protect(CIRCUIT, [clear(dscp, number) for number in range(256)])
        assert len(numbers(sent)) == 256
    report = seen(one)
    assert (report["rate"], report["depth"], report["queues"], report["sas"]) == ("", 0, {}, [])
    assert not [name for name, count in one.asp.counters.items() if name.startswith("queue") and count]


def test_a_rate_that_ends_lets_everything_go() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(0, number) for number in range(200)])
    assert seen(one)["rate"] == "1000 packets/s"
    pace(one, None)
    sent = run(one, 0.0)
    assert len(numbers(sent)) == 200
    assert len(numbers(one.protect(CIRCUIT, [clear()] * 256))) == 256


def test_another_rate_is_kept_from_then_on() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(0, number) for number in range(500)])
    pace(one, "10M")
    assert len(numbers(run(one, 0.1))) == 500
    pace(one, "100pps")
    one.protect(CIRCUIT, [clear()] * 100)
    assert len(numbers(run(one, 0.5))) == pytest.approx(50, abs=2)


def test_more_queues_are_used_from_the_next_packet_on() -> None:
    one, there = side(queues=1), Side(records(there=True))
    busy(one)
    before = [clear(0, number) for number in range(3)]
    one.protect(CIRCUIT, before)
    one.put(replace(one.tunnel(CIRCUIT), queues=4))
    after = [clear(0, 10), clear(56, 11)]
    one.protect(CIRCUIT, after)
    assert opened(there, run(one, 0.1)) == [after[1], after[0], *before]


def test_what_waits_goes_by_the_successor() -> None:
    one, there = Side(static(queues=4)), Side(static(there=True))
    pace(one, f"{RATE}pps")
    join(one, there, CIRCUIT, 1)
    busy(one)
    packets = [clear(0, number) for number in range(5)]
    assert one.protect(CIRCUIT, packets) == []
    there.ike(install(CIRCUIT, 2, there=True))
    one.ike(install(CIRCUIT, 2))
    sent = run(one, 0.1)
    assert numbers(sent) == [1, 2, 3, 4, 5]
    assert opened(there, sent) == packets


def test_what_waits_for_an_sa_that_goes_is_dropped_by_name() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(0, number) for number in range(5)])
    one.put(replace(one.tunnel(CIRCUIT), up=False))
    assert run(one, 0.1) == []
    assert one.drops() == {"tunnel down": 5}
    one.put(replace(one.tunnel(CIRCUIT), up=True))
    busy(one)
    one.protect(CIRCUIT, [clear(0, number) for number in range(5)])
    one.put(delete=[("tunnel", CIRCUIT)])
    assert run(one, 0.1) == []
    assert one.drops() == {"tunnel down": 5, "no tunnel": 5}
    one.put(ContextRecord(99, "another change"))
    assert seen(one)["sas"] == []


def test_nothing_waits_for_a_tunnel_without_an_sa() -> None:
    one = Side(static(queues=4))
    pace(one, f"{RATE}pps")
    one.protect(CIRCUIT, [clear()] * 3)
    assert one.drops() == {"no outbound sa": 3}
    assert one.count("packets queued") == 0


def test_a_fenced_asp_forgets_what_waits() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(dscp) for dscp in (0, 20, 40, 60)])
    one.take(one.asp.on_stall(1.0, one.now))
    assert one.asp.fenced
    one.check_counts()
    assert one.drops() == {"fenced": 4}
    assert [one.count(f"queue {number} depth") for number in range(4)] == [0, 0, 0, 0]
    assert run(one, 0.05) == []


def test_a_successor_of_a_killed_asp_holds_nothing() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(56)] * 7)
    counters = one.asp.counters
    queues.AspCounters(counters)
    assert counters.get("packets queued") == counters.get("queue 0 depth") == 0


def test_octets_are_bounded_and_the_lowest_class_has_the_least_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "QUEUE_OCTET_LIMITS", (10_000, 9_000, 8_000, 7_000, 7_000))
    one = side()
    busy(one)
    size = 1000 + 14
    for dscp, room in ((0, 7_000), (16, 8_000), (32, 9_000), (48, 10_000)):
        before = one.count("packets queued")
        one.protect(CIRCUIT, [clear(dscp, size=1000)] * 20)
        assert one.count("packets queued") == room // size
        lost = 20 - (room // size - before)
        assert one.drops()[f"queue {table(dscp)} full"] == lost
    assert len(numbers(run(one, 0.1))) == 10_000 // size
    busy(one)
    one.protect(CIRCUIT, [clear(0, size=1000)] * 20)
    assert one.count("packets queued") == 7_000 // size, "room comes back as packets leave"


def test_waiting_is_measured() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(0, number) for number in range(100)])
    one.protect(CIRCUIT, [clear(48)])
    run(one, 0.2)
    of = seen(one)["queues"]
    assert of["0"]["dequeued"] == 1
    assert 0.5 <= of["0"]["latency"]["max_ms"] <= 2.5
    low = of["3"]
    assert low["dequeued"] == 100 + AT_ONCE
    assert low["latency"]["max_ms"] == pytest.approx(101, abs=3)
    assert low["latency"]["p99_ms"] == pytest.approx(100, rel=0.13)
    assert low["latency"]["avg_ms"] == pytest.approx(50.5 * 100 / 110, rel=0.05)
    assert low["latency"]["p50_ms"] == pytest.approx(45, rel=0.13)
    assert one.count("queue 3 dequeued") == 110
    assert one.count("queue 3 latency us") / 110e3 == pytest.approx(low["latency"]["avg_ms"], abs=0.01)
    assert one.count("queue 3 latency max us") == low["latency"]["max_ms"] * 1000


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_exact_to_an_eighth(waits: list[int], part: float) -> None:
    meter = queues.QueueStatistics()
    meter.count_enqueued(len(waits))
    for wait in waits:
        meter.count_dequeued(1, wait)
    exact = sorted(waits)[ceil(len(waits) * part) - 1]
    assert exact <= meter.quantile(part) <= exact * 1.125 + 1


def test_a_trace_mark_comes_out_with_its_packet() -> None:
    one = side()
    busy(one)
    packets = [clear(0, 0), clear(0, 1), clear(56, 2)]
    marked = batch_of(packets, Step.ENCAPSULATE, context=INNER, tunnel=CIRCUIT, marks=((1, 77),))
    one.give(marked)
    began = one.now
    sent = run(one, 0.1)
    marks = [batch.marks for _, batch in sent if batch.marks]
    assert marks == [((0, 77),)]
    stamps = [stamp for message in one.heard(TraceStamps) for stamp in message.stamps]
    assert [(stamp.number, stamp.step) for stamp in stamps] == [(77, "1/1 encapsulate")]
    assert stamps[0].time > began, "it was protected when its turn came"


def test_limits_of_size_hold_when_a_packet_leaves() -> None:
    one = side(mtu=500)
    busy(one)
    one.protect(CIRCUIT, [clear(0, 1, size=900, df=True), clear(0, 2, size=900)])
    sent = run(one, 0.1)
    assert one.drops() == {"fragmentation needed": 1}
    protected = [batch for _, batch in sent if batch.step is Step.CIRCUIT_OUT]
    assert sum(len(batch) for batch in protected) == 2
    assert one.count("icmp errors sent") == 1


def test_a_tunnel_in_a_tunnel_waits_in_both() -> None:
    # The way to the economical tunnel's peer leads into the other tunnel.
    inside = route(OUTER, "40.0.0.2/32", tunnel_hop(CIRCUIT))
    made = [inside if record.key == inside.key else record for record in records(queues=4)]
    assert inside in made
    one = side(made=made)
    one.protect(ECONOMICAL, [clear(48, 1, "62.0.0.1")] * 100)
    sent = run(one, 0.3)
    assert {batch.step for _, batch in sent} == {Step.CIRCUIT_OUT}
    rows = {sa["tunnel"]: sa["queues"] for sa in seen(one)["sas"]}
    assert rows[ECONOMICAL]["0"]["dequeued"] == 100
    assert rows[CIRCUIT]["0"]["dequeued"] == 100
