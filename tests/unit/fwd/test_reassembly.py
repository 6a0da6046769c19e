"""Fragments in any order become the packet again, or are given up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.fwd.reassembly import MAX_FRAGMENTS_PER_PACKET, MAX_REASSEMBLIES, REASSEMBLY_TIMEOUT, Reassembler
from chassis.net.fragments import fragment
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4

PACKET = Ipv4(1, 2, PROTOCOL_UDP, bytes(range(250)), identification=7)


def pieces(packet: Ipv4 = PACKET, mtu: int = 68) -> list[Ipv4]:
    return fragment(packet, mtu)


@given(st.permutations(pieces()), st.data())
def test_any_order_and_repeats(order: list[Ipv4], data: st.DataObject) -> None:
    box = Reassembler()
    repeated = data.draw(st.lists(st.sampled_from(order[:-1]), max_size=3))
    for number, piece in enumerate([*order[:-1], *repeated], 1):
        assert box.add(1, piece, 0.0) is None
        assert box.waiting == number
    assert box.add(1, order[-1], 0.0) == (PACKET, len(order) + len(repeated))
    assert (box.waiting, box.lost, box.next_timer()) == (0, 0, float("inf"))


def test_packets_of_other_contexts_and_identifications_are_apart() -> None:
    box = Reassembler()
    first, *rest = pieces(mtu=200)
    assert box.add(1, first, 0.0) is None
    for piece in rest:
        assert box.add(2, piece, 0.0) is None
        assert box.add(1, replace(piece, identification=8), 0.0) is None
    assert box.add(1, rest[0], 0.0) is not None


def test_what_never_gets_whole_is_given_up() -> None:
    box = Reassembler()
    first, second, *_ = pieces()
    box.add(1, first, 5.0)
    box.add(1, second, 6.0)
    assert box.next_timer() == 5.0 + REASSEMBLY_TIMEOUT
    box.on_timer(4.9 + REASSEMBLY_TIMEOUT)
    assert (box.waiting, box.lost) == (2, 0)
    box.on_timer(5.0 + REASSEMBLY_TIMEOUT)
    assert (box.waiting, box.lost) == (0, 2)


def test_fragments_that_contradict_each_other_spoil_their_packet() -> None:
    first, second, last = pieces(mtu=124)
    other = replace(second, payload=b"x" * len(second.payload))
    overlap = replace(second, offset=second.offset - 8)
    longer = replace(last, payload=last.payload + bytes(8))
    beyond = replace(first, offset=800)
    for order in (
        (first, other, second, last),
        (first, overlap, second, last),
        (first, last, longer, second),
        (first, beyond, second, last),
    ):
        box = Reassembler()
        assert [box.add(1, piece, 0.0) for piece in order] == [None] * 4
        box.on_timer(REASSEMBLY_TIMEOUT)
        assert (box.waiting, box.lost) == (0, 4)


def test_room_is_bounded() -> None:
    box = Reassembler()
    first, *_ = pieces()
    for number in range(MAX_REASSEMBLIES + 1):
        box.add(1, replace(first, identification=number), 0.0)
    assert (box.waiting, box.lost) == (MAX_REASSEMBLIES, 1)
    box = Reassembler()
    for number in range(MAX_FRAGMENTS_PER_PACKET + 1):
        box.add(1, replace(first, offset=number * 48), 0.0)
    assert (box.waiting, box.lost) == (0, MAX_FRAGMENTS_PER_PACKET + 1)


@pytest.mark.parametrize(
    ("marks", "whole"),
    [((0, 0, 0), 0), ((2, 2, 2), 2), ((2, 3, 2), 3), ((2, 2, 3), 3), ((1, 1, 3), 3), ((0, 3, 0), None)],
)
def test_congestion_that_one_fragment_met_is_told_of_the_whole(marks: tuple[int, ...], whole: int | None) -> None:
    box = Reassembler()
    got = None
    for piece, mark in zip(pieces(mtu=124), marks, strict=True):
        got = box.add(1, replace(piece, tos=0xB8 | mark), 0.0)
    if whole is None:
        assert (got, box.lost) == (None, 3)
    else:
        assert got == (replace(PACKET, tos=0xB8 | whole), 3)


def test_a_packet_holds_no_more_octets_than_a_packet_may_have() -> None:
    box = Reassembler()
    large = Ipv4(1, 2, PROTOCOL_UDP, bytes(40_000), more_fragments=True)
    for source in range(MAX_REASSEMBLIES):
        for turn in range(3):
            # The same again is no more than before; what overlaps it cannot belong to one packet.
            assert box.add(1, replace(large, source=source, offset=0), 0.0) is None
            assert box.waiting == turn + 1
        assert box.add(1, replace(large, source=source, offset=8), 0.0) is None
        assert (box.waiting, box.lost) == (0, 4 * (source + 1))
