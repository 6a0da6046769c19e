"""Packets that a tunnel opened or protected, and that then have no way on: the tunnel's own books have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chassis.bus.records import CardStateRecord, LocalAddressRecord, NextHop, PortRecord
from chassis.net.ipv4 import Ipv4
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    INNER,
    LC3,
    LC4,
    OUTER,
    Controller,
    ip,
    packets_of,
    pair,
    port_hop,
    route,
    tunnel_hop,
    udp_packet,
)

HOST, FAR = "52.0.0.1", "62.0.0.1"


def books(end: Controller, tunnel: int) -> dict[str, Any]:
    [row] = end.asp.sa_statistics.statistics(tunnel)["tunnels"]
    return row


def short_of_ttl(b: Controller) -> list[bytes]:
    return [udp_packet(HOST, FAR, ttl=1)]


def without_a_route(b: Controller) -> list[bytes]:
    return [udp_packet(HOST, "99.0.0.1")]


def by_a_discard_route(b: Controller) -> list[bytes]:
    b.put(route(INNER, "62.0.0.0/8", NextHop("discard")))
    return [udp_packet(HOST, FAR)]


def by_a_card_that_is_down(b: Controller) -> list[bytes]:
    b.put(CardStateRecord(LC3, "lc", 1, 1, False))
    return [udp_packet(HOST, FAR)]


def too_long_for_the_port(b: Controller) -> list[bytes]:
    port = b.record("port", "3/1")
    assert isinstance(port, PortRecord)
    b.put(replace(port, mtu=500))
    return [udp_packet(HOST, FAR, 600, df=True)]


def for_a_local_stack_that_is_nowhere(b: Controller) -> list[bytes]:
    b.put(CardStateRecord(LC3, "lc", 1, 1, False), CardStateRecord(LC4, "lc", 1, 1, False))
    return [udp_packet(HOST, "2.0.0.2")]


@pytest.mark.parametrize(("case", "cause"), [
    (short_of_ttl, "ttl exceeded"),
    (without_a_route, "no route"),
    (by_a_discard_route, "discard route"),
    (by_a_card_that_is_down, "no usable next hop"),
    (too_long_for_the_port, "fragmentation needed"),
    (for_a_local_stack_that_is_nowhere, "no usable next hop"),
])  # fmt: skip
def test_opened_packets_without_a_way_on(case: Callable[[Controller], list[bytes]], cause: str) -> None:
    a, b = pair()
    a.put(route(INNER, "99.0.0.0/8", tunnel_hop(ECONOMICAL)))
    lost = case(b)
    good = udp_packet(HOST, FAR)
    [(_, out)] = a.protect(ECONOMICAL, [*lost, good])
    sent = b.open(out)
    row = books(b, ECONOMICAL)
    clear = [packet for _, batch in sent for packet in packets_of(batch) if Ipv4.parse(packet).source == ip(HOST)]
    assert row["decapsulated"]["packets"] - row["post_ipsec_drops"]["decapsulated"] == len(clear)
    assert row["drops"]["in"] == {cause: 2 - len(clear)}
    # The error that the sender is told is a packet of its own into the tunnel, lost only where no card is left.
    assert sum(b.drops().values()) == 2 - len(clear) + sum(row["drops"]["out"].values())
    assert row["post_ipsec_drops"]["encapsulated"] == 0


def test_opened_packets_of_a_tunnel_without_its_circuit() -> None:
    a, b = pair()
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()] * 3)
    b.asp.on_fabric_peer(LC3, 1, False, b.now)
    assert b.open(out) == []
    row = books(b, CIRCUIT)
    assert (row["decapsulated"]["packets"], row["post_ipsec_drops"]) == (3, {"encapsulated": 0, "decapsulated": 3})
    assert row["drops"]["in"] == {"line card down": 3}


@pytest.mark.parametrize(("hops", "cause"), [
    ((port_hop(LC3, "3/11", "40.0.0.2"),), "no usable next hop"),
    ((NextHop("discard"),), "discard route"),
    ((), "no route"),
])  # fmt: skip
def test_nothing_is_protected_that_would_not_leave(hops: tuple[NextHop, ...], cause: str) -> None:
    a, _ = pair()
    if hops:
        a.put(route(OUTER, "40.0.0.2/32", *hops))
    else:
        a.put(delete=[("route", OUTER, ip("40.0.0.2"), 32)])
    a.asp.on_fabric_peer(LC3, 1, False, a.now)
    assert a.protect(ECONOMICAL, [udp_packet(HOST, FAR)] * 3) == []
    row = books(a, ECONOMICAL)
    assert (row["encapsulated"]["packets"], row["post_ipsec_drops"]["encapsulated"]) == (0, 0)
    assert row["drops"]["out"] == a.drops() == {cause: 3}
    assert a.asp.sadb.outbound[ECONOMICAL, 10].next_number == 1
    a.asp.on_fabric_peer(LC3, 1, True, a.now)
    a.put(route(OUTER, "40.0.0.2/32", port_hop(LC3, "3/11", "40.0.0.2")))
    assert len(a.protect(ECONOMICAL, [udp_packet(HOST, FAR)])) == 1


def test_protected_packets_without_a_way_for_their_outer_address() -> None:
    a, _ = pair()
    # The peer's address is this router's own by now, and no line card is there to take it.
    a.put(
        LocalAddressRecord(OUTER, ip("40.0.0.2")),
        CardStateRecord(LC3, "lc", 1, 1, False),
        CardStateRecord(LC4, "lc", 1, 1, False),
    )
    assert a.protect(ECONOMICAL, [udp_packet(HOST, FAR)] * 3) == []
    row = books(a, ECONOMICAL)
    assert (row["encapsulated"]["packets"], row["post_ipsec_drops"]) == (3, {"encapsulated": 3, "decapsulated": 0})
    assert row["drops"]["out"] == a.drops() == {"no usable next hop": 3}
    gone = a.tunnel(ECONOMICAL)
    a.put(delete=[("tunnel", ECONOMICAL)])
    a.put(gone)
    assert books(a, ECONOMICAL)["post_ipsec_drops"] == {"encapsulated": 0, "decapsulated": 0}


def test_errors_that_would_be_too_many_are_counted_and_not_made() -> None:
    a, b = pair()
    a.put(route(INNER, "99.0.0.0/8", tunnel_hop(ECONOMICAL)))
    [(_, out)] = a.protect(ECONOMICAL, [udp_packet(HOST, "99.0.0.1")] * 250)
    b.open(out)
    assert (b.count("icmp errors sent"), b.count("icmp errors rate limited")) == (200, 50)
    # What no error is owed about is none that is held back.
    icmp_error = bytearray(udp_packet(HOST, "99.0.0.1", protocol=1))
    icmp_error[20] = 3
    [(_, out)] = a.protect(ECONOMICAL, [bytes(icmp_error)])
    b.open(out)
    assert b.count("icmp errors rate limited") == 50
    assert books(b, ECONOMICAL)["drops"]["in"] == {"no route": 251}
