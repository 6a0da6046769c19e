"""The NAT before peers: what its mappings do to packets, and what does not pass."""

from __future__ import annotations

import pytest

from chassis.net.address import parse_address
from chassis.net.ipv4 import PROTOCOL_ESP, PROTOCOL_UDP, Ipv4
from chassis.net.udp import Udp
from chassis.peers.nat import FIRST_INSIDE, FIRST_PORT, Nat

OUTSIDE = parse_address("10.9.0.1")
GATEWAY = parse_address("10.255.0.1")
NAT = Nat(OUTSIDE, 25, 10)


def datagram(source: int, source_port: int, destination: int, port: int, *, checked: bool = True) -> bytes:
    ends = (source, destination) if checked else None
    return Ipv4(source, destination, PROTOCOL_UDP, Udp(source_port, port, b"IKE or ESP").emit(ends)).emit()


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(("number", "place", "turn"), [(1, 0, 0), (10, 0, 9), (11, 1, 0), (25, 2, 4)])
def test_each_peer_has_two_ports_of_a_shared_address(number: int, place: int, turn: int, checked: bool) -> None:
    inside = FIRST_INSIDE + number - 1
    for own, mapped in ((500, FIRST_PORT + 2 * turn), (4500, FIRST_PORT + 2 * turn + 1)):
        sent = NAT.outward(datagram(inside, own, GATEWAY, own, checked=checked))
        assert sent == datagram(OUTSIDE + place, mapped, GATEWAY, own, checked=checked)
        back = NAT.inward(datagram(GATEWAY, own, OUTSIDE + place, mapped, checked=checked))
        assert back == datagram(GATEWAY, own, inside, own, checked=checked)


def test_what_has_no_mapping_does_not_pass() -> None:
    assert NAT.outward(datagram(FIRST_INSIDE + 25, 500, GATEWAY, 500)) is None
    assert NAT.outward(datagram(OUTSIDE, 500, GATEWAY, 500)) is None
    assert NAT.outward(datagram(FIRST_INSIDE, 53, GATEWAY, 53)) is None
    assert NAT.outward(Ipv4(FIRST_INSIDE, GATEWAY, PROTOCOL_ESP, bytes(40)).emit()) is None
    for address, port in ((OUTSIDE + 2, 10_010), (OUTSIDE, 10_020), (OUTSIDE, 9_999), (OUTSIDE - 1, 10_000)):
        assert NAT.inward(datagram(GATEWAY, 500, address, port)) is None
    fragment = Ipv4(GATEWAY, OUTSIDE, PROTOCOL_UDP, bytes(40), more_fragments=True)
    for octets in (b"", b"\x45", bytes(60), b"\xff" * 60, fragment.emit()):
        assert NAT.inward(octets) is NAT.outward(octets) is None
