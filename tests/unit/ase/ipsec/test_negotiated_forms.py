"""Extended sequence numbers, ciphers that authenticate, UDP encapsulation, limits: what negotiated SAs add."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.ase.ipsec.causes import IpsecDropCause, NoticeKind
from chassis.ase.ipsec.encapsulate import EncapsulationResult
from chassis.ase.ipsec.replay import Verdict, check, infer_esn
from chassis.ase.ipsec.sa import (
    MAX_EXTENDED_SEQUENCE,
    Ah,
    ByteLifetime,
    Esp,
    InboundSa,
    OutboundSa,
    SaError,
    SequenceLease,
    UdpPorts,
)
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.spd import SpdEntry
from tests.support.ipsec import ENTRY, LEFT, RIGHT, ah, batch, database, esp, inner, packets_of, random_octets

EDGE = 1 << 32

PROTOCOLS: dict[str, tuple[Esp | None, Ah | None]] = {
    "cbc": (esp("aes-256-cbc", "hmac-sha-256-128"), None),
    "xcbc": (esp("3des-cbc", "hmac-aes-xcbc"), None),
    "null": (esp("null", "hmac-sha1-96"), None),
    "gcm": (esp("aes-128-gcm"), None),
    "gcm-256": (esp("aes-256-gcm"), None),
    "ah": (None, ah("hmac-sha-512-256")),
    "bundle": (esp("aes-128-cbc", "hmac-md5-96"), ah("hmac-sha-384-192")),
    "bundle-gcm": (esp("aes-128-gcm"), ah("hmac-aes-xcbc")),
    "bundle-no-integrity": (esp("aes-128-cbc", None), ah()),
}


def ends(
    name: str, *, esn: bool = True, first: int = 1, ip_comp: bool = False, limits: ByteLifetime | None = None
) -> tuple[Sadb, Sadb]:
    """Sender and receiver of tunnel 1; numbers begin at `first`."""
    use_esp, use_ah = PROTOCOLS[name]
    left, right = database(1), database(1)
    out = OutboundSa(
        1,
        1,
        LEFT,
        RIGHT,
        entry=ENTRY,
        context=0,
        esp=use_esp,
        ah=use_ah,
        ip_comp=ip_comp,
        esn=esn,
        negotiated=True,
        lifetime=limits or ByteLifetime(),
    )
    left.install_outbound(out, SequenceLease(first, out.max_sequence + 1))
    left.spd.set_entries(1, [SpdEntry(ENTRY)])
    right.install_inbound(
        InboundSa(1, 1, LEFT, RIGHT, context=0, esp=use_esp, ah=use_ah, ip_comp=ip_comp, esn=esn, negotiated=True)
    )
    return left, right


def protect(sadb: Sadb, packets: Sequence[bytes]) -> EncapsulationResult:
    return sadb.encapsulate_tunnel(1, *batch(packets), random_octets())


def wire(sadb: Sadb, packets: Sequence[bytes]) -> list[bytes]:
    result = protect(sadb, packets)
    return packets_of(result.body, result.lengths)


def opened(sadb: Sadb, packets: Sequence[bytes]) -> tuple[list[bytes], dict[IpsecDropCause, int]]:
    result = sadb.decapsulate_batch(*batch(packets))
    clear = [packet for group in result.groups for packet in packets_of(group.body, group.lengths)]
    return clear, result.drops.counts


def primed(left: Sadb, right: Sadb) -> None:
    """The receiver has seen a number shortly before the edge, as it has when numbers really come so far."""
    assert opened(right, wire(left, [inner(40)])) == ([inner(40)], {})


@pytest.mark.parametrize("ip_comp", [False, True])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_numbers_go_on_over_the_edge(name: str, ip_comp: bool) -> None:
    left, right = ends(name, first=EDGE - 6, ip_comp=ip_comp)
    primed(left, right)
    packets = [inner(100 + 7 * number, seed=number) for number in range(12)]
    if ip_comp:
        packets[4] = inner(24)[:2] + struct.pack("!H", 1024) + inner(24)[4:] + bytes(1000)
    sealed = wire(left, packets)
    assert left.outbound[1, 1].next_number == EDGE + 7
    assert opened(right, sealed) == (packets, {})
    # The high half is nowhere on the wire, and every number is good for once.
    again, drops = opened(right, sealed)
    assert (again, sum(drops.values())) == ([], 12)
    if name != "bundle-no-integrity":
        assert set(drops) == {IpsecDropCause.REPLAYED}
    assert opened(right, wire(left, packets)) == (packets, {})


@pytest.mark.parametrize("name", PROTOCOLS)
def test_order_around_the_edge_does_not_matter(name: str) -> None:
    left, right = ends(name, first=EDGE - 21)
    primed(left, right)
    packets = [inner(60, seed=number) for number in range(40)]
    sealed = wire(left, packets)
    order = list(range(40))
    random.Random(4).shuffle(order)
    # One first, from the high side of the edge or the low one: the others are within the window of it.
    for chosen in (order[:1], order[1:20], order[20:]):
        clear, drops = opened(right, [sealed[number] for number in chosen])
        assert (clear, drops) == ([packets[number] for number in chosen], {})


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_wrong_high_half_is_not_authentic(name: str) -> None:
    left, right = ends(name, first=5 * EDGE + 7)
    clear, drops = opened(right, wire(left, [inner()]))
    outermost = IpsecDropCause.AH_AUTHENTICATION if PROTOCOLS[name][1] else IpsecDropCause.ESP_AUTHENTICATION
    assert (clear, drops) == ([], {outermost: 1})


@pytest.mark.parametrize("name", ["cbc", "gcm", "ah"])
def test_both_ends_must_agree_on_extended_numbers(name: str) -> None:
    left, _ = ends(name, esn=True)
    _, right = ends(name, esn=False)
    clear, drops = opened(right, wire(left, [inner()]))
    assert clear == []
    assert sum(drops.values()) == 1


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_last_number_is_the_last(name: str) -> None:
    for esn, end in ((True, 1 << 64), (False, 1 << 32)):
        left, _ = ends(name, esn=esn, first=end - 2)
        result = protect(left, [inner()] * 5)
        assert len(result.lengths) == 2
        assert result.drops.counts == {IpsecDropCause.SEQUENCE_EXHAUSTED: 3}
        assert [notice.kind for notice in result.notices] == [
            NoticeKind.SEQUENCE_LOW,
            NoticeKind.SEQUENCE_EXHAUSTED,
        ]
        assert protect(left, [inner()]).drops.counts == {IpsecDropCause.SEQUENCE_EXHAUSTED: 1}


def test_seven_eighths_of_the_numbers_are_said_once() -> None:
    left, _ = ends("gcm", esn=False)
    encapsulator = left.outbound[1, 1]
    encapsulator.next_number = (EDGE // 8) * 7 - 3
    said = [protect(left, [inner()]).notices for _ in range(8)]
    assert [len(notices) for notices in said] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert said[3][0].kind is NoticeKind.SEQUENCE_LOW


@given(st.integers(0, 1 << 40), st.integers(1, 32).map(lambda step: step * 32), st.integers(-2000, 1 << 31))
def test_the_high_half_is_inferred(edge: int, window: int, offset: int) -> None:
    number = edge + offset
    if number <= max(edge - window, 0):
        # Too old to be told from one that is far ahead, but never taken for one of the past.
        assert infer_esn(edge, window, number & 0xFFFFFFFF) >= max(edge - window + 1, 0)
    else:
        assert infer_esn(edge, window, number & 0xFFFFFFFF) == number


def test_a_new_window_has_nothing_below_zero() -> None:
    assert infer_esn(0, 64, 0xFFFFFFFF) == 0xFFFFFFFF
    assert check(0, 0, 64, infer_esn(0, 64, 0)) is Verdict.OUTSIDE_WINDOW


def test_manual_keys_have_no_extended_numbers() -> None:
    with pytest.raises(SaError, match="negotiated"):
        OutboundSa(1, 1, LEFT, RIGHT, esp=esp(), esn=True)


# ciphers that authenticate


@pytest.mark.parametrize("cipher", ["aes-128-gcm", "aes-256-gcm"])
def test_no_initialization_vector_comes_twice(cipher: str) -> None:
    name = "gcm" if cipher == "aes-128-gcm" else "gcm-256"
    left, _ = ends(name, first=EDGE - 50)
    vectors = [packet[28:36] for _ in range(10) for packet in wire(left, [inner(seed=1)] * 10)]
    assert vectors == [struct.pack("!Q", number) for number in range(EDGE - 50, EDGE + 50)]


def test_whatever_is_changed_is_noticed() -> None:
    left, right = ends("gcm")
    (sealed,) = wire(left, [inner(64)])
    for at in range(28, len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        clear, drops = opened(right, [bytes(changed)])
        assert (clear, drops) == ([], {IpsecDropCause.ESP_AUTHENTICATION: 1}), at
    assert opened(right, [sealed]) == ([inner(64)], {})


def test_a_cipher_that_authenticates_takes_no_other_integrity() -> None:
    with pytest.raises(SaError, match="separate integrity algorithm"):
        Esp(0x1001, "aes-128-gcm", bytes(20), "hmac-sha1-96", bytes(20))


# UDP encapsulation


@pytest.mark.parametrize("name", ["cbc", "null", "gcm"])
@pytest.mark.parametrize("esn", [False, True])
def test_esp_in_udp(name: str, esn: bool) -> None:
    left, right = ends(name, esn=esn, first=EDGE - 4 if esn else 1)
    right.remove_inbound(1, 1)
    right.install_inbound(
        InboundSa(1, 1, LEFT, RIGHT, context=0, esp=PROTOCOLS[name][0], esn=esn, negotiated=True, udp=True)
    )
    # What comes without UDP is taken too (RFC 7296 2.23), and says nothing of where the peer is.
    primed(left, right)
    assert right.inbound[1, 1].udp_source is None
    left.update_outbound(replace(left.outbound[1, 1].sa, udp=UdpPorts(4500, 31_000)))
    packets = [inner(60 + number, seed=number, service=0xB8) for number in range(9)]
    result = protect(left, packets)
    sealed = packets_of(result.body, result.lengths)
    for clear, packet in zip(packets, sealed, strict=True):
        assert packet[9] == 17
        assert struct.unpack_from("!HHHH", packet, 20) == (4500, 31_000, len(packet) - 20, 0)
        assert struct.unpack_from("!H", packet, 2)[0] == len(packet)
        assert packet[1] == 0xB8
        words = struct.unpack("!10H", packet[:20])
        total = sum(words)
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
        assert len(packet) == len(clear) + left.outbound[1, 1].sa.overhead(len(clear))
    # A peer sends to port 4500, from wherever a NAT put it.
    back = [packet[:20] + struct.pack("!HH", 31_000, 4500) + packet[24:] for packet in sealed]
    assert opened(right, back) == (packets, {})
    assert right.inbound[1, 1].udp_source == (LEFT, 31_000)


def test_an_old_packet_does_not_say_where_the_peer_is() -> None:
    left, right = ends("cbc", esn=False)
    left.update_outbound(replace(left.outbound[1, 1].sa, udp=UdpPorts(4500, 4500)))
    right.remove_inbound(1, 1)
    right.install_inbound(
        InboundSa(1, 1, LEFT, RIGHT, context=0, esp=PROTOCOLS["cbc"][0], negotiated=True, udp=True)
    )
    old, new, newest = wire(left, [inner()] * 3)
    moved = new[:20] + struct.pack("!H", 9999) + new[22:]
    assert opened(right, [moved])[1] == {}
    assert opened(right, [old])[1] == {}
    assert right.inbound[1, 1].udp_source == (LEFT, 9999)
    forged = bytearray(newest)
    forged[20:22] = b"\0\7"
    forged[-1] ^= 1
    assert opened(right, [bytes(forged)])[1] == {IpsecDropCause.ESP_AUTHENTICATION: 1}
    assert right.inbound[1, 1].udp_source == (LEFT, 9999)


def test_udp_that_is_no_esp_is_put_aside() -> None:
    _, right = ends("cbc")

    def datagram(destination: int, payload: bytes, flags: int = 0) -> bytes:
        packet = inner(28 + len(payload), source=LEFT, destination=RIGHT, flags=flags)
        return packet[:20] + struct.pack("!HHHH", 700, destination, 8 + len(payload), 0) + payload

    ike = [
        datagram(500, bytes(28)),
        datagram(4500, bytes(32)),
        datagram(4500, b"\xff"),
        datagram(4500, bytes(40), 0x2000),
        datagram(77, b"", 0x2000),
    ]
    other = [datagram(77, bytes(28)), datagram(4500, b"\0\0\1\0" + bytes(30))]
    result = right.decapsulate_batch(*batch([*ike, *other]))
    assert [bytes(packet) for packet in result.punted] == ike
    assert result.drops.counts == {IpsecDropCause.NOT_IPSEC: 1, IpsecDropCause.NO_INBOUND_SA: 1}


def test_ah_does_not_go_through_a_nat() -> None:
    with pytest.raises(SaError, match="ESP only"):
        OutboundSa(1, 1, LEFT, RIGHT, ah=ah(), udp=UdpPorts(4500, 4500), negotiated=True)


# limits of traffic, and state


def test_limits_of_traffic_are_said_once_each() -> None:
    left, _ = ends("cbc", limits=ByteLifetime(soft=1000, hard=3000))
    kinds = [[notice.kind for notice in protect(left, [inner(200)]).notices] for _ in range(20)]
    assert [kind for said in kinds for kind in said] == [NoticeKind.SOFT_OCTETS, NoticeKind.HARD_OCTETS]
    octets = len(wire(left, [inner(200)])[0])
    assert kinds.index([NoticeKind.SOFT_OCTETS]) == -(-1000 // octets) - 1
    assert kinds.index([NoticeKind.HARD_OCTETS]) == -(-3000 // octets) - 1


def test_negotiated_sas_use_no_mapped_state() -> None:
    left, right = database(1), database(1)
    before = left.state.free_slots()
    for serial in range(1, 50):
        spi = 0x1000 + serial
        left.install_outbound(OutboundSa(1, serial, LEFT, RIGHT, entry=ENTRY, esp=esp(spi=spi), negotiated=True))
        right.install_inbound(InboundSa(1, serial, LEFT, RIGHT, esp=esp(spi=spi), negotiated=True))
    left.spd.set_entries(1, [SpdEntry(ENTRY)])
    packets = [inner()]
    assert opened(right, wire(left, packets)) == (packets, {})
    assert left.state.free_slots() == right.state.free_slots() == before
    with pytest.raises(SaError, match="in use"):
        right.install_inbound(InboundSa(2, 1, LEFT, RIGHT, esp=esp(spi=0x1001), negotiated=True))
    with pytest.raises(SaError, match="in use"):
        right.install_inbound(InboundSa(2, 1, LEFT, RIGHT, esp=esp(spi=0x1001)))
    assert right.remove_inbound(1, 1)
    right.install_inbound(InboundSa(2, 1, LEFT, RIGHT, esp=esp(spi=0x1001)))


def test_two_peers_behind_one_nat_may_choose_one_spi() -> None:
    sadb = database(1)
    for tunnel, port in ((1, 30_000), (2, 30_001)):
        sadb.install_outbound(
            OutboundSa(tunnel, 1, LEFT, RIGHT, entry=ENTRY, esp=esp(), negotiated=True, udp=UdpPorts(4500, port))
        )
        sadb.spd.set_entries(tunnel, [SpdEntry(ENTRY)])
        result = sadb.encapsulate_tunnel(tunnel, *batch([inner()]), random_octets())
        assert struct.unpack_from("!HH", result.body, 14 + 20) == (4500, port)
    assert sadb.remove_outbound(1, 1)
    assert sadb.current_outbound(2, ENTRY) is not None


@pytest.mark.parametrize("name", ["gcm", "cbc", "null", "ah", "bundle-gcm"])
def test_nothing_lies_beyond_the_last_number(name: str) -> None:
    """With the window at the end of all numbers, a low half from below it belongs to no number above it: such a
    packet would be an old one, with the high half that the numbers began with."""
    left, right = ends(name, first=5)
    (old,) = wire(left, [inner(80)])
    decapsulator = right.inbound[1, 1]
    for protocol in (decapsulator._ah, decapsulator.receiver):
        if protocol is not None:
            attribute = "_edge" if hasattr(protocol, "_edge") else "edge"
            setattr(protocol, attribute, MAX_EXTENDED_SEQUENCE - 3)
    clear, drops = opened(right, [old])
    assert (clear, drops) == ([], {IpsecDropCause.OUTSIDE_WINDOW: 1})


def test_numbers_that_are_inferred_have_64_bits() -> None:
    assert infer_esn(MAX_EXTENDED_SEQUENCE - 3, 64, 0xFFFFFFFF) == MAX_EXTENDED_SEQUENCE
    assert infer_esn(MAX_EXTENDED_SEQUENCE, 64, 0xFFFFFFFF) == MAX_EXTENDED_SEQUENCE
    assert infer_esn(MAX_EXTENDED_SEQUENCE, 64, 0xFFFFFFFF - 63) == MAX_EXTENDED_SEQUENCE - 63
    assert infer_esn(MAX_EXTENDED_SEQUENCE, 64, 0xFFFFFFFF - 64) == MAX_EXTENDED_SEQUENCE - 64
    assert infer_esn(MAX_EXTENDED_SEQUENCE, 64, 5) == MAX_EXTENDED_SEQUENCE - 0xFFFFFFFF + 5
