"""The Internet checksum, whole and in place."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from chassis.net.checksum import checksum, is_intact, updated
from chassis.net.ipv4 import Ipv4, decrement_ttl

u16 = st.integers(0, 0xFFFF)


def word_by_word(data: bytes) -> int:
    """RFC 1071 as it is written."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def test_known_sum() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(b"") == 0xFFFF
    assert checksum(bytes(8)) == 0xFFFF
    assert checksum(b"\xff" * 8) == 0


@given(st.binary(max_size=300))
def test_whole_sum_equals_the_loop(data: bytes) -> None:
    assert checksum(data) == word_by_word(data)
    even = data + bytes(len(data) % 2)
    assert is_intact(even + struct.pack("!H", checksum(even))) or not any(even)


@given(st.lists(u16, min_size=2, max_size=12), st.integers(0, 11), u16)
def test_update_equals_the_whole_sum(words: list[int], at: int, new: int) -> None:
    at %= len(words)
    words = [0x4500, *words]  # a real header is never all zero
    old_sum = checksum(struct.pack(f"!{len(words)}H", *words))
    old, words[at + 1] = words[at + 1], new
    assert updated(old_sum, old, new) == checksum(struct.pack(f"!{len(words)}H", *words))


@given(u16, st.integers(1, 255), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_ttl_in_place_equals_a_new_header(identification: int, ttl: int, protocol: int, source: int) -> None:
    def made(left: int) -> bytes:
        return Ipv4(source, 7, protocol, b"x" * 9, ttl=left, identification=identification).emit()

    buffer = bytearray(b"room" + made(ttl))
    decrement_ttl(buffer, 4)
    assert buffer == b"room" + made(ttl - 1)


def test_ttl_in_place_over_every_identification() -> None:
    for identification in range(65536):
        packet = Ipv4(0, 7, 6, b"", ttl=2, identification=identification)
        buffer = bytearray(packet.emit())
        decrement_ttl(buffer)
        assert is_intact(buffer)
        assert buffer[10:12] != b"\xff\xff"
