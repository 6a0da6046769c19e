"""Contents of a lab file as frozen values, made by `launch.lab.parser` (docs/labs.md).

Units: durations in seconds, rates in packets/s, shares 0 to 1, for any notation in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isinf
from pathlib import Path
from typing import Any, Literal

from chassis.model.ipsec import CIPHER_ENGINES
from chassis.xcrp.settings import SYSTEMS
from launch.lab.yaml_source import Marked, YamlPosition

Kind = Literal["smartedge", "tester", "peers", "linux"]

NOWHERE = YamlPosition(0, 0)


@dataclass(frozen=True, slots=True)
class LabSettings:
    """Times of one node (S-112).

    `restart_delay` None: a dead card is not restarted. `ingress_hold` is how long (s) a port may hold frames on a
    crowded machine. `asp_rate` is the rate that each ASP can encapsulate, as `chassis.net.rate.Rate` reads it; ""
    is unlimited. With `refuse_errors` a router with an error in its configuration is not started; else it runs
    without those lines. `cipher_engine` is one of `chassis.model.ipsec.CIPHER_ENGINES`. `os` is one of
    `chassis.xcrp.settings.SYSTEMS`. `capacity` has what the lab makes smaller of `CAPACITIES` there. `ike` has the
    lab's IKE settings, by the names of `chassis.xcrp.settings.IKE`; durations in seconds.
    """

    restart_delay: float | None = 1.0
    heartbeat_interval: float = 0.1
    heartbeat_misses: int = 5
    ingress_hold: float = 0.002
    seed: int = 1
    asp_rate: str = ""
    refuse_errors: bool = False
    os: str = SYSTEMS[0]
    cipher_engine: str = CIPHER_ENGINES[0]
    capacity: Mapping[str, int] = field(default_factory=dict)
    ike: Mapping[str, float | int | bool] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a process of the node gets them."""
        return {
            "restart-delay": self.restart_delay,
            "heartbeat-interval": self.heartbeat_interval,
            "heartbeat-misses": self.heartbeat_misses,
            "ingress-hold": self.ingress_hold,
            "seed": self.seed,
            **({"asp-rate": self.asp_rate} if self.asp_rate else {}),
            **({"refuse-errors": True} if self.refuse_errors else {}),
            **({"os": self.os} if self.os != SYSTEMS[0] else {}),
            **({"cipher-engine": self.cipher_engine} if self.cipher_engine != CIPHER_ENGINES[0] else {}),
            **self.capacity,
            **self.ike,
        }


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How a router is logged in to over SSH: address and port to listen on, and the lab's own login.

    `port` 0 is a free one. `user` is empty without a login of the lab; `password_hash` is a hash of its password
    or empty, `keys` are public keys in OpenSSH's form. `published`: the password hash that the guide prints may
    log in. `urls`: a session may use files of other machines.
    """

    listen: str = "127.0.0.1"
    port: int = 0
    user: str = ""
    password_hash: str = field(default="", repr=False)
    keys: tuple[str, ...] = ()
    published: bool = False
    urls: bool = False


@dataclass(frozen=True, slots=True)
class RouterNode:
    """A router, configured by a file of its own commands.

    `discard_tunnel_routes`: a withdrawn tunnel route becomes a discard route, so that no packet takes a less
    specific route in clear. `flash` is the folder of its PKI stores; with `modern` its configuration may name the
    algorithms of today's peers. `secret` makes and reads the encrypted forms of keys; empty: the router makes one.
    """

    name: str
    config: Path
    discard_tunnel_routes: bool = False
    settings: LabSettings = LabSettings()
    at: YamlPosition = field(default=NOWHERE, compare=False)
    config_at: YamlPosition = field(default=NOWHERE, compare=False)
    flash: Path | None = None
    modern: bool = False
    ssh: SshSettings = SshSettings()
    secret: str = field(default="", repr=False)
    kind: Kind = "smartedge"

    def to_settings(self) -> dict[str, Any]:
        """Return the settings as the router's processes get them."""
        return {
            **self.settings.to_json(),
            "discard-tunnel-routes": self.discard_tunnel_routes,
            "extensions": ["modern"] if self.modern else [],
        }


@dataclass(frozen=True, slots=True)
class TesterPort:
    """`address` is "a.b.c.d/len"; `gateway` is the next hop of everything outside that network."""

    address: str
    gateway: str = ""

    def plain(self) -> dict[str, Any]:
        return {"address": self.address, "gateway": self.gateway}


