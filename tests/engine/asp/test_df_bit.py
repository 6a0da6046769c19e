"""Every case of `df-bit` and `mtu`, by every protection and in both modes: what leaves fits, and who is told what
(S-110)."""

from __future__ import annotations

import pytest

from chassis.bus.batch import Step
from chassis.net.fragments import fragment
from chassis.net.ipv4 import PROTOCOL_ICMP, Ipv4
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    OUTER,
    Controller,
    batch_of,
    icmp_error,
    packets_of,
    pair,
    udp_packet,
)
from tests.support.asp_negotiated import A, B, encapsulated, install, sides

PORT = 1500
MANUAL = ("manual esp", "manual ah", "manual bundle")
NEGOTIATED = ("esp", "gcm", "sha2", "esp nat", "gcm nat", "sha2 nat")
WAYS = {CIRCUIT: ("50.0.0.1", "60.0.0.1"), ECONOMICAL: ("52.0.0.1", "62.0.0.1")}
BLOCK = 16
"""The most octets by which a limit may be short of what would fit: a block of the widest cipher."""


def ends(kind: str, **fields: object) -> tuple[Controller, Controller]:
    """Both ends of tunnels that protect in one of the ways above."""
    first, *rest = kind.split()
    if kind in MANUAL:
        return pair(kind=rest[0], **fields)
    left, right = sides(**fields)
    for tunnel in (CIRCUIT, ECONOMICAL):
        left.ike(install(tunnel, 1, kind=first, encapsulation=encapsulated(B) if rest else ()))
        right.ike(install(tunnel, 1, there=True, kind=first, encapsulation=encapsulated(A) if rest else ()))
    return left, right


def sent(end: Controller, tunnel: int, clear: bytes) -> tuple[list[bytes], list[int]]:
    """Outer packets as they leave the port, and the sizes that the sender was told to keep to."""
    outer, told = [], []
    for _, batch in end.protect(tunnel, [clear]):
        for packet in packets_of(batch):
            parsed = Ipv4.parse(packet)
            if parsed.protocol == PROTOCOL_ICMP:
                told.append(icmp_error(packet)[1].mtu)
            elif batch.step is Step.CIRCUIT_OUT and not parsed.dont_fragment:
                # The line card of the circuit cuts it to the port that it finds.
                outer += [piece.emit() for piece in fragment(parsed, PORT)]
            else:
                outer.append(packet)
    return outer, told


def arrived(end: Controller, outer: list[bytes]) -> bytes:
    """The payload that comes out at the other end, put together if it was cut before it was protected."""
    out = end.give(batch_of(outer, Step.DECAPSULATE, context=OUTER, ingress="3/11"))
    pieces = [Ipv4.parse(packet) for _, batch in out for packet in packets_of(batch)]
    return b"".join(piece.payload for piece in sorted(pieces, key=lambda piece: piece.offset))


def clear_packet(tunnel: int, size: int, df: bool) -> bytes:
    return udp_packet(*WAYS[tunnel], size=size, df=df)


@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize("kind", [*MANUAL, *NEGOTIATED])
@pytest.mark.parametrize("df_bit", ["propagate", "set"])
@pytest.mark.parametrize("mtu", [0, 600, 1600])
def test_the_sender_is_told_a_size_that_fits(tunnel: int, kind: str, df_bit: str, mtu: int) -> None:
    a, _ = ends(kind, df_bit=df_bit, mtu=mtu)
    _, [limit] = sent(a, tunnel, clear_packet(tunnel, 1700, df=True))
    [outer], told = sent(a, tunnel, clear_packet(tunnel, limit, df=True))
    assert told == []
    assert len(outer) <= PORT
    assert sent(a, tunnel, clear_packet(tunnel, limit + 1, df=True)) == ([], [limit])
    if mtu == 600:
        assert limit == 600
    else:
        assert len(outer) > PORT - BLOCK


@pytest.mark.behaviour("B-140", "B-141")
@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize("kind", [*MANUAL, *NEGOTIATED])
@pytest.mark.parametrize("df_bit", ["propagate", "set", "clear"])
@pytest.mark.parametrize("df", [False, True])
@pytest.mark.parametrize("mtu", [0, 600, 1600])
def test_what_leaves_fits_and_has_the_flag_that_was_asked_for(
    tunnel: int, kind: str, df_bit: str, df: bool, mtu: int
) -> None:
    a, b = ends(kind, df_bit=df_bit, mtu=mtu)
    for size in (100, 601, 1400, 1490):
        clear = clear_packet(tunnel, size, df)
        outer, told = sent(a, tunnel, clear)
        # A packet whose sender forbids to cut it is sent back, unless it is the outer one that is cut.
        limit = {600: 600, 0: PORT, 1600: PORT}[mtu]
        too_large = size > limit or (size == 1490 and df_bit != "clear")
        assert bool(told) == (df and too_large)
        assert bool(outer) != bool(told)
        for packet in outer:
            assert len(packet) <= PORT
            assert Ipv4.parse(packet).dont_fragment == {"propagate": df, "set": True, "clear": False}[df_bit]
        assert not outer or arrived(b, outer) == Ipv4.parse(clear).payload
    assert b.drops() == {}
