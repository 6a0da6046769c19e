"""Who watches a side of an ASP sees the packets there, of every tunnel and way, and changes nothing."""

from __future__ import annotations

import pytest

from chassis.ase.datapath import SIDES
from chassis.ase.ike_messages import IkePacket
from chassis.bus.batch import Step
from chassis.net.ipv4 import PROTOCOL_ESP, Ipv4
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    OUTER,
    Controller,
    batch_of,
    ip,
    packets_of,
    pair,
    route,
    tunnel_hop,
    udp_packet,
)
from tests.support.asp_negotiated import join, sides

Seen = list[tuple[str, list[bytes]]]


def watch(end: Controller, side: str) -> Seen:
    """What passes a side from now on: step and packets."""
    seen: Seen = []
    end.asp.datapath.taps[side] = lambda step, batch: seen.append((step, packets_of(batch)))
    return seen


@pytest.mark.parametrize("number", [CIRCUIT, ECONOMICAL])
def test_clear_packets_on_one_side_protected_ones_on_the_other(number: int) -> None:
    a, b = pair()
    seen = {(end, side): watch(end, side) for end in (a, b) for side in SIDES}
    clear = [udp_packet("52.0.0.1", "62.0.0.1", number=i) for i in range(3)]
    [(_, out)] = a.protect(number, clear)
    wire = packets_of(out)
    assert seen[a, "inner"] == [(f"encapsulate t{number}", clear)]
    assert seen[a, "outer"] == [(f"encapsulate t{number}", wire)]
    assert {Ipv4.parse(packet).protocol for packet in wire} == {PROTOCOL_ESP}
    b.open(out)
    assert seen[b, "outer"] == [("decapsulate", wire)]
    # As they come out of the tunnel, before this router forwards them.
    assert seen[b, "inner"] == [(f"decapsulate t{number}", clear)]


def test_what_is_dropped_is_seen_where_it_came_in() -> None:
    a, b = pair()
    clear, protected = watch(b, "inner"), watch(b, "outer")
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
    wire = packets_of(out)
    forged = wire[0][:-1] + bytes((wire[0][-1] ^ 1,))
    b.open(batch_of([forged], Step.DECAPSULATE))
    assert (clear, protected) == ([], [("decapsulate", [forged])])
    b.put(delete=[("manual-sa", "sa1")])
    packet = udp_packet("60.0.0.1", "50.0.0.1")
    b.protect(CIRCUIT, [packet])
    assert clear == [("encapsulate t1", [packet])]
    assert len(protected) == 1


def test_packets_that_wait_in_queues_are_seen_once() -> None:
    a, _ = pair()
    a.asp.datapath.queues.set_rate("10pps")
    clear, protected = watch(a, "inner"), watch(a, "outer")
    packets = [udp_packet(number=i) for i in range(5)]
    a.protect(CIRCUIT, packets)
    assert [packet for _, some in clear for packet in some] == packets
    assert sum(len(some) for _, some in protected) < 5
    while a.asp.datapath.queues.waiting:
        a.now += 1.0
        a.take(a.asp.on_timer(a.now))
    assert sum(len(some) for _, some in protected) == 5
    assert len(clear) == 1


def test_negotiations_are_on_the_protected_side() -> None:
    left, right = sides()
    join(left, right, CIRCUIT)
    clear, protected = watch(left, "inner"), watch(left, "outer")
    left.ike(IkePacket(OUTER, ip("40.0.0.1"), 500, ip("40.0.0.2"), 500, b"x" * 28))
    [(step, [datagram])] = protected
    assert (step, Ipv4.parse(datagram).destination) == ("ike", ip("40.0.0.2"))
    reply = udp_packet("40.0.0.2", "40.0.0.1")
    left.open(batch_of([reply], Step.DECAPSULATE))
    assert protected[1] == ("decapsulate", [reply])
    assert clear == []


def test_a_tunnel_in_a_tunnel_is_seen_at_both() -> None:
    a, _ = pair()
    a.put(route(OUTER, "40.0.0.2/32", tunnel_hop(CIRCUIT)))
    clear, protected = watch(a, "inner"), watch(a, "outer")
    a.protect(ECONOMICAL, [udp_packet("52.0.0.1", "62.0.0.1")])
    assert [step for step, _ in clear] == ["encapsulate t2", "encapsulate t1"]
    assert clear[1][1] == protected[0][1]
    assert [step for step, _ in protected] == ["encapsulate t2", "encapsulate t1"]


def test_who_stops_watching_sees_no_more() -> None:
    a, _ = pair()
    seen = watch(a, "inner")
    a.protect(CIRCUIT, [udp_packet()])
    a.asp.datapath.taps.pop("inner")
    assert a.asp.datapath.taps == {}
    a.protect(CIRCUIT, [udp_packet()])
    assert len(seen) == 1


def test_what_leaves_is_the_same_whoever_watches() -> None:
    plain, watched = pair()[0], pair()[0]
    for side in SIDES:
        watch(watched, side)
    packets = [udp_packet(number=i) for i in range(5)]
    [(_, one)] = plain.protect(CIRCUIT, packets)
    [(_, other)] = watched.protect(CIRCUIT, packets)
    assert bytes(one.body) == bytes(other.body)
    assert (one.step, one.tunnel, one.circuit, one.lengths) == (
        other.step, other.tunnel, other.circuit, other.lengths,
    )  # fmt: skip
