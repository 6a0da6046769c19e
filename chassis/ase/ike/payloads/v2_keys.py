"""Key exchange, nonce and authentication payloads of version 2 (RFC 7296 3.4, 3.8, 3.9)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import AuthMethod, NotifyTypeV2, PayloadTypeV2

MIN_NONCE: Final = 16
MAX_NONCE: Final = 256

_METHODS: Final = frozenset(AuthMethod)


@dataclass(frozen=True, slots=True)
class KeV2:
    """A public value of Diffie-Hellman group `group`; its length is checked by the group."""

    TYPE: ClassVar[int] = PayloadTypeV2.KE
    group: int
    public: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.KE

    @classmethod
    def parse(cls, body: memoryview) -> KeV2:
        """Raises PayloadError when no public value follows the group."""
        size = len(body)
        if size < 5:
            raise PayloadError(
                "KE",
                "length",
                f"{size} bytes",
                size,
                log="ikev2-ke-incomplete",
                values={"received": size},
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        return cls(int.from_bytes(body[:2], "big"), bytes(body[4:]))

    def emit(self) -> bytes:
        return self.group.to_bytes(2, "big") + b"\0\0" + self.public


@dataclass(frozen=True, slots=True)
class NonceV2:
    """16 to 256 octets."""

    TYPE: ClassVar[int] = PayloadTypeV2.NONCE
    value: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.NONCE

    @classmethod
    def parse(cls, body: memoryview) -> NonceV2:
        """Raises PayloadError for any other length."""
        size = len(body)
        if not MIN_NONCE <= size <= MAX_NONCE:
            raise PayloadError(
                "nonce",
                "length",
                f"{size} bytes",
                log="ikev2-nonce-too-long" if size > MAX_NONCE else "ikev2-nonce-incomplete",
                values={"length": size + 4, "received": size},
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        return cls(bytes(body))

    def emit(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class Auth:
    """Proof of identity by `method` (an AuthMethod)."""

    TYPE: ClassVar[int] = PayloadTypeV2.AUTH
    method: int
    data: bytes = field(repr=False)

    @property
    def type(self) -> int:
        return PayloadTypeV2.AUTH

    @classmethod
    def parse(cls, body: memoryview) -> Auth:
        """Raises PayloadError without data or with a method that no RFC defines."""
        size = len(body)
        if size < 5:
            raise PayloadError(
                "AUTH",
                "length",
                f"{size} bytes",
                size,
                log="ikev2-auth-incomplete",
                values={"received": size},
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        method = body[0]
        if method not in _METHODS:
            raise PayloadError(
                "AUTH",
                "method",
                f"{method}",
                log="ikev2-auth-method",
                values={"method": method},
                notify=NotifyTypeV2.AUTHENTICATION_FAILED,
            )
        return cls(method, bytes(body[4:]))

    def emit(self) -> bytes:
        return bytes((self.method, 0, 0, 0)) + self.data
