"""A hub with hundreds of tunnels of every kind: to nodes of peers, and to one charon with many connections.

    sink -- 3/1 [     ] 3/2 -- branches (peers): on-demand, version 2, economical, fifty behind each NAT
                [ hub ] 3/3 -- nomads (peers): on-demand, version 1 in aggressive mode, circuit-based
                [     ] 3/4 -- sites (peers): static, version 1 in main mode and version 2, both path types
                [     ] 3/5 -- swan (charon): on-demand and static, both versions, both path types

Each connection of charon has an address, an identity and a network of its own.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.charon import CONFIGURATION, DEADLINE, PLUGINS, Auth, Conn
from tests.support.strongswan_lab import START

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient

HUB = "hub.example"
INSIDE, SINK = "10.1.0.0/16", "10.1.0.9"
KEY = "one-key-for-all"

BRANCHES, NOMADS, SITES, SWAN = "branches", "nomads", "sites", "swan"
PEERS = (BRANCHES, NOMADS, SITES)

VICI = "vici"
"""Charon's socket, in the folder of its node."""


class Kind(NamedTuple):
    """What a tunnel is, and the hub's address for such tunnels of charon."""

    on_demand: bool
    version: int
    economical: bool

    @property
    def end(self) -> str:
        return f"40.1.0.{1 + KINDS.index(self)}"

    @property
    def name(self) -> str:
        return f"demand-{self.version}-{'economical' if self.economical else 'circuit'}"


KINDS = [
    Kind(on_demand, version, economical)
    for on_demand in (True, False)
    for version in (1, 2)
    for economical in (True, False)
]
OF_BRANCHES = Kind(True, 2, True)
END_OF_NOMADS, END_OF_SITES = "40.1.0.20", "40.1.0.21"


