"""Labs written for a test: one of many tunnels, and the shipped one of manual keys with little traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support import CONFIGS

MANUAL_KEYS: Final = CONFIGS / "manual-keys" / "lab.yaml"

CALM: Final = {
    f"{tunnel}-{way}": {"rate": 50} for tunnel in ("circuit", "economical") for way in ("forward", "reverse")
}
"""Its flows for tests whose subject is not traffic: at their own rates they keep a core busy."""

SPI = 10_000
KEYS = ("esp authentication hmac-sha1-96 key 0x" + "5a" * 20, "esp encryption aes-128-cbc key 0x" + "a5" * 16)


def address(net: int, number: int, host: int = 1) -> str:
    """Host `host` of the /24 that tunnel `number` carries: 11.x.y.0/24 behind a, 12.x.y.0/24 behind b."""
    return f"{net}.{number >> 8}.{number & 255}.{host}"


def router(near: bool, tunnels: int) -> str:
    """The configuration of a (near) or b: every second tunnel is economical."""
    own, far = ("9.9.1.1", "9.9.2.1") if near else ("9.9.2.1", "9.9.1.1")
    private, beyond = (11, 12) if near else (12, 11)
    end, other = ("1", "2") if near else ("2", "1")
    lines = [
        "asp pool P service security", " asp 1/1", "asp group G", " pool P", "context lan", " interface private",
        f"  ip address {private}.255.255.254/8",
    ]  # fmt: skip
    for number in range(tunnels):
        lines += [f" interface tun{number}", f"  ip address 192.{number >> 6}.{(number & 63) * 4}.{end}/30"]
    lines += [f" ip route {address(beyond, number, 0)}/24 tun{number}" for number in range(tunnels)]
    lines += [
        "context wan",
        " interface peer",
        f"  ip address 172.16.0.{end}/24",
        " interface end loopback",
        f"  ip address {own}/32",
        f" ip route {far}/32 172.16.0.{other}",
        " asp-group G service security",
    ]
    for number in range(tunnels):
        inbound, outbound = (0, 1) if near else (1, 0)
        lines.append(f"ipsec security-association sa{number}")
        for way, which in (("in", inbound), ("out", outbound)):
            lines += [f" {way}", f"  esp spi {SPI + 2 * number + which}", *(f"  {key}" for key in KEYS)]
    for number in range(tunnels):
        lines += [
            f"tunnel ipsec t{number} manual{' economical' if number % 2 else ''}",
            f" peer-end-point local {own} remote {far} context wan",
            f" bind interface tun{number} lan",
            f" seq 10 security-association sa{number}",
        ]
    lines += ["card ase 1", "card ge-10-port 3"]
    for port, interface, context in (("3/1", "private", "lan"), ("3/2", "peer", "wan")):
        lines += [f"port ethernet {port}", " no shutdown", f" bind interface {interface} {context}"]
    return "\n".join(lines) + "\nend\n"


def lab(flows: list[int], rate: int = 500) -> str:
    """The lab file, with a flow each way through each of these tunnels."""
    made = ""
    for number in flows:
        near, far = address(11, number), address(12, number)
        made += (
            f'  forward{number}: {{from: "t1:1", to: "t2:1", source: {near}, destination: {far}, rate: {rate}}}\n'
        )
        made += (
            f'  reverse{number}: {{from: "t2:1", to: "t1:1", source: {far}, destination: {near}, rate: {rate}}}\n'
        )
    return f"""
name: many
topology:
  nodes:
    a: {{kind: smartedge, config: a.cfg}}
    b: {{kind: smartedge, config: b.cfg}}
    t1: {{kind: tester, ports: {{"1": {{address: 11.255.0.1/8, gateway: 11.255.255.254}}}}}}
    t2: {{kind: tester, ports: {{"1": {{address: 12.255.0.1/8, gateway: 12.255.255.254}}}}}}
  links:
    - endpoints: ["t1:1", "a:3/1"]
    - endpoints: ["a:3/2", "b:3/2"]
    - endpoints: ["t2:1", "b:3/1"]
flows:
{made}"""


def calm(folder: Path) -> Path:
    """The lab of manual keys with little traffic, as files in this folder."""
    for name in ("a.cfg", "b.cfg"):
        (folder / name).write_text((MANUAL_KEYS.parent / name).read_text())
    (folder / "lab.yaml").write_text(MANUAL_KEYS.read_text().replace("rate: 500", "rate: 50"))
    return folder / "lab.yaml"


def written(folder: Path, tunnels: int, flows: list[int], rate: int = 500) -> Path:
    """The lab file, with its configurations beside it."""
    for name, near in (("a.cfg", True), ("b.cfg", False)):
        (folder / name).write_text(router(near, tunnels))
    (folder / "lab.yaml").write_text(lab(flows, rate))
    return folder / "lab.yaml"
