"""Payloads of version 2 but the SA payload (RFC 7296 3.4 to 3.16, RFC 7383 2.5); Encrypted ones are not decrypted.

`v2` picks the class by payload type and puts payloads into a message.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar, Final

from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import AuthMethod, NotifyTypeV2, PayloadTypeV2, Protocol

_ID_OCTETS: Final = {1: 4, 5: 16}
_ID_TYPES: Final = frozenset((1, 2, 3, 5, 9, 10, 11))
_ENCODINGS: Final = frozenset((1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))


@dataclass(frozen=True, slots=True)
class IdV2:
    """`type` is PayloadTypeV2.ID_I or ID_R, `id_type` an IdType, `data` the address or name in octets.

    `reserved` are three octets as received: the peer's AUTH covers them.
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

    type: ClassVar[int] = PayloadTypeV2.CERT
    encoding: int
    data: bytes

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

    type: ClassVar[int] = PayloadTypeV2.CERTREQ
    encoding: int
    data: bytes

    @classmethod
    def parse(cls, body: memoryview) -> CertReqV2:
        """Raises PayloadError for an empty body, or X.509 hashes whose length is not a multiple of 20 octets."""
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


MIN_NONCE: Final = 16
MAX_NONCE: Final = 256

_METHODS: Final = frozenset(AuthMethod)


@dataclass(frozen=True, slots=True)
class KeV2:
    """A public value of Diffie-Hellman group `group`; its length is checked by the group."""

    type: ClassVar[int] = PayloadTypeV2.KE
    group: int
    public: bytes

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

    type: ClassVar[int] = PayloadTypeV2.NONCE
    value: bytes

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
    """Authentication data of `method` (an AuthMethod)."""

    type: ClassVar[int] = PayloadTypeV2.AUTH
    method: int
    data: bytes = field(repr=False)

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


_NOTIFY_HEAD = struct.Struct("!BBH")


def _header_fault(payload: str, what: str, offset: int, log: str, **values: int) -> PayloadError:
    return PayloadError(
        payload, "header", what, offset, log=log, values=values, notify=NotifyTypeV2.INVALID_SYNTAX
    )


@dataclass(frozen=True, slots=True)
class NotifyV2:
    """`notify` is a NotifyTypeV2 (an error below 16384); `protocol` and `spi` name a CHILD SA or are 0, b''."""

    type: ClassVar[int] = PayloadTypeV2.NOTIFY
    notify: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

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
    """Inbound SPIs of the sender, all of one protocol; protocol IKE has none and deletes the IKE SA itself."""

    type: ClassVar[int] = PayloadTypeV2.DELETE
    protocol: int
    spis: tuple[bytes, ...] = field(default=())

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
    """A vendor ID; an unknown one is ignored."""

    type: ClassVar[int] = PayloadTypeV2.VENDOR
    id: bytes

    @classmethod
    def parse(cls, body: memoryview) -> VendorV2:
        """Raises PayloadError when it is empty."""
        if not body:
            raise _header_fault("vendor ID", "empty", 0, "ikev2-vendor-incomplete", received=0)
        return cls(bytes(body))

    def emit(self) -> bytes:
        return self.id


IPV4_RANGE: Final = 7
IPV6_RANGE: Final = 8

_SELECTOR_HEAD = struct.Struct("!BBHHH")
_ADDRESS_OCTETS: Final = {IPV4_RANGE: 4, IPV6_RANGE: 16}


def _ts_fault(field: str, what: str, offset: int, log: str, **values: int) -> PayloadError:
    return PayloadError("TS", field, what, offset, log=log, values=values, notify=NotifyTypeV2.INVALID_SYNTAX)


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """Addresses `first` to `last` (numbers), ports `first_port` to `last_port`; protocol 0 is any.

    Ports 65535 to 0 mean OPAQUE; for ICMP they hold type and code.
    """

    first: int
    last: int
    protocol: int = 0
    first_port: int = 0
    last_port: int = 65535
    kind: int = IPV4_RANGE

    def emit(self) -> bytes:
        octets = _ADDRESS_OCTETS[self.kind]
        head = _SELECTOR_HEAD.pack(self.kind, self.protocol, 8 + 2 * octets, self.first_port, self.last_port)
        return head + self.first.to_bytes(octets, "big") + self.last.to_bytes(octets, "big")


