"""Messages of version 2: the chain of payloads in clear, and the one inside an Encrypted payload."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from chassis.ase.ike.payloads.chain import (
    GENERIC,
    GENERIC_LENGTH,
    MAX_PAYLOADS,
    Payload,
    PayloadError,
    UnknownPayload,
    emit_chain,
)
from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2
from chassis.ase.ike.payloads.v2_payloads import (
    KNOWN_ATTRIBUTES,
    TS,
    Auth,
    CertReqV2,
    CertV2,
    ConfigPayload,
    DeleteV2,
    Eap,
    Encrypted,
    EncryptedFragment,
    IdV2,
    KeV2,
    NonceV2,
    NotifyV2,
    VendorV2,
)
from chassis.ase.ike.payloads.v2_sa import KEY_LENGTH, SaV2
from chassis.net.types import Buffer

PayloadV2: TypeAlias = (
    SaV2 | KeV2 | IdV2 | CertV2 | CertReqV2 | Auth | NonceV2 | NotifyV2 | DeleteV2 | VendorV2 | TS | Encrypted
    | EncryptedFragment | ConfigPayload | Eap | UnknownPayload
)  # fmt: skip

_PARSERS: Final[dict[int, Callable[[memoryview], PayloadV2]]] = {
    PayloadTypeV2.SA: SaV2.parse,
    PayloadTypeV2.KE: KeV2.parse,
    PayloadTypeV2.CERT: CertV2.parse,
    PayloadTypeV2.CERTREQ: CertReqV2.parse,
    PayloadTypeV2.AUTH: Auth.parse,
    PayloadTypeV2.NONCE: NonceV2.parse,
    PayloadTypeV2.NOTIFY: NotifyV2.parse,
    PayloadTypeV2.DELETE: DeleteV2.parse,
    PayloadTypeV2.VENDOR: VendorV2.parse,
    PayloadTypeV2.CP: ConfigPayload.parse,
    PayloadTypeV2.EAP: Eap.parse,
}
_TYPED_PARSERS: Final[dict[int, Callable[[memoryview, int], PayloadV2]]] = {
    PayloadTypeV2.ID_I: IdV2.parse,
    PayloadTypeV2.ID_R: IdV2.parse,
    PayloadTypeV2.TS_I: TS.parse,
    PayloadTypeV2.TS_R: TS.parse,
}
_ENCRYPTED_PARSERS: Final[dict[int, Callable[[memoryview, int], PayloadV2]]] = {
    PayloadTypeV2.SK: Encrypted.parse,
    PayloadTypeV2.SKF: EncryptedFragment.parse,
}
_LENGTH_LOGS: Final[dict[int, str]] = {
    PayloadTypeV2.SA: "ikev2-sa-length",
    PayloadTypeV2.KE: "ikev2-ke-length",
    PayloadTypeV2.ID_I: "ikev2-id-length",
    PayloadTypeV2.ID_R: "ikev2-id-length",
    PayloadTypeV2.CERT: "ikev2-cert-length",
    PayloadTypeV2.CERTREQ: "ikev2-certreq-length",
    PayloadTypeV2.AUTH: "ikev2-auth-length",
    PayloadTypeV2.NOTIFY: "ikev2-notify-length",
    PayloadTypeV2.DELETE: "ikev2-delete-length",
    PayloadTypeV2.VENDOR: "ikev2-vendor-length",
    PayloadTypeV2.EAP: "ikev2-eap-length",
}
"""Id of the line to log if a payload is longer than the rest of its message, by payload type."""


def parse_payloads(first: int, body: memoryview, *, decrypted: bool = False) -> tuple[PayloadV2, ...]:
    """Return the payloads of the chain that starts with type `first` and fills `body`.

    `decrypted`: the chain is from an Encrypted payload, which cannot contain another one.

    Raises:
        PayloadError: a length, the number of payloads or a payload is wrong.
    """
    payloads: list[PayloadV2] = []
    at = 0
    size = len(body)
    kind = first
    while kind:
        room = size - at
        if room < GENERIC_LENGTH:
            raise _fault(kind, "generic header", f"{room} bytes left", at, "ikev2-incomplete", received=room)
        following, flags, length = GENERIC.unpack_from(body, at)
        if length < GENERIC_LENGTH:
            raise _fault(kind, "length", f"{length}", at + 2, "ikev2-generic-header-length", length=length)
        if length > room:
            log = _LENGTH_LOGS.get(kind, "ikev2-default-length")
            raise _fault(kind, "length", f"{length} of {room} bytes", at + 2, log, length=length, received=room)
        if len(payloads) == MAX_PAYLOADS:
            raise _fault(kind, "count", f"more than {MAX_PAYLOADS} payloads", at, "")
        inner = body[at + GENERIC_LENGTH : at + length]
        at += length
        if parse := _PARSERS.get(kind):
            if kind == PayloadTypeV2.VENDOR and flags & 0x80:
                raise _fault(kind, "critical bit", "set", at - length + 1, "ikev2-vendor-critical")
            payloads.append(parse(inner))
        elif typed := _TYPED_PARSERS.get(kind):
            payloads.append(typed(inner, kind))
        elif sealed := _ENCRYPTED_PARSERS.get(kind):
            if decrypted:
                raise _fault(
                    kind, "place", "inside another Encrypted payload", at - length, "ikev2-encrypted-nested"
                )
            payloads.append(sealed(inner, following))
            break
        else:
            payloads.append(UnknownPayload(kind, bytes(inner), bool(flags & 0x80)))
        kind = following
    if at != size:
        raise _fault(
            0, "length", f"{size - at} bytes after the last payload", at, "ikev2-default-length", received=size
        )
    return tuple(payloads)


def emit_payloads(payloads: Iterable[PayloadV2]) -> tuple[int, bytes]:
    """Return (type of the first payload, octets); an Encrypted payload must be the last one."""
    chain: list[Payload] = list(payloads)
    last = 0
    for place, payload in enumerate(chain, 1):
        if isinstance(payload, Encrypted | EncryptedFragment):
            if place != len(chain):
                raise ValueError("an Encrypted payload is the last of its message")
            last = payload.first
    return emit_chain(chain, last)


def find_notify(payloads: Iterable[PayloadV2], notify: int) -> NotifyV2 | None:
    """Return the first notification of a type (a NotifyTypeV2); None if there is none."""
    return next((one for one in payloads if isinstance(one, NotifyV2) and one.notify == notify), None)


def refuse_critical(payloads: Iterable[PayloadV2]) -> None:
    """Raises PayloadError for an unknown payload with the critical bit (RFC 7296 2.5)."""
    for payload in payloads:
        if isinstance(payload, UnknownPayload) and payload.critical:
            raise PayloadError(
                "payload",
                "type",
                f"{payload.type} is critical and unknown",
                log="ikev2-unsupported-critical",
                values={"type": payload.type},
                notify=NotifyTypeV2.UNSUPPORTED_CRITICAL_PAYLOAD,
                data=bytes((payload.type,)),
            )


def ignored_attributes(payloads: Iterable[PayloadV2]) -> tuple[tuple[str, dict[str, int]], ...]:
    """Return (id, values) of the lines to log about attributes of unknown types, each once.

    They are not errors: a transform with one is not chosen (RFC 7296 3.3.6), a configuration attribute is ignored
    (RFC 7296 3.15).
    """
    found: dict[tuple[str, int, int], dict[str, int]] = {}
    for payload in payloads:
        if isinstance(payload, ConfigPayload):
            for attribute in payload.attributes:
                if attribute.type not in KNOWN_ATTRIBUTES:
                    found["ikev2-invalid-cp-attrib", attribute.type, 0] = {"type": attribute.type}
        elif isinstance(payload, SaV2):
            for proposal in payload.proposals:
                for kind in {one.type for transform in proposal.transforms for one in transform.attributes}:
                    if kind != KEY_LENGTH:
                        values = {"type": kind, "proposal": proposal.number}
                        found["ikev2-invalid-xform-attrib", kind, proposal.number] = values
    return tuple((log, values) for (log, _, _), values in found.items())


@dataclass(frozen=True, slots=True)
class MessageV2:
    """A whole message. `emit` fills in `next_payload` and `length` of its header."""

    header: Header
    payloads: tuple[PayloadV2, ...]

    @classmethod
    def parse(cls, view: Buffer) -> MessageV2:
        """Decode a message; the fields of its header are checked by `header.check()`.

        Raises:
            PayloadError: a length or a payload is wrong.
        """
        header = Header.parse(view)
        return cls(header, parse_payloads(header.next_payload, memoryview(view)[HEADER_LENGTH:]))

    def emit(self) -> bytes:
        first, body = emit_payloads(self.payloads)
        return self.header.emit_before(first, HEADER_LENGTH + len(body)) + body


def _fault(kind: int, field: str, what: str, offset: int, log: str, **values: Any) -> PayloadError:
    name = f"payload {kind}" if kind else "message"
    return PayloadError(name, field, what, offset, log=log, values=values, notify=NotifyTypeV2.INVALID_SYNTAX)


_COOKIE: Final = struct.Struct("!BBHBBH")
"""Next payload, flags and length of a payload; protocol, octets of the SPI and type of a notification."""


def without_cookie(data: bytes) -> bytes:
    """Return what identifies an IKE_SA_INIT request: its octets without the cookie, which comes first (RFC 7296
    2.6), and without its length. An initiator that is asked for a cookie sends the same request with it."""
    following, rest = data[16], data[HEADER_LENGTH:]
    if following == PayloadTypeV2.NOTIFY and len(rest) >= _COOKIE.size:
        after, _, size, protocol, spi_octets, kind = _COOKIE.unpack_from(rest)
        if (protocol, spi_octets, kind) == (0, 0, NotifyTypeV2.COOKIE) and _COOKIE.size <= size <= len(rest):
            following, rest = after, rest[size:]
    return data[:16] + bytes((following,)) + data[17:24] + rest
