"""Notify, Delete and Vendor ID payloads of version 2 (RFC 7296 3.10 to 3.12)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2, Protocol

_NOTIFY_HEAD = struct.Struct("!BBH")


def _header_fault(payload: str, what: str, offset: int, log: str, **values: int) -> PayloadError:
    return PayloadError(
        payload, "header", what, offset, log=log, values=values, notify=NotifyTypeV2.INVALID_SYNTAX
    )


@dataclass(frozen=True, slots=True)
class NotifyV2:
    """`notify` is a NotifyTypeV2 (below 16384 an error); protocol and SPI name a CHILD SA or are 0 and empty."""

    notify: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    @property
    def type(self) -> int:
        return PayloadTypeV2.NOTIFY

    @property
    def is_error(self) -> bool:
        return self.notify < 16384

    @classmethod
    def parse(cls, body: memoryview) -> NotifyV2:
        """Raises PayloadError for an unknown protocol and an SPI of a wrong size."""
        size = len(body)
        if size < 4:
            raise _header_fault("notify", f"{size} bytes", size, "ikev2-notify-incomplete", received=size)
        protocol, spi_size, notify = _NOTIFY_HEAD.unpack_from(body)
        if protocol > Protocol.ESP:
            raise _header_fault("notify", f"protocol {protocol}", 0, "ikev2-notify-protocol", protocol=protocol)
        if spi_size and protocol == Protocol.IKE:
            raise _header_fault(
                "notify", f"SPI of {spi_size} bytes for the IKE SA", 1, "ikev2-notify-ike-spi-size"
            )
        if spi_size > size - 4:
            raise _header_fault(
                "notify", f"SPI of {spi_size} bytes", 1, "ikev2-notify-length", length=spi_size + 8, received=size
            )
        return cls(notify, bytes(body[4 + spi_size :]), protocol, bytes(body[4 : 4 + spi_size]))

    def emit(self) -> bytes:
        return _NOTIFY_HEAD.pack(self.protocol, len(self.spi), self.notify) + self.spi + self.data


@dataclass(frozen=True, slots=True)
class DeleteV2:
    """SPIs as the sender's inbound SAs have them; none with protocol IKE, which deletes the IKE SA itself."""

    protocol: int
    spis: tuple[bytes, ...] = field(default=())

    @property
    def type(self) -> int:
        return PayloadTypeV2.DELETE

    @classmethod
    def parse(cls, body: memoryview) -> DeleteV2:
        """Raises PayloadError unless count and size of the SPIs give the length."""
        size = len(body)
        if size < 4:
            raise _header_fault("delete", f"{size} bytes", size, "ikev2-delete-length", length=8, received=size)
        protocol, spi_size, count = _NOTIFY_HEAD.unpack_from(body)
        if protocol not in (Protocol.IKE, Protocol.AH, Protocol.ESP):
            raise _header_fault("delete", f"protocol {protocol}", 0, "ikev2-delete-protocol", protocol=protocol)
        if protocol == Protocol.IKE and spi_size:
            raise _header_fault(
                "delete", f"SPIs of {spi_size} bytes for the IKE SA", 1, "ikev2-delete-ike-spi-size"
            )
        if (
            (protocol != Protocol.IKE and spi_size != 4)
            or spi_size * count != size - 4
            or (count and not spi_size)
        ):
            length = 8 + spi_size * count
            raise _header_fault(
                "delete",
                f"{count} SPIs of {spi_size} bytes",
                2,
                "ikev2-delete-length",
                length=length,
                received=size,
            )
        return cls(protocol, tuple(bytes(body[at : at + spi_size]) for at in range(4, size, 4)))

    def emit(self) -> bytes:
        spi_size = 0 if self.protocol == Protocol.IKE else 4
        return _NOTIFY_HEAD.pack(self.protocol, spi_size, len(self.spis)) + b"".join(self.spis)


@dataclass(frozen=True, slots=True)
class VendorV2:
    """A vendor ID; unknown ones mean nothing."""

    id: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.VENDOR

    @classmethod
    def parse(cls, body: memoryview) -> VendorV2:
        """Raises PayloadError when it is empty."""
        if not body:
            raise _header_fault("vendor ID", "empty", 0, "ikev2-vendor-incomplete", received=0)
        return cls(bytes(body))

    def emit(self) -> bytes:
        return self.id