@dataclass(frozen=True, slots=True)
class TesterNode:
    """A source and sink of numbered traffic."""

    name: str
    ports: Mapping[str, TesterPort]
    settings: LabSettings = LabSettings()
    at: YamlPosition = field(default=NOWHERE, compare=False)
    kind: Kind = "tester"


@dataclass(frozen=True, slots=True)
class PeersNode:
    """Remote peers of one gateway behind one port. `values` are the keys of `chassis.peers.spec`, checked."""

    name: str
    ports: Mapping[str, TesterPort]
    values: Mapping[str, Any] = field(repr=False)
    settings: LabSettings = LabSettings()
    at: YamlPosition = field(default=NOWHERE, compare=False)
    kind: Kind = "peers"


@dataclass(frozen=True, slots=True)
class LinuxNode:
    """A network namespace of the machine's own kernel.

    `addresses` by device; `routes` as `ip route add` takes them; `files` by path; `exec` and `wait_for` are
    shell commands: the first run once in order, the second until each succeeds.
    """

    name: str
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    routes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    exec: tuple[str, ...] = ()
    wait_for: tuple[str, ...] = ()
    settings: LabSettings = LabSettings()
    at: YamlPosition = field(default=NOWHERE, compare=False)
    kind: Kind = "linux"


Node = RouterNode | TesterNode | PeersNode | LinuxNode


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A port of a node: "3/11" of a router, "1" of a tester, "eth1" of a Linux node."""

    node: str
    port: str

    def __str__(self) -> str:
        return f"{self.node}:{self.port}"


@dataclass(frozen=True, slots=True)
class Link:
    """A wire between two ports; with `veth` a pair of Linux devices with raw packet sockets, also between ports
    that do not need them. With `pause` an end of a wire that takes nothing holds the other one back."""

    ends: tuple[Endpoint, Endpoint]
    veth: bool = False
    pause: bool = True
    at: YamlPosition = field(default=NOWHERE, compare=False)

    def __str__(self) -> str:
        return f"{self.ends[0]} - {self.ends[1]}"


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """Numbered UDP packets from one tester port to another.

    `rate` is in packets/s (infinite: as fast as the wire takes them), `size` in octets of the IP packet, `trace`
    the time (s) between traced packets (0: only the first one), `count` the number of packets after which the flow
    ends (0: never). Packets go in turn to the same host of `destinations` /24 networks, from that of `destination`
    on.
    """

    name: str
    origin: Endpoint
    target: Endpoint
    rate: float
    size: int
    source: str
    destination: str
    dscp: int = 0
    trace: float = 0.0
    start: Literal["auto", "manual"] = "auto"
    count: int = 0
    destinations: int = 1
    at: YamlPosition = field(default=NOWHERE, compare=False)

    def plain(self) -> dict[str, Any]:
        """Return the flow as testers get it."""
        return {
            "from": str(self.origin),
            "to": str(self.target),
            "rate": "max" if isinf(self.rate) else self.rate,
            "size": self.size,
            "source": self.source,
            "destination": self.destination,
            "destinations": self.destinations,
            "dscp": self.dscp,
            "trace": self.trace,
            "start": self.start,
            "count": self.count,
        }


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab: nodes, the links between their ports, flows, and its scenario and expectations.

    `scenario` and `expect` are unparsed values with positions; `launch.lab.scenario` reads them.
    """

    name: str
    file: Path
    nodes: Mapping[str, Node]
    links: tuple[Link, ...] = ()
    flows: Mapping[str, FlowSpec] = field(default_factory=dict)
    scenario: tuple[Marked, ...] = ()
    expect: tuple[Marked, ...] = ()

    def routers(self) -> list[RouterNode]:
        return [node for node in self.nodes.values() if isinstance(node, RouterNode)]

    def testers(self) -> list[TesterNode]:
        return [node for node in self.nodes.values() if isinstance(node, TesterNode)]

    def peers(self) -> list[PeersNode]:
        return [node for node in self.nodes.values() if isinstance(node, PeersNode)]

    def linux(self) -> list[LinuxNode]:
        return [node for node in self.nodes.values() if isinstance(node, LinuxNode)]

    def far_end(self, end: Endpoint) -> Endpoint | None:
        """Return the port at the other end of this port's link, or None."""
        for link in self.links:
            if end in link.ends:
                return link.ends[1] if link.ends[0] == end else link.ends[0]
        return None
