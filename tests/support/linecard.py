"""A line card in memory, admitted and configured, with everything that it does at hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.engine import Output, ToController, ToFabric, ToWire
from chassis.bus.messages import Delta, Request, Snapshot, TraceStamps, Welcome
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
    TunnelHopRecord,
)
from chassis.linecard.arp import Neighbour
from chassis.linecard.counters import unaccounted
from chassis.linecard.engine import LineCardEngine
from chassis.net import ipv4
from chassis.net.address import BROADCAST_MAC, ZERO_MAC, parse_prefix
from chassis.net.address import parse_address as ip
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.net.ethernet import ETHERTYPE_ARP, HEADROOM, header
from chassis.net.ipv4 import Ipv4

MAC = {"3/1": b"\2\0\0\0\3\1", "3/11": b"\2\0\0\0\3\x0b", "4/1": b"\2\0\0\0\4\1"}
HOST = b"\2\0\0\0\0\x05"
GATEWAY = b"\2\0\0\0\0\x99"
EPOCH = 4
INNER, OUTER = 1, 2
ECONOMICAL, CIRCUITED, SPARE = 1, 2, 3
CIRCUIT = 17


def port(name: str, context: int, address: str, length: int = 24, **fields: Any) -> PortRecord:
    card = f"lc {name.split('/')[0]}"
    values: dict[str, Any] = {"enabled": True, "mac": MAC[name], "interface": f"if-{name}", **fields}
    return PortRecord(
        port=name, card=card, context=context, address=ip(address), prefix_length=length, circuit=0, **values
    )


def route(context: int, prefix: str, *hops: NextHop) -> RouteRecord:
    network, length = parse_prefix(prefix)
    return RouteRecord(context, network, length, hops)


def tunnel(number: int, asp: str, *, economical: bool, home: str = "lc 3", **fields: Any) -> TunnelHopRecord:
    values: dict[str, Any] = {"home": "" if economical else home, "up": True, **fields}
    return TunnelHopRecord(
        number=number, economical=economical, asp=asp, context=INNER, remote=ip("6.6.6.1"), **values
    )


TO_TUNNELS = (NextHop("tunnel", 5, "asp 1/1", tunnel=ECONOMICAL), NextHop("tunnel", 10, "asp 1/2", tunnel=SPARE))

RECORDS: tuple[Record, ...] = (
    CardStateRecord("lc 3", "linecard", 2, EPOCH, True),
    CardStateRecord("lc 4", "linecard", 2, 5, True),
    CardStateRecord("asp 1/1", "asp", 3, 6, True),
    CardStateRecord("asp 1/2", "asp", 3, 7, True),
    ContextRecord(INNER, "vpn"),
    ContextRecord(OUTER, "local"),
    InterfaceRecord(context=INNER, name="if-3/1", kind="numbered", address=ip("10.0.0.1"), prefix_length=24,
        port="3/1"),
    InterfaceRecord(context=OUTER, name="if-3/11", kind="numbered", address=ip("20.0.0.1"), prefix_length=24,
        port="3/11"),
    InterfaceRecord(context=INNER, name="ipsec1", kind="ipsec", address=ip("172.16.0.1"), prefix_length=30,
        tunnel=ECONOMICAL),
    InterfaceRecord(context=OUTER, name="loop", kind="loopback", address=ip("5.5.5.1"), prefix_length=32),
    port("3/1", INNER, "10.0.0.1"),
    port("3/11", OUTER, "20.0.0.1"),
    port("4/1", INNER, "10.4.0.1"),
    CircuitRecord(number=CIRCUIT, kind="tunnel", card="lc 3", context=INNER, interface="ipsec2", tunnel=CIRCUITED),
    LocalAddressRecord(INNER, ip("10.0.0.1")),
    LocalAddressRecord(INNER, ip("172.16.0.1")),
    LocalAddressRecord(OUTER, ip("20.0.0.1")),
    LocalAddressRecord(OUTER, ip("5.5.5.1"), "asp 1/1"),
    route(INNER, "10.0.0.0/24", NextHop("port", 0, "lc 3", "3/1")),
    route(INNER, "10.4.0.0/24", NextHop("port", 0, "lc 4", "4/1")),
    route(INNER, "10.9.0.0/16", NextHop("port", 0, "lc 3", "3/1", ip("10.0.0.9"))),
    route(INNER, "30.0.0.0/8", *TO_TUNNELS),
    route(INNER, "31.0.0.0/8", NextHop("tunnel", 5, "asp 1/1", tunnel=CIRCUITED)),
    route(INNER, "0.0.0.0/1", NextHop("port", 0, "lc 3", "3/1", ip("10.0.0.9"))),
    route(OUTER, "20.0.0.0/24", NextHop("port", 0, "lc 3", "3/11")),
    route(OUTER, "6.6.6.0/24", NextHop("port", 0, "lc 3", "3/11", ip("20.0.0.9"))),
    tunnel(ECONOMICAL, "asp 1/1", economical=True),
    tunnel(SPARE, "asp 1/2", economical=True),
    tunnel(CIRCUITED, "asp 1/1", economical=False),
)  # fmt: skip


def packet(
    destination: str = "30.0.0.1", source: str = "10.0.0.5", payload: bytes = bytes(40), **fields: Any
) -> Ipv4:
    return Ipv4(ip(source), ip(destination), fields.pop("protocol", ipv4.PROTOCOL_UDP), payload, **fields)


class Rig:
    """Line card 3 with ports 3/1 (inner context) and 3/11 (outer), two ASPs and a neighbour, lc 4."""

    def __init__(self, records: Iterable[Record] = RECORDS, carrier: bool = True) -> None:
        self.card = LineCardEngine("lc 3", pid=1, boot=2)
        self.now = 1.0
        self.outputs: list[Output] = []
        self.version = 10
        self.do(self.card.start(self.now))
        if carrier:
            for name in ("3/1", "3/11"):
                self.do(self.card.on_carrier(name, True, self.now))
        self.do(self.card.on_connected(self.now))
        self.do(self.card.receive(Welcome(EPOCH, 10, 0.1, 5, {}), self.now))
        self.do(self.card.receive(Snapshot(10, 1, 1, tuple(records)), self.now))
        for card, boot in (("lc 4", 2), ("asp 1/1", 3), ("asp 1/2", 3)):
            self.do(self.card.on_fabric_peer(card, boot, True, self.now))

    def do(self, outputs: list[Output]) -> list[Output]:
        self.outputs = outputs
        assert unaccounted(self.card.counters) == 0, dict(self.card.counters.items())
        return outputs

    # in

    def frames(self, name: str, *packets: Ipv4 | bytes, mac: bytes = HOST, marks: Any = ()) -> list[Output]:
        link = header(MAC.get(name, HOST), mac)
        body, lengths = pack([link + p.emit() if isinstance(p, Ipv4) else p for p in packets])
        return self.do(
            self.card.receive_frames(name, Batch(Step.INGRESS, body, lengths, marks=tuple(marks)), self.now)
        )

    def batch(self, step: Step, *packets: Ipv4, card: str = "asp 1/1", **fields: Any) -> list[Output]:
        body, lengths = pack([p.emit() for p in packets], HEADROOM)
        epoch = fields.pop("epoch", self.card.epochs.get(card, 0))
        return self.do(
            self.card.receive_batch(Batch(step, body, lengths, card=card, epoch=epoch, **fields), self.now)
        )

    def arp(self, name: str, operation: int, sender: str, mac: bytes, target: str, **fields: Any) -> list[Output]:
        arp = Arp(operation, mac, ip(sender), fields.get("target_mac", ZERO_MAC), ip(target))
        link = header(MAC[name] if operation == REPLY else BROADCAST_MAC, mac, ETHERTYPE_ARP)
        return self.frames(name, link + arp.emit())

    def knows(self, name: str, address: str, mac: bytes) -> Rig:
        """Have the neighbour resolved."""
        own = self.card.ports.own[name].record.address
        arp = Arp(REQUEST, mac, ip(address), ZERO_MAC, own)
        self.frames(name, header(BROADCAST_MAC, mac, ETHERTYPE_ARP) + arp.emit())
        return self

    def delta(self, *put: Record, delete: tuple[Any, ...] = ()) -> list[Output]:
        self.version += 1
        return self.do(self.card.receive(Delta(self.version - 1, self.version, tuple(put), delete), self.now))

    def request(self, name: str, **arguments: Any) -> list[Output]:
        return self.do(self.card.receive(Request(77, name, arguments), self.now))

    def after(self, seconds: float) -> list[Output]:
        """Let time pass, every timer on time; everything that came of it."""
        end, seen = self.now + seconds, []
        while (next_timer := self.card.next_timer()) <= end:
            self.now = max(self.now, next_timer)
            seen += self.do(self.card.on_timer(self.now))
        self.now = end
        return self.do(seen)

    # out

    def neighbours(self, name: str) -> dict[int, Neighbour]:
        """The neighbours of a port, by address."""
        return self.card.delivery.arp.neighbours(self.card.ports.own[name])

    def wire(self) -> list[tuple[str, bytes]]:
        """(port, frame) of everything that left by a port."""
        return [
            (o.port, bytes(frame)) for o in self.outputs if isinstance(o, ToWire) for frame in o.batch.packets()
        ]

    def sent(self, port: str = "") -> list[tuple[str, bytes, Ipv4]]:
        """(port, Ethernet header, packet) of the IPv4 packets that left by a port, or by this one."""
        return [
            (name, frame[:HEADROOM], Ipv4.parse(frame[HEADROOM:]))
            for name, frame in self.wire()
            if frame[12:14] == b"\x08\0" and port in ("", name)
        ]

    def arps(self) -> list[tuple[str, bytes, Arp]]:
        """(port, destination, packet) of the ARP packets that left."""
        return [
            (name, frame[:6], Arp.parse(frame[HEADROOM:]))
            for name, frame in self.wire()
            if frame[12:14] == b"\x08\x06"
        ]

    def fabric(self) -> list[tuple[str, Batch]]:
        return [(o.card, o.batch) for o in self.outputs if isinstance(o, ToFabric)]

    def told(self, kind: type) -> list[Any]:
        """The messages of this type for the controller."""
        return [o.message for o in self.outputs if isinstance(o, ToController) and isinstance(o.message, kind)]

    def drops(self) -> dict[str, int]:
        return {
            name.removeprefix("drop "): count
            for name, count in self.card.counters.items()
            if name.startswith("drop ") and count
        }

    def stamps(self) -> list[tuple[int, str]]:
        """What was stamped since the last time."""
        self.do(self.card.on_timer(self.now))
        return [(s.number, s.step) for message in self.told(TraceStamps) for s in message.stamps]


def packets_of(batch: Batch) -> list[Ipv4]:
    return [Ipv4.parse(frame[HEADROOM:]) for frame in batch.packets()]
