"""What strangers can make an ASP remember of flows is bounded for all its tunnels, which carry on meanwhile."""

from __future__ import annotations

from chassis.ase.ipsec.spd import Rule, SpdEntry
from tests.support.asp import CIRCUIT, ECONOMICAL, Controller, ip, packets_of, records, udp_packet

FLOWS = 1 << 17
"""What the selectors of all SAs and lines remember."""


def passes(left: Controller, right: Controller) -> None:
    """Packets of both tunnels go through."""
    for tunnel, far in ((CIRCUIT, "60.0.0.1"), (ECONOMICAL, "62.0.0.1")):
        ((_, batch),) = left.protect(tunnel, [udp_packet("50.0.0.1", far)])
        assert [packet[12:20] for _, opened in right.open(batch) for packet in packets_of(opened)] == [
            udp_packet("50.0.0.1", far)[12:20]
        ]


def test_flows_into_many_tunnels_are_remembered_within_one_bound() -> None:
    left, right = Controller(records()), Controller(records(there=True))
    policies = left.asp.sadb.spd
    tunnels = range(1000, 1040)
    for tunnel in tunnels:
        policies.set_entries(tunnel, [SpdEntry(10, (Rule(17, source=(ip("50.0.0.0"), 8)),))])
    packet = bytearray(udp_packet("50.0.0.1", "60.0.0.1"))
    view = memoryview(packet)
    for number in range(4000):
        packet[14:16] = number.to_bytes(2, "big")
        for tunnel in tunnels:
            classifier = policies.classifier(tunnel)
            assert classifier is not None
            assert classifier.value(view, 0, len(packet)) == 10
        if number % 500 == 0:
            passes(left, right)
    lines = [policies.classifier(tunnel) for tunnel in tunnels]
    assert sum(len(line._cache) for line in lines if line is not None) <= FLOWS
    assert left.count("selector flows shed") >= FLOWS
    # What was remembered before stays right.
    packet[12] = 51
    assert [line.value(view, 0, len(packet)) for line in lines if line is not None] == [-1] * len(tunnels)
