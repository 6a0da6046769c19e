"""The Internet checksum (RFC 1071) and its update in place (RFC 1624)."""

from __future__ import annotations

from chassis.net.types import Buffer

_from_bytes = int.from_bytes


def ones_sum(data: Buffer) -> int:
    """Return the ones' complement sum of the 16-bit words of `data`; an odd last octet is padded with zero.

    2**16 is 1 modulo 65535, so the sum is the remainder of the whole block, as one number, modulo 65535. That is
    one pass in C instead of a loop over words. A remainder of 0 of a block that is not all zero stands for 65535.
    """
    number = _from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    return number % 0xFFFF or (0xFFFF if number else 0)


def checksum(data: Buffer, initial: int = 0) -> int:
    """Return the value of the checksum field; `initial` is the sum of a pseudo header."""
    total = ones_sum(data) + initial
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def is_intact(data: Buffer, initial: int = 0) -> bool:
    """Return whether the checksum in `data` is right."""
    return checksum(data, initial) == 0


def updated(old: int, old_word: int, new_word: int) -> int:
    """Return the checksum after one 16-bit word changed (RFC 1624, equation 3)."""
    total = (old ^ 0xFFFF) + (old_word ^ 0xFFFF) + new_word
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo_header_sum(source: int, destination: int, protocol: int, length: int) -> int:
    """Return the sum of the pseudo header of UDP and TCP (RFC 768)."""
    return (source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF) + protocol + length
