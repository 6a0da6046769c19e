"""Two routers with many tunnels between them: `a` calls, `b` answers. Every third tunnel has manual keys.

All that tunnel 7 has alone carries its number: t-7, ti-7, acl-7, pol-7, sa-7. What they share does not.
"""

from __future__ import annotations

from pathlib import Path

LAB = """\
name: many
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
    b: {kind: smartedge, config: b.cfg}
  links:
    - endpoints: ["a:3/1", "b:3/1"]
"""

SHARED = """\
card ase 1
card ge-10-port 3
asp pool P service security
 asp 1/1
 asp 1/2
asp group G
 pool P
 asp-count 2
ike2 proposal ike
 dh-group 2
ipsec proposal light
 esp encryption aes-128-cbc
 esp authentication hmac-sha1-96
ipsec proposal heavy
 esp encryption aes-256-cbc
 esp authentication hmac-sha1-96
"""

POLICIES = {
    "a": "ipsec policy light\n seq 10 proposal light\nipsec policy heavy\n seq 10 proposal heavy\n",
    "b": "ipsec policy any\n seq 10 proposal light\n seq 20 proposal heavy\n",
}

ENDS = {"a": 1, "b": 2}
"""Number of each router in the addresses of its side."""


def is_manual(number: int) -> bool:
    return number % 3 == 0


def inside(side: str, number: int) -> str:
    """The network behind one end of a tunnel."""
    return f"{40 + ENDS[side]}.{number >> 8}.{number & 255}.0/24"


def end_point(side: str, number: int) -> str:
    """The outer address of a tunnel: of two at `a`, and one of its own at `b`."""
    return f"1.1.1.{1 + number % 2}" if side == "a" else f"2.{number >> 8}.{number & 255}.1"


def shared(side: str) -> str:
    """What all tunnels of a router use."""
    other = "b" if side == "a" else "a"
    ends = "".join(f" interface end-{n} loopback\n  ip address 1.1.1.{n}/32\n" for n in (1, 2)) * (side == "a")
    return (
        f"{SHARED}{POLICIES[side]}context inner\ncontext outer\n asp-group G service security\n{ends}"
        f" interface wire\n  ip address 10.0.0.{ENDS[side]}/24\n"
        f" ip route {ENDS[other]}.0.0.0/8 10.0.0.{ENDS[other]}\n"
        "port ethernet 3/1\n no shutdown\n bind interface wire outer\n"
    )


def manual_sa(side: str, number: int, keys: int = 0) -> str:
    """The keys of a tunnel; `keys` makes others."""
    lines = [f"ipsec security-association sa-{number}"]
    for way, owner in (("in", side), ("out", "b" if side == "a" else "a")):
        seed = number << 8 | ENDS[owner] << 4 | keys
        lines += [
            f" {way}",
            f"  esp authentication hmac-md5-96 key 0x{seed:032x}",
            "  esp encryption null",
            f"  esp spi {1000 + 2 * number + ENDS[owner]}",
        ]
    return "\n".join(lines) + "\n"


def tunnel(side: str, number: int, *, policy: str = "light", more: str = "") -> str:
    """All that one tunnel has alone; `more` are lines of it, with one blank each."""
    other = "b" if side == "a" else "a"
    address = f"10.{200 + (number >> 6)}.{number & 63}.{ENDS[side]}/30"
    manual = is_manual(number)
    parts = [
        "context inner",
        f" interface ti-{number}",
        f"  ip address {address}",
        f" ipsec access-list acl-{number}",
        f"  seq 10 {inside(side, number)} {inside(other, number)}",
        f" ip route {inside(other, number)} ti-{number}",
        "context outer",
    ]
    if side == "b":
        parts += [f" interface end-{number} loopback", f"  ip address {end_point(side, number)}/32"]
    if not manual:
        parts += [
            f" ike2 policy pol-{number}",
            f"  connection-type {'initiator' if side == 'a' else 'responder'}-only",
            f"  identity local fqdn {side}-{number}.example",
            f"  pre-shared-key the-key-of-tunnel-{number}",
            "  seq 10 proposal ike",
        ]
    parts += [
        f"tunnel ipsec t-{number}{' manual' * manual}",
        f" peer-end-point local {end_point(side, number)} remote {end_point(other, number)} context outer",
        f" bind interface ti-{number} inner",
    ]
    if manual:
        parts.append(f" seq 10 security-association sa-{number} access-group acl-{number}")
    else:
        parts += [
            f" remote-id {other}-{number}.example",
            f" ike-policy pol-{number}",
            f" seq 10 ipsec-policy {policy if side == 'a' else 'any'} access-group acl-{number}",
        ]
    keys = manual_sa(side, number) if manual else ""
    return "\n".join(parts) + "\n" + more + keys


def text(side: str, tunnels: int) -> str:
    return shared(side) + "".join(tunnel(side, number) for number in range(1, tunnels + 1))


def write_lab(folder: Path, tunnels: int, prepared: int) -> Path:
    """Write the lab: `a` has so many tunnels, `b` has those that are to come too."""
    (folder / "a.cfg").write_text(text("a", tunnels))
    (folder / "b.cfg").write_text(text("b", prepared))
    path = folder / "lab.yaml"
    path.write_text(LAB)
    return path
