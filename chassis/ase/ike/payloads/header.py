"""The header before every IKE message (RFC 2408 3.1, RFC 7296 3.1), of both versions.

`Header.parse` checks lengths only; `Header.check` checks the fields, with the lines of the guide's tables 5 and 6.
A responder looks at `major` between the two.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import (
    EXCHANGES_V1,
    EXCHANGES_V2,
    UNSUPPORTED_EXCHANGES_V1,
    NotifyTypeV1,
    NotifyTypeV2,
    PayloadTypeV1,
    PayloadTypeV2,
)
from chassis.net.types import Buffer

HEADER_LENGTH: Final = 28
MAX_MESSAGE: Final = 65_535
"""Octets of the longest message: no UDP datagram is longer."""

VERSION_1: Final = 0x10
VERSION_2: Final = 0x20

ENCRYPTION: Final = 0x01
COMMIT: Final = 0x02
AUTHENTICATION_ONLY: Final = 0x04
INITIATOR: Final = 0x08
HIGHER_VERSION: Final = 0x10
RESPONSE: Final = 0x20

_HEADER = struct.Struct("!8s8sBBBBII")
_FLAGS_V1: Final = ENCRYPTION | COMMIT | AUTHENTICATION_ONLY
_NO_SPI: Final = bytes(8)
_FIRST_V1: Final = frozenset(PayloadTypeV1) - {PayloadTypeV1.PROPOSAL, PayloadTypeV1.TRANSFORM}
_FIRST_V2: Final = frozenset(PayloadTypeV2)


@dataclass(frozen=True, slots=True)
class Header:
    """`spi_i` and `spi_r` are eight octets (version 1 calls them cookies); `length` counts header and payloads."""

    spi_i: bytes
    spi_r: bytes
    next_payload: int
    version: int
    exchange: int
    flags: int
    message_id: int
    length: int

    @classmethod
    def parse(cls, view: Buffer) -> Header:
        """Return the header of the whole message `view`.

        Raises:
            PayloadError: the message is shorter than a header, or not as long as the header says.
        """
        size = len(view)
        if size < HEADER_LENGTH:
            raise PayloadError(
                "header",
                "length",
                f"truncated header: {size} bytes",
                size,
                log="ikev2-header-incomplete",
                values={"received": size},
            )
        header = cls(*_HEADER.unpack_from(view))
        if header.length != size or size > MAX_MESSAGE:
            version_2 = header.version & 0xF0 == VERSION_2
            raise PayloadError(
                "header",
                "length",
                f"says {header.length}, but {size} bytes are there",
                24,
                log="ikev2-header-total-length" if version_2 else "",
                values={"received": size, "length": header.length},
                notify=NotifyTypeV2.INVALID_SYNTAX if version_2 else NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS,
            )
        return header

    def emit(self) -> bytes:
        return self.emit_before(self.next_payload, self.length, self.flags)

    def emit_before(self, next_payload: int, length: int, flags: int | None = None) -> bytes:
        """Return the octets of a header that differs in these fields; None leaves the flags as they are."""
        return _HEADER.pack(
            self.spi_i,
            self.spi_r,
            next_payload,
            self.version,
            self.exchange,
            self.flags if flags is None else flags,
            self.message_id,
            length,
        )

    @property
    def major(self) -> int:
        return self.version >> 4

    @property
    def minor(self) -> int:
        return self.version & 0x0F

    @property
    def resembles_version_1(self) -> bool:
        """Whether exchange type and first payload are of version 1, even if the version field says otherwise."""
        return self.major < 2 or (self.exchange in EXCHANGES_V1 and self.next_payload in _FIRST_V1)

    @property
    def encrypted(self) -> bool:
        """Version 1 only: everything after the header is ciphertext."""
        return bool(self.flags & ENCRYPTION)

    @property
    def is_response(self) -> bool:
        """Version 2 only."""
        return bool(self.flags & RESPONSE)

    @property
    def from_initiator(self) -> bool:
        """Version 2 only: sent by the original initiator of the IKE SA."""
        return bool(self.flags & INITIATOR)

    def check(self, *, known: bool = True) -> None:
        """Check the fields. `known`: the message is for an existing IKE SA; the guide's line about an unsupported
        exchange type of version 1 depends on it.

        Raises:
            PayloadError: a field has a value that is not allowed in its version.
        """
        if self.major == 1:
            self._check_v1(known)
        elif self.resembles_version_1:
            raise _error_v1(
                "version",
                17,
                "ikev1-invalid-major-version",
                self.version & 0xF0,
                NotifyTypeV1.INVALID_MAJOR_VERSION,
            )
        elif self.major == 2:
            self._check_v2()
        else:
            raise PayloadError(
                "header",
                "version",
                f"major version {self.major}",
                17,
                log="ikev2-header-major-version",
                values={"version": self.major},
                notify=NotifyTypeV2.INVALID_MAJOR_VERSION,
            )

    def _check_v1(self, known: bool) -> None:
        if self.spi_i == _NO_SPI:
            raise _error_v1("initiator cookie", 0, "ikev1-invalid-initiator-cookie", 0, 0)
        if self.next_payload not in _FIRST_V1:
            raise _error_v1(
                "next payload",
                16,
                "ikev1-invalid-next-payload",
                self.next_payload,
                NotifyTypeV1.INVALID_PAYLOAD_TYPE,
            )
        if self.minor > 0:
            raise _error_v1(
                "version", 17, "ikev1-invalid-minor-version", self.minor, NotifyTypeV1.INVALID_MINOR_VERSION
            )
        if self.exchange not in EXCHANGES_V1:
            # Neither is answered (settled M-13).
            named = known or self.exchange in UNSUPPORTED_EXCHANGES_V1
            log = "ikev1-unsupported-xchgtype" if named else "ikev1-invalid-xchange-type"
            raise _error_v1("exchange type", 18, log, self.exchange, 0)
        if self.flags & ~_FLAGS_V1:
            raise _error_v1("flags", 19, "ikev1-invalid-flags", self.flags, NotifyTypeV1.INVALID_FLAGS)

    def _check_v2(self) -> None:
        if self.spi_i == _NO_SPI:
            raise PayloadError("header", "initiator SPI", "is zero", 0, log="ikev2-header-zero-spi")
        if self.next_payload not in _FIRST_V2 and self.next_payload < 33:
            raise PayloadError(
                "header",
                "next payload",
                f"type {self.next_payload}",
                16,
                log="ikev2-header-next-payload",
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        if self.exchange not in EXCHANGES_V2:
            raise PayloadError(
                "header",
                "exchange type",
                f"type {self.exchange}",
                18,
                log="ikev2-header-exchange-type",
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )


def _error_v1(field: str, offset: int, log: str, value: int, notify: int) -> PayloadError:
    return PayloadError(
        "header", field, f"value {value:#x}", offset, log=log, values={"value": value}, notify=notify
    )
