"""Payloads of version 1 that hold one value: KE, nonce, hash, signature, vendor ID, NAT-D (RFC 2408 3.7 f.)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, PayloadTypeV1

MIN_NONCE: Final = 8
MAX_NONCE: Final = 256
MAX_HASH: Final = 64


def _value(payload: str, body: memoryview, least: int, most: int) -> bytes:
    size = len(body)
    if not least <= size <= most:
        raise PayloadError(
            payload, "length", f"{size} bytes, {least} to {most} are right", notify=NotifyTypeV1.PAYLOAD_MALFORMED
        )
    return bytes(body)


@dataclass(frozen=True, slots=True)
class KeV1:
    """A Diffie-Hellman public value; the SA that was chosen names the group."""

    TYPE: ClassVar[int] = PayloadTypeV1.KE
    public: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV1.KE

    @classmethod
    def parse(cls, body: memoryview) -> KeV1:
        return cls(_value("KE", body, 1, 65_531))

    def emit(self) -> bytes:
        return self.public


@dataclass(frozen=True, slots=True)
class NonceV1:
    """8 to 256 octets (RFC 2409 section 5)."""

    TYPE: ClassVar[int] = PayloadTypeV1.NONCE
    value: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV1.NONCE

    @classmethod
    def parse(cls, body: memoryview) -> NonceV1:
        return cls(_value("nonce", body, MIN_NONCE, MAX_NONCE))

    def emit(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class Hash:
    """Output of the negotiated PRF or hash; its length is compared by whoever checks it."""

    TYPE: ClassVar[int] = PayloadTypeV1.HASH
    value: bytes = field(repr=False)

    @property
    def type(self) -> int:
        return PayloadTypeV1.HASH

    @classmethod
    def parse(cls, body: memoryview) -> Hash:
        return cls(_value("HASH", body, 1, MAX_HASH))

    def emit(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class Signature:
    """An RSA signature of HASH_I or HASH_R."""

    TYPE: ClassVar[int] = PayloadTypeV1.SIG
    value: bytes = field(repr=False)

    @property
    def type(self) -> int:
        return PayloadTypeV1.SIG

    @classmethod
    def parse(cls, body: memoryview) -> Signature:
        return cls(_value("SIG", body, 1, 65_531))

    def emit(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class VendorV1:
    """A vendor ID; unknown ones mean nothing."""

    TYPE: ClassVar[int] = PayloadTypeV1.VENDOR
    id: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV1.VENDOR

    @classmethod
    def parse(cls, body: memoryview) -> VendorV1:
        return cls(_value("vendor ID", body, 1, 65_531))

    def emit(self) -> bytes:
        return self.id


@dataclass(frozen=True, slots=True)
class NatD:
    """Hash of cookies, address and port (RFC 3947 3.2); `type` is PayloadTypeV1.NAT_D or its draft number."""

    hash: bytes
    type: int = PayloadTypeV1.NAT_D

    @classmethod
    def parse(cls, body: memoryview, type: int) -> NatD:
        return cls(_value("NAT-D", body, 1, MAX_HASH), type)

    def emit(self) -> bytes:
        return self.hash
