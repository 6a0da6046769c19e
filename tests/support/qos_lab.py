"""A lab about queues, made of configuration alone: four ports of a router whose packets all go into one tunnel.

Tester t1 sends by a port for each class, router a protects, router b and tester t2 receive. What marks the
packets, what the tunnel's queues are and what the ASP can do is in the configuration of a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.sim_shell import SimShell

PORTS = (1, 2, 3, 4)

KINDS = {
    "manual": "tunnel ipsec office manual",
    "manual economical": "tunnel ipsec office manual economical",
    "static": "tunnel ipsec office",
    "static economical": "tunnel ipsec office economical",
}
"""Tunnels by kind; economical ones have no circuit at a line card."""

_KEYS = """
ipsec security-association {name}
  in
    esp encryption aes-128-cbc key 0x{inward}
    esp authentication hmac-sha1-96 key 0x{inward}00000000
    esp spi {spi_in}
  out
    esp encryption aes-128-cbc key 0x{outward}
    esp authentication hmac-sha1-96 key 0x{outward}00000000
    esp spi {spi_out}
"""

_NEGOTIATED = """
ike2 proposal ike
  authentication algorithm hmac-sha1-96
  encryption algorithm aes-128-cbc
  pseudo-random-function hmac-sha1
  dh-group 14
ipsec proposal esp
  esp encryption aes-128-cbc
  esp authentication hmac-sha1-96
ipsec policy protect
  seq 10 proposal esp
"""

_IKE_POLICY = """
  ike2 policy peer
    pre-shared-key a-key-of-the-test
    connection-type both
    seq 10 proposal ike
    identity local {local}
    identity remote {remote}
"""


@dataclass(frozen=True)
class QosLab:
    """What differs between labs.

    `marks` has the line of the policy of each port, by its number, `queues` that of the tunnel's QoS policy (None:
    it has none), `lists` the network that each line of the tunnel is for, by an access list.
    """

    kind: str = "manual"
    rate: str = "200pps"
    queues: str | None = "num-queues 4"
    marks: Mapping[int, str] = field(default_factory=dict)
    lists: Sequence[str] = ()

    def router(self, *, first: bool) -> str:
        """The configuration of a, or of b."""
        own, far = ("50", "60") if first else ("60", "50")
        local, remote = ("30.0.0.1", "20.0.0.1") if first else ("20.0.0.1", "30.0.0.1")
        wan, peer = ("40.0.0.1", "40.0.0.2") if first else ("40.0.0.2", "40.0.0.1")
        inner = f"55.0.1.{1 if first else 2}"
        lines = ["asp pool pool1 service security", " asp 1/1", *([f" rate {self.rate}"] if first else [])]
        lines += ["asp group group1", " pool pool1", "context lan"]
        for port in PORTS:
            lines += [f" interface port{port}", f"  ip address {own}.{port}.0.254/16"]
        lines += [" interface tunnel1", f"  ip address {inner}/30", f" ip route {far}.0.0.0/8 tunnel1"]
        for number, network in enumerate(self.lists):
            lines += [f" ipsec access-list list{number}"]
            lines += [f"  seq 10 any {network}" if first else f"  seq 10 {network} any"]
        lines += ["context wan", " interface to-peer", f"  ip address {wan}/16", " interface end loopback"]
        lines += [
            f"  ip address {local}/32",
            f" ip route {remote}/32 {peer}",
            " asp-group group1 service security",
        ]
        if self.negotiated:
            lines += _IKE_POLICY.format(local=local, remote=remote).splitlines()
            lines += _NEGOTIATED.splitlines()
        for number in range(max(len(self.lists), 1)):
            spis = {"spi_in": 4097 + 2 * number, "spi_out": 4098 + 2 * number}
            if not first:
                spis = {"spi_in": spis["spi_out"], "spi_out": spis["spi_in"]}
            if not self.negotiated:
                keys = {"inward": "0a" * 16, "outward": "0a" * 16}
                lines += _KEYS.format(name=f"keys{number}", **keys, **spis).splitlines()
        if self.queues is not None and first:
            lines += ["ipsec qos policy four pq", f" {self.queues}"]
        lines += [KINDS[self.kind], f" peer-end-point local {local} remote {remote} context wan"]
        lines += [" bind interface tunnel1 lan"]
        if self.queues is not None and first:
            lines += [" qos policy queuing four"]
        if self.negotiated:
            lines += [" ike-policy peer", " seq 10 ipsec-policy protect"]
        for number in range(0 if self.negotiated else max(len(self.lists), 1)):
            access = f" access-group list{number}" if self.lists else ""
            lines += [f" seq {10 + 10 * number} security-association keys{number}{access}"]
        for port, mark in self.marks.items() if first else ():
            lines += [f"qos policy mark{port} policing", f" {mark}"]
        lines += ["card ase 1", "card ether-12-port 3"]
        for port in PORTS:
            lines += [f"port ethernet 3/{port}", " no shutdown", f" bind interface port{port} lan"]
            lines += [f" qos policy policing mark{port}"] if first and port in self.marks else []
        lines += ["port ethernet 3/11", " no shutdown", " bind interface to-peer wan", "end", ""]
        return "\n".join(lines)

    @property
    def negotiated(self) -> bool:
        return self.kind.startswith("static")

    def boot(self, folder: Path, flows: Mapping[str, Mapping[str, Any]]) -> SimShell:
        """Boot the lab and wait for its tunnel. A flow has the port by which it comes in, and more if it wants."""
        for name, first in (("a", True), ("b", False)):
            (folder / f"{name}.cfg").write_text(self.router(first=first))
        ports = ", ".join(f'"{port}": {{address: 50.{port}.0.1/16, gateway: 50.{port}.0.254}}' for port in PORTS)
        text = [
            "name: qos",
            "topology:",
            "  nodes:",
            "    a: {kind: smartedge, config: a.cfg}",
            "    b: {kind: smartedge, config: b.cfg}",
            f"    t1: {{kind: tester, ports: {{{ports}}}}}",
            '    t2: {kind: tester, ports: {"1": {address: 60.1.0.1/16, gateway: 60.1.0.254}}}',
            "  links:",
            *(f'    - endpoints: ["t1:{port}", "a:3/{port}"]' for port in PORTS),
            '    - endpoints: ["a:3/11", "b:3/11"]',
            '    - endpoints: ["t2:1", "b:3/1"]',
            "flows:",
        ]
        for number, (name, wanted) in enumerate(flows.items(), 2):
            given = {
                "from": f'"t1:{wanted["port"]}"',
                "to": '"t2:1"',
                "source": f"50.{wanted['port']}.1.{number}",
                "destination": f"60.1.1.{number}",
                "rate": 100,
                "size": 200,
                **{key: value for key, value in wanted.items() if key != "port"},
            }
            text.append(f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in given.items())}}}")
        (folder / "lab.yaml").write_text("\n".join(text) + "\n")
        shell = SimShell(folder / "lab.yaml")
        shell.wait_until(shell.tunnels_up, within=60)
        return shell


def queues_of(shell: SimShell) -> list[dict[str, Any]]:
    """What `show ipsec queues` says of each line of the tunnel: its number, and its queues by name."""
    (asp,) = shell.data("a", "show ipsec queues office")
    return [{"line": sa["entry"], **sa["queues"]} for sa in asp["sas"]]


def burst(shell: SimShell, rate: float, count: int, *flows: str) -> None:
    """Begin to send packets of flows."""
    (sender,) = [tester for name, tester in shell.testers.items() if name == "t1"]
    for flow in flows:
        sender.burst(flow, rate, count)
