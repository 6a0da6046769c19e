"""Batches with runs of next hops or circuits: octet for octet what one packet at a time gives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from chassis.bus.batch import Batch, Step, decode, encode_header, pack
from chassis.bus.engine import Output, ToController, ToFabric, ToWire
from chassis.bus.records import CircuitRecord, NextHop
from chassis.net.address import parse_address as ip
from chassis.net.arp import REPLY
from chassis.net.ethernet import HEADROOM, header
from chassis.net.ipv4 import PROTOCOL_ICMP, Ipv4
from tests.support.linecard import (
    CIRCUIT,
    CIRCUITED,
    ECONOMICAL,
    HOST,
    INNER,
    MAC,
    OUTER,
    RECORDS,
    Rig,
    packet,
    packets_of,
    port,
    route,
    tunnel,
)

RESOLVED, SILENT = range(40), range(40, 44)
"""Neighbours of each port, by number: those that are resolved, and those that never answer."""
TUNNELS = range(50, 60)
"""More circuit-based tunnels, each with the circuit of its number."""
STRANGE = 99
"""A circuit that is not here."""


def neighbour(name: str, number: int) -> str:
    return f"{'10.0.0' if name == '3/1' else '20.0.0'}.{100 + number}"


def mac(number: int) -> bytes:
    return b"\2\0\0\1\0" + bytes([number])


def rig() -> Rig:
    made = Rig()
    made.delta(
        port("3/1", INNER, "10.0.0.1", mtu=1000),
        *(tunnel(number, "asp 1/1", economical=False) for number in TUNNELS),
        *(
            CircuitRecord(number=number, kind="tunnel", card="lc 3", context=INNER, interface="", tunnel=number)
            for number in TUNNELS
        ),
        *(route(INNER, f"{number}.0.0.0/8", NextHop("tunnel", 5, "asp 1/1", tunnel=number)) for number in TUNNELS),
        *(route(OUTER, f"{number}.0.0.0/8", NextHop("tunnel", 5, "asp 1/1", tunnel=number)) for number in TUNNELS),
    )
    for name in ("3/1", "3/11"):
        for number in RESOLVED:
            made.knows(name, neighbour(name, number), mac(number))
    return made


def some_packet(chance: random.Random, destination: str, number: int, *, sent_by_a_card: bool = False) -> bytes:
    size = chance.choice((0, 0, 40, 40, 40, 700, 1400)) if chance.random() < 0.3 else 40
    made = packet(
        destination,
        chance.choice(("10.0.0.5", "10.0.0.100", "30.0.0.1")),
        number.to_bytes(4, "big") + bytes(size),
        ttl=1 if chance.random() < 0.02 else 64,
        dont_fragment=chance.random() < 0.5,
        identification=number,
        tos=chance.randrange(256),
    ).emit()
    if chance.random() < 0.02 and not sent_by_a_card:
        made = made[: chance.randrange(1, len(made))]
    elif chance.random() < 0.02:
        made = made[:8] + bytes([chance.randrange(256)]) + made[9:]
    return made


def batch(step: Step, packets: Sequence[bytes], **fields: Any) -> Batch:
    body, lengths = pack(packets, HEADROOM)
    made = Batch(step, body, lengths, card="asp 1/1", epoch=6, ingress="3/1", **fields)
    return decode(bytearray(encode_header(made) + body))


Went = dict[tuple[Any, ...], list[Any]]


def went(outputs: Sequence[Output], into: Went) -> None:
    """What left, by its place, in order: frames by their neighbour, packets by card and next hop or tunnel. Errors
    and ARP are apart: they do not wait for the packets before them."""
    for output in outputs:
        if isinstance(output, ToController):
            into.setdefault(("controller",), []).append(output.message)
        elif isinstance(output, ToWire | ToFabric):
            for part in output.batch.split_runs():
                place: tuple[Any, ...] = (output.port,) if isinstance(output, ToWire) else (output.card,)
                place += (part.step, part.context, part.port, part.address, part.tunnel, part.circuit)
                for one in part.packets():
                    link, octets = bytes(one[:HEADROOM]), bytes(one[HEADROOM:])
                    own = octets[9:10] == bytes([PROTOCOL_ICMP]) or octets[0] >> 4 != 4
                    into.setdefault((*place, link * isinstance(output, ToWire), own), []).append(octets)


def both(whole: Rig, single: Rig, step: Step, runs: Sequence[tuple[Any, ...]], packets: Sequence[bytes]) -> Went:
    """Give a batch with runs to one card, and its packets one by one to its twin; return what left."""
    context = INNER if step is Step.CIRCUIT_IN else OUTER
    together: Went = {}
    apart: Went = {}
    by_hop = step is Step.EGRESS
    given = batch(step, packets, context=context, **{"hops" if by_hop else "runs": tuple(runs)})
    went(whole.do(whole.card.receive_batch(given, whole.now)), together)
    at = 0
    for count, first, second in runs:
        way = {"port": first, "address": second} if by_hop else {"tunnel": first, "circuit": second}
        for one in packets[at : at + count]:
            went(single.do(single.card.receive_batch(batch(step, [one], context=context, **way), 1.0)), apart)
        at += count
    for place, some in (*together.items(), *apart.items()):
        if place[-1] is True:
            some.sort()
    assert together == apart
    assert dict(whole.card.counters.items()) == dict(single.card.counters.items())
    return together


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("odd", [False, True])
def test_runs_of_next_hops_are_their_packets_one_at_a_time(seed: int, odd: bool) -> None:
    chance = random.Random(seed)
    whole, single = rig(), rig()
    left = 0
    for _ in range(5):
        runs: list[tuple[int, str, int]] = []
        packets: list[bytes] = []
        usual = (["3/11"], ["3/1"], ["3/1", "3/11"])
        ports = chance.choice((["3/11"], ["3/1", "3/11"], ["3/1", "3/11", "3/9"]) if odd else usual)
        if odd and chance.random() < 0.1:
            carrier = chance.random() < 0.5
            for one in (whole, single):
                one.do(one.card.on_carrier("3/11", carrier, one.now))
        for _ in range(chance.choice((1, 2, 9, 60))):
            name, count = chance.choice(ports), chance.choice((1, 1, 1, 2, 8))
            number = chance.choice(RESOLVED)
            if odd and chance.random() < 0.1:
                number = chance.choice(SILENT)
            address = 0 if odd and chance.random() < 0.02 else ip(neighbour(name, number))
            runs.append((count, name, address))
            fits = packet(f"9.9.9.{number}", payload=bytes(chance.choice((40, 40, 900)))).emit()
            packets += [
                some_packet(chance, "9.9.9.9", left + at, sent_by_a_card=True) if odd else fits
                for at in range(count)
            ]
            left += count
        both(whole, single, Step.EGRESS, runs, packets)
        if not odd:
            assert [type(output) for output in whole.outputs] == [ToWire] * len({name for _, name, _ in runs})


def places(step: Step, chance: random.Random) -> list[str]:
    name = "3/1" if step is Step.CIRCUIT_IN else "3/11"
    beside = [neighbour(name, number) for number in (*RESOLVED, *SILENT[: chance.choice((0, 1))])]
    if chance.random() < 0.5:
        return beside
    others = ["10.4.0.7", "10.4.0.8", "30.0.0.1", "31.0.0.1", "10.0.0.1", "200.0.0.1", "5.5.5.1"]
    return [*beside, *others, *(f"{number}.0.0.1" for number in TUNNELS)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("step", [Step.CIRCUIT_IN, Step.CIRCUIT_OUT])
def test_runs_of_circuits_are_their_packets_one_at_a_time(step: Step, seed: int) -> None:
    chance = random.Random(seed)
    whole, single = rig(), rig()
    number = 0
    for _ in range(5):
        runs: list[tuple[int, int, int]] = []
        packets: list[bytes] = []
        beyond = places(step, chance)
        odd = chance.random() < 0.5
        for _ in range(chance.choice((2, 9, 60))):
            circuit, count = chance.choice(TUNNELS), chance.choice((1, 1, 1, 2, 8))
            runs.append((count, circuit, STRANGE if odd and chance.random() < 0.01 else circuit))
            for at in range(count):
                to = chance.choice(beyond)
                packets.append(some_packet(chance, to, number + at) if odd else packet(to, "10.0.0.5").emit())
            number += count
        both(whole, single, step, runs, packets)


def test_circuits_of_packets_that_go_on_together_are_counted() -> None:
    card = rig()
    packets = [packet(neighbour("3/1", at), "30.0.0.1") for at in range(10)]
    runs = tuple((1, number, number) for number in TUNNELS)
    octets = [one.emit() for one in packets]
    outputs = card.do(card.card.receive_batch(batch(Step.CIRCUIT_IN, octets, context=INNER, runs=runs), 1.0))
    assert [type(output) for output in outputs] == [ToWire], "all frames of a port leave together"
    assert [(link, one) for _, link, one in card.sent()] == [
        (header(mac(at), MAC["3/1"]), replace(one, ttl=63)) for at, one in enumerate(packets)
    ]
    for number in TUNNELS:
        assert card.card.circuits.own[number].totals()["packets_in"] == 1


def test_frames_of_an_answered_neighbour_follow_those_that_waited() -> None:
    card = rig()
    silent = ip(neighbour("3/11", SILENT[0]))
    hops = ((1, "3/11", ip(neighbour("3/11", 1))), (2, "3/11", silent), (1, "3/11", ip(neighbour("3/11", 2))))

    def given(first: int) -> list[Ipv4]:
        return [packet("9.9.9.9", identification=first + at) for at in range(4)]

    octets = [one.emit() for one in given(0)]
    card.do(card.card.receive_batch(batch(Step.EGRESS, octets, context=OUTER, hops=hops), 1.0))
    assert [one.identification for _, _, one in card.sent()] == [0, 3]
    assert [arp.target_address for _, _, arp in card.arps()] == [silent]
    card.arp("3/11", REPLY, neighbour("3/11", SILENT[0]), HOST, "20.0.0.1", target_mac=MAC["3/11"])
    assert [one.identification for _, _, one in card.sent()] == [1, 2]
    octets = [one.emit() for one in given(4)]
    card.do(card.card.receive_batch(batch(Step.EGRESS, octets, context=OUTER, hops=hops), 1.0))
    assert [(link[:6], one.identification) for _, link, one in card.sent()] == [
        (mac(1), 4), (HOST, 5), (HOST, 6), (mac(2), 7),
    ]  # fmt: skip
    assert len(card.outputs) == 1


def test_a_marked_port_marks_all_packets_that_go_on_together() -> None:
    card = rig()
    card.delta(replace(next(record for record in RECORDS if record.key == ("port", "3/1")), descriptor=33))
    card.frames("3/1", packet("10.4.0.7"), packet("10.4.0.8"), packet("30.0.0.1"), packet("31.0.0.1"))
    across, inward = sorted([one for _, one in card.fabric()], key=lambda one: one.step is Step.ENCAPSULATE)
    assert across.hops == ((1, "4/1", ip("10.4.0.7")), (1, "4/1", ip("10.4.0.8")))
    assert inward.runs == ((1, ECONOMICAL, 0), (1, CIRCUITED, 0))
    assert (across.descriptors, inward.descriptors) == (bytes([33, 33]),) * 2
    assert packets_of(across) == [packet("10.4.0.7", ttl=63), packet("10.4.0.8", ttl=63)]
    assert CIRCUIT not in (across.circuit, inward.circuit)
