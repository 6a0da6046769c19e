"""What one end protects the other opens, for every algorithm; padding, sizes, order, ECN."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.ase.ipsec.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.outer_header import ipv4_checksum
from chassis.ase.ipsec.sa import InboundSa, OutboundSa
from chassis.ase.ipsec.spd import SpdEntry
from chassis.net.ethernet import HEADROOM
from tests.support.ipsec import (
    ENTRY,
    LEFT,
    RIGHT,
    ah,
    batch,
    database,
    esp,
    inner,
    null_esp,
    packets_of,
    protected,
    random_octets,
    receiver,
    sender,
)


def header_sum(packet: bytes) -> int:
    return ipv4_checksum([int.from_bytes(packet[at : at + 2], "big") for at in range(0, 20, 2)])


@pytest.mark.parametrize(
    ("cipher", "integrity", "with_ah"),
    [
        (cipher, integrity, with_ah)
        for cipher in CIPHERS
        for integrity in (None, *INTEGRITY)
        for with_ah in (None, *INTEGRITY)
        if (integrity is None or not CIPHERS[cipher].combined)
        and (cipher, integrity, with_ah) != ("null", None, None)
    ],
)
def test_every_combination(cipher: str, integrity: str | None, with_ah: str | None) -> None:
    use_esp = esp(cipher, integrity)
    use_ah = ah(with_ah) if with_ah else None
    left, right = sender(use_esp, use_ah), receiver(use_esp, use_ah)
    chance = random.Random(5)
    for _ in range(2):
        packets = [inner(chance.randrange(20, 1500), seed=seed) for seed in range(9)]
        wire = protected(left, packets)
        assert all(header_sum(packet) == 0 for packet in wire)
        result = right.decapsulate_batch(*batch(wire))
        (group,) = result.groups
        assert packets_of(group.body, group.lengths) == packets
        assert list(group.origins) == list(range(9))
        assert result.drops.counts == {}


@given(st.lists(st.integers(20, 200), min_size=1, max_size=20), st.sampled_from(sorted(CIPHERS)))
def test_sizes_agree_with_the_overhead_that_is_told(sizes: list[int], cipher: str) -> None:
    for use_ah in (None, ah()):
        left = sender(esp(cipher), use_ah)
        sa = left.outbound[1, 1].sa
        wire = protected(left, [inner(size) for size in sizes])
        assert [len(packet) for packet in wire] == [size + sa.overhead(size) for size in sizes]
        assert all(sa.overhead(size) <= sa.max_overhead() for size in sizes)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_largest_inner_packet(cipher: str) -> None:
    sa = sender(esp(cipher), ah()).outbound[1, 1].sa
    for outer in (576, 1400, 1499, 1500, 9000):
        size = sa.max_inner(outer)
        assert size + sa.overhead(size) <= outer
        assert size + 1 + sa.overhead(size + 1) > outer
        assert sa.max_overhead() <= 20 + 24 + 8 + 16 + 15 + 2 + 12


def test_ivs_are_fresh_and_numbers_count() -> None:
    left = sender(esp())
    wire = [*protected(left, [inner(60)] * 10, seed=1), *protected(left, [inner(60)] * 10, seed=2)]
    assert len({packet[28:44] for packet in wire}) == 20
    assert len({packet[44:60] for packet in wire}) == 20, "equal clear packets look different"
    assert [int.from_bytes(packet[24:28], "big") for packet in wire] == list(range(1, 21))
    assert (left.outbound[1, 1].packets, left.outbound[1, 1].octets) == (20, sum(map(len, wire)))


def test_randomness_is_asked_once_a_batch() -> None:
    asked: list[int] = []

    def source(octets: int) -> bytes:
        asked.append(octets)
        return bytes(octets)

    sender(esp()).encapsulate_tunnel(1, *batch([inner(50)] * 7), source)
    assert asked == [7 * 16]


def test_link_padding_is_cut_off() -> None:
    packet = inner(30)
    right = receiver(esp())
    (wire,) = protected(sender(esp()), [packet + bytes(16)])
    result = right.decapsulate_batch(*batch([wire + bytes(20)]))
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == [packet]


def test_traffic_flow_padding_is_cut_off() -> None:
    """RFC 4303 2.7: octets between the inner packet and the ESP padding."""
    packet = inner(40)
    padded = null_esp(packet + bytes(20) + bytes([1, 2, 2, 4]))
    result = receiver(esp("null")).decapsulate_batch(*batch([padded]))
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == [packet]


def test_a_packet_with_outer_options_opens() -> None:
    (wire,) = protected(sender(esp()), [inner(80)])
    option = bytes([0x94, 4, 0, 0])
    longer = b"\x46" + wire[1:20] + option + wire[20:]
    longer = longer[:2] + len(longer).to_bytes(2, "big") + longer[4:]
    result = receiver(esp()).decapsulate_batch(*batch([longer]))
    assert packets_of(result.groups[0].body, result.groups[0].lengths) == [inner(80)]


# inner ECN, outer ECN -> inner ECN after opening; None is a drop (RFC 6040 figure 4).
NOT, ECT1, ECT0, CE = range(4)
ECN = {
    (NOT, NOT): NOT, (NOT, ECT0): NOT, (NOT, ECT1): NOT, (NOT, CE): None,
    (ECT0, NOT): ECT0, (ECT0, ECT0): ECT0, (ECT0, ECT1): ECT1, (ECT0, CE): CE,
    (ECT1, NOT): ECT1, (ECT1, ECT0): ECT1, (ECT1, ECT1): ECT1, (ECT1, CE): CE,
    (CE, NOT): CE, (CE, ECT0): CE, (CE, ECT1): CE, (CE, CE): CE,
}  # fmt: skip


PROTECTIONS = {"esp": (esp(), None), "gcm": (esp("aes-256-gcm"), None), "ah": (None, ah()), "both": (esp(), ah())}


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize(("inside", "outside"), ECN)
def test_congestion_marks_are_merged(inside: int, outside: int, protection: str) -> None:
    protocols = PROTECTIONS[protection]
    packet = inner(60, service=0xB8 | inside)
    (wire,) = protected(sender(*protocols), [packet])
    assert wire[1] == 0xB8 | inside
    marked = wire[:1] + bytes([0x50 | outside]) + wire[2:]
    result = receiver(*protocols).decapsulate_batch(*batch([marked]))
    merged = ECN[inside, outside]
    if merged is None:
        assert result.groups == ()
        assert result.drops.counts == {IpsecDropCause.ECN: 1}
        return
    (clear,) = packets_of(result.groups[0].body, result.groups[0].lengths)
    assert clear[1] == 0xB8 | merged, "the inner DSCP stays"
    assert header_sum(clear) == 0
    assert clear[12:] == packet[12:]


def two_tunnels() -> tuple[list[bytes], list[int]]:
    """A batch with packets of three SAs of two tunnels, mixed; and each packet's tunnel."""
    wires = {}
    for tunnel, serial, spi in ((1, 1, 0x1001), (2, 1, 0x1002), (1, 2, 0x1003)):
        left = database()
        left.install_outbound(OutboundSa(tunnel, serial, LEFT, RIGHT, entry=ENTRY, esp=esp(spi=spi)))
        left.spd.set_entries(tunnel, [SpdEntry(ENTRY)])
        result = left.encapsulate_tunnel(
            tunnel, *batch([inner(60, seed=spi * 100 + number) for number in range(6)]), random_octets(spi)
        )
        wires[spi] = packets_of(result.body, result.lengths)
    chosen = [0x1002, 0x1001, 0x1003, 0x1001, 0x1002, 0x1003, 0x1001, 0x1002]
    tunnels = [2 if spi == 0x1002 else 1 for spi in chosen]
    return [wires[spi].pop(0) for spi in chosen], tunnels


