"""Identities, original addresses, certificates of version 1 (RFC 2407 4.6.2, RFC 3947 5.2, RFC 2408 3.9 f.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import IdType, NotifyTypeV1, PayloadTypeV1

_ID_OCTETS: Final[dict[int, int]] = {
    IdType.IPV4_ADDR: 4,
    IdType.IPV4_ADDR_SUBNET: 8,
    IdType.IPV4_ADDR_RANGE: 8,
    IdType.IPV6_ADDR: 16,
    IdType.IPV6_ADDR_SUBNET: 32,
    IdType.IPV6_ADDR_RANGE: 32,
}


@dataclass(frozen=True, slots=True)
class IdV1:
    """An identity (phase 1) or one side of the selectors (phase 2); protocol 0 and port 0 mean any."""

    id_type: int
    data: bytes
    protocol: int = 0
    port: int = 0

    @property
    def type(self) -> int:
        return PayloadTypeV1.ID

    @classmethod
    def parse(cls, body: memoryview) -> IdV1:
        """Raises PayloadError for an unknown type, an address of a wrong length and an empty name."""
        size = len(body)
        if size < 4:
            raise PayloadError("ID", "length", f"{size} bytes", size, notify=NotifyTypeV1.PAYLOAD_MALFORMED)
        id_type = body[0]
        if not IdType.IPV4_ADDR <= id_type <= IdType.KEY_ID:
            raise PayloadError("ID", "type", f"{id_type}", notify=NotifyTypeV1.INVALID_ID_INFORMATION)
        wanted = _ID_OCTETS.get(id_type, size - 4)
        if wanted != size - 4 or not wanted:
            raise PayloadError("ID", "data", f"{size - 4} bytes", 4, notify=NotifyTypeV1.INVALID_ID_INFORMATION)
        return cls(id_type, bytes(body[4:]), body[1], int.from_bytes(body[2:4], "big"))

    @classmethod
    def address(cls, address: int, protocol: int = 0, port: int = 0) -> IdV1:
        """One IPv4 address (a number)."""
        return cls(IdType.IPV4_ADDR, address.to_bytes(4, "big"), protocol, port)

    @classmethod
    def subnet(cls, network: int, mask: int, protocol: int = 0, port: int = 0) -> IdV1:
        """Network and mask (numbers)."""
        data = network.to_bytes(4, "big") + mask.to_bytes(4, "big")
        return cls(IdType.IPV4_ADDR_SUBNET, data, protocol, port)

    @classmethod
    def range(cls, first: int, last: int, protocol: int = 0, port: int = 0) -> IdV1:
        """First and last address (numbers)."""
        data = first.to_bytes(4, "big") + last.to_bytes(4, "big")
        return cls(IdType.IPV4_ADDR_RANGE, data, protocol, port)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """(first, last) IPv4 address; None for names, IPv6, and a mask with holes in it."""
        if self.id_type == IdType.IPV4_ADDR:
            only = int.from_bytes(self.data, "big")
            return only, only
        if self.id_type not in (IdType.IPV4_ADDR_SUBNET, IdType.IPV4_ADDR_RANGE):
            return None
        first = int.from_bytes(self.data[:4], "big")
        last = int.from_bytes(self.data[4:], "big")
        if self.id_type == IdType.IPV4_ADDR_RANGE:
            return (first, last) if first <= last else None
        host = ~last & 0xFFFFFFFF
        return (first & last, first | host) if host & (host + 1) == 0 else None

    def emit(self) -> bytes:
        """Also what HASH_I and HASH_R take: the body after the generic header (RFC 2409 section 5)."""
        return bytes((self.id_type, self.protocol)) + self.port.to_bytes(2, "big") + self.data


@dataclass(frozen=True, slots=True)
class NatOa:
    """An original address before NAT (transport mode); `type` is PayloadTypeV1.NAT_OA or its draft number."""

    id_type: int
    data: bytes
    type: int = PayloadTypeV1.NAT_OA

    @classmethod
    def parse(cls, body: memoryview, type: int) -> NatOa:
        """Raises PayloadError for anything but one address."""
        size = len(body)
        if size < 8 or body[0] not in (IdType.IPV4_ADDR, IdType.IPV6_ADDR) or _ID_OCTETS[body[0]] != size - 4:
            raise PayloadError("NAT-OA", "address", f"{size} bytes", notify=NotifyTypeV1.PAYLOAD_MALFORMED)
        return cls(body[0], bytes(body[4:]), type)

    def emit(self) -> bytes:
        return bytes((self.id_type, 0, 0, 0)) + self.data


@dataclass(frozen=True, slots=True)
class CertV1:
    """A certificate or CRL by `encoding` (a CertEncoding)."""

    encoding: int
    data: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV1.CERT

    @classmethod
    def parse(cls, body: memoryview) -> CertV1:
        """Raises PayloadError without data."""
        if len(body) < 2:
            raise PayloadError("CERT", "length", f"{len(body)} bytes", notify=NotifyTypeV1.PAYLOAD_MALFORMED)
        return cls(body[0], bytes(body[1:]))

    def emit(self) -> bytes:
        return bytes((self.encoding,)) + self.data


@dataclass(frozen=True, slots=True)
class CertReqV1:
    """An authority by its DER name; an empty one means any."""

    encoding: int
    authority: bytes = b""

    @property
    def type(self) -> int:
        return PayloadTypeV1.CERTREQ

    @classmethod
    def parse(cls, body: memoryview) -> CertReqV1:
        """Raises PayloadError without an encoding."""
        if not body:
            raise PayloadError("CERTREQ", "length", "empty", notify=NotifyTypeV1.PAYLOAD_MALFORMED)
        return cls(body[0], bytes(body[1:]))

    def emit(self) -> bytes:
        return bytes((self.encoding,)) + self.authority
