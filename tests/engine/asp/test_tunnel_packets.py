"""Packets through two ASPs back to back, in both modes and directions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.bus.batch import Step
from chassis.bus.messages import TraceStamps
from chassis.bus.records import CardStateRecord, LocalAddressRecord
from chassis.net.ipv4 import PROTOCOL_AH, PROTOCOL_ESP, Ipv4
from tests.support.asp import (
    ASP,
    CIRCUIT,
    ECONOMICAL,
    INNER,
    LC3,
    LC4,
    OUTER,
    SPARE,
    Controller,
    batch_of,
    icmp_error,
    ip,
    packets_of,
    pair,
    records,
    route,
    tunnel_hop,
    udp_packet,
)


@pytest.mark.behaviour("B-010")
@pytest.mark.parametrize("kind", ["esp", "ah", "bundle"])
@pytest.mark.parametrize("backwards", [False, True])
def test_circuit_based_packets_go_by_the_home_line_card(kind: str, backwards: bool) -> None:
    a, b = pair(kind=kind)
    source, destination = "50.0.0.1", "60.0.0.1"
    if backwards:
        a, b, source, destination = b, a, destination, source
    clear = [udp_packet(source, destination, size=100 + i, number=i) for i in range(20)]
    [(card, out)] = a.protect(CIRCUIT, clear)
    assert (card, out.step, out.circuit, out.context, out.tunnel) == (LC3, Step.CIRCUIT_OUT, 17, OUTER, CIRCUIT)
    outer = [Ipv4.parse(packet) for packet in packets_of(out)]
    assert {packet.protocol for packet in outer} == {PROTOCOL_ESP if kind == "esp" else PROTOCOL_AH}
    assert len(outer) == 20
    [(card, opened)] = b.open(out)
    assert (card, opened.step, opened.circuit, opened.context) == (LC3, Step.CIRCUIT_IN, 17, INNER)
    assert packets_of(opened) == clear


@pytest.mark.behaviour("B-011")
@pytest.mark.parametrize("kind", ["esp", "ah", "bundle"])
@pytest.mark.parametrize("backwards", [False, True])
def test_economical_packets_go_straight_to_the_egress_port(kind: str, backwards: bool) -> None:
    a, b = pair(kind=kind)
    source, destination, gateway, hop = "52.0.0.1", "62.0.0.1", "60.0.0.7", "40.0.0.2"
    if backwards:
        a, b, source, destination, gateway, hop = b, a, destination, source, "50.0.0.7", "40.0.0.1"
    clear = [udp_packet(source, destination, size=100, number=i, ttl=63) for i in range(20)]
    [(card, out)] = a.protect(ECONOMICAL, clear)
    assert (card, out.step, out.port, out.address, out.circuit) == (LC3, Step.EGRESS, "3/11", ip(hop), 0)
    [(card, opened)] = b.open(out)
    assert (card, opened.step, opened.port, opened.address) == (LC3, Step.EGRESS, "3/1", ip(gateway))
    assert packets_of(opened) == [udp_packet(source, destination, size=100, number=i, ttl=62) for i in range(20)]
    assert opened.circuit == 0


@pytest.mark.behaviour("B-010", "B-011")
def test_both_modes_side_by_side_in_one_batch() -> None:
    a, b = pair()
    [(_, first)] = a.protect(CIRCUIT, [udp_packet(number=1), udp_packet(number=2)])
    [(_, second)] = a.protect(ECONOMICAL, [udp_packet("52.0.0.1", "62.0.0.1", number=3)])
    mixed = [packets_of(first)[0], packets_of(second)[0], packets_of(first)[1]]
    sent = b.open(batch_of(mixed, Step.DECAPSULATE))
    assert [(batch.step, len(batch)) for _, batch in sent] == [(Step.CIRCUIT_IN, 2), (Step.EGRESS, 1)]


def test_next_port_by_cost_when_the_card_is_not_up() -> None:
    a, _ = pair()
    clear = [udp_packet("52.0.0.1", "62.0.0.1")]
    a.asp.on_fabric_peer(LC3, 1, False, a.now)
    [(card, out)] = a.protect(ECONOMICAL, clear)
    assert (card, out.port, out.address) == (LC4, "4/11", ip("41.0.0.9"))
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    a.put(CardStateRecord(LC4, "lc", 1, 1, False))
    assert a.protect(ECONOMICAL, clear) == []
    assert a.drops() == {"line card down": 1, "no usable next hop": 1}
    a.asp.on_fabric_peer(LC3, 1, True, a.now)
    assert a.protect(ECONOMICAL, clear)[0][0] == LC3


def test_economical_packets_of_several_destinations_keep_their_order() -> None:
    a, b = pair()
    destinations = ["60.0.0.1", "60.0.0.2", "60.0.0.1", "62.0.0.1", "60.0.0.2"]
    clear = [udp_packet("52.0.0.1", to, number=i) for i, to in enumerate(destinations)]
    [(_, out)] = a.protect(ECONOMICAL, clear)
    [(_, together)] = b.open(out)
    ways = [
        (batch.port, batch.address, [Ipv4.parse(p).payload[8:12] for p in packets_of(batch)])
        for batch in together.split_runs()
    ]
    number = [i.to_bytes(4, "big") for i in range(5)]
    assert ways == [
        ("3/1", ip("60.0.0.1"), [number[0], number[2]]),
        ("3/1", ip("60.0.0.2"), [number[1], number[4]]),
        ("3/1", ip("60.0.0.7"), [number[3]]),
    ]


def test_opened_packets_into_another_tunnel_of_this_asp() -> None:
    a, b = pair()
    b.put(route(INNER, "70.0.0.0/8", tunnel_hop(CIRCUIT)))
    [(_, out)] = a.protect(ECONOMICAL, [udp_packet("52.0.0.1", "70.0.0.1", ttl=10)])
    [(card, back)] = b.open(out)
    assert (card, back.step, back.circuit, back.tunnel) == (LC3, Step.CIRCUIT_OUT, 17, CIRCUIT)
    [(_, opened)] = a.open(back)
    assert packets_of(opened) == [udp_packet("52.0.0.1", "70.0.0.1", ttl=9)]


def test_opened_packets_into_a_tunnel_of_another_asp() -> None:
    a, b = pair()
    other = b.tunnel(CIRCUIT)
    b.put(replace(other, number=9, asp=SPARE), route(INNER, "70.0.0.0/8", tunnel_hop(9)))
    [(_, out)] = a.protect(ECONOMICAL, [udp_packet("52.0.0.1", "70.0.0.1", ttl=10)])
    [(card, given)] = b.open(out)
    assert (card, given.step, given.tunnel, given.context) == (SPARE, Step.ENCAPSULATE, 9, INNER)
    assert packets_of(given) == [udp_packet("52.0.0.1", "70.0.0.1", ttl=9)]
    b.put(CardStateRecord(SPARE, "asp", 1, 2, False))
    [(_, out)] = a.protect(ECONOMICAL, [udp_packet("52.0.0.1", "70.0.0.1", ttl=10)])
    assert b.open(out) == []
    assert b.drops() == {"no usable tunnel": 1}


@pytest.mark.parametrize(
    ("destination", "ttl", "expected"), [("62.0.0.1", 1, (11, 0)), ("99.0.0.1", 9, (3, 0)), ("62.0.0.1", 2, None)]
)
def test_the_sender_is_told_why_through_the_tunnel(
    destination: str, ttl: int, expected: tuple[int, int] | None
) -> None:
    a, b = pair()
    a.put(route(INNER, "99.0.0.0/8", tunnel_hop(ECONOMICAL)))
    clear = udp_packet("52.0.0.1", destination, ttl=ttl)
    [(_, out)] = a.protect(ECONOMICAL, [clear])
    [(_, back)] = b.open(out)
    if expected is None:
        assert back.port == "3/1"
        return
    [(_, reached)] = a.open(back)
    assert (reached.port, reached.address) == ("3/1", ip("50.0.0.7"))
    packet, message = icmp_error(packets_of(reached)[0])
    assert (packet.source, packet.destination) == (ip("2.0.0.2"), ip("52.0.0.1"))
    assert (message.type, message.code) == expected
    assert message.payload == clear
    assert b.count("icmp errors sent") == 1


def test_packets_for_the_router_itself_go_to_a_local_stack() -> None:
    a, b = pair()
    [(_, out)] = a.protect(ECONOMICAL, [udp_packet("52.0.0.1", "2.0.0.2", ttl=1, protocol=1)])
    [(card, local)] = b.open(out)
    assert (card, local.step, local.context) == (LC3, Step.LOCAL, INNER)
    assert packets_of(local) == [udp_packet("52.0.0.1", "2.0.0.2", ttl=1, protocol=1)]


def test_a_tunnel_in_a_tunnel_ends_at_the_owner_of_its_address() -> None:
    a, b = pair()
    b.put(LocalAddressRecord(INNER, ip("9.9.9.9"), SPARE), LocalAddressRecord(INNER, ip("9.9.9.8"), ASP))
    nested = [udp_packet("52.0.0.1", to, protocol=PROTOCOL_ESP) for to in ("9.9.9.9", "9.9.9.8")]
    [(_, out)] = a.protect(ECONOMICAL, [*nested, udp_packet("52.0.0.1", "9.9.9.9")])
    sent = b.open(out)
    assert [(card, batch.step) for card, batch in sent] == [(SPARE, Step.DECAPSULATE), (LC3, Step.LOCAL)]
    assert b.drops() == {"no inbound sa": 1}


def test_traces_are_stamped_alone_and_go_on() -> None:
    a, b = pair()
    clear = [udp_packet(number=i) for i in range(5)]
    sent = a.protect(CIRCUIT, clear, marks=((1, 77), (4, 78)))
    assert [(len(batch), batch.marks) for _, batch in sent] == [(1, ()), (1, ((0, 77),)), (2, ()), (1, ((0, 78),))]
    opened = [out for _, batch in sent for _, out in b.open(batch)]
    assert [batch.marks for batch in opened] == [(), ((0, 77),), (), ((0, 78),)]
    assert [packet for batch in opened for packet in packets_of(batch)] == clear
    for end, step in ((a, "1/1 encapsulate"), (b, "1/1 decapsulate")):
        assert end.asp.next_timer() <= end.now
        end.take(end.asp.on_timer(end.now))
        [stamps] = [message for message in end.said if isinstance(message, TraceStamps)]
        assert [(stamp.number, stamp.step) for stamp in stamps.stamps] == [(77, step), (78, step)]


def test_batches_of_an_old_epoch_or_for_another_step_are_dropped() -> None:
    a, _ = pair()
    clear = [udp_packet(), udp_packet()]
    assert a.give(batch_of(clear, Step.ENCAPSULATE, tunnel=CIRCUIT), LC3, epoch=7) == []
    assert a.give(batch_of(clear, Step.LOCAL, tunnel=CIRCUIT)) == []
    assert a.protect(99, clear) == []
    assert a.drops() == {"stale epoch": 2, "unexpected step": 2, "no tunnel": 2}
    assert a.asp.receive_frames("3/1", batch_of(clear, Step.INGRESS), a.now) == []
    a.asp.on_stall(1.0, a.now)
    assert a.protect(CIRCUIT, clear) == []
    assert a.drops()["fenced"] == 2


def test_what_the_controller_calls_down_is_not_protected_but_still_opened() -> None:
    a, b = pair()
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
    tunnel = b.tunnel(CIRCUIT)
    assert b.put(replace(tunnel, up=False)) == []
    assert b.protect(CIRCUIT, [udp_packet("60.0.0.1", "50.0.0.1")]) == []
    assert b.drops() == {"tunnel down": 1}
    assert [batch.step for _, batch in b.open(out)] == [Step.CIRCUIT_IN]


def test_a_tunnel_without_a_circuit_drops_both_ways() -> None:
    a = Controller(records(circuit=0, home=""))
    b = Controller(records(there=True))
    [(_, out)] = b.protect(CIRCUIT, [udp_packet("60.0.0.1", "50.0.0.1")])
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    assert a.open(out) == []
    assert a.drops() == {"no circuit": 2}


def test_moving_the_circuit_moves_the_packets() -> None:
    a, _ = pair()
    tunnel = a.tunnel(CIRCUIT)
    a.put(replace(tunnel, circuit=23, home=LC4))
    [(card, out)] = a.protect(CIRCUIT, [udp_packet()])
    assert (card, out.circuit) == (LC4, 23)


def test_a_peer_reached_through_its_own_tunnel_is_not_reached() -> None:
    a, _ = pair()
    a.put(route(OUTER, "40.0.0.2/32", tunnel_hop(ECONOMICAL)))
    assert a.protect(ECONOMICAL, [udp_packet("52.0.0.1", "62.0.0.1")]) == []
    assert a.drops() == {"routing loop": 1}


def test_an_economical_tunnel_inside_another_tunnel() -> None:
    a, b = pair()
    a.put(route(OUTER, "40.0.0.2/32", tunnel_hop(CIRCUIT)))
    clear = udp_packet("52.0.0.1", "62.0.0.1")
    [(_, out)] = a.protect(ECONOMICAL, [clear])
    assert (out.step, out.tunnel) == (Step.CIRCUIT_OUT, CIRCUIT)
    [(_, inside)] = b.open(out)
    [(_, opened)] = b.open(inside)
    assert opened.port == "3/1"
