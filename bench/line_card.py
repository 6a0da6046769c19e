"""One pass of a line card: frames from a port to an ASP, and from an ASP to a port."""

from __future__ import annotations

import time
from array import array
from copy import copy

from bench.report import Report
from chassis.bus.batch import Batch, Step
from chassis.bus.engine import Output, ToFabric, ToWire
from chassis.bus.messages import Snapshot, Welcome
from chassis.bus.records import (
    CardStateRecord,
    ContextRecord,
    InterfaceRecord,
    NextHop,
    PortRecord,
    RouteRecord,
    TunnelRecord,
)
from chassis.linecard.engine import LineCardEngine
from chassis.model.router import Tunnel
from chassis.net.address import parse_address
from chassis.net.arp import REPLY, Arp
from chassis.net.ethernet import ETHERTYPE_ARP, HEADROOM, header
from chassis.net.ipv4 import Ipv4

BATCH = 64
SECONDS = 0.5
RUNS = 5
MAC, HOST = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
OWN, NEAR, FAR = (parse_address(text) for text in ("10.0.0.254", "10.0.0.1", "20.0.0.1"))


def _line_card() -> LineCardEngine:
    """Create a line card with a port in 10.0.0.0/24, one known neighbour, and 20.0.0.0/8 routed to a tunnel."""
    card = LineCardEngine("lc 3", pid=1, boot=1)
    card.on_connected(0.0)
    card.receive(Welcome(1, 1, 0.1, 5, {}), 0.0)
    records = (
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
    answer = header(MAC, HOST, ETHERTYPE_ARP) + Arp(REPLY, HOST, NEAR, MAC, OWN).emit()
    card.receive_frames("3/1", Batch(Step.INGRESS, bytearray(answer), array("H", [len(answer)])), 0.0)
    return card


def _frames(size: int, source: int, destination: int) -> Batch:
    packet = Ipv4(source=source, destination=destination, protocol=17, payload=bytes(size - 20)).emit()
    frame = header(MAC, HOST) + packet
    return Batch(Step.INGRESS, bytearray(frame * BATCH), array("H", [len(frame)] * BATCH))


def _rate(card: LineCardEngine, batch: Batch, *, fabric: bool) -> float:
    """Return the rate (packets/s) of one step; each batch is a copy of this one."""
    wanted = ToWire if fabric else ToFabric
    packets, spent = 0, 0.0
    while spent < SECONDS:
        given = copy(batch)
        given.body = bytearray(batch.body)
        begin = time.perf_counter()
        outputs: list[Output] = (
            card.receive_batch(given, 0.0) if fabric else card.receive_frames("3/1", given, 0.0)
        )
        spent += time.perf_counter() - begin
        packets += sum(len(output.batch) for output in outputs if isinstance(output, wanted))
    return packets / spent


def run(report: Report) -> None:
    """Measure both directions with small and large packets; only the engine, without sockets."""
    for size in (64, 1400):
        inward = [_rate(_line_card(), _frames(size, NEAR, FAR), fabric=False) for _ in range(RUNS)]
        report.add(f"line card, port to ASP, {size} bytes", inward, "packets/s")
        batch = _frames(size, FAR, NEAR)
        batch.step, batch.card, batch.epoch, batch.port, batch.address = Step.EGRESS, "asp 1/1", 2, "3/1", NEAR
        batch.body[:] = bytes(HEADROOM) + bytes(batch.body[HEADROOM:])
        outward = [_rate(_line_card(), batch, fabric=True) for _ in range(RUNS)]
        report.add(f"line card, ASP to port, {size} bytes", outward, "packets/s")
