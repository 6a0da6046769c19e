"""The passes of a line card: from a port to an ASP, from an ASP to a port, and through a circuit."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from copy import copy
from itertools import cycle, islice

from bench.report import Report
from bench.stream import IMIX
from chassis.bus.batch import Batch, Step, pack
from chassis.bus.engine import Output, ToFabric, ToWire
from chassis.bus.messages import Snapshot, Welcome
from chassis.bus.records import (
    CardStateRecord,
    CircuitRecord,
    ContextRecord,
    InterfaceRecord,
    LocalAddressRecord,
    NextHop,
    PortRecord,
    Record,
    RouteRecord,
    TunnelRecord,
)
from chassis.linecard.engine import LineCardEngine
from chassis.model.router import Tunnel
from chassis.net.address import parse_address
from chassis.net.arp import REPLY, Arp
from chassis.net.ethernet import ETHERTYPE_ARP, header
from chassis.net.ipv4 import PROTOCOL_ESP, Ipv4

BATCH = 64
SECONDS = 0.2
RUNS = 5
DESTINATIONS = 200
CIRCUIT = 7
MAC, HOST = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
OWN, NEAR, FAR, PEER, END_POINT = (
    parse_address(text) for text in ("10.0.0.254", "10.0.0.1", "20.0.0.1", "30.0.0.1", "40.0.0.1")
)
TRAFFIC: dict[str, tuple[Sequence[int], int]] = {
    "64 bytes": ((64,), 1),
    "1400 bytes": ((1400,), 1),
    "IMIX": ([size for size, parts in IMIX.items() for _ in range(parts)], 1),
    f"64 bytes, {DESTINATIONS} destinations": ((64,), DESTINATIONS),
}
"""Sizes (octets) of the packets of a batch, repeated, and among how many addresses they change in turn."""


def _line_card() -> LineCardEngine:
    """Create a line card with a port in 10.0.0.0/24, a known neighbour, an end point of an ASP, and circuits.

    20.0.0.0/8 is routed to a tunnel, 30.0.0.0/8 and 50.0.0.0/8 to the neighbour.
    """
    card = LineCardEngine("lc 3", pid=1, boot=1)
    card.on_connected(0.0)
    card.receive(Welcome(1, 1, 0.1, 5, {}), 0.0)
    records: tuple[Record, ...] = (
        CardStateRecord("lc 3", "linecard", 1, 1, True),
        CardStateRecord("asp 1/1", "asp", 1, 2, True),
        ContextRecord(1, "vpn"),
        InterfaceRecord(context=1, name="host", kind="numbered", address=OWN, prefix_length=24, port="3/1"),
        PortRecord(
            port="3/1",
            card="lc 3",
            enabled=True,
            context=1,
            interface="host",
            address=OWN,
            prefix_length=24,
            mac=MAC,
        ),
        RouteRecord(1, parse_address("10.0.0.0"), 24, (NextHop("port", 0, "lc 3", "3/1"),)),
        RouteRecord(1, parse_address("20.0.0.0"), 8, (NextHop("tunnel", 1, "asp 1/1", tunnel=1),)),
        *[
            RouteRecord(1, parse_address(prefix), 8, (NextHop("port", 0, "lc 3", "3/1", NEAR),))
            for prefix in ("30.0.0.0", "50.0.0.0")
        ],
        LocalAddressRecord(1, END_POINT, "asp 1/1"),
        *[
            CircuitRecord(number=number, kind="tunnel", card="lc 3", context=1, interface="if", tunnel=1)
            for number in range(CIRCUIT, CIRCUIT + DESTINATIONS)
        ],
        TunnelRecord(
            number=1,
            config=Tunnel("t", kind="manual", economical=True),
            asp="asp 1/1",
            circuit=0,
            home="",
            context=1,
            outer_context=1,
            local=OWN,
            remote=FAR,
            queues=1,
            up=True,
        ),
    )
    card.receive(Snapshot(1, 1, 1, records), 0.0)
    card.on_carrier("3/1", True, 0.0)
    card.on_fabric_peer("asp 1/1", 1, True, 0.0)
    answer = header(MAC, HOST, ETHERTYPE_ARP) + Arp(REPLY, HOST, NEAR, MAC, OWN).emit()
    card.receive_frames("3/1", Batch(Step.INGRESS, bytearray(answer), array("H", [len(answer)])), 0.0)
    return card


def _frames(traffic: str, source: int, destination: int, protocol: int = 17) -> Batch:
    """Return frames of a port. The packets of several destinations have several sources if the end point is it."""
    sizes, addresses = TRAFFIC[traffic]
    frames = []
    for number, size in enumerate(islice(cycle(sizes), BATCH)):
        other = number % addresses
        ends = (source + other, destination) if destination == END_POINT else (source, destination + other)
        packet = Ipv4(*ends, protocol, bytes(size - 20), identification=number)
        frames.append(header(MAC, HOST) + packet.emit())
    return Batch(Step.INGRESS, *pack(frames))


def _from_asp(step: Step, batch: Batch, traffic: str) -> Batch:
    """Return the packets of a batch as they come from an ASP; those of several destinations are of as many
    circuits."""
    batch.step, batch.card, batch.epoch, batch.context = step, "asp 1/1", 2, 1
    if step is Step.EGRESS:
        batch.port, batch.address = "3/1", NEAR
    elif TRAFFIC[traffic][1] > 1:
        batch.runs = tuple([(1, 0, CIRCUIT + number % DESTINATIONS) for number in range(BATCH)])
    else:
        batch.circuit = CIRCUIT
    return batch


def _passes(traffic: str) -> dict[str, Batch]:
    """Return a batch for each pass."""
    return {
        "port to ASP": _frames(traffic, NEAR, FAR),
        "ASP to port": _from_asp(Step.EGRESS, _frames(traffic, FAR, NEAR), traffic),
        "port to ASP, ESP": _frames(traffic, PEER, END_POINT, PROTOCOL_ESP),
        "circuit, ESP": _from_asp(Step.CIRCUIT_OUT, _frames(traffic, END_POINT, PEER, PROTOCOL_ESP), traffic),
        "circuit": _from_asp(Step.CIRCUIT_IN, _frames(traffic, FAR, parse_address("50.0.0.1")), traffic),
    }


def _rate(card: LineCardEngine, batch: Batch) -> float:
    """Return the rate (packets/s) of one pass; each batch is a copy of this one."""
    packets, spent = 0, 0.0
    while spent < SECONDS:
        given = copy(batch)
        given.body = bytearray(batch.body)
        begin = time.perf_counter()
        outputs: list[Output] = (
            card.receive_frames("3/1", given, 0.0)
            if batch.step is Step.INGRESS
            else card.receive_batch(given, 0.0)
        )
        spent += time.perf_counter() - begin
        sent = sum(len(output.batch) for output in outputs if isinstance(output, ToFabric | ToWire))
        assert sent == BATCH, "every packet must leave"
        packets += sent
    return packets / spent


def run(report: Report) -> None:
    """Measure every pass with each kind of traffic; only the engine, without sockets."""
    for traffic in TRAFFIC:
        for name, batch in _passes(traffic).items():
            rates = [_rate(_line_card(), batch) for _ in range(RUNS)]
            report.add(f"line card, {name}, {traffic}", rates, "packets/s")