@dataclass(frozen=True, slots=True)
class TS:
    """1 to 255 selectors; `type` is PayloadTypeV2.TS_I or PayloadTypeV2.TS_R."""

    type: int
    selectors: tuple[TrafficSelector, ...]

    @classmethod
    def parse(cls, body: memoryview, type: int) -> TS:
        """Raises PayloadError when there is none, or one of an unknown kind or a wrong length."""
        size = len(body)
        if size < 4:
            raise _ts_fault("length", f"{size} bytes", size, "ikev2-ts-incomplete", received=size)
        count = body[0]
        if not count:
            raise _ts_fault("selectors", "none", 0, "ikev2-ts-zero")
        selectors: list[TrafficSelector] = []
        at = 4
        for _ in range(count):
            if size - at < 8:
                raise _ts_fault(
                    "selector", f"{size - at} bytes left", at, "ikev2-ts-incomplete", received=size - at
                )
            kind, protocol, length, first_port, last_port = _SELECTOR_HEAD.unpack_from(body, at)
            octets = _ADDRESS_OCTETS.get(kind)
            if octets is None:
                raise _ts_fault("selector type", f"{kind}", at, "ikev2-invalid-ts-type", type=kind)
            if length != 8 + 2 * octets:
                raise _ts_fault("selector length", f"{length}", at + 2, "ikev2-invalid-ts-length", length=length)
            if length > size - at:
                raise _ts_fault(
                    "selector", f"{size - at} bytes left", at, "ikev2-ts-incomplete", received=size - at
                )
            middle = at + 8 + octets
            at += length
            first = int.from_bytes(body[middle - octets : middle], "big")
            last = int.from_bytes(body[middle:at], "big")
            selectors.append(TrafficSelector(first, last, protocol, first_port, last_port, kind))
        if at != size:
            raise _ts_fault("length", f"{size - at} bytes too many", at, "ikev2-default-length", received=size)
        return cls(type, tuple(selectors))

    def emit(self) -> bytes:
        return bytes((len(self.selectors), 0, 0, 0)) + b"".join([s.emit() for s in self.selectors])


CFG_REQUEST: Final = 1
CFG_REPLY: Final = 2
CFG_SET: Final = 3
CFG_ACK: Final = 4
MAX_CONFIG_ATTRIBUTES: Final = 128

KNOWN_ATTRIBUTES: Final = frozenset((1, 2, 3, 4, 6, 7, 8, 10, 12, 13, 14, 15))
"""Attribute types that RFC 7296 defines; others are ignored and logged."""

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

    type: ClassVar[int] = PayloadTypeV2.CP
    kind: int
    attributes: tuple[ConfigAttribute, ...] = ()

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
    """An EAP message as octets; only its length field is checked."""

    type: ClassVar[int] = PayloadTypeV2.EAP
    message: bytes

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


MAX_FRAGMENTS: Final = 64
"""Fragments of one message (count): 64 of at least 548 octets hold every message that peers send."""

_FRAGMENT_HEAD = struct.Struct("!HH")


def _encrypted_fault(payload: str, field: str, what: str, size: int) -> PayloadError:
    values = {"received": size}
    return PayloadError(
        payload, field, what, log="ikev2-default-incomplete", values=values, notify=NotifyTypeV2.INVALID_SYNTAX
    )


@dataclass(frozen=True, slots=True)
class Encrypted:
    """`body` is IV, ciphertext and integrity check value; `first` the type of the first payload inside."""

    type: ClassVar[int] = PayloadTypeV2.SK
    first: int
    body: bytes

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

    type: ClassVar[int] = PayloadTypeV2.SKF
    first: int
    number: int
    total: int
    body: bytes

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
