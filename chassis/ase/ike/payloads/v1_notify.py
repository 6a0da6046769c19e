"""Notify and Delete payloads of version 1 (RFC 2408 3.14, 3.15)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import IPSEC_DOI, NotifyTypeV1, PayloadTypeV1

MAX_SPI: Final = 16
"""Both cookies, as the SPI of an ISAKMP SA."""
MAX_SPIS: Final = 1024

_NOTIFY = struct.Struct("!IBBH")


def _check_doi(payload: str, doi: int) -> None:
    if doi > IPSEC_DOI:
        raise PayloadError(
            payload,
            "DOI",
            f"{doi:#x}",
            log="ikev1-invalid-doi",
            values={"value": doi},
            notify=NotifyTypeV1.DOI_NOT_SUPPORTED,
        )


@dataclass(frozen=True, slots=True)
class NotifyV1:
    """`notify` is a NotifyTypeV1 (below 16384 an error); `doi` 0 speaks of ISAKMP itself."""

    notify: int
    protocol: int = 1
    spi: bytes = b""
    data: bytes = b""
    doi: int = IPSEC_DOI

    @property
    def type(self) -> int:
        return PayloadTypeV1.NOTIFY

    @property
    def is_error(self) -> bool:
        return self.notify < 16384

    @classmethod
    def parse(cls, body: memoryview) -> NotifyV1:
        """Raises PayloadError for another DOI, or an SPI longer than 16 octets or the payload."""
        size = len(body)
        if size < 8:
            raise PayloadError("notify", "length", f"{size} bytes", size, notify=NotifyTypeV1.PAYLOAD_MALFORMED)
        doi, protocol, spi_size, notify = _NOTIFY.unpack_from(body)
        _check_doi("notify", doi)
        if spi_size > min(MAX_SPI, size - 8):
            raise PayloadError("notify", "SPI size", f"{spi_size}", 5, notify=NotifyTypeV1.INVALID_SPI)
        return cls(notify, protocol, bytes(body[8 : 8 + spi_size]), bytes(body[8 + spi_size :]), doi)

    def emit(self) -> bytes:
        return _NOTIFY.pack(self.doi, self.protocol, len(self.spi), self.notify) + self.spi + self.data


@dataclass(frozen=True, slots=True)
class DeleteV1:
    """SPIs of one size; for ISAKMP each is the two cookies together."""

    protocol: int
    spis: tuple[bytes, ...]
    doi: int = IPSEC_DOI

    @property
    def type(self) -> int:
        return PayloadTypeV1.DELETE

    @classmethod
    def parse(cls, body: memoryview) -> DeleteV1:
        """Raises PayloadError unless count and size of the SPIs give the length."""
        size = len(body)
        if size < 8:
            raise PayloadError("delete", "length", f"{size} bytes", size, notify=NotifyTypeV1.PAYLOAD_MALFORMED)
        doi, protocol, spi_size, count = _NOTIFY.unpack_from(body)
        _check_doi("delete", doi)
        if not 1 <= spi_size <= MAX_SPI or not 1 <= count <= MAX_SPIS or spi_size * count != size - 8:
            raise PayloadError(
                "delete", "SPIs", f"{count} of {spi_size} bytes", 5, notify=NotifyTypeV1.PAYLOAD_MALFORMED
            )
        return cls(protocol, tuple(bytes(body[at : at + spi_size]) for at in range(8, size, spi_size)), doi)

    def emit(self) -> bytes:
        """ValueError unless there are SPIs, all of one size."""
        sizes = {len(spi) for spi in self.spis}
        if len(sizes) != 1:
            raise ValueError("a Delete payload needs SPIs of one size")
        return _NOTIFY.pack(self.doi, self.protocol, sizes.pop(), len(self.spis)) + b"".join(self.spis)
