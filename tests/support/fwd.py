"""A decider with routes into tunnels and out of ports, and packets for it."""

from __future__ import annotations

from chassis.bus.batch import pack
from chassis.bus.records import LocalAddressRecord, NextHop, RouteRecord
from chassis.fwd.classify import classify
from chassis.fwd.classify_loop import Group
from chassis.fwd.decision import Decider
from chassis.fwd.fib import Fib
from chassis.net import ipv4
from chassis.net.address import parse_address as ip
from chassis.net.ethernet import header
from chassis.net.ipv4 import Ipv4

TUNNEL = NextHop("tunnel", 5, "asp 1/1", tunnel=7)


SPARE = NextHop("tunnel", 10, "asp 1/2", tunnel=8)


VIA = NextHop("port", 0, "lc 4", "4/1", ip("20.0.0.2"))


CONNECTED = NextHop("port", 0, "lc 3", "3/1")


def decider() -> Decider:
    fib = Fib()
    fib.apply(
        [
            RouteRecord(1, ip("30.0.0.0"), 8, (TUNNEL, SPARE)),
            RouteRecord(1, ip("40.0.0.0"), 8, (VIA,)),
            RouteRecord(1, ip("10.0.0.0"), 24, (CONNECTED,)),
            RouteRecord(1, ip("50.0.0.0"), 8, (NextHop("discard"),)),
            RouteRecord(1, ip("10.0.0.1"), 32, (NextHop("local"),)),
            LocalAddressRecord(1, ip("10.0.0.1")),
            LocalAddressRecord(1, ip("9.9.9.9"), "asp 1/1"),
        ],
        [],
    )
    up = {"asp 1/1": True, "asp 1/2": True}
    return Decider(fib, lambda hop: hop.kind == "port" or up.get(hop.card, False), up)


def packet(destination: str = "30.1.1.1", source: str = "10.0.0.5", ttl: int = 64, **fields: object) -> Ipv4:
    base: dict[str, object] = {"protocol": ipv4.PROTOCOL_UDP, "payload": bytes(20), "ttl": ttl}
    return Ipv4(source=ip(source), destination=ip(destination), **{**base, **fields})  # type: ignore[arg-type]


def run(*packets: bytes | Ipv4, mac: bytes = b"", transit: bool = True, by: Decider | None = None) -> list[Group]:
    frames = [header(MAC, PEER) + p.emit() if isinstance(p, Ipv4) else p for p in packets]
    body, lengths = pack(frames)
    return classify(by or decider(), 1, body, lengths, mac=mac, transit=transit)


MAC, PEER = b"\x02\0\0\0\3\1", b"\x02\0\0\0\0\x99"
