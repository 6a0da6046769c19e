"""What waits for a full fabric connection: joined, bounded, and dropped lowest class first."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.bus.backlog import Backlog
from chassis.bus.batch import MAX_PACKETS, Batch, Step, pack
from chassis.bus.coalesce import coalesce
from chassis.bus.priority import classes_of, classes_of_batch, classes_of_frames
from chassis.model.qos import class_of
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import Ipv4

VALUES = (8, 24, 40, 56)
"""A DSCP of each class, from the lowest."""


def packet(dscp: int, number: int = 0, size: int = 40) -> bytes:
    return Ipv4(1, 2, 17, number.to_bytes(4, "big").ljust(size - 20, b"\0"), tos=dscp << 2).emit()


def batch(*packets: bytes, tunnel: int = 1, **fields: object) -> Batch:
    body, lengths = pack(packets, HEADROOM)
    # Packets that came in by a port; the router's own have a class of their own.
    fields = {"ingress": "3/1", **fields}
    return Batch(Step.ENCAPSULATE, body, lengths, tunnel=tunnel, **fields)  # type: ignore[arg-type]


def left(backlog: Backlog) -> list[bytes]:
    found = []
    while backlog:
        found += [bytes(one[HEADROOM:]) for one in backlog.first.packets()]
        assert sum(backlog.first.lengths) == len(backlog.first.body)
        backlog.dequeue()
    assert backlog.packets == 0
    return found


@pytest.mark.parametrize("dscp", range(64))
def test_the_class_is_that_of_table_3(dscp: int) -> None:
    selector = dscp >> 3
    expected = {0: 3, 1: 3, 2: 2, 3: 2, 4: 1, 5: 1, 6: 0, 7: 0}[selector]
    assert class_of(dscp) == expected
    for ecn in range(4):
        one = bytearray(packet(dscp))
        one[1] |= ecn
        assert list(classes_of(*pack([one], HEADROOM))) == [expected]
    assert list(classes_of(*pack([packet(63 - dscp)], HEADROOM), bytes([dscp]))) == [expected]


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(20, 90)), min_size=1, max_size=40))
def test_packets_of_one_size_and_of_many_have_the_same_classes(given_: list[tuple[int, int]]) -> None:
    mixed = classes_of(*pack([packet(dscp, size=max(size, 24)) for dscp, size in given_], HEADROOM))
    even = classes_of(*pack([packet(dscp) for dscp, _ in given_], HEADROOM))
    assert mixed == even == bytes(class_of(dscp) for dscp, _ in given_)


def test_a_packet_too_short_for_a_header_has_some_class() -> None:
    assert len(classes_of(bytearray(HEADROOM + HEADROOM), array("H", [HEADROOM, HEADROOM]))) == 2
    assert len(classes_of(bytearray(HEADROOM + 1), array("H", [HEADROOM + 1]))) == 1


def test_a_batch_that_somebody_looks_into_can_be_joined() -> None:
    first, second = batch(packet(8, 1)), batch(packet(8, 2))
    looking = memoryview(first.body)
    assert coalesce(first, second)
    assert [bytes(one[HEADROOM:]) for one in first.packets()] == [packet(8, 1), packet(8, 2)]
    assert bytes(looking[HEADROOM:]) == packet(8, 1)


def test_the_lowest_class_makes_room_for_a_higher_one() -> None:
    backlog = Backlog(4)
    low = [packet(8, number) for number in range(4)]
    high = [packet(48, number) for number in range(3)]
    assert backlog.enqueue(batch(*low)) == [0, 0, 0, 0]
    assert backlog.enqueue(batch(*high, tunnel=2)) == [0, 0, 0, 3]
    assert left(backlog) == [low[0], *high]


def test_a_low_class_never_makes_a_higher_one_leave() -> None:
    backlog = Backlog(4)
    high = [packet(48, number) for number in range(4)]
    backlog.enqueue(batch(*high))
    assert backlog.enqueue(batch(packet(40), packet(0))) == [0, 1, 0, 1]
    assert left(backlog) == high


def test_within_a_class_the_last_comer_leaves() -> None:
    backlog = Backlog(3)
    packets = [packet(16, number) for number in range(5)]
    backlog.enqueue(batch(*packets[:2]))
    assert backlog.enqueue(batch(*packets[2:])) == [0, 0, 2, 0]
    assert left(backlog) == packets[:3]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=12),
    st.integers(1, 30),
    st.booleans(),
)
def test_nothing_is_lost_without_a_count_nor_a_high_class_for_a_low_one(
    given_: list[list[int]], most: int, remarked: bool
) -> None:
    backlog = Backlog(most)
    put: list[bytes] = []
    dropped = [0] * 4
    for number, classes in enumerate(given_):
        packets = [
            packet(VALUES[3 - one] if not remarked else one, len(put) + at) for at, one in enumerate(classes)
        ]
        put += packets
        descriptors = bytes(VALUES[3 - one] for one in classes) if remarked else b""
        one = batch(*packets, tunnel=number // 2, descriptors=descriptors)
        dropped = [a + b for a, b in zip(dropped, backlog.enqueue(one), strict=True)]
        assert backlog.packets <= most
    flat = [one for classes in given_ for one in classes]
    count = backlog.packets
    kept = left(backlog)
    assert len(kept) == count == min(len(put), most) == len(put) - sum(dropped)
    places = [put.index(one) for one in kept]
    assert places == sorted(places), "a class decides what is dropped, never what goes first"
    for number in range(4):
        assert dropped[number] == flat.count(number) - sum(flat[place] == number for place in places)
        if dropped[number]:
            assert not any(flat[place] > number for place in places)


def test_batches_that_go_the_same_way_are_joined() -> None:
    first = batch(packet(0, 1), descriptors=b"\x08")
    assert coalesce(first, batch(packet(0, 2), descriptors=b"\x30"))
    assert (len(first), first.descriptors) == (2, b"\x08\x30")
    assert not coalesce(first, batch(packet(0, 3))), "remarked packets stay told apart from others"
    assert not coalesce(first, batch(packet(0, 3), tunnel=9, descriptors=b"\0"))
    assert not coalesce(batch(*[packet(0)] * MAX_PACKETS), batch(packet(0)))
    assert not coalesce(batch(packet(0)), batch(packet(0), marks=((0, 5),)))


def test_a_trace_mark_follows_its_packet_or_goes_with_it() -> None:
    backlog = Backlog(2)
    backlog.enqueue(batch(packet(0, 1), packet(48, 2), marks=((0, 7), (1, 8))))
    assert backlog.enqueue(batch(packet(56, 3), tunnel=2)) == [0, 0, 0, 1]
    assert backlog.first.marks == ((0, 8),)


def udp(source: int, destination: int, payload: bytes = b"", dscp: int = 0) -> bytes:
    head = source.to_bytes(2, "big") + destination.to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big")
    return Ipv4(1, 2, 17, head + bytes(2) + payload, tos=dscp << 2).emit()


IKE_AND_OTHERS = [
    (udp(500, 500, b"ike"), True),
    (udp(1025, 500, b"ike"), True),
    (udp(500, 1025, b"ike"), True),
    (udp(4500, 4500, bytes(4) + b"ike"), True),
    (udp(4500, 4500, b"esp in udp"), False),
    (udp(4500, 4500), False),
    (udp(1812, 1813, bytes(8)), False),
    (packet(0), False),
    (packet(0, size=24), False),
]
"""Packets, and whether they are IKE."""


def test_ike_for_an_asp_and_what_the_router_made_are_of_the_highest_class() -> None:
    packets = [one for one, _ in IKE_AND_OTHERS]
    body, lengths = pack(packets, HEADROOM)
    inward = Batch(Step.DECAPSULATE, body, lengths, ingress="3/1")
    assert classes_of_batch(inward) == bytes([0 if is_ike else 3 for _, is_ike in IKE_AND_OTHERS])
    # In transit it is a packet like any other.
    assert classes_of_batch(Batch(Step.ENCAPSULATE, body, lengths, ingress="3/1")) == bytes([3] * len(packets))
    assert classes_of_batch(Batch(Step.EGRESS, body, lengths)) == bytes(len(packets))


def test_a_wire_keeps_arp_and_ike() -> None:
    frames = [bytes(12) + b"\x08\0" + one for one, _ in IKE_AND_OTHERS]
    frames += [bytes(12) + b"\x08\x06" + bytes(46), bytes(12) + b"\x86\xdd" + udp(500, 500), bytes(14)]
    body, lengths = pack(frames)
    expected = [0 if is_ike else 3 for _, is_ike in IKE_AND_OTHERS] + [0, 3, 3]
    assert classes_of_frames(Batch(Step.INGRESS, body, lengths)) == bytes(expected)


def test_classes_are_found_when_something_must_be_dropped() -> None:
    asked: list[int] = []

    def classify(batch: Batch) -> bytes:
        asked.append(len(batch))
        return classes_of_batch(batch)

    backlog = Backlog(6, classify)
    backlog.enqueue(batch(packet(8, 1), packet(48, 2), tunnel=1))
    backlog.enqueue(batch(packet(48, 3), packet(8, 4), tunnel=2))
    backlog.enqueue(batch(packet(48, 5), packet(8, 6), tunnel=2))
    assert asked == []
    assert backlog.enqueue(batch(packet(48, 7), packet(48, 8), tunnel=3)) == [0, 0, 0, 2]
    assert asked == [2, 2, 4]
    backlog.dequeue()
    # A batch that is joined to one whose classes are known is looked at too, another one is not.
    assert backlog.enqueue(batch(packet(8, 9), tunnel=3)) == [0, 0, 0, 0]
    backlog.dequeue()
    assert asked == [2, 2, 4, 1]
    assert left(backlog) == [packet(48, 7), packet(48, 8), packet(8, 9)]
    assert backlog.enqueue(batch(packet(8, 1))) == [0, 0, 0, 0]
    assert asked == [2, 2, 4, 1]
    assert left(backlog) == [packet(8, 1)]


@settings(deadline=None)
@given(
    st.integers(1, 30),
    st.lists(
        st.one_of(
            st.none(),
            st.tuples(st.integers(1, 3), st.lists(st.sampled_from(VALUES), min_size=1, max_size=12)),
        ),
        max_size=30,
    ),
)
def test_classes_that_are_found_late_drop_what_they_would_have_dropped_at_once(
    most: int, steps: list[tuple[int, list[int]] | None]
) -> None:
    late, early = Backlog(most), Backlog(most)
    for number, step in enumerate(steps):
        if step is None:
            if late:
                assert bytes(late.first.body) == bytes(early.first.body)
                late.dequeue()
                early.dequeue()
        else:
            tunnel, values = step
            packets = [packet(dscp, number * 100 + at) for at, dscp in enumerate(values)]
            assert late.enqueue(batch(*packets, tunnel=tunnel)) == early.enqueue(batch(*packets, tunnel=tunnel))
        early._classify_waiting()
        assert late.packets == early.packets
    assert left(late) == left(early)
