"""A lab of a hub with on-demand tunnels, and strongSwan as its remote peers: one without NAT, two behind one.

    sink -- 3/1 [ hub ] 3/11 -- [ net ] -- [ far: charon ]
                  3/2              |
                   |               +----- [ nat ] -- [ left: charon ]
                 [ aaa ]                     +------ [ right: charon ]

Peers have several addresses, and each connection of a daemon may have an identity of its own: to the hub that is a
peer of its own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from launch.lab.model import LinuxNode
from tests.support.charon import CONFIGURATION, PLUGINS, Auth, Conn, swanctl_conf
from tests.support.strongswan_lab import LOAD, START, VICI

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient

HUB_IDENTITY = "hub.example"
INSIDE = "10.1.0.0/16"
SINK = "10.1.0.9"

FAR = tuple(f"50.0.2.{number}" for number in range(1, 6))
"""Addresses of the peer that is not behind NAT."""
NAT, OTHER_NAT = "50.0.1.1", "50.0.1.2"
"""Addresses by which the hub sees the peers behind NAT, one after the other."""
LEFT, RIGHT = "192.168.7.2", "192.168.8.2"

EXACT, PARTIAL, WILDCARD, AGGRESSIVE, LIMITED, ASSIGNED = (
    "exact", "partial", "wildcard", "aggressive", "limited", "assigned",
)  # fmt: skip
ENDS = {
    EXACT: "40.1.0.1", PARTIAL: "40.1.0.1", WILDCARD: "40.1.0.1", AGGRESSIVE: "40.1.0.2", LIMITED: "40.1.0.3",
    ASSIGNED: "40.1.0.4",
}  # fmt: skip
"""Local address of each on-demand tunnel: the first three share one, and what the peer says it is decides."""
IDENTITIES = {
    EXACT: "one.branch.example", PARTIAL: "*.branch.example", WILDCARD: "*", AGGRESSIVE: "*.*.example",
    LIMITED: "", ASSIGNED: "",
}  # fmt: skip
MOST = 2
"""Peers that the tunnel `limited` takes."""


def key_of(tunnel: str) -> str:
    """The preshared key of an on-demand tunnel: a peer that is matched with another one is not authenticated."""
    return f"key-of-{tunnel}"


def _policy(tunnel: str) -> str:
    version, lines = ("ike", "    mode aggressive\n") if tunnel == AGGRESSIVE else ("ike2", "")
    return (
        f"  {version} policy {tunnel}\n    connection-type responder-only\n{lines}"
        f"    identity local fqdn {HUB_IDENTITY}\n    pre-shared-key {key_of(tunnel)}\n"
        f"    seq 1 proposal {version}-p\n"
    )


def on_demand_tunnel(tunnel: str, mode: str, more: str = "") -> str:
    identity = f"  remote-id {IDENTITIES[tunnel]}\n" if IDENTITIES[tunnel] else ""
    return (
        f"tunnel ipsec {tunnel} on-demand{mode}\n  peer-end-point local {ENDS[tunnel]} context outer\n"
        f"  bind interface callers inner\n  ike-policy {tunnel}\n  ip route traffic-selector-guided\n"
        f"{identity}{more}"
    )


ROUTER = f"""\
asp pool P service security
  asp 2/1
asp group G
  pool P
  asp-count 1

ike proposal ike-p
  dh-group 2
ike2 proposal ike2-p
  dh-group 2
ipsec proposal ipsec-p
  esp encryption aes-128-cbc
  esp authentication hmac-sha1-96
ipsec policy ipsec-pol
  seq 1 proposal ipsec-p

context inner
  interface lan
    ip address 10.1.0.1/16
  interface servers
    ip address 10.99.0.1/24
  interface callers ipsec multibind
    ip unnumbered lan
  ipsec access-list ours
    seq 10 {INSIDE} any
  ipsec access-list ours-v1
    seq 10 {INSIDE} 10.2.11.0/24
    seq 20 {INSIDE} 10.2.12.0/24
{
    "".join(
        f'''  ipsec profile {name}
    seq 10 ipsec-policy ipsec-pol access-group {"ours-v1" if name == AGGRESSIVE else "ours"}
'''
        for name in ENDS
        if name != ASSIGNED
    )
}
context outer
  interface wan
    ip address 40.0.0.1/24
{
    "".join(
        f'''  interface end-{number} loopback
    ip address {address}/32
'''
        for number, address in enumerate(sorted(set(ENDS.values())))
    )
}\
  ip route 0.0.0.0/0 40.0.0.254
  asp-group G service security
  ike keepalive
{"".join(map(_policy, ENDS))}
{on_demand_tunnel(EXACT, " economical")}
{on_demand_tunnel(PARTIAL, "")}
{on_demand_tunnel(WILDCARD, " economical")}
{on_demand_tunnel(AGGRESSIVE, "")}
{on_demand_tunnel(LIMITED, " economical", f"  max-tunnels {MOST}")}
card ase 2
card ether-12-port 3
port ethernet 3/1
  no shutdown
  bind interface lan inner
