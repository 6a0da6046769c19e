"""A configuration of thousands of tunnels, and single ones more, for measurements of commits and listings."""

from __future__ import annotations

from collections.abc import Iterator

CONTEXTS = 4
"""Contexts with tunnels (count); each has its share of the tunnels."""

BASE = """\
ike2 proposal bench
ipsec proposal bench
ipsec policy bench
  seq 10 proposal bench
context bench
  interface core
    ip address 192.0.2.1/24
  ip route 60.0.0.0/8 192.0.2.2
  asp-group vpn-group service security
port ethernet 3/12
  no shutdown
  bind interface core bench
"""
"""What all tunnels use, in a router that has the ASP group `vpn-group` and a card of 12 ports in slot 3."""


def _octets(number: int) -> str:
    return f"{number >> 8 & 255}.{number & 255}"


def tunnel(number: int) -> Iterator[str]:
    """Return the lines of tunnel `number` and of what only it uses."""
    context = f"V{number % CONTEXTS}"
    end = f"50.0.{_octets(number // 64)}"
    yield "context bench\n"
    if number % 64 == 0:
        yield f"  interface end-{number // 64} loopback\n    ip address {end}/32\n"
    yield f"  ike2 policy peer-{number}\n"
    yield "    connection-type responder-only\n"
    yield f"    identity remote 60.1.{_octets(number)}\n"
    yield f"    pre-shared-key key-of-{number:05}\n"
    yield "    seq 10 proposal bench\n"
    yield f"context {context}\n"
    inside = f"100.{64 + (number >> 14)}.{_octets((number << 2 & 65535) + 1)}"
    yield f"  interface tunnel-{number}\n    ip address {inside}/30\n"
    yield f"  ipsec access-list acl-{number}\n    seq 10 10.0.0.0/8 20.{_octets(number)}.0/24\n"
    yield f"  ip route 20.{_octets(number)}.0/24 tunnel-{number}\n"
    yield f"tunnel ipsec site-{number}\n"
    yield f"  peer-end-point local {end} remote 60.1.{_octets(number)} context bench\n"
    yield f"  bind interface tunnel-{number} {context}\n"
    yield f"  ike-policy peer-{number}\n"
    yield f"  seq 10 ipsec-policy bench access-group acl-{number}\n"
