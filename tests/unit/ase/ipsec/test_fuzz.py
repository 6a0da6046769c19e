"""Nothing that comes from a wire makes the engine raise."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chassis.ase.ipsec.ipcomp import decompress
from chassis.ase.ipsec.sa import InboundSa
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import Rule
from tests.support.ipsec import (
    LEFT,
    RIGHT,
    ah,
    batch,
    database,
    esp,
    inner,
    null_esp,
    protected,
    random_octets,
    receiver,
    sender,
)

KINDS: list[tuple[Any, Any]] = [
    (esp("null"), None),
    (esp(), None),
    (esp("3des-cbc", None), None),
    (None, ah()),
    (esp("null", None), ah()),
]
SELECTORS = (Rule(17, source_port=1000), Rule(6))


def receivers() -> list[Sadb]:
    return [receiver(*kind, selectors=SELECTORS) for kind in KINDS]


VALID = [protected(sender(*kind), [inner(60), inner(24), inner(90)]) for kind in KINDS]

changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)


@given(st.binary(max_size=300), st.lists(st.integers(0, 200), max_size=6))
def test_any_octets_and_any_lengths(body: bytes, lengths: list[int]) -> None:
    for sadb in receivers():
        result = sadb.decapsulate_batch(body, lengths)
        assert sum(result.drops.counts.values()) + sum(len(g.lengths) for g in result.groups) == len(lengths)
    protected_result = sender(esp(), rules=SELECTORS).encapsulate_tunnel(1, body, lengths, random_octets())
    assert sum(protected_result.drops.counts.values()) + len(protected_result.lengths) == len(lengths)


@given(st.sampled_from(range(len(KINDS))), changes, st.integers(0, 60), st.integers(0, 60))
def test_damaged_packets(kind: int, damage: list[tuple[int, int]], cut: int, longer: int) -> None:
    sadb = receiver(*KINDS[kind], selectors=SELECTORS)
    packets = []
    for packet in VALID[kind]:
        octets = bytearray(packet) + bytes(longer)
        for at, value in damage:
            octets[at % len(octets)] = value
        packets.append(bytes(octets[: len(octets) - cut]))
    result = sadb.decapsulate_batch(*batch(packets))
    opened = sum(len(group.lengths) for group in result.groups)
    assert sum(result.drops.counts.values()) + opened + len(result.punted) == len(packets)


@given(st.binary(max_size=120), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_any_payload_inside_null_esp(payload: bytes, service: int, number: int) -> None:
    sadb = database()
    sadb.install_inbound(InboundSa(1, 1, LEFT, RIGHT, esp=esp("null"), selectors=SELECTORS))
    result = sadb.decapsulate_batch(*batch([null_esp(payload, number, service)]))
    assert sum(result.drops.counts.values()) + sum(len(g.lengths) for g in result.groups) == 1


@given(st.binary(max_size=100))
def test_any_octets_behind_an_ipcomp_header(data: bytes) -> None:
    for octets in (data, b"\4\0\0\2" + data):
        packet = decompress(memoryview(octets), 2)
        assert packet is None or isinstance(packet, bytes)
