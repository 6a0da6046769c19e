"""A hub with on-demand tunnels whose keys RADIUS has, 50 honest peers, and a stranger who forges what he sends.

    honest -- 3/1 [ callers ] 3/11 ==== 3/1 [ hub ] 3/12 -- inside
                            stranger -- 3/2 [     ] 3/3 -- RADIUS server

The honest peers are the tunnels of one router, each with an address, an identity and a key of its own: half of
them begin with IKEv1 in aggressive mode, half with IKEv2.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chassis.aaa.settings import ServerAddress
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.payloads.v1 import IdV1, MessageV1
from chassis.net.address import parse_address
from chassis.net.ipv4 import Ipv4
from chassis.net.udp import Udp
from chassis.sim import testers
from launch import simulate
from tests.support.ike.pair import Ends, first_message, proposal
from tests.support.radius import MemoryServer
from tests.support.sim_shell import SimShell
from tests.support.station import PORT, Station, udp

PEERS = range(1, 51)
END = "10.255.0.1"
"""The hub's end of all tunnels."""
SERVER = "10.99.0.1"
OUTSTANDING = 32
"""Most questions that the hub has open at its RADIUS server."""
REPLY_TIME = 0.02
"""Seconds that the RADIUS server takes."""


def version_of(peer: int) -> int:
    return 1 + peer % 2


def address_of(peer: int) -> str:
    return f"10.200.0.{peer}"


def identity_of(peer: int) -> str:
    return f"peer-{peer}.branch.example"


def key_of(peer: int) -> str:
    return f"the-key-of-{peer}"


_SHARED = """\
card ase 2
card ether-12-port 3
asp pool P service security
  asp 2/1
asp group G
  pool P
  asp-count 1
ike proposal ike-1
  dh-group 2
ike2 proposal ike-2
  dh-group 2
ipsec proposal ipsec-p
  esp encryption aes-128-cbc
  esp authentication hmac-sha1-96
ipsec policy ipsec-pol
  seq 10 proposal ipsec-p
"""


def _ports(**interfaces: str) -> str:
    return "".join(
        f"port ethernet 3/{port[1:]}\n  no shutdown\n  bind interface {name}\n"
        for port, name in interfaces.items()
    )


HUB = (
    _SHARED
    + f"""\
context private
  interface lan
    ip address 10.100.0.1/16
  interface servers
    ip address 10.99.0.254/24
  interface callers ipsec multibind
    ip unnumbered lan
  aaa authentication subscriber radius
  radius server {SERVER} key sesame
  radius timeout 1
  radius max-retries 1
  radius max-outstanding {OUTSTANDING}
"""
    + "".join(
        f"  ipsec access-list ours-{version}\n"
        + "".join(
            f"    seq {peer} 10.100.{peer}.0/24 10.1.{peer}.0/24\n"
            for peer in PEERS
            if version_of(peer) == version
        )
        + f"  ipsec profile dial-{version}\n    seq 10 ipsec-policy ipsec-pol access-group ours-{version}\n"
        for version in (1, 2)
    )
    + f"""\
context public
  interface end loopback
    ip address {END}/32
  interface to-callers
    ip address 172.16.1.1/24
  interface to-all
    ip address 172.16.2.1/24
  ip route 10.200.0.0/24 172.16.1.2
  ip route 0.0.0.0/0 172.16.2.9
  asp-group G service security
"""
    + "".join(
        f"  {word} policy dial-{version}\n    connection-type responder-only\n{mode}"
        f"    identity local fqdn hub.example\n    pre-shared-key use-aaa\n    seq 10 proposal ike-{version}\n"
        for version, word, mode in ((1, "ike", "    mode aggressive\n"), (2, "ike2", ""))
    )
    + "".join(
        f"tunnel ipsec dial-{version} on-demand economical\n"
        f"  peer-end-point local {END} context public\n  bind interface callers private\n"
        f"  ip route traffic-selector-guided\n  remote-id *.branch.example\n  ike-policy dial-{version}\n"
        for version in (1, 2)
    )
    + _ports(p1="to-callers public", p2="to-all public", p3="servers private", p12="lan private")
)