port ethernet 3/2
  no shutdown
  bind interface servers inner
port ethernet 3/11
  no shutdown
  bind interface wan outer
"""

FORWARD = "echo 1 > /proc/sys/net/ipv4/ip_forward"

MASQUERADE = (
    "nft add table ip nat",
    "nft add chain ip nat out '{ type nat hook postrouting priority 100 ; }'",
    "nft add rule ip nat out oifname eth0 masquerade",
)


def _linux(addresses: Mapping[str, Any], routes: str, run: list[str], charon: bool = False) -> dict[str, Any]:
    node: dict[str, Any] = {"kind": "linux", "addresses": addresses, "exec": run}
    if routes:
        node["routes"] = routes
    if charon:
        conf = CONFIGURATION.format(
            plugins=PLUGINS, tries=6, signatures="yes", vici=VICI, log="/run/charon.log", level=1
        )
        node["files"] = {"strongswan.conf": conf, "swanctl.conf": "", "start": START, "load": LOAD}
        node["exec"] = [*run, "./start"]
        node["wait-for"] = "./load"
    return node


def behind_nat() -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and links of the two peers behind NAT."""
    nat = {"eth0": f"{NAT}/24", "eth1": "192.168.7.254/24", "eth2": "192.168.8.254/24"}
    return {
        "nat": _linux(nat, "default via 50.0.1.254", [FORWARD, *MASQUERADE]),
        "left": _linux({"eth0": f"{LEFT}/24", "lo": "10.3.1.1/32"}, "default via 192.168.7.254", [], True),
        "right": _linux({"eth0": f"{RIGHT}/24", "lo": "10.3.2.1/32"}, "default via 192.168.8.254", [], True),
    }, [("net:eth1", "nat:eth0"), ("nat:eth1", "left:eth0"), ("nat:eth2", "right:eth0")]