def kind_of_site(number: int) -> Kind:
    """The node's peers have versions 1 and 2 by turns, and the path types two by two."""
    return Kind(False, 2 - number % 2, bool((number - 1) // 2 % 2))


def pair(number: int) -> str:
    """Two octets of an address for a number."""
    return f"{number >> 8}.{number & 255}"


@dataclass(frozen=True)
class Caller:
    """A connection of charon, by its number from 1."""

    number: int

    @property
    def kind(self) -> Kind:
        return KINDS[self.number % len(KINDS)]

    @property
    def outside(self) -> str:
        return f"172.20.{pair(self.number)}"

    @property
    def inside(self) -> str:
        return f"10.20.{pair(self.number)}"

    @property
    def identity(self) -> str:
        return f"s{self.number}.swan.example"

    @property
    def tunnel(self) -> str:
        """Name of its static tunnel at the hub."""
        return f"swan-{self.number}"

    @property
    def conn(self) -> Conn:
        return Conn(
            f"s{self.number}", self.kind.version, self.outside, self.kind.end, Auth(self.identity), Auth(HUB),
            local_ts=f"{self.inside}/32", remote_ts=INSIDE, aggressive=self.kind.version == 1, keyingtries=0,
        )  # fmt: skip


@dataclass(frozen=True)
class LargeLab:
    """How many peers each node has. Charon has connections beyond `swans` too, for which the hub has no room."""

    branches: int
    nomads: int
    sites: int
    swans: int
    further: int = 1

    @property
    def total(self) -> int:
        return self.branches + self.nomads + self.sites + self.swans

    @property
    def callers(self) -> list[Caller]:
        return [Caller(number) for number in range(1, self.swans + 1)]

    @property
    def surplus(self) -> list[Caller]:
        """On-demand ones of charon that are one too many."""
        numbers = range(self.swans + 1, self.swans + 100)
        return [one for one in map(Caller, numbers) if one.kind == OF_BRANCHES][: self.further]

    @property
    def on_demand(self) -> int:
        """Peers that the hub does not know."""
        return self.branches + self.nomads + sum(one.kind.on_demand for one in self.callers)

    # the hub's configuration

    def hub(self) -> str:
        return "".join(
            [
                SHARED,
                "\n".join([*INNER, *self._inner(), *_outer(), POLICIES]),
                *(on_demand_tunnel(kind.name, kind.end, kind, "*.*.example") for kind in KINDS if kind.on_demand),
                on_demand_tunnel("nomads", END_OF_NOMADS, Kind(True, 1, False), "*.nomad.example"),
                *map(self._site, range(1, self.sites + 1)),
                *(
                    static_tunnel(one.tunnel, one.kind.end, one.outside, one.kind, one.identity)
                    for one in self.callers
                    if not one.kind.on_demand
                ),
                PORTS,
            ]
        )

    def _inner(self) -> Iterator[str]:
        for kind in KINDS:
            if kind.on_demand:
                rules = [one.inside + "/32" for one in self.callers if one.kind == kind]
                # Version 2 narrows one rule to what each peer asks for.
                yield from access_list(kind.name, *(rules if kind.version == 1 else ["any"]))
                yield f" ipsec profile {kind.name}"
                yield f"  seq 10 ipsec-policy ipsec-pol access-group {kind.name}"
        for number in range(1, self.sites + 1):
            yield from static_inner(f"site-{number}", f"10.30.{pair(number)}", f"10.200.{pair(2 * number)}")
        for one in self.callers:
            if not one.kind.on_demand:
                yield from static_inner(one.tunnel, one.inside, f"10.210.{pair(2 * one.number)}")

    def _site(self, number: int) -> str:
        return static_tunnel(f"site-{number}", END_OF_SITES, f"10.84.{pair(number)}", kind_of_site(number), "")

    # the lab

    def text(self, **settings: Any) -> str:
        """The lab file. JSON is YAML."""
        shared = {
            "pre-shared-key": KEY, "remote-id": HUB, "ike-proposal": {"dh-group": 2}, "start": "manual",
            "rate": RATE, "at-once": AT_ONCE,
        }  # fmt: skip
        nodes = {
            "hub": {"kind": "smartedge", "config": "hub.cfg"},
            "sink": {"kind": "tester", "ports": {"1": {"address": f"{SINK}/16", "gateway": "10.1.0.1"}}},
            SWAN: self._swan(),
            BRANCHES: {
                **shared, **_node(2, self.branches), "version": 2, "towards": OF_BRANCHES.end,
                "identity": "p{number}.branch.example", "first-network": "10.32.0.0/32",
                "remote-network": INSIDE, "nat": 50, "traffic": TRAFFIC,
            },
            NOMADS: {
                **shared, **_node(3, self.nomads), "version": 1, "towards": END_OF_NOMADS,
                "identity": "p{number}.nomad.example",
            },
            SITES: {
                **shared, **_node(4, self.sites), "version": "both", "towards": END_OF_SITES,
                "first-network": "10.30.0.1/32", "remote-network": INSIDE, "traffic": TRAFFIC,
            },
        }  # fmt: skip
        wires = [("sink:1", "hub:3/1"), *((f"{node}:1", f"hub:3/{port}") for port, node in enumerate(PEERS, 2))]
        links = [{"endpoints": list(wire)} for wire in [*wires, (f"{SWAN}:eth1", "hub:3/5")]]
        return json.dumps({"name": "large", "settings": settings, "topology": {"nodes": nodes, "links": links}})

    def _swan(self) -> dict[str, Any]:
        conf = CONFIGURATION.format(
            plugins=PLUGINS, tries=6, signatures="yes", vici=VICI, log="/run/charon.log", level=0
        )
        callers = [*self.callers, *self.surplus]
        return {
            "kind": "linux",
            "addresses": {
                "eth1": [f"{one.outside}/16" for one in callers],
                "lo": [f"{one.inside}/32" for one in callers],
            },
            "routes": ["40.1.0.0/16 via 172.20.0.254"],
            "files": {"strongswan.conf": conf, "start": START},
            "exec": ["./start"],
            "wait-for": f"test -S {VICI}",
        }


TRAFFIC = {"peers": 8, "to": SINK, "rate": 4}
"""What the first peers of two nodes send: all kinds of static tunnels are among them."""

RATE = 1000
AT_ONCE = 16
"""Peers of a node that are on their way up at a time: as many as two cores can serve without a retransmission."""


def _node(port: int, count: int) -> dict[str, Any]:
    return {
        "kind": "peers",
        "ports": {"1": {"address": f"172.16.{port}.2/24", "gateway": f"172.16.{port}.1"}},
        "peers": count,
        "first-address": f"10.{80 + port}.0.1",
    }


def _outer() -> Iterator[str]:
    yield "context outer"
    for number, address in enumerate([*(kind.end for kind in KINDS), END_OF_NOMADS, END_OF_SITES]):
        yield from (f" interface end-{number} loopback", f"  ip address {address}/32")
    for port in range(2, 5):
        yield from (f" interface to-{port}", f"  ip address 172.16.{port}.1/24")
        yield f" ip route 10.{80 + port}.0.0/16 172.16.{port}.2"
    yield from (" interface to-5", "  ip address 172.20.0.254/16", " asp-group G service security")
    # A peer whose Delete is lost goes too.
    yield " ike keepalive"


def on_demand_tunnel(name: str, end: str, kind: Kind, identity: str) -> str:
    guided = "" if name == "nomads" else " ip route traffic-selector-guided\n"
    return (
        f"tunnel ipsec {name} on-demand{' economical' * kind.economical}\n"
        f" peer-end-point local {end} context outer\n bind interface callers inner\n"
        f" ike-policy aggressive-{kind.version}\n{guided} remote-id {identity}\n"
    )


def access_list(name: str, *networks: str) -> Iterator[str]:
    yield f" ipsec access-list {name}"
    yield from (f"  seq {10 * seq} {INSIDE} {network}" for seq, network in enumerate(networks, 1))


def static_inner(name: str, network: str, link: str) -> Iterator[str]:
    """What a static tunnel has in the inner context."""
    yield from (f" interface {name}", f"  ip address {link}/31")
    yield from access_list(name, f"{network}/32")
    yield f" ip route {network}/32 {name}"


def static_tunnel(name: str, end: str, remote: str, kind: Kind, identity: str) -> str:
    """A peer without an identity is known by its address, so that it may use main mode."""
    mode = "aggressive" if identity or kind.version == 2 else "main"
    return (
        f"tunnel ipsec {name}{' economical' * kind.economical}\n"
        f" peer-end-point local {end} remote {remote} context outer\n bind interface {name} inner\n"
        f" remote-id {identity or remote}\n ike-policy {mode}-{kind.version}\n"
        f" seq 10 ipsec-policy ipsec-pol access-group {name}\n"
    )


SHARED = """\
asp pool P service security
 asp 2/1
 asp 2/2
asp group G
 pool P
 asp-count 2
ike proposal ike-1
 dh-group 2
ike2 proposal ike-2
 dh-group 2
ipsec proposal ipsec-p
 esp encryption aes-128-cbc
 esp authentication hmac-sha1-96
 lifetime seconds 86400
ipsec policy ipsec-pol
 seq 1 proposal ipsec-p
"""

INNER = """\
context inner
 interface lan
  ip address 10.1.0.1/16
 interface callers ipsec multibind
  ip unnumbered lan
 ipsec profile nomads
  seq 10 ipsec-policy ipsec-pol""".splitlines()


def _policy(version: int, mode: str) -> str:
    lines = f"  mode {mode}\n" if version == 1 else ""
    return (
        f" ike{'2' * (version == 2)} policy {mode}-{version}\n  connection-type responder-only\n{lines}"
        f"  identity local fqdn {HUB}\n  pre-shared-key {KEY}\n  seq 1 proposal ike-{version}\n"
    )


POLICIES = "".join([_policy(1, "main"), _policy(1, "aggressive"), _policy(2, "aggressive")])

PORTS = """\
card ase 2
card ether-12-port 3
port ethernet 3/1
 no shutdown
 bind interface lan inner
""" + "".join(f"port ethernet 3/{n}\n no shutdown\n bind interface to-{n} outer\n" for n in range(2, 6))


class ManyCalls:
    """The charon of the lab, told what to do by its own protocol."""

    def __init__(self, lab: LabClient, callers: list[Caller]) -> None:
        import vici

        assert lab.run is not None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(str(lab.run / f"{SWAN}.files" / VICI))
        self._session = vici.Session(self._socket)
        self._session.load_shared({"id": "all", "type": "IKE", "data": KEY.encode(), "owners": [HUB]})
        for one in callers:
            self._session.load_conn({one.conn.name: one.conn.tree()})

    def close(self) -> None:
        self._socket.close()

    def begin(self, *callers: Caller) -> None:
        """Begin connections; `up` tells when they stand."""
        for one in callers:
            list(self._session.initiate({"child": one.conn.child, "ike": one.conn.name, "timeout": "-1"}))

    def refused(self, one: Caller) -> bool:
        """Begin a connection: whether the hub refuses it."""
        import vici

        try:
            list(self._session.initiate({"child": one.conn.child, "ike": one.conn.name, "timeout": "5000"}))
        except vici.exception.CommandException:
            return True
        return False

    def end(self, *callers: Caller) -> None:
        for one in callers:
            list(self._session.terminate({"ike": one.conn.name, "timeout": "-1", "force": "no"}))

    def states(self) -> list[str]:
        """Of each IKE SA that there is the state of its CHILD SA, or else its own."""
        found = []
        for answer in self._session.list_sas():
            for sa in answer.values():
                children = [child["state"].decode() for child in sa["child-sas"].values()]
                found.append(children[0] if children else sa["state"].decode())
        return found