CALLERS = (
    _SHARED
    + "context private\n  interface lan\n    ip address 10.1.0.1/16\n"
    + "".join(
        f"  interface TI-{peer}\n    ip address 192.168.{peer}.2/30\n"
        f"  ipsec access-list acl-{peer}\n    seq 10 10.1.{peer}.0/24 10.100.{peer}.0/24\n"
        for peer in PEERS
    )
    + "context public\n  interface to-hub\n    ip address 172.16.1.2/24\n"
    + f"  ip route {END}/32 172.16.1.1\n  asp-group G service security\n"
    + "".join(
        f"  interface end-{peer} loopback\n    ip address {address_of(peer)}/32\n"
        f"  {'ike' if version_of(peer) == 1 else 'ike2'} policy pol-{peer}\n    connection-type initiator-only\n"
        f"{'    mode aggressive' + chr(10) if version_of(peer) == 1 else ''}"
        f"    identity local fqdn {identity_of(peer)}\n    pre-shared-key {key_of(peer)}\n"
        f"    seq 10 proposal ike-{version_of(peer)}\n"
        for peer in PEERS
    )
    + "".join(
        f"tunnel ipsec t-{peer} economical\n"
        f"  peer-end-point local {address_of(peer)} remote {END} context public\n"
        f"  bind interface TI-{peer} private\n  ip route traffic-selector-guided\n  remote-id hub.example\n"
        f"  ike-policy pol-{peer}\n  seq 10 ipsec-policy ipsec-pol access-group acl-{peer}\n"
        for peer in PEERS
    )
    + _ports(p1="lan private", p11="to-hub public")
)


@dataclass
class Server:
    """The RADIUS server on its wire, and what it saw."""

    memory: MemoryServer = field(
        default_factory=lambda: MemoryServer(
            ServerAddress(SERVER, 1812, b"sesame"),
            {identity_of(peer): {"Security-Service": f"ike pre-shared-key {key_of(peer)}"} for peer in PEERS},
        )
    )
    asked: list[tuple[float, str]] = field(default_factory=list)
    """When it was asked about whom."""
    most: int = 0
    """Most questions that it had at a time."""
    most_of_one: int = 0
    """Most questions about one identity that it had at a time."""
    _open: list[tuple[float, str]] = field(default_factory=list)
    """When it answers about whom."""

    def hear(self, packet: Ipv4, datagram: Udp, now: float) -> Sequence[tuple[float, Ipv4]]:
        if datagram.destination_port != self.memory.address.port:
            return ()
        reply = self.memory.reply_to(datagram.payload)
        assert reply is not None
        identity = self.memory.requests.pop()["User-Name"][0]
        self.memory.raw.clear()
        self.asked.append((now, identity))
        self._open = [*(one for one in self._open if one[0] > now), (now + REPLY_TIME, identity)]
        self.most = max(self.most, len(self._open))
        self.most_of_one = max(self.most_of_one, sum(name == identity for _, name in self._open))
        back = udp(packet.destination, datagram.destination_port, packet.source, datagram.source_port, reply)
        return ((REPLY_TIME, back),)

    def shortest_pause(self) -> float:
        """Seconds between two questions about one identity that is not known, at least."""
        last: dict[str, float] = {}
        shortest = inf
        for at, identity in self.asked:
            if identity not in self.memory.users:
                shortest = min(shortest, at - last.get(identity, -inf))
                last[identity] = at
        return shortest


