"""`ip-comp` of a manual security association, from the records to the wire and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ipsec.ipcomp import CPI_DEFLATE, decompress
from chassis.bus.records import PolicyRecord, Record
from chassis.net.ipv4 import Ipv4
from tests.support.asp import CIRCUIT, ECONOMICAL, Controller, packets_of, records, udp_packet


def compressing(there: bool, kind: str, ip_comp: bool = True) -> list[Record]:
    return [
        replace(record, value=replace(record.value, ip_comp=ip_comp))
        if isinstance(record, PolicyRecord)
        else record
        for record in records(there=there, kind=kind)
    ]


@pytest.mark.parametrize("kind", ["esp", "ah", "bundle"])
@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
def test_packets_shrink_and_come_out_whole(tunnel: int, kind: str) -> None:
    a, b = Controller(compressing(False, kind)), Controller(compressing(True, kind))
    ends = {} if tunnel == CIRCUIT else {"source": "52.0.0.1", "destination": "62.0.0.1"}
    # Their payload is alike; the smallest are not worth trying.
    clear = [udp_packet(**ends, size=size, number=size) for size in (28, 89, 90, 400, 1400)]  # type: ignore[arg-type]
    ((_, out),) = a.protect(tunnel, clear)
    wire = packets_of(out)
    assert all(len(wire[at]) > len(clear[at]) for at in (0, 1))
    assert [len(one) < 200 for one in wire] == [True] * 5
    if kind == "ah":
        assert [one[20] for one in wire] == [4, 4, 108, 108, 108]
        inflated = [decompress(memoryview(one[44:]), CPI_DEFLATE) for one in wire[2:]]
        for one, other in zip(inflated, clear[2:], strict=True):
            assert one is not None
            assert Ipv4.parse(one).payload == Ipv4.parse(other).payload
    opened = [packet for _, batch in b.open(out) for packet in packets_of(batch)]
    # The ASP of an economical tunnel is the router of its packets.
    ttl = 63 if tunnel == CIRCUIT else 62
    assert [Ipv4.parse(one) for one in opened] == [replace(Ipv4.parse(one), ttl=ttl) for one in clear]
    assert a.drops() == b.drops() == {}


def test_one_end_alone_is_dropped_by_name() -> None:
    """With manual keys nobody negotiates: what the other end does not expect, it cannot read."""
    a, b = Controller(compressing(False, "esp")), Controller(compressing(True, "esp", ip_comp=False))
    ((_, out),) = a.protect(CIRCUIT, [udp_packet(size=600), udp_packet(size=60)])
    opened = [packet for _, batch in b.open(out) for packet in packets_of(batch)]
    assert opened == [udp_packet(size=60)]
    assert b.drops() == {"not tunnel mode": 1}
