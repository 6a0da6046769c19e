"""IPv4 and Ethernet addresses as text and as values.

As a value, an IPv4 address is an unsigned 32-bit int, a prefix is (int, length), and a MAC address is six octets.
Configurations and messages use the text forms.
"""

from __future__ import annotations

from chassis.net.types import Prefix

ALL_ONES = 0xFFFFFFFF
BROADCAST_MAC = b"\xff" * 6
ZERO_MAC = bytes(6)

ANY: Prefix = (0, 0)
"""The prefix 0.0.0.0/0, which contains every address."""

MASKS: tuple[int, ...] = tuple((ALL_ONES << (32 - length)) & ALL_ONES for length in range(33))
"""Netmask by prefix length (0 to 32)."""


def parse_address(text: str) -> int:
    """Return the number of `10.0.0.1`.

    Raises:
        ValueError: the text is not four decimal octets.
    """
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
    """Return the text, such as `10.0.0.1`, of an address."""
    return f"{address >> 24 & 255}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def parse_prefix(text: str, *, host_bits: bool = False) -> Prefix:
    """Return (network, length) of `10.0.0.0/8`; an address without a length is a /32. `host_bits` clears bits
    below the length.

    Raises:
        ValueError: the text is not a prefix, or has bits set below its length without `host_bits`.
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
    """Return the text, such as `10.0.0.0/8`, of (network, length)."""
    return f"{format_address(prefix[0])}/{prefix[1]}"


def network_of(address: int, length: int) -> Prefix:
    """Return the prefix of this length that contains the address."""
    return (address & MASKS[length], length)


def contains(prefix: Prefix, address: int) -> bool:
    """Return whether the address is in the prefix."""
    return address & MASKS[prefix[1]] == prefix[0]


def directed_broadcast(prefix: Prefix) -> int | None:
    """Return the broadcast address of a network; None for /31 and /32, which have none (RFC 3021)."""
    network, length = prefix
    return None if length > 30 else network | (MASKS[length] ^ ALL_ONES)


def is_multicast(address: int) -> bool:
    """Return whether the address is a multicast address, class D (RFC 1112)."""
    return address >> 28 == 0xE


def is_unicast_host(address: int) -> bool:
    """Return whether one host can own the address: not network 0, loopback, class D, class E or broadcast."""
    top = address >> 24
    return 0 < top < 224 and top != 127


def parse_mac(text: str) -> bytes:
    """Return the six octets of `02:00:00:00:03:0b`.

    Raises:
        ValueError: the text is not a MAC address.
    """
    parts = text.split(":")
    try:
        if len(parts) != 6 or any(len(part) != 2 for part in parts):
            raise ValueError
        return bytes.fromhex("".join(parts))
    except ValueError:
        raise ValueError(f"{text!r} is not a MAC address") from None


def format_mac(mac: bytes) -> str:
    """Return the text, such as `02:00:00:00:03:0b`, of six octets."""
    return mac.hex(":")
