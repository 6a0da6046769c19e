"""Identities, certificates and certificate requests of version 2 (RFC 7296 3.5 to 3.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2

_ID_OCTETS: Final = {1: 4, 5: 16}
_ID_TYPES: Final = frozenset((1, 2, 3, 5, 9, 10, 11))
_ENCODINGS: Final = frozenset((1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))


@dataclass(frozen=True, slots=True)
class IdV2:
    """`type` is PayloadTypeV2.ID_I or PayloadTypeV2.ID_R, `id_type` an IdType, `data` the address or name as octets.

    `reserved` are three octets without a meaning, kept as they came: the peer's AUTH covers them.
    """

    type: int
    id_type: int
    data: bytes
    reserved: bytes = bytes(3)

    @classmethod
    def parse(cls, body: memoryview, type: int) -> IdV2:
        """Raises PayloadError for a type of version 1, or an address of a wrong length."""
        size = len(body)
        if size < 4:
            raise PayloadError(
                "ID",
                "length",
                f"{size} bytes",
                size,
                log="ikev2-id-incomplete",
                values={"received": size},
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        id_type = body[0]
        if id_type not in _ID_TYPES:
            raise PayloadError(
                "ID",
                "type",
                f"{id_type}",
                log="ikev2-invalid-id-type",
                values={"id_type": id_type},
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        wanted = _ID_OCTETS.get(id_type, size - 4)
        if wanted != size - 4:
            raise PayloadError(
                "ID",
                "data",
                f"{size - 4} bytes for an address of {wanted}",
                4,
                log="ikev2-id-length",
                values={"length": wanted + 8, "received": size + 4},
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        return cls(type, id_type, bytes(body[4:]), bytes(body[1:4]))

    def emit(self) -> bytes:
        """Also what the AUTH payload signs: the body after the generic header, as sent (RFC 7296 2.15)."""
        return bytes((self.id_type,)) + self.reserved + self.data


@dataclass(frozen=True, slots=True)
class CertV2:
    """A certificate, CRL or hash and URL, by `encoding` (a CertEncoding)."""

    encoding: int
    data: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.CERT

    @classmethod
    def parse(cls, body: memoryview) -> CertV2:
        """Raises PayloadError without data or for an encoding that is not assigned."""
        _check_encoding("CERT", body, "ikev2-cert-incomplete")
        return cls(body[0], bytes(body[1:]))

    def emit(self) -> bytes:
        return bytes((self.encoding,)) + self.data


@dataclass(frozen=True, slots=True)
class CertReqV2:
    """Trust anchors by the SHA-1 hashes of their public key info (20 octets each, for X.509)."""

    encoding: int
    data: bytes

    @property
    def type(self) -> int:
        return PayloadTypeV2.CERTREQ

    @classmethod
    def parse(cls, body: memoryview) -> CertReqV2:
        """Raises PayloadError for an empty body or an X.509 request that is no row of 20-octet hashes."""
        size = len(body)
        if not size or (body[0] == 4 and (size - 1) % 20):
            raise PayloadError(
                "CERTREQ",
                "length",
                f"{size} bytes",
                log="ikev2-certreq-length",
                values={"length": size + 4, "received": size},
                notify=NotifyTypeV2.INVALID_SYNTAX,
            )
        return cls(body[0], bytes(body[1:]))

    @property
    def authorities(self) -> tuple[bytes, ...]:
        return tuple(self.data[at : at + 20] for at in range(0, len(self.data), 20))

    def emit(self) -> bytes:
        return bytes((self.encoding,)) + self.data


def _check_encoding(payload: str, body: memoryview, incomplete: str) -> None:
    size = len(body)
    if size < 2:
        raise PayloadError(
            payload,
            "length",
            f"{size} bytes",
            size,
            log=incomplete,
            values={"received": size},
            notify=NotifyTypeV2.INVALID_SYNTAX,
        )
    if body[0] not in _ENCODINGS:
        raise PayloadError(
            payload,
            "encoding",
            f"{body[0]}",
            log="ikev2-cert-encoding",
            values={"encoding": body[0]},
            notify=NotifyTypeV2.INVALID_SYNTAX,
        )
