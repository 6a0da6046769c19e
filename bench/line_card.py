"""The passes of a line card: from a port to an ASP, from an ASP to a port, and through a circuit; the same with
many tunnels, circuits and neighbours in large batches."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from itertools import cycle, islice

from bench.report import Report
from bench.stream import IMIX
from chassis.bus.batch import MAX_PACKETS, Batch, Step, decode, encode_header, pack
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
MANY_SIZES = (64, 1400)
MANY = parse_address("21.0.0.1")
"""An address behind the first of many tunnels; those behind the others are 256 apart."""


def _line_card() -> LineCardEngine:
    """Create a line card with a port in 10.0.0.0/24, a known neighbour, an end point of an ASP, and circuits.

    20.0.0.0/8 is routed to a tunnel, each 21.0.N.0/24 to one of its own, 30.0.0.0/8 and 50.0.0.0/8 to the
    neighbour. The hosts after it are neighbours too.
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
        *[
            RouteRecord(1, MANY + 256 * at - 1, 24, (NextHop("tunnel", at + 1, "asp 1/1", tunnel=at + 1),))
            for at in range(DESTINATIONS)
        ],
        *[
            TunnelRecord(
                number=at + 1,
                config=Tunnel(f"t{at}", kind="manual", economical=True),
                asp="asp 1/1",
                circuit=0,
                home="",
                context=1,
                outer_context=1,
                local=OWN,
                remote=FAR,
                queues=1,
                up=True,
            ).hop
            for at in range(DESTINATIONS)
        ],
    )
    card.receive(Snapshot(1, 1, 1, records), 0.0)
    while card.replica.waiting:
        card.on_timer(0.0)
    card.on_carrier("3/1", True, 0.0)
    card.on_fabric_peer("asp 1/1", 1, True, 0.0)
    for at in range(DESTINATIONS):
        host = b"\2\0\0\1" + at.to_bytes(2, "big") if at else HOST
        answer = header(MAC, host, ETHERTYPE_ARP) + Arp(REPLY, host, NEAR + at, MAC, OWN).emit()
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


def _many_passes(size: int) -> dict[str, Batch]:
    """Return a large batch for each pass whose packets go through many tunnels, or to many neighbours, in turn."""

    def packets(destination: int, apart: int) -> Batch:
        return Batch(
            Step.INGRESS,
            *pack(
                [
                    header(MAC, HOST)
                    + Ipv4(PEER + at, destination + apart * at, 17, bytes(size - 20), identification=number).emit()
                    for number, at in enumerate(islice(cycle(range(DESTINATIONS)), MAX_PACKETS))
                ]
            ),
        )

    across, circuit = [packets(NEAR, 1) for _ in range(2)]
    for batch, step in ((across, Step.EGRESS), (circuit, Step.CIRCUIT_IN)):
        batch.step, batch.card, batch.epoch, batch.context = step, "asp 1/1", 2, 1
    across.hops = [(1, "3/1", NEAR + at) for at in islice(cycle(range(DESTINATIONS)), MAX_PACKETS)]
    circuit.runs = [(1, 0, CIRCUIT + at) for at in islice(cycle(range(DESTINATIONS)), MAX_PACKETS)]
    return {
        f"port to ASP, {DESTINATIONS} tunnels": packets(MANY, 256),
        f"ASP to port, {DESTINATIONS} neighbours": across,
        f"circuits, {DESTINATIONS} neighbours": circuit,
    }


def _rate(card: LineCardEngine, batch: Batch) -> float:
    """Return the rate (packets/s) of one pass; each batch is a copy of this one, as the bus gives it."""
    packets, spent = 0, 0.0
    octets = encode_header(batch)
    while spent < SECONDS:
        given = decode(octets, bytearray(batch.body))
        begin = time.perf_counter()
        outputs: list[Output] = (
            card.receive_frames("3/1", given, 0.0)
            if batch.step is Step.INGRESS
            else card.receive_batch(given, 0.0)
        )
        spent += time.perf_counter() - begin
        sent = sum(len(output.batch) for output in outputs if isinstance(output, ToFabric | ToWire))
        assert sent == len(batch), "every packet must leave"
        packets += sent
    return packets / spent


def run(report: Report) -> None:
    """Measure every pass with each kind of traffic; only the engine, without sockets."""
    for traffic in TRAFFIC:
        for name, batch in _passes(traffic).items():
            rates = [_rate(_line_card(), batch) for _ in range(RUNS)]
            report.add(f"line card, {name}, {traffic}", rates, "packets/s")
    for size in MANY_SIZES:
        for name, batch in _many_passes(size).items():
            rates = [_rate(_line_card(), batch) for _ in range(RUNS)]
            report.add(f"line card, {name}, {size} bytes", rates, "packets/s")
