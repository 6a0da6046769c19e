"""The configuration of a router for peers that it knows by their addresses: one static tunnel for each peer.

The lines follow a configuration that has the rest: cards, ports, the gateway's own addresses, an ASP group in the
outer context, both contexts' interfaces, and a route to the peers' addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chassis.net.address import format_address, parse_address
from chassis.net.types import Prefix
from chassis.peers.spec import PeersSpec

PATHS: Final = ("circuit-based", "economical", "both")

FIRST_CIRCUIT: Final = (100 << 24) + (64 << 16)
"""First address of the tunnels' own interfaces, in 100.64.0.0/10; each has four."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How a router has the tunnels of the peers of one node.

    `outer` is the context of the tunnels' local ends, `inner` that of their interfaces. `path` of PATHS is how the
    tunnels forward; both: in turn, after versions and the gateway's addresses. `name` begins the name of all that
    is made.

    Raises:
        ValueError: there is no such path.
    """

    name: str
    outer: str
    inner: str
    path: str = "both"

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            raise ValueError(f"{self.path!r} is not one of {', '.join(PATHS)}")

    def lines(self, spec: PeersSpec, first: int = 1) -> Iterator[str]:
        """Return the lines of all peers of a node. The interface of the first has number `first` of all nodes.

        Raises:
            ValueError: the peers are behind NAT.
        """
        if spec.nat:
            raise ValueError(f"the peers of {self.name} are behind NAT: no static tunnel has their addresses")
        yield f"! {spec.count} static tunnels for the peers of {self.name}"
        yield from self._shared(spec)
        for number in range(1, spec.count + 1):
            yield from self._tunnel(spec, number, first + number - 1)

    def is_economical(self, spec: PeersSpec, number: int) -> bool:
        """Return whether the tunnel of a peer is economical."""
        turn = (number - 1) // (len(spec.versions) * len(spec.gateways))
        return self.path == "economical" or (self.path == "both" and turn % 2 == 1)

    def _shared(self, spec: PeersSpec) -> Iterator[str]:
        ike, ipsec = spec.ike, spec.ipsec
        for version in dict.fromkeys(spec.versions):
            yield f"{_ike(version)} proposal {self.name}-{version}"
            for key, line in (
                ("authentication", "authentication algorithm"),
                ("encryption", "encryption algorithm"),
            ):
                if key in ike:
                    yield f"  {line} {ike[key]}"
            if version == 1 and spec.credentials:
                yield f"  authentication {spec.authentication}"
            yield f"  dh-group {ike.get('dh-group', 2)}"
            if version == 2 and "prf" in ike:
                yield f"  pseudo-random-function {ike['prf']}"
            if version == 1 and "lifetime" in ike:
                yield f"  lifetime seconds {ike['lifetime']}"
        yield f"ipsec proposal {self.name}"
        for key in ("encryption", "authentication"):
            if key in ipsec:
                yield f"  esp {key} {ipsec[key]}"
        if "lifetime" in ipsec:
            yield f"  lifetime seconds {ipsec['lifetime']}"
        yield f"ipsec policy {self.name}"
        if "pfs-group" in ipsec:
            yield f"  perfect-forward-secrecy dh-group {ipsec['pfs-group']}"
        yield f"  seq 10 proposal {self.name}"

    def _tunnel(self, spec: PeersSpec, number: int, circuit: int) -> Iterator[str]:
        name, version = f"{self.name}-{number}", spec.version(number)
        local, remote = format_address(spec.towards(number)), format_address(spec.address(number))
        identity = spec.name(number)
        yield f"context {self.outer}"
        yield f"  {_ike(version)} policy {name}"
        yield "    connection-type responder-only"
        if version == 1:
            yield f"    mode {spec.mode}"
        if spec.remote_id:
            yield f"    identity local {_identity(spec.remote_id)}"
        yield f"    identity remote {_identity(identity) if identity else remote}"
        if spec.credentials:
            yield from [f"    authentication {spec.authentication}"] * (version == 2)
        else:
            yield f"    pre-shared-key hex 0x{spec.key(number).hex()}"
        if version == 2 and "lifetime" in spec.ike:
            yield f"    lifetime seconds {spec.ike['lifetime']}"
        yield f"    seq 10 proposal {self.name}-{version}"
        yield f"context {self.inner}"
        yield f"  interface {name}"
        yield f"    ip address {format_address(FIRST_CIRCUIT + (circuit - 1) * 4 + 1)}/30"
        if spec.networks is not None:
            network, behind = _prefix(spec.network(number)), _prefix(spec.networks[1])
            yield f"  ipsec access-list {name}"
            yield f"    seq 10 {behind} {network}"
            yield f"  ip route {network} {name}"
        yield f"tunnel ipsec {name}{' economical' if self.is_economical(spec, number) else ''}"
        yield f"  peer-end-point local {local} remote {remote} context {self.outer}"
        yield f"  bind interface {name} {self.inner}"
        if identity:
            yield f"  remote-id {identity}"
        yield f"  ike-policy {name}"
        yield f"  seq 10 ipsec-policy {self.name}" + (f" access-group {name}" if spec.networks is not None else "")


def gateway_lines(nodes: Sequence[tuple[GatewayConfig, PeersSpec]]) -> Iterator[str]:
    """Return the lines for the peers of several nodes."""
    first = 1
    for config, spec in nodes:
        yield from config.lines(spec, first)
        first += spec.count


def _ike(version: int) -> str:
    return "ike2" if version == 2 else "ike"


def _identity(text: str) -> str:
    try:
        return format_address(parse_address(text))
    except ValueError:
        return f"fqdn {text}"


def _prefix(prefix: Prefix) -> str:
    address, length = prefix
    return f"{format_address(address)}/{length}"