class Forger:
    """Makes well-formed first messages, from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._numbers = count(1)
        ends = Ends(version=1, mode="aggressive", identity_local="x.example", identity_remote="hub.example")
        one = replace(ends, proposals=(proposal(1, dh_group=2),))
        self._aggressive = MessageV1.parse(first_message(one))
        self._init = first_message(Ends(version=2, proposals=(proposal(2, dh_group=2),)))
        self._ways = (
            lambda: self.aggressive(self.anybody(), self.unknown()),
            lambda: self.aggressive(self.anybody(), self.honest()[1]),
            lambda: self.aggressive(*self.honest()),
            lambda: self.aggressive(self.few(), self.unknown()),
            lambda: self.aggressive(self.few(), self.honest()[1]),
            lambda: self.init(self.anybody()),
            lambda: self.init(self.honest()[0]),
            lambda: self.init(self.few()),
        )

    def packets(self, number: int) -> list[Ipv4]:
        return [self._random.choice(self._ways)() for _ in range(number)]

    def anybody(self) -> int:
        return parse_address("60.0.0.0") + self._random.randrange(1, 1 << 24)

    def few(self) -> int:
        return parse_address("70.0.0.0") + self._random.randrange(1, 5)

    def honest(self) -> tuple[int, str]:
        peer = self._random.choice(PEERS)
        return parse_address(address_of(peer)), identity_of(peer)

    def unknown(self) -> str:
        """An identity that RADIUS does not know: one of a few, or a new one."""
        number = self._random.choice((self._random.randrange(20), 100 + next(self._numbers)))
        return f"nobody-{number}.branch.example"

    def aggressive(self, source: int, identity: str) -> Ipv4:
        """AM1 with a KE payload, in the name of somebody."""
        payloads = tuple(
            IkeIdentity.of(identity).v1() if isinstance(one, IdV1) else one for one in self._aggressive.payloads
        )
        head = replace(self._aggressive.header, spi_i=self._random.randbytes(8))
        return udp(source, 500, parse_address(END), 500, MessageV1(head, payloads).emit())

    def init(self, source: int) -> Ipv4:
        """IKE_SA_INIT with a KE payload."""
        data = self._random.randbytes(8) + self._init[8:]
        return udp(source, 500, parse_address(END), 500, data)


class FloodedLab(SimShell):
    """The lab, booted. Nothing is forged before `flood`."""

    def __init__(self, folder: Path, seed: int = 1, **settings: Any) -> None:
        self.server = Server()
        self.forger = Forger(seed)
        self.forged = 0
        self.began = inf
        """When the first datagram was forged."""
        self.echoed: Counter[int] = Counter()
        """Echoes by peer."""
        self.answered = 0
        """Datagrams that the hub sent to forged addresses."""
        heard = (
            ("honest", "10.1.0.1", self._on_echo),
            ("inside", "10.100.0.1", self._echo),
            ("radius", "10.99.0.254", self.server.hear),
            ("stranger", "172.16.2.1", self._on_answer),
        )
        self.stations = {
            name: Station(number, parse_address(router), hear) for number, (name, router, hear) in enumerate(heard)
        }
        stations = tuple(
            testers.TesterModel(name, partial(_engine, one), (PORT,), ()) for name, one in self.stations.items()
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(simulate, "SA_SLOTS", 1024)
            super().__init__(_write(folder, settings), seed, lambda made: replace(made, testers=stations))

    def flood(self, seconds: float, rate: int = 1000) -> Iterator[float]:
        """Forge so many datagrams a second; yields the time each 10 ms."""
        end = self.run.world.now + seconds
        self.began = min(self.began, self.run.world.now)
        while self.run.world.now < end:
            number = rate // 100
            self.forged += number
            self.send_by("stranger", self.forger.packets(number))
            self.pass_time(0.01)
            yield self.run.world.now

    def cut(self) -> None:
        """Cut the wire between the honest peers and the hub."""
        for end in self.run.between:
            end.impair(down=True)

    def join(self) -> None:
        """Join it again: now the honest peers begin."""
        for end in self.run.between:
            end.impair(clear=True)

    def send_by(self, station: str, packets: list[Ipv4]) -> None:
        process = self.testers[station]
        process.finish_call(self.stations[station].send(packets))

    def echo(self, peer: int) -> None:
        """A packet of an honest peer to the inside, which is sent back."""
        source, destination = parse_address(f"10.1.{peer}.9"), parse_address(f"10.100.{peer}.9")
        self.send_by("honest", [udp(source, 7, destination, 7, b"hello")])

    def _echo(self, packet: Ipv4, datagram: Udp, now: float) -> Sequence[tuple[float, Ipv4]]:
        return ((0.0, udp(packet.destination, 7, packet.source, 7, datagram.payload)),)

    def _on_echo(self, packet: Ipv4, datagram: Udp, now: float) -> Sequence[tuple[float, Ipv4]]:
        self.echoed[packet.destination >> 8 & 255] += 1
        return ()

    def _on_answer(self, packet: Ipv4, datagram: Udp, now: float) -> Sequence[tuple[float, Ipv4]]:
        self.answered += 1
        return ()

    # what is kept

    @property
    def ike(self) -> Any:
        """The IKE engine of the hub's ASP."""
        process = self.routers["hub"].cards["asp 2/1"].ike_process
        assert process is not None
        return process.engine

    @property
    def controller(self) -> Any:
        process = self.routers["hub"].controller
        assert process is not None
        return process.engine

    def up(self) -> dict[str, int]:
        """The tunnels that are up at the hub, by the peer's identity."""
        node = self.controller.node
        return {
            plan.instance.identity: number
            for number, plan in node.plan.tunnels.items()
            if plan.instance is not None and node.tunnel_up(number)
        }

    def established(self) -> set[bytes]:
        """SPIs of the hub's IKE SAs."""
        return {spi for spi, session in self.ike.ike_sa_manager.table.by_spi.items() if session.established}

    def tables(self) -> dict[str, int]:
        """Entries of what the hub keeps about strangers."""
        manager, receiver = self.ike.ike_sa_manager, self.ike._receiver
        controller = self.controller
        aaa = controller._peers.aaa._client
        asp = self.routers["hub"].cards["asp 2/1"].engine
        return {
            "half open": manager.table.half_open,
            "sessions": len(manager.table.by_spi) - len(self.established()),
            "timers": len(manager.table._timers),
            "first messages": len(manager.table._by_init),
            "refused messages": len(receiver._refused),
            "counts without a tunnel": manager.statistics.unassigned_count,
            "questions of IKE": len(manager.questions),
            "questions of the ASP": len(asp.ike._questions),
            "questions of the controller": len(controller._on_demand._asked),
            "kept answers": len(controller._on_demand._answers),
            "questions to RADIUS": aaa.open_questions,
            "remembered rejects": len(aaa._questions._rejects),
            "timers of RADIUS": len(aaa._transport._timers),
        }

    def log_lines(self) -> int:
        """Lines that the hub's log has got."""
        number: int = self.ask("hub", "log", {"last": 1})["records"][-1]["number"]
        return number


def _engine(station: Station) -> Station:
    return station


def _write(folder: Path, settings: dict[str, Any]) -> Path:
    (folder / "hub.cfg").write_text(HUB)
    (folder / "callers.cfg").write_text(CALLERS)
    testers = ("honest", "inside", "radius", "stranger")
    wires = (
        ("callers:3/11", "hub:3/1"), ("honest:1", "callers:3/1"), ("inside:1", "hub:3/12"),
        ("radius:1", "hub:3/3"), ("stranger:1", "hub:3/2"),
    )  # fmt: skip
    topology: dict[str, Any] = {
        "nodes": {
            **{name: {"kind": "smartedge", "config": f"{name}.cfg"} for name in ("hub", "callers")},
            **{name: {"kind": "tester", "ports": {PORT: {"address": "10.0.0.1/16", "gateway": "10.0.0.2"}}}
               for name in testers},
        },
        "links": [{"endpoints": list(wire)} for wire in wires],
    }  # fmt: skip
    path = folder / "lab.yaml"
    path.write_text(json.dumps({"name": "flooded", "settings": settings, "topology": topology}))
    return path
