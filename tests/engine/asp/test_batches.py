"""A batch is its packets one at a time, octet for octet, in every cipher engine.

Two routers' ASPs get random batches: one of them whole, its twin the same packets each in a batch of its own.
Whatever the batch holds, both send the same packets to the same places in the same order, and count the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from chassis.ase.ike_messages import IkeTunnelState
from chassis.bus.batch import Batch, Step
from chassis.net.ipv4 import Ipv4
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    INNER,
    LC3,
    OUTER,
    Controller,
    batch_of,
    packets_of,
    records,
    udp_packet,
)
from tests.support.asp_negotiated import A, B, Side, encapsulated, install, static
from tests.support.cipher_engines import ENGINES, engine_of
from tests.support.ipsec import resized

INSIDE = {CIRCUIT: ("50.0.0.1", "60.0.0.1"), ECONOMICAL: ("52.0.0.1", "62.0.0.1")}
SIZES = (20, 21, 40, 64, 100, 333, 576, 1400, 1418, 1500, 1800)
OPTIONS = (b"\1\1\1\0", b"\x07\x07\x04\0\0\0\0\0", b"\x94\x04\0\0")
"""No operation, record route, router alert."""

SIDES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "esp": ({}, {"esn": True}),
    "gcm and sha2": ({"kind": "gcm"}, {"kind": "sha2"}),
    "gcm with esn, compressed": ({"kind": "gcm", "esn": True}, {"cpi_out": 2, "cpi_in": 2}),
    "bundle and ah": ({"kind": "bundle"}, {"kind": "ah", "esn": True}),
    "udp": ({}, {"kind": "gcm"}),
}
"""What protects each tunnel of two routers with negotiated SAs."""


def four(kind: str, engine: str) -> tuple[Controller, Controller, Controller, Controller]:
    """Two left routers and two right ones."""
    used = engine_of(engine)
    if kind == "manual":
        ends = [Controller(records(there=there, mtu=1400), engine=used) for there in (False, False, True, True)]
        return ends[0], ends[1], ends[2], ends[3]
    sides = [Side(static(there=there, mtu=1400), engine=used) for there in (False, False, True, True)]
    for side, there in zip(sides, (False, False, True, True), strict=True):
        for tunnel, fields in zip((CIRCUIT, ECONOMICAL), SIDES[kind], strict=True):
            udp = encapsulated(A if there else B) if kind == "udp" else ()
            side.ike(install(tunnel, 1, there=there, encapsulation=udp, **fields))
            side.ike(IkeTunnelState(tunnel, True, ""))
    return sides[0], sides[1], sides[2], sides[3]


def clear_packet(chance: random.Random, tunnel: int, number: int) -> bytes:
    """A packet for a tunnel, or something like one."""
    source, destination = INSIDE[tunnel]
    packet = udp_packet(source, destination, chance.choice(SIZES), df=chance.random() < 0.2, number=number)
    what = chance.random()
    if what < 0.2:
        options = chance.choice(OPTIONS)
        longer = bytearray(packet[:20] + options + packet[20:])
        longer[0] += len(options) // 4
        packet = _checksummed(resized(bytes(longer)))
    elif what < 0.35:
        packet = _with(packet, 1, chance.randrange(256))  # type of service and ECN
    elif what < 0.45:
        packet = _with(packet, 6, chance.choice((0x20, 0x00)), chance.randrange(1, 90))  # a fragment
    elif what < 0.5:
        changed = bytearray(packet)
        changed[chance.choice((0, 2, 3))] ^= 1 << chance.randrange(8)
        packet = bytes(changed)
    elif what < 0.55:
        packet = packet[: chance.randrange(len(packet))]
    elif what < 0.6:
        packet += bytes(chance.randrange(1, 50))
    return packet


def _with(packet: bytes, at: int, *octets: int) -> bytes:
    return _checksummed(packet[:at] + bytes(octets) + packet[at + len(octets) :])


def _checksummed(packet: bytes) -> bytes:
    """The packet with a right checksum over a header of any length."""
    octets = bytearray(packet)
    octets[10:12] = b"\0\0"
    size = (octets[0] & 15) * 4
    total = sum(int.from_bytes(octets[at : at + 2], "big") for at in range(0, size, 2))
    octets[10:12] = (-total % 0xFFFF).to_bytes(2, "big")
    return bytes(octets)


def wire_packets(chance: random.Random, sent: Sequence[bytes]) -> list[bytes]:
    """Outer packets as a hostile network delivers them."""
    packets, whole = list(sent), set(sent)
    for _ in range(len(packets) // 3):
        at = chance.randrange(len(packets))
        packet = packets[at]
        what = chance.random()
        if what < 0.3:
            changed = bytearray(packet)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            packets[at] = bytes(changed)
        elif what < 0.4:
            packets.insert(chance.randrange(len(packets)), packet)
        elif what < 0.5:
            packets[at] = packet[: chance.randrange(1, len(packet))]
        elif what < 0.65:
            packets[at] = _with(packet, 1, chance.randrange(256))
        elif what < 0.75:
            longer = bytearray(packet[:20] + b"\1\1\1\0" + packet[20:])
            longer[0] += 1
            packets[at] = _checksummed(bytes(longer[:2]) + len(longer).to_bytes(2, "big") + bytes(longer[4:]))
        elif what < 0.85:
            other = chance.randrange(len(packets))
            packets[at], packets[other] = packets[other], packets[at]
        elif packet in whole:
            first = Ipv4.parse(packet)
            cut = len(first.payload) // 16 * 8
            if cut:
                head = replace(first, payload=first.payload[:cut], more_fragments=True, dont_fragment=False)
                tail = replace(first, payload=first.payload[cut:], offset=cut, dont_fragment=False)
                packets[at : at + 1] = [head.emit(), tail.emit()]
    return packets


Places = dict[tuple[object, ...], list[bytes]]


def places(sent: Sequence[tuple[str, Batch]], into: Places) -> None:
    """The packets by where they go, in order."""
    for card, batch in sent:
        place = (card, batch.step, batch.context, batch.port, batch.address, batch.tunnel, batch.circuit)
        into.setdefault(place, []).extend(packets_of(batch))


def both(
    chance: random.Random, whole: Controller, single: Controller, packets: Sequence[bytes], **fields: object
) -> Places:
    """Give a batch to one ASP, and its packets one by one to the twin; compare; return where they went."""
    epoch = 1 if chance.random() < 0.9 else 2
    marked = {index: 1 + chance.randrange(1000) for index in range(len(packets)) if chance.random() < 0.03}
    together: Places = {}
    apart: Places = {}
    step = fields.pop("step")
    assert isinstance(step, Step)
    batch = batch_of(packets, step, marks=tuple(marked.items()), **fields)
    places(whole.give(batch, epoch=epoch), together)
    for index, packet in enumerate(packets):
        marks = ((0, marked[index]),) if index in marked else ()
        places(single.give(batch_of([packet], step, marks=marks, **fields), LC3, epoch), apart)
    assert together == apart
    assert dict(whole.asp.counters.items()) == dict(single.asp.counters.items())
    return together


@pytest.mark.parametrize("engine", ENGINES)
def test_runs_of_tunnels_are_a_batch_of_each(engine: str) -> None:
    chance = random.Random(5)
    left, left_twin, _, _ = four("gcm and sha2", engine)
    number = 0
    for _ in range(4):
        together: Places = {}
        apart: Places = {}
        runs, packets, tunnels = [], [], []
        for tunnel in (CIRCUIT, ECONOMICAL, CIRCUIT, 99, ECONOMICAL):
            count = chance.choice((1, 3, 9))
            runs.append((count, tunnel, 0))
            known = tunnel if tunnel in INSIDE else CIRCUIT
            packets += [clear_packet(chance, known, number + i) for i in range(count)]
            tunnels += [tunnel] * count
            number += count
        fields: dict[str, Any] = {"context": INNER, "ingress": "3/1"}
        places(left.give(batch_of(packets, Step.ENCAPSULATE, runs=tuple(runs), **fields)), together)
        for packet, tunnel in zip(packets, tunnels, strict=True):
            places(left_twin.give(batch_of([packet], Step.ENCAPSULATE, tunnel=tunnel, **fields)), apart)
        assert together == apart
        assert dict(left.asp.counters.items()) == dict(left_twin.asp.counters.items())
        assert len(together) > 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["manual", *SIDES])
def test_a_batch_is_its_packets_one_at_a_time(kind: str, engine: str) -> None:
    chance = random.Random(kind)
    left, left_twin, right, right_twin = four(kind, engine)
    number = opened = 0
    for _ in range(6):
        outer: list[bytes] = []
        for tunnel in (CIRCUIT, ECONOMICAL, CIRCUIT):
            packets = [clear_packet(chance, tunnel, number + i) for i in range(chance.choice((1, 2, 7, 17, 40)))]
            number += len(packets)
            fields = {"step": Step.ENCAPSULATE, "context": INNER, "tunnel": tunnel, "ingress": "3/1"}
            went = both(chance, left, left_twin, packets, **fields)
            outer += [packet for place, some in went.items() if place[2] == OUTER for packet in some]
        wire = wire_packets(chance, outer)
        fields = {"step": Step.DECAPSULATE, "context": OUTER, "ingress": "3/11"}
        went = both(chance, right, right_twin, wire, **fields)
        opened += sum(len(some) for place, some in went.items() if place[2] == INNER)
    assert opened > number // 5, "most of what is not damaged comes out"
