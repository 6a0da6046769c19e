"""Rings of raw packet sockets between two devices: frames in order, long ones, lost ones, and a next reader."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.ports.ring import (
    MAX_TRANSMIT_OCTETS,
    RECEIVE_FRAMES,
    TRANSMIT_FRAMES,
    PacketRing,
    make_receive_ring,
    rings_of,
)
from tests.support.netns import Host, Namespaces, why_not

DEADLINE = 20.0

pytestmark = [pytest.mark.multiprocess, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]


@pytest.fixture
def spaces(tmp_path: Path) -> Iterator[Namespaces]:
    made = Namespaces(tmp_path, {"a": Host(), "b": Host()}, [("a:eth1", "b:eth1")])
    for name in "ab":
        made.run(name, "ip", "link", "set", "eth1", "mtu", "9000")
    yield made
    made.close()


def opened(spaces: Namespaces, name: str) -> socket.socket:
    """A raw socket of a namespace's device, with a receive ring."""
    raw = spaces.tap(name, "eth1")
    # Not what it sends itself.
    raw.setsockopt(263, 23, 1)
    assert make_receive_ring(raw.fileno())
    return raw


def frame(number: int, size: int) -> bytes:
    """A frame of a kind that nobody else sends here."""
    return b"\xff" * 6 + bytes(6) + b"\x88\xb5" + number.to_bytes(4, "big") + bytes([number % 256]) * (size - 18)


def read(raw: socket.socket, ring: PacketRing, count: int) -> list[bytes]:
    """The next frames of ours, as many as asked for."""
    found: list[bytes] = []
    end = time.monotonic() + DEADLINE
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} frames came"
        select.select([raw], [], [], 0.1)
        body, lengths = ring.receive()
        at = 0
        for length in lengths:
            one = bytes(body[at : at + length])
            at += length
            if one[12:14] == b"\x88\xb5":
                found.append(one)
    return found


def test_frames_of_all_sizes_pass_in_order_round_the_rings_many_times(spaces: Namespaces) -> None:
    a, b = opened(spaces, "a"), opened(spaces, "b")
    one, other = PacketRing(a), PacketRing(b)
    sizes = (60, 1514, 64, MAX_TRANSMIT_OCTETS, 590)
    number = 0
    while number < 3 * RECEIVE_FRAMES:
        sent = [frame(number + at, sizes[(number + at) % len(sizes)]) for at in range(200)]
        assert one.send(map(memoryview, sent)) == len(sent)
        # A frame that is longer than its place comes whole too.
        assert read(b, other, len(sent)) == sent
        number += len(sent)
    assert other.lost == 0
    for ring, raw in ((one, a), (other, b)):
        ring.close()
        raw.close()


def test_what_comes_while_nobody_reads_is_the_next_readers(spaces: Namespaces) -> None:
    a, b = opened(spaces, "a"), opened(spaces, "b")
    one, other = PacketRing(a), PacketRing(b)
    sent = [frame(number, 100) for number in range(500)]
    assert one.send(map(memoryview, sent[:300])) == 300
    assert read(b, other, 300) == sent[:300]
    other.close()
    assert one.send(map(memoryview, sent[300:])) == 200
    again = PacketRing(b)
    assert read(b, again, 200) == sent[300:]
    for ring, raw in ((one, a), (again, b)):
        ring.close()
        raw.close()


def test_what_finds_no_room_is_counted(spaces: Namespaces) -> None:
    a, b = opened(spaces, "a"), opened(spaces, "b")
    one, other = PacketRing(a), PacketRing(b)
    count = RECEIVE_FRAMES + 300
    for at in range(0, count, 100):
        assert one.send(memoryview(frame(at + step, 60)) for step in range(100)) == 100
    # The loss is told with the first frame that finds room again.
    came = read(b, other, RECEIVE_FRAMES - 100)
    assert one.send([memoryview(frame(count, 60))]) == 1
    end = time.monotonic() + DEADLINE
    while came[-1] != frame(count, 60):
        assert time.monotonic() < end
        came += read(b, other, 1)
    assert len(came) + other.lost >= count + 1
    numbers = [int.from_bytes(one[14:18], "big") for one in came]
    assert numbers == sorted(set(numbers))
    assert other.lost >= 300
    for ring, raw in ((one, a), (other, b)):
        ring.close()
        raw.close()


def test_a_device_that_is_down_takes_nothing_then_or_later(spaces: Namespaces) -> None:
    a, b = opened(spaces, "a"), opened(spaces, "b")
    one, other = PacketRing(a), PacketRing(b)
    spaces.run("a", "ip", "link", "set", "eth1", "down")
    assert one.send(memoryview(frame(number, 60)) for number in range(5)) == 0
    spaces.run("a", "ip", "link", "set", "eth1", "up")
    end = time.monotonic() + DEADLINE
    while one.send([memoryview(frame(7, 60))]) == 0:
        assert time.monotonic() < end
    assert read(b, other, 1) == [frame(7, 60)]
    # More than the ring holds at once is for the caller to count.
    assert one.send(memoryview(frame(number, 60)) for number in range(TRANSMIT_FRAMES + 50)) <= TRANSMIT_FRAMES
    for ring, raw in ((one, a), (other, b)):
        ring.close()
        raw.close()


def test_a_socket_without_a_receive_ring_has_no_rings(spaces: Namespaces) -> None:
    raw = spaces.tap("a", "eth1")
    with pytest.raises((OSError, ValueError)):
        PacketRing(raw)
    raw.close()
    ringed = opened(spaces, "b")
    mapped = PacketRing(ringed)
    # Another process has them still.
    with pytest.raises(OSError, match="busy"):
        PacketRing(ringed)
    mapped.close()
    again = rings_of(ringed)
    assert again is not None
    again.close()
    ringed.close()
    stream, other = socket.socketpair()
    assert not make_receive_ring(stream.fileno())
    stream.close()
    other.close()
