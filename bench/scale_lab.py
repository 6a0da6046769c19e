"""The lab of `bench.scale`: one chassis of four ASE cards, and eight nodes that play its remote peers.

Each ASP has one on-demand tunnel, at a local address of its own, with an eighth of the peers. Of every four
tunnels one has IKEv2 and is economical, one has IKEv2 and is circuit-based, and two are the same with IKEv1 in
aggressive mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from chassis.net.address import format_address

CARDS: Final = (1, 2, 4, 5)
ASPS: Final = tuple(f"{card}/{number}" for card in CARDS for number in (1, 2))
ROUTER: Final = "hub"
DPD_INTERVAL: Final = "120s"
INNER: Final = 0x0A000000 | 128 << 16
"""Inner networks of all peers, /30 each: the second half of 10.0.0.0/8."""
OUTER: Final = 0x14000000
"""Outer addresses of all peers: 20.0.0.0/8, an eighth of a million for each node."""
OWN: Final = "10.1.0.0/16"

SHARED: Final = f"""\
asp pool P service security
{{pool}}
asp group G
  pool P
  asp-count {len(ASPS)}
ike2 proposal version-2
  dh-group 2
ike proposal version-1
  dh-group 2
ipsec proposal esp
  esp encryption aes-128-cbc
  esp authentication hmac-sha1-96
ipsec policy esp
  seq 10 proposal esp
{{cards}}
card ether-12-port 3
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One on-demand tunnel, numbered from 1, and the node of its peers."""

    number: int

    @property
    def node(self) -> str:
        return f"p{self.number}"

    @property
    def version(self) -> int:
        return 1 + self.number % 2

    @property
    def economical(self) -> bool:
        return self.number % 4 < 2

    @property
    def name(self) -> str:
        return f"t{self.number}"

    @property
    def end(self) -> str:
        """The local end point of the tunnel."""
        return f"10.0.255.{self.number}"

    @property
    def first(self) -> int:
        """Outer address of the first peer."""
        return OUTER + (self.number << 17)

    @property
    def first_network(self) -> int:
        return INNER + (self.number - 1 << 19)

    @property
    def networks(self) -> dict[str, str]:
        """The inner networks of a node's keys. IKEv1 does not narrow an access list, so its peers have none."""
        if self.version == 1:
            return {}
        return {"first-network": f"{format_address(self.first_network)}/30", "remote-network": OWN}

    @property
    def asp(self) -> str:
        """The ASP that gets the tunnel: local addresses are dealt out in order."""
        return ASPS[self.number - 1]


KINDS: Final = tuple(map(Kind, range(1, len(ASPS) + 1)))


def write(folder: Path, count: int, at_once: int) -> Path:
    """Write the lab of `count` peers, `at_once` of them negotiating at a time. Return its file."""
    (folder / "hub.cfg").write_text("\n".join(_configuration()) + "\n")
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(_lab(count, at_once), sort_keys=False))
    return path


def _lab(count: int, at_once: int) -> dict[str, Any]:
    nodes: dict[str, Any] = {ROUTER: {"kind": "smartedge", "config": "hub.cfg"}}
    for kind in KINDS:
        number = kind.number
        nodes[kind.node] = {
            "kind": "peers",
            "ports": {"1": {"address": f"172.16.{number}.2/24", "gateway": f"172.16.{number}.1"}},
            "peers": count // len(KINDS),
            "first-address": format_address(kind.first),
            "towards": kind.end,
            "version": kind.version,
            "identity": f"p{{number}}.{kind.name}.example",
            "remote-id": "hub.example",
            "pre-shared-key": f"the-key-of-{kind.name}",
            **kind.networks,
            "ike-proposal": {"dh-group": 2},
            "rate": 1000.0,
            "at-once": max(at_once // len(KINDS), 1),
            "start": "manual",
        }
    return {
        "name": "scale",
        "settings": {"dpd-interval": DPD_INTERVAL},
        "topology": {
            "nodes": nodes,
            "links": [{"endpoints": [f"{kind.node}:1", f"{ROUTER}:3/{kind.number}"]} for kind in KINDS],
        },
    }


def _configuration() -> Iterator[str]:
    yield SHARED.format(
        pool="\n".join(f"  asp {name}" for name in ASPS), cards="\n".join(f"card ase {card}" for card in CARDS)
    )
    yield "context private"
    yield "  interface lan\n    ip address 10.1.0.1/16"
    yield "  interface callers ipsec multibind\n    ip unnumbered lan"
    for kind in KINDS:
        if kind.networks:
            yield f"  ipsec access-list {kind.name}\n    seq 10 {OWN} {format_address(kind.first_network)}/13"
        group = f" access-group {kind.name}" if kind.networks else ""
        yield f"  ipsec profile {kind.name}\n    seq 10 ipsec-policy esp{group}"
    yield "context public\n  ike keepalive\n  asp-group G service security"
    for kind in KINDS:
        yield f"  interface end-{kind.number} loopback\n    ip address {kind.end}/32"
        yield f"  interface to-{kind.number}\n    ip address 172.16.{kind.number}.1/24"
        yield f"  ip route {format_address(kind.first)}/15 172.16.{kind.number}.2"
        two = kind.version == 2
        yield f"  ike{'2' * two} policy {kind.name}\n    connection-type responder-only"
        if not two:
            yield "    mode aggressive"
        yield f"    identity local fqdn hub.example\n    pre-shared-key the-key-of-{kind.name}"
        yield f"    seq 10 proposal version-{kind.version}"
    for kind in KINDS:
        yield f"tunnel ipsec {kind.name} on-demand{' economical' * kind.economical}"
        yield f"  peer-end-point local {kind.end} context public"
        yield "  bind interface callers private"
        if kind.networks:
            yield "  ip route traffic-selector-guided"
        yield f"  remote-id *.{kind.name}.example"
        yield f"  ike-policy {kind.name}"
    for kind in KINDS:
        yield f"port ethernet 3/{kind.number}\n  no shutdown\n  bind interface to-{kind.number} public"
    yield "port ethernet 3/12\n  no shutdown\n  bind interface lan private"
