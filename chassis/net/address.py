"""IPv4 and Ethernet addresses as text and as values.

In packets' way an IPv4 address is an int (unsigned, 32 bits), a prefix is (int, length),
and a MAC address is six bytes. Text is for people and for configuration.
"""

from __future__ import annotations

from chassis.net.types import Prefix

ALL_ONES = 0xFFFFFFFF
BROADCAST_MAC = b"\xff" * 6
ZERO_MAC = bytes(6)

ANY: Prefix = (0, 0)
"""The prefix that holds every address."""

MASKS: tuple[int, ...] = tuple((ALL_ONES << (32 - length)) & ALL_ONES for length in range(33))
"""Netmask of every prefix length."""


def parse_address(text: str) -> int:
    """The number behind `10.0.0.1`; ValueError for anything but four decimal octets."""
    parts = text.split(".")
    if len(parts) != 4:
        raise ValueError(f"{text!r} is not an IPv4 address")
    value = 0
    for part in parts:
        if not (part.isascii() and part.isdigit()) or len(part) > 3 or int(part) > 255:
            raise ValueError(f"{text!r} is not an IPv4 address")
        value = value << 8 | int(part)
    return value


def format_address(address: int) -> str:
    """`10.0.0.1` for its number."""
    return f"{address >> 24 & 255}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def parse_prefix(text: str, *, host_bits: bool = False) -> Prefix:
    """(network, length) of `10.0.0.0/8`; a bare address is a /32.

    Bits set below the length are a ValueError unless `host_bits`, which clears them.
    """
    head, slash, tail = text.partition("/")
    address = parse_address(head)
    if not slash:
        return (address, 32)
    if not (tail.isascii() and tail.isdigit()) or len(tail) > 2 or int(tail) > 32:
        raise ValueError(f"{text!r} has no prefix length from 0 to 32")
    length = int(tail)
    network = address & MASKS[length]
    if network != address and not host_bits:
        raise ValueError(f"{text!r} has bits set below its prefix length")
    return (network, length)


def format_prefix(prefix: Prefix) -> str:
    """`10.0.0.0/8` for (network, length)."""
    return f"{format_address(prefix[0])}/{prefix[1]}"


def network_of(address: int, length: int) -> Prefix:
    """The prefix of this length that holds the address."""
    return (address & MASKS[length], length)


def contains(prefix: Prefix, address: int) -> bool:
    """Whether the address lies in the prefix."""
    return address & MASKS[prefix[1]] == prefix[0]


def directed_broadcast(prefix: Prefix) -> int | None:
    """The broadcast address of a network; None for /31 and /32, which have none (RFC 3021)."""
    network, length = prefix
    return None if length > 30 else network | (MASKS[length] ^ ALL_ONES)


def is_multicast(address: int) -> bool:
    """Class D (RFC 1112)."""
    return address >> 28 == 0xE


def is_unicast_host(address: int) -> bool:
    """Whether one host can own the address: neither network 0, loopback, class D, E nor broadcast."""
    top = address >> 24
    return 0 < top < 224 and top != 127


def parse_mac(text: str) -> bytes:
    """Six bytes of `02:00:00:00:03:0b`; ValueError for anything else."""
    parts = text.split(":")
    try:
        if len(parts) != 6 or any(len(part) != 2 for part in parts):
            raise ValueError
        return bytes.fromhex("".join(parts))
    except ValueError:
        raise ValueError(f"{text!r} is not a MAC address") from None


def format_mac(mac: bytes) -> str:
    """`02:00:00:00:03:0b` for six bytes."""
    return mac.hex(":")
