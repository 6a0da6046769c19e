"""The Encrypted payload and its fragments, still sealed (RFC 7296 3.14, RFC 7383 2.5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2

MAX_FRAGMENTS: Final = 64
"""Fragments of one message that are accepted: 64 of 548 octets and more hold any message worth having."""

_FRAGMENT_HEAD = struct.Struct("!HH")


def _encrypted_fault(payload: str, field: str, what: str, size: int) -> PayloadError:
    values = {"received": size}
    return PayloadError(
        payload, field, what, log="ikev2-default-incomplete", values=values, notify=NotifyTypeV2.INVALID_SYNTAX
    )


@dataclass(frozen=True, slots=True)
class Encrypted:
    """`body` is IV, ciphertext and integrity check value; `first` the type of the first payload inside."""

    first: int
    body: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.SK

    @classmethod
    def parse(cls, body: memoryview, first: int) -> Encrypted:
        """Raises PayloadError when it is empty."""
        if not body:
            raise _encrypted_fault("SK", "length", "empty", 0)
        return cls(first, bytes(body))

    def emit(self) -> bytes:
        return self.body


@dataclass(frozen=True, slots=True)
class EncryptedFragment:
    """Fragment `number` of `total`, counted from 1; only the first has a `first` other than 0."""

    first: int
    number: int
    total: int
    body: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.SKF

    @classmethod
    def parse(cls, body: memoryview, first: int) -> EncryptedFragment:
        """Raises PayloadError for a number out of range, and for more than MAX_FRAGMENTS."""
        size = len(body)
        if size < 5:
            raise _encrypted_fault("SKF", "length", f"{size} bytes", size)
        number, total = _FRAGMENT_HEAD.unpack_from(body)
        if not 1 <= number <= total <= MAX_FRAGMENTS:
            raise _encrypted_fault("SKF", "fragment number", f"{number} of {total}", size)
        if number > 1 and first:
            raise _encrypted_fault("SKF", "next payload", f"{first} in fragment {number}", size)
        return cls(first, number, total, bytes(body[4:]))

    def emit(self) -> bytes:
        return _FRAGMENT_HEAD.pack(self.number, self.total) + self.body
