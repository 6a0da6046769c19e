"""Known answers of every suite of ESP: what an engine must make of the same packets, keys, numbers and IVs.

The packets have many lengths, so that an engine that works on packets side by side fills and drains its lanes. The
digests are of the octets that the algorithms' RFCs prescribe; the tests compute them without an engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import product
from types import MappingProxyType
from typing import Final, TypeAlias

from chassis.ase.ipsec.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ipsec.cipher_engine import TRAILERS, CipherEngine
from chassis.ase.ipsec.received import Item
from chassis.ase.ipsec.sa import ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH, Esp

Suite: TypeAlias = tuple[str, str | None]
"""Names of the cipher and of the integrity algorithm; None without one, and for a combined mode cipher."""

SUITES: Final[tuple[Suite, ...]] = tuple(
    (cipher, integrity)
    for cipher, integrity in product(CIPHERS, (None, *INTEGRITY))
    if (cipher, integrity) != ("null", None) and not (CIPHERS[cipher].combined and integrity)
)

SPI: Final = 0x1234
FIRST: Final = (7 << 32) + 5
"""Sequence number of the first packet. Without ESN its low half counts."""
LENGTHS: Final = (20, 21, 28, 29, 30, 40, 64, 99, 128, 256, 576, 1400, 1500) * 2
CLEAR: Final = bytes(index * 37 + (index >> 8) & 0xFF for index in range(sum(LENGTHS)))
"""The packets, end to end."""

ANSWERS: Final[Mapping[Suite, str]] = MappingProxyType(
    {
        ("null", "hmac-md5-96"): "b53279f1e7af2de4",
        ("null", "hmac-sha1-96"): "acf59161f5c05401",
        ("null", "hmac-aes-xcbc"): "91dbfca282ad734a",
        ("null", "hmac-sha-256-128"): "4b3b20a6aa204764",
        ("null", "hmac-sha-384-192"): "370331899a74d18e",
        ("null", "hmac-sha-512-256"): "cebf182eac6840a0",
        ("des-cbc", None): "2658cf5a8603e79b",
        ("des-cbc", "hmac-md5-96"): "24616c5855d00f5c",
        ("des-cbc", "hmac-sha1-96"): "e97e5468138e923c",
        ("des-cbc", "hmac-aes-xcbc"): "b48344294b455806",
        ("des-cbc", "hmac-sha-256-128"): "da39e6bf9d702e7e",
        ("des-cbc", "hmac-sha-384-192"): "3a82acd4ea45696e",
        ("des-cbc", "hmac-sha-512-256"): "0f3a2c384c890e8b",
        ("3des-cbc", None): "27d9f3f68be32442",
        ("3des-cbc", "hmac-md5-96"): "9a0395b7d4a3fcda",
        ("3des-cbc", "hmac-sha1-96"): "cd0f6f088253dbf7",
        ("3des-cbc", "hmac-aes-xcbc"): "81e5dd80169326e0",
        ("3des-cbc", "hmac-sha-256-128"): "15532d9dafc8b647",
        ("3des-cbc", "hmac-sha-384-192"): "7566a250134d62bc",
        ("3des-cbc", "hmac-sha-512-256"): "ac90646c4a8e3cbb",
        ("aes-128-cbc", None): "174d2b19503de933",
        ("aes-128-cbc", "hmac-md5-96"): "af2cb23ba1f68141",
        ("aes-128-cbc", "hmac-sha1-96"): "8aed80401ada33c6",
        ("aes-128-cbc", "hmac-aes-xcbc"): "8d84673809ef2011",
        ("aes-128-cbc", "hmac-sha-256-128"): "3c6e269a8c993954",
        ("aes-128-cbc", "hmac-sha-384-192"): "e06e1295d5d688e2",
        ("aes-128-cbc", "hmac-sha-512-256"): "11eabaa40c43dfe4",
        ("aes-192-cbc", None): "60f8f4835789030f",
        ("aes-192-cbc", "hmac-md5-96"): "335d450fe7f94ab2",
        ("aes-192-cbc", "hmac-sha1-96"): "86912f7b768c3e89",
        ("aes-192-cbc", "hmac-aes-xcbc"): "217cc70b6c876762",
        ("aes-192-cbc", "hmac-sha-256-128"): "cace3ccf8974d1d6",
        ("aes-192-cbc", "hmac-sha-384-192"): "782f823bce3f7033",
        ("aes-192-cbc", "hmac-sha-512-256"): "063c906569c188a8",
        ("aes-256-cbc", None): "40610422645d3a46",
        ("aes-256-cbc", "hmac-md5-96"): "69472d19655c2693",
        ("aes-256-cbc", "hmac-sha1-96"): "774f29e1717a5bbc",
        ("aes-256-cbc", "hmac-aes-xcbc"): "ff56483cadf6978d",
        ("aes-256-cbc", "hmac-sha-256-128"): "7449782ffc27b57a",
        ("aes-256-cbc", "hmac-sha-384-192"): "424304bf2b3157fa",
        ("aes-256-cbc", "hmac-sha-512-256"): "f138923580c676ca",
        ("aes-128-gcm", None): "3dc9dc7541a0e369",
        ("aes-192-gcm", None): "606434f33e5e1606",
        ("aes-256-gcm", None): "e74fffe12df44716",
    }
)
"""The first 64 bits of SHA-256 over all packets of a suite, without and then with ESN."""


def octets(count: int) -> bytes:
    """Return the octets of keys and of IVs."""
    return bytes(index * 11 + 3 & 0xFF for index in range(count))


def esp_of(suite: Suite) -> Esp:
    """Return ESP with the keys of a suite."""
    cipher, integrity = suite
    key = octets(CIPHERS[cipher].key_octets)
    if integrity is None:
        return Esp(SPI, cipher, key)
    return Esp(SPI, cipher, key, integrity, octets(INTEGRITY[integrity].key_octets))


def sealed(engine: CipherEngine, suite: Suite, esn: bool) -> tuple[bytes, list[Item], list[int]]:
    """Return what an engine makes of the packets, end to end, the packets as they are received, and their
    numbers."""
    esp = esp_of(suite)
    cipher = esp.cipher_algorithm
    block = cipher.block_octets
    first = FIRST if esn else FIRST & 0xFFFFFFFF
    sealer = engine.sealer(esp, esn)
    ivs = sealer.ivs(first, len(LENGTHS), octets)
    numbers = list(range(first, first + len(LENGTHS)))
    heads = [SPI.to_bytes(4, "big") + (number & 0xFFFFFFFF).to_bytes(4, "big") for number in numbers]
    if sealer.iv_in_head:
        heads = [head + iv for head, iv in zip(heads, ivs, strict=True)]
    spans, tails, sizes, items = [], [], [], []
    start = at = 0
    for index, length in enumerate(LENGTHS):
        padding = -(length + ESP_TRAILER_LENGTH) % block
        size = length + padding + ESP_TRAILER_LENGTH
        spans.append((start, start + length))
        tails.append(TRAILERS[padding] + sealer.suffix(first))
        sizes.append(size)
        start += length
        end = at + ESP_HEADER_LENGTH + cipher.iv_octets + size + esp.icv_octets
        items.append((index, at, at, end, 0, numbers[index] & 0xFFFFFFFF))
        at = end
    out = sealer.seal(memoryview(CLEAR), spans, heads, tails, sizes, ivs, first)
    engine.flush()
    return bytes(out), items, numbers


def opened(
    engine: CipherEngine, suite: Suite, esn: bool, wire: bytes, items: list[Item], numbers: list[int]
) -> tuple[list[int], bytes]:
    """Return which packets an engine finds authentic, and the packets in them."""
    opener = engine.opener(esp_of(suite), esn)
    pending = opener.begin(memoryview(wire), items, numbers)
    engine.flush()
    authentic, clear = opener.finish(pending)
    taken = list(range(len(items))) if authentic is None else list(authentic)
    block = CIPHERS[suite[0]].block_octets
    packets: list[bytes] = []
    at = 0
    for index in taken:
        start = at + opener.lead
        padding = -(LENGTHS[index] + ESP_TRAILER_LENGTH) % block
        at = start + LENGTHS[index] + padding + ESP_TRAILER_LENGTH
        packets.append(bytes(clear[start : start + LENGTHS[index]]))
    return taken, b"".join(packets)


def digest(parts: list[bytes]) -> str:
    """Return the digest of the packets of a suite."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def is_right(engine: CipherEngine, suite: Suite) -> bool:
    """Whether an engine gives the known answer of a suite, opens it, and refuses a changed packet."""
    parts = []
    changed = len(LENGTHS) // 2
    for esn in (False, True):
        wire, items, numbers = sealed(engine, suite, esn)
        parts.append(wire)
        everything = list(range(len(items)))
        if opened(engine, suite, esn, wire, items, numbers) != (everything, CLEAR):
            return False
        if esp_of(suite).icv_octets:
            damaged = bytearray(wire)
            damaged[items[changed][3] - 1] ^= 1
            others = [index for index in everything if index != changed]
            if opened(engine, suite, esn, bytes(damaged), items, numbers)[0] != others:
                return False
    return digest(parts) == ANSWERS[suite]
