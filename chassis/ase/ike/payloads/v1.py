"""Messages of version 1: the chain of payloads, in clear or as decrypted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from chassis.ase.ike.payloads.chain import GENERIC, GENERIC_LENGTH, MAX_PAYLOADS, Unknown, emit_chain
from chassis.ase.ike.payloads.errors import PayloadError
from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, PayloadTypeV1
from chassis.ase.ike.payloads.v1_identity import CertReqV1, CertV1, IdV1, NatOa
from chassis.ase.ike.payloads.v1_notify import DeleteV1, NotifyV1
from chassis.ase.ike.payloads.v1_opaque import Hash, KeV1, NatD, NonceV1, Signature, VendorV1
from chassis.ase.ike.payloads.v1_sa import SaV1
from chassis.net.types import Buffer

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
    | Unknown
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
_TYPED: Final[dict[int, Callable[[memoryview, int], PayloadV1]]] = {
    PayloadTypeV1.NAT_D: NatD.parse,
    PayloadTypeV1.NAT_D_DRAFT: NatD.parse,
    PayloadTypeV1.NAT_OA: NatOa.parse,
    PayloadTypeV1.NAT_OA_DRAFT: NatOa.parse,
}
_PASSED_OVER: Final = frozenset((PayloadTypeV1.ATTRIBUTES, PayloadTypeV1.FRAGMENT))
"""Types of extensions that peers may send and that mean nothing here."""


def parse_payloads(first: int, body: memoryview, *, padded: bool = False) -> tuple[PayloadV1, ...]:
    """The chain that starts with type `first`; raises PayloadError.

    `padded` says that `body` was decrypted: what follows the last payload is then padding
    (RFC 2409 appendix B), otherwise nothing may follow. A length beyond the message carries the
    log line for different preshared keys: under a wrong key the first lengths are noise. So is the
    reserved octet before it, which is judged after it.
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
        typed = _TYPED.get(kind)
        if parse is None and typed is None and kind not in _PASSED_OVER:
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
            payloads.append(Unknown(kind, bytes(inner)))
        at += length
        kind = following
    if at != size and not padded:
        raise _fault(
            0, "length", f"{size - at} bytes after the last payload", at, NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS
        )
    return tuple(payloads)


def emit_payloads(payloads: Iterable[PayloadV1]) -> tuple[int, bytes]:
    """(first type, octets) of a chain."""
    return emit_chain(list(payloads))


@dataclass(frozen=True, slots=True)
class MessageV1:
    """A whole message in clear. `emit` fills in `next_payload` and `length` of its header."""

    header: Header
    payloads: tuple[PayloadV1, ...]

    @classmethod
    def parse(cls, view: Buffer) -> MessageV1:
        """Raises PayloadError. The fields of the header are as they came: `header.check()` judges them."""
        header = Header.parse(view)
        return cls(header, parse_payloads(header.next_payload, memoryview(view)[HEADER_LENGTH:]))

    def emit(self) -> bytes:
        first, body = emit_payloads(self.payloads)
        return replace(self.header, next_payload=first, length=HEADER_LENGTH + len(body)).emit() + body


def _fault(
    kind: int, field: str, what: str, offset: int, notify: int, log: str = "", **values: int
) -> PayloadError:
    name = f"payload {kind}" if kind else "message"
    return PayloadError(name, field, what, offset, log=log, values=values, notify=notify)