def test_packets_are_grouped_by_tunnel_in_order() -> None:
    right = database()
    for tunnel, serial, spi in ((1, 1, 0x1001), (2, 1, 0x1002), (1, 2, 0x1003)):
        right.install_inbound(InboundSa(tunnel, serial, LEFT, RIGHT, esp=esp(spi=spi)))
    packets, tunnels = two_tunnels()
    result = right.decapsulate_batch(*batch(packets))
    assert [group.tunnel for group in result.groups] == [2, 1]
    for group in result.groups:
        assert list(group.origins) == [index for index, tunnel in enumerate(tunnels) if tunnel == group.tunnel]
        clear = packets_of(group.body, group.lengths)
        assert len(clear) == len(group.origins)
        assert len(set(clear)) == len(clear)


def test_contexts_keep_equal_addresses_apart() -> None:
    right = database()
    right.install_inbound(InboundSa(1, 1, LEFT, RIGHT, context=1, esp=esp()))
    right.install_inbound(InboundSa(2, 1, LEFT, RIGHT, context=2, esp=esp("3des-cbc")))
    wire = batch(protected(sender(esp("3des-cbc")), [inner(60)]))
    assert right.decapsulate_batch(*wire, context=3).drops.counts == {IpsecDropCause.NO_INBOUND_SA: 1}
    assert right.decapsulate_batch(*wire, context=1).groups == ()
    assert [group.tunnel for group in right.decapsulate_batch(*wire, context=2).groups] == [2]


def test_an_empty_batch_is_nothing() -> None:
    assert receiver(esp()).decapsulate_batch(b"", []).groups == ()
    for use_esp, use_ah in ((esp(), None), (None, ah()), (esp("null"), ah())):
        result = sender(use_esp, use_ah).encapsulate_tunnel(1, b"", [], random_octets())
        assert (len(result.body), len(result.lengths), result.drops.counts) == (0, 0, {})


def test_batches_have_room_for_a_link_header() -> None:
    result = sender(esp()).encapsulate_tunnel(1, *batch([inner(60)] * 3), random_octets())
    assert isinstance(result.body, bytearray)
    assert bytes(result.body[:HEADROOM]) == bytes(HEADROOM)
    assert result.body[HEADROOM] == 0x45
    assert result.body[result.lengths[0] + HEADROOM] == 0x45
