"""Configuration and EAP payloads (RFC 7296 3.15, 3.16)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2

CFG_REQUEST: Final = 1
CFG_REPLY: Final = 2
CFG_SET: Final = 3
CFG_ACK: Final = 4
MAX_CONFIG_ATTRIBUTES: Final = 128

KNOWN_ATTRIBUTES: Final = frozenset((1, 2, 3, 4, 6, 7, 8, 10, 12, 13, 14, 15))
"""Attribute types that RFC 7296 defines; others are passed over, with a line in the log."""

_CONFIG_ATTRIBUTE = struct.Struct("!HH")


def _length_fault(payload: str, what: str, offset: int, log: str, size: int) -> PayloadError:
    values = {"received": size, "length": size + 4}
    return PayloadError(
        payload, "length", what, offset, log=log, values=values, notify=NotifyTypeV2.INVALID_SYNTAX
    )


@dataclass(frozen=True, slots=True)
class ConfigAttribute:
    """`type` has 15 bits; an empty value in a request asks for one."""

    type: int
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class ConfigPayload:
    """`kind` is one of the CFG_ numbers."""

    kind: int
    attributes: tuple[ConfigAttribute, ...] = ()

    @property
    def type(self) -> int:
        return PayloadTypeV2.CP

    @classmethod
    def parse(cls, body: memoryview) -> ConfigPayload:
        """Raises PayloadError for an unknown kind or attributes that don't fill the payload."""
        size = len(body)
        if size < 4:
            raise _length_fault("CP", f"{size} bytes", size, "ikev2-cp-incomplete", size)
        if not CFG_REQUEST <= body[0] <= CFG_ACK:
            raise PayloadError("CP", "type", f"{body[0]}", notify=NotifyTypeV2.INVALID_SYNTAX)
        attributes: list[ConfigAttribute] = []
        at = 4
        while at < size:
            if size - at < 4 or len(attributes) == MAX_CONFIG_ATTRIBUTES:
                raise _length_fault(
                    "CP", f"{size - at} bytes after the attributes", at, "ikev2-cp-incomplete", size
                )
            kind, length = _CONFIG_ATTRIBUTE.unpack_from(body, at)
            at += 4
            if length > size - at:
                raise _length_fault("CP", f"attribute of {length} bytes", at - 2, "ikev2-cp-incomplete", size)
            attributes.append(ConfigAttribute(kind & 0x7FFF, bytes(body[at : at + length])))
            at += length
        return cls(body[0], tuple(attributes))

    def emit(self) -> bytes:
        parts = [bytes((self.kind, 0, 0, 0))]
        for attribute in self.attributes:
            parts.append(_CONFIG_ATTRIBUTE.pack(attribute.type, len(attribute.value)) + attribute.value)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Eap:
    """An EAP message, not looked into; its own length field fits."""

    message: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.EAP

    @classmethod
    def parse(cls, body: memoryview) -> Eap:
        """Raises PayloadError when the length inside disagrees (RFC 3748 section 4)."""
        size = len(body)
        if size < 4:
            raise _length_fault("EAP", f"{size} bytes", size, "ikev2-eap-incomplete", size)
        if int.from_bytes(body[2:4], "big") != size:
            raise _length_fault("EAP", f"message in a payload of {size} bytes", 2, "ikev2-eap-length", size)
        return cls(bytes(body))

    def emit(self) -> bytes:
        return self.message
