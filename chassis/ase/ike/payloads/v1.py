"""Messages of version 1 and their payloads but the SA payload (RFC 2408 3, RFC 2407 4.6.2, RFC 3947).

`MessageV1` and `parse_payloads` decode octets in clear or as decrypted; each payload class decodes its own body.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

from chassis.ase.ike.payloads.chain import (
    GENERIC,
    GENERIC_LENGTH,
    MAX_PAYLOADS,
    PayloadError,
    UnknownPayload,
    emit_chain,
)
from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import IPSEC_DOI, IdType, NotifyTypeV1, PayloadTypeV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.net.types import Buffer

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

    type: ClassVar[int] = PayloadTypeV1.ID
    id_type: int
    data: bytes
    protocol: int = 0
    port: int = 0

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
        """The (first, last) IPv4 address; None for names, IPv6, and a mask with gaps."""
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

    type: ClassVar[int] = PayloadTypeV1.CERT
    encoding: int
    data: bytes

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

    type: ClassVar[int] = PayloadTypeV1.CERTREQ
    encoding: int
    authority: bytes = b""

    @classmethod
    def parse(cls, body: memoryview) -> CertReqV1:
        """Raises PayloadError without an encoding."""
        if not body:
            raise PayloadError("CERTREQ", "length", "empty", notify=NotifyTypeV1.PAYLOAD_MALFORMED)
        return cls(body[0], bytes(body[1:]))

    def emit(self) -> bytes:
        return bytes((self.encoding,)) + self.authority


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
    """`notify` is a NotifyTypeV1 (an error below 16384); `doi` 0 is ISAKMP itself."""

    type: ClassVar[int] = PayloadTypeV1.NOTIFY
    notify: int
    protocol: int = 1
    spi: bytes = b""
    data: bytes = b""
    doi: int = IPSEC_DOI

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

    type: ClassVar[int] = PayloadTypeV1.DELETE
    protocol: int
    spis: tuple[bytes, ...]
    doi: int = IPSEC_DOI

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
        """Raises ValueError unless there are SPIs, all of one size."""
        sizes = {len(spi) for spi in self.spis}
        if len(sizes) != 1:
            raise ValueError("a Delete payload needs SPIs of one size")
        return _NOTIFY.pack(self.doi, self.protocol, sizes.pop(), len(self.spis)) + b"".join(self.spis)


MIN_NONCE: Final = 8
MAX_NONCE: Final = 256
MAX_HASH: Final = 64


def _octets_between(payload: str, body: memoryview, least: int, most: int) -> bytes:
    size = len(body)
    if not least <= size <= most:
        raise PayloadError(
            payload, "length", f"{size} bytes, {least} to {most} are right", notify=NotifyTypeV1.PAYLOAD_MALFORMED
        )
    return bytes(body)


@dataclass(frozen=True, slots=True)
class KeV1:
    """A Diffie-Hellman public value; the SA that was chosen names the group."""

    type: ClassVar[int] = PayloadTypeV1.KE
    public: bytes

    @classmethod
    def parse(cls, body: memoryview) -> KeV1:
        return cls(_octets_between("KE", body, 1, 65_531))

    def emit(self) -> bytes:
        return self.public


@dataclass(frozen=True, slots=True)
class NonceV1:
    """8 to 256 octets (RFC 2409 section 5)."""

    type: ClassVar[int] = PayloadTypeV1.NONCE
    value: bytes

    @classmethod
    def parse(cls, body: memoryview) -> NonceV1:
        return cls(_octets_between("nonce", body, MIN_NONCE, MAX_NONCE))

    def emit(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class Hash:
    """Output of the negotiated PRF or hash. Its length is checked when it is compared."""

    type: ClassVar[int] = PayloadTypeV1.HASH
    value: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: memoryview) -> Hash:
        return cls(_octets_between("HASH", body, 1, MAX_HASH))

    def emit(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class Signature:
    """An RSA signature of HASH_I or HASH_R."""

    type: ClassVar[int] = PayloadTypeV1.SIG
    value: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: memoryview) -> Signature:
        return cls(_octets_between("SIG", body, 1, 65_531))

    def emit(self) -> bytes:
        return self.value


@dataclass(frozen=True, slots=True)
class VendorV1:
    """A vendor ID; an unknown one is ignored."""

    type: ClassVar[int] = PayloadTypeV1.VENDOR
    id: bytes

    @classmethod
    def parse(cls, body: memoryview) -> VendorV1:
        return cls(_octets_between("vendor ID", body, 1, 65_531))

    def emit(self) -> bytes:
        return self.id


@dataclass(frozen=True, slots=True)
class NatD:
    """Hash of cookies, address and port (RFC 3947 3.2); `type` is PayloadTypeV1.NAT_D or its draft number."""

    hash: bytes
    type: int = PayloadTypeV1.NAT_D

    @classmethod
    def parse(cls, body: memoryview, type: int) -> NatD:
        return cls(_octets_between("NAT-D", body, 1, MAX_HASH), type)

    def emit(self) -> bytes:
        return self.hash


PayloadV1: TypeAlias = (
    SaV1
    | KeV1
    | IdV1
    | CertV1
    | CertReqV1
    | Hash
    | Signature
    | NonceV1
    | NotifyV1
    | DeleteV1
    | VendorV1
    | NatD
    | NatOa
    | UnknownPayload
)

_PARSERS: Final[dict[int, Callable[[memoryview], PayloadV1]]] = {
    PayloadTypeV1.SA: SaV1.parse,
    PayloadTypeV1.KE: KeV1.parse,
    PayloadTypeV1.ID: IdV1.parse,
    PayloadTypeV1.CERT: CertV1.parse,
    PayloadTypeV1.CERTREQ: CertReqV1.parse,
    PayloadTypeV1.HASH: Hash.parse,
    PayloadTypeV1.SIG: Signature.parse,
    PayloadTypeV1.NONCE: NonceV1.parse,
    PayloadTypeV1.NOTIFY: NotifyV1.parse,
    PayloadTypeV1.DELETE: DeleteV1.parse,
    PayloadTypeV1.VENDOR: VendorV1.parse,
}
_TYPED_PARSERS: Final[dict[int, Callable[[memoryview, int], PayloadV1]]] = {
    PayloadTypeV1.NAT_D: NatD.parse,
    PayloadTypeV1.NAT_D_DRAFT: NatD.parse,
    PayloadTypeV1.NAT_OA: NatOa.parse,
    PayloadTypeV1.NAT_OA_DRAFT: NatOa.parse,
}
_IGNORED_TYPES: Final = frozenset((PayloadTypeV1.ATTRIBUTES, PayloadTypeV1.FRAGMENT))
"""Payload types of extensions that peers may send; they are ignored."""


def parse_payloads(first: int, body: memoryview, *, padded: bool = False) -> tuple[PayloadV1, ...]:
    """Return the payloads of the chain that starts with type `first`.

    `padded`: `body` was decrypted, and padding may follow the last payload (RFC 2409 appendix B). After decryption
    with a wrong key, lengths are random: one beyond the message has the guide's line about different preshared
    keys. The reserved octet is random too, so it is checked after the length.

    Raises:
        PayloadError: a length, the number of payloads or a payload is wrong.
    """
    payloads: list[PayloadV1] = []
    at = 0
    size = len(body)
    kind = first
    while kind:
        room = size - at
        if room < GENERIC_LENGTH:
            raise _fault(kind, "generic header", f"{room} bytes left", at, NotifyTypeV1.PAYLOAD_MALFORMED)
        following, reserved, length = GENERIC.unpack_from(body, at)
        parse = _PARSERS.get(kind)
        typed = _TYPED_PARSERS.get(kind)
        if parse is None and typed is None and kind not in _IGNORED_TYPES:
            raise _fault(
                kind,
                "type",
                "unknown",
                at,
                NotifyTypeV1.INVALID_PAYLOAD_TYPE,
                "ikev1-invalid-next-payload",
                value=kind,
            )
        if length < GENERIC_LENGTH:
            raise _fault(kind, "length", f"{length}", at + 2, NotifyTypeV1.PAYLOAD_MALFORMED)
        if length > room:
            raise _fault(
                kind,
                "length",
                f"{length} of {room} bytes",
                at + 2,
                NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS,
                "ikev1-psk-payload-length",
                length=length,
                limit=room,
            )
        if reserved:
            raise _fault(
                kind,
                "reserved",
                f"{reserved:#x}",
                at + 1,
                NotifyTypeV1.PAYLOAD_MALFORMED,
                "ikev1-invalid-reserved-payload",
                value=reserved,
            )
        if len(payloads) == MAX_PAYLOADS:
            raise _fault(kind, "count", f"more than {MAX_PAYLOADS} payloads", at, NotifyTypeV1.PAYLOAD_MALFORMED)
        inner = body[at + GENERIC_LENGTH : at + length]
        if parse is not None:
            payloads.append(parse(inner))
        elif typed is not None:
            payloads.append(typed(inner, kind))
        else:
            payloads.append(UnknownPayload(kind, bytes(inner)))
        at += length
        kind = following
    if at != size and not padded:
        raise _fault(
            0, "length", f"{size - at} bytes after the last payload", at, NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS
        )
    return tuple(payloads)


def emit_payloads(payloads: Iterable[PayloadV1]) -> tuple[int, bytes]:
    """Return (type of the first payload, octets of the chain)."""
    return emit_chain(list(payloads))


@dataclass(frozen=True, slots=True)
class MessageV1:
    """A whole message in clear. `emit` fills in `next_payload` and `length` of its header."""

    header: Header
    payloads: tuple[PayloadV1, ...]

    @classmethod
    def parse(cls, view: Buffer) -> MessageV1:
        """Decode a message; the fields of its header are checked by `header.check()`.

        Raises:
            PayloadError: a length or a payload is wrong.
        """
        header = Header.parse(view)
        return cls(header, parse_payloads(header.next_payload, memoryview(view)[HEADER_LENGTH:]))

    def emit(self) -> bytes:
        first, body = emit_payloads(self.payloads)
        return self.header.emit_before(first, HEADER_LENGTH + len(body)) + body


def _fault(
    kind: int, field: str, what: str, offset: int, notify: int, log: str = "", **values: int
) -> PayloadError:
    name = f"payload {kind}" if kind else "message"
    return PayloadError(name, field, what, offset, log=log, values=values, notify=notify)