def lab_text(nodes: Mapping[str, Any], links: Sequence[tuple[str, str]]) -> str:
    """The lab file of the hub, the peer `far`, and further nodes and links. JSON is YAML."""
    net = {"eth0": "40.0.0.254/24", "eth1": "50.0.1.254/24", "eth2": "50.0.2.254/24"}
    if not any("net:eth1" in link for link in links):
        del net["eth1"]
    far = {"eth0": [f"{address}/24" for address in FAR], "lo": [f"10.2.{n}.1/32" for n in range(1, 31)]}
    topology: dict[str, Any] = {
        "hub": {"kind": "smartedge", "config": "hub.cfg"},
        "sink": {"kind": "tester", "ports": {"1": {"address": f"{SINK}/16", "gateway": "10.1.0.1"}}},
        "net": _linux(net, "40.1.0.0/16 via 40.0.0.1", [FORWARD]),
        "far": _linux(far, "default via 50.0.2.254", [], True),
        **nodes,
    }
    wires = [("sink:1", "hub:3/1"), ("net:eth0", "hub:3/11"), ("net:eth2", "far:eth0"), *links]
    return json.dumps(
        {
            "name": "remote-peers",
            "settings": {
                "restart-delay": "200ms", "dpd-interval": "300ms", "dpd-retries": 3, "ike-retry-delay": "200ms",
            },
            "topology": {"nodes": topology, "links": [{"endpoints": list(wire)} for wire in wires]},
        }
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Caller:
    """A connection of a peer to an on-demand tunnel of the hub."""

    conn: Conn
    tunnel: str
    key: str
    assigned: str = ""
    """The address that the hub gives it; empty: it has what it protects itself."""

    @property
    def identity(self) -> str:
        return self.conn.us.id

    @property
    def network(self) -> str:
        """What the peer protects."""
        return f"{self.assigned}/32" if self.assigned else self.conn.local_ts

    @property
    def source(self) -> str:
        """An address in it that the peer has."""
        network, _, length = self.network.partition("/")
        return network if length == "32" else f"{network.rpartition('.')[0]}.1"

    def but(self, **conn: Any) -> Caller:
        """The same with other values of the connection."""
        return replace(self, conn=replace(self.conn, **conn))


def caller(
    name: str, tunnel: str, identity: str, network: str, local: str = FAR[0], *, version: int = 2, **more: Any
) -> Caller:
    """A peer that says `identity` and protects `network`."""
    conn = Conn(
        name, version, local, ENDS[tunnel], Auth(identity), Auth(HUB_IDENTITY),
        local_ts=network, remote_ts=INSIDE, aggressive=version == 1,
    )  # fmt: skip
    return Caller(replace(conn, **more), tunnel, key_of(tunnel))


def dialer(name: str, key: str, assigned: str, local: str) -> Caller:
    """A peer whose key and address RADIUS has, by its identity."""
    made = caller(name, ASSIGNED, f"{name}.dial.example", "dynamic", local, more={"vips": ["0.0.0.0"]})
    return replace(made, key=key, assigned=assigned)


class RemotePeer:
    """A Linux node of the lab with a charon in it."""

    def __init__(self, lab: LabClient, node: str) -> None:
        self.lab, self.node = lab, node

    def attempt(self, command: str) -> tuple[int, str]:
        """A shell command in the node: its exit status and output."""
        answer = self.lab.ask("", "exec", {"node": self.node, "command": command})
        return int(answer["code"]), str(answer["output"])

    def run(self, command: str) -> str:
        """The output of a shell command; AssertionError with it when it fails."""
        code, output = self.attempt(command)
        assert code == 0, f"{self.node}: {command}: {output}\n{self.log()}"
        return output

    def log(self) -> str:
        return self.attempt("tail -n 30 /run/charon.log")[1]

    def swanctl(self, words: str) -> tuple[int, str]:
        return self.attempt(f"STRONGSWAN_CONF=$PWD/strongswan.conf swanctl {words} --uri unix://{VICI}")

    def load(self, *callers: Caller) -> None:
        """Give the daemon these connections and their keys, and no others."""
        # A key is found by both identities.
        conf = swanctl_conf([one.conn for one in callers], {})
        secrets = "".join(
            f'  ike-{number} {{\n    secret = "{one.key}"\n    id-1 = {one.identity}\n'
            f"    id-2 = {HUB_IDENTITY}\n  }}\n"
            for number, one in enumerate(callers)
        )
        conf = re.sub(r"secrets \{\n\}\n", lambda _: f"secrets {{\n{secrets}}}\n", conf)
        self.run(f"printf %s {shlex.quote(conf)} > swanctl.conf && ./load")

    def initiate(self, one: Caller) -> None:
        """Bring a connection up."""
        code, output = self.swanctl(f"--initiate --child {one.conn.child} --timeout 5")
        assert code == 0, f"{output}\n{self.log()}"

    def refused(self, one: Caller) -> str:
        """What the daemon says of a connection that the hub refuses."""
        code, output = self.swanctl(f"--initiate --child {one.conn.child} --timeout 5")
        assert code != 0, output
        return output

    def terminate(self, one: Caller) -> None:
        code, output = self.swanctl(f"--terminate --ike {one.conn.name} --timeout 5")
        assert code == 0, output

    def reset(self) -> None:
        """End what stands."""
        for name in set(re.findall(r"^(\S+): #", self.swanctl("--list-sas")[1], re.MULTILINE)):
            self.swanctl(f"--terminate --ike {name} --force --timeout 5")

    def ping(self, source: str, size: int = 100, count: int = 2) -> None:
        """Packets to the sink behind the hub and back."""
        self.run(f"ping -c {count} -i 0.05 -W 2 -M do -s {size - 28} -I {source} {SINK}")

    def reaches(self, source: str) -> bool:
        """Whether one packet gets to the sink and back."""
        return self.attempt(f"ping -c 1 -W 1 -I {source} {SINK}")[0] == 0


@dataclass(frozen=True)
class Hub:
    """What the hub says of its on-demand tunnels."""

    lab: LabClient

    def instances(self, tunnel: str = "") -> dict[str, dict[str, Any]]:
        """Rows of the peers' tunnels by identity, of one on-demand tunnel or all."""
        answer = self.lab.ask("hub", "tunnels", {"kind": "on-demand"})
        rows = [row for row in answer["tunnels"] if row.get("identity") and tunnel in ("", row["name"])]
        return {row["identity"]: row for row in rows}

    def routes(self) -> set[str]:
        """Prefixes behind peers that the hub routes into tunnels."""
        rows = self.lab.ask("hub", "routes", {"context": "inner"})["routes"]
        return {row["prefix"] for row in rows if row["prefix"].startswith(("10.2.", "10.3.", "10.50."))}

    def logged(self, text: str) -> bool:
        """Whether a line of the log has this text."""
        return any(text in row["text"] for row in self.lab.ask("hub", "log", {"last": 100})["records"])


class Field:
    """The lab, its hub and its Linux nodes."""

    def __init__(self, lab: LabClient) -> None:
        self.lab, self.hub = lab, Hub(lab)
        self.peers = {
            name: RemotePeer(lab, name) for name in lab.file.nodes if isinstance(lab.file.nodes[name], LinuxNode)
        }
        self.far = self.peers["far"]

    def up(self, peer: RemotePeer, *callers: Caller) -> None:
        """Bring peers up: each has an instance of its tunnel, a route, and traffic both ways."""
        for one in callers:
            peer.initiate(one)
            self.stands(one)
            peer.ping(one.source)

    def stands(self, one: Caller) -> None:
        self.lab.wait_until(lambda: self.hub.instances(one.tunnel).get(one.identity, {}).get("up"))
        self.lab.wait_until(lambda: one.network in self.hub.routes())

    def end(self, peer: RemotePeer, *callers: Caller) -> None:
        """End peers: instances and routes go with them."""
        for one in callers:
            peer.terminate(one)
            self.gone(one)

    def reset(self) -> None:
        for peer in self.peers.values():
            peer.reset()
        self.lab.wait_until(lambda: not self.hub.instances())

    def gone(self, one: Caller) -> None:
        self.lab.wait_until(lambda: one.identity not in self.hub.instances())
        self.lab.wait_until(lambda: one.network not in self.hub.routes())
