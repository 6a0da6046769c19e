"""Priority queues of an ASP with a rate: packets go in, and what comes out is looked at (guide 8.5, table 3)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.ase import queues
from chassis.bus.batch import Step
from chassis.bus.records import PolicyRecord, Record
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import TunnelEntry
from chassis.net.address import parse_prefix
from chassis.net.ipv4 import Ipv4
from tests.support.asp import CIRCUIT, ECONOMICAL, INNER, altered, batch_of, ip, packets_of, records
from tests.support.asp_negotiated import Side
from tests.support.asp_queues import AT_ONCE, RATE, Sent, busy, clear, numbers, opened, run, seen, side, table


@pytest.mark.behaviour("B-134", "B-135")
@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize("dscp", range(64))
def test_each_value_waits_in_the_queue_of_table_3(dscp: int, tunnel: int) -> None:
    one, there = side(), Side(records(there=True))
    busy(one, tunnel)
    packet = clear(dscp, dscp)
    assert one.protect(tunnel, [packet]) == []
    row = seen(one, tunnel)["sas"]
    assert [(sa["tunnel"], sa["entry"]) for sa in row] == [(tunnel, 10)]
    waiting = {name: queue["depth"] for name, queue in row[0]["queues"].items()}
    assert {name for name, count in waiting.items() if count} == {str(table(dscp))}
    assert one.count(f"queue {table(dscp)} depth") == one.count("packets queued") == 1
    sent = run(one, 0.01)
    (outer,) = [packet for _, batch in sent for packet in packets_of(batch)]
    assert Ipv4.parse(outer).tos >> 2 == dscp
    (inner,) = opened(there, sent)
    assert (Ipv4.parse(inner).tos >> 2, Ipv4.parse(inner).payload) == (dscp, Ipv4.parse(packet).payload)
    assert one.count(f"queue {table(dscp)} depth") == one.count("packets queued") == 0


@pytest.mark.behaviour("B-134")
@pytest.mark.parametrize("precedence", range(8))
def test_a_precedence_is_a_class_selector(precedence: int) -> None:
    one = side()
    busy(one)
    assert one.protect(CIRCUIT, [clear(precedence << 3)]) == []
    found = [number for number in range(4) if one.count(f"queue {number} depth")]
    assert found == [3 - precedence // 2]


@pytest.mark.behaviour("B-133")
def test_a_higher_class_overtakes_and_numbers_leave_in_order() -> None:
    one, there = side(), Side(records(there=True))
    busy(one)
    packets = [clear(dscp, dscp) for dscp in range(64)]
    assert one.protect(CIRCUIT, packets) == []
    sent = run(one, 0.2)
    assert numbers(sent) == list(range(AT_ONCE + 1, AT_ONCE + 65))
    expected = [clear(dscp, dscp) for number in range(4) for dscp in range(64) if table(dscp) == number]
    assert opened(there, sent) == expected


@pytest.mark.behaviour("B-131")
def test_one_queue_overtakes_nothing() -> None:
    one, there = side(queues=1), Side(records(there=True))
    busy(one)
    packets = [clear(dscp, dscp) for dscp in (0, 48, 8, 56, 24, 63, 46)]
    for packet in packets:
        assert one.protect(CIRCUIT, [packet]) == []
    assert one.count("queue single depth") == 7
    assert opened(there, run(one, 0.1)) == packets
    assert set(seen(one)["queues"]) == {"single"}


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
    assert one.drops() == {"queue 3 full": 600 - queues.MAX_QUEUE_PACKETS}
    one.protect(CIRCUIT, [clear(56, number) for number in range(256)])
    one.protect(CIRCUIT, [clear(56, number) for number in range(256)])
    assert one.drops() == {"queue 3 full": 600 - queues.MAX_QUEUE_PACKETS, "queue 0 full": 1}
    of = seen(one)["queues"]
    assert {name: row["dropped"] for name, row in of.items()} == {
        "0": 1, "1": 0, "2": 0, "3": 600 - queues.MAX_QUEUE_PACKETS,
    }  # fmt: skip
    assert {name: row["peak_depth"] for name, row in of.items()} == {
        "0": queues.MAX_QUEUE_PACKETS, "1": 1, "2": 1, "3": queues.MAX_QUEUE_PACKETS
    }  # fmt: skip
    sent = run(one, 2.0)
    assert len(numbers(sent)) == 2 * queues.MAX_QUEUE_PACKETS + 2
    assert one.count("packets queued") == 0


def test_what_came_last_is_what_a_full_queue_drops() -> None:
    one, there = side(), Side(records(there=True))
    busy(one)
    packets = [clear(0, number) for number in range(queues.MAX_QUEUE_PACKETS + 40)]
    one.protect(CIRCUIT, packets[:100])
    one.protect(CIRCUIT, packets[100:300])
    one.protect(CIRCUIT, packets[300:])
    assert opened(there, run(one, 2.0)) == packets[: queues.MAX_QUEUE_PACKETS]


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
    assert bits == pytest.approx(1e6 * (1 + queues.RATE_BURST_INTERVAL), rel=0.02)


def test_an_sa_with_much_that_is_urgent_takes_nothing_from_another() -> None:
    one = side()
    busy(one)
    for turn in range(3):
        one.protect(CIRCUIT, [clear(56, turn)] * 170)
    one.protect(ECONOMICAL, [clear(0, 1, "62.0.0.1")] * 100)
    sent = run(one, 0.2)
    economical = sum(len(batch) for _, batch in sent if batch.step is Step.EGRESS)
    assert len(numbers(sent)) == pytest.approx(200, abs=5)
    assert economical == pytest.approx(100, abs=queues.QUANTUM_PACKETS)


def _with_lines() -> list[Record]:
    """A tunnel with two lines, and packets that match none."""
    rules = [parse_prefix(text) for text in ("60.1.0.0/16", "60.2.0.0/16")]
    acls = [
        PolicyRecord(INNER, Acl(f"acl{number}", rules=(AclRule(10, destination=prefix),)))
        for number, prefix in enumerate(rules)
    ]
    entries = tuple(TunnelEntry(10 + number, sa=f"sa{number + 1}", acl=f"acl{number}") for number in range(2))
    made = [record for record in records(queues=4) if record.key != ("tunnel", ECONOMICAL)]
    return [
        *(altered(record, entries=entries) if record.key == ("tunnel", CIRCUIT) else record for record in made),
        *acls,
    ]


@pytest.mark.behaviour("B-138")
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
    rows = {sa["entry"]: sa["queues"] for sa in seen(one, CIRCUIT)["sas"]}
    assert {line: {name: row["depth"] for name, row in of.items()} for line, of in rows.items()} == {
        10: {"0": 1, "3": 1},
        11: {"3": 1},
    }
    assert one.drops() == {"no policy": 1}, "what no line wants waits for nothing"
    assert len(numbers(run(one, 0.1))) == 3


@pytest.mark.behaviour("B-138")
def test_a_full_queue_of_one_sa_leaves_another_its_own() -> None:
    one = side(made=_with_lines())
    one.protect(CIRCUIT, [clear(0, number, "60.1.0.1") for number in range(AT_ONCE)])
    for _ in range(3):
        one.protect(CIRCUIT, [clear(0, 0, "60.1.0.1")] * 200)
    assert one.drops() == {"queue 3 full": 600 - queues.MAX_QUEUE_PACKETS}
    one.protect(CIRCUIT, [clear(0, 0, "60.2.0.1")] * 200)
    assert one.drops() == {"queue 3 full": 600 - queues.MAX_QUEUE_PACKETS}


@pytest.mark.behaviour("B-136")
def test_what_a_line_card_remarked_goes_before_the_dscp() -> None:
    one, there = side(), Side(records(there=True))
    busy(one)
    packets = [clear(56, 0), clear(0, 1), clear(0, 2)]
    remarked = batch_of(packets, Step.ENCAPSULATE, context=INNER, tunnel=CIRCUIT, descriptors=bytes([10, 33, 63]))
    assert one.give(remarked) == []
    assert [one.count(f"queue {number} depth") for number in range(4)] == [1, 1, 0, 1]
    # The value chooses the queue; the packet stays as it is.
    assert opened(there, run(one, 0.1)) == [packets[2], packets[1], packets[0]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([CIRCUIT, ECONOMICAL]), st.lists(st.integers(0, 63), min_size=1,
        max_size=60), st.sampled_from([0.0, 0.001, 0.02])), min_size=1, max_size=25),
    st.sampled_from(["200pps", "2M"]),
    st.sampled_from([1, 4]),
    st.sampled_from([5, 40]),
)  # fmt: skip
def test_nothing_is_lost_twice_or_out_of_its_order(
    steps: list[tuple[int, list[int], float]], rate: str, number: int, depth: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queues, "MAX_QUEUE_PACKETS", depth)
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
        assert one.count("packets queued") == 0
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
