"""Search of any output for keys: in text, in hexadecimal digits, in base64, and as Python prints octets."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PIECE = 24
"""Octets of a long key that are searched: a private key may be cut into lines."""


def base64_cores(key: bytes) -> Iterator[bytes]:
    """What stands in the base64 of any text that holds the key, for each of the three places that it can begin at:
    the characters that no octet before or after the key has a part in."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + key + bytes(2))
        yield text[-(-before * 8 // 6) : (before + len(key)) * 8 // 6]


@cache
def forms(key: bytes) -> frozenset[bytes]:
    """How a key can stand in an output; hexadecimal digits in small letters."""
    cores = set(base64_cores(key))
    cores |= {core.translate(bytes.maketrans(b"+/", b"-_")) for core in cores}
    return frozenset({key, key.hex().encode(), repr(key)[2:-1].encode(), *cores})


def found(keys: Mapping[str, bytes], output: bytes) -> list[str]:
    """The names of the keys that an output has in any form."""
    small = output.lower()
    # Hexadecimal digits may be parted into octets, and base64, which may have an 0x of its own, into lines.
    lines = re.sub(rb"[\s:]+|\\n", b"", output)
    joined = lines.replace(b"0x", b"")
    return [
        name
        for name, key in keys.items()
        if any(form in output or form in lines or form in joined for form in forms(key))
        or key.hex().encode() in small
        or key.hex().encode() in joined.lower()
    ]


def private_parts(pem: str) -> dict[str, bytes]:
    """Pieces of the numbers of an RSA key that nobody else may have, by name."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.private_numbers()
    made: dict[str, bytes] = {}
    for name in ("p", "q", "d"):
        number = getattr(numbers, name)
        octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
        for at in range(0, len(octets) - PIECE, PIECE):
            made[f"{name} of the private key at {at}"] = octets[at : at + PIECE]
    return made
