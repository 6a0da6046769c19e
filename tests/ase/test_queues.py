"""Priority queues of an ASP with a rate: packets go in, and what comes out is looked at (guide 8.5, table 3)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from asp_harness import CIRCUIT, ECONOMICAL, INNER, OUTER, batch_of, ip, packets_of, records, route, tunnel_hop
from hypothesis import given, settings
from hypothesis import strategies as st
from negotiated_kit import Side, install, join, static

from chassis.ase import queues
from chassis.bus.batch import Batch, Step
from chassis.bus.messages import Reply, Request, TraceStamps, Welcome
from chassis.bus.records import Acl, AclRule, Context, Record, TunnelEntry
from chassis.net.address import parse_prefix
from chassis.net.ipv4 import UDP, Ipv4

RATE = 1000
"""Packets a second: a packet a millisecond, and ten at once after a pause."""

AT_ONCE = int(RATE * queues.BURST)

Sent = list[tuple[str, Batch]]


def clear(
    dscp: int = 0, number: int = 0, destination: str = "60.0.0.1", size: int = 100, df: bool = False
) -> bytes:
    """A packet whose payload is its own."""
    payload = struct.pack("!HHHHI", 1000, 2000, size - 20, 0, number).ljust(size - 20, b"x")
    return Ipv4(ip("50.0.0.1"), ip(destination), UDP, payload, tos=dscp << 2, dont_fragment=df).emit()


def table(dscp: int) -> int:
    """Table 3 as the guide prints it, its gaps filled by the same rule: two class selectors a queue."""
    return {0: 3, 1: 3, 2: 2, 3: 2, 4: 1, 5: 1, 6: 0, 7: 0}[dscp >> 3]


def side(rate: object = f"{RATE}pps", made: Sequence[Record] | None = None, **tunnel: object) -> Side:
    """A router whose ASP has a rate, and four queues for each SA."""
    tunnel = {"queues": 4, **tunnel}
    one = Side(records(**tunnel) if made is None else made)  # type: ignore[arg-type]
    pace(one, rate)
    return one


def pace(one: Side, rate: object) -> None:
    given = {} if rate is None else {"asp-rate": rate}
    one.take(one.asp.receive(Welcome(one.epoch, one.publisher.version, 0.1, 5, given), one.now))
    one.put(Context(100 + len(one.said), "changed"))


def busy(one: Side, tunnel: int = CIRCUIT) -> None:
    """Use up what the ASP may do at once."""
    sent = one.protect(tunnel, [clear(number=1_000_000 + number) for number in range(AT_ONCE)])
    assert sum(len(batch) for _, batch in sent) == AT_ONCE


def run(one: Side, seconds: float) -> Sent:
    """Timers at their times; what leaves."""
    sent: Sent = []
    end = one.now + seconds
    while one.asp.wake() <= end:
        one.now = max(one.now, one.asp.wake())
        sent += one.take(one.asp.on_timer(one.now))
        one.check_counts()
    one.now = end
    return sent


def numbers(sent: Sent) -> list[int]:
    """Sequence numbers of ESP, in the order of the wire."""
    return [int.from_bytes(packet[24:28], "big") for _, batch in sent for packet in packets_of(batch)]


def opened(there: Side, sent: Sent) -> list[bytes]:
    """What comes out at the other router, in order."""
    return [packet for _, batch in sent for _, out in there.open(batch) for packet in packets_of(out)]


def seen(one: Side, tunnel: int | None = None) -> dict[str, Any]:
    arguments = {} if tunnel is None else {"tunnel": tunnel}
    one.take(one.asp.receive(Request(1, "queues", arguments), one.now))
    (reply,) = one.heard(Reply)
    assert not reply.error
    return dict(reply.result)


@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize("dscp", range(64))
def test_each_value_waits_in_the_queue_of_table_3(dscp: int, tunnel: int) -> None:
    one, there = side(), Side(records(there=True))
    busy(one, tunnel)
    packet = clear(dscp, dscp)
    assert one.protect(tunnel, [packet]) == []
    row = seen(one, tunnel)["sas"]
    assert [(sa["tunnel"], sa["line"]) for sa in row] == [(tunnel, 10)]
    waiting = {name: queue["waiting"] for name, queue in row[0]["queues"].items()}
    assert {name for name, count in waiting.items() if count} == {str(table(dscp))}
    assert one.count(f"queue {table(dscp)} waiting") == one.count("packets waiting") == 1
    sent = run(one, 0.01)
    (outer,) = [packet for _, batch in sent for packet in packets_of(batch)]
    assert Ipv4.parse(outer).tos >> 2 == dscp
    (inner,) = opened(there, sent)
    assert (Ipv4.parse(inner).tos >> 2, Ipv4.parse(inner).payload) == (dscp, Ipv4.parse(packet).payload)
    assert one.count(f"queue {table(dscp)} waiting") == one.count("packets waiting") == 0


@pytest.mark.parametrize("precedence", range(8))
def test_a_precedence_is_a_class_selector(precedence: int) -> None:
    one = side()
    busy(one)
    assert one.protect(CIRCUIT, [clear(precedence << 3)]) == []
    found = [number for number in range(4) if one.count(f"queue {number} waiting")]
    assert found == [3 - precedence // 2]


def test_a_higher_class_overtakes_and_numbers_leave_in_order() -> None:
    one, there = side(), Side(records(there=True))
    busy(one)
    packets = [clear(dscp, dscp) for dscp in range(64)]
    assert one.protect(CIRCUIT, packets) == []
    sent = run(one, 0.2)
    assert numbers(sent) == list(range(AT_ONCE + 1, AT_ONCE + 65))
    expected = [clear(dscp, dscp) for number in range(4) for dscp in range(64) if table(dscp) == number]
    assert opened(there, sent) == expected


def test_one_queue_overtakes_nothing() -> None:
    one, there = side(queues=1), Side(records(there=True))
    busy(one)
    packets = [clear(dscp, dscp) for dscp in (0, 48, 8, 56, 24, 63, 46)]
    for packet in packets:
        assert one.protect(CIRCUIT, [packet]) == []
    assert one.count("queue only waiting") == 7
    assert opened(there, run(one, 0.1)) == packets
    assert set(seen(one)["queues"]) == {"only"}


def test_priority_pushes_nothing_out_of_the_peers_window() -> None:
    one, there = side(), Side(records(there=True))
    low = [clear(0, number) for number in range(300)]
    high = [clear(48, 1000 + number) for number in range(500)]
    sent = one.protect(CIRCUIT, low)
    for at in range(0, 500, 5):
        # Far more than a window overtakes what waits.
        sent += one.protect(CIRCUIT, high[at : at + 5])
        sent += run(one, 0.006)
    sent += run(one, 1.0)
    assert numbers(sent) == list(range(1, 801))
    arrived = opened(there, sent)
    assert there.drops() == {}
    assert sorted(arrived) == sorted([*low, *high])
    urgent = [packet for packet in arrived if packet[1]]
    assert urgent == high
    assert [packet for packet in arrived if not packet[1]] == low
    assert arrived.index(low[-1]) > arrived.index(high[-1])


def test_a_full_queue_drops_its_own_class_and_no_other() -> None:
    one = side()
    busy(one)
    for base in range(0, 600, 200):
        one.protect(CIRCUIT, [clear(8, base + number) for number in range(200)])
    one.protect(CIRCUIT, [clear(20, 1), clear(40, 2), clear(56, 3)])
    assert one.drops() == {"queue 3 full": 600 - queues.DEPTH}
    one.protect(CIRCUIT, [clear(56, number) for number in range(256)])
    one.protect(CIRCUIT, [clear(56, number) for number in range(256)])
    assert one.drops() == {"queue 3 full": 600 - queues.DEPTH, "queue 0 full": 1}
    of = seen(one)["queues"]
    assert {name: row["dropped"] for name, row in of.items()} == {"0": 1, "1": 0, "2": 0, "3": 600 - queues.DEPTH}
    assert {name: row["peak"] for name, row in of.items()} == {
        "0": queues.DEPTH, "1": 1, "2": 1, "3": queues.DEPTH
    }  # fmt: skip
    sent = run(one, 2.0)
    assert len(numbers(sent)) == 2 * queues.DEPTH + 2
    assert one.count("packets waiting") == 0


def test_what_came_last_is_what_a_full_queue_drops() -> None:
    one, there = side(), Side(records(there=True))
    busy(one)
    packets = [clear(0, number) for number in range(queues.DEPTH + 40)]
    one.protect(CIRCUIT, packets[:100])
    one.protect(CIRCUIT, packets[100:300])
    one.protect(CIRCUIT, packets[300:])
    assert opened(there, run(one, 2.0)) == packets[: queues.DEPTH]


def test_no_more_than_the_rate_leaves() -> None:
    one = side()
    sent: Sent = []
    for turn in range(100):
        sent += one.protect(CIRCUIT, [clear(0, turn)] * 20)
        sent += run(one, 0.01)
    assert len(numbers(sent)) == pytest.approx(RATE + AT_ONCE, abs=3)


@pytest.mark.parametrize("size", [100, 1000])
def test_a_rate_in_bits_counts_clear_packets(size: int) -> None:
    one = side("1M")
    sent: Sent = []
    for _ in range(100):
        sent += one.protect(CIRCUIT, [clear(0, 0, size=size)] * 30)
        sent += run(one, 0.01)
    bits = len(numbers(sent)) * size * 8
    assert bits == pytest.approx(1e6 * (1 + queues.BURST), rel=0.02)


def test_an_sa_with_much_that_is_urgent_takes_nothing_from_another() -> None:
    one = side()
    busy(one)
    for turn in range(3):
        one.protect(CIRCUIT, [clear(56, turn)] * 170)
    one.protect(ECONOMICAL, [clear(0, 1, "62.0.0.1")] * 100)
    sent = run(one, 0.2)
    economical = sum(len(batch) for _, batch in sent if batch.step is Step.OUT)
    assert len(numbers(sent)) == pytest.approx(200, abs=5)
    assert economical == pytest.approx(100, abs=queues.TURN_PACKETS)


def _with_lines() -> list[Record]:
    """A tunnel with two lines, and packets that match none."""
    rules = [parse_prefix(text) for text in ("60.1.0.0/16", "60.2.0.0/16")]
    acls = [
        Acl(INNER, f"acl{number}", (AclRule(10, -1, 0, 0, -1, *prefix, -1),))
        for number, prefix in enumerate(rules)
    ]
    entries = tuple(TunnelEntry(10 + number, sa=f"sa{number + 1}", acl=f"acl{number}") for number in range(2))
    made = [record for record in records(queues=4) if record.key != ("tunnel", ECONOMICAL)]
    return [
        *(replace(record, entries=entries) if record.key == ("tunnel", CIRCUIT) else record for record in made),
        *acls,
    ]


def test_queues_exist_once_for_each_sa() -> None:
    one = side(made=_with_lines())
    one.protect(CIRCUIT, [clear(0, number, "60.1.0.1") for number in range(AT_ONCE)])
    packets = [
        clear(56, 1, "60.1.0.1"),
        clear(0, 2, "60.2.0.1"),
        clear(56, 3, "60.9.0.1"),
        clear(8, 4, "60.1.0.1"),
    ]
    assert one.protect(CIRCUIT, packets) == []
    rows = {sa["line"]: sa["queues"] for sa in seen(one, CIRCUIT)["sas"]}
    assert {line: {name: row["waiting"] for name, row in of.items()} for line, of in rows.items()} == {
        10: {"0": 1, "3": 1},
        11: {"3": 1},
    }
    assert one.drops() == {"no policy": 1}, "what no line wants waits for nothing"
    assert len(numbers(run(one, 0.1))) == 3


def test_a_full_queue_of_one_sa_leaves_another_its_own() -> None:
    one = side(made=_with_lines())
    one.protect(CIRCUIT, [clear(0, number, "60.1.0.1") for number in range(AT_ONCE)])
    for _ in range(3):
        one.protect(CIRCUIT, [clear(0, 0, "60.1.0.1")] * 200)
    assert one.drops() == {"queue 3 full": 600 - queues.DEPTH}
    one.protect(CIRCUIT, [clear(0, 0, "60.2.0.1")] * 200)
    assert one.drops() == {"queue 3 full": 600 - queues.DEPTH}


def test_what_a_line_card_remarked_goes_before_the_dscp() -> None:
    one, there = side(), Side(records(there=True))
    busy(one)
    packets = [clear(56, 0), clear(0, 1), clear(0, 2)]
    remarked = batch_of(packets, Step.PROTECT, context=INNER, tunnel=CIRCUIT, descriptors=bytes([10, 33, 63]))
    assert one.give(remarked) == []
    assert [one.count(f"queue {number} waiting") for number in range(4)] == [1, 1, 0, 1]
    # The value chooses the queue; the packet stays as it is.
    assert opened(there, run(one, 0.1)) == [packets[2], packets[1], packets[0]]


def test_without_a_rate_nothing_waits_or_is_counted() -> None:
    one = Side(records(queues=4))
    for dscp in (0, 56):
        sent = one.protect(CIRCUIT, [clear(dscp, number) for number in range(256)])
        assert len(numbers(sent)) == 256
    report = seen(one)
    assert (report["rate"], report["waiting"], report["queues"], report["sas"]) == ("", 0, {}, [])
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
    one.put(Context(99, "another change"))
    assert seen(one)["sas"] == []


def test_nothing_waits_for_a_tunnel_without_an_sa() -> None:
    one = Side(static(queues=4))
    pace(one, f"{RATE}pps")
    one.protect(CIRCUIT, [clear()] * 3)
    assert one.drops() == {"no outbound sa": 3}
    assert one.count("packets waiting") == 0


def test_a_fenced_asp_forgets_what_waits() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(dscp) for dscp in (0, 20, 40, 60)])
    one.take(one.asp.late(1.0, one.now))
    assert one.asp.fenced
    one.check_counts()
    assert one.drops() == {"fenced": 4}
    assert [one.count(f"queue {number} waiting") for number in range(4)] == [0, 0, 0, 0]
    assert run(one, 0.05) == []


def test_a_successor_of_a_killed_asp_holds_nothing() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(56)] * 7)
    counters = one.asp.counters
    queues.AspCounters(counters)
    assert counters.get("packets waiting") == counters.get("queue 0 waiting") == 0


def test_octets_are_bounded_and_the_lowest_class_has_the_least_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "ROOM", (10_000, 9_000, 8_000, 7_000, 7_000))
    one = side()
    busy(one)
    size = 1000 + 14
    for dscp, room in ((0, 7_000), (16, 8_000), (32, 9_000), (48, 10_000)):
        before = one.count("packets waiting")
        one.protect(CIRCUIT, [clear(dscp, size=1000)] * 20)
        assert one.count("packets waiting") == room // size
        lost = 20 - (room // size - before)
        assert one.drops()[f"queue {table(dscp)} full"] == lost
    assert len(numbers(run(one, 0.1))) == 10_000 // size
    busy(one)
    one.protect(CIRCUIT, [clear(0, size=1000)] * 20)
    assert one.count("packets waiting") == 7_000 // size, "room comes back as packets leave"


def test_waiting_is_measured() -> None:
    one = side()
    busy(one)
    one.protect(CIRCUIT, [clear(0, number) for number in range(100)])
    one.protect(CIRCUIT, [clear(48)])
    run(one, 0.2)
    of = seen(one)["queues"]
    assert of["0"]["passed"] == 1
    assert 0.5 <= of["0"]["latency"]["max_ms"] <= 2.5
    low = of["3"]
    assert low["passed"] == 100 + AT_ONCE
    assert low["latency"]["max_ms"] == pytest.approx(101, abs=3)
    assert low["latency"]["p99_ms"] == pytest.approx(100, rel=0.13)
    assert low["latency"]["avg_ms"] == pytest.approx(50.5 * 100 / 110, rel=0.05)
    assert low["latency"]["p50_ms"] == pytest.approx(45, rel=0.13)
    assert one.count("queue 3 passed") == 110
    assert one.count("queue 3 latency us") / 110e3 == pytest.approx(low["latency"]["avg_ms"], abs=0.01)
    assert one.count("queue 3 longest us") == low["latency"]["max_ms"] * 1000


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_exact_to_an_eighth(waits: list[int], part: float) -> None:
    meter = queues.Meter()
    meter.came(len(waits))
    for wait in waits:
        meter.went(1, wait)
    exact = sorted(waits)[ceil(len(waits) * part) - 1]
    assert exact <= meter.quantile(part) <= exact * 1.125 + 1


def test_a_trace_mark_comes_out_with_its_packet() -> None:
    one = side()
    busy(one)
    packets = [clear(0, 0), clear(0, 1), clear(56, 2)]
    marked = batch_of(packets, Step.PROTECT, context=INNER, tunnel=CIRCUIT, marks=((1, 77),))
    one.give(marked)
    began = one.now
    sent = run(one, 0.1)
    marks = [batch.marks for _, batch in sent if batch.marks]
    assert marks == [((0, 77),)]
    stamps = [stamp for message in one.heard(TraceStamps) for stamp in message.stamps]
    assert [(stamp.number, stamp.step) for stamp in stamps] == [(77, "1/1 protect")]
    assert stamps[0].time > began, "it was protected when its turn came"


def test_limits_of_size_hold_when_a_packet_leaves() -> None:
    one = side(mtu=500)
    busy(one)
    one.protect(CIRCUIT, [clear(0, 1, size=900, df=True), clear(0, 2, size=900)])
    sent = run(one, 0.1)
    assert one.drops() == {"fragmentation needed": 1}
    protected = [batch for _, batch in sent if batch.step is Step.CIRCUIT_OUT]
    assert sum(len(batch) for batch in protected) == 2
    assert one.count("icmp made") == 1


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
    assert rows[ECONOMICAL]["0"]["passed"] == 100
    assert rows[CIRCUIT]["0"]["passed"] == 100


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([CIRCUIT, ECONOMICAL]),
            st.lists(st.integers(0, 63), min_size=1, max_size=60),
            st.sampled_from([0.0, 0.001, 0.02]),
        ),
        min_size=1,
        max_size=25,
    ),
    st.sampled_from(["200pps", "2M"]),
    st.sampled_from([1, 4]),
    st.sampled_from([5, 40]),
)
def test_nothing_is_lost_twice_or_out_of_its_order(
    steps: list[tuple[int, list[int], float]], rate: str, number: int, depth: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "DEPTH", depth)
        one, there = side(rate, queues=number), Side(records(there=True))
        put: list[bytes] = []
        sent: Sent = []
        for tunnel, values, pause in steps:
            destination = "60.0.0.1" if tunnel == CIRCUIT else "62.0.0.1"
            packets = [clear(dscp, len(put) + at, destination) for at, dscp in enumerate(values)]
            put += packets
            sent += one.protect(tunnel, packets)
            sent += run(one, pause)
        sent += run(one, 30.0)
        assert one.count("packets waiting") == 0
        assert len(numbers(sent)) + sum(one.drops().values()) == len(put)
        assert set(one.drops()) <= {cause.value for cause in queues.QUEUE_CAUSES}
        payloads = [Ipv4.parse(packet).payload for packet in put]
        places = [payloads.index(Ipv4.parse(packet).payload) for packet in opened(there, sent)]
        assert there.drops() == {}
        for destination in ("60.0.0.1", "62.0.0.1"):
            for one_class in range(4) if number == 4 else [None]:
                own = [
                    place
                    for place in places
                    if Ipv4.parse(put[place]).destination == ip(destination)
                    and one_class in (None, table(put[place][1] >> 2))
                ]
                assert own == sorted(own)
