"""Algorithms against the published vectors of their RFCs."""

from __future__ import annotations

import pytest

from chassis.ase.ike.crypto import algorithms as ike_ciphers
from chassis.ase.ike.crypto import algorithms as ike_macs
from chassis.ase.ipsec.algorithms import CIPHERS, INTEGRITY
from tests.support.ipsec import LEFT, inner

COUNTED = bytes(range(1, 26))

RFC_2202 = [
    ("hmac-md5-96", b"\x0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
    ("hmac-md5-96", b"Jefe", b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
    ("hmac-md5-96", b"\xaa" * 16, b"\xdd" * 50, "56be34521d144c88dbb8c733f0e8b3f6"),
    ("hmac-md5-96", COUNTED, b"\xcd" * 50, "697eaf0aca3a3aea3a75164746ffaa79"),
    ("hmac-md5-96", b"\x0c" * 16, b"Test With Truncation", "56461ef2342edc00f9bab995"),
    ("hmac-sha1-96", b"\x0b" * 20, b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
    ("hmac-sha1-96", b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
    ("hmac-sha1-96", b"\xaa" * 20, b"\xdd" * 50, "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
    ("hmac-sha1-96", COUNTED, b"\xcd" * 50, "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
    ("hmac-sha1-96", b"\x0c" * 20, b"Test With Truncation", "4c1a03424b55e07fe7f27be1"),
]

XCBC_KEY = bytes(range(16))
RFC_3566 = [
    (b"", "75f0251d528ac01c4573dfd584d79f29"),
    (bytes(range(3)), "5b376580ae2f19afe7219ceef172756f"),
    (bytes(range(16)), "d2a246fa349b68a79998a4394ff7a263"),
    (bytes(range(20)), "47f51b4564966215b8985c63055ed308"),
    (bytes(range(32)), "f54f0ec8d2b9f3d36807734bd5283fd4"),
    (bytes(range(34)), "becbb3bccdb518a30677d5481fb6b4d8"),
    (bytes(1000), "f0dafee895db30253761103b5d84528f"),
]

CASES = [*RFC_2202, *(("hmac-aes-xcbc", XCBC_KEY, data, value) for data, value in RFC_3566)]


@pytest.mark.parametrize(("name", "key", "data", "value"), CASES)
def test_integrity_values_are_the_first_96_bits_of_the_published_ones(
    name: str, key: bytes, data: bytes, value: str
) -> None:
    integrity = INTEGRITY[name].keyed(key)
    icv = integrity.icv
    twice = memoryview(data + data)
    middle = len(data)
    assert integrity.icvs(twice, (0, middle), (middle, 2 * middle)) == bytes.fromhex(value)[:12] * 2
    assert integrity.icvs(twice, (0,), (middle // 2,), data[middle // 2 :]) == bytes.fromhex(value)[:12]
    rows = memoryview((b"head" + data + b"tail") * 5)
    step = middle + 8
    even = range(4, len(rows), step), range(4 + middle, len(rows), step)
    assert integrity.icvs(rows, *even) == bytes.fromhex(value)[:12] * 5
    assert icv(data) == bytes.fromhex(value)[:12]
    assert icv(data) == bytes.fromhex(value)[:12], "a context is used many times"
    for cut in {0, 1, len(data) // 2, len(data)}:
        assert icv(memoryview(data)[cut:], data[:cut]) == bytes.fromhex(value)[:12]


def test_registered_lengths() -> None:
    assert {name: entry.key_octets for name, entry in INTEGRITY.items()} == {
        "hmac-md5-96": 16, "hmac-sha1-96": 20, "hmac-aes-xcbc": 16, "hmac-sha-256-128": 32, "hmac-sha-384-192": 48,
        "hmac-sha-512-256": 64,
    }  # fmt: skip
    assert {name: (entry.key_octets, entry.iv_octets) for name, entry in CIPHERS.items()} == {
        "null": (0, 0),
        "des-cbc": (8, 8),
        "3des-cbc": (24, 8),
        "aes-128-cbc": (16, 16),
        "aes-192-cbc": (24, 16),
        "aes-256-cbc": (32, 16),
        "aes-128-gcm": (20, 8),
        "aes-192-gcm": (28, 8),
        "aes-256-gcm": (36, 8),
    }


def test_what_ike_can_negotiate_can_be_installed() -> None:
    for name, cipher in ike_ciphers.CIPHERS.items():
        assert CIPHERS[name].key_octets == cipher.key_octets
        assert CIPHERS[name].combined == cipher.aead
    for name, integrity in ike_macs.INTEGRITY.items():
        assert (INTEGRITY[name].key_octets, INTEGRITY[name].icv_octets) == (
            integrity.key_octets,
            integrity.icv_octets,
        )
        key, data = bytes(range(integrity.key_octets)), bytes(range(100))
        assert INTEGRITY[name].keyed(key).icv(data) == integrity.icv(key, data)


def test_des_is_3des_with_equal_keys() -> None:
    key = bytes(range(8))
    single = CIPHERS["des-cbc"].encryptor(key)
    triple = CIPHERS["3des-cbc"].encryptor(key * 3)
    assert single is not None
    assert triple is not None
    packet = inner(64, source=LEFT)
    assert single.update(packet) == triple.update(packet)


def test_des_known_answer() -> None:
    """FIPS 81 table C1: DES in CBC mode."""
    encryptor = CIPHERS["des-cbc"].encryptor(bytes.fromhex("0123456789abcdef"))
    assert encryptor is not None
    vector = int.from_bytes(bytes.fromhex("1234567890abcdef"), "big")
    text = b"Now is the time for all "
    first = (int.from_bytes(text[:8], "big") ^ vector).to_bytes(8, "big")
    assert encryptor.update(first + text[8:]).hex() == "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6"
